/* Owns the AVX2 matmuls on GPTQ's weights: scales and zeros per row and span of columns. Tiles as in
 * matmul_avx2.c; zeros as in matmul_group_avx512.c, less 128 where quants were turned to signed ones.
 * Results are the same bits in every tile. Any thread. */
#include "kernel/x86/dot_avx2.h"

/* One span of blocks, [b, end), with 16 zeros at z: sum[h][n]. */
INLINE void run_span(tile *t, const ash_form form, const int N, int64_t b, int64_t end, const uint8_t *z,
                     vf sum[2][TILE_ROWS])
{
    __m256i zero[2];
    UNROLL for (int h = 0; h < 2; h++)
    {
        /* in the low halves of 32 bits; what vpmaddwd takes of the high ones is 0 */
        zero[h] = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(z + h * LANES)));
        if (form == ASH_FORM_U8G)
            zero[h] = _mm256_sub_epi16(zero[h], _mm256_set1_epi32(128));
    }
    UNROLL for (int n = 0; n < N; n++) sum[0][n] = sum[1][n] = vf_zero();
    for (; b < end; b++) {
        __m256i dots[2][TILE_ROWS];
        fetch_more(&t->ahead);
        if (form == ASH_FORM_U8G)
            dot_u8(t, b, N, dots);
        else
            dot_u4(t, b, N, dots);
        UNROLL for (int n = 0; n < N; n++)
        {
            __m256i ns = _mm256_set1_epi32(t->ns[n * t->lds + b]);
            vf d = vf_set(t->d[n * t->lds + b]);
            UNROLL for (int h = 0; h < 2; h++)
            {
                __m256i dot = _mm256_add_epi32(dots[h][n], _mm256_madd_epi16(zero[h], ns));
                sum[h][n] = vf_fma(_mm256_cvtepi32_ps(dot), d, sum[h][n]);
            }
        }
    }
}

INLINE void run_tile(tile *t, const ash_form form, const int N, const ash_packed *w, float *y, int64_t ldy,
                     int64_t left)
{
    const int64_t step = w->span / 32, wide = w->wide ? 64 : 32;
    const uint8_t *e = t->w + t->blocks * (form == ASH_FORM_U8G ? 512 : 256);
    vf acc[2][TILE_ROWS];
    UNROLL for (int n = 0; n < N; n++) acc[0][n] = acc[1][n] = vf_zero();
    for (int64_t b = 0; b < t->blocks; b += step, e += wide + 16) {
        vf sum[2][TILE_ROWS];
        run_span(t, form, N, b, b + step, e + wide, sum);
        UNROLL for (int h = 0; h < 2; h++)
        {
            const uint8_t *s = e + h * wide / 2;
            vf scale = w->wide ? vf_load((const float *)s) : vf_halves(s);
            UNROLL for (int n = 0; n < N; n++) acc[h][n] = vf_fma(sum[h][n], scale, acc[h][n]);
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
                      .q = a->q + row * a->ld, .d = a->d + row * lds, .ns = a->ns + row * lds,
                      .ahead = fetch_start(w, g, 1, i, tiles, a->cols / 32)};
            float *out = y + row * ldy + g * ASH_GROUP;
            int64_t left = w->rows - g * ASH_GROUP;
            if (n == 1)
                run_tile(&t, form, 1, w, out, ldy, left);
            else if (n == 2)
                run_tile(&t, form, 2, w, out, ldy, left);
            else
                run_tile(&t, form, 3, w, out, ldy, left);
        }
    }
}

ASH_MATMUL(ash_avx2_matmul_u4g)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_U4G);
}

ASH_MATMUL(ash_avx2_matmul_u8g)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_U8G);
}
