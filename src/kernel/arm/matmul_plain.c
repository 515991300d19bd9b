/* Owns the Arm matmuls on plain and FP8 weights, activations float: one FMA per column of 4 rows. A tile is a
 * group of 16 rows times up to 5 rows of activations, which leaves registers for a column; every result is
 * one chain in the order of the columns (of a span of FP8's), whatever the tile. Any thread. */
#include "kernel/arm/neon.h"
#include "kernel/pack_fp8.h"
#include "kernel/simd/fetch.h"

enum { TILE_ROWS = 5 };

typedef struct tile {
    const uint8_t *w;
    int64_t cols, ldx;
    const float *x;
    fetch ahead; /* a step is two columns */
} tile;

/* FP8's column k, times 2^-8; NaN is one. As half floats of the same sign, exponent and mantissa. */
INLINE void column_f8(const uint8_t *w, int64_t k, vf u[QUARTERS])
{
    const uint16x8_t top = vdupq_n_u16(0x3f80);
    uint8x16_t b = vld1q_u8(w + k * ASH_GROUP);
    UNROLL for (int i = 0; i < 2; i++)
    {
        uint16x8_t v = i ? vmovl_high_u8(b) : vmovl_u8(vget_low_u8(b));
        uint16x8_t size = vandq_u16(vshlq_n_u16(v, 7), top);
        uint16x8_t h = vorrq_u16(size, vshlq_n_u16(vshrq_n_u16(v, 7), 15));
        h = vorrq_u16(h, vandq_u16(vceqq_u16(size, top), vdupq_n_u16(0x7e00)));
        u[2 * i] = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(h)));
        u[2 * i + 1] = vcvt_f32_f16(vreinterpret_f16_u16(vget_high_u16(h)));
    }
}

INLINE void column(const uint8_t *w, const ash_form form, int64_t k, vf u[QUARTERS])
{
    if (form == ASH_FORM_F8) {
        column_f8(w, k, u);
        return;
    }
    UNROLL for (int h = 0; h < QUARTERS; h++)
    {
        if (form == ASH_FORM_F32) {
            u[h] = vf_load((const float *)(w + k * 64 + h * 16));
        } else if (form == ASH_FORM_F16) {
            u[h] = vf_halves(w + k * 32 + h * 8);
        } else {
            uint32x4_t pair = vreinterpretq_u32_u8(vld1q_u8(w + k / 2 * 64 + h * 16));
            pair = k % 2 ? vandq_u32(pair, vdupq_n_u32(0xffff0000)) : vshlq_n_u32(pair, 16);
            u[h] = vreinterpretq_f32_u32(pair);
        }
    }
}

INLINE void step(const tile *t, const ash_form form, const int N, int64_t k, vf acc[QUARTERS][TILE_ROWS])
{
    vf u[QUARTERS];
    column(t->w, form, k, u);
    UNROLL for (int n = 0; n < N; n++)
    {
        vf x = vf_set(t->x[n * t->ldx + k]);
        UNROLL for (int h = 0; h < QUARTERS; h++) acc[h][n] = vf_fma(u[h], x, acc[h][n]);
    }
}

/* acc = columns [k, end) of a tile times N rows. */
INLINE void columns(tile *t, const ash_form form, const int N, int64_t k, int64_t end,
                    vf acc[QUARTERS][TILE_ROWS])
{
    ZERO_TILE(acc, N)
    for (; k + 2 <= end; k += 2) {
        fetch_more(&t->ahead);
        step(t, form, N, k, acc);
        step(t, form, N, k + 1, acc);
    }
    if (k < end)
        step(t, form, N, k, acc);
}

INLINE void run_f8(tile *t, const int N, const ash_packed *w, float *y, int64_t ldy, int64_t left)
{
    const uint8_t *s = ash_pack_fp8_scales(w, t->w);
    vf acc[QUARTERS][TILE_ROWS], sum[QUARTERS][TILE_ROWS];
    ZERO_TILE(acc, N)
    for (int64_t k = 0; k < w->cols; k += w->span, s += w->wide ? 64 : 4) {
        columns(t, ASH_FORM_F8, N, k, k + w->span < w->cols ? k + w->span : w->cols, sum);
        UNROLL for (int h = 0; h < QUARTERS; h++)
        {
            const float *at = (const float *)s;
            vf scale = vf_mul(w->wide ? vf_load(at + h * LANES) : vf_set(*at), vf_set(256));
            UNROLL for (int n = 0; n < N; n++) acc[h][n] = vf_fma(sum[h][n], scale, acc[h][n]);
        }
    }
    STORE_TILE(acc, N, y, ldy, left)
}

INLINE void run_tile(tile *t, const ash_form form, const int N, const ash_packed *w, float *y, int64_t ldy,
                     int64_t left)
{
    vf acc[QUARTERS][TILE_ROWS];
    if (form == ASH_FORM_F8) {
        run_f8(t, N, w, y, ldy, left);
        return;
    }
    columns(t, form, N, 0, t->cols, acc);
    STORE_TILE(acc, N, y, ldy, left)
}

INLINE void run(const ash_packed *w, const ash_act *a, int64_t g0, int64_t g1, float *y, int64_t ldy,
                const ash_form form)
{
    int64_t tiles = (a->n + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t g = g0; g < g1; g++) {
        for (int64_t i = 0; i < tiles; i++) {
            int64_t row = a->n * i / tiles, n = a->n * (i + 1) / tiles - row;
            tile t = {w->data + g * w->group_bytes, a->cols, a->ldx, a->x + row * a->ldx,
                      fetch_start(w, g, 1, i, tiles, (a->cols + 1) / 2)};
            float *out = y + row * ldy + g * ASH_GROUP;
            int64_t left = w->rows - g * ASH_GROUP;
            switch (n) {
            case 1: run_tile(&t, form, 1, w, out, ldy, left); break;
            case 2: run_tile(&t, form, 2, w, out, ldy, left); break;
            case 3: run_tile(&t, form, 3, w, out, ldy, left); break;
            case 4: run_tile(&t, form, 4, w, out, ldy, left); break;
            default: run_tile(&t, form, 5, w, out, ldy, left);
            }
        }
    }
}

ASH_MATMUL(ash_neon_matmul_f32)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_F32);
}

ASH_MATMUL(ash_neon_matmul_f16)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_F16);
}

ASH_MATMUL(ash_neon_matmul_bf16)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_BF16);
}

ASH_MATMUL(ash_neon_matmul_f8)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_F8);
}
