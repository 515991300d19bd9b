/* Owns the AVX-512 matmul on the RAW form. Some columns of two groups are unpacked and multiplied with every
 * row of activations before the next ones; the sums go through y in between, in the same order for every tile.
 * Many rows take as many columns at once as the second cache has room for, few rows 256, which the first cache
 * holds. Any thread. */
#include "kernel/x86/raw_avx512.h"
#include "kernel/x86/raw.inc.h"

enum { TILE_ROWS = 6, CHUNK = 16, K_ROWS = 48 };

/* What N rows of activations times R tiles read; columns from the tile's first on. */
typedef struct step {
    const raw_tile *tiles; /* [groups] of the first group's, the next tile's right after */
    int64_t left;          /* blocks of 32 columns from these tiles on */
    int blocks, groups;    /* of these tiles */
    int64_t ld, lds;
    const int8_t *q;
    const float *d, *ds;
    const int32_t *ns;
    int zero;
    bool first; /* y holds nothing yet */
} step;

static inline int blocks_of(int64_t left)
{
    return (int)(left < TILE_BLOCKS ? left : TILE_BLOCKS);
}

INLINE void next_tile(step *s)
{
    s->left -= s->blocks;
    s->blocks = blocks_of(s->left);
    s->tiles += s->groups;
    s->q += TILE_COLS;
    s->d += TILE_BLOCKS;
    s->ds += TILE_BLOCKS;
    s->ns += TILE_BLOCKS;
}

/* Minus the sums of 16 columns each of a tile. */
INLINE void half_sums(const step *s, const int N, int32_t sums[TILE_ROWS][TILE_COLS / 16])
{
    const __m512i one = _mm512_set1_epi8(1), zero = _mm512_setzero_si512();
    const __m512i quads = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
    UNROLL for (int n = 0; n < N; n++)
    {
        for (int b = 0; b < s->blocks; b += 2) { /* rows of q are whole 64 bytes */
            __m512i x = _mm512_dpbusd_epi32(zero, one, _mm512_loadu_si512(s->q + n * s->ld + b * 32));
            x = _mm512_add_epi32(x, _mm512_shuffle_epi32(x, 0x4E));
            x = _mm512_add_epi32(x, _mm512_shuffle_epi32(x, 0xB1));
            x = _mm512_permutexvar_epi32(quads, _mm512_sub_epi32(zero, x));
            _mm_storeu_si128((__m128i *)&sums[n][2 * b], _mm512_castsi512_si128(x));
        }
    }
}

/* sums[r][n] += of parts [p, p + parts) */
INLINE void dot(const step *s, int p, const int parts, const int R, const int N,
                __m512i sums[2][TILE_ROWS])
{
    UNROLL for (int c = 0; c < parts; c++)
    {
        __m512i u[2];
        UNROLL for (int r = 0; r < R; r++) u[r] = _mm512_load_si512(s->tiles[r].q[p + c]);
        UNROLL for (int n = 0; n < N; n++)
        {
            __m512i x = broadcast4(s->q + n * s->ld + (p + c) * 4);
            UNROLL for (int r = 0; r < R; r++) sums[r][n] = _mm512_dpbusd_epi32(sums[r][n], u[r], x);
        }
    }
}

/* acc += sums times scale k of the tiles and the activations' scale of block b. */
INLINE void add_scaled(const step *s, int b, int k, const int R, const int N, __m512i sums[2][TILE_ROWS],
                       __m512 acc[2][TILE_ROWS])
{
    UNROLL for (int r = 0; r < R; r++)
    {
        __m512 scale = _mm512_load_ps(s->tiles[r].scale[k]);
        UNROLL for (int n = 0; n < N; n++)
        {
            __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][n]), scale);
            acc[r][n] = _mm512_fmadd_ps(v, _mm512_set1_ps(s->d[n * s->lds + b]), acc[r][n]);
        }
    }
}

/* acc += what scale k of block b is for, by the tiles: half a block or a whole one. */
INLINE void add_scale(const step *s, int b, int k, const bool halves, const bool mins, const int R,
                      const int N, int32_t half[TILE_ROWS][TILE_COLS / 16], __m512 acc[2][TILE_ROWS])
{
    __m512i sums[2][TILE_ROWS];
    UNROLL for (int n = 0; n < N; n++)
    {
        __m512i start = _mm512_setzero_si512();
        if (!mins)
            start = _mm512_set1_epi32((halves ? half[n][k] : s->ns[n * s->lds + b]) * s->zero);
        UNROLL for (int r = 0; r < R; r++) sums[r][n] = start;
    }
    dot(s, halves ? 4 * k : 8 * k, halves ? 4 : 8, R, N, sums);
    add_scaled(s, b, k, R, N, sums, acc);
    UNROLL for (int r = 0; mins && r < R; r++)
    {
        __m512 min = _mm512_load_ps(s->tiles[r].min[k]);
        UNROLL for (int n = 0; n < N; n++)
        {
            float sum = halves ? -s->d[n * s->lds + b] * (float)half[n][k] : s->ds[n * s->lds + b];
            acc[r][n] = _mm512_fnmadd_ps(min, _mm512_set1_ps(sum), acc[r][n]);
        }
    }
}

INLINE void run_tile(step *s, fetch *ahead, const bool halves, const bool mins, const int R, const int N,
                     float *y, int64_t ldy, int64_t left)
{
    __m512 acc[2][TILE_ROWS];
    int32_t half[TILE_ROWS][TILE_COLS / 16];
    UNROLL for (int n = 0; n < N; n++) UNROLL for (int r = 0; r < R; r++)
        acc[r][n] = s->first ? _mm512_setzero_ps()
                             : vf_load_part(y + n * ldy + r * ASH_GROUP, left - r * ASH_GROUP);
    for (; s->left > 0; next_tile(s)) {
        if (halves)
            half_sums(s, N, half);
        for (int b = 0; b < s->blocks; b++) {
            fetch_more(ahead);
            add_scale(s, b, halves ? 2 * b : b, halves, mins, R, N, half, acc);
            if (halves)
                add_scale(s, b, 2 * b + 1, halves, mins, R, N, half, acc);
        }
    }
    STORE_TILE(acc, R, N, y, ldy, left)
}

/* A function for each kind of type, groups and rows of activations: one that held them all would take the
 * compiler minutes. */
typedef void (*tile_fn)(step *s, fetch *ahead, float *y, int64_t ldy, int64_t left);

#define TILE(H, M, R, N)                                                                              \
    static void tile_##H##M##_##R##N(step *s, fetch *ahead, float *y, int64_t ldy, int64_t left) \
    {                                                                                                 \
        run_tile(s, ahead, H, M, R, N, y, ldy, left);                                                 \
    }
#define TILES(H, M)                                                                                   \
    TILE(H, M, 1, 1)                                                                                  \
    TILE(H, M, 1, 2)                                                                                  \
    TILE(H, M, 1, 3)                                                                                  \
    TILE(H, M, 1, 4)                                                                                  \
    TILE(H, M, 1, 5)                                                                                  \
    TILE(H, M, 1, 6)                                                                                  \
    TILE(H, M, 2, 1)                                                                                  \
    TILE(H, M, 2, 2)                                                                                  \
    TILE(H, M, 2, 3)                                                                                  \
    TILE(H, M, 2, 4)                                                                                  \
    TILE(H, M, 2, 5)                                                                                  \
    TILE(H, M, 2, 6)
TILES(0, 0)
TILES(0, 1)
TILES(1, 0)
TILES(1, 1)

#define ROWS(H, M, R)                                                                                 \
    {tile_##H##M##_##R##1, tile_##H##M##_##R##2, tile_##H##M##_##R##3,                                \
     tile_##H##M##_##R##4, tile_##H##M##_##R##5, tile_##H##M##_##R##6}
/* [halves][mins][groups - 1][rows - 1] */
static const tile_fn tile_fns[2][2][2][TILE_ROWS] = {{{ROWS(0, 0, 1), ROWS(0, 0, 2)},
                                                      {ROWS(0, 1, 1), ROWS(0, 1, 2)}},
                                                     {{ROWS(1, 0, 1), ROWS(1, 0, 2)},
                                                      {ROWS(1, 1, 1), ROWS(1, 1, 2)}}};

/* What a matmul has for all groups. */
typedef struct job {
    const ash_packed *w;
    const ash_act *a;
    raw_matrix m;
    raw_tile *tiles;
    float *y;
    int64_t ldy;
} job;

/* Tiles [t0, t1) of the groups [g, g + groups). */
static void run_chunk(const job *j, int64_t g, int groups, int64_t t0, int64_t t1)
{
    const ash_act *a = j->a;
    const tile_fn *fns = tile_fns[j->m.type->halves][j->m.type->mins][groups - 1];
    int64_t tiles = (a->n + TILE_ROWS - 1) / TILE_ROWS, lds = a->ld / 32, b0 = t0 * TILE_BLOCKS;
    int64_t blocks = (t1 * TILE_BLOCKS < a->cols / 32 ? t1 * TILE_BLOCKS : a->cols / 32) - b0;
    fetch ahead = fetch_tiles(j->w, g, groups, t0, j->m.tiles, tiles);
    for (int64_t t = t0; t < t1; t++)
        for (int r = 0; r < groups; r++)
            unpack_tile(&j->m, g + r, groups, t, &j->tiles[(t - t0) * groups + r], &ahead);
    for (int64_t i = 0; i < tiles; i++) { /* of even size: no left-over of one row */
        int64_t row = a->n * i / tiles, n = a->n * (i + 1) / tiles - row, at = row * lds + b0;
        step s = {j->tiles, blocks, blocks_of(blocks), groups, a->ld, lds, a->q + row * a->ld + b0 * 32,
                  a->d + at, a->ds + at, a->ns + at, j->m.type->zero, t0 == 0};
        fns[n - 1](&s, &ahead, j->y + row * j->ldy + g * ASH_GROUP, j->ldy, j->w->rows - g * ASH_GROUP);
    }
}

int64_t ash_avx512_raw_scratch(int64_t cols)
{
    int64_t tiles = (cols + TILE_COLS - 1) / TILE_COLS, sums = K_ROWS * tiles * TILE_COLS / 4;
    int64_t unpacked = 2 * (tiles < CHUNK ? tiles : CHUNK) * (int64_t)sizeof(raw_tile);
    return unpacked > sums ? unpacked : sums;
}

ASH_MATMUL(ash_avx512_matmul_raw)
{
    if (a->n <= ash_avx512_matmul_k_rows(w->dtype)) {
        ash_avx512_matmul_k(w, a, g0, g1, y, ldy, scratch);
        return;
    }
    job j = {w, a, raw_matrix_of(w), scratch, y, ldy};
    int64_t chunk = a->n > TILE_ROWS ? CHUNK : 1;
    for (int64_t g = g0; g < g1; g += 2)
        for (int64_t t = 0; t < j.m.tiles; t += chunk)
            run_chunk(&j, g, g + 1 < g1 ? 2 : 1, t, t + chunk < j.m.tiles ? t + chunk : j.m.tiles);
}
