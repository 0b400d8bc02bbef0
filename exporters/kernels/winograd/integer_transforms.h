// The one-dimensional transforms of F(4x4,3x3) and F(2x2,3x3) for integers: see winograd/transforms.h. Their points are
// integers, so that nothing is rounded: F4 has 0, 1, -1, 2, -2, F2 has 0, 1, -1.
//
// Inputs of 0..255 less a zero point stay inside 16 bits (at most 100 * 255); so do weights of -127..127 (at most
// 49 * 127), which are multiplied by what makes them whole, kWeights of it to be divided out.
#pragma once

#include "conv/inline.h"

namespace voxpress {
namespace {

// a * factor + b, for powers of two.
VOXPRESS_INLINE float multiply_add(float a, float factor, float b) { return a * factor + b; }

// a * b + c, rounded once.
VOXPRESS_INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

struct IntegerF2 {
  static constexpr int kIn = 4;
  static constexpr int kOut = 2;
  static constexpr float kWeights[kIn] = {1.0f, 2.0f, 2.0f, 1.0f};
  static constexpr int kConstant = 4;  // of inputs that are all 1, at point (1, 1); 0 at all other points

  template <typename T>
  static VOXPRESS_INLINE void input(const T (&d)[kIn], T (&v)[kIn]) {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  }
  template <typename T>
  static VOXPRESS_INLINE void weights(const T (&g)[3], T (&u)[kIn]) {
    const T even = g[0] + g[2];
    u[0] = g[0];
    u[1] = even + g[1];
    u[2] = even - g[1];
    u[3] = g[2];
  }
  template <typename T>
  static VOXPRESS_INLINE void output(const T (&m)[kIn], T (&y)[kOut]) {
    y[0] = m[0] + (m[1] + m[2]);
    y[1] = (m[1] - m[2]) + m[3];
  }
  // Points whose values alone make any outputs, kOut in each direction, and the values for outputs y.
  static constexpr int kSpread[kOut] = {0, 3};
  template <typename T>
  static VOXPRESS_INLINE void spread(const T (&y)[kOut], T (&m)[kOut]) {
    m[0] = y[0];
    m[1] = y[1];
  }
  // The same as output of m[i] = a[i] * f[i]; `start` is added to m[1], whose output is 1 everywhere.
  template <typename T>
  static VOXPRESS_INLINE void output_of_products(const T (&a)[kIn], const T (&f)[kIn], T start, T (&y)[kOut]) {
    const T m1 = fused(a[1], f[1], start);
    const T m2 = a[2] * f[2];
    y[0] = fused(a[0], f[0], m1 + m2);
    y[1] = fused(a[3], f[3], m1 - m2);
  }
};

struct IntegerF4 {
  static constexpr int kIn = 6;
  static constexpr int kOut = 4;
  static constexpr float kWeights[kIn] = {4.0f, -6.0f, -6.0f, 24.0f, 24.0f, 1.0f};
  static constexpr int kConstant = 36;

  template <typename T>
  static VOXPRESS_INLINE void input(const T (&d)[kIn], T (&v)[kIn]) {
    const T even = d[4] - d[2] * 4;
    const T odd = d[3] - d[1] * 4;
    const T even2 = d[4] - d[2];
    const T odd2 = d[3] - d[1];
    v[0] = (d[0] - d[2]) * 4 + even2;
    v[1] = even + odd;
    v[2] = even - odd;
    v[3] = even2 + odd2 * 2;
    v[4] = even2 - odd2 * 2;
    v[5] = (d[5] - d[3]) - odd2 * 4;
  }
  template <typename T>
  static VOXPRESS_INLINE void weights(const T (&g)[3], T (&u)[kIn]) {
    const T even = g[0] + g[2];
    const T even4 = g[0] + g[2] * 4;
    u[0] = g[0];
    u[1] = even + g[1];
    u[2] = even - g[1];
    u[3] = even4 + g[1] * 2;
    u[4] = even4 - g[1] * 2;
    u[5] = g[2];
  }
  // The factors are powers of two, so that multiply_add may fuse and still gives the same.
  template <typename T>
  static VOXPRESS_INLINE void output(const T (&m)[kIn], T (&y)[kOut]) {
    const T even = m[1] + m[2];
    const T odd = m[1] - m[2];
    const T even2 = m[3] + m[4];
    const T odd2 = m[3] - m[4];
    y[0] = (m[0] + even) + even2;
    y[1] = multiply_add(odd2, 2.0f, odd);
    y[2] = multiply_add(even2, 4.0f, even);
    y[3] = multiply_add(odd2, 8.0f, odd) + m[5];
  }
  static constexpr int kSpread[kOut] = {0, 1, 2, 5};
  template <typename T>
  static VOXPRESS_INLINE void spread(const T (&y)[kOut], T (&m)[kOut]) {
    m[0] = y[0] - y[2];
    m[1] = (y[2] + y[1]) * 0.5f;
    m[2] = (y[2] - y[1]) * 0.5f;
    m[3] = y[3] - y[1];
  }
  template <typename T>
  static VOXPRESS_INLINE void output_of_products(const T (&a)[kIn], const T (&f)[kIn], T start, T (&y)[kOut]) {
    const T m1 = fused(a[1], f[1], start);
    const T m2 = a[2] * f[2];
    const T m3 = a[3] * f[3];
    const T m4 = a[4] * f[4];
    const T even = m1 + m2;
    const T odd = m1 - m2;
    const T even2 = m3 + m4;
    const T odd2 = m3 - m4;
    y[0] = fused(a[0], f[0], even) + even2;
    y[1] = multiply_add(odd2, 2.0f, odd);
    y[2] = multiply_add(even2, 4.0f, even);
    y[3] = fused(a[5], f[5], multiply_add(odd2, 8.0f, odd));
  }
};

// What a point's sum is divided by, as a factor.
template <typename F>
constexpr float point_factor(int point) {
  return 1.0f / (F::kWeights[point / F::kIn] * F::kWeights[point % F::kIn]);
}

}  // namespace
}  // namespace voxpress
