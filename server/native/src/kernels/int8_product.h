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
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/gelu.h"

namespace bertd {

constexpr size_t int8_group = 4;

// A weight for one instruction set; all arrays reach to the end of the last panel.
struct Int8Weight {
  size_t inputs;
  size_t outputs;
  const int8_t* levels;    // [panels, groups, columns of a panel, 4]
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
};

template <class V>
class Int8Products {
 public:
  static constexpr size_t panel = 2 * V::width;

  static void run(const Int8Product& p) {
    for (size_t at = p.first_panel; at < p.end_panel; ++at) {
      size_t row = p.first_row;
      for (; row + tile <= p.end_row; row += tile) rows<tile>(p, row, at);
      const size_t rest = p.end_row - row;
      if (rest == 3) rows<3>(p, row, at);
      if (rest == 2) rows<2>(p, row, at);
      if (rest == 1) rows<1>(p, row, at);
    }
  }

 private:
  using F = typename V::F;
  using I = typename V::I;
  static constexpr size_t tile = 4;  // eight sums, two registers of weights, one of a row: of 16
  static constexpr size_t ahead = 2048;  // bytes of weights asked for before they are needed

  template <size_t count>
  static void rows(const Int8Product& p, size_t row, size_t at) {
    const Int8Weight& w = p.weight;
    const size_t column = at * panel;
    const size_t whole = w.inputs / int8_group;
    const size_t rest = w.inputs % int8_group;
    const int8_t* weights = w.levels + column * (whole + (rest != 0)) * int8_group;
    const uint8_t* inputs = p.rows + row * w.inputs;
    I sums[count][2];
#pragma GCC unroll 4
    for (size_t r = 0; r < count; ++r) {
      sums[r][0] = V::integers(w.offsets + column);
      sums[r][1] = V::integers(w.offsets + column + V::width);
    }
    for (size_t group = 0; group < whole; ++group) {
      __builtin_prefetch(weights + ahead);
      step<count>(sums, inputs, w.inputs, int8_group, weights);
      inputs += int8_group;
      weights += panel * int8_group;
    }
    if (rest != 0) step<count>(sums, inputs, w.inputs, rest, weights);
#pragma GCC unroll 4
    for (size_t r = 0; r < count; ++r) {
      store(p, row + r, column, sums[r][0]);
      store(p, row + r, column + V::width, sums[r][1]);
    }
  }

  // Adds one group's products; of each row it reads so many bytes.
  template <size_t count>
  static inline __attribute__((always_inline)) void step(I (&sums)[count][2],
                                                         const uint8_t* inputs, size_t stride,
                                                         size_t bytes, const int8_t* weights) {
    const I left = V::bytes(weights);
    const I right = V::bytes(weights + V::width * int8_group);
#pragma GCC unroll 4
    for (size_t r = 0; r < count; ++r) {
      uint32_t four = 0;
      __builtin_memcpy(&four, inputs + r * stride, bytes);
      const I same = V::same(four);
      sums[r][0] = V::dot(sums[r][0], same, left);
      sums[r][1] = V::dot(sums[r][1], same, right);
    }
  }

  static inline __attribute__((always_inline)) void store(const Int8Product& p, size_t row, size_t column, I sums) {
    const size_t outputs = p.weight.outputs;
    if (column >= outputs) return;
    const size_t count = outputs - column < V::width ? outputs - column : V::width;
    const F scale = V::load(p.weight.scales + column);
    const F bias = V::load(p.weight.biases + column);
    F x = V::floats(sums);
    if (p.row_scales == nullptr) {
      x = V::fma(x, scale, bias);
    } else {
      x = V::fma(V::mul(x, scale), V::set(p.row_scales[row]), bias);
    }
    const size_t place = row * outputs + column;
    if (p.levels != nullptr) {
      x = V::mul(gelu<V>(x), V::set(p.inverse_scale));
      if (count == V::width) return V::store_levels(p.levels + place, x, p.zero);
      return V::store_first_levels(p.levels + place, x, p.zero, count);
    }
    if (count == V::width) {
      if (p.stream != nullptr) x = V::add(x, V::load(p.stream + place));
      return V::store(p.out + place, x);
    }
    if (p.stream != nullptr) x = V::add(x, V::load_first(p.stream + place, count));
    V::store_first(p.out + place, x, count);
  }
};

}  // namespace bertd
