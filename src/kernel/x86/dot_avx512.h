/* What the AVX-512 matmuls on unsigned quants share: a tile and the products of one block of 32 columns. */
#ifndef ASHLEY_KERNEL_X86_DOT_AVX512_H
#define ASHLEY_KERNEL_X86_DOT_AVX512_H

#include "kernel/x86/avx512.h"
#include "kernel/simd/fetch.h"

enum { TILE_ROWS = 6 };

/* What a tile reads: R groups of weights from `w`, N rows of activations from row i. */
typedef struct tile {
    const uint8_t *w;
    int64_t group_bytes, blocks, ld, lds; /* rows of q are ld apart, of d, ds and ns lds */
    const int8_t *q;
    const float *d, *ds;
    const int32_t *ns;
    fetch ahead; /* a step is a block */
} tile;

/* sums[r][n] += products of one block, quants of 4 bits. */
INLINE void dot_u4(const tile *t, int64_t b, const int R, const int N, __m512i sums[2][TILE_ROWS])
{
    const __m512i low = _mm512_set1_epi8(15);
    const uint8_t *w = t->w + b * 256;
    const int8_t *q = t->q + b * 32;
    UNROLL for (int c = 0; c < 4; c++)
    {
        __m512i v[2], u[2];
        UNROLL for (int r = 0; r < R; r++)
        {
            v[r] = _mm512_loadu_si512(w + r * t->group_bytes + c * 64);
            u[r] = _mm512_and_si512(v[r], low);
        }
        UNROLL for (int n = 0; n < N; n++)
        {
            __m512i x = broadcast4(q + n * t->ld + c * 4);
            UNROLL for (int r = 0; r < R; r++) sums[r][n] = _mm512_dpbusd_epi32(sums[r][n], u[r], x);
        }
        UNROLL for (int r = 0; r < R; r++) u[r] = _mm512_and_si512(_mm512_srli_epi16(v[r], 4), low);
        UNROLL for (int n = 0; n < N; n++)
        {
            __m512i x = broadcast4(q + n * t->ld + c * 4 + 16);
            UNROLL for (int r = 0; r < R; r++) sums[r][n] = _mm512_dpbusd_epi32(sums[r][n], u[r], x);
        }
    }
}

/* The same of 8 bits. */
INLINE void dot_u8(const tile *t, int64_t b, const int R, const int N, __m512i sums[2][TILE_ROWS])
{
    const uint8_t *w = t->w + b * 512;
    const int8_t *q = t->q + b * 32;
    UNROLL for (int c = 0; c < 8; c++)
    {
        __m512i u[2];
        UNROLL for (int r = 0; r < R; r++) u[r] = _mm512_loadu_si512(w + r * t->group_bytes + c * 64);
        UNROLL for (int n = 0; n < N; n++)
        {
            __m512i x = broadcast4(q + n * t->ld + c * 4);
            UNROLL for (int r = 0; r < R; r++) sums[r][n] = _mm512_dpbusd_epi32(sums[r][n], u[r], x);
        }
    }
}

#endif
