/* Owns the AVX-512 BF16 matmul: vdpbf16ps on 16 rows times 2 columns, activations in bfloat16. A tile is
 * 2 groups times up to 12 rows; every result is one chain in the order of the columns. Any thread. */
#include "kernel/x86/avx512.h"
#include "kernel/simd/fetch.h"

enum { TILE_ROWS = 12, LIGHT_ROWS = 6 }; /* up to so many leave it to hardware prefetchers: simd/fetch.h */

typedef struct tile {
    const uint8_t *w;
    int64_t group_bytes, pairs, ld;
    const uint16_t *h;
    fetch_ahead ahead; /* a step is a pair */
} tile;

INLINE void run_tile(tile *t, const int R, const int N, float *y, int64_t ldy, int64_t left)
{
    __m512 acc[2][TILE_ROWS];
    FETCH_TILE(R, N, y, ldy);
    ZERO_TILE(acc, R, N);
    for (int64_t k = 0; k < t->pairs; k++) {
        __m512bh u[2];
        fetch_ahead_more(&t->ahead, R);
        UNROLL for (int r = 0; r < R; r++)
            u[r] = (__m512bh)_mm512_loadu_si512(t->w + r * t->group_bytes + k * 64);
        UNROLL for (int n = 0; n < N; n++)
        {
            __m512bh x = (__m512bh)broadcast4(t->h + n * t->ld + 2 * k);
            UNROLL for (int r = 0; r < R; r++) acc[r][n] = _mm512_dpbf16_ps(acc[r][n], u[r], x);
        }
    }
    STORE_TILE(acc, R, N, y, ldy, left)
}

INLINE void run_rows(tile *t, const int R, int n, float *y, int64_t ldy, int64_t left)
{
#define CALL(N) run_tile(t, R, N, y, ldy, left)
    BY_SIZE_12(n, CALL)
#undef CALL
}

ASH_MATMUL(ash_avx512bf16_matmul_bf16)
{
    int64_t tiles = (a->n + TILE_ROWS - 1) / TILE_ROWS, pairs = (a->cols + 1) / 2;
    for (int64_t g = g0; g < g1; g += 2) {
        for (int64_t i = 0; i < tiles; i++) {
            int64_t row = a->n * i / tiles, n = a->n * (i + 1) / tiles - row;
            tile t = {w->data + g * w->group_bytes, w->group_bytes, pairs, a->ld, a->h + row * a->ld,
                      fetch_ahead_start(w, g, 2, i, tiles, pairs, w->group_bytes, a->n <= LIGHT_ROWS)};
            float *out = y + row * ldy + g * ASH_GROUP;
            int64_t left = w->rows - g * ASH_GROUP;
            if (g + 1 < g1)
                run_rows(&t, 2, (int)n, out, ldy, left);
            else
                run_rows(&t, 1, (int)n, out, ldy, left);
        }
    }
}

void ash_avx512bf16_to_bf16(const float *x, int64_t n, uint16_t *h)
{
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        __m256bh v = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(m, x + i));
        _mm256_storeu_si256((__m256i *)(h + i), (__m256i)v); /* h has room up to a multiple of 32 */
    }
    if (n % 32 && n % 32 <= 16)
        _mm256_storeu_si256((__m256i *)(h + n / 32 * 32 + 16), _mm256_setzero_si256());
}
