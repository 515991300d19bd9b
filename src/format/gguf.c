/* Owns the reading of GGUF headers: one file or a split set, checked in full before anything is
 * used. Refuses version 1, big endian, unknown or removed types, nested arrays, duplicates, and
 * every length, count or offset that does not fit the file. Thread rule: see gguf.h. */
#include "format/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "format/gguf_impl.h"

#define MIN_KV_BYTES 14     /* length, a key of one byte, type, a value of one byte */
#define MIN_TENSOR_BYTES 25 /* length, a name of one byte, n_dims, type, offset */
#define MAX_INDEX_BYTES ((size_t)1 << 30)
#define DEFAULT_ALIGNMENT 32

/* One file while it is read. Every take_* checks what is left, sets the error and returns false. */
typedef struct reader {
    ash_gguf *g;
    uint32_t file;    /* index into g->index.files */
    const uint8_t *p; /* the whole file */
    uint64_t size, at;
    const char *label;
    ash_err *err;
    int rc; /* the first failure */
    /* from this file's header */
    uint64_t n_kv, n_tensors, alignment;
    size_t first_tensor; /* position of its first in g->index.tensors */
    bool is_split;
    uint64_t split_no, split_count, split_tensors;
} reader;

#define FAIL(r, code, pos, ...) ((r)->rc = ash_err_at((r)->err, (code), (int64_t)(pos), __VA_ARGS__))

static bool take(reader *r, uint64_t n, const char *what, const uint8_t **out)
{
    if (n > r->size - r->at) {
        FAIL(r, ASH_EFORMAT, r->at, "%s: cut or malformed: %s needs %" PRIu64 " bytes, %" PRIu64
             " are left", r->label, what, n, r->size - r->at);
        return false;
    }
    *out = r->p + r->at;
    r->at += n;
    return true;
}

static bool take_uint(reader *r, size_t size, const char *what, uint64_t *out)
{
    const uint8_t *p;
    if (!take(r, size, what, &p))
        return false;
    *out = ash_gguf_load(p, size);
    return true;
}

static bool take_string(reader *r, uint64_t max, const char *what, ash_str *out)
{
    uint64_t n;
    uint64_t pos = r->at;
    const uint8_t *p;
    if (!take_uint(r, 8, what, &n))
        return false;
    if (n > r->size - r->at || n > max) {
        FAIL(r, n > r->size - r->at ? ASH_EFORMAT : ASH_ELIMIT, pos,
             "%s: %s has a length of %" PRIu64 " bytes; at most %" PRIu64 " are possible", r->label,
             what, n, max < r->size - r->at ? max : r->size - r->at);
        return false;
    }
    if (!take(r, n, what, &p))
        return false;
    *out = (ash_str){(const char *)p, (size_t)n};
    return true;
}

/* A name that C code can compare and a log can show: not empty, UTF-8, no control characters. */
static bool check_name(reader *r, ash_str s, uint64_t pos, const char *what)
{
    bool ok = s.n && ash_utf8_valid(s.p, s.n);
    for (size_t i = 0; ok && i < s.n; i++) ok = (unsigned char)s.p[i] >= 0x20 && s.p[i] != 0x7F;
    if (!ok)
        FAIL(r, ASH_EFORMAT, pos, "%s: %s is empty, not UTF-8 or holds a control character",
             r->label, what);
    return ok;
}

/* ---- header --------------------------------------------------------------------------------- */

static bool read_version(reader *r)
{
    const uint8_t *magic;
    uint64_t v;
    if (!take(r, 4, "the magic 'GGUF'", &magic))
        return false;
    if (memcmp(magic, "GGUF", 4) != 0) {
        FAIL(r, ASH_EFORMAT, 0, "%s: not a GGUF file: must start with 'GGUF', starts with "
             "%02x %02x %02x %02x", r->label, magic[0], magic[1], magic[2], magic[3]);
        return false;
    }
    if (!take_uint(r, 4, "the version", &v))
        return false;
    if (v && (v & 0xFFFF) == 0)
        FAIL(r, ASH_EUNSUPPORTED, 4, "%s: a big-endian GGUF file; only little-endian ones are read",
             r->label);
    else if (v == 1)
        FAIL(r, ASH_EUNSUPPORTED, 4, "%s: GGUF version 1 is not read; convert it to version 3",
             r->label);
    else if (v != 2 && v != 3)
        FAIL(r, ASH_EUNSUPPORTED, 4, "%s: GGUF version %" PRIu64 " is not known; 2 and 3 are read",
             r->label, v);
    else if (r->file && v != r->g->version)
        FAIL(r, ASH_EFORMAT, 4, "%s: GGUF version %" PRIu64 ", but the first part has version %u",
             r->label, v, r->g->version);
    if (r->rc)
        return false;
    r->g->version = (uint32_t)v;
    return true;
}

static bool check_count(reader *r, uint64_t n, uint64_t pos, uint64_t max, unsigned min_bytes,
                        const char *what)
{
    uint64_t fit = (r->size - r->at) / min_bytes;
    if (n > fit) {
        FAIL(r, ASH_EFORMAT, pos, "%s: %" PRIu64 " %s cannot fit the file's %" PRIu64 " bytes",
             r->label, n, what, r->size);
        return false;
    }
    if (n > max) {
        FAIL(r, ASH_ELIMIT, pos, "%s: %" PRIu64 " %s; at most %" PRIu64 " are read", r->label, n,
             what, max);
        return false;
    }
    return true;
}

static bool read_header(reader *r)
{
    return read_version(r) && take_uint(r, 8, "the number of tensors", &r->n_tensors) &&
           take_uint(r, 8, "the number of keys", &r->n_kv) &&
           check_count(r, r->n_tensors, 8, ASH_MAX_TENSORS, MIN_TENSOR_BYTES, "tensors") &&
           check_count(r, r->n_kv, 16, ASH_MAX_GGUF_KV, MIN_KV_BYTES, "keys");
}

/* ---- metadata ------------------------------------------------------------------------------- */

static bool check_bools(reader *r, ash_str key, const uint8_t *p, uint64_t n)
{
    char name[80];
    for (uint64_t i = 0; i < n; i++)
        if (p[i] > 1) {
            FAIL(r, ASH_EFORMAT, p + i - r->p, "%s: key '%s': a bool must be 0 or 1, is %u",
                 r->label, ash_gguf_show(key, name), p[i]);
            return false;
        }
    return true;
}

static bool bad_type(reader *r, ash_str key, uint64_t pos, const char *what, uint64_t type)
{
    char name[80];
    FAIL(r, ASH_EUNSUPPORTED, pos, "%s: key '%s': %s %" PRIu64 "%s", r->label,
         ash_gguf_show(key, name), what, type, type == ASH_GGUF_ARRAY ? " (array) is not read" : "");
    return false;
}

static bool read_array(reader *r, ash_gguf_kv *kv)
{
    uint64_t type, n, pos = r->at;
    char name[80], what[128];
    snprintf(what, sizeof what, "the array of key '%s'", ash_gguf_show(kv->key, name));
    if (!take_uint(r, 4, what, &type) || !take_uint(r, 8, what, &n))
        return false;
    size_t size = ash_gguf_scalar_size((uint32_t)type);
    if (!size && type != ASH_GGUF_STRING)
        return bad_type(r, kv->key, pos, "an array of type", type);
    uint64_t left = r->size - r->at;
    if (n > left / (size ? size : 8)) {
        FAIL(r, ASH_EFORMAT, pos, "%s: %s has %" PRIu64 " elements, which cannot fit the %" PRIu64
             " bytes left", r->label, what, n, left);
        return false;
    }
    kv->array = (ash_gguf_array){.type = (ash_gguf_type)type, .n = n, .data = r->p + r->at};
    if (size) {
        const uint8_t *p;
        if (!take(r, n * size, what, &p) || (type == ASH_GGUF_BOOL && !check_bools(r, kv->key, p, n)))
            return false;
    } else {
        ash_str s;
        for (uint64_t i = 0; i < n; i++)
            if (!take_string(r, ASH_MAX_GGUF_STRING, what, &s))
                return false;
    }
    kv->array.bytes = (uint64_t)(r->p + r->at - kv->array.data);
    kv->data = kv->array.data;
    kv->bytes = kv->array.bytes;
    return true;
}

static bool read_kv(reader *r, ash_gguf_kv *kv)
{
    uint64_t type, pos = r->at;
    char name[80], what[128];
    *kv = (ash_gguf_kv){0};
    if (!take_string(r, ASH_MAX_GGUF_KEY, "a key", &kv->key) || !check_name(r, kv->key, pos, "a key"))
        return false;
    snprintf(what, sizeof what, "the value of key '%s'", ash_gguf_show(kv->key, name));
    pos = r->at;
    if (!take_uint(r, 4, what, &type))
        return false;
    kv->type = (ash_gguf_type)type;
    kv->pos = r->at;
    if (type == ASH_GGUF_ARRAY)
        return read_array(r, kv);
    if (type == ASH_GGUF_STRING) {
        ash_str s;
        if (!take_string(r, ASH_MAX_GGUF_STRING, what, &s))
            return false;
        kv->data = (const uint8_t *)s.p;
        kv->bytes = s.n;
        return true;
    }
    kv->bytes = ash_gguf_scalar_size((uint32_t)type);
    if (!kv->bytes)
        return bad_type(r, kv->key, pos, "unknown value type", type);
    return take(r, kv->bytes, what, &kv->data) &&
           (type != ASH_GGUF_BOOL || check_bools(r, kv->key, kv->data, 1));
}

/* The hash over the keys of one part; two of one name are refused. */
static bool index_keys(reader *r, const ash_gguf_kv *kv, uint32_t *slots, size_t n_slots,
                       const uint64_t seed[2])
{
    char name[80];
    for (size_t k = 0; k < r->n_kv; k++) {
        size_t i = ash_hash_bytes(kv[k].key.p, kv[k].key.n, seed) & (n_slots - 1);
        while (slots[i] && !ash_str_eq(kv[slots[i] - 1].key, kv[k].key)) i = (i + 1) & (n_slots - 1);
        if (slots[i]) {
            FAIL(r, ASH_EFORMAT, kv[k].pos, "%s: key '%s' occurs twice", r->label,
                 ash_gguf_show(kv[k].key, name));
            return false;
        }
        slots[i] = (uint32_t)k + 1;
    }
    return true;
}

/* Reads the pairs of this part into g->kv, where they stay if it is the first. */
static bool read_metadata(reader *r, ash_gguf *into)
{
    ash_arena *arena = &r->g->index.arena;
    into->n_kv = (size_t)r->n_kv;
    into->n_slots = ash_hash_slots(into->n_kv);
    into->kv = ash_arena_calloc(arena, into->n_kv ? into->n_kv : 1, sizeof *into->kv);
    into->slots = ash_arena_calloc(arena, into->n_slots, sizeof *into->slots);
    if (!into->kv || !into->slots) {
        r->rc = ash_err_nomem(r->err, r->label);
        return false;
    }
    into->seed[0] = ash_rng_entropy();
    into->seed[1] = ash_rng_entropy();
    for (size_t i = 0; i < into->n_kv; i++)
        if (!read_kv(r, &into->kv[i]))
            return false;
    return index_keys(r, into->kv, into->slots, into->n_slots, into->seed);
}

static bool read_alignment(reader *r, const ash_gguf *meta)
{
    const ash_gguf_kv *kv = ash_gguf_find(meta, "general.alignment");
    if (!kv)
        return true; /* the default, or the first part's: gguf-py leaves it out of later parts */
    r->alignment = kv->type == ASH_GGUF_U32 ? ash_gguf_load(kv->data, 4) : 0;
    if (r->alignment && (r->alignment & (r->alignment - 1)) == 0)
        return true;
    if (kv->type != ASH_GGUF_U32)
        FAIL(r, ASH_EFORMAT, kv->pos, "%s: key 'general.alignment' must be a uint32, is %s",
             r->label, ash_gguf_type_name(kv->type));
    else
        FAIL(r, ASH_EFORMAT, kv->pos,
             "%s: key 'general.alignment' must be a power of two, is %" PRIu64, r->label,
             r->alignment);
    return false;
}

static bool read_split(reader *r, const ash_gguf *meta)
{
    r->split_count = 1;
    r->split_tensors = r->n_tensors;
    r->is_split = ash_gguf_find(meta, "split.count") != NULL;
    if (!r->is_split)
        return true;
    /* meta is of this part: its messages must name this part's file. */
    ash_gguf view = *meta;
    view.index.files = &r->g->index.files[r->file];
    r->rc = ash_gguf_need_u64(&view, "split.count", 1, ASH_MAX_GGUF_SPLITS, &r->split_count, r->err);
    if (!r->rc)
        r->rc = ash_gguf_need_u64(&view, "split.no", 0, r->split_count - 1, &r->split_no, r->err);
    if (!r->rc)
        r->rc = ash_gguf_need_u64(&view, "split.tensors.count", 0, ASH_MAX_TENSORS,
                                  &r->split_tensors, r->err);
    return !r->rc;
}

/* ---- tensors -------------------------------------------------------------------------------- */

static bool read_dims(reader *r, ash_tensor *t)
{
    uint64_t n, pos = r->at, count = 1;
    if (!take_uint(r, 4, "a tensor's number of dimensions", &n))
        return false;
    if (n > ASH_MAX_DIMS) {
        FAIL(r, ASH_EFORMAT, pos, "%s: tensor '%s' has %" PRIu64 " dimensions; at most %d", r->label,
             t->name, n, ASH_MAX_DIMS);
        return false;
    }
    for (size_t i = 0; i < ASH_MAX_DIMS; i++) t->dims[i] = 1;
    t->n_dims = n ? (uint32_t)n : 1; /* a scalar is a row of one */
    for (uint64_t i = 0; i < n; i++) {
        uint64_t d;
        pos = r->at;
        if (!take_uint(r, 8, "a tensor's dimensions", &d))
            return false;
        if (d > INT64_MAX || (d && count > (uint64_t)INT64_MAX / d)) {
            FAIL(r, ASH_EFORMAT, pos, "%s: tensor '%s': dimension %" PRIu64 " of %" PRIu64
                 " makes it too large", r->label, t->name, i, d);
            return false;
        }
        count *= d ? d : 1; /* a zero must not hide an overflow behind it */
        t->dims[n - 1 - i] = d;
    }
    return true;
}

static bool read_type(reader *r, ash_tensor *t)
{
    uint64_t type, pos = r->at;
    if (!take_uint(r, 4, "a tensor's type", &type))
        return false;
    const ash_dtype_info *info = ash_dtype_get((uint32_t)type);
    if (!info->block) {
        FAIL(r, ASH_EUNSUPPORTED, pos, "%s: tensor '%s' has the unknown or removed type %" PRIu64,
             r->label, t->name, type);
        return false;
    }
    t->dtype = (ash_dtype)type;
    uint64_t row = t->dims[t->n_dims - 1];
    if (row % info->block) {
        FAIL(r, ASH_EFORMAT, pos, "%s: tensor '%s': rows of %" PRIu64
             " are no multiple of %s's block of %u", r->label, t->name, row, info->name, info->block);
        return false;
    }
    if (!ash_dtype_bytes(t->dtype, ash_tensor_count(t), &t->bytes) || t->bytes > INT64_MAX) {
        FAIL(r, ASH_EFORMAT, pos, "%s: tensor '%s' is too large", r->label, t->name);
        return false;
    }
    return true;
}

/* `next` is where the data of this tensor must start: the padded sum of all before it. */
static bool read_tensor(reader *r, ash_tensor *t, uint64_t *next)
{
    ash_str name;
    uint64_t pos = r->at;
    if (!take_string(r, ASH_MAX_TENSOR_NAME - 1, "a tensor's name", &name) ||
        !check_name(r, name, pos, "a tensor's name"))
        return false;
    t->file = r->file;
    t->name = ash_arena_strndup(&r->g->index.arena, name.p, name.n);
    if (!t->name) {
        r->rc = ash_err_nomem(r->err, r->label);
        return false;
    }
    if (!read_dims(r, t) || !read_type(r, t))
        return false;
    pos = r->at;
    if (!take_uint(r, 8, "a tensor's offset", &t->offset))
        return false;
    if (t->offset != *next) {
        FAIL(r, ASH_EFORMAT, pos, "%s: tensor '%s': offset must be %" PRIu64 ", is %" PRIu64,
             r->label, t->name, *next, t->offset);
        return false;
    }
    uint64_t end = *next + t->bytes; /* both below 2^63 */
    if (end > INT64_MAX - r->alignment) {
        FAIL(r, ASH_EFORMAT, pos, "%s: the tensors up to '%s' are too large", r->label, t->name);
        return false;
    }
    *next = (end + r->alignment - 1) & ~(r->alignment - 1);
    return true;
}

/* Offsets become file positions; the last byte of each tensor must lie in the file. */
static bool place_tensors(reader *r)
{
    uint64_t start = r->at; /* at most the file's size, far below 2^63 */
    start = (start + r->alignment - 1) & ~(r->alignment - 1);
    for (size_t i = r->first_tensor; i < r->first_tensor + r->n_tensors; i++) {
        ash_tensor *t = &r->g->index.tensors[i];
        if (start > r->size || t->offset > r->size - start ||
            t->bytes > r->size - start - t->offset) {
            FAIL(r, ASH_EFORMAT, r->size, "%s: cut: tensor '%s' needs bytes up to %" PRIu64
                 ", the file ends", r->label, t->name, start + t->offset + t->bytes);
            return false;
        }
        t->offset += start;
    }
    return true;
}

static bool read_tensors(reader *r)
{
    ash_tensor_index *idx = &r->g->index;
    uint64_t next = 0;
    if (r->n_tensors > idx->n_tensors - r->first_tensor) {
        FAIL(r, ASH_EFORMAT, 8, "%s: %" PRIu64 " tensors, but 'split.tensors.count' leaves %zu",
             r->label, r->n_tensors, idx->n_tensors - r->first_tensor);
        return false;
    }
    for (size_t i = 0; i < r->n_tensors; i++)
        if (!read_tensor(r, &idx->tensors[r->first_tensor + i], &next))
            return false;
    return place_tensors(r);
}

/* ---- files ---------------------------------------------------------------------------------- */

/* Makes room for the lists once the first part has told how many files and tensors there are. */
static bool reserve(reader *r)
{
    ash_tensor_index *idx = &r->g->index;
    const char *path = idx->files[0].path;
    ash_map map = idx->files[0].map;
    ash_tensor_file *files = ash_arena_calloc(&idx->arena, (size_t)r->split_count, sizeof *files);
    idx->tensors = ash_arena_calloc(&idx->arena, r->split_tensors ? (size_t)r->split_tensors : 1,
                                    sizeof *idx->tensors);
    if (!files || !idx->tensors) {
        r->rc = ash_err_nomem(r->err, r->label);
        return false;
    }
    files[0] = (ash_tensor_file){.path = path, .map = map};
    idx->files = files;
    idx->n_tensors = (size_t)r->split_tensors;
    return true;
}

static void start_file(reader *r, ash_gguf *g, uint32_t file, ash_err *err)
{
    const ash_tensor_file *f = &g->index.files[file];
    *r = (reader){.g = g, .file = file, .p = f->map.data, .size = f->map.size,
                  .label = ash_gguf_label(f->path), .err = err, .alignment = DEFAULT_ALIGNMENT};
}

/* PREFIX-00001-of-00004.gguf with these numbers? *prefix is the length before "-00001". */
static bool split_name(const char *path, uint64_t no, uint64_t count, size_t *prefix)
{
    char tail[40];
    int n = snprintf(tail, sizeof tail, "-%05" PRIu64 "-of-%05" PRIu64 ".gguf", no + 1, count);
    size_t len = strlen(path);
    if (len < (size_t)n || strcmp(path + len - n, tail) != 0)
        return false;
    *prefix = len - (size_t)n;
    return true;
}

static int check_first_part(reader *r, size_t *prefix)
{
    const char *path = r->g->index.files[0].path;
    if (r->split_no)
        return FAIL(r, ASH_EINVAL, -1, "%s: part %" PRIu64 " of %" PRIu64
                    " of a split model; open part 1", r->label, r->split_no + 1, r->split_count);
    if (r->g->index.files[0].map.fd < 0)
        return FAIL(r, ASH_EUNSUPPORTED, -1, "%s: a split model cannot be read from memory",
                    r->label);
    if (!split_name(path, 0, r->split_count, prefix))
        return FAIL(r, ASH_EFORMAT, -1, "%s: part 1 of %" PRIu64
                    " must be named PREFIX-00001-of-%05" PRIu64 ".gguf", r->label, r->split_count,
                    r->split_count);
    return 0;
}

/* Names of further parts are made from the first one's path, never taken from a file. */
static int open_part(ash_gguf *g, uint32_t i, size_t prefix, const reader *first, ash_err *err)
{
    ash_tensor_index *idx = &g->index;
    size_t room = prefix + 40;
    char *path = ash_arena_alloc(&idx->arena, room);
    if (!path)
        return ash_err_nomem(err, "path of a part");
    snprintf(path, room, "%.*s-%05u-of-%05" PRIu64 ".gguf", (int)prefix, idx->files[0].path, i + 1,
             first->split_count);
    idx->files[i] = (ash_tensor_file){.path = path, .map = {.fd = -1}};
    int rc = ash_fs_map(path, &idx->files[i].map, err);
    if (rc)
        return rc;
    idx->n_files = i + 1;
    return 0;
}

static int read_part(ash_gguf *g, uint32_t i, const reader *first, size_t first_tensor,
                     uint64_t *n_tensors, ash_err *err)
{
    reader r;
    ash_gguf meta = {0}; /* of a later part: only its split keys matter */
    start_file(&r, g, i, err);
    r.alignment = first->alignment;
    r.first_tensor = first_tensor;
    if (!read_header(&r) || !read_metadata(&r, &meta) || !read_alignment(&r, &meta) ||
        !read_split(&r, &meta))
        return r.rc;
    if (!r.is_split || r.split_no != i || r.split_count != first->split_count ||
        r.split_tensors != first->split_tensors)
        return FAIL(&r, ASH_EFORMAT, -1, "%s: must be part %u of %" PRIu64 " with %" PRIu64
                    " tensors in all, is part %" PRIu64 " of %" PRIu64 " with %" PRIu64, r.label,
                    i + 1, first->split_count, first->split_tensors, r.split_no + 1, r.split_count,
                    r.split_tensors);
    if (!read_tensors(&r))
        return r.rc;
    *n_tensors = r.n_tensors;
    return 0;
}

static int read_all(ash_gguf *g, ash_err *err)
{
    reader r;
    size_t prefix = 0;
    start_file(&r, g, 0, err);
    if (!read_header(&r) || !read_metadata(&r, g) || !read_alignment(&r, g) || !read_split(&r, g))
        return r.rc;
    if (r.split_count > 1 && check_first_part(&r, &prefix))
        return r.rc;
    if (!reserve(&r) || !read_tensors(&r))
        return r.rc;
    size_t done = (size_t)r.n_tensors;
    for (uint32_t i = 1; i < r.split_count; i++) {
        uint64_t n = 0;
        int rc = open_part(g, i, prefix, &r, err);
        if (!rc)
            rc = read_part(g, i, &r, done, &n, err);
        if (rc)
            return rc;
        done += (size_t)n;
    }
    if (done != r.split_tensors)
        return FAIL(&r, ASH_EFORMAT, -1,
                    "%s: 'split.tensors.count' is %" PRIu64 ", the parts hold %zu tensors", r.label,
                    r.split_tensors, done);
    return ash_tensor_index_seal(&g->index, err);
}

/* Takes over `map` also on failure. */
static int open_map(const char *path, ash_map map, ash_gguf **out, ash_err *err)
{
    ash_gguf *g = calloc(1, sizeof *g);
    if (!g) {
        if (map.fd >= 0)
            ash_fs_unmap(&map);
        return ash_err_nomem(err, path);
    }
    ash_tensor_index *idx = &g->index;
    ash_tensor_file one = {.map = map};
    ash_tensor_index_init(idx, MAX_INDEX_BYTES);
    idx->files = &one; /* until it is in the arena */
    idx->n_files = 1;
    one.path = ash_arena_strdup(&idx->arena, path);
    int rc = one.path ? 0 : ash_err_nomem(err, path);
    ash_tensor_file *files = rc ? NULL : ash_arena_calloc(&idx->arena, 1, sizeof *files);
    if (!rc && !files)
        rc = ash_err_nomem(err, path);
    if (!rc) {
        *files = one;
        idx->files = files;
        rc = read_all(g, err);
    }
    if (rc)
        ash_gguf_close(g);
    else
        *out = g;
    return rc;
}

int ash_gguf_open(const char *path, ash_gguf **out, ash_err *err)
{
    ash_map map;
    *out = NULL;
    int rc = ash_fs_map(path, &map, err);
    return rc ? rc : open_map(path, map, out, err);
}

int ash_gguf_open_memory(const void *bytes, size_t n, const char *name, ash_gguf **out, ash_err *err)
{
    *out = NULL;
    return open_map(name, (ash_map){.data = bytes, .size = n, .fd = -1}, out, err);
}

void ash_gguf_close(ash_gguf *g)
{
    if (!g)
        return;
    ash_tensor_index_release(&g->index);
    free(g);
}
