/* Owns the table of decoders, the reference of every packed form. Refuses nothing itself: callers ask
 * ash_quant_supported first. Any thread. */
#include "quant/decode.h"

#include <stddef.h>

#include "quant/decode_impl.h"

typedef void (*decode_fn)(const uint8_t *, int64_t, float *);

static decode_fn decoder(ash_dtype t)
{
    switch (t) {
    case ASH_DTYPE_F64: return ash_decode_f64;
    case ASH_DTYPE_F32: return ash_decode_f32;
    case ASH_DTYPE_F16: return ash_decode_f16;
    case ASH_DTYPE_BF16: return ash_decode_bf16;
    case ASH_DTYPE_Q4_0: return ash_decode_q4_0;
    case ASH_DTYPE_Q4_1: return ash_decode_q4_1;
    case ASH_DTYPE_Q5_0: return ash_decode_q5_0;
    case ASH_DTYPE_Q5_1: return ash_decode_q5_1;
    case ASH_DTYPE_Q8_0: return ash_decode_q8_0;
    case ASH_DTYPE_Q2_K: return ash_decode_q2_k;
    case ASH_DTYPE_Q3_K: return ash_decode_q3_k;
    case ASH_DTYPE_Q4_K: return ash_decode_q4_k;
    case ASH_DTYPE_Q5_K: return ash_decode_q5_k;
    case ASH_DTYPE_Q6_K: return ash_decode_q6_k;
    case ASH_DTYPE_IQ1_S: return ash_decode_iq1_s;
    case ASH_DTYPE_IQ1_M: return ash_decode_iq1_m;
    case ASH_DTYPE_IQ2_XXS: return ash_decode_iq2_xxs;
    case ASH_DTYPE_IQ2_XS: return ash_decode_iq2_xs;
    case ASH_DTYPE_IQ2_S: return ash_decode_iq2_s;
    case ASH_DTYPE_IQ3_XXS: return ash_decode_iq3_xxs;
    case ASH_DTYPE_IQ3_S: return ash_decode_iq3_s;
    case ASH_DTYPE_IQ4_NL: return ash_decode_iq4_nl;
    case ASH_DTYPE_IQ4_XS: return ash_decode_iq4_xs;
    case ASH_DTYPE_MXFP4: return ash_decode_mxfp4;
    case ASH_DTYPE_NVFP4: return ash_decode_nvfp4;
    case ASH_DTYPE_TQ1_0: return ash_decode_tq1_0;
    case ASH_DTYPE_TQ2_0: return ash_decode_tq2_0;
    case ASH_DTYPE_Q1_0: return ash_decode_q1_0;
    case ASH_DTYPE_Q2_0: return ash_decode_q2_0;
    case ASH_DTYPE_F8_E4M3: return ash_decode_f8_e4m3;
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
