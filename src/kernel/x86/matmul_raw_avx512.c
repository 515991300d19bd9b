/* Owns the AVX-512 matmul on the RAW form. Some columns of two groups are unpacked and multiplied with every
 * row of activations before the next ones; the sums go through y in between, in the same order for every
 * tile. Many rows take as many columns at once as the second cache has room for, few rows 256, which the
 * first cache holds. Of Q4_K only scales and minima are unpacked: its quants are bytes one or two operations
 * later, which fit beside the products; storing and loading twice as many bytes does not. Any
 * thread. */
#include "kernel/x86/raw_avx512.h"
#include "kernel/simd/raw.inc.h"

/* With 16 columns to a scale a tile keeps as many floats of a block besides: fewer rows stay in registers. */
enum { TILE_ROWS = 6, HALVES_ROWS = 4, CHUNK = 16, STARTS = CHUNK * TILE_COLS / 16 };

/* What N rows of activations times R tiles read; columns from the tile's first on. */
typedef struct step {
    const raw_tile *tiles; /* [groups] of the first group's, the next tile's right after */
    int64_t left;          /* blocks of 32 columns from these tiles on */
    int blocks, groups;    /* of these tiles */
    const uint8_t *words;  /* of Q4_K: the first group's block */
    int64_t group_bytes;
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

/* How a tile is laid out, a constant in each copy of the loops. */
typedef struct kind {
    bool halves, mins;
    bool nibbles; /* Q4_K's, not unpacked */
} kind;

enum { Q4_K_WORDS = 36, Q4_K_HEAD = 4 }; /* 64 bytes each; those before the quants: kernel/pack_raw.h */

INLINE void next_tile(step *s, const kind c)
{
    s->left -= s->blocks;
    s->blocks = blocks_of(s->left);
    s->tiles += s->groups;
    if (c.nibbles)
        s->words += Q4_K_WORDS * 64;
    s->q += TILE_COLS;
    s->d += TILE_BLOCKS;
    s->ds += TILE_BLOCKS;
    s->hs += TILE_BLOCKS;
    s->starts += c.halves ? 2 * TILE_BLOCKS : TILE_BLOCKS;
}

/* Part p of the tile of group r. */
INLINE __m512i part(const step *s, const kind c, const int r, int p, const bool odd)
{
    if (!c.nibbles)
        return _mm512_load_si512(s->tiles[r].q[p]);
    int word = Q4_K_HEAD + p / 16 * 8 + p % 8; /* of two blocks of 32 columns, the second one upper */
    __m512i v = _mm512_load_si512(s->words + r * s->group_bytes + word * 64);
    return odd ? high_nibbles(v) : low_nibbles(v);
}

/* sums[r][n] += of parts [p, p + parts), of an odd block or an even one. */
INLINE void dot(const step *s, const kind c, int p, const int parts, const bool odd, const int R, const int N,
                __m512i sums[2][TILE_ROWS])
{
    UNROLL for (int i = 0; i < parts; i++)
    {
        __m512i u[2];
        UNROLL for (int r = 0; r < R; r++) u[r] = part(s, c, r, p + i, odd);
        UNROLL for (int n = 0; n < N; n++)
        {
            __m512i x = broadcast4(s->q + n * s->ld + (p + i) * 4);
            UNROLL for (int r = 0; r < R; r++) sums[r][n] = _mm512_dpbusd_epi32(sums[r][n], u[r], x);
        }
    }
}

/* sums[r][n] of scale k: half a block or a whole one, what the zero point adds taken off. */
INLINE void dot_scale(const step *s, const kind c, int k, const bool odd, const int R, const int N,
                      __m512i sums[2][TILE_ROWS])
{
    UNROLL for (int n = 0; n < N; n++)
    {
        __m512i start = _mm512_set1_epi32(c.mins ? 0 : s->starts[n * STARTS + k]);
        UNROLL for (int r = 0; r < R; r++) sums[r][n] = start;
    }
    dot(s, c, c.halves ? 4 * k : 8 * k, c.halves ? 4 : 8, odd, R, N, sums);
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

/* acc += block b of 32 columns, an odd one or an even one. */
INLINE void add_block(const step *s, const kind c, int b, const bool odd, const int R, const int N,
                      __m512 acc[2][TILE_ROWS])
{
    __m512i sums[2][TILE_ROWS];
    __m512 v[2][TILE_ROWS];
    int k = c.halves ? 2 * b : b;
    dot_scale(s, c, k, odd, R, N, sums);
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < N; n++)
        v[r][n] = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][n]), _mm512_load_ps(s->tiles[r].scale[k]));
    if (c.halves) {
        dot_scale(s, c, k + 1, odd, R, N, sums);
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < N; n++)
            v[r][n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][n]),
                                      _mm512_load_ps(s->tiles[r].scale[k + 1]), v[r][n]);
    }
    UNROLL for (int n = 0; n < N; n++) UNROLL for (int r = 0; r < R; r++)
        acc[r][n] = _mm512_fmadd_ps(v[r][n], _mm512_set1_ps(s->d[n * s->lds + b]), acc[r][n]);
    if (c.mins)
        add_min(s, b, k, c.halves, R, N, acc);
    if (c.mins && c.halves)
        add_min(s, b, k + 1, c.halves, R, N, acc);
}

INLINE void run_tile(step *s, fetch *ahead, const kind c, const int R, const int N, float *y, int64_t ldy,
                     int64_t left)
{
    __m512 acc[2][TILE_ROWS];
    FETCH_TILE(R, N, y, ldy);
    UNROLL for (int n = 0; n < N; n++) UNROLL for (int r = 0; r < R; r++)
        acc[r][n] = s->first ? _mm512_setzero_ps()
                             : vf_load_part(y + n * ldy + r * ASH_GROUP, left - r * ASH_GROUP);
    for (; s->left > 0; next_tile(s, c)) {
        for (int b = 0; b < s->blocks; b++) {
            fetch_more(ahead);
            add_block(s, c, b, false, R, N, acc);
            if (c.nibbles) { /* a block of the type has an even number */
                fetch_more(ahead);
                add_block(s, c, ++b, true, R, N, acc);
            }
        }
    }
    STORE_TILE(acc, R, N, y, ldy, left)
}

/* A function for each kind of type, groups and rows of activations: one that held them all would take the
 * compiler minutes. */
typedef void (*tile_fn)(step *s, fetch *ahead, float *y, int64_t ldy, int64_t left);

#define TILE(K, R, N)                                                                                 \
    static void tile_##K##_##R##N(step *s, fetch *ahead, float *y, int64_t ldy, int64_t left)         \
    {                                                                                                 \
        run_tile(s, ahead, kind_##K, R, N, y, ldy, left);                                             \
    }
#define TILES(K, R) TILE(K, R, 1) TILE(K, R, 2) TILE(K, R, 3) TILE(K, R, 4)
#define MORE_TILES(K, R) TILES(K, R) TILE(K, R, 5) TILE(K, R, 6)
static const kind kind_plain = {false, false, false}, kind_mins = {false, true, false},
                  kind_halves = {true, false, false}, kind_halves_mins = {true, true, false},
                  kind_q4_k = {false, true, true};
MORE_TILES(plain, 1)
MORE_TILES(plain, 2)
MORE_TILES(mins, 1)
MORE_TILES(mins, 2)
MORE_TILES(q4_k, 1)
MORE_TILES(q4_k, 2)
TILES(halves, 1)
TILES(halves, 2)
TILES(halves_mins, 1)
TILES(halves_mins, 2)

#define ROWS(K, R) tile_##K##_##R##1, tile_##K##_##R##2, tile_##K##_##R##3, tile_##K##_##R##4
#define MORE_ROWS(K, R) ROWS(K, R), tile_##K##_##R##5, tile_##K##_##R##6
/* [halves][mins][groups - 1][rows - 1] */
static const tile_fn tile_fns[2][2][2][TILE_ROWS] = {{{{MORE_ROWS(plain, 1)}, {MORE_ROWS(plain, 2)}},
                                                      {{MORE_ROWS(mins, 1)}, {MORE_ROWS(mins, 2)}}},
                                                     {{{ROWS(halves, 1)}, {ROWS(halves, 2)}},
                                                      {{ROWS(halves_mins, 1)}, {ROWS(halves_mins, 2)}}}};
static const tile_fn q4_k_fns[2][TILE_ROWS] = {{MORE_ROWS(q4_k, 1)}, {MORE_ROWS(q4_k, 2)}};

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
    const bool nibbles = j->w->dtype == ASH_DTYPE_Q4_K;
    const tile_fn *fns = nibbles ? q4_k_fns[groups - 1]
                                 : tile_fns[j->m.type->halves][j->m.type->mins][groups - 1];
    const uint8_t *words = nibbles ? j->m.data + g * j->m.group_bytes + t0 * Q4_K_WORDS * 64 : NULL;
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
        step s = {j->tiles, blocks, blocks_of(blocks), groups, words, j->m.group_bytes, a->ld, lds,
                  a->q + row * a->ld + b0 * 32, a->d + at, a->ds + at, a->hs + at, starts, t0 == 0};
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

static void unpack_scales(raw_block b)
{
    scales_k(b);
}

ASH_MATMUL(ash_avx512_matmul_raw)
{
    if (a->n <= ash_avx512_matmul_few_rows(w->dtype)) {
        ash_avx512_matmul_few(w, a, g0, g1, y, ldy, scratch);
        return;
    }
    job j = {w, a, raw_matrix_of(w), scratch, y, ldy};
    if (w->dtype == ASH_DTYPE_Q4_K)
        j.m.unpack = unpack_scales;
    int64_t chunk = a->n > TILE_ROWS ? CHUNK : 1;
    for (int64_t g = g0; g < g1; g += 2)
        for (int64_t t = 0; t < j.m.tiles; t += chunk)
            run_chunk(&j, g, g + 1 < g1 ? 2 : 1, t, t + chunk < j.m.tiles ? t + chunk : j.m.tiles);
}
