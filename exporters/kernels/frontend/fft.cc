#include "frontend/fft.h"

#include <cstdint>

namespace voxpress {
namespace {

struct Roots {
  const Complex* of_one;  // exp(-2 pi i j / size)
  int64_t size;
};

int64_t next_radix(int64_t size) {
  if (size % 4 == 0) return 4;
  for (int64_t radix = 2; radix * radix <= size; ++radix) {
    if (size % radix == 0) return radix;
  }
  return size;
}

// The combine functions turn `radix` transforms of length m, one after the other in `out`, into one of radix * m;
// `step` is the distance in the table between neighbouring roots of that length.

void combine2(Complex* out, int64_t m, const Complex* roots, int64_t step) {
  for (int64_t k = 0; k < m; ++k) {
    const Complex odd = out[k + m] * roots[k * step];
    out[k + m] = out[k] - odd;
    out[k] = out[k] + odd;
  }
}

void combine4(Complex* out, int64_t m, const Complex* roots, int64_t step) {
  for (int64_t k = 0; k < m; ++k) {
    const Complex a = out[k], b = out[k + m] * roots[k * step];
    const Product c(out[k + 2 * m], roots[2 * k * step]), d(out[k + 3 * m], roots[3 * k * step]);
    const Complex even_sum = {(a.re + c.re_re) - c.im_im, a.im + c.im};
    const Complex even_difference = {(a.re + c.im_im) - c.re_re, a.im - c.im};
    const Complex odd_sum = {(b.re - d.im_im) + d.re_re, b.im + d.im};
    const float odd_difference = (b.re - d.re_re) + d.im_im;
    out[k] = even_sum + odd_sum;
    out[k + m] = {(even_difference.re + b.im) - d.im, even_difference.im - odd_difference};
    out[k + 2 * m] = even_sum - odd_sum;
    out[k + 3 * m] = {(even_difference.re + d.im) - b.im, even_difference.im + odd_difference};
  }
}

void combine_any(Complex* out, int64_t m, const Roots& roots, int64_t step, int64_t radix, Complex* work) {
  for (int64_t k = 0; k < m; ++k) {
    for (int64_t j = 0; j < radix; ++j) work[j] = out[k + j * m];
    for (int64_t r = 0; r < radix; ++r) {
      const int64_t turn = step * (k + r * m);
      Complex sum = work[0];
      int64_t index = 0;
      for (int64_t j = 1; j < radix; ++j) {
        index = (index + turn) % roots.size;
        sum = sum + work[j] * roots.of_one[index];
      }
      out[k + r * m] = sum;
    }
  }
}

// Depth: the number of factors of size, at most 15 for the lengths that the front end allows.
void transform(const Complex* in, int64_t stride, Complex* out, int64_t size, const Roots& roots, Complex* work) {
  if (size == 1) {
    out[0] = in[0];
    return;
  }
  const int64_t radix = next_radix(size), m = size / radix;
  for (int64_t j = 0; j < radix; ++j) transform(in + j * stride, stride * radix, out + j * m, m, roots, work);
  switch (radix) {
    case 2:
      return combine2(out, m, roots.of_one, stride);
    case 4:
      return combine4(out, m, roots.of_one, stride);
    default:
      return combine_any(out, m, roots, stride, radix, work);
  }
}

}  // namespace

void fft(const Complex* in, Complex* out, Complex* work, int64_t size, const Complex* roots) {
  transform(in, 1, out, size, {roots, size}, work);
}

}  // namespace voxpress
