// Complex FFT of any length in double, decimation in time: radix 4 and 2, and a plain sum for other prime factors.
#pragma once

#include <cstdint>

namespace voxpress {

struct Complex {
  double re, im;
};

inline Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
inline Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
inline Complex operator*(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }

// out[k] = sum_j in[j] exp(-2 pi i j k / size), roots[j] = exp(-2 pi i j / size). `out` and `work` hold `size` values
// and do not overlap `in`.
void fft(const Complex* in, Complex* out, Complex* work, int64_t size, const Complex* roots);

}  // namespace voxpress
