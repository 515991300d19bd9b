/* Owns JSON on both sides of a template: Jansson values and JSON text in, tojson out (as Python's
 * json.dumps prints). Refuses malformed text with its position, lone surrogates, integers beyond 64
 * bits. Works on one run, one thread. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/template_impl.h"

/* ---- Jansson in ---- */

static ash_tval from_object(ash_trun *r, const json_t *j, bool tainted)
{
    ash_tdict *d = ash_tdict_new(r);
    void *it = json_object_iter((json_t *)j);
    for (; it && !r->rc; it = json_object_iter_next((json_t *)j, it)) {
        const char *key = json_object_iter_key(it);
        ash_tdict_set(r, d, ash_tstr_copy(r, key, strlen(key), tainted),
                      ash_tval_from_json(r, json_object_iter_value(it), tainted));
    }
    return ash_tdict_val(d);
}

ash_tval ash_tval_from_json(ash_trun *r, const json_t *j, bool tainted)
{
    ash_tval v = ASH_TVAL_NONE;
    if (!ash_trun_enter(r))
        return v;
    switch (j ? json_typeof(j) : JSON_NULL) {
    case JSON_OBJECT: v = from_object(r, j, tainted); break;
    case JSON_ARRAY: {
        ash_tlist *l = ash_tlist_new(r, json_array_size(j));
        for (size_t i = 0; l && i < json_array_size(j) && !r->rc; i++)
            ash_tlist_push(r, l, ash_tval_from_json(r, json_array_get(j, i), tainted));
        v = ash_tlist_val(l);
        break;
    }
    case JSON_STRING: /* borrowed: the context outlives the rendering */
        v = ash_tstr_wrap(r, json_string_value(j), json_string_length(j), tainted);
        break;
    case JSON_INTEGER: v = ASH_TVAL_INT(json_integer_value(j)); break;
    case JSON_REAL: v = ASH_TVAL_FLOAT(json_real_value(j)); break;
    case JSON_TRUE: v = ASH_TVAL_BOOL(true); break;
    case JSON_FALSE: v = ASH_TVAL_BOOL(false); break;
    default: break;
    }
    ash_trun_leave(r);
    return v;
}

/* ---- text in ---- */

typedef struct reader {
    ash_trun *r;
    const char *p; /* [n] */
    size_t n, at;
    const char *const *untrusted; /* keys of the top object */
    const char *what;
} reader;

static ash_tval read_value(reader *x, bool tainted, bool top);

static ash_tval bad(reader *x, const char *wanted)
{
    ash_trun *r = x->r;
    if (!r->rc) {
        r->rc = ash_err_set(r->err, ASH_EFORMAT, "%s: expected %s at byte %zu", x->what, wanted, x->at);
        if (r->err)
            r->err->pos = (int64_t)x->at;
    }
    return ASH_TVAL_UNDEF;
}

static void skip_blank(reader *x)
{
    while (x->at < x->n && x->p[x->at] && strchr(" \t\r\n", x->p[x->at])) x->at++;
}

static bool take(reader *x, char c)
{
    skip_blank(x);
    if (x->at >= x->n || x->p[x->at] != c)
        return false;
    x->at++;
    return true;
}

/* Four hexadecimal digits. */
static bool read_hex(reader *x, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++, x->at++) {
        char c = x->at < x->n ? x->p[x->at] : 'z';
        int d = c >= '0' && c <= '9' ? c - '0'
                : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
        if (d < 0)
            return false;
        *out = *out * 16 + (uint32_t)d;
    }
    return true;
}

static void read_escape(reader *x, ash_tsink *k)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = x->at < x->n ? x->p[x->at++] : 0;
    const char *known = c ? strchr(from, c) : NULL;
    uint32_t cp, low;
    char utf8[4];
    if (known) {
        ash_tsink_bytes(x->r, k, &to[known - from], 1, false);
        return;
    }
    if (c != 'u' || !read_hex(x, &cp)) {
        bad(x, "an escape");
        return;
    }
    if (cp >= 0xD800 && cp < 0xDC00 && x->at + 1 < x->n && x->p[x->at] == '\\' &&
        x->p[x->at + 1] == 'u') {
        x->at += 2;
        if (!read_hex(x, &low) || low < 0xDC00 || low > 0xDFFF) {
            bad(x, "the second half of a surrogate pair");
            return;
        }
        cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
    }
    if (cp >= 0xD800 && cp < 0xE000)
        bad(x, "a whole surrogate pair");
    else
        ash_tsink_bytes(x->r, k, utf8, ash_utf8_encode(cp, utf8), false);
}

static ash_tval read_string(reader *x, bool tainted)
{
    ash_tsink k = {0};
    size_t plain = x->at;
    while (!x->r->rc) {
        if (x->at >= x->n || (unsigned char)x->p[x->at] < 0x20)
            return bad(x, "the end of a string");
        char c = x->p[x->at];
        if (c == '"' || c == '\\') {
            ash_tsink_bytes(x->r, &k, x->p + plain, x->at - plain, false);
            x->at++;
            if (c == '"')
                break;
            read_escape(x, &k);
            plain = x->at;
            continue;
        }
        uint32_t cp;
        bool ok = true;
        x->at += (unsigned char)c < 0x80 ? 1 : ash_utf8_decode(x->p + x->at, x->n - x->at, &cp, &ok);
        if (!ok)
            return bad(x, "valid UTF-8");
    }
    return ash_tstr_wrap(x->r, k.p ? k.p : "", k.n, tainted);
}

static ash_tval read_number(reader *x)
{
    char text[64];
    size_t n = 0, begin = x->at;
    bool real = false;
    while (x->at < x->n && n + 1 < sizeof text && x->p[x->at] && strchr("+-.0123456789eE", x->p[x->at])) {
        real = real || strchr(".eE", x->p[x->at]);
        text[n++] = x->p[x->at++];
    }
    text[n] = 0;
    const char *first = text + (text[0] == '-');
    bool zero = first[0] == '0' && first[1] >= '0' && first[1] <= '9';
    if (n + 1 == sizeof text || zero || first[0] < '0' || first[0] > '9' || text[n - 1] == '.') {
        x->at = begin;
        return bad(x, "a number");
    }
    char *end;
    errno = 0;
    ash_tval v = real ? ASH_TVAL_FLOAT(strtod(text, &end)) : ASH_TVAL_INT(strtoll(text, &end, 10));
    if (*end || (errno && !real) || (real && isinf(v.f))) {
        x->at = begin;
        return bad(x, *end ? "a number" : "a number of at most 64 bits");
    }
    return v;
}

static bool listed(const char *const *names, const ash_tstr *key)
{
    for (; names && *names; names++)
        if (ash_tstr_is(key, *names))
            return true;
    return false;
}

static ash_tval read_object(reader *x, bool tainted, bool top)
{
    ash_tdict *d = ash_tdict_new(x->r);
    bool first = true;
    while (!x->r->rc && !take(x, '}')) {
        if (!first && !take(x, ','))
            return bad(x, "',' or '}'");
        first = false;
        if (!take(x, '"'))
            return bad(x, "a key");
        ash_tval key = read_string(x, tainted);
        if (x->r->rc || !take(x, ':'))
            return bad(x, "':'");
        bool below = tainted || (top && listed(x->untrusted, key.s));
        ash_tdict_set(x->r, d, key, read_value(x, below, false));
    }
    return ash_tdict_val(d);
}

static ash_tval read_list(reader *x, bool tainted)
{
    ash_tlist *l = ash_tlist_new(x->r, 0);
    bool first = true;
    while (!x->r->rc && !take(x, ']')) {
        if (!first && !take(x, ','))
            return bad(x, "',' or ']'");
        first = false;
        ash_tlist_push(x->r, l, read_value(x, tainted, false));
    }
    return ash_tlist_val(l);
}

static ash_tval read_word(reader *x)
{
    static const char *const words[] = {"null", "true", "false"};
    for (int i = 0; i < 3; i++) {
        size_t len = strlen(words[i]);
        if (x->n - x->at >= len && memcmp(x->p + x->at, words[i], len) == 0) {
            x->at += len;
            return i ? ASH_TVAL_BOOL(i == 1) : ASH_TVAL_NONE;
        }
    }
    return bad(x, "a value");
}

static ash_tval read_value(reader *x, bool tainted, bool top)
{
    if (!ash_trun_enter(x->r))
        return ASH_TVAL_UNDEF;
    skip_blank(x);
    char c = x->at < x->n ? x->p[x->at] : 0;
    ash_tval v;
    if (c == '{' || c == '[' || c == '"') {
        x->at++;
        v = c == '{' ? read_object(x, tainted, top) : c == '[' ? read_list(x, tainted)
                                                                : read_string(x, tainted);
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        v = read_number(x);
    } else {
        v = read_word(x);
    }
    ash_trun_leave(x->r);
    return v;
}

ash_tval ash_tval_from_text(ash_trun *r, const char *p, size_t n, bool tainted,
                            const char *const *untrusted, const char *what)
{
    reader x = {.r = r, .p = p, .n = n, .untrusted = untrusted, .what = what};
    ash_tval v = read_value(&x, tainted, true);
    skip_blank(&x);
    if (!r->rc && x.at < n)
        return bad(&x, "the end");
    return v;
}

/* ---- out ---- */

typedef struct writer {
    ash_trun *r;
    ash_tsink *k;
    const ash_tstr *item_sep, *key_sep;
    const ash_tstr *indent; /* NULL: all on one line */
    bool ascii, sort;
} writer;

static void write_value(writer *w, ash_tval v, int level);

static void write_string(writer *w, const ash_tstr *s)
{
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    size_t plain = 0;
    ash_tsink_lit(w->r, w->k, "\"");
    for (size_t i = 0; i < s->n && !w->r->rc;) {
        uint32_t cp = (unsigned char)s->p[i];
        size_t len = 1;
        bool ok;
        if (cp >= 0x80)
            len = ash_utf8_decode(s->p + i, s->n - i, &cp, &ok);
        const char *known = cp && cp < 0x80 ? strchr(from, (int)cp) : NULL;
        if (!known && cp >= 0x20 && !(w->ascii && cp > '~')) {
            i += len;
            continue;
        }
        char esc[16];
        if (known)
            snprintf(esc, sizeof esc, "\\%c", to[known - from]);
        else if (cp < 0x10000)
            snprintf(esc, sizeof esc, "\\u%04x", cp);
        else
            snprintf(esc, sizeof esc, "\\u%04x\\u%04x", 0xD800 + ((cp - 0x10000) >> 10),
                     0xDC00 + ((cp - 0x10000) & 0x3FF));
        ash_tsink_part(w->r, w->k, s, plain, i);
        ash_tsink_lit(w->r, w->k, esc);
        plain = i += len;
    }
    ash_tsink_part(w->r, w->k, s, plain, s->n);
    ash_tsink_lit(w->r, w->k, "\"");
}

static void write_float(writer *w, double x)
{
    char text[32];
    ash_tfloat_repr(x, text);
    ash_tsink_lit(w->r, w->k, isnan(x) ? "NaN" : isinf(x) ? (x < 0 ? "-Infinity" : "Infinity") : text);
}

static void new_line(writer *w, int level)
{
    if (!w->indent)
        return;
    ash_tsink_lit(w->r, w->k, "\n");
    for (int i = 0; i < level && !w->r->rc; i++) ash_tsink_str(w->r, w->k, w->indent);
}

static void write_key(writer *w, ash_tval key)
{
    switch (key.t) {
    case ASH_T_STR: write_string(w, key.s); break;
    case ASH_T_NONE:
    case ASH_T_BOOL:
    case ASH_T_INT:
    case ASH_T_FLOAT:
        ash_tsink_lit(w->r, w->k, "\"");
        write_value(w, key, 0);
        ash_tsink_lit(w->r, w->k, "\"");
        break;
    default:
        ash_trun_fail(w->r, ASH_EINVAL, "keys must be str, int, float, bool or None, not %s",
                      ash_tval_type(key));
    }
}

static void write_dict(writer *w, const ash_tdict *d, int level)
{
    ash_trun *r = w->r;
    ash_tval *order = NULL; /* indices, sorted by key */
    if (w->sort && d->n) {
        order = ash_trun_alloc(r, d->n, sizeof *order);
        ash_tval *keys = ash_trun_alloc(r, d->n, sizeof *keys);
        if (!order || !keys)
            return;
        for (size_t i = 0; i < d->n; i++) {
            keys[i] = d->v[i].key;
            order[i] = ASH_TVAL_INT((int64_t)i);
        }
        if (!ash_tval_sort(r, keys, order, d->n, false))
            return;
    }
    ash_tsink_lit(r, w->k, "{");
    for (size_t i = 0; i < d->n && !r->rc; i++) {
        const ash_tpair *p = &d->v[order ? (size_t)order[i].i : i];
        if (i)
            ash_tsink_str(r, w->k, w->item_sep);
        new_line(w, level + 1);
        write_key(w, p->key);
        ash_tsink_str(r, w->k, w->key_sep);
        write_value(w, p->val, level + 1);
    }
    if (d->n)
        new_line(w, level);
    ash_tsink_lit(r, w->k, "}");
}

static void write_list(writer *w, const ash_tlist *l, int level)
{
    ash_tsink_lit(w->r, w->k, "[");
    for (size_t i = 0; i < l->n && !w->r->rc; i++) {
        if (i)
            ash_tsink_str(w->r, w->k, w->item_sep);
        new_line(w, level + 1);
        write_value(w, l->v[i], level + 1);
    }
    if (l->n)
        new_line(w, level);
    ash_tsink_lit(w->r, w->k, "]");
}

static void write_value(writer *w, ash_tval v, int level)
{
    if (!ash_trun_enter(w->r))
        return;
    switch (v.t) {
    case ASH_T_NONE: ash_tsink_lit(w->r, w->k, "null"); break;
    case ASH_T_BOOL: ash_tsink_lit(w->r, w->k, v.b ? "true" : "false"); break;
    case ASH_T_INT: ash_tval_repr(w->r, w->k, v); break;
    case ASH_T_FLOAT: write_float(w, v.f); break;
    case ASH_T_STR: write_string(w, v.s); break;
    case ASH_T_LIST:
    case ASH_T_TUPLE: write_list(w, v.list, level); break;
    case ASH_T_DICT: write_dict(w, v.dict, level); break;
    default:
        ash_trun_fail(w->r, ASH_EINVAL, "Object of type %s is not JSON serializable", ash_tval_type(v));
    }
    ash_trun_leave(w->r);
}

/* indent: None, a number of spaces, or the text itself */
static const ash_tstr *indent_text(ash_trun *r, ash_tval v)
{
    int64_t n;
    if (v.t == ASH_T_MISSING || v.t == ASH_T_NONE)
        return NULL;
    if (v.t == ASH_T_STR)
        return v.s;
    if (!ash_tval_integer(v, &n) || n > 1000) {
        ash_trun_fail(r, ASH_EINVAL, "tojson: indent must be an integer up to 1000 or a string");
        return NULL;
    }
    ash_tsink k = {0};
    for (int64_t i = 0; i < n; i++) ash_tsink_lit(r, &k, " ");
    return ash_tval_str(r, ash_tsink_take(r, &k));
}

ash_tval ash_tfilter_tojson(ash_trun *r, ash_tval self, const ash_targs *args)
{
    ash_tsink k = {0};
    writer w = {.r = r, .k = &k, .ascii = ash_tval_truth(args->a[0]), .sort = ash_tval_truth(args->a[3])};
    w.indent = indent_text(r, args->a[1]);
    w.item_sep = ash_tval_str(r, ash_tstr_lit(r, w.indent ? "," : ", "));
    w.key_sep = ash_tval_str(r, ash_tstr_lit(r, ": "));
    ash_tval sep = args->a[2];
    if (sep.t != ASH_T_MISSING && sep.t != ASH_T_NONE) {
        if ((sep.t != ASH_T_TUPLE && sep.t != ASH_T_LIST) || sep.list->n != 2 ||
            sep.list->v[0].t != ASH_T_STR || sep.list->v[1].t != ASH_T_STR)
            return ash_trun_fail(r, ASH_EINVAL, "tojson: separators must be two strings");
        w.item_sep = sep.list->v[0].s;
        w.key_sep = sep.list->v[1].s;
    }
    write_value(&w, self, 0);
    if (k.n_taint) { /* escapes and structure around untrusted text are as untrusted */
        k.taint[0] = (ash_span){0, k.n};
        k.n_taint = 1;
    }
    return ash_tsink_take(r, &k);
}
