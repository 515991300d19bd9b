/* Owns the AVX-512 forms of what goes over vectors: conversions, norm, activation, rotation. Any thread. */
#include "kernel/x86/avx512.h"
#include "kernel/simd/elem.inc.h"

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

void ash_avx512_half_sums(const int8_t *q, int64_t n, uint32_t *hs)
{
    const __m256i one = _mm256_set1_epi8(1), zero = _mm256_setzero_si256();
    for (int64_t b = 0; b < n / 32; b++) {
        __m256i x = _mm256_dpbusd_epi32(zero, one, _mm256_loadu_si256((const __m256i *)(q + b * 32)));
        x = _mm256_add_epi32(x, _mm256_shuffle_epi32(x, 0x4E));
        x = _mm256_sub_epi32(zero, _mm256_add_epi32(x, _mm256_shuffle_epi32(x, 0xB1)));
        hs[b] = (uint16_t)_mm256_extract_epi32(x, 0) | (uint32_t)_mm256_extract_epi32(x, 4) << 16;
    }
}

void ash_avx512_to_f16(const float *x, int64_t n, uint16_t *h)
{
    to_f16(x, n, h);
}

void ash_avx512_rms_norm(float *y, const float *x, const float *w, int64_t n, float eps)
{
    rms_norm(y, x, w, n, eps);
}

void ash_avx512_add(float *x, const float *d, int64_t n)
{
    add(x, d, n);
}

void ash_avx512_silu_mul(float *g, const float *u, int64_t n)
{
    silu_mul(g, u, n);
}

void ash_avx512_rope_adjacent(float *x, const float *c, const float *s, int64_t n)
{
    rope_adjacent(x, c, s, n);
}

void ash_avx512_rope_halves(float *x, const float *c, const float *s, int64_t n)
{
    rope_halves(x, c, s, n);
}
