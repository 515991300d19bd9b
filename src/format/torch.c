/* Owns the reading of PyTorch files: finds the pickle and the storages' data, and checks every view
 * against its storage. Refuses what torch.h lists. One thread at a time for one list. */
#include "format/torch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include "format/pickle.h"
#include "format/scan.h"
#include "format/zip.h"

typedef struct reader {
    ash_tensor_list *list;
    uint32_t file;
    const char *path;
    const uint8_t *p;
    uint64_t size;
    ash_arena arena; /* of the directory and the pickles */
    ash_pickle pickle;
    ash_err *err;
} reader;

#define FAIL(r, code, pos, ...) ash_err_at((r)->err, (code), (int64_t)(pos), __VA_ARGS__)

/* ---- tensors ------------------------------------------------------------------------------------
 */

/* Sets strides of t, or leaves NULL where it is row-major and dense; *span is the place of its last
 * element from its first, in elements. */
static int read_strides(reader *r, const ash_pickle_tensor *v, ash_tensor *t, uint64_t *span)
{
    uint64_t dense = 1, stride[ASH_MAX_DIMS] = {0};
    bool is_dense = true;
    *span = 0;
    for (size_t i = v->size->n; i-- > 0;) {
        int64_t s = v->stride->v[i].i;
        if (s < 0)
            return FAIL(r, ASH_EFORMAT, v->pos,
                        "%s: tensor '%.200s': stride %" PRId64 " is negative", r->path, t->name, s);
        if (t->dims[i] > 1) {
            if ((uint64_t)s > ((uint64_t)INT64_MAX - *span) / (t->dims[i] - 1))
                return FAIL(r, ASH_EFORMAT, v->pos,
                            "%s: tensor '%.200s': stride %" PRId64 " is too large", r->path,
                            t->name, s);
            *span += (t->dims[i] - 1) * (uint64_t)s;
            stride[i] = (uint64_t)s;
            is_dense &= (uint64_t)s == dense;
        } else {
            stride[i] = dense;
        }
        dense *= t->dims[i];
    }
    if (is_dense) return 0;
    uint64_t *copy = ash_arena_calloc(&r->list->idx->arena, ASH_MAX_DIMS, sizeof *copy);
    if (!copy) return ash_err_nomem(r->err, r->path);
    memcpy(copy, stride, sizeof stride);
    t->strides = copy;
    return 0;
}

static int read_tensor(reader *r, ash_str name, const ash_pickle_tensor *v)
{
    ash_tensor t = {.file = r->file, .dtype = v->dtype};
    uint64_t dims[ASH_MAX_DIMS], span;
    size_t n = v->size->n;
    int rc = ash_tensor_list_name(r->list, r->path, name, v->pos, &t.name, r->err);
    for (size_t i = 0; !rc && i < n && i < ASH_MAX_DIMS; i++) {
        if (v->size->v[i].i < 0)
            return FAIL(r, ASH_EFORMAT, v->pos, "%s: tensor '%.200s': size %" PRId64 " is negative",
                        r->path, t.name, v->size->v[i].i);
        dims[i] = (uint64_t)v->size->v[i].i;
    }
    if (!rc) rc = ash_tensor_list_shape(&t, r->path, dims, n, v->pos, r->err);
    if (rc) return rc;
    const ash_pickle_storage *s = v->storage;
    uint64_t elem = ash_dtype_get(t.dtype)->block_bytes;
    uint64_t held = s->n * ash_dtype_get(s->dtype)->block_bytes / elem; /* elements of this type */
    t.offset = s->root->data;
    if (t.bytes) {
        rc = read_strides(r, v, &t, &span);
        if (rc) return rc;
        if (v->offset < 0 || (uint64_t)v->offset >= held || span >= held - (uint64_t)v->offset)
            return FAIL(r, ASH_EFORMAT, v->pos,
                        "%s: tensor '%.200s': elements %" PRId64 " and %" PRIu64
                        " after it must be within its storage's %" PRIu64,
                        r->path, t.name, v->offset, span, held);
        t.offset += s->first * ash_dtype_get(s->dtype)->block_bytes + (uint64_t)v->offset * elem;
    }
    return ash_tensor_list_add(r->list, &t, r->err);
}

static bool has_tensors(const ash_pickle_value *v)
{
    if (!v || v->kind != ASH_PICKLE_DICT) return false;
    for (size_t i = 0; i + 1 < v->list->n; i += 2)
        if (v->list->v[i].kind == ASH_PICKLE_STR && v->list->v[i + 1].kind == ASH_PICKLE_TENSOR)
            return true;
    return false;
}

static int read_state_dict(reader *r, const ash_pickle_value *top)
{
    static const char *const inner[] = {"state_dict", "model_state_dict", "model"};
    const ash_pickle_value *dict = has_tensors(top) ? top : NULL;
    size_t first = r->list->n;
    int rc = 0;
    for (size_t i = 0; !dict && i < sizeof inner / sizeof *inner; i++) {
        const ash_pickle_value *v = ash_pickle_get(top, inner[i]);
        dict = has_tensors(v) ? v : NULL;
    }
    if (!dict && top->kind == ASH_PICKLE_DICT && !top->list->n) return 0; /* an empty one */
    if (!dict)
        return FAIL(r, ASH_EFORMAT, -1,
                    "%s: holds no state dict: expected a dict of tensors, or one in its "
                    "'state_dict', 'model_state_dict' or 'model'",
                    r->path);
    for (size_t i = 0; !rc && i + 1 < dict->list->n; i += 2) {
        const ash_pickle_value *key = &dict->list->v[i], *v = key + 1;
        if (key->kind == ASH_PICKLE_STR && v->kind == ASH_PICKLE_TENSOR)
            rc = read_tensor(r, key->s, v->tensor);
    }
    if (!rc) ash_tensor_list_sort(r->list, first);
    return rc;
}

/* ---- the zip form -------------------------------------------------------------------------------
 */

static int check_archive(reader *r, const ash_zip *z)
{
    const ash_zip_entry *order = ash_zip_find(z, ASH_STR("byteorder"));
    char shown[208];
    for (size_t i = 0; i < z->n; i++) {
        ash_str name = z->entries[i].name;
        if (z->top.n && (name.n <= z->top.n || name.p[z->top.n] != '/' ||
                         memcmp(name.p, z->top.p, z->top.n) != 0))
            return FAIL(r, ASH_EFORMAT, z->entries[i].local,
                        "%s: entry '%s' is not in the folder of the first", r->path,
                        ash_scan_show(name, shown));
    }
    if (ash_zip_find(z, ASH_STR("constants.pkl")))
        return FAIL(r, ASH_EUNSUPPORTED, -1,
                    "%s: a TorchScript archive, which holds a program; save the "
                    "model's state_dict() instead",
                    r->path);
    if (!order) return 0; /* written before there was another */
    ash_str is = {(const char *)r->p + order->data, (size_t)order->size};
    if (ash_str_eqc(is, "big"))
        return FAIL(r, ASH_EUNSUPPORTED, order->data,
                    "%s: a big-endian file; only little-endian ones are read", r->path);
    if (!ash_str_eqc(is, "little"))
        return FAIL(r, ASH_EFORMAT, order->data, "%s: 'byteorder' must be 'little' or 'big'",
                    r->path);
    return 0;
}

static int place_record(reader *r, const ash_zip *z, ash_pickle_root *root)
{
    char name[208], shown[208];
    if (root->key.n > sizeof name - 6)
        return FAIL(r, ASH_ELIMIT, root->pos, "%s: a storage's key has %zu bytes", r->path,
                    root->key.n);
    memcpy(name, "data/", 5);
    memcpy(name + 5, root->key.p, root->key.n);
    const ash_zip_entry *e = ash_zip_find(z, (ash_str){name, root->key.n + 5});
    ash_scan_show(root->key, shown);
    if (!e)
        return FAIL(r, ASH_EFORMAT, root->pos, "%s: the data of storage '%s' is missing", r->path,
                    shown);
    if (e->size != root->bytes)
        return FAIL(r, ASH_EFORMAT, root->pos,
                    "%s: storage '%s' must have %" PRIu64 " bytes, its data has %" PRIu64, r->path,
                    shown, root->bytes, e->size);
    root->data = e->data;
    return 0;
}

static int read_zip(reader *r)
{
    ash_zip z;
    ash_pickle_value top;
    int rc = ash_zip_read(r->p, r->size, r->path, &r->arena, &z, r->err);
    if (!rc) rc = check_archive(r, &z);
    if (rc) return rc;
    const ash_zip_entry *e = ash_zip_find(&z, ASH_STR("data.pkl"));
    if (!e)
        return FAIL(r, ASH_EFORMAT, -1, "%s: a zip archive without data.pkl is no PyTorch file",
                    r->path);
    if (e->size > ASH_MAX_PICKLE)
        return FAIL(r, ASH_ELIMIT, e->data, "%s: data.pkl has %" PRIu64 " bytes; at most %u",
                    r->path, e->size, ASH_MAX_PICKLE);
    rc = ash_pickle_run(&r->pickle, r->p + e->data, (size_t)e->size, (int64_t)e->data, &top);
    if (!rc && r->pickle.at != e->size)
        rc = FAIL(r, ASH_EFORMAT, e->data + r->pickle.at, "%s: something follows data.pkl's STOP",
                  r->path);
    for (size_t i = 0; !rc && i < r->pickle.n_roots; i++)
        rc = place_record(r, &z, r->pickle.roots[i]);
    return rc ? rc : read_state_dict(r, &top);
}

/* ---- the legacy form ----------------------------------------------------------------------------
 */

static int next_pickle(reader *r, uint64_t *at, ash_pickle_value *out)
{
    uint64_t left = r->size - *at;
    int rc = ash_pickle_run(&r->pickle, r->p + *at, left < SIZE_MAX ? (size_t)left : SIZE_MAX,
                            (int64_t)*at, out);
    *at += r->pickle.at;
    return rc;
}

static int read_prologue(reader *r, uint64_t *at)
{
    static const char magic[] =
        "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"; /* 0x1950a86a20f9469cfc6c */
    ash_pickle_value v;
    int rc = next_pickle(r, at, &v);
    if (rc) return rc;
    if (v.kind != ASH_PICKLE_LONG || !ash_str_eq(v.s, (ash_str){magic, 10}))
        return FAIL(r, ASH_EFORMAT, 0,
                    "%s: a pickle, but not of a PyTorch file: it must start with the magic "
                    "number",
                    r->path);
    uint64_t pos = *at;
    rc = next_pickle(r, at, &v);
    if (!rc && (v.kind != ASH_PICKLE_INT || v.i != 1001))
        rc = FAIL(r, ASH_EUNSUPPORTED, pos, "%s: a PyTorch file of another protocol than 1001",
                  r->path);
    pos = *at;
    if (!rc) rc = next_pickle(r, at, &v);
    if (rc) return rc;
    const ash_pickle_value *little = ash_pickle_get(&v, "little_endian");
    if (!little || little->kind != ASH_PICKLE_BOOL)
        return FAIL(r, ASH_EFORMAT, pos, "%s: must tell 'little_endian' in its third pickle",
                    r->path);
    if (!little->i)
        return FAIL(r, ASH_EUNSUPPORTED, pos,
                    "%s: a big-endian file; only little-endian ones are read", r->path);
    return 0;
}

/* i64 elements | data, for the storage of `key`. */
static int place_storage(reader *r, const ash_pickle_value *key, uint64_t *at)
{
    char shown[208];
    if (key->kind != ASH_PICKLE_STR)
        return FAIL(r, ASH_EFORMAT, *at, "%s: keys of storages must be strings", r->path);
    ash_pickle_root *root = ash_pickle_find_root(&r->pickle, key->s);
    ash_scan_show(key->s, shown);
    if (!root || root->found)
        return FAIL(r, ASH_EFORMAT, *at, "%s: storage '%s' %s", r->path, shown,
                    root ? "is listed twice" : "is no tensor's");
    if (r->size - *at < 8)
        return FAIL(r, ASH_EFORMAT, *at, "%s: cut before storage '%s'", r->path, shown);
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | r->p[*at + (unsigned)i];
    if (n != root->bytes / root->elem)
        return FAIL(r, ASH_EFORMAT, *at,
                    "%s: storage '%s' must have %" PRIu64 " elements, has %" PRIu64, r->path, shown,
                    root->bytes / root->elem, n);
    *at += 8;
    if (root->bytes > r->size - *at)
        return FAIL(r, ASH_EFORMAT, *at,
                    "%s: cut: storage '%s' needs %" PRIu64 " bytes, %" PRIu64 " are left", r->path,
                    shown, root->bytes, r->size - *at);
    root->data = *at;
    root->found = true;
    *at += root->bytes;
    return 0;
}

static int read_legacy(reader *r)
{
    uint64_t at = 0;
    ash_pickle_value top, keys;
    char shown[208];
    int rc = read_prologue(r, &at);
    if (!rc) rc = next_pickle(r, &at, &top);
    uint64_t pos = at;
    if (!rc) rc = next_pickle(r, &at, &keys);
    if (rc) return rc;
    if (keys.kind != ASH_PICKLE_LIST)
        return FAIL(r, ASH_EFORMAT, pos, "%s: the last pickle must be the list of storages",
                    r->path);
    for (size_t i = 0; !rc && i < keys.list->n; i++) rc = place_storage(r, &keys.list->v[i], &at);
    for (size_t i = 0; !rc && i < r->pickle.n_roots; i++)
        if (!r->pickle.roots[i]->found)
            rc = FAIL(r, ASH_EFORMAT, r->pickle.roots[i]->pos,
                      "%s: the data of storage '%s' is missing", r->path,
                      ash_scan_show(r->pickle.roots[i]->key, shown));
    if (!rc && at != r->size)
        rc = FAIL(r, ASH_EFORMAT, at, "%s: the storages end, but %" PRIu64 " bytes follow", r->path,
                  r->size - at);
    return rc ? rc : read_state_dict(r, &top);
}

/* -------------------------------------------------------------------------------------------------
 */

static int read_any(reader *r)
{
    if (r->size >= 4 && memcmp(r->p, "PK", 2) == 0) return read_zip(r);
    if (r->size >= 2 && r->p[0] == 0x80) return read_legacy(r);
    if (r->size >= 8 && memcmp(r->p, "PYTORCH1", 8) == 0)
        return FAIL(r, ASH_EUNSUPPORTED, 0,
                    "%s: PyTorch's container of before 1.6; load it with PyTorch and "
                    "save it again",
                    r->path);
    if (r->size >= 262 && memcmp(r->p + 257, "ustar", 5) == 0)
        return FAIL(r, ASH_EUNSUPPORTED, 0,
                    "%s: PyTorch's tar form of before 0.1.10; load it with PyTorch and "
                    "save it again",
                    r->path);
    return FAIL(r, ASH_EFORMAT, 0, "%s: not a PyTorch file: neither a zip archive nor a pickle",
                r->path);
}

int ash_torch_read(void *arg, ash_tensor_list *list, uint32_t file, ash_err *err)
{
    (void)arg;
    const ash_tensor_file *f = &list->idx->files[file];
    reader r = {.list = list,
                .file = file,
                .path = f->path,
                .p = f->map.data,
                .size = f->map.size,
                .err = err};
    ash_arena_init(&r.arena, ASH_MAX_PICKLE_MEMORY);
    ash_pickle_init(&r.pickle, f->path, &r.arena, err);
    int rc = read_any(&r);
    ash_pickle_release(&r.pickle);
    ash_arena_release(&r.arena);
    return rc;
}

/* ---- checksums ---- */

enum { CHECK_BYTES = 8 << 20 }; /* between two looks at cancel */

/* Pages of the map that were read for the last time. */
static void give_back(const ash_map *map, uint64_t begin, uint64_t end)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    begin -= begin % page;
    if (map->fd >= 0) (void)madvise((void *)(map->data + begin), end - begin, MADV_DONTNEED);
}

static int check_record(const ash_tensor_file *f, const ash_zip_entry *e, const atomic_bool *cancel,
                        ash_err *err)
{
    char shown[208];
    uLong crc = crc32_z(0, NULL, 0);
    for (uint64_t at = 0; at < e->size;) {
        uint64_t n = e->size - at < CHECK_BYTES ? e->size - at : CHECK_BYTES;
        if (cancel && atomic_load(cancel)) return ash_err_set(err, ASH_ECANCELED, "interrupted");
        crc = crc32_z(crc, f->map.data + e->data + at, (size_t)n);
        give_back(&f->map, e->data + at, e->data + at + n);
        at += n;
    }
    if (crc == e->crc) return 0;
    return ash_err_at(err, ASH_EFORMAT, (int64_t)e->data,
                      "%s: record '%s' has the checksum %08lx, must have %08" PRIx32, f->path,
                      ash_scan_show(e->name, shown), crc, e->crc);
}

int ash_torch_checksums(const ash_tensor_file *f, const atomic_bool *cancel, size_t *n,
                        ash_err *err)
{
    ash_arena arena;
    ash_zip z;
    *n = 0;
    if (f->map.size < 2 || memcmp(f->map.data, "PK", 2) != 0) return 0;
    ash_arena_init(&arena, ASH_MAX_PICKLE_MEMORY);
    int rc = ash_zip_read(f->map.data, f->map.size, f->path, &arena, &z, err);
    for (size_t i = 0; !rc && i < z.n; i++) {
        if (!z.entries[i].crc) continue; /* none was kept, or the record is empty */
        rc = check_record(f, &z.entries[i], cancel, err);
        ++*n;
    }
    ash_arena_release(&arena);
    return rc;
}
