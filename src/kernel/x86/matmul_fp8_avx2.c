/* Owns the AVX2 matmul on FP8 weights, activations float; see matmul_fp8_avx512.c. A tile is a group of 16
 * rows times up to 6 rows of activations. Results are the same bits in every tile. Any thread. */
#include "kernel/pack_fp8.h"
#include "kernel/x86/avx2.h"
#include "kernel/simd/fetch.h"

enum { TILE_ROWS = 6 };

typedef struct tile {
    const uint8_t *w;
    int64_t ldx;
    const float *x;
    fetch ahead; /* a step is two columns */
} tile;

/* A column of 16 rows, times 2^-8; NaN is one. As half floats: the sign and, below bit 14, which widening
 * leaves to be cleared, exponent and mantissa. Only NaN's carry into that bit when one is added. */
INLINE void column(const uint8_t *p, vf out[2])
{
    __m256i h = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)), 7);
    h = _mm256_and_si256(h, _mm256_set1_epi16((short)0xbf80));
    __m256i nan = _mm256_and_si256(_mm256_add_epi16(h, _mm256_set1_epi16(0x80)), _mm256_set1_epi16(0x4000));
    h = _mm256_or_si256(h, nan);
    out[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(h));
    out[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1));
}

INLINE void step(const tile *t, const int N, int64_t k, vf sum[2][TILE_ROWS])
{
    vf u[2];
    column(t->w + k * ASH_GROUP, u);
    UNROLL for (int n = 0; n < N; n++)
    {
        vf x = vf_set(t->x[n * t->ldx + k]);
        UNROLL for (int h = 0; h < 2; h++) sum[h][n] = vf_fma(u[h], x, sum[h][n]);
    }
}

INLINE void run_tile(tile *t, const int N, const ash_packed *w, float *y, int64_t ldy, int64_t left)
{
    const uint8_t *s = ash_pack_fp8_scales(w, t->w);
    vf acc[2][TILE_ROWS];
    UNROLL for (int n = 0; n < N; n++) acc[0][n] = acc[1][n] = vf_zero();
    for (int64_t k = 0; k < w->cols; k += w->span, s += w->wide ? 64 : 4) {
        int64_t end = k + w->span < w->cols ? k + w->span : w->cols, j = k;
        vf sum[2][TILE_ROWS];
        UNROLL for (int n = 0; n < N; n++) sum[0][n] = sum[1][n] = vf_zero();
        for (; j + 2 <= end; j += 2) {
            fetch_more(&t->ahead);
            step(t, N, j, sum);
            step(t, N, j + 1, sum);
        }
        if (j < end)
            step(t, N, j, sum);
        UNROLL for (int h = 0; h < 2; h++)
        {
            const float *at = (const float *)s;
            vf scale = vf_mul(w->wide ? vf_load(at + h * LANES) : vf_set(*at), vf_set(256));
            UNROLL for (int n = 0; n < N; n++) acc[h][n] = vf_fma(sum[h][n], scale, acc[h][n]);
        }
    }
    for (int n = 0; n < N; n++)
        for (int h = 0; h < 2; h++)
            if (left > h * LANES)
                vf_store_part(y + n * ldy + h * LANES, left - h * LANES, acc[h][n]);
}

ASH_MATMUL(ash_avx2_matmul_f8)
{
    int64_t tiles = (a->n + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t g = g0; g < g1; g++) {
        for (int64_t i = 0; i < tiles; i++) {
            int64_t row = a->n * i / tiles, n = a->n * (i + 1) / tiles - row;
            tile t = {w->data + g * w->group_bytes, a->ldx, a->x + row * a->ldx,
                      fetch_start(w, g, 1, i, tiles, (a->cols + 1) / 2)};
            float *out = y + row * ldy + g * ASH_GROUP;
            int64_t left = w->rows - g * ASH_GROUP;
            switch (n) {
            case 1: run_tile(&t, 1, w, out, ldy, left); break;
            case 2: run_tile(&t, 2, w, out, ldy, left); break;
            case 3: run_tile(&t, 3, w, out, ldy, left); break;
            case 4: run_tile(&t, 4, w, out, ldy, left); break;
            case 5: run_tile(&t, 5, w, out, ldy, left); break;
            default: run_tile(&t, 6, w, out, ldy, left);
            }
        }
    }
}
