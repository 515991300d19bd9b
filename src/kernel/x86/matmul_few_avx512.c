/* Owns the AVX-512 matmuls of few rows on several types of the RAW form: a word of 16 rows becomes an operand
 * of vpdpbusd in a register, one to five operations later. What matmul_raw_avx512.c gains by unpacking to
 * memory it gains with many rows only.
 *
 * A tile is R groups times N rows as in matmul_avx512.c. The order of float operations for one result is that
 * of matmul_raw_avx512.c, in every tile. Any thread. */
#include "kernel/simd/fetch.h"
#include "kernel/x86/raw_avx512.h"
#include "kernel/simd/raw_block.inc.h"

enum { TILE_ROWS = 6, SCALES = 16, STARTS = 2 * LANES };

/* What a tile reads: R groups from `w`, N rows of activations. */
typedef struct tile {
    const uint8_t *w, *edges; /* of the first group */
    int64_t group_bytes, blocks, ld, lds; /* blocks of the type */
    const int8_t *q;
    const float *d, *ds;
    const int32_t *ns;
    const uint32_t *hs;
    fetch_ahead ahead; /* a step is 32 columns */
} tile;

typedef struct scales {
    float scale[SCALES][ASH_GROUP], min[SCALES][ASH_GROUP];
} scales;

/* Of a block's halves for each row, what the zero point adds, taken off: set_starts. */
typedef int32_t starts[TILE_ROWS][STARTS];

/* A type, a constant in each copy of a tile. Its block is outer * inner times 32 columns; the loop over
 * `inner` is unrolled, for shifts by constants. */
typedef struct kind {
    ash_dtype type;
    int words, edge; /* of a block: kernel/pack_raw.h */
    int outer, inner, zero;
    bool halves, mins; /* 16 columns to a scale, not 32; minima besides */
} kind;

INLINE kind kind_of(const ash_dtype t)
{
    switch (t) {
    case ASH_DTYPE_Q5_0: return (kind){t, 5, 2, 1, 1, 16, false, false};
    case ASH_DTYPE_Q5_1: return (kind){t, 6, 0, 1, 1, 0, false, true};
    case ASH_DTYPE_IQ4_NL: return (kind){t, 4, 2, 1, 1, 128, false, false};
    case ASH_DTYPE_MXFP4: return (kind){t, 4, 1, 1, 1, 12, false, false};
    case ASH_DTYPE_NVFP4: return (kind){t, 9, 0, 2, 1, 12, true, false};
    case ASH_DTYPE_IQ4_XS: return (kind){t, 34, 0, 8, 1, 128, false, false};
    case ASH_DTYPE_Q2_K: return (kind){t, 21, 0, 2, 4, 0, true, true};
    case ASH_DTYPE_Q3_K: return (kind){t, 27, 2, 2, 4, 4, true, false};
    case ASH_DTYPE_Q4_K: return (kind){t, 36, 0, 4, 2, 0, false, true};
    case ASH_DTYPE_Q5_K: return (kind){t, 44, 0, 4, 2, 0, false, true};
    default: return (kind){t, 52, 2, 2, 4, 32, true, false}; /* Q6_K */
    }
}

/* a | b & mask */
INLINE vi or_masked(vi a, vi b, const int mask)
{
    return _mm512_ternarylogic_epi32(a, b, vi_set8(mask), 0xf8);
}

INLINE vi nibbles(vi v, const int high)
{
    return high ? high_nibbles(v) : low_nibbles(v);
}

/* a, and 16 more where nibble i of `bits` says so. */
INLINE vi fifth_bit(vi a, vi bits, const int i)
{
    const vi four = vi_set32(i % 2 ? (int)0x80402010 : 0x08040201);
    return _mm512_mask_add_epi8(a, _mm512_test_epi8_mask(vi_spread(bits, i / 2), four), a, vi_set8(16));
}

/* Of 32 columns the i-th 4, as bytes: number o * inner + k of a block. */
INLINE vi part(const ash_dtype t, raw_block b, int o, const int k, const int i)
{
    switch (t) {
    case ASH_DTYPE_Q5_0: return fifth_bit(nibbles(word(b, 1 + i % 4), i / 4), word(b, 0), i);
    case ASH_DTYPE_Q5_1: return fifth_bit(nibbles(word(b, 2 + i % 4), i / 4), word(b, 1), i);
    case ASH_DTYPE_IQ4_NL: return vi_lookup(table_iq4(), nibbles(word(b, i % 4), i / 4));
    case ASH_DTYPE_MXFP4: return vi_lookup(table_fp4(), nibbles(word(b, i % 4), i / 4));
    case ASH_DTYPE_NVFP4:
        return vi_lookup(table_fp4(), nibbles(word(b, 1 + 4 * o + i / 4 * 2 + i % 2), i / 2 % 2));
    case ASH_DTYPE_IQ4_XS: return vi_lookup(table_iq4(), nibbles(word(b, 2 + 4 * o + i % 4), i / 4));
    case ASH_DTYPE_Q2_K: return vi_and(vi_srl(word(b, 4 + 8 * o + i), 2 * k), vi_set8(3));
    case ASH_DTYPE_Q3_K:
        return or_masked(vi_and(vi_srl(word(b, 8 + 8 * o + i), 2 * k), vi_set8(3)),
                         _mm512_rorv_epi32(word(b, i), vi_set32(4 * o + k - 2)), 4);
    case ASH_DTYPE_Q4_K: return nibbles(word(b, 4 + 8 * o + i), k);
    case ASH_DTYPE_Q5_K:
        return or_masked(nibbles(word(b, 12 + 8 * o + i), k),
                         _mm512_rorv_epi32(word(b, 4 + i), vi_set32(2 * o + k - 4)), 16);
    default:
        return or_masked(nibbles(word(b, 16 * o + k % 2 * 8 + i), k / 2),
                         _mm512_rorv_epi32(word(b, 32 + 8 * o + i), vi_set32(2 * k - 4)), 48);
    }
}

INLINE void unpack_scales(const ash_dtype t, raw_block b)
{
    switch (t) {
    case ASH_DTYPE_Q5_0:
    case ASH_DTYPE_IQ4_NL: put_scale(b, 0, vf_halves(b.e)); break;
    case ASH_DTYPE_Q5_1: scales_q5_1(b); break;
    case ASH_DTYPE_MXFP4: scale_e8m0(b); break;
    case ASH_DTYPE_NVFP4: scales_nvfp4(b); break;
    case ASH_DTYPE_IQ4_XS: scales_iq4(b); break;
    case ASH_DTYPE_Q2_K: scales_q2(b); break;
    case ASH_DTYPE_Q3_K: scales_q3(b); break;
    case ASH_DTYPE_Q6_K: scales_q6(b); break;
    default: scales_k(b);
    }
}

INLINE raw_block block_of(const tile *t, const kind c, int64_t b, const int r, scales *s)
{
    return (raw_block){t->w + r * t->group_bytes + b * c.words * 64,
                       t->edges + r * t->group_bytes + b * ASH_GROUP * c.edge, NULL, s->scale[0], s->min[0]};
}

/* Whether set_starts pays: a block of few columns has too few uses of it. */
INLINE bool starts_ahead(const kind c)
{
    return c.zero && c.halves && c.outer * c.inner == 8;
}

/* to = of each half of the blocks of 32 columns from b on that make one of the type. */
INLINE void set_starts(const tile *t, const kind c, int64_t b, const int N, starts to)
{
    const vi zero = vi_set32(c.zero), upper = vi_set32(c.zero << 16);
    UNROLL for (int n = 0; n < N; n++)
        store_starts(_mm512_maskz_loadu_epi32(lanes(c.outer * c.inner), t->hs + n * t->lds + b), zero, upper,
                     to[n]);
}

/* sums[r][n] of `parts` parts of 4 columns from part i0 on of number o * inner + k, block b of all. */
INLINE void dot(const tile *t, const kind c, const raw_block blocks[2], int o, const int k, int64_t b,
                const int i0, const int parts, const int R, const int N, starts first,
                __m512i sums[2][TILE_ROWS])
{
    UNROLL for (int n = 0; n < N; n++)
    {
        __m512i start = _mm512_setzero_si512();
        if (starts_ahead(c))
            start = _mm512_set1_epi32(first[n][2 * (o * c.inner + k) + (i0 ? 1 : 0)]);
        else if (c.zero && c.halves)
            start = _mm512_madd_epi16(_mm512_set1_epi32((int)t->hs[n * t->lds + b]),
                                      _mm512_set1_epi32(i0 ? c.zero << 16 : c.zero));
        else if (c.zero)
            start = _mm512_set1_epi32(t->ns[n * t->lds + b] * c.zero);
        UNROLL for (int r = 0; r < R; r++) sums[r][n] = start;
    }
    UNROLL for (int i = 0; i < parts; i++)
    {
        __m512i u[2];
        UNROLL for (int r = 0; r < R; r++) u[r] = part(c.type, blocks[r], o, k, i0 + i);
        UNROLL for (int n = 0; n < N; n++)
        {
            __m512i x = broadcast4(t->q + n * t->ld + b * 32 + (i0 + i) * 4);
            UNROLL for (int r = 0; r < R; r++) sums[r][n] = _mm512_dpbusd_epi32(sums[r][n], u[r], x);
        }
    }
}

/* acc -= minimum s times the sum of activations that it is for: of block b, or of its half s % 2. */
INLINE void add_min(const tile *t, const kind c, int64_t b, int s, const int R, const int N,
                    const scales scale[2], __m512 acc[2][TILE_ROWS])
{
    UNROLL for (int n = 0; n < N; n++)
    {
        int64_t at = n * t->lds + b;
        float sum = c.halves ? -t->d[at] * (float)(int16_t)(t->hs[at] >> s % 2 * 16) : t->ds[at];
        UNROLL for (int r = 0; r < R; r++)
            acc[r][n] = _mm512_fnmadd_ps(vf_load(scale[r].min[s]), _mm512_set1_ps(sum), acc[r][n]);
    }
}

/* acc += 32 columns: number o * inner + k of a block, block b of all. */
INLINE void add_block(const tile *t, const kind c, const raw_block blocks[2], int o, const int k, int64_t b,
                      const int R, const int N, const scales scale[2], starts first,
                      __m512 acc[2][TILE_ROWS])
{
    const int s = (o * c.inner + k) * (c.halves ? 2 : 1);
    __m512i sums[2][TILE_ROWS];
    __m512 v[2][TILE_ROWS];
    dot(t, c, blocks, o, k, b, 0, c.halves ? 4 : 8, R, N, first, sums);
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < N; n++)
        v[r][n] = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][n]), vf_load(scale[r].scale[s]));
    if (c.halves) {
        dot(t, c, blocks, o, k, b, 4, 4, R, N, first, sums);
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < N; n++)
            v[r][n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][n]), vf_load(scale[r].scale[s + 1]),
                                      v[r][n]);
    }
    UNROLL for (int n = 0; n < N; n++) UNROLL for (int r = 0; r < R; r++)
        acc[r][n] = _mm512_fmadd_ps(v[r][n], _mm512_set1_ps(t->d[n * t->lds + b]), acc[r][n]);
    if (c.mins)
        add_min(t, c, b, s, R, N, scale, acc);
    if (c.mins && c.halves)
        add_min(t, c, b, s + 1, R, N, scale, acc);
}

/* left: rows of W from the tile's first on. */
INLINE void run_tile(tile *t, const kind c, const int R, const int N, float *y, int64_t ldy, int64_t left)
{
    __m512 acc[2][TILE_ROWS];
    FETCH_TILE(R, N, y, ldy);
    ZERO_TILE(acc, R, N);
    for (int64_t b = 0; b < t->blocks; b++) {
        scales scale[2];
        raw_block blocks[2];
        _Alignas(64) starts first;
        UNROLL for (int r = 0; r < R; r++)
        {
            blocks[r] = block_of(t, c, b, r, &scale[r]);
            unpack_scales(c.type, blocks[r]);
        }
        if (starts_ahead(c))
            set_starts(t, c, b * c.outer * c.inner, N, first);
        for (int o = 0; o < c.outer; o++) {
            UNROLL for (int k = 0; k < c.inner; k++)
            {
                fetch_ahead_more(&t->ahead, R);
                add_block(t, c, blocks, o, k, (b * c.outer + o) * c.inner + k, R, N, scale, first, acc);
            }
        }
    }
    STORE_TILE(acc, R, N, y, ldy, left)
}

typedef void (*tile_fn)(tile *t, float *y, int64_t ldy, int64_t left);

/* A type's tiles, up to how many rows they are faster than unpacking, and up to how many hardware prefetchers
 * are faster than fetching (simd/fetch.h; both measured on Zen 4). */
typedef struct few {
    ash_dtype type;
    int most, light;
    tile_fn fns[2][TILE_ROWS]; /* [groups - 1][rows - 1] */
} few;

#define TILE(T, R, N)                                                                                 \
    static void tile_##T##_##R##N(tile *t, float *y, int64_t ldy, int64_t left)                       \
    {                                                                                                 \
        run_tile(t, kind_of(ASH_DTYPE_##T), R, N, y, ldy, left);                                      \
    }
#define TILES(T, R) TILE(T, R, 1) TILE(T, R, 2) TILE(T, R, 3) TILE(T, R, 4) TILE(T, R, 5) TILE(T, R, 6)
#define ROWS(T, R)                                                                                    \
    {tile_##T##_##R##1, tile_##T##_##R##2, tile_##T##_##R##3, tile_##T##_##R##4, tile_##T##_##R##5,   \
     tile_##T##_##R##6}
#define FEW(T, MOST, LIGHT)                                                                           \
    TILES(T, 1)                                                                                       \
    TILES(T, 2)                                                                                       \
    static const few few_##T = {ASH_DTYPE_##T, MOST, LIGHT, {ROWS(T, 1), ROWS(T, 2)}};
FEW(Q5_0, 48, 0)
FEW(Q5_1, 48, 0)
FEW(IQ4_NL, 96, 0)
FEW(MXFP4, 96, 0)
FEW(NVFP4, 12, 0)
FEW(IQ4_XS, 32, 0)
FEW(Q2_K, 12, 0)
FEW(Q3_K, 8, 0)
FEW(Q4_K, 16, 1)
FEW(Q5_K, 16, 0)
FEW(Q6_K, 12, 0)

static const few *few_of(ash_dtype t)
{
    static const few *const all[] = {&few_Q5_0, &few_Q5_1, &few_IQ4_NL, &few_MXFP4,
                                     &few_NVFP4, &few_IQ4_XS, &few_Q2_K, &few_Q3_K,
                                     &few_Q4_K, &few_Q5_K, &few_Q6_K};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]->type == t)
            return all[i];
    return NULL;
}

int ash_avx512_matmul_few_rows(ash_dtype t)
{
    const few *f = few_of(t);
    return f ? f->most : 0;
}

ASH_MATMUL(ash_avx512_matmul_few)
{
    ash_raw_layout l = ash_raw_layout_of(w->dtype);
    const few *f = few_of(w->dtype);
    int64_t tiles = (a->n + TILE_ROWS - 1) / TILE_ROWS, lds = a->ld / 32;
    int64_t blocks = w->cols / ash_dtype_get(w->dtype)->block;
    for (int64_t g = g0; g < g1; g += 2) {
        int groups = g + 1 < g1 ? 2 : 1;
        const uint8_t *from = w->data + g * w->group_bytes;
        for (int64_t i = 0; i < tiles; i++) { /* of even size: no left-over of one row */
            int64_t row = a->n * i / tiles, n = a->n * (i + 1) / tiles - row, at = row * lds;
            tile t = {from, from + blocks * l.words * 64, w->group_bytes, blocks, a->ld, lds,
                      a->q + row * a->ld, a->d + at, a->ds + at, a->ns + at, a->hs + at,
                      fetch_ahead_start(w, g, 2, i, tiles, w->cols / 32, w->group_bytes, a->n <= f->light)};
            f->fns[groups - 1][n - 1](&t, y + row * ldy + g * ASH_GROUP, ldy, w->rows - g * ASH_GROUP);
        }
    }
}
