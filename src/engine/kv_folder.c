/* Owns nothing but names. Refuses nothing that it finds: strange files are left alone. */
#include "engine/kv_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fs.h"

enum { SHARE = 4, FREE_SHARE = 8 };
#define RESERVE (4ull << 30)

int ash_kv_folder_open(const char *state_dir, char **out, ash_err *err)
{
    *out = ash_fs_join(state_dir, "kv");
    if (!*out)
        return ash_err_nomem(err, "path of the KV folder");
    int rc = ash_fs_mkdirs(*out, err);
    if (rc) {
        free(*out);
        *out = NULL;
    }
    return rc;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && !strcmp(name + n - m, end);
}

static bool is_left_over(const char *name)
{
    return strstr(name, ".kv.tmp.") != NULL;
}

static bool is_ours(const char *name)
{
    return ends_with(name, ".kv") || ends_with(name, ".slots") || is_left_over(name);
}

/* Whether nobody holds the file's lock. Then it is deleted if that is wanted, before the lock is given back:
 * who has just made it and waits for the lock finds that it has no name any more (kv_file.c). */
static bool is_unused(int dir, const char *name, bool unlinked)
{
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool unused = fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB);
    if (unused && unlinked)
        unused = !unlinkat(dir, name, 0);
    if (fd >= 0)
        close(fd);
    return unused;
}

typedef struct found {
    uint64_t bytes; /* of all files of ours; of slots also those that are not written yet */
    uint64_t held;  /* on the disk */
    char oldest[256];
    int64_t oldest_ns; /* INT64_MAX: there is none that may go */
} found;

static int64_t ns_of(struct timespec t)
{
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* Looks through the folder; `clean` deletes left-overs on the way. Names that end with may_go may go. */
static int look(const char *path, bool clean, const char *may_go, found *out, ash_err *err)
{
    *out = (found){.oldest_ns = INT64_MAX};
    DIR *d = opendir(path);
    if (!d)
        return ash_err_set(err, ASH_EIO, "cannot read the folder '%s': %s", path, strerror(errno));
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        if (!is_ours(e->d_name) || strlen(e->d_name) >= sizeof out->oldest ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
            continue;
        if (clean && is_left_over(e->d_name) && is_unused(dirfd(d), e->d_name, true))
            continue;
        uint64_t held = (uint64_t)st.st_blocks * 512, size = (uint64_t)st.st_size;
        out->held += held;
        out->bytes += ends_with(e->d_name, ".slots") && size > held ? size : held;
        int64_t at = ns_of(st.st_mtim);
        if (clean && at < out->oldest_ns && ends_with(e->d_name, may_go) &&
            !is_left_over(e->d_name) && is_unused(dirfd(d), e->d_name, false)) {
            out->oldest_ns = at;
            memcpy(out->oldest, e->d_name, strlen(e->d_name) + 1); /* its length was checked */
        }
    }
    closedir(d);
    return 0;
}

uint64_t ash_kv_folder_share(const char *dir, uint64_t disk_budget)
{
    found f;
    struct statvfs fs;
    if (disk_budget)
        return disk_budget / SHARE;
    if (look(dir, false, "", &f, NULL) || statvfs(dir, &fs))
        return 0;
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    return ((room > RESERVE ? room - RESERVE : 0) + f.held) / FREE_SHARE;
}

int ash_kv_folder_make_room(const char *dir, uint64_t share, uint64_t bytes, bool slots_only,
                            ash_err *err)
{
    for (;;) {
        found f;
        int rc = bytes > share ? ASH_ENOSPC : look(dir, true, slots_only ? ".slots" : "", &f, err);
        if (rc == ASH_ENOSPC || (!rc && f.bytes > share - bytes && f.oldest_ns == INT64_MAX))
            return ash_err_set(err, ASH_ENOSPC, "%llu bytes of keys and values do not fit into %llu",
                               (unsigned long long)bytes, (unsigned long long)share);
        if (rc || f.bytes <= share - bytes)
            return rc;
        char *path = ash_fs_join(dir, f.oldest);
        if (!path)
            return ash_err_nomem(err, "path of a KV file");
        if (unlink(path) && errno != ENOENT)
            rc = ash_err_set(err, ASH_EIO, "cannot delete '%s': %s", path, strerror(errno));
        free(path);
        if (rc)
            return rc;
    }
}
