/* Owns the AVX-512 matmul on FP8 weights, activations float: bytes become half floats of 2^-8 times the
 * value (the bits of E4M3 fit into binary16 as they are), those floats; a span's sum takes the scale. A
 * tile is 2 groups times up to 12 rows of activations, whose totals over all spans may live in memory; the
 * order of float operations for one result is the same in every tile. Any thread. */
#include "kernel/pack_fp8.h"
#include "kernel/x86/avx512.h"
#include "kernel/simd/fetch.h"

enum { TILE_ROWS = 12 };

typedef struct tile {
    const uint8_t *w;
    int64_t group_bytes, ldx;
    const float *x;
    fetch ahead; /* a step is two columns */
} tile;

/* Two columns of 16 rows, times 2^-8; NaN is one. */
INLINE void columns(const uint8_t *p, __m512 out[2])
{
    const __m512i top = _mm512_set1_epi16(0x3f80);
    __m512i b = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)p));
    __m512i size = _mm512_and_si512(_mm512_slli_epi16(b, 7), top);
    __m512i h = _mm512_or_si512(size, _mm512_slli_epi16(_mm512_srli_epi16(b, 7), 15));
    h = _mm512_mask_set1_epi16(h, _mm512_cmpeq_epi16_mask(size, top), 0x7e00);
    out[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(h));
    out[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1));
}

INLINE __m512 column(const uint8_t *p)
{
    __m512 out[2];
    uint8_t two[32] = {0};
    _mm_storeu_si128((__m128i *)two, _mm_loadu_si128((const __m128i *)p));
    columns(two, out);
    return out[0];
}

INLINE void multiply(const tile *t, const int R, const int N, int64_t k, const __m512 u[2],
                     __m512 sum[2][TILE_ROWS])
{
    UNROLL for (int n = 0; n < N; n++)
    {
        __m512 x = _mm512_set1_ps(t->x[n * t->ldx + k]);
        UNROLL for (int r = 0; r < R; r++) sum[r][n] = _mm512_fmadd_ps(u[r], x, sum[r][n]);
    }
}

/* Columns [k, end). */
INLINE void run_span(tile *t, const int R, const int N, int64_t k, int64_t end, __m512 sum[2][TILE_ROWS])
{
    ZERO_TILE(sum, R, N);
    for (; k + 2 <= end; k += 2) {
        __m512 pair[2][2], a[2], b[2];
        fetch_more(&t->ahead);
        UNROLL for (int r = 0; r < R; r++)
        {
            columns(t->w + r * t->group_bytes + k * ASH_GROUP, pair[r]);
            a[r] = pair[r][0];
            b[r] = pair[r][1];
        }
        multiply(t, R, N, k, a, sum);
        multiply(t, R, N, k + 1, b, sum);
    }
    if (k < end) {
        __m512 a[2];
        UNROLL for (int r = 0; r < R; r++) a[r] = column(t->w + r * t->group_bytes + k * ASH_GROUP);
        multiply(t, R, N, k, a, sum);
    }
}

INLINE void run_tile(tile *t, const int R, const int N, const ash_packed *w, float *y, int64_t ldy,
                     int64_t left)
{
    const uint8_t *s = ash_pack_fp8_scales(w, t->w);
    __m512 acc[2][TILE_ROWS];
    ZERO_TILE(acc, R, N);
    for (int64_t k = 0; k < w->cols; k += w->span, s += w->wide ? 64 : 4) {
        __m512 sum[2][TILE_ROWS];
        run_span(t, R, N, k, k + w->span < w->cols ? k + w->span : w->cols, sum);
        UNROLL for (int r = 0; r < R; r++)
        {
            const float *at = (const float *)(s + r * t->group_bytes);
            __m512 scale = w->wide ? _mm512_loadu_ps(at) : _mm512_set1_ps(*at);
            scale = _mm512_mul_ps(scale, _mm512_set1_ps(256));
            UNROLL for (int n = 0; n < N; n++) acc[r][n] = _mm512_fmadd_ps(sum[r][n], scale, acc[r][n]);
        }
    }
    STORE_TILE(acc, R, N, y, ldy, left)
}

INLINE void run_rows(tile *t, const int R, int n, const ash_packed *w, float *y, int64_t ldy, int64_t left)
{
#define CALL(N) run_tile(t, R, N, w, y, ldy, left)
    BY_SIZE_12(n, CALL)
#undef CALL
}

ASH_MATMUL(ash_avx512_matmul_f8)
{
    int64_t tiles = (a->n + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t g = g0; g < g1; g += 2) {
        for (int64_t i = 0; i < tiles; i++) {
            int64_t row = a->n * i / tiles, n = a->n * (i + 1) / tiles - row;
            tile t = {w->data + g * w->group_bytes, w->group_bytes, a->ldx, a->x + row * a->ldx,
                      fetch_start(w, g, 2, i, tiles, (a->cols + 1) / 2)};
            float *out = y + row * ldy + g * ASH_GROUP;
            int64_t left = w->rows - g * ASH_GROUP;
            if (g + 1 < g1)
                run_rows(&t, 2, (int)n, w, out, ldy, left);
            else
                run_rows(&t, 1, (int)n, w, out, ldy, left);
        }
    }
}
