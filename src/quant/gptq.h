/* One GPTQ-quantised matrix as files hold it, W [out, in] (Frantar et al. 2022; AutoGPTQ
 * nn_modules/qlinear, GPTQModel).
 *
 *   qweight i32 [in * bits / 32, out]   32 / bits consecutive inputs a word, the first lowest;
 *                                       3 bits: 32 inputs in 3 words
 *   qzeros  i32 [groups, out * bits / 32]  the same along the outputs
 *   scales  f16 [groups, out]           also f32 or bf16
 *   g_idx   i32 [in]                    group of each input; may be absent, or all zero
 *
 *   w[o, i] = (q[i, o] - zero[g, o]) * scale[g, o],  g = group of input i
 *
 * Version 1 stores zero - 1, version 2 the zero itself. Version 1 subtracts 1 from all fields of a word at
 * once (borrows ripple from a zero of 0: undone on words), for 3 bits from each field, modulo 8. */
#ifndef ASHLEY_QUANT_GPTQ_H
#define ASHLEY_QUANT_GPTQ_H

#include "base/dtype.h"
#include "base/err.h"

typedef struct ash_gptq {
    int bits;               /* 2, 3, 4 or 8 */
    bool v2;                /* zeros are stored as they are */
    int64_t in, out;        /* multiples of 32 */
    int64_t groups;
    const uint8_t *qweight; /* all borrowed, little endian, any alignment */
    const uint8_t *qzeros;
    const uint8_t *scales;
    ash_dtype scale_type;   /* F16, BF16 or F32 */
    const int32_t *group_of; /* [in], each in 0 .. groups-1; NULL: i / (in / groups), groups divide in */
} ash_gptq;

/* zeros [n] of outputs [first, first + n) of a group, 0 .. 2^bits - 1. */
void ash_gptq_zeros(const ash_gptq *q, int64_t group, int64_t first, int64_t n, uint8_t *zeros);
/* scales [n] likewise, as floats. */
void ash_gptq_scales(const ash_gptq *q, int64_t group, int64_t first, int64_t n, float *scales);
/* The group of an input. */
int64_t ash_gptq_group(const ash_gptq *q, int64_t input);
/* One quant, 0 .. 2^bits - 1. */
int ash_gptq_quant(const ash_gptq *q, int64_t out, int64_t input);
/* The reference: y [in] = row of W, by the formula above in float. Slow: reads with a stride. */
void ash_gptq_row(const ash_gptq *q, int64_t row, float *y);

/* What the words of qzeros say of the version when the zeros are symmetric: 1 or 2; 0 if they are not
 * all alike or of neither version (then the label decides). */
int ash_gptq_version(const ash_gptq *q);

#endif
