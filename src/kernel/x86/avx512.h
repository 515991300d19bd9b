/* Vectors of 16 floats under the names that *.inc.h use (avx2.h has the same of 8), and what else the
 * AVX-512 files share. */
#ifndef ASHLEY_KERNEL_X86_AVX512_H
#define ASHLEY_KERNEL_X86_AVX512_H

#include "kernel/x86/sse.h"

/* The first `left` of 16 lanes. */
INLINE __mmask16 lanes(int64_t left)
{
    return (__mmask16)(left >= 16 ? 0xffffu : (1u << left) - 1);
}

typedef __m512 vf;
enum { LANES = 16 };

INLINE vf vf_zero(void) { return _mm512_setzero_ps(); }
INLINE vf vf_set(float x) { return _mm512_set1_ps(x); }
INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void vf_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }   /* a b + c */
INLINE vf vf_fms(vf a, vf b, vf c) { return _mm512_fmsub_ps(a, b, c); }   /* a b - c */
INLINE float vf_sum(vf v) { return _mm512_reduce_add_ps(v); }
INLINE float vf_top(vf v) { return _mm512_reduce_max_ps(v); }

/* The first `left` floats (all if more), zero in the other lanes. */
INLINE vf vf_load_part(const float *p, int64_t left) { return _mm512_maskz_loadu_ps(lanes(left), p); }
INLINE void vf_store_part(float *p, int64_t left, vf v) { _mm512_mask_storeu_ps(p, lanes(left), v); }

/* v in the lanes [lo, hi), `other` elsewhere. */
INLINE vf vf_keep(vf v, int lo, int hi, vf other)
{
    __mmask16 seen = (hi > 0 ? lanes(hi) : 0) & (__mmask16)~(lo > 0 ? lanes(lo) : 0);
    return _mm512_mask_mov_ps(other, seen, v);
}

/* 16 half floats, widened. */
INLINE vf vf_halves(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

INLINE void vf_store_halves_part(uint16_t *h, int64_t left, vf v)
{
    __m256i o = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_mask_storeu_epi16(h, lanes(left), o);
}

/* Pairs (x0, y0, x1, y1, ...) turned by the cosines c and sines s of LANES / 2 pairs. */
INLINE vf vf_turn_pairs(vf v, const float *c, const float *s, int64_t left)
{
    const __m512i spread = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    vf cc = _mm512_permutexvar_ps(spread, vf_load_part(c, left));
    vf ss = _mm512_permutexvar_ps(spread, vf_load_part(s, left));
    return _mm512_fmaddsub_ps(v, cc, _mm512_mul_ps(_mm512_permute_ps(v, 0xB1), ss));
}

/* Four bytes in every lane. */
INLINE __m512i broadcast4(const void *p)
{
    int32_t v;
    __builtin_memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

/* CALL(n) with n, 1 to 6 or 1 to 12, as a constant: of the rows that a tile has, for each a copy whose sums
 * stay in registers. */
#define BY_SIZE(n, CALL)                                                                            \
    switch (n) {                                                                                    \
    case 1: CALL(1); break;                                                                         \
    case 2: CALL(2); break;                                                                         \
    case 3: CALL(3); break;                                                                         \
    case 4: CALL(4); break;                                                                         \
    case 5: CALL(5); break;                                                                         \
    default: CALL(6);                                                                               \
    }

#define BY_SIZE_12(n, CALL)                                                                         \
    switch (n) {                                                                                    \
    case 1: CALL(1); break;                                                                         \
    case 2: CALL(2); break;                                                                         \
    case 3: CALL(3); break;                                                                         \
    case 4: CALL(4); break;                                                                         \
    case 5: CALL(5); break;                                                                         \
    case 6: CALL(6); break;                                                                         \
    case 7: CALL(7); break;                                                                         \
    case 8: CALL(8); break;                                                                         \
    case 9: CALL(9); break;                                                                         \
    case 10: CALL(10); break;                                                                       \
    case 11: CALL(11); break;                                                                       \
    default: CALL(12);                                                                              \
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

/* Fetches what STORE_TILE will write: rows of y are far apart, and a store that waits for its line holds up
 * all that follow. */
#define FETCH_TILE(R, N, y, ldy)                                                                    \
    UNROLL for (int n_ = 0; n_ < (N); n_++) UNROLL for (int r_ = 0; r_ < (R); r_++)                 \
        __builtin_prefetch((y) + n_ * (ldy) + r_ * ASH_GROUP, 1)

/* exp(x) to about 1 unit in the last place: 2^n times a polynomial of degree 6 on the rest, which lies in
 * +-ln(2)/2 (Cody and Waite's reduction; the coefficients are Cephes' expf). Underflows to 0 through
 * subnormals, overflows to infinity, keeps NaN. */
INLINE vf vf_exp(vf x)
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
