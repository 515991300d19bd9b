/* Owns the tables of the Arm kernels. Constant data, any thread. */
#include "kernel/arm/arm.h"
#include "kernel/ref/ref.h"

#define ACTS(BF16)                                                                                    \
    .act = {[ASH_FORM_F32] = ASH_ACT_F32, [ASH_FORM_F16] = ASH_ACT_F32, [ASH_FORM_BF16] = BF16,       \
            [ASH_FORM_U4Z] = ASH_ACT_I8,  [ASH_FORM_U4M] = ASH_ACT_I8,  [ASH_FORM_U8Z] = ASH_ACT_I8,  \
            [ASH_FORM_U4G] = ASH_ACT_I8,  [ASH_FORM_U8G] = ASH_ACT_I8,  [ASH_FORM_F8] = ASH_ACT_F32,  \
            [ASH_FORM_RAW] = ASH_ACT_I8}

#define MATMULS(ISA, BF16)                                                                            \
    .matmul = {[ASH_FORM_F32] = ash_neon_matmul_f32,     [ASH_FORM_F16] = ash_neon_matmul_f16,        \
               [ASH_FORM_BF16] = BF16,                   [ASH_FORM_U4Z] = ash_##ISA##_matmul_u4z,     \
               [ASH_FORM_U4M] = ash_##ISA##_matmul_u4m,  [ASH_FORM_U8Z] = ash_##ISA##_matmul_u8z,     \
               [ASH_FORM_U4G] = ash_##ISA##_matmul_u4g,  [ASH_FORM_U8G] = ash_##ISA##_matmul_u8g,     \
               [ASH_FORM_F8] = ash_neon_matmul_f8,       [ASH_FORM_RAW] = ash_##ISA##_matmul_raw}

/* What all levels have alike. */
#define SHARED                                                                                        \
    .quantise = ash_neon_quantise, .to_f16 = ash_neon_to_f16, .pack_bits = ash_neon_pack_bits,        \
    .rms_norm = ash_neon_rms_norm, .add = ash_neon_add,                                               \
    .silu_mul = ash_neon_silu_mul, .rope_adjacent = ash_neon_rope_adjacent,                           \
    .rope_halves = ash_neon_rope_halves, .kv = ASH_KV_F16, .span_act = ASH_ACT_F32,                   \
    .span = ash_neon_span, .merge = ash_neon_merge

static const ash_kernel neon = {.name = "neon", .level = ASH_CPU_NEON, ACTS(ASH_ACT_F32),
                                MATMULS(neon, ash_neon_matmul_bf16), .to_bf16 = ash_ref_to_bf16, SHARED};
static const ash_kernel dotprod = {.name = "dotprod", .level = ASH_CPU_DOTPROD, ACTS(ASH_ACT_F32),
                                   MATMULS(dotprod, ash_neon_matmul_bf16), .to_bf16 = ash_ref_to_bf16,
                                   SHARED};
static const ash_kernel i8mm = {.name = "i8mm", .level = ASH_CPU_I8MM, ACTS(ASH_ACT_BF16),
                                MATMULS(i8mm, ash_i8mm_matmul_bf16), .to_bf16 = ash_i8mm_to_bf16,
                                .fine = {[ASH_FORM_BF16] = ash_neon_matmul_bf16}, SHARED};

const ash_kernel *ash_arm_kernel(ash_cpu_level level)
{
    return level == ASH_CPU_NEON ? &neon : level == ASH_CPU_DOTPROD ? &dotprod : &i8mm;
}
