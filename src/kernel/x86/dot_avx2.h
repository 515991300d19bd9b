/* What the AVX2 matmuls share: a tile and the products of one block of 32 columns.
 *
 * 4-bit quants: vpmaddubsw gives 16-bit sums of two products, at most 2 * 15 * 127, so the 8 of a block add
 * up within 16 bits; then one vpmaddwd. 8-bit quants: products of |w| and sign(w) x, at most 2 * 128 * 127,
 * each widened at once. */
#ifndef ASHLEY_KERNEL_X86_DOT_AVX2_H
#define ASHLEY_KERNEL_X86_DOT_AVX2_H

#include "kernel/x86/avx2.h"
#include "kernel/simd/fetch.h"

enum { TILE_ROWS = 3 };

typedef struct tile {
    const uint8_t *w;
    int64_t blocks, cols, ld, lds; /* rows of q (or of x) are ld apart, of d, ds and ns lds */
    const int8_t *q;
    const float *d, *ds, *x;
    const int32_t *ns;
    fetch ahead; /* a step is a block, or two columns of plain weights */
} tile;

INLINE __m256i load(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* sums[h][n] = of 8 rows' quants with block b. */
INLINE void dot_u4(const tile *t, int64_t b, const int N, __m256i sums[2][TILE_ROWS])
{
    const __m256i low = _mm256_set1_epi8(15), one = _mm256_set1_epi16(1);
    UNROLL for (int n = 0; n < N; n++) sums[0][n] = sums[1][n] = _mm256_setzero_si256();
    UNROLL for (int c = 0; c < 8; c++)
    {
        const uint8_t *w = t->w + b * 256 + c % 4 * 64;
        const int8_t *q = t->q + b * 32 + c % 4 * 4 + c / 4 * 16;
        __m256i x[TILE_ROWS];
        UNROLL for (int n = 0; n < N; n++) x[n] = broadcast4(q + n * t->ld);
        UNROLL for (int h = 0; h < 2; h++)
        {
            __m256i u = load(w + 32 * h);
            u = _mm256_and_si256(c < 4 ? u : _mm256_srli_epi16(u, 4), low);
            UNROLL for (int n = 0; n < N; n++)
                sums[h][n] = _mm256_add_epi16(sums[h][n], _mm256_maddubs_epi16(u, x[n]));
        }
    }
    UNROLL for (int n = 0; n < N; n++)
        UNROLL for (int h = 0; h < 2; h++) sums[h][n] = _mm256_madd_epi16(sums[h][n], one);
}

INLINE void dot_u8(const tile *t, int64_t b, const int N, __m256i sums[2][TILE_ROWS])
{
    const __m256i zero_point = _mm256_set1_epi8(-128), one = _mm256_set1_epi16(1);
    UNROLL for (int n = 0; n < N; n++) sums[0][n] = sums[1][n] = _mm256_setzero_si256();
    for (int c = 0; c < 8; c++) {
        const uint8_t *w = t->w + b * 512 + c * 64;
        UNROLL for (int h = 0; h < 2; h++)
        {
            __m256i v = _mm256_xor_si256(load(w + 32 * h), zero_point), size = _mm256_abs_epi8(v);
            UNROLL for (int n = 0; n < N; n++)
            {
                __m256i x = _mm256_sign_epi8(broadcast4(t->q + b * 32 + c * 4 + n * t->ld), v);
                __m256i p = _mm256_madd_epi16(_mm256_maddubs_epi16(size, x), one);
                sums[h][n] = _mm256_add_epi32(sums[h][n], p);
            }
        }
    }
}

#endif
