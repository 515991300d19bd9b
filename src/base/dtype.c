/* Owns the table of element types. Constant data, any thread. */
#include "base/dtype.h"

static const ash_dtype_info types[] = {
    [ASH_DTYPE_F32] = {"F32", 1, 4},          [ASH_DTYPE_F16] = {"F16", 1, 2},
    [ASH_DTYPE_Q4_0] = {"Q4_0", 32, 18},      [ASH_DTYPE_Q4_1] = {"Q4_1", 32, 20},
    [ASH_DTYPE_Q5_0] = {"Q5_0", 32, 22},      [ASH_DTYPE_Q5_1] = {"Q5_1", 32, 24},
    [ASH_DTYPE_Q8_0] = {"Q8_0", 32, 34},      [ASH_DTYPE_Q8_1] = {"Q8_1", 32, 36},
    [ASH_DTYPE_Q2_K] = {"Q2_K", 256, 84},     [ASH_DTYPE_Q3_K] = {"Q3_K", 256, 110},
    [ASH_DTYPE_Q4_K] = {"Q4_K", 256, 144},    [ASH_DTYPE_Q5_K] = {"Q5_K", 256, 176},
    [ASH_DTYPE_Q6_K] = {"Q6_K", 256, 210},    [ASH_DTYPE_Q8_K] = {"Q8_K", 256, 292},
    [ASH_DTYPE_IQ2_XXS] = {"IQ2_XXS", 256, 66}, [ASH_DTYPE_IQ2_XS] = {"IQ2_XS", 256, 74},
    [ASH_DTYPE_IQ3_XXS] = {"IQ3_XXS", 256, 98}, [ASH_DTYPE_IQ1_S] = {"IQ1_S", 256, 50},
    [ASH_DTYPE_IQ4_NL] = {"IQ4_NL", 32, 18},  [ASH_DTYPE_IQ3_S] = {"IQ3_S", 256, 110},
    [ASH_DTYPE_IQ2_S] = {"IQ2_S", 256, 82},   [ASH_DTYPE_IQ4_XS] = {"IQ4_XS", 256, 136},
    [ASH_DTYPE_I8] = {"I8", 1, 1},            [ASH_DTYPE_I16] = {"I16", 1, 2},
    [ASH_DTYPE_I32] = {"I32", 1, 4},          [ASH_DTYPE_I64] = {"I64", 1, 8},
    [ASH_DTYPE_F64] = {"F64", 1, 8},          [ASH_DTYPE_IQ1_M] = {"IQ1_M", 256, 56},
    [ASH_DTYPE_BF16] = {"BF16", 1, 2},        [ASH_DTYPE_TQ1_0] = {"TQ1_0", 256, 54},
    [ASH_DTYPE_TQ2_0] = {"TQ2_0", 256, 66},   [ASH_DTYPE_MXFP4] = {"MXFP4", 32, 17},
    [ASH_DTYPE_NVFP4] = {"NVFP4", 64, 36},    [ASH_DTYPE_Q1_0] = {"Q1_0", 128, 18},
    [ASH_DTYPE_Q2_0] = {"Q2_0", 64, 18},
};

static const ash_dtype_info others[] = {
    [ASH_DTYPE_F8_E4M3 - ASH_DTYPE_OTHER] = {"F8_E4M3", 1, 1},
    [ASH_DTYPE_F8_E5M2 - ASH_DTYPE_OTHER] = {"F8_E5M2", 1, 1},
    [ASH_DTYPE_F8_E8M0 - ASH_DTYPE_OTHER] = {"F8_E8M0", 1, 1},
    [ASH_DTYPE_F8_E4M3FNUZ - ASH_DTYPE_OTHER] = {"F8_E4M3FNUZ", 1, 1},
    [ASH_DTYPE_F8_E5M2FNUZ - ASH_DTYPE_OTHER] = {"F8_E5M2FNUZ", 1, 1},
    [ASH_DTYPE_F6_E2M3 - ASH_DTYPE_OTHER] = {"F6_E2M3", 4, 3},
    [ASH_DTYPE_F6_E3M2 - ASH_DTYPE_OTHER] = {"F6_E3M2", 4, 3},
    [ASH_DTYPE_F4 - ASH_DTYPE_OTHER] = {"F4", 2, 1},
    [ASH_DTYPE_BOOL - ASH_DTYPE_OTHER] = {"BOOL", 1, 1},
    [ASH_DTYPE_U8 - ASH_DTYPE_OTHER] = {"U8", 1, 1},
    [ASH_DTYPE_U16 - ASH_DTYPE_OTHER] = {"U16", 1, 2},
    [ASH_DTYPE_U32 - ASH_DTYPE_OTHER] = {"U32", 1, 4},
    [ASH_DTYPE_U64 - ASH_DTYPE_OTHER] = {"U64", 1, 8},
    [ASH_DTYPE_C64 - ASH_DTYPE_OTHER] = {"C64", 1, 8},
};

static const ash_dtype_info none;

const ash_dtype_info *ash_dtype_get(uint32_t id)
{
    if (id >= ASH_DTYPE_OTHER)
        return id < ASH_DTYPE_END ? &others[id - ASH_DTYPE_OTHER] : &none;
    return id < sizeof types / sizeof *types ? &types[id] : &none;
}

bool ash_dtype_bytes(ash_dtype t, uint64_t n, uint64_t *bytes)
{
    const ash_dtype_info *d = ash_dtype_get(t);
    if (!d->block || n % d->block || n / d->block > UINT64_MAX / d->block_bytes)
        return false;
    *bytes = n / d->block * d->block_bytes;
    return true;
}
