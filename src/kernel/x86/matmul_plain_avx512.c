/* Owns the AVX-512 matmuls on plain weights: one FMA per column of 16 rows. Half floats are widened
 * exactly. A tile is 2 groups times up to 12 rows of activations; every result is one chain of FMAs in
 * the order of the columns, whatever the tile. Any thread. */
#include "kernel/x86/avx512.h"
#include "kernel/simd/fetch.h"

enum { TILE_ROWS = 12 };

typedef struct tile {
    const uint8_t *w;
    int64_t group_bytes, cols, ldx;
    const float *x;
    fetch ahead; /* a step is two columns */
} tile;

/* Columns k of 16 rows. */
INLINE __m512 column(const uint8_t *w, const ash_form form, int64_t k)
{
    if (form == ASH_FORM_F32)
        return _mm512_loadu_ps(w + k * 64);
    if (form == ASH_FORM_F16)
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(w + k * 32)));
    __m512i pair = _mm512_loadu_si512(w + k / 2 * 64);
    return _mm512_castsi512_ps(k % 2 ? _mm512_and_si512(pair, _mm512_set1_epi32((int)0xffff0000))
                                     : _mm512_slli_epi32(pair, 16));
}

INLINE void step(const tile *t, const ash_form form, const int R, const int N, int64_t k,
                 __m512 acc[2][TILE_ROWS])
{
    __m512 u[2];
    UNROLL for (int r = 0; r < R; r++) u[r] = column(t->w + r * t->group_bytes, form, k);
    UNROLL for (int n = 0; n < N; n++)
    {
        __m512 x = _mm512_set1_ps(t->x[n * t->ldx + k]);
        UNROLL for (int r = 0; r < R; r++) acc[r][n] = _mm512_fmadd_ps(u[r], x, acc[r][n]);
    }
}

INLINE void run_tile(tile *t, const ash_form form, const int R, const int N, float *y,
                     int64_t ldy, int64_t left)
{
    __m512 acc[2][TILE_ROWS];
    FETCH_TILE(R, N, y, ldy);
    ZERO_TILE(acc, R, N);
    int64_t k = 0;
    for (; k + 2 <= t->cols; k += 2) {
        fetch_more(&t->ahead);
        step(t, form, R, N, k, acc);
        step(t, form, R, N, k + 1, acc);
    }
    if (k < t->cols)
        step(t, form, R, N, k, acc);
    STORE_TILE(acc, R, N, y, ldy, left)
}

INLINE void run_rows(tile *t, const ash_form form, const int R, int n, float *y, int64_t ldy,
                     int64_t left)
{
#define CALL(N) run_tile(t, form, R, N, y, ldy, left)
    BY_SIZE_12(n, CALL)
#undef CALL
}

INLINE void run(const ash_packed *w, const ash_act *a, int64_t g0, int64_t g1, float *y, int64_t ldy,
                const ash_form form)
{
    int64_t tiles = (a->n + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t g = g0; g < g1; g += 2) {
        for (int64_t i = 0; i < tiles; i++) {
            int64_t row = a->n * i / tiles, n = a->n * (i + 1) / tiles - row;
            tile t = {w->data + g * w->group_bytes, w->group_bytes, a->cols, a->ldx,
                      a->x + row * a->ldx, fetch_start(w, g, 2, i, tiles, (a->cols + 1) / 2)};
            float *out = y + row * ldy + g * ASH_GROUP;
            int64_t left = w->rows - g * ASH_GROUP;
            if (g + 1 < g1)
                run_rows(&t, form, 2, (int)n, out, ldy, left);
            else
                run_rows(&t, form, 1, (int)n, out, ldy, left);
        }
    }
}

ASH_MATMUL(ash_avx512_matmul_f32)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_F32);
}

ASH_MATMUL(ash_avx512_matmul_f16)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_F16);
}

ASH_MATMUL(ash_avx512_matmul_bf16)
{
    run(w, a, g0, g1, y, ldy, ASH_FORM_BF16);
}
