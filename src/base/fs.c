/* Owns file access that several parts need. Refuses what is not a regular file where a file is
 * meant. Any thread. */
#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int os_error(ash_err *err, const char *verb, const char *path)
{
    int e = errno;
    int code = e == ENOENT || e == ENOTDIR ? ASH_ENOENT
               : e == ENOMEM               ? ASH_ENOMEM
               : e == ENOSPC || e == EDQUOT ? ASH_ENOSPC
                                           : ASH_EIO;
    return ash_err_set(err, code, "cannot %s '%s': %s", verb, path, strerror(e));
}

/* Opens a regular file; a FIFO or device is refused instead of waited for. */
static int open_regular(const char *path, int *fd, uint64_t *size, ash_err *err)
{
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return os_error(err, "open", path);
    if (fstat(*fd, &st) != 0) {
        int rc = os_error(err, "stat", path);
        close(*fd);
        return rc;
    }
    if (!S_ISREG(st.st_mode)) {
        close(*fd);
        return ash_err_set(err, ASH_EINVAL, "'%s' is not a regular file", path);
    }
    *size = (uint64_t)st.st_size;
    return 0;
}

int ash_fs_read(const char *path, size_t max, ash_buf *out, ash_err *err)
{
    int fd;
    uint64_t size;
    ash_buf_init(out, max);
    int rc = open_regular(path, &fd, &size, err);
    if (rc)
        return rc;
    if (size > max) {
        close(fd);
        return ash_err_set(err, ASH_ELIMIT, "'%s' has %llu bytes; at most %zu are read", path,
                           (unsigned long long)size, max);
    }
    for (;;) {
        size_t room = out->max - out->len < 65536 ? out->max - out->len : 65536;
        char extra, *to = room ? ash_buf_reserve(out, room) : &extra;
        if (!to) {
            rc = ash_buf_check(out, path, err);
            break;
        }
        ssize_t n = read(fd, to, room ? room : 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = os_error(err, "read", path);
        else if (n > 0 && !room)
            rc = ash_err_set(err, ASH_ELIMIT, "'%s' grew past %zu bytes", path, max);
        if (n <= 0 || rc)
            break;
        out->len += (size_t)n;
        out->data[out->len] = 0;
    }
    close(fd);
    return rc;
}

int ash_fs_map(const char *path, ash_map *out, ash_err *err)
{
    *out = (ash_map){.fd = -1};
    int fd;
    uint64_t size;
    int rc = open_regular(path, &fd, &size, err);
    if (rc)
        return rc;
    if (size > SIZE_MAX / 2) {
        close(fd);
        return ash_err_set(err, ASH_ELIMIT, "'%s' is too large to map", path);
    }
    void *p = NULL;
    if (size) {
        p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            rc = os_error(err, "map", path);
            close(fd);
            return rc;
        }
    }
    *out = (ash_map){.data = p, .size = size, .fd = fd};
    return 0;
}

void ash_fs_unmap(ash_map *m)
{
    if (m->data)
        munmap((void *)m->data, m->size);
    if (m->data || m->fd > 0)
        close(m->fd);
    *m = (ash_map){.fd = -1};
}

static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return -1;
        p += w;
        n -= (size_t)w;
    }
    return fsync(fd);
}

static int sync_folder(const char *path)
{
    char *dir = strdup(path);
    if (!dir)
        return -1;
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = 0;
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 ? -1 : fsync(fd);
    if (fd >= 0)
        close(fd);
    free(dir);
    return rc;
}

int ash_fs_replace(const char *path, const void *p, size_t n, ash_err *err)
{
    size_t len = strlen(path);
    char *tmp = malloc(len + 16);
    if (!tmp)
        return ash_err_nomem(err, path);
    snprintf(tmp, len + 16, "%s.tmp.XXXXXX", path);
    int rc = 0, fd = mkostemp(tmp, O_CLOEXEC);
    if (fd < 0) {
        rc = os_error(err, "create a file beside", path);
        free(tmp);
        return rc;
    }
    if (write_all(fd, p, n) || fchmod(fd, 0600))
        rc = os_error(err, "write", path);
    close(fd);
    if (!rc && rename(tmp, path))
        rc = os_error(err, "rename over", path);
    if (rc)
        unlink(tmp);
    else if (sync_folder(path))
        rc = os_error(err, "sync the folder of", path);
    free(tmp);
    return rc;
}

int ash_fs_mkdirs(const char *path, ash_err *err)
{
    char *p = strdup(path);
    if (!p)
        return ash_err_nomem(err, path);
    int rc = 0;
    for (char *s = p + 1; !rc; s++) {
        if (*s && *s != '/')
            continue;
        char c = *s;
        *s = 0;
        if (mkdir(p, 0700) && errno != EEXIST)
            rc = os_error(err, "create the folder", p);
        *s = c;
        if (!c)
            break;
    }
    free(p);
    if (!rc && !ash_fs_is_dir(path))
        rc = ash_err_set(err, ASH_EINVAL, "'%s' is not a folder", path);
    return rc;
}

bool ash_fs_is_ours(const struct stat *st)
{
    return st->st_uid == geteuid() || st->st_uid == 0;
}

bool ash_fs_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool ash_fs_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *ash_fs_join(const char *dir, const char *name)
{
    if (name[0] == '/' || !dir[0])
        return strdup(name);
    size_t n = strlen(dir), m = strlen(name);
    char *p = malloc(n + m + 2);
    if (!p)
        return NULL;
    memcpy(p, dir, n);
    if (dir[n - 1] != '/')
        p[n++] = '/';
    memcpy(p + n, name, m + 1);
    return p;
}
