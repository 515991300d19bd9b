/* Owns the loops that show how many products of bytes and of bfloat16 an Arm core can do at most, everything
 * in registers; compiled for each ISA. */
#include "kernel/arm/neon.h"

enum { CHAINS = 16 };

double NAME(peak_int8)(long rounds)
{
    int32x4_t a[CHAINS];
    int8x16_t x = vdupq_n_s8(3), y = vdupq_n_s8(1);
    UNROLL for (int i = 0; i < CHAINS; i++)
    {
        a[i] = vdupq_n_s32(0);
        __asm__ volatile("" : "+w"(a[i])); /* else equal chains are one chain */
    }
    for (long r = 0; r < rounds; r++) {
        UNROLL for (int i = 0; i < CHAINS; i++)
        {
#if defined(__ARM_FEATURE_MATMUL_INT8)
            a[i] = vmmlaq_s32(a[i], x, y);
#elif defined(__ARM_FEATURE_DOTPROD)
            a[i] = vdotq_s32(a[i], x, y);
#else
            int16x8_t sum = vreinterpretq_s16_s32(a[i]);
            a[i] = vreinterpretq_s32_s16(vmlal_s8(sum, vget_low_s8(x), vget_low_s8(y)));
#endif
        }
        __asm__ volatile("" : "+w"(x), "+w"(y));
    }
    UNROLL for (int i = 0; i < CHAINS; i++) __asm__ volatile("" ::"w"(a[i]));
#if defined(__ARM_FEATURE_MATMUL_INT8)
    return (double)rounds * CHAINS * 64;
#elif defined(__ARM_FEATURE_DOTPROD)
    return (double)rounds * CHAINS * 32;
#else
    return (double)rounds * CHAINS * 16;
#endif
}

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
double NAME(peak_bf16)(long rounds)
{
    vf a[CHAINS];
    uint32x4_t x = vdupq_n_u32(0), y = x;
    UNROLL for (int i = 0; i < CHAINS; i++)
    {
        a[i] = vf_zero();
        __asm__ volatile("" : "+w"(a[i]));
    }
    for (long r = 0; r < rounds; r++) {
        UNROLL for (int i = 0; i < CHAINS; i++)
            a[i] = vbfdotq_f32(a[i], vreinterpretq_bf16_u32(x), vreinterpretq_bf16_u32(y));
        __asm__ volatile("" : "+w"(x), "+w"(y));
    }
    UNROLL for (int i = 0; i < CHAINS; i++) __asm__ volatile("" ::"w"(a[i]));
    return (double)rounds * CHAINS * 16;
}
#endif
