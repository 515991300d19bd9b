/* Vectors of 16 words under the names that the *.inc.h of the RAW form use (matmul_raw_avx2.c has the same
 * of 8). */
#ifndef ASHLEY_KERNEL_X86_RAW_AVX512_H
#define ASHLEY_KERNEL_X86_RAW_AVX512_H

#include "kernel/x86/avx512.h"

typedef __m512i vi;

INLINE vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE void vi_store(void *p, vi v) { _mm512_store_si512(p, v); }
INLINE vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
INLINE vi vi_andnot(vi a, vi b) { return _mm512_andnot_si512(a, b); } /* ~a & b */
INLINE vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
INLINE vi vi_xor(vi a, vi b) { return _mm512_xor_si512(a, b); }
INLINE vi vi_srl(vi a, int n) { return _mm512_srli_epi32(a, (unsigned)n); }
INLINE vi vi_sra(vi a, int n) { return _mm512_srai_epi32(a, (unsigned)n); }
INLINE vi vi_sll(vi a, int n) { return _mm512_slli_epi32(a, (unsigned)n); }
INLINE vi vi_srl_by(vi a, int n) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(n)); } /* no constant */
INLINE vi vi_set8(int x) { return _mm512_set1_epi8((char)x); }
INLINE vi vi_set32(int x) { return _mm512_set1_epi32(x); }
INLINE vi vi_add8(vi a, vi b) { return _mm512_add_epi8(a, b); }
INLINE vi vi_sub8(vi a, vi b) { return _mm512_sub_epi8(a, b); }
INLINE vi vi_add32(vi a, vi b) { return _mm512_add_epi32(a, b); }
INLINE vi vi_sub32(vi a, vi b) { return _mm512_sub_epi32(a, b); }
INLINE vf vi_to_f(vi a) { return _mm512_cvtepi32_ps(a); }
INLINE vf vi_as_f(vi a) { return _mm512_castsi512_ps(a); }
INLINE vi vi_lookup(vi table, vi index) { return _mm512_shuffle_epi8(table, index); }

INLINE vi vi_table(const int8_t p[16])
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p));
}

INLINE vi vi_bytes(const uint8_t *p) /* one to a word */
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

/* The half floats in the lower halves of words. */
INLINE vf vi_low_halves(vi a)
{
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a));
}

/* Byte k of each word in all four. */
INLINE vi vi_spread(vi a, int k)
{
    const vi base = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
    return _mm512_shuffle_epi8(a, vi_add8(base, vi_set8(k)));
}

/* All ones in bytes that have the bit that `mask` has there. */
INLINE vi vi_bits(vi a, int mask)
{
    return _mm512_movm_epi8(_mm512_test_epi8_mask(a, vi_set32(mask)));
}

/* x where a word of a equals n, else y. */
INLINE vi vi_where_equal(vi a, int n, vi x, vi y)
{
    return _mm512_mask_mov_epi32(y, _mm512_cmpeq_epi32_mask(a, vi_set32(n)), x);
}

/* to [32] = the sums of the first and last 16 of 16 blocks (ash_act.hs) times `zero`, in turn; upper is zero
 * in the upper halves. to is 64-byte aligned. */
INLINE void store_starts(vi sums, vi zero, vi upper, int32_t *to)
{
    const vi low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    vi first = _mm512_madd_epi16(sums, zero), last = _mm512_madd_epi16(sums, upper);
    vi_store(to, _mm512_permutex2var_epi32(first, low, last));
    vi_store(to + LANES, _mm512_permutex2var_epi32(first, vi_add32(low, vi_set32(8)), last));
}

#define vi_gather(base, index, size) _mm512_i32gather_epi32(index, base, size)

#endif
