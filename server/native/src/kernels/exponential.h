// e^x for x at most 0, to about one unit in the last place; below -87 as at -87.
//
// x = n ln 2 + r with |r| <= ln 2 / 2, and e^r = 1 + r + r^2 P(r). P has the least relative error
// of its degree, 3.1e-9; ln 2 is taken off in two parts, of which the first has no rounding.
#pragma once

namespace bertd {

template <class V>
inline typename V::F exp_nonpositive(typename V::F x) {
  using F = typename V::F;
  x = V::max(V::set(-87.0f), x);  // in this order, so that what is not a number stays so
  const F n = V::round(V::mul(x, V::set(1.44269504f)));
  F r = V::fma(n, V::set(-0.693359375f), x);
  r = V::fma(n, V::set(2.12194440e-4f), r);
  F p = V::set(1.381460044e-3f);
  p = V::fma(p, r, V::set(8.368709678e-3f));
  p = V::fma(p, r, V::set(4.166838752e-2f));
  p = V::fma(p, r, V::set(1.666652069e-1f));
  p = V::fma(p, r, V::set(4.999999345e-1f));
  const F one_plus_r = V::add(V::set(1.0f), r);
  return V::scale2(V::fma(p, V::mul(r, r), one_plus_r), n);
}

}  // namespace bertd
