/* Owns the decoding of floats and of the blocks of 32 with a scale each. Any thread. */
#include <string.h>

#include "quant/blocks.h"
#include "quant/decode_impl.h"
#include "quant/fp8.h"

ASH_DECODE(f64)
{
    for (int64_t i = 0; i < n; i++) {
        double v;
        memcpy(&v, p + 8 * i, sizeof v);
        y[i] = (float)v; /* to the nearest, beyond the largest to infinity */
    }
}

ASH_DECODE(f32)
{
    memcpy(y, p, (size_t)n * sizeof *y);
}

ASH_DECODE(f16)
{
    for (int64_t i = 0; i < n; i++) y[i] = ash_f16_to_f32(ash_le16(p + 2 * i));
}

ASH_DECODE(bf16)
{
    for (int64_t i = 0; i < n; i++) y[i] = ash_bf16_to_f32(ash_le16(p + 2 * i));
}

ASH_DECODE(f8_e4m3)
{
    for (int64_t i = 0; i < n; i++) y[i] = ash_fp8_to_f32(p[i]);
}

ASH_DECODE(q4_0)
{
    const ash_block_q4_0 *b = (const void *)p;
    for (int64_t i = 0; i < n; i += ASH_QK, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        for (int j = 0; j < ASH_QK / 2; j++) {
            y[i + j] = (float)((b->qs[j] & 15) - 8) * d;
            y[i + j + ASH_QK / 2] = (float)((b->qs[j] >> 4) - 8) * d;
        }
    }
}

ASH_DECODE(q4_1)
{
    const ash_block_q4_1 *b = (const void *)p;
    for (int64_t i = 0; i < n; i += ASH_QK, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d)), m = ash_f16_to_f32(ash_le16(b->m));
        for (int j = 0; j < ASH_QK / 2; j++) {
            y[i + j] = (float)(b->qs[j] & 15) * d + m;
            y[i + j + ASH_QK / 2] = (float)(b->qs[j] >> 4) * d + m;
        }
    }
}

/* Element i of 32 with nibbles in qs and fifth bits in qh. */
static int five(const uint8_t *qs, uint32_t qh, int i)
{
    int low = i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
    return low | (int)(qh >> i & 1) << 4;
}

ASH_DECODE(q5_0)
{
    const ash_block_q5_0 *b = (const void *)p;
    for (int64_t i = 0; i < n; i += ASH_QK, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        uint32_t qh = ash_le32(b->qh);
        for (int j = 0; j < ASH_QK; j++) y[i + j] = (float)(five(b->qs, qh, j) - 16) * d;
    }
}

ASH_DECODE(q5_1)
{
    const ash_block_q5_1 *b = (const void *)p;
    for (int64_t i = 0; i < n; i += ASH_QK, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d)), m = ash_f16_to_f32(ash_le16(b->m));
        uint32_t qh = ash_le32(b->qh);
        for (int j = 0; j < ASH_QK; j++) y[i + j] = (float)five(b->qs, qh, j) * d + m;
    }
}

ASH_DECODE(q8_0)
{
    const ash_block_q8_0 *b = (const void *)p;
    for (int64_t i = 0; i < n; i += ASH_QK, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        for (int j = 0; j < ASH_QK; j++) y[i + j] = (float)b->qs[j] * d;
    }
}
