/* Owns the opening of a checkpoint's files and the check of an index against them. Refuses file
 * names that leave the folder, missing files, tensors in none or another file. One thread at a
 * time. */
#include "format/shards.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "format/scan.h"

enum { FILE_SLOTS = 2048 }; /* a power of two, over ASH_MAX_SHARDS / 2 * 3 */

typedef struct entry {
    const char *name; /* of a tensor */
    uint32_t file;
} entry;

/* An index as read; all in the arena of idx, but entries. */
typedef struct shard_map {
    const char *path;
    ash_tensor_index *idx;
    ash_scan s;
    ash_err *err;
    const char *files[ASH_MAX_SHARDS]; /* plain names */
    uint32_t n_files;
    uint16_t slots[FILE_SLOTS]; /* by name: position in files + 1 */
    uint64_t seed[2];
    entry *entries; /* owned heap */
    size_t n, cap;
    bool declared; /* the files are not looked at */
} shard_map;

bool ash_shards_plain_name(ash_str name)
{
    if (!name.n || name.n > 255 || ash_str_eqc(name, ".") || ash_str_eqc(name, "..")) return false;
    for (size_t i = 0; i < name.n; i++)
        if ((unsigned char)name.p[i] < 0x20 || name.p[i] == '/' || name.p[i] == '\\' ||
            name.p[i] == 0x7F)
            return false;
    return true;
}

/* ---- reading an index -------------------------------------------------------------------------
 */

static bool find_file(shard_map *m, ash_str name, int64_t pos, uint32_t *out)
{
    char shown[208];
    if (!ash_shards_plain_name(name)) {
        m->s.rc =
            ash_err_at(m->err, ASH_EFORMAT, pos,
                       "%s: 'weight_map': '%s' must be the plain name of a file beside the index",
                       m->path, ash_scan_show(name, shown));
        return false;
    }
    size_t i = ash_hash_bytes(name.p, name.n, m->seed) & (FILE_SLOTS - 1);
    while (m->slots[i] && !ash_str_eqc(name, m->files[m->slots[i] - 1]))
        i = (i + 1) & (FILE_SLOTS - 1);
    if (!m->slots[i]) {
        if (m->n_files == ASH_MAX_SHARDS) {
            m->s.rc = ash_err_at(m->err, ASH_ELIMIT, pos, "%s: more than %d files", m->path,
                                 ASH_MAX_SHARDS);
            return false;
        }
        char *copy = ash_arena_strndup(&m->idx->arena, name.p, name.n);
        if (!copy) {
            m->s.rc = ash_err_nomem(m->err, m->path);
            return false;
        }
        m->files[m->n_files++] = copy;
        m->slots[i] = (uint16_t)m->n_files;
    }
    *out = m->slots[i] - 1u;
    return true;
}

static bool add_entry(shard_map *m, ash_str name, int64_t pos, uint32_t file)
{
    ash_tensor_list names = {.idx = m->idx};
    if (m->n == ASH_MAX_TENSORS) {
        m->s.rc = ash_err_at(m->err, ASH_ELIMIT, pos, "%s: more than %u tensors", m->path,
                             ASH_MAX_TENSORS);
        return false;
    }
    if (m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 256;
        entry *p = realloc(m->entries, cap * sizeof *p);
        if (!p) {
            m->s.rc = ash_err_nomem(m->err, m->path);
            return false;
        }
        m->entries = p;
        m->cap = cap;
    }
    entry *e = &m->entries[m->n];
    m->s.rc = ash_tensor_list_name(&names, m->path, name, pos, &e->name, m->err);
    if (m->s.rc) return false;
    e->file = file;
    m->n++;
    return true;
}

static bool read_weight_map(shard_map *m)
{
    ash_str tensor, file;
    uint32_t at = 0;
    if (!ash_scan_open(&m->s, '{')) return false;
    while (ash_scan_key(&m->s, &tensor)) {
        int64_t pos = ash_scan_pos(&m->s);
        if (!ash_scan_string(&m->s, &file) || !find_file(m, file, pos, &at) ||
            !add_entry(m, tensor, pos, at))
            return false;
    }
    return !m->s.rc;
}

static bool read_index(shard_map *m)
{
    bool seen = false;
    ash_str key;
    if (!ash_scan_open(&m->s, '{')) return false;
    while (ash_scan_key(&m->s, &key)) {
        bool it = ash_str_eqc(key, "weight_map");
        if (it && seen) {
            m->s.rc = ash_err_at(m->err, ASH_EFORMAT, ash_scan_pos(&m->s),
                                 "%s: 'weight_map' occurs twice", m->path);
            return false;
        }
        seen |= it;
        if (!(it ? read_weight_map(m) : ash_scan_skip(&m->s))) return false;
    }
    if (!ash_scan_end(&m->s)) return false;
    if (!m->n_files)
        m->s.rc = ash_err_set(m->err, ASH_EFORMAT, "%s: %s", m->path,
                              seen ? "'weight_map' is empty" : "'weight_map' is missing");
    return !m->s.rc;
}

/* ---- files ------------------------------------------------------------------------------------
 */

/* Opening is in the order of names, which is that of the model's layers. */
static int sort_files(shard_map *m)
{
    uint32_t order[ASH_MAX_SHARDS], rank[ASH_MAX_SHARDS];
    const char *sorted[ASH_MAX_SHARDS];
    for (uint32_t i = 0; i < m->n_files; i++) { /* insertion: they are nearly sorted, and few */
        uint32_t k = i;
        for (; k && strcmp(m->files[order[k - 1]], m->files[i]) > 0; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    for (uint32_t i = 0; i < m->n_files; i++) {
        rank[order[i]] = i;
        sorted[i] = m->files[order[i]];
    }
    memcpy(m->files, sorted, m->n_files * sizeof *sorted);
    for (size_t i = 0; i < m->n; i++) m->entries[i].file = rank[m->entries[i].file];
    return 0;
}

static char *beside(ash_arena *a, const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    size_t dir = slash ? (size_t)(slash - path) + 1 : 0, n = strlen(name);
    char *p = ash_arena_alloc(a, dir + n + 1);
    if (!p) return NULL;
    memcpy(p, path, dir);
    memcpy(p + dir, name, n + 1);
    return p;
}

static int check_present(const shard_map *m, const ash_tensor_file *files, ash_err *err)
{
    ash_buf names;
    uint32_t missing = 0;
    ash_buf_init(&names, 1u << 20);
    for (uint32_t i = 0; i < m->n_files; i++)
        if (!ash_fs_is_file(files[i].path)) {
            if (missing < 4) ash_buf_printf(&names, "%s%s", missing ? ", " : "", m->files[i]);
            missing++;
        }
    int rc = 0;
    if (missing)
        rc = ash_err_set(err, ASH_ENOENT, "%s: %u of %u files are missing: %s%s", m->path, missing,
                         m->n_files, ash_buf_cstr(&names), missing > 4 ? ", ..." : "");
    ash_buf_release(&names);
    return rc;
}

static int map_file(ash_tensor_index *idx, uint32_t i, ash_err *err)
{
    ash_map map;
    int rc = ash_fs_map(idx->files[i].path, &map, err);
    if (rc) return rc;
    idx->files[i].map = map;
    idx->n_files = i + 1;
    return 0;
}

static int map_shards(const shard_map *m, ash_err *err)
{
    ash_tensor_index *idx = m->idx;
    ash_tensor_file *files = ash_arena_calloc(&idx->arena, m->n_files, sizeof *files);
    if (!files) return ash_err_nomem(err, m->path);
    for (uint32_t i = 0; i < m->n_files; i++) {
        files[i] =
            (ash_tensor_file){.path = beside(&idx->arena, m->path, m->files[i]), .map = {.fd = -1}};
        if (!files[i].path) return ash_err_nomem(err, m->path);
    }
    idx->files = files;
    if (m->declared) {
        idx->n_files = m->n_files;
        return 0;
    }
    int rc = check_present(m, files, err);
    for (uint32_t i = 0; !rc && i < m->n_files; i++) rc = map_file(idx, i, err);
    return rc;
}

static int read_files(ash_tensor_index *idx, ash_tensor_reader *read, void *arg, ash_err *err)
{
    ash_tensor_list list = {.idx = idx};
    int rc = 0;
    for (uint32_t i = 0; !rc && i < idx->n_files; i++) rc = read(arg, &list, i, err);
    if (!rc) rc = ash_tensor_list_finish(&list, err);
    ash_tensor_list_release(&list);
    return rc;
}

static int declare(const shard_map *m, ash_err *err)
{
    ash_tensor_list list = {.idx = m->idx};
    int rc = 0;
    for (size_t i = 0; !rc && i < m->n; i++) {
        ash_tensor t = {.name = m->entries[i].name,
                        .dtype = ASH_DTYPE_OTHER,
                        .dims = {1, 1, 1, 1},
                        .file = m->entries[i].file,
                        .offset = i};
        rc = ash_tensor_list_add(&list, &t, err);
    }
    if (!rc) rc = ash_tensor_list_finish(&list, err);
    ash_tensor_list_release(&list);
    return rc;
}

/* Every entry has its tensor, every tensor its entry. */
static int check_map(const shard_map *m, ash_err *err)
{
    const ash_tensor_index *idx = m->idx;
    uint8_t *seen = calloc(idx->n_tensors + 1, 1);
    int rc = seen ? 0 : ash_err_nomem(err, m->path);
    for (size_t i = 0; !rc && i < m->n; i++) {
        const entry *e = &m->entries[i];
        const ash_tensor *t = ash_tensor_find(idx, e->name);
        if (!t)
            rc = ash_err_set(err, ASH_EFORMAT, "%s: tensor '%.200s' is not in '%s'", m->path,
                             e->name, m->files[e->file]);
        else if (t->file != e->file)
            rc = ash_err_set(err, ASH_EFORMAT, "%s: tensor '%.200s' must be in '%s', is in '%s'",
                             m->path, e->name, m->files[e->file], m->files[t->file]);
        else if (seen[t - idx->tensors])
            rc = ash_err_set(err, ASH_EFORMAT, "%s: tensor '%.200s' occurs twice in 'weight_map'",
                             m->path, e->name);
        else
            seen[t - idx->tensors] = 1;
    }
    for (size_t i = 0; !rc && i < idx->n_tensors; i++)
        if (!seen[i])
            rc = ash_err_set(err, ASH_EFORMAT, "%s: tensor '%.200s' of '%s' is not in 'weight_map'",
                             m->path, idx->tensors[i].name, m->files[idx->tensors[i].file]);
    free(seen);
    return rc;
}

static int open_index(shard_map *m, ash_tensor_reader *read, void *arg, ash_err *err)
{
    ash_map map;
    int rc = ash_fs_map(m->path, &map, err);
    if (rc) return rc;
    if (map.size > ASH_MAX_SHARD_INDEX)
        rc = ash_err_set(err, ASH_ELIMIT, "%s: %llu bytes; at most %u", m->path,
                         (unsigned long long)map.size, ASH_MAX_SHARD_INDEX);
    if (!rc) {
        ash_scan_init(&m->s, m->path, map.data, (size_t)map.size, 0, err);
        (void)read_index(m);
        rc = m->s.rc;
        ash_scan_release(&m->s);
    }
    ash_fs_unmap(&map);
    if (!rc) rc = sort_files(m);
    if (!rc) rc = map_shards(m, err);
    if (!rc && m->declared) return declare(m, err);
    if (!rc) rc = read_files(m->idx, read, arg, err);
    return rc ? rc : check_map(m, err);
}

static int open_map(const char *path, bool declared, ash_tensor_reader *read, void *arg,
                    ash_tensor_index *idx, ash_err *err)
{
    ash_tensor_index_init(idx, ASH_MAX_TENSOR_INDEX);
    shard_map *m = calloc(1, sizeof *m);
    if (!m) return ash_err_nomem(err, path);
    m->path = path;
    m->idx = idx;
    m->err = err;
    m->declared = declared;
    m->seed[0] = ash_rng_entropy();
    m->seed[1] = ash_rng_entropy();
    int rc = open_index(m, read, arg, err);
    free(m->entries);
    free(m);
    return rc;
}

int ash_shards_open_index(const char *path, ash_tensor_reader *read, void *arg,
                          ash_tensor_index *idx, ash_err *err)
{
    return open_map(path, false, read, arg, idx, err);
}

int ash_shards_declare(const char *path, ash_tensor_index *idx, ash_err *err)
{
    return open_map(path, true, NULL, NULL, idx, err);
}

static int open_one(const char *path, ash_map map, ash_tensor_reader *read, void *arg,
                    ash_tensor_index *idx, ash_err *err)
{
    ash_tensor_file *file = ash_arena_calloc(&idx->arena, 1, sizeof *file);
    char *copy = file ? ash_arena_strdup(&idx->arena, path) : NULL;
    if (!copy) {
        if (map.fd >= 0) ash_fs_unmap(&map);
        return ash_err_nomem(err, path);
    }
    *file = (ash_tensor_file){.path = copy, .map = map};
    idx->files = file;
    idx->n_files = 1;
    return read_files(idx, read, arg, err);
}

int ash_shards_open(const char *path, ash_tensor_reader *read, void *arg, ash_tensor_index *idx,
                    ash_err *err)
{
    ash_map map;
    ash_tensor_index_init(idx, ASH_MAX_TENSOR_INDEX);
    int rc = ash_fs_map(path, &map, err);
    return rc ? rc : open_one(path, map, read, arg, idx, err);
}

int ash_shards_open_memory(const void *bytes, size_t n, const char *name, ash_tensor_reader *read,
                           void *arg, ash_tensor_index *idx, ash_err *err)
{
    ash_tensor_index_init(idx, ASH_MAX_TENSOR_INDEX);
    return open_one(name, (ash_map){.data = bytes, .size = n, .fd = -1}, read, arg, idx, err);
}
