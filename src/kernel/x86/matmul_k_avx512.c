/* Owns the AVX-512 matmuls of few rows on Q4_K, Q5_K and Q6_K: a word of 16 rows becomes an operand of
 * vpdpbusd in a register, one to four operations later. What matmul_raw_avx512.c gains by unpacking to memory
 * it gains with many rows only.
 *
 * A tile is R groups times N rows as in matmul_avx512.c. The order of float operations for one result is that
 * of matmul_raw_avx512.c, in every tile. Any thread. */
#include "kernel/x86/fetch.h"
#include "kernel/x86/raw_avx512.h"
#include "kernel/x86/raw_block.inc.h"

enum { TILE_ROWS = 6, SCALES = 16 };

/* What a tile reads: R groups from `w`, N rows of activations. */
typedef struct tile {
    const uint8_t *w, *edges; /* of the first group */
    int64_t group_bytes, blocks, ld, lds, ldh; /* blocks of 256 columns */
    const int8_t *q;
    const float *d, *ds;
    const int32_t *half; /* minus the sums of 16 columns each, rows ldh apart; Q6_K alone */
    fetch ahead;         /* a step is 32 columns */
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

/* acc += 16 or 32 columns from part i0 on, of scale s of the block, at block b32 of 32 columns. */
INLINE void add_scale(const tile *t, const ash_dtype type, const raw_block blocks[2], int o, const int k,
                      const int i0, const int R, const int N, int64_t b32, int s, const scales scale[2],
                      __m512 acc[2][TILE_ROWS])
{
    const bool halves = type == ASH_DTYPE_Q6_K;
    const int parts = halves ? 4 : 8;
    __m512i sums[2][TILE_ROWS];
    UNROLL for (int n = 0; n < N; n++) UNROLL for (int r = 0; r < R; r++)
        sums[r][n] = halves ? _mm512_slli_epi32(_mm512_set1_epi32(t->half[n * t->ldh + 2 * b32 + i0 / 4]), 5)
                            : _mm512_setzero_si512();
    UNROLL for (int i = 0; i < parts; i++)
    {
        __m512i u[2];
        UNROLL for (int r = 0; r < R; r++) u[r] = part(type, blocks[r], o, k, i0 + i);
        UNROLL for (int n = 0; n < N; n++)
        {
            __m512i x = broadcast4(t->q + n * t->ld + b32 * 32 + (i0 + i) * 4);
            UNROLL for (int r = 0; r < R; r++) sums[r][n] = _mm512_dpbusd_epi32(sums[r][n], u[r], x);
        }
    }
    UNROLL for (int r = 0; r < R; r++)
    {
        __m512 by = vf_load(scale[r].scale[s]), min = halves ? by : vf_load(scale[r].min[s]);
        UNROLL for (int n = 0; n < N; n++)
        {
            __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][n]), by);
            acc[r][n] = _mm512_fmadd_ps(v, _mm512_set1_ps(t->d[n * t->lds + b32]), acc[r][n]);
            if (!halves)
                acc[r][n] = _mm512_fnmadd_ps(min, _mm512_set1_ps(t->ds[n * t->lds + b32]), acc[r][n]);
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
                int at = o * inner + k;
                fetch_more(&t->ahead);
                add_scale(t, type, blocks, o, k, 0, R, N, b * 8 + at, halves ? 2 * at : at, scale, acc);
                if (halves)
                    add_scale(t, type, blocks, o, k, 4, R, N, b * 8 + at, 2 * at + 1, scale, acc);
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

/* half [n, cols / 16] = minus the sums of 16 columns each. */
static void half_sums(const ash_act *a, int32_t *half)
{
    const __m512i one = _mm512_set1_epi8(1), zero = _mm512_setzero_si512();
    const __m512i quads = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
    for (int64_t i = 0; i < a->n; i++) {
        for (int64_t c = 0; c < a->cols; c += 64, half += 4) {
            __m512i x = _mm512_dpbusd_epi32(zero, one, _mm512_loadu_si512(a->q + i * a->ld + c));
            x = _mm512_add_epi32(x, _mm512_shuffle_epi32(x, 0x4E));
            x = _mm512_add_epi32(x, _mm512_shuffle_epi32(x, 0xB1));
            x = _mm512_permutexvar_epi32(quads, _mm512_sub_epi32(zero, x));
            _mm_storeu_si128((__m128i *)half, _mm512_castsi512_si128(x));
        }
    }
}

ASH_MATMUL(ash_avx512_matmul_k)
{
    ash_raw_layout l = ash_raw_layout_of(w->dtype);
    int type = index_of(w->dtype);
    int64_t tiles = (a->n + TILE_ROWS - 1) / TILE_ROWS, lds = a->ld / 32, blocks = w->cols / 256;
    int32_t *half = scratch;
    if (w->dtype == ASH_DTYPE_Q6_K)
        half_sums(a, half);
    for (int64_t g = g0; g < g1; g += 2) {
        int groups = g + 1 < g1 ? 2 : 1;
        const uint8_t *from = w->data + g * w->group_bytes;
        for (int64_t i = 0; i < tiles; i++) { /* of even size: no left-over of one row */
            int64_t row = a->n * i / tiles, n = a->n * (i + 1) / tiles - row;
            tile t = {from, from + blocks * l.words * 64, w->group_bytes, blocks, a->ld, lds, w->cols / 16,
                      a->q + row * a->ld, a->d + row * lds, a->ds + row * lds, half + row * (w->cols / 16),
                      fetch_start(w, g, 2, i, tiles, blocks * 8)};
            tile_fns[type][groups - 1][n - 1](&t, y + row * ldy + g * ASH_GROUP, ldy,
                                              w->rows - g * ASH_GROUP);
        }
    }
}
