// The one-dimensional transforms of F(4x4,3x3) and F(2x2,3x3), which the two-dimensional ones apply twice.
//
// F(m,3) evaluates polynomials at m + 1 points and at infinity; n = m + 2 products then give m outputs:
//   y = A^T [(G g) * (B^T d)],   d: n inputs, g: 3 weights.
#pragma once

namespace voxpress {
namespace {

// Points 0, 1, -1: exact in the input, halves in the weights.
struct F2 {
  static constexpr int kIn = 4;
  static constexpr int kOut = 2;

  template <typename T>
  static VOXPRESS_INLINE void input(const T (&d)[kIn], T (&v)[kIn]) {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  }
  template <typename T>
  static VOXPRESS_INLINE void weights(const T (&g)[3], T (&u)[kIn]) {
    const T even = 0.5 * (g[0] + g[2]);
    const T odd = 0.5 * g[1];
    u[0] = g[0];
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = g[2];
  }
  template <typename T>
  static VOXPRESS_INLINE void output(const T (&m)[kIn], T (&y)[kOut]) {
    y[0] = m[0] + (m[1] + m[2]);
    y[1] = (m[1] - m[2]) + m[3];
  }
};

// Points 0, +-a, +-b with a = sqrt(1/2), b = sqrt(2): a * b = 1 keeps the transforms as small as those of the usual 0,
// +-1, +-2, and their largest error is a quarter of it.
struct F4 {
  static constexpr int kIn = 6;
  static constexpr int kOut = 4;
  static constexpr float kA = 0.70710678f;
  static constexpr float kB = 1.41421356f;
  static constexpr float kSum = 2.5f;  // a^2 + b^2

  template <typename T>
  static VOXPRESS_INLINE void input(const T (&d)[kIn], T (&v)[kIn]) {
    const T even_a = d[4] - 2.0f * d[2];
    const T odd_a = d[3] - 2.0f * d[1];
    const T even_b = d[4] - 0.5f * d[2];
    const T odd_b = d[3] - 0.5f * d[1];
    v[0] = (d[0] + d[4]) - kSum * d[2];
    v[1] = even_a + kA * odd_a;
    v[2] = even_a - kA * odd_a;
    v[3] = even_b + kB * odd_b;
    v[4] = even_b - kB * odd_b;
    v[5] = (d[1] + d[5]) - kSum * d[3];
  }
  // 1 / (2 a^2 (a^2 - b^2)) = -2/3 and 1 / (2 b^2 (b^2 - a^2)) = 1/6; a and b as the floats that the other two use.
  template <typename T>
  static VOXPRESS_INLINE void weights(const T (&g)[3], T (&u)[kIn]) {
    const double a = kA;
    const double b = kB;
    const T even_a = (-2.0 / 3.0) * g[0] - (1.0 / 3.0) * g[2];
    const T odd_a = (-2.0 / 3.0 * a) * g[1];
    const T even_b = (1.0 / 6.0) * g[0] + (1.0 / 3.0) * g[2];
    const T odd_b = (1.0 / 6.0 * b) * g[1];
    u[0] = g[0];
    u[1] = even_a + odd_a;
    u[2] = even_a - odd_a;
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = g[2];
  }
  template <typename T>
  static VOXPRESS_INLINE void output(const T (&m)[kIn], T (&y)[kOut]) {
    const T even_a = m[1] + m[2];
    const T odd_a = m[1] - m[2];
    const T even_b = m[3] + m[4];
    const T odd_b = m[3] - m[4];
    y[0] = m[0] + (even_a + even_b);
    y[1] = kA * odd_a + kB * odd_b;
    y[2] = 0.5f * even_a + 2.0f * even_b;
    y[3] = (0.5f * kA * odd_a + 2.0f * kB * odd_b) + m[5];
  }
};

}  // namespace
}  // namespace voxpress
