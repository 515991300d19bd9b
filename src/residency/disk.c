/* Owns the disk's admission: a thread asks the hub what each queued fetch still has to bring, before its turn
 * comes, and those that do not fit beside all that is pending are refused; a second one does while the hub
 * leaves the first without an answer. The sums are the plan's (residency/plan.h). Lock rules: state.h. */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "residency/plan.h"
#include "residency/state.h"

/* So long the others wait for one that the hub is asked about: the queue's order decides who has the disk. */
static const int64_t PATIENCE_NS = 2000000000;

/* The first in the queue's order that nobody has asked the hub about, or NULL; *until_ns: when to look again,
 * INT64_MAX: when something changes. */
static ash_entry *next_unweighed(ash_manager *m, int64_t *until_ns)
{
    ash_entry *best = NULL;
    int64_t now = ash_clock_ns();
    *until_ns = INT64_MAX;
    for (size_t i = 0; i < m->n; i++) {
        ash_entry *e = &m->entries[i];
        bool wants = e->queued && !e->spec.path && !e->weighed && !e->weigh_began_ns;
        if (e->weigh_began_ns && now - e->weigh_began_ns < PATIENCE_NS)
            *until_ns = e->weigh_began_ns + PATIENCE_NS;
        if (wants && (!best || e->queue_seq < best->queue_seq)) best = e;
    }
    if (best && *until_ns == INT64_MAX) return best;
    if (!best) *until_ns = INT64_MAX;
    return NULL;
}

/* Bytes that a fetch which runs or was admitted still brings; 0: it is none. */
static uint64_t pending(const ash_entry *e)
{
    bool admitted = e->queued && !e->spec.path && e->weighed;
    if (e->state != ASH_MODEL_DOWNLOADING) return admitted ? e->to_fetch : 0;
    uint64_t total = atomic_load(&e->progress.bytes_total);
    uint64_t done = atomic_load(&e->progress.bytes_done);
    return total ? total - (done < total ? done : total) : e->to_fetch;
}

/* What e lacks beside all others, which take *others; 0: it fits. */
static uint64_t missing(const ash_manager *m, const ash_entry *e, const ash_fetch_need *need,
                        uint64_t *others)
{
    const ash_plan_facts facts = {.fetch_bytes = need->bytes};
    ash_plan_entry out;
    ash_plan_total total;
    *others = 0;
    for (size_t i = 0; i < m->n; i++) *others += &m->entries[i] == e ? 0 : pending(&m->entries[i]);
    uint64_t left = need->disk_free > *others ? need->disk_free - *others : 0;
    const ash_plan_machine machine = {
        .memory = UINT64_MAX / 2, .disk_free = left, .disk_reserve = need->disk_reserve};
    ash_plan_make(&machine, &facts, 1, &out, &total);
    return out.verdict == ASH_PLAN_NO_DISK ? out.short_bytes : 0;
}

static unsigned long long mb(uint64_t bytes)
{
    return bytes / 1000000;
}

static void explain(const ash_fetch_need *need, uint64_t others, const char *advice, ash_err *err)
{
    char beside[64] = "";
    if (others) snprintf(beside, sizeof beside, " other downloads take %llu MB and", mb(others) + 1);
    ash_err_set(err, ASH_ENOSPC,
                "it needs %llu MB more on disk, which has %llu MB free, of which%s %llu MB stay so%s%s",
                mb(need->bytes) + 1, mb(need->disk_free), beside, mb(need->disk_reserve),
                *advice ? ": " : "", advice);
}

/* Takes what the hub said of e, which is still queued. The lock is held, but not while advice is sought. */
static void admit(ash_manager *m, ash_entry *e, const ash_fetch_need *need, ash_err *err)
{
    uint64_t others, lacks = missing(m, e, need, &others);
    char advice[200] = "";
    e->to_fetch = need->bytes;
    e->weighed = true;
    if (!lacks) {
        ash_loader_wake(m);
        return;
    }
    e->weighed = false; /* so that nobody fetches it meanwhile */
    pthread_mutex_unlock(&m->mutex);
    if (m->advise) m->advise(m->fetch_user, e->spec.id, lacks, advice, sizeof advice);
    explain(need, others, advice, err);
    pthread_mutex_lock(&m->mutex);
}

static void weigh(ash_manager *m, ash_entry *e)
{
    ash_err err = ASH_ERR_INIT;
    ash_fetch_need need = {0};
    ash_waiter *done = NULL;
    uint64_t seq = e->queue_seq;
    e->weigh_began_ns = ash_clock_ns();
    ash_entry_changed(m, e);
    pthread_mutex_unlock(&m->mutex);
    int rc = m->weigh(m->fetch_user, e->spec.id, &e->cancel, &need, &err);
    if (rc && !err.code) ash_err_set(&err, rc, "%s", ash_err_name(rc));
    if (err.code == ASH_ETIMEDOUT) err.code = ASH_ENET; /* to those who wait it means: it goes on */
    pthread_mutex_lock(&m->mutex);
    if (!rc && e->queued && e->queue_seq == seq) {
        err = ASH_ERR_INIT;
        admit(m, e, &need, &err);
    }
    e->weigh_began_ns = 0;
    pthread_cond_broadcast(&m->fetch_cond); /* the other thread may have waited for it */
    if (!err.code || !e->queued || e->queue_seq != seq || m->stopping) return; /* cancelled, asked for anew */
    e->queued = e->only_fetch = false;
    e->waits = NULL;
    ash_entry_finish(m, e, &err, &done);
    ash_loader_wake(m);
    pthread_mutex_unlock(&m->mutex);
    ash_waiters_answer(done);
    pthread_mutex_lock(&m->mutex);
}

void *ash_weigher_main(void *arg)
{
    ash_manager *m = arg;
    pthread_mutex_lock(&m->mutex);
    while (!m->stopping) {
        int64_t until_ns = INT64_MAX;
        ash_entry *e = m->weigh ? next_unweighed(m, &until_ns) : NULL;
        struct timespec ts = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
        if (e)
            weigh(m, e);
        else if (until_ns == INT64_MAX)
            pthread_cond_wait(&m->fetch_cond, &m->mutex);
        else
            pthread_cond_timedwait(&m->fetch_cond, &m->mutex, &ts);
    }
    pthread_mutex_unlock(&m->mutex);
    return NULL;
}
