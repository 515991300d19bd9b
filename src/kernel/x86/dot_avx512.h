/* What the AVX-512 matmuls on unsigned quants share: a tile and the products of one block of 32 columns. */
#ifndef ASHLEY_KERNEL_X86_DOT_AVX512_H
#define ASHLEY_KERNEL_X86_DOT_AVX512_H

#include "kernel/x86/avx512.h"
#include "kernel/simd/fetch.h"

/* Groups of a tile: four for up to WIDE_ROWS rows, else two. More runs are read side by side then, which
 * hardware prefetchers gain from (Zen 4, one row of Q4_0: 23 -> 27 GB/s on a core). */
enum { TILE_ROWS = 6, TILE_GROUPS = 4, WIDE_ROWS = 2 };

/* What a tile reads: R groups of weights from `w`, N rows of activations from row i. */
typedef struct tile {
    const uint8_t *w;
    int64_t group_bytes, blocks, ld, lds; /* rows of q are ld apart, of d, ds and ns lds */
    const int8_t *q;
    const float *d, *ds;
    const int32_t *ns;
    fetch_ahead ahead; /* a step is a block */
} tile;

INLINE bool is_bytes(const ash_form form)
{
    return form == ASH_FORM_U8Z || form == ASH_FORM_U8G;
}

/* Of a block. */
INLINE int quant_bytes(const ash_form form)
{
    return is_bytes(form) ? 512 : 256;
}

/* Whether n rows leave it to hardware prefetchers (simd/fetch.h): measured on Zen 4. */
INLINE bool is_light(const ash_form form, int64_t n)
{
    return n <= (is_bytes(form) ? 4 : 2);
}

/* Groups of the next tiles of n rows, of `left` that remain: 4, 2 or 1. */
INLINE int tile_groups(int64_t n, int64_t left)
{
    return n <= WIDE_ROWS && left >= TILE_GROUPS ? TILE_GROUPS : left >= 2 ? 2 : 1;
}

/* CALL(n) with n, up to WIDE_ROWS, as a constant. */
#define BY_WIDE_SIZE(n, CALL)                                                                       \
    if ((n) == 1)                                                                                   \
        CALL(1);                                                                                    \
    else                                                                                            \
        CALL(2);

/* sums[r][n] += products of one block, quants of 4 bits. */
INLINE void dot_u4(const tile *t, int64_t b, const int R, const int N, __m512i sums[TILE_GROUPS][TILE_ROWS])
{
    const __m512i low = _mm512_set1_epi8(15);
    const uint8_t *w = t->w + b * 256;
    const int8_t *q = t->q + b * 32;
    UNROLL for (int c = 0; c < 4; c++)
    {
        __m512i v[TILE_GROUPS], u[TILE_GROUPS];
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
INLINE void dot_u8(const tile *t, int64_t b, const int R, const int N, __m512i sums[TILE_GROUPS][TILE_ROWS])
{
    const uint8_t *w = t->w + b * 512;
    const int8_t *q = t->q + b * 32;
    UNROLL for (int c = 0; c < 8; c++)
    {
        __m512i u[TILE_GROUPS];
        UNROLL for (int r = 0; r < R; r++) u[r] = _mm512_loadu_si512(w + r * t->group_bytes + c * 64);
        UNROLL for (int n = 0; n < N; n++)
        {
            __m512i x = broadcast4(q + n * t->ld + c * 4);
            UNROLL for (int r = 0; r < R; r++) sums[r][n] = _mm512_dpbusd_epi32(sums[r][n], u[r], x);
        }
    }
}

#endif
