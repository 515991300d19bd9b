/* Owns the Arm matmuls on the forms of whole quants, GPTQ's too; compiled for each ISA. A tile is a group of
 * 16 rows, four registers, times up to 4 rows of activations; a quarter of its rows is multiplied at a time,
 * so that all float sums stay in registers. Results are the same bits in every tile. Any thread. */
#include "kernel/arm/dot.h"
#include "kernel/simd/fetch.h"

typedef struct tile {
    const uint8_t *w;
    int64_t blocks, ld, lds; /* rows of q are ld apart, of d, ds and ns lds */
    const int8_t *q;
    const float *d, *ds;
    const int32_t *ns;
    fetch ahead; /* a step is a block */
} tile;

INLINE void run_tile(tile *t, const ash_form form, const int N, const ash_packed *w, float *y, int64_t ldy,
                     int64_t left)
{
    const int bytes = form == ASH_FORM_U8Z ? 512 : 256;
    const uint8_t *d = t->w + t->blocks * bytes, *m = d + t->blocks * 32;
    vf acc[QUARTERS][TILE_ROWS];
    ZERO_TILE(acc, N)
    for (int64_t b = 0; b < t->blocks; b++) {
        fetch_more(&t->ahead);
        UNROLL for (int h = 0; h < QUARTERS; h++)
        {
            int32x4_t sums[TILE_ROWS];
            int32_t start[TILE_ROWS] = {0};
            UNROLL for (int n = 0; n < N; n++)
                if (form == ASH_FORM_U4Z)
                    start[n] = t->ns[n * t->lds + b] * 8;
            dot(t->w + b * bytes, form == ASH_FORM_U8Z ? QUANTS_SIGNED : QUANTS_4, 8, h, t->q + b * 32, t->ld,
                N, start, sums);
            vf scale = vf_halves(d + b * 32 + h * 8);
            UNROLL for (int n = 0; n < N; n++)
            {
                vf v = vf_mul(vcvtq_f32_s32(sums[n]), scale);
                acc[h][n] = vf_fma(v, vf_set(t->d[n * t->lds + b]), acc[h][n]);
            }
            if (form == ASH_FORM_U4M) {
                vf min = vf_halves(m + b * 32 + h * 8);
                UNROLL for (int n = 0; n < N; n++)
                    acc[h][n] = vf_fma(min, vf_set(t->ds[n * t->lds + b]), acc[h][n]);
            }
        }
    }
    STORE_TILE(acc, N, y, ldy, left)
}

/* Quarter h of one span of blocks, [b, end): sum[n]; zeros are taken off through the activations' sums. */
INLINE void run_span(const tile *t, const ash_form form, const int N, int64_t b, int64_t end, int32x4_t zero,
                     int h, vf sum[TILE_ROWS])
{
    const int bytes = form == ASH_FORM_U8G ? 512 : 256;
    const int32_t start[TILE_ROWS] = {0};
    UNROLL for (int n = 0; n < N; n++) sum[n] = vf_zero();
    for (; b < end; b++) {
        int32x4_t dots[TILE_ROWS];
        dot(t->w + b * bytes, form == ASH_FORM_U8G ? QUANTS_SIGNED : QUANTS_4, 8, h, t->q + b * 32, t->ld, N,
            start, dots);
        UNROLL for (int n = 0; n < N; n++)
        {
            int32x4_t v = vmlaq_n_s32(dots[n], zero, t->ns[n * t->lds + b]);
            sum[n] = vf_fma(vcvtq_f32_s32(v), vf_set(t->d[n * t->lds + b]), sum[n]);
        }
    }
}

INLINE void run_groups(tile *t, const ash_form form, const int N, const ash_packed *w, float *y, int64_t ldy,
                       int64_t left)
{
    const int64_t step = w->span / 32, wide = w->wide ? 64 : 32;
    const uint8_t *e = t->w + t->blocks * (form == ASH_FORM_U8G ? 512 : 256);
    vf acc[QUARTERS][TILE_ROWS];
    ZERO_TILE(acc, N)
    for (int64_t b = 0; b < t->blocks; b += step, e += wide + 16) {
        uint8x16_t z = vld1q_u8(e + wide);
        int16x8_t zeros[2] = {vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(z))),
                              vreinterpretq_s16_u16(vmovl_high_u8(z))};
        for (int64_t i = 0; i < step; i++) fetch_more(&t->ahead);
        UNROLL for (int h = 0; h < QUARTERS; h++)
        {
            vf sum[TILE_ROWS];
            int32x4_t zero = h % 2 ? vmovl_high_s16(zeros[h / 2]) : vmovl_s16(vget_low_s16(zeros[h / 2]));
            const uint8_t *s = e + h * wide / 4;
            if (form == ASH_FORM_U8G)
                zero = vsubq_s32(zero, vdupq_n_s32(128));
            run_span(t, form, N, b, b + step, zero, h, sum);
            vf scale = w->wide ? vf_load((const float *)s) : vf_halves(s);
            UNROLL for (int n = 0; n < N; n++) acc[h][n] = vf_fma(sum[n], scale, acc[h][n]);
        }
    }
    STORE_TILE(acc, N, y, ldy, left)
}

INLINE void run_rows(tile *t, const ash_form form, const int N, const ash_packed *w, float *y, int64_t ldy,
                     int64_t left)
{
    if (form == ASH_FORM_U4G || form == ASH_FORM_U8G)
        run_groups(t, form, N, w, y, ldy, left);
    else
        run_tile(t, form, N, w, y, ldy, left);
}

INLINE void run(const ash_packed *w, const ash_act *a, int64_t g0, int64_t g1, float *y, int64_t ldy,
                const ash_form form)
{
    int64_t tiles = (a->n + TILE_ROWS - 1) / TILE_ROWS, lds = a->ld / 32;
    for (int64_t g = g0; g < g1; g++) {
        for (int64_t i = 0; i < tiles; i++) {
            int64_t row = a->n * i / tiles, n = a->n * (i + 1) / tiles - row;
            tile t = {.w = w->data + g * w->group_bytes, .blocks = a->cols / 32, .ld = a->ld, .lds = lds,
                      .q = a->q + row * a->ld, .d = a->d + row * lds, .ds = a->ds + row * lds,
                      .ns = a->ns + row * lds, .ahead = fetch_start(w, g, 1, i, tiles, a->cols / 32)};
            float *out = y + row * ldy + g * ASH_GROUP;
            int64_t left = w->rows - g * ASH_GROUP;
            switch (n) {
            case 1: run_rows(&t, form, 1, w, out, ldy, left); break;
            case 2: run_rows(&t, form, 2, w, out, ldy, left); break;
            case 3: run_rows(&t, form, 3, w, out, ldy, left); break;
            default: run_rows(&t, form, 4, w, out, ldy, left);
            }
        }
    }
}

ASH_MATMUL(NAME(matmul_u4z))
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_U4Z);
}

ASH_MATMUL(NAME(matmul_u4m))
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_U4M);
}

ASH_MATMUL(NAME(matmul_u8z))
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_U8Z);
}

ASH_MATMUL(NAME(matmul_u4g))
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_U4G);
}

ASH_MATMUL(NAME(matmul_u8g))
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_U8G);
}
