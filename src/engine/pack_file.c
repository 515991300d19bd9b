/* Owns the form of a pack file. Refuses a file that is cut, foreign or damaged. Any thread, each its own
 * files. */
#include "engine/pack_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"

enum {
    HEAD = 4096,
    HUGE = 2 << 20,
    PART = 16 << 20, /* bytes with one sum, at least: also those of one write */
    MAX_PARTS = (ASH_PACK_DATA - HEAD) / ASH_SHA256_BYTES,
    FORMAT = 1,
};

#define MAGIC 0x31304b4341505341ull /* "ASPACK01" */

typedef struct head {
    uint64_t magic;
    uint32_t format, n_parts;
    uint64_t bytes, part_bytes;
    uint8_t key[ASH_SHA256_BYTES];
    uint8_t sum[ASH_SHA256_BYTES]; /* of the head with zeros here, and of the table */
    uint8_t zeros[HEAD - 96];
} head;
_Static_assert(sizeof(head) == HEAD, "a head as it lies in the file");

/* Head and table as they are read and written. */
typedef struct front {
    head h;
    uint8_t table[MAX_PARTS][ASH_SHA256_BYTES];
} front;
_Static_assert(sizeof(front) <= ASH_PACK_DATA, "the table ends before the data");

/* ---- sizes ---------------------------------------------------------------------------------- */

static uint64_t part_bytes(uint64_t bytes)
{
    uint64_t part = PART;
    while (bytes / part >= MAX_PARTS) part *= 2;
    return part;
}

static uint32_t n_parts(uint64_t bytes)
{
    uint64_t part = part_bytes(bytes);
    return (uint32_t)((bytes + part - 1) / part);
}

bool ash_pack_file_size(uint64_t bytes, uint64_t *file_bytes)
{
    if (!bytes || bytes > (uint64_t)INT64_MAX / 2) return false;
    *file_bytes = ASH_PACK_DATA + (bytes / HUGE + 1) * HUGE;
    return true;
}

static uint64_t size_of_part(uint64_t bytes, uint32_t i)
{
    uint64_t part = part_bytes(bytes), left = bytes - i * part;
    return left < part ? left : part;
}

static size_t front_bytes(uint64_t bytes)
{
    return HEAD + (size_t)n_parts(bytes) * ASH_SHA256_BYTES;
}

/* ---- head and table ------------------------------------------------------------------------- */

static int sum_front(front *f, uint64_t bytes, uint8_t out[ASH_SHA256_BYTES], ash_err *err)
{
    ash_sha256 *h;
    int rc = ash_sha256_open(&h, err);
    if (rc) return rc;
    uint8_t said[ASH_SHA256_BYTES];
    memcpy(said, f->h.sum, sizeof said);
    memset(f->h.sum, 0, sizeof f->h.sum);
    ash_sha256_add(h, f, front_bytes(bytes));
    rc = ash_sha256_sum(h, out, err);
    memcpy(f->h.sum, said, sizeof said);
    ash_sha256_close(h);
    return rc;
}

static int read_all(int fd, void *to, size_t n, uint64_t at, ash_err *err)
{
    for (char *p = to; n;) {
        ssize_t got = pread(fd, p, n, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return ash_err_set(err, ASH_EIO, "cannot be read: %s", strerror(errno));
        if (got == 0) return ash_err_set(err, ASH_EFORMAT, "is cut");
        p += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

static int write_all(int fd, const void *from, size_t n, uint64_t at, ash_err *err)
{
    for (const char *p = from; n;) {
        ssize_t put = pwrite(fd, p, n, (off_t)at);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0)
            return ash_err_set(err, errno == ENOSPC || errno == EDQUOT ? ASH_ENOSPC : ASH_EIO,
                               "cannot be written: %s", strerror(errno));
        p += put;
        at += (uint64_t)put;
        n -= (size_t)put;
    }
    return 0;
}

static int check_front(front *f, const uint8_t *key, uint64_t bytes, ash_err *err)
{
    uint8_t sum[ASH_SHA256_BYTES];
    if (f->h.magic != MAGIC || f->h.format != FORMAT)
        return ash_err_set(err, ASH_EFORMAT, "is of another format");
    int rc = sum_front(f, bytes, sum, err);
    if (rc) return rc;
    if (memcmp(sum, f->h.sum, sizeof sum)) return ash_err_set(err, ASH_EFORMAT, "has a damaged head");
    if (memcmp(f->h.key, key, sizeof f->h.key) || f->h.bytes != bytes ||
        f->h.part_bytes != part_bytes(bytes) || f->h.n_parts != n_parts(bytes))
        return ash_err_set(err, ASH_EFORMAT, "is of another model");
    return 0;
}

static int read_front(int fd, const uint8_t *key, uint64_t bytes, front **out, ash_err *err)
{
    front *f = *out = calloc(1, sizeof *f);
    if (!f) return ash_err_nomem(err, "the head of a pack file");
    int rc = read_all(fd, f, front_bytes(bytes), 0, err);
    return rc ? rc : check_front(f, key, bytes, err);
}

/* ---- opening -------------------------------------------------------------------------------- */

/* Address space on a huge page's border, with the data in its place. */
static int map_data(ash_pack_file *f, uint64_t file_bytes, ash_err *err)
{
    uint64_t n = file_bytes - ASH_PACK_DATA;
    char *space = mmap(NULL, n + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space == MAP_FAILED) return ash_err_nomem(err, "the map of a pack file");
    char *at = space + (HUGE - (uintptr_t)space % HUGE) % HUGE;
    void *map = mmap(at, n, PROT_READ, MAP_SHARED | MAP_FIXED, f->fd, ASH_PACK_DATA);
    if (at > space) munmap(space, (size_t)(at - space));
    if (map == MAP_FAILED) {
        munmap(at, n + HUGE - (size_t)(at - space));
        return ash_err_set(err, ASH_EIO, "cannot be mapped: %s", strerror(errno));
    }
    munmap(at + n, HUGE - (size_t)(at - space));
    f->map = map;
    f->map_bytes = n;
    f->lost = calloc(1, sizeof *f->lost);
    if (f->lost && ash_fault_guard(map, n, f->lost)) return 0;
    return ash_err_nomem(err, "guarding a pack file");
}

int ash_pack_file_open(const char *path, const uint8_t key[ASH_SHA256_BYTES], uint64_t bytes,
                       ash_pack_file *out, ash_err *err)
{
    uint64_t file_bytes;
    struct stat st;
    front *f = NULL;
    *out = (ash_pack_file){.fd = -1};
    if (!ash_pack_file_size(bytes, &file_bytes)) return ash_err_set(err, ASH_ENOENT, "too large");
    out->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (out->fd < 0)
        return ash_err_set(err, errno == ENOENT || errno == ENOTDIR ? ASH_ENOENT : ASH_EIO,
                           "cannot be opened: %s", strerror(errno));
    int rc = 0;
    if (flock(out->fd, LOCK_SH | LOCK_NB)) /* it is being removed */
        rc = ash_err_set(err, ASH_ENOENT, "is locked");
    if (!rc && !fstat(out->fd, &st) && !ash_fs_is_ours(&st))
        rc = ash_err_set(err, ASH_EFORMAT, "belongs to another user");
    if (!rc) rc = ash_file_id_read(out->fd, &out->id, err);
    if (!rc && out->id.size != file_bytes)
        rc = ash_err_set(err, ASH_EFORMAT, "has %llu bytes, must have %llu",
                         (unsigned long long)out->id.size, (unsigned long long)file_bytes);
    if (!rc) rc = read_front(out->fd, key, bytes, &f, err);
    if (!rc) rc = map_data(out, file_bytes, err);
    free(f);
    if (rc) ash_pack_file_close(out);
    return rc;
}

void ash_pack_file_close(ash_pack_file *f)
{
    ash_fault_forget(f->map);
    if (f->map) munmap(f->map, f->map_bytes);
    free(f->lost);
    if (f->fd >= 0) close(f->fd);
    *f = (ash_pack_file){.fd = -1};
}

/* ---- verifying ------------------------------------------------------------------------------ */

typedef struct check {
    int fd;
    uint64_t bytes;
    const front *f;
    const atomic_bool *stop;
    atomic_int rc;
    atomic_uint bad;
} check;

static int verify_part(const check *c, uint32_t i, char *buf, ash_sha256 *h)
{
    uint8_t sum[ASH_SHA256_BYTES];
    uint64_t at = ASH_PACK_DATA + i * part_bytes(c->bytes), left = size_of_part(c->bytes, i);
    int rc = ash_sha256_reset(h, NULL);
    while (!rc && left) {
        size_t n = left < HUGE ? (size_t)left : HUGE;
        if (c->stop && atomic_load_explicit(c->stop, memory_order_relaxed)) return ASH_ECANCELED;
        rc = read_all(c->fd, buf, n, at, NULL);
        if (!rc) ash_sha256_add(h, buf, n);
        at += n;
        left -= n;
    }
    if (!rc) rc = ash_sha256_sum(h, sum, NULL);
    return rc ? rc : memcmp(sum, c->f->table[i], sizeof sum) ? ASH_EFORMAT : 0;
}

static void verify_parts(void *arg, int64_t begin, int64_t end, int worker)
{
    check *c = arg;
    ash_sha256 *h = NULL;
    char *buf = malloc(HUGE);
    int rc = buf ? ash_sha256_open(&h, NULL) : ASH_ENOMEM;
    for (int64_t i = begin; i < end && !rc && !atomic_load(&c->rc); i++) {
        rc = verify_part(c, (uint32_t)i, buf, h);
        if (rc) atomic_store(&c->bad, (unsigned)i);
    }
    if (rc) atomic_store(&c->rc, rc);
    ash_sha256_close(h);
    free(buf);
}

static int verify(int fd, const front *f, uint64_t bytes, ash_pool *pool, const atomic_bool *stop,
                  ash_err *err)
{
    check c = {.fd = fd, .bytes = bytes, .f = f, .stop = stop};
    ash_pool_run(pool, n_parts(bytes), 1, verify_parts, &c);
    int rc = atomic_load(&c.rc);
    if (rc == ASH_ENOMEM) return ash_err_nomem(err, "verifying a pack file");
    if (rc == ASH_ECANCELED) return ash_err_set(err, rc, "cancelled");
    return rc ? ash_err_set(err, rc, "is damaged in part %u", atomic_load(&c.bad)) : 0;
}

int ash_pack_file_verify(const ash_pack_file *pf, uint64_t bytes, ash_pool *pool, const atomic_bool *stop,
                         ash_err *err)
{
    front *f = calloc(1, sizeof *f);
    int rc = f ? read_all(pf->fd, f, front_bytes(bytes), 0, err) : ash_err_nomem(err, "a pack file");
    /* open has checked the head, but the file may have changed since */
    if (!rc) rc = check_front(f, f->h.key, bytes, err);
    if (!rc) rc = verify(pf->fd, f, bytes, pool, stop, err);
    free(f);
    return rc;
}

/* ---- writing -------------------------------------------------------------------------------- */

/* What a file's data is: a region in memory, or made in the file's own pages. */
typedef struct origin {
    const char *region;
    const ash_pack_maker *maker; /* or NULL */
} origin;

/* Sums the parts, and writes them where they are not in the file already. */
static int write_data(int fd, front *f, const origin *o, uint64_t bytes, const atomic_bool *stop,
                      ash_err *err)
{
    ash_sha256 *h;
    int rc = ash_sha256_open(&h, err);
    if (rc) return rc;
    for (uint32_t i = 0; i < n_parts(bytes) && !rc; i++) {
        uint64_t from = i * part_bytes(bytes), n = size_of_part(bytes, i);
        for (uint64_t done = 0; done < n && !rc; done += PART) {
            size_t piece = (size_t)(n - done < PART ? n - done : PART);
            if (stop && atomic_load_explicit(stop, memory_order_relaxed))
                rc = ash_err_set(err, ASH_ECANCELED, "cancelled");
            ash_sha256_add(h, o->region + from + done, piece);
            if (o->maker) o->maker->moved(o->maker->user, piece);
            if (!rc && !o->maker)
                rc = write_all(fd, o->region + from + done, piece, ASH_PACK_DATA + from + done, err);
            /* begins to write back: the page cache fills no faster than the disk takes it */
            if (!rc && !o->maker)
                (void)sync_file_range(fd, (off_t)(ASH_PACK_DATA + from + done), (off_t)piece,
                                      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE);
        }
        if (!rc) rc = ash_sha256_sum(h, f->table[i], err);
        if (!rc) rc = ash_sha256_reset(h, err);
    }
    ash_sha256_close(h);
    return rc;
}

/* Has the data made in the file's pages and summed from there once they are on the disk. Pages that the disk
 * has no room for, or cannot read, raise SIGBUS: they are guarded. */
static int make_data(int fd, front *f, origin o, uint64_t bytes, uint64_t file_bytes, const atomic_bool *stop,
                     ash_err *err)
{
    atomic_bool lost = false;
    uint64_t n = file_bytes - ASH_PACK_DATA;
    void *map = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, ASH_PACK_DATA);
    if (map == MAP_FAILED) return ash_err_set(err, ASH_EIO, "cannot be mapped: %s", strerror(errno));
    if (!ash_fault_guard(map, n, &lost)) {
        munmap(map, n);
        return ash_err_nomem(err, "guarding a pack file");
    }
    o.region = map;
    int rc = o.maker->fill(o.maker->user, map, err);
    if (!rc && fsync(fd)) rc = ash_err_set(err, ASH_EIO, "cannot be synced: %s", strerror(errno));
    if (!rc) rc = write_data(fd, f, &o, bytes, stop, err);
    ash_fault_forget(map);
    munmap(map, n);
    if (!rc && atomic_load(&lost)) rc = ash_err_set(err, ASH_EIO, "cannot be written or read back");
    return rc;
}

/* All of it, synced and read back. */
static int write_content(int fd, front *f, const uint8_t *key, const origin *o, uint64_t bytes,
                         const atomic_bool *stop, ash_err *err)
{
    uint64_t file_bytes;
    if (!ash_pack_file_size(bytes, &file_bytes)) return ash_err_set(err, ASH_ENOSPC, "too large");
    if (ftruncate(fd, (off_t)file_bytes) || (fallocate(fd, 0, 0, (off_t)file_bytes) && errno != EOPNOTSUPP))
        return ash_err_set(err, errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? ASH_ENOSPC : ASH_EIO,
                           "cannot be written: %s", strerror(errno));
    f->h = (head){.magic = MAGIC, .format = FORMAT, .n_parts = n_parts(bytes), .bytes = bytes,
                  .part_bytes = part_bytes(bytes)};
    memcpy(f->h.key, key, sizeof f->h.key);
    int rc = o->maker ? make_data(fd, f, *o, bytes, file_bytes, stop, err)
                      : write_data(fd, f, o, bytes, stop, err);
    uint8_t sum[ASH_SHA256_BYTES];
    if (!rc) rc = sum_front(f, bytes, sum, err);
    if (!rc) memcpy(f->h.sum, sum, sizeof sum);
    if (!rc) rc = write_all(fd, f, front_bytes(bytes), 0, err);
    if (!rc && fsync(fd)) rc = ash_err_set(err, ASH_EIO, "cannot be synced: %s", strerror(errno));
    return rc || o->maker ? rc : verify(fd, f, bytes, NULL, stop, err);
}

static int sync_dir_of(const char *path)
{
    char *dir = strdup(path), *slash = dir ? strrchr(dir, '/') : NULL;
    if (slash) *slash = 0;
    int fd = slash ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int rc = fd < 0 ? -1 : fsync(fd);
    if (fd >= 0) close(fd);
    free(dir);
    return rc;
}

static int write_file(const char *path, const uint8_t key[ASH_SHA256_BYTES], const origin *o, uint64_t bytes,
                      const atomic_bool *stop, ash_file_id *id, ash_err *err)
{
    size_t len = strlen(path);
    char *aside = malloc(len + 5);
    front *f = calloc(1, sizeof *f);
    int fd = -1, rc = aside && f ? 0 : ash_err_nomem(err, "writing a pack file");
    if (!rc) {
        memcpy(aside, path, len);
        memcpy(aside + len, ".tmp", 5);
        unlink(aside); /* of a process that was killed: this one holds the folder's lock */
        fd = open(aside, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0) rc = ash_err_set(err, ASH_EIO, "cannot be created: %s", strerror(errno));
    }
    if (!rc) {
        rc = write_content(fd, f, key, o, bytes, stop, err);
        if (!rc && (rename(aside, path) || sync_dir_of(path)))
            rc = ash_err_set(err, ASH_EIO, "cannot be put in its place: %s", strerror(errno));
        if (!rc) rc = ash_file_id_read(fd, id, err);
        if (rc) unlink(aside);
        close(fd);
    }
    free(aside);
    free(f);
    return rc;
}

int ash_pack_file_write(const char *path, const uint8_t key[ASH_SHA256_BYTES], const void *region,
                        uint64_t bytes, const atomic_bool *stop, ash_file_id *id, ash_err *err)
{
    const origin o = {.region = region};
    return write_file(path, key, &o, bytes, stop, id, err);
}

int ash_pack_file_make(const char *path, const uint8_t key[ASH_SHA256_BYTES], uint64_t bytes,
                       const ash_pack_maker *maker, const atomic_bool *stop, ash_file_id *id, ash_err *err)
{
    const origin o = {.maker = maker};
    return write_file(path, key, &o, bytes, stop, id, err);
}

int ash_pack_file_direct(const ash_pack_file *f)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", f->fd);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    return fd >= 0 ? fd : open(path, O_RDONLY | O_CLOEXEC);
}
