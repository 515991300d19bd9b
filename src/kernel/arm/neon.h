/* Vectors of 4 floats under the names that simd/ uses, and what else the Arm files share. */
#ifndef ASHLEY_KERNEL_ARM_NEON_H
#define ASHLEY_KERNEL_ARM_NEON_H

#include <arm_neon.h>
#include <string.h>

#include "kernel/arm/arm.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef float32x4_t vf;
enum { LANES = 4, QUARTERS = ASH_GROUP / LANES };

INLINE vf vf_zero(void) { return vdupq_n_f32(0); }
INLINE vf vf_set(float x) { return vdupq_n_f32(x); }
INLINE vf vf_load(const float *p) { return vld1q_f32(p); }
INLINE void vf_store(float *p, vf v) { vst1q_f32(p, v); }
INLINE vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
INLINE vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
INLINE vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
INLINE vf vf_div(vf a, vf b) { return vdivq_f32(a, b); }
INLINE vf vf_max(vf a, vf b) { return vmaxq_f32(a, b); }
INLINE vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }            /* a b + c */
INLINE vf vf_fms(vf a, vf b, vf c) { return vfmaq_f32(vnegq_f32(c), a, b); } /* a b - c */
INLINE float vf_sum(vf v) { return vaddvq_f32(v); }
INLINE float vf_top(vf v) { return vmaxvq_f32(v); }

/* The first `left` floats (all if more), zero in the other lanes. */
INLINE vf vf_load_part(const float *p, int64_t left)
{
    float some[LANES] = {0};
    if (left >= LANES)
        return vf_load(p);
    for (int64_t i = 0; i < left; i++) some[i] = p[i];
    return vf_load(some);
}

INLINE void vf_store_part(float *p, int64_t left, vf v)
{
    float all[LANES];
    if (left >= LANES) {
        vf_store(p, v);
        return;
    }
    vf_store(all, v);
    for (int64_t i = 0; i < left; i++) p[i] = all[i];
}

/* v in the lanes [lo, hi), `other` elsewhere. */
INLINE vf vf_keep(vf v, int lo, int hi, vf other)
{
    const int32x4_t lane = {0, 1, 2, 3};
    uint32x4_t seen = vandq_u32(vcgeq_s32(lane, vdupq_n_s32(lo)), vcltq_s32(lane, vdupq_n_s32(hi)));
    return vbslq_f32(seen, v, other);
}

/* 4 half floats, widened. */
INLINE vf vf_halves(const void *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

/* One half float, widened. */
INLINE float half_to_f(uint16_t h)
{
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
}

INLINE void vf_store_halves_part(uint16_t *h, int64_t left, vf v)
{
    uint16_t all[LANES];
    vst1_u16(left >= LANES ? h : all, vreinterpret_u16_f16(vcvt_f16_f32(v)));
    for (int64_t i = 0; left < LANES && i < left; i++) h[i] = all[i];
}

/* Pairs (x0, y0, x1, y1) turned by the cosines c and sines s of 2 pairs. */
INLINE vf vf_turn_pairs(vf v, const float *c, const float *s, int64_t left)
{
    vf cc = vf_load_part(c, left < 2 ? left : 2), ss = vf_load_part(s, left < 2 ? left : 2);
    vf turned = vmulq_f32(vrev64q_f32(v), vzip1q_f32(vnegq_f32(ss), ss));
    return vf_fma(v, vzip1q_f32(cc, cc), turned);
}

/* exp(x), as in x86/avx2.h. */
INLINE vf vf_exp(vf x)
{
    vf c = vminq_f32(vf_set(89.0f), vmaxq_f32(vf_set(-104.0f), x)); /* NaN stays NaN */
    vf n = vrndnq_f32(vf_mul(c, vf_set(1.44269504f)));
    vf r = vfmsq_f32(c, n, vf_set(0.693359375f));
    r = vfmsq_f32(r, n, vf_set(-2.12194440e-4f));
    vf p = vf_set(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set(5.0000001201e-1f));
    p = vf_add(vf_fma(p, vf_mul(r, r), r), vf_set(1.0f));
    int32x4_t e = vcvtq_s32_f32(n), half = vshrq_n_s32(e, 1), bias = vdupq_n_s32(127);
    int32x4_t a = vshlq_n_s32(vaddq_s32(half, bias), 23);
    int32x4_t b = vshlq_n_s32(vaddq_s32(vsubq_s32(e, half), bias), 23);
    return vf_mul(vf_mul(p, vreinterpretq_f32_s32(a)), vreinterpretq_f32_s32(b));
}

/* Turns 8 rows of 8 halves, `ld` of them apart, to rows `to_ld` apart. */
INLINE void turn_8x8(const uint16_t *from, int ld, uint16_t *to, int to_ld)
{
    uint16x8_t a[8];
    uint32x4_t b[8];
    UNROLL for (int i = 0; i < 8; i++) a[i] = vld1q_u16(from + i * ld);
    UNROLL for (int i = 0; i < 8; i += 2)
    {
        b[i] = vreinterpretq_u32_u16(vzip1q_u16(a[i], a[i + 1]));
        b[i + 1] = vreinterpretq_u32_u16(vzip2q_u16(a[i], a[i + 1]));
    }
    UNROLL for (int i = 0; i < 2; i++) /* columns 4 i on */
    {
        uint64x2_t low[2] = {vreinterpretq_u64_u32(vzip1q_u32(b[i], b[i + 2])),
                             vreinterpretq_u64_u32(vzip2q_u32(b[i], b[i + 2]))};
        uint64x2_t high[2] = {vreinterpretq_u64_u32(vzip1q_u32(b[i + 4], b[i + 6])),
                              vreinterpretq_u64_u32(vzip2q_u32(b[i + 4], b[i + 6]))};
        UNROLL for (int j = 0; j < 2; j++)
        {
            uint16_t *at = to + (4 * i + 2 * j) * to_ld;
            vst1q_u16(at, vreinterpretq_u16_u64(vzip1q_u64(low[j], high[j])));
            vst1q_u16(at + to_ld, vreinterpretq_u16_u64(vzip2q_u64(low[j], high[j])));
        }
    }
}

/* N rows of results of 16 rows of W, of which `left` are there. */
#define STORE_TILE(acc, N, y, ldy, left)                                                              \
    for (int n = 0; n < (N); n++)                                                                     \
        for (int h = 0; h < QUARTERS; h++)                                                            \
            if ((left) > h * LANES)                                                                   \
                vf_store_part((y) + n * (ldy) + h * LANES, (left)-h * LANES, acc[h][n]);

#define ZERO_TILE(acc, N)                                                                             \
    UNROLL for (int h = 0; h < QUARTERS; h++) UNROLL for (int n = 0; n < (N); n++) acc[h][n] = vf_zero();

#endif
