/* Element types of tensors, named as the files name them: plain ones and the blocks of GGUF.
 * The values are GGUF's type ids (ggml.h, enum ggml_type), so that no table maps one to the other;
 * types of other formats follow from 1000. Layouts and decoding live in quant/. */
#ifndef ASHLEY_BASE_DTYPE_H
#define ASHLEY_BASE_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum ash_dtype {
    ASH_DTYPE_F32 = 0,
    ASH_DTYPE_F16 = 1,
    ASH_DTYPE_Q4_0 = 2,
    ASH_DTYPE_Q4_1 = 3,
    ASH_DTYPE_Q5_0 = 6,
    ASH_DTYPE_Q5_1 = 7,
    ASH_DTYPE_Q8_0 = 8,
    ASH_DTYPE_Q8_1 = 9,
    ASH_DTYPE_Q2_K = 10,
    ASH_DTYPE_Q3_K = 11,
    ASH_DTYPE_Q4_K = 12,
    ASH_DTYPE_Q5_K = 13,
    ASH_DTYPE_Q6_K = 14,
    ASH_DTYPE_Q8_K = 15,
    ASH_DTYPE_IQ2_XXS = 16,
    ASH_DTYPE_IQ2_XS = 17,
    ASH_DTYPE_IQ3_XXS = 18,
    ASH_DTYPE_IQ1_S = 19,
    ASH_DTYPE_IQ4_NL = 20,
    ASH_DTYPE_IQ3_S = 21,
    ASH_DTYPE_IQ2_S = 22,
    ASH_DTYPE_IQ4_XS = 23,
    ASH_DTYPE_I8 = 24,
    ASH_DTYPE_I16 = 25,
    ASH_DTYPE_I32 = 26,
    ASH_DTYPE_I64 = 27,
    ASH_DTYPE_F64 = 28,
    ASH_DTYPE_IQ1_M = 29,
    ASH_DTYPE_BF16 = 30,
    ASH_DTYPE_TQ1_0 = 34,
    ASH_DTYPE_TQ2_0 = 35,
    ASH_DTYPE_MXFP4 = 39,
    ASH_DTYPE_NVFP4 = 40,
    ASH_DTYPE_Q1_0 = 41,
    ASH_DTYPE_Q2_0 = 42,
    /* safetensors and PyTorch only */
    ASH_DTYPE_OTHER = 1000,
    ASH_DTYPE_F8_E4M3 = ASH_DTYPE_OTHER, /* bias 7, no infinities, 0x7f and 0xff are NaN */
    ASH_DTYPE_F8_E5M2,
    ASH_DTYPE_F8_E8M0,
    ASH_DTYPE_F8_E4M3FNUZ,
    ASH_DTYPE_F8_E5M2FNUZ,
    ASH_DTYPE_F6_E2M3,
    ASH_DTYPE_F6_E3M2,
    ASH_DTYPE_F4,
    ASH_DTYPE_BOOL,
    ASH_DTYPE_U8,
    ASH_DTYPE_U16,
    ASH_DTYPE_U32,
    ASH_DTYPE_U64,
    ASH_DTYPE_C64,
    ASH_DTYPE_END,
} ash_dtype;

typedef struct ash_dtype_info {
    const char *name;     /* "Q4_1"; NULL for an id that is not a type */
    uint32_t block;       /* elements in a block, 1 for plain types */
    uint32_t block_bytes; /* bytes of a block */
} ash_dtype_info;

/* Never NULL; name == NULL and block == 0 for an unknown or removed id. */
const ash_dtype_info *ash_dtype_get(uint32_t id);
/* Bytes of n elements; false if n is no multiple of the block or it overflows. */
bool ash_dtype_bytes(ash_dtype t, uint64_t n, uint64_t *bytes);

#endif
