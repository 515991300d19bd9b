/* A small model that guesses how a text goes on: its weights, and keys and values of the texts it reads.
 *
 * It must have the vocabulary of the model it guesses for: the same tokens under the same ids. What it
 * computes is only ever a guess (engine/draft.h), so nothing of it can be wrong: a text is what it is
 * without.
 *
 * A few slots keep keys and values of a text each, from `base` on: a text may be read from its start or only
 * its end. A slot knows its tokens: what stays the same of a text is not computed again when guesses were
 * wrong, nor when a later job begins as an earlier one did.
 *
 * The scheduler's thread alone, but for open and close. Forwards run on the pool of the model they guess for,
 * in turns with that. Nothing is allocated after open. */
#ifndef ASHLEY_ENGINE_DRAFT_MODEL_H
#define ASHLEY_ENGINE_DRAFT_MODEL_H

#include "engine/model.h"

enum {
    ASH_DRAFT_SLOTS = 4,  /* texts at once; with more of them a row costs too much for guessing to pay */
    ASH_DRAFT_ROWS = 128, /* of a forward */
};

typedef struct ash_draft_model ash_draft_model;

/* Whether both have the same tokens under the same ids. Either may be NULL: then only rows count, which open
 * compares. ASH_EUNSUPPORTED says what differs. */
int ash_draft_vocabulary(const ash_tokenizer *model, const ash_tokenizer *draft, ash_err *err) ASH_MUST_CHECK;
/* Bytes that opts->draft_path will take beside a model with a context of n_ctx: weights, slots and scratch.
 * From headers; errors as ash_model_open. */
int ash_draft_model_plan(const ash_engine_opts *opts, uint32_t n_ctx, uint64_t *bytes,
                         ash_err *err) ASH_MUST_CHECK;
/* Loads opts->draft_path to guess for `model`, which is loaded; borrows it and the pool. ASH_ECANCELED by
 * opts->cancel; any other error (vocabulary, file, memory) is a reason to go on without. */
int ash_draft_model_open(const ash_engine_opts *opts, const ash_model *model, ash_pool *pool,
                         ash_draft_model **out, ash_err *err) ASH_MUST_CHECK;
void ash_draft_model_close(ash_draft_model *d); /* NULL is fine */
const char *ash_draft_model_name(const ash_draft_model *d);
uint64_t ash_draft_model_bytes(const ash_draft_model *d);
/* Of these the bytes of slots and scratch that nothing has needed yet. Any thread; NULL has none. */
uint64_t ash_draft_model_untouched(const ash_draft_model *d);
/* Measured while opening: a forward of one row, and a row of one of many. */
int64_t ash_draft_model_step_ns(const ash_draft_model *d);
int64_t ash_draft_model_row_ns(const ash_draft_model *d);
/* What its weights were mapped from is damaged: its guesses are worth nothing. */
bool ash_draft_model_lost(const ash_draft_model *d);

/* The slot of that job, 0 <= slot < ASH_DRAFT_SLOTS: the one it has; else of those whose jobs are not among
 * busy[0..n_busy) the one that has most of ids[0..n) in common, of equals the one not used for longest. busy
 * has the job too, and at most ASH_DRAFT_SLOTS in all. */
int ash_draft_model_place(ash_draft_model *d, uint64_t job, const int32_t *ids, uint32_t n,
                          const uint64_t *busy, int n_busy);
/* How many tokens of the text ids[0..n), n >= 1, the slot still has to read; at least the last one, whose
 * logits are wanted. UINT32_MAX: text and guesses would not fit the slot, restart it. */
uint32_t ash_draft_model_behind(ash_draft_model *d, int slot, const int32_t *ids, uint32_t n);
/* Forgets what the slot has; the text is read from ids[base] on. */
void ash_draft_model_restart(ash_draft_model *d, int slot, uint32_t base);
/* Tokens that a slot holds, of a text from its base on and of guesses. */
uint32_t ash_draft_model_context(const ash_draft_model *d);

/* What a slot reads next. */
typedef struct ash_draft_input {
    int slot;
    const int32_t *ids; /* n >= 1 tokens of the text that go on from what the slot has */
    uint32_t n;
    int32_t guess;      /* out: the likeliest token after the last of ids */
    float sure;         /* out: its probability at temperature 1 */
} ash_draft_input;

/* One forward; slots differ, all their tokens are at most ASH_DRAFT_ROWS. guess is -1 if none is wanted. */
void ash_draft_model_read(ash_draft_model *d, ash_draft_input *in, int n, bool want_guesses);

#endif
