// Sixteen floats in a register of AVX-512, with VNNI. See vector_portable.h for what each does.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace bertd {

struct Avx512Vector {
  static constexpr size_t width = 16;
  static constexpr size_t tile_rows = 12;  // 24 sums, two of a row of b, one of a: 27 of 32
  static constexpr size_t int8_rows = 12;  // 24 sums, four of weights, two of a row: 30
  static constexpr bool int8_sums_of_16_bits = false;

  using F = __m512;
  using I = __m512i;

  static F set(float value) { return _mm512_set1_ps(value); }
  static F load(const float* from) { return _mm512_loadu_ps(from); }
  static F load_first(const float* from, size_t count) {
    return _mm512_maskz_loadu_ps(lanes(0, count), from);
  }
  static void store(float* to, F x) { _mm512_storeu_ps(to, x); }
  static void store_first(float* to, F x, size_t count) {
    _mm512_mask_storeu_ps(to, lanes(0, count), x);
  }
  static F between(F x, size_t from, size_t to, float otherwise) {
    return _mm512_mask_mov_ps(set(otherwise), lanes(from, to), x);
  }

  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F power_of_low_bits(F x) {
    const __m512i exponent = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
  }

  static float sum(F x) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }
  static float highest(F x) {
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
  }

  // Four rounds of exchange: neighbouring rows, pairs of rows, then quarters of registers twice.
  static void transpose(const float* from, size_t from_stride, size_t count, float* to,
                        size_t to_stride) {
    F row[16];
    F pair[16];
    for (size_t i = 0; i < 16; ++i) row[i] = i < count ? load(from + i * from_stride) : set(0.0f);
    for (size_t i = 0; i < 16; i += 2) {
      pair[i] = _mm512_unpacklo_ps(row[i], row[i + 1]);
      pair[i + 1] = _mm512_unpackhi_ps(row[i], row[i + 1]);
    }
    // Now row[4 n + j] has columns j, j + 4, j + 8 and j + 12 of rows 4 n to 4 n + 3.
    for (size_t i = 0; i < 16; i += 4) {
      row[i] = _mm512_shuffle_ps(pair[i], pair[i + 2], _MM_SHUFFLE(1, 0, 1, 0));
      row[i + 1] = _mm512_shuffle_ps(pair[i], pair[i + 2], _MM_SHUFFLE(3, 2, 3, 2));
      row[i + 2] = _mm512_shuffle_ps(pair[i + 1], pair[i + 3], _MM_SHUFFLE(1, 0, 1, 0));
      row[i + 3] = _mm512_shuffle_ps(pair[i + 1], pair[i + 3], _MM_SHUFFLE(3, 2, 3, 2));
    }
    for (size_t j = 0; j < 4; ++j) {
      const F low = _mm512_shuffle_f32x4(row[j], row[j + 4], _MM_SHUFFLE(2, 0, 2, 0));
      const F high = _mm512_shuffle_f32x4(row[j], row[j + 4], _MM_SHUFFLE(3, 1, 3, 1));
      const F low2 = _mm512_shuffle_f32x4(row[j + 8], row[j + 12], _MM_SHUFFLE(2, 0, 2, 0));
      const F high2 = _mm512_shuffle_f32x4(row[j + 8], row[j + 12], _MM_SHUFFLE(3, 1, 3, 1));
      store(to + j * to_stride, _mm512_shuffle_f32x4(low, low2, _MM_SHUFFLE(2, 0, 2, 0)));
      store(to + (j + 4) * to_stride, _mm512_shuffle_f32x4(high, high2, _MM_SHUFFLE(2, 0, 2, 0)));
      store(to + (j + 8) * to_stride, _mm512_shuffle_f32x4(low, low2, _MM_SHUFFLE(3, 1, 3, 1)));
      store(to + (j + 12) * to_stride, _mm512_shuffle_f32x4(high, high2, _MM_SHUFFLE(3, 1, 3, 1)));
    }
  }

  static I integers(const int32_t* from) { return _mm512_loadu_si512(from); }
  static I bytes(const int8_t* from) { return _mm512_loadu_si512(from); }
  static I same(uint32_t four) { return _mm512_set1_epi32(static_cast<int>(four)); }
  // In assembly, because GCC 12 copies the sums of its intrinsic to the stack and back.
  static I dot(I sum, I a, I b) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
  }
  static I dot_pair(I sum, I a, I b, I a2, I b2) { return dot(dot(sum, a, b), a2, b2); }
  static F floats(I x) { return _mm512_cvtepi32_ps(x); }
  static void store_levels(uint8_t* to, F x, int zero) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtusepi32_epi8(levels(x, zero)));
  }
  static void store_first_levels(uint8_t* to, F x, int zero, size_t count) {
    _mm512_mask_cvtusepi32_storeu_epi8(to, lanes(0, count), levels(x, zero));
  }

 private:
  // At least 0; what is beyond 255 is cut off when it is stored. What is too small for 32 bits, or
  // is no number, becomes the least of them by conversion; what is too large must be cut off before.
  static __m512i levels(F x, int zero) {
    const __m512i level = _mm512_cvtps_epi32(_mm512_min_ps(set(255.0f), x));
    return _mm512_max_epi32(_mm512_add_epi32(level, _mm512_set1_epi32(zero)),
                            _mm512_setzero_si512());
  }

  // The lanes at least from and below to.
  static __mmask16 lanes(size_t from, size_t to) {
    const uint32_t below = to < width ? (1u << to) - 1 : 0xffff;
    const uint32_t under = from < width ? (1u << from) - 1 : 0xffff;
    return static_cast<__mmask16>(below & ~under);
  }
};

}  // namespace bertd
