/* Owns the choice of a checkpoint's file in a folder, cache entries, and what a file is by its
 * content. Refuses folders with several candidates, naming them. Any thread. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/checkpoint_private.h"
#include "format/safetensors.h"
#include "format/shards.h"

static bool ends(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n > m && strcmp(s + n - m, tail) == 0;
}

static bool starts(const char *s, const char *head)
{
    return strncmp(s, head, strlen(head)) == 0;
}

/* ---- what a file is ---------------------------------------------------------------------------
 */

static bool looks_torch(const uint8_t *p, size_t n)
{
    if (n >= 3 && p[0] == 0x80 && p[1] <= 5) /* a pickle with its protocol */
        return true;
    if (n >= 8 && memcmp(p, "PYTORCH1", 8) == 0) return true;
    return n >= 262 && memcmp(p + 257, "ustar", 5) == 0;
}

/* In this order: a safetensors file starts with a length, which may look like a pickle's start;
 * GGUF's and zip's first bytes may look like such a length. */
ash_file_kind ash_file_sniff(const uint8_t *p, size_t n, uint64_t size, const char *name)
{
    static const struct {
        const char *end;
        ash_file_kind kind;
    } names[] = {{".safetensors", ASH_FILE_SAFETENSORS},
                 {".gguf", ASH_FILE_GGUF},
                 {".bin", ASH_FILE_TORCH},
                 {".pt", ASH_FILE_TORCH},
                 {".pth", ASH_FILE_TORCH},
                 {".json", ASH_FILE_JSON}};
    if (n >= 4 && memcmp(p, "GGUF", 4) == 0) return ASH_FILE_GGUF;
    if (n >= 4 && (memcmp(p, "PK\3\4", 4) == 0 || memcmp(p, "PK\5\6", 4) == 0))
        return ASH_FILE_TORCH;
    if (ash_safetensors_looks(p, n, size)) return ASH_FILE_SAFETENSORS;
    if (looks_torch(p, n)) return ASH_FILE_TORCH;
    if (n >= 20 && memcmp(p, "version https://git-", 20) == 0) return ASH_FILE_LFS;
    if (n && p[0] == '{') return ASH_FILE_JSON;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (ends(name, names[i].end)) return names[i].kind;
    return ASH_FILE_UNKNOWN;
}

int ash_file_kind_of(const char *path, const char *name, ash_file_kind *out, ash_err *err)
{
    uint8_t head[ASH_FILE_HEAD];
    size_t n = 0;
    ash_map map;
    int rc = ash_fs_map(path, &map, err); /* refuses what is no regular file */
    if (rc) return rc;
    while (n < sizeof head && n < map.size) { /* by pread: a map would be faulted in around */
        ssize_t got = pread(map.fd, head + n, sizeof head - n, (off_t)n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) rc = ash_err_set(err, ASH_EIO, "cannot read '%s': %s", path, strerror(errno));
        if (got <= 0) break;
        n += (size_t)got;
    }
    *out = ash_file_sniff(head, n, map.size, name);
    ash_fs_unmap(&map);
    return rc;
}

/* ---- a folder ---------------------------------------------------------------------------------
 */

typedef struct listing {
    ash_arena *arena;
    const char *dir;
    const char **names; /* sorted */
    size_t n, cap;
} listing;

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int add_name(listing *l, const char *name, ash_err *err)
{
    if (l->n == ASH_MAX_FOLDER_ENTRIES)
        return ash_err_set(err, ASH_ELIMIT, "'%s' holds more than %d files", l->dir,
                           ASH_MAX_FOLDER_ENTRIES);
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        const char **p = realloc(l->names, cap * sizeof *p);
        if (!p) return ash_err_nomem(err, l->dir);
        l->names = p;
        l->cap = cap;
    }
    l->names[l->n] = ash_arena_strdup(l->arena, name);
    return l->names[l->n++] ? 0 : ash_err_nomem(err, l->dir);
}

static int list_dir(listing *l, ash_err *err)
{
    int rc = 0;
    DIR *d = opendir(l->dir);
    if (!d)
        return ash_err_set(err,
                           errno == ENOMEM   ? ASH_ENOMEM
                           : errno == ENOENT ? ASH_ENOENT
                                             : ASH_EIO,
                           "cannot list '%s': %s", l->dir, strerror(errno));
    for (;;) {
        errno = 0;
        struct dirent *e = readdir(d);
        if (!e || rc) break;
        if (e->d_name[0] != '.') rc = add_name(l, e->d_name, err);
    }
    if (!rc && errno)
        rc = ash_err_set(err, ASH_EIO, "cannot list '%s': %s", l->dir, strerror(errno));
    closedir(d);
    if (!rc && l->n) qsort(l->names, l->n, sizeof *l->names, by_name);
    return rc;
}

static const char *has(const listing *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->names[i], name) == 0) return l->names[i];
    return NULL;
}

/* "-00001-of-00002" (5 digits or more each) before `ext`? Where it starts, and the part's number.
 */
static const char *shard_tail(const char *name, const char *ext, unsigned long *no)
{
    size_t n = strlen(name), m = strlen(ext);
    if (n <= m || strcmp(name + n - m, ext) != 0) return NULL;
    const char *end = name + n - m, *of = end;
    while (of > name && of[-1] >= '0' && of[-1] <= '9') of--;
    if (end - of < 5 || of - name < 4 || memcmp(of - 4, "-of-", 4) != 0) return NULL;
    const char *dash = of - 4;
    while (dash > name && dash[-1] >= '0' && dash[-1] <= '9') dash--;
    if (of - 4 - dash < 5 || dash == name || dash[-1] != '-') return NULL;
    *no = strtoul(dash, NULL, 10);
    return dash - 1;
}

static bool is_safetensors(const listing *l, const char *name)
{
    (void)l;
    return ends(name, ".safetensors") && strcmp(name, "adapter_model.safetensors") != 0;
}

/* Trainers leave PyTorch files beside the model that are none. */
static bool is_torch(const listing *l, const char *name)
{
    static const char *const others[] = {"training_args.", "optimizer.", "scheduler.",
                                         "scaler.",        "rng_state",  "adapter_model."};
    ash_file_kind kind = ASH_FILE_UNKNOWN;
    if (!ends(name, ".bin") && !ends(name, ".pt") && !ends(name, ".pth")) return false;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (starts(name, others[i])) return false;
    char *path = ash_fs_join(l->dir, name);
    bool ok = path && ash_file_kind_of(path, "", &kind, NULL) == 0 && kind == ASH_FILE_TORCH;
    free(path);
    return ok;
}

/* Of a split set only the first part. */
static bool is_gguf(const listing *l, const char *name)
{
    unsigned long no = 1;
    (void)l;
    return ends(name, ".gguf") && !starts(name, "mmproj") &&
           (!shard_tail(name, ".gguf", &no) || no == 1);
}

static bool is_safetensors_index(const listing *l, const char *name)
{
    (void)l;
    return ends(name, ".safetensors.index.json");
}

static bool is_gptq(const listing *l, const char *name)
{
    return starts(name, "gptq_model-") && is_safetensors(l, name);
}

static bool is_torch_index(const listing *l, const char *name)
{
    (void)l;
    return ends(name, ".bin.index.json");
}

typedef bool name_test(const listing *l, const char *name);

/* The only file that passes the test: *out, or NULL if there is none. */
static int only(const listing *l, name_test *test, const char *ext, const char **out, ash_err *err)
{
    size_t n = 0, shards = 0;
    unsigned long no;
    ash_buf names;
    ash_buf_init(&names, 1u << 20);
    *out = NULL;
    for (size_t i = 0; i < l->n; i++) {
        if (!test(l, l->names[i])) continue;
        if (!n) *out = l->names[i];
        if (n < 4) ash_buf_printf(&names, "%s%s", n ? ", " : "", l->names[i]);
        n++;
        shards += shard_tail(l->names[i], ext, &no) != NULL;
    }
    int rc = 0;
    if (n > 1 && shards == n && strcmp(ext, ".gguf") != 0)
        rc = ash_err_set(err, ASH_ENOENT,
                         "'%s' holds %zu parts of a model but not their index, "
                         "*%s.index.json: %s%s",
                         l->dir, n, ext, ash_buf_cstr(&names), n > 4 ? ", ..." : "");
    else if (n > 1)
        rc = ash_err_set(err, ASH_EINVAL, "'%s' holds %zu models, name one of them: %s%s", l->dir,
                         n, ash_buf_cstr(&names), n > 4 ? ", ..." : "");
    ash_buf_release(&names);
    return rc;
}

static int choose(const listing *l, const char **out, ash_err *err)
{
    static const struct {
        const char *name; /* this one, or */
        name_test *test;  /* the only one of these */
        const char *ext;
    } order[] = {
        {"model.safetensors.index.json", NULL, NULL},
        {"model.safetensors", NULL, NULL},
        {NULL, is_safetensors_index, ".json"},
        {NULL, is_gptq, ".safetensors"},
        {NULL, is_safetensors, ".safetensors"},
        {"pytorch_model.bin.index.json", NULL, NULL},
        {"pytorch_model.bin", NULL, NULL},
        {NULL, is_torch_index, ".json"},
        {NULL, is_torch, ".bin"},
        {NULL, is_gguf, ".gguf"},
    };
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        *out = order[i].name ? has(l, order[i].name) : NULL;
        int rc = order[i].test ? only(l, order[i].test, order[i].ext, out, err) : 0;
        if (rc || *out) return rc;
    }
    return ash_err_set(err, ASH_ENOENT,
                       "'%s' holds no checkpoint: expected model.safetensors, its index, "
                       "pytorch_model.bin, its index, or one *.gguf",
                       l->dir);
}

int ash_checkpoint_locate(const char *dir, ash_arena *arena, const char **out, ash_err *err)
{
    listing l = {.arena = arena, .dir = dir};
    int rc = list_dir(&l, err);
    if (!rc) rc = choose(&l, out, err);
    free(l.names);
    return rc;
}

/* ---- the hub's cache --------------------------------------------------------------------------
 */

/* "dir/a/b", malloc'ed. */
static char *join3(const char *dir, const char *a, const char *b)
{
    size_t n = strlen(dir) + strlen(a) + strlen(b) + 3;
    char *p = malloc(n);
    if (p) snprintf(p, n, "%s/%s/%s", dir, a, b);
    return p;
}

/* A revision may hold slashes ("refs/pr/1"), but stays below refs/. */
static bool plain_revision(const char *rev)
{
    if (!*rev || strlen(rev) > 255) return false;
    for (const char *part = rev;;) {
        size_t n = strcspn(part, "/");
        if (!ash_shards_plain_name((ash_str){part, n})) return false;
        if (!part[n]) return true;
        part += n + 1;
    }
}

/* The commit that refs/REV names, checked to be a plain name, in an ash_buf. */
static int read_ref(const char *entry, const char *rev, ash_buf *commit, ash_err *err)
{
    char *path = join3(entry, "refs", rev);
    if (!path) {
        ash_buf_init(commit, 0);
        return ash_err_nomem(err, entry);
    }
    int rc = ash_fs_read(path, 4096, commit, err);
    while (!rc && commit->len && strchr(" \r\n\t", commit->data[commit->len - 1]))
        commit->data[--commit->len] = 0;
    if (!rc && !ash_shards_plain_name((ash_str){commit->data, commit->len}))
        rc = ash_err_set(err, ASH_EFORMAT, "%s: must hold a commit", path);
    free(path);
    return rc;
}

static int only_snapshot(const char *entry, char **out, ash_err *err)
{
    ash_arena arena;
    char *dir = ash_fs_join(entry, "snapshots");
    listing l = {.arena = &arena, .dir = dir};
    if (!dir) return ash_err_nomem(err, entry);
    ash_arena_init(&arena, 64u << 20);
    int rc = list_dir(&l, err);
    if (!rc && l.n != 1)
        rc = ash_err_set(err, ASH_ENOENT, "'%s': refs/main is missing and there are %zu snapshots",
                         entry, l.n);
    if (!rc) {
        *out = ash_fs_join(dir, l.names[0]);
        rc = *out ? 0 : ash_err_nomem(err, entry);
    }
    free(l.names);
    ash_arena_release(&arena);
    free(dir);
    return rc;
}

int ash_checkpoint_snapshot(const char *entry, const char *revision, char **out, ash_err *err)
{
    const char *rev = revision ? revision : "main";
    ash_buf commit;
    *out = NULL;
    if (!plain_revision(rev)) return ash_err_set(err, ASH_EINVAL, "'%s' is no revision", rev);
    int rc = read_ref(entry, rev, &commit, err);
    const char *name = rc ? rev : ash_buf_cstr(&commit); /* a commit names its own snapshot */
    if (!rc || rc == ASH_ENOENT) {
        *out = join3(entry, "snapshots", name);
        if (!*out) {
            rc = ash_err_nomem(err, entry);
        } else if (ash_fs_is_dir(*out)) {
            rc = 0;
        } else {
            free(*out);
            *out = NULL;
            rc = rc && !revision
                     ? only_snapshot(entry, out, err)
                     : ash_err_set(err, ASH_ENOENT, "'%s' has no snapshot of revision '%s'%s%s",
                                   entry, rev, rc ? "" : ": no snapshots/", rc ? "" : name);
        }
    }
    ash_buf_release(&commit);
    return rc;
}
