/* Owns the counting of what a hub cache holds. Refuses nothing but want of memory and folders of
 * absurd length: what cannot be read is not counted. Thread rule: see the header. */
#include "hub/survey.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/limits.h"
#include "hub/survey_private.h"

enum { MAX_SURVEY = 64 << 20 };

/* ---- folders ----------------------------------------------------------------------------------
 */

int ash_hub_list_dir(int at, const char *name, ash_hub_names *out, ash_err *err)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *e;
    int rc = 0;
    *out = (ash_hub_names){0};
    if (!d) {
        if (fd >= 0) close(fd);
        return 0;
    }
    while (!rc && (e = readdir(d))) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (out->n == ASH_MAX_FOLDER_ENTRIES)
            rc = ash_err_set(err, ASH_ELIMIT, "'%s' holds more than %d names", name,
                             ASH_MAX_FOLDER_ENTRIES);
        size_t cap = out->n ? 2 * out->n : 64;
        if (!rc && (out->n & (out->n - 1)) == 0 && (out->n >= 64 || !out->n)) {
            char **p = realloc(out->v, cap * sizeof *p);
            if (!p) rc = ash_err_nomem(err, name);
            out->v = p ? p : out->v;
        }
        if (!rc && !(out->v[out->n] = strdup(e->d_name))) rc = ash_err_nomem(err, name);
        out->n += !rc;
    }
    closedir(d);
    if (rc) ash_hub_names_release(out);
    return rc;
}

void ash_hub_names_release(ash_hub_names *l)
{
    for (size_t i = 0; i < l->n; i++) free(l->v[i]);
    free(l->v);
    *l = (ash_hub_names){0};
}

int ash_hub_walk(int at, const char *name, const char *rel, int depth, ash_hub_visit *fn,
                 void *user, ash_err *err)
{
    ash_hub_names l;
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return 0;
    int rc = ash_hub_list_dir(fd, ".", &l, err);
    for (size_t i = 0; i < l.n && !rc; i++) {
        char path[4096];
        struct stat st;
        int n = snprintf(path, sizeof path, "%s%s%s", rel, *rel ? "/" : "", l.v[i]);
        if (n >= (int)sizeof path || fstatat(fd, l.v[i], &st, AT_SYMLINK_NOFOLLOW)) continue;
        if (!S_ISDIR(st.st_mode))
            rc = fn(user, fd, l.v[i], path, &st, err);
        else if (depth < ASH_HUB_MAX_DEPTH)
            rc = ash_hub_walk(fd, l.v[i], path, depth + 1, fn, user, err);
    }
    ash_hub_names_release(&l);
    close(fd);
    return rc;
}

/* ---- blobs and who uses them --------------------------------------------------------------------
 */

static int by_inode(const void *a, const void *b)
{
    const ash_hub_blob *x = a, *y = b;
    return x->ino != y->ino ? (x->ino < y->ino ? -1 : 1) : x->dev < y->dev ? -1 : x->dev > y->dev;
}

static bool is_hash(const char *name)
{
    size_t n = strlen(name);
    return (n == 40 || n == 64) && strspn(name, "0123456789abcdef") == n;
}

int ash_hub_blobs_read(int repo, ash_hub_blobs *out, ash_err *err)
{
    ash_hub_names l;
    *out = (ash_hub_blobs){0};
    int rc = ash_hub_list_dir(repo, "blobs", &l, err);
    int fd = openat(repo, "blobs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (!rc && l.n && !(out->v = calloc(l.n, sizeof *out->v))) rc = ash_err_nomem(err, "blobs");
    for (size_t i = 0; i < l.n && !rc && fd >= 0; i++) {
        struct stat st;
        if (fstatat(fd, l.v[i], &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode)) continue;
        out->v[out->n++] = (ash_hub_blob){.name = l.v[i],
                                          .dev = st.st_dev,
                                          .ino = st.st_ino,
                                          .bytes = (uint64_t)st.st_blocks * 512,
                                          .mtime_s = st.st_mtim.tv_sec,
                                          .whole = is_hash(l.v[i])};
        l.v[i] = NULL; /* taken */
    }
    if (out->n) qsort(out->v, out->n, sizeof *out->v, by_inode);
    if (fd >= 0) close(fd);
    ash_hub_names_release(&l);
    if (rc) ash_hub_blobs_release(out);
    return rc;
}

void ash_hub_blobs_release(ash_hub_blobs *b)
{
    for (size_t i = 0; i < b->n; i++) free(b->v[i].name);
    free(b->v);
    *b = (ash_hub_blobs){0};
}

ash_hub_blob *ash_hub_blob_of(const ash_hub_blobs *b, int dir, const char *name)
{
    struct stat st;
    if (fstatat(dir, name, &st, 0) || !b->n) return NULL;
    ash_hub_blob key = {.dev = st.st_dev, .ino = st.st_ino};
    return bsearch(&key, b->v, b->n, sizeof *b->v, by_inode);
}

/* ---- a repository -------------------------------------------------------------------------------
 */

typedef struct counting {
    ash_hub_use *use;
    const ash_hub_blobs *blobs;
    ash_arena *arena;
    const ash_hub_names *snapshots; /* of the repository, for refs */
} counting;

static int count_file(void *user, int dir, const char *name, const char *rel, const struct stat *st,
                      ash_err *err)
{
    counting *c = user;
    struct stat to;
    ash_hub_blob *b = ash_hub_blob_of(c->blobs, dir, name);
    c->use->n_files++;
    if (b) b->used = true;
    if (S_ISREG(st->st_mode)) c->use->bytes += (uint64_t)st->st_blocks * 512;
    if (!S_ISLNK(st->st_mode) || !fstatat(dir, name, &to, 0)) return 0;
    if (!c->use->n_broken++ && !(c->use->broken = ash_arena_strdup(c->arena, rel)))
        return ash_err_nomem(err, "survey");
    return 0;
}

bool ash_hub_read_ref(int dir, const char *name, char commit[41])
{
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd >= 0 ? read(fd, commit, 40) : -1;
    if (fd >= 0) close(fd);
    commit[n > 0 ? n : 0] = 0;
    return n == 40 && strspn(commit, "0123456789abcdef") == 40;
}

static int count_ref(void *user, int dir, const char *name, const char *rel, const struct stat *st,
                     ash_err *err)
{
    const counting *c = user;
    char commit[41];
    bool found = false;
    bool ok = ash_hub_read_ref(dir, name, commit);
    for (size_t i = 0; ok && i < c->snapshots->n; i++) found |= !strcmp(c->snapshots->v[i], commit);
    c->use->n_lost_refs += !found;
    return 0;
}

static void count_blobs(ash_hub_use *use, const ash_hub_blobs *blobs)
{
    for (size_t i = 0; i < blobs->n; i++) {
        const ash_hub_blob *b = &blobs->v[i];
        use->bytes += b->bytes;
        if (!b->whole) {
            use->n_partial++;
            use->partial_bytes += b->bytes;
            if (b->mtime_s > use->partial_s) use->partial_s = b->mtime_s;
        } else if (!b->used) {
            use->n_orphans++;
            use->orphan_bytes += b->bytes;
        }
    }
}

static int survey_repo(ash_arena *arena, int cache, const char *folder, ash_hub_use *use,
                       ash_err *err)
{
    ash_hub_blobs blobs = {0};
    ash_hub_names snapshots = {0};
    int fd = openat(cache, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    char *repo = ash_arena_strdup(arena, folder + strlen("models--"));
    *use = (ash_hub_use){.folder = ash_arena_strdup(arena, folder), .repo = repo};
    int rc = repo && use->folder ? 0 : ash_err_nomem(err, "survey");
    char *dashes = repo ? strstr(repo, "--") : NULL;
    if (dashes) {
        *dashes = '/';
        memmove(dashes + 1, dashes + 2, strlen(dashes + 2) + 1);
    }
    if (!rc && fd >= 0) rc = ash_hub_blobs_read(fd, &blobs, err);
    if (!rc && fd >= 0) rc = ash_hub_list_dir(fd, "snapshots", &snapshots, err);
    use->n_snapshots = snapshots.n;
    counting c = {use, &blobs, arena, &snapshots};
    if (!rc && fd >= 0) rc = ash_hub_walk(fd, "snapshots", "", 0, count_file, &c, err);
    if (!rc && fd >= 0) rc = ash_hub_walk(fd, "refs", "", 0, count_ref, &c, err);
    count_blobs(use, &blobs);
    ash_hub_blobs_release(&blobs);
    ash_hub_names_release(&snapshots);
    if (fd >= 0) close(fd);
    return rc;
}

/* ---- the cache ----------------------------------------------------------------------------------
 */

static int add_bytes(void *user, int dir, const char *name, const char *rel, const struct stat *st,
                     ash_err *err)
{
    *(uint64_t *)user += (uint64_t)st->st_blocks * 512;
    return 0;
}

static int count_removed(ash_hub_survey *s, int dir, ash_err *err)
{
    ash_hub_names l;
    int rc = ash_hub_list_dir(dir, ".", &l, err);
    for (size_t i = 0; i < l.n && !rc; i++) {
        if (strncmp(l.v[i], ASH_HUB_REMOVED, strlen(ASH_HUB_REMOVED))) continue;
        s->n_removed++;
        rc = ash_hub_walk(dir, l.v[i], "", 0, add_bytes, &s->removed_bytes, err);
    }
    ash_hub_names_release(&l);
    return rc;
}

static int by_folder(const void *a, const void *b)
{
    return strcmp(((const ash_hub_use *)a)->folder, ((const ash_hub_use *)b)->folder);
}

static int survey_all(ash_hub_survey *s, int cache, const ash_hub_names *l, ash_err *err)
{
    s->v = ash_arena_calloc(&s->arena, l->n + 1, sizeof *s->v);
    int rc = s->v ? 0 : ash_err_nomem(err, "survey");
    for (size_t i = 0; i < l->n && !rc; i++) {
        struct stat st;
        if (strncmp(l->v[i], "models--", 8) || fstatat(cache, l->v[i], &st, AT_SYMLINK_NOFOLLOW) ||
            !S_ISDIR(st.st_mode))
            continue;
        rc = survey_repo(&s->arena, cache, l->v[i], &s->v[s->n], err);
        s->n += !rc;
        int fd = rc ? -1 : openat(cache, l->v[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0) rc = count_removed(s, fd, err);
        if (fd >= 0) close(fd);
    }
    int locks = rc ? -1 : openat(cache, ".locks", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (locks >= 0) rc = count_removed(s, locks, err);
    if (locks >= 0) close(locks);
    if (s->n) qsort(s->v, s->n, sizeof *s->v, by_folder);
    return rc;
}

int ash_hub_survey_read(const char *cache_dir, ash_hub_survey *out, ash_err *err)
{
    ash_hub_names l;
    *out = (ash_hub_survey){0};
    ash_arena_init(&out->arena, MAX_SURVEY);
    int fd = open(cache_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return 0;
    int rc = ash_hub_list_dir(fd, ".", &l, err);
    if (!rc) rc = survey_all(out, fd, &l, err);
    ash_hub_names_release(&l);
    close(fd);
    return rc;
}

void ash_hub_survey_release(ash_hub_survey *s)
{
    ash_arena_release(&s->arena);
    s->v = NULL;
    s->n = 0;
}

const ash_hub_use *ash_hub_survey_find(const ash_hub_survey *s, const char *repo)
{
    for (size_t i = 0; i < s->n; i++)
        if (!strcmp(s->v[i].repo, repo)) return &s->v[i];
    return NULL;
}
