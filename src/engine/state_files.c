/* Owns the search for a model's files in the state folder. Refuses to remove one that is in use.
 * One thread. */
#include "engine/state_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/sha256.h"
#include "engine/kv_prompt.h"

enum { KEY_AT = 16 }; /* in the head of every file of kv/ (engine/kv_file.h, kv_slots.h) */

static int add(ash_state_files *f, const char *dir, const char *name, ash_err *err)
{
    struct stat st;
    char *path = f->n < ASH_STATE_FILES ? ash_fs_join(dir, name) : NULL;
    if (f->n == ASH_STATE_FILES) return 0;
    if (!path) return ash_err_nomem(err, "files of the state folder");
    if (lstat(path, &st) || !S_ISREG(st.st_mode)) {
        free(path);
        return 0;
    }
    f->paths[f->n++] = path;
    f->bytes += (uint64_t)st.st_blocks * 512;
    return 0;
}

static int find_pack(const char *state_dir, const uint8_t *key, ash_state_files *f, ash_err *err)
{
    char hex[2 * ASH_SHA256_BYTES + 1], name[80];
    char *dir = ash_fs_join(state_dir, "packs");
    snprintf(name, sizeof name, "%s.pack", ash_sha256_hex(key, hex));
    int rc = dir ? add(f, dir, name, err) : ash_err_nomem(err, "files of the state folder");
    free(dir);
    return rc;
}

static bool has_key(int dir, const char *name, const uint8_t key[ASH_KV_KEY])
{
    uint8_t head[KEY_AT + ASH_KV_KEY];
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool same = fd >= 0 && pread(fd, head, sizeof head, 0) == (ssize_t)sizeof head &&
                !memcmp(head + KEY_AT, key, ASH_KV_KEY);
    if (fd >= 0) close(fd);
    return same;
}

static int find_kv(const char *state_dir, const uint8_t key[ASH_KV_KEY], ash_state_files *f,
                   ash_err *err)
{
    char *path = ash_fs_join(state_dir, "kv");
    DIR *d = path ? opendir(path) : NULL;
    int rc = path ? 0 : ash_err_nomem(err, "files of the state folder");
    for (struct dirent *e; d && !rc && (e = readdir(d));)
        if (e->d_name[0] != '.' && has_key(dirfd(d), e->d_name, key))
            rc = add(f, path, e->d_name, err);
    if (d) closedir(d);
    free(path);
    return rc;
}

int ash_state_files_find(const ash_engine_opts *opts, ash_state_files *out, ash_err *err)
{
    ash_model *m;
    uint8_t key[ASH_KV_KEY];
    *out = (ash_state_files){0};
    if (!opts->state_dir) return 0;
    int rc = ash_model_open(opts, &m, err);
    if (rc) return rc;
    rc = ash_packs_open(opts->state_dir, opts->disk_budget, m->files, m->net, &m->packs, err);
    const uint8_t *weights = rc ? NULL : ash_model_key(m);
    if (weights) rc = find_pack(opts->state_dir, weights, out, err);
    if (weights && !rc && !(rc = ash_kv_key(m, key, err)))
        rc = find_kv(opts->state_dir, key, out, err);
    ash_model_close(m);
    return rc;
}

void ash_state_files_remove(const ash_state_files *f, size_t *n, uint64_t *bytes)
{
    *n = 0;
    *bytes = 0;
    for (size_t i = 0; i < f->n; i++) {
        struct stat st;
        int fd = open(f->paths[i], O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0) continue;
        if (!fstat(fd, &st) && !flock(fd, LOCK_EX | LOCK_NB) && !unlink(f->paths[i])) {
            *bytes += (uint64_t)st.st_blocks * 512;
            ++*n;
        }
        close(fd);
    }
}

void ash_state_files_release(ash_state_files *f)
{
    for (size_t i = 0; i < f->n; i++) free(f->paths[i]);
    *f = (ash_state_files){0};
}
