/* Owns the hashing thread of a fetch: it hashes what was written, in file order, out of the ring or
 * where it lies in the page cache, and gives a file its name when its hash is the announced one.
 * Refuses all else. A chunk that the journal of an earlier process claims is summed before it is
 * hashed; if it is wrong, it is fetched again. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/sha256.h"
#include "hub/job.h"

enum { PIECE = 256 << 10 }; /* stays in the second cache between the copy and the hash */

/* ---- hashes ---- */

void hub_verify_end(hub_job *j, hub_item *it)
{
    if (it->digest) j->crypto.ctx_free(it->digest);
    if (it->pin_digest) j->crypto.ctx_free(it->pin_digest);
    it->digest = it->pin_digest = NULL;
}

int hub_verify_begin(hub_job *j, hub_item *it, ash_err *err)
{
    const ash_libcrypto *c = &j->crypto;
    bool git = !it->file->sha256;
    char head[40];
    int n = snprintf(head, sizeof head, "blob %llu", (unsigned long long)it->file->size);
    hub_verify_end(j, it);
    it->digest = c->ctx_new();
    if (git && it->pin) it->pin_digest = c->ctx_new();
    bool ok =
        it->digest && c->init(it->digest, git ? c->sha1() : c->sha256(), NULL) == 1 &&
        (!git || c->update(it->digest, head, (size_t)n + 1) == 1) &&
        (!(git && it->pin) || (it->pin_digest && c->init(it->pin_digest, c->sha256(), NULL) == 1));
    return ok ? 0 : ash_err_nomem(err, "a hash");
}

static bool sum_of(const hub_job *j, EVP_MD_CTX *digest, char out[65])
{
    uint8_t sum[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (j->crypto.final(digest, sum, &n) != 1 || n > 32) return false;
    for (unsigned i = 0; i < n; i++) snprintf(out + 2 * i, 3, "%02x", sum[i]);
    return true;
}

/* ---- chunks ---- */

typedef int (*piece_fn)(hub_job *j, hub_item *it, ash_checksum_state *sum, const uint8_t *p,
                        size_t n);

static int hash_piece(hub_job *j, hub_item *it, ash_checksum_state *sum, const uint8_t *p, size_t n)
{
    bool ok = j->crypto.update(it->digest, p, n) == 1 &&
              (!it->pin_digest || j->crypto.update(it->pin_digest, p, n) == 1);
    return ok ? 0 : ASH_ENOMEM;
}

static int sum_piece(hub_job *j, hub_item *it, ash_checksum_state *sum, const uint8_t *p, size_t n)
{
    ash_checksum_add(sum, p, n);
    return 0;
}

/* Reads [at, end) piece by piece. ASH_EFORMAT: the file is shorter. */
static int each_piece(hub_job *j, hub_item *it, uint64_t at, uint64_t end, uint8_t *buf, piece_fn fn,
                      ash_checksum_state *sum)
{
    while (at < end) {
        size_t want = end - at < PIECE ? (size_t)(end - at) : PIECE;
        ssize_t n = pread(it->fd, buf, want, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return ASH_EIO;
        if (!n) return ASH_EFORMAT;
        int rc = fn(j, it, sum, buf, (size_t)n);
        if (rc) return rc;
        at += (uint64_t)n;
    }
    return 0;
}

/* Hashes [at, end) from a mapping: copying it out of the page cache took a third of the hash's time again.
 * ASH_EAGAIN: nothing was hashed, it cannot be mapped. ASH_EFORMAT: its pages were lost meanwhile. */
static int hash_mapped(hub_job *j, hub_item *it, uint64_t at, uint64_t end)
{
    size_t n = (size_t)(end - at);
    atomic_bool lost = false;
    void *map = mmap(NULL, n, PROT_READ, MAP_SHARED, it->fd, (off_t)at);
    if (map == MAP_FAILED) return ASH_EAGAIN;
    int rc = ash_fault_guard(map, n, &lost) ? 0 : ASH_EAGAIN;
    if (!rc) rc = hash_piece(j, it, NULL, map, n);
    ash_fault_forget(map);
    munmap(map, n);
    return !rc && atomic_load(&lost) ? ASH_EFORMAT : rc;
}

/* Whether a claimed chunk is what the journal says. 0, ASH_EFORMAT, ASH_EIO. */
static int check_claim(hub_job *j, hub_item *it, uint32_t chunk, uint8_t *buf)
{
    ash_checksum_state sum;
    ash_checksum_init(&sum);
    int rc = each_piece(j, it, (uint64_t)chunk * ASH_HUB_CHUNK, hub_chunk_end(it->file->size, chunk), buf,
                        sum_piece, &sum);
    return rc ? rc : ash_checksum_sum(&sum) == it->sums[chunk] ? 0 : ASH_EFORMAT;
}

/* Lock held. */
static void forget_chunk(hub_item *it, uint32_t chunk)
{
    uint64_t start = (uint64_t)chunk * ASH_HUB_CHUNK;
    ash_warn("hub",
             "%s: %u MiB on disk are not what was written there (a crash of the machine?): fetched "
             "again",
             it->file->path, ASH_HUB_CHUNK >> 20);
    it->chunk[chunk] = HUB_CHUNK_MISSING;
    it->have -= hub_chunk_end(it->file->size, chunk) - start;
    it->reach = start;
}

/* The file is hashed up to `end`, which is in its first chunk that is not. */
static void hashed_to(hub_job *j, hub_item *it, uint64_t end)
{
    uint32_t chunk = it->hashed;
    if (end < hub_chunk_end(it->file->size, chunk)) return;
    /* The disk begins now, so that the wait at the end is short. */
    sync_file_range(it->fd, (off_t)((uint64_t)chunk * ASH_HUB_CHUNK), ASH_HUB_CHUNK,
                    SYNC_FILE_RANGE_WRITE);
    pthread_mutex_lock(&j->lock);
    it->hashed++;
    pthread_mutex_unlock(&j->lock);
}

/* Hashes what is in the file from `at` to `end`, within a chunk. */
static int hash_back(hub_job *j, hub_item *it, uint64_t at, uint64_t end, uint8_t *buf)
{
    int rc = hash_mapped(j, it, at, end);
    return rc == ASH_EAGAIN ? each_piece(j, it, at, end, buf, hash_piece, NULL) : rc;
}

/* ---- the end of a file ---- */

static int publish(hub_job *j, hub_item *it, ash_err *err)
{
    const ash_hub_tree *t = j->plan->tree;
    char partial[HUB_PATH], blob[HUB_PATH], journal[HUB_PATH];
    int rc = hub_cache_file(j->hub, t, it->file, HUB_PARTIAL, partial, err);
    if (!rc) rc = hub_cache_file(j->hub, t, it->file, HUB_BLOB, blob, err);
    if (!rc) rc = hub_cache_file(j->hub, t, it->file, HUB_JOURNAL, journal, err);
    if (rc) return rc;
    if (fdatasync(it->fd)) return hub_os_error(err, "write", partial);
    if (rename(partial, blob)) return hub_os_error(err, "rename a file to", blob);
    rc = hub_sync_folder(blob, err);
    if (rc) return rc;
    unlink(journal);
    return hub_cache_link(j->hub, t, it->file, err);
}

static int finish(hub_job *j, hub_item *it, ash_err *err)
{
    char found[65] = "", pinned[65] = "";
    const char *want = hub_blob_name(it->file);
    bool ok =
        sum_of(j, it->digest, found) && (!it->pin_digest || sum_of(j, it->pin_digest, pinned));
    if (!ok) return ash_err_nomem(err, "a hash");
    bool wrong = strcmp(found, want) != 0;
    if (it->pin_digest && !wrong && strcmp(pinned, it->pin))
        return ash_err_set(err, ASH_EFORMAT,
                           "'%.150s' of '%s': its SHA-256 is %s, the catalogue has %.64s: not used",
                           it->file->path, j->plan->tree->repo, pinned, it->pin);
    int rc = wrong ? 0 : publish(j, it, err);
    if (rc) return rc;
    if (!wrong) {
        close(it->journal);
        close(it->fd);
        close(it->lock_fd); /* gives the lock back */
        hub_verify_end(j, it);
    }
    pthread_mutex_lock(&j->lock);
    memcpy(it->found, found, sizeof found);
    it->wrong = wrong;
    if (!wrong) it->state = HUB_ITEM_DONE;
    pthread_mutex_unlock(&j->lock);
    return 0;
}

/* ---- the thread ---- */

static bool all_hashed(const hub_item *it)
{
    return it->state == HUB_ITEM_ACTIVE && !it->wrong && it->hashed == it->n_chunks;
}

/* The next file with something to do: the last one if it is at its end, before others' pieces. Lock held. */
static hub_item *next_work(hub_job *j, hub_item *last)
{
    const hub_piece *p = hub_ring_first(&j->ring);
    if (last && all_hashed(last)) return last;
    if (p) return p->item;
    for (size_t i = 0; i < j->n_items; i++) {
        hub_item *it = &j->items[i];
        if (it->state != HUB_ITEM_ACTIVE || it->wrong) continue;
        if (it->hashed == it->n_chunks || it->fed < it->reach) return it;
    }
    return NULL;
}

/* The ring's first piece. The lock is held, but not while it is hashed. */
static int take_piece(hub_job *j, const hub_piece *p, ash_err *err)
{
    hub_item *it = p->item;
    pthread_mutex_unlock(&j->lock);
    int rc = hash_piece(j, it, NULL, p->data, p->n);
    if (!rc) hashed_to(j, it, p->end);
    pthread_mutex_lock(&j->lock);
    hub_ring_pop(&j->ring);
    return rc ? ash_err_nomem(err, "a hash") : 0;
}

static int back_error(const hub_item *it, int rc, ash_err *err)
{
    if (rc == ASH_ENOMEM) return ash_err_nomem(err, "a hash");
    return ash_err_set(err, ASH_EIO, "cannot read back '%.200s' in the hub's cache: %s", it->file->path,
                       rc == ASH_EFORMAT ? "somebody made it shorter" : strerror(errno));
}

/* What did not come by the ring, up to the end of a chunk. The lock as above. What an earlier process claims
 * is in hand only once it was summed. */
static int take_back(hub_job *j, hub_item *it, uint8_t *buf, ash_err *err)
{
    uint64_t at = it->fed, end = hub_chunk_end(it->file->size, it->hashed);
    int rc = 0;
    if (end > it->reach) end = it->reach;
    if (it->chunk[it->hashed] == HUB_CHUNK_CLAIMED) {
        pthread_mutex_unlock(&j->lock);
        rc = check_claim(j, it, it->hashed, buf);
        pthread_mutex_lock(&j->lock);
        if (rc == ASH_EFORMAT) {
            forget_chunk(it, it->hashed);
            return 0;
        }
    }
    it->fed = end;
    pthread_mutex_unlock(&j->lock);
    if (!rc) rc = hash_back(j, it, at, end, buf);
    if (rc)
        rc = back_error(it, rc, err);
    else
        hashed_to(j, it, end);
    pthread_mutex_lock(&j->lock);
    return rc;
}

static int take_end(hub_job *j, hub_item *it, ash_err *err)
{
    j->finishing = true;
    pthread_mutex_unlock(&j->lock);
    int rc = finish(j, it, err);
    j->hub->curl.multi_wakeup(j->multi);
    pthread_mutex_lock(&j->lock);
    j->finishing = false;
    return rc;
}

static void *hash_all(void *user)
{
    hub_job *j = user;
    uint8_t *buf = malloc(PIECE);
    hub_item *it = NULL;
    ash_err err = ASH_ERR_INIT;
    if (!buf) {
        ash_err_nomem(&err, "a hash");
        hub_job_fail(j, &err);
        return NULL;
    }
    pthread_mutex_lock(&j->lock);
    while (!j->stop) {
        it = next_work(j, it);
        if (!it || j->rc) {
            pthread_cond_wait(&j->work, &j->lock);
            continue;
        }
        const hub_piece *p = hub_ring_first(&j->ring);
        int rc = all_hashed(it) ? take_end(j, it, &err)
                 : p            ? take_piece(j, p, &err)
                                : take_back(j, it, buf, &err);
        if (!rc) continue;
        pthread_mutex_unlock(&j->lock);
        hub_job_fail(j, &err);
        j->hub->curl.multi_wakeup(j->multi);
        pthread_mutex_lock(&j->lock);
    }
    pthread_mutex_unlock(&j->lock);
    free(buf);
    return NULL;
}

int hub_verify_start(hub_job *j, ash_err *err)
{
    int rc = ash_libcrypto_open(&j->crypto, err);
    if (rc) return rc;
    if (pthread_create(&j->hasher, NULL, hash_all, j)) return ash_err_nomem(err, "a thread");
    j->hashing = true;
    return 0;
}

void hub_verify_stop(hub_job *j)
{
    if (!j->hashing) return;
    pthread_mutex_lock(&j->lock);
    j->stop = true;
    pthread_cond_signal(&j->work);
    pthread_mutex_unlock(&j->lock);
    pthread_join(j->hasher, NULL);
    j->hashing = false;
}
