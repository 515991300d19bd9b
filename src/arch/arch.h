/* Architectures: how a family of models computes logits from tokens. Each is four functions.
 *
 *   match    is this checkpoint of the family?
 *   plan     sizes, from the headers only: bytes of weights, of a KV block, of scratch
 *   bind     the weights' memory is there: point at it, read the small vectors
 *   forward  one batch
 *
 * An ash_net is made by plan and immutable once it is bound and packed (engine/model.c packs);
 * everything a forward writes is in ash_run, one forward at a time. */
#ifndef ASHLEY_ARCH_ARCH_H
#define ASHLEY_ARCH_ARCH_H

#include <stdatomic.h>

#include "arch/bind.h"
#include "arch/hparams.h"
#include "nn/kv.h"
#include "nn/moe.h"

typedef struct ash_arch ash_arch;

/* What every architecture's model begins with. */
typedef struct ash_net {
    const ash_arch *arch;
    const char *name;      /* "llama", "mistral", ...: what it was called; constant text */
    ash_hparams hp;
    ash_kv_shape kv;       /* what a KV pool must be made for; its type is the engine's to choose */
    ash_binding binding;   /* where each tensor goes; binding.bytes are the weights */
    uint64_t row_bytes;    /* scratch of a forward for each row of its batch */
    ash_arena arena;       /* owns what plan allocated, the tensor table too */
} ash_net;

/* One token to compute. Rows of one sequence stand together with ascending positions; nothing else is
 * asked of their order. A row's result does not depend on the rest of the batch. */
typedef struct ash_batch_row {
    int32_t token;        /* 0 <= token < n_vocab */
    int32_t pos;          /* from 0; all before it are in the KV pool or in this batch */
    const int32_t *table; /* KV blocks of its sequence, entries up to pos / 32; borrowed */
    bool wants_logits;    /* only such rows go through the vocabulary's matrix */
    int32_t text;         /* tokens of the prompt it is of; 0, or fewer than pos + 1: those up to itself.
                             Only dynamic rope scaling looks at it */
} ash_batch_row;

typedef struct ash_batch {
    const ash_batch_row *rows;
    int n;         /* 1 .. max_rows of run->nn */
    float *logits; /* [rows that want them][n_vocab], in the rows' order */
} ash_batch;

/* What forwards write: one at a time each. */
typedef struct ash_run {
    ash_nn *nn;    /* opened with ash_net_nn_options or larger */
    ash_kv *kv;
    void *scratch; /* row_bytes times max_rows of nn, 64-byte aligned */
    const atomic_bool *give_way; /* true ends a forward before its next layer, its logits and keys then of
                                    no use; NULL: always to the end */
    const ash_moe_supply *experts; /* of routed experts that are not all in memory, or NULL; borrowed */
} ash_run;

/* Whether a forward is to end before its next layer. */
static inline bool ash_run_gives_way(const ash_run *run)
{
    return run->give_way && atomic_load_explicit(run->give_way, memory_order_relaxed);
}

struct ash_arch {
    const char *names; /* of GGUF's general.architecture and config.json's model_type, for messages */
    bool (*match)(const ash_checkpoint *c);
    /* Reads and checks metadata and shapes, touches no weight. *out is the caller's (ash_net_close);
     * it borrows c until it is packed. Errors name key or tensor. */
    int (*plan)(const ash_checkpoint *c, ash_net **out, ash_err *err);
    /* region: binding.bytes, 64-byte aligned, zeroed, or read-only if binding.restored; borrowed until
     * close. */
    int (*bind)(ash_net *net, void *region, ash_err *err);
    void (*forward)(const ash_net *net, ash_run *run, const ash_batch *batch);
    void (*close)(ash_net *net);
};

/* The architecture of a checkpoint. ASH_EUNSUPPORTED names it and those that are known. */
int ash_arch_find(const ash_checkpoint *c, const ash_arch **out, ash_err *err) ASH_MUST_CHECK;
/* What the checkpoint calls its architecture: GGUF's general.architecture, config.json's model_type or,
 * without one, the first of its architectures ("LlamaForCausalLM"). False if it says nothing; borrowed. */
bool ash_arch_name(const ash_checkpoint *c, ash_str *out);
void ash_net_close(ash_net *net); /* NULL is fine */
/* Tokens of a text whose keys do not depend on how long it becomes: beyond, with dynamic rope scaling,
 * sequences do not share prefixes. UINT32_MAX: all. */
uint32_t ash_net_fixed(const ash_net *net);
/* What nn must be opened for, for batches of max_rows and sequences of max_context. */
ash_nn_options ash_net_nn_options(const ash_net *net, ash_cpu_level level, int threads, int max_rows,
                                  int64_t max_context);

extern const ash_arch ash_arch_llama, ash_arch_deepseek2;

#endif
