/* What the parts of residency share: the entries and waiters behind one lock. Not for others. */
#ifndef ASHLEY_RESIDENCY_STATE_H
#define ASHLEY_RESIDENCY_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "residency/budget.h"
#include "residency/fit.h"
#include "residency/manager.h"
#include "residency/measure.h"
#include "residency/policy.h"

enum { ASH_FETCHERS = 2 }; /* fetches at once */
enum { ASH_WEIGHERS = 2 }; /* the second for when the hub does not answer the first */
enum { ASH_N_STAGES = 6 }; /* fetch verify map pack warm prefill, as interfaces name them */

/* Progress of the load in flight. Written by the loading thread without the lock, read by any. */
typedef struct ash_load_progress {
    atomic_int stage;                      /* index into the stage names */
    atomic_ullong done, total;             /* of the stage */
    atomic_ullong bytes_done, bytes_total; /* of the fetch; then source bytes read over the whole load */
    atomic_ullong fetch_rate;              /* bytes per second, as the hub's client says */
    atomic_bool elsewhere;                 /* another process fetches it, this one waits for that */
    atomic_int trouble;                    /* tries of the fetch that failed in a row */
} ash_load_progress;

typedef struct ash_entry {
    ash_model_spec spec; /* strings owned */
    ash_model_state state;
    ash_err error;                       /* FAILED: why */
    const char *error_code, *error_hint; /* constant strings, may be NULL */
    ash_engine *engine;                  /* LOADED */
    uint32_t leases;
    bool queued;         /* waits for the loader */
    bool demand;         /* of the queued load: somebody waits or asked for it */
    bool planned;        /* `plan` is of the queued load */
    bool reading;        /* the loader reads its headers, without the lock */
    bool made_room;      /* others were loaded again, smaller, for it; it has not been loaded since */
    bool fetched;        /* the load follows a fetch, which has its share of the progress */
    bool weighed;        /* of the queued fetch: `to_fetch` is known, and fits the disk */
    int64_t weigh_began_ns; /* the hub is being asked about it; 0: not */
    uint64_t to_fetch;   /* bytes that were still to come when it was queued */
    bool only_fetch;     /* of the queued or running fetch: no load follows */
    bool pausing;        /* of the running fetch: cancelled for a pause */
    bool draft_asked;    /* of the queued load: the fetch of its draft model was queued for it */
    bool again;          /* of the running fetch: somebody asked for it after it was cancelled */
    bool paused;         /* FAILED: its download waits for somebody to go on with it */
    bool removing;       /* its files are being removed */
    bool unload_pending;
    bool shared;         /* its load ran beside another: the time it took tells little */
    bool closing;        /* its engine is being closed: the bytes are not free yet */
    bool draining;       /* LOADED: lends no more, another waits for the room */
    bool lost;           /* LOADED: lends no more, its engine has lost its weights and is opened anew */
    bool comes_back;     /* it was evicted, or a preload had no room: loaded again when there is some */
    uint64_t queue_seq;
    int64_t last_use_ns, loaded_ns;
    int64_t keep_alive_ms; /* the spec's, or what was asked for since it was last not there; -1: for ever */
    int64_t retry_ns;  /* FAILED: not before; 0: whenever asked */
    int failures;      /* in a row */
    ash_policy_uses uses;
    ash_engine_plan plan;
    ash_headers *headers; /* of the planned load, until it begins or waits; of the loader, without the lock */
    uint64_t charge;     /* bytes of the budget that it has: from admission until it is closed */
    uint64_t estimate;    /* bytes of a load in the room that there was, by the headers; 0: unknown */
    uint64_t measured;    /* bytes it took the last time, with the whole KV pool; 0: unknown */
    int64_t beyond;       /* planned: bytes it takes beyond the headers' figure, as measured once */
    uint64_t budget;      /* that the queued load was sized by; the machine has less a moment later */
    ash_fit likes;        /* planned: what the load would take if there were room for all */
    uint64_t need, share; /* bytes of the load in the room that there was, which is its share */
    double bring_back_s; /* a load took so long; 0: unknown */
    const char *waits;   /* queued: what for; constant text, or NULL */
    double started_at; /* wall time of the load in flight or of the last one; 0 before */
    int64_t load_begin_ns;
    double load_ms; /* of the last successful load */
    double stage_ms[ASH_N_STAGES];
    ash_load_progress progress;
    atomic_bool cancel;
    uint64_t experts_chosen, experts_found; /* LOADED: of its engine's counts what the ledger knows */
    atomic_bool awaited;   /* somebody has waited for the load in flight */
    double shown_progress; /* highest value shown for this load: never backwards */
    double told_progress;  /* the one that the listener was told of last, */
    bool told_stalled;     /* and whether it was stalled, */
    const char *told_waits; /* and what a fetch waited for */
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

enum { ASH_MAX_BOOT_STEPS = 32, ASH_MAX_OPENINGS = 2 };

/* queue_seq of the first load that nobody waits for; those that somebody does are below. */
#define UNWAITED_SEQ (1ull << 40)

/* A load that runs. */
typedef struct ash_opening {
    ash_manager *manager;
    ash_entry *entry; /* NULL: the place is free */
    bool over;        /* its thread does no more */
    pthread_t thread;
    ash_engine_opts opts; /* constant */
    ash_headers *headers; /* of its thread: opened when it was planned, or NULL */
    char draft_refused[sizeof ((ash_err *)0)->msg];
    uint64_t changes; /* the manager's when it began */
} ash_opening;

struct ash_manager {
    pthread_mutex_t mutex;
    pthread_cond_t load_cond, keep_cond; /* the loader, the keeper has something to look at */
    pthread_cond_t fetch_cond;           /* and the fetchers and the weighers */
    pthread_t loader, keeper, weighers[ASH_WEIGHERS], fetchers[ASH_FETCHERS];
    bool started, stopping;
    ash_entry *entries; /* n of at most cap; each stays where it is */
    size_t n, cap;
    ash_cpu_level cpu;
    ash_prediction prediction;
    int threads;
    char *state_dir; /* or NULL */
    uint64_t disk_budget;
    char *memory_root;
    ash_ledger *ledger; /* or NULL */
    ash_budget budget;
    ash_policy_model *figures; /* cap; of whoever has the lock, until he gives it back */
    size_t *list;             /* cap; of the loader, */
    ash_fit *fits;            /* and so are these */
    size_t *keeper_list;      /* cap */
    ash_opening openings[ASH_MAX_OPENINGS]; /* only the loader begins and joins */
    int64_t cpu_looked_ns;    /* loader: when it looked at the processors, 0: not during this load; */
    double cpu_seconds, cpu_busy; /* what this process had used then, and the share since the look before */
    uint64_t changes;         /* counts leases, loads and closes */
    int64_t looked_ns, brought_ns; /* when the keeper looked at pressure, and for what may come back */
    uint64_t wakes;           /* counts what the loader was woken for */
    ash_ready ready_policy;
    int (*fetch)(void *, const char *, const ash_hub_watch *, char **, ash_err *); /* or NULL */
    int (*weigh)(void *, const char *, const atomic_bool *, ash_fetch_need *, ash_err *); /* or NULL */
    void (*advise)(void *, const char *, uint64_t, char *, size_t);                       /* or NULL */
    int (*remove)(void *, const char *, uint64_t *, ash_err *);                           /* or NULL */
    char *(*find)(void *, const char *);                                                  /* or NULL */
    void *fetch_user;
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

/* The caller holds the lock for all of these but ash_waiters_answer, ash_spec_copy and ash_spec_free. */

/* ---- manager.c ---- */
ash_entry *ash_entry_find(const ash_manager *m, const char *id);
/* Watchers are told. */
void ash_entry_changed(ash_manager *m, ash_entry *e);
/* Whether a load can be tried: it is here, or can be fetched. */
bool ash_entry_can_load(const ash_manager *m, const ash_entry *e);
/* The code of why one that cannot is refused: ASH_EAUTH where consent is what it waits for. */
int ash_entry_absent(const ash_manager *m, const ash_entry *e);
/* Queues a load, unless the model is there or on its way: on demand before those that nobody waits for. */
void ash_entry_queue(ash_manager *m, ash_entry *e, bool demand);
/* Takes the engine out of a loaded entry that nobody uses; the caller closes it without the lock, and then
 * calls ash_entry_closed. */
ash_engine *ash_entry_take(ash_manager *m, ash_entry *e);
void ash_entry_closed(ash_manager *m, ash_entry *e);
/* Whether it is loaded again by itself after it was evicted. */
bool ash_entry_returns(const ash_entry *e);
bool ash_entry_lends(const ash_entry *e); /* LOADED, and may be used by those who come now */
/* The entry failed for now; e->error says why. */
void ash_entry_fail(ash_manager *m, ash_entry *e);
void ash_loader_wake(ash_manager *m);
/* When it goes if nobody uses it, in monotonic ns; INT64_MAX: never by itself. */
int64_t ash_entry_expires(const ash_entry *e);
/* An entry that is neither here nor can be fetched, or that is paused, is failed with its reason; else it
 * is as if nothing had ever been asked of it. */
void ash_entry_reset(const ash_manager *m, ash_entry *e);
/* Notes the time when all preloads are decided. */
void ash_boot_note(ash_manager *m);

/* ---- waiters.c ---- */
/* Moves the waiters that `match` says from the manager's list to *done. */
void ash_waiters_take(ash_manager *m, bool (*match)(const ash_waiter *, const void *), const void *arg,
                      ash_waiter **done);
bool ash_waiter_of(const ash_waiter *w, const void *entry);
bool ash_waiter_has(const ash_waiter *w, const void *ticket);
bool ash_waiter_late(const ash_waiter *w, const void *now_ns);
/* Moves those whose model is there and lends to *done, each with a lease. */
void ash_waiters_lend(ash_manager *m, ash_waiter **done);
bool ash_waiters_any(const ash_manager *m, const ash_entry *e);
void ash_waiters_fail(ash_waiter *done, int code, const char *msg);
/* Calls back and frees; without the lock. */
void ash_waiters_answer(ash_waiter *done);

/* ---- admission.c ---- */
/* Fills m->figures from the entries. */
void ash_admission_figures(ash_manager *m);
uint64_t ash_admission_budget(const ash_manager *m);
/* The most that a load can have of the budget without waiting for anybody. */
uint64_t ash_admission_room(ash_manager *m, const ash_entry *e, uint64_t budget);
/* Asks the policy for e->need bytes; indices go to list, of n. */
ash_policy_decision ash_admission_ask(ash_manager *m, const ash_entry *e, uint64_t budget, bool demand,
                                      size_t *list);
/* Says in *err what a refused or background load lacks. */
void ash_admission_explain(const ash_manager *m, const ash_entry *e, const ash_policy_decision *d,
                           ash_err *err);

/* Seconds that its load takes, by the last one or the size of its files. */
double ash_admission_seconds(const ash_entry *e);

/* ---- opening.c; on the loader's thread ---- */
/* Whether a sized entry's load may begin now; if not, perhaps at *until_ms, where that is earlier. */
bool ash_opening_may(ash_manager *m, const ash_entry *e, int64_t *until_ms);
bool ash_opening_any(ash_manager *m); /* whether a load runs */
/* Begins an admitted load for which there is a place (ash_opening_may). */
void ash_opening_begin(ash_manager *m, ash_entry *e, const ash_engine_opts *opts, const char *draft_refused);
/* Frees the places of those that are over, or, all, waits for each; the lock is left for that. */
void ash_openings_join(ash_manager *m, bool all);

/* ---- downloads.c ---- */
/* Why nothing can be asked of it now: its files are being removed. */
int ash_entry_removing(const ash_entry *e, ash_err *err) ASH_MUST_CHECK;
/* Whether e can be loaded as far as its draft model goes: that is here, or not to be had. Else its fetch is
 * queued. */
bool ash_entry_draft_ready(ash_manager *m, ash_entry *e);
/* Without the lock: one that was not on this machine, and cannot be fetched, may be there by now. */
void ash_entry_look_again(ash_manager *m, const char *id);
/* Whether that may help. */
bool ash_entry_may_appear(const ash_manager *m, const ash_entry *e);
/* Others took the files of a queued load away: its fetch is queued in its place, or it waits for consent,
 * and those who wait go to *done. False where they cannot be fetched, or a fetch has just brought them. */
bool ash_entry_lost(ash_manager *m, ash_entry *e, ash_waiter **done);
/* Its fetch ended, or does not begin, for a pause. Waiters to answer go to *done. */
void ash_entry_pause(ash_manager *m, ash_entry *e, ash_waiter **done);
/* Without the lock: the start after a restart knows it too. A failure is only logged. */
void ash_downloads_note(const ash_manager *m, int list, const char *id, bool in);

/* ---- loader.c, keeper.c, fetcher.c: the threads ---- */
void *ash_loader_main(void *manager);
/* An entry as the ledger knows it. */
ash_measure_of ash_entry_measured_as(const ash_manager *m, const ash_entry *e);
void *ash_fetcher_main(void *manager);
void *ash_weigher_main(void *manager); /* disk.c */
/* opening.c. */
/* Takes the result of a load or a failed fetch into the entry. Waiters to answer go to *done. */
void ash_entry_finish(ash_manager *m, ash_entry *e, const ash_err *err, ash_waiter **done);
void *ash_keeper_main(void *manager);

/* ---- experts.c ---- */
/* Writes to the ledger what share of its experts a mixture larger than its room has found in memory. Of an
 * engine that is closed next, without the lock; NULL is fine. */
void ash_experts_note_last(ash_manager *m, ash_entry *e, const ash_engine *engine);
/* Of all that run and have chosen many since the last time; the lock is left for the writing. */
void ash_experts_note_running(ash_manager *m);

/* ---- spec.c ---- */
bool ash_spec_copy(ash_model_spec *to, const ash_model_spec *from); /* false without memory */
void ash_spec_free(ash_model_spec *s);

/* ---- progress.c ---- */
json_t *ash_entry_json(const ash_manager *m, ash_entry *e);
/* Seconds until a request for it would have its engine: by measured rates, else by earlier loads or the size
 * of its files (*basis says which; NULL: none was needed). 0: now; negative: nobody knows. */
double ash_entry_eta(const ash_manager *m, const ash_entry *e, const char **basis);
/* Takes the newest byte count into rate, stall and progress; true if what is shown changed. */
bool ash_entry_sample(ash_entry *e, int64_t now_ns);
void ash_entry_begin_load(ash_entry *e);
void ash_entry_begin_fetch(ash_entry *e);
/* As ash_entry_progress below, of a fetch: a progress callback of ash_hub_watch. */
void ash_entry_fetch_progress(void *entry, const ash_hub_progress *p);
/* What the fetch that runs waits for; constant text, or NULL. */
const char *ash_entry_fetch_waits(const ash_entry *e);
/* Takes what the loading thread says into the entry's progress; without the lock. */
void ash_entry_progress(void *entry, ash_load_stage stage, uint64_t done, uint64_t total);
extern const char *const ash_stage_names[ASH_N_STAGES];

#endif
