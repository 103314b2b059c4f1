// Rows of floats times a weight in panels, and what is done to the sums before they are stored.
//
//   weight [inputs, outputs]        panels, each [inputs, 32]
//   ┌───────────────┐               ┌───────────────────────┐
//   │ 32 columns of │               │ input 0: its 32 floats│
//   │ every input   │  ──in file──> │ input 1: its 32 floats│
//   │               │               │ …                     │
//   └───────────────┘               └───────────────────────┘
//
// The bundle's file has panels already, the same for every instruction set: two registers of
// sixteen floats or four of eight. They are read where the file is mapped, and never copied.
//
// A sum begins with its bias and takes one product after the other, from the first input to the
// last, in a register of its own: one order in every tile.
#pragma once

#include <cstddef>

#include "kernels/exact_gelu.h"

namespace bertd {

constexpr size_t fp32_panel = 32;

struct Fp32Weight {
  size_t inputs;
  size_t outputs;       // a multiple of fp32_panel
  const float* panels;  // [panels, inputs, fp32_panel]
  const float* bias;    // [outputs]
};

enum class Activation { none, gelu, gelu_tanh };

// A block of rows and panels; stream and out have the whole width of the weight's outputs.
struct Fp32Product {
  const Fp32Weight& weight;
  const float* rows;  // [., inputs]
  size_t first_row;
  size_t end_row;
  size_t first_panel;
  size_t end_panel;
  Activation activation;
  const float* stream;  // added at last, or null
  float* out;
};

template <class V>
class Fp32Products {
 public:
  static void run(const Fp32Product& p) {
    constexpr size_t parts = fp32_panel / columns;
    const size_t count = p.end_row - p.first_row;
    const size_t tiles = (count + V::tile_rows - 1) / V::tile_rows;
    const size_t size = p.weight.inputs * fp32_panel;
    // A lone tile waits for its own panel all the time. Where that comes from the last cache,
    // nothing else may come before it; models of large weights are in memory rather.
    const size_t early = tiles > 1 || p.weight.inputs * p.weight.outputs > large;
    for (size_t at = p.first_panel; at < p.end_panel; ++at) {
      // The next panel comes to the second cache evenly while this one is used.
      const float* next = p.weight.panels + (at + early) * size;
      for (size_t step = 0; step < tiles * parts; ++step) {
        const size_t tile = step / parts;
        const size_t row = p.first_row + count * tile / tiles;
        const size_t end = p.first_row + count * (tile + 1) / tiles;
        const Ahead ahead{next + size * step / (tiles * parts), fp32_panel / (tiles * parts)};
        of_rows<V::tile_rows>(p, row, end - row, at, step % parts * columns, ahead);
      }
    }
  }

 private:
  using F = typename V::F;
  static constexpr size_t columns = 2 * V::width;  // of a tile
  static constexpr size_t line = 16;               // floats of a cache line
  static constexpr size_t near = 32 * fp32_panel;  // how far ahead the first cache is filled

  static constexpr size_t large = 1 << 20;         // floats of a weight: none of MiniLM's

  // What an input of a tile fetches of the next panel.
  struct Ahead {
    const float* from;
    size_t step;
  };

  // Calls the tile of just so many rows: sums stay in registers where their number is constant.
  template <size_t count>
  static void of_rows(const Fp32Product& p, size_t row, size_t wanted, size_t at, size_t column,
                      const Ahead& ahead) {
    if constexpr (count > 1) {
      if (wanted != count) return of_rows<count - 1>(p, row, wanted, at, column, ahead);
    }
    tile<count>(p, row, at, column, ahead);
  }

  template <size_t count>
  static __attribute__((noinline)) void tile(const Fp32Product& p, size_t row, size_t at,
                                             size_t column, Ahead ahead) {
    const Fp32Weight& w = p.weight;
    const float* weights = w.panels + at * w.inputs * fp32_panel + column;
    const float* x = p.rows + row * w.inputs;
    const size_t place = at * fp32_panel + column;
    F sums[count][2];
#pragma GCC unroll 16
    for (size_t r = 0; r < count; ++r) {
      sums[r][0] = V::load(w.bias + place);
      sums[r][1] = V::load(w.bias + place + V::width);
    }
    for (size_t input = 0; input < w.inputs; ++input, weights += fp32_panel) {
      for (size_t at = 0; at < columns; at += line) __builtin_prefetch(weights + near + at, 0, 3);
      __builtin_prefetch(ahead.from, 0, 2);
      ahead.from += ahead.step;
      const F left = V::load(weights), right = V::load(weights + V::width);
#pragma GCC unroll 16
      for (size_t r = 0; r < count; ++r) {
        const F same = V::set(x[r * w.inputs + input]);
        sums[r][0] = V::fma(same, left, sums[r][0]);
        sums[r][1] = V::fma(same, right, sums[r][1]);
      }
    }
    finish<count>(p, row * w.outputs + place, sums);
  }

  template <size_t count>
  static inline __attribute__((always_inline)) void finish(const Fp32Product& p, size_t place,
                                                           F (&sums)[count][2]) {
#pragma GCC unroll 16
    for (size_t r = 0; r < count; ++r, place += p.weight.outputs) {
      F left = sums[r][0], right = sums[r][1];
      if (p.activation == Activation::gelu) {
        left = exact_gelu<V, ErfShare>(left);
        right = exact_gelu<V, ErfShare>(right);
      } else if (p.activation == Activation::gelu_tanh) {
        left = exact_gelu<V, TanhShare>(left);
        right = exact_gelu<V, TanhShare>(right);
      }
      if (p.stream != nullptr) {
        left = V::add(left, V::load(p.stream + place));
        right = V::add(right, V::load(p.stream + place + V::width));
      }
      V::store(p.out + place, left);
      V::store(p.out + place + V::width, right);
    }
  }
};

}  // namespace bertd
