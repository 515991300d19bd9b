/* What the parts of residency share: the entries and waiters behind one lock. Not for others. */
#ifndef ASHLEY_RESIDENCY_STATE_H
#define ASHLEY_RESIDENCY_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "residency/manager.h"

enum { ASH_N_STAGES = 6 }; /* fetch verify map pack warm prefill, as interfaces name them */

/* Progress of the load in flight. Written by the loading thread without the lock, read by any. */
typedef struct ash_load_progress {
    atomic_int stage;                      /* index into the stage names */
    atomic_ullong done, total;             /* of the stage */
    atomic_ullong bytes_done, bytes_total; /* source bytes read over the whole load */
} ash_load_progress;

typedef struct ash_entry {
    ash_model_spec spec; /* strings owned */
    ash_model_state state;
    ash_err error;                       /* FAILED: why */
    const char *error_code, *error_hint; /* constant strings, may be NULL */
    ash_engine *engine;                  /* LOADED */
    uint32_t leases;
    bool queued;         /* waits for the loader */
    bool wanted_by_user; /* loaded by request: the idle time applies unless pinned */
    bool unload_pending;
    uint64_t queue_seq;
    int64_t last_use_ns, failed_ns;
    int failures;      /* in a row */
    double started_at; /* wall time of the load in flight or of the last one; 0 before */
    int64_t load_begin_ns;
    double load_ms; /* of the last successful load */
    double stage_ms[ASH_N_STAGES];
    ash_load_progress progress;
    atomic_bool cancel;
    atomic_bool awaited;   /* somebody has waited for the load in flight */
    double shown_progress; /* highest value shown for this load: never backwards */
    char draft_refused[sizeof ((ash_err *)0)->msg]; /* LOADED: why the draft model does not guess, or "" */
    uint64_t resident_bytes, last_bytes;
    int64_t last_bytes_ns; /* when last_bytes was seen to change */
    double rate;           /* bytes per second, smoothed */
    double stalled_since;  /* wall; 0 = not stalled */
    bool dirty;            /* the listener has not been told */
    int boot_state;        /* of a preload entry: 0 not yet, 1 ready, -1 failed */
} ash_entry;

typedef struct ash_waiter {
    struct ash_waiter *next;
    uint64_t ticket;
    ash_entry *entry;
    int64_t deadline_ns; /* 0 = none */
    ash_lease_fn cb;
    void *user;
    /* how it ended; set when it leaves the list */
    ash_engine *engine;
    ash_err err;
} ash_waiter;

typedef struct ash_boot_step {
    char name[32];
    double ms;
} ash_boot_step;

enum { ASH_MAX_BOOT_STEPS = 32 };

struct ash_manager {
    pthread_mutex_t mutex;
    pthread_cond_t load_cond, keep_cond; /* a load is queued; the keeper has work */
    pthread_t loader, keeper;
    bool started, stopping;
    ash_entry *entries;
    size_t n;
    ash_cpu_level cpu;
    ash_prediction prediction;
    int threads;
    char *state_dir; /* or NULL */
    uint64_t disk_budget;
    ash_ready ready_policy;
    ash_waiter *waiters;
    uint64_t next_ticket, next_seq;
    atomic_ullong version;
    void (*listener)(void *user, const char *id);
    void *listener_user;
    double opened_at; /* wall */
    int64_t opened_ns;
    double preload_ms; /* from open to every preload entry decided; 0 before */
    ash_boot_step steps[ASH_MAX_BOOT_STEPS];
    size_t n_steps;
};

/* The caller holds the lock for all of these. */
json_t *ash_entry_json(const ash_manager *m, ash_entry *e);
/* Takes the newest byte count into rate, stall and progress; true if what is shown changed. */
bool ash_entry_sample(ash_entry *e, int64_t now_ns);
void ash_entry_begin_load(ash_entry *e);
extern const char *const ash_stage_names[ASH_N_STAGES];

#endif
