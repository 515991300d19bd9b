/* Owns what a state dict's pickle may name and build: the table of globals, tensors and storages.
 * All else is refused. One thread at a time. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/limits.h"
#include "format/pickle_private.h"
#include "format/scan.h"

#define STORAGE(n, t)                                                                              \
    {                                                                                              \
        "torch", n "Storage", ASH_PICKLE_STORAGE_OF, ASH_DTYPE_##t                                 \
    }
#define DTYPE(n, t)                                                                                \
    {                                                                                              \
        "torch", n, ASH_PICKLE_DTYPE, ASH_DTYPE_##t                                                \
    }

static const ash_pickle_global globals[] = {
    {"collections", "OrderedDict", ASH_PICKLE_ORDERED_DICT, 0},
    {"torch._utils", "_rebuild_tensor_v2", ASH_PICKLE_REBUILD_V2, 0},
    {"torch._utils", "_rebuild_tensor", ASH_PICKLE_REBUILD, 0},
    {"torch._utils", "_rebuild_tensor_v3", ASH_PICKLE_REBUILD_V3, 0},
    {"torch._utils", "_rebuild_parameter", ASH_PICKLE_PARAMETER, 0},
    {"torch._utils", "_rebuild_parameter_with_state", ASH_PICKLE_PARAMETER, 0},
    {"torch.nn.parameter", "Parameter", ASH_PICKLE_PARAMETER, 0},
    {"torch", "Size", ASH_PICKLE_SIZE, 0},
    STORAGE("Float", F32),
    STORAGE("Half", F16),
    STORAGE("BFloat16", BF16),
    STORAGE("Double", F64),
    STORAGE("Long", I64),
    STORAGE("Int", I32),
    STORAGE("Short", I16),
    STORAGE("Char", I8),
    STORAGE("Byte", U8),
    STORAGE("Bool", BOOL),
    STORAGE("ComplexFloat", C64),
    {"torch.storage", "UntypedStorage", ASH_PICKLE_UNTYPED, ASH_DTYPE_U8},
    {"torch", "UntypedStorage", ASH_PICKLE_UNTYPED, ASH_DTYPE_U8},
    DTYPE("float32", F32),
    DTYPE("float", F32),
    DTYPE("float16", F16),
    DTYPE("half", F16),
    DTYPE("bfloat16", BF16),
    DTYPE("float64", F64),
    DTYPE("double", F64),
    DTYPE("int64", I64),
    DTYPE("long", I64),
    DTYPE("int32", I32),
    DTYPE("int", I32),
    DTYPE("int16", I16),
    DTYPE("short", I16),
    DTYPE("int8", I8),
    DTYPE("uint8", U8),
    DTYPE("bool", BOOL),
    DTYPE("uint16", U16),
    DTYPE("uint32", U32),
    DTYPE("uint64", U64),
    DTYPE("complex64", C64),
    DTYPE("cfloat", C64),
    DTYPE("float8_e4m3fn", F8_E4M3),
    DTYPE("float8_e5m2", F8_E5M2),
    DTYPE("float8_e4m3fnuz", F8_E4M3FNUZ),
    DTYPE("float8_e5m2fnuz", F8_E5M2FNUZ),
    DTYPE("float8_e8m0fnu", F8_E8M0),
};

const ash_pickle_global *ash_pickle_find_global(ash_str module, ash_str name, int64_t *index)
{
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (ash_str_eqc(name, globals[i].name) && ash_str_eqc(module, globals[i].module)) {
            *index = (int64_t)i;
            return &globals[i];
        }
    return NULL;
}

const ash_pickle_global *ash_pickle_global_at(int64_t index)
{
    return &globals[index];
}

const char *ash_pickle_opcode_name(uint8_t op)
{
    static const struct {
        uint8_t op;
        const char *name;
    } names[] = {
        {'0', "POP"},
        {'1', "POP_MARK"},
        {'2', "DUP"},
        {'B', "BINBYTES"},
        {'C', "SHORT_BINBYTES"},
        {'F', "FLOAT"},
        {'I', "INT"},
        {'L', "LONG"},
        {'P', "PERSID"},
        {'S', "STRING"},
        {'T', "BINSTRING"},
        {'V', "UNICODE"},
        {'d', "DICT"},
        {'g', "GET"},
        {'i', "INST"},
        {'l', "LIST"},
        {'o', "OBJ"},
        {'p', "PUT"},
        {0x82, "EXT1"},
        {0x83, "EXT2"},
        {0x84, "EXT4"},
        {0x8B, "LONG4"},
        {0x8C, "SHORT_BINUNICODE"},
        {0x8D, "BINUNICODE8"},
        {0x8E, "BINBYTES8"},
        {0x90, "ADDITEMS"},
        {0x91, "FROZENSET"},
        {0x92, "NEWOBJ_EX"},
        {0x93, "STACK_GLOBAL"},
        {0x94, "MEMOIZE"},
        {0x95, "FRAME"},
        {0x96, "BYTEARRAY8"},
        {0x97, "NEXT_BUFFER"},
        {0x98, "READONLY_BUFFER"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].op == op) return names[i].name;
    return NULL;
}

static const ash_pickle_global *global_of(const ash_pickle_value *v)
{
    return v->kind == ASH_PICKLE_GLOBAL ? &globals[v->i] : NULL;
}

/* ---- storages -----------------------------------------------------------------------------------
 */

static size_t slot_of(const ash_pickle *m, ash_str key)
{
    size_t i = ash_hash_bytes(key.p, key.n, m->seed) & (m->n_slots - 1);
    while (m->slots[i] && !ash_str_eq(m->roots[m->slots[i] - 1]->key, key))
        i = (i + 1) & (m->n_slots - 1);
    return i;
}

ash_pickle_root *ash_pickle_find_root(const ash_pickle *m, ash_str key)
{
    uint32_t at = m->n_slots ? m->slots[slot_of(m, key)] : 0;
    return at ? m->roots[at - 1] : NULL;
}

static bool grow_roots(ash_pickle *m)
{
    size_t cap = m->cap_roots ? 2 * m->cap_roots : 64, n_slots = ash_hash_slots(cap);
    ash_pickle_root **roots = realloc(m->roots, cap * sizeof *roots);
    if (roots) m->roots = roots;
    uint32_t *slots = roots ? calloc(n_slots, sizeof *slots) : NULL;
    if (!slots) {
        m->rc = ash_err_nomem(m->err, m->label);
        return false;
    }
    free(m->slots);
    m->slots = slots;
    m->n_slots = n_slots;
    m->cap_roots = cap;
    for (size_t i = 0; i < m->n_roots; i++)
        m->slots[slot_of(m, m->roots[i]->key)] = (uint32_t)i + 1;
    return true;
}

static ash_pickle_root *need_root(ash_pickle *m, ash_str key, uint32_t elem, uint64_t bytes,
                                  int64_t pos)
{
    char shown[208];
    ash_pickle_root *root = ash_pickle_find_root(m, key);
    if (root && root->bytes == bytes) return root;
    if (root) {
        ash_pickle_fail(m, ASH_EFORMAT, pos,
                        "storage '%s' has %" PRIu64 " bytes here and %" PRIu64 " before",
                        ash_scan_show(key, shown), bytes, root->bytes);
        return NULL;
    }
    if (m->n_roots == ASH_MAX_TENSORS) {
        ash_pickle_fail(m, ASH_ELIMIT, pos, "more than %u storages", ASH_MAX_TENSORS);
        return NULL;
    }
    if (m->n_roots == m->cap_roots && !grow_roots(m)) return NULL;
    root = ash_pickle_alloc(m, 1, sizeof *root);
    if (!root) return NULL;
    *root = (ash_pickle_root){.key = key, .elem = elem, .bytes = bytes, .pos = pos};
    m->roots[m->n_roots++] = root;
    m->slots[slot_of(m, key)] = (uint32_t)m->n_roots;
    return root;
}

/* (view_key, offset, size) of the legacy form: a run of the root's elements. */
static bool take_view(ash_pickle *m, const ash_pickle_value *v, ash_pickle_storage *s, int64_t pos)
{
    if (v->kind == ASH_PICKLE_NONE) return true;
    const ash_pickle_value *t = v->kind == ASH_PICKLE_TUPLE && v->list->n == 3 ? v->list->v : NULL;
    if (!t || t[1].kind != ASH_PICKLE_INT || t[2].kind != ASH_PICKLE_INT || t[1].i < 0 ||
        t[2].i < 0 || (uint64_t)t[1].i > s->n || (uint64_t)t[2].i > s->n - (uint64_t)t[1].i)
        return ash_pickle_fail(m, ASH_EFORMAT, pos,
                               "a view of a storage must be (key, offset, size) within it");
    s->first = (uint64_t)t[1].i;
    s->n = (uint64_t)t[2].i;
    return true;
}

/* ('storage', class, key, location, elements[, view]): the location, a device, does not matter. */
bool ash_pickle_persistent(ash_pickle *m, const ash_pickle_value *id, int64_t pos)
{
    const ash_pickle_value *t = id->kind == ASH_PICKLE_TUPLE ? id->list->v : NULL;
    size_t n = t ? id->list->n : 0;
    uint64_t bytes;
    if (n && t[0].kind == ASH_PICKLE_STR && ash_str_eqc(t[0].s, "module"))
        return ash_pickle_fail(m, ASH_EUNSUPPORTED, pos,
                               "a whole module with its source is refused; save its state_dict()");
    if ((n != 5 && n != 6) || t[0].kind != ASH_PICKLE_STR || !ash_str_eqc(t[0].s, "storage"))
        return ash_pickle_fail(m, ASH_EFORMAT, pos,
                               "a persistent id must be a storage's 5 or 6 fields");
    const ash_pickle_global *cls = global_of(&t[1]);
    if (!cls || (cls->what != ASH_PICKLE_STORAGE_OF && cls->what != ASH_PICKLE_UNTYPED))
        return ash_pickle_fail(m, ASH_EFORMAT, pos,
                               "a persistent id must name a class of storages");
    if (t[2].kind != ASH_PICKLE_STR)
        return ash_pickle_fail(m, ASH_EFORMAT, pos, "a storage's key must be a string");
    if (t[4].kind != ASH_PICKLE_INT || t[4].i < 0 ||
        !ash_dtype_bytes(cls->dtype, (uint64_t)t[4].i, &bytes) || bytes > INT64_MAX)
        return ash_pickle_fail(m, ASH_EFORMAT, pos,
                               "a storage's number of elements is negative or too large");
    ash_pickle_storage *s = ash_pickle_alloc(m, 1, sizeof *s);
    if (!s) return false;
    *s = (ash_pickle_storage){
        .dtype = cls->dtype, .untyped = cls->what == ASH_PICKLE_UNTYPED, .n = (uint64_t)t[4].i};
    s->root = need_root(m, t[2].s, ash_dtype_get(cls->dtype)->block_bytes, bytes, pos);
    if (!s->root || (n == 6 && !take_view(m, &t[5], s, pos))) return false;
    return ash_pickle_push(m, (ash_pickle_value){.kind = ASH_PICKLE_STORAGE, .storage = s});
}

/* ---- calls --------------------------------------------------------------------------------------
 */

/* A tuple only: a list could still change. */
static bool is_ints(const ash_pickle_value *v)
{
    if (v->kind != ASH_PICKLE_TUPLE) return false;
    for (size_t i = 0; i < v->list->n; i++)
        if (v->list->v[i].kind != ASH_PICKLE_INT) return false;
    return true;
}

static bool rebuild(ash_pickle *m, const ash_pickle_global *g, const ash_pickle_value *a, size_t n,
                    int64_t pos)
{
    size_t least = g->what == ASH_PICKLE_REBUILD ? 4 : g->what == ASH_PICKLE_REBUILD_V2 ? 6 : 7;
    size_t most = g->what == ASH_PICKLE_REBUILD ? 4 : least + 1;
    if (n < least || n > most || a[0].kind != ASH_PICKLE_STORAGE || a[1].kind != ASH_PICKLE_INT ||
        !is_ints(&a[2]) || !is_ints(&a[3]) || a[2].list->n != a[3].list->n)
        return ash_pickle_fail(
            m, ASH_EFORMAT, pos,
            "%s must be given a storage, an offset, and as many sizes as strides", g->name);
    ash_dtype dtype = a[0].storage->dtype;
    if (g->what == ASH_PICKLE_REBUILD_V3) {
        const ash_pickle_global *t = global_of(&a[6]);
        if (!t || t->what != ASH_PICKLE_DTYPE)
            return ash_pickle_fail(m, ASH_EFORMAT, pos, "%s must be given a type of elements",
                                   g->name);
        dtype = t->dtype;
    } else if (a[0].storage->untyped) {
        return ash_pickle_fail(m, ASH_EFORMAT, pos, "%s must be given a typed storage", g->name);
    }
    ash_pickle_tensor *t = ash_pickle_alloc(m, 1, sizeof *t);
    if (!t) return false;
    *t = (ash_pickle_tensor){.storage = a[0].storage,
                             .dtype = dtype,
                             .offset = a[1].i,
                             .size = a[2].list,
                             .stride = a[3].list,
                             .pos = pos};
    return ash_pickle_push(m, (ash_pickle_value){.kind = ASH_PICKLE_TENSOR, .tensor = t});
}

/* OrderedDict(), or as Python 2 wrote it OrderedDict([[key, value], ...]). */
static bool ordered_dict(ash_pickle *m, const ash_pickle_value *a, size_t n, int64_t pos)
{
    ash_pickle_list *l = ash_pickle_alloc(m, 1, sizeof *l);
    if (!l) return false;
    if (n > 1 || (n && a[0].kind != ASH_PICKLE_LIST))
        return ash_pickle_fail(m, ASH_EFORMAT, pos,
                               "OrderedDict must be given nothing or a list of pairs");
    for (size_t i = 0; n && i < a[0].list->n; i++) {
        const ash_pickle_value *pair = &a[0].list->v[i];
        if ((pair->kind != ASH_PICKLE_LIST && pair->kind != ASH_PICKLE_TUPLE) || pair->list->n != 2)
            return ash_pickle_fail(m, ASH_EFORMAT, pos,
                                   "OrderedDict must be given nothing or a list of pairs");
        if (!ash_pickle_append(m, l, pair->list->v, 2)) return false;
    }
    return ash_pickle_push(m, (ash_pickle_value){.kind = ASH_PICKLE_DICT, .list = l});
}

bool ash_pickle_reduce(ash_pickle *m, const ash_pickle_value *callee, const ash_pickle_value *args,
                       int64_t pos)
{
    const ash_pickle_global *g = global_of(callee);
    const ash_pickle_value *a = args->list->v;
    size_t n = args->list->n;
    if (!g) return ash_pickle_fail(m, ASH_EFORMAT, pos, "REDUCE must call a global");
    switch (g->what) {
    case ASH_PICKLE_REBUILD:
    case ASH_PICKLE_REBUILD_V2:
    case ASH_PICKLE_REBUILD_V3:
        return rebuild(m, g, a, n, pos);
    case ASH_PICKLE_ORDERED_DICT:
        return ordered_dict(m, a, n, pos);
    case ASH_PICKLE_PARAMETER:
        if (!n || a[0].kind != ASH_PICKLE_TENSOR)
            return ash_pickle_fail(m, ASH_EFORMAT, pos, "%s must be given a tensor", g->name);
        return ash_pickle_push(m, a[0]);
    case ASH_PICKLE_SIZE:
        if (n != 1 || !is_ints(&a[0]))
            return ash_pickle_fail(m, ASH_EFORMAT, pos,
                                   "torch.Size must be given a tuple of whole numbers");
        return ash_pickle_push(m, (ash_pickle_value){.kind = ASH_PICKLE_TUPLE, .list = a[0].list});
    default:
        return ash_pickle_fail(m, ASH_EUNSUPPORTED, pos, "%s.%s is not called", g->module, g->name);
    }
}

bool ash_pickle_new_object(ash_pickle *m, const ash_pickle_value *cls, const ash_pickle_value *args,
                           int64_t pos)
{
    const ash_pickle_global *g = global_of(cls);
    if (!g || g->what != ASH_PICKLE_ORDERED_DICT || args->list->n)
        return ash_pickle_fail(m, ASH_EUNSUPPORTED, pos,
                               "NEWOBJ of anything but OrderedDict() is refused");
    return ordered_dict(m, NULL, 0, pos);
}
