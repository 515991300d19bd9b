/* Owns the Arm way of gathering GPTQ's bits. Any thread. */
#include "kernel/arm/neon.h"

typedef uint32x4_t vec;
enum { VEC_BYTES = 16 };

INLINE vec vec_load(const uint8_t *p) { return vreinterpretq_u32_u8(vld1q_u8(p)); }
INLINE vec vec_set(uint32_t v) { return vdupq_n_u32(v); }
INLINE vec vec_add(vec sum, vec v, vec rotate, vec mask)
{
    int32x4_t left = vreinterpretq_s32_u32(rotate), right = vsubq_s32(left, vdupq_n_s32(32));
    v = vorrq_u32(vshlq_u32(v, left), vshlq_u32(v, right)); /* less than 0 is to the right, -32 gives 0 */
    return vorrq_u32(sum, vandq_u32(v, mask));
}
INLINE void vec_store(uint8_t *p, vec v) { vst1q_u8(p, vreinterpretq_u8_u32(v)); }
INLINE void vec_done(void) {}

#define PACK_BITS ash_neon_pack_bits
#include "kernel/pack_bits.inc.h"
