// Gelu, x / 2 * (1 + erf(x / sqrt 2)), for results that are rounded to levels next.
#pragma once

#include <cstddef>

namespace bertd {

// Gelu of x, times twice the given factor: one half is plain Gelu.
//
// erf(x / sqrt 2) is taken as x times a polynomial in x squared, and x as 4 beyond it. The
// coefficients make Gelu's own largest error small: 2e-4 from -9 to 9, a fiftieth of a level.
template <class V>
inline typename V::F gelu(typename V::F x, typename V::F factor) {
  constexpr float limit = 4.0f;
  constexpr float rising[] = {4.475753812e-08f,  -3.156399089e-06f, 9.510981909e-05f,
                              -1.620375901e-03f, 1.750829816e-02f,  -1.290676743e-01f,
                              7.957116365e-01f};
  const auto bounded = V::max(V::min(x, V::set(limit)), V::set(-limit));
  const auto square = V::mul(bounded, bounded);
  auto polynomial = V::set(rising[0]);
#pragma GCC unroll 6
  for (size_t i = 1; i < 7; ++i) polynomial = V::fma(polynomial, square, V::set(rising[i]));
  const auto scaled = V::mul(x, factor);
  return V::fma(scaled, V::mul(polynomial, bounded), scaled);
}

}  // namespace bertd
