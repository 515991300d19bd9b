/* Owns the decoding of the types with a codebook. Any thread. */
#include "quant/blocks.h"
#include "quant/decode_impl.h"
#include "quant/grids.h"
#include "quant/half.h"

/* y [n] = scale times the bytes of an entry, minus where a bit of signs is set. */
static void put_signed(float *y, uint64_t entry, int n, uint32_t signs, float scale)
{
    for (int j = 0; j < n; j++) {
        float v = scale * (float)(entry >> (8 * j) & 255);
        y[j] = signs >> j & 1 ? -v : v;
    }
}

ASH_DECODE(iq2_xxs)
{
    const ash_block_iq2_xxs *b = (const void *)p;
    for (; n > 0; n -= ASH_QK_K, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        for (int k = 0; k < 8; k++) {
            const uint8_t *q = b->qs + 8 * k;
            uint32_t signs = ash_le32(q + 4);
            float scale = d * (0.5f + (float)(signs >> 28)) * 0.25f;
            for (int l = 0; l < 4; l++, y += 8)
                put_signed(y, ash_grid_iq2_xxs[q[l]], 8, ash_even_signs(signs >> 7 * l & 127), scale);
        }
    }
}

ASH_DECODE(iq2_xs)
{
    const ash_block_iq2_xs *b = (const void *)p;
    for (; n > 0; n -= ASH_QK_K, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        for (int l = 0; l < 32; l++, y += 8) {
            uint32_t q = ash_le16(b->qs + 2 * l);
            float scale = d * (0.5f + (float)(b->scales[l / 4] >> (l / 2 % 2 * 4) & 15)) * 0.25f;
            put_signed(y, ash_grid_iq2_xs[q & 511], 8, ash_even_signs(q >> 9), scale);
        }
    }
}

ASH_DECODE(iq2_s)
{
    const ash_block_iq2_s *b = (const void *)p;
    for (; n > 0; n -= ASH_QK_K, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        for (int l = 0; l < 32; l++, y += 8) {
            int index = b->qs[l] | (b->qh[l / 4] >> (l % 4 * 2) & 3) << 8;
            float scale = d * (0.5f + (float)(b->scales[l / 4] >> (l / 2 % 2 * 4) & 15)) * 0.25f;
            put_signed(y, ash_grid_iq2_s[index], 8, b->signs[l], scale);
        }
    }
}

ASH_DECODE(iq3_xxs)
{
    const ash_block_iq3_xxs *b = (const void *)p;
    for (; n > 0; n -= ASH_QK_K, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        for (int l = 0; l < 64; l++, y += 4) {
            uint32_t word = ash_le32(b->signs + l / 8 * 4);
            float scale = d * (0.5f + (float)(word >> 28)) * 0.5f;
            uint32_t signs = ash_even_signs(word >> (l / 2 % 4 * 7) & 127) >> (l % 2 * 4);
            put_signed(y, ash_grid_iq3_xxs[b->qs[l]], 4, signs, scale);
        }
    }
}

ASH_DECODE(iq3_s)
{
    const ash_block_iq3_s *b = (const void *)p;
    for (; n > 0; n -= ASH_QK_K, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        for (int l = 0; l < 64; l++, y += 4) {
            int index = b->qs[l] | (b->qh[l / 8] >> (l % 8) & 1) << 8;
            float scale = d * (float)(1 + 2 * (b->scales[l / 16] >> (l / 8 % 2 * 4) & 15));
            put_signed(y, ash_grid_iq3_s[index], 4, b->signs[l / 2] >> (l % 2 * 4), scale);
        }
    }
}

/* y [8] = scale * (entry + shift); the three values are stored from zero. */
static void put_shifted(float *y, int index, float scale, float shift)
{
    for (int j = 0; j < 8; j++)
        y[j] = scale * ((float)((int)(ash_grid_iq1[index] >> (8 * j) & 3) - 1) + shift);
}

ASH_DECODE(iq1_s)
{
    const ash_block_iq1_s *b = (const void *)p;
    for (; n > 0; n -= ASH_QK_K, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        for (int l = 0; l < 32; l++, y += 8) {
            int h = ash_le16(b->qh + l / 4 * 2);
            int index = b->qs[l] | (h >> (l % 4 * 3) & 7) << 8;
            put_shifted(y, index, d * (float)(2 * (h >> 12 & 7) + 1), h & 0x8000 ? -0.125f : 0.125f);
        }
    }
}

ASH_DECODE(iq1_m)
{
    const ash_block_iq1_m *b = (const void *)p;
    for (; n > 0; n -= ASH_QK_K, b++) {
        const uint8_t *s = b->scales;
        int half = s[1] >> 4 | (s[3] & 0xf0) | (s[5] >> 4) << 8 | (s[7] >> 4) << 12;
        float d = ash_f16_to_f32((uint16_t)half);
        for (int l = 0; l < 32; l++, y += 8) {
            int h = b->qh[l / 2] >> (l % 2 * 4);
            int three = ash_le16(s + l / 8 * 2) >> (l / 2 % 4 * 3) & 7;
            put_shifted(y, b->qs[l] | (h & 7) << 8, d * (float)(2 * three + 1), h & 8 ? -0.125f : 0.125f);
        }
    }
}
