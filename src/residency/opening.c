/* Owns the loads that run: each on a thread of its own, two at most, and whether a second one may begin
 * beside the first (policy.h). Lock rules: state.h. */
#include <math.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/log.h"
#include "residency/state.h"

enum { LOOK_MS = 500 }; /* over which it is measured how busy the processors are */

/* ---- what came of one ---- */

/* What the process grew by from `before`, as if all scratch was in use but the KV pool not yet; 0 if
 * something else happened meanwhile, or more is to come. */
static uint64_t measure(const ash_manager *m, uint64_t changes, uint64_t before, const ash_engine *engine)
{
    const ash_model_info *info = ash_engine_info(engine);
    ash_memory now;
    for (size_t i = 0; i < m->n; i++)
        if (m->entries[i].leases) return 0;
    if (m->changes != changes || info->mapped) return 0;
    ash_memory_read(m->memory_root ? m->memory_root : "", &now);
    uint64_t full = now.resident + ash_engine_untouched(engine);
    return ash_measure_grown(before, full > info->kv_bytes ? full - info->kv_bytes : 0, info->weight_bytes,
                             info->scratch_bytes + info->draft_bytes);
}

/* A row of the ledger. */
static ash_ledger_row row_of(const ash_entry *e, const ash_model_info *info, uint64_t grown)
{
    ash_ledger_row r = {.weight_bytes = info->weight_bytes,
                        .kv_bytes = info->kv_bytes,
                        .scratch_bytes = info->scratch_bytes,
                        .draft_bytes = info->draft_bytes,
                        .file_bytes = e->plan.file_bytes,
                        .grown_bytes = grown,
                        .load_ms = e->load_ms};
    for (int i = 0; i < ASH_N_STAGES; i++) r.stage_ms[i] = e->stage_ms[i];
    return r;
}

static void loaded(ash_manager *m, ash_entry *e, ash_engine *engine, const char *draft_refused,
                   uint64_t grown)
{
    const ash_model_info *info = ash_engine_info(engine);
    int64_t now = ash_clock_ns();
    double total = (double)(now - e->load_begin_ns) * 1e-6, known = 0.0;
    int last = atomic_load(&e->progress.stage);
    for (int i = 1; i < last; i++) known += e->stage_ms[i];
    e->stage_ms[last] = fmax(total - known, 0.0);
    e->load_ms = total;
    if (!e->shared || !(e->bring_back_s > 0.0)) e->bring_back_s = total * 1e-3;
    e->resident_bytes =
        info->weight_bytes + info->kv_bytes + info->scratch_bytes + info->draft_bytes;
    if (grown) e->measured = grown + info->kv_bytes;
    e->estimate = e->resident_bytes;
    e->charge = grown ? e->measured : e->need;
    snprintf(e->draft_refused, sizeof e->draft_refused, "%s",
             info->draft_refused ? info->draft_refused : draft_refused);
    e->engine = engine;
    e->experts_chosen = e->experts_found = 0;
    e->state = ASH_MODEL_LOADED;
    e->failures = 0;
    e->comes_back = e->fetched = e->made_room = false;
    e->last_use_ns = e->loaded_ns = now;
    e->boot_state = 1;
    ash_info("residency", "%s is ready after %.0f ms (%.1f MB with a full KV cache)%s", e->spec.id,
             e->load_ms, (double)e->charge * 1e-6,
             info->warmed ? "" : ", warmed by the request that waits");
}

void ash_entry_finish(ash_manager *m, ash_entry *e, const ash_err *err, ash_waiter **done)
{
    if (err->code) {
        e->charge = 0;
        e->fetched = false;
        if (err->code == ASH_ECANCELED) {
            e->state = ASH_MODEL_UNLOADED;
            e->boot_state = -1;
            ash_info("residency", "%s was cancelled", e->spec.id);
        } else {
            e->error = *err;
            ash_entry_fail(m, e);
        }
        ash_waiters_take(m, ash_waiter_of, e, done);
        for (ash_waiter *w = *done; w; w = w->next) w->err = *err;
    }
    m->changes++;
    ash_boot_note(m);
    ash_entry_changed(m, e);
    ash_waiters_lend(m, done);
}

/* ---- its thread ---- */

/* Opens the engine without the lock, and says how it went. */
static void open_engine(ash_opening *o)
{
    ash_manager *m = o->manager;
    ash_entry *e = o->entry;
    ash_err err = ASH_ERR_INIT;
    ash_engine *engine = NULL;
    ash_waiter *done = NULL;
    ash_memory before;
    ash_ledger_row row = {0};
    ash_memory_read(m->memory_root ? m->memory_root : "", &before);
    ash_info("residency", "loading %s from %s", e->spec.id, e->spec.path);
    int rc = ash_engine_open(&o->opts, &engine, &err);
    ash_headers_close(o->headers); /* of a load that ended before it took them */
    if (rc && !err.code) ash_err_set(&err, rc, "%s", ash_err_name(rc));
    if (!rc) err = ASH_ERR_INIT;
    pthread_mutex_lock(&m->mutex);
    bool told = !e->shared || !(e->bring_back_s > 0.0); /* times of two at once mislead */
    if (!rc) {
        const ash_model_info *info = ash_engine_info(engine);
        uint64_t grown = measure(m, o->changes, before.resident, engine);
        loaded(m, e, engine, o->draft_refused, grown);
        row = row_of(e, info, grown);
    }
    ash_entry_finish(m, e, &err, &done);
    pthread_mutex_unlock(&m->mutex);
    ash_waiters_answer(done);
    if (rc || !told) return;
    const ash_measure_of of = ash_entry_measured_as(m, e);
    ash_measure_put(m->ledger, &of, e->plan.n_ctx, &row);
}

static void *opening_main(void *opening)
{
    ash_opening *o = opening;
    ash_manager *m = o->manager;
    open_engine(o);
    pthread_mutex_lock(&m->mutex);
    o->over = true;
    ash_loader_wake(m);
    pthread_mutex_unlock(&m->mutex);
    return NULL;
}

void ash_openings_join(ash_manager *m, bool all)
{
    for (size_t i = 0; i < ASH_MAX_OPENINGS; i++) {
        ash_opening *o = &m->openings[i];
        if (!o->entry || !(all || o->over)) continue;
        pthread_t thread = o->thread;
        pthread_mutex_unlock(&m->mutex);
        pthread_join(thread, NULL);
        pthread_mutex_lock(&m->mutex);
        o->entry = NULL;
    }
}

static ash_opening *running(ash_manager *m)
{
    for (size_t i = 0; i < ASH_MAX_OPENINGS; i++)
        if (m->openings[i].entry && !m->openings[i].over) return &m->openings[i];
    return NULL;
}

static ash_opening *free_place(ash_manager *m)
{
    for (size_t i = 0; i < ASH_MAX_OPENINGS; i++)
        if (!m->openings[i].entry) return &m->openings[i];
    return NULL;
}

void ash_opening_begin(ash_manager *m, ash_entry *e, const ash_engine_opts *opts, const char *draft_refused)
{
    ash_opening *other = running(m), *o = free_place(m);
    *o = (ash_opening){.manager = m, .entry = e, .opts = *opts, .headers = e->headers};
    o->opts.headers = &o->headers;
    e->headers = NULL;
    snprintf(o->draft_refused, sizeof o->draft_refused, "%s", draft_refused);
    e->queued = false;
    e->waits = NULL;
    e->state = ASH_MODEL_LOADING;
    e->shared = other != NULL;
    if (other) other->entry->shared = true;
    atomic_store(&e->awaited, ash_waiters_any(m, e)); /* one that left since needs no haste */
    e->charge = e->need;
    o->changes = ++m->changes;
    m->cpu_looked_ns = 0;
    ash_entry_begin_load(e);
    ash_entry_changed(m, e);
    if (!pthread_create(&o->thread, NULL, opening_main, o)) return;
    ash_err err = ASH_ERR_INIT;
    ash_waiter *done = NULL;
    o->entry = NULL;
    ash_headers_close(o->headers);
    ash_err_nomem(&err, "the thread of a load");
    ash_entry_finish(m, e, &err, &done);
    pthread_mutex_unlock(&m->mutex);
    ash_waiters_answer(done);
    pthread_mutex_lock(&m->mutex);
}

/* ---- two at once ---- */

/* The share of the processors that this process used since the last look; 1 where it is not known yet. */
static double busy(ash_manager *m)
{
    int64_t now = ash_clock_ns();
    double elapsed = (double)(now - m->cpu_looked_ns) * 1e-9, seconds;
    if (m->cpu_looked_ns && elapsed < LOOK_MS * 1e-3) return m->cpu_busy;
    if (!ash_memory_cpu_seconds(m->memory_root ? m->memory_root : "", &seconds)) return 1.0;
    int n = m->threads > 0 ? m->threads : ash_cpu_threads();
    m->cpu_busy = m->cpu_looked_ns ? (seconds - m->cpu_seconds) / elapsed / n : 1.0;
    m->cpu_looked_ns = now;
    m->cpu_seconds = seconds;
    return m->cpu_busy;
}

static ash_policy_standing standing_of(const ash_entry *e, bool awaited)
{
    if (e->demand || awaited) return ASH_POLICY_AWAITED;
    return e->spec.required ? ASH_POLICY_REQUIRED : ASH_POLICY_OTHER;
}

bool ash_opening_any(ash_manager *m)
{
    return running(m) != NULL;
}

bool ash_opening_may(ash_manager *m, const ash_entry *e, int64_t *until_ms)
{
    const ash_opening *o = running(m);
    if (!free_place(m)) return false;
    if (!o) return true;
    const ash_entry *r = o->entry;
    ash_policy_load first = {.standing = standing_of(r, atomic_load(&r->awaited)), .rate = r->rate};
    ash_policy_load next = {.standing = standing_of(e, false)};
    if (e->bring_back_s > 0.0) next.rate = (double)e->plan.file_bytes / e->bring_back_s;
    bool alike = next.standing == first.standing;
    bool may = ash_policy_beside(&first, &next, alike ? busy(m) : 1.0);
    int64_t again = ash_clock_ms() + LOOK_MS;
    if (!may && alike && next.rate > 0.0 && again < *until_ms) *until_ms = again;
    return may;
}
