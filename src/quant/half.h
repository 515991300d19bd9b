/* Half and brain floats in plain C: exact widening, rounding to nearest even on narrowing. Any thread.
 * IEEE 754-2019 binary16; bfloat16 is the upper half of binary32. */
#ifndef ASHLEY_QUANT_HALF_H
#define ASHLEY_QUANT_HALF_H

#include <stdint.h>
#include <string.h>

static inline float ash_f32_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint32_t ash_f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* Exact for every value, subnormals and infinities included; a NaN stays a NaN with its payload. */
static inline float ash_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 1023;
    if (exp == 0) {
        float f = (float)man * 0x1p-24f; /* exact: 10 bits */
        return sign ? -f : f;
    }
    if (exp == 31)
        return ash_f32_from_bits(sign | 0x7f800000 | man << 13);
    return ash_f32_from_bits(sign | (exp + 112) << 23 | man << 13);
}

/* Nearest even; beyond 65519 becomes infinity; NaN becomes a quiet NaN. */
static inline uint16_t ash_f16_from_f32(float f)
{
    uint32_t u = ash_f32_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000)
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000) { /* subnormal: let the addition round at 2^-24 */
        float t = ash_f32_from_bits(a) + 0.5f;
        return (uint16_t)(sign | (ash_f32_bits(t) - 0x3f000000));
    }
    uint32_t odd = a >> 13 & 1;
    return (uint16_t)(sign | ((a + 0xfff + odd - (112u << 23)) >> 13));
}

static inline float ash_bf16_to_f32(uint16_t h)
{
    return ash_f32_from_bits((uint32_t)h << 16);
}

/* Nearest even; NaN stays a quiet NaN. */
static inline uint16_t ash_bf16_from_f32(float f)
{
    uint32_t u = ash_f32_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 64);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* Scales of 4-bit floats, halved because their values are stored doubled. OCP Microscaling 1.0: E8M0 is
 * 2^(e - 127); here 255, which should be NaN, is 2^127 as in ggml. */
static inline float ash_e8m0_half(uint8_t e)
{
    return ash_f32_from_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

/* Unsigned E4M3 with bias 7, halved; the sign bit is not looked at, but 0x7f (NaN) is 0, as in ggml. */
static inline float ash_ue4m3_half(uint8_t v)
{
    int exp = v >> 3 & 15, man = v & 7;
    if (v == 0x7f)
        return 0;
    if (exp == 0)
        return (float)man * 0x1p-10f;
    return ash_f32_from_bits((uint32_t)(exp + 119) << 23 | (uint32_t)man << 20);
}

#endif
