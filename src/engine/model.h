/* A checkpoint in memory: packed weights, tokenizer, template and what is told about them.
 *
 * open reads the headers and sizes everything; load takes the memory and fills it, finish has the text. A
 * finished model is immutable: any thread. */
#ifndef ASHLEY_ENGINE_MODEL_H
#define ASHLEY_ENGINE_MODEL_H

#include <pthread.h>

#include "arch/arch.h"
#include "engine/engine.h"
#include "engine/expert_cache.h"
#include "engine/packs.h"
#include "engine/placement.h"
#include "engine/populate.h"

/* Memory of an engine, from headers and options. */
typedef struct ash_sizes {
    uint32_t n_ctx;         /* tokens of a sequence */
    uint32_t max_sequences; /* running at once */
    int max_rows;           /* of a forward */
    ash_kv_shape kv;        /* the network's, with the element type that the kernels want */
    int32_t kv_blocks;      /* of ASH_KV_TOKENS tokens */
    ash_nn_options nn;
    uint64_t run_bytes;     /* the architecture's scratch of max_rows */
    uint64_t logits_bytes;  /* [max_sequences + ASH_MAX_DRAFT][n_vocab] floats */
    ash_engine_plan plan;
} ash_sizes;

/* The reading of tokenizer and template (engine/model_text.h). */
typedef struct ash_model_text {
    const char *path, *template_text; /* of the options, copied into the arena */
    bool bare;
    pthread_t thread;
    bool begun;
    bool started; /* the thread; and not waited for */
    int rc;
    ash_err err;
} ash_model_text;

typedef struct ash_model {
    ash_checkpoint *files; /* owned; NULL once finished */
    ash_net *net;   /* owned */
    ash_sizes sizes;
    ash_model_text text;
    ash_tokenizer *tokenizer; /* owned, or NULL */
    ash_template *template;   /* owned, or NULL */
    ash_model_info info;      /* strings in the arena */
    const char *bos_text, *eos_text;
    int64_t n_usable;  /* ids that may be sampled: those the tokenizer knows */
    size_t max_piece;  /* bytes of the longest token; 0 without a tokenizer */
    ash_arena arena;
    const void *region; /* the packed weights: in map, or mapped by packs */
    void *map;         /* owned: the weights' mapping, or NULL */
    uint64_t map_bytes;
    ash_packs *packs;  /* owned, or NULL */
    ash_placement *placement; /* owned: moves pages of what packs mapped; or NULL */
    ash_populate *populate;   /* owned: maps the rest of it once it is loaded; or NULL */
    ash_expert_sizes experts;  /* of the weights */
    bool streams;      /* routed experts come and go: the weights are more than opts->weights_max */
    ash_expert_cache *cache;   /* owned; streams: once loaded */
    int pack_fd;       /* owned; that the cache reads, or -1 */
} ash_model;

/* Maps opts->path and plans. Errors as ash_checkpoint_open, ash_arch_find, ash_hparams_read,
 * ash_bind_plan. */
int ash_model_open(const ash_engine_opts *opts, ash_model **out, ash_err *err) ASH_MUST_CHECK;
/* The same of files that are open or declared (ash_checkpoint_declare); takes them, also on failure. A
 * declared model cannot be loaded. */
int ash_model_plan(const ash_engine_opts *opts, ash_checkpoint *files, ash_model **out,
                   ash_err *err) ASH_MUST_CHECK;
/* Sizes a model that is not loaded by other options of the same path. On failure close it. */
int ash_model_size(ash_model *m, const ash_engine_opts *opts, ash_err *err) ASH_MUST_CHECK;
/* Maps the weights as an earlier start packed them; else takes their memory once and packs in the files'
 * order on the pool, giving back source pages behind: resident at most packed + ~32 MiB. Tokenizer and
 * template are read meanwhile, but before anything is packed. Calls opts->progress; ASH_ECANCELED soon after
 * opts->cancel. Afterwards weights may be used, the rest after finish. On failure close it. */
int ash_model_load(ash_model *m, const ash_engine_opts *opts, ash_pool *pool,
                   ash_err *err) ASH_MUST_CHECK;
/* Waits for tokenizer and template, closes the files, and has the rest of a mapped pack file mapped in the
 * background. On failure close it. */
int ash_model_finish(ash_model *m, ash_err *err) ASH_MUST_CHECK;
void ash_model_close(ash_model *m); /* NULL is fine */
/* ASH_SHA256_BYTES that stand for the weights: the content of all their files and of the configuration, the
 * version of packing and the layout. Two models of one key and one kernel table compute alike. NULL without
 * opts->state_dir and until it is known, which can be some seconds after the load (files are read to learn
 * their content). Constant from then on, borrowed; any thread. */
const uint8_t *ash_model_key(const ash_model *m);

/* About what a running sequence's sampler takes. */
uint64_t ash_model_sampler_bytes(const ash_model *m);

/* True once weights have got lost while they were in use (a pack file was damaged, its disk failed): what was
 * computed since then means nothing. Any thread. */
bool ash_model_lost(const ash_model *m);

/* Tells opts->progress, then ASH_ECANCELED if opts->cancel is set. */
int ash_model_progress(const ash_engine_opts *opts, ash_load_stage stage, uint64_t done, uint64_t total,
                       ash_err *err) ASH_MUST_CHECK;

#endif
