/* Owns the Arm forms of what goes over vectors: conversions, norm, activation, rotation. Any thread. */
#include "kernel/arm/neon.h"
#include "kernel/simd/elem.inc.h"

void ash_neon_quantise(const float *x, int64_t n, int8_t *q, float *d, float *ds, int32_t *ns)
{
    for (int64_t b = 0; b < n / 32; b++, x += 32, q += 32) {
        vf v[8], top = vf_zero();
        uint32x4_t good = vdupq_n_u32(UINT32_MAX);
        UNROLL for (int i = 0; i < 8; i++)
        {
            v[i] = vf_load(x + 4 * i);
            top = vf_max(top, vabsq_f32(v[i]));
            good = vandq_u32(good, vcltq_f32(vabsq_f32(v[i]), vf_set(INFINITY)));
        }
        float most = vf_top(top);
        bool wrong = vminvq_u32(good) == 0;
        if (__builtin_expect(wrong || most <= 1e-36f, 0)) {
            memset(q, 0, 32);
            d[b] = ds[b] = wrong ? NAN : 0.0f;
            ns[b] = 0;
            continue;
        }
        int32x4_t sum = vdupq_n_s32(0);
        UNROLL for (int i = 0; i < 8; i += 2)
        {
            int32x4_t low = vcvtnq_s32_f32(vf_mul(v[i], vf_set(127.0f / most)));
            int32x4_t high = vcvtnq_s32_f32(vf_mul(v[i + 1], vf_set(127.0f / most)));
            sum = vaddq_s32(sum, vaddq_s32(low, high));
            vst1_s8(q + 4 * i, vqmovn_s16(vcombine_s16(vqmovn_s32(low), vqmovn_s32(high))));
        }
        int32_t total = vaddvq_s32(sum);
        d[b] = most / 127.0f;
        ds[b] = d[b] * (float)total;
        ns[b] = -total;
    }
}

void ash_neon_to_f16(const float *x, int64_t n, uint16_t *h)
{
    to_f16(x, n, h);
}

void ash_neon_rms_norm(float *y, const float *x, const float *w, int64_t n, float eps)
{
    rms_norm(y, x, w, n, eps);
}

void ash_neon_add(float *x, const float *d, int64_t n)
{
    add(x, d, n);
}

void ash_neon_silu_mul(float *g, const float *u, int64_t n)
{
    silu_mul(g, u, n);
}

void ash_neon_rope_adjacent(float *x, const float *c, const float *s, int64_t n)
{
    rope_adjacent(x, c, s, n);
}

void ash_neon_rope_halves(float *x, const float *c, const float *s, int64_t n)
{
    rope_halves(x, c, s, n);
}
