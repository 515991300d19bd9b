/* Owns typed access to GGUF metadata. Refuses values of another kind or out of range, naming the
 * key and what was found. Any thread. */
#include <endian.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "format/gguf_impl.h"

size_t ash_gguf_scalar_size(uint32_t type)
{
    static const uint8_t sizes[] = {
        [ASH_GGUF_U8] = 1,  [ASH_GGUF_I8] = 1,   [ASH_GGUF_U16] = 2, [ASH_GGUF_I16] = 2,
        [ASH_GGUF_U32] = 4, [ASH_GGUF_I32] = 4,  [ASH_GGUF_F32] = 4, [ASH_GGUF_BOOL] = 1,
        [ASH_GGUF_U64] = 8, [ASH_GGUF_I64] = 8,  [ASH_GGUF_F64] = 8,
    };
    return type < sizeof sizes ? sizes[type] : 0;
}

const char *ash_gguf_type_name(ash_gguf_type t)
{
    static const char *const names[] = {"uint8",   "int8", "uint16", "int16", "uint32", "int32",
                                        "float32", "bool", "string", "array", "uint64", "int64",
                                        "float64"};
    return (unsigned)t < sizeof names / sizeof *names ? names[t] : "unknown";
}

const char *ash_gguf_show(ash_str s, char out[80])
{
    size_t n = s.n < 64 ? s.n : 64;
    for (size_t i = 0; i < n; i++) out[i] = s.p[i] >= 0x20 && s.p[i] < 0x7F ? s.p[i] : '?';
    snprintf(out + n, 80 - n, "%s", s.n > n ? "..." : "");
    return out;
}

const char *ash_gguf_label(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && strlen(path) > 160 ? slash + 1 : path;
}

uint64_t ash_gguf_load(const uint8_t *p, size_t size)
{
    uint64_t v = 0;
    uint32_t half;
    switch (size) { /* most are lengths of strings and elements of 4 bytes */
    case 8:
        memcpy(&v, p, 8);
        return le64toh(v);
    case 4:
        memcpy(&half, p, 4);
        return le32toh(half);
    }
    for (size_t i = 0; i < size; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

const char *ash_gguf_path(const ash_gguf *g)
{
    return g->index.files[0].path;
}

const ash_tensor_index *ash_gguf_tensors(const ash_gguf *g)
{
    return &g->index;
}

uint32_t ash_gguf_version(const ash_gguf *g)
{
    return g->version;
}

size_t ash_gguf_kv_count(const ash_gguf *g)
{
    return g->n_kv;
}

const ash_gguf_kv *ash_gguf_kv_at(const ash_gguf *g, size_t i)
{
    return &g->kv[i];
}

const ash_gguf_kv *ash_gguf_find(const ash_gguf *g, const char *key)
{
    size_t n = strlen(key);
    if (!g->n_slots)
        return NULL;
    size_t i = ash_hash_bytes(key, n, g->seed) & (g->n_slots - 1);
    for (; g->slots[i]; i = (i + 1) & (g->n_slots - 1)) {
        const ash_gguf_kv *kv = &g->kv[g->slots[i] - 1];
        if (kv->key.n == n && memcmp(kv->key.p, key, n) == 0)
            return kv;
    }
    return NULL;
}

/* ---- numbers -------------------------------------------------------------------------------- */

/* A number from the file as sign and magnitude, or as a real. */
typedef struct number {
    enum { NOT_A_NUMBER, INTEGER, REAL } kind;
    bool negative;
    uint64_t magnitude;
    double real;
} number;

static number read_number(ash_gguf_type type, const uint8_t *p)
{
    number v = {.kind = INTEGER};
    size_t size = ash_gguf_scalar_size(type);
    uint64_t raw = ash_gguf_load(p, size);
    switch (type) {
    case ASH_GGUF_U8:
    case ASH_GGUF_U16:
    case ASH_GGUF_U32:
    case ASH_GGUF_U64:
    case ASH_GGUF_BOOL:
        v.magnitude = raw;
        break;
    case ASH_GGUF_I8:
    case ASH_GGUF_I16:
    case ASH_GGUF_I32:
    case ASH_GGUF_I64: {
        uint64_t sign = 1ull << (8 * size - 1);
        v.negative = (raw & sign) != 0;
        v.magnitude = v.negative ? (sign << 1) - raw : raw; /* sign << 1 is 0 for 64 bits */
        break;
    }
    case ASH_GGUF_F32: {
        uint32_t bits = (uint32_t)raw;
        float f;
        memcpy(&f, &bits, sizeof f);
        v = (number){.kind = REAL, .real = (double)f};
        break;
    }
    case ASH_GGUF_F64:
        v.kind = REAL;
        memcpy(&v.real, &raw, sizeof v.real);
        break;
    case ASH_GGUF_STRING:
    case ASH_GGUF_ARRAY:
    default:
        v.kind = NOT_A_NUMBER;
    }
    if (v.kind == REAL && isfinite(v.real) && fabs(v.real) < 0x1p63 && v.real == trunc(v.real)) {
        v.negative = v.real < 0;
        v.magnitude = (uint64_t)fabs(v.real);
    }
    return v;
}

static bool is_integer(number v)
{
    return v.kind == INTEGER ||
           (v.kind == REAL && isfinite(v.real) && fabs(v.real) < 0x1p63 && v.real == trunc(v.real));
}

static double as_real(number v)
{
    if (v.kind == REAL)
        return v.real;
    return v.negative ? -(double)v.magnitude : (double)v.magnitude;
}

/* What a value is, for "must be ..., is ...". */
static const char *describe(const ash_gguf_kv *kv, char out[96])
{
    char text[80];
    number v = read_number(kv->type, kv->data);
    if (kv->type == ASH_GGUF_ARRAY)
        snprintf(out, 96, "an array of %llu %s", (unsigned long long)kv->array.n,
                 ash_gguf_type_name(kv->array.type));
    else if (kv->type == ASH_GGUF_STRING)
        snprintf(out, 96, "the string '%.60s'",
                 ash_gguf_show((ash_str){(const char *)kv->data, (size_t)kv->bytes}, text));
    else if (v.kind == REAL)
        snprintf(out, 96, "the %s %g", ash_gguf_type_name(kv->type), v.real);
    else
        snprintf(out, 96, "the %s %s%llu", ash_gguf_type_name(kv->type), v.negative ? "-" : "",
                 (unsigned long long)v.magnitude);
    return out;
}

static int wrong(const ash_gguf *g, const ash_gguf_kv *kv, ash_err *err, const char *expected)
{
    char found[96], key[80];
    return ash_err_at(err, ASH_EFORMAT, (int64_t)kv->pos, "%s: key '%s' must be %s, is %s",
                      ash_gguf_label(ash_gguf_path(g)), ash_gguf_show(kv->key, key), expected,
                      describe(kv, found));
}

static int missing(const ash_gguf *g, const char *key, ash_err *err)
{
    return ash_err_set(err, ASH_ENOENT, "%s: key '%s' is missing",
                       ash_gguf_label(ash_gguf_path(g)), key);
}

int ash_gguf_get_u64(const ash_gguf *g, const char *key, uint64_t lo, uint64_t hi, uint64_t *out,
                     ash_err *err)
{
    const ash_gguf_kv *kv = ash_gguf_find(g, key);
    if (!kv)
        return 0;
    number v = read_number(kv->type, kv->data);
    if (!is_integer(v) || (v.negative && v.magnitude) || v.magnitude < lo || v.magnitude > hi) {
        char expected[80];
        snprintf(expected, sizeof expected, "an integer from %llu to %llu", (unsigned long long)lo,
                 (unsigned long long)hi);
        return wrong(g, kv, err, expected);
    }
    *out = v.magnitude;
    return 0;
}

int ash_gguf_get_i64(const ash_gguf *g, const char *key, int64_t lo, int64_t hi, int64_t *out,
                     ash_err *err)
{
    const ash_gguf_kv *kv = ash_gguf_find(g, key);
    if (!kv)
        return 0;
    number v = read_number(kv->type, kv->data);
    bool fits = is_integer(v) && v.magnitude <= (uint64_t)INT64_MAX + v.negative;
    int64_t x = fits ? (int64_t)(v.negative ? 0 - v.magnitude : v.magnitude) : 0;
    if (!fits || x < lo || x > hi) {
        char expected[80];
        snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)lo,
                 (long long)hi);
        return wrong(g, kv, err, expected);
    }
    *out = x;
    return 0;
}

int ash_gguf_get_f64(const ash_gguf *g, const char *key, double *out, ash_err *err)
{
    const ash_gguf_kv *kv = ash_gguf_find(g, key);
    if (!kv)
        return 0;
    number v = read_number(kv->type, kv->data);
    if (v.kind == NOT_A_NUMBER || kv->type == ASH_GGUF_BOOL || !isfinite(as_real(v)))
        return wrong(g, kv, err, "a finite number");
    *out = as_real(v);
    return 0;
}

int ash_gguf_get_bool(const ash_gguf *g, const char *key, bool *out, ash_err *err)
{
    const ash_gguf_kv *kv = ash_gguf_find(g, key);
    if (!kv)
        return 0;
    number v = read_number(kv->type, kv->data);
    if (v.kind != INTEGER || v.negative || v.magnitude > 1)
        return wrong(g, kv, err, "a bool");
    *out = v.magnitude != 0;
    return 0;
}

int ash_gguf_get_str(const ash_gguf *g, const char *key, ash_str *out, ash_err *err)
{
    const ash_gguf_kv *kv = ash_gguf_find(g, key);
    if (!kv)
        return 0;
    if (kv->type != ASH_GGUF_STRING)
        return wrong(g, kv, err, "a string");
    *out = (ash_str){(const char *)kv->data, (size_t)kv->bytes};
    return 0;
}

static bool array_fits(const ash_gguf_kv *kv, ash_gguf_type kind)
{
    if (kv->type != ASH_GGUF_ARRAY)
        return false;
    ash_gguf_type t = kv->array.type;
    bool real = t == ASH_GGUF_F32 || t == ASH_GGUF_F64;
    if (kind == ASH_GGUF_STRING || t == ASH_GGUF_STRING)
        return kind == t;
    return kind == ASH_GGUF_F64 ? t != ASH_GGUF_BOOL : !real;
}

int ash_gguf_get_array(const ash_gguf *g, const char *key, ash_gguf_type kind, ash_gguf_array *out,
                       ash_err *err)
{
    const ash_gguf_kv *kv = ash_gguf_find(g, key);
    if (!kv)
        return 0;
    if (!array_fits(kv, kind))
        return wrong(g, kv, err,
                     kind == ASH_GGUF_STRING ? "an array of strings"
                     : kind == ASH_GGUF_F64  ? "an array of numbers"
                                             : "an array of integers");
    *out = kv->array;
    return 0;
}

int ash_gguf_need_u64(const ash_gguf *g, const char *key, uint64_t lo, uint64_t hi, uint64_t *out,
                      ash_err *err)
{
    return ash_gguf_find(g, key) ? ash_gguf_get_u64(g, key, lo, hi, out, err)
                                 : missing(g, key, err);
}

int ash_gguf_need_f64(const ash_gguf *g, const char *key, double *out, ash_err *err)
{
    return ash_gguf_find(g, key) ? ash_gguf_get_f64(g, key, out, err) : missing(g, key, err);
}

int ash_gguf_need_str(const ash_gguf *g, const char *key, ash_str *out, ash_err *err)
{
    return ash_gguf_find(g, key) ? ash_gguf_get_str(g, key, out, err) : missing(g, key, err);
}

int ash_gguf_need_array(const ash_gguf *g, const char *key, ash_gguf_type kind,
                        ash_gguf_array *out, ash_err *err)
{
    return ash_gguf_find(g, key) ? ash_gguf_get_array(g, key, kind, out, err)
                                 : missing(g, key, err);
}

/* ---- arrays --------------------------------------------------------------------------------- */

int64_t ash_gguf_array_i64(const ash_gguf_array *a, uint64_t i)
{
    size_t size = ash_gguf_scalar_size(a->type);
    if (!size || i >= a->n)
        return 0;
    if (a->type == ASH_GGUF_I32) /* the types of all tokens */
        return (int32_t)ash_gguf_load(a->data + i * size, sizeof(int32_t));
    number v = read_number(a->type, a->data + i * size);
    if (v.kind != INTEGER)
        return 0;
    if (v.magnitude > (uint64_t)INT64_MAX)
        return v.negative ? INT64_MIN : INT64_MAX;
    return v.negative ? -(int64_t)v.magnitude : (int64_t)v.magnitude;
}

double ash_gguf_array_f64(const ash_gguf_array *a, uint64_t i)
{
    size_t size = ash_gguf_scalar_size(a->type);
    if (!size || i >= a->n)
        return 0;
    return as_real(read_number(a->type, a->data + i * size));
}

/* Checked again although open did: the file might have changed under the map. */
bool ash_gguf_array_next_str(const ash_gguf_array *a, uint64_t *at, ash_str *out)
{
    if (a->type != ASH_GGUF_STRING || *at > a->bytes || a->bytes - *at < 8)
        return false;
    uint64_t n = ash_gguf_load(a->data + *at, 8);
    if (n > a->bytes - *at - 8)
        return false;
    *out = (ash_str){(const char *)a->data + *at + 8, (size_t)n};
    *at += 8 + n;
    return true;
}
