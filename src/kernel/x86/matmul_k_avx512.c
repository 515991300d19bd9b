/* Owns the AVX-512 matmuls of few rows on Q4_K, Q5_K and Q6_K: a word of 16 rows becomes an operand of
 * vpdpbusd in a register, one to four operations later. What matmul_raw_avx512.c gains by unpacking to memory
 * it gains with many rows only.
 *
 * A tile is R groups times N rows as in matmul_avx512.c. The order of float operations for one result is that
 * of matmul_raw_avx512.c, in every tile. Any thread. */
#include "kernel/simd/fetch.h"
#include "kernel/x86/raw_avx512.h"
#include "kernel/simd/raw_block.inc.h"

enum { TILE_ROWS = 6, SCALES = 16 };

/* What a tile reads: R groups from `w`, N rows of activations. */
typedef struct tile {
    const uint8_t *w, *edges; /* of the first group */
    int64_t group_bytes, blocks, ld, lds; /* blocks of 256 columns */
    const int8_t *q;
    const float *d, *ds;
    const uint32_t *hs;
    fetch ahead; /* a step is 32 columns */
} tile;

typedef struct scales {
    float scale[SCALES][ASH_GROUP], min[SCALES][ASH_GROUP];
} scales;

/* Of 32 columns the i-th 4, as bytes. The 32 are number o * inner + k of a block, inner 4 in Q6_K, else 2. */
INLINE vi part(const ash_dtype t, raw_block b, int o, const int k, const int i)
{
    vi v, high;
    switch (t) {
    case ASH_DTYPE_Q4_K:
        v = word(b, 4 + 8 * o + i);
        return k ? high_nibbles(v) : low_nibbles(v);
    case ASH_DTYPE_Q5_K:
        v = word(b, 12 + 8 * o + i);
        high = _mm512_rorv_epi32(word(b, 4 + i), vi_set32(2 * o + k - 4));
        return _mm512_ternarylogic_epi32(k ? high_nibbles(v) : low_nibbles(v), high, vi_set8(16), 0xf8);
    default: /* 0xf8: a | b & c */
        v = word(b, 16 * o + k % 2 * 8 + i);
        high = _mm512_rorv_epi32(word(b, 32 + 8 * o + i), vi_set32(2 * k - 4));
        return _mm512_ternarylogic_epi32(k / 2 ? high_nibbles(v) : low_nibbles(v), high, vi_set8(48), 0xf8);
    }
}

INLINE raw_block block_of(const tile *t, const ash_dtype type, int64_t b, const int r, scales *s)
{
    const int words = type == ASH_DTYPE_Q4_K ? 36 : type == ASH_DTYPE_Q5_K ? 44 : 52;
    return (raw_block){t->w + r * t->group_bytes + b * words * 64,
                       t->edges + r * t->group_bytes + b * ASH_GROUP * 2, NULL, s->scale[0], s->min[0]};
}

/* sums[r][n] of `parts` parts of 4 columns from part i0 on of number o * inner + k, block b of all. */
INLINE void dot(const tile *t, const ash_dtype type, const raw_block blocks[2], int o, const int k, int64_t b,
                const int i0, const int parts, const int R, const int N, __m512i sums[2][TILE_ROWS])
{
    UNROLL for (int n = 0; n < N; n++)
    {
        __m512i start = _mm512_setzero_si512();
        if (parts == 4) /* 32 is the zero point of Q6_K */
            start = _mm512_madd_epi16(_mm512_set1_epi32((int)t->hs[n * t->lds + b]),
                                      _mm512_set1_epi32(i0 ? 32 << 16 : 32));
        UNROLL for (int r = 0; r < R; r++) sums[r][n] = start;
    }
    UNROLL for (int i = 0; i < parts; i++)
    {
        __m512i u[2];
        UNROLL for (int r = 0; r < R; r++) u[r] = part(type, blocks[r], o, k, i0 + i);
        UNROLL for (int n = 0; n < N; n++)
        {
            __m512i x = broadcast4(t->q + n * t->ld + b * 32 + (i0 + i) * 4);
            UNROLL for (int r = 0; r < R; r++) sums[r][n] = _mm512_dpbusd_epi32(sums[r][n], u[r], x);
        }
    }
}

/* acc += 32 columns: number o * inner + k of a block, block b of all. */
INLINE void add_block(const tile *t, const ash_dtype type, const raw_block blocks[2], int o, const int k,
                      int64_t b, const int R, const int N, const scales scale[2], __m512 acc[2][TILE_ROWS])
{
    const bool halves = type == ASH_DTYPE_Q6_K;
    const int s = halves ? (o * 4 + k) * 2 : o * 2 + k;
    __m512i sums[2][TILE_ROWS];
    __m512 v[2][TILE_ROWS];
    dot(t, type, blocks, o, k, b, 0, halves ? 4 : 8, R, N, sums);
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < N; n++)
        v[r][n] = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][n]), vf_load(scale[r].scale[s]));
    if (halves) {
        dot(t, type, blocks, o, k, b, 4, 4, R, N, sums);
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < N; n++)
            v[r][n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][n]), vf_load(scale[r].scale[s + 1]),
                                      v[r][n]);
    }
    UNROLL for (int n = 0; n < N; n++)
    {
        __m512 d = _mm512_set1_ps(t->d[n * t->lds + b]), sum = _mm512_set1_ps(t->ds[n * t->lds + b]);
        UNROLL for (int r = 0; r < R; r++)
        {
            acc[r][n] = _mm512_fmadd_ps(v[r][n], d, acc[r][n]);
            if (!halves)
                acc[r][n] = _mm512_fnmadd_ps(vf_load(scale[r].min[s]), sum, acc[r][n]);
        }
    }
}

/* left: rows of W from the tile's first on. */
INLINE void run_tile(tile *t, const ash_dtype type, const int R, const int N, float *y, int64_t ldy,
                     int64_t left)
{
    const bool halves = type == ASH_DTYPE_Q6_K;
    const int inner = halves ? 4 : 2;
    __m512 acc[2][TILE_ROWS];
    FETCH_TILE(R, N, y, ldy);
    ZERO_TILE(acc, R, N);
    for (int64_t b = 0; b < t->blocks; b++) {
        scales scale[2];
        raw_block blocks[2];
        UNROLL for (int r = 0; r < R; r++)
        {
            blocks[r] = block_of(t, type, b, r, &scale[r]);
            if (halves)
                scales_q6(blocks[r]);
            else
                scales_k(blocks[r]);
        }
        for (int o = 0; o < 8 / inner; o++) {
            UNROLL for (int k = 0; k < inner; k++)
            {
                fetch_more(&t->ahead);
                add_block(t, type, blocks, o, k, b * 8 + o * inner + k, R, N, scale, acc);
            }
        }
    }
    STORE_TILE(acc, R, N, y, ldy, left)
}

typedef void (*tile_fn)(tile *t, float *y, int64_t ldy, int64_t left);

#define TILE(T, R, N)                                                                                 \
    static void tile_##T##_##R##N(tile *t, float *y, int64_t ldy, int64_t left)                       \
    {                                                                                                 \
        run_tile(t, ASH_DTYPE_##T, R, N, y, ldy, left);                                               \
    }
#define TILES(T, R) TILE(T, R, 1) TILE(T, R, 2) TILE(T, R, 3) TILE(T, R, 4) TILE(T, R, 5) TILE(T, R, 6)
TILES(Q4_K, 1)
TILES(Q4_K, 2)
TILES(Q5_K, 1)
TILES(Q5_K, 2)
TILES(Q6_K, 1)
TILES(Q6_K, 2)

#define ROWS(T, R)                                                                                    \
    {tile_##T##_##R##1, tile_##T##_##R##2, tile_##T##_##R##3, tile_##T##_##R##4, tile_##T##_##R##5,   \
     tile_##T##_##R##6}
/* [type][groups - 1][rows - 1] */
static const tile_fn tile_fns[3][2][TILE_ROWS] = {{ROWS(Q4_K, 1), ROWS(Q4_K, 2)},
                                                  {ROWS(Q5_K, 1), ROWS(Q5_K, 2)},
                                                  {ROWS(Q6_K, 1), ROWS(Q6_K, 2)}};

static int index_of(ash_dtype t)
{
    return t == ASH_DTYPE_Q4_K ? 0 : t == ASH_DTYPE_Q5_K ? 1 : t == ASH_DTYPE_Q6_K ? 2 : -1;
}

int ash_avx512_matmul_k_rows(ash_dtype t)
{
    static const int most[] = {48, 16, 24}; /* beyond, unpacking is faster (measured on Zen 4) */
    int i = index_of(t);
    return i < 0 ? 0 : most[i];
}

ASH_MATMUL(ash_avx512_matmul_k)
{
    ash_raw_layout l = ash_raw_layout_of(w->dtype);
    int type = index_of(w->dtype);
    int64_t tiles = (a->n + TILE_ROWS - 1) / TILE_ROWS, lds = a->ld / 32, blocks = w->cols / 256;
    for (int64_t g = g0; g < g1; g += 2) {
        int groups = g + 1 < g1 ? 2 : 1;
        const uint8_t *from = w->data + g * w->group_bytes;
        for (int64_t i = 0; i < tiles; i++) { /* of even size: no left-over of one row */
            int64_t row = a->n * i / tiles, n = a->n * (i + 1) / tiles - row;
            tile t = {from, from + blocks * l.words * 64, w->group_bytes, blocks, a->ld, lds,
                      a->q + row * a->ld, a->d + row * lds, a->ds + row * lds, a->hs + row * lds,
                      fetch_start(w, g, 2, i, tiles, blocks * 8)};
            tile_fns[type][groups - 1][n - 1](&t, y + row * ldy + g * ASH_GROUP, ldy,
                                              w->rows - g * ASH_GROUP);
        }
    }
}
