/* How a checkpoint's weights are said to be quantised: the settings beside them. What the tensors
 * themselves are is decisive, and found by arch/bind.h; this names formats that are not read here before
 * their tensors are misunderstood. Plain data, any thread. */
#ifndef ASHLEY_ARCH_QUANTIZATION_H
#define ASHLEY_ARCH_QUANTIZATION_H

#include "format/checkpoint.h"

typedef enum ash_quant_method {
    ASH_QUANT_NONE, /* or GGUF's own */
    ASH_QUANT_GPTQ,
    ASH_QUANT_FP8,
} ash_quant_method;

typedef struct ash_quantization {
    ash_quant_method method;
    int bits;                    /* GPTQ; 0: not said */
    int64_t group_size;          /* GPTQ; -1: all columns are one; 0: not said */
    bool v2;                     /* GPTQ: zeros are labelled as stored as they are */
    int64_t block_out, block_in; /* FP8: rows and columns that share a scale; 0: not said */
} ash_quantization;

/* Reads c->quant. Errors name file and key: ASH_EFORMAT for values of the wrong kind, ASH_EUNSUPPORTED
 * for other methods and formats, with what to use instead. */
int ash_quantization_read(const ash_checkpoint *c, ash_quantization *out, ash_err *err) ASH_MUST_CHECK;

#endif
