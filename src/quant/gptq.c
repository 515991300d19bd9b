/* Owns the reading of GPTQ's integers. Trusts the sizes of an ash_gptq, which its maker has checked.
 * Any thread. */
#include "quant/gptq.h"

#include "quant/half.h"

static uint32_t word_at(const uint8_t *p, int64_t i)
{
    p += i * 4;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Field i of words `stride` words apart, with `add` added to every word: fields follow each other from
 * the lowest bit of the first word on, those of 3 bits across the ends of words too. */
static inline uint32_t field(const uint8_t *p, int64_t stride, int bits, int64_t i, uint32_t add)
{
    int64_t word = i * bits / 32;
    int at = (int)(i * bits % 32);
    uint32_t v = (word_at(p, word * stride) + add) >> at;
    if (at + bits > 32)
        v |= (word_at(p, (word + 1) * stride) + add) << (32 - at);
    return v & ((1u << bits) - 1);
}

static inline void zeros_of_bits(const uint8_t *p, int bits, bool v2, int64_t first, int64_t n,
                                 uint8_t *zeros)
{
    uint32_t ones = bits == 2 ? 0x55555555 : bits == 4 ? 0x11111111 : 0x01010101;
    for (int64_t i = 0; i < n; i++) {
        if (bits == 3)
            zeros[i] = (field(p, 1, 3, first + i, 0) + !v2) & 7;
        else
            zeros[i] = (uint8_t)field(p, 1, bits, first + i, v2 ? 0 : ones);
    }
}

void ash_gptq_zeros(const ash_gptq *q, int64_t group, int64_t first, int64_t n, uint8_t *zeros)
{
    const uint8_t *p = q->qzeros + group * (q->out * q->bits / 32) * 4;
    switch (q->bits) {
    case 2: zeros_of_bits(p, 2, q->v2, first, n, zeros); break;
    case 3: zeros_of_bits(p, 3, q->v2, first, n, zeros); break;
    case 4: zeros_of_bits(p, 4, q->v2, first, n, zeros); break;
    default: zeros_of_bits(p, 8, q->v2, first, n, zeros);
    }
}

void ash_gptq_scales(const ash_gptq *q, int64_t group, int64_t first, int64_t n, float *scales)
{
    int64_t at = group * q->out + first;
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *half = q->scales + (at + i) * 2;
        uint16_t h = q->scale_type == ASH_DTYPE_F32 ? 0 : (uint16_t)(half[0] | half[1] << 8);
        scales[i] = q->scale_type == ASH_DTYPE_F16    ? ash_f16_to_f32(h)
                    : q->scale_type == ASH_DTYPE_BF16 ? ash_bf16_to_f32(h)
                                                      : ash_f32_from_bits(word_at(q->scales, at + i));
    }
}

int64_t ash_gptq_group(const ash_gptq *q, int64_t input)
{
    return q->group_of ? q->group_of[input] : input / (q->in / q->groups);
}

int ash_gptq_quant(const ash_gptq *q, int64_t out, int64_t input)
{
    return (int)field(q->qweight + out * 4, q->out, q->bits, input, 0);
}

void ash_gptq_row(const ash_gptq *q, int64_t row, float *y)
{
    for (int64_t i = 0; i < q->in; i++) {
        int64_t g = ash_gptq_group(q, i);
        uint8_t zero;
        float scale;
        ash_gptq_zeros(q, g, row, 1, &zero);
        ash_gptq_scales(q, g, row, 1, &scale);
        y[i] = (float)(ash_gptq_quant(q, row, i) - zero) * scale;
    }
}

/* Words of the period of a constant field: 3 for 3 bits, else alike. */
static bool all_fields(const ash_gptq *q, uint32_t value)
{
    uint32_t period[3] = {0, 0, 0};
    for (int i = 0; i * q->bits < 96; i++) {
        int at = i * q->bits % 32;
        period[i * q->bits / 32] |= value << at;
        if (at + q->bits > 32)
            period[i * q->bits / 32 + 1] |= value >> (32 - at);
    }
    int64_t n = q->out * q->bits / 32; /* of a group; a multiple of 3 for 3 bits */
    for (int64_t i = 0; i < q->groups * n; i++)
        if (word_at(q->qzeros, i) != period[i % n % 3])
            return false;
    return true;
}

int ash_gptq_version(const ash_gptq *q)
{
    uint32_t zero = 1u << (q->bits - 1);
    return all_fields(q, zero - 1) ? 1 : all_fields(q, zero) ? 2 : 0;
}
