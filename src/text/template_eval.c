/* Owns the evaluation of expressions. Refuses what Python refuses, integers beyond 64 bits, and any
 * attribute that is not data or a listed method. Works on one run, one thread. */
#include <string.h>

#include "text/template_impl.h"

ash_tval ash_teval_undefined(ash_trun *r, ash_tval v)
{
    const ash_tundef *u = v.undef;
    int n = u ? (int)(u->name.n < 200 ? u->name.n : 200) : 0;
    if (!u)
        return ash_trun_fail(r, ASH_EINVAL, "the value is undefined");
    if (u->of)
        return ash_trun_fail(r, ASH_EINVAL, "'%s object' has no attribute '%.*s'", u->of, n, u->name.p);
    return ash_trun_fail(r, ASH_EINVAL, "'%.*s' is undefined", n, u->name.p);
}

static ash_tval undefined(ash_trun *r, ash_str name, const char *of)
{
    ash_tundef *u = ash_trun_alloc(r, 1, sizeof *u);
    if (u)
        *u = (ash_tundef){name, of};
    return (ash_tval){.t = ASH_T_UNDEF, .undef = u};
}

/* ---- names, attributes, items ---- */

static ash_tval lookup(ash_trun *r, ash_str name)
{
    for (const ash_tframe *f = r->frame; f; f = f->up) {
        if (!ash_trun_charge(r, f->n / 16))
            return ASH_TVAL_UNDEF;
        for (size_t i = 0; i < f->n; i++)
            if (ash_str_eq(f->v[i].name, name))
                return f->v[i].val;
    }
    const ash_tbuiltin *f = ash_tfunc_find(name);
    return f ? (ash_tval){.t = ASH_T_FUNC, .func = f} : undefined(r, name, NULL);
}

static ash_tval bind_method(ash_trun *r, ash_tval obj, ash_str name)
{
    const ash_tbuiltin *def = ash_tmethod_find(obj.t, name);
    ash_tmethod *m = def ? ash_trun_alloc(r, 1, sizeof *m) : NULL;
    if (!m)
        return ASH_TVAL_UNDEF;
    *m = (ash_tmethod){obj, def};
    return (ash_tval){.t = ASH_T_METHOD, .method = m};
}

ash_tval ash_teval_attr(ash_trun *r, ash_tval obj, ash_str name)
{
    if (obj.t == ASH_T_UNDEF)
        return ash_teval_undefined(r, obj);
    if (obj.t == ASH_T_LOOP && !ash_tmethod_find(obj.t, name))
        return ash_trender_loop_attr(obj.loop, name);
    ash_tval m = bind_method(r, obj, name);
    if (m.t != ASH_T_UNDEF || r->rc)
        return m;
    if (obj.t == ASH_T_DICT || obj.t == ASH_T_NS) {
        if (!ash_trun_charge(r, obj.dict->n / 16))
            return ASH_TVAL_UNDEF;
        const ash_tpair *p = ash_tdict_find_c(obj.dict, name.p, name.n);
        if (p)
            return p->val;
    }
    return undefined(r, name, ash_tval_type(obj));
}

static ash_tval index_of(ash_trun *r, ash_tval obj, int64_t i)
{
    size_t n = 0;
    ash_tval_len(obj, &n);
    if (i < 0)
        i += (int64_t)n;
    if (i < 0 || (uint64_t)i >= n)
        return undefined(r, ASH_STR("(index out of range)"), ash_tval_type(obj));
    switch (obj.t) {
    case ASH_T_LIST:
    case ASH_T_TUPLE: return obj.list->v[i];
    case ASH_T_RANGE: return ASH_TVAL_INT(obj.range->start + i * obj.range->step);
    default: {
        ash_trun_charge(r, obj.s->n / 64);
        size_t b = ash_tstr_offset(obj.s, (size_t)i), e = ash_tstr_offset(obj.s, (size_t)i + 1);
        return ash_tstr_cut(r, obj.s, b, e);
    }
    }
}

ash_tval ash_teval_item(ash_trun *r, ash_tval obj, ash_tval key)
{
    int64_t i;
    if (obj.t == ASH_T_UNDEF)
        return ash_teval_undefined(r, obj);
    if (obj.t == ASH_T_DICT && key.t != ASH_T_LIST && key.t != ASH_T_DICT) {
        const ash_tpair *p = ash_tdict_find(r, obj.dict, key);
        if (p || r->rc)
            return p ? p->val : ASH_TVAL_UNDEF;
    }
    bool indexed = obj.t == ASH_T_STR || obj.t == ASH_T_LIST || obj.t == ASH_T_TUPLE ||
                   obj.t == ASH_T_RANGE;
    if (indexed && ash_tval_integer(key, &i))
        return index_of(r, obj, i);
    if (key.t == ASH_T_STR)
        return ash_teval_attr(r, obj, (ash_str){key.s->p, key.s->n});
    const ash_tstr *name = ash_tval_str(r, key);
    return undefined(r, (ash_str){name->p, name->n}, ash_tval_type(obj));
}

/* Python's slice.indices: the first index, the step and how many. False if a part is no integer. */
static bool slice_indices(ash_tval lo, ash_tval hi, int64_t step, int64_t n, int64_t *first, size_t *count)
{
    int64_t b = step < 0 ? n - 1 : 0, e = step < 0 ? -1 : n;
    if (lo.t != ASH_T_NONE) {
        if (!ash_tval_integer(lo, &b))
            return false;
        b = b < 0 ? (b < -n ? -1 : b + n) : b;
        b = b < 0 ? (step < 0 ? -1 : 0) : b >= n ? (step < 0 ? n - 1 : n) : b;
    }
    if (hi.t != ASH_T_NONE) {
        if (!ash_tval_integer(hi, &e))
            return false;
        e = e < 0 ? (e < -n ? -1 : e + n) : e;
        e = e < 0 ? (step < 0 ? -1 : 0) : e >= n ? (step < 0 ? n - 1 : n) : e;
    }
    *first = b;
    if (step < 0)
        *count = e < b ? (uint64_t)(b - e - 1) / (0 - (uint64_t)step) + 1 : 0;
    else
        *count = b < e ? (uint64_t)(e - b - 1) / (uint64_t)step + 1 : 0;
    return true;
}

static ash_tval slice_str(ash_trun *r, const ash_tstr *s, int64_t first, int64_t step, size_t count)
{
    if (step == 1 || count < 2) {
        size_t b = ash_tstr_offset(s, (size_t)(count ? first : 0));
        return ash_tstr_cut(r, s, b, count ? ash_tstr_offset(s, (size_t)first + count) : b);
    }
    ash_tlist *chars = ash_tval_items(r, ASH_TVAL_STR(s));
    ash_tsink k = {0};
    for (size_t i = 0; i < count && !r->rc; i++)
        ash_tsink_str(r, &k, chars->v[first + (int64_t)i * step].s);
    ash_tval v = ash_tsink_take(r, &k);
    if (v.t == ASH_T_STR)
        ((ash_tstr *)v.s)->markup = s->markup;
    return v;
}

ash_tval ash_teval_slice(ash_trun *r, ash_tval obj, ash_tval lo, ash_tval hi, ash_tval step_val)
{
    int64_t step = 1, first;
    size_t n, count;
    if (obj.t == ASH_T_UNDEF)
        return ash_teval_undefined(r, obj);
    if (obj.t != ASH_T_STR && obj.t != ASH_T_LIST && obj.t != ASH_T_TUPLE && obj.t != ASH_T_RANGE)
        return ash_trun_fail(r, ASH_EINVAL, "'%s' object cannot be sliced", ash_tval_type(obj));
    if (step_val.t != ASH_T_NONE && !ash_tval_integer(step_val, &step))
        return ash_trun_fail(r, ASH_EINVAL, "slice indices must be integers or None");
    if (step == 0)
        return ash_trun_fail(r, ASH_EINVAL, "slice step cannot be zero");
    ash_tval_len(obj, &n);
    if (!slice_indices(lo, hi, step, (int64_t)n, &first, &count))
        return ash_trun_fail(r, ASH_EINVAL, "slice indices must be integers or None");
    if (!ash_trun_charge(r, count / 16))
        return ASH_TVAL_UNDEF;
    if (obj.t == ASH_T_STR)
        return slice_str(r, obj.s, first, step, count);
    ash_tlist *l = ash_tlist_new(r, count);
    for (size_t i = 0; l && i < count; i++)
        l->v[l->n++] = index_of(r, obj, first + (int64_t)i * step);
    return obj.t == ASH_T_TUPLE ? ash_ttuple_val(l) : ash_tlist_val(l);
}

/* ---- calls ---- */

static bool add_arg(ash_trun *r, ash_targs *to, size_t *cap, ash_tval v)
{
    if (!ash_trun_charge(r, 1) || !ash_trun_grow(r, (void **)&to->a, to->n, cap, sizeof *to->a))
        return false;
    to->a[to->n++] = v;
    return true;
}

static bool add_keyword(ash_trun *r, ash_targs *to, size_t *cap, ash_tval key, ash_tval v)
{
    for (size_t i = 0; i < to->n_kw; i++)
        if (ash_tstr_eq(to->kw[i].key.s, key.s)) {
            ash_trun_fail(r, ASH_EINVAL, "got multiple values for keyword argument '%.*s'",
                          (int)(key.s->n < 100 ? key.s->n : 100), key.s->p);
            return false;
        }
    if (!ash_trun_charge(r, 1 + to->n_kw / 16) ||
        !ash_trun_grow(r, (void **)&to->kw, to->n_kw, cap, sizeof *to->kw))
        return false;
    to->kw[to->n_kw++] = (ash_tpair){.key = key, .val = v};
    return true;
}

static void spread(ash_trun *r, const ash_tnode *n, ash_tval v, ash_targs *out, size_t *cap, size_t *cap_kw)
{
    if (n->kind == ASH_N_STAR) {
        ash_tlist *l = ash_tval_items(r, v);
        for (size_t i = 0; l && i < l->n && add_arg(r, out, cap, l->v[i]); i++) {
        }
        return;
    }
    if (v.t != ASH_T_DICT) {
        ash_trun_fail(r, ASH_EINVAL, "argument after ** must be a mapping, not %s", ash_tval_type(v));
        return;
    }
    for (size_t i = 0; i < v.dict->n && !r->rc; i++) {
        if (v.dict->v[i].key.t != ASH_T_STR)
            ash_trun_fail(r, ASH_EINVAL, "keywords must be strings");
        else
            add_keyword(r, out, cap_kw, v.dict->v[i].key, v.dict->v[i].val);
    }
}

bool ash_teval_args(ash_trun *r, const ash_tnode *n, ash_targs *out)
{
    *out = (ash_targs){0};
    size_t cap = 0, cap_kw = 0;
    for (uint32_t i = 0; i < n->n && !r->rc; i++) {
        const ash_tnode *arg = n->list[i];
        bool plain = arg->kind != ASH_N_KEYWORD && arg->kind != ASH_N_STAR && arg->kind != ASH_N_STARSTAR;
        ash_tval v = ash_teval_expr(r, plain ? arg : arg->a);
        if (r->rc)
            break;
        if (plain)
            add_arg(r, out, &cap, v);
        else if (arg->kind == ASH_N_KEYWORD)
            add_keyword(r, out, &cap_kw, ash_tstr_wrap(r, arg->name.p, arg->name.n, false), v);
        else
            spread(r, arg, v, out, &cap, &cap_kw);
    }
    return !r->rc;
}

/* The parameter at `at` in a space-separated list. */
static ash_str param_name(const char *params, int at)
{
    while (at-- > 0) {
        params = strchr(params, ' ');
        if (!params)
            return (ash_str){0};
        params++;
    }
    return (ash_str){params, strcspn(params, " ")};
}

static int count_params(const char *params)
{
    int n = *params != 0;
    for (; *params; params++) n += *params == ' ';
    return n;
}

ash_tval ash_teval_builtin(ash_trun *r, const ash_tbuiltin *b, ash_tval self, const ash_targs *args)
{
    if (!b->params)
        return b->lazy ? ash_titer_later(r, b, self, args) : b->fn(r, self, args);
    ash_tval bound[ASH_TARGS_MAX] = {0};
    int n = count_params(b->params);
    if (args->n > (size_t)n)
        return ash_trun_fail(r, ASH_EINVAL, "%s takes at most %d arguments (%zu given)", b->name, n,
                             args->n);
    for (size_t i = 0; i < args->n; i++) bound[i] = args->a[i];
    for (size_t i = 0; i < args->n_kw; i++) {
        const ash_tstr *key = args->kw[i].key.s;
        int at = 0;
        while (at < n && !ash_str_eq(param_name(b->params, at), (ash_str){key->p, key->n})) at++;
        if (at == n || bound[at].t != ASH_T_MISSING)
            return ash_trun_fail(r, ASH_EINVAL, "%s got an unexpected keyword argument '%.*s'", b->name,
                                 (int)(key->n < 100 ? key->n : 100), key->p);
        bound[at] = args->kw[i].val;
    }
    for (int i = 0; i < b->least; i++)
        if (bound[i].t == ASH_T_MISSING) {
            ash_str name = param_name(b->params, i);
            return ash_trun_fail(r, ASH_EINVAL, "%s misses its argument '%.*s'", b->name, (int)name.n,
                                 name.p);
        }
    ash_targs all = {.a = bound, .n = (size_t)n};
    return b->lazy ? ash_titer_later(r, b, self, &all) : b->fn(r, self, &all);
}

ash_tval ash_teval_call(ash_trun *r, ash_tval fn, const ash_targs *args)
{
    switch (fn.t) {
    case ASH_T_UNDEF: return ash_teval_undefined(r, fn);
    case ASH_T_MACRO: return ash_trender_macro(r, fn.macro, args);
    case ASH_T_METHOD: return ash_teval_builtin(r, fn.method->def, fn.method->self, args);
    case ASH_T_FUNC: return ash_teval_builtin(r, fn.func, (ash_tval){0}, args);
    case ASH_T_LOOP: return ash_trun_fail(r, ASH_EUNSUPPORTED, "recursive loops are not supported");
    default: return ash_trun_fail(r, ASH_EINVAL, "'%s' object is not callable", ash_tval_type(fn));
    }
}

ash_tval ash_teval_filter(ash_trun *r, ash_str name, ash_tval self, const ash_targs *args)
{
    const ash_tbuiltin *f = ash_tfilter_find(name);
    if (!f)
        return ash_trun_fail(r, ASH_EUNSUPPORTED, "no filter named '%.*s'",
                             (int)(name.n < 100 ? name.n : 100), name.p);
    return ash_teval_builtin(r, f, self, args);
}

bool ash_teval_test(ash_trun *r, ash_str name, ash_tval self, const ash_targs *args)
{
    const ash_tbuiltin *f = ash_ttest_find(name);
    if (!f) {
        ash_trun_fail(r, ASH_EUNSUPPORTED, "no test named '%.*s'", (int)(name.n < 100 ? name.n : 100),
                      name.p);
        return false;
    }
    return ash_tval_truth(ash_teval_builtin(r, f, self, args));
}

static ash_tval eval_call(ash_trun *r, const ash_tnode *n)
{
    ash_targs args;
    ash_tval fn = ash_teval_expr(r, n->a);
    if (r->rc || !ash_teval_args(r, n, &args))
        return ASH_TVAL_UNDEF;
    return ash_teval_call(r, fn, &args);
}

static ash_tval eval_filter(ash_trun *r, const ash_tnode *n)
{
    ash_targs args;
    ash_tval of = ash_teval_expr(r, n->a);
    if (r->rc || !ash_teval_args(r, n, &args))
        return ASH_TVAL_UNDEF;
    return ash_teval_filter(r, n->name, of, &args);
}

static ash_tval eval_test(ash_trun *r, const ash_tnode *n)
{
    ash_targs args;
    ash_tval of = ash_teval_expr(r, n->a);
    if (r->rc || !ash_teval_args(r, n, &args))
        return ASH_TVAL_UNDEF;
    return ASH_TVAL_BOOL(ash_teval_test(r, n->name, of, &args));
}

/* ---- operators ---- */

bool ash_teval_in(ash_trun *r, ash_tval needle, ash_tval hay)
{
    int64_t i;
    switch (hay.t) {
    case ASH_T_STR:
        if (needle.t != ASH_T_STR) {
            ash_trun_fail(r, ASH_EINVAL, "'in <string>' requires string as left operand, not %s",
                          ash_tval_type(needle));
            return false;
        }
        return ash_trun_charge(r, hay.s->n / 64) && ash_tstr_find(hay.s, needle.s, 0) != SIZE_MAX;
    case ASH_T_DICT: return ash_tdict_find(r, hay.dict, needle) != NULL;
    case ASH_T_RANGE:
        if (ash_tval_integer(needle, &i)) {
            const ash_trange *g = hay.range;
            __int128 off = (__int128)i - g->start;
            return off % g->step == 0 && off / g->step >= 0 && off / g->step < (__int128)g->n;
        }
        break;
    case ASH_T_NONE:
    case ASH_T_BOOL:
    case ASH_T_INT:
    case ASH_T_FLOAT:
    case ASH_T_NS:
        ash_trun_fail(r, ASH_EINVAL, "argument of type '%s' is not iterable", ash_tval_type(hay));
        return false;
    default: break;
    }
    ash_tlist *l = hay.t == ASH_T_LIST || hay.t == ASH_T_TUPLE ? hay.list : ash_tval_items(r, hay);
    for (size_t k = 0; l && k < l->n && !r->rc; k++)
        if (ash_tval_equal(r, l->v[k], needle))
            return true;
    return false;
}

static bool compare(ash_trun *r, ash_ttok op, ash_tval a, ash_tval b)
{
    static const char *const names[] = {"<", "<=", ">", ">="};
    int order = 0;
    bool unordered = false;
    switch (op) {
    case ASH_TOK_EQ: return ash_tval_equal(r, a, b);
    case ASH_TOK_NE: return !ash_tval_equal(r, a, b);
    case ASH_TOK_IN: return ash_teval_in(r, a, b);
    case ASH_TOK_NOTIN: return !ash_teval_in(r, a, b);
    default: break;
    }
    if (!ash_tval_order(r, a, b, names[op - ASH_TOK_LT], &order, &unordered) || unordered)
        return false;
    return op == ASH_TOK_LT   ? order < 0
           : op == ASH_TOK_LE ? order <= 0
           : op == ASH_TOK_GT ? order > 0 : order >= 0;
}

static ash_tval eval_compare(ash_trun *r, const ash_tnode *n)
{
    ash_tval left = ash_teval_expr(r, n->a);
    for (uint32_t i = 0; i < n->n && !r->rc; i++) {
        ash_tval right = ash_teval_expr(r, n->list[i]->a);
        if (r->rc || !compare(r, (ash_ttok)n->list[i]->op, left, right))
            return ASH_TVAL_BOOL(false);
        left = right;
    }
    return ASH_TVAL_BOOL(true);
}

static ash_tval eval_math(ash_trun *r, const ash_tnode *n)
{
    ash_tval acc = ash_teval_expr(r, n->a);
    for (uint32_t i = 0; i < n->n && !r->rc; i++) {
        ash_tval right = ash_teval_expr(r, n->list[i]->a);
        if (r->rc)
            break;
        r->pos = n->list[i]->pos;
        if (acc.t == ASH_T_UNDEF || right.t == ASH_T_UNDEF)
            return ash_teval_undefined(r, acc.t == ASH_T_UNDEF ? acc : right);
        acc = ash_tmath_binary(r, (ash_ttok)n->list[i]->op, acc, right);
    }
    return acc;
}

static ash_tval eval_sign(ash_trun *r, const ash_tnode *n)
{
    ash_tval v = ash_teval_expr(r, n->a);
    if (r->rc)
        return ASH_TVAL_UNDEF;
    return v.t == ASH_T_UNDEF ? ash_teval_undefined(r, v) : ash_tmath_sign(r, v, n->kind == ASH_N_NEG);
}

/* ---- the rest ---- */

static ash_tval eval_logic(ash_trun *r, const ash_tnode *n)
{
    ash_tval v = ASH_TVAL_UNDEF;
    for (uint32_t i = 0; i < n->n && !r->rc; i++) {
        v = ash_teval_expr(r, n->list[i]);
        if (ash_tval_truth(v) == (n->kind == ASH_N_OR))
            break;
    }
    return v;
}

static ash_tval eval_list(ash_trun *r, const ash_tnode *n)
{
    ash_tlist *l = ash_tlist_new(r, n->n);
    for (uint32_t i = 0; i < n->n && !r->rc; i++) ash_tlist_push(r, l, ash_teval_expr(r, n->list[i]));
    return n->kind == ASH_N_TUPLE ? ash_ttuple_val(l) : ash_tlist_val(l);
}

static ash_tval eval_dict(ash_trun *r, const ash_tnode *n)
{
    ash_tdict *d = ash_tdict_new(r);
    for (uint32_t i = 0; i + 1 < n->n && !r->rc; i += 2) {
        ash_tval key = ash_teval_expr(r, n->list[i]);
        ash_tdict_set(r, d, key, ash_teval_expr(r, n->list[i + 1]));
    }
    return ash_tdict_val(d);
}

static ash_tval eval_concat(ash_trun *r, const ash_tnode *n)
{
    ash_tsink k = {0};
    for (uint32_t i = 0; i < n->n && !r->rc; i++)
        ash_tsink_str(r, &k, ash_tval_str(r, ash_teval_expr(r, n->list[i])));
    return ash_tsink_take(r, &k);
}

static ash_tval eval_item(ash_trun *r, const ash_tnode *n)
{
    ash_tval obj = ash_teval_expr(r, n->a);
    if (r->rc)
        return ASH_TVAL_UNDEF;
    if (n->b->kind != ASH_N_SLICE)
        return ash_teval_item(r, obj, ash_teval_expr(r, n->b));
    ash_tval part[3];
    const ash_tnode *from[3] = {n->b->a, n->b->b, n->b->c};
    for (int i = 0; i < 3; i++) part[i] = from[i] ? ash_teval_expr(r, from[i]) : ASH_TVAL_NONE;
    return r->rc ? ASH_TVAL_UNDEF : ash_teval_slice(r, obj, part[0], part[1], part[2]);
}

static ash_tval eval(ash_trun *r, const ash_tnode *n)
{
    switch (n->kind) {
    case ASH_N_CONST: return n->value;
    case ASH_N_NAME: return lookup(r, n->name);
    case ASH_N_LIST:
    case ASH_N_TUPLE: return eval_list(r, n);
    case ASH_N_DICT: return eval_dict(r, n);
    case ASH_N_COND: {
        bool yes = ash_tval_truth(ash_teval_expr(r, n->b));
        if (r->rc || (!yes && !n->c))
            return ASH_TVAL_UNDEF;
        return ash_teval_expr(r, yes ? n->a : n->c);
    }
    case ASH_N_OR:
    case ASH_N_AND: return eval_logic(r, n);
    case ASH_N_NOT: return ASH_TVAL_BOOL(!ash_tval_truth(ash_teval_expr(r, n->a)));
    case ASH_N_COMPARE: return eval_compare(r, n);
    case ASH_N_MATH: return eval_math(r, n);
    case ASH_N_CONCAT: return eval_concat(r, n);
    case ASH_N_NEG:
    case ASH_N_POS: return eval_sign(r, n);
    case ASH_N_GETATTR: {
        ash_tval obj = ash_teval_expr(r, n->a);
        return r->rc ? ASH_TVAL_UNDEF : ash_teval_attr(r, obj, n->name);
    }
    case ASH_N_GETITEM: return eval_item(r, n);
    case ASH_N_CALL: return eval_call(r, n);
    case ASH_N_FILTER: return eval_filter(r, n);
    case ASH_N_TEST: return eval_test(r, n);
    default: return ash_trun_fail(r, ASH_EFORMAT, "a slice stands where a value is expected");
    }
}

ash_tval ash_teval_expr(ash_trun *r, const ash_tnode *n)
{
    if (!ash_trun_enter(r))
        return ASH_TVAL_UNDEF;
    uint32_t pos = r->pos;
    r->pos = n->pos;
    ash_tval v = eval(r, n);
    r->pos = pos;
    ash_trun_leave(r);
    return v;
}
