/* Owns the AVX-512 matmul on the RAW form. Some columns of two groups are unpacked and multiplied with every
 * row of activations before the next ones; the sums go through y in between, in the same order for every
 * tile. Many rows take as many columns at once as the second cache has room for, few rows 256, which the
 * first cache holds. Any thread. */
#include "kernel/x86/raw_avx512.h"
#include "kernel/simd/raw.inc.h"

/* With 16 columns to a scale a tile keeps as many floats of a block besides: fewer rows stay in registers. */
enum { TILE_ROWS = 6, HALVES_ROWS = 4, CHUNK = 16, STARTS = CHUNK * TILE_COLS / 16 };

/* What N rows of activations times R tiles read; columns from the tile's first on. */
typedef struct step {
    const raw_tile *tiles; /* [groups] of the first group's, the next tile's right after */
    int64_t left;          /* blocks of 32 columns from these tiles on */
    int blocks, groups;    /* of these tiles */
    int64_t ld, lds;
    const int8_t *q;
    const float *d, *ds;
    const uint32_t *hs;
    const int32_t *starts; /* [rows][STARTS]: of each scale, what the zero point adds, taken off */
    bool first; /* y holds nothing yet */
} step;

static inline int blocks_of(int64_t left)
{
    return (int)(left < TILE_BLOCKS ? left : TILE_BLOCKS);
}

INLINE void next_tile(step *s, const bool halves)
{
    s->left -= s->blocks;
    s->blocks = blocks_of(s->left);
    s->tiles += s->groups;
    s->q += TILE_COLS;
    s->d += TILE_BLOCKS;
    s->ds += TILE_BLOCKS;
    s->hs += TILE_BLOCKS;
    s->starts += halves ? 2 * TILE_BLOCKS : TILE_BLOCKS;
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

/* sums[r][n] of scale k: half a block or a whole one, what the zero point adds taken off. */
INLINE void dot_scale(const step *s, int k, const bool halves, const bool mins, const int R, const int N,
                      __m512i sums[2][TILE_ROWS])
{
    UNROLL for (int n = 0; n < N; n++)
    {
        __m512i start = _mm512_set1_epi32(mins ? 0 : s->starts[n * STARTS + k]);
        UNROLL for (int r = 0; r < R; r++) sums[r][n] = start;
    }
    dot(s, halves ? 4 * k : 8 * k, halves ? 4 : 8, R, N, sums);
}

/* acc -= minimum k of the tiles times the sum of activations that it is for. */
INLINE void add_min(const step *s, int b, int k, const bool halves, const int R, const int N,
                    __m512 acc[2][TILE_ROWS])
{
    UNROLL for (int n = 0; n < N; n++)
    {
        int64_t at = n * s->lds + b;
        float sum = halves ? -s->d[at] * (float)(int16_t)(s->hs[at] >> k % 2 * 16) : s->ds[at];
        UNROLL for (int r = 0; r < R; r++)
            acc[r][n] = _mm512_fnmadd_ps(_mm512_load_ps(s->tiles[r].min[k]), _mm512_set1_ps(sum), acc[r][n]);
    }
}

/* acc += block b of 32 columns. */
INLINE void add_block(const step *s, int b, const bool halves, const bool mins, const int R, const int N,
                      __m512 acc[2][TILE_ROWS])
{
    __m512i sums[2][TILE_ROWS];
    __m512 v[2][TILE_ROWS];
    int k = halves ? 2 * b : b;
    dot_scale(s, k, halves, mins, R, N, sums);
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < N; n++)
        v[r][n] = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][n]), _mm512_load_ps(s->tiles[r].scale[k]));
    if (halves) {
        dot_scale(s, k + 1, halves, mins, R, N, sums);
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < N; n++)
            v[r][n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][n]),
                                      _mm512_load_ps(s->tiles[r].scale[k + 1]), v[r][n]);
    }
    UNROLL for (int n = 0; n < N; n++) UNROLL for (int r = 0; r < R; r++)
        acc[r][n] = _mm512_fmadd_ps(v[r][n], _mm512_set1_ps(s->d[n * s->lds + b]), acc[r][n]);
    if (mins)
        add_min(s, b, k, halves, R, N, acc);
    if (mins && halves)
        add_min(s, b, k + 1, halves, R, N, acc);
}

INLINE void run_tile(step *s, fetch *ahead, const bool halves, const bool mins, const int R, const int N,
                     float *y, int64_t ldy, int64_t left)
{
    __m512 acc[2][TILE_ROWS];
    FETCH_TILE(R, N, y, ldy);
    UNROLL for (int n = 0; n < N; n++) UNROLL for (int r = 0; r < R; r++)
        acc[r][n] = s->first ? _mm512_setzero_ps()
                             : vf_load_part(y + n * ldy + r * ASH_GROUP, left - r * ASH_GROUP);
    for (; s->left > 0; next_tile(s, halves)) {
        for (int b = 0; b < s->blocks; b++) {
            fetch_more(ahead);
            add_block(s, b, halves, mins, R, N, acc);
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
#define TILES(H, M, R) TILE(H, M, R, 1) TILE(H, M, R, 2) TILE(H, M, R, 3) TILE(H, M, R, 4)
#define MORE_TILES(H, M, R) TILES(H, M, R) TILE(H, M, R, 5) TILE(H, M, R, 6)
MORE_TILES(0, 0, 1)
MORE_TILES(0, 0, 2)
MORE_TILES(0, 1, 1)
MORE_TILES(0, 1, 2)
TILES(1, 0, 1)
TILES(1, 0, 2)
TILES(1, 1, 1)
TILES(1, 1, 2)

#define ROWS(H, M, R) tile_##H##M##_##R##1, tile_##H##M##_##R##2, tile_##H##M##_##R##3, tile_##H##M##_##R##4
#define MORE_ROWS(H, M, R) ROWS(H, M, R), tile_##H##M##_##R##5, tile_##H##M##_##R##6
/* [halves][mins][groups - 1][rows - 1] */
static const tile_fn tile_fns[2][2][2][TILE_ROWS] = {{{{MORE_ROWS(0, 0, 1)}, {MORE_ROWS(0, 0, 2)}},
                                                      {{MORE_ROWS(0, 1, 1)}, {MORE_ROWS(0, 1, 2)}}},
                                                     {{{ROWS(1, 0, 1)}, {ROWS(1, 0, 2)}},
                                                      {{ROWS(1, 1, 1)}, {ROWS(1, 1, 2)}}}};

/* What a matmul has for all groups. */
typedef struct job {
    const ash_packed *w;
    const ash_act *a;
    raw_matrix m;
    raw_tile *tiles;
    float *y;
    int64_t ldy;
} job;

/* starts [n][STARTS] of `blocks` blocks of n rows whose sums begin at ns and hs. In vectors beforehand, as
 * the loop over blocks has nothing to spare in the units that multiply. */
static void set_starts(const raw_type *type, const int32_t *ns, const uint32_t *hs, int64_t lds, int64_t n,
                       int64_t blocks, int32_t *starts)
{
    const __m512i zero = _mm512_set1_epi32(type->zero), upper = _mm512_slli_epi32(zero, 16);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t b = 0; b < blocks; b += LANES) {
            int32_t *to = starts + i * STARTS + (type->halves ? 2 * b : b);
            if (type->halves)
                store_starts(_mm512_maskz_loadu_epi32(lanes(blocks - b), hs + i * lds + b), zero, upper, to);
            else
                _mm512_store_si512(to, _mm512_mullo_epi32(_mm512_maskz_loadu_epi32(lanes(blocks - b),
                                                                                  ns + i * lds + b), zero));
        }
    }
}

/* Tiles [t0, t1) of the groups [g, g + groups). */
static void run_chunk(const job *j, int64_t g, int groups, int64_t t0, int64_t t1)
{
    const ash_act *a = j->a;
    const tile_fn *fns = tile_fns[j->m.type->halves][j->m.type->mins][groups - 1];
    int64_t most = j->m.type->halves ? HALVES_ROWS : TILE_ROWS, tiles = (a->n + most - 1) / most;
    int64_t lds = a->ld / 32, b0 = t0 * TILE_BLOCKS;
    int64_t blocks = (t1 * TILE_BLOCKS < a->cols / 32 ? t1 * TILE_BLOCKS : a->cols / 32) - b0;
    _Alignas(64) int32_t starts[TILE_ROWS * STARTS];
    fetch ahead = fetch_tiles(j->w, g, groups, t0, j->m.tiles, tiles);
    for (int64_t t = t0; t < t1; t++)
        for (int r = 0; r < groups; r++)
            unpack_tile(&j->m, g + r, groups, t, &j->tiles[(t - t0) * groups + r], &ahead);
    for (int64_t i = 0; i < tiles; i++) { /* of even size: no left-over of one row */
        int64_t row = a->n * i / tiles, n = a->n * (i + 1) / tiles - row, at = row * lds + b0;
        step s = {j->tiles, blocks, blocks_of(blocks), groups, a->ld, lds, a->q + row * a->ld + b0 * 32,
                  a->d + at, a->ds + at, a->hs + at, starts, t0 == 0};
        if (!j->m.type->mins)
            set_starts(j->m.type, a->ns + at, a->hs + at, lds, n, blocks, starts);
        fns[n - 1](&s, &ahead, j->y + row * j->ldy + g * ASH_GROUP, j->ldy, j->w->rows - g * ASH_GROUP);
    }
}

int64_t ash_avx512_raw_scratch(int64_t cols)
{
    int64_t tiles = (cols + TILE_COLS - 1) / TILE_COLS;
    return 2 * (tiles < CHUNK ? tiles : CHUNK) * (int64_t)sizeof(raw_tile);
}

ASH_MATMUL(ash_avx512_matmul_raw)
{
    if (a->n <= ash_avx512_matmul_few_rows(w->dtype)) {
        ash_avx512_matmul_few(w, a, g0, g1, y, ldy, scratch);
        return;
    }
    job j = {w, a, raw_matrix_of(w), scratch, y, ldy};
    int64_t chunk = a->n > TILE_ROWS ? CHUNK : 1;
    for (int64_t g = g0; g < g1; g += 2)
        for (int64_t t = 0; t < j.m.tiles; t += chunk)
            run_chunk(&j, g, g + 1 < g1 ? 2 : 1, t, t + chunk < j.m.tiles ? t + chunk : j.m.tiles);
}
