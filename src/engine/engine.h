/* One loaded model with its scheduler: the boundary between what answers and what computes.
 *
 * ash_engine_open maps, checks, packs and warms a checkpoint (a request that waits for it takes the
 * place of the warming) and starts the scheduler thread, which
 * alone owns sequences and KV. Any thread submits jobs; the scheduler batches all of them (continuous
 * batching: every step decodes one token of each running sequence and prefills a chunk of waiting
 * prompts beside them) and reports through the job's callback. No allocation in a token step. */
#ifndef ASHLEY_ENGINE_ENGINE_H
#define ASHLEY_ENGINE_ENGINE_H

#include <stdatomic.h>

#include "base/buf.h"
#include "base/cpu.h"
#include "text/chat.h"
#include "text/sampler.h"
#include "text/tokenizer.h"

typedef struct ash_engine ash_engine;
/* A checkpoint whose headers are read and sized, so that its load need not read them again. One thread. */
typedef struct ash_model ash_headers;

/* The stages of a load that the engine does itself, in order. */
typedef enum ash_load_stage {
    ASH_LOAD_VERIFY,  /* headers, shapes and metadata checked */
    ASH_LOAD_MAP,     /* file mapped, memory reserved */
    ASH_LOAD_PACK,    /* weights read and packed; done/total are source bytes */
    ASH_LOAD_WARM,    /* first steps run, so that no request pays for cold pages, unless one waits */
    ASH_LOAD_PREFILL, /* `warm_prompt` computed into the prefix cache; done/total are tokens */
} ash_load_stage;

/* Guessing how a text goes on (engine/draft.h). A text is the same to the bit with and without. */
typedef enum ash_prediction {
    ASH_PREDICTION_AUTO,   /* where it is measured to win */
    ASH_PREDICTION_NEVER,
    ASH_PREDICTION_ALWAYS, /* whenever there is a guess, whatever it costs; for tests and measurements */
} ash_prediction;

typedef struct ash_engine_opts {
    const char *path;          /* a checkpoint: file or folder, as format/checkpoint.h; borrowed */
    const char *template_text; /* Jinja text that replaces the checkpoint's own, or NULL; borrowed */
    uint32_t ctx;              /* tokens a sequence may hold, also more than trained on; 0 = the
                                  model's own, at most 8192 */
    uint32_t max_sequences;    /* running at once; 0 = 32 */
    uint64_t kv_bytes;         /* KV pool; 0 = room for max(ctx, 4096) * 4 tokens, at least one ctx */
    uint64_t weights_max;      /* bytes of memory for weights; 0 = all that they take. Of a larger mixture
                                  experts come and go (engine/expert_cache.h), which needs state_dir and disk;
                                  another model is refused with ASH_ENOSPC */
    bool kv_q8;                /* keys and values in 8 bits, a step for each token and head, instead of half
                                  floats; a latent (MLA) stays as it is */
    int threads;               /* 0 = ash_cpu_threads() */
    ash_prediction prediction;
    const char *draft_path;    /* a checkpoint of a small model with the same vocabulary that guesses
                                  (engine/draft_model.h), or NULL; borrowed. What keeps it from doing so is
                                  no failure: ash_model_info.draft_refused. Not opened with
                                  ASH_PREDICTION_NEVER */
    ash_cpu_level cpu;         /* kernel set, at most ash_cpu_get()->level */
    bool bare;                 /* weights only: a checkpoint without tokenizer or template will do */
    const char *warm_prompt;   /* system prompt to prefill while loading, or NULL; borrowed */
    const char *state_dir;     /* a folder for what makes the next start faster (packed weights in packs/, the
                                  warm prompt's keys and values in kv/), or NULL: nothing is kept; borrowed.
                                  What is in it is never needed, and never trusted without a check */
    uint64_t disk_budget;      /* bytes that may be kept there; 0: a share of the free disk. kv/ has a
                                  quarter of it (engine/kv_folder.h) */
    /* Called on the opening thread, often; must not block. May be NULL. */
    void (*progress)(void *user, ash_load_stage stage, uint64_t done, uint64_t total);
    void *user;
    const atomic_bool *awaited; /* true once a request waits for this load: nothing is warmed from then on,
                                   what is begun ends within a layer, and the request pays for cold pages.
                                   Must not become false again before the engine is open. May be NULL */
    const atomic_bool *cancel; /* true ends the load with ASH_ECANCELED within 1 s; may be NULL */
    ash_headers **headers;     /* where the headers of `path` stay from one call to the next, from a NULL on:
                                  ash_engine_plan_read leaves there what it has opened, or sizes anew what
                                  it finds; ash_engine_open takes it; the caller closes what is left. They
                                  hold the files as they were when opened. NULL: nothing is kept */
    bool text_ahead;           /* ash_engine_plan_read with headers begins to read tokenizer and template, on
                                  a thread of its own: for a load that comes next, of the same
                                  template_text and bare. ash_headers_close waits for its end, some 10 ms */
} ash_engine_opts;

/* What a load will take; read from headers only, nothing is computed. */
typedef struct ash_engine_plan {
    uint64_t file_bytes;    /* all parts */
    uint64_t weight_bytes;  /* packed, in memory at once */
    uint64_t weights_least; /* the same with the fewest experts; weight_bytes where none come and go. With
                               fewer than all (weights_max) the pack file is needed beside */
    uint64_t kv_bytes;      /* pool, */
    uint64_t kv_least;      /* and the smallest one that serves: a context */
    uint64_t scratch_bytes; /* activations, logits, sampler state */
    uint64_t draft_bytes;   /* all of the draft model; 0 without one, or if its headers refuse it */
    uint32_t n_ctx;         /* as it will be served */
} ash_engine_plan;

typedef struct ash_model_info {
    const char *architecture; /* "llama" */
    const char *name;         /* general.name or the file's name */
    const char *format;       /* "GGUF", "safetensors", "PyTorch" */
    const char *quantization; /* how most weights are stored: "Q4_1", "BF16", "FP8",
                                 "GPTQ 4-bit, group 128, act-order" */
    uint64_t n_params, file_bytes, weight_bytes, kv_bytes, scratch_bytes;
    uint64_t token_params, step_bytes; /* as ash_binding has them: what a token costs */
    double expert_room;        /* of the bytes of experts that come and go, the share that may be in memory at
                                  once; 0: all weights are in memory */
    const char *draft;         /* the name of the draft model that guesses, or NULL */
    const char *draft_refused; /* why none does although one was named, or NULL */
    uint64_t draft_bytes;      /* all that it takes; 0 without */
    bool warmed;               /* before it was opened; false: a request that waited took the place of it */
    bool mapped;               /* the weights are a pack file's, whose pages still come into the process */
    uint32_t n_ctx, n_ctx_train, n_vocab, n_layers, n_embd, n_heads, n_kv_heads;
    const char *chat_template; /* its text, "" if none */
    const char *template_from; /* "GGUF tokenizer.chat_template", "catalogue", "none" */
} ash_model_info;

int ash_engine_plan_read(const ash_engine_opts *opts, ash_engine_plan *out, ash_err *err) ASH_MUST_CHECK;
void ash_headers_close(ash_headers *h); /* NULL is fine */
/* Blocks while loading. On success *out is the caller's. Nothing is left behind on failure. */
int ash_engine_open(const ash_engine_opts *opts, ash_engine **out, ash_err *err) ASH_MUST_CHECK;
/* Ends running jobs (their final event says ASH_FINISH_CANCELED), joins the scheduler, frees. NULL ok. */
void ash_engine_close(ash_engine *e);

/* Constant after open; borrowed, any thread. tokenizer and template are NULL when the checkpoint has
 * none. Render with ash_chat_format(template, ...) of text/chat.h and the strings of the tokens below. */
const ash_model_info *ash_engine_info(const ash_engine *e);
const ash_tokenizer *ash_engine_tokenizer(const ash_engine *e);
const ash_template *ash_engine_template(const ash_engine *e);
/* BOS and EOS as text for ash_chat_opts; "" where there is none. */
const char *ash_engine_bos_text(const ash_engine *e);
const char *ash_engine_eos_text(const ash_engine *e);

typedef enum ash_finish {
    ASH_FINISH_NONE,
    ASH_FINISH_STOP,     /* end of text, or a stop string */
    ASH_FINISH_LENGTH,   /* max_tokens or the context is full */
    ASH_FINISH_CANCELED, /* ash_engine_cancel or close */
    ASH_FINISH_ERROR,    /* event.error says why */
} ash_finish;

typedef enum ash_event_kind {
    ASH_EVENT_STARTED,  /* left the queue; prefill begins */
    ASH_EVENT_PROGRESS, /* only with want_progress: prefill so far */
    ASH_EVENT_TOKEN,    /* one token was sampled; text may be empty (held back for a stop string or
                           half a code point) */
    ASH_EVENT_DONE,     /* the last event of every job, exactly once; text may hold what was left */
} ash_event_kind;

typedef struct ash_usage {
    uint32_t prompt_tokens, cached_tokens, completion_tokens;
    uint32_t prefilled_tokens; /* of the prompt, cached ones too: all of it, unless the job ended before */
    double queue_ms, prefill_ms, decode_ms; /* prefill: started to first token */
} ash_usage;

typedef struct ash_event {
    ash_event_kind kind;
    ash_str text;             /* whole UTF-8 code points; borrowed during the call */
    int32_t id;               /* TOKEN: what was sampled */
    const ash_sample *sample; /* TOKEN with n_top_logprobs or want_logprobs: log-probabilities */
    uint32_t total, cached, processed; /* PROGRESS, in tokens */
    ash_finish finish;        /* DONE */
    const char *stop_string;  /* DONE by a stop string: which; else NULL */
    const ash_usage *usage;   /* DONE */
    const ash_err *error;     /* DONE with ASH_FINISH_ERROR */
} ash_event;

typedef struct ash_job {
    const int32_t *ids; /* the prompt, n_ids >= 1; copied */
    size_t n_ids;
    ash_sampler_params sampling; /* arrays in it are copied */
    int64_t max_tokens;          /* < 0: to the end of the context; 0: prefill only */
    const char *const *stops;    /* n_stops strings; copied */
    size_t n_stops;
    bool ignore_eos;
    bool want_logprobs, want_progress;
    bool skip_special;  /* special tokens are not written to the text (chats); else they are */
    bool background;    /* yields to other jobs; never evicts a chat's prefix */
    /* Called on the scheduler's thread; must be quick and must not call back into the engine except
     * ash_engine_cancel. */
    void (*on_event)(void *user, const ash_event *ev);
    void *user;
} ash_job;

/* Queues a job; *id names it for ash_engine_cancel. ASH_ELIMIT with "n_prompt N, n_ctx M" in the
 * message if the prompt does not fit the context; ASH_EAGAIN when ASH_MAX_QUEUE jobs wait or run
 * already. Any thread. */
int ash_engine_submit(ash_engine *e, const ash_job *job, uint64_t *id, ash_err *err) ASH_MUST_CHECK;
/* The job's DONE event follows soon (finish CANCELED), on the scheduler's thread. Unknown and
 * finished ids are ignored. Any thread, also inside on_event. */
void ash_engine_cancel(ash_engine *e, uint64_t id);

/* Logits of a prompt, for checking an engine: float32 [n, n_vocab], rows of every position (all) or of
 * the last one only. Runs alone on the scheduler's thread between steps; blocks the caller. */
int ash_engine_eval(ash_engine *e, const int32_t *ids, size_t n, bool all, float *logits,
                    ash_err *err) ASH_MUST_CHECK;

typedef struct ash_engine_stats {
    uint32_t running, queued;
    uint32_t kv_blocks, kv_blocks_used, kv_blocks_cached; /* cached: kept for prefix reuse */
    uint32_t kv_blocks_resident; /* that have memory: used, cached, or free since a short while */
    uint64_t prompt_tokens, cached_tokens, completion_tokens;
    uint64_t guessed_tokens, right_tokens; /* computed as guesses; those that came true */
    uint64_t drafted_tokens, drafted_right; /* of these from the draft model */
    uint64_t experts_chosen, experts_found; /* where experts come and go: asked for; of those, in memory */
    uint64_t token_experts_chosen, token_experts_found; /* as in ash_expert_counts: what decoding meets */
    uint64_t expert_read_bytes, expert_wait_ns; /* read for them, and waited for that */
    int64_t last_step_ns; /* monotonic; for liveness: 0 before the first */
    bool lost; /* pages of its pack file are gone (it was cut, the disk failed): no answer can be right until
                  it is opened anew */
} ash_engine_stats;
void ash_engine_get_stats(const ash_engine *e, ash_engine_stats *out);
/* Of what it may take (KV pool, scratch, samplers, draft model) the bytes that have no memory now, because
 * nothing has needed them yet or lately. Asks the kernel: about 0.1 ms. */
uint64_t ash_engine_untouched(const ash_engine *e);

#endif
