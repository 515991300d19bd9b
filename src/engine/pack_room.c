/* Owns the choice of pack files to remove. Refuses to remove one that is in use. One thread at a time, with
 * the folder's lock. */
#include "engine/pack_room.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/limits.h"
#include "base/log.h"

#define RESERVE ((uint64_t)4 << 30)

typedef struct candidate {
    char name[80]; /* 64 digits and ".pack" */
    uint64_t bytes;
    uint64_t used_s;
} candidate;

typedef struct folder {
    int fd;
    candidate *packs; /* [ASH_MAX_KNOWN_FILES] */
    size_t n_packs;
    uint64_t total; /* bytes of all files */
    bool look;      /* nothing is removed */
} folder;

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}

static uint64_t last_use(int fd, const struct stat *st, const ash_known_list *known)
{
    ash_file_id id;
    const ash_known *k = ash_file_id_read(fd, &id, NULL) ? NULL : ash_known_find(known, ASH_KNOWN_PACK, &id);
    return k ? k->used_s : (uint64_t)st->st_mtim.tv_sec;
}

static void look_at(folder *f, const char *name, const ash_known_list *known)
{
    struct stat st;
    if (ends_with(name, ".pack.tmp") || !strncmp(name, "known.tmp.", 10)) {
        if (!f->look) unlinkat(f->fd, name, 0);
        return;
    }
    int fd = openat(f->fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (fd < 0) return;
    if (!fstat(fd, &st) && S_ISREG(st.st_mode)) {
        uint64_t bytes = (uint64_t)st.st_blocks * 512;
        f->total += bytes;
        candidate *c = &f->packs[f->n_packs];
        if (ends_with(name, ".pack") && strlen(name) < sizeof c->name && f->n_packs < ASH_MAX_KNOWN_FILES) {
            *c = (candidate){.bytes = bytes, .used_s = last_use(fd, &st, known)};
            memcpy(c->name, name, strlen(name) + 1);
            f->n_packs++;
        }
    }
    close(fd);
}

static int by_use(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    return x->used_s < y->used_s ? -1 : x->used_s > y->used_s;
}

/* True if it is gone. */
static bool remove_unused(const folder *f, const candidate *c)
{
    int fd = openat(f->fd, c->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    bool gone = fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB) && !unlinkat(f->fd, c->name, 0);
    if (gone) ash_info("packs", "%s was longest unused and gives way to another model's", c->name);
    if (fd >= 0) close(fd);
    return gone;
}

uint64_t ash_pack_budget(uint64_t budget, uint64_t disk_free, uint64_t held)
{
    uint64_t disk = disk_free < UINT64_MAX - held ? disk_free + held : UINT64_MAX;
    if (budget) return budget;
    return disk > RESERVE ? (disk - RESERVE) / ASH_PACK_SHARE : 0;
}

/* Resolves the budget. ASH_ENOSPC if what may not go leaves no room. */
static int check_room(const folder *f, uint64_t *budget_at, uint64_t need, ash_err *err)
{
    struct statvfs fs;
    uint64_t packs = 0, budget = *budget_at;
    if (fstatvfs(f->fd, &fs)) return ash_err_set(err, ASH_EIO, "cannot ask the disk: %s", strerror(errno));
    budget = ash_pack_budget(budget, (uint64_t)fs.f_bavail * fs.f_frsize, f->total);
    for (size_t i = 0; i < f->n_packs; i++) packs += f->packs[i].bytes;
    if (need > budget || f->total - packs > budget - need)
        return ash_err_set(err, ASH_ENOSPC, "%.2f GB do not fit the %.2f GB for packs (ASHLEY_DISK_BUDGET)",
                           (double)need * 1e-9, (double)budget * 1e-9);
    uint64_t avail = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (need > avail && need - avail > packs)
        return ash_err_set(err, ASH_ENOSPC, "%.2f GB do not fit the disk, which has %.2f GB free",
                           (double)need * 1e-9, (double)avail * 1e-9);
    *budget_at = budget;
    return 0;
}

static int make_room(folder *f, uint64_t budget, uint64_t need, ash_err *err)
{
    int rc = check_room(f, &budget, need, err);
    if (rc) return rc;
    qsort(f->packs, f->n_packs, sizeof *f->packs, by_use);
    for (size_t i = 0; i < f->n_packs && f->total > budget - need; i++)
        if (remove_unused(f, &f->packs[i])) f->total -= f->packs[i].bytes;
    if (f->total > budget - need)
        return ash_err_set(err, ASH_ENOSPC,
                           "%.2f GB do not fit the %.2f GB for packs (ASHLEY_DISK_BUDGET) beside used ones",
                           (double)need * 1e-9, (double)budget * 1e-9);
    return 0;
}

static int with_folder(const char *dir, bool look, uint64_t budget, uint64_t need,
                       const ash_known_list *known, ash_err *err)
{
    DIR *d = opendir(dir);
    if (!d) return ash_err_set(err, ASH_EIO, "cannot list '%s': %s", dir, strerror(errno));
    folder f = {
        .fd = dirfd(d), .look = look, .packs = calloc(ASH_MAX_KNOWN_FILES + 1, sizeof *f.packs)};
    int rc = f.packs ? 0 : ash_err_nomem(err, "a list of packs");
    for (struct dirent *e; !rc && (e = readdir(d));) look_at(&f, e->d_name, known);
    if (!rc) rc = look ? check_room(&f, &budget, need, err) : make_room(&f, budget, need, err);
    free(f.packs);
    closedir(d);
    return rc;
}

int ash_pack_fits(const char *dir, uint64_t budget, uint64_t need, ash_err *err)
{
    const ash_known_list none = {0};
    int rc = ash_fs_mkdirs(dir, err);
    return rc ? rc : with_folder(dir, true, budget, need, &none, err);
}

int ash_pack_room(const char *dir, uint64_t budget, uint64_t need, const ash_known_list *known, ash_err *err)
{
    return with_folder(dir, false, budget, need, known, err);
}
