/* Owns the AVX-512 matmuls on quantised weights: vpdpbusd on 16 rows times 4 columns.
 *
 * A tile is R groups of 16 rows times N rows of activations, R N <= 12: as many integer sums and as many
 * float ones stay in the 32 registers. Per block of 32 columns a sum takes 8 vpdpbusd, one multiplication
 * and one FMA (two with minima); what unsigned quants add is in the value that the sum starts from. The
 * order of float operations for one result is the same in every tile. Any thread. */
#include "kernel/x86/dot_avx512.h"

/* What the sums of block b start from: what unsigned quants add, taken off; `shift` is log2 of the zero
 * point. */
INLINE void start(const tile *t, int64_t b, const int R, const int N, const int shift,
                  __m512i sums[TILE_GROUPS][TILE_ROWS])
{
    UNROLL for (int n = 0; n < N; n++)
    {
        __m512i first = _mm512_setzero_si512();
        if (shift)
            first = _mm512_slli_epi32(_mm512_set1_epi32(t->ns[n * t->lds + b]), (unsigned)shift);
        UNROLL for (int r = 0; r < R; r++) sums[r][n] = first;
    }
}

/* left: rows of W from the tile's first on. */
INLINE void run_tile(tile *t, const ash_form form, const int R, const int N, float *y,
                     int64_t ldy, int64_t left)
{
    const int quants = quant_bytes(form);
    const uint8_t *d = t->w + t->blocks * quants, *m = d + t->blocks * 32;
    __m512 acc[TILE_GROUPS][TILE_ROWS];
    FETCH_TILE(R, N, y, ldy);
    ZERO_TILE(acc, R, N);
    for (int64_t b = 0; b < t->blocks; b++) {
        __m512i sums[TILE_GROUPS][TILE_ROWS];
        fetch_ahead_more(&t->ahead, R);
        start(t, b, R, N, form == ASH_FORM_U8Z ? 7 : form == ASH_FORM_U4Z ? 3 : 0, sums);
        if (form == ASH_FORM_U8Z)
            dot_u8(t, b, R, N, sums);
        else
            dot_u4(t, b, R, N, sums);
        UNROLL for (int r = 0; r < R; r++)
        {
            __m512 scale = vf_halves(d + r * t->group_bytes + b * 32);
            UNROLL for (int n = 0; n < N; n++)
            {
                __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][n]), scale);
                acc[r][n] = _mm512_fmadd_ps(v, _mm512_set1_ps(t->d[n * t->lds + b]), acc[r][n]);
            }
            if (form == ASH_FORM_U4M) {
                __m512 min = vf_halves(m + r * t->group_bytes + b * 32);
                UNROLL for (int n = 0; n < N; n++)
                    acc[r][n] = _mm512_fmadd_ps(min, _mm512_set1_ps(t->ds[n * t->lds + b]), acc[r][n]);
            }
        }
    }
    STORE_TILE(acc, R, N, y, ldy, left)
}

INLINE void run_rows(tile *t, const ash_form form, const int R, int n, float *y, int64_t ldy,
                     int64_t left)
{
#define CALL(N) run_tile(t, form, R, N, y, ldy, left)
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
                run_rows(&t, form, TILE_GROUPS, (int)n, out, ldy, left);
            else if (groups == 2)
                run_rows(&t, form, 2, (int)n, out, ldy, left);
            else
                run_rows(&t, form, 1, (int)n, out, ldy, left);
        }
        g += groups;
    }
}

ASH_MATMUL(ash_avx512_matmul_u4z)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_U4Z);
}

ASH_MATMUL(ash_avx512_matmul_u4m)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_U4M);
}

ASH_MATMUL(ash_avx512_matmul_u8z)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_U8Z);
}
