/* One block of the RAW form as 8 or 16 rows of it lie in memory, and the scales of the K types; for the files
 * that define vi, a vector of LANES words, and its operations. */
#ifndef ASHLEY_KERNEL_SIMD_RAW_BLOCK_INC_H
#define ASHLEY_KERNEL_SIMD_RAW_BLOCK_INC_H

#include "kernel/pack_raw.h"

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
