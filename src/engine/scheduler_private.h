/* Private to the scheduler: what its thread owns, between what calls it (scheduler.c), who runs and in which
 * KV blocks (scheduler_queue.c), and what a step consists of (scheduler_plan.c). All functions are of the
 * scheduler's thread. */
#ifndef ASHLEY_ENGINE_SCHEDULER_PRIVATE_H
#define ASHLEY_ENGINE_SCHEDULER_PRIVATE_H

#include <pthread.h>

#include "engine/drafting.h"
#include "engine/kv_spill.h"
#include "engine/kv_trim.h"
#include "engine/scheduler.h"

#define STEP_BESIDE_NS 34000000ll /* a step that holds running streams back */

/* A call of ash_scheduler_call or, without fn, of ash_scheduler_eval, on its caller's stack. */
typedef struct sched_call {
    ash_scheduler_fn fn;
    void *arg;
    const int32_t *ids;
    size_t n;
    bool all;
    float *logits;
    ash_err *err;
    int rc;
    bool done;
    struct sched_call *next;
} sched_call;

struct ash_scheduler {
    const ash_model *model;
    ash_run *run;
    float *logits;

    pthread_mutex_t lock;
    pthread_cond_t wake;     /* the thread has something to do */
    pthread_cond_t answered; /* a call is done */
    ash_sequence *inbox, **inbox_end; /* submitted, oldest first */
    ash_sequence *all;       /* every job that is not done yet */
    sched_call *calls, **calls_end;
    uint64_t last_id;
    uint32_t n_all;
    bool stop;
    bool canceled;           /* some job was; look for it */
    bool turn;               /* the spill has something to do */
    ash_engine_stats stats;

    /* the thread's own */
    pthread_t thread;
    ash_prefix_cache *cache;
    ash_sequence *waiting;   /* chats before background, each oldest first */
    ash_sequence **running;  /* [max_sequences], oldest first */
    uint32_t n_running;
    bool beside_prompts;     /* this step computes prompts too */
    bool stuck;              /* all that wait do so for the spill, or for KV memory that a call holds */
    ash_kv_spill *spill;     /* owned, or NULL */
    ash_kv_trim trim;
    int64_t trim_at;         /* monotonic ns: it wants a turn then; INT64_MAX: not by itself */
    uint64_t restoring;      /* the job that the spill brings blocks back for */
    int64_t step_ns;         /* of the last step */
    ash_batch_row *rows;     /* [max_rows] */
    ash_sequence **prompts;  /* [max_sequences], those that may have rows in this step */
    ash_sequence **drawn;    /* [max_sequences], those whose logits this step computes */
    int n_rows, n_drawn;
    int n_logits;            /* rows of logits that are given out */
    ash_prediction prediction;
    ash_drafting drafting;
    ash_allowance allowance; /* of all texts' guesses */
    ash_pace pace;
    ash_pace_step plan;      /* what this step consists of */
    uint64_t steps;
    uint64_t prompt_tokens, cached_tokens, completion_tokens;
    uint64_t guessed_tokens, right_tokens, drafted_tokens, drafted_right;
    int32_t *eval_blocks;    /* [blocks of n_ctx] */
};

/* ---- who runs (scheduler_queue.c) ------------------------------------------------------------ */

/* Puts q in its place among those that wait. */
void sched_wait(ash_scheduler *s, ash_sequence *q);
/* Takes q from the running ones. */
void sched_forget(ash_scheduler *s, const ash_sequence *q);
/* The job's end, from wherever it was but a list of this thread; q is freed. */
void sched_finish(ash_scheduler *s, ash_sequence *q, ash_finish why, const char *stop_string,
                  const ash_err *err);
void sched_drop_canceled(ash_scheduler *s);
/* A running q goes back to the queue without its blocks, to be computed again. */
void sched_preempt(ash_scheduler *s, ash_sequence *q);
/* Blocks for the first `tokens` positions of q, taken from others if need be; false if q had to give way. */
bool sched_have_blocks(ash_scheduler *s, ash_sequence *q, uint32_t tokens);
/* Makes q's full blocks findable and goes on with the shared copy where there was one. */
void sched_publish(ash_scheduler *s, ash_sequence *q);
/* What another sequence has computed of q's prompt since q started: q shares it. */
void sched_share(ash_scheduler *s, ash_sequence *q);
/* Whether q takes part in this step, with chats among the running or not. */
bool sched_takes_part(const ash_scheduler *s, const ash_sequence *q, bool chats);
/* Whether one of the running ones before `index` is just computing q's next block, to be shared. */
bool sched_follows(const ash_scheduler *s, const ash_sequence *q, uint32_t index, bool chats);
uint32_t sched_blocks(uint32_t tokens); /* that hold so many */
/* Starts what waits, as far as places and memory go. */
void sched_start(ash_scheduler *s);

/* ---- what a step consists of (scheduler_plan.c) ---------------------------------------------- */

uint32_t sched_rows_left(const ash_sequence *q); /* to its last known token */
/* Fills rows, drawn and plan. */
void sched_plan(ash_scheduler *s);

#endif
