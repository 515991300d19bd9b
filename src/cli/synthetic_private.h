/* What the files that make random checkpoints share; nobody else includes it. */
#ifndef ASHLEY_CLI_SYNTHETIC_PRIVATE_H
#define ASHLEY_CLI_SYNTHETIC_PRIVATE_H

#include "base/buf.h"
#include "cli/synthetic.h"

/* What a mixture with latent attention has besides. */
typedef struct ash_synthetic_mixture {
    uint32_t dense, experts, used, shared, expert_ffn;
    uint32_t kv_lora, rope, nope, v; /* of the latent; of a head */
} ash_synthetic_mixture;

typedef struct ash_synthetic_shape {
    const char *name;
    uint32_t layers, embd, ffn, heads, kv_heads, vocab, ctx;
    bool tied;
    float theta;
    const ash_synthetic_mixture *mixture; /* or NULL: a Llama */
} ash_synthetic_shape;

/* Fills fd with safetensors, 4 bits in groups of 128, and folder with config.json and a link to fd. */
int ash_synthetic_gptq(const ash_synthetic_shape *s, bool act_order, int fd, const char *folder,
                       ash_err *err) ASH_MUST_CHECK;

#endif
