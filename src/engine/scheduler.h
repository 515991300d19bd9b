/* The scheduler: one thread that owns all sequences and the KV pool of an engine, and steps them
 * together (continuous batching).
 *
 * A step is one forward: a row for every sequence that decodes, and beside them chunks of prompts, as
 * many rows as keep running streams flowing. Waiting jobs start in order of age as soon as there is a
 * place and KV memory for their prompt; a prompt shares what the prefix cache knows of it. When KV
 * memory runs out the youngest sequence gives way: it goes back to the queue and is computed again
 * later, mostly from the prefix cache. Background jobs start only when no chat waits, take part in
 * every fourth step while a chat runs, give way first, and never evict a chat's prefix.
 *
 * A sequence that decodes may have further rows, of tokens that are guessed to follow (draft.h, drafting.h).
 * Its sampler draws from row after row for as long as it draws what was guessed; rows behind are computed
 * again. So a text is what it would be without guesses, at any temperature.
 *
 * A sequence's results do not depend on what runs beside it: kernels compute each row for itself. */
#ifndef ASHLEY_ENGINE_SCHEDULER_H
#define ASHLEY_ENGINE_SCHEDULER_H

#include "engine/draft_model.h"
#include "engine/kv_slots.h"
#include "engine/sequence.h"

typedef struct ash_scheduler ash_scheduler;

/* Borrows a loaded model and its run (scratch, KV pool); logits is [max_sequences + ASH_MAX_DRAFT][n_vocab].
 * draft: borrowed, or NULL. row_ns: what a row of a prompt was measured to take; corrected while running.
 * warm_blocks: so many of the pool's first blocks have memory already.
 * Starts the thread. */
int ash_scheduler_open(const ash_model *m, ash_run *run, float *logits, ash_prediction prediction,
                       ash_draft_model *draft, int64_t row_ns, uint32_t warm_blocks, ash_scheduler **out,
                       ash_err *err) ASH_MUST_CHECK;
/* Ends all jobs with ASH_FINISH_CANCELED, joins the thread, frees. NULL is fine. */
void ash_scheduler_close(ash_scheduler *s);

/* Any thread; see engine.h. */
int ash_scheduler_submit(ash_scheduler *s, const ash_job *job, uint64_t *id, ash_err *err) ASH_MUST_CHECK;
void ash_scheduler_cancel(ash_scheduler *s, uint64_t id);
int ash_scheduler_eval(ash_scheduler *s, const int32_t *ids, size_t n, bool all, float *logits,
                       ash_err *err) ASH_MUST_CHECK;
/* Runs fn on the scheduler's thread between two steps and returns what it returns; ASH_ECANCELED without a
 * call once the scheduler closes. fn may take blocks and keep them referenced until a later call: jobs that
 * then lack KV memory wait for that. Running streams wait while it runs. Any other thread. */
typedef int (*ash_scheduler_fn)(ash_prefix_cache *cache, ash_kv *kv, void *arg, ash_err *err);
int ash_scheduler_call(ash_scheduler *s, ash_scheduler_fn fn, void *arg, ash_err *err) ASH_MUST_CHECK;
/* Has prefixes that are evicted go to the store, and come back from it; takes it, also on failure. Once. */
int ash_scheduler_spill(ash_scheduler *s, ash_kv_slots *store, ash_err *err) ASH_MUST_CHECK;
void ash_scheduler_stats(const ash_scheduler *s, ash_engine_stats *out);
/* Bytes for samplers and for blocks that go to the disk that have no memory now. Any thread. */
uint64_t ash_scheduler_untouched(const ash_scheduler *s);
/* Waits until the statistics know of all that is done so far. ASH_ECANCELED once the scheduler closes. */
int ash_scheduler_settle(ash_scheduler *s, ash_err *err) ASH_MUST_CHECK;

#endif
