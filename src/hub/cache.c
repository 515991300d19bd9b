/* Owns the cache on disk, in the Python client's layout:
 *
 *   models--ORG--NAME/blobs/HASH                       the content, once it is proved
 *                     blobs/HASH.a5e1e700.incomplete   what of it is here (its .journal: journal.c)
 *                     snapshots/COMMIT/PATH            -> ../../blobs/HASH, or a copy
 *                     refs/REVISION                    the commit
 *                     trees/COMMIT.json                the list of files, if the Python client kept it
 *   .locks/models--ORG--NAME/HASH.lock                 flock(2): who has it may write HASH
 *
 * A snapshot's link that does not name the announced hash is put anew. What is written goes aside and
 * is renamed. Any thread. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "hub/hub_private.h"

enum { MAX_DEPTH = 8, COPY_BYTES = 1 << 20 };

/* The Python client's unfinished files have eight hex digits of chance here; ours are found again. */
#define PARTIAL ".a5e1e700.incomplete"

int hub_os_error(ash_err *err, const char *verb, const char *path)
{
    int e = errno;
    int code = e == ENOENT || e == ENOTDIR                ? ASH_ENOENT
               : e == ENOSPC || e == EDQUOT || e == EFBIG ? ASH_ENOSPC
               : e == ENOMEM                              ? ASH_ENOMEM
                                                          : ASH_EIO;
    return ash_err_set(err, code, "cannot %s '%.300s': %s", verb, path, strerror(e));
}

int hub_path(char out[HUB_PATH], ash_err *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out, HUB_PATH, fmt, ap);
    va_end(ap);
    return n >= 0 && n < HUB_PATH
               ? 0
               : ash_err_set(err, ASH_ELIMIT, "a path of the cache is too long: %.200s", out);
}

int hub_cache_repo(const ash_hub *h, const char *repo, char out[HUB_PATH], ash_err *err)
{
    const char *slash = strchr(repo, '/');
    if (!slash) return hub_path(out, err, "%s/models--%s", h->cache_dir, repo);
    return hub_path(out, err, "%s/models--%.*s--%s", h->cache_dir, (int)(slash - repo), repo,
                    slash + 1);
}

const char *hub_blob_name(const ash_hub_file *f)
{
    return f->sha256 ? f->sha256 : f->git;
}

int hub_cache_file(const ash_hub *h, const ash_hub_tree *t, const ash_hub_file *f, int which,
                   char out[HUB_PATH], ash_err *err)
{
    static const char *const ends[] = {"", PARTIAL, PARTIAL ".journal"};
    char repo[HUB_PATH];
    int rc = hub_cache_repo(h, t->repo, repo, err);
    return rc ? rc : hub_path(out, err, "%s/blobs/%s%s", repo, hub_blob_name(f), ends[which]);
}

static int snapshot_file(const ash_hub *h, const ash_hub_tree *t, const ash_hub_file *f,
                         char out[HUB_PATH], ash_err *err)
{
    char repo[HUB_PATH];
    int rc = hub_cache_repo(h, t->repo, repo, err);
    return rc ? rc : hub_path(out, err, "%s/snapshots/%s/%s", repo, t->commit, f->path);
}

/* ---- what is here ---- */

static bool is_whole(const char *path, uint64_t size)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size == size;
}

/* The last part of where a link leads; "" if path is none. */
static void link_name(const char *path, char out[256])
{
    char target[HUB_PATH];
    ssize_t n = readlink(path, target, sizeof target - 1);
    out[0] = 0;
    if (n <= 0) return;
    target[n] = 0;
    const char *slash = strrchr(target, '/'), *name = slash ? slash + 1 : target;
    if (strlen(name) < 256) memcpy(out, name, strlen(name) + 1);
}

bool hub_cache_linked(const ash_hub *h, const ash_hub_tree *t, const ash_hub_file *f)
{
    char path[HUB_PATH], name[256];
    const char *blob = hub_blob_name(f);
    if (snapshot_file(h, t, f, path, NULL) || !is_whole(path, f->size)) return false;
    link_name(path, name);
    return !*name || !blob || !strcmp(name, blob);
}

bool hub_cache_blob(const ash_hub *h, const ash_hub_tree *t, const ash_hub_file *f)
{
    char path[HUB_PATH];
    return hub_blob_name(f) && !hub_cache_file(h, t, f, HUB_BLOB, path, NULL) &&
           is_whole(path, f->size);
}

int hub_cache_peek(const ash_hub *h, const ash_hub_tree *t, const ash_hub_file *f, uint64_t offset,
                   size_t n, ash_buf *out, ash_err *err)
{
    char path[HUB_PATH];
    int rc = hub_cache_blob(h, t, f) ? hub_cache_file(h, t, f, HUB_BLOB, path, err)
                                     : snapshot_file(h, t, f, path, err);
    if (rc) return rc;
    char *to = ash_buf_reserve(out, n);
    int fd = to ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (!to) return ash_buf_check(out, f->path, err);
    if (fd < 0) return hub_os_error(err, "open", path);
    for (size_t got = 0; got < n && !rc;) {
        ssize_t r = pread(fd, to + got, n - got, (off_t)(offset + got));
        if (r < 0 && errno == EINTR) continue;
        if (r <= 0)
            rc = r ? hub_os_error(err, "read", path)
                   : ash_err_set(err, ASH_EFORMAT, "'%s' is cut", path);
        got += r > 0 ? (size_t)r : 0;
    }
    if (!rc) out->len += n;
    close(fd);
    return rc;
}

bool hub_cache_commit(const ash_hub *h, const char *repo, const char *revision,
                      char out[HUB_COMMIT + 1])
{
    char dir[HUB_PATH], path[HUB_PATH];
    ash_buf ref = {0};
    if (hub_cache_repo(h, repo, dir, NULL)) return false;
    bool ok =
        !hub_path(path, NULL, "%s/refs/%s", dir, revision) && !ash_fs_read(path, 64, &ref, NULL);
    const char *commit = ok ? ash_buf_cstr(&ref) : revision;
    ok = strspn(commit, "0123456789abcdef") == HUB_COMMIT &&
         !commit[HUB_COMMIT + strspn(commit + HUB_COMMIT, "\r\n ")];
    if (ok) {
        memcpy(out, commit, HUB_COMMIT);
        out[HUB_COMMIT] = 0;
        ok = !hub_path(path, NULL, "%s/snapshots/%s", dir, out) && ash_fs_is_dir(path);
    }
    ash_buf_release(&ref);
    return ok;
}

static int walk(hub_list *l, const char *dir, const char *rel, int depth, ash_err *err)
{
    char path[HUB_PATH], next[HUB_PATH], name[256];
    struct stat st;
    int rc = hub_path(path, err, "%s/%s", dir, rel);
    DIR *d = rc ? NULL : opendir(path);
    for (struct dirent *e; d && !rc && (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        rc = hub_path(next, err, "%s%s%s", rel, *rel ? "/" : "", e->d_name);
        if (!rc) rc = hub_path(path, err, "%s/%s", dir, next);
        if (rc || stat(path, &st)) continue; /* a link to nothing is no file */
        if (S_ISDIR(st.st_mode) && depth < MAX_DEPTH) rc = walk(l, dir, next, depth + 1, err);
        if (!S_ISREG(st.st_mode)) continue;
        link_name(path, name);
        rc = hub_list_add(l, next, (uint64_t)st.st_size, hub_hex(name, 64) ? name : NULL,
                          hub_hex(name, 40) ? name : NULL, err);
    }
    if (d) closedir(d);
    return rc;
}

int hub_cache_walk(const ash_hub *h, hub_list *l, ash_err *err)
{
    char repo[HUB_PATH], dir[HUB_PATH];
    int rc = hub_cache_repo(h, l->tree.repo, repo, err);
    if (!rc) rc = hub_path(dir, err, "%s/snapshots/%s", repo, l->tree.commit);
    return rc ? rc : walk(l, dir, "", 0, err);
}

/* ---- writing ---- */

/* mkdir -p with the user's umask: caches are shared by groups, as the Python client has it. `path`
 * ends before the name of a file if `file`. */
static int make_folders(const char *path, bool file, ash_err *err)
{
    char part[HUB_PATH];
    size_t n = strlen(path);
    if (n >= sizeof part) return ash_err_set(err, ASH_ELIMIT, "a path of the cache is too long");
    memcpy(part, path, n + 1);
    char *last = file ? strrchr(part, '/') : NULL;
    if (last) *last = 0;
    if (ash_fs_is_dir(part)) return 0;
    for (char *s = part + 1;; s++) {
        if (*s && *s != '/') continue;
        char c = *s;
        *s = 0;
        if (mkdir(part, 0777) && errno != EEXIST)
            return hub_os_error(err, "create the folder", part);
        *s = c;
        if (!c) return 0;
    }
}

int hub_sync_folder(const char *file, ash_err *err)
{
    char dir[HUB_PATH];
    int rc = hub_path(dir, err, "%s", file);
    if (rc) return rc;
    char *slash = strrchr(dir, '/');
    if (slash) *slash = 0;
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd)) rc = hub_os_error(err, "sync the folder", dir);
    if (fd >= 0) close(fd);
    return rc;
}

int hub_cache_prepare(const ash_hub *h, const ash_hub_tree *t, ash_err *err)
{
    static const char tag[] =
        "Signature: 8a477f597d28d172789f06886806bc55\n"
        "# This file is a cache directory tag created by ashley.\n"
        "# For information about cache directory tags, see https://bford.info/cachedir/\n";
    char repo[HUB_PATH], path[HUB_PATH];
    int rc = hub_cache_repo(h, t->repo, repo, err);
    if (!rc) rc = hub_path(path, err, "%s/blobs", repo);
    if (!rc) rc = make_folders(path, false, err);
    if (!rc) rc = hub_path(path, err, "%s/snapshots/%s", repo, t->commit);
    if (!rc) rc = make_folders(path, false, err);
    if (!rc) rc = hub_path(path, err, "%s/.locks/%s", h->cache_dir, strrchr(repo, '/') + 1);
    if (!rc) rc = make_folders(path, false, err);
    if (!rc) rc = hub_path(path, err, "%s/CACHEDIR.TAG", h->cache_dir);
    if (rc) return rc;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) return 0; /* there, or no loss */
    ssize_t n = write(fd, tag, sizeof tag - 1);
    close(fd);
    if (n < 0) unlink(path);
    return 0;
}

int hub_cache_lock(const ash_hub *h, const ash_hub_tree *t, const ash_hub_file *f, int *fd,
                   ash_err *err)
{
    char repo[HUB_PATH], path[HUB_PATH];
    struct stat held, named;
    int rc = hub_cache_repo(h, t->repo, repo, err);
    if (!rc)
        rc = hub_path(path, err, "%s/.locks/%s/%s.lock", h->cache_dir, strrchr(repo, '/') + 1,
                      hub_blob_name(f));
    if (rc) return rc;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0664);
    if (*fd < 0) return hub_os_error(err, "open the lock", path);
    bool free = !flock(*fd, LOCK_EX | LOCK_NB);
    int e = errno;
    /* Whoever had it may have removed the file: then the lock is on one that nobody else will open.
     */
    if (free && !fstat(*fd, &held) && !stat(path, &named) && held.st_ino == named.st_ino &&
        held.st_dev == named.st_dev)
        return 0;
    close(*fd);
    *fd = -1;
    if (free || e == EWOULDBLOCK || e == EINTR) return ASH_EAGAIN;
    errno = e;
    return hub_os_error(err, "lock", path);
}

static int copy_bytes(int from, int to)
{
    char *buf = malloc(COPY_BYTES);
    ssize_t n = buf ? 1 : -1;
    while (n > 0 && (n = read(from, buf, COPY_BYTES)) != 0) {
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n > 0)
            for (ssize_t at = 0, w; at < n; at += w)
                if ((w = write(to, buf + at, (size_t)(n - at))) < 0) {
                    n = -1;
                    break;
                }
    }
    free(buf);
    return n < 0 || fsync(to) ? -1 : 0;
}

/* Where links are refused (FAT, some network file systems): a copy, aside and renamed. */
static int link_by_copy(const char *blob, const char *path, const char *aside, ash_err *err)
{
    int from = open(blob, O_RDONLY | O_CLOEXEC);
    int to = from < 0 ? -1 : open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int rc = from < 0 || to < 0 || copy_bytes(from, to) || rename(aside, path)
                 ? hub_os_error(err, "copy a file of the cache to", path)
                 : 0;
    if (rc && to >= 0) unlink(aside);
    if (from >= 0) close(from);
    if (to >= 0) close(to);
    return rc;
}

int hub_cache_link(const ash_hub *h, const ash_hub_tree *t, const ash_hub_file *f, ash_err *err)
{
    char path[HUB_PATH], aside[HUB_PATH], blob[HUB_PATH], target[HUB_PATH] = "../../";
    if (hub_cache_linked(h, t, f)) return 0;
    int rc = snapshot_file(h, t, f, path, err);
    if (!rc) rc = make_folders(path, true, err);
    if (!rc) rc = hub_cache_file(h, t, f, HUB_BLOB, blob, err);
    if (!rc) rc = hub_path(aside, err, "%s.%ld.tmp", blob, (long)getpid());
    if (rc) return rc;
    size_t n = strlen(target);
    for (const char *p = f->path; *p; p++)
        if (*p == '/' && n + 3 < sizeof target) memcpy(target + n, "../", 3), n += 3;
    int more = snprintf(target + n, sizeof target - n, "blobs/%s", hub_blob_name(f));
    if (more >= (int)(sizeof target - n))
        return ash_err_set(err, ASH_ELIMIT, "a path of the cache is too long");
    int failed = symlink(target, path) ? errno : 0;
    if (failed == EEXIST) { /* one that leads elsewhere, or a damaged copy */
        unlink(aside);
        failed = symlink(target, aside) || rename(aside, path) ? errno : 0;
    }
    if (failed == EPERM || failed == EOPNOTSUPP || failed == ENOSYS)
        rc = link_by_copy(blob, path, aside, err);
    else if (failed) {
        errno = failed;
        rc = hub_os_error(err, "put a link at", path);
    }
    return rc ? rc : hub_sync_folder(path, err);
}

/* Aside and renamed, readable as the umask says: caches are shared. */
static int write_commit(const char *path, const char *aside, const char *commit, ash_err *err)
{
    int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    bool ok = fd >= 0 && write(fd, commit, HUB_COMMIT) == HUB_COMMIT && !fsync(fd);
    int rc = !ok || rename(aside, path) ? hub_os_error(err, "write", path) : 0;
    if (fd >= 0) close(fd);
    return rc ? rc : hub_sync_folder(path, err);
}

int hub_cache_ref(const ash_hub *h, const ash_hub_tree *t, ash_err *err)
{
    char repo[HUB_PATH], path[HUB_PATH];
    ash_buf old = {0};
    if (!strcmp(t->revision, t->commit)) return 0;
    int rc = hub_cache_repo(h, t->repo, repo, err);
    if (!rc) rc = hub_path(path, err, "%s/refs/%s", repo, t->revision);
    if (rc) return rc;
    bool same = !ash_fs_read(path, 64, &old, NULL) && old.len == HUB_COMMIT &&
                !memcmp(old.data, t->commit, HUB_COMMIT);
    ash_buf_release(&old);
    if (same) return 0;
    char aside[HUB_PATH];
    rc = make_folders(path, true, err);
    if (!rc) rc = hub_path(aside, err, "%s/blobs/ref.%ld.tmp", repo, (long)getpid());
    return rc ? rc : write_commit(path, aside, t->commit, err);
}
