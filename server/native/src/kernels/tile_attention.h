// Attention with products of bfloat16 in AMX tiles; softmax and all sums in fp32.
//
//   keys ──transposed──> tiles [pairs of columns][16 keys]    times 32 queries: scores, fp32
//   values ──paired───> tiles [pairs of keys][16 columns]     weighted: out
//
// It reads and writes what kernels/attention.h does, and goes over keys and queries as that does:
// in blocks of keys, with the largest score so far. Queries, keys, values and weights are rounded
// to bfloat16 to the nearest; an instruction then adds 16 pairs of products to an fp32 sum. Those
// 32 columns, or keys, begin at multiples of 32 from the head's first column, or from the block's
// first key, so that a query's sums have one order. What pads them is zero.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "isa/tiles.h"
#include "isa/vector_avx512.h"
#include "kernels/attention.h"
#include "kernels/exponential.h"

namespace bertd {

class TileAttention {
  using V = Avx512Vector;
  using F = V::F;
  static constexpr size_t W = V::width;
  static constexpr size_t P = 2 * W;     // keys, or columns, of a step
  static constexpr size_t rows = 2 * W;  // queries of a group
  static constexpr size_t tile = W * P;  // numbers of bfloat16 in a tile
  // Floats of a line of the cache. Rows lie one line more apart than they are long: at a power of
  // two all would share a few places of the cache.
  static constexpr size_t line = 16;

 public:
  static void run(const AttentionBlock& block) {
    tiles::configure();
    TileAttention(block).over_keys();
    tiles::release();
  }

 private:
  const AttentionBlock& b;
  const size_t columns;    // of the head, rounded up to whole steps
  uint16_t* keys;          // tiles, those of a step of keys and of columns side by side
  uint16_t* values;        // the same
  uint16_t* queries;       // [rows][columns], scaled
  float* scores;           // [rows][padded]; then weights, a row in the first half of its scores
  float* part;             // [rows][columns], of out
  float* largest;          // of each query
  float* total;            // of each query's weights
  size_t begin = 0;        // the block's first key
  size_t count = 0;        // its keys
  size_t padded = 0;       // rounded up to whole steps
  size_t low = 0;          // keys of the block that a group looks at, in whole steps
  size_t high = 0;

  explicit TileAttention(const AttentionBlock& block) : b(block), columns(round_up(block.head, P)) {
    const size_t room = round_up(b.keys < attention_key_block ? b.keys : attention_key_block, P);
    float* free = b.scratch;
    const auto take = [&free](size_t floats) {
      float* taken = free;
      free += floats;
      return taken;
    };
    keys = reinterpret_cast<uint16_t*>(take(room * columns / 2));
    values = reinterpret_cast<uint16_t*>(take(room * columns / 2));
    queries = reinterpret_cast<uint16_t*>(take(rows * (columns / 2 + line)));
    scores = take(rows * (room + line));
    part = take(rows * (columns + line));
    largest = take(attention_query_block);
    total = take(attention_query_block);
  }

  size_t query_stride() const { return columns + 2 * line; }
  size_t score_stride() const { return padded + line; }
  uint16_t* weights() const { return reinterpret_cast<uint16_t*>(scores); }
  size_t weight_stride() const { return 2 * score_stride(); }
  size_t part_stride() const { return columns + line; }

  // The keys that a query of the block sees, from the block's first one on.
  size_t from(size_t query) const {
    return within(b.first + static_cast<ptrdiff_t>(query) * b.step);
  }
  size_t to(size_t query) const {
    return within(b.first + static_cast<ptrdiff_t>(query) * b.step + b.width);
  }
  size_t within(ptrdiff_t key) const {
    const ptrdiff_t place = key - static_cast<ptrdiff_t>(begin);
    if (place <= 0) return 0;
    return static_cast<size_t>(place) < count ? static_cast<size_t>(place) : count;
  }

  void over_keys() {
    for (size_t i = 0; i < b.queries; ++i) {
      largest[i] = lowest;
      total[i] = 0.0f;
    }
    for (begin = 0; begin < b.keys; begin += attention_key_block) {
      count = b.keys - begin < attention_key_block ? b.keys - begin : attention_key_block;
      padded = round_up(count, P);
      take_keys();
      take_values();
      for (size_t query = 0; query < b.queries; query += rows) {
        const size_t left = b.queries - query;
        if (left > W) {
          group<2>(query, left < rows ? left : rows);
        } else {
          group<1>(query, left);
        }
      }
    }
  }

  static F load_some(const float* from, size_t column, size_t end) {
    if (column + W <= end) return V::load(from + column);
    return V::load_first(from + column, column < end ? end - column : 0);
  }
  // Two vectors side by side, rounded. In assembly, so that this is compiled with the flags of the
  // other kernels of AVX-512, which it shares functions with.
  static __m512i rounded(F left, F right) {
    __m512i both;
    __asm__("vcvtne2ps2bf16 %2, %1, %0" : "=v"(both) : "v"(right), "v"(left));
    return both;
  }

  // The two tiles of a step of keys and one of columns.
  uint16_t* tiles_of(uint16_t* all, size_t key, size_t column) const {
    return all + (key / P * (columns / P) + column / P) * 2 * tile;
  }

  // Each tile has half of the step's keys: a row for each pair of columns, in it a pair for each key.
  void take_keys() {
    alignas(64) float pairs[W * W];  // two numbers of bfloat16 each
    for (size_t key = 0; key < padded; key += W) {
      const size_t some = key >= count ? 0 : count - key < W ? count - key : W;
      const float* from = b.k + (begin + key) * b.kv_stride;
      for (size_t column = 0; column < columns; column += P) {
        for (size_t i = 0; i < some; ++i) {
          const float* row = from + i * b.kv_stride;
          _mm512_store_si512(pairs + i * W, rounded(load_some(row, column, b.head),
                                                    load_some(row, column + W, b.head)));
        }
        uint16_t* to = tiles_of(keys, key, column) + key % P / W * tile;
        V::transpose(pairs, W, some, reinterpret_cast<float*>(to), W);
      }
    }
  }

  // Each tile has half of the step's columns: a row for each pair of keys, in it a pair for each
  // column.
  void take_values() {
    alignas(64) static constexpr uint16_t order[32] = {
        0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i paired = _mm512_load_si512(order);
    for (size_t key = 0; key < padded; key += 2) {
      const float* first = b.v + (begin + key) * b.kv_stride;
      const float* second = first + b.kv_stride;
      for (size_t column = 0; column < columns; column += W) {
        const F one = key < count ? load_some(first, column, b.head) : V::set(0.0f);
        const F two = key + 1 < count ? load_some(second, column, b.head) : V::set(0.0f);
        uint16_t* to = tiles_of(values, key, column) + column % P / W * tile + key % P * W;
        _mm512_store_si512(to, _mm512_permutexvar_epi16(paired, rounded(one, two)));
      }
    }
  }

  void take_queries(size_t query, size_t some, size_t all) {
    const F scale = V::set(b.scale);
    for (size_t i = 0; i < all; ++i) {
      const float* from = b.q + (query + i) * b.q_stride;
      for (size_t column = 0; column < columns; column += P) {
        __m512i both = _mm512_setzero_si512();
        if (i < some) {
          both = rounded(V::mul(load_some(from, column, b.head), scale),
                         V::mul(load_some(from, column + W, b.head), scale));
        }
        _mm512_store_si512(queries + i * query_stride() + column, both);
      }
    }
  }

  // Queries in T tiles, of which the first some are there.
  template <size_t T>
  __attribute__((noinline)) void group(size_t query, size_t some) {
    low = from(query) / P * P;
    high = round_up(to(query + some - 1), P);
    take_queries(query, some, T * W);
    for (size_t key = low; key < high; key += P) score<T>(key);
    float share[rows];
    for (size_t i = 0; i < some; ++i) share[i] = weigh(query + i, i);
    for (size_t column = 0; column < columns; column += P) combine<T>(column);
    const bool last = begin + count == b.keys;
    for (size_t i = 0; i < some; ++i) put(query + i, i, share[i], last);
  }

  template <size_t T>
  inline __attribute__((always_inline)) void score(size_t key) {
    clear<T>();
    const uint16_t* k = tiles_of(keys, key, 0);
    for (size_t column = 0; column < columns; column += P, k += 2 * tile) {
      add<T>(queries + column, query_stride(), k);
    }
    store<T>(scores + key, score_stride());
  }

  template <size_t T>
  inline __attribute__((always_inline)) void combine(size_t column) {
    clear<T>();
    const size_t step = columns / P * 2 * tile;
    const uint16_t* v = tiles_of(values, low, column);
    for (size_t key = low; key < high; key += P, v += step) {
      add<T>(weights() + key, weight_stride(), v);
    }
    store<T>(part + column, part_stride());
  }

  // Sums of up to 32 rows and 32 columns: tiles 0 to 3.
  template <size_t T>
  static inline __attribute__((always_inline)) void clear() {
    tiles::zero<0>();
    tiles::zero<1>();
    if constexpr (T == 2) {
      tiles::zero<2>();
      tiles::zero<3>();
    }
  }
  template <size_t T>
  static inline __attribute__((always_inline)) void add(const uint16_t* a, size_t a_stride,
                                                        const uint16_t* two) {
    tiles::load<6>(two, P * sizeof *two);
    tiles::load<7>(two + tile, P * sizeof *two);
    tiles::load<4>(a, a_stride * sizeof *a);
    tiles::multiply<0, 4, 6>();
    tiles::multiply<1, 4, 7>();
    if constexpr (T == 2) {
      tiles::load<5>(a + W * a_stride, a_stride * sizeof *a);
      tiles::multiply<2, 5, 6>();
      tiles::multiply<3, 5, 7>();
    }
  }
  template <size_t T>
  static inline __attribute__((always_inline)) void store(float* to, size_t stride) {
    tiles::store<0>(to, stride * sizeof *to);
    tiles::store<1>(to + W, stride * sizeof *to);
    if constexpr (T == 2) {
      tiles::store<2>(to + W * stride, stride * sizeof *to);
      tiles::store<3>(to + W * stride + W, stride * sizeof *to);
    }
  }

  // Scores of a query in this block become weights, 0 for keys that it does not see; gives by how
  // much what was summed before is scaled down.
  float weigh(size_t query, size_t i) {
    const size_t first = from(query), last = to(query);
    float* row = scores + i * score_stride();
    const float before = largest[query];
    const float* bias = b.bias;
    if (bias != nullptr) bias += static_cast<ptrdiff_t>(query) * b.bias_step + ptrdiff_t(begin);
    float top = before;
    if (first < last) {
      const float found = highest_between(row, bias, first, last);
      top = before > found ? before : found;  // found where it is not a number
    }
    const float sum = raise(row, weights() + i * weight_stride(), top, first, last);
    largest[query] = top;
    if (begin == 0) {
      total[query] = sum;
      return 0.0f;
    }
    alignas(64) float lanes[W];
    V::store(lanes, exp_nonpositive<V>(V::set(before - top)));
    total[query] = total[query] * lanes[0] + sum;
    return lanes[0];
  }

  // The largest of a row's scores, to which the bias is added in their place.
  float highest_between(float* row, const float* bias, size_t first, size_t last) const {
    F top[2] = {V::set(lowest), V::set(lowest)};
    const size_t start = first / W * W;
    for (size_t key = start, n = 0; key < last; key += W, n ^= 1) {
      F score = V::load(row + key);
      if (bias != nullptr) {
        score = V::add(score, V::load(bias + key));
        V::store(row + key, score);
      }
      if (key < first || key + W > last) score = seen(score, key, first, last, lowest);
      top[n] = V::max(top[n], score);
    }
    return V::highest(V::max(top[0], top[1]));
  }

  // e^(score - top) of the scores that a query sees, rounded, and 0 of the group's others; gives
  // the sum.
  float raise(const float* row, uint16_t* to, float top, size_t first, size_t last) const {
    const F tops = V::set(top);
    F sum[2] = {V::set(0.0f), V::set(0.0f)};
    for (size_t key = low; key < high; key += P) {
      if (key + P <= first || key >= last) {
        _mm512_store_si512(to + key, _mm512_setzero_si512());
        continue;
      }
      F weight[2];
#pragma GCC unroll 2
      for (size_t n = 0; n < 2; ++n) {
        weight[n] = raised(V::sub(V::load(row + key + n * W), tops));
      }
      if (key < first || key + P > last) {
        for (size_t n = 0; n < 2; ++n) weight[n] = seen(weight[n], key + n * W, first, last, 0.0f);
      }
      for (size_t n = 0; n < 2; ++n) sum[n] = V::add(sum[n], weight[n]);
      _mm512_store_si512(to + key, rounded(weight[0], weight[1]));
    }
    return V::sum(V::add(sum[0], sum[1]));
  }

  // e^x for x at most 0, to 1.3e-4 of it, which is little beside the rounding that follows: as
  // kernels/exponential.h has it, with two terms less.
  static F raised(F x) {
    x = V::max(V::set(-87.0f), x);
    const F shifted = V::fma(x, V::set(1.44269504f), V::set(12582912.0f));
    const F r = V::fma(V::sub(shifted, V::set(12582912.0f)), V::set(-0.693147180f), x);
    F p = V::set(0.16662811f);
    p = V::fma(p, r, V::set(0.50394103f));
    p = V::fma(p, r, V::set(1.0f));
    p = V::fma(p, r, V::set(1.0f));
    return V::mul(p, V::power_of_low_bits(shifted));
  }

  // A vector of keys from key on, of which those not seen have another value.
  static F seen(F x, size_t key, size_t first, size_t last, float otherwise) {
    return V::between(x, first < key ? 0 : first - key, last < key ? 0 : last - key, otherwise);
  }

  // What this block adds to a query's row of out.
  void put(size_t query, size_t i, float share, bool last) const {
    const F shares = V::set(share), factor = V::set(last ? 1.0f / total[query] : 1.0f);
    float* out = b.out + query * b.out_stride;
    for (size_t column = 0; column < b.head; column += W) {
      F x = V::load(part + i * part_stride() + column);
      if (begin != 0) x = V::fma(load_some(out, column, b.head), shares, x);
      if (last) x = V::mul(x, factor);
      if (column + W <= b.head) {
        V::store(out + column, x);
      } else {
        V::store_first(out + column, x, b.head - column);
      }
    }
  }

  static constexpr float lowest = -3.402823466e38f;
};

}  // namespace bertd
