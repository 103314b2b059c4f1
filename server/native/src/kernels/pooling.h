// One row of some rows: their mean, their largest values, their mean with rising weights.
//
// Columns are summed apart, each from the first row to the last.
#pragma once

#include <cstddef>

namespace bertd {

struct Rows {
  const float* rows;  // [count][width], one after the other
  size_t count;       // at least 1
  size_t width;
  float* out;  // [width]
};

template <class V>
class Pooling {
  using F = typename V::F;
  static constexpr size_t W = V::width;

 public:
  static void mean(const Rows& rows) {
    const F divisor = V::set(static_cast<float>(rows.count));
    reduce(rows, [](F sum, F row, size_t) { return V::add(sum, row); },
           [&](F sum) { return V::div(sum, divisor); });
  }

  static void maximum(const Rows& rows) {
    reduce(rows, [](F top, F row, size_t) { return V::max(row, top); }, [](F top) { return top; });
  }

  // The first row weighs 1, the second 2, and so on.
  static void weighted_mean(const Rows& rows) {
    const double count = static_cast<double>(rows.count);
    const F divisor = V::set(static_cast<float>(count * (count + 1) / 2));
    reduce(rows,
           [](F sum, F row, size_t i) {
             return V::fma(row, V::set(static_cast<float>(i + 1)), sum);
           },
           [&](F sum) { return V::div(sum, divisor); });
  }

 private:
  // Every column of the first row is taken as it is; step(sum, row, i) adds each later one.
  template <class Step, class End>
  static void reduce(const Rows& rows, Step step, End end) {
    size_t column = 0;
    for (; column + W <= rows.width; column += W) {
      const float* from = rows.rows + column;
      F sum = V::load(from);
      for (size_t i = 1; i < rows.count; ++i) sum = step(sum, V::load(from + i * rows.width), i);
      V::store(rows.out + column, end(sum));
    }
    if (column == rows.width) return;
    const size_t left = rows.width - column;
    const float* from = rows.rows + column;
    F sum = V::load_first(from, left);
    for (size_t i = 1; i < rows.count; ++i) {
      sum = step(sum, V::load_first(from + i * rows.width, left), i);
    }
    V::store_first(rows.out + column, end(sum), left);
  }
};

}  // namespace bertd
