/* Owns the pickle machine: its stack, its memo and the opcodes that move values about. Refuses
 * every opcode that is not on the list, by name and byte. One thread at a time. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "format/pickle_private.h"
#include "format/scan.h"

enum {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_BINFLOAT = 'G',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_NONE = 'N',
    OP_BINPERSID = 'Q',
    OP_REDUCE = 'R',
    OP_SHORT_BINSTRING = 'U',
    OP_BINUNICODE = 'X',
    OP_EMPTY_LIST = ']',
    OP_APPEND = 'a',
    OP_BUILD = 'b',
    OP_GLOBAL = 'c',
    OP_APPENDS = 'e',
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_SETITEM = 's',
    OP_TUPLE = 't',
    OP_SETITEMS = 'u',
    OP_EMPTY_DICT = '}',
    OP_EMPTY_TUPLE = ')',
    OP_PROTO = 0x80,
    OP_NEWOBJ = 0x81,
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_LONG1 = 0x8A,
    OP_EMPTY_SET = 0x8F,
};

void ash_pickle_init(ash_pickle *m, const char *label, ash_arena *arena, ash_err *err)
{
    *m = (ash_pickle){.label = label, .arena = arena, .err = err};
    m->seed[0] = ash_rng_entropy();
    m->seed[1] = ash_rng_entropy();
}

void ash_pickle_release(ash_pickle *m)
{
    free(m->stack);
    free(m->memo);
    free(m->roots);
    free(m->slots);
    *m = (ash_pickle){0};
}

bool ash_pickle_fail(ash_pickle *m, int code, int64_t pos, const char *fmt, ...)
{
    char what[400];
    va_list ap;
    if (m->rc) return false;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    m->rc = ash_err_at(m->err, code, pos, "%s: pickle: %s", m->label, what);
    return false;
}

void *ash_pickle_alloc(ash_pickle *m, size_t n, size_t size)
{
    void *p = ash_arena_calloc(m->arena, n, size);
    if (p) return p;
    if (m->arena->held > m->arena->max / 2)
        ash_pickle_fail(m, ASH_ELIMIT, m->base + (int64_t)m->at, "values over %zu bytes",
                        m->arena->max);
    else if (!m->rc)
        m->rc = ash_err_nomem(m->err, m->label);
    return NULL;
}

/* Room for one more in a heap array of values. */
static bool grow(ash_pickle *m, ash_pickle_value **p, size_t n, size_t *cap, size_t max,
                 const char *what)
{
    if (n < *cap) return true;
    if (n >= max)
        return ash_pickle_fail(m, ASH_ELIMIT, m->base + (int64_t)m->at,
                               "%s of more than %zu values", what, max);
    size_t more = *cap ? 2 * *cap : 256;
    while (more <= n) more *= 2;
    ash_pickle_value *q = realloc(*p, more * sizeof *q);
    if (!q) {
        m->rc = ash_err_nomem(m->err, m->label);
        return false;
    }
    *p = q;
    *cap = more;
    return true;
}

bool ash_pickle_push(ash_pickle *m, ash_pickle_value v)
{
    if (!grow(m, &m->stack, m->n_stack, &m->cap_stack, ASH_MAX_PICKLE_STACK, "a stack"))
        return false;
    m->stack[m->n_stack++] = v;
    return true;
}

bool ash_pickle_append(ash_pickle *m, ash_pickle_list *l, const ash_pickle_value *v, size_t n)
{
    if (n > l->cap - l->n) {
        size_t cap = l->cap ? 2 * l->cap : n;
        while (cap < l->n + n) cap *= 2;
        ash_pickle_value *p = ash_pickle_alloc(m, cap, sizeof *p);
        if (!p) return false;
        if (l->n) memcpy(p, l->v, l->n * sizeof *p);
        l->v = p;
        l->cap = cap;
    }
    if (n) memcpy(l->v + l->n, v, n * sizeof *v);
    l->n += n;
    return true;
}

/* ---- reading ------------------------------------------------------------------------------------
 */

static int64_t here(const ash_pickle *m)
{
    return m->base + (int64_t)m->at;
}

static bool take(ash_pickle *m, size_t n, const uint8_t **out)
{
    if (n > m->n - m->at)
        return ash_pickle_fail(m, m->n == ASH_MAX_PICKLE ? ASH_ELIMIT : ASH_EFORMAT, here(m),
                               "cut: %zu bytes are needed, %zu are left", n, m->n - m->at);
    *out = m->p + m->at;
    m->at += n;
    return true;
}

static bool take_uint(ash_pickle *m, size_t size, uint64_t *out)
{
    const uint8_t *p;
    if (!take(m, size, &p)) return false;
    *out = 0;
    for (size_t i = size; i-- > 0;) *out = *out << 8 | p[i];
    return true;
}

static bool take_text(ash_pickle *m, size_t size_bytes, bool utf8)
{
    uint64_t n;
    const uint8_t *p;
    int64_t pos = here(m);
    if (!take_uint(m, size_bytes, &n) || !take(m, (size_t)n, &p)) return false;
    if (utf8 && !ash_utf8_valid((const char *)p, (size_t)n))
        return ash_pickle_fail(m, ASH_EFORMAT, pos, "a string is not UTF-8");
    return ash_pickle_push(
        m, (ash_pickle_value){.kind = ASH_PICKLE_STR, .s = {(const char *)p, (size_t)n}});
}

static bool take_line(ash_pickle *m, ash_str *out)
{
    const uint8_t *p = m->p + m->at, *end = memchr(p, '\n', m->n - m->at);
    if (!end) return ash_pickle_fail(m, ASH_EFORMAT, here(m), "cut in the name of a global");
    *out = (ash_str){(const char *)p, (size_t)(end - p)};
    m->at += out->n + 1;
    return true;
}

static bool take_global(ash_pickle *m, int64_t pos)
{
    ash_str module, name;
    char a[208], b[208];
    int64_t index;
    if (!take_line(m, &module) || !take_line(m, &name)) return false;
    if (!ash_pickle_find_global(module, name, &index))
        return ash_pickle_fail(
            m, ASH_EUNSUPPORTED, pos,
            "global '%.100s.%.100s' is refused: only tensors are built, nothing is called",
            ash_scan_show(module, a), ash_scan_show(name, b));
    return ash_pickle_push(m, (ash_pickle_value){.kind = ASH_PICKLE_GLOBAL, .i = index});
}

static bool take_int(ash_pickle *m, size_t size)
{
    uint64_t v;
    if (!take_uint(m, size, &v)) return false;
    int64_t i = size == 4 ? (int32_t)(uint32_t)v : (int64_t)v;
    return ash_pickle_push(m, (ash_pickle_value){.kind = ASH_PICKLE_INT, .i = i});
}

static bool take_long(ash_pickle *m)
{
    uint64_t n, v = 0;
    const uint8_t *p;
    if (!take_uint(m, 1, &n) || !take(m, (size_t)n, &p)) return false;
    if (n > 8)
        return ash_pickle_push(
            m, (ash_pickle_value){.kind = ASH_PICKLE_LONG, .s = {(const char *)p, (size_t)n}});
    if (n && p[n - 1] & 0x80) v = ~(uint64_t)0;
    for (size_t i = (size_t)n; i-- > 0;) v = v << 8 | p[i];
    return ash_pickle_push(m, (ash_pickle_value){.kind = ASH_PICKLE_INT, .i = (int64_t)v});
}

static bool take_float(ash_pickle *m)
{
    const uint8_t *p;
    uint64_t v = 0;
    ash_pickle_value out = {.kind = ASH_PICKLE_FLOAT};
    if (!take(m, 8, &p)) return false;
    for (int i = 0; i < 8; i++) v = v << 8 | p[i];
    memcpy(&out.f, &v, 8);
    return ash_pickle_push(m, out);
}

/* ---- stack and memo -----------------------------------------------------------------------------
 */

static bool pop(ash_pickle *m, int64_t pos, ash_pickle_value *out)
{
    if (!m->n_stack || m->stack[m->n_stack - 1].kind == ASH_PICKLE_MARK)
        return ash_pickle_fail(m, ASH_EFORMAT, pos, "an opcode finds no value on the stack");
    *out = m->stack[--m->n_stack];
    return true;
}

/* The values over the last mark: *first is the place of the first. The mark goes with them, once
 * the caller sets n_stack to *first - 1. */
static bool find_mark(ash_pickle *m, int64_t pos, size_t *first)
{
    for (size_t i = m->n_stack; i > 0; i--)
        if (m->stack[i - 1].kind == ASH_PICKLE_MARK) {
            *first = i;
            return true;
        }
    return ash_pickle_fail(m, ASH_EFORMAT, pos, "an opcode finds no mark on the stack");
}

static bool memo_put(ash_pickle *m, size_t index_bytes, int64_t pos)
{
    uint64_t i;
    if (!take_uint(m, index_bytes, &i)) return false;
    if (!m->n_stack || m->stack[m->n_stack - 1].kind == ASH_PICKLE_MARK)
        return ash_pickle_fail(m, ASH_EFORMAT, pos, "an opcode finds no value on the stack");
    if (i > m->n_memo) /* picklers count */
        return ash_pickle_fail(m, ASH_EFORMAT, pos, "memo %" PRIu64 " is put after %zu", i,
                               m->n_memo);
    if (i == m->n_memo) {
        if (!grow(m, &m->memo, m->n_memo, &m->cap_memo, ASH_MAX_PICKLE_MEMO, "a memo"))
            return false;
        m->n_memo++;
    }
    m->memo[i] = m->stack[m->n_stack - 1];
    return true;
}

static bool memo_get(ash_pickle *m, size_t index_bytes, int64_t pos)
{
    uint64_t i;
    if (!take_uint(m, index_bytes, &i)) return false;
    if (i >= m->n_memo)
        return ash_pickle_fail(m, ASH_EFORMAT, pos, "memo %" PRIu64 " is not set", i);
    return ash_pickle_push(m, m->memo[i]);
}

/* ---- containers ---------------------------------------------------------------------------------
 */

static bool push_list(ash_pickle *m, ash_pickle_kind kind)
{
    ash_pickle_list *l = ash_pickle_alloc(m, 1, sizeof *l);
    return l && ash_pickle_push(m, (ash_pickle_value){.kind = kind, .list = l});
}

/* The values from place `first` on become a tuple. */
static bool make_tuple(ash_pickle *m, size_t first, size_t keep)
{
    ash_pickle_list *l = ash_pickle_alloc(m, 1, sizeof *l);
    if (!l || !ash_pickle_append(m, l, m->stack + first, m->n_stack - first)) return false;
    m->n_stack = keep;
    return ash_pickle_push(m, (ash_pickle_value){.kind = ASH_PICKLE_TUPLE, .list = l});
}

static bool tuple_of(ash_pickle *m, size_t n, int64_t pos)
{
    for (size_t i = 0; i < n; i++)
        if (m->n_stack < n || m->stack[m->n_stack - 1 - i].kind == ASH_PICKLE_MARK)
            return ash_pickle_fail(m, ASH_EFORMAT, pos, "an opcode finds no value on the stack");
    return make_tuple(m, m->n_stack - n, m->n_stack - n);
}

static bool tuple_to_mark(ash_pickle *m, int64_t pos)
{
    size_t first = 0;
    return find_mark(m, pos, &first) && make_tuple(m, first, first - 1);
}

/* Values from place `first` on go into the container that lies `below` places under them. */
static bool add_items(ash_pickle *m, size_t first, size_t below, ash_pickle_kind kind, int64_t pos)
{
    size_t n = m->n_stack - first;
    const ash_pickle_value *to = first > below ? &m->stack[first - 1 - below] : NULL;
    if (!to || to->kind != kind)
        return ash_pickle_fail(m, ASH_EFORMAT, pos, "an opcode finds no %s to add to",
                               kind == ASH_PICKLE_LIST ? "list" : "dict");
    if (kind == ASH_PICKLE_DICT && n % 2)
        return ash_pickle_fail(m, ASH_EFORMAT, pos, "a key without a value");
    if (!ash_pickle_append(m, to->list, m->stack + first, n)) return false;
    m->n_stack = first - below;
    return true;
}

static bool add_to_mark(ash_pickle *m, ash_pickle_kind kind, int64_t pos)
{
    size_t first = 0;
    return find_mark(m, pos, &first) && add_items(m, first, 1, kind, pos);
}

static bool add_last(ash_pickle *m, size_t n, ash_pickle_kind kind, int64_t pos)
{
    for (size_t i = 0; i < n; i++)
        if (m->n_stack <= n || m->stack[m->n_stack - 1 - i].kind == ASH_PICKLE_MARK)
            return ash_pickle_fail(m, ASH_EFORMAT, pos, "an opcode finds no value on the stack");
    return add_items(m, m->n_stack - n, 0, kind, pos);
}

/* A state dict's "_metadata" (versions of its modules) comes so; it says nothing of the tensors. */
static bool build(ash_pickle *m, int64_t pos)
{
    ash_pickle_value state;
    if (!pop(m, pos, &state)) return false;
    if (!m->n_stack || m->stack[m->n_stack - 1].kind != ASH_PICKLE_DICT ||
        state.kind != ASH_PICKLE_DICT)
        return ash_pickle_fail(m, ASH_EUNSUPPORTED, pos,
                               "BUILD of anything but a dict's state is refused");
    return true;
}

/* ---- the machine --------------------------------------------------------------------------------
 */

static bool call(ash_pickle *m, bool new_object, int64_t pos)
{
    ash_pickle_value callee, args;
    if (!pop(m, pos, &args) || !pop(m, pos, &callee)) return false;
    if (args.kind != ASH_PICKLE_TUPLE)
        return ash_pickle_fail(m, ASH_EFORMAT, pos, "a call's arguments must be a tuple");
    return new_object ? ash_pickle_new_object(m, &callee, &args, pos)
                      : ash_pickle_reduce(m, &callee, &args, pos);
}

static bool push_bool(ash_pickle *m, bool b)
{
    return ash_pickle_push(m, (ash_pickle_value){.kind = ASH_PICKLE_BOOL, .i = b});
}

static bool refuse_opcode(ash_pickle *m, uint8_t op, int64_t pos)
{
    const char *name = ash_pickle_opcode_name(op);
    if (!name) return ash_pickle_fail(m, ASH_EFORMAT, pos, "0x%02x is no opcode", op);
    return ash_pickle_fail(m, ASH_EUNSUPPORTED, pos,
                           "opcode %s is refused: a state dict needs none", name);
}

static bool step(ash_pickle *m, uint8_t op, int64_t pos)
{
    ash_pickle_value v;
    uint64_t proto;
    switch (op) {
    case OP_PROTO:
        return take_uint(m, 1, &proto) &&
               (proto <= 5 || ash_pickle_fail(m, ASH_EUNSUPPORTED, pos,
                                              "protocol %" PRIu64 " is not known", proto));
    case OP_MARK:
        return ash_pickle_push(m, (ash_pickle_value){.kind = ASH_PICKLE_MARK});
    case OP_NONE:
        return ash_pickle_push(m, (ash_pickle_value){.kind = ASH_PICKLE_NONE});
    case OP_NEWTRUE:
        return push_bool(m, true);
    case OP_NEWFALSE:
        return push_bool(m, false);
    case OP_BININT:
        return take_int(m, 4);
    case OP_BININT1:
        return take_int(m, 1);
    case OP_BININT2:
        return take_int(m, 2);
    case OP_LONG1:
        return take_long(m);
    case OP_BINFLOAT:
        return take_float(m);
    case OP_BINUNICODE:
        return take_text(m, 4, true);
    case OP_SHORT_BINSTRING:
        return take_text(m, 1, false);
    case OP_EMPTY_LIST:
        return push_list(m, ASH_PICKLE_LIST);
    case OP_EMPTY_TUPLE:
        return push_list(m, ASH_PICKLE_TUPLE);
    case OP_EMPTY_DICT:
        return push_list(m, ASH_PICKLE_DICT);
    case OP_EMPTY_SET:
        return ash_pickle_push(m, (ash_pickle_value){.kind = ASH_PICKLE_SET});
    case OP_TUPLE:
        return tuple_to_mark(m, pos);
    case OP_TUPLE1:
        return tuple_of(m, 1, pos);
    case OP_TUPLE2:
        return tuple_of(m, 2, pos);
    case OP_TUPLE3:
        return tuple_of(m, 3, pos);
    case OP_APPEND:
        return add_last(m, 1, ASH_PICKLE_LIST, pos);
    case OP_APPENDS:
        return add_to_mark(m, ASH_PICKLE_LIST, pos);
    case OP_SETITEM:
        return add_last(m, 2, ASH_PICKLE_DICT, pos);
    case OP_SETITEMS:
        return add_to_mark(m, ASH_PICKLE_DICT, pos);
    case OP_BINPUT:
        return memo_put(m, 1, pos);
    case OP_LONG_BINPUT:
        return memo_put(m, 4, pos);
    case OP_BINGET:
        return memo_get(m, 1, pos);
    case OP_LONG_BINGET:
        return memo_get(m, 4, pos);
    case OP_GLOBAL:
        return take_global(m, pos);
    case OP_REDUCE:
        return call(m, false, pos);
    case OP_NEWOBJ:
        return call(m, true, pos);
    case OP_BUILD:
        return build(m, pos);
    case OP_BINPERSID:
        return pop(m, pos, &v) && ash_pickle_persistent(m, &v, pos);
    default:
        return refuse_opcode(m, op, pos);
    }
}

int ash_pickle_run(ash_pickle *m, const uint8_t *p, size_t n, int64_t base, ash_pickle_value *out)
{
    m->p = p;
    m->n = n < ASH_MAX_PICKLE ? n : ASH_MAX_PICKLE;
    m->at = m->n_stack = m->n_memo = 0;
    m->base = base;
    while (!m->rc) {
        const uint8_t *op = NULL;
        int64_t pos = here(m);
        if (!take(m, 1, &op)) break;
        if (*op == OP_STOP) {
            if (pop(m, pos, out) && m->n_stack)
                ash_pickle_fail(m, ASH_EFORMAT, pos, "STOP with %zu more values on the stack",
                                m->n_stack);
            break;
        }
        if (!step(m, *op, pos)) break;
    }
    return m->rc;
}

const ash_pickle_value *ash_pickle_get(const ash_pickle_value *v, const char *key)
{
    if (v->kind != ASH_PICKLE_DICT) return NULL;
    for (size_t i = v->list->n; i >= 2; i -= 2) {
        const ash_pickle_value *k = &v->list->v[i - 2];
        if (k->kind == ASH_PICKLE_STR && ash_str_eqc(k->s, key)) return k + 1;
    }
    return NULL;
}
