/* Scalar decoding of tensor rows to floats, bit for bit as ggml's dequantize_row_* does. Any thread. */
#ifndef ASHLEY_QUANT_DECODE_H
#define ASHLEY_QUANT_DECODE_H

#include <stdbool.h>

#include "base/dtype.h"

/* Whether this build can decode, and so compute with, elements of type t. */
bool ash_quant_supported(ash_dtype t);
/* y[0..n) from n elements at src (any alignment); n is a multiple of the type's block and t is
 * supported. */
void ash_quant_decode(ash_dtype t, const void *src, int64_t n, float *y);

#endif
