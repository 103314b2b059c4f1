// Gelu, x / 2 * (1 + erf(x / sqrt 2)), and its form with tanh, as near as floats are: to 5e-7.
//
// Of a = |x| the share h(a) = (1 - erf(a / sqrt 2)) / 2 is what keeps Gelu from max(x, 0):
//
//   Gelu(x) = max(x, 0) - a h(a)
//
// Beyond the limit a h(a) is less than 2e-7, and stays as it is there. Up to it h is a polynomial
// in 2 a / limit - 1, which keeps coefficients small; they make the largest error of a h(a) small,
// 4e-8 in exact numbers. The same with tanh in the place of erf.
#pragma once

#include <cstddef>

namespace bertd {

struct ErfShare {
  static constexpr float limit = 5.5f;
  static constexpr float rising[] = {
      2.262103371e-03f,  -8.002654649e-03f, -1.837378950e-03f, 3.794800863e-02f,  -3.461382911e-02f,
      -5.904413015e-02f, 1.277404279e-01f,  -2.854177170e-02f, -1.613382101e-01f, 2.162819952e-01f,
      -5.165297538e-02f, -1.768000126e-01f, 2.719029188e-01f,  -2.068347484e-01f, 9.455801547e-02f,
      -2.500751428e-02f, 2.979769371e-03f};
};
struct TanhShare {
  static constexpr float limit = 5.0f;
  static constexpr float rising[] = {
      1.634481014e-03f,  -3.881253302e-03f, -3.358608112e-03f, 1.719638892e-02f,  -1.130190212e-02f,
      -2.023299038e-02f, 4.906529561e-02f,  -3.846611455e-02f, -3.854980692e-02f, 1.344515532e-01f,
      -1.171902940e-01f, -5.360579118e-02f, 2.243750095e-01f,  -2.414767146e-01f, 1.392924786e-01f,
      -4.398537427e-02f, 6.033704616e-03f};
};

template <class V, class Share>
inline __attribute__((always_inline)) typename V::F exact_gelu(typename V::F x) {
  using F = typename V::F;
  const F zero = V::set(0.0f);
  // In this order, so that what is not a number stays so.
  const F a = V::min(V::set(Share::limit), V::max(x, V::sub(zero, x)));
  const F t = V::fma(a, V::set(2.0f / Share::limit), V::set(-1.0f));
  F share = V::set(Share::rising[0]);
#pragma GCC unroll 16
  for (size_t i = 1; i < 17; ++i) share = V::fma(share, t, V::set(Share::rising[i]));
  return V::fma(V::sub(zero, a), share, V::max(zero, x));
}

}  // namespace bertd
