/* Owns the AVX-512 way of gathering GPTQ's bits. Any thread. */
#include "kernel/x86/avx512.h"

typedef __m512i vec;
enum { VEC_BYTES = 64 };

INLINE vec vec_load(const uint8_t *p) { return _mm512_loadu_si512(p); }
INLINE vec vec_set(uint32_t v) { return _mm512_set1_epi32((int32_t)v); }
INLINE vec vec_add(vec sum, vec v, vec rotate, vec mask)
{
    return _mm512_ternarylogic_epi32(sum, _mm512_rolv_epi32(v, rotate), mask, 0xF8); /* sum | v & mask */
}
INLINE void vec_store(uint8_t *p, vec v) { _mm512_stream_si512((void *)p, v); }
INLINE void vec_done(void) { _mm_sfence(); }

#define PACK_BITS ash_avx512_pack_bits
#include "kernel/pack_bits.inc.h"
