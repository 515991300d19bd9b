/* Unpacking of the RAW form to bytes, scales and minima; whoever includes this has vf and defines vi, a
 * vector of LANES words, and its operations.
 *
 * A tile is 16 rows times up to 256 columns: w = scale * (q - zero) - min, the zero point and how many
 * columns share a scale being the type's. Every block type can be written so, exactly but for the roundings
 * of d times a sub-block's scale: codes become the bytes that they stand for, signs are applied, an eighth
 * in IQ1 is a unit. Quants lie as in form U8Z, ready to be multiplied. */
#ifndef ASHLEY_KERNEL_SIMD_RAW_INC_H
#define ASHLEY_KERNEL_SIMD_RAW_INC_H

#include "kernel/simd/fetch.h"
#include "kernel/simd/raw_block.inc.h"

enum { TILE_COLS = 256, TILE_BLOCKS = TILE_COLS / 32, PARTS = TILE_COLS / 4 };

typedef struct raw_tile {
    _Alignas(64) uint8_t q[PARTS][64]; /* byte 4 r + j of part p is column 4 p + j of row r */
    float scale[TILE_COLS / 16][ASH_GROUP]; /* of each 16 or 32 columns */
    float min[TILE_COLS / 16][ASH_GROUP];
} raw_tile;

/* ---- blocks of 32 --------------------------------------------------------------------------- */

INLINE void five_bits(raw_block b, int first, vi qh)
{
    UNROLL for (int p = 0; p < 4; p++)
    {
        vi v = word(b, first + p);
        put(b, p, vi_or(low_nibbles(v), vi_and(nibble_bits(qh, p), vi_set8(16))));
        put(b, p + 4, vi_or(high_nibbles(v), vi_and(nibble_bits(qh, p + 4), vi_set8(16))));
    }
}

static void unpack_q5_0(raw_block b)
{
    five_bits(b, 1, word(b, 0));
    put_scale(b, 0, vf_halves(b.e));
}

static void unpack_q5_1(raw_block b)
{
    five_bits(b, 2, word(b, 1));
    scales_q5_1(b);
}

/* Four words of nibbles that stand for bytes of a table. */
INLINE void coded_block(raw_block b, int first, int part, vi table)
{
    UNROLL for (int p = 0; p < 4; p++)
    {
        vi v = word(b, first + p);
        put(b, part + p, vi_lookup(table, low_nibbles(v)));
        put(b, part + p + 4, vi_lookup(table, high_nibbles(v)));
    }
}

static void unpack_iq4_nl(raw_block b)
{
    coded_block(b, 0, 0, table_iq4());
    put_scale(b, 0, vf_halves(b.e));
}

static void unpack_mxfp4(raw_block b)
{
    coded_block(b, 0, 0, table_fp4());
    scale_e8m0(b);
}

static void unpack_nvfp4(raw_block b)
{
    vi table = table_fp4();
    scales_nvfp4(b);
    UNROLL for (int k = 0; k < 4; k++)
    {
        UNROLL for (int j = 0; j < 2; j++)
        {
            vi v = word(b, 1 + 2 * k + j);
            put(b, 4 * k + j, vi_lookup(table, low_nibbles(v)));
            put(b, 4 * k + j + 2, vi_lookup(table, high_nibbles(v)));
        }
    }
}

static void unpack_q1_0(raw_block b)
{
    vf d = vf_halves(b.e);
    UNROLL for (int k = 0; k < 4; k++)
    {
        vi v = word(b, k);
        put_scale(b, k, d);
        UNROLL for (int p = 0; p < 8; p++) put(b, 8 * k + p, vi_and(nibble_bits(v, p), vi_set8(2)));
    }
}

static void unpack_q2_0(raw_block b)
{
    vf d = vf_halves(b.e);
    put_scale(b, 0, d);
    put_scale(b, 1, d);
    UNROLL for (int p = 0; p < 16; p++)
    {
        vi v = vi_spread(word(b, p / 4), p % 4);
        vi low = vi_bits(v, 0x40100401), high = vi_bits(v, (int)0x80200802);
        put(b, p, vi_or(vi_and(low, vi_set8(1)), vi_and(high, vi_set8(2))));
    }
}

/* ---- K types -------------------------------------------------------------------------------- */

static void unpack_q2_k(raw_block b)
{
    scales_q2(b);
    UNROLL for (int i = 0; i < 16; i++)
    {
        vi v = word(b, 4 + i);
        UNROLL for (int j = 0; j < 4; j++)
            put(b, i / 8 * 32 + j * 8 + i % 8, vi_and(vi_srl(v, 2 * j), vi_set8(3)));
    }
}

static void unpack_q3_k(raw_block b)
{
    scales_q3(b);
    UNROLL for (int i = 0; i < 8; i++)
    {
        vi high = word(b, i);
        UNROLL for (int k = 0; k < 8; k++)
        {
            vi v = vi_and(vi_srl(word(b, 8 + k / 4 * 8 + i), k % 4 * 2), vi_set8(3));
            vi bit = vi_and(k < 2 ? vi_sll(high, 2 - k) : vi_srl(high, k - 2), vi_set8(4));
            put(b, k * 8 + i, vi_or(v, bit));
        }
    }
}

static void unpack_q4_k(raw_block b)
{
    scales_k(b);
    UNROLL for (int k = 0; k < 4; k++)
    {
        UNROLL for (int i = 0; i < 8; i++)
        {
            vi v = word(b, 4 + 8 * k + i);
            put(b, 16 * k + i, low_nibbles(v));
            put(b, 16 * k + 8 + i, high_nibbles(v));
        }
    }
}

static void unpack_q5_k(raw_block b)
{
    const vi bit = vi_set8(16);
    scales_k(b);
    UNROLL for (int i = 0; i < 8; i++)
    {
        vi high = word(b, 4 + i);
        UNROLL for (int k = 0; k < 4; k++)
        {
            vi v = word(b, 12 + 8 * k + i);
            vi h0 = k < 2 ? vi_sll(high, 4 - 2 * k) : vi_srl(high, 2 * k - 4);
            vi h1 = k < 2 ? vi_sll(high, 3 - 2 * k) : vi_srl(high, 2 * k - 3);
            put(b, 16 * k + i, vi_or(low_nibbles(v), vi_and(h0, bit)));
            put(b, 16 * k + 8 + i, vi_or(high_nibbles(v), vi_and(h1, bit)));
        }
    }
}

static void unpack_q6_k(raw_block b)
{
    const vi pair = vi_set8(48);
    scales_q6(b);
    UNROLL for (int i = 0; i < 16; i++)
    {
        int part = i / 8 * 32 + i % 8, low = i / 8 * 16 + i % 8;
        vi a = word(b, low), c = word(b, low + 8), h = word(b, 32 + i);
        put(b, part, vi_or(low_nibbles(a), vi_and(vi_sll(h, 4), pair)));
        put(b, part + 8, vi_or(low_nibbles(c), vi_and(vi_sll(h, 2), pair)));
        put(b, part + 16, vi_or(high_nibbles(a), vi_and(h, pair)));
        put(b, part + 24, vi_or(high_nibbles(c), vi_and(vi_srl(h, 2), pair)));
    }
}

static void unpack_iq4_xs(raw_block b)
{
    vi table = table_iq4();
    scales_iq4(b);
    UNROLL for (int k = 0; k < 8; k++) coded_block(b, 2 + 4 * k, 8 * k, table);
}

/* ---- ternary -------------------------------------------------------------------------------- */

static void unpack_tq2_0(raw_block b)
{
    vf d = vf_halves(b.e);
    UNROLL for (int k = 0; k < 8; k++) put_scale(b, k, d);
    UNROLL for (int i = 0; i < 16; i++)
    {
        vi v = word(b, i);
        UNROLL for (int j = 0; j < 4; j++)
            put(b, i / 8 * 32 + j * 8 + i % 8, vi_and(vi_srl(v, 2 * j), vi_set8(3)));
    }
}

/* The next digit of every byte: the bytes times 3, what goes beyond a byte; what stays is the rest. */
INLINE vi next_digit(vi *v)
{
    const vi even = vi_set32(0x00ff00ff), odd = vi_set32((int)0xff00ff00);
    vi a = vi_and(*v, even), c = vi_and(vi_srl(*v, 8), even);
    a = vi_add32(a, vi_add32(a, a));
    c = vi_add32(c, vi_add32(c, c));
    *v = vi_or(vi_and(a, even), vi_sll(vi_and(c, even), 8));
    return vi_or(vi_and(vi_srl(a, 8), even), vi_and(c, odd));
}

static void unpack_tq1_0(raw_block b)
{
    vf d = vf_halves(b.e);
    for (int k = 0; k < 8; k++) put_scale(b, k, d);
    for (int i = 0; i < 13; i++) {
        vi v = word(b, i);
        int part = i < 8 ? i : i < 12 ? 40 + i - 8 : 60, step = i < 8 ? 8 : i < 12 ? 4 : 1;
        for (int k = 0; k < (i < 12 ? 5 : 4); k++) put(b, part + k * step, next_digit(&v));
    }
}

/* ---- types with a codebook ------------------------------------------------------------------ */

/* Four times seven signs of a word, from the lowest on, as bytes with the eighth sign: ash_even_signs. */
INLINE vi even_signs(vi s)
{
    vi p = vi_xor(s, vi_and(vi_srl(s, 4), vi_set8(15)));
    p = vi_xor(p, vi_srl(p, 2));
    p = vi_and(vi_xor(p, vi_srl(p, 1)), vi_set8(1));
    return vi_or(s, vi_sll(p, 7));
}

INLINE vi even_signs_of_28(vi w)
{
    vi s = vi_and(w, vi_set32(0x7f));
    s = vi_or(s, vi_and(vi_sll(w, 1), vi_set32(0x7f00)));
    s = vi_or(s, vi_and(vi_sll(w, 2), vi_set32(0x7f0000)));
    return even_signs(vi_or(s, vi_and(vi_sll(w, 3), vi_set32(0x7f000000))));
}

/* A part of magnitudes with the signs of nibble `at`, around 128. */
INLINE void put_signed(raw_block b, int part, vi v, vi signs, int at)
{
    vi m = nibble_bits(signs, at);
    put(b, part, vi_xor(vi_sub8(vi_xor(v, m), m), vi_set8(-128)));
}

/* Two parts from an entry of eight; signs are byte `at`. */
INLINE void put_entry(raw_block b, int part, const uint64_t *grid, vi index, vi signs, int at)
{
    put_signed(b, part, vi_gather((const uint8_t *)grid, index, 8), signs, 2 * at);
    put_signed(b, part + 1, vi_gather((const uint8_t *)grid + 4, index, 8), signs, 2 * at + 1);
}

/* d (s + 1/2) times a power of two */
INLINE vf half_more(vf d, vi s, float times)
{
    return vf_mul(vf_mul(d, vf_add(vi_to_f(s), vf_set(0.5f))), vf_set(times));
}

static void unpack_iq2_xxs(raw_block b)
{
    vf d = vf_halves(b.e);
    for (int k = 0; k < 8; k++) {
        vi q = word(b, 2 * k), s = word(b, 2 * k + 1), signs = even_signs_of_28(s);
        put_scale(b, k, half_more(d, vi_srl(s, 28), 0.25f));
        UNROLL for (int l = 0; l < 4; l++)
            put_entry(b, 8 * k + 2 * l, ash_grid_iq2_xxs, field(q, 8 * l, 8), signs, l);
    }
}

static void unpack_iq2_xs(raw_block b)
{
    vf d = vf_halves(b.e);
    for (int k = 0; k < 16; k++) {
        vi q = word(b, k), nibbles = vi_srl_by(word(b, 16 + k / 8), k % 8 * 4);
        vi signs = even_signs(vi_or(field(q, 9, 7), vi_sll(vi_srl(q, 25), 8)));
        put_scale(b, k, half_more(d, field(nibbles, 0, 4), 0.25f));
        put_entry(b, 4 * k, ash_grid_iq2_xs, field(q, 0, 9), signs, 0);
        put_entry(b, 4 * k + 2, ash_grid_iq2_xs, field(q, 16, 9), signs, 1);
    }
}

static void unpack_iq2_s(raw_block b)
{
    vf d = vf_halves(b.e);
    for (int k = 0; k < 8; k++) {
        vi q = word(b, k), signs = word(b, 8 + k);
        vi upper = vi_srl_by(word(b, 16 + k / 4), k % 4 * 8), s = vi_srl_by(word(b, 18 + k / 4), k % 4 * 8);
        put_scale(b, 2 * k, half_more(d, field(s, 0, 4), 0.25f));
        put_scale(b, 2 * k + 1, half_more(d, field(s, 4, 4), 0.25f));
        UNROLL for (int l = 0; l < 4; l++)
        {
            vi index = vi_or(field(q, 8 * l, 8), vi_sll(field(upper, 2 * l, 2), 8));
            put_entry(b, 8 * k + 2 * l, ash_grid_iq2_s, index, signs, l);
        }
    }
}

static void unpack_iq3_xxs(raw_block b)
{
    vf d = vf_halves(b.e);
    for (int k = 0; k < 8; k++) {
        vi s = word(b, 16 + k), signs = even_signs_of_28(s);
        put_scale(b, k, half_more(d, vi_srl(s, 28), 0.5f));
        UNROLL for (int l = 0; l < 8; l++)
        {
            vi index = field(word(b, 2 * k + l / 4), l % 4 * 8, 8);
            put_signed(b, 8 * k + l, vi_gather((const uint8_t *)ash_grid_iq3_xxs, index, 4), signs, l);
        }
    }
}

static void unpack_iq3_s(raw_block b)
{
    vf d = vf_halves(b.e);
    for (int k = 0; k < 8; k++) {
        vi signs = word(b, 18 + k), upper = vi_srl_by(word(b, 16 + k / 4), k % 4 * 8);
        vi s = field(vi_srl_by(word(b, 26), 4 * k), 0, 4);
        put_scale(b, k, vf_mul(d, vi_to_f(vi_add32(vi_add32(s, s), vi_set32(1)))));
        UNROLL for (int l = 0; l < 8; l++)
        {
            vi index = vi_or(field(word(b, 2 * k + l / 4), l % 4 * 8, 8), vi_sll(field(upper, l, 1), 8));
            put_signed(b, 8 * k + l, vi_gather((const uint8_t *)ash_grid_iq3_s, index, 4), signs, l);
        }
    }
}

/* An entry of thirds times 8, one more or less as bit `at` of h says, around 9. */
INLINE void put_shifted(raw_block b, int part, vi index, vi h, int at)
{
    vi up = vi_andnot(vi_sra(vi_sll(h, 31 - at), 31), vi_set8(2));
    vi v = vi_gather((const uint8_t *)ash_grid_iq1, index, 8);
    put(b, part, vi_add8(vi_sll(v, 3), up));
    v = vi_gather((const uint8_t *)ash_grid_iq1 + 4, index, 8);
    put(b, part + 1, vi_add8(vi_sll(v, 3), up));
}

/* d (2 s + 1) / 8 */
INLINE vf odd_eighths(vf d, vi s)
{
    return vf_mul(d, vf_fma(vi_to_f(s), vf_set(0.25f), vf_set(0.125f)));
}

static void unpack_iq1_s(raw_block b)
{
    vf d = vf_halves(b.e);
    for (int k = 0; k < 8; k++) {
        vi q = word(b, k), h = vi_srl_by(word(b, 8 + k / 2), k % 2 * 16);
        put_scale(b, k, odd_eighths(d, field(h, 12, 3)));
        UNROLL for (int l = 0; l < 4; l++)
        {
            vi index = vi_or(field(q, 8 * l, 8), vi_sll(field(h, 3 * l, 3), 8));
            put_shifted(b, 8 * k + 2 * l, index, h, 15);
        }
    }
}

static void unpack_iq1_m(raw_block b)
{
    vi a = word(b, 12), c = word(b, 13); /* four words of 16 bits, their upper nibbles are d */
    vi half = vi_or(field(a, 12, 4), vi_sll(field(a, 28, 4), 4));
    half = vi_or(half, vi_or(vi_sll(field(c, 12, 4), 8), vi_sll(field(c, 28, 4), 12)));
    vf d = vi_low_halves(half);
    for (int k = 0; k < 8; k++) {
        vi q = word(b, k), h = vi_srl_by(word(b, 8 + k / 2), k % 2 * 16);
        vi s = vi_srl_by(k < 4 ? a : c, k % 4 / 2 * 16 + k % 2 * 6);
        put_scale(b, 2 * k, odd_eighths(d, field(s, 0, 3)));
        put_scale(b, 2 * k + 1, odd_eighths(d, field(s, 3, 3)));
        UNROLL for (int l = 0; l < 4; l++)
        {
            vi index = vi_or(field(q, 8 * l, 8), vi_sll(field(h, 4 * l, 3), 8));
            put_shifted(b, 8 * k + 2 * l, index, h, 4 * l + 3);
        }
    }
}

/* ---- all of them ---------------------------------------------------------------------------- */

/* How large bytes of a tile are: what sums of 16 bits can hold. */
typedef enum raw_size {
    RAW_31,  /* at most 31 */
    RAW_63,  /* at most 63 */
    RAW_255, /* any, around 128 */
} raw_size;

typedef struct raw_type {
    void (*unpack)(raw_block b);
    raw_size size;
    uint8_t zero;
    bool halves; /* 16 columns to a scale, not 32 */
    bool mins;
} raw_type;

static const raw_type raw_types[] = {
    [ASH_DTYPE_Q5_0] = {unpack_q5_0, RAW_31, 16, false, false},
    [ASH_DTYPE_Q5_1] = {unpack_q5_1, RAW_31, 0, false, true},
    [ASH_DTYPE_Q2_K] = {unpack_q2_k, RAW_31, 0, true, true},
    [ASH_DTYPE_Q3_K] = {unpack_q3_k, RAW_31, 4, true, false},
    [ASH_DTYPE_Q4_K] = {unpack_q4_k, RAW_31, 0, false, true},
    [ASH_DTYPE_Q5_K] = {unpack_q5_k, RAW_31, 0, false, true},
    [ASH_DTYPE_Q6_K] = {unpack_q6_k, RAW_63, 32, true, false},
    [ASH_DTYPE_IQ1_S] = {unpack_iq1_s, RAW_31, 9, false, false},
    [ASH_DTYPE_IQ1_M] = {unpack_iq1_m, RAW_31, 9, true, false},
    [ASH_DTYPE_IQ2_XXS] = {unpack_iq2_xxs, RAW_255, 128, false, false},
    [ASH_DTYPE_IQ2_XS] = {unpack_iq2_xs, RAW_255, 128, true, false},
    [ASH_DTYPE_IQ2_S] = {unpack_iq2_s, RAW_255, 128, true, false},
    [ASH_DTYPE_IQ3_XXS] = {unpack_iq3_xxs, RAW_255, 128, false, false},
    [ASH_DTYPE_IQ3_S] = {unpack_iq3_s, RAW_255, 128, false, false},
    [ASH_DTYPE_IQ4_NL] = {unpack_iq4_nl, RAW_255, 128, false, false},
    [ASH_DTYPE_IQ4_XS] = {unpack_iq4_xs, RAW_255, 128, false, false},
    [ASH_DTYPE_MXFP4] = {unpack_mxfp4, RAW_31, 12, false, false},
    [ASH_DTYPE_NVFP4] = {unpack_nvfp4, RAW_31, 12, true, false},
    [ASH_DTYPE_TQ1_0] = {unpack_tq1_0, RAW_31, 1, false, false},
    [ASH_DTYPE_TQ2_0] = {unpack_tq2_0, RAW_31, 1, false, false},
    [ASH_DTYPE_Q1_0] = {unpack_q1_0, RAW_31, 1, false, false},
    [ASH_DTYPE_Q2_0] = {unpack_q2_0, RAW_31, 1, false, false},
};

/* A matrix as unpacking sees it. */
typedef struct raw_matrix {
    const raw_type *type;
    void (*unpack)(raw_block b); /* the type's */
    ash_raw_layout l;
    int cols, per_tile; /* of a block; blocks of a tile */
    int64_t blocks, tiles, group_bytes;
    const uint8_t *data;
} raw_matrix;

static raw_matrix raw_matrix_of(const ash_packed *w)
{
    int cols = (int)ash_dtype_get(w->dtype)->block, per_tile = TILE_COLS / cols;
    int64_t blocks = w->cols / cols;
    const raw_type *type = &raw_types[w->dtype];
    return (raw_matrix){type, type->unpack, ash_raw_layout_of(w->dtype), cols, per_tile, blocks,
                        (blocks + per_tile - 1) / per_tile, w->group_bytes, w->data};
}

/* What fetches the next groups' tiles from t on, in a step for each 32 columns of `runs` runs over a tile and
 * of its unpacking. */
INLINE fetch fetch_tiles(const ash_packed *w, int64_t g, int groups, int64_t t, int64_t tiles, int64_t runs)
{
    return fetch_start(w, g, groups, t, tiles, TILE_BLOCKS * (runs + 1));
}

/* Tile t of group g, one of `groups`. */
static void unpack_tile(const raw_matrix *m, int64_t g, int groups, int64_t t, raw_tile *to, fetch *ahead)
{
    const uint8_t *group = m->data + g * m->group_bytes, *edges = group + m->blocks * m->l.words * 64;
    int64_t b0 = t * m->per_tile, b1 = b0 + m->per_tile < m->blocks ? b0 + m->per_tile : m->blocks;
    int scales = m->cols / (m->type->halves ? 16 : 32);
    for (int i = 0; i < TILE_BLOCKS / groups; i++) fetch_more(ahead);
    for (int64_t b = b0; b < b1; b++) {
        int64_t i = b - b0;
        for (int r = 0; r < ASH_GROUP; r += LANES) {
            raw_block block = {group + b * m->l.words * 64 + 4 * r,
                               edges + (b * ASH_GROUP + r) * m->l.edge,
                               to->q[i * m->cols / 4] + 4 * r,
                               &to->scale[i * scales][r],
                               &to->min[i * scales][r]};
            m->unpack(block);
        }
    }
}

#endif
