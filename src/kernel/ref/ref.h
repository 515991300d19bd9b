/* The plain C kernels, which other tables also take where a vector form would gain nothing. */
#ifndef ASHLEY_KERNEL_REF_REF_H
#define ASHLEY_KERNEL_REF_REF_H

#include "kernel/kernel.h"

/* Signatures and meaning as in kernel.h. scratch of the matmul: [16][cols] floats. */
void ash_ref_matmul(const ash_packed *w, const ash_act *a, int64_t g0, int64_t g1, float *y, int64_t ldy,
                    void *scratch);
void ash_ref_quantise(const float *x, int64_t n, int8_t *q, float *d, float *ds, int32_t *ns);
void ash_ref_to_bf16(const float *x, int64_t n, uint16_t *h);
void ash_ref_to_f16(const float *x, int64_t n, uint16_t *h);
void ash_ref_pack_bits(const ash_bits *bits, int n_words, int per_word, int64_t groups, uint8_t *to,
                       int64_t stride);
void ash_ref_rms_norm(float *y, const float *x, const float *w, int64_t n, float eps);
void ash_ref_add(float *x, const float *d, int64_t n);
void ash_ref_silu_mul(float *g, const float *u, int64_t n);
void ash_ref_rope_adjacent(float *x, const float *c, const float *s, int64_t n);
void ash_ref_rope_halves(float *x, const float *c, const float *s, int64_t n);
void ash_ref_span(const ash_attn_span *s);
void ash_ref_merge(float *max, float *sum, float *acc, float max2, float sum2, const float *acc2,
                   int64_t v_dim);

#endif
