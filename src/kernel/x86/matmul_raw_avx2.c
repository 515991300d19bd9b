/* Owns the AVX2 matmul on the RAW form. 256 columns of a group are unpacked and multiplied with every row of
 * activations before the next 256; the sums go through y in between, in the same order for every tile. Any
 * thread.
 *
 * vpmaddubsw gives 16-bit sums of two products. Bytes up to 31 allow four such sums to be added before
 * they are widened, up to 63 two; others are taken as signed, as |w| and sign(w) x, each widened at once. */
#include "kernel/x86/avx2.h"

typedef __m256i vi;

INLINE vi vi_load(const void *p) { return _mm256_loadu_si256(p); }
INLINE void vi_store(void *p, vi v) { _mm256_store_si256(p, v); }
INLINE vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
INLINE vi vi_andnot(vi a, vi b) { return _mm256_andnot_si256(a, b); } /* ~a & b */
INLINE vi vi_or(vi a, vi b) { return _mm256_or_si256(a, b); }
INLINE vi vi_xor(vi a, vi b) { return _mm256_xor_si256(a, b); }
INLINE vi vi_srl(vi a, int n) { return _mm256_srli_epi32(a, n); }
INLINE vi vi_sra(vi a, int n) { return _mm256_srai_epi32(a, n); }
INLINE vi vi_sll(vi a, int n) { return _mm256_slli_epi32(a, n); }
INLINE vi vi_srl_by(vi a, int n) { return _mm256_srl_epi32(a, _mm_cvtsi32_si128(n)); } /* no constant */
INLINE vi vi_set8(int x) { return _mm256_set1_epi8((char)x); }
INLINE vi vi_set32(int x) { return _mm256_set1_epi32(x); }
INLINE vi vi_add8(vi a, vi b) { return _mm256_add_epi8(a, b); }
INLINE vi vi_sub8(vi a, vi b) { return _mm256_sub_epi8(a, b); }
INLINE vi vi_add32(vi a, vi b) { return _mm256_add_epi32(a, b); }
INLINE vi vi_sub32(vi a, vi b) { return _mm256_sub_epi32(a, b); }
INLINE vf vi_to_f(vi a) { return _mm256_cvtepi32_ps(a); }
INLINE vf vi_as_f(vi a) { return _mm256_castsi256_ps(a); }
INLINE vi vi_lookup(vi table, vi index) { return _mm256_shuffle_epi8(table, index); }

INLINE vi vi_table(const int8_t p[16])
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
}

INLINE vi vi_bytes(const uint8_t *p) /* one to a word */
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

/* The half floats in the lower halves of words. */
INLINE vf vi_low_halves(vi a)
{
    const vi pick = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1));
    a = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(a, pick), 0x08);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(a));
}

/* Byte k of each word in all four. */
INLINE vi vi_spread(vi a, int k)
{
    const vi base = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
    return _mm256_shuffle_epi8(a, vi_add8(base, vi_set8(k)));
}

/* All ones in bytes that have the bit that `mask` has there. */
INLINE vi vi_bits(vi a, int mask)
{
    vi bit = vi_set32(mask);
    return _mm256_cmpeq_epi8(vi_and(a, bit), bit);
}

/* x where a word of a equals n, else y. */
INLINE vi vi_where_equal(vi a, int n, vi x, vi y)
{
    return _mm256_blendv_epi8(y, x, _mm256_cmpeq_epi32(a, vi_set32(n)));
}

#define vi_gather(base, index, size) _mm256_i32gather_epi32((const int *)(const void *)(base), index, size)

#include "kernel/simd/raw.inc.h"

enum { TILE_ROWS = 3 };

/* What N rows of activations times a tile read; columns from the tile's first on. */
typedef struct step {
    const raw_tile *tile;
    int blocks;
    int64_t ld, lds;
    const int8_t *q;
    const float *d, *ds;
    const int32_t *ns;
    int zero;
    bool first; /* y holds nothing yet */
} step;

/* What a type's multiplication depends on; constants of each of its copies. */
typedef struct shape {
    raw_size size;
    bool halves, mins;
} shape;

/* Minus the sums of 16 columns each of a tile. */
INLINE void half_sums(const step *s, const int N, int32_t sums[TILE_ROWS][TILE_COLS / 16])
{
    UNROLL for (int n = 0; n < N; n++)
    {
        for (int b = 0; b < s->blocks; b++) {
            vi x = _mm256_maddubs_epi16(vi_set8(1), vi_load(s->q + n * s->ld + b * 32));
            x = _mm256_madd_epi16(x, _mm256_set1_epi16(-1));
            x = _mm256_hadd_epi32(x, x);
            x = _mm256_hadd_epi32(x, x);
            sums[n][2 * b] = _mm_cvtsi128_si32(_mm256_castsi256_si128(x));
            sums[n][2 * b + 1] = _mm_cvtsi128_si32(_mm256_extracti128_si256(x, 1));
        }
    }
}

/* sums[h][n] += of parts [p, p + parts) with bytes of at most 63, `run` parts of which add up in 16 bits. */
INLINE void dot_small(const step *s, int p, const int parts, const int run, const int N,
                      vi sums[2][TILE_ROWS])
{
    const vi one = _mm256_set1_epi16(1);
    UNROLL for (int c = 0; c < parts; c += run)
    {
        vi part[2][TILE_ROWS];
        UNROLL for (int i = 0; i < run; i++)
        {
            vi x[TILE_ROWS];
            UNROLL for (int n = 0; n < N; n++) x[n] = broadcast4(s->q + n * s->ld + (p + c + i) * 4);
            UNROLL for (int h = 0; h < 2; h++)
            {
                vi u = vi_load(s->tile->q[p + c + i] + 32 * h);
                UNROLL for (int n = 0; n < N; n++)
                {
                    vi v = _mm256_maddubs_epi16(u, x[n]);
                    part[h][n] = i ? _mm256_add_epi16(part[h][n], v) : v;
                }
            }
        }
        UNROLL for (int n = 0; n < N; n++) UNROLL for (int h = 0; h < 2; h++)
            sums[h][n] = vi_add32(sums[h][n], _mm256_madd_epi16(part[h][n], one));
    }
}

/* The same with any bytes, around 128. */
INLINE void dot_signed(const step *s, int p, const int parts, const int N, vi sums[2][TILE_ROWS])
{
    const vi zero_point = vi_set8(-128), one = _mm256_set1_epi16(1);
    UNROLL for (int c = 0; c < parts; c++)
    {
        UNROLL for (int h = 0; h < 2; h++)
        {
            vi v = vi_xor(vi_load(s->tile->q[p + c] + 32 * h), zero_point), size = _mm256_abs_epi8(v);
            UNROLL for (int n = 0; n < N; n++)
            {
                vi x = _mm256_sign_epi8(broadcast4(s->q + n * s->ld + (p + c) * 4), v);
                x = _mm256_madd_epi16(_mm256_maddubs_epi16(size, x), one);
                sums[h][n] = vi_add32(sums[h][n], x);
            }
        }
    }
}

/* acc += what scale k of block b is for: half a block or a whole one. */
INLINE void add_scale(const step *s, int b, int k, const shape o, const int N,
                      int32_t half[TILE_ROWS][TILE_COLS / 16], vf acc[2][TILE_ROWS])
{
    vi sums[2][TILE_ROWS];
    int p = o.halves ? 4 * k : 8 * k;
    UNROLL for (int n = 0; n < N; n++)
    {
        vi start = _mm256_setzero_si256();
        if (!o.mins && o.size != RAW_255)
            start = vi_set32((o.halves ? half[n][k] : s->ns[n * s->lds + b]) * s->zero);
        sums[0][n] = sums[1][n] = start;
    }
    if (o.size == RAW_255)
        dot_signed(s, p, o.halves ? 4 : 8, N, sums);
    else
        dot_small(s, p, o.halves ? 4 : 8, o.size == RAW_31 ? 4 : 2, N, sums);
    UNROLL for (int h = 0; h < 2; h++)
    {
        vf scale = vf_load(&s->tile->scale[k][h * LANES]);
        vf min = o.mins ? vf_load(&s->tile->min[k][h * LANES]) : vf_zero();
        UNROLL for (int n = 0; n < N; n++)
        {
            float d = s->d[n * s->lds + b];
            acc[h][n] = vf_fma(vf_mul(vi_to_f(sums[h][n]), scale), vf_set(d), acc[h][n]);
            if (o.mins) {
                float sum = o.halves ? -d * (float)half[n][k] : s->ds[n * s->lds + b];
                acc[h][n] = _mm256_fnmadd_ps(min, vf_set(sum), acc[h][n]);
            }
        }
    }
}

INLINE void run_tile(const step *s, fetch *ahead, const shape o, const int N, float *y, int64_t ldy,
                     int64_t left)
{
    vf acc[2][TILE_ROWS];
    int32_t half[TILE_ROWS][TILE_COLS / 16];
    UNROLL for (int n = 0; n < N; n++) UNROLL for (int h = 0; h < 2; h++)
        acc[h][n] = s->first ? vf_zero() : vf_load_part(y + n * ldy + h * LANES, left - h * LANES);
    if (o.halves)
        half_sums(s, N, half);
    for (int b = 0; b < s->blocks; b++) {
        fetch_more(ahead);
        add_scale(s, b, o.halves ? 2 * b : b, o, N, half, acc);
        if (o.halves)
            add_scale(s, b, 2 * b + 1, o, N, half, acc);
    }
    for (int n = 0; n < N; n++)
        for (int h = 0; h < 2; h++)
            if (left > h * LANES)
                vf_store_part(y + n * ldy + h * LANES, left - h * LANES, acc[h][n]);
}

/* A function for each kind of type and rows of activations. */
typedef void (*tile_fn)(const step *s, fetch *ahead, float *y, int64_t ldy, int64_t left);

#define TILE(S, H, M, N)                                                                              \
    static void tile_##S##_##H##M##_##N(const step *s, fetch *ahead, float *y, int64_t ldy, int64_t left) \
    {                                                                                                 \
        run_tile(s, ahead, (shape){RAW_##S, H, M}, N, y, ldy, left);                                  \
    }
#define TILES(S, H, M)                                                                                \
    TILE(S, H, M, 1)                                                                                  \
    TILE(S, H, M, 2)                                                                                  \
    TILE(S, H, M, 3)                                                                                  \
    static const tile_fn fns_##S##_##H##M[TILE_ROWS] = {tile_##S##_##H##M##_1, tile_##S##_##H##M##_2, \
                                                        tile_##S##_##H##M##_3};
TILES(31, 0, 0)
TILES(31, 0, 1)
TILES(31, 1, 0)
TILES(31, 1, 1)
TILES(63, 1, 0)
TILES(255, 0, 0)
TILES(255, 1, 0)

static const tile_fn *fns_of(const raw_type *t)
{
    switch (t->size) {
    case RAW_255: return t->halves ? fns_255_10 : fns_255_00;
    case RAW_63: return fns_63_10;
    default:
        if (t->halves)
            return t->mins ? fns_31_11 : fns_31_10;
        return t->mins ? fns_31_01 : fns_31_00;
    }
}

ASH_MATMUL(ash_avx2_matmul_raw)
{
    raw_tile tile;
    raw_matrix m = raw_matrix_of(w);
    const tile_fn *fns = fns_of(m.type);
    int64_t row_tiles = (a->n + TILE_ROWS - 1) / TILE_ROWS, lds = a->ld / 32, nb = a->cols / 32;
    for (int64_t g = g0; g < g1; g++) {
        int64_t left = w->rows - g * ASH_GROUP;
        for (int64_t t = 0; t < m.tiles; t++) {
            int64_t b0 = t * TILE_BLOCKS;
            int blocks = (int)(nb - b0 < TILE_BLOCKS ? nb - b0 : TILE_BLOCKS);
            fetch ahead = fetch_tiles(w, g, 1, t, m.tiles, row_tiles);
            unpack_tile(&m, g, 1, t, &tile, &ahead);
            for (int64_t i = 0; i < row_tiles; i++) {
                int64_t row = a->n * i / row_tiles, n = a->n * (i + 1) / row_tiles - row;
                int64_t at = row * lds + b0;
                step s = {&tile,     blocks,     a->ld,      lds,          a->q + row * a->ld + b0 * 32,
                          a->d + at, a->ds + at, a->ns + at, m.type->zero, t == 0};
                fns[n - 1](&s, &ahead, y + row * ldy + g * ASH_GROUP, ldy, left);
            }
        }
    }
}
