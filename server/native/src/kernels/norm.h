// LayerNormalization of rows, and their levels of uint8 in the same pass.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bertd {

struct NormedRows {
  float* rows;  // [count, width]; replaced by what is normalised if keep
  size_t count;
  size_t width;
  const float* gamma;
  const float* beta;
  float epsilon;
  bool keep;
  const float* multipliers;  // from a normalised channel to its level, [width], or null
  int zero;                  // the level of 0.0
  uint8_t* levels;           // [count, width] where there are multipliers
};

template <class V>
class Norm {
 public:
  static void run(const NormedRows& n) {
    for (size_t row = 0; row < n.count; ++row) {
      float* x = n.rows + row * n.width;
      const float count = static_cast<float>(n.width);
      const float mean = sum(x, n.width) / count;
      const float variance = squares(x, n.width, V::set(mean)) / count;
      const float deviation = __builtin_sqrtf(variance + n.epsilon);
      write(n, x, V::set(mean), V::set(1.0f / deviation),
            n.levels == nullptr ? nullptr : n.levels + row * n.width);
    }
  }

 private:
  using F = typename V::F;

  // Four sums side by side, because an addition takes longer than the next one waits.
  template <class Term>
  static float total(const float* x, size_t width, const Term& term) {
    F sums[4] = {V::set(0.0f), V::set(0.0f), V::set(0.0f), V::set(0.0f)};
    size_t at = 0;
    for (; at + 4 * V::width <= width; at += 4 * V::width) {
#pragma GCC unroll 4
      for (size_t i = 0; i < 4; ++i) sums[i] = term(sums[i], V::load(x + at + i * V::width));
    }
    for (; at + V::width <= width; at += V::width) sums[0] = term(sums[0], V::load(x + at));
    if (at < width) {
      const F more = term(V::set(0.0f), V::load_first(x + at, width - at));
      sums[1] = V::add(sums[1], V::between(more, 0, width - at, 0.0f));
    }
    return V::sum(V::add(V::add(sums[0], sums[1]), V::add(sums[2], sums[3])));
  }

  static float sum(const float* x, size_t width) {
    return total(x, width, [](F sum, F x) { return V::add(sum, x); });
  }

  static float squares(const float* x, size_t width, F mean) {
    return total(x, width, [mean](F sum, F x) {
      const F centred = V::sub(x, mean);
      return V::fma(centred, centred, sum);
    });
  }

  static void write(const NormedRows& n, float* x, F mean, F inverse, uint8_t* levels) {
    size_t at = 0;
    for (; at + V::width <= n.width; at += V::width) {
      const F y = V::fma(V::mul(V::sub(V::load(x + at), mean), inverse), V::load(n.gamma + at),
                         V::load(n.beta + at));
      if (n.keep) V::store(x + at, y);
      if (n.multipliers != nullptr) {
        V::store_levels(levels + at, V::mul(y, V::load(n.multipliers + at)), n.zero);
      }
    }
    const size_t rest = n.width - at;
    if (rest == 0) return;
    const F y = V::fma(V::mul(V::sub(V::load_first(x + at, rest), mean), inverse),
                       V::load_first(n.gamma + at, rest), V::load_first(n.beta + at, rest));
    if (n.keep) V::store_first(x + at, y, rest);
    if (n.multipliers != nullptr) {
      const F level = V::mul(y, V::load_first(n.multipliers + at, rest));
      V::store_first_levels(levels + at, level, n.zero, rest);
    }
  }
};

}  // namespace bertd
