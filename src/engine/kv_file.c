/* Owns the layout of prompt files. Refuses every file that is not exactly what was asked for. */
#include "engine/kv_file.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/fs.h"
#include "base/limits.h"

enum { FIXED = 64, ALIGN = 4096, VERSION = 1 };
static const char magic[8] = "ASHLEYKV";

static int os_error(ash_err *err, const char *what, const char *path)
{
    int code = errno == ENOSPC || errno == EDQUOT ? ASH_ENOSPC : errno == ENOENT ? ASH_ENOENT : ASH_EIO;
    return ash_err_set(err, code, "cannot %s '%s': %s", what, path, strerror(errno));
}

/* ---- the head ------------------------------------------------------------------------------- */

size_t ash_kv_head_blocks(const ash_kv_head *h)
{
    return (h->n_ids + h->block_tokens - 1) / h->block_tokens;
}

/* Where the checksums begin: all before is known without the blocks. */
static size_t sums_at(const ash_kv_head *h)
{
    return (FIXED + 4 * h->n_ids + 7) / 8 * 8;
}

/* Bytes up to the blocks, the filling not counted. */
static size_t head_bytes(const ash_kv_head *h)
{
    return sums_at(h) + 8 * (ash_kv_head_blocks(h) + 1);
}

static uint64_t blocks_at(const ash_kv_head *h)
{
    return (head_bytes(h) + ALIGN - 1) / ALIGN * ALIGN;
}

uint64_t ash_kv_head_bytes(const ash_kv_head *h)
{
    if (h->n_ids < 1 || h->n_ids > ASH_MAX_KV_FILE_IDS || h->block_tokens < 1 || h->block_bytes < 1 ||
        h->block_bytes > INT64_MAX / 2 / ash_kv_head_blocks(h))
        return 0;
    return blocks_at(h) + ash_kv_head_blocks(h) * h->block_bytes;
}

static void put(uint8_t *at, uint64_t v, size_t bytes)
{
    v = htole64(v);
    memcpy(at, &v, bytes);
}

static uint64_t get(const uint8_t *at)
{
    uint64_t v;
    memcpy(&v, at, sizeof v);
    return le64toh(v);
}

/* The head up to the checksums, in head_bytes(h) zeroed bytes; NULL without memory. */
static uint8_t *make_head(const ash_kv_head *h)
{
    uint8_t *p = calloc(1, head_bytes(h));
    if (!p)
        return NULL;
    memcpy(p, magic, sizeof magic);
    put(p + 8, VERSION, 4);
    put(p + 12, h->block_tokens, 4);
    memcpy(p + 16, h->key, ASH_KV_KEY);
    put(p + 48, h->block_bytes, 8);
    put(p + 56, h->n_ids, 8);
    for (size_t i = 0; i < h->n_ids; i++) put(p + FIXED + 4 * i, (uint32_t)h->ids[i], 4);
    return p;
}

/* ---- writing -------------------------------------------------------------------------------- */

static int write_at(int fd, const void *data, uint64_t n, uint64_t at)
{
    const uint8_t *p = data;
    while (n) {
        ssize_t w = pwrite(fd, p, n, (off_t)at);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return -1;
        p += w;
        n -= (uint64_t)w;
        at += (uint64_t)w;
    }
    return 0;
}

static int write_all(int fd, const char *path, const ash_kv_head *h, const void *const *blocks,
                     const atomic_bool *stop, ash_err *err)
{
    size_t n = ash_kv_head_blocks(h), end = head_bytes(h) - 8;
    uint8_t *head = make_head(h);
    int rc = head ? 0 : ash_err_nomem(err, "head of a KV file");
    for (size_t i = 0; !rc && i < n; i++) {
        put(head + sums_at(h) + 8 * i, ash_checksum(blocks[i], h->block_bytes), 8);
        if (stop && atomic_load_explicit(stop, memory_order_relaxed))
            rc = ash_err_set(err, ASH_ECANCELED, "writing '%s' was stopped", path);
        else if (write_at(fd, blocks[i], h->block_bytes, blocks_at(h) + i * h->block_bytes))
            rc = os_error(err, "write", path);
    }
    if (!rc) {
        put(head + end, ash_checksum(head, end), 8);
        if (write_at(fd, head, head_bytes(h), 0) || fsync(fd))
            rc = os_error(err, "write", path);
    }
    free(head);
    return rc;
}

static int sync_folder(const char *path)
{
    char *dir = strdup(path), *slash = dir ? strrchr(dir, '/') : NULL;
    if (slash)
        slash[slash == dir] = 0;
    int fd = dir ? open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int rc = fd < 0 ? -1 : fsync(fd);
    if (fd >= 0)
        close(fd);
    free(dir);
    return rc;
}

/* A new file beside `path`, locked, and its name (owned). Who makes room takes files without a lock for
 * left-overs: what he deleted before it was locked is made once more. */
static int open_aside(const char *path, char **tmp, int *fd, ash_err *err)
{
    size_t len = strlen(path) + 16;
    struct stat st = {0};
    if (!(*tmp = malloc(len)))
        return ash_err_nomem(err, path);
    do {
        snprintf(*tmp, len, "%s.tmp.XXXXXX", path);
        if ((*fd = mkostemp(*tmp, O_CLOEXEC)) < 0)
            break;
        while (flock(*fd, LOCK_EX) && errno == EINTR) continue;
        if (fstat(*fd, &st) || st.st_nlink)
            return 0;
        close(*fd);
    } while (true);
    int rc = os_error(err, "create a file beside", path);
    free(*tmp);
    return rc;
}

int ash_kv_file_write(const char *path, const ash_kv_head *h, const void *const *blocks,
                      const atomic_bool *stop, ash_err *err)
{
    if (!ash_kv_head_bytes(h))
        return ash_err_set(err, ASH_ELIMIT, "no KV file holds %zu tokens in blocks of %llu bytes", h->n_ids,
                           (unsigned long long)h->block_bytes);
    char *tmp;
    int fd = -1, rc = open_aside(path, &tmp, &fd, err);
    if (rc)
        return rc;
    rc = write_all(fd, path, h, blocks, stop, err);
    if (!rc && rename(tmp, path))
        rc = os_error(err, "rename over", path);
    if (rc)
        unlink(tmp);
    else if (sync_folder(path))
        rc = os_error(err, "sync the folder of", path);
    close(fd);
    free(tmp);
    return rc;
}

/* ---- reading -------------------------------------------------------------------------------- */

/* Bytes read up to n, or -1. */
static int64_t read_at(int fd, void *to, uint64_t n, uint64_t at)
{
    uint64_t done = 0;
    while (done < n) {
        ssize_t r = pread(fd, (uint8_t *)to + done, n - done, (off_t)(at + done));
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -1;
        if (!r)
            break;
        done += (uint64_t)r;
    }
    return (int64_t)done;
}

static int check_head(int fd, const char *path, const ash_kv_head *h, uint64_t *sums, ash_err *err)
{
    size_t n = head_bytes(h), end = n - 8, fixed = sums_at(h);
    struct stat st;
    uint8_t *want = make_head(h), *got = malloc(n);
    int rc = want && got ? 0 : ash_err_nomem(err, "head of a KV file");
    if (!rc && (fstat(fd, &st) || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != ash_kv_head_bytes(h)))
        rc = ash_err_set(err, ASH_EFORMAT, "'%s' is no file of %llu bytes", path,
                         (unsigned long long)ash_kv_head_bytes(h));
    if (!rc && !ash_fs_is_ours(&st))
        rc = ash_err_set(err, ASH_EFORMAT, "'%s' belongs to another user", path);
    if (!rc && read_at(fd, got, n, 0) != (int64_t)n)
        rc = ash_err_set(err, ASH_EFORMAT, "'%s' cannot be read to the end of its head", path);
    if (!rc && memcmp(want, got, fixed))
        rc = ash_err_set(err, ASH_EFORMAT, "'%s' is of another version, model or prompt", path);
    if (!rc && get(got + end) != ash_checksum(got, end))
        rc = ash_err_set(err, ASH_EFORMAT, "the head of '%s' has been changed", path);
    for (size_t i = 0; !rc && i < ash_kv_head_blocks(h); i++) sums[i] = get(got + fixed + 8 * i);
    free(want);
    free(got);
    return rc;
}

int ash_kv_file_open(const char *path, const ash_kv_head *h, ash_kv_file *out, ash_err *err)
{
    *out = (ash_kv_file){.fd = -1};
    if (!ash_kv_head_bytes(h))
        return ash_err_set(err, ASH_ELIMIT, "no KV file holds %zu tokens", h->n_ids);
    *out = (ash_kv_file){.fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK),
                         .block_bytes = h->block_bytes,
                         .at = blocks_at(h),
                         .n_blocks = ash_kv_head_blocks(h)};
    if (out->fd < 0)
        return os_error(err, "open", path);
    out->sums = malloc(out->n_blocks * sizeof *out->sums);
    int rc = out->sums ? check_head(out->fd, path, h, out->sums, err) : ash_err_nomem(err, "KV file");
    if (rc)
        ash_kv_file_close(out);
    else
        futimens(out->fd, NULL); /* refused on a disk that is read-only: then it ages */
    return rc;
}

int ash_kv_file_read(const ash_kv_file *f, size_t i, void *to, ash_err *err)
{
    if (read_at(f->fd, to, f->block_bytes, f->at + i * f->block_bytes) != (int64_t)f->block_bytes)
        return ash_err_set(err, ASH_EIO, "block %zu of a KV file cannot be read", i);
    if (ash_checksum(to, f->block_bytes) != f->sums[i])
        return ash_err_set(err, ASH_EFORMAT, "block %zu of a KV file has been changed", i);
    return 0;
}

void ash_kv_file_close(ash_kv_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    free(f->sums);
    *f = (ash_kv_file){.fd = -1};
}
