/* Owns the public calls of templates and what a rendering lives in: its arena, its step and depth
 * counters, its sticky failure. Refuses what template.h lists. A template is immutable once parsed;
 * a run belongs to one thread. */
#include "text/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/utf8.h"
#include "text/template_impl.h"

/* ---- a run ---- */

ash_tval ash_trun_fail(ash_trun *r, int code, const char *fmt, ...)
{
    if (r->rc)
        return ASH_TVAL_UNDEF;
    va_list ap;
    va_start(ap, fmt);
    char msg[400];
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    r->rc = ash_template_fail(r->tpl, r->pos, r->err, code, "%s", msg);
    return ASH_TVAL_UNDEF;
}

bool ash_trun_charge(ash_trun *r, size_t n)
{
    if (r->rc)
        return false;
    if (n > r->opts.max_steps - r->steps) {
        ash_trun_fail(r, ASH_ELIMIT, "the template takes more than %llu steps",
                      (unsigned long long)r->opts.max_steps);
        return false;
    }
    r->steps += n;
    return true;
}

bool ash_trun_enter(ash_trun *r)
{
    /* a level of a template's own nesting (a macro call, a bracket) takes up to ten of these */
    if (r->depth >= 10 * ASH_MAX_TEMPLATE_DEPTH) {
        ash_trun_fail(r, ASH_ELIMIT, "nested too deeply");
        return false;
    }
    if (!ash_trun_charge(r, 1))
        return false;
    r->depth++;
    return true;
}

void ash_trun_leave(ash_trun *r)
{
    r->depth--;
}

void *ash_trun_alloc(ash_trun *r, size_t n, size_t size)
{
    if (r->rc)
        return NULL;
    size_t bytes;
    bool over = __builtin_mul_overflow(n, size, &bytes) || bytes > r->arena.max;
    void *p = over ? NULL : ash_arena_alloc(&r->arena, bytes);
    if (p)
        return p;
    if (over || r->arena.held > r->arena.max - bytes || r->arena.max - bytes - r->arena.held < 65536)
        ash_trun_fail(r, ASH_ELIMIT, "the template needs more than %zu bytes of memory", r->arena.max);
    else
        r->rc = ash_err_nomem(r->err, "template");
    return NULL;
}

bool ash_trun_grow(ash_trun *r, void **v, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return !r->rc;
    size_t more = *cap ? *cap * 2 : 4;
    void *p = ash_trun_alloc(r, more, size);
    if (!p)
        return false;
    if (n)
        memcpy(p, *v, n * size);
    *v = p;
    *cap = more;
    return true;
}

/* ---- parsing ---- */

/* Line ends to \n, a single one at the end dropped (keep_trailing_newline is off). */
static void normalise(ash_template *t, char *to)
{
    const char *from = t->given;
    size_t n = t->n, o = 0;
    for (size_t i = 0; i < n; i++) {
        if (from[i] == '\r') {
            to[o++] = '\n';
            i += i + 1 < n && from[i + 1] == '\n';
        } else {
            to[o++] = from[i];
        }
    }
    if (o && to[o - 1] == '\n')
        o--;
    t->src = to;
    t->n = o;
}

int ash_template_parse(const char *src, size_t n, ash_template **out, ash_err *err)
{
    *out = NULL;
    if (n > ASH_MAX_TEMPLATE)
        return ash_err_set(err, ASH_ELIMIT, "template of %zu bytes is larger than %u", n, ASH_MAX_TEMPLATE);
    if (!ash_utf8_valid(src, n))
        return ash_err_set(err, ASH_EFORMAT, "template is not valid UTF-8");
    ash_template *t = calloc(1, sizeof *t);
    if (!t)
        return ash_err_nomem(err, "template");
    ash_arena_init(&t->arena, ASH_MAX_TEMPLATE_MEMORY);
    t->given = ash_arena_strndup(&t->arena, src, n);
    char *lines = ash_arena_alloc(&t->arena, n + 1);
    int rc = t->given && lines ? 0 : ash_err_nomem(err, "template");
    ash_ttoken *tokens;
    size_t n_tokens;
    if (!rc) {
        t->n = n;
        normalise(t, lines);
        rc = ash_tlex_run(t, &tokens, &n_tokens, err);
    }
    if (!rc)
        rc = ash_tparse_run(t, tokens, n_tokens, err);
    if (rc) {
        ash_template_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

void ash_template_close(ash_template *t)
{
    if (!t)
        return;
    ash_arena_release(&t->arena);
    free(t);
}

const char *ash_template_source(const ash_template *t)
{
    return t->given;
}

bool ash_template_mentions(const ash_template *t, const char *name)
{
    for (size_t i = 0; i < t->n_names; i++)
        if (ash_str_eqc(t->names[i], name))
            return true;
    return false;
}

/* ---- rendering ---- */

static const char *const default_untrusted[] = {"messages", "tools", "documents", NULL};

static void open_run(ash_trun *r, const ash_template *t, const ash_template_opts *opts, ash_err *err)
{
    *r = (ash_trun){.tpl = t, .err = err};
    if (opts)
        r->opts = *opts;
    if (!r->opts.untrusted_keys)
        r->opts.untrusted_keys = default_untrusted;
    if (!r->opts.max_steps)
        r->opts.max_steps = ASH_MAX_TEMPLATE_STEPS;
    if (!r->opts.max_output)
        r->opts.max_output = ASH_MAX_TEMPLATE_OUTPUT;
    if (!r->opts.max_memory)
        r->opts.max_memory = ASH_MAX_TEMPLATE_MEMORY;
    if (!r->opts.now)
        r->opts.now = (int64_t)ash_clock_wall();
    ash_arena_init(&r->arena, r->opts.max_memory);
}

static bool listed(const char *const *names, const char *key)
{
    for (; *names; names++)
        if (strcmp(*names, key) == 0)
            return true;
    return false;
}

static void take_context(ash_trun *r, ash_tframe *f, const json_t *context)
{
    void *it = json_object_iter((json_t *)context);
    for (; it && !r->rc; it = json_object_iter_next((json_t *)context, it)) {
        const char *key = json_object_iter_key(it);
        bool tainted = listed(r->opts.untrusted_keys, key);
        ash_tframe_set(r, f, ash_str_from(key), ash_tval_from_json(r, json_object_iter_value(it), tainted));
    }
}

/* Runs the template over the variables in `f` and appends the result to out and untrusted. */
static int finish(ash_trun *r, ash_tframe *f, ash_buf *out, ash_spans *untrusted)
{
    ash_tsink sink = {.max = r->opts.max_output};
    r->frame = f;
    r->out = &sink;
    ash_trender_body(r, r->tpl->body);
    if (r->rc)
        return r->rc;
    size_t base = out->len;
    int rc = 0;
    for (size_t i = 0; untrusted && !rc && i < sink.n_taint; i++)
        if (ash_spans_add(untrusted, base + sink.taint[i].begin, base + sink.taint[i].end))
            rc = ash_err_nomem(r->err, "template");
    if (!rc && ash_buf_add(out, sink.p ? sink.p : "", sink.n))
        rc = ash_buf_check(out, "the rendered template", r->err);
    if (rc && untrusted)
        ash_spans_cut(untrusted, base);
    return rc;
}

int ash_template_render(const ash_template *t, const json_t *context, const ash_template_opts *opts,
                        ash_buf *out, ash_spans *untrusted, ash_err *err)
{
    if (context && !json_is_object(context))
        return ash_err_set(err, ASH_EINVAL, "the template's context must be an object, not %s",
                           json_is_array(context) ? "an array" : "a single value");
    ash_trun r;
    ash_tframe f = {0};
    open_run(&r, t, opts, err);
    if (context)
        take_context(&r, &f, context);
    int rc = r.rc ? r.rc : finish(&r, &f, out, untrusted);
    ash_arena_release(&r.arena);
    return rc;
}

int ash_template_render_text(const ash_template *t, const char *json, size_t n,
                             const ash_template_opts *opts, ash_buf *out, ash_spans *untrusted, ash_err *err)
{
    ash_trun r;
    ash_tframe f = {0};
    open_run(&r, t, opts, err);
    ash_tval v = ash_tval_from_text(&r, json, n, false, r.opts.untrusted_keys, "template context");
    if (!r.rc && v.t != ASH_T_DICT)
        r.rc = ash_err_set(err, ASH_EFORMAT, "template context must be a JSON object");
    for (size_t i = 0; !r.rc && i < v.dict->n; i++) {
        const ash_tstr *key = v.dict->v[i].key.s;
        ash_tframe_set(&r, &f, (ash_str){key->p, key->n}, v.dict->v[i].val);
    }
    int rc = r.rc ? r.rc : finish(&r, &f, out, untrusted);
    ash_arena_release(&r.arena);
    return rc;
}
