/* Integer products of 4 rows of quants with rows of activations, by what the instruction set has. Sums are
 * exact, so that which instruction makes them can depend on the batch.
 *
 * neon: 16-bit sums of products of bytes, four of at most 63 or two of any, then widened. dotprod: sdot
 * takes 4 columns of 4 rows. i8mm: smmla takes 8 columns of 2 rows times 2 rows of activations; a last odd
 * one sdot. */
#ifndef ASHLEY_KERNEL_ARM_DOT_H
#define ASHLEY_KERNEL_ARM_DOT_H

#include "kernel/arm/neon.h"

enum { TILE_ROWS = 4 };

typedef enum quants {
    QUANTS_4,      /* nibbles, as form U4Z */
    QUANTS_SMALL,  /* bytes of at most 63 */
    QUANTS_SIGNED, /* bytes around 128 */
} quants;

/* Part p, 4 columns, of the rows of quarter h. */
INLINE int8x16_t part(const uint8_t *w, const quants kind, int p, int h)
{
    uint8x16_t v = vld1q_u8(w + (kind == QUANTS_4 ? p % 4 : p) * 64 + h * 16);
    if (kind == QUANTS_4)
        v = p < 4 ? vandq_u8(v, vdupq_n_u8(15)) : vshrq_n_u8(v, 4);
    else if (kind == QUANTS_SIGNED)
        v = veorq_u8(v, vdupq_n_u8(128));
    return vreinterpretq_s8_u8(v);
}

#if defined(__ARM_FEATURE_DOTPROD)
/* sums[n] += 16 columns, whose quants are v, times row n of x. */
INLINE void dot_16(const int8x16_t v[4], const int8x16_t *x, const int from, const int N, int32x4_t *sums)
{
    UNROLL for (int n = from; n < N; n++) sums[n] = vdotq_laneq_s32(sums[n], v[0], x[n], 0);
    UNROLL for (int n = from; n < N; n++) sums[n] = vdotq_laneq_s32(sums[n], v[1], x[n], 1);
    UNROLL for (int n = from; n < N; n++) sums[n] = vdotq_laneq_s32(sums[n], v[2], x[n], 2);
    UNROLL for (int n = from; n < N; n++) sums[n] = vdotq_laneq_s32(sums[n], v[3], x[n], 3);
}
#else
INLINE int32x4_t widen(int32x4_t sum, int16x8_t low, int16x8_t high)
{
    return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
}

INLINE void dot_16(const int8x16_t v[4], const int8x16_t *x, const quants kind, const int N, int32x4_t *sums)
{
    UNROLL for (int n = 0; n < N; n++)
    {
        int32x4_t all = vreinterpretq_s32_s8(x[n]);
        int8x16_t y[4] = {vreinterpretq_s8_s32(vdupq_laneq_s32(all, 0)),
                          vreinterpretq_s8_s32(vdupq_laneq_s32(all, 1)),
                          vreinterpretq_s8_s32(vdupq_laneq_s32(all, 2)),
                          vreinterpretq_s8_s32(vdupq_laneq_s32(all, 3))};
        int16x8_t low = vdupq_n_s16(0), high = low;
        UNROLL for (int i = 0; i < 4; i++)
        {
            low = vmlal_s8(low, vget_low_s8(v[i]), vget_low_s8(y[i]));
            high = vmlal_high_s8(high, v[i], y[i]);
            if (kind == QUANTS_SIGNED && i == 1) {
                sums[n] = widen(sums[n], low, high);
                low = high = vdupq_n_s16(0);
            }
        }
        sums[n] = widen(sums[n], low, high);
    }
}
#endif

#if defined(__ARM_FEATURE_MATMUL_INT8)
/* acc[m][z]: rows 2 z of quarter times rows 2 m of x: (w0 x0, w0 x1, w1 x0, w1 x1). */
INLINE void pairs_16(const int8x16_t v[4], const int8x16_t *x, const int N, int32x4_t acc[TILE_ROWS / 2][2])
{
    UNROLL for (int i = 0; i < 2; i++)
    {
        int32x4_t a = vreinterpretq_s32_s8(v[2 * i]), b = vreinterpretq_s32_s8(v[2 * i + 1]);
        int8x16_t w[2] = {vreinterpretq_s8_s32(vzip1q_s32(a, b)), vreinterpretq_s8_s32(vzip2q_s32(a, b))};
        UNROLL for (int m = 0; m < N / 2; m++)
        {
            int64x2_t p = vreinterpretq_s64_s8(x[2 * m]), q = vreinterpretq_s64_s8(x[2 * m + 1]);
            int8x16_t two = vreinterpretq_s8_s64(i ? vzip2q_s64(p, q) : vzip1q_s64(p, q));
            UNROLL for (int z = 0; z < 2; z++) acc[m][z] = vmmlaq_s32(acc[m][z], w[z], two);
        }
    }
}
#endif

/* sums[n] = start[n] + the rows of quarter h of w, `parts` (4 or 8) times 4 columns, times row n of q. */
INLINE void dot(const uint8_t *w, const quants kind, const int parts, const int h, const int8_t *q,
                int64_t ld, const int N, const int32_t *start, int32x4_t *sums)
{
    UNROLL for (int n = 0; n < N; n++) sums[n] = vdupq_n_s32(start[n]);
#if defined(__ARM_FEATURE_MATMUL_INT8)
    int32x4_t acc[TILE_ROWS / 2][2];
    UNROLL for (int m = 0; m < N / 2; m++) acc[m][0] = acc[m][1] = vdupq_n_s32(0);
#endif
    UNROLL for (int p = 0; p < parts; p += 4)
    {
        int8x16_t v[4], x[TILE_ROWS];
        UNROLL for (int i = 0; i < 4; i++) v[i] = part(w, kind, p + i, h);
        UNROLL for (int n = 0; n < N; n++) x[n] = vld1q_s8(q + n * ld + p * 4);
#if defined(__ARM_FEATURE_MATMUL_INT8)
        pairs_16(v, x, N, acc);
        if (N % 2)
            dot_16(v, x, N - 1, N, sums);
#elif defined(__ARM_FEATURE_DOTPROD)
        dot_16(v, x, 0, N, sums);
#else
        dot_16(v, x, kind, N, sums);
#endif
    }
#if defined(__ARM_FEATURE_MATMUL_INT8)
    UNROLL for (int m = 0; m < N / 2; m++)
    {
        sums[2 * m] = vaddq_s32(sums[2 * m], vuzp1q_s32(acc[m][0], acc[m][1]));
        sums[2 * m + 1] = vaddq_s32(sums[2 * m + 1], vuzp2q_s32(acc[m][0], acc[m][1]));
    }
#endif
}

#endif
