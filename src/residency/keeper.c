/* Owns the keeper thread: waits that are out of time, engines that are idle, pressure on memory,
 * loads that come back, what the ledger is told of experts, and the listener. Lock rules: state.h. */
#include "base/clock.h"
#include "base/log.h"
#include "residency/state.h"

static const int64_t SECOND = 1000000000,
                     TICK_NS = 250ll * 1000000, /* listener's pace during a load */
                     LOOK_NS = 250ll * 1000000; /* a process that loads takes a GB in that time */

/* One entry that should be closed now, or NULL. What has lost its weights comes back where it would after an
 * eviction. */
static ash_entry *find_idle(ash_manager *m, int64_t now)
{
    for (size_t i = 0; i < m->n; i++) {
        ash_entry *e = &m->entries[i];
        if (e->state != ASH_MODEL_LOADED || e->leases ||
            !(e->unload_pending || e->lost || now >= ash_entry_expires(e)))
            continue;
        if (e->lost)
            ash_warn("residency", "unloading %s: its pack file was damaged while in use", e->spec.id);
        else
            ash_info("residency", "unloading %s (%s)", e->spec.id,
                     e->unload_pending ? "asked for" : "idle for its keep-alive");
        e->comes_back = e->lost && !e->unload_pending && ash_entry_returns(e);
        return e;
    }
    return NULL;
}

static uint64_t charged(const ash_manager *m)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < m->n; i++) sum += m->entries[i].charge;
    return sum;
}

/* Under pressure, one entry that goes so that the rest fits; else NULL. Looks every LOOK_NS. */
static ash_entry *find_pressed(ash_manager *m, int64_t now)
{
    ash_memory memory;
    uint64_t sum = charged(m);
    if (now - m->looked_ns < LOOK_NS || !sum) return NULL;
    m->looked_ns = now;
    ash_memory_read(m->memory_root ? m->memory_root : "", &memory);
    ash_budget_step(&m->budget, &memory, sum, now / 1000000);
    if (!m->budget.ceiling) return NULL;
    ash_admission_figures(m);
    if (!ash_policy_shrink(ash_budget_bytes(&m->budget, &memory), m->figures, m->n, now / 1000000,
                           m->keeper_list))
        return NULL;
    ash_entry *e = &m->entries[m->keeper_list[0]];
    ash_warn("residency", "evicting %s (%.1f MB): memory is short", e->spec.id,
             (double)e->charge * 1e-6);
    e->comes_back = ash_entry_returns(e);
    m->looked_ns = now - LOOK_NS; /* the next one at once, if one is not enough */
    return e;
}

/* Whether a load that failed can go better by itself. */
static bool may_pass(int code)
{
    return code == ASH_ENOSPC || code == ASH_EDISK || code == ASH_ENOMEM || code == ASH_EIO ||
           code == ASH_ENET || code == ASH_ETIMEDOUT;
}

static bool retries(const ash_manager *m, const ash_entry *e)
{
    return e->spec.preload && e->state == ASH_MODEL_FAILED && !e->queued && may_pass(e->error.code) &&
           ash_entry_can_load(m, e);
}

static bool under_way(const ash_entry *e)
{
    return e->state == ASH_MODEL_LOADING || e->state == ASH_MODEL_DOWNLOADING;
}

/* Queues preloads whose pause after a failure is over, and those that were evicted and have room
 * now. */
static void bring_back(ash_manager *m, int64_t now)
{
    for (size_t i = 0; i < m->n; i++) {
        ash_entry *e = &m->entries[i];
        if (retries(m, e) && now >= e->retry_ns) ash_entry_queue(m, e, false);
        if (!e->comes_back || e->queued || e->closing || e->state != ASH_MODEL_UNLOADED) continue;
        ash_policy_decision d = ash_admission_ask(m, e, ash_admission_budget(m), false, m->keeper_list);
        if (d.verdict != ASH_POLICY_ADMIT) continue;
        ash_info("residency", "%s comes back: there is room", e->spec.id);
        ash_entry_queue(m, e, false);
    }
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* When the keeper has to look again, in monotonic ns. */
static int64_t next_deadline(const ash_manager *m, int64_t now)
{
    int64_t at = now + 60 * SECOND;
    for (const ash_waiter *w = m->waiters; w; w = w->next)
        if (w->deadline_ns) at = least(at, w->deadline_ns);
    for (size_t i = 0; i < m->n; i++) {
        const ash_entry *e = &m->entries[i];
        if (under_way(e)) at = least(at, now + TICK_NS);
        if (e->charge) at = least(at, now + LOOK_NS); /* pressure */
        if (e->comes_back && !e->queued && e->state == ASH_MODEL_UNLOADED)
            at = least(at, now + 5 * SECOND);
        if (retries(m, e)) at = least(at, e->retry_ns);
        at = least(at, ash_entry_expires(e));
    }
    return at;
}

/* Tells the listener of entries whose state or progress changed; the lock is held, and not while
 * calling. */
static void tell_listener(ash_manager *m, int64_t now)
{
    for (size_t i = 0; i < m->n && !m->stopping; i++) {
        ash_entry *e = &m->entries[i];
        if (under_way(e)) ash_entry_sample(e, now);
        bool stalled = e->stalled_since > 0.0; /* whoever looks at the progress samples it, too */
        const char *waits = ash_entry_fetch_waits(e);
        if (under_way(e) && (e->shown_progress != e->told_progress || stalled != e->told_stalled ||
                             waits != e->told_waits)) {
            e->dirty = true;
            e->told_progress = e->shown_progress;
            e->told_stalled = stalled;
            e->told_waits = waits;
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

/* Ends what is to be ended now. True if something was, so that there may be more. */
static bool end_what_is_over(ash_manager *m, int64_t now)
{
    ash_waiter *late = NULL;
    ash_waiters_take(m, ash_waiter_late, &now, &late);
    ash_entry *e = find_idle(m, now);
    if (!e) e = find_pressed(m, now);
    if (!late && !e) return false;
    ash_engine *engine = e ? ash_entry_take(m, e) : NULL;
    pthread_mutex_unlock(&m->mutex);
    ash_waiters_fail(late, ASH_ETIMEDOUT, "the model was not loaded within the load time budget");
    ash_waiters_answer(late);
    if (e) ash_experts_note_last(m, e, engine);
    ash_engine_close(engine);
    pthread_mutex_lock(&m->mutex);
    if (e) ash_entry_closed(m, e);
    return true;
}

void *ash_keeper_main(void *arg)
{
    ash_manager *m = arg;
    pthread_mutex_lock(&m->mutex);
    while (!m->stopping) {
        int64_t now = ash_clock_ns();
        if (end_what_is_over(m, now)) continue;
        if (now - m->brought_ns >= SECOND) {
            m->brought_ns = now;
            bring_back(m, now);
            ash_experts_note_running(m);
        }
        tell_listener(m, now);
        if (any_dirty(m) || m->stopping) continue;
        int64_t at = next_deadline(m, now);
        struct timespec ts = {.tv_sec = at / SECOND, .tv_nsec = at % SECOND};
        pthread_cond_timedwait(&m->keep_cond, &m->mutex, &ts);
    }
    pthread_mutex_unlock(&m->mutex);
    return NULL;
}
