/* Owns which models are in memory: their states, who waits for whom, and what others may ask.
 * Refuses ids that nobody knows.
 *
 * Three threads do the work: the loader (loader.c) takes queued loads in order, makes room and has
 * engines opened on threads of their own, two at most (opening.c); the fetcher (fetcher.c) takes those
 * whose files are not here; the keeper (keeper.c) ends waits that are out of time, closes engines
 * (release may run on an engine's own thread, which cannot join itself), unloads what was idle for its
 * keep-alive, follows the pressure on memory, brings back what had to go, and tells the listener.
 * Callbacks are always called without the lock. */
#include "residency/manager.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/nearest.h"
#include "residency/state.h"
#include "store/downloads.h"

/* A failed load is tried again after this, and after twice as long each time it fails again. */
static const int64_t RETRY_NS = 10ll * 1000000000, MOST_RETRY_NS = 600ll * 1000000000;

/* ---- entries ---- */

ash_entry *ash_entry_find(const ash_manager *m, const char *id)
{
    for (size_t i = 0; i < m->n; i++)
        if (!strcmp(m->entries[i].spec.id, id)) return &m->entries[i];
    return NULL;
}

void ash_entry_changed(ash_manager *m, ash_entry *e)
{
    e->dirty = true;
    atomic_fetch_add(&m->version, 1);
    pthread_cond_signal(&m->keep_cond);
}

void ash_loader_wake(ash_manager *m)
{
    m->wakes++;
    pthread_cond_signal(&m->load_cond);
    pthread_cond_broadcast(&m->fetch_cond);
}

bool ash_entry_can_load(const ash_manager *m, const ash_entry *e)
{
    return e->spec.path || (e->spec.fetch && m->fetch);
}

int ash_entry_absent(const ash_manager *m, const ash_entry *e)
{
    return e->spec.confirm && m->fetch ? ASH_EAUTH : e->error.code;
}

void ash_entry_queue(ash_manager *m, ash_entry *e, bool demand)
{
    if (e->state == ASH_MODEL_LOADING || e->state == ASH_MODEL_LOADED || e->removing) return;
    e->only_fetch = false;
    if (e->state == ASH_MODEL_DOWNLOADING) {
        e->demand |= demand;
        return;
    }
    if (e->queued && demand &&
        !e->demand) { /* someone waits now: before those that nobody waits for */
        e->demand = true;
        e->queue_seq &= UNWAITED_SEQ - 1;
        ash_loader_wake(m);
    }
    if (e->queued) return;
    e->queued = true;
    e->demand = demand;
    e->planned = false;
    e->waits = NULL;
    e->paused = e->weighed = e->draft_asked = false;
    e->queue_seq = m->next_seq++ + (demand ? 0 : UNWAITED_SEQ);
    e->state = ASH_MODEL_UNLOADED;
    atomic_store(&e->cancel, false);
    ash_entry_changed(m, e);
    ash_loader_wake(m);
}

ash_engine *ash_entry_take(ash_manager *m, ash_entry *e)
{
    ash_engine *engine = e->engine;
    e->engine = NULL;
    e->state = ASH_MODEL_UNLOADED;
    e->keep_alive_ms = e->spec.keep_alive_ms;
    e->unload_pending = e->draining = e->lost = false;
    e->closing = true;
    m->changes++;
    ash_entry_changed(m, e);
    return engine;
}

void ash_entry_closed(ash_manager *m, ash_entry *e)
{
    e->closing = false;
    e->charge = 0;
    m->changes++;
    if (ash_waiters_any(m, e)) ash_entry_queue(m, e, true); /* they came while it drained */
    ash_entry_changed(m, e);
    ash_loader_wake(m);
}

bool ash_entry_lends(const ash_entry *e)
{
    return e->state == ASH_MODEL_LOADED && !e->draining && !e->lost;
}

bool ash_entry_returns(const ash_entry *e)
{
    return e->spec.preload || e->spec.usual;
}

int64_t ash_entry_expires(const ash_entry *e)
{
    bool stays = e->state != ASH_MODEL_LOADED || e->leases || e->spec.pin || e->keep_alive_ms < 0;
    if (stays || e->keep_alive_ms > (INT64_MAX - e->last_use_ns) / 1000000) return INT64_MAX;
    return e->last_use_ns + e->keep_alive_ms * 1000000;
}

typedef struct reason {
    int code;
    const char *name, *hint;
} reason;

/* Of a fetch that failed. */
static void explain_fetch(ash_entry *e)
{
    static const reason table[] = {
        {ASH_EAUTH, "gated",
         "accept its terms at the hub, and set HF_TOKEN to a token that may read it"},
        {ASH_ENOENT, "not_downloaded", "correct the repository, revision or files in the catalogue"},
        {ASH_ENET, "network", "see the message; what was fetched stays, and a retry goes on there"},
        {ASH_ENOSPC, "does_not_fit_disk",
         "make room (`ashley list --disk`, `ashley rm MODEL`), then retry"},
        {ASH_EFORMAT, "corrupt_download", "see the message; what is wrong was not kept"},
    };
    e->error_code = "fetch_failed";
    e->error_hint = "see the message, then retry";
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].code == e->error.code) {
            e->error_code = table[i].name;
            e->error_hint = table[i].hint;
        }
}

static void explain_load(ash_entry *e)
{
    static const reason table[] = {
        {ASH_ENOENT, "file_missing", "put the file there, then retry"},
        {ASH_EFORMAT, "corrupt_file",
         "fetch the file again: `ashley pull --verify MODEL` finds what is damaged and does that"},
        {ASH_EUNSUPPORTED, "unsupported_format", "choose another file of this model"},
        {ASH_ENOSPC, "does_not_fit",
         "unload another model, set a smaller ctx, or raise ASHLEY_MEMORY_BUDGET"},
        {ASH_EDISK, "does_not_fit_disk",
         "make room there or raise ASHLEY_DISK_BUDGET; with all of it in memory no pack file is needed"},
        {ASH_ENOMEM, "out_of_memory",
         "unload another model, set a smaller ctx, or raise ASHLEY_MEMORY_BUDGET"},
    };
    e->error_code = "load_failed";
    e->error_hint = "see the message, then retry";
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].code == e->error.code) {
            e->error_code = table[i].name;
            e->error_hint = table[i].hint;
        }
}

void ash_entry_fail(ash_manager *m, ash_entry *e)
{
    int doublings = e->failures < 6 ? e->failures : 6;
    int64_t pause = RETRY_NS << doublings;
    e->state = ASH_MODEL_FAILED;
    ash_log_redact(e->error.msg);
    e->retry_ns = ash_clock_ns() + (pause < MOST_RETRY_NS ? pause : MOST_RETRY_NS);
    e->failures++;
    e->boot_state = -1;
    if (e->spec.path)
        explain_load(e);
    else
        explain_fetch(e);
    ash_error("residency", "%s failed: %s", e->spec.id, e->error.msg);
}

void ash_boot_note(ash_manager *m)
{
    if (m->preload_ms > 0.0) return;
    for (size_t i = 0; i < m->n; i++)
        if (m->entries[i].spec.preload && !m->entries[i].boot_state) return;
    m->preload_ms = (double)(ash_clock_ns() - m->opened_ns) * 1e-6;
}

/* ---- open and close ---- */

void ash_entry_reset(const ash_manager *m, ash_entry *e)
{
    e->error = ASH_ERR_INIT;
    e->keep_alive_ms = e->spec.keep_alive_ms;
    e->state = ASH_MODEL_UNLOADED;
    e->planned = e->fetched = false;
    e->paused = e->spec.paused && !e->spec.path && ash_entry_can_load(m, e);
    if (!e->paused && ash_entry_can_load(m, e)) return;
    e->state = ASH_MODEL_FAILED;
    e->boot_state = -1;
    if (e->paused) {
        ash_err_set(&e->error, ASH_ECANCELED, "its download is paused");
        e->error_code = "download_paused";
        e->error_hint = "POST /models/retry goes on with it";
        return;
    }
    ash_err_set(&e->error, ASH_ENOENT, "%s",
                e->spec.absent_reason ? e->spec.absent_reason : "not on this machine");
    e->error_code = e->spec.absent_code ? e->spec.absent_code : "not_downloaded";
    e->error_hint = e->spec.absent_hint;
}

int ash_manager_open(const ash_manager_opts *opts, ash_manager **out, ash_err *err)
{
    *out = NULL;
    ash_manager *m = calloc(1, sizeof *m);
    if (!m) return ash_err_nomem(err, "residency");
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&m->mutex, NULL);
    pthread_cond_init(&m->load_cond, &attr);
    pthread_cond_init(&m->keep_cond, &attr);
    pthread_cond_init(&m->fetch_cond, &attr);
    pthread_condattr_destroy(&attr);
    m->cpu = opts->cpu;
    m->prediction = opts->prediction;
    m->threads = opts->threads;
    m->state_dir = opts->state_dir ? strdup(opts->state_dir) : NULL;
    m->disk_budget = opts->disk_budget;
    m->budget.limit = opts->memory_budget;
    m->memory_root = opts->memory_root ? strdup(opts->memory_root) : NULL;
    if (opts->state_dir && ash_ledger_open(opts->state_dir, &m->ledger, NULL)) m->ledger = NULL;
    m->ready_policy = opts->ready_policy;
    m->fetch = opts->fetch;
    m->weigh = opts->weigh;
    m->advise = opts->advise;
    m->remove = opts->remove;
    m->find = opts->find;
    m->fetch_user = opts->fetch_user;
    m->opened_at = ash_clock_wall();
    m->opened_ns = ash_clock_ns();
    m->next_ticket = 1;
    m->cap = opts->n_specs + ASH_MANAGER_ADDED;
    m->entries = calloc(m->cap, sizeof *m->entries);
    m->figures = calloc(m->cap, sizeof *m->figures);
    m->list = calloc(m->cap, sizeof *m->list);
    m->fits = calloc(m->cap, sizeof *m->fits);
    m->keeper_list = calloc(m->cap, sizeof *m->keeper_list);
    for (size_t i = 0; m->entries && i < opts->n_specs; i++) {
        m->n = i + 1;
        if (!ash_spec_copy(&m->entries[i].spec, &opts->specs[i])) {
            ash_manager_close(m);
            return ash_err_nomem(err, "residency");
        }
        ash_entry_reset(m, &m->entries[i]);
    }
    if (!m->entries || !m->figures || !m->list || !m->fits || !m->keeper_list ||
        (opts->state_dir && !m->state_dir) || (opts->memory_root && !m->memory_root)) {
        ash_manager_close(m);
        return ash_err_nomem(err, "residency");
    }
    ash_boot_note(m);
    *out = m;
    return 0;
}

enum { THREADS = 2 + ASH_WEIGHERS + ASH_FETCHERS };

/* All threads, in the order in which they begin. */
static void list_threads(ash_manager *m, pthread_t *threads[THREADS], void *(*mains[THREADS])(void *))
{
    size_t n = 0;
    threads[n] = &m->loader, mains[n++] = ash_loader_main;
    threads[n] = &m->keeper, mains[n++] = ash_keeper_main;
    for (size_t i = 0; i < ASH_WEIGHERS; i++) threads[n] = &m->weighers[i], mains[n++] = ash_weigher_main;
    for (size_t i = 0; i < ASH_FETCHERS; i++) threads[n] = &m->fetchers[i], mains[n++] = ash_fetcher_main;
}

/* The first n of them. */
static void join(ash_manager *m, int n)
{
    pthread_t *threads[THREADS];
    void *(*mains[THREADS])(void *);
    list_threads(m, threads, mains);
    for (int i = 0; i < n; i++) pthread_join(*threads[i], NULL);
}

/* One of the threads cannot be had: the n before it end. */
static int give_up(ash_manager *m, int n, ash_err *err)
{
    pthread_mutex_lock(&m->mutex);
    m->stopping = true;
    for (size_t i = 0; i < m->n; i++) atomic_store(&m->entries[i].cancel, true);
    pthread_cond_broadcast(&m->load_cond);
    pthread_cond_broadcast(&m->keep_cond);
    pthread_cond_broadcast(&m->fetch_cond);
    pthread_mutex_unlock(&m->mutex);
    join(m, n);
    return ash_err_nomem(err, "the manager's threads");
}

int ash_manager_start(ash_manager *m, ash_err *err)
{
    pthread_mutex_lock(&m->mutex);
    for (int required = 1; required >= 0;
         required--) /* those that readiness waits for come first */
        for (size_t i = 0; i < m->n; i++) {
            ash_entry *e = &m->entries[i];
            if (!e->spec.preload || e->spec.required != required) continue;
            if (ash_entry_can_load(m, e) && !e->paused)
                ash_entry_queue(m, e, false);
            else
                ash_error("residency", "%s cannot be preloaded: %s", e->spec.id, e->error.msg);
        }
    pthread_mutex_unlock(&m->mutex);
    pthread_t *threads[THREADS];
    void *(*mains[THREADS])(void *);
    list_threads(m, threads, mains);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(threads[i], NULL, mains[i], m)) return give_up(m, i, err);
    m->started = true;
    return 0;
}

static bool everyone(const ash_waiter *w, const void *arg)
{
    return true;
}

void ash_manager_close(ash_manager *m)
{
    if (!m) return;
    ash_waiter *left = NULL;
    pthread_mutex_lock(&m->mutex);
    m->stopping = true;
    for (size_t i = 0; i < m->n; i++) atomic_store(&m->entries[i].cancel, true);
    ash_waiters_take(m, everyone, NULL, &left);
    pthread_cond_broadcast(&m->load_cond);
    pthread_cond_broadcast(&m->keep_cond);
    pthread_cond_broadcast(&m->fetch_cond);
    pthread_mutex_unlock(&m->mutex);
    ash_waiters_fail(left, ASH_ECANCELED, "the server is shutting down");
    ash_waiters_answer(left);
    if (m->started) join(m, THREADS);
    for (size_t i = 0; i < m->n; i++) {
        ash_experts_note_last(m, &m->entries[i], m->entries[i].engine);
        ash_engine_close(m->entries[i].engine);
        ash_spec_free(&m->entries[i].spec);
    }
    free(m->entries);
    free(m->figures);
    free(m->list);
    free(m->fits);
    free(m->keeper_list);
    free(m->state_dir);
    free(m->memory_root);
    ash_ledger_close(m->ledger);
    pthread_cond_destroy(&m->load_cond);
    pthread_cond_destroy(&m->keep_cond);
    pthread_cond_destroy(&m->fetch_cond);
    pthread_mutex_destroy(&m->mutex);
    free(m);
}

/* ---- requests ---- */

/* Listed only to say why it cannot be had. */
static bool is_nobody(const ash_entry *e)
{
    return e->spec.absent_code && !strcmp(e->spec.absent_code, "model_not_found");
}

bool ash_manager_knows(const ash_manager *m, const char *id, const char **nearest)
{
    ash_manager *w = (ash_manager *)m; /* the lock is not part of the state */
    if (nearest) *nearest = NULL;
    pthread_mutex_lock(&w->mutex);
    const ash_entry *e = ash_entry_find(w, id);
    bool known = e && !is_nobody(e);
    int best = ASH_NEAREST_FAR;
    for (size_t i = 0; nearest && !known && i < m->n; i++) {
        int d = ash_nearest_distance(id, m->entries[i].spec.id);
        if (d < best && !is_nobody(&m->entries[i])) {
            best = d;
            *nearest = m->entries[i].spec.id;
        }
    }
    pthread_mutex_unlock(&w->mutex);
    return known;
}

ash_model_state ash_manager_state(const ash_manager *m, const char *id)
{
    ash_manager *w = (ash_manager *)m; /* the lock is not part of the state */
    pthread_mutex_lock(&w->mutex);
    ash_entry *e = ash_entry_find(m, id);
    ash_model_state s = !e                                           ? ASH_MODEL_FAILED
                        : !e->queued || e->state == ASH_MODEL_LOADED ? e->state
                        : e->spec.path                               ? ASH_MODEL_LOADING
                                                                     : ASH_MODEL_DOWNLOADING;
    pthread_mutex_unlock(&w->mutex);
    return s;
}

static int unknown(const char *id, ash_err *err)
{
    return ash_err_set(err, ASH_ENOENT, "no model '%s'", id);
}

/* Why a failed entry is not tried again now; 0 if it may be. Whether there is room can have
 * changed, and costs little to ask. */
static int still_failed(const ash_manager *m, const ash_entry *e, ash_err *err)
{
    if (e->removing) return ash_entry_removing(e, err);
    if (e->state != ASH_MODEL_FAILED || e->queued) return 0;
    bool room = e->spec.path && e->error.code == ASH_ENOSPC;
    bool again = ash_entry_can_load(m, e) && !e->paused && (room || ash_clock_ns() >= e->retry_ns);
    return again ? 0 : ash_err_set(err, e->error.code, "%s", e->error.msg);
}

int ash_manager_acquire(ash_manager *m, const char *id, int64_t load_ms, ash_lease_fn cb,
                        void *user, uint64_t *ticket, ash_err *err)
{
    ash_waiter *w = calloc(1, sizeof *w);
    if (!w) return ash_err_nomem(err, "a waiting request");
    ash_entry_look_again(m, id);
    pthread_mutex_lock(&m->mutex);
    ash_entry *e = ash_entry_find(m, id);
    int rc = !e            ? unknown(id, err)
             : m->stopping ? ash_err_set(err, ASH_ECANCELED, "the server is shutting down")
                           : still_failed(m, e, err);
    ash_engine *engine = NULL;
    if (!rc) {
        *ticket = m->next_ticket++;
        e->comes_back = false;
        if (ash_entry_lends(e)) {
            e->leases++;
            e->unload_pending = false;
            e->last_use_ns = ash_clock_ns();
            ash_policy_used(&e->uses, e->last_use_ns / 1000000);
            m->changes++;
            engine = e->engine;
        } else {
            *w = (ash_waiter){
                .next = m->waiters, .ticket = *ticket, .entry = e, .cb = cb, .user = user};
            w->err = ASH_ERR_INIT;
            if (load_ms > 0) w->deadline_ns = ash_clock_ns() + load_ms * 1000000;
            m->waiters = w;
            atomic_store(&e->awaited, true);
            if (!e->closing) ash_entry_queue(m, e, true);
            pthread_cond_signal(&m->keep_cond);
        }
    }
    pthread_mutex_unlock(&m->mutex);
    if (rc || engine) free(w);
    if (engine) cb(user, engine, NULL);
    return rc;
}

void ash_manager_abandon(ash_manager *m, uint64_t ticket)
{
    ash_waiter *w = NULL;
    pthread_mutex_lock(&m->mutex);
    ash_waiters_take(m, ash_waiter_has, &ticket, &w);
    pthread_mutex_unlock(&m->mutex);
    ash_waiters_fail(w, ASH_ECANCELED, "the request was cancelled");
    ash_waiters_answer(w);
}

void ash_manager_release(ash_manager *m, ash_engine *engine)
{
    ash_engine_stats s;
    ash_engine_get_stats(engine, &s);
    pthread_mutex_lock(&m->mutex);
    for (size_t i = 0; i < m->n; i++) {
        ash_entry *e = &m->entries[i];
        if (e->engine != engine) continue;
        e->leases--;
        e->last_use_ns = ash_clock_ns();
        e->lost |= s.lost;
        if (e->leases) continue;
        pthread_cond_signal(&m->keep_cond);
        ash_loader_wake(m);
    }
    pthread_mutex_unlock(&m->mutex);
}

int ash_manager_load(ash_manager *m, const char *id, ash_err *err)
{
    ash_entry_look_again(m, id);
    pthread_mutex_lock(&m->mutex);
    ash_entry *e = ash_entry_find(m, id);
    int rc = e ? 0 : unknown(id, err);
    rc = rc ? rc : ash_entry_removing(e, err);
    if (!rc && !ash_entry_can_load(m, e))
        rc = ash_err_set(err, ash_entry_absent(m, e), "%s", e->error.msg);
    bool paused = !rc && (e->paused || e->pausing);
    if (!rc) {
        e->unload_pending = false;
        e->again = e->state == ASH_MODEL_DOWNLOADING && atomic_load(&e->cancel);
        ash_entry_queue(m, e, true);
    }
    pthread_mutex_unlock(&m->mutex);
    if (paused) ash_downloads_note(m, ASH_DOWNLOADS_PAUSED, id, false);
    return rc;
}

void ash_manager_want(ash_manager *m, const char *id)
{
    ash_entry_look_again(m, id);
    pthread_mutex_lock(&m->mutex);
    ash_entry *e = ash_entry_find(m, id);
    if (e && !e->closing && !still_failed(m, e, NULL)) ash_entry_queue(m, e, true);
    pthread_mutex_unlock(&m->mutex);
}

int ash_manager_keep(ash_manager *m, const char *id, int64_t keep_alive_ms, ash_err *err)
{
    pthread_mutex_lock(&m->mutex);
    ash_entry *e = ash_entry_find(m, id);
    int rc = e ? 0 : unknown(id, err);
    if (!rc) {
        e->keep_alive_ms = keep_alive_ms < 0 ? -1 : keep_alive_ms;
        e->last_use_ns = ash_clock_ns();
        ash_entry_changed(m, e);
    }
    pthread_mutex_unlock(&m->mutex);
    return rc;
}

int ash_manager_unload(ash_manager *m, const char *id, ash_err *err)
{
    pthread_mutex_lock(&m->mutex);
    ash_entry *e = ash_entry_find(m, id);
    int rc = e ? 0 : unknown(id, err);
    if (e) e->comes_back = false;
    if (!rc && e->state == ASH_MODEL_LOADED) {
        e->unload_pending = true;
        ash_entry_changed(m, e);
    } else if (!rc && (e->queued || e->state == ASH_MODEL_LOADING ||
                       e->state == ASH_MODEL_DOWNLOADING)) {
        rc = ash_err_set(err, ASH_EINVAL, "'%s' is loading; cancel it instead", id);
    }
    pthread_mutex_unlock(&m->mutex);
    return rc;
}

int ash_manager_cancel(ash_manager *m, const char *id, ash_err *err)
{
    ash_waiter *done = NULL;
    pthread_mutex_lock(&m->mutex);
    ash_entry *e = ash_entry_find(m, id);
    int rc = e ? 0 : unknown(id, err);
    bool paused = e && (e->paused || e->pausing);
    if (!rc && (e->state == ASH_MODEL_LOADING || e->state == ASH_MODEL_DOWNLOADING)) {
        e->pausing = e->again = false;
        atomic_store(&e->cancel, true);
    } else if (!rc && e->paused) {
        e->spec.paused = false;
        ash_entry_reset(m, e);
        ash_entry_changed(m, e);
    } else if (!rc && e->queued) {
        e->queued = false;
        atomic_store(&e->cancel, true); /* the hub may be being asked about it */
        e->comes_back = e->fetched = false;
        e->waits = NULL;
        e->boot_state = -1;
        ash_waiters_take(m, ash_waiter_of, e, &done);
        ash_boot_note(m);
        ash_entry_changed(m, e);
        ash_loader_wake(m);
    }
    pthread_mutex_unlock(&m->mutex);
    ash_waiters_fail(done, ASH_ECANCELED, "the load was cancelled");
    ash_waiters_answer(done);
    if (paused) ash_downloads_note(m, ASH_DOWNLOADS_PAUSED, id, false);
    return rc;
}
