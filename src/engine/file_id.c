/* Owns the records of what files hold. Refuses nothing: what cannot be believed is not there. Any thread;
 * writers hold the folder's lock. */
#include "engine/file_id.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/limits.h"

enum { READ_BYTES = 1 << 20 };

/* Head of `known`; in this machine's byte order, which the magic number tells. */
typedef struct known_head {
    uint64_t magic;
    uint64_t n;
    uint64_t check; /* SipHash of the records */
    uint64_t spare;
} known_head;

#define MAGIC 0x31306e776f6e6b41ull /* "Aknown01" */

static const uint64_t check_key[2] = {0x6173686c65790001ull, 0x6b6e6f776e000001ull};

/* ---- files ---------------------------------------------------------------------------------- */

static int64_t ns_of(const struct timespec *t)
{
    return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

int ash_file_id_read(int fd, ash_file_id *out, ash_err *err)
{
    struct stat st;
    if (fstat(fd, &st)) return ash_err_set(err, ASH_EIO, "cannot stat a file: %s", strerror(errno));
    if (!S_ISREG(st.st_mode)) return ash_err_set(err, ASH_EINVAL, "not a regular file");
    *out = (ash_file_id){.dev = st.st_dev,
                         .ino = st.st_ino,
                         .size = (uint64_t)st.st_size,
                         .mtime_ns = ns_of(&st.st_mtim),
                         .ctime_ns = ns_of(&st.st_ctim)};
    return 0;
}

bool ash_file_id_same(const ash_file_id *a, const ash_file_id *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->mtime_ns == b->mtime_ns &&
           a->ctime_ns == b->ctime_ns;
}

int64_t ash_file_id_young_ns(const ash_file_id *id)
{
    /* Times are the kernel's ticks, at most 10 ms; whole seconds (two on some) where that is all that the
     * file system keeps. A time in the future tells nothing either. */
    enum { TICK_NS = 50000000 };
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t least = id->ctime_ns % 1000000000 ? TICK_NS : 2500000000ll;
    int64_t left = least - (ns_of(&now) - id->ctime_ns);
    return left > 0 ? left : 0;
}

bool ash_file_id_hub(const char *path, uint8_t sum[ASH_SHA256_BYTES])
{
    char *real = realpath(path, NULL);
    if (!real) return false;
    char *name = strrchr(real, '/');
    size_t at = name ? (size_t)(name - real) : 0;
    bool hub = at >= 6 && !memcmp(name - 6, "/blobs", 6) && strlen(name + 1) == 64 &&
               ash_sha256_parse(name + 1, sum);
    free(real);
    return hub;
}

static int hash_content(int fd, const ash_file_id *id, const atomic_bool *stop, ash_moved_fn moved,
                        void *user, ash_sha256 *h, char *buf, ash_err *err)
{
    for (uint64_t at = 0; at < id->size;) {
        if (stop && atomic_load_explicit(stop, memory_order_relaxed))
            return ash_err_set(err, ASH_ECANCELED, "cancelled");
        ssize_t n = pread(fd, buf, READ_BYTES, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return ash_err_set(err, ASH_EIO, "cannot read a file: %s", strerror(errno));
        if (n == 0) return ash_err_set(err, ASH_EAGAIN, "the file became shorter");
        ash_sha256_add(h, buf, (size_t)n);
        at += (uint64_t)n;
        if (moved) moved(user, (uint64_t)n);
    }
    return 0;
}

int ash_file_id_hash(int fd, const ash_file_id *id, const atomic_bool *stop, ash_moved_fn moved, void *user,
                     uint8_t sum[ASH_SHA256_BYTES], ash_err *err)
{
    ash_sha256 *h = NULL;
    char *buf = malloc(READ_BYTES);
    ash_file_id now;
    int rc = buf ? ash_sha256_open(&h, err) : ash_err_nomem(err, "reading a file");
    if (!rc) rc = hash_content(fd, id, stop, moved, user, h, buf, err);
    if (!rc) rc = ash_sha256_sum(h, sum, err);
    if (!rc) rc = ash_file_id_read(fd, &now, err);
    if (!rc && !ash_file_id_same(&now, id))
        rc = ash_err_set(err, ASH_EAGAIN, "the file changed meanwhile");
    ash_sha256_close(h);
    free(buf);
    return rc;
}

/* ---- records -------------------------------------------------------------------------------- */

static bool believable(const ash_buf *b, known_head *head)
{
    if (b->len < sizeof *head) return false;
    memcpy(head, b->data, sizeof *head);
    size_t n = (b->len - sizeof *head) / sizeof(ash_known);
    return head->magic == MAGIC && head->n == n && !head->spare &&
           b->len == sizeof *head + n * sizeof(ash_known) &&
           head->check == ash_hash_bytes(b->data + sizeof *head, b->len - sizeof *head, check_key);
}

int ash_known_read(const char *dir, ash_known_list *out, ash_err *err)
{
    *out = (ash_known_list){0};
    ash_buf b;
    known_head head;
    char *path = ash_fs_join(dir, "known");
    if (!path) return ash_err_nomem(err, "known files");
    int rc = ash_fs_read(path, sizeof head + ASH_MAX_KNOWN_FILES * sizeof(ash_known), &b, NULL);
    free(path);
    if (!rc && believable(&b, &head) && head.n) {
        out->v = malloc(head.n * sizeof *out->v);
        if (out->v) memcpy(out->v, b.data + sizeof head, head.n * sizeof *out->v);
        out->n = out->v ? head.n : 0;
        rc = out->v ? 0 : ASH_ENOMEM;
    }
    ash_buf_release(&b);
    return rc == ASH_ENOMEM ? ash_err_nomem(err, "known files") : 0;
}

void ash_known_release(ash_known_list *l)
{
    free(l->v);
    *l = (ash_known_list){0};
}

const ash_known *ash_known_find(const ash_known_list *l, ash_known_kind kind, const ash_file_id *id)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->v[i].kind == (uint32_t)kind && ash_file_id_same(&l->v[i].id, id)) return &l->v[i];
    return NULL;
}

/* The record that the next one replaces: of the same inode, or the longest unused; n if there is room. */
static size_t place_of(const ash_known *all, size_t n, const ash_known *r)
{
    size_t oldest = 0;
    for (size_t i = 0; i < n; i++) {
        if (all[i].kind == r->kind && all[i].id.dev == r->id.dev && all[i].id.ino == r->id.ino) return i;
        if (all[i].used_s < all[oldest].used_s) oldest = i;
    }
    return n < ASH_MAX_KNOWN_FILES ? n : oldest;
}

int ash_known_add(const char *dir, const ash_known *v, size_t n, ash_err *err)
{
    ash_known_list old;
    int rc = ash_known_read(dir, &old, err);
    if (rc) return rc;
    size_t most = old.n + n < ASH_MAX_KNOWN_FILES ? old.n + n : ASH_MAX_KNOWN_FILES, count = old.n;
    char *path = ash_fs_join(dir, "known"), *bytes = malloc(sizeof(known_head) + most * sizeof *v);
    if (path && bytes) {
        ash_known *all = (ash_known *)(void *)(bytes + sizeof(known_head));
        if (count) memcpy(all, old.v, count * sizeof *all);
        for (size_t i = 0; i < n; i++) {
            size_t at = place_of(all, count, &v[i]);
            all[at] = v[i];
            count += at == count;
        }
        known_head head = {.magic = MAGIC, .n = count,
                           .check = ash_hash_bytes(all, count * sizeof *all, check_key)};
        memcpy(bytes, &head, sizeof head);
        rc = ash_fs_replace(path, bytes, sizeof head + count * sizeof *all, err);
    } else {
        rc = ash_err_nomem(err, "known files");
    }
    ash_known_release(&old);
    free(path);
    free(bytes);
    return rc;
}
