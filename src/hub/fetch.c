/* Owns a fetch from its beginning to its end: what is here, locks, files begun and begun anew,
 * progress, room on the disk. Refuses to begin what the disk cannot hold. The caller's thread is
 * the fetching one (job.h). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "hub/job.h"

enum {
    WAIT_MS = 100, /* most between two looks at cancel, locks and the clock */
    LOCK_MS = 300, /* between two tries of a lock that another process has */
    SHOW_MS = 100,
    AHEAD = 4,    /* files begun beyond one a connection: small ones end quickly */
    RESTARTS = 1, /* of a file whose hash is wrong */
};
#define RESERVE (16u << 20) /* bytes of the disk that stay free */

void hub_job_fail(hub_job *j, const ash_err *err)
{
    pthread_mutex_lock(&j->lock);
    if (!j->rc) {
        j->err = *err;
        j->rc = err->code ? err->code : ASH_EIO;
    }
    pthread_mutex_unlock(&j->lock);
}

static int job_rc(hub_job *j)
{
    pthread_mutex_lock(&j->lock);
    int rc = j->rc;
    pthread_mutex_unlock(&j->lock);
    return rc;
}

void hub_item_reach(hub_item *it)
{
    while (it->reach < it->file->size && it->reach % ASH_HUB_CHUNK == 0 &&
           it->chunk[it->reach / ASH_HUB_CHUNK] >= HUB_CHUNK_WRITTEN)
        it->reach = hub_chunk_end(it->file->size, (uint32_t)(it->reach / ASH_HUB_CHUNK));
}

/* ---- what is here ---- */

static uint64_t free_disk(const ash_hub *h)
{
    char path[HUB_PATH];
    struct statvfs fs;
    if (hub_path(path, NULL, "%s", h->cache_dir)) return 0;
    for (char *slash; statvfs(path, &fs); *slash = 0)
        if (!(slash = strrchr(path, '/')) || slash == path)
            return statvfs("/", &fs) ? 0 : fs.f_bavail * fs.f_frsize;
    return (uint64_t)fs.f_bavail * fs.f_frsize;
}

static uint64_t journal_bytes(const ash_hub *h, const ash_hub_tree *t, const ash_hub_file *f)
{
    char path[HUB_PATH];
    return hub_blob_name(f) && !hub_cache_file(h, t, f, HUB_JOURNAL, path, NULL)
               ? hub_journal_bytes(path, f->size)
               : 0;
}

int ash_hub_look(const ash_hub *h, const ash_hub_plan *p, ash_hub_here *out, ash_err *err)
{
    *out = (ash_hub_here){.free_disk = free_disk(h)};
    for (size_t i = 0; i < p->n_files; i++) {
        const ash_hub_file *f = p->files[i];
        if (hub_cache_linked(h, p->tree, f) || hub_cache_blob(h, p->tree, f)) {
            out->n_files++;
            out->bytes += f->size;
        } else {
            out->partial += journal_bytes(h, p->tree, f);
        }
    }
    uint64_t have = out->bytes + out->partial;
    out->missing = p->bytes > have ? p->bytes - have : 0;
    return 0;
}

/* What the disk must still take; a file that was begun has its blocks. */
static int check_room(const hub_job *j, ash_err *err)
{
    uint64_t need = 0, have = free_disk(j->hub);
    char path[HUB_PATH];
    struct stat st;
    for (size_t i = 0; i < j->n_items; i++) {
        const ash_hub_file *f = j->items[i].file;
        uint64_t there = 0;
        if (!hub_cache_file(j->hub, j->plan->tree, f, HUB_PARTIAL, path, NULL) && !stat(path, &st))
            there = (uint64_t)st.st_blocks * 512;
        need += f->size > there ? f->size - there : 0;
    }
    if (need <= have && have - need >= RESERVE) return 0;
    return ash_err_set(err, ASH_ENOSPC,
                       "'%s' needs %llu MB more on disk, '%.200s' has %llu MB free: make room, or "
                       "set HF_HUB_CACHE to "
                       "another disk",
                       j->plan->tree->repo, (unsigned long long)(need / 1000000 + 1),
                       j->hub->cache_dir, (unsigned long long)(have / 1000000));
}

/* ---- files ---- */

static void close_files(hub_item *it)
{
    if (it->journal >= 0) close(it->journal);
    if (it->fd >= 0) close(it->fd);
    if (it->lock_fd >= 0) close(it->lock_fd); /* gives the lock back */
    it->journal = it->fd = it->lock_fd = -1;
}

/* Opens the unfinished file and its journal and takes over what they know. The lock is held. */
static int open_partial(hub_job *j, hub_item *it, bool anew, ash_err *err)
{
    const ash_hub_tree *t = j->plan->tree;
    char partial[HUB_PATH], journal[HUB_PATH];
    uint64_t good = 0;
    int rc = hub_cache_file(j->hub, t, it->file, HUB_PARTIAL, partial, err);
    if (!rc) rc = hub_cache_file(j->hub, t, it->file, HUB_JOURNAL, journal, err);
    if (rc) return rc;
    if (it->fd < 0) it->fd = open(partial, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (it->fd < 0) return hub_os_error(err, "open", partial);
    if (it->journal >= 0) close(it->journal);
    memset(it->chunk, 0, it->n_chunks);
    it->have = 0;
    int known = anew ? -1 : open(journal, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (known >= 0) hub_journal_read(known, it->file->size, it->chunk, it->sums, &good);
    if (known >= 0) close(known);
    for (uint32_t i = 0; i < it->n_chunks; i++) {
        if (!it->chunk[i]) continue;
        it->chunk[i] = HUB_CHUNK_CLAIMED;
        it->have += hub_chunk_end(it->file->size, i) - (uint64_t)i * ASH_HUB_CHUNK;
    }
    struct stat st;
    bool longer = !fstat(it->fd, &st) && (uint64_t)st.st_size > it->file->size;
    if ((anew || longer) && ftruncate(it->fd, anew ? 0 : (off_t)it->file->size))
        return hub_os_error(err, "shorten", partial);
    return hub_journal_open(journal, it->file->size, good, &it->journal, err);
}

static int allocate(hub_item *it, ash_err *err)
{
    if (it->chunk) return 0;
    it->chunk = calloc(it->n_chunks + 1, 1);
    it->sums = calloc(it->n_chunks + 1, sizeof *it->sums);
    return it->chunk && it->sums ? 0 : ash_err_nomem(err, "a fetch");
}

/* Its blob came from elsewhere (another process, another name of the same content): the name is
 * enough. */
static int adopt(hub_job *j, hub_item *it, ash_err *err)
{
    char path[HUB_PATH];
    int rc = hub_cache_link(j->hub, j->plan->tree, it->file, err);
    for (int which = HUB_PARTIAL; !rc && which <= HUB_JOURNAL; which++)
        if (!hub_cache_file(j->hub, j->plan->tree, it->file, which, path, NULL)) unlink(path);
    return rc;
}

/* Begins a file if nobody else has it. ASH_EAGAIN: another process has. */
static int activate(hub_job *j, hub_item *it, ash_err *err)
{
    int rc = hub_cache_lock(j->hub, j->plan->tree, it->file, &it->lock_fd, err);
    if (rc) return rc;
    bool here = hub_cache_blob(j->hub, j->plan->tree, it->file);
    rc = here ? adopt(j, it, err) : allocate(it, err);
    if (!rc && !here) rc = open_partial(j, it, false, err);
    if (!rc && !here) rc = hub_verify_begin(j, it, err);
    if (rc || here) close_files(it);
    if (rc) return rc;
    pthread_mutex_lock(&j->lock);
    if (!here) hub_item_reach(it);
    it->state = here ? HUB_ITEM_DONE : HUB_ITEM_ACTIVE;
    pthread_cond_signal(&j->work);
    pthread_mutex_unlock(&j->lock);
    return 0;
}

/* The hash was wrong: all of it again, once. */
static int begin_anew(hub_job *j, hub_item *it, ash_err *err)
{
    const ash_hub_file *f = it->file;
    hub_download_drop(j, it);
    free(it->address);
    free(it->hop);
    it->address = it->hop = NULL;
    if (it->restarts++ >= RESTARTS) {
        char path[HUB_PATH];
        for (int which = HUB_PARTIAL; which <= HUB_JOURNAL; which++)
            if (!hub_cache_file(j->hub, j->plan->tree, f, which, path, NULL)) unlink(path);
        return ash_err_set(err, ASH_EFORMAT,
                           "'%.150s' of '%s' is not what the hub announced: its %s is %s, "
                           "announced is %s; twice so, "
                           "nothing of it is kept",
                           f->path, j->plan->tree->repo, f->sha256 ? "SHA-256" : "git hash",
                           it->found, hub_blob_name(f));
    }
    ash_warn("hub", "%s: the hash is not the announced one: fetched again", f->path);
    int rc = open_partial(j, it, true, err);
    if (!rc) rc = hub_verify_begin(j, it, err);
    if (rc) return rc;
    pthread_mutex_lock(&j->lock);
    it->hashed = 0;
    it->reach = it->fed = it->begun.at = 0;
    it->wrong = false;
    pthread_mutex_unlock(&j->lock);
    return 0;
}

/* Whether the same content is being fetched under another name: then that one's lock is ours. */
static bool twin_active(hub_job *j, const hub_item *it)
{
    bool found = false;
    pthread_mutex_lock(&j->lock);
    for (const hub_item *o = j->items; o < it && !found; o++)
        found =
            o->state == HUB_ITEM_ACTIVE && !strcmp(hub_blob_name(o->file), hub_blob_name(it->file));
    pthread_mutex_unlock(&j->lock);
    return found;
}

/* Looks after the files: begins some, begins anew what was wrong. Returns how many are not done;
 * *waiting: those that another process has. */
static size_t tend(hub_job *j, size_t *waiting)
{
    size_t active = 0, left = 0;
    int64_t now = ash_clock_ms();
    ash_err err = ASH_ERR_INIT;
    *waiting = 0;
    for (size_t i = 0; i < j->n_items; i++) {
        hub_item *it = &j->items[i];
        pthread_mutex_lock(&j->lock);
        hub_item_state state = it->state;
        bool wrong = it->wrong;
        pthread_mutex_unlock(&j->lock);
        int rc = 0;
        if (state == HUB_ITEM_DONE) continue;
        left++;
        if (state == HUB_ITEM_ACTIVE) {
            active++;
            rc = wrong ? begin_anew(j, it, &err) : 0;
        } else if (active < (size_t)(j->wanted + AHEAD) && twin_active(j, it)) {
            continue;
        } else if (active < (size_t)(j->wanted + AHEAD) && now >= it->not_before) {
            rc = activate(j, it, &err);
            active += !rc;
            if (rc == ASH_EAGAIN) {
                it->not_before = now + LOCK_MS;
                it->have = journal_bytes(j->hub, j->plan->tree, it->file);
                rc = 0;
            }
        }
        if (rc) {
            hub_job_fail(j, &err);
            return left;
        }
        *waiting += it->state == HUB_ITEM_WAITING && it->not_before; /* of this thread until it is active */
    }
    return left;
}

/* ---- progress ---- */

/* Nothing comes: why, and when it is tried again. */
static void add_trouble(hub_job *j, ash_hub_progress *p)
{
    int64_t now = ash_clock_ms(), next = INT64_MAX;
    for (size_t i = 0; i < j->n_items; i++) {
        const hub_item *it = &j->items[i];
        if (it->trouble.tries && it->not_before < next) next = it->not_before;
    }
    j->pace.rate = 0.0; /* what comes afterwards says how fast it is */
    p->trouble = j->trouble;
    p->tries = j->tries;
    p->retry_ms = next > now && next < INT64_MAX ? next - now : 0;
}

static void show(hub_job *j, size_t waiting)
{
    const ash_hub_watch *w = j->watch;
    ash_hub_progress p = {
        .bytes_total = j->plan->bytes, .files_total = j->plan->n_files, .eta_ms = -1};
    uint64_t missing = 0;
    size_t active = 0;
    if (!w || !w->progress) return;
    pthread_mutex_lock(&j->lock);
    for (size_t i = 0; i < j->n_items; i++) {
        const hub_item *it = &j->items[i];
        if (it->state == HUB_ITEM_DONE) continue;
        uint64_t hashed = (uint64_t)it->hashed * ASH_HUB_CHUNK;
        missing += it->file->size - it->have;
        p.bytes_verified += it->file->size - (hashed < it->file->size ? hashed : it->file->size);
        p.files_done++;
        if (it->state != HUB_ITEM_ACTIVE) continue;
        active++;
        if (!p.file && it->have < it->file->size) p.file = it->file->path;
    }
    pthread_mutex_unlock(&j->lock);
    for (int i = 0; i < j->hub->connections; i++) {
        const hub_connection *c = &j->connections[i];
        if (!c->item) continue;
        uint64_t part = c->pos % ASH_HUB_CHUNK; /* of a chunk that is not whole yet */
        missing -= part < missing ? part : missing;
        p.connections += c->running && !c->asking;
    }
    if (j->tries) add_trouble(j, &p);
    p.files_done = p.files_total - p.files_done;
    p.bytes_verified = p.bytes_total - p.bytes_verified;
    p.bytes_done = p.bytes_total - missing;
    p.bytes_per_second = (uint64_t)j->pace.rate;
    if (j->pace.rate > 1) p.eta_ms = (int64_t)((double)missing / j->pace.rate * 1000);
    p.stage = !active && waiting ? ASH_HUB_WAITING : missing ? ASH_HUB_FETCHING : ASH_HUB_VERIFYING;
    w->progress(w->user, &p);
}

/* ---- the whole ---- */

static int run(hub_job *j, ash_err *err)
{
    int64_t next = 0;
    const atomic_bool *cancel = j->watch ? j->watch->cancel : NULL;
    for (;;) {
        size_t waiting, left = tend(j, &waiting);
        int64_t now = ash_clock_ms();
        if (job_rc(j)) break;
        if (!left || now >= next) {
            show(j, waiting);
            next = now + SHOW_MS;
        }
        if (!left) return 0;
        if (hub_cancelled(cancel))
            return ash_err_set(err, ASH_ECANCELED, "interrupted; what is here stays");
        hub_download_start(j);
        hub_download_step(j, WAIT_MS);
    }
    if (err) *err = j->err;
    return j->rc;
}

static void release(hub_job *j)
{
    hub_verify_stop(j);
    hub_download_close(j);
    hub_ring_close(&j->ring);
    for (size_t i = 0; i < j->n_items; i++) {
        hub_item *it = &j->items[i];
        if (it->state == HUB_ITEM_ACTIVE) {
            hub_verify_end(j, it);
            close_files(it);
        }
        free(it->address);
        free(it->hop);
        free(it->chunk);
        free(it->sums);
    }
    free(j->items);
    pthread_cond_destroy(&j->work);
    pthread_mutex_destroy(&j->lock);
    free(j);
}

/* The files of the plan that the snapshot lacks. */
static int gather(hub_job *j, ash_err *err)
{
    const ash_hub_plan *p = j->plan;
    j->items = calloc(p->n_files + 1, sizeof *j->items);
    if (!j->items) return ash_err_nomem(err, "a fetch");
    for (size_t i = 0; i < p->n_files; i++) {
        const ash_hub_file *f = p->files[i];
        if (hub_cache_linked(j->hub, p->tree, f)) continue;
        if (!hub_blob_name(f))
            return ash_err_set(err, ASH_EFORMAT,
                               "the hash of '%.200s' is not known: ask the hub first", f->path);
        j->items[j->n_items++] = (hub_item){.file = f,
                                            .pin = p->pins[i],
                                            .n_chunks = hub_chunks(f->size),
                                            .have = journal_bytes(j->hub, p->tree, f),
                                            .lock_fd = -1,
                                            .fd = -1,
                                            .journal = -1};
    }
    return 0;
}

/* Without the hub: blobs get their names; what is missing is named. */
static int complete_offline(hub_job *j, ash_err *err)
{
    const ash_hub_tree *t = j->plan->tree;
    size_t missing = 0;
    const char *first = NULL;
    int rc = 0;
    for (size_t i = 0; i < j->n_items && !rc; i++) {
        if (hub_cache_blob(j->hub, t, j->items[i].file)) {
            rc = hub_cache_link(j->hub, t, j->items[i].file, err);
            continue;
        }
        if (!missing++) first = j->items[i].file->path;
    }
    if (rc || !missing) return rc;
    return ash_err_set(
        err, j->hub->offline ? ASH_ENOENT : ASH_ENET,
        "%zu of %zu files of '%s' are not in the cache, the first is '%.100s' (%.150s)", missing,
        j->plan->n_files, t->repo, first, t->why);
}

static int fetch(hub_job *j, ash_err *err)
{
    if (j->plan->tree->from_cache || j->hub->offline) return complete_offline(j, err);
    int rc = hub_ready(j->hub, err);
    if (!rc) rc = hub_cache_prepare(j->hub, j->plan->tree, err);
    if (!rc) rc = check_room(j, err);
    if (!rc) rc = hub_ring_open(&j->ring, err);
    if (!rc) rc = hub_download_open(j, err);
    if (!rc) rc = hub_verify_start(j, err);
    return rc ? rc : run(j, err);
}

int ash_hub_fetch(ash_hub *h, const ash_hub_plan *p, const ash_hub_watch *watch, char **snapshot,
                  ash_err *err)
{
    char repo[HUB_PATH], path[HUB_PATH];
    ash_err own = ASH_ERR_INIT;
    if (!err) err = &own;
    *snapshot = NULL;
    hub_job *j = calloc(1, sizeof *j);
    if (!j) return ash_err_nomem(err, "a fetch");
    j->hub = h;
    j->plan = p;
    j->watch = watch;
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->work, NULL);
    int rc = hub_cache_repo(h, p->tree->repo, repo, err);
    if (!rc) rc = hub_path(path, err, "%s/snapshots/%s", repo, p->tree->commit);
    if (!rc) rc = gather(j, err);
    if (!rc && j->n_items) rc = fetch(j, err);
    if (!rc && !p->tree->from_cache && hub_cache_ref(h, p->tree, NULL))
        ash_debug("hub", "%s: the name of revision '%s' could not be kept", p->tree->repo,
                  p->tree->revision);
    if (!rc && !(*snapshot = strdup(path))) rc = ash_err_nomem(err, "a fetch");
    release(j);
    return rc;
}
