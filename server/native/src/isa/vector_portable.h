// Eight floats in plain loops: the vector type of any CPU.
//
// What a vector type has is told by this one; others do the same in instructions.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace bertd {

struct PortableVector {
  static constexpr size_t width = 8;
  static constexpr size_t tile_rows = 4;  // rows of a product computed together; registers bound it
  static constexpr size_t int8_rows = 4;  // the same of a product of int8
  static constexpr bool int8_sums_of_16_bits = true;  // dot_pair's: see kernels/int8_product.h

  struct F {
    float lane[width];
  };
  struct I {
    int32_t lane[width];
  };

  template <class Function>
  static F each(Function function) {
    F result;
    for (size_t i = 0; i < width; ++i) result.lane[i] = function(i);
    return result;
  }

  static F set(float value) {
    return each([&](size_t) { return value; });
  }
  static F load(const float* from) {
    return each([&](size_t i) { return from[i]; });
  }
  // The first count numbers, and zeros; nothing beyond them is read.
  static F load_first(const float* from, size_t count) {
    return each([&](size_t i) { return i < count ? from[i] : 0.0f; });
  }
  static void store(float* to, F x) { std::memcpy(to, x.lane, sizeof x.lane); }
  static void store_first(float* to, F x, size_t count) {
    std::memcpy(to, x.lane, count * sizeof(float));
  }
  // x where the lane is at least from and below to, else otherwise.
  static F between(F x, size_t from, size_t to, float otherwise) {
    return each([&](size_t i) { return from <= i && i < to ? x.lane[i] : otherwise; });
  }

  static F add(F a, F b) {
    return each([&](size_t i) { return a.lane[i] + b.lane[i]; });
  }
  static F sub(F a, F b) {
    return each([&](size_t i) { return a.lane[i] - b.lane[i]; });
  }
  static F mul(F a, F b) {
    return each([&](size_t i) { return a.lane[i] * b.lane[i]; });
  }
  static F div(F a, F b) {
    return each([&](size_t i) { return a.lane[i] / b.lane[i]; });
  }
  // a * b + c; rounded once or twice, as the instruction set has it.
  static F fma(F a, F b, F c) {
    return each([&](size_t i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
  }
  // The larger one; b where either is not a number.
  static F max(F a, F b) {
    return each([&](size_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  // The smaller one; b where either is not a number.
  static F min(F a, F b) {
    return each([&](size_t i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  // 2^n, for the n from -126 to 127 in the low bits of a lane.
  static F power_of_low_bits(F x) {
    return each([&](size_t i) {
      uint32_t bits;
      std::memcpy(&bits, &x.lane[i], sizeof bits);
      bits = (bits + 127) << 23;
      float power;
      std::memcpy(&power, &bits, sizeof power);
      return power;
    });
  }

  static float sum(F x) {
    return ((x.lane[0] + x.lane[4]) + (x.lane[2] + x.lane[6])) +
           ((x.lane[1] + x.lane[5]) + (x.lane[3] + x.lane[7]));
  }
  static float highest(F x) {
    float result = x.lane[0];
    for (size_t i = 1; i < width; ++i) result = result > x.lane[i] ? result : x.lane[i];
    return result;
  }

  // to[j][i] = from[i][j] for a square of width rows, of which those from count on are zeros and
  // not read.
  static void transpose(const float* from, size_t from_stride, size_t count, float* to,
                        size_t to_stride) {
    for (size_t i = 0; i < width; ++i) {
      for (size_t j = 0; j < width; ++j) {
        to[j * to_stride + i] = i < count ? from[i * from_stride + j] : 0.0f;
      }
    }
  }

  // Integers, a lane each.
  static I integers(const int32_t* from) {
    I result;
    std::memcpy(result.lane, from, sizeof result.lane);
    return result;
  }
  // Four signed bytes for each lane.
  static I bytes(const int8_t* from) {
    I result;
    std::memcpy(result.lane, from, sizeof result.lane);
    return result;
  }
  // The same four unsigned bytes, the first in the lowest bits, in each lane.
  static I same(uint32_t four) {
    I result;
    for (size_t i = 0; i < width; ++i) std::memcpy(&result.lane[i], &four, sizeof four);
    return result;
  }
  // Each lane's sum, plus the products of a's four unsigned and b's four signed bytes. b has 7
  // bits and a sign: with more, some instruction sets would cut off sums of two products.
  static I dot(I sum, I a, I b) {
    for (size_t i = 0; i < width; ++i) {
      uint8_t left[4];
      int8_t right[4];
      std::memcpy(left, &a.lane[i], sizeof left);
      std::memcpy(right, &b.lane[i], sizeof right);
      for (size_t j = 0; j < 4; ++j) sum.lane[i] += left[j] * right[j];
    }
    return sum;
  }
  // The same of two groups, where products of the first two bytes of both, and of the last two,
  // have sums within 16 bits whatever a and a2 are.
  static I dot_pair(I sum, I a, I b, I a2, I b2) {
    for (size_t i = 0; i < width; ++i) {
      for (size_t half = 0; half < 2; ++half) {
        int products = 0;
        for (const auto& [left, right] : {std::pair(a, b), std::pair(a2, b2)}) {
          uint8_t bytes[4];
          int8_t levels[4];
          std::memcpy(bytes, &left.lane[i], sizeof bytes);
          std::memcpy(levels, &right.lane[i], sizeof levels);
          for (size_t j = 2 * half; j < 2 * half + 2; ++j) products += bytes[j] * levels[j];
        }
        sum.lane[i] += static_cast<int16_t>(products);
      }
    }
    return sum;
  }
  static F floats(I x) {
    return each([&](size_t i) { return static_cast<float>(x.lane[i]); });
  }
  // Each number rounded to the nearest integer, an even one if two are as near, plus zero, from 0
  // to 255 as a byte. For what is no number it is 0 or 255.
  static void store_levels(uint8_t* to, F x, int zero) { store_first_levels(to, x, zero, width); }
  static void store_first_levels(uint8_t* to, F x, int zero, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const float level = std::nearbyint(x.lane[i]) + static_cast<float>(zero);
      to[i] = level >= 255.0f ? 255 : level > 0.0f ? static_cast<uint8_t>(level) : 0;
    }
  }
};

}  // namespace bertd
