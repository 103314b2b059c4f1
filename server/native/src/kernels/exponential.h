// e^x for x at most 0, to about 1e-7 of it; below -87 as at -87.
//
// x = n ln 2 + r with |r| <= ln 2 / 2, and e^r = 1 + r + r^2 P(r), where P has the least relative
// error of its degree: 1.05e-7. ln 2 is taken off in one step, which adds 2e-9 n: nothing where the
// result is large, and little against a sum of weights where it is small.
#pragma once

namespace bertd {

template <class V>
inline typename V::F exp_nonpositive(typename V::F x) {
  using F = typename V::F;
  x = V::max(V::set(-87.0f), x);  // in this order, so that what is not a number stays so
  // Added to 1.5 * 2^23 a number is rounded to a whole one, which then stands in its lowest bits.
  const F shifted = V::fma(x, V::set(1.44269504f), V::set(12582912.0f));
  const F n = V::sub(shifted, V::set(12582912.0f));
  const F r = V::fma(n, V::set(-0.693147180f), x);
  F p = V::set(8.312512464e-3f);
  p = V::fma(p, r, V::set(4.189010660e-2f));
  p = V::fma(p, r, V::set(1.666711455e-1f));
  p = V::fma(p, r, V::set(4.999923184e-1f));
  p = V::fma(p, r, V::set(1.0f));
  p = V::fma(p, r, V::set(1.0f));
  return V::mul(p, V::power_of_low_bits(shifted));
}

}  // namespace bertd
