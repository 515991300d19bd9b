/* One block of the RAW form as 8 or 16 rows of it lie in memory, and the scales of several types; for the
 * files that define vi, a vector of LANES words, and its operations. */
#ifndef ASHLEY_KERNEL_SIMD_RAW_BLOCK_INC_H
#define ASHLEY_KERNEL_SIMD_RAW_BLOCK_INC_H

#include "kernel/pack_raw.h"
#include "quant/grids.h"

/* One block of LANES rows: words 64 bytes apart, edges; where its part of a tile begins. Passed by value, so
 * that stores to bytes do not make the compiler read its pointers again. */
typedef struct raw_block {
    const uint8_t *w, *e;
    uint8_t *q;
    float *scale, *min;
} raw_block;

INLINE vi word(raw_block b, int i)
{
    return vi_load(b.w + i * 64);
}

INLINE void put(raw_block b, int part, vi v)
{
    vi_store(b.q + part * 64, v);
}

INLINE void put_scale(raw_block b, int k, vf v)
{
    vf_store(b.scale + k * ASH_GROUP, v);
}

INLINE void put_min(raw_block b, int k, vf v)
{
    vf_store(b.min + k * ASH_GROUP, v);
}

/* Nibble p of each word as four bytes of 0 or all ones. */
INLINE vi nibble_bits(vi v, int p)
{
    return vi_bits(vi_spread(v, p / 2), p % 2 ? (int)0x80402010 : 0x08040201);
}

INLINE vi low_nibbles(vi v)
{
    return vi_and(v, vi_set8(15));
}

INLINE vi high_nibbles(vi v)
{
    return vi_and(vi_srl(v, 4), vi_set8(15));
}

/* Bits [at, at + n) of each word. */
INLINE vi field(vi v, int at, int n)
{
    return vi_and(vi_srl(v, at), vi_set32((1 << n) - 1));
}

INLINE vf field_f(vi v, int at, int n)
{
    return vi_to_f(field(v, at, n));
}

/* scale[k0 + k] = d times byte k of v, k < 4. */
INLINE void put_four(float *to, vi v, vf d)
{
    UNROLL for (int k = 0; k < 4; k++) vf_store(to + k * ASH_GROUP, vf_mul(d, field_f(v, 8 * k, 8)));
}

/* What the codes of IQ4_NL and IQ4_XS stand for around 128, and those of MXFP4 and NVFP4 around 12. */
INLINE vi table_iq4(void)
{
    return vi_xor(vi_table(ash_values_iq4), vi_set8(-128));
}

INLINE vi table_fp4(void)
{
    return vi_add8(vi_table(ash_values_fp4), vi_set8(12));
}

/* The scale of MXFP4: ash_e8m0_half. */
INLINE void scale_e8m0(raw_block b)
{
    vi e = vi_bytes(b.e), f = vi_sll(vi_sub32(e, vi_set32(1)), 23);
    f = vi_where_equal(e, 0, vi_set32(0x00200000), f);
    put_scale(b, 0, vi_as_f(vi_where_equal(e, 1, vi_set32(0x00400000), f)));
}

/* The 4 scales of NVFP4: ash_ue4m3_half. */
INLINE void scales_nvfp4(raw_block b)
{
    vi head = word(b, 0);
    UNROLL for (int k = 0; k < 4; k++)
    {
        vi s = field(head, 8 * k, 8), f = vi_sll(vi_and(s, vi_set32(127)), 20);
        put_scale(b, k, vf_mul(vi_as_f(vi_where_equal(s, 127, vi_set32(0), f)), vf_set(0x1p119f)));
    }
}

INLINE void scales_q5_1(raw_block b)
{
    vi head = word(b, 0);
    put_scale(b, 0, vi_low_halves(head));
    put_min(b, 0, vf_sub(vf_zero(), vi_low_halves(vi_srl(head, 16))));
}

/* The 16 scales and minima of Q2_K. */
INLINE void scales_q2(raw_block b)
{
    vi head = word(b, 20);
    vf d = vi_low_halves(head), m = vi_low_halves(vi_srl(head, 16));
    UNROLL for (int i = 0; i < 4; i++)
    {
        vi s = word(b, i);
        put_four(b.scale + i * 4 * ASH_GROUP, low_nibbles(s), d);
        put_four(b.min + i * 4 * ASH_GROUP, high_nibbles(s), m);
    }
}

/* The 16 scales of Q3_K. */
INLINE void scales_q3(raw_block b)
{
    vf d = vf_halves(b.e);
    vi low[2] = {word(b, 24), word(b, 25)}, upper = word(b, 26);
    UNROLL for (int k = 0; k < 4; k++)
    {
        vi four = k < 2 ? low_nibbles(low[k]) : high_nibbles(low[k - 2]);
        four = vi_or(four, vi_sll(vi_and(vi_srl(upper, 2 * k), vi_set8(3)), 4));
        UNROLL for (int j = 0; j < 4; j++)
            put_scale(b, 4 * k + j, vf_mul(d, vf_sub(field_f(four, 8 * j, 8), vf_set(32))));
    }
}

/* The 8 scales of IQ4_XS. */
INLINE void scales_iq4(raw_block b)
{
    vi head = word(b, 0), low = word(b, 1);
    vf d = vi_low_halves(head);
    UNROLL for (int k = 0; k < 8; k++)
    {
        vi s = vi_or(field(low, 4 * k, 4), vi_sll(field(head, 16 + 2 * k, 2), 4));
        put_scale(b, k, vf_mul(d, vf_sub(vi_to_f(s), vf_set(32))));
    }
}

/* The 8 scales and minima of Q4_K and Q5_K. */
INLINE void scales_k(raw_block b)
{
    vi head = word(b, 0), s = word(b, 1), m = word(b, 2), sm = word(b, 3), six = vi_set8(63);
    vf d = vi_low_halves(head), dm = vi_low_halves(vi_srl(head, 16));
    vi pair = vi_set8(48);
    put_four(b.scale, vi_and(s, six), d);
    put_four(b.scale + 4 * ASH_GROUP, vi_or(low_nibbles(sm), vi_and(vi_srl(s, 2), pair)), d);
    put_four(b.min, vi_and(m, six), dm);
    put_four(b.min + 4 * ASH_GROUP, vi_or(high_nibbles(sm), vi_and(vi_srl(m, 2), pair)), dm);
}

/* The 16 scales of Q6_K. */
INLINE void scales_q6(raw_block b)
{
    vf d = vf_halves(b.e);
    UNROLL for (int k = 0; k < 16; k++)
        put_scale(b, k, vf_mul(d, vi_to_f(vi_sra(vi_sll(word(b, 48 + k / 4), 24 - k % 4 * 8), 24))));
}

#endif
