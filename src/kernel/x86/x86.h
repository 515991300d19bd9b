/* The x86-64 kernels; signatures and meaning as in kernel.h. Call only what the CPU has. */
#ifndef ASHLEY_KERNEL_X86_X86_H
#define ASHLEY_KERNEL_X86_X86_H

#include "kernel/kernel.h"

#define ASH_MATMUL(name)                                                                              \
    void name(const ash_packed *w, const ash_act *a, int64_t g0, int64_t g1, float *y, int64_t ldy,     \
              void *scratch)

/* AVX2 FMA F16C */
ASH_MATMUL(ash_avx2_matmul_u4z);
ASH_MATMUL(ash_avx2_matmul_u4m);
ASH_MATMUL(ash_avx2_matmul_u8z);
ASH_MATMUL(ash_avx2_matmul_u4g);
ASH_MATMUL(ash_avx2_matmul_u8g);
ASH_MATMUL(ash_avx2_matmul_raw);
ASH_MATMUL(ash_avx2_matmul_f8); /* activations float */
ASH_MATMUL(ash_avx2_matmul_f32);
ASH_MATMUL(ash_avx2_matmul_f16);
ASH_MATMUL(ash_avx2_matmul_bf16); /* widens; activations float */
void ash_avx2_quantise(const float *x, int64_t n, int8_t *q, float *d, float *ds, int32_t *ns);
void ash_avx2_to_f16(const float *x, int64_t n, uint16_t *h);
void ash_avx2_pack_bits(const ash_bits *bits, int n_words, int per_word, int64_t groups, uint8_t *to,
                          int64_t stride);
void ash_avx2_rms_norm(float *y, const float *x, const float *w, int64_t n, float eps);
void ash_avx2_add(float *x, const float *d, int64_t n);
void ash_avx2_silu_mul(float *g, const float *u, int64_t n);
void ash_avx2_rope_adjacent(float *x, const float *c, const float *s, int64_t n);
void ash_avx2_rope_halves(float *x, const float *c, const float *s, int64_t n);
void ash_avx2_span(const ash_attn_span *s);
void ash_avx2_merge(float *max, float *sum, float *acc, float max2, float sum2, const float *acc2,
                      int64_t v_dim);

/* AVX-512 F BW DQ VL VNNI */
ASH_MATMUL(ash_avx512_matmul_u4z);
ASH_MATMUL(ash_avx512_matmul_u4m);
ASH_MATMUL(ash_avx512_matmul_u8z);
ASH_MATMUL(ash_avx512_matmul_u4g);
ASH_MATMUL(ash_avx512_matmul_u8g);
ASH_MATMUL(ash_avx512_matmul_raw); /* scratch: ash_avx512_raw_scratch(cols) bytes */
int64_t ash_avx512_raw_scratch(int64_t cols);
/* The same, bit for bit, for few rows of activations: what ash_avx512_matmul_raw calls itself for up to
 * _rows, 0 for a type that it does not know. No scratch. */
ASH_MATMUL(ash_avx512_matmul_few);
int ash_avx512_matmul_few_rows(ash_dtype t);
ASH_MATMUL(ash_avx512_matmul_f8); /* activations float */
ASH_MATMUL(ash_avx512_matmul_f32);
ASH_MATMUL(ash_avx512_matmul_f16);
ASH_MATMUL(ash_avx512_matmul_bf16); /* widens; activations float */
void ash_avx512_quantise(const float *x, int64_t n, int8_t *q, float *d, float *ds, int32_t *ns);
void ash_avx512_half_sums(const int8_t *q, int64_t n, uint32_t *hs);
void ash_avx512_to_f16(const float *x, int64_t n, uint16_t *h);
void ash_avx512_pack_bits(const ash_bits *bits, int n_words, int per_word, int64_t groups, uint8_t *to,
                          int64_t stride);
void ash_avx512_rms_norm(float *y, const float *x, const float *w, int64_t n, float eps);
void ash_avx512_add(float *x, const float *d, int64_t n);
void ash_avx512_silu_mul(float *g, const float *u, int64_t n);
void ash_avx512_rope_adjacent(float *x, const float *c, const float *s, int64_t n);
void ash_avx512_rope_halves(float *x, const float *c, const float *s, int64_t n);
void ash_avx512_span(const ash_attn_span *s);
void ash_avx512_span_q8(const ash_attn_span *s);
void ash_avx512_merge(float *max, float *sum, float *acc, float max2, float sum2, const float *acc2,
                      int64_t v_dim);

/* AVX-512 BF16 and VBMI besides */
ASH_MATMUL(ash_avx512bf16_matmul_bf16);
ASH_MATMUL(ash_avx512bf16_matmul_f8);
void ash_avx512bf16_span(const ash_attn_span *s);
void ash_avx512bf16_to_bf16(const float *x, int64_t n, uint16_t *h);

/* AMX with its INT8 and BF16 besides. Scratch: ash_amx_scratch() bytes, on 64. The quantised ones give what
 * AVX-512's give, bit for bit. */
ASH_MATMUL(ash_amx_matmul_u4z);
ASH_MATMUL(ash_amx_matmul_u4m);
ASH_MATMUL(ash_amx_matmul_u8z);
ASH_MATMUL(ash_amx_matmul_u4g);
ASH_MATMUL(ash_amx_matmul_u8g);
ASH_MATMUL(ash_amx_matmul_bf16); /* no scratch */
int64_t ash_amx_scratch(void);

#endif
