/* The AArch64 kernels; signatures and meaning as in kernel.h. Call only what the CPU has. Files that say so
 * are compiled once for each of three sets of instructions, with its flags and its name as ISA:
 *
 * | neon    | Armv8.0: every AArch64 processor                            |
 * | dotprod | the dot products of bytes of Armv8.2 (FEAT_DotProd)         |
 * | i8mm    | FEAT_I8MM and FEAT_BF16 besides, which come together (v8.6) | */
#ifndef ASHLEY_KERNEL_ARM_ARM_H
#define ASHLEY_KERNEL_ARM_ARM_H

#include "kernel/kernel.h"

#define ASH_MATMUL(name)                                                                              \
    void name(const ash_packed *w, const ash_act *a, int64_t g0, int64_t g1, float *y, int64_t ldy,     \
              void *scratch)

#define ASH_ARM_JOIN(isa, name) ash_##isa##_##name
#define ASH_ARM_NAME(isa, name) ASH_ARM_JOIN(isa, name)
#define NAME(name) ASH_ARM_NAME(ISA, name)

/* peak_int8: multiply-adds of bytes, two operations each, done in so many rounds. */
#define ASH_ARM_DOTS(isa)                                                                             \
    ASH_MATMUL(ash_##isa##_matmul_u4z);                                                               \
    ASH_MATMUL(ash_##isa##_matmul_u4m);                                                               \
    ASH_MATMUL(ash_##isa##_matmul_u8z);                                                               \
    ASH_MATMUL(ash_##isa##_matmul_u4g);                                                               \
    ASH_MATMUL(ash_##isa##_matmul_u8g);                                                               \
    ASH_MATMUL(ash_##isa##_matmul_raw);                                                               \
    double ash_##isa##_peak_int8(long rounds)

ASH_ARM_DOTS(neon);
ASH_ARM_DOTS(dotprod);
ASH_ARM_DOTS(i8mm);

ASH_MATMUL(ash_neon_matmul_f8); /* activations float */
ASH_MATMUL(ash_neon_matmul_f32);
ASH_MATMUL(ash_neon_matmul_f16);
ASH_MATMUL(ash_neon_matmul_bf16); /* widens; activations float */
void ash_neon_quantise(const float *x, int64_t n, int8_t *q, float *d, float *ds, int32_t *ns);
void ash_neon_to_f16(const float *x, int64_t n, uint16_t *h);
void ash_neon_pack_bits(const ash_bits *bits, int n_words, int per_word, int64_t groups, uint8_t *to,
                        int64_t stride);
void ash_neon_rms_norm(float *y, const float *x, const float *w, int64_t n, float eps);
void ash_neon_add(float *x, const float *d, int64_t n);
void ash_neon_silu_mul(float *g, const float *u, int64_t n);
void ash_neon_rope_adjacent(float *x, const float *c, const float *s, int64_t n);
void ash_neon_rope_halves(float *x, const float *c, const float *s, int64_t n);
void ash_neon_span(const ash_attn_span *s);
void ash_neon_merge(float *max, float *sum, float *acc, float max2, float sum2, const float *acc2,
                    int64_t v_dim);

ASH_MATMUL(ash_i8mm_matmul_bf16); /* activations bfloat16 */
void ash_i8mm_to_bf16(const float *x, int64_t n, uint16_t *h);
double ash_i8mm_peak_bf16(long rounds);

/* The table of a level above the scalar one. */
const ash_kernel *ash_arm_kernel(ash_cpu_level level);

#endif
