/* Owns the reading of safetensors headers. Refuses what safetensors.h lists. Thread rule: one
 * thread at a time for one list. */
#include "format/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>

#include "format/scan.h"

typedef struct reader {
    ash_tensor_list *list;
    uint32_t file;
    const char *path;
    uint64_t data; /* where the data starts */
    ash_scan s;
    ash_err *err;
    ash_str
        *keys; /* owned: of "__metadata__", to find two of one name; their text is the arena's */
} reader;

static uint64_t load_u64(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

bool ash_safetensors_looks(const uint8_t *p, size_t n, uint64_t size)
{
    if (n < 9 || size < 9 || load_u64(p) > (uint64_t)1 << 40) return false;
    return p[8] == '{' || p[8] == ' ' || p[8] == '\n' || p[8] == '\r' || p[8] == '\t';
}

/* All types that both the format and base/dtype.h know have the same name in both. */
static bool find_dtype(ash_str name, ash_dtype *out)
{
    static const ash_dtype known[] = {
        ASH_DTYPE_BOOL,    ASH_DTYPE_F4,          ASH_DTYPE_F6_E2M3,     ASH_DTYPE_F6_E3M2,
        ASH_DTYPE_U8,      ASH_DTYPE_I8,          ASH_DTYPE_F8_E5M2,     ASH_DTYPE_F8_E4M3,
        ASH_DTYPE_F8_E8M0, ASH_DTYPE_F8_E4M3FNUZ, ASH_DTYPE_F8_E5M2FNUZ, ASH_DTYPE_I16,
        ASH_DTYPE_U16,     ASH_DTYPE_F16,         ASH_DTYPE_BF16,        ASH_DTYPE_I32,
        ASH_DTYPE_U32,     ASH_DTYPE_F32,         ASH_DTYPE_C64,         ASH_DTYPE_F64,
        ASH_DTYPE_I64,     ASH_DTYPE_U64};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (ash_str_eqc(name, ash_dtype_get(known[i])->name)) {
            *out = known[i];
            return true;
        }
    return false;
}

/* ---- one tensor -------------------------------------------------------------------------------
 */

typedef struct entry {
    ash_tensor t;
    uint64_t dims[ASH_MAX_DIMS];
    uint64_t offsets[2];
    size_t n_dims; /* as many as there are, also over ASH_MAX_DIMS */
    bool has_dtype, has_shape, has_offsets;
} entry;

static bool refuse(reader *r, int code, int64_t pos, const char *tensor, const char *what)
{
    if (!r->s.rc)
        r->s.rc = ash_err_at(r->err, code, pos, "%s: tensor '%.200s': %s", r->path, tensor, what);
    return false;
}

static bool read_dtype(reader *r, entry *e)
{
    char shown[208];
    ash_str name;
    int64_t pos = ash_scan_pos(&r->s);
    if (!ash_scan_string(&r->s, &name)) return false;
    if (find_dtype(name, &e->t.dtype)) return true;
    r->s.rc =
        ash_err_at(r->err, ASH_EUNSUPPORTED, pos, "%s: tensor '%.200s' has the unknown dtype '%s'",
                   r->path, e->t.name, ash_scan_show(name, shown));
    return false;
}

/* Numbers of an array into out[0..max); *n counts all of them. */
static bool read_numbers(reader *r, uint64_t *out, size_t max, size_t *n)
{
    *n = 0;
    if (!ash_scan_open(&r->s, '[')) return false;
    while (ash_scan_element(&r->s)) {
        uint64_t v;
        if (!ash_scan_u64(&r->s, &v)) return false;
        if (*n < max) out[*n] = v;
        ++*n;
    }
    return !r->s.rc;
}

static bool read_member(reader *r, entry *e, ash_str key)
{
    int64_t pos = ash_scan_pos(&r->s);
    bool *seen = ash_str_eqc(key, "dtype")          ? &e->has_dtype
                 : ash_str_eqc(key, "shape")        ? &e->has_shape
                 : ash_str_eqc(key, "data_offsets") ? &e->has_offsets
                                                    : NULL;
    size_t n;
    if (!seen) return ash_scan_skip(&r->s);
    if (*seen) return refuse(r, ASH_EFORMAT, pos, e->t.name, "a member occurs twice");
    *seen = true;
    if (seen == &e->has_dtype) return read_dtype(r, e);
    if (seen == &e->has_shape) return read_numbers(r, e->dims, ASH_MAX_DIMS, &e->n_dims);
    if (!read_numbers(r, e->offsets, 2, &n)) return false;
    return n == 2 || refuse(r, ASH_EFORMAT, pos, e->t.name, "'data_offsets' must be two numbers");
}

static bool check_entry(reader *r, entry *e, int64_t pos)
{
    ash_tensor *t = &e->t;
    if (!e->has_dtype || !e->has_shape || !e->has_offsets)
        return refuse(r, ASH_EFORMAT, pos, t->name,
                      !e->has_dtype   ? "'dtype' is missing"
                      : !e->has_shape ? "'shape' is missing"
                                      : "'data_offsets' is missing");
    r->s.rc = ash_tensor_list_shape(t, r->path, e->dims, e->n_dims, pos, r->err);
    if (r->s.rc) return false;
    uint64_t begin = e->offsets[0], end = e->offsets[1],
             size = r->list->idx->files[r->file].map.size;
    char shape[96];
    if (begin > end || end > size - r->data)
        r->s.rc = ash_err_at(r->err, ASH_EFORMAT, pos,
                             "%s: tensor '%.200s': data from %" PRIu64 " to %" PRIu64
                             " must lie within the file's %" PRIu64 " bytes of data",
                             r->path, t->name, begin, end, size - r->data);
    else if (end - begin != t->bytes)
        r->s.rc = ash_err_at(r->err, ASH_EFORMAT, pos,
                             "%s: tensor '%.200s': %s %s needs %" PRIu64 " bytes, has %" PRIu64,
                             r->path, t->name, ash_dtype_get(t->dtype)->name,
                             ash_tensor_shape(t, shape), t->bytes, end - begin);
    t->offset = r->data + begin;
    return !r->s.rc;
}

static bool read_tensor(reader *r, ash_str name, int64_t pos)
{
    entry e = {.t = {.file = r->file}};
    ash_str key;
    r->s.rc = ash_tensor_list_name(r->list, r->path, name, pos, &e.t.name, r->err);
    if (r->s.rc || !ash_scan_open(&r->s, '{')) return false;
    while (ash_scan_key(&r->s, &key))
        if (!read_member(r, &e, key)) return false;
    if (r->s.rc || !check_entry(r, &e, pos)) return false;
    r->s.rc = ash_tensor_list_add(r->list, &e.t, r->err);
    return !r->s.rc;
}

/* ---- the header -------------------------------------------------------------------------------
 */

/* Only strings, no two of one name. They say nothing that a reader of tensors needs. */
static bool read_metadata(reader *r)
{
    ash_arena *arena = &r->list->idx->arena;
    size_t n = 0;
    ash_str key, value;
    if (!ash_scan_open(&r->s, '{')) return false;
    while (ash_scan_key(&r->s, &key)) {
        int64_t pos = ash_scan_pos(&r->s);
        if (!ash_scan_string(&r->s, &value)) return false;
        if (n == ASH_MAX_SAFETENSORS_METADATA) {
            r->s.rc =
                ash_err_at(r->err, ASH_ELIMIT, pos, "%s: '__metadata__' has more than %d members",
                           r->path, ASH_MAX_SAFETENSORS_METADATA);
            return false;
        }
        if (!r->keys) r->keys = calloc(ASH_MAX_SAFETENSORS_METADATA, sizeof *r->keys);
        const char *copy = r->keys ? ash_arena_strndup(arena, key.p, key.n) : NULL;
        if (!copy) {
            r->s.rc = ash_err_nomem(r->err, r->path);
            return false;
        }
        for (size_t i = 0; i < n; i++)
            if (ash_str_eq(r->keys[i], key)) {
                r->s.rc = ash_err_at(r->err, ASH_EFORMAT, pos,
                                     "%s: '__metadata__': '%.100s' occurs twice", r->path, copy);
                return false;
            }
        r->keys[n++] = (ash_str){copy, key.n};
    }
    return !r->s.rc;
}

static bool read_header(reader *r)
{
    bool metadata = false;
    ash_str key;
    if (!ash_scan_open(&r->s, '{')) return false;
    int64_t pos = ash_scan_pos(&r->s);
    while (ash_scan_key(&r->s, &key)) {
        if (!ash_str_eqc(key, "__metadata__")) {
            if (!read_tensor(r, key, pos)) return false;
        } else if (metadata) {
            r->s.rc =
                ash_err_at(r->err, ASH_EFORMAT, pos, "%s: '__metadata__' occurs twice", r->path);
            return false;
        } else {
            metadata = true;
            if (!read_metadata(r)) return false;
        }
        pos = ash_scan_pos(&r->s);
    }
    return ash_scan_end(&r->s);
}

/* In the file's order each tensor starts where the one before ends; the last ends with the file. */
static bool check_cover(reader *r, size_t first)
{
    uint64_t next = r->data, size = r->list->idx->files[r->file].map.size;
    ash_tensor_list_sort(r->list, first);
    for (size_t i = first; i < r->list->n; i++) {
        const ash_tensor *t = &r->list->p[i];
        if (t->offset != next) {
            r->s.rc = ash_err_set(r->err, ASH_EFORMAT,
                                  "%s: tensor '%.200s' starts at byte %" PRIu64
                                  " of the data, must start at %" PRIu64 ": a%s",
                                  r->path, t->name, t->offset - r->data, next - r->data,
                                  t->offset < next ? "n overlap" : " hole");
            return false;
        }
        next += t->bytes;
    }
    if (next != size)
        r->s.rc =
            ash_err_at(r->err, ASH_EFORMAT, (int64_t)next,
                       "%s: the tensors end, but %" PRIu64 " bytes follow", r->path, size - next);
    return !r->s.rc;
}

int ash_safetensors_read(void *arg, ash_tensor_list *list, uint32_t file, ash_err *err)
{
    (void)arg;
    const ash_tensor_file *f = &list->idx->files[file];
    uint64_t size = f->map.size, n;
    if (size < 8)
        return ash_err_set(err, ASH_EFORMAT,
                           "%s: not a safetensors file: %" PRIu64 " bytes, at least 8 are needed",
                           f->path, size);
    n = load_u64(f->map.data);
    if (n > size - 8)
        return ash_err_at(err, ASH_EFORMAT, 0,
                          "%s: cut, or not a safetensors file: a header of %" PRIu64
                          " bytes in a file of %" PRIu64,
                          f->path, n, size);
    if (n > ASH_MAX_SAFETENSORS_HEADER)
        return ash_err_at(err, ASH_ELIMIT, 0, "%s: a header of %" PRIu64 " bytes; at most %u",
                          f->path, n, ASH_MAX_SAFETENSORS_HEADER);
    reader r = {.list = list, .file = file, .path = f->path, .data = 8 + n, .err = err};
    size_t first = list->n;
    ash_scan_init(&r.s, f->path, f->map.data + 8, (size_t)n, 8, err);
    if (read_header(&r)) (void)check_cover(&r, first);
    free(r.keys);
    ash_scan_release(&r.s);
    return r.s.rc;
}
