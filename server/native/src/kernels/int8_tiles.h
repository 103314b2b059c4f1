// The same product as int8_product.h's in AMX's tiles; what follows the sums is that file's code.
//
//   C [16 rows, 16 columns] += A [16 rows, 64 inputs] x B [16 groups of 4 inputs, 16 columns]
//
// A panel's 16 groups are B as they lie: 128 bytes from one to the next. Sums are integers, exact
// in any order: a row has the same ones in tiles and in registers, so that few rows, and the inputs
// beyond the last whole step, go by registers, and bits are those of int8_product.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "isa/tiles.h"
#include "kernels/int8_product.h"

namespace bertd {

template <class V>
class Int8Tiles {
 public:
  static void run(const Int8Product& p) {
    const size_t rows = p.end_row - p.first_row;
    if (rows < fewest_rows || p.weight.inputs < step) return Products::run(p);
    size_t row = p.first_row;
    if (const size_t blocks = rows / (2 * tile)) {
      tall(p, row, 2 * tile, blocks);
      row += blocks * 2 * tile;
    }
    if (p.end_row - row > tile) {
      tall(p, row, p.end_row - row, 1);
    } else if (row < p.end_row) {
      flat(p, row, p.end_row - row);
    }
    tiles::release();
  }

 private:
  using Products = Int8Products<V>;
  using I = typename V::I;
  static constexpr size_t tile = 16;         // rows of C, and its columns
  static constexpr size_t step = 64;         // inputs
  static constexpr size_t fewest_rows = 4;   // fewer are as fast in registers
  static constexpr size_t panel = Products::panel;
  static constexpr size_t group = panel * int8_group;  // bytes of a group of inputs in a panel
  static_assert(panel == 2 * tile);

  struct Sums {
    alignas(64) int32_t of[tile][panel];
  };

  static const int8_t* panel_of(const Int8Product& p, size_t at) {
    return p.weight.levels + at * group * ((p.weight.inputs + int8_group - 1) / int8_group);
  }

  // Blocks of more than 16 rows and at most 32, with one panel after the other, which so stays in
  // the cache: two tiles of rows, times two of the panel.
  static void tall(const Int8Product& p, size_t first_row, size_t rows, size_t blocks) {
    tiles::configure({{tile, tile, rows - tile, rows - tile, tile, rows - tile, tile, tile}});
    for (size_t at = p.first_panel; at < p.end_panel; ++at) {
      for (size_t block = 0; block < blocks; ++block) {
        tall_block(p, first_row + block * rows, rows, at);
      }
    }
  }

  static void tall_block(const Int8Product& p, size_t row, size_t rows, size_t at) {
    const size_t inputs = p.weight.inputs;
    const uint8_t* first = p.rows + row * inputs;
    const uint8_t* second = first + tile * inputs;
    const int8_t* weights = panel_of(p, at);
    const int32_t* offsets = p.weight.offsets + at * panel;
    tiles::load<0>(offsets, 0);  // each row begins with the same
    tiles::load<1>(offsets + tile, 0);
    tiles::load<2>(offsets, 0);
    tiles::load<3>(offsets + tile, 0);
    for (size_t input = 0; input + step <= inputs; input += step) {
      const int8_t* here = weights + input * panel;
      tiles::load<6>(here, group);
      tiles::load<4>(first + input, inputs);
      tiles::load<7>(here + step, group);
      tiles::multiply_bytes<0, 4, 6>();
      tiles::load<5>(second + input, inputs);
      tiles::multiply_bytes<1, 4, 7>();
      tiles::multiply_bytes<2, 5, 6>();
      tiles::multiply_bytes<3, 5, 7>();
    }
    Sums sums[2];
    tiles::store<0>(sums[0].of[0], group);
    tiles::store<1>(sums[0].of[0] + tile, group);
    tiles::store<2>(sums[1].of[0], group);
    tiles::store<3>(sums[1].of[0] + tile, group);
    finish(p, row, tile, at, sums[0]);
    finish(p, row + tile, rows - tile, at, sums[1]);
  }

  // At most 16 rows: one tile of them, times four of two panels.
  static void flat(const Int8Product& p, size_t row, size_t rows) {
    const size_t inputs = p.weight.inputs;
    const uint8_t* first = p.rows + row * inputs;
    tiles::configure({{rows, rows, rows, rows, rows, tile, tile, tile}});
    Sums sums[2];
    size_t at = p.first_panel;
    for (; at + 2 <= p.end_panel; at += 2) {
      const int8_t* left = panel_of(p, at);
      const int8_t* right = panel_of(p, at + 1);
      const int8_t* next = panel_of(p, at + 2);
      const int32_t* offsets = p.weight.offsets + at * panel;
      tiles::load<0>(offsets, 0);
      tiles::load<1>(offsets + tile, 0);
      tiles::load<2>(offsets + panel, 0);
      tiles::load<3>(offsets + panel + tile, 0);
      for (size_t input = 0; input + step <= inputs; input += step) {
        const size_t place = input * panel;
        tiles::load<4>(first + input, inputs);
        tiles::load<5>(left + place, group);
        tiles::load<6>(left + place + step, group);
        tiles::multiply_bytes<0, 4, 5>();
        tiles::load<7>(right + place, group);
        tiles::multiply_bytes<1, 4, 6>();
        tiles::load<5>(right + place + step, group);
        tiles::multiply_bytes<2, 4, 7>();
        tiles::multiply_bytes<3, 4, 5>();
        // Two panels of the next ones, as much as these two have here.
        for (size_t line = 0; line < 2 * step * panel; line += 64) {
          __builtin_prefetch(next + 2 * place + line, 0, 2);
        }
      }
      tiles::store<0>(sums[0].of[0], group);
      tiles::store<1>(sums[0].of[0] + tile, group);
      tiles::store<2>(sums[1].of[0], group);
      tiles::store<3>(sums[1].of[0] + tile, group);
      finish(p, row, rows, at, sums[0]);
      finish(p, row, rows, at + 1, sums[1]);
    }
    if (at == p.end_panel) return;
    const int8_t* weights = panel_of(p, at);
    const int32_t* offsets = p.weight.offsets + at * panel;
    tiles::load<0>(offsets, 0);
    tiles::load<1>(offsets + tile, 0);
    for (size_t input = 0; input + step <= inputs; input += step) {
      tiles::load<4>(first + input, inputs);
      tiles::load<5>(weights + input * panel, group);
      tiles::load<6>(weights + input * panel + step, group);
      tiles::multiply_bytes<0, 4, 5>();
      tiles::multiply_bytes<1, 4, 6>();
    }
    tiles::store<0>(sums[0].of[0], group);
    tiles::store<1>(sums[0].of[0] + tile, group);
    finish(p, row, rows, at, sums[0]);
  }

  static void finish(const Int8Product& p, size_t row, size_t rows, size_t at, Sums& sums) {
    for (size_t r = 0; r < rows; r += 4) {
      const size_t left = rows - r;
      if (left >= 4) {
        some<4>(p, row + r, at, sums.of[r]);
      } else if (left == 3) {
        some<3>(p, row + r, at, sums.of[r]);
      } else if (left == 2) {
        some<2>(p, row + r, at, sums.of[r]);
      } else {
        some<1>(p, row + r, at, sums.of[r]);
      }
    }
  }

  template <size_t count>
  static void some(const Int8Product& p, size_t row, size_t at, const int32_t* from) {
    I sums[count][2];
#pragma GCC unroll 4
    for (size_t r = 0; r < count; ++r) {
      sums[r][0] = V::integers(from + r * panel);
      sums[r][1] = V::integers(from + r * panel + V::width);
    }
    Products::template rest<count>(p, row, at, p.weight.inputs / step * step, sums);
  }
};

}  // namespace bertd
