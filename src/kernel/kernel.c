/* Owns the choice of the table. Constant data, any thread. */
#include "kernel/kernel.h"

#include "kernel/ref/ref.h"

static const ash_kernel ref = {
    .level = ASH_CPU_SCALAR,
    .act = {ASH_ACT_F32, ASH_ACT_F32, ASH_ACT_F32, ASH_ACT_F32, ASH_ACT_F32, ASH_ACT_F32},
    .matmul = {ash_ref_matmul, ash_ref_matmul, ash_ref_matmul, ash_ref_matmul, ash_ref_matmul,
               ash_ref_matmul},
    .quantise = ash_ref_quantise,
    .to_bf16 = ash_ref_to_bf16,
    .to_f16 = ash_ref_to_f16,
    .rms_norm = ash_ref_rms_norm,
    .add = ash_ref_add,
    .silu_mul = ash_ref_silu_mul,
    .rope_adjacent = ash_ref_rope_adjacent,
    .rope_halves = ash_ref_rope_halves,
    .span = ash_ref_span,
    .merge = ash_ref_merge,
};

const ash_kernel *ash_kernel_get(ash_cpu_level level)
{
    (void)level;
    return &ref;
}

int64_t ash_kernel_scratch(const ash_kernel *k, int64_t max_cols)
{
    return k->level == ASH_CPU_SCALAR ? ASH_GROUP * max_cols * (int64_t)sizeof(float) : 64;
}
