/* Owns the scalar decoders, the reference of every packed form. Refuses nothing itself: callers ask
 * ash_quant_supported first. Any thread. */
#include "quant/decode.h"

#include "quant/blocks.h"
#include "quant/half.h"

static void decode_f32(const uint8_t *p, int64_t n, float *y)
{
    memcpy(y, p, (size_t)n * sizeof *y);
}

static void decode_f16(const uint8_t *p, int64_t n, float *y)
{
    for (int64_t i = 0; i < n; i++) y[i] = ash_f16_to_f32(ash_le16(p + 2 * i));
}

static void decode_bf16(const uint8_t *p, int64_t n, float *y)
{
    for (int64_t i = 0; i < n; i++) y[i] = ash_bf16_to_f32(ash_le16(p + 2 * i));
}

static void decode_q4_0(const uint8_t *p, int64_t n, float *y)
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

static void decode_q4_1(const uint8_t *p, int64_t n, float *y)
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

static void decode_q8_0(const uint8_t *p, int64_t n, float *y)
{
    const ash_block_q8_0 *b = (const void *)p;
    for (int64_t i = 0; i < n; i += ASH_QK, b++) {
        float d = ash_f16_to_f32(ash_le16(b->d));
        for (int j = 0; j < ASH_QK; j++) y[i + j] = (float)b->qs[j] * d;
    }
}

typedef void (*decode_fn)(const uint8_t *, int64_t, float *);

static decode_fn decoder(ash_dtype t)
{
    switch (t) {
    case ASH_DTYPE_F32: return decode_f32;
    case ASH_DTYPE_F16: return decode_f16;
    case ASH_DTYPE_BF16: return decode_bf16;
    case ASH_DTYPE_Q4_0: return decode_q4_0;
    case ASH_DTYPE_Q4_1: return decode_q4_1;
    case ASH_DTYPE_Q8_0: return decode_q8_0;
    default: return NULL;
    }
}

bool ash_quant_supported(ash_dtype t)
{
    return decoder(t) != NULL;
}

void ash_quant_decode(ash_dtype t, const void *src, int64_t n, float *y)
{
    decoder(t)(src, n, y);
}
