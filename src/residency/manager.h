/* Which models are in memory: states, loads, waiting requests.
 *
 * The manager knows every model the catalogue names, loads those of the preload list (required ones first,
 * then the quickest if all of them fit, else in order), loads others on demand (one load serves all who
 * wait, and goes on when they leave), and lends engines. At most two loads run at once; residency/policy.h
 * says when. All models together stay within a budget of bytes: who goes for whom, who waits and who is
 * refused is there, too. A preload that had to go comes back when there is room, and so does the usual
 * model; a failed preload is tried again, after 10 s and then twice as long each time, at most 10 min, where
 * trying again can help (memory, disk, network). A model that is not on this machine is fetched first, where
 * the caller says how: on threads of their own, two at once and one of them large at most, while others load.
 * Any thread may call any function; callbacks come on the manager's or the caller's thread, never with its
 * lock held, and must be quick. */
#ifndef ASHLEY_RESIDENCY_MANAGER_H
#define ASHLEY_RESIDENCY_MANAGER_H

#include "base/json.h"
#include "base/policy.h"
#include "engine/engine.h"
#include "hub/hub.h"

typedef struct ash_manager ash_manager;

typedef enum ash_model_state {
    ASH_MODEL_UNLOADED, /* a request would load it */
    ASH_MODEL_DOWNLOADING,
    ASH_MODEL_DOWNLOADED,
    ASH_MODEL_LOADING,
    ASH_MODEL_LOADED,
    ASH_MODEL_SLEEPING,
    ASH_MODEL_FAILED, /* quarantined, with its reason; ash_manager_load tries again at once, a request after
                         the pause */
} ash_model_state;
const char *ash_model_state_name(ash_model_state s);

/* What the manager is told of a model; strings are copied. */
typedef struct ash_model_spec {
    const char *id;
    const char *path;          /* the checkpoint on this machine, or NULL */
    const char *absent_reason; /* path NULL: why, for people ("not downloaded: ...") */
    const char
        *absent_code; /* path NULL: "not_downloaded", "unsupported_format", "consent_needed",
                         "model_not_found" (a preload that nobody knows) */
    const char *absent_hint;                                  /* path NULL: what to do, or NULL */
    bool fetch;   /* where it is not here: opts.fetch can bring it, and may, */
    bool confirm; /* or may once its warning is accepted (ash_manager_download) */
    bool paused;  /* path NULL: its download was paused before the restart */
    bool added;   /* named by somebody who asked for its download, not by the catalogue */
    const char *template_text;                                /* override or NULL */
    const char *repo, *format, *size, *description, *warning; /* shown, may be NULL */
    uint32_t ctx;                                             /* 0 = the model's own */
    bool kv_q8;                                               /* as in ash_engine_opts */
    const char *draft;        /* the id of the model that guesses for it (engine/draft_model.h), or NULL */
    const char *draft_path;   /* where that is, or NULL */
    const char *draft_absent; /* draft_path NULL: why */
    int64_t keep_alive_ms; /* idle time before an on-demand model goes; -1 = for ever */
    bool preload, required, pin;
    bool usual; /* what is asked for without a name: once evicted it comes back as a preload does */
    const char *warm_prompt; /* the default persona's system prompt, or NULL */
} ash_model_spec;

/* What a fetch is before it begins. */
typedef struct ash_fetch_need {
    uint64_t bytes;                   /* that are not here yet */
    uint64_t disk_free, disk_reserve; /* where they go; of it so much stays free */
} ash_fetch_need;

typedef struct ash_manager_opts {
    const ash_model_spec *specs;
    size_t n_specs; /* preload entries first, in their order */
    ash_cpu_level cpu;
    ash_prediction prediction;
    int threads;
    const char *state_dir; /* of engines (engine/engine.h) and the ledger (store/ledger.h), or NULL; copied */
    uint64_t disk_budget;
    uint64_t memory_budget;  /* bytes for all models together (residency/budget.h); 0: left to the machine */
    const char *memory_root; /* as in ash_memory_read; NULL: this machine's; copied */
    ash_ready ready_policy; /* when ash_manager_ready says true */
    /* Brings the model of a spec with `fetch`: *path is where it is, to be freed. Blocks a fetching
     * thread, of two; must heed the watch's cancel within a second. Errors as in ash_hub_fetch. NULL:
     * nothing is fetched. */
    int (*fetch)(void *user, const char *id, const ash_hub_watch *watch, char **path, ash_err *err);
    /* Asks what a fetch of the model would bring, on a thread of its own, before its turn comes; blocks it,
     * must heed *cancel within a second. Errors as of fetch, which is not tried then. What does not fit
     * beside all other downloads is refused. NULL: only fetch itself looks for room. */
    int (*weigh)(void *user, const char *id, const atomic_bool *cancel, ash_fetch_need *out, ash_err *err);
    /* Says what could be removed for a fetch that lacks so many bytes of disk, or ""; may be NULL. */
    void (*advise)(void *user, const char *id, uint64_t missing, char *text, size_t size);
    /* Takes a model off the disk, with what is kept for its next load; *bytes are free then. Blocks. Errors
     * as in ash_hub_remove; ASH_EINVAL where the files are not ours to remove. NULL: nothing is removed. */
    int (*remove)(void *user, const char *id, uint64_t *bytes, ash_err *err);
    /* Where a model is that was nowhere so far, for somebody may have put it there: a path to be freed, or
     * NULL. Called by those who ask for one that cannot be fetched; must be quick. NULL: what is absent
     * stays so. */
    char *(*find)(void *user, const char *id);
    void *fetch_user;
} ash_manager_opts;

enum { ASH_MANAGER_ADDED = 256 }; /* models that may be added to a manager */

int ash_manager_open(const ash_manager_opts *opts, ash_manager **out, ash_err *err) ASH_MUST_CHECK;
/* Starts preloading; returns at once. */
int ash_manager_start(ash_manager *m, ash_err *err) ASH_MUST_CHECK;
/* Cancels loads, fails waiters with ASH_ECANCELED, closes engines. No lease may be held. */
void ash_manager_close(ash_manager *m);

/* Whether a request may name it: an entry whose absent_code is "model_not_found" is listed for its reason
 * only. If not, *nearest is the closest id that is known or NULL (borrowed, constant). */
bool ash_manager_knows(const ash_manager *m, const char *id, const char **nearest);
ash_model_state ash_manager_state(const ash_manager *m, const char *id);

/* A lease on a loaded engine. cb is called exactly once per successful acquire, maybe before it
 * returns: with the engine (give it back by ash_manager_release), or NULL and an error:
 * ASH_ETIMEDOUT when load_ms passed first (the load goes on), ASH_ECANCELED after
 * ash_manager_abandon or at shutdown, else why the load failed. load_ms 0 = no limit. */
typedef void (*ash_lease_fn)(void *user, ash_engine *e, const ash_err *err);
int ash_manager_acquire(ash_manager *m, const char *id, int64_t load_ms, ash_lease_fn cb,
                        void *user, uint64_t *ticket, ash_err *err) ASH_MUST_CHECK;
/* The waiter left. If its cb was not called yet it is called now with ASH_ECANCELED. */
void ash_manager_abandon(ash_manager *m, uint64_t ticket);
void ash_manager_release(ash_manager *m, ash_engine *e);

/* Loads it as a request for it would, for one that is answered elsewhere: not a failed one whose pause is not
 * over. */
void ash_manager_want(ash_manager *m, const char *id);
/* Explicit load (also retry of a failed one) and unload. Unload of a model in use takes effect when
 * its last lease ends; new requests load it again. */
int ash_manager_load(ash_manager *m, const char *id, ash_err *err) ASH_MUST_CHECK;
int ash_manager_unload(ash_manager *m, const char *id, ash_err *err) ASH_MUST_CHECK;
/* Ends a running load or fetch (state becomes unloaded) in under a second; what is proved of a fetch
 * stays. */
int ash_manager_cancel(ash_manager *m, const char *id, ash_err *err) ASH_MUST_CHECK;

/* From now on, and until the model goes, it goes after so long without use (-1: for ever) instead of its
 * spec's keep_alive_ms; of a model that is not there it counts from its next load. Room for others is made
 * all the same, and what is pinned stays pinned. ASH_ENOENT. */
int ash_manager_keep(ash_manager *m, const char *id, int64_t keep_alive_ms, ash_err *err) ASH_MUST_CHECK;

/* Seconds until a request for it would have its engine, by measured rates and earlier loads; 0: at once.
 * Negative: nobody knows. Also of a loaded model that lends no more because others wait for its room. */
double ash_manager_eta(const ash_manager *m, const char *id);

/* ---- downloads.c: what is on the disk ---- */

/* A model that the manager has not known so far; it is there when the id is known already. ASH_ELIMIT
 * after ASH_MANAGER_ADDED. */
int ash_manager_add(ash_manager *m, const ash_model_spec *spec, ash_err *err) ASH_MUST_CHECK;
/* Fetches the model without loading it, as soon as its turn comes; goes on with a paused one. 0 also if it
 * is here or on its way. confirm: the warning is accepted. ASH_EAUTH without that, if it has one; the
 * reason of one that cannot be fetched. */
int ash_manager_download(ash_manager *m, const char *id, bool confirm, ash_err *err) ASH_MUST_CHECK;
/* Ends a fetch in under a second and keeps what is proved; requests for the model fail until a download,
 * load or cancel ends the pause, also after a restart. ASH_EINVAL if nothing is being fetched. Writes to
 * the state folder: its errors say that the pause will not survive a restart. */
int ash_manager_pause(ash_manager *m, const char *id, ash_err *err) ASH_MUST_CHECK;
/* opts.remove of a model that neither it nor another of its repository has in memory, loads, fetches or
 * guesses with: else ASH_EAGAIN, naming that one. Blocks; requests for it fail meanwhile. */
int ash_manager_remove(ash_manager *m, const char *id, uint64_t *bytes, ash_err *err) ASH_MUST_CHECK;

/* The progress object of one model (new reference, NULL without memory or for an unknown id) and of
 * all, in catalogue order: members model,state,stage,stages,progress,bytes_done,bytes_total,
 * bytes_per_second,stalled_since,eta_seconds,eta_basis,queue_position,started_at,error,can, and
 * beside them required, pin, repo, format, size, description, warning, n_ctx, resident_bytes, draft (its id
 * or null), draft_refused (why it does not guess, or null), waits (what a queued load waits for beside
 * its turn, or a fetch for another process; or null), memory {charged: bytes of the budget that it has now;
 * estimated: by the headers; measured: by which the process grew, with the whole KV pool; null where
 * unknown}, expires_at (Unix seconds at which it goes if nobody uses it; null where it is not loaded, in use,
 * pinned or kept for ever). */
json_t *ash_manager_progress(const ash_manager *m, const char *id);
json_t *ash_manager_list(const ash_manager *m);
/* Changes whenever any model's progress changed; for watchers that poll or wait. */
uint64_t ash_manager_version(const ash_manager *m);
/* Called after every change of state and at most 4 times a second for progress, on the manager's
 * thread. One listener; set before start. */
void ash_manager_listen(ash_manager *m, void (*fn)(void *user, const char *id), void *user);

/* Whether the preload is done as the policy says. */
bool ash_manager_ready(const ash_manager *m);
/* Adds a step of the program's start ("config", "listen", ...) to the boot report. */
void ash_manager_note_step(ash_manager *m, const char *step, double ms);
/* Boot report: steps with milliseconds, entries with state, reason and times, memory {budget, charged,
 * lowered, configured: bytes, or null} (new reference). */
json_t *ash_manager_report(const ash_manager *m);
/* Calls fn for every loaded engine, under a lease. For metrics. */
void ash_manager_each(ash_manager *m, void (*fn)(void *user, const char *id, ash_engine *e),
                      void *user);

#endif
