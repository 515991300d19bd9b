/* Owns the AVX2 matmuls. A register holds 8 rows; a tile is a group of 16 rows, two registers, times N rows
 * of activations. Results are the same bits in every tile. Any thread. */
#include "kernel/x86/dot_avx2.h"

enum { PLAIN_ROWS = 6 };

INLINE void run_tile(tile *t, const ash_form form, const int N, float *y, int64_t ldy, int64_t left)
{
    const uint8_t *d = t->w + t->blocks * (form == ASH_FORM_U8Z ? 512 : 256), *m = d + t->blocks * 32;
    vf acc[2][TILE_ROWS];
    UNROLL for (int n = 0; n < N; n++) acc[0][n] = acc[1][n] = vf_zero();
    for (int64_t b = 0; b < t->blocks; b++) {
        __m256i sums[2][TILE_ROWS];
        fetch_more(&t->ahead);
        if (form == ASH_FORM_U8Z)
            dot_u8(t, b, N, sums);
        else
            dot_u4(t, b, N, sums);
        UNROLL for (int h = 0; h < 2; h++)
        {
            vf scale = vf_halves(d + b * 32 + h * 16);
            UNROLL for (int n = 0; n < N; n++)
            {
                __m256i sum = sums[h][n];
                if (form == ASH_FORM_U4Z)
                    sum = _mm256_add_epi32(sum, _mm256_set1_epi32(t->ns[n * t->lds + b] * 8));
                vf v = vf_mul(_mm256_cvtepi32_ps(sum), scale);
                acc[h][n] = vf_fma(v, vf_set(t->d[n * t->lds + b]), acc[h][n]);
            }
            if (form == ASH_FORM_U4M) {
                vf min = vf_halves(m + b * 32 + h * 16);
                UNROLL for (int n = 0; n < N; n++)
                    acc[h][n] = vf_fma(min, vf_set(t->ds[n * t->lds + b]), acc[h][n]);
            }
        }
    }
    for (int n = 0; n < N; n++)
        for (int h = 0; h < 2; h++)
            if (left > h * LANES)
                vf_store_part(y + n * ldy + h * LANES, left - h * LANES, acc[h][n]);
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
            if (n == 1)
                run_tile(&t, form, 1, out, ldy, left);
            else if (n == 2)
                run_tile(&t, form, 2, out, ldy, left);
            else
                run_tile(&t, form, 3, out, ldy, left);
        }
    }
}

ASH_MATMUL(ash_avx2_matmul_u4z)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_U4Z);
}

ASH_MATMUL(ash_avx2_matmul_u4m)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_U4M);
}

ASH_MATMUL(ash_avx2_matmul_u8z)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_U8Z);
}

/* Column k of 8 rows of plain weights. */
INLINE vf column(const uint8_t *w, const ash_form form, int64_t k, int h)
{
    if (form == ASH_FORM_F32)
        return vf_load((const float *)(w + k * 64 + h * 32));
    if (form == ASH_FORM_F16)
        return vf_halves(w + k * 32 + h * 16);
    __m256i pair = load(w + k / 2 * 64 + h * 32);
    return _mm256_castsi256_ps(k % 2 ? _mm256_and_si256(pair, _mm256_set1_epi32((int)0xffff0000))
                                     : _mm256_slli_epi32(pair, 16));
}

INLINE void plain_step(const tile *t, const ash_form form, const int N, int64_t k, vf acc[2][PLAIN_ROWS])
{
    vf u[2] = {column(t->w, form, k, 0), column(t->w, form, k, 1)};
    UNROLL for (int n = 0; n < N; n++)
    {
        vf x = vf_set(t->x[n * t->ld + k]);
        UNROLL for (int h = 0; h < 2; h++) acc[h][n] = vf_fma(u[h], x, acc[h][n]);
    }
}

INLINE void plain_tile(tile *t, const ash_form form, const int N, float *y, int64_t ldy, int64_t left)
{
    vf acc[2][PLAIN_ROWS];
    UNROLL for (int n = 0; n < N; n++) acc[0][n] = acc[1][n] = vf_zero();
    int64_t k = 0;
    for (; k + 2 <= t->cols; k += 2) {
        fetch_more(&t->ahead);
        plain_step(t, form, N, k, acc);
        plain_step(t, form, N, k + 1, acc);
    }
    if (k < t->cols)
        plain_step(t, form, N, k, acc);
    for (int n = 0; n < N; n++)
        for (int h = 0; h < 2; h++)
            if (left > h * LANES)
                vf_store_part(y + n * ldy + h * LANES, left - h * LANES, acc[h][n]);
}

INLINE void plain_run(const ash_packed *w, const ash_act *a, int64_t g0, int64_t g1, float *y, int64_t ldy,
                      const ash_form form)
{
    int64_t tiles = (a->n + PLAIN_ROWS - 1) / PLAIN_ROWS;
    for (int64_t g = g0; g < g1; g++) {
        for (int64_t i = 0; i < tiles; i++) {
            int64_t row = a->n * i / tiles, n = a->n * (i + 1) / tiles - row;
            tile t = {.w = w->data + g * w->group_bytes, .cols = a->cols, .ld = a->ldx,
                      .x = a->x + row * a->ldx,
                      .ahead = fetch_start(w, g, 1, i, tiles, (a->cols + 1) / 2)};
            float *out = y + row * ldy + g * ASH_GROUP;
            int64_t left = w->rows - g * ASH_GROUP;
            switch (n) {
            case 1: plain_tile(&t, form, 1, out, ldy, left); break;
            case 2: plain_tile(&t, form, 2, out, ldy, left); break;
            case 3: plain_tile(&t, form, 3, out, ldy, left); break;
            case 4: plain_tile(&t, form, 4, out, ldy, left); break;
            case 5: plain_tile(&t, form, 5, out, ldy, left); break;
            default: plain_tile(&t, form, 6, out, ldy, left);
            }
        }
    }
}

ASH_MATMUL(ash_avx2_matmul_f32)
{
    plain_run(w, a, g0, g1, y, ldy, ASH_FORM_F32);
}

ASH_MATMUL(ash_avx2_matmul_f16)
{
    plain_run(w, a, g0, g1, y, ldy, ASH_FORM_F16);
}

ASH_MATMUL(ash_avx2_matmul_bf16)
{
    plain_run(w, a, g0, g1, y, ldy, ASH_FORM_BF16);
}
