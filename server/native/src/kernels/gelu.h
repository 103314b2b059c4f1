// Gelu, x / 2 * (1 + erf(x / sqrt 2)), for results that are rounded to levels next.
#pragma once

#include <cstddef>

namespace bertd {

// erf(x / sqrt 2) is taken as x times a polynomial in x squared, and x as 4.2 beyond it. The
// coefficients make Gelu's own largest error small: 7e-5 up to 3, 2e-4 up to 9.
template <class V>
inline typename V::F gelu(typename V::F x) {
  constexpr float limit = 4.2f;
  constexpr float rising[] = {-1.892516144e-09f, 1.646469343e-07f,  -6.228972325e-06f,
                              1.358523295e-04f,  -1.916562556e-03f, 1.865579933e-02f,
                              -1.311642975e-01f, 7.969968319e-01f};
  const auto bounded = V::max(V::min(x, V::set(limit)), V::set(-limit));
  const auto square = V::mul(bounded, bounded);
  auto polynomial = V::set(rising[0]);
#pragma GCC unroll 8
  for (size_t i = 1; i < 8; ++i) polynomial = V::fma(polynomial, square, V::set(rising[i]));
  const auto half = V::mul(x, V::set(0.5f));
  return V::fma(half, V::mul(polynomial, bounded), half);
}

}  // namespace bertd
