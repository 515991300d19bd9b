/* Owns the AVX-512 forms of what goes over vectors: conversions, norm, activation, rotation. Any thread. */
#include <math.h>

#include "kernel/x86/avx512.h"

void ash_avx512_quantise(const float *x, int64_t n, int8_t *q, float *d, float *ds, int32_t *ns)
{
    const __m512 inf = _mm512_set1_ps(INFINITY);
    for (int64_t b = 0; b < n / 32; b++, x += 32, q += 32) {
        __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
        __m512 a0 = _mm512_abs_ps(x0), a1 = _mm512_abs_ps(x1);
        float top = _mm512_reduce_max_ps(_mm512_max_ps(a0, a1));
        __mmask16 bad = _mm512_cmp_ps_mask(a0, inf, _CMP_NLT_UQ) | _mm512_cmp_ps_mask(a1, inf, _CMP_NLT_UQ);
        if (__builtin_expect(bad || top <= 1e-36f, 0)) {
            _mm256_storeu_si256((__m256i *)q, _mm256_setzero_si256());
            d[b] = ds[b] = bad ? NAN : 0.0f;
            ns[b] = 0;
            continue;
        }
        __m512 inv = _mm512_set1_ps(127.0f / top);
        __m512i i0 = _mm512_cvtps_epi32(_mm512_mul_ps(x0, inv));
        __m512i i1 = _mm512_cvtps_epi32(_mm512_mul_ps(x1, inv));
        _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(i0));
        _mm_storeu_si128((__m128i *)(q + 16), _mm512_cvtepi32_epi8(i1));
        int sum = _mm512_reduce_add_epi32(_mm512_add_epi32(i0, i1));
        d[b] = top / 127.0f;
        ds[b] = d[b] * (float)sum;
        ns[b] = -sum;
    }
}

void ash_avx512_to_f16(const float *x, int64_t n, uint16_t *h)
{
    for (int64_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(lanes(n - i), x + i);
        __m256i o = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm256_mask_storeu_epi16(h + i, lanes(n - i), o);
    }
}

void ash_avx512_rms_norm(float *y, const float *x, const float *w, int64_t n, float eps)
{
    __m512 s0 = _mm512_setzero_ps(), s1 = s0;
    for (int64_t i = 0; i < n; i += 32) {
        __m512 a = _mm512_maskz_loadu_ps(lanes(n - i), x + i);
        __m512 b = n - i > 16 ? _mm512_maskz_loadu_ps(lanes(n - i - 16), x + i + 16) : _mm512_setzero_ps();
        s0 = _mm512_fmadd_ps(a, a, s0);
        s1 = _mm512_fmadd_ps(b, b, s1);
    }
    float sum = _mm512_reduce_add_ps(_mm512_add_ps(s0, s1));
    __m512 scale = _mm512_set1_ps(1.0f / sqrtf(sum / (float)n + eps));
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), scale);
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, w + i)));
    }
}

void ash_avx512_add(float *x, const float *d, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        __m512 v = _mm512_add_ps(_mm512_maskz_loadu_ps(m, x + i), _mm512_maskz_loadu_ps(m, d + i));
        _mm512_mask_storeu_ps(x + i, m, v);
    }
}

void ash_avx512_silu_mul(float *g, const float *u, int64_t n)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        __m512 x = _mm512_maskz_loadu_ps(m, g + i);
        __m512 e = exp_ps(_mm512_sub_ps(_mm512_setzero_ps(), x));
        __m512 v = _mm512_div_ps(x, _mm512_add_ps(one, e));
        _mm512_mask_storeu_ps(g + i, m, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, u + i)));
    }
}

void ash_avx512_rope_adjacent(float *x, const float *c, const float *s, int64_t n)
{
    const __m512i spread = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    for (int64_t i = 0; i < n; i += 8) {
        __mmask16 m = lanes(2 * (n - i));
        __mmask8 half = (__mmask8)(n - i >= 8 ? 0xff : (1u << (n - i)) - 1);
        __m512 v = _mm512_maskz_loadu_ps(m, x + 2 * i);
        __m512 cc = _mm512_permutexvar_ps(spread, _mm512_castps256_ps512(_mm256_maskz_loadu_ps(half, c + i)));
        __m512 ss = _mm512_permutexvar_ps(spread, _mm512_castps256_ps512(_mm256_maskz_loadu_ps(half, s + i)));
        __m512 swapped = _mm512_permute_ps(v, 0xB1);
        /* even: x c - y s, odd: y c + x s */
        v = _mm512_fmaddsub_ps(v, cc, _mm512_mul_ps(swapped, ss));
        _mm512_mask_storeu_ps(x + 2 * i, m, v);
    }
}

void ash_avx512_rope_halves(float *x, const float *c, const float *s, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        __m512 a = _mm512_maskz_loadu_ps(m, x + i), b = _mm512_maskz_loadu_ps(m, x + n + i);
        __m512 cc = _mm512_maskz_loadu_ps(m, c + i), ss = _mm512_maskz_loadu_ps(m, s + i);
        _mm512_mask_storeu_ps(x + i, m, _mm512_fmsub_ps(a, cc, _mm512_mul_ps(b, ss)));
        _mm512_mask_storeu_ps(x + n + i, m, _mm512_fmadd_ps(b, cc, _mm512_mul_ps(a, ss)));
    }
}
