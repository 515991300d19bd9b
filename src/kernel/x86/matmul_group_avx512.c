/* Owns the AVX-512 matmuls on GPTQ's weights: scales and zeros per row and span of columns.
 *
 * Tiles as in matmul_avx512.c. Blocks are added up by the scales of the activations; a span's total loses
 * zero times the sum of its activations and takes the weights' scale: 8 vpdpbusd and one FMA a block, two
 * more a span. The totals over all spans are touched once a span and may live in memory. The order of float
 * operations for one result is the same in every tile. Any thread. */
#include "kernel/x86/dot_avx512.h"

/* One span of blocks, [b, end): sum[r][n], zeros not yet taken off; xs[n] the sum of its activations. */
INLINE void run_span(tile *t, const ash_form form, const int R, const int N, int64_t b, int64_t end,
                     __m512 sum[TILE_GROUPS][TILE_ROWS], float xs[TILE_ROWS])
{
    UNROLL for (int n = 0; n < N; n++)
    {
        xs[n] = 0; /* not in the loop below, which has use for all registers */
        for (int64_t i = b; i < end; i++) xs[n] += t->ds[n * t->lds + i];
    }
    ZERO_TILE(sum, R, N);
    for (; b < end; b++) {
        __m512i dots[TILE_GROUPS][TILE_ROWS];
        fetch_ahead_more(&t->ahead, R);
        UNROLL for (int n = 0; n < N; n++) UNROLL for (int r = 0; r < R; r++)
            dots[r][n] = _mm512_setzero_si512();
        if (form == ASH_FORM_U8G)
            dot_u8(t, b, R, N, dots);
        else
            dot_u4(t, b, R, N, dots);
        UNROLL for (int n = 0; n < N; n++)
        {
            __m512 d = _mm512_set1_ps(t->d[n * t->lds + b]);
            UNROLL for (int r = 0; r < R; r++)
                sum[r][n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r][n]), d, sum[r][n]);
        }
    }
}

/* left: rows of W from the tile's first on. */
INLINE void run_tile(tile *t, const ash_form form, const int R, const int N, const ash_packed *w, float *y,
                     int64_t ldy, int64_t left)
{
    const int64_t step = w->span / 32, wide = w->wide ? 64 : 32;
    const uint8_t *e = t->w + t->blocks * quant_bytes(form);
    __m512 acc[TILE_GROUPS][TILE_ROWS];
    FETCH_TILE(R, N, y, ldy);
    ZERO_TILE(acc, R, N);
    for (int64_t b = 0; b < t->blocks; b += step, e += wide + 16) {
        __m512 sum[TILE_GROUPS][TILE_ROWS];
        float xs[TILE_ROWS];
        run_span(t, form, R, N, b, b + step, sum, xs);
        UNROLL for (int r = 0; r < R; r++)
        {
            const uint8_t *s = e + r * t->group_bytes;
            __m512 scale = w->wide ? _mm512_loadu_ps(s) : vf_halves(s);
            __m512i z = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(s + wide)));
            __m512 zero = _mm512_cvtepi32_ps(z);
            UNROLL for (int n = 0; n < N; n++)
            {
                __m512 v = _mm512_fnmadd_ps(zero, _mm512_set1_ps(xs[n]), sum[r][n]);
                acc[r][n] = _mm512_fmadd_ps(v, scale, acc[r][n]);
            }
        }
    }
    STORE_TILE(acc, R, N, y, ldy, left)
}

INLINE void run_rows(tile *t, const ash_form form, const int R, int n, const ash_packed *w, float *y,
                     int64_t ldy, int64_t left)
{
#define CALL(N) run_tile(t, form, R, N, w, y, ldy, left)
    if (R == TILE_GROUPS) {
        BY_WIDE_SIZE(n, CALL)
    } else {
        BY_SIZE(n, CALL)
    }
#undef CALL
}

INLINE void run(const ash_packed *w, const ash_act *a, int64_t g0, int64_t g1, float *y, int64_t ldy,
                const ash_form form)
{
    int64_t tiles = (a->n + TILE_ROWS - 1) / TILE_ROWS, nb = a->cols / 32, lds = a->ld / 32;
    const int quants = quant_bytes(form);
    for (int64_t g = g0; g < g1;) {
        const int groups = tile_groups(a->n, g1 - g);
        for (int64_t i = 0; i < tiles; i++) { /* of even size: no left-over of one row */
            int64_t row = a->n * i / tiles, n = a->n * (i + 1) / tiles - row;
            tile t = {w->data + g * w->group_bytes, w->group_bytes, nb, a->ld, lds, a->q + row * a->ld,
                      a->d + row * lds, a->ds + row * lds, a->ns + row * lds,
                      fetch_ahead_start(w, g, groups, i, tiles, nb, nb * quants, is_light(form, a->n))};
            float *out = y + row * ldy + g * ASH_GROUP;
            int64_t left = w->rows - g * ASH_GROUP;
            if (groups == TILE_GROUPS)
                run_rows(&t, form, TILE_GROUPS, (int)n, w, out, ldy, left);
            else if (groups == 2)
                run_rows(&t, form, 2, (int)n, w, out, ldy, left);
            else
                run_rows(&t, form, 1, (int)n, w, out, ldy, left);
        }
        g += groups;
    }
}

ASH_MATMUL(ash_avx512_matmul_u4g)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_U4G);
}

ASH_MATMUL(ash_avx512_matmul_u8g)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_U8G);
}
