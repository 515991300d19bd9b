/* Owns the proof of what the cache holds already. Takes out of it what is not what its name says, never
 * anything else. What was written after it got its name in the snapshot is suspect: a fetch, ours or the
 * Python client's, makes the name last, and nobody writes to a blob then. The caller's thread. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/libcrypto.h"
#include "base/log.h"
#include "hub/hub_private.h"

enum {
    PIECE = 256 << 10, /* stays in the second cache between the copy and the hash */
    SHOW_MS = 100,
    SLACK_S = 2, /* between a blob's last byte and its name, on file systems that round times */
};

typedef struct proving {
    const ash_hub *hub;
    const ash_hub_plan *plan;
    const ash_hub_watch *watch;
    ash_libcrypto lib;
    uint8_t *buf; /* PIECE bytes */
    uint64_t total;
    int64_t next_show;
    ash_hub_proof *out;
} proving;

static void show(proving *p)
{
    int64_t now = ash_clock_ms();
    if (!p->watch || !p->watch->progress || now < p->next_show) return;
    p->next_show = now + SHOW_MS;
    ash_hub_progress shown = {.stage = ASH_HUB_VERIFYING,
                              .bytes_done = p->out->bytes,
                              .bytes_total = p->total,
                              .eta_ms = -1};
    p->watch->progress(p->watch->user, &shown);
}

/* The digest of what fd holds, as hexadecimal digits. */
static int digest_of(proving *p, EVP_MD_CTX *c, int fd, char hex[65], ash_err *err)
{
    uint8_t sum[EVP_MAX_MD_SIZE];
    unsigned n_sum = 0;
    for (off_t at = 0;;) {
        if (p->watch && hub_cancelled(p->watch->cancel))
            return ash_err_set(err, ASH_ECANCELED, "interrupted");
        ssize_t n = pread(fd, p->buf, PIECE, at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return hub_os_error(err, "read", "a file of the cache");
        if (!n) break;
        if (p->lib.update(c, p->buf, (size_t)n) != 1) return ash_err_nomem(err, "a hash");
        at += n;
        p->out->bytes += (uint64_t)n;
        show(p);
    }
    if (p->lib.final(c, sum, &n_sum) != 1 || n_sum > 32) return ash_err_nomem(err, "a hash");
    for (unsigned i = 0; i < n_sum; i++) snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    return 0;
}

/* Whether a file is what f says. A git hash is of a head and the content. */
static int is_right(proving *p, const ash_hub_file *f, const char *path, bool *right, ash_err *err)
{
    char head[40], hex[65] = "";
    int n = snprintf(head, sizeof head, "blob %llu", (unsigned long long)f->size);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return hub_os_error(err, "open", path);
    EVP_MD_CTX *c = p->lib.ctx_new();
    bool ok = c && p->lib.init(c, f->sha256 ? p->lib.sha256() : p->lib.sha1(), NULL) == 1 &&
              (f->sha256 || p->lib.update(c, head, (size_t)n + 1) == 1);
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    int rc = ok ? digest_of(p, c, fd, hex, err) : ash_err_nomem(err, "a hash");
    if (c) p->lib.ctx_free(c);
    close(fd);
    *right = !strcmp(hex, hub_blob_name(f));
    return rc;
}

/* Proves one file under one of its names, and takes a wrong one away. */
static int prove(proving *p, const ash_hub_file *f, const char *path, bool *wrong, ash_err *err)
{
    bool right = false;
    int rc = is_right(p, f, path, &right, err);
    if (rc || right) return rc;
    *wrong = true;
    if (p->plan->tree->from_cache)
        return ash_err_set(err, ASH_EFORMAT,
                           "'%.150s' of '%s' is damaged in the cache: it is not what its %s says; the "
                           "hub was not asked for it anew (%.150s)",
                           f->path, p->plan->tree->repo, f->sha256 ? "SHA-256" : "git hash",
                           p->plan->tree->why);
    ash_warn("hub", "%s is damaged in the cache (it is not what its %s says): it is fetched again", f->path,
             f->sha256 ? "SHA-256" : "git hash");
    return unlink(path) && errno != ENOENT ? hub_os_error(err, "remove the damaged file", path) : 0;
}

/* Where f is: its blob, and its name in the snapshot, which leads there or is a copy. */
typedef struct places {
    char blob[HUB_PATH], name[HUB_PATH];
    bool has_blob, copy; /* whole; the name is a file of its own, whole */
    bool suspect;        /* written after it was named */
} places;

static int find(const proving *p, const ash_hub_file *f, places *at, ash_err *err)
{
    const ash_hub_tree *t = p->plan->tree;
    struct stat blob = {0}, name = {0}, link = {0};
    char repo[HUB_PATH];
    int rc = hub_cache_file(p->hub, t, f, HUB_BLOB, at->blob, err);
    if (!rc) rc = hub_cache_repo(p->hub, t->repo, repo, err);
    if (!rc) rc = hub_path(at->name, err, "%s/snapshots/%s/%s", repo, t->commit, f->path);
    if (rc) return rc;
    bool named = !stat(at->name, &name) && !lstat(at->name, &link);
    at->has_blob = hub_cache_blob(p->hub, t, f) && !stat(at->blob, &blob);
    bool same = at->has_blob && blob.st_dev == name.st_dev && blob.st_ino == name.st_ino;
    at->copy = named && !same && hub_cache_linked(p->hub, t, f);
    at->suspect = named && S_ISLNK(link.st_mode) && name.st_mtim.tv_sec > link.st_mtim.tv_sec + SLACK_S;
    return 0;
}

/* Hashes one file while no other process may write it; one that has the lock is left alone. */
static int prove_file(proving *p, const ash_hub_file *f, const places *at, ash_err *err)
{
    int lock = -1, rc = 0;
    bool wrong = false;
    if (hub_cache_lock(p->hub, p->plan->tree, f, &lock, NULL) == ASH_EAGAIN) return 0;
    if (at->has_blob) rc = prove(p, f, at->blob, &wrong, err);
    if (at->copy && !rc) rc = prove(p, f, at->name, &wrong, err);
    p->out->n_hashed++;
    p->out->n_wrong += wrong;
    if (!rc && !wrong && at->suspect) /* proved now: not suspect the next time */
        utimensat(AT_FDCWD, at->name, NULL, AT_SYMLINK_NOFOLLOW);
    if (lock >= 0) close(lock); /* gives it back */
    return rc;
}

/* First their sum, for the progress, then their bytes. */
static int prove_all(proving *p, bool all, ash_err *err)
{
    places at;
    int rc = 0;
    for (int turn = 0; turn < 2 && !rc; turn++) {
        for (size_t i = 0; i < p->plan->n_files && !rc; i++) {
            const ash_hub_file *f = p->plan->files[i];
            if (!hub_blob_name(f)) continue;
            rc = find(p, f, &at, err);
            if (rc || !(at.has_blob || at.copy) || !(all || at.suspect)) continue;
            if (turn)
                rc = prove_file(p, f, &at, err);
            else
                p->total += f->size;
        }
        if (!p->total) return rc;
        if (!rc && !turn) rc = ash_libcrypto_open(&p->lib, err);
        if (!rc && !turn && !p->plan->tree->from_cache && hub_cache_prepare(p->hub, p->plan->tree, NULL))
            ash_debug("hub", "the cache cannot be written: proved without its locks");
    }
    return rc;
}

int ash_hub_prove(const ash_hub *h, const ash_hub_plan *p, bool all, const ash_hub_watch *watch,
                  ash_hub_proof *out, ash_err *err)
{
    proving v = {.hub = h, .plan = p, .watch = watch, .buf = malloc(PIECE), .out = out};
    *out = (ash_hub_proof){0};
    if (!v.buf) return ash_err_nomem(err, "a hash");
    int rc = prove_all(&v, all, err);
    free(v.buf);
    return rc;
}
