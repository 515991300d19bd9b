/* Owns what clients decide over files of models: downloads without a load, pauses, removals, models added by
 * name. Refuses to remove what is in use. Lock rules: state.h. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "residency/state.h"
#include "store/downloads.h"

void ash_downloads_note(const ash_manager *m, int list, const char *id, bool in)
{
    ash_err err = ASH_ERR_INIT;
    if (!m->state_dir || !ash_downloads_set(m->state_dir, (ash_downloads_list)list, id, in, &err)) return;
    ash_warn("residency", "%s: what was decided of its download is lost at a restart: %s", id, err.msg);
}

static int unknown(const char *id, ash_err *err)
{
    return ash_err_set(err, ASH_ENOENT, "no model '%s'", id);
}

int ash_entry_removing(const ash_entry *e, ash_err *err)
{
    if (!e->removing) return 0;
    return ash_err_set(err, ASH_EAGAIN, "the files of '%s' are being removed", e->spec.id);
}

/* ---- adding ---- */

int ash_manager_add(ash_manager *m, const ash_model_spec *spec, ash_err *err)
{
    int rc = 0;
    pthread_mutex_lock(&m->mutex);
    ash_entry *e = &m->entries[m->n];
    if (ash_entry_find(m, spec->id)) {
        /* somebody was faster */
    } else if (m->n == m->cap) {
        rc = ash_err_set(err, ASH_ELIMIT, "more than %d models were added by name; a restart forgets those "
                         "that are not here", ASH_MANAGER_ADDED);
    } else if (!ash_spec_copy(&e->spec, spec)) {
        ash_spec_free(&e->spec);
        memset(e, 0, sizeof *e);
        rc = ash_err_nomem(err, spec->id);
    } else {
        ash_entry_reset(m, e);
        m->n++;
        ash_entry_changed(m, e);
    }
    pthread_mutex_unlock(&m->mutex);
    return rc;
}

/* ---- downloads ---- */

/* What f is doing with its files; NULL: nothing. */
static const char *use_of(const ash_manager *m, const ash_entry *f)
{
    if (f->removing) return "is being removed";
    if (f->state == ASH_MODEL_LOADED || f->closing) return "is in memory: unload it first";
    if (f->state == ASH_MODEL_DOWNLOADING || (f->queued && !f->spec.path))
        return "is being fetched: pause or cancel it first";
    if (f->state == ASH_MODEL_LOADING || f->queued || f->reading || ash_waiters_any(m, f))
        return "is loading: cancel it, or unload it first";
    return NULL;
}

/* Why it cannot be fetched; 0 if it can. */
static int refused(const ash_manager *m, ash_entry *e, bool confirm, ash_err *err)
{
    int rc = ash_entry_removing(e, err);
    if (rc || e->spec.path) return rc;
    if (e->spec.confirm && confirm) e->spec.fetch = true;
    if (ash_entry_can_load(m, e)) return 0;
    return ash_err_set(err, ash_entry_absent(m, e), "%s", e->error.msg);
}

/* One that was here, and that nobody uses, may have been taken away by others. */
static void look_for_loss(ash_manager *m, const char *id)
{
    ash_waiter *done = NULL;
    pthread_mutex_lock(&m->mutex);
    ash_entry *e = ash_entry_find(m, id);
    bool may = e && m->find && e->spec.path && !use_of(m, e);
    pthread_mutex_unlock(&m->mutex);
    char *path = may ? m->find(m->fetch_user, id) : NULL;
    pthread_mutex_lock(&m->mutex);
    if (may && !path && e->spec.path && !use_of(m, e) && ash_entry_lost(m, e, &done)) ash_entry_reset(m, e);
    pthread_mutex_unlock(&m->mutex);
    ash_waiters_answer(done); /* none: nobody used it */
    free(path);
}

int ash_manager_download(ash_manager *m, const char *id, bool confirm, ash_err *err)
{
    bool paused = false;
    look_for_loss(m, id);
    ash_entry_look_again(m, id);
    pthread_mutex_lock(&m->mutex);
    ash_entry *e = ash_entry_find(m, id);
    int rc = e ? refused(m, e, confirm, err) : unknown(id, err);
    if (!rc && !e->spec.path) {
        paused = e->paused || e->pausing;
        e->again |= e->state == ASH_MODEL_DOWNLOADING && atomic_load(&e->cancel);
        if (e->state != ASH_MODEL_DOWNLOADING && !e->queued) {
            ash_entry_queue(m, e, true);
            e->only_fetch = true;
        }
    }
    /* the loader may be reading what an entry that it has says of its draft model */
    if (!rc && e->state != ASH_MODEL_LOADING && !e->reading && !(e->queued && e->spec.path))
        ash_entry_draft_ready(m, e);
    pthread_mutex_unlock(&m->mutex);
    if (paused) ash_downloads_note(m, ASH_DOWNLOADS_PAUSED, id, false);
    return rc;
}

void ash_entry_pause(ash_manager *m, ash_entry *e, ash_waiter **done)
{
    e->queued = e->fetched = e->only_fetch = false;
    e->waits = NULL;
    e->spec.paused = true;
    ash_entry_reset(m, e);
    ash_waiters_take(m, ash_waiter_of, e, done);
    for (ash_waiter *w = *done; w; w = w->next) w->err = e->error;
    ash_info("residency", "the download of %s is paused", e->spec.id);
    ash_boot_note(m);
    ash_entry_changed(m, e);
}

int ash_manager_pause(ash_manager *m, const char *id, ash_err *err)
{
    ash_waiter *done = NULL;
    pthread_mutex_lock(&m->mutex);
    ash_entry *e = ash_entry_find(m, id);
    int rc = e ? 0 : unknown(id, err);
    if (!rc && e->state == ASH_MODEL_DOWNLOADING) {
        e->pausing = true;
        e->again = false;
        atomic_store(&e->cancel, true);
    } else if (!rc && e->queued && !e->spec.path) {
        atomic_store(&e->cancel, true); /* the hub may be being asked about it */
        ash_entry_pause(m, e, &done);
        ash_loader_wake(m);
    } else if (!rc && !e->paused) {
        rc = ash_err_set(err, ASH_EINVAL, "'%s' is not being fetched", id);
    }
    bool added = e && e->spec.added;
    pthread_mutex_unlock(&m->mutex);
    ash_waiters_answer(done);
    if (rc || !m->state_dir) return rc;
    rc = ash_downloads_set(m->state_dir, ASH_DOWNLOADS_PAUSED, id, true, err);
    if (!rc && added) rc = ash_downloads_set(m->state_dir, ASH_DOWNLOADS_ADDED, id, true, err);
    if (rc && err) ash_err_prefix(err, "it is paused, but not after a restart");
    return rc;
}

/* ---- draft models ---- */

/* e knows where its draft model is; without memory it does without. */
static void take_draft(ash_entry *e, const ash_entry *draft)
{
    e->spec.draft_path = strdup(draft->spec.path);
    e->planned = false;
}

/* e does without its draft model, for this reason. */
static void miss_draft(ash_entry *e, const ash_entry *draft)
{
    char *why = draft->state == ASH_MODEL_FAILED ? strdup(draft->error.msg) : NULL;
    if (!why) return;
    free((void *)(uintptr_t)e->spec.draft_absent);
    e->spec.draft_absent = why;
}

bool ash_entry_draft_ready(ash_manager *m, ash_entry *e)
{
    if (!e->spec.draft || e->spec.draft_path || m->prediction == ASH_PREDICTION_NEVER) return true;
    ash_entry *d = ash_entry_find(m, e->spec.draft);
    if (!d || d == e) return true;
    if (d->spec.path) {
        take_draft(e, d);
        return true;
    }
    bool on_its_way = d->state == ASH_MODEL_DOWNLOADING || d->queued;
    bool failed = d->state == ASH_MODEL_FAILED && (d->paused || ash_clock_ns() < d->retry_ns);
    if (!on_its_way && (failed || e->draft_asked || d->removing || !ash_entry_can_load(m, d))) {
        miss_draft(e, d);
        return true;
    }
    if (!on_its_way) {
        ash_info("residency", "%s is fetched, too: it guesses for %s", d->spec.id, e->spec.id);
        ash_entry_queue(m, d, e->demand);
        d->only_fetch = e->draft_asked = true;
    }
    static const char waits[] = "for its draft model, which is being fetched";
    if (!e->queued || !e->spec.path) return false;
    if (e->waits != waits) ash_entry_changed(m, e);
    e->waits = waits;
    return false;
}

/* ---- removing ---- */

static bool of_same_files(const ash_entry *e, const ash_entry *f)
{
    return e == f || (e->spec.repo && f->spec.repo && !strcmp(e->spec.repo, f->spec.repo));
}

/* Whether a model in memory, or on its way there, guesses with e. */
static const ash_entry *guesses_with(const ash_manager *m, const ash_entry *e)
{
    for (size_t i = 0; i < m->n; i++) {
        const ash_entry *f = &m->entries[i];
        if (f->spec.draft && !strcmp(f->spec.draft, e->spec.id) && f->spec.path && use_of(m, f)) return f;
    }
    return NULL;
}

static int in_use(const ash_manager *m, const ash_entry *e, ash_err *err)
{
    for (size_t i = 0; i < m->n; i++) {
        const ash_entry *f = &m->entries[i];
        if (!of_same_files(e, f)) continue;
        const char *use = use_of(m, f);
        if (use) return ash_err_set(err, ASH_EAGAIN, "'%s' %s", f->spec.id, use);
        const ash_entry *by = guesses_with(m, f);
        if (by)
            return ash_err_set(err, ASH_EAGAIN, "'%s' guesses for '%s', which is in memory: unload that",
                               f->spec.id, by->spec.id);
    }
    return 0;
}

/* e's files are not there. */
static void forget_path(ash_entry *e)
{
    free((void *)(uintptr_t)e->spec.path);
    e->spec.path = NULL;
    e->planned = false;
    atomic_store(&e->progress.bytes_done, 0);
    atomic_store(&e->progress.bytes_total, 0);
}

bool ash_entry_lost(ash_manager *m, ash_entry *e, ash_waiter **done)
{
    if (!m->fetch || !(e->spec.fetch || e->spec.confirm) || e->fetched) return false;
    ash_warn("residency", "%s is not there any more: %s", e->spec.id, e->spec.path);
    forget_path(e);
    e->weighed = false;
    if (!ash_entry_can_load(m, e)) {
        e->queued = e->comes_back = false;
        ash_entry_reset(m, e);
        ash_waiters_take(m, ash_waiter_of, e, done);
        for (ash_waiter *w = *done; w; w = w->next) w->err = e->error;
        ash_boot_note(m);
    }
    ash_entry_changed(m, e);
    ash_loader_wake(m); /* the fetchers, too */
    return true;
}

bool ash_entry_may_appear(const ash_manager *m, const ash_entry *e)
{
    return m->find && !e->spec.path && !ash_entry_can_load(m, e) && !e->paused && !e->removing &&
           e->state == ASH_MODEL_FAILED;
}

void ash_entry_look_again(ash_manager *m, const char *id)
{
    pthread_mutex_lock(&m->mutex);
    ash_entry *e = ash_entry_find(m, id);
    bool may = e && ash_entry_may_appear(m, e);
    pthread_mutex_unlock(&m->mutex);
    char *path = may ? m->find(m->fetch_user, id) : NULL;
    if (!path) return;
    pthread_mutex_lock(&m->mutex);
    if (ash_entry_may_appear(m, e)) {
        e->spec.path = path;
        path = NULL;
        ash_entry_reset(m, e);
        ash_entry_changed(m, e);
        ash_info("residency", "%s is there now: %s", id, e->spec.path);
    }
    pthread_mutex_unlock(&m->mutex);
    free(path);
}

/* What e knows of files that are gone now. */
static void forget_files(ash_manager *m, ash_entry *e)
{
    if (e->spec.draft_path && access(e->spec.draft_path, F_OK)) {
        free((void *)(uintptr_t)e->spec.draft_path);
        e->spec.draft_path = NULL;
        e->planned = false;
    }
    if (!e->removing) return;
    e->removing = false;
    if (!e->spec.path || access(e->spec.path, F_OK)) {
        forget_path(e);
        e->spec.paused = false;
        e->comes_back = false;
        ash_entry_reset(m, e);
    }
    ash_entry_changed(m, e);
}

int ash_manager_remove(ash_manager *m, const char *id, uint64_t *bytes, ash_err *err)
{
    *bytes = 0;
    pthread_mutex_lock(&m->mutex);
    ash_entry *e = ash_entry_find(m, id);
    int rc = e ? in_use(m, e, err) : unknown(id, err);
    if (!rc && !m->remove) rc = ash_err_set(err, ASH_EUNSUPPORTED, "nothing can be removed here");
    for (size_t i = 0; i < m->n && !rc; i++) m->entries[i].removing = of_same_files(e, &m->entries[i]);
    pthread_mutex_unlock(&m->mutex);
    if (rc) return rc;
    rc = m->remove(m->fetch_user, e->spec.id, bytes, err);
    pthread_mutex_lock(&m->mutex);
    for (size_t i = 0; i < m->n; i++) forget_files(m, &m->entries[i]);
    bool added = !rc && e->spec.added, paused = !rc && !e->paused;
    ash_loader_wake(m);
    pthread_mutex_unlock(&m->mutex);
    if (!rc) ash_info("residency", "%s is removed: %.1f MB are free", id, (double)*bytes * 1e-6);
    if (paused) ash_downloads_note(m, ASH_DOWNLOADS_PAUSED, id, false);
    if (added) ash_downloads_note(m, ASH_DOWNLOADS_ADDED, id, false);
    return rc;
}
