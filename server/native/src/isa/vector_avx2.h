// Eight floats in a register of AVX2, with FMA. See vector_portable.h for what each does.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace bertd {

struct Avx2Vector {
  static constexpr size_t width = 8;
  static constexpr size_t tile_rows = 6;  // twelve sums, two of a row of b, one of a: 15 of 16
  static constexpr size_t int8_rows = 4;  // eight sums, four of weights, two of a row
  static constexpr bool int8_sums_of_16_bits = true;

  using F = __m256;
  using I = __m256i;

  static F set(float value) { return _mm256_set1_ps(value); }
  static F load(const float* from) { return _mm256_loadu_ps(from); }
  static F load_first(const float* from, size_t count) {
    return _mm256_maskload_ps(from, lanes(0, count));
  }
  static void store(float* to, F x) { _mm256_storeu_ps(to, x); }
  static void store_first(float* to, F x, size_t count) {
    _mm256_maskstore_ps(to, lanes(0, count), x);
  }
  static F between(F x, size_t from, size_t to, float otherwise) {
    return _mm256_blendv_ps(set(otherwise), x, _mm256_castsi256_ps(lanes(from, to)));
  }

  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F power_of_low_bits(F x) {
    const __m256i exponent = _mm256_add_epi32(_mm256_castps_si256(x), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
  }

  static float sum(F x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }
  static float highest(F x) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
  }

  // Three rounds of exchange: neighbouring rows, pairs of rows, halves.
  static void transpose(const float* from, size_t from_stride, size_t count, float* to,
                        size_t to_stride) {
    F row[8];
    F pair[8];
    for (size_t i = 0; i < 8; ++i) row[i] = i < count ? load(from + i * from_stride) : set(0.0f);
    for (size_t i = 0; i < 8; i += 2) {
      pair[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
      pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
    }
    for (size_t i = 0; i < 8; i += 4) {
      row[i] = _mm256_shuffle_ps(pair[i], pair[i + 2], _MM_SHUFFLE(1, 0, 1, 0));
      row[i + 1] = _mm256_shuffle_ps(pair[i], pair[i + 2], _MM_SHUFFLE(3, 2, 3, 2));
      row[i + 2] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], _MM_SHUFFLE(1, 0, 1, 0));
      row[i + 3] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], _MM_SHUFFLE(3, 2, 3, 2));
    }
    for (size_t i = 0; i < 4; ++i) {
      store(to + i * to_stride, _mm256_permute2f128_ps(row[i], row[i + 4], 0x20));
      store(to + (i + 4) * to_stride, _mm256_permute2f128_ps(row[i], row[i + 4], 0x31));
    }
  }

  static I integers(const int32_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static I bytes(const int8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static I same(uint32_t four) { return _mm256_set1_epi32(static_cast<int>(four)); }
  // Two products of 8 and 7 bits fit into the 16 in which they are added first.
  static I dot(I sum, I a, I b) {
    const __m256i pairs = _mm256_maddubs_epi16(a, b);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  // So do those of two groups, where the weights allow it (kernels/int8_product.h).
  static I dot_pair(I sum, I a, I b, I a2, I b2) {
    const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(a, b), _mm256_maddubs_epi16(a2, b2));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  static F floats(I x) { return _mm256_cvtepi32_ps(x); }
  static void store_levels(uint8_t* to, F x, int zero) {
    const __m128i levels = packed_levels(x, zero);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), levels);
  }
  static void store_first_levels(uint8_t* to, F x, int zero, size_t count) {
    alignas(16) uint8_t all[16];
    _mm_store_si128(reinterpret_cast<__m128i*>(all), packed_levels(x, zero));
    for (size_t i = 0; i < count; ++i) to[i] = all[i];
  }

 private:
  // Levels of eight numbers in the lower half. What is too small for 32 bits, or is no number,
  // becomes the least of them by conversion; what is too large must be cut off before.
  static __m128i packed_levels(F x, int zero) {
    const __m256i level = _mm256_add_epi32(
        _mm256_cvtps_epi32(_mm256_min_ps(set(255.0f), x)), _mm256_set1_epi32(zero));
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(level), _mm256_extracti128_si256(level, 1));
    return _mm_packus_epi16(words, words);
  }

  // All bits of the lanes at least from and below to.
  static __m256i lanes(size_t from, size_t to) {
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(to)), index);
    const __m256i above = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(from)), index);
    return _mm256_andnot_si256(above, below);
  }
};

}  // namespace bertd
