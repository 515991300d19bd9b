/* Owns the global functions: namespace, dict, range, raise_exception, strftime_now. Refuses cycler,
 * joiner and lipsum by name. Works on one run, one thread. */
#include <string.h>
#include <time.h>

#include "text/template_impl.h"

enum { MAX_RANGE = 100000, MAX_TIME = 4096 }; /* the first is the sandbox's own */

#define FUNC(name) static ash_tval name(ash_trun *r, ash_tval self, const ash_targs *args)

/* dict(mapping or pairs, **keywords) */
static ash_tdict *build_dict(ash_trun *r, const ash_targs *args)
{
    ash_tdict *d = ash_tdict_new(r);
    if (args->n > 1)
        ash_trun_fail(r, ASH_EINVAL, "dict expected at most 1 argument, got %zu", args->n);
    if (args->n && args->a[0].t == ASH_T_DICT) {
        const ash_tdict *from = args->a[0].dict;
        for (size_t i = 0; i < from->n && !r->rc; i++)
            ash_tdict_set(r, d, from->v[i].key, from->v[i].val);
    } else if (args->n) {
        ash_tlist *l = ash_tval_items(r, args->a[0]);
        for (size_t i = 0; l && i < l->n && !r->rc; i++) {
            ash_tlist *pair = ash_tval_items(r, l->v[i]);
            if (pair && pair->n != 2)
                ash_trun_fail(r, ASH_EINVAL, "dictionary update sequence element %zu has length %zu; "
                              "2 is required", i, pair->n);
            else if (pair)
                ash_tdict_set(r, d, pair->v[0], pair->v[1]);
        }
    }
    for (size_t i = 0; i < args->n_kw && !r->rc; i++)
        ash_tdict_set(r, d, args->kw[i].key, args->kw[i].val);
    return r->rc ? NULL : d;
}

FUNC(func_dict)
{
    return ash_tdict_val(build_dict(r, args));
}

FUNC(func_namespace)
{
    ash_tdict *d = build_dict(r, args);
    return d ? (ash_tval){.t = ASH_T_NS, .dict = d} : ASH_TVAL_UNDEF;
}

FUNC(func_range)
{
    int64_t v[3] = {0, 0, 1};
    if (args->n < 1 || args->n > 3 || args->n_kw)
        return ash_trun_fail(r, ASH_EINVAL, "range expected 1 to 3 arguments");
    for (size_t i = 0; i < args->n; i++)
        if (!ash_tval_integer(args->a[i], &v[args->n == 1 ? 1 : i]))
            return args->a[i].t == ASH_T_UNDEF
                       ? ash_teval_undefined(r, args->a[i])
                       : ash_trun_fail(r, ASH_EINVAL, "'%s' object cannot be interpreted as an integer",
                                       ash_tval_type(args->a[i]));
    if (v[2] == 0)
        return ash_trun_fail(r, ASH_EINVAL, "range() arg 3 must not be zero");
    __int128 span = v[2] > 0 ? (__int128)v[1] - v[0] : (__int128)v[0] - v[1];
    __int128 step = v[2] > 0 ? v[2] : -(__int128)v[2];
    __int128 n = span > 0 ? (span - 1) / step + 1 : 0;
    if (n > MAX_RANGE)
        return ash_trun_fail(r, ASH_ELIMIT, "range is longer than %d", MAX_RANGE);
    ash_trange *g = ash_trun_alloc(r, 1, sizeof *g);
    if (!g)
        return ASH_TVAL_UNDEF;
    *g = (ash_trange){v[0], v[1], v[2], (size_t)n};
    return (ash_tval){.t = ASH_T_RANGE, .range = g};
}

FUNC(func_raise_exception)
{
    const ash_tstr *s = ash_tval_str(r, args->a[0]);
    if (!r->rc)
        r->rc = ash_err_set(r->err, ASH_EINVAL, "%.*s", (int)(s->n < 4000 ? s->n : 4000), s->p);
    return ASH_TVAL_UNDEF;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* the format is the template's, made safe below */
static size_t format_time(char *out, size_t max, const char *fmt, const struct tm *tm)
{
    return strftime(out, max, fmt, tm);
}
#pragma GCC diagnostic pop

/* datetime.now().strftime(format): a naive time, so that %z and %Z print nothing. */
FUNC(func_strftime_now)
{
    if (args->a[0].t != ASH_T_STR || args->a[0].s->n > MAX_TIME / 4 ||
        memchr(args->a[0].s->p, 0, args->a[0].s->n))
        return ash_trun_fail(r, ASH_EINVAL, "strftime_now takes a format of at most %d bytes", MAX_TIME / 4);
    const ash_tstr *s = args->a[0].s;
    char fmt[MAX_TIME], out[MAX_TIME];
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        char after = i + 1 < s->n ? s->p[i + 1] : 0;
        if (s->p[i] != '%') {
            fmt[n++] = s->p[i];
        } else if (after == 'z' || after == 'Z') {
            i++;
        } else if (after == 'f') {
            memcpy(fmt + n, "000000", 6);
            n += 6;
            i++;
        } else {
            fmt[n++] = '%';
            if (after)
                fmt[n++] = s->p[++i];
        }
    }
    fmt[n++] = '.'; /* so that an empty result differs from a failure */
    fmt[n] = 0;
    time_t now = (time_t)r->opts.now;
    struct tm tm;
    if (!(r->opts.utc ? gmtime_r(&now, &tm) : localtime_r(&now, &tm)))
        return ash_trun_fail(r, ASH_EINVAL, "strftime_now: the time cannot be shown");
    size_t len = format_time(out, sizeof out, fmt, &tm);
    if (!len)
        return ash_trun_fail(r, ASH_ELIMIT, "strftime_now: the result is longer than %d bytes", MAX_TIME);
    return ash_tstr_copy(r, out, len - 1, ash_tstr_tainted(s));
}

FUNC(func_refused)
{
    return ash_trun_fail(r, ASH_EUNSUPPORTED, "cycler, joiner and lipsum are not supported");
}

const ash_tbuiltin *ash_tfunc_find(ash_str name)
{
    static const ash_tbuiltin table[] = {
        {"namespace", func_namespace, 0, NULL},
        {"range", func_range, 0, NULL},
        {"raise_exception", func_raise_exception, 1, "message"},
        {"strftime_now", func_strftime_now, 1, "format"},
        {"dict", func_dict, 0, NULL},
        {"cycler", func_refused, 0, NULL},
        {"joiner", func_refused, 0, NULL},
        {"lipsum", func_refused, 0, NULL},
        {0},
    };
    return ash_tbuiltin_find(table, name);
}

const ash_tbuiltin *ash_tbuiltin_find(const ash_tbuiltin *table, ash_str name)
{
    for (; table->name; table++)
        if (ash_str_eqc(name, table->name))
            return table;
    return NULL;
}
