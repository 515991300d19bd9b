/* What the AVX-512 files share: unrolled inline code, tails, half floats, the exponential. */
#ifndef ASHLEY_KERNEL_X86_AVX512_H
#define ASHLEY_KERNEL_X86_AVX512_H

#include <immintrin.h>

#include "kernel/x86/x86.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* The first `left` of 16 lanes. */
INLINE __mmask16 lanes(int64_t left)
{
    return left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
}

/* 16 half floats, widened. */
INLINE __m512 load_halves(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* Four bytes in every lane. */
INLINE __m512i broadcast4(const void *p)
{
    int32_t v;
    __builtin_memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

/* Sums of R groups of 16 rows, of which `left` exist, for N rows of activations. */
#define STORE_TILE(acc, R, N, y, ldy, left)                                                         \
    UNROLL for (int n_ = 0; n_ < (N); n_++) UNROLL for (int r_ = 0; r_ < (R); r_++)                 \
    {                                                                                               \
        float *to_ = (y) + n_ * (ldy) + r_ * ASH_GROUP;                                             \
        if ((left) - r_ * ASH_GROUP >= ASH_GROUP)                                                   \
            _mm512_storeu_ps(to_, (acc)[r_][n_]);                                                   \
        else                                                                                        \
            _mm512_mask_storeu_ps(to_, lanes((left) - r_ * ASH_GROUP), (acc)[r_][n_]);              \
    }

#define ZERO_TILE(acc, R, N)                                                                        \
    UNROLL for (int n_ = 0; n_ < (N); n_++) UNROLL for (int r_ = 0; r_ < (R); r_++)                 \
        (acc)[r_][n_] = _mm512_setzero_ps()

/* exp(x) to about 1 unit in the last place: 2^n times a polynomial of degree 6 on the rest, which lies in
 * +-ln(2)/2 (Cody and Waite's reduction; the coefficients are Cephes' expf). Underflows to 0 through
 * subnormals, overflows to infinity, keeps NaN. */
INLINE __m512 exp_ps(__m512 x)
{
    const __m512 lo = _mm512_set1_ps(-104.0f), hi = _mm512_set1_ps(89.0f);
    __m512 c = _mm512_min_ps(hi, _mm512_max_ps(lo, x)); /* the second operand wins if x is NaN */
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(c, _mm512_set1_ps(1.44269504f)), 0x08);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), c);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

#endif
