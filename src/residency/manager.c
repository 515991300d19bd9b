/* Owns which models are in memory: their states, the loader thread and who waits for whom.
 * Refuses ids that nobody knows and checkpoints that would not fit the free memory.
 *
 * Two threads: the loader takes queued entries in order and runs ash_engine_open; the keeper ends
 * waits that are out of time, closes engines (release may run on an engine's own thread, which
 * cannot join itself), unloads what was idle for its keep-alive and tells the listener. Callbacks
 * are always called without the lock. */
#include "residency/manager.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/nearest.h"
#include "residency/memory.h"
#include "residency/state.h"

static const int64_t RETRY_NS = 10ll * 1000000000; /* a failed load is tried again after this */
static const int64_t TICK_NS = 250ll * 1000000;    /* listener's pace while something loads */

static ash_entry *find(const ash_manager *m, const char *id)
{
    for (size_t i = 0; i < m->n; i++)
        if (!strcmp(m->entries[i].spec.id, id)) return &m->entries[i];
    return NULL;
}

static void changed(ash_manager *m, ash_entry *e)
{
    e->dirty = true;
    atomic_fetch_add(&m->version, 1);
    pthread_cond_signal(&m->keep_cond);
}

/* ---- waiters ----------------------------------------------------------------------------------
 */

/* Moves the waiters that `match` says from the manager's list to *done. */
static void take_waiters(ash_manager *m, bool (*match)(const ash_waiter *, const void *),
                         const void *arg, ash_waiter **done)
{
    for (ash_waiter **at = &m->waiters; *at;) {
        ash_waiter *w = *at;
        if (!match(w, arg)) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        w->next = *done;
        *done = w;
    }
}

static bool waits_for(const ash_waiter *w, const void *entry)
{
    return w->entry == entry;
}

static bool has_ticket(const ash_waiter *w, const void *ticket)
{
    return w->ticket == *(const uint64_t *)ticket;
}

static bool is_late(const ash_waiter *w, const void *now)
{
    return w->deadline_ns && w->deadline_ns <= *(const int64_t *)now;
}

/* Calls and frees; the lock is not held. */
static void answer_waiters(ash_waiter *done)
{
    while (done) {
        ash_waiter *w = done;
        done = w->next;
        w->cb(w->user, w->engine, w->engine ? NULL : &w->err);
        free(w);
    }
}

static void fail_all(ash_waiter *done, int code, const char *msg)
{
    for (ash_waiter *w = done; w; w = w->next) ash_err_set(&w->err, code, "%s", msg);
}

/* ---- loading ----------------------------------------------------------------------------------
 */

static void queue_load(ash_manager *m, ash_entry *e, bool first)
{
    if (e->queued || e->state == ASH_MODEL_LOADING || e->state == ASH_MODEL_LOADED) return;
    e->queued = true;
    /* a waiting client goes before preloads that nobody waits for yet */
    e->queue_seq = first ? m->next_seq++ : m->next_seq++ + (1ull << 40);
    e->state = ASH_MODEL_UNLOADED;
    atomic_store(&e->cancel, false);
    changed(m, e);
    pthread_cond_signal(&m->load_cond);
}

static bool has_waiter(const ash_manager *m, const ash_entry *e)
{
    for (const ash_waiter *w = m->waiters; w; w = w->next)
        if (w->entry == e) return true;
    return false;
}

static ash_entry *next_queued(ash_manager *m)
{
    ash_entry *best = NULL;
    for (size_t i = 0; i < m->n; i++) {
        ash_entry *e = &m->entries[i];
        if (e->queued && (!best || e->queue_seq < best->queue_seq)) best = e;
    }
    return best;
}

static void on_progress(void *user, ash_load_stage stage, uint64_t done, uint64_t total)
{
    ash_entry *e = user;
    int index = (int)stage + 1, before = atomic_load(&e->progress.stage);
    if (index != before) { /* only the loading thread writes these */
        double at = (double)(ash_clock_ns() - e->load_begin_ns) * 1e-6;
        for (int i = 1; i < before; i++) at -= e->stage_ms[i];
        e->stage_ms[before] = at;
        atomic_store(&e->progress.stage, index);
    }
    atomic_store(&e->progress.done, done);
    atomic_store(&e->progress.total, total);
    if (stage == ASH_LOAD_PACK) {
        atomic_store(&e->progress.bytes_done, done);
        atomic_store(&e->progress.bytes_total, total);
    }
}

/* A KV pool for which the memory has room, if the usual one does not fit: of the engine's least size,
 * one context, at least. Leaves a sixteenth free. */
static int fit_pool(ash_engine_opts *o, ash_engine_plan *plan, uint64_t room, ash_err *err)
{
    uint64_t fixed = plan->weight_bytes + plan->scratch_bytes + plan->draft_bytes, usual = plan->kv_bytes;
    room -= room / 16;
    if (fixed >= room || usual <= room - fixed) return 0;
    o->kv_bytes = room - fixed;
    int rc = ash_engine_plan_read(o, plan, err);
    if (!rc && plan->kv_bytes < usual)
        ash_info("residency", "%s: a KV pool of %.2f GB instead of %.2f, which the memory has room for",
                 o->path, (double)plan->kv_bytes * 1e-9, (double)usual * 1e-9);
    return rc;
}

/* Leaves the draft model out, with the reason, where it is not there or the memory has no room for it beside
 * the model with its usual KV pool, which serves more. */
static int fit_draft(const ash_entry *e, ash_engine_opts *o, ash_engine_plan *plan, uint64_t room,
                     char *refused, size_t size, ash_err *err)
{
    uint64_t need = plan->weight_bytes + plan->scratch_bytes + plan->kv_bytes, draft = plan->draft_bytes;
    if (!e->spec.draft)
        return 0;
    if (o->prediction == ASH_PREDICTION_NEVER)
        snprintf(refused, size, "prediction is off");
    else if (!o->draft_path)
        snprintf(refused, size, "%s", e->spec.draft_absent ? e->spec.draft_absent : "not on this machine");
    else if (draft && (room < need || draft > room - need))
        snprintf(refused, size, "it needs %.2f GB of memory beside the model's %.2f, and %.2f GB are free",
                 (double)draft * 1e-9, (double)need * 1e-9, (double)room * 1e-9);
    else
        return 0;
    if (o->prediction != ASH_PREDICTION_NEVER)
        ash_warn("residency", "%s: the draft model '%s' does not guess: %s", e->spec.id, e->spec.draft,
                 refused);
    o->draft_path = NULL;
    return draft ? ash_engine_plan_read(o, plan, err) : 0;
}

static int load_engine(const ash_manager *m, ash_entry *e, char *draft_refused, size_t size,
                       ash_engine **out, ash_err *err)
{
    ash_engine_opts o = {.path = e->spec.path,
                         .template_text = e->spec.template_text,
                         .ctx = e->spec.ctx,
                         .kv_q8 = e->spec.kv_q8,
                         .threads = m->threads,
                         .state_dir = m->state_dir,
                         .disk_budget = m->disk_budget,
                         .cpu = m->cpu,
                         .prediction = m->prediction,
                         .draft_path = e->spec.draft_path,
                         .warm_prompt = e->spec.warm_prompt,
                         .progress = on_progress,
                         .user = e,
                         .awaited = &e->awaited,
                         .cancel = &e->cancel};
    ash_engine_plan plan;
    int rc = ash_engine_plan_read(&o, &plan, err);
    if (rc) return rc;
    uint64_t room = ash_memory_available();
    if ((rc = fit_draft(e, &o, &plan, room, draft_refused, size, err)) ||
        (rc = fit_pool(&o, &plan, room, err))) return rc;
    uint64_t need = plan.weight_bytes + plan.kv_bytes + plan.scratch_bytes + plan.draft_bytes;
    if (need > room)
        return ash_err_set(err, ASH_ENOSPC,
                           "'%s' needs %.2f GB of memory (weights %.2f, KV cache %.2f) and %.2f GB "
                           "are free",
                           e->spec.id, (double)need * 1e-9, (double)plan.weight_bytes * 1e-9,
                           (double)plan.kv_bytes * 1e-9, (double)room * 1e-9);
    return ash_engine_open(&o, out, err);
}

static void explain_failure(ash_entry *e)
{
    static const struct {
        int code;
        const char *name, *hint;
    } table[] = {
        {ASH_ENOENT, "file_missing", "put the file there, then retry"},
        {ASH_EFORMAT, "corrupt_file", "fetch the file again"},
        {ASH_EUNSUPPORTED, "unsupported_format", "choose another file of this model"},
        {ASH_ENOSPC, "does_not_fit", "unload another model, or set a smaller ctx"},
        {ASH_ENOMEM, "out_of_memory", "unload another model, or set a smaller ctx"},
    };
    e->error_code = "load_failed";
    e->error_hint = "see the message, then retry";
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].code == e->error.code) {
            e->error_code = table[i].name;
            e->error_hint = table[i].hint;
        }
}

static void note_boot(ash_manager *m)
{
    if (m->preload_ms > 0.0) return;
    for (size_t i = 0; i < m->n; i++)
        if (m->entries[i].spec.preload && !m->entries[i].boot_state) return;
    m->preload_ms = (double)(ash_clock_ns() - m->opened_ns) * 1e-6;
}

/* Takes the result of a load into the entry; the lock is held. Waiters to answer go to *done. */
static void finish_load(ash_manager *m, ash_entry *e, ash_engine *engine, const char *draft_refused,
                        const ash_err *err, ash_waiter **done)
{
    int64_t now = ash_clock_ns();
    if (engine) {
        const ash_model_info *info = ash_engine_info(engine);
        double total = (double)(now - e->load_begin_ns) * 1e-6, known = 0.0;
        int last = atomic_load(&e->progress.stage);
        for (int i = 1; i < last; i++) known += e->stage_ms[i];
        e->stage_ms[last] = fmax(total - known, 0.0);
        e->load_ms = total;
        e->resident_bytes = info->weight_bytes + info->kv_bytes + info->scratch_bytes + info->draft_bytes;
        snprintf(e->draft_refused, sizeof e->draft_refused, "%s",
                 info->draft_refused ? info->draft_refused : draft_refused);
        e->engine = engine;
        e->state = ASH_MODEL_LOADED;
        e->failures = 0;
        e->last_use_ns = now;
        e->boot_state = 1;
        ash_info("residency", "%s is ready after %.0f ms (%.1f MB with a full KV cache)%s", e->spec.id,
                 e->load_ms, (double)e->resident_bytes * 1e-6,
                 info->warmed ? "" : ", warmed by the request that waits");
    } else if (err->code == ASH_ECANCELED) {
        e->state = ASH_MODEL_UNLOADED;
        e->boot_state = -1;
        ash_info("residency", "loading %s was cancelled", e->spec.id);
    } else {
        e->state = ASH_MODEL_FAILED;
        e->error = *err;
        ash_log_redact(e->error.msg);
        e->failed_ns = now;
        e->failures++;
        e->boot_state = -1;
        explain_failure(e);
        ash_error("residency", "%s failed: %s", e->spec.id, e->error.msg);
    }
    take_waiters(m, waits_for, e, done);
    for (ash_waiter *w = *done; w; w = w->next) {
        w->engine = engine;
        w->err = *err;
        e->leases += engine != NULL;
    }
    note_boot(m);
    changed(m, e);
}

static void *loader_main(void *arg)
{
    ash_manager *m = arg;
    pthread_mutex_lock(&m->mutex);
    while (!m->stopping) {
        ash_entry *e = next_queued(m);
        if (!e) {
            pthread_cond_wait(&m->load_cond, &m->mutex);
            continue;
        }
        e->queued = false;
        e->state = ASH_MODEL_LOADING;
        atomic_store(&e->awaited, has_waiter(m, e)); /* one that left since needs no haste */
        ash_entry_begin_load(e);
        changed(m, e);
        pthread_mutex_unlock(&m->mutex);
        ash_err err = ASH_ERR_INIT;
        ash_engine *engine = NULL;
        ash_info("residency", "loading %s from %s", e->spec.id, e->spec.path);
        char draft_refused[sizeof e->draft_refused] = "";
        int rc = load_engine(m, e, draft_refused, sizeof draft_refused, &engine, &err);
        if (rc && !err.code) ash_err_set(&err, rc, "%s", ash_err_name(rc));
        ash_waiter *done = NULL;
        pthread_mutex_lock(&m->mutex);
        finish_load(m, e, rc ? NULL : engine, draft_refused, &err, &done);
        pthread_mutex_unlock(&m->mutex);
        answer_waiters(done);
        pthread_mutex_lock(&m->mutex);
    }
    pthread_mutex_unlock(&m->mutex);
    return NULL;
}

/* ---- the keeper -------------------------------------------------------------------------------
 */

static bool is_idle(const ash_entry *e, int64_t now)
{
    return !e->spec.pin && e->spec.keep_alive_ms >= 0 &&
           now - e->last_use_ns >= e->spec.keep_alive_ms * 1000000;
}

/* The engine of one entry that should be closed now, taken out of it, or NULL. */
static ash_engine *take_idle(ash_manager *m, int64_t now)
{
    for (size_t i = 0; i < m->n; i++) {
        ash_entry *e = &m->entries[i];
        if (e->state != ASH_MODEL_LOADED || e->leases || !(e->unload_pending || is_idle(e, now)))
            continue;
        ash_engine *engine = e->engine;
        ash_info("residency", "unloading %s (%s)", e->spec.id,
                 e->unload_pending ? "asked for" : "idle for its keep-alive");
        e->engine = NULL;
        e->state = ASH_MODEL_UNLOADED;
        e->unload_pending = false;
        changed(m, e);
        return engine;
    }
    return NULL;
}

/* When the keeper has to look again, in monotonic ns. */
static int64_t next_deadline(const ash_manager *m, int64_t now)
{
    int64_t at = now + 60ll * 1000000000;
    for (const ash_waiter *w = m->waiters; w; w = w->next)
        if (w->deadline_ns && w->deadline_ns < at) at = w->deadline_ns;
    for (size_t i = 0; i < m->n; i++) {
        const ash_entry *e = &m->entries[i];
        if (e->state == ASH_MODEL_LOADING && now + TICK_NS < at) at = now + TICK_NS;
        if (e->state == ASH_MODEL_LOADED && !e->leases && !e->spec.pin &&
            e->spec.keep_alive_ms >= 0) {
            int64_t idle = e->last_use_ns + e->spec.keep_alive_ms * 1000000;
            at = idle < at ? idle : at;
        }
    }
    return at;
}

/* Tells the listener of entries whose state or progress changed; the lock is held, and not while
 * calling. */
static void tell_listener(ash_manager *m, int64_t now)
{
    for (size_t i = 0; i < m->n && !m->stopping; i++) {
        ash_entry *e = &m->entries[i];
        if (e->state == ASH_MODEL_LOADING && ash_entry_sample(e, now)) {
            e->dirty = true;
            atomic_fetch_add(&m->version, 1);
        }
        if (!e->dirty) continue;
        e->dirty = false;
        if (!m->listener) continue;
        pthread_mutex_unlock(&m->mutex);
        m->listener(m->listener_user, e->spec.id);
        pthread_mutex_lock(&m->mutex);
    }
}

static bool any_dirty(const ash_manager *m)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->entries[i].dirty) return true;
    return false;
}

static void *keeper_main(void *arg)
{
    ash_manager *m = arg;
    pthread_mutex_lock(&m->mutex);
    while (!m->stopping) {
        int64_t now = ash_clock_ns();
        ash_waiter *late = NULL;
        take_waiters(m, is_late, &now, &late);
        ash_engine *idle = take_idle(m, now);
        if (late || idle) {
            pthread_mutex_unlock(&m->mutex);
            fail_all(late, ASH_ETIMEDOUT, "the model was not loaded within the load time budget");
            answer_waiters(late);
            ash_engine_close(idle);
            pthread_mutex_lock(&m->mutex);
            continue;
        }
        tell_listener(m, now);
        if (any_dirty(m) || m->stopping) continue;
        int64_t at = next_deadline(m, now);
        struct timespec ts = {.tv_sec = at / 1000000000, .tv_nsec = at % 1000000000};
        pthread_cond_timedwait(&m->keep_cond, &m->mutex, &ts);
    }
    pthread_mutex_unlock(&m->mutex);
    return NULL;
}

/* ---- open and close ---------------------------------------------------------------------------
 */

static char *copy_text(const char *s, bool *ok)
{
    char *p = s ? strdup(s) : NULL;
    *ok &= !s || p;
    return p;
}

static bool copy_spec(ash_model_spec *to, const ash_model_spec *from)
{
    bool ok = true;
    *to = *from;
    to->id = copy_text(from->id, &ok);
    to->path = copy_text(from->path, &ok);
    to->absent_reason = copy_text(from->absent_reason, &ok);
    to->absent_code = copy_text(from->absent_code, &ok);
    to->absent_hint = copy_text(from->absent_hint, &ok);
    to->template_text = copy_text(from->template_text, &ok);
    to->repo = copy_text(from->repo, &ok);
    to->format = copy_text(from->format, &ok);
    to->size = copy_text(from->size, &ok);
    to->description = copy_text(from->description, &ok);
    to->warning = copy_text(from->warning, &ok);
    to->warm_prompt = copy_text(from->warm_prompt, &ok);
    to->draft = copy_text(from->draft, &ok);
    to->draft_path = copy_text(from->draft_path, &ok);
    to->draft_absent = copy_text(from->draft_absent, &ok);
    return ok;
}

static void free_spec(ash_model_spec *s)
{
    const char *all[] = {s->id,          s->path,        s->absent_reason, s->absent_code,
                         s->absent_hint, s->repo,        s->format,        s->template_text,
                         s->size,        s->description, s->warning,       s->warm_prompt,
                         s->draft,       s->draft_path,  s->draft_absent};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free((void *)all[i]);
}

/* An entry without a checkpoint on this machine is failed from the start, with its reason. */
static void init_state(ash_entry *e)
{
    e->error = ASH_ERR_INIT;
    if (e->spec.path) return;
    e->state = ASH_MODEL_FAILED;
    ash_err_set(&e->error, ASH_ENOENT, "%s",
                e->spec.absent_reason ? e->spec.absent_reason : "not on this machine");
    e->error_code = e->spec.absent_code ? e->spec.absent_code : "not_downloaded";
    e->error_hint = e->spec.absent_hint;
    e->boot_state = -1;
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
    pthread_condattr_destroy(&attr);
    m->cpu = opts->cpu;
    m->prediction = opts->prediction;
    m->threads = opts->threads;
    m->state_dir = opts->state_dir ? strdup(opts->state_dir) : NULL;
    m->disk_budget = opts->disk_budget;
    m->ready_policy = opts->ready_policy;
    m->opened_at = ash_clock_wall();
    m->opened_ns = ash_clock_ns();
    m->next_ticket = 1;
    m->entries = calloc(opts->n_specs ? opts->n_specs : 1, sizeof *m->entries);
    for (size_t i = 0; m->entries && i < opts->n_specs; i++) {
        m->n = i + 1;
        if (!copy_spec(&m->entries[i].spec, &opts->specs[i])) {
            ash_manager_close(m);
            return ash_err_nomem(err, "residency");
        }
        init_state(&m->entries[i]);
    }
    if (!m->entries || (opts->state_dir && !m->state_dir)) {
        ash_manager_close(m);
        return ash_err_nomem(err, "residency");
    }
    note_boot(m);
    *out = m;
    return 0;
}

int ash_manager_start(ash_manager *m, ash_err *err)
{
    pthread_mutex_lock(&m->mutex);
    for (size_t i = 0; i < m->n; i++)
        if (m->entries[i].spec.preload && m->entries[i].spec.path)
            queue_load(m, &m->entries[i], false);
        else if (m->entries[i].spec.preload)
            ash_error("residency", "%s cannot be preloaded: %s", m->entries[i].spec.id,
                      m->entries[i].error.msg);
    pthread_mutex_unlock(&m->mutex);
    if (pthread_create(&m->loader, NULL, loader_main, m))
        return ash_err_nomem(err, "the loader thread");
    if (pthread_create(&m->keeper, NULL, keeper_main, m)) {
        pthread_mutex_lock(&m->mutex);
        m->stopping = true;
        pthread_cond_broadcast(&m->load_cond);
        pthread_mutex_unlock(&m->mutex);
        pthread_join(m->loader, NULL);
        return ash_err_nomem(err, "the keeper thread");
    }
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
    take_waiters(m, everyone, NULL, &left);
    pthread_cond_broadcast(&m->load_cond);
    pthread_cond_broadcast(&m->keep_cond);
    pthread_mutex_unlock(&m->mutex);
    fail_all(left, ASH_ECANCELED, "the server is shutting down");
    answer_waiters(left);
    if (m->started) {
        pthread_join(m->loader, NULL);
        pthread_join(m->keeper, NULL);
    }
    for (size_t i = 0; i < m->n; i++) {
        ash_engine_close(m->entries[i].engine);
        free_spec(&m->entries[i].spec);
    }
    free(m->entries);
    free(m->state_dir);
    pthread_cond_destroy(&m->load_cond);
    pthread_cond_destroy(&m->keep_cond);
    pthread_mutex_destroy(&m->mutex);
    free(m);
}

/* ---- requests ---------------------------------------------------------------------------------
 */

bool ash_manager_knows(const ash_manager *m, const char *id, const char **nearest)
{
    if (nearest) *nearest = NULL;
    if (find(m, id)) return true;
    int best = ASH_NEAREST_FAR;
    for (size_t i = 0; nearest && i < m->n; i++) {
        int d = ash_nearest_distance(id, m->entries[i].spec.id);
        if (d < best) {
            best = d;
            *nearest = m->entries[i].spec.id;
        }
    }
    return false;
}

ash_model_state ash_manager_state(const ash_manager *m, const char *id)
{
    ash_manager *w = (ash_manager *)m; /* the lock is not part of the state */
    pthread_mutex_lock(&w->mutex);
    ash_entry *e = find(m, id);
    ash_model_state s = !e                                          ? ASH_MODEL_FAILED
                        : e->queued && e->state != ASH_MODEL_LOADED ? ASH_MODEL_LOADING
                                                                    : e->state;
    pthread_mutex_unlock(&w->mutex);
    return s;
}

static int unknown(const char *id, ash_err *err)
{
    return ash_err_set(err, ASH_ENOENT, "no model '%s'", id);
}

/* Why a failed entry is not tried again now; 0 if it may be. */
static int still_failed(const ash_entry *e, ash_err *err)
{
    if (e->state != ASH_MODEL_FAILED || e->queued) return 0;
    bool again = e->spec.path && ash_clock_ns() - e->failed_ns >= RETRY_NS;
    return again ? 0 : ash_err_set(err, e->error.code, "%s", e->error.msg);
}

int ash_manager_acquire(ash_manager *m, const char *id, int64_t load_ms, ash_lease_fn cb,
                        void *user, uint64_t *ticket, ash_err *err)
{
    ash_waiter *w = calloc(1, sizeof *w);
    if (!w) return ash_err_nomem(err, "a waiting request");
    pthread_mutex_lock(&m->mutex);
    ash_entry *e = find(m, id);
    int rc = !e            ? unknown(id, err)
             : m->stopping ? ash_err_set(err, ASH_ECANCELED, "the server is shutting down")
                           : still_failed(e, err);
    ash_engine *engine = NULL;
    if (!rc) {
        *ticket = m->next_ticket++;
        if (e->state == ASH_MODEL_LOADED) {
            e->leases++;
            e->unload_pending = false;
            e->last_use_ns = ash_clock_ns();
            engine = e->engine;
        } else {
            *w = (ash_waiter){
                .next = m->waiters, .ticket = *ticket, .entry = e, .cb = cb, .user = user};
            w->err = ASH_ERR_INIT;
            if (load_ms > 0) w->deadline_ns = ash_clock_ns() + load_ms * 1000000;
            m->waiters = w;
            atomic_store(&e->awaited, true);
            e->wanted_by_user = true;
            queue_load(m, e, true);
            if (e->queued) /* someone waits now: before the preloads that nobody waits for */
                e->queue_seq &= (1ull << 40) - 1;
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
    take_waiters(m, has_ticket, &ticket, &w);
    pthread_mutex_unlock(&m->mutex);
    fail_all(w, ASH_ECANCELED, "the request was cancelled");
    answer_waiters(w);
}

void ash_manager_release(ash_manager *m, ash_engine *engine)
{
    pthread_mutex_lock(&m->mutex);
    for (size_t i = 0; i < m->n; i++) {
        ash_entry *e = &m->entries[i];
        if (e->engine != engine) continue;
        e->leases--;
        e->last_use_ns = ash_clock_ns();
        if (!e->leases) pthread_cond_signal(&m->keep_cond);
    }
    pthread_mutex_unlock(&m->mutex);
}

int ash_manager_load(ash_manager *m, const char *id, ash_err *err)
{
    pthread_mutex_lock(&m->mutex);
    ash_entry *e = find(m, id);
    int rc = e ? 0 : unknown(id, err);
    if (!rc && !e->spec.path) rc = ash_err_set(err, e->error.code, "%s", e->error.msg);
    if (!rc) {
        e->unload_pending = false;
        queue_load(m, e, true);
    }
    pthread_mutex_unlock(&m->mutex);
    return rc;
}

int ash_manager_unload(ash_manager *m, const char *id, ash_err *err)
{
    pthread_mutex_lock(&m->mutex);
    ash_entry *e = find(m, id);
    int rc = e ? 0 : unknown(id, err);
    if (!rc && e->state == ASH_MODEL_LOADED) {
        e->unload_pending = true;
        changed(m, e);
    } else if (!rc && (e->queued || e->state == ASH_MODEL_LOADING)) {
        rc = ash_err_set(err, ASH_EINVAL, "'%s' is loading; cancel it instead", id);
    }
    pthread_mutex_unlock(&m->mutex);
    return rc;
}

int ash_manager_cancel(ash_manager *m, const char *id, ash_err *err)
{
    ash_waiter *done = NULL;
    pthread_mutex_lock(&m->mutex);
    ash_entry *e = find(m, id);
    int rc = e ? 0 : unknown(id, err);
    if (!rc && e->state == ASH_MODEL_LOADING) {
        atomic_store(&e->cancel, true);
    } else if (!rc && e->queued) {
        e->queued = false;
        e->boot_state = -1;
        take_waiters(m, waits_for, e, &done);
        note_boot(m);
        changed(m, e);
    }
    pthread_mutex_unlock(&m->mutex);
    fail_all(done, ASH_ECANCELED, "the load was cancelled");
    answer_waiters(done);
    return rc;
}
