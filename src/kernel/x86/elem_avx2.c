/* Owns the AVX2 forms of what goes over vectors: conversions, norm, activation, rotation. Any thread. */
#include "kernel/x86/avx2.h"
#include "kernel/simd/elem.inc.h"

INLINE vf absolute(vf v)
{
    return _mm256_andnot_ps(vf_set(-0.0f), v);
}

void ash_avx2_quantise(const float *x, int64_t n, int8_t *q, float *d, float *ds, int32_t *ns)
{
    /* packs work on 128-bit halves: dword order 0 4 1 5 2 6 3 7 puts the bytes right */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const vf inf = vf_set(INFINITY);
    for (int64_t b = 0; b < n / 32; b++, x += 32, q += 32) {
        vf v[4], top = vf_zero(), bad = vf_zero();
        UNROLL for (int i = 0; i < 4; i++)
        {
            v[i] = vf_load(x + 8 * i);
            top = vf_max(top, absolute(v[i]));
            bad = _mm256_or_ps(bad, _mm256_cmp_ps(absolute(v[i]), inf, _CMP_NLT_UQ));
        }
        float most = vf_top(top);
        int wrong = _mm256_movemask_ps(bad);
        if (__builtin_expect(wrong || most <= 1e-36f, 0)) {
            _mm256_storeu_si256((__m256i *)q, _mm256_setzero_si256());
            d[b] = ds[b] = wrong ? NAN : 0.0f;
            ns[b] = 0;
            continue;
        }
        __m256i w[4], sum = _mm256_setzero_si256();
        UNROLL for (int i = 0; i < 4; i++)
        {
            w[i] = _mm256_cvtps_epi32(vf_mul(v[i], vf_set(127.0f / most)));
            sum = _mm256_add_epi32(sum, w[i]);
        }
        __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(w[0], w[1]), _mm256_packs_epi32(w[2], w[3]));
        _mm256_storeu_si256((__m256i *)q, _mm256_permutevar8x32_epi32(bytes, order));
        __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
        int total = _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
        d[b] = most / 127.0f;
        ds[b] = d[b] * (float)total;
        ns[b] = -total;
    }
}

void ash_avx2_to_f16(const float *x, int64_t n, uint16_t *h)
{
    to_f16(x, n, h);
}

void ash_avx2_rms_norm(float *y, const float *x, const float *w, int64_t n, float eps)
{
    rms_norm(y, x, w, n, eps);
}

void ash_avx2_add(float *x, const float *d, int64_t n)
{
    add(x, d, n);
}

void ash_avx2_silu_mul(float *g, const float *u, int64_t n)
{
    silu_mul(g, u, n);
}

void ash_avx2_rope_adjacent(float *x, const float *c, const float *s, int64_t n)
{
    rope_adjacent(x, c, s, n);
}

void ash_avx2_rope_halves(float *x, const float *c, const float *s, int64_t n)
{
    rope_halves(x, c, s, n);
}
