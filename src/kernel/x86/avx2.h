/* Vectors of 8 floats under the names that *.inc.h use (avx512.h has the same of 16), and what else the
 * AVX2 files share. */
#ifndef ASHLEY_KERNEL_X86_AVX2_H
#define ASHLEY_KERNEL_X86_AVX2_H

#include "kernel/x86/sse.h"

typedef __m256 vf;
enum { LANES = 8 };

INLINE vf vf_zero(void) { return _mm256_setzero_ps(); }
INLINE vf vf_set(float x) { return _mm256_set1_ps(x); }
INLINE vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void vf_store(float *p, vf v) { _mm256_storeu_ps(p, v); }
INLINE vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
INLINE vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
INLINE vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
INLINE vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }   /* a b + c */
INLINE vf vf_fms(vf a, vf b, vf c) { return _mm256_fmsub_ps(a, b, c); }   /* a b - c */

INLINE float vf_sum(vf v)
{
    __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}

INLINE float vf_top(vf v)
{
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}

/* All ones in the lanes below `left`. */
INLINE __m256i lanes(int64_t left)
{
    int n = left < LANES ? (int)left : LANES;
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first `left` floats (all if more), zero in the other lanes. */
INLINE vf vf_load_part(const float *p, int64_t left) { return _mm256_maskload_ps(p, lanes(left)); }
INLINE void vf_store_part(float *p, int64_t left, vf v) { _mm256_maskstore_ps(p, lanes(left), v); }

/* v in the lanes [lo, hi), `other` elsewhere. */
INLINE vf vf_keep(vf v, int lo, int hi, vf other)
{
    __m256i seen = _mm256_andnot_si256(lanes(lo), lanes(hi));
    return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(seen));
}

/* 8 half floats, widened. */
INLINE vf vf_halves(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

INLINE void vf_store_halves_part(uint16_t *h, int64_t left, vf v)
{
    uint16_t o[LANES];
    __m128i all = _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128((__m128i *)(left >= LANES ? h : o), all);
    for (int64_t i = 0; left < LANES && i < left; i++) h[i] = o[i];
}

/* Pairs (x0, y0, x1, y1, ...) turned by the cosines c and sines s of LANES / 2 pairs. */
INLINE vf vf_turn_pairs(vf v, const float *c, const float *s, int64_t left)
{
    const __m256i spread = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    int64_t n = left < LANES / 2 ? left : LANES / 2;
    vf cc = _mm256_permutevar8x32_ps(vf_load_part(c, n), spread);
    vf ss = _mm256_permutevar8x32_ps(vf_load_part(s, n), spread);
    return _mm256_fmaddsub_ps(v, cc, _mm256_mul_ps(_mm256_permute_ps(v, 0xB1), ss));
}

/* Four bytes in every lane. */
INLINE __m256i broadcast4(const void *p)
{
    int32_t v;
    __builtin_memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}

/* exp(x), as in avx512.h; 2^n in two factors, so that results below the normal numbers come out. */
INLINE vf vf_exp(vf x)
{
    const vf lo = vf_set(-104.0f), hi = vf_set(89.0f);
    vf c = _mm256_min_ps(hi, _mm256_max_ps(lo, x)); /* the second operand wins if x is NaN */
    vf n = _mm256_round_ps(vf_mul(c, vf_set(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vf r = _mm256_fnmadd_ps(n, vf_set(0.693359375f), c);
    r = _mm256_fnmadd_ps(n, vf_set(-2.12194440e-4f), r);
    vf p = vf_set(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set(5.0000001201e-1f));
    p = vf_add(vf_fma(p, vf_mul(r, r), r), vf_set(1.0f));
    __m256i e = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(e, 1), bias = _mm256_set1_epi32(127);
    __m256i a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(e, half), bias), 23);
    return vf_mul(vf_mul(p, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
}

#endif
