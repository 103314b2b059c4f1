// Rows of uint8 times a packed weight of int8, and what is done to the sums before they are stored.
//
//   weight [inputs, outputs]        panels, each [groups, columns, 4]
//   ┌───────────────┐               ┌────────────────────────────┐
//   │ 4 inputs      │               │ column 0  column 1  …      │ group 0: inputs 0 to 3
//   │ x a panel's   │  ──packed──>  │ w0 w1 w2 w3  w0 w1 w2 w3 … │
//   │ columns       │               │ …                          │ group 1: inputs 4 to 7
//   └───────────────┘               └────────────────────────────┘
//
// A group of a row's inputs is four bytes, which an instruction multiplies with those of every
// column of a register. Missing inputs and columns are zeros. Sums are integers, thus exact in any
// order; each begins with minus the zero point of the rows times the sum of its column.
//
// Two groups are a pair, whose products are added in 16 bits before they are widened: three
// multiplications in the place of four. Where a column's weights could exceed 16 bits with any
// rows, the panel has zeros in the place of the pair's second group, and that group is among its
// extra ones, which are multiplied on their own. Of real weights 3 % of the pairs are such.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/gelu.h"

namespace bertd {

constexpr size_t int8_group = 4;
constexpr size_t int8_pair = 2 * int8_group;

// A weight for one instruction set; all arrays reach to the end of the last panel.
struct Int8Weight {
  size_t inputs;
  size_t outputs;
  const int8_t* levels;    // [panels, groups, columns of a panel, 4]
  const int8_t* extra;     // [extra groups, columns of a panel, 4], panel by panel
  const uint32_t* places;  // of each extra group: its first input
  const uint32_t* ends;    // of each panel: how many extra groups it and those before it have
  const int32_t* offsets;  // what each sum begins with
  const float* scales;     // float value of one step of each sum
  const float* biases;
};

// A block of rows and panels; out and levels have the whole width of the weight's outputs.
struct Int8Product {
  const Int8Weight& weight;
  const uint8_t* rows;      // [., inputs]
  const float* row_scales;  // what each row is multiplied by before the bias, or null
  size_t first_row;
  size_t end_row;
  size_t first_panel;
  size_t end_panel;
  const float* stream;  // added at last, [., outputs], or null
  float* out;           // where no levels are asked for
  uint8_t* levels;      // of Gelu, in place of out; or null
  float inverse_scale;  // 1 / the float value of one level
  int zero;             // the level of 0.0
  bool tanh = false;    // which form of Gelu
};

template <class V>
class Int8Products {
 public:
  static constexpr size_t panel = 2 * V::width;

  static void run(const Int8Product& p) {
    for (size_t at = p.first_panel; at < p.end_panel; ++at) {
      // The next panel comes to the cache evenly while this one is used.
      const size_t tiles = (p.end_row - p.first_row + V::int8_rows - 1) / V::int8_rows;
      const size_t bytes = panel * int8_group * ((p.weight.inputs + int8_group - 1) / int8_group);
      const size_t stride = panel * int8_pair / tiles;
      const int8_t* next = p.weight.levels + (at + 1) * bytes;
      for (size_t row = p.first_row, left = tiles; left > 0; --left) {
        const size_t count = (p.end_row - row + left - 1) / left;  // tiles of nearly equal size
        pick<V::int8_rows>(count, p, row, at, next, stride);
        row += count;
        next += bytes / tiles;
      }
    }
  }

  // Adds the products of the inputs from done on, which is a multiple of a group, and of extra
  // groups; then does what follows the sums.
  template <size_t count>
  static inline __attribute__((always_inline)) void rest(const Int8Product& p, size_t row,
                                                         size_t at, size_t done,
                                                         typename V::I (&sums)[count][2]) {
    const Int8Weight& w = p.weight;
    const size_t column = at * panel;
    const size_t groups = (w.inputs + int8_group - 1) / int8_group;
    const int8_t* weights = w.levels + column * groups * int8_group + done * panel;
    const uint8_t* first = p.rows + row * w.inputs;
    const uint8_t* inputs = first + done;
    for (size_t left = w.inputs - done; left != 0;) {
      const size_t bytes = left < int8_group ? left : int8_group;
      step<count>(sums, inputs, w.inputs, bytes, weights);
      inputs += bytes;
      weights += panel * int8_group;
      left -= bytes;
    }
    for (size_t extra = at == 0 ? 0 : w.ends[at - 1]; extra < w.ends[at]; ++extra) {
      step<count>(sums, first + w.places[extra], w.inputs, int8_group,
                  w.extra + extra * panel * int8_group);
    }
    finish<count>(p, row, column, sums);
  }

 private:
  using F = typename V::F;
  using I = typename V::I;

  template <size_t most>
  static void pick(size_t count, const Int8Product& p, size_t row, size_t at, const int8_t* next,
                   size_t stride) {
    if (count == most) return rows<most>(p, row, at, next, stride);
    if constexpr (most > 1) pick<most - 1>(count, p, row, at, next, stride);
  }

  template <size_t count>
  static __attribute__((noinline)) void rows(const Int8Product& p, size_t row, size_t at, const int8_t* next,
                   size_t stride) {
    const Int8Weight& w = p.weight;
    const size_t column = at * panel;
    const size_t pairs = w.inputs / int8_pair;
    const size_t groups = (w.inputs + int8_group - 1) / int8_group;
    const int8_t* weights = w.levels + column * groups * int8_group;
    const uint8_t* inputs = p.rows + row * w.inputs;
    constexpr size_t lines = panel * int8_pair / 64;  // of the cache, that a pair of groups has
    I sums[count][2];
#pragma GCC unroll 16
    for (size_t r = 0; r < count; ++r) {
      sums[r][0] = V::integers(w.offsets + column);
      sums[r][1] = V::integers(w.offsets + column + V::width);
    }
    for (size_t pair = 0; pair < pairs; ++pair) {
#pragma GCC unroll 4
      for (size_t line = 0; line < lines; ++line) {
        __builtin_prefetch(next + line * stride / lines, 0, 3);
      }
      next += stride;
      step_pair<count>(sums, inputs, w.inputs, weights);
      inputs += int8_pair;
      weights += panel * int8_pair;
    }
    rest<count>(p, row, at, pairs * int8_pair, sums);
  }

  // Adds the products of two groups whose sums fit into 16 bits.
  template <size_t count>
  static inline __attribute__((always_inline)) void step_pair(I (&sums)[count][2],
                                                              const uint8_t* inputs, size_t stride,
                                                              const int8_t* weights) {
    constexpr size_t vector = V::width * int8_group;
    const I left = V::bytes(weights), right = V::bytes(weights + vector);
    const I left2 = V::bytes(weights + 2 * vector), right2 = V::bytes(weights + 3 * vector);
#pragma GCC unroll 16
    for (size_t r = 0; r < count; ++r) {
      uint32_t four = 0, next_four = 0;
      __builtin_memcpy(&four, inputs + r * stride, int8_group);
      __builtin_memcpy(&next_four, inputs + r * stride + int8_group, int8_group);
      const I same = V::same(four), same2 = V::same(next_four);
      sums[r][0] = V::dot_pair(sums[r][0], same, left, same2, left2);
      sums[r][1] = V::dot_pair(sums[r][1], same, right, same2, right2);
    }
  }

  // Adds one group's products; of each row it reads so many bytes.
  template <size_t count>
  static inline __attribute__((always_inline)) void step(I (&sums)[count][2],
                                                         const uint8_t* inputs, size_t stride,
                                                         size_t bytes, const int8_t* weights) {
    const I left = V::bytes(weights);
    const I right = V::bytes(weights + V::width * int8_group);
#pragma GCC unroll 16
    for (size_t r = 0; r < count; ++r) {
      uint32_t four = 0;
      __builtin_memcpy(&four, inputs + r * stride, bytes);
      const I same = V::same(four);
      sums[r][0] = V::dot(sums[r][0], same, left);
      sums[r][1] = V::dot(sums[r][1], same, right);
    }
  }

  template <size_t count>
  static inline __attribute__((always_inline)) void finish(const Int8Product& p, size_t row,
                                                           size_t column, I (&sums)[count][2]) {
    const size_t stride = p.weight.outputs;
    const bool whole = column + panel <= stride;
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; ++half, column += V::width) {
      const F scale = V::load(p.weight.scales + column);
      const F bias = V::load(p.weight.biases + column);
      F x[count];
#pragma GCC unroll 16
      for (size_t r = 0; r < count; ++r) {
        x[r] = V::floats(sums[r][half]);
        if (p.row_scales == nullptr) {
          x[r] = V::fma(x[r], scale, bias);
        } else {
          x[r] = V::fma(V::mul(x[r], scale), V::set(p.row_scales[row + r]), bias);
        }
      }
      const size_t place = row * stride + column;
      if (!whole) {
        for (size_t r = 0; r < count && column < stride; ++r) {
          store_some(p, place + r * stride, stride - column, x[r]);
        }
      } else if (p.levels != nullptr && p.tanh) {
        store_gelu<count, ByTanh>(p, place, x);
      } else if (p.levels != nullptr) {
        store_gelu<count, ByErf>(p, place, x);
      } else if (p.stream != nullptr) {
#pragma GCC unroll 16
        for (size_t r = 0; r < count; ++r) {
          const size_t at = place + r * stride;
          V::store(p.out + at, V::add(x[r], V::load(p.stream + at)));
        }
      } else {
#pragma GCC unroll 16
        for (size_t r = 0; r < count; ++r) V::store(p.out + place + r * stride, x[r]);
      }
    }
  }

  template <size_t count, class Form>
  static inline __attribute__((always_inline)) void store_gelu(const Int8Product& p, size_t place,
                                                               const F (&x)[count]) {
#pragma GCC unroll 4
    for (size_t r = 0; r < count; ++r) {
      const F levels = gelu<V, Form>(x[r], V::set(0.5f * p.inverse_scale));
      V::store_levels(p.levels + place + r * p.weight.outputs, levels, p.zero);
    }
  }

  // The same in the last panel, of which only some columns exist.
  static void store_some(const Int8Product& p, size_t place, size_t columns, F x) {
    const size_t count = columns < V::width ? columns : V::width;
    if (p.levels != nullptr) {
      const F factor = V::set(0.5f * p.inverse_scale);
      x = p.tanh ? gelu<V, ByTanh>(x, factor) : gelu<V, ByErf>(x, factor);
      return V::store_first_levels(p.levels + place, x, p.zero, count);
    }
    if (p.stream != nullptr) x = V::add(x, V::load_first(p.stream + place, count));
    V::store_first(p.out + place, x, count);
  }
};

}  // namespace bertd
