// Complex FFT of any length in single precision, decimation in time: radix 4 and 2, and a plain sum for other prime
// factors. For powers of two, sums are taken in the order in which the FFT in kaldi-native-fbank 1.23 takes them, for
// bits to agree: that of kissfft, except where its compiler, allowed to reorder (-ffast-math), took the two halves of
// the real part of a product one by one.
#pragma once

#include <cstdint>

namespace voxpress {

struct Complex {
  float re, im;
};

inline Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
inline Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }

// The parts of x * y; its real part is re_re - im_im.
struct Product {
  Product(Complex x, Complex y) : re_re(x.re * y.re), im_im(x.im * y.im), im(x.re * y.im + x.im * y.re) {}
  float re_re, im_im, im;
};

inline Complex operator*(Complex a, Complex b) {
  const Product product(a, b);
  return {product.re_re - product.im_im, product.im};
}

// out[k] = sum_j in[j] exp(-2 pi i j k / size), roots[j] = exp(-2 pi i j / size). `out` and `work` hold `size` values
// and do not overlap `in`.
void fft(const Complex* in, Complex* out, Complex* work, int64_t size, const Complex* roots);

}  // namespace voxpress
