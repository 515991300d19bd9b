/* Private to the local provider: one request from start() to its last event.
 *
 * Locks, outer to inner: answering.lock, local.lock. Neither is held into the manager or an engine.
 * answering.lock is held while an event is given, so that close_request can wait it out. */
#ifndef ASHLEY_PROVIDER_LOCAL_PRIVATE_H
#define ASHLEY_PROVIDER_LOCAL_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "provider/local.h"
#include "provider/think.h"

typedef struct local local;

typedef enum local_phase {
    LOCAL_LOADING, /* waits for the model */
    LOCAL_PREPARING,
    LOCAL_QUEUED,  /* submitted, nothing started */
    LOCAL_PREFILL, /* started, no token yet */
    LOCAL_RUNNING,
    LOCAL_ENDED,   /* the last event was given, or nobody listens */
} local_phase;

/* One choice. */
typedef struct local_job {
    ash_answering *a;
    int index;
    bool counts_prompt; /* the first choice of its prompt */
    uint64_t id;        /* lock: of the engine; 0 before it is submitted */
    bool done;          /* lock: its last event came */
    ash_think think;
    ash_buf content, reasoning;
} local_job;

/* The ids of one prompt. */
typedef struct local_prompt {
    ash_ids ids;
    bool thinks; /* the text ends inside a think mark */
} local_prompt;

struct ash_answering {
    local *owner;
    /* what was asked; constant after start */
    ash_request req;         /* with copies of all that it points to; body is a reference,
                                until the prompts are made */
    char *strings;           /* id, model, stops */
    /* to whom */
    ash_answer_fn fn;
    void *user;
    pthread_mutex_t lock;    /* guards the rest but what owner->lock guards */
    local_phase phase;
    bool closed;             /* close_request was called */
    bool head_sent;
    bool leased;             /* the manager has called back */
    uint64_t ticket;         /* constant once acquire returned */
    ash_engine *engine;      /* while engine_uses > 0 */
    int engine_uses;
    local_job *jobs;         /* n_jobs; constant once submitted */
    int n_jobs, n_done;      /* a job that could not be submitted is never done */
    int64_t started_ms;
    uint32_t truncated_messages, truncated_tokens;
    ash_answer_usage usage;
    _Atomic int64_t due;     /* monotonic ms when the timer must look, 0: never */
    /* owner->lock */
    ash_answering *prev, *next;
    int refs;
};

/* ---- local.c ---- */
/* Sets when the timer looks at `a` again; ms from now, 0: never. */
void local_due(ash_answering *a, int64_t ms);
void local_ref(ash_answering *a);
void local_unref(ash_answering *a);
/* One user less of the engine; the last gives the lease back. */
void local_drop_use(ash_answering *a);
/* Books what a job took, however it ended. */
void local_count(ash_answering *a, const ash_usage *u, bool with_prompt);
/* Cancels what runs. Not with the lock held. */
void local_cancel_jobs(ash_answering *a);

/* ---- local_prompt.c ---- */
/* From the request to the ids of its prompts (n of at most ASH_MAX_CHOICES). 0, or the status of *e. */
int local_prompts_make(ash_answering *a, const ash_engine *engine, local_prompt *prompts, size_t *n,
                       ash_api_error *e);

/* ---- local_reply.c ---- */
/* Gives an event; the lock is held. */
void local_give(ash_answering *a, const ash_answer *event);
/* Gives the last event, unless it was given; the lock is held. */
void local_end(ash_answering *a, const ash_answer *event);
/* Ends the request with an error, unless it has ended. Takes the lock. */
void local_fail(ash_answering *a, const ash_api_error *e);
/* An ash_job's on_event; user is the local_job. */
void local_on_event(void *user, const ash_event *ev);
int local_error(ash_api_error *e, int status, const char *type, const char *code, const char *fmt, ...)
    ASH_PRINTF(5, 6);

#endif
