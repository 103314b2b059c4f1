// Attention of some queries of one sequence over its keys, for one head.
//
//   keys ──transposed──> panels [head][two vectors of keys]   times a tile of queries: scores
//   values ──copied──>   panels [keys][two vectors of the head's columns]   weighted: out
//
// A panel lies in one piece, so that a tile reads it in order, whatever the rows' stride is.
// Keys come in blocks of at most key_block, so that a block's keys and values stay in the cache.
// A query keeps the largest score so far and the sum of weights; when a later block has a larger
// score, what was summed is scaled down. How tiles are cut changes nothing in a row: each sum runs
// over its keys, or over the head's columns, in order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/exponential.h"

namespace bertd {

// Rows of a head lie stride floats apart. Query i sees keys first + i * step up to, not including,
// first + i * step + width, as far as there are such; each sees one key at least.
struct AttentionBlock {
  const float* q;
  const float* k;
  const float* v;
  float* out;  // [queries] rows of head floats
  size_t q_stride;
  size_t kv_stride;
  size_t out_stride;
  size_t queries;  // at most attention_query_block
  size_t keys;
  size_t head;
  float scale;
  ptrdiff_t first;
  ptrdiff_t step;
  ptrdiff_t width;
  // Added to the score of query i and key j is bias[i * bias_step + j]; null adds nothing. It is
  // read for attention_panel keys beyond the last one too.
  const float* bias;
  ptrdiff_t bias_step;
  float* scratch;  // attention_scratch(keys, head) floats
};

constexpr size_t attention_query_block = 1024;
constexpr size_t attention_key_block = 512;
constexpr size_t attention_tile_rows = 16;  // more than any vector type's
constexpr size_t attention_panel = 32;      // no two vectors are wider

constexpr size_t round_up(size_t count, size_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

inline size_t attention_scratch(size_t keys, size_t head) {
  const size_t block =
      round_up(keys < attention_key_block ? keys : attention_key_block, attention_panel);
  const size_t columns = round_up(head, attention_panel);
  // What kernels/tile_attention.h takes is no more: half of this for keys and values, and the rest
  // for 32 queries.
  return block * (2 * columns + attention_tile_rows) + 3 * attention_tile_rows * columns +
         4 * attention_query_block;
}

template <class V>
class Attention {
  using F = typename V::F;
  static constexpr size_t W = V::width;
  static constexpr size_t P = 2 * W;  // of a panel

 public:
  static void run(const AttentionBlock& block) { Attention(block).over_keys(); }

 private:
  const AttentionBlock& b;
  const size_t columns;  // of the head, rounded up to whole vectors
  float* keys;           // panels of P keys, [head][P] each
  float* values;         // panels of P columns, [count][P] each
  float* queries;        // [tile][columns], scaled
  float* scores;         // [tile][padded]
  float* largest;        // of each query
  float* total;          // of each query's weights
  size_t begin = 0;      // the block's first key
  size_t count = 0;      // its keys
  size_t padded = 0;     // rounded up to whole panels
  size_t low = 0;        // keys of the block that a tile looks at
  size_t high = 0;

  explicit Attention(const AttentionBlock& block)
      : b(block), columns(round_up(block.head, W)) {
    const size_t room =
        round_up(b.keys < attention_key_block ? b.keys : attention_key_block, attention_panel);
    const size_t wide = round_up(b.head, attention_panel);
    keys = b.scratch;
    values = keys + room * wide;
    scores = values + room * wide;
    queries = scores + room * attention_tile_rows;
    largest = queries + attention_tile_rows * wide;
    total = largest + attention_query_block;
  }

  // The keys that a query of the block sees, from the block's first one on.
  size_t from(size_t query) const { return within(b.first + static_cast<ptrdiff_t>(query) * b.step); }
  size_t to(size_t query) const {
    return within(b.first + static_cast<ptrdiff_t>(query) * b.step + b.width);
  }
  size_t within(ptrdiff_t key) const {
    const ptrdiff_t place = key - static_cast<ptrdiff_t>(begin);
    if (place <= 0) return 0;
    return static_cast<size_t>(place) < count ? static_cast<size_t>(place) : count;
  }

  void over_keys() {
    for (begin = 0; begin < b.keys; begin += attention_key_block) {
      count = b.keys - begin < attention_key_block ? b.keys - begin : attention_key_block;
      padded = round_up(count, P);
      take_keys();
      take_values();
      over_queries();
    }
    for (size_t i = 0; i < b.queries; ++i) divide(b.out + i * b.out_stride, total[i]);
  }

  void take_keys() {
    const float* k = b.k + begin * b.kv_stride;
    for (size_t key = 0; key < count; key += W) {
      const size_t rows = count - key < W ? count - key : W;
      const float* from = k + key * b.kv_stride;
      float* to = keys + key / P * P * b.head + key % P;
      size_t column = 0;
      for (; column + W <= b.head; column += W) {
        V::transpose(from + column, b.kv_stride, rows, to + column * P, P);
      }
      for (; column < b.head; ++column) {
        for (size_t i = 0; i < W; ++i) {
          to[column * P + i] = i < rows ? from[i * b.kv_stride + column] : 0.0f;
        }
      }
    }
  }

  void take_values() {
    for (size_t key = 0; key < count; ++key) {
      const float* from = b.v + (begin + key) * b.kv_stride;
      for (size_t column = 0; column < columns; column += W) {
        float* to = values + column / P * P * count + key * P + column % P;
        const size_t left = b.head - column;
        V::store(to, left >= W ? V::load(from + column) : V::load_first(from + column, left));
      }
    }
  }

  void over_queries() {
    const size_t tiles = (b.queries + V::tile_rows - 1) / V::tile_rows;
    for (size_t query = 0, tile = 0; tile < tiles; ++tile) {
      const size_t left = tiles - tile;
      const size_t rows = (b.queries - query + left - 1) / left;  // tiles of nearly equal size
      pick<V::tile_rows>(query, rows);
      query += rows;
    }
  }

  template <size_t R>
  void pick(size_t query, size_t rows) {
    if (rows == R) return tile<R>(query);
    if constexpr (R > 1) pick<R - 1>(query, rows);
  }

  template <size_t R>
  __attribute__((noinline)) void tile(size_t query) {
    low = from(query) / P * P;  // the keys that one of them sees, from a panel's first one on
    high = to(query + R - 1);
    if (begin == 0) start(query, R);
    if (low >= high) return;
    take_queries(query, R);
    if (b.bias == nullptr) {
      score_all<R, false>(query);
    } else {
      score_all<R, true>(query);
    }
    for (size_t i = 0; i < R; ++i) weigh(query + i, scores + i * padded);
    size_t column = 0;
    for (; column + P <= columns; column += P) combine<R, 2>(query, column);
    if (column < columns) combine<R, 1>(query, column);
  }

  void start(size_t query, size_t rows) {
    for (size_t i = query; i < query + rows; ++i) {
      largest[i] = lowest;
      total[i] = 0.0f;
      for (size_t column = 0; column < columns; column += W) put(i, column, V::set(0.0f));
    }
  }

  void take_queries(size_t query, size_t rows) {
    const F scale = V::set(b.scale);
    for (size_t i = 0; i < rows; ++i) {
      const float* from = b.q + (query + i) * b.q_stride;
      float* row = queries + i * columns;
      size_t column = 0;
      for (; column + W <= b.head; column += W) {
        V::store(row + column, V::mul(V::load(from + column), scale));
      }
      if (column < b.head) {
        V::store(row + column, V::mul(V::load_first(from + column, b.head - column), scale));
      }
    }
  }

  template <size_t R, bool biased>
  inline __attribute__((always_inline)) void score_all(size_t query) {
    size_t key = low;
    for (; key + W < high; key += P) score<R, 2, biased>(query, key);
    if (key < high) score<R, 1, biased>(query, key);
  }

  // Scores of R queries and N vectors of keys.
  template <size_t R, size_t N, bool biased>
  inline __attribute__((always_inline)) void score(size_t query, size_t key) {
    F sum[R][N];
#pragma GCC unroll 16
    for (size_t i = 0; i < R; ++i) {
      const ptrdiff_t place = static_cast<ptrdiff_t>(query + i) * b.bias_step +
                              static_cast<ptrdiff_t>(begin + key);
#pragma GCC unroll 2
      for (size_t n = 0; n < N; ++n) {
        sum[i][n] = biased ? V::load(b.bias + place + n * W) : V::set(0.0f);
      }
    }
    const float* k = keys + key * b.head;
    for (size_t column = 0; column < b.head; ++column, k += P) {
      F part[N];
#pragma GCC unroll 2
      for (size_t n = 0; n < N; ++n) part[n] = V::load(k + n * W);
#pragma GCC unroll 16
      for (size_t i = 0; i < R; ++i) {
        const F q = V::set(queries[i * columns + column]);
#pragma GCC unroll 2
        for (size_t n = 0; n < N; ++n) sum[i][n] = V::fma(q, part[n], sum[i][n]);
      }
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < R; ++i) {
#pragma GCC unroll 2
      for (size_t n = 0; n < N; ++n) V::store(scores + i * padded + key + n * W, sum[i][n]);
    }
  }

  // Scores of a query in this block become weights, 0 for keys that it does not see.
  void weigh(size_t query, float* row) {
    const size_t first = from(query), last = to(query);
    const float before = largest[query];
    float top = before;
    if (first < last) {
      const float found = highest_between(row, first, last);
      top = before > found ? before : found;  // found where it is not a number
    }
    const float sum = raise(row, top, first, last);
    largest[query] = top;
    if (begin == 0) {  // nothing was summed before
      total[query] = sum;
      return;
    }
    const float share = exp_one(before - top);
    total[query] = total[query] * share + sum;
    if (share != 1.0f) multiply(b.out + query * b.out_stride, share);
  }

  // The largest of some scores of a row. Four maxima at once: one would wait for itself.
  static float highest_between(const float* row, size_t first, size_t last) {
    const size_t whole = round_up(first, W), end = last / W * W;
    F top[4];
    for (F& one : top) one = V::set(lowest);
    size_t key = whole;
    for (; key + 4 * W <= end; key += 4 * W) {
#pragma GCC unroll 4
      for (size_t n = 0; n < 4; ++n) top[n] = V::max(top[n], V::load(row + key + n * W));
    }
    for (; key < end; key += W) top[0] = V::max(top[0], V::load(row + key));
    for (size_t part : {first / W * W, end}) {  // vectors of which it sees some lanes
      if (part < last && (part < whole || part >= end)) {
        top[1] = V::max(top[1], seen(V::load(row + part), part, first, last, lowest));
      }
    }
    return V::highest(V::max(V::max(top[0], top[1]), V::max(top[2], top[3])));
  }

  // e^(score - top) of the scores that a query sees, in their place, and 0 of the tile's others;
  // gives the sum.
  float raise(float* row, float top, size_t first, size_t last) const {
    const F tops = V::set(top), zero = V::set(0.0f);
    F sum = zero;
    size_t key = low;
    for (; key + W <= first; key += W) V::store(row + key, zero);
    if (key < first) {
      sum = seen(exp_nonpositive<V>(V::sub(V::load(row + key), tops)), key, first, last, 0.0f);
      V::store(row + key, sum);
      key += W;
    }
    for (; key + W <= last; key += W) {
      const F weight = exp_nonpositive<V>(V::sub(V::load(row + key), tops));
      sum = V::add(sum, weight);
      V::store(row + key, weight);
    }
    if (key < last) {
      const F weight =
          seen(exp_nonpositive<V>(V::sub(V::load(row + key), tops)), key, first, last, 0.0f);
      sum = V::add(sum, weight);
      V::store(row + key, weight);
      key += W;
    }
    for (; key < high; key += W) V::store(row + key, zero);
    return V::sum(sum);
  }

  // A vector of keys from key on, of which those not seen have another value.
  static F seen(F x, size_t key, size_t first, size_t last, float otherwise) {
    return V::between(x, first < key ? 0 : first - key, last < key ? 0 : last - key, otherwise);
  }

  // Rows of values, each times its weight, into N vectors of the head's columns of R queries.
  template <size_t R, size_t N>
  inline __attribute__((always_inline)) void combine(size_t query, size_t column) {
    F sum[R][N];
#pragma GCC unroll 16
    for (size_t i = 0; i < R; ++i) {
#pragma GCC unroll 2
      for (size_t n = 0; n < N; ++n) {
        sum[i][n] = begin == 0 ? V::set(0.0f) : part_of(query + i, column + n * W);
      }
    }
    const float* v = values + column * count + low * P;
    for (size_t key = low; key < high; ++key, v += P) {
      F part[N];
#pragma GCC unroll 2
      for (size_t n = 0; n < N; ++n) part[n] = V::load(v + n * W);
#pragma GCC unroll 16
      for (size_t i = 0; i < R; ++i) {
        const F weight = V::set(scores[i * padded + key]);
#pragma GCC unroll 2
        for (size_t n = 0; n < N; ++n) sum[i][n] = V::fma(weight, part[n], sum[i][n]);
      }
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < R; ++i) {
#pragma GCC unroll 2
      for (size_t n = 0; n < N; ++n) put(query + i, column + n * W, sum[i][n]);
    }
  }

  F part_of(size_t query, size_t column) const {
    const float* from = b.out + query * b.out_stride + column;
    return column + W <= b.head ? V::load(from) : V::load_first(from, b.head - column);
  }
  void put(size_t query, size_t column, F x) const {
    float* to = b.out + query * b.out_stride + column;
    if (column + W <= b.head) {
      V::store(to, x);
    } else {
      V::store_first(to, x, b.head - column);
    }
  }

  void multiply(float* row, float factor) const {
    const F factors = V::set(factor);
    for (size_t column = 0; column < b.head; column += W) {
      if (column + W <= b.head) {
        V::store(row + column, V::mul(V::load(row + column), factors));
      } else {
        const size_t left = b.head - column;
        V::store_first(row + column, V::mul(V::load_first(row + column, left), factors), left);
      }
    }
  }
  void divide(float* row, float divisor) const { multiply(row, 1.0f / divisor); }

  static float exp_one(float x) {
    float lanes[W];
    V::store(lanes, exp_nonpositive<V>(V::set(x)));
    return lanes[0];
  }

  static constexpr float lowest = -3.402823466e38f;
};

}  // namespace bertd
