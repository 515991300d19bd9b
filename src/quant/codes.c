/* Owns the decoding of the types whose quants are codes of four bits or fewer, each looked up by itself.
 * Any thread. */
#include "quant/blocks.h"
#include "quant/decode_impl.h"
#include "quant/grids.h"
#include "quant/half.h"

/* y [2 n] = d times the values of n low nibbles, then of the high ones. */
static void put_nibbles(float *y, const uint8_t *qs, int n, const int8_t values[16], float d)
{
    for (int j = 0; j < n; j++) {
        y[j] = d * (float)values[qs[j] & 15];
        y[j + n] = d * (float)values[qs[j] >> 4];
    }
}

ASH_DECODE(iq4_nl)
{
    const ash_block_iq4_nl *b = (const void *)p;
    for (; n > 0; n -= ASH_QK, b++, y += ASH_QK)
        put_nibbles(y, b->qs, 16, ash_values_iq4, ash_f16_to_f32(ash_le16(b->d)));
}

ASH_DECODE(iq4_xs)
{
    const ash_block_iq4_xs *b = (const void *)p;
    for (; n > 0; n -= ASH_QK_K, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        for (int k = 0; k < 8; k++, y += 32) {
            int s = (b->scales[k / 2] >> (k % 2 * 4) & 15) | (ash_le16(b->upper) >> (2 * k) & 3) << 4;
            put_nibbles(y, b->qs + 16 * k, 16, ash_values_iq4, d * (float)(s - 32));
        }
    }
}

ASH_DECODE(mxfp4)
{
    const ash_block_mxfp4 *b = (const void *)p;
    for (; n > 0; n -= ASH_QK, b++, y += ASH_QK)
        put_nibbles(y, b->qs, 16, ash_values_fp4, ash_e8m0_half(b->e));
}

ASH_DECODE(nvfp4)
{
    const ash_block_nvfp4 *b = (const void *)p;
    for (; n > 0; n -= 64, b++)
        for (int k = 0; k < 4; k++, y += 16)
            put_nibbles(y, b->qs + 8 * k, 8, ash_values_fp4, ash_ue4m3_half(b->d[k]));
}

/* Digit k of a byte that holds five of base 3: the bytes times 3^k, as a fraction of 256, times 3. */
static int digit(uint8_t byte, int k)
{
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    return (uint8_t)(byte * power[k]) * 3 >> 8;
}

ASH_DECODE(tq1_0)
{
    const ash_block_tq1_0 *b = (const void *)p;
    for (; n > 0; n -= ASH_QK_K, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        for (int e = 0; e < 160; e++) *y++ = (float)(digit(b->qs[e % 32], e / 32) - 1) * d;
        for (int e = 0; e < 80; e++) *y++ = (float)(digit(b->qs[32 + e % 16], e / 16) - 1) * d;
        for (int e = 0; e < 16; e++) *y++ = (float)(digit(b->qh[e % 4], e / 4) - 1) * d;
    }
}

ASH_DECODE(tq2_0)
{
    const ash_block_tq2_0 *b = (const void *)p;
    for (; n > 0; n -= ASH_QK_K, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        for (int e = 0; e < ASH_QK_K; e++)
            *y++ = (float)((b->qs[e / 128 * 32 + e % 32] >> (e / 32 % 4 * 2) & 3) - 1) * d;
    }
}

ASH_DECODE(q1_0)
{
    const ash_block_q1_0 *b = (const void *)p;
    for (; n > 0; n -= 128, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        for (int e = 0; e < 128; e++) *y++ = b->qs[e / 8] >> (e % 8) & 1 ? d : -d;
    }
}

ASH_DECODE(q2_0)
{
    const ash_block_q2_0 *b = (const void *)p;
    for (; n > 0; n -= 64, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        for (int e = 0; e < 64; e++) *y++ = (float)((b->qs[e / 4] >> (e % 4 * 2) & 3) - 1) * d;
    }
}
