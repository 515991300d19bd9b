/* Eight-bit floats E4M3FN (Micikevicius et al. 2022, "FP8 formats for deep learning"; torch.float8_e4m3fn):
 * a sign, 4 bits of exponent with bias 7, 3 of mantissa; no infinities, 0x7f and 0xff are NaN; 448 is the
 * largest. */
#ifndef ASHLEY_QUANT_FP8_H
#define ASHLEY_QUANT_FP8_H

#include "quant/half.h"

/* Exact. */
static inline float ash_fp8_to_f32(uint8_t v)
{
    uint32_t sign = (uint32_t)(v & 0x80) << 24, rest = v & 0x7f;
    if (rest == 0x7f)
        return ash_f32_from_bits(sign | 0x7fc00000);
    float f = rest < 8 ? (float)rest * 0x1p-9f : ash_f32_from_bits((rest << 20) + (120u << 23));
    return sign ? -f : f;
}

#endif
