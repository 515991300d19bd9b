/* Owns the AVX2 way of gathering GPTQ's bits. Any thread. */
#include "kernel/x86/avx2.h"

typedef __m256i vec;
enum { VEC_BYTES = 32 };

INLINE vec vec_load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE vec vec_set(uint32_t v) { return _mm256_set1_epi32((int32_t)v); }
INLINE vec vec_add(vec sum, vec v, vec rotate, vec mask)
{
    vec rest = _mm256_sub_epi32(_mm256_set1_epi32(32), rotate);
    v = _mm256_or_si256(_mm256_sllv_epi32(v, rotate), _mm256_srlv_epi32(v, rest));
    return _mm256_or_si256(sum, _mm256_and_si256(v, mask));
}
INLINE void vec_store(uint8_t *p, vec v) { _mm256_stream_si256((__m256i *)p, v); }
INLINE void vec_done(void) { _mm_sfence(); }

#define PACK_BITS ash_avx2_pack_bits
#include "kernel/pack_bits.inc.h"
