/* One job on its way: tokens, place in the KV pool, sampler, and the text still held back.
 *
 * Made by the thread that submits; from then on the scheduler's thread alone touches it, but for
 * `canceled`. No allocation once it has started. */
#ifndef ASHLEY_ENGINE_SEQUENCE_H
#define ASHLEY_ENGINE_SEQUENCE_H

#include "engine/allowance.h"
#include "engine/draft.h"
#include "engine/model.h"
#include "engine/prefix_cache.h"
#include "text/stop.h"

typedef struct ash_sequence ash_sequence;
struct ash_sequence {
    uint64_t id;              /* ascending in order of submission: smaller is older */
    ash_sequence *next;       /* in the list it is in */
    ash_sequence *all_next;   /* in the scheduler's list of all, under its lock */
    atomic_bool canceled;

    /* the job */
    void (*on_event)(void *user, const ash_event *ev);
    void *user;
    ash_sampler_params sampling; /* logit_bias is owned */
    bool ignore_eos, want_logprobs, want_progress, background, skip_special;

    /* tokens: ids[0..n_ids) are known, of those [0..n_kv) are in the KV pool */
    int32_t *ids;      /* [max_ids], owned */
    uint32_t n_prompt, n_ids, max_ids, n_kv;
    int32_t *blocks;   /* [max_blocks], owned; numbers of KV blocks */
    uint32_t n_blocks, max_blocks;
    uint32_t n_published; /* blocks findable for others */
    bool looked_on_disk;  /* what is there of the prompt is being brought back, or nothing is */

    /* this step */
    bool decodes;      /* takes part, with one row and its guesses */
    uint32_t rows;     /* of the batch */
    uint32_t n_guesses; /* of them the last: ids[n_ids .. n_ids + n_guesses) */
    float *logits;     /* [1 + n_guesses][n_vocab] of the last rows, or NULL */
    ash_sample samples[1 + ASH_MAX_DRAFT]; /* in order; all but the last are what was guessed */
    uint32_t n_samples;
    int sample_rc;     /* why there are no more */
    ash_err err;

    /* prediction */
    ash_draft draft;   /* from start on, if the job wants text */
    ash_drafted drafted; /* by the draft model for this step; in place of look-up if there are any */
    ash_draft_odds odds; /* the draft model's on this text; mean 0: it has not guessed yet */
    ash_text_allowance allowance; /* what guessing for it may lose */
    float chance;      /* that all guesses up to the next one are right; the scheduler's, while planning */

    /* text */
    const ash_model *model; /* borrowed */
    ash_sampler *sampler;   /* from start on */
    ash_stop *stop;
    char *stop_text;        /* the stop strings, NUL-terminated one after the other, owned */
    const char *stops[ASH_MAX_STOPS];
    ash_detok detok;
    ash_buf piece, text;

    /* account */
    bool started;
    ash_usage usage;
    int64_t t_submit, t_start, t_first;
};

/* Copies and checks a job. Errors as ash_engine_submit. */
int ash_sequence_open(const ash_model *m, const ash_job *job, ash_sequence **out,
                      ash_err *err) ASH_MUST_CHECK;
void ash_sequence_close(ash_sequence *s); /* NULL is fine; holds no KV blocks any more */

/* Leaves the queue for the first time: opens the sampler, reserves buffers, tells ASH_EVENT_STARTED. */
int ash_sequence_start(ash_sequence *s, ash_err *err) ASH_MUST_CHECK;
/* Tells the prefill's progress, if the job wants to know. */
void ash_sequence_progress(ash_sequence *s);
/* Draws from s->logits, row after row while what was drawn is what was guessed, into s->samples and
 * s->sample_rc. Any thread, one at a time each. */
void ash_sequence_draw(ash_sequence *s);
/* Takes a drawn token: text, ASH_EVENT_TOKEN. Returns why the job ends with it, else
 * ASH_FINISH_NONE; *stop_string as in ash_event. */
ash_finish ash_sequence_take(ash_sequence *s, const ash_sample *sample, const char **stop_string);
/* Tells ASH_EVENT_DONE with what text was held back. Once. err for ASH_FINISH_ERROR. */
void ash_sequence_finish(ash_sequence *s, ash_finish why, const char *stop_string, const ash_err *err);

#endif
