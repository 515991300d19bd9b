/* Owns strings of a rendering: taint through cutting and joining, builders, Python's str and repr.
 * Refuses memory beyond the run's. Works on one run, one thread. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "text/template_impl.h"

static size_t count_cps(const char *p, size_t n)
{
    size_t cps = 0;
    for (size_t i = 0; i < n; i++) cps += ((unsigned char)p[i] & 0xC0) != 0x80;
    return cps;
}

static ash_tval make(ash_trun *r, const char *p, size_t n, const ash_span *taint, size_t n_taint)
{
    ash_tstr *s = ash_trun_alloc(r, 1, sizeof *s);
    if (!s)
        return ASH_TVAL_UNDEF;
    *s = (ash_tstr){.p = p, .n = n, .cps = count_cps(p, n), .taint = taint, .n_taint = n_taint};
    return ASH_TVAL_STR(s);
}

ash_tval ash_tstr_wrap(ash_trun *r, const char *p, size_t n, bool tainted)
{
    ash_span *t = NULL;
    if (!ash_trun_charge(r, n / 64))
        return ASH_TVAL_UNDEF;
    if (tainted && n) {
        t = ash_trun_alloc(r, 1, sizeof *t);
        if (!t)
            return ASH_TVAL_UNDEF;
        *t = (ash_span){0, n};
    }
    return make(r, p, n, t, t ? 1 : 0);
}

ash_tval ash_tstr_copy(ash_trun *r, const char *p, size_t n, bool tainted)
{
    char *q = ash_trun_alloc(r, n + 1, 1);
    if (!q)
        return ASH_TVAL_UNDEF;
    if (n)
        memcpy(q, p, n);
    return ash_tstr_wrap(r, q, n, tainted);
}

ash_tval ash_tstr_lit(ash_trun *r, const char *cstr)
{
    return ash_tstr_wrap(r, cstr, strlen(cstr), false);
}

ash_tval ash_tstr_cut(ash_trun *r, const ash_tstr *s, size_t b, size_t e)
{
    if (e < b)
        e = b;
    if (!ash_trun_charge(r, 1 + (e - b) / 64 + s->n_taint / 16))
        return ASH_TVAL_UNDEF;
    size_t first = 0, last;
    while (first < s->n_taint && s->taint[first].end <= b) first++;
    for (last = first; last < s->n_taint && s->taint[last].begin < e;) last++;
    ash_span *t = NULL;
    if (last > first) {
        t = ash_trun_alloc(r, last - first, sizeof *t);
        if (!t)
            return ASH_TVAL_UNDEF;
        for (size_t i = first; i < last; i++) {
            size_t tb = s->taint[i].begin > b ? s->taint[i].begin : b;
            size_t te = s->taint[i].end < e ? s->taint[i].end : e;
            t[i - first] = (ash_span){tb - b, te - b};
        }
    }
    ash_tval v = make(r, s->p + b, e - b, t, last - first);
    if (v.t == ASH_T_STR && s->markup)
        ((ash_tstr *)v.s)->markup = true; /* ours alone until it is returned */
    return v;
}

bool ash_tstr_tainted(const ash_tstr *s)
{
    return s->n_taint > 0;
}

size_t ash_tstr_offset(const ash_tstr *s, size_t i)
{
    if (s->cps == s->n)
        return i;
    if (i >= s->cps)
        return s->n;
    size_t at = 0;
    for (size_t seen = 0;; at++) {
        if (((unsigned char)s->p[at] & 0xC0) != 0x80) {
            if (seen == i)
                return at;
            seen++;
        }
    }
}

bool ash_tstr_eq(const ash_tstr *a, const ash_tstr *b)
{
    return a->n == b->n && (a->n == 0 || memcmp(a->p, b->p, a->n) == 0);
}

bool ash_tstr_is(const ash_tstr *s, const char *cstr)
{
    return s->n == strlen(cstr) && memcmp(s->p, cstr, s->n) == 0;
}

size_t ash_tstr_find(const ash_tstr *a, const ash_tstr *b, size_t from)
{
    if (from > a->n)
        return SIZE_MAX;
    if (b->n == 0)
        return from;
    const char *at = memmem(a->p + from, a->n - from, b->p, b->n);
    return at ? (size_t)(at - a->p) : SIZE_MAX;
}

/* ---- builders ---- */

static bool reserve(ash_trun *r, ash_tsink *k, size_t n)
{
    if (r->rc)
        return false;
    if (k->max && (n > k->max || k->n > k->max - n)) {
        ash_trun_fail(r, ASH_ELIMIT, "the output is longer than %zu bytes", k->max);
        return false;
    }
    if (!ash_trun_charge(r, n / 64))
        return false;
    if (n <= k->cap - k->n)
        return true;
    if (n > SIZE_MAX / 4 || k->n > SIZE_MAX / 4)
        return ash_trun_alloc(r, SIZE_MAX, 1) != NULL;
    size_t cap = k->cap ? k->cap * 2 : 64;
    while (cap < k->n + n) cap *= 2;
    char *p = ash_trun_alloc(r, cap, 1);
    if (!p)
        return false;
    if (k->n)
        memcpy(p, k->p, k->n);
    k->p = p;
    k->cap = cap;
    return true;
}

static void taint(ash_trun *r, ash_tsink *k, size_t begin, size_t end)
{
    if (begin >= end || r->rc)
        return;
    if (k->n_taint && k->taint[k->n_taint - 1].end == begin) {
        k->taint[k->n_taint - 1].end = end;
        return;
    }
    if (ash_trun_grow(r, (void **)&k->taint, k->n_taint, &k->cap_taint, sizeof *k->taint))
        k->taint[k->n_taint++] = (ash_span){begin, end};
}

void ash_tsink_bytes(ash_trun *r, ash_tsink *k, const char *p, size_t n, bool tainted)
{
    if (n == 0 || !reserve(r, k, n))
        return;
    memcpy(k->p + k->n, p, n);
    if (tainted)
        taint(r, k, k->n, k->n + n);
    k->n += n;
}

void ash_tsink_lit(ash_trun *r, ash_tsink *k, const char *cstr)
{
    ash_tsink_bytes(r, k, cstr, strlen(cstr), false);
}

void ash_tsink_part(ash_trun *r, ash_tsink *k, const ash_tstr *s, size_t b, size_t e)
{
    if (b >= e || !reserve(r, k, e - b) || !ash_trun_charge(r, s->n_taint / 16))
        return;
    memcpy(k->p + k->n, s->p + b, e - b);
    for (size_t i = 0; i < s->n_taint; i++) {
        size_t tb = s->taint[i].begin > b ? s->taint[i].begin : b;
        size_t te = s->taint[i].end < e ? s->taint[i].end : e;
        if (tb < te)
            taint(r, k, k->n + tb - b, k->n + te - b);
    }
    k->n += e - b;
}

void ash_tsink_str(ash_trun *r, ash_tsink *k, const ash_tstr *s)
{
    ash_tsink_part(r, k, s, 0, s->n);
}

ash_tval ash_tsink_take(ash_trun *r, ash_tsink *k)
{
    if (r->rc)
        return ASH_TVAL_UNDEF;
    return make(r, k->p ? k->p : "", k->n, k->taint, k->n_taint);
}

ash_tval ash_tstr_add(ash_trun *r, const ash_tstr *a, const ash_tstr *b)
{
    bool markup = a->markup || b->markup;
    if (markup && !a->markup)
        a = ash_tval_str(r, ash_tstr_escape(r, a));
    if (markup && !b->markup)
        b = ash_tval_str(r, ash_tstr_escape(r, b));
    ash_tsink k = {0};
    if (!reserve(r, &k, a->n + b->n))
        return ASH_TVAL_UNDEF;
    ash_tsink_str(r, &k, a);
    ash_tsink_str(r, &k, b);
    ash_tval v = ash_tsink_take(r, &k);
    if (v.t == ASH_T_STR)
        ((ash_tstr *)v.s)->markup = markup;
    return v;
}

ash_tval ash_tstr_escape(ash_trun *r, const ash_tstr *s)
{
    ash_tsink k = {0};
    size_t plain = 0;
    for (size_t i = 0; i < s->n && !r->rc; i++) {
        const char *e = s->p[i] == '&'    ? "&amp;"
                        : s->p[i] == '<'  ? "&lt;"
                        : s->p[i] == '>'  ? "&gt;"
                        : s->p[i] == '\'' ? "&#39;"
                        : s->p[i] == '"'  ? "&#34;" : NULL;
        if (!e)
            continue;
        ash_tsink_part(r, &k, s, plain, i);
        ash_tsink_lit(r, &k, e);
        plain = i + 1;
    }
    ash_tsink_part(r, &k, s, plain, s->n);
    ash_tval v = ash_tsink_take(r, &k);
    if (v.t == ASH_T_STR)
        ((ash_tstr *)v.s)->markup = true;
    return v;
}

/* ---- printing ---- */

void ash_tfloat_repr(double x, char out[32])
{
    if (isnan(x) || isinf(x)) {
        snprintf(out, 32, "%s", isnan(x) ? "nan" : x < 0 ? "-inf" : "inf");
        return;
    }
    char e[40];
    for (int digits = 0; digits < 17; digits++) { /* the shortest that reads back the same */
        snprintf(e, sizeof e, "%.*e", digits, x);
        if (!(strtod(e, NULL) < x) && !(strtod(e, NULL) > x))
            break;
    }
    char *mark = strchr(e, 'e');
    int exponent = (int)strtol(mark + 1, NULL, 10), n = 0;
    char digits[32];
    for (const char *p = e; p < mark; p++)
        if (*p >= '0' && *p <= '9')
            digits[n++] = *p;
    char *o = out;
    if (e[0] == '-')
        *o++ = '-';
    if (exponent < -4 || exponent >= 16) {
        *o++ = digits[0];
        if (n > 1)
            *o++ = '.';
        for (int i = 1; i < n; i++) *o++ = digits[i];
        snprintf(o, 13, "e%c%02d", exponent < 0 ? '-' : '+', exponent < 0 ? -exponent : exponent);
        return;
    }
    if (exponent < 0) {
        *o++ = '0';
        *o++ = '.';
        for (int i = exponent + 1; i < 0; i++) *o++ = '0';
        for (int i = 0; i < n; i++) *o++ = digits[i];
        *o = 0;
        return;
    }
    for (int i = 0; i <= exponent || i < n; i++) {
        if (i == exponent + 1)
            *o++ = '.';
        *o++ = i < n ? digits[i] : '0';
    }
    if (n <= exponent + 1) {
        *o++ = '.';
        *o++ = '0';
    }
    *o = 0;
}

/* Python's str.isprintable for one code point. */
static bool printable(uint32_t cp)
{
    if (cp == ' ')
        return true;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CN: case UTF8PROC_CATEGORY_ZS: case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: case UTF8PROC_CATEGORY_CC: case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS: case UTF8PROC_CATEGORY_CO:
        return false;
    default: return true;
    }
}

static void repr_str(ash_trun *r, ash_tsink *k, const ash_tstr *s)
{
    bool tainted = ash_tstr_tainted(s);
    char quote = memchr(s->p, '\'', s->n) && !memchr(s->p, '"', s->n) ? '"' : '\'';
    ash_tsink_bytes(r, k, &quote, 1, tainted);
    for (size_t i = 0; i < s->n && !r->rc;) {
        uint32_t cp;
        bool ok;
        size_t len = ash_utf8_decode(s->p + i, s->n - i, &cp, &ok);
        char esc[16];
        const char *out = esc;
        size_t n = 0;
        if (cp == (uint32_t)quote || cp == '\\')
            n = (size_t)snprintf(esc, sizeof esc, "\\%c", (char)cp);
        else if (cp == '\n' || cp == '\r' || cp == '\t')
            n = (size_t)snprintf(esc, sizeof esc, "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
        else if (cp < 0x20 || cp == 0x7F)
            n = (size_t)snprintf(esc, sizeof esc, "\\x%02x", cp);
        else if (cp < 0x7F || printable(cp))
            out = s->p + i, n = len;
        else
            n = (size_t)snprintf(esc, sizeof esc,
                                 cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
        ash_tsink_bytes(r, k, out, n, tainted);
        i += len;
    }
    ash_tsink_bytes(r, k, &quote, 1, tainted);
}

static void repr_list(ash_trun *r, ash_tsink *k, const ash_tlist *l, bool tuple)
{
    ash_tsink_lit(r, k, tuple ? "(" : "[");
    for (size_t i = 0; i < l->n && !r->rc; i++) {
        if (i)
            ash_tsink_lit(r, k, ", ");
        ash_tval_repr(r, k, l->v[i]);
    }
    ash_tsink_lit(r, k, tuple ? (l->n == 1 ? ",)" : ")") : "]");
}

static void repr_dict(ash_trun *r, ash_tsink *k, const ash_tdict *d)
{
    ash_tsink_lit(r, k, "{");
    for (size_t i = 0; i < d->n && !r->rc; i++) {
        if (i)
            ash_tsink_lit(r, k, ", ");
        ash_tval_repr(r, k, d->v[i].key);
        ash_tsink_lit(r, k, ": ");
        ash_tval_repr(r, k, d->v[i].val);
    }
    ash_tsink_lit(r, k, "}");
}

static void repr_view(ash_trun *r, ash_tsink *k, const ash_tview *view)
{
    static const char *const open[] = {"dict_keys([", "dict_values([", "dict_items(["};
    ash_tsink_lit(r, k, open[view->kind]);
    for (size_t i = 0; i < view->dict->n && !r->rc; i++) {
        const ash_tpair *p = &view->dict->v[i];
        ash_tsink_lit(r, k, i ? ", " : "");
        ash_tsink_lit(r, k, view->kind == ASH_TVIEW_ITEMS ? "(" : "");
        if (view->kind != ASH_TVIEW_VALUES)
            ash_tval_repr(r, k, p->key);
        ash_tsink_lit(r, k, view->kind == ASH_TVIEW_ITEMS ? ", " : "");
        if (view->kind != ASH_TVIEW_KEYS)
            ash_tval_repr(r, k, p->val);
        ash_tsink_lit(r, k, view->kind == ASH_TVIEW_ITEMS ? ")" : "");
    }
    ash_tsink_lit(r, k, "])");
}

/* Things whose printed form in Python holds an address: a fixed form without it. */
static void repr_object(ash_trun *r, ash_tsink *k, ash_tval v)
{
    char text[128];
    switch (v.t) {
    case ASH_T_RANGE:
        snprintf(text, sizeof text, v.range->step == 1 ? "range(%lld, %lld)" : "range(%lld, %lld, %lld)",
                 (long long)v.range->start, (long long)v.range->stop, (long long)v.range->step);
        break;
    case ASH_T_LOOP: {
        ash_tval n = ash_trender_loop_attr(v.loop, ASH_STR("length"));
        snprintf(text, sizeof text, "<LoopContext %lld/%lld>", (long long)v.loop->index0 + 1,
                 (long long)(n.t == ASH_T_INT ? n.i : 0));
        break;
    }
    case ASH_T_MACRO:
        snprintf(text, sizeof text, "<Macro '%.*s'>",
                 (int)(v.macro->def->name.n < 90 ? v.macro->def->name.n : 90), v.macro->def->name.p);
        break;
    case ASH_T_METHOD: snprintf(text, sizeof text, "<method %s>", v.method->def->name); break;
    case ASH_T_FUNC: snprintf(text, sizeof text, "<function %s>", v.func->name); break;
    default: snprintf(text, sizeof text, "<%s object>", ash_tval_type(v)); break;
    }
    ash_tsink_lit(r, k, text);
}

void ash_tval_repr(ash_trun *r, ash_tsink *k, ash_tval v)
{
    char text[32];
    if (!ash_trun_enter(r))
        return;
    switch (v.t) {
    case ASH_T_UNDEF: ash_tsink_lit(r, k, "Undefined"); break;
    case ASH_T_NONE: ash_tsink_lit(r, k, "None"); break;
    case ASH_T_BOOL: ash_tsink_lit(r, k, v.b ? "True" : "False"); break;
    case ASH_T_INT:
        snprintf(text, sizeof text, "%lld", (long long)v.i);
        ash_tsink_lit(r, k, text);
        break;
    case ASH_T_FLOAT:
        ash_tfloat_repr(v.f, text);
        ash_tsink_lit(r, k, text);
        break;
    case ASH_T_STR:
        if (v.s->markup)
            ash_tsink_lit(r, k, "Markup(");
        repr_str(r, k, v.s);
        if (v.s->markup)
            ash_tsink_lit(r, k, ")");
        break;
    case ASH_T_LIST: repr_list(r, k, v.list, false); break;
    case ASH_T_TUPLE: repr_list(r, k, v.list, true); break;
    case ASH_T_DICT: repr_dict(r, k, v.dict); break;
    case ASH_T_NS:
        ash_tsink_lit(r, k, "<Namespace ");
        repr_dict(r, k, v.dict);
        ash_tsink_lit(r, k, ">");
        break;
    case ASH_T_VIEW: repr_view(r, k, v.view); break;
    default: repr_object(r, k, v); break;
    }
    ash_trun_leave(r);
}

const ash_tstr *ash_tval_str(ash_trun *r, ash_tval v)
{
    static const ash_tstr empty = {.p = ""};
    if (v.t == ASH_T_STR)
        return v.s;
    if (r->rc || v.t == ASH_T_UNDEF || v.t == ASH_T_MISSING)
        return &empty;
    ash_tsink k = {0};
    ash_tval_repr(r, &k, v);
    if (k.n_taint) { /* quotes and separators around untrusted text are as untrusted */
        k.taint[0] = (ash_span){0, k.n};
        k.n_taint = 1;
    }
    v = ash_tsink_take(r, &k);
    return v.t == ASH_T_STR ? v.s : &empty;
}
