// Rows of floats as levels of uint8, by one scale for all or by each row's own largest value.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bertd {

struct RowsToLevels {
  const float* rows;  // [count, width]
  size_t count;
  size_t width;
  float inverse_scale;  // 1 / the float value of one level
  int zero;             // the level of 0.0
  uint8_t* levels;      // [count, width]
  float* row_scales;    // what each row is divided by first, [count]: found here; or null
  bool magnitude;       // a row's scale is its largest magnitude, not its largest value
  float floor;          // the least scale of a row
};

template <class V>
class Levels {
 public:
  static void run(const RowsToLevels& r) {
    for (size_t row = 0; row < r.count; ++row) {
      const float* from = r.rows + row * r.width;
      float inverse = r.inverse_scale;
      if (r.row_scales != nullptr) {
        const float largest = r.magnitude ? peak<true>(from, r.width) : peak<false>(from, r.width);
        r.row_scales[row] = largest > r.floor ? largest : r.floor;
        inverse = 1.0f / r.row_scales[row] * r.inverse_scale;
      }
      convert(from, r.width, V::set(inverse), r.zero, r.levels + row * r.width);
    }
  }

 private:
  using F = typename V::F;

  template <bool magnitude>
  static float peak(const float* from, size_t width) {
    const F zero = V::set(0.0f);
    F found = V::load_first(from, width < V::width ? width : V::width);
    if (magnitude) found = V::max(found, V::sub(zero, found));
    size_t at = 0;
    for (; at + V::width <= width; at += V::width) {
      const F x = V::load(from + at);
      found = V::max(found, magnitude ? V::max(x, V::sub(zero, x)) : x);
    }
    float result = V::highest(found);
    for (; at < width; ++at) {
      const float x = magnitude && from[at] < 0 ? -from[at] : from[at];
      result = result > x ? result : x;
    }
    return result;
  }

  static void convert(const float* from, size_t width, F inverse, int zero, uint8_t* to) {
    size_t at = 0;
    for (; at + V::width <= width; at += V::width) {
      V::store_levels(to + at, V::mul(V::load(from + at), inverse), zero);
    }
    const size_t rest = width - at;
    if (rest == 0) return;
    const F x = V::mul(V::load_first(from + at, rest), inverse);
    V::store_first_levels(to + at, x, zero, rest);
  }
};

}  // namespace bertd
