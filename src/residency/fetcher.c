/* Owns the fetching threads: they bring the models that loads are queued for and that are not on this
 * machine, and hand them to the loader. At most one of those at once is large, so that no small one waits
 * behind it; a fetch goes on when those who wait leave. Lock rules: state.h. */
#include <stdlib.h>

#include "base/log.h"
#include "residency/state.h"
#include "store/downloads.h"

#define LARGE 4000000000u /* bytes still to come: minutes, on most networks */

static bool is_large(const ash_entry *e)
{
    return e->to_fetch > LARGE;
}

/* The first in the queue's order that may begin, or NULL. */
static ash_entry *next_absent(ash_manager *m)
{
    ash_entry *best = NULL;
    bool large = false; /* one is coming */
    for (size_t i = 0; i < m->n; i++)
        large |= m->entries[i].state == ASH_MODEL_DOWNLOADING && is_large(&m->entries[i]);
    for (size_t i = 0; i < m->n; i++) {
        ash_entry *e = &m->entries[i];
        bool may = e->queued && !e->spec.path && (e->weighed || !m->weigh) /* disk.c */ &&
                   !(large && is_large(e));
        if (may && (!best || e->queue_seq < best->queue_seq)) best = e;
    }
    return best;
}

/* Its files are here: the load is queued as if they had always been. */
static void fetched(ash_manager *m, ash_entry *e, char *path)
{
    e->spec.path = path;
    e->state = ASH_MODEL_UNLOADED;
    e->failures = 0;
    ash_info("residency", "%s is fetched: %s", e->spec.id, path);
    if (atomic_load(&e->cancel)) return;
    if (e->only_fetch && !ash_waiters_any(m, e)) {
        e->only_fetch = false;
        e->state = ASH_MODEL_DOWNLOADED;
        ash_entry_changed(m, e);
        return;
    }
    e->fetched = true;
    ash_entry_sample(e, e->last_bytes_ns);
    ash_entry_queue(m, e, e->demand || ash_waiters_any(m, e));
}

/* It failed, or somebody ended it. */
static void ended(ash_manager *m, ash_entry *e, const ash_err *err, ash_waiter **done)
{
    bool pause = e->pausing && !e->again && !e->spec.path && err->code == ASH_ECANCELED;
    bool again = e->again && err->code == ASH_ECANCELED && !m->stopping, only = e->only_fetch;
    e->pausing = e->again = e->only_fetch = false;
    if (pause)
        ash_entry_pause(m, e, done);
    else
        ash_entry_finish(m, e, err, done);
    if (!again) return;
    ash_entry_queue(m, e, true);
    e->only_fetch = only;
}

/* The lock is held, but not while bytes come. */
static void fetch(ash_manager *m, ash_entry *e)
{
    ash_err err = ASH_ERR_INIT;
    ash_waiter *done = NULL;
    char *path = NULL;
    ash_hub_watch watch = {
        .progress = ash_entry_fetch_progress, .user = e, .cancel = &e->cancel};
    e->queued = false;
    e->waits = NULL;
    e->state = ASH_MODEL_DOWNLOADING;
    ash_entry_begin_fetch(e);
    ash_entry_changed(m, e);
    pthread_mutex_unlock(&m->mutex);
    ash_info("residency", "fetching %s", e->spec.id);
    int rc = m->fetch(m->fetch_user, e->spec.id, &watch, &path, &err);
    pthread_mutex_lock(&m->mutex);
    if (rc && !err.code) ash_err_set(&err, rc, "%s", ash_err_name(rc));
    if (err.code == ASH_ETIMEDOUT) err.code = ASH_ENET; /* to those who wait it means: it goes on */
    if (!rc) {
        err = ASH_ERR_INIT;
        fetched(m, e, path);
        if (atomic_load(&e->cancel)) ash_err_set(&err, ASH_ECANCELED, "the load was cancelled");
    }
    bool added = !rc && e->spec.added;
    if (err.code) ended(m, e, &err, &done);
    ash_loader_wake(m); /* a load may have waited for it, which is to guess */
    pthread_mutex_unlock(&m->mutex);
    ash_waiters_answer(done);
    if (added) ash_downloads_note(m, ASH_DOWNLOADS_ADDED, e->spec.id, true);
    pthread_mutex_lock(&m->mutex);
}

void *ash_fetcher_main(void *arg)
{
    ash_manager *m = arg;
    pthread_mutex_lock(&m->mutex);
    while (!m->stopping) {
        ash_entry *e = next_absent(m);
        if (e)
            fetch(m, e);
        else
            pthread_cond_wait(&m->fetch_cond, &m->mutex);
    }
    pthread_mutex_unlock(&m->mutex);
    return NULL;
}
