/* Owns the choice of the table. Constant data, any thread. */
#include "kernel/kernel.h"

#include "kernel/ref/ref.h"
#if defined(__x86_64__)
#include "kernel/x86/x86.h"
#elif defined(__aarch64__)
#include "kernel/arm/arm.h"
#endif

static const ash_kernel ref = {
    .name = "scalar",
    .level = ASH_CPU_SCALAR,
    .act = {[ASH_FORM_F32] = ASH_ACT_F32, [ASH_FORM_F16] = ASH_ACT_F32, [ASH_FORM_BF16] = ASH_ACT_F32,
            [ASH_FORM_U4Z] = ASH_ACT_F32, [ASH_FORM_U4M] = ASH_ACT_F32, [ASH_FORM_U8Z] = ASH_ACT_F32,
            [ASH_FORM_U4G] = ASH_ACT_F32, [ASH_FORM_U8G] = ASH_ACT_F32, [ASH_FORM_F8] = ASH_ACT_F32,
            [ASH_FORM_RAW] = ASH_ACT_F32},
    .matmul = {[ASH_FORM_F32] = ash_ref_matmul, [ASH_FORM_F16] = ash_ref_matmul,
               [ASH_FORM_BF16] = ash_ref_matmul, [ASH_FORM_U4Z] = ash_ref_matmul,
               [ASH_FORM_U4M] = ash_ref_matmul, [ASH_FORM_U8Z] = ash_ref_matmul,
               [ASH_FORM_U4G] = ash_ref_matmul, [ASH_FORM_U8G] = ash_ref_matmul,
               [ASH_FORM_F8] = ash_ref_matmul, [ASH_FORM_RAW] = ash_ref_matmul},
    .quantise = ash_ref_quantise,
    .to_bf16 = ash_ref_to_bf16,
    .to_f16 = ash_ref_to_f16,
    .pack_bits = ash_ref_pack_bits,
    .rms_norm = ash_ref_rms_norm,
    .add = ash_ref_add,
    .silu_mul = ash_ref_silu_mul,
    .rope_adjacent = ash_ref_rope_adjacent,
    .rope_halves = ash_ref_rope_halves,
    .kv = ASH_KV_F32,
    .span = ash_ref_span,
    .span_q8 = ash_ref_span,
    .merge = ash_ref_merge,
};

#if defined(__x86_64__)
static const ash_kernel avx2 = {
    .name = "avx2",
    .level = ASH_CPU_AVX2,
    .act = {[ASH_FORM_F32] = ASH_ACT_F32, [ASH_FORM_F16] = ASH_ACT_F32, [ASH_FORM_BF16] = ASH_ACT_F32,
            [ASH_FORM_U4Z] = ASH_ACT_I8, [ASH_FORM_U4M] = ASH_ACT_I8, [ASH_FORM_U8Z] = ASH_ACT_I8,
            [ASH_FORM_U4G] = ASH_ACT_I8, [ASH_FORM_U8G] = ASH_ACT_I8, [ASH_FORM_F8] = ASH_ACT_F32,
            [ASH_FORM_RAW] = ASH_ACT_I8},
    .matmul = {[ASH_FORM_F32] = ash_avx2_matmul_f32, [ASH_FORM_F16] = ash_avx2_matmul_f16,
               [ASH_FORM_BF16] = ash_avx2_matmul_bf16, [ASH_FORM_U4Z] = ash_avx2_matmul_u4z,
               [ASH_FORM_U4M] = ash_avx2_matmul_u4m, [ASH_FORM_U8Z] = ash_avx2_matmul_u8z,
               [ASH_FORM_U4G] = ash_avx2_matmul_u4g, [ASH_FORM_U8G] = ash_avx2_matmul_u8g,
               [ASH_FORM_F8] = ash_avx2_matmul_f8, [ASH_FORM_RAW] = ash_avx2_matmul_raw},
    .quantise = ash_avx2_quantise,
    .to_bf16 = ash_ref_to_bf16,
    .to_f16 = ash_avx2_to_f16,
    .pack_bits = ash_avx2_pack_bits,
    .rms_norm = ash_avx2_rms_norm,
    .add = ash_avx2_add,
    .silu_mul = ash_avx2_silu_mul,
    .rope_adjacent = ash_avx2_rope_adjacent,
    .rope_halves = ash_avx2_rope_halves,
    .span = ash_avx2_span,
    .merge = ash_avx2_merge,
};

/* What the tables with AVX-512 have in common, and those with its BF16 besides. */
#define AVX512_SHARED                                                                                \
    .quantise = ash_avx512_quantise, .half_sums = ash_avx512_half_sums, .to_f16 = ash_avx512_to_f16, \
    .pack_bits = ash_avx512_pack_bits, .rms_norm = ash_avx512_rms_norm, .add = ash_avx512_add,       \
    .silu_mul = ash_avx512_silu_mul, .rope_adjacent = ash_avx512_rope_adjacent,                      \
    .rope_halves = ash_avx512_rope_halves, .span_q8 = ash_avx512_span_q8, .merge = ash_avx512_merge
#define AVX512BF16_SHARED                                                                            \
    AVX512_SHARED,                                                                                   \
    .act = {[ASH_FORM_F32] = ASH_ACT_F32, [ASH_FORM_F16] = ASH_ACT_F32, [ASH_FORM_BF16] = ASH_ACT_BF16, \
            [ASH_FORM_U4Z] = ASH_ACT_I8, [ASH_FORM_U4M] = ASH_ACT_I8, [ASH_FORM_U8Z] = ASH_ACT_I8,   \
            [ASH_FORM_U4G] = ASH_ACT_I8, [ASH_FORM_U8G] = ASH_ACT_I8, [ASH_FORM_F8] = ASH_ACT_BF16,  \
            [ASH_FORM_RAW] = ASH_ACT_I8},                                                            \
    .fine = {[ASH_FORM_BF16] = ash_avx512_matmul_bf16, [ASH_FORM_F8] = ash_avx512_matmul_f8},        \
    .to_bf16 = ash_avx512bf16_to_bf16, .span_act = ASH_ACT_BF16, .span = ash_avx512bf16_span,        \
    .fine_span = ash_avx512_span

static const ash_kernel avx512 = {
    .name = "avx512",
    .level = ASH_CPU_AVX512,
    .act = {[ASH_FORM_F32] = ASH_ACT_F32, [ASH_FORM_F16] = ASH_ACT_F32, [ASH_FORM_BF16] = ASH_ACT_F32,
            [ASH_FORM_U4Z] = ASH_ACT_I8, [ASH_FORM_U4M] = ASH_ACT_I8, [ASH_FORM_U8Z] = ASH_ACT_I8,
            [ASH_FORM_U4G] = ASH_ACT_I8, [ASH_FORM_U8G] = ASH_ACT_I8, [ASH_FORM_F8] = ASH_ACT_F32,
            [ASH_FORM_RAW] = ASH_ACT_I8},
    .matmul = {[ASH_FORM_F32] = ash_avx512_matmul_f32, [ASH_FORM_F16] = ash_avx512_matmul_f16,
               [ASH_FORM_BF16] = ash_avx512_matmul_bf16, [ASH_FORM_U4Z] = ash_avx512_matmul_u4z,
               [ASH_FORM_U4M] = ash_avx512_matmul_u4m, [ASH_FORM_U8Z] = ash_avx512_matmul_u8z,
               [ASH_FORM_U4G] = ash_avx512_matmul_u4g, [ASH_FORM_U8G] = ash_avx512_matmul_u8g,
               [ASH_FORM_F8] = ash_avx512_matmul_f8, [ASH_FORM_RAW] = ash_avx512_matmul_raw},
    .to_bf16 = ash_ref_to_bf16,
    .span = ash_avx512_span,
    AVX512_SHARED,
};

static const ash_kernel avx512bf16 = {
    .name = "avx512+bf16",
    .level = ASH_CPU_AVX512,
    .matmul = {[ASH_FORM_F32] = ash_avx512_matmul_f32, [ASH_FORM_F16] = ash_avx512_matmul_f16,
               [ASH_FORM_BF16] = ash_avx512bf16_matmul_bf16, [ASH_FORM_U4Z] = ash_avx512_matmul_u4z,
               [ASH_FORM_U4M] = ash_avx512_matmul_u4m, [ASH_FORM_U8Z] = ash_avx512_matmul_u8z,
               [ASH_FORM_U4G] = ash_avx512_matmul_u4g, [ASH_FORM_U8G] = ash_avx512_matmul_u8g,
               [ASH_FORM_F8] = ash_avx512bf16_matmul_f8, [ASH_FORM_RAW] = ash_avx512_matmul_raw},
    AVX512BF16_SHARED,
};

static const ash_kernel amx = {
    .name = "amx",
    .level = ASH_CPU_AMX,
    .matmul = {[ASH_FORM_F32] = ash_avx512_matmul_f32, [ASH_FORM_F16] = ash_avx512_matmul_f16,
               [ASH_FORM_BF16] = ash_amx_matmul_bf16, [ASH_FORM_U4Z] = ash_amx_matmul_u4z,
               [ASH_FORM_U4M] = ash_amx_matmul_u4m, [ASH_FORM_U8Z] = ash_amx_matmul_u8z,
               [ASH_FORM_U4G] = ash_amx_matmul_u4g, [ASH_FORM_U8G] = ash_amx_matmul_u8g,
               [ASH_FORM_F8] = ash_avx512bf16_matmul_f8, [ASH_FORM_RAW] = ash_avx512_matmul_raw},
    AVX512BF16_SHARED,
};

const ash_kernel *ash_kernel_get(ash_cpu_level level)
{
    if (level < ASH_CPU_AVX512)
        return level == ASH_CPU_AVX2 ? &avx2 : &ref;
    if (level == ASH_CPU_AMX)
        return &amx;
    return ash_cpu_get()->bf16 ? &avx512bf16 : &avx512;
}

const ash_kernel *ash_kernel_variant(int index)
{
    const ash_cpu *cpu = ash_cpu_get();
    const ash_kernel *all[5] = {&ref};
    int n = 1;
    if (cpu->level >= ASH_CPU_AVX2)
        all[n++] = &avx2;
    if (cpu->level >= ASH_CPU_AVX512)
        all[n++] = &avx512;
    if (cpu->level >= ASH_CPU_AVX512 && cpu->bf16)
        all[n++] = &avx512bf16;
    if (cpu->level >= ASH_CPU_AMX)
        all[n++] = &amx;
    return index < n ? all[index] : NULL;
}
#elif defined(__aarch64__)
const ash_kernel *ash_kernel_get(ash_cpu_level level)
{
    return level == ASH_CPU_SCALAR ? &ref : ash_arm_kernel(level);
}

const ash_kernel *ash_kernel_variant(int index)
{
    return index <= (int)ash_cpu_get()->level ? ash_kernel_get((ash_cpu_level)index) : NULL;
}
#else
const ash_kernel *ash_kernel_variant(int index)
{
    return index == 0 ? &ref : NULL;
}

const ash_kernel *ash_kernel_get(ash_cpu_level level)
{
    return &ref;
}
#endif

int64_t ash_kernel_scratch(const ash_kernel *k, int64_t max_cols)
{
#if defined(__x86_64__)
    int64_t raw = ash_avx512_raw_scratch(max_cols), tiles = ash_amx_scratch();
#endif
    switch (k->level) {
    case ASH_CPU_SCALAR: return ASH_GROUP * max_cols * (int64_t)sizeof(float);
#if defined(__x86_64__)
    case ASH_CPU_AVX512: return raw;
    case ASH_CPU_AMX: return raw > tiles ? raw : tiles;
#endif
    default: return 64;
    }
}
