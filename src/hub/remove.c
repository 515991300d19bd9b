/* Owns taking models out of the hub cache. Refuses while a process fetches for the same repository.
 * Order and thread rule: hub/survey.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/limits.h"
#include "hub/survey_private.h"

typedef struct removing {
    int cache, repo; /* folders */
    int locks;       /* .locks, and */
    int repo_locks;  /* the repository's in it; -1: not there */
    const char *folder;
    const char *commit; /* NULL: all */
    ash_hub_wanted *wanted;
    void *user;
    bool dry;
    int *held; /* locks of this repository's files */
    size_t n_held;
    ash_hub_blobs blobs;
    ash_hub_removal *out;
    bool weights_left; /* in the snapshot, after the removal */
} removing;

static int os_error(ash_err *err, const char *what, const char *name)
{
    return ash_err_set(err, ASH_EIO, "cannot %s '%s': %s", what, name, strerror(errno));
}

static int open_dir(int at, const char *name)
{
    return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* ---- trees --------------------------------------------------------------------------------------
 */

/* All below, and the folder itself; links are removed, not followed. */
static int remove_tree(int at, const char *name, int depth, ash_err *err)
{
    ash_hub_names l;
    int fd = open_dir(at, name);
    if (fd < 0) return errno == ENOENT ? 0 : os_error(err, "open", name);
    int rc = ash_hub_list_dir(fd, ".", &l, err);
    for (size_t i = 0; i < l.n && !rc; i++) {
        struct stat st;
        if (fstatat(fd, l.v[i], &st, AT_SYMLINK_NOFOLLOW)) continue;
        if (!S_ISDIR(st.st_mode))
            rc = unlinkat(fd, l.v[i], 0) && errno != ENOENT ? os_error(err, "remove", l.v[i]) : 0;
        else if (depth < ASH_HUB_MAX_DEPTH + 4)
            rc = remove_tree(fd, l.v[i], depth + 1, err);
    }
    ash_hub_names_release(&l);
    close(fd);
    if (!rc && unlinkat(at, name, AT_REMOVEDIR) && errno != ENOENT)
        rc = os_error(err, "remove", name);
    return rc;
}

/* Renames `name` in `from` out of every reader's sight, into `to`, as one step; then removes it. */
static int remove_aside(int from, const char *name, int to, ash_err *err)
{
    char aside[320];
    snprintf(aside, sizeof aside, ASH_HUB_REMOVED "%ld-%.200s", (long)getpid(), name);
    int rc = remove_tree(to, aside, 0, err); /* of a process of the same number, long ago */
    if (rc) return rc;
    if (renameat(from, name, to, aside)) return errno == ENOENT ? 0 : os_error(err, "rename", name);
    fsync(from);
    fsync(to);
    return remove_tree(to, aside, 0, err);
}

static void clean_dir(int dir)
{
    ash_hub_names l;
    if (ash_hub_list_dir(dir, ".", &l, NULL)) return;
    for (size_t i = 0; i < l.n; i++)
        if (!strncmp(l.v[i], ASH_HUB_REMOVED, strlen(ASH_HUB_REMOVED)) &&
            remove_tree(dir, l.v[i], 0, NULL))
            continue; /* what is left is counted by the survey */
    ash_hub_names_release(&l);
}

void ash_hub_clean(const char *cache_dir)
{
    ash_hub_names l;
    int cache = open(cache_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cache < 0) return;
    if (!ash_hub_list_dir(cache, ".", &l, NULL)) {
        for (size_t i = 0; i < l.n; i++) {
            int fd = strncmp(l.v[i], "models--", 8) && strcmp(l.v[i], ".locks")
                         ? -1
                         : open_dir(cache, l.v[i]);
            if (fd < 0) continue;
            clean_dir(fd);
            close(fd);
        }
        ash_hub_names_release(&l);
    }
    close(cache);
}

/* ---- locks --------------------------------------------------------------------------------------
 */

/* Takes a lock file's lock and keeps it. ASH_EAGAIN: another process has it. */
static int take_lock(removing *r, const char *name, ash_err *err)
{
    int fd =
        openat(r->repo_locks, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (fd < 0) return os_error(err, "open", name);
    int *held =
        flock(fd, LOCK_EX | LOCK_NB) ? NULL : realloc(r->held, (r->n_held + 1) * sizeof *held);
    if (!held) {
        int code = errno;
        close(fd);
        return code == EWOULDBLOCK
                   ? ash_err_set(err, ASH_EAGAIN, "'%s' is being fetched by another process",
                                 r->folder)
                   : os_error(err, "lock", name);
    }
    r->held = held;
    held[r->n_held++] = fd;
    return 0;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n > m && !strcasecmp(s + n - m, end);
}

/* All locks of the repository that there are: no fetch runs, and none begins with one of these
 * files. */
static int take_locks(removing *r, ash_err *err)
{
    ash_hub_names l;
    if (r->repo_locks < 0) return 0;
    int rc = ash_hub_list_dir(r->repo_locks, ".", &l, err);
    for (size_t i = 0; i < l.n && !rc; i++)
        if (ends_with(l.v[i], ".lock")) rc = take_lock(r, l.v[i], err);
    ash_hub_names_release(&l);
    return rc;
}

/* Whether take_locks has that one. A lock file that came later is a fetch's. */
static bool holds(const removing *r, const char *name)
{
    struct stat want, have;
    if (fstatat(r->repo_locks, name, &want, AT_SYMLINK_NOFOLLOW)) return false;
    for (size_t i = 0; i < r->n_held; i++)
        if (!fstat(r->held[i], &have) && have.st_ino == want.st_ino && have.st_dev == want.st_dev)
            return true;
    return false;
}

static void drop_locks(removing *r)
{
    for (size_t i = 0; i < r->n_held; i++) close(r->held[i]);
    free(r->held);
}

/* ---- a snapshot ---------------------------------------------------------------------------------
 */

static bool is_weights(const char *name)
{
    static const char *const ends[] = {".gguf", ".safetensors", ".bin", ".pt", ".pth"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (ends_with(name, ends[i])) return true;
    return false;
}

static bool goes(const removing *r, const char *rel)
{
    return !r->wanted || r->wanted(r->user, rel);
}

static int look_for_weights(void *user, int dir, const char *name, const char *rel,
                            const struct stat *st, ash_err *err)
{
    removing *r = user;
    if (!goes(r, rel) && is_weights(name)) r->weights_left = true;
    return 0;
}

/* Counts a file that goes, and removes its name. */
static int remove_file(void *user, int dir, const char *name, const char *rel,
                       const struct stat *st, ash_err *err)
{
    removing *r = user;
    if (!goes(r, rel)) return 0;
    r->out->n_files++;
    if (S_ISREG(st->st_mode)) r->out->bytes += (uint64_t)st->st_blocks * 512;
    if (!r->dry && unlinkat(dir, name, 0) && errno != ENOENT) return os_error(err, "remove", rel);
    return 0;
}

/* refs/NAME that names the commit goes first: no name may lead to a snapshot that is not there. */
static int remove_ref(void *user, int dir, const char *name, const char *rel, const struct stat *st,
                      ash_err *err)
{
    const removing *r = user;
    char commit[41];
    if (!ash_hub_read_ref(dir, name, commit) || strcmp(commit, r->commit)) return 0;
    return unlinkat(dir, name, 0) && errno != ENOENT ? os_error(err, "remove", rel) : 0;
}

static int remove_snapshot(removing *r, ash_err *err)
{
    char name[64];
    int snapshots = open_dir(r->repo, "snapshots");
    if (snapshots < 0) return os_error(err, "open", "snapshots");
    int rc = ash_hub_walk(r->repo, "refs", "", 0, remove_ref, r, err);
    if (!rc) rc = remove_aside(snapshots, r->commit, r->repo, err);
    close(snapshots);
    const char *const kept[] = {"trees", ".no_exist"}; /* what was listed, and what is not in it */
    for (size_t i = 0; i < 2 && !rc; i++) {
        int fd = open_dir(r->repo, kept[i]);
        if (fd < 0) continue;
        snprintf(name, sizeof name, "%.40s%s", r->commit, i ? "" : ".json");
        if (i)
            rc = remove_tree(fd, name, 0, err);
        else
            unlinkat(fd, name, 0);
        close(fd);
    }
    return rc;
}

/* ---- blobs --------------------------------------------------------------------------------------
 */

static int mark_used(void *user, int dir, const char *name, const char *rel, const struct stat *st,
                     ash_err *err)
{
    const removing *r = user;
    const char *slash = strchr(rel, '/'); /* COMMIT/PATH */
    ash_hub_blob *b = ash_hub_blob_of(&r->blobs, dir, name);
    bool here = slash && (size_t)(slash - rel) == strlen(r->commit) &&
                !strncmp(rel, r->commit, slash - rel);
    if (b && !(here && (!r->weights_left || goes(r, slash + 1)))) b->used = true;
    return 0;
}

/* Blobs that no snapshot uses. A fetch holds its file's lock until the file is in a snapshot: each
 * is taken, and then looked at once more. */
static int remove_blobs(removing *r, ash_err *err)
{
    int blobs = open_dir(r->repo, "blobs");
    int rc = ash_hub_walk(r->repo, "snapshots", "", 0, mark_used, r, err);
    bool *mine = calloc(r->blobs.n + 1, sizeof *mine);
    if (!rc && !mine) rc = ash_err_nomem(err, "blobs");
    for (size_t i = 0; i < r->blobs.n && !rc; i++) {
        ash_hub_blob *b = &r->blobs.v[i];
        char lock[80];
        if (b->used || !b->whole) continue;
        snprintf(lock, sizeof lock, "%s.lock", b->name);
        mine[i] = r->dry || r->repo_locks < 0 || holds(r, lock) || !take_lock(r, lock, NULL);
    }
    if (!rc) rc = ash_hub_walk(r->repo, "snapshots", "", 0, mark_used, r, err);
    for (size_t i = 0; i < r->blobs.n && !rc; i++) {
        const ash_hub_blob *b = &r->blobs.v[i];
        if (!mine[i] || b->used) continue;
        if (!r->dry && unlinkat(blobs, b->name, 0) && errno != ENOENT)
            rc = os_error(err, "remove", b->name);
        r->out->n_blobs += !rc;
        r->out->bytes += rc ? 0 : b->bytes;
    }
    free(mine);
    if (blobs >= 0) close(blobs);
    return rc;
}

/* ---- a repository -------------------------------------------------------------------------------
 */

static int count_tree(void *user, int dir, const char *name, const char *rel, const struct stat *st,
                      ash_err *err)
{
    const removing *r = user;
    r->out->bytes += (uint64_t)st->st_blocks * 512;
    r->out->n_files += !strncmp(rel, "snapshots/", 10);
    r->out->n_blobs += !strncmp(rel, "blobs/", 6);
    return 0;
}

static int remove_repo(removing *r, ash_err *err)
{
    r->out->whole = true;
    int rc = ash_hub_walk(r->cache, r->folder, "", 0, count_tree, r, err);
    return rc || r->dry ? rc : remove_aside(r->cache, r->folder, r->locks, err);
}

/* What of one snapshot goes: a part, all of it, or with it the repository. */
static int remove_part(removing *r, ash_err *err)
{
    ash_hub_names snapshots;
    char at[64];
    snprintf(at, sizeof at, "snapshots/%.40s", r->commit);
    int fd = open_dir(r->repo, at);
    if (fd < 0)
        return ash_err_set(err, ASH_ENOENT, "'%s' has no snapshot %.40s", r->folder, r->commit);
    close(fd);
    int rc = ash_hub_list_dir(r->repo, "snapshots", &snapshots, err);
    size_t n = snapshots.n;
    if (rc) return rc;
    ash_hub_names_release(&snapshots);
    if (r->wanted) rc = ash_hub_walk(r->repo, at, "", 0, look_for_weights, r, err);
    if (rc || (!r->weights_left && n == 1)) return rc ? rc : remove_repo(r, err);
    if (!r->weights_left) r->wanted = NULL; /* the rest is of no use without them */
    rc = ash_hub_blobs_read(r->repo, &r->blobs, err);
    bool dry = r->dry;
    if (!r->weights_left) r->dry = true; /* its files are only counted: it goes as one */
    if (!rc) rc = ash_hub_walk(r->repo, at, "", 0, remove_file, r, err);
    r->dry = dry;
    if (!rc && !r->weights_left && !dry) rc = remove_snapshot(r, err);
    return rc ? rc : remove_blobs(r, err);
}

static int open_all(removing *r, const char *cache_dir, ash_err *err)
{
    r->cache = open(cache_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r->repo = r->cache >= 0 ? open_dir(r->cache, r->folder) : -1;
    if (r->repo < 0)
        return ash_err_set(err, ASH_ENOENT, "'%s' is not in '%s'", r->folder, cache_dir);
    if (!r->dry) {
        if (mkdirat(r->cache, ".locks", 0755) && errno != EEXIST)
            return os_error(err, "make", ".locks");
        r->locks = open_dir(r->cache, ".locks");
        if (r->locks < 0) return os_error(err, "open", ".locks");
    } else {
        r->locks = open_dir(r->cache, ".locks");
    }
    r->repo_locks = r->locks >= 0 ? open_dir(r->locks, r->folder) : -1;
    return take_locks(r, err);
}

int ash_hub_remove(const char *cache_dir, const char *repo, const char *commit,
                   ash_hub_wanted *wanted, void *user, bool dry, ash_hub_removal *out, ash_err *err)
{
    char folder[160];
    const char *slash = strchr(repo, '/');
    *out = (ash_hub_removal){0};
    int n = slash ? snprintf(folder, sizeof folder, "models--%.*s--%s", (int)(slash - repo), repo,
                             slash + 1)
                  : snprintf(folder, sizeof folder, "models--%s", repo);
    if (n >= (int)sizeof folder || strchr(folder, '/') || (commit && strlen(commit) != 40))
        return ash_err_set(err, ASH_EINVAL, "'%.120s' is no repository", repo);
    removing r = {.cache = -1,
                  .repo = -1,
                  .locks = -1,
                  .repo_locks = -1,
                  .folder = folder,
                  .commit = commit,
                  .wanted = wanted,
                  .user = user,
                  .dry = dry,
                  .out = out};
    int rc = open_all(&r, cache_dir, err);
    if (!rc) rc = commit ? remove_part(&r, err) : remove_repo(&r, err);
    drop_locks(&r);
    ash_hub_blobs_release(&r.blobs);
    const int fds[] = {r.repo_locks, r.locks, r.repo, r.cache};
    for (size_t i = 0; i < 4; i++)
        if (fds[i] >= 0) close(fds[i]);
    return rc;
}
