/* Owns values of a rendering: truth, equality, order, containers. Refuses what Python refuses
 * (unhashable keys, types without an order). Works on one run, one thread. */
#include <math.h>
#include <string.h>

#include "text/template_impl.h"

const char *ash_tval_type(ash_tval v)
{
    switch (v.t) {
    case ASH_T_MISSING:
    case ASH_T_UNDEF: return "Undefined";
    case ASH_T_NONE: return "NoneType";
    case ASH_T_BOOL: return "bool";
    case ASH_T_INT: return "int";
    case ASH_T_FLOAT: return "float";
    case ASH_T_STR: return v.s->markup ? "Markup" : "str";
    case ASH_T_LIST: return "list";
    case ASH_T_TUPLE: return "tuple";
    case ASH_T_DICT: return "dict";
    case ASH_T_VIEW:
        return v.view->kind == ASH_TVIEW_KEYS     ? "dict_keys"
               : v.view->kind == ASH_TVIEW_VALUES ? "dict_values" : "dict_items";
    case ASH_T_RANGE: return "range";
    case ASH_T_ITER: return v.iter->name;
    case ASH_T_NS: return "Namespace";
    case ASH_T_LOOP: return "LoopContext";
    case ASH_T_MACRO: return "Macro";
    case ASH_T_METHOD: return "builtin_function_or_method";
    case ASH_T_FUNC: return "function";
    }
    return "object";
}

bool ash_tval_len(ash_tval v, size_t *out)
{
    switch (v.t) {
    case ASH_T_UNDEF: *out = 0; return true;
    case ASH_T_STR: *out = v.s->cps; return true;
    case ASH_T_LIST:
    case ASH_T_TUPLE: *out = v.list->n; return true;
    case ASH_T_DICT: *out = v.dict->n; return true;
    case ASH_T_VIEW: *out = v.view->dict->n; return true;
    case ASH_T_RANGE: *out = v.range->n; return true;
    case ASH_T_LOOP: {
        ash_tval n = ash_trender_loop_attr(v.loop, ASH_STR("length"));
        *out = n.t == ASH_T_INT ? (size_t)n.i : 0;
        return true;
    }
    default: return false;
    }
}

bool ash_tval_truth(ash_tval v)
{
    size_t n;
    switch (v.t) {
    case ASH_T_MISSING:
    case ASH_T_UNDEF:
    case ASH_T_NONE: return false;
    case ASH_T_BOOL: return v.b;
    case ASH_T_INT: return v.i != 0;
    case ASH_T_FLOAT: return v.f < 0 || v.f > 0 || isnan(v.f);
    default: return ash_tval_len(v, &n) ? n > 0 : true;
    }
}

bool ash_tval_integer(ash_tval v, int64_t *out)
{
    if (v.t == ASH_T_INT)
        *out = v.i;
    else if (v.t == ASH_T_BOOL)
        *out = v.b;
    else
        return false;
    return true;
}

bool ash_tval_number(ash_tval v, double *out)
{
    int64_t i;
    if (v.t == ASH_T_FLOAT)
        *out = v.f;
    else if (ash_tval_integer(v, &i))
        *out = (double)i;
    else
        return false;
    return true;
}

bool ash_tval_tainted(ash_trun *r, ash_tval v)
{
    bool yes = false;
    if (v.t == ASH_T_STR)
        return ash_tstr_tainted(v.s);
    if (!ash_trun_enter(r))
        return true;
    if (v.t == ASH_T_LIST || v.t == ASH_T_TUPLE)
        for (size_t i = 0; i < v.list->n && !yes; i++) yes = ash_tval_tainted(r, v.list->v[i]);
    else if (v.t == ASH_T_DICT || v.t == ASH_T_NS)
        for (size_t i = 0; i < v.dict->n && !yes; i++)
            yes = ash_tval_tainted(r, v.dict->v[i].key) || ash_tval_tainted(r, v.dict->v[i].val);
    ash_trun_leave(r);
    return yes;
}

/* ---- comparison ---- */

/* An int64 against a double, exactly, as Python does. */
static int order_mixed(int64_t i, double f)
{
    if (f >= 0x1p63)
        return -1;
    if (f < -0x1p63)
        return 1;
    double whole = floor(f);
    int64_t w = (int64_t)whole;
    return i != w ? (i < w ? -1 : 1) : whole < f ? -1 : 0;
}

/* Numbers; false if one is none. */
static bool order_numbers(ash_tval a, ash_tval b, int *order, bool *unordered)
{
    int64_t x, y;
    bool ax = ash_tval_integer(a, &x), by = ash_tval_integer(b, &y);
    *unordered = (a.t == ASH_T_FLOAT && isnan(a.f)) || (b.t == ASH_T_FLOAT && isnan(b.f));
    if ((!ax && a.t != ASH_T_FLOAT) || (!by && b.t != ASH_T_FLOAT))
        return false;
    if (*unordered)
        *order = 1;
    else if (ax && by)
        *order = x < y ? -1 : x > y;
    else if (ax)
        *order = order_mixed(x, b.f);
    else if (by)
        *order = -order_mixed(y, a.f);
    else
        *order = a.f < b.f ? -1 : a.f > b.f;
    return true;
}

static bool equal_dicts(ash_trun *r, const ash_tdict *a, const ash_tdict *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n && !r->rc; i++) {
        const ash_tpair *p = ash_tdict_find(r, b, a->v[i].key);
        if (!p || !ash_tval_equal(r, a->v[i].val, p->val))
            return false;
    }
    return true;
}

static bool equal_lists(ash_trun *r, const ash_tlist *a, const ash_tlist *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n && !r->rc; i++)
        if (!ash_tval_equal(r, a->v[i], b->v[i]))
            return false;
    return true;
}

static bool equal_ranges(const ash_trange *a, const ash_trange *b)
{
    return a->n == b->n && (a->n == 0 || a->start == b->start) && (a->n < 2 || a->step == b->step);
}

bool ash_tval_equal(ash_trun *r, ash_tval a, ash_tval b)
{
    int order;
    bool unordered, same = false;
    if (!ash_trun_charge(r, 1))
        return false;
    if (order_numbers(a, b, &order, &unordered))
        return order == 0;
    if (a.t != b.t)
        return false;
    switch (a.t) {
    case ASH_T_UNDEF:
    case ASH_T_NONE: return true;
    case ASH_T_STR: return ash_trun_charge(r, a.s->n / 64) && ash_tstr_eq(a.s, b.s);
    case ASH_T_RANGE: return equal_ranges(a.range, b.range);
    case ASH_T_FUNC: return a.func == b.func;
    case ASH_T_LIST:
    case ASH_T_TUPLE:
    case ASH_T_DICT:
        if (!ash_trun_enter(r))
            return false;
        same = a.t == ASH_T_DICT ? equal_dicts(r, a.dict, b.dict) : equal_lists(r, a.list, b.list);
        ash_trun_leave(r);
        return same;
    default: return a.list == b.list; /* the same object; all of these are pointers */
    }
}

static bool no_order(ash_trun *r, ash_tval a, ash_tval b, const char *op)
{
    const ash_tval *undef = a.t == ASH_T_UNDEF ? &a : b.t == ASH_T_UNDEF ? &b : NULL;
    if (undef)
        ash_trun_fail(r, ASH_EINVAL, "'%s' with an undefined value", op);
    else
        ash_trun_fail(r, ASH_EINVAL, "'%s' not supported between instances of '%s' and '%s'", op,
                      ash_tval_type(a), ash_tval_type(b));
    return false;
}

bool ash_tval_order(ash_trun *r, ash_tval a, ash_tval b, const char *op, int *order, bool *unordered)
{
    if (!ash_trun_charge(r, 1))
        return false;
    if (order_numbers(a, b, order, unordered))
        return true;
    *unordered = false;
    if (a.t != b.t || (a.t != ASH_T_STR && a.t != ASH_T_LIST && a.t != ASH_T_TUPLE))
        return no_order(r, a, b, op);
    if (a.t == ASH_T_STR) { /* bytes of UTF-8 are in the order of code points */
        size_t n = a.s->n < b.s->n ? a.s->n : b.s->n;
        int c = n && ash_trun_charge(r, n / 64) ? memcmp(a.s->p, b.s->p, n) : 0;
        *order = c ? c : a.s->n < b.s->n ? -1 : a.s->n > b.s->n;
        return !r->rc;
    }
    if (!ash_trun_enter(r))
        return false;
    size_t i = 0;
    while (i < a.list->n && i < b.list->n && ash_tval_equal(r, a.list->v[i], b.list->v[i])) i++;
    bool ok = !r->rc;
    if (ok && i < a.list->n && i < b.list->n)
        ok = ash_tval_order(r, a.list->v[i], b.list->v[i], op, order, unordered);
    else
        *order = a.list->n < b.list->n ? -1 : a.list->n > b.list->n;
    ash_trun_leave(r);
    return ok;
}

/* Whether key b must stand before key a. */
static bool out_of_order(ash_trun *r, ash_tval a, ash_tval b, bool reverse)
{
    int order;
    bool unordered;
    bool ok = reverse ? ash_tval_order(r, a, b, "<", &order, &unordered)
                      : ash_tval_order(r, b, a, "<", &order, &unordered);
    return ok && !unordered && order < 0;
}

/* Merges the sorted runs [lo, mid) and [mid, hi) of k and v through the scratch tk and tv. */
static void merge(ash_trun *r, ash_tval *k, ash_tval *v, ash_tval *tk, ash_tval *tv, const size_t at[3],
                  bool reverse)
{
    size_t i = at[0], j = at[1], o = at[0];
    while (i < at[1] || j < at[2]) {
        bool right = i == at[1] || (j < at[2] && out_of_order(r, k[i], k[j], reverse));
        size_t from = right ? j++ : i++;
        tk[o] = k[from];
        tv[o++] = v[from];
    }
    memcpy(k + at[0], tk + at[0], (at[2] - at[0]) * sizeof *k);
    memcpy(v + at[0], tv + at[0], (at[2] - at[0]) * sizeof *v);
}

bool ash_tval_sort(ash_trun *r, ash_tval *keys, ash_tval *vals, size_t n, bool reverse)
{
    if (n < 2)
        return !r->rc;
    ash_tval *tk = ash_trun_alloc(r, n, sizeof *tk), *tv = ash_trun_alloc(r, n, sizeof *tv);
    if (!tk || !tv)
        return false;
    for (size_t width = 1; width < n && !r->rc; width *= 2)
        for (size_t lo = 0; lo + width < n && !r->rc; lo += 2 * width) {
            size_t hi = n - lo < 2 * width ? n : lo + 2 * width;
            merge(r, keys, vals, tk, tv, (size_t[]){lo, lo + width, hi}, reverse);
        }
    return !r->rc;
}

/* ---- lists ---- */

ash_tlist *ash_tlist_new(ash_trun *r, size_t cap)
{
    ash_tlist *l = ash_trun_alloc(r, 1, sizeof *l);
    if (!l)
        return NULL;
    *l = (ash_tlist){0};
    if (cap) {
        l->v = ash_trun_alloc(r, cap, sizeof *l->v);
        if (!l->v)
            return NULL;
        l->cap = cap;
    }
    return l;
}

bool ash_tlist_push(ash_trun *r, ash_tlist *l, ash_tval v)
{
    if (!l || !ash_trun_charge(r, 1) ||
        !ash_trun_grow(r, (void **)&l->v, l->n, &l->cap, sizeof *l->v))
        return false;
    l->v[l->n++] = v;
    return true;
}

ash_tval ash_tlist_val(ash_tlist *l)
{
    return l ? (ash_tval){.t = ASH_T_LIST, .list = l} : ASH_TVAL_UNDEF;
}

ash_tval ash_ttuple_val(ash_tlist *l)
{
    return l ? (ash_tval){.t = ASH_T_TUPLE, .list = l} : ASH_TVAL_UNDEF;
}

ash_tval ash_ttuple_pair(ash_trun *r, ash_tval a, ash_tval b)
{
    ash_tlist *l = ash_tlist_new(r, 2);
    if (l) {
        l->v[0] = a;
        l->v[1] = b;
        l->n = 2;
    }
    return ash_ttuple_val(l);
}

ash_tval ash_titer_val(ash_trun *r, ash_tlist *l, const char *name)
{
    ash_titer *it = l ? ash_trun_alloc(r, 1, sizeof *it) : NULL;
    if (!it)
        return ASH_TVAL_UNDEF;
    *it = (ash_titer){.v = l->v, .n = l->n, .name = name};
    return (ash_tval){.t = ASH_T_ITER, .iter = it};
}

ash_tval ash_titer_later(ash_trun *r, const ash_tbuiltin *b, ash_tval self, const ash_targs *args)
{
    ash_tlist none = {0};
    ash_tval v = ash_titer_val(r, &none, "generator");
    ash_tval *a = ash_trun_alloc(r, args->n + 1, sizeof *a);
    if (!a || v.t != ASH_T_ITER)
        return ASH_TVAL_UNDEF;
    if (args->n)
        memcpy(a, args->a, args->n * sizeof *a);
    v.iter->pending = b;
    v.iter->self = self;
    v.iter->args = (ash_targs){a, args->n, args->kw, args->n_kw}; /* keywords are in the arena */
    return v;
}

bool ash_titer_run(ash_trun *r, ash_titer *it)
{
    const ash_tbuiltin *b = it->pending;
    if (!b)
        return !r->rc;
    it->pending = NULL;
    if (!ash_trun_enter(r))
        return false;
    ash_tval v = b->fn(r, it->self, &it->args);
    ash_trun_leave(r);
    if (r->rc || v.t != ASH_T_LIST)
        return false;
    it->v = v.list->v;
    it->n = v.list->n;
    return true;
}

/* ---- dictionaries ---- */

/* 1, 1.0 and True are one key. False (and failure) for what cannot be a key. */
static bool hash(ash_trun *r, ash_tval v, uint32_t *out)
{
    uint64_t h = 1469598103934665603u;
    double f;
    if (v.t == ASH_T_STR) {
        for (size_t i = 0; i < v.s->n; i++) h = (h ^ (unsigned char)v.s->p[i]) * 1099511628211u;
    } else if (ash_tval_number(v, &f)) {
        f += 0.0; /* -0.0 is 0.0 */
        uint64_t bits;
        memcpy(&bits, &f, sizeof bits);
        h = (h ^ bits) * 0x9E3779B97F4A7C15u;
    } else if (v.t == ASH_T_TUPLE) {
        if (!ash_trun_enter(r))
            return false;
        for (size_t i = 0; i < v.list->n; i++) {
            uint32_t part;
            if (!hash(r, v.list->v[i], &part))
                break;
            h = (h ^ part) * 1099511628211u;
        }
        ash_trun_leave(r);
        if (r->rc)
            return false;
    } else if (v.t == ASH_T_LIST || v.t == ASH_T_DICT) {
        ash_trun_fail(r, ASH_EINVAL, "unhashable type: '%s'", ash_tval_type(v));
        return false;
    }
    *out = (uint32_t)(h ^ h >> 32);
    return true;
}

ash_tdict *ash_tdict_new(ash_trun *r)
{
    ash_tdict *d = ash_trun_alloc(r, 1, sizeof *d);
    if (d)
        *d = (ash_tdict){0};
    return d;
}

ash_tval ash_tdict_val(ash_tdict *d)
{
    return d ? (ash_tval){.t = ASH_T_DICT, .dict = d} : ASH_TVAL_UNDEF;
}

static ash_tpair *find(ash_trun *r, const ash_tdict *d, ash_tval key, uint32_t h)
{
    if (!ash_trun_charge(r, 1 + d->n / 16))
        return NULL;
    for (size_t i = 0; i < d->n; i++)
        if (d->v[i].hash == h && ash_tval_equal(r, d->v[i].key, key))
            return &d->v[i];
    return NULL;
}

ash_tpair *ash_tdict_find(ash_trun *r, const ash_tdict *d, ash_tval key)
{
    uint32_t h;
    return hash(r, key, &h) ? find(r, d, key, h) : NULL;
}

ash_tpair *ash_tdict_find_c(const ash_tdict *d, const char *key, size_t n)
{
    for (size_t i = 0; i < d->n; i++)
        if (d->v[i].key.t == ASH_T_STR && d->v[i].key.s->n == n &&
            memcmp(d->v[i].key.s->p, key, n) == 0)
            return &d->v[i];
    return NULL;
}

bool ash_tdict_set(ash_trun *r, ash_tdict *d, ash_tval key, ash_tval val)
{
    uint32_t h;
    if (!d || !hash(r, key, &h))
        return false;
    ash_tpair *p = find(r, d, key, h);
    if (r->rc)
        return false;
    if (p) {
        p->val = val;
        return true;
    }
    if (!ash_trun_grow(r, (void **)&d->v, d->n, &d->cap, sizeof *d->v))
        return false;
    d->v[d->n++] = (ash_tpair){key, val, h};
    return true;
}

void ash_tdict_remove(ash_tdict *d, ash_tpair *at)
{
    size_t i = (size_t)(at - d->v);
    memmove(at, at + 1, (d->n - i - 1) * sizeof *at);
    d->n--;
}

/* ---- iteration ---- */

static void dict_items(ash_trun *r, const ash_tdict *d, ash_tview_kind kind, ash_tlist *out)
{
    for (size_t i = 0; i < d->n && !r->rc; i++)
        ash_tlist_push(r, out, kind == ASH_TVIEW_KEYS     ? d->v[i].key
                               : kind == ASH_TVIEW_VALUES ? d->v[i].val
                                                          : ash_ttuple_pair(r, d->v[i].key, d->v[i].val));
}

static void str_items(ash_trun *r, const ash_tstr *s, ash_tlist *out)
{
    ash_tstr plain = *s; /* the characters of Markup are plain strings */
    plain.markup = false;
    for (size_t b = 0; b < s->n && !r->rc;) {
        size_t e = b + 1;
        while (e < s->n && ((unsigned char)s->p[e] & 0xC0) == 0x80) e++;
        ash_tlist_push(r, out, ash_tstr_cut(r, &plain, b, e));
        b = e;
    }
}

ash_tlist *ash_tval_items(ash_trun *r, ash_tval v)
{
    size_t n = 0;
    if (v.t == ASH_T_ITER && ash_titer_run(r, v.iter))
        n = v.iter->n - v.iter->at;
    else if (v.t != ASH_T_LOOP)
        ash_tval_len(v, &n);
    ash_tlist *out = r->rc ? NULL : ash_tlist_new(r, n);
    if (!out || !ash_trun_charge(r, n))
        return NULL;
    switch (v.t) {
    case ASH_T_UNDEF: break;
    case ASH_T_STR: str_items(r, v.s, out); break;
    case ASH_T_LIST:
    case ASH_T_TUPLE:
        if (n)
            memcpy(out->v, v.list->v, n * sizeof *out->v);
        out->n = n;
        break;
    case ASH_T_ITER:
        if (n)
            memcpy(out->v, v.iter->v + v.iter->at, n * sizeof *out->v);
        out->n = n;
        v.iter->at = v.iter->n;
        break;
    case ASH_T_DICT: dict_items(r, v.dict, ASH_TVIEW_KEYS, out); break;
    case ASH_T_VIEW: dict_items(r, v.view->dict, v.view->kind, out); break;
    case ASH_T_RANGE:
        for (size_t i = 0; i < n; i++)
            out->v[out->n++] = ASH_TVAL_INT(v.range->start + (int64_t)i * v.range->step);
        break;
    default:
        ash_trun_fail(r, ASH_EINVAL, "'%s' object is not iterable", ash_tval_type(v));
        break;
    }
    return r->rc ? NULL : out;
}
