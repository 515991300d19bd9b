/* Owns the decoding of the K types: super-blocks of 256 whose scales are quantised themselves. Any
 * thread. */
#include <stddef.h>

#include "quant/blocks.h"
#include "quant/decode_impl.h"
#include "quant/half.h"

/* Pair of bits of element e of a super-block, 0..255. */
static int pair(const uint8_t *qs, int e)
{
    return qs[e / 128 * 32 + e % 32] >> (e / 32 % 4 * 2) & 3;
}

ASH_DECODE(q2_k)
{
    const ash_block_q2_k *b = (const void *)p;
    for (; n > 0; n -= ASH_QK_K, b++, y += ASH_QK_K) {
        float d = ash_f16_to_f32(ash_le16(b->d)), m = ash_f16_to_f32(ash_le16(b->m));
        for (int e = 0; e < ASH_QK_K; e++) {
            float scale = d * (float)(b->scales[e / 16] & 15), min = m * (float)(b->scales[e / 16] >> 4);
            y[e] = scale * (float)pair(b->qs, e) - min;
        }
    }
}

/* Scale k of 16, before 32 is taken off. */
static int q3_k_scale(const uint8_t *s, int k)
{
    int low = k < 8 ? s[k] & 15 : s[k - 8] >> 4;
    return low | (s[8 + k % 4] >> (k / 4 * 2) & 3) << 4;
}

ASH_DECODE(q3_k)
{
    const ash_block_q3_k *b = (const void *)p;
    for (; n > 0; n -= ASH_QK_K, b++, y += ASH_QK_K) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        for (int k = 0; k < 16; k++) {
            float scale = d * (float)(q3_k_scale(b->scales, k) - 32);
            for (int e = k * 16; e < k * 16 + 16; e++) {
                int upper = b->hmask[e % 32] >> (e / 32) & 1;
                y[e] = scale * (float)(pair(b->qs, e) - (upper ? 0 : 4));
            }
        }
    }
}

/* Scale and minimum of part k of 8, of Q4_K and Q5_K. */
static void q4_k_scale(const uint8_t *s, int k, int *scale, int *min)
{
    if (k < 4) {
        *scale = s[k] & 63;
        *min = s[k + 4] & 63;
    } else {
        *scale = (s[k + 4] & 15) | s[k - 4] >> 6 << 4;
        *min = s[k + 4] >> 4 | s[k] >> 6 << 4;
    }
}

/* One super-block of nibbles, with fifth bits if qh is not NULL. */
static void q45_k(const uint8_t *head, const uint8_t *qh, const uint8_t *qs, float *y)
{
    float d = ash_f16_to_f32(ash_le16(head)), m = ash_f16_to_f32(ash_le16(head + 2));
    for (int k = 0; k < 8; k++) {
        int s, t;
        q4_k_scale(head + 4, k, &s, &t);
        float scale = d * (float)s, min = m * (float)t;
        for (int i = 0; i < 32; i++) {
            int q = qs[k / 2 * 32 + i] >> (k % 2 * 4) & 15;
            if (qh)
                q |= (qh[i] >> k & 1) << 4;
            y[k * 32 + i] = scale * (float)q - min;
        }
    }
}

ASH_DECODE(q4_k)
{
    const ash_block_q4_k *b = (const void *)p;
    for (; n > 0; n -= ASH_QK_K, b++, y += ASH_QK_K) q45_k(b->d, NULL, b->qs, y);
}

ASH_DECODE(q5_k)
{
    const ash_block_q5_k *b = (const void *)p;
    for (; n > 0; n -= ASH_QK_K, b++, y += ASH_QK_K) q45_k(b->d, b->qh, b->qs, y);
}

ASH_DECODE(q6_k)
{
    const ash_block_q6_k *b = (const void *)p;
    for (; n > 0; n -= ASH_QK_K, b++, y += ASH_QK_K) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        for (int e = 0; e < ASH_QK_K; e++) {
            int half = e / 128, j = e / 32 % 4, i = e % 32; /* quarter j of a half */
            int low = b->ql[half * 64 + j % 2 * 32 + i] >> (j / 2 * 4) & 15;
            int q = (low | (b->qh[half * 32 + i] >> (2 * j) & 3) << 4) - 32;
            y[e] = d * (float)b->scales[e / 16] * (float)q;
        }
    }
}
