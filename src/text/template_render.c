/* Owns the execution of statements: scopes, loops, macros, captured blocks. Refuses runaway
 * templates through the run's limits. Works on one run, one thread. */
#include <string.h>

#include "base/limits.h"
#include "text/template_impl.h"

/* ---- scopes ---- */

bool ash_tframe_set(ash_trun *r, ash_tframe *f, ash_str name, ash_tval v)
{
    if (!ash_trun_charge(r, 1 + f->n / 16))
        return false;
    for (size_t i = 0; i < f->n; i++)
        if (ash_str_eq(f->v[i].name, name)) {
            f->v[i].val = v;
            return true;
        }
    if (!ash_trun_grow(r, (void **)&f->v, f->n, &f->cap, sizeof *f->v))
        return false;
    f->v[f->n++] = (ash_tvar){name, v};
    return true;
}

/* A scope within the current one; on the heap of the run, since macros may keep it. */
static ash_tframe *push_frame(ash_trun *r)
{
    ash_tframe *f = ash_trun_alloc(r, 1, sizeof *f);
    if (!f)
        return NULL;
    *f = (ash_tframe){.up = r->frame};
    r->frame = f;
    return f;
}

/* Runs a body in its own scope with its output caught. */
static ash_tval capture(ash_trun *r, const ash_tnode *body, ash_tframe *frame)
{
    ash_tsink sink = {0}, *outer = r->out;
    ash_tframe *before = r->frame;
    r->out = &sink;
    r->frame = frame;
    ash_trender_body(r, body);
    r->out = outer;
    r->frame = before;
    return ash_tsink_take(r, &sink);
}

static ash_tval capture_scoped(ash_trun *r, const ash_tnode *body)
{
    ash_tframe *before = r->frame, *f = push_frame(r);
    r->frame = before;
    return f ? capture(r, body, f) : ASH_TVAL_UNDEF;
}

static bool assign_attr(ash_trun *r, const ash_tnode *target, ash_tval v)
{
    const ash_tnode name = {.kind = ASH_N_NAME, .pos = target->pos, .name = target->name};
    ash_tval ns = ash_teval_expr(r, &name);
    if (r->rc)
        return false;
    if (ns.t != ASH_T_NS) {
        ash_trun_fail(r, ASH_EINVAL, "cannot assign attribute on non-namespace object");
        return false;
    }
    return ash_tdict_set(r, ns.dict, target->value, v);
}

bool ash_trender_assign(ash_trun *r, const ash_tnode *target, ash_tval v)
{
    if (r->rc)
        return false;
    if (target->kind == ASH_N_NAME)
        return ash_tframe_set(r, r->frame, target->name, v);
    if (target->kind == ASH_N_NSREF)
        return assign_attr(r, target, v);
    ash_tlist *l = ash_tval_items(r, v);
    if (!l)
        return false;
    if (l->n != target->n) {
        ash_trun_fail(r, ASH_EINVAL, "%s values to unpack (expected %u, got %zu)",
                      l->n < target->n ? "not enough" : "too many", target->n, l->n);
        return false;
    }
    for (uint32_t i = 0; i < target->n; i++)
        if (!ash_trender_assign(r, target->list[i], l->v[i]))
            return false;
    return true;
}

/* ---- loops ---- */

/* The next item that passes the loop's `if`, which sees the loop's variables but not `loop`. */
static ash_tval advance(ash_tloop *l)
{
    ash_trun *r = l->run;
    while (l->at < l->n && !r->rc) {
        ash_tval v = l->v[l->at++];
        if (!l->node->c)
            return v;
        ash_tframe scope = {.up = l->frame->up}, *before = r->frame;
        r->frame = &scope;
        bool yes = ash_trender_assign(r, l->node->a, v) && ash_tval_truth(ash_teval_expr(r, l->node->c));
        r->frame = before;
        if (yes)
            return v;
    }
    return (ash_tval){0};
}

static ash_tval peek(ash_tloop *l)
{
    if (l->after.t == ASH_T_MISSING)
        l->after = advance(l);
    return l->after;
}

/* How many items pass; those not looked at yet are filtered now, and once. */
static int64_t length(ash_tloop *l)
{
    if (l->length >= 0)
        return l->length;
    ash_trun *r = l->run;
    if (!l->node->c) {
        l->length = (int64_t)l->n;
        return l->length;
    }
    ash_tlist *rest = ash_tlist_new(r, 0);
    for (;;) {
        ash_tval v = peek(l);
        l->after = (ash_tval){0};
        if (v.t == ASH_T_MISSING || !ash_tlist_push(r, rest, v))
            break;
    }
    if (r->rc)
        return 0;
    l->v = rest->v;
    l->n = rest->n;
    l->at = 0;
    static const ash_tnode unfiltered = {.kind = ASH_N_FOR};
    l->node = &unfiltered;
    l->length = l->index0 + 1 + (int64_t)rest->n;
    return l->length;
}

ash_tval ash_trender_loop_attr(ash_tloop *l, ash_str name)
{
    static const char *const names[] = {"index", "index0", "first", "last", "length", "revindex",
                                        "revindex0", "previtem", "nextitem", "depth", "depth0"};
    int k = 0, count = (int)(sizeof names / sizeof *names);
    while (k < count && !ash_str_eqc(name, names[k])) k++;
    switch (k) {
    case 0: return ASH_TVAL_INT(l->index0 + 1);
    case 1: return ASH_TVAL_INT(l->index0);
    case 2: return ASH_TVAL_BOOL(l->index0 == 0);
    case 3: return ASH_TVAL_BOOL(peek(l).t == ASH_T_MISSING);
    case 4: return ASH_TVAL_INT(length(l));
    case 5: return ASH_TVAL_INT(length(l) - l->index0);
    case 6: return ASH_TVAL_INT(length(l) - l->index0 - 1);
    case 7: return l->before.t == ASH_T_MISSING ? ASH_TVAL_UNDEF : l->before;
    case 8: {
        ash_tval next = peek(l);
        return next.t == ASH_T_MISSING ? ASH_TVAL_UNDEF : next;
    }
    case 9: return ASH_TVAL_INT(1);
    case 10: return ASH_TVAL_INT(0);
    default: return ASH_TVAL_UNDEF;
    }
}

/* Whether there is another item, made current. */
static bool next_item(ash_tloop *l)
{
    ash_tval v = peek(l);
    l->after = (ash_tval){0};
    if (v.t == ASH_T_MISSING || l->run->rc)
        return false;
    l->before = l->current;
    l->current = v;
    l->index0++;
    return true;
}

static void run_loop(ash_trun *r, const ash_tnode *n, ash_tloop *l)
{
    ash_tframe *f = l->frame;
    bool any = false;
    while (next_item(l)) {
        any = true;
        f->n = 0; /* what the body sets ends with its iteration */
        ash_tframe_set(r, f, ASH_STR("loop"), (ash_tval){.t = ASH_T_LOOP, .loop = l});
        if (!ash_trender_assign(r, n->a, l->current))
            return;
        ash_trender_body(r, n->list[0]);
        ash_tflow flow = r->flow;
        r->flow = ASH_TFLOW_NEXT;
        if (r->rc || flow == ASH_TFLOW_BREAK)
            return;
    }
    f->n = 0;
    if (!any && n->list[1])
        ash_trender_body(r, n->list[1]);
}

static void run_for(ash_trun *r, const ash_tnode *n)
{
    ash_tlist *items = ash_tval_items(r, ash_teval_expr(r, n->b));
    ash_tloop *l = ash_trun_alloc(r, 1, sizeof *l);
    ash_tframe *outer = r->frame, *f = push_frame(r);
    if (items && l && f) {
        *l = (ash_tloop){.run = r, .node = n, .frame = f, .v = items->v, .n = items->n, .index0 = -1,
                         .length = -1};
        run_loop(r, n, l);
    }
    r->frame = outer;
}

/* ---- macros ---- */

/* Takes the keyword argument `name` out of kw; MISSING if it is not there. */
static ash_tval take_keyword(ash_targs *args, ash_str name)
{
    for (size_t i = 0; i < args->n_kw; i++) {
        const ash_tstr *key = args->kw[i].key.s;
        if (!ash_str_eq((ash_str){key->p, key->n}, name))
            continue;
        ash_tval v = args->kw[i].val;
        memmove(&args->kw[i], &args->kw[i + 1], (args->n_kw - i - 1) * sizeof *args->kw);
        args->n_kw--;
        return v;
    }
    return (ash_tval){0};
}

/* caller, kwargs and varargs for those macros that read them; an error for what is left over. */
static void bind_special(ash_trun *r, const ash_tmacro *m, ash_tframe *f, ash_targs *args)
{
    const ash_tnode *def = m->def;
    int name_len = (int)(def->name.n < 100 ? def->name.n : 100);
    if (def->op & ASH_TMACRO_CALLER) {
        ash_tval caller = take_keyword(args, ASH_STR("caller"));
        ash_tframe_set(r, f, ASH_STR("caller"), caller.t == ASH_T_MISSING ? ASH_TVAL_UNDEF : caller);
    }
    if (def->op & ASH_TMACRO_KWARGS) {
        ash_tdict *d = ash_tdict_new(r);
        for (size_t i = 0; i < args->n_kw && !r->rc; i++)
            ash_tdict_set(r, d, args->kw[i].key, args->kw[i].val);
        ash_tframe_set(r, f, ASH_STR("kwargs"), ash_tdict_val(d));
    } else if (args->n_kw) {
        const ash_tstr *key = args->kw[0].key.s;
        ash_trun_fail(r, ASH_EINVAL, "macro '%.*s' takes no keyword argument '%.*s'", name_len,
                      def->name.p, (int)(key->n < 100 ? key->n : 100), key->p);
    }
    if (def->op & ASH_TMACRO_VARARGS) {
        ash_tlist *l = ash_tlist_new(r, 0);
        for (size_t i = def->n; i < args->n && !r->rc; i++) ash_tlist_push(r, l, args->a[i]);
        ash_tframe_set(r, f, ASH_STR("varargs"), ash_ttuple_val(l));
    } else if (args->n > def->n) {
        ash_trun_fail(r, ASH_EINVAL, "macro '%.*s' takes not more than %u argument(s)", name_len,
                      def->name.p, def->n);
    }
}

ash_tval ash_trender_macro(ash_trun *r, const ash_tmacro *m, const ash_targs *given)
{
    const ash_tnode *def = m->def;
    ash_tframe *before = r->frame;
    ash_targs args = *given;
    if (r->calls >= ASH_MAX_TEMPLATE_DEPTH)
        return ash_trun_fail(r, ASH_ELIMIT, "macros call each other deeper than %d",
                             ASH_MAX_TEMPLATE_DEPTH);
    r->frame = m->frame;
    ash_tframe *f = push_frame(r);
    if (!f || !ash_trun_enter(r)) {
        r->frame = before;
        return ASH_TVAL_UNDEF;
    }
    r->calls++;
    if (given->n_kw) { /* arguments are taken out one by one */
        args.kw = ash_trun_alloc(r, given->n_kw, sizeof *args.kw);
        if (args.kw)
            memcpy(args.kw, given->kw, given->n_kw * sizeof *args.kw);
    }
    for (uint32_t i = 0; i < def->n && !r->rc; i++) {
        ash_tval v = i < args.n ? args.a[i] : take_keyword(&args, def->list[i]->name);
        if (v.t == ASH_T_MISSING)
            v = def->list[i]->a ? ash_teval_expr(r, def->list[i]->a) : ASH_TVAL_UNDEF;
        ash_tframe_set(r, f, def->list[i]->name, v);
    }
    if (!r->rc)
        bind_special(r, m, f, &args);
    ash_tval v = r->rc ? ASH_TVAL_UNDEF : capture(r, def->b, f);
    r->calls--;
    ash_trun_leave(r);
    r->frame = before;
    return v;
}

static ash_tval make_macro(ash_trun *r, const ash_tnode *def)
{
    ash_tmacro *m = ash_trun_alloc(r, 1, sizeof *m);
    if (!m)
        return ASH_TVAL_UNDEF;
    *m = (ash_tmacro){def, r->frame};
    return (ash_tval){.t = ASH_T_MACRO, .macro = m};
}

static void run_call_block(ash_trun *r, const ash_tnode *n)
{
    ash_targs args;
    ash_tval fn = ash_teval_expr(r, n->a->a), caller = make_macro(r, n->b);
    if (r->rc || !ash_teval_args(r, n->a, &args))
        return;
    ash_tpair *kw = ash_trun_alloc(r, args.n_kw + 1, sizeof *kw);
    if (!kw)
        return;
    if (args.n_kw)
        memcpy(kw, args.kw, args.n_kw * sizeof *kw);
    kw[args.n_kw++] = (ash_tpair){.key = ash_tstr_lit(r, "caller"), .val = caller};
    args.kw = kw;
    if (!r->rc)
        ash_tsink_str(r, r->out, ash_tval_str(r, ash_teval_call(r, fn, &args)));
}

/* ---- statements ---- */

/* Filters of a block, innermost first: their chain ends in a NULL target. */
static ash_tval filter_block(ash_trun *r, const ash_tnode *f, ash_tval v)
{
    ash_targs args;
    if (!f)
        return v;
    if (!ash_trun_enter(r))
        return ASH_TVAL_UNDEF;
    v = filter_block(r, f->a, v);
    r->pos = f->pos;
    if (!r->rc && ash_teval_args(r, f, &args))
        v = ash_teval_filter(r, f->name, v, &args);
    ash_trun_leave(r);
    return v;
}

static void run_if(ash_trun *r, const ash_tnode *n)
{
    for (uint32_t i = 0; i < n->n && !r->rc; i++) {
        const ash_tnode *branch = n->list[i];
        bool yes = !branch->a || ash_tval_truth(ash_teval_expr(r, branch->a));
        if (yes && !r->rc) {
            ash_trender_body(r, branch->b);
            return;
        }
    }
}

static void run_with(ash_trun *r, const ash_tnode *n)
{
    ash_tframe *before = r->frame;
    ash_tlist *values = ash_tlist_new(r, n->n); /* all are evaluated in the outer scope */
    for (uint32_t i = 0; i < n->n && !r->rc; i++)
        ash_tlist_push(r, values, ash_teval_expr(r, n->list[i]->b));
    if (!r->rc && push_frame(r)) {
        for (uint32_t i = 0; i < n->n && !r->rc; i++)
            ash_trender_assign(r, n->list[i]->a, values->v[i]);
        ash_trender_body(r, n->b);
    }
    r->frame = before;
}

static void run_scope(ash_trun *r, const ash_tnode *n)
{
    ash_tframe *before = r->frame;
    if (push_frame(r))
        ash_trender_body(r, n->a);
    r->frame = before;
}

static void run(ash_trun *r, const ash_tnode *n)
{
    switch (n->kind) {
    case ASH_N_TEXT: ash_tsink_bytes(r, r->out, n->value.s->p, n->value.s->n, false); break;
    case ASH_N_PRINT: ash_tsink_str(r, r->out, ash_tval_str(r, ash_teval_expr(r, n->a))); break;
    case ASH_N_IF: run_if(r, n); break;
    case ASH_N_FOR: run_for(r, n); break;
    case ASH_N_BREAK: r->flow = ASH_TFLOW_BREAK; break;
    case ASH_N_CONTINUE: r->flow = ASH_TFLOW_CONTINUE; break;
    case ASH_N_SET: {
        ash_tval v = ash_teval_expr(r, n->b);
        ash_trender_assign(r, n->a, v);
        break;
    }
    case ASH_N_SETBLOCK: {
        ash_tval v = capture_scoped(r, n->c);
        if (r->flow == ASH_TFLOW_NEXT) /* else a break left the block before its end */
            ash_trender_assign(r, n->a, filter_block(r, n->b, v));
        break;
    }
    case ASH_N_MACRO: ash_tframe_set(r, r->frame, n->name, make_macro(r, n)); break;
    case ASH_N_CALLBLOCK: run_call_block(r, n); break;
    case ASH_N_FILTERBLOCK: {
        ash_tval v = capture_scoped(r, n->b);
        if (r->flow == ASH_TFLOW_NEXT)
            ash_tsink_str(r, r->out, ash_tval_str(r, filter_block(r, n->a, v)));
        break;
    }
    case ASH_N_WITH: run_with(r, n); break;
    case ASH_N_SCOPE: run_scope(r, n); break;
    default: ash_trender_body(r, n); break;
    }
}

void ash_trender_body(ash_trun *r, const ash_tnode *body)
{
    if (!ash_trun_enter(r))
        return;
    for (uint32_t i = 0; i < body->n && !r->rc && r->flow == ASH_TFLOW_NEXT; i++) {
        r->pos = body->list[i]->pos;
        if (ash_trun_charge(r, 1))
            run(r, body->list[i]);
    }
    ash_trun_leave(r);
}
