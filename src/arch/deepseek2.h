/* Sizes of DeepSeek-V2 and V3 beside those that every decoder has. Private to the architecture. */
#ifndef ASHLEY_ARCH_DEEPSEEK2_H
#define ASHLEY_ARCH_DEEPSEEK2_H

#include "arch/hparams.h"
#include "nn/router.h"

typedef struct ash_deepseek2 {
    int64_t q_lora;        /* rank of the queries' latent; 0: queries come from one matrix */
    int64_t kv_lora;       /* rank of the keys' and values' latent */
    int64_t nope, rope, v; /* of a head: query and key without and with rotation, value */
    int64_t n_dense;       /* leading layers without experts; all of them if there are no experts */
    int64_t n_experts, n_used, n_groups, n_used_groups;
    int64_t n_shared;      /* experts of every token: one of n_shared * expert_ff */
    int64_t expert_ff;
    bool biased;           /* the choice of experts has a bias */
    ash_router router;     /* where there are experts */
    float scale;           /* of attention's scores */
} ash_deepseek2;

/* From the keys "deepseek2.*" of GGUF or from config.json; completes hp, which ash_hparams_read has
 * read with ASH_HPARAMS_OWN_HEADS. Errors name the key: ASH_ENOENT, ASH_EFORMAT, and ASH_EUNSUPPORTED for
 * ways of routing that are not known. */
int ash_deepseek2_read(const ash_checkpoint *c, ash_hparams *hp, ash_deepseek2 *out,
                       ash_err *err) ASH_MUST_CHECK;

#endif
