/* Owns the filters (jinja2/filters.py; tojson is in template_json.c). Refuses unknown ones by name
 * (its caller does). Works on one run, one thread. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/template_impl.h"
#include "text/template_text.h"

#define FILTER(name) static ash_tval name(ash_trun *r, ash_tval self, const ash_targs *args)

static bool given(ash_tval v)
{
    return v.t != ASH_T_MISSING && v.t != ASH_T_NONE;
}

static ash_str text_of(ash_trun *r, ash_tval v)
{
    const ash_tstr *s = ash_tval_str(r, v);
    return (ash_str){s->p, s->n};
}

/* An integer argument; false with failure if it is something else. */
static bool int_arg(ash_trun *r, ash_tval v, int64_t *out)
{
    if (!given(v) || ash_tval_integer(v, out))
        return true;
    ash_trun_fail(r, ASH_EINVAL, "expected an integer argument, not %s", ash_tval_type(v));
    return false;
}

/* ---- text ---- */

FILTER(filter_upper) { return ash_tcase_map(r, ash_tval_str(r, self), ASH_TCASE_UPPER); }
FILTER(filter_lower) { return ash_tcase_map(r, ash_tval_str(r, self), ASH_TCASE_LOWER); }
FILTER(filter_title) { return ash_tcase_map(r, ash_tval_str(r, self), ASH_TCASE_JINJA_TITLE); }
FILTER(filter_capitalize) { return ash_tcase_map(r, ash_tval_str(r, self), ASH_TCASE_CAPITALIZE); }
FILTER(filter_string) { return ASH_TVAL_STR(ash_tval_str(r, self)); }
FILTER(filter_escape)
{
    const ash_tstr *s = ash_tval_str(r, self);
    return s->markup ? ASH_TVAL_STR(s) : ash_tstr_escape(r, s);
}

FILTER(filter_safe)
{
    const ash_tstr *s = ash_tval_str(r, self);
    ash_tval v = ash_tstr_cut(r, s, 0, s->n);
    if (v.t == ASH_T_STR)
        ((ash_tstr *)v.s)->markup = true; /* a copy of our own */
    return v;
}

FILTER(filter_trim)
{
    const ash_tstr *chars = NULL;
    if (given(args->a[0])) {
        if (args->a[0].t != ASH_T_STR)
            return ash_trun_fail(r, ASH_EINVAL, "strip arg must be None or str");
        chars = args->a[0].s;
    }
    return ash_ttext_strip(r, ash_tval_str(r, self), chars, ASH_TSTRIP_BOTH);
}

FILTER(filter_replace)
{
    int64_t most = -1;
    if (!int_arg(r, args->a[2], &most))
        return ASH_TVAL_UNDEF;
    return ash_ttext_replace(r, ash_tval_str(r, self), ash_tval_str(r, args->a[0]),
                             ash_tval_str(r, args->a[1]), most);
}

static const ash_tstr *indention(ash_trun *r, ash_tval width)
{
    int64_t n = 4;
    if (width.t == ASH_T_STR)
        return width.s;
    if (!int_arg(r, width, &n))
        return NULL;
    ash_tsink k = {0};
    for (int64_t i = 0; i < n && !r->rc && ash_trun_charge(r, 1); i++) ash_tsink_lit(r, &k, " ");
    return ash_tval_str(r, ash_tsink_take(r, &k));
}

/* Every line but the first is moved in; `first` and `blank` include that and empty lines. */
FILTER(filter_indent)
{
    if (self.t != ASH_T_STR)
        return self.t == ASH_T_UNDEF
                   ? ash_teval_undefined(r, self)
                   : ash_trun_fail(r, ASH_EINVAL, "indent takes a string, not %s", ash_tval_type(self));
    const ash_tstr *in = indention(r, args->a[0]);
    bool first = ash_tval_truth(args->a[1]), blank = ash_tval_truth(args->a[2]);
    /* the reference appends a line end before it splits, so that an empty last line counts */
    ash_tval with_end = ash_tstr_add(r, self.s, ash_tval_str(r, ash_tstr_lit(r, "\n")));
    ash_tlist *lines = r->rc ? NULL : ash_ttext_lines(r, with_end.s, false);
    ash_tsink k = {0};
    for (size_t i = 0; lines && i < lines->n && !r->rc; i++) {
        const ash_tstr *line = lines->v[i].s;
        if (i)
            ash_tsink_lit(r, &k, "\n");
        if (i ? blank || line->n : first)
            ash_tsink_str(r, &k, in);
        ash_tsink_str(r, &k, line);
    }
    return ash_tsink_take(r, &k);
}

FILTER(filter_from_json)
{
    const ash_tstr *s = ash_tval_str(r, self);
    return ash_tval_from_text(r, s->p, s->n, ash_tstr_tainted(s), NULL, "from_json");
}

/* ---- numbers ---- */

static ash_tval from_double(ash_trun *r, double x, ash_tval otherwise, bool quiet)
{
    if (isnan(x) || (isinf(x) && quiet))
        return otherwise;
    if (isinf(x))
        return ash_trun_fail(r, ASH_EINVAL, "cannot convert float infinity to integer");
    if (x >= 0x1p63 || x < -0x1p63)
        return ash_trun_fail(r, ASH_ELIMIT, "integer beyond 64 bits");
    return ASH_TVAL_INT((int64_t)x);
}

FILTER(filter_int)
{
    ash_tval otherwise = args->a[0].t == ASH_T_MISSING ? ASH_TVAL_INT(0) : args->a[0];
    int64_t i, base = 10;
    double x;
    bool big;
    if (self.t == ASH_T_UNDEF)
        return ash_teval_undefined(r, self);
    if (!int_arg(r, args->a[1], &base))
        return ASH_TVAL_UNDEF;
    if (self.t == ASH_T_STR && (base == 0 || (base >= 2 && base <= 36)) &&
        ash_ttext_int(self.s, base, &i, &big))
        return big ? ash_trun_fail(r, ASH_ELIMIT, "integer beyond 64 bits") : ASH_TVAL_INT(i);
    if (self.t == ASH_T_STR)
        return ash_ttext_float(self.s, &x) ? from_double(r, x, otherwise, true) : otherwise;
    if (ash_tval_integer(self, &i))
        return ASH_TVAL_INT(i);
    return self.t == ASH_T_FLOAT ? from_double(r, self.f, otherwise, false) : otherwise;
}

FILTER(filter_float)
{
    double x;
    if (self.t == ASH_T_UNDEF)
        return ash_teval_undefined(r, self);
    if (ash_tval_number(self, &x) || (self.t == ASH_T_STR && ash_ttext_float(self.s, &x)))
        return ASH_TVAL_FLOAT(x);
    return args->a[0].t == ASH_T_MISSING ? ASH_TVAL_FLOAT(0) : args->a[0];
}

FILTER(filter_abs)
{
    int64_t i;
    if (self.t == ASH_T_UNDEF)
        return ash_teval_undefined(r, self);
    if (self.t == ASH_T_FLOAT)
        return ASH_TVAL_FLOAT(fabs(self.f));
    if (!ash_tval_integer(self, &i))
        return ash_trun_fail(r, ASH_EINVAL, "bad operand type for abs(): '%s'", ash_tval_type(self));
    return i < 0 ? ash_tmath_sign(r, ASH_TVAL_INT(i), true) : ASH_TVAL_INT(i);
}

/* Python's round(int, digits): half to even for digits < 0. */
static ash_tval round_int(ash_trun *r, int64_t i, int64_t digits)
{
    if (digits >= 0)
        return ASH_TVAL_INT(i);
    if (digits < -18)
        return ASH_TVAL_INT(0);
    int64_t unit = 1;
    for (; digits < 0; digits++) unit *= 10;
    int64_t down = i / unit * unit, rest = i - down;
    int64_t twice = (rest < 0 ? -rest : rest) - (unit - (rest < 0 ? -rest : rest));
    if (twice > 0 || (twice == 0 && (i / unit) % 2))
        return ash_tmath_binary(r, ASH_TOK_ADD, ASH_TVAL_INT(down), ASH_TVAL_INT(i < 0 ? -unit : unit));
    return ASH_TVAL_INT(down);
}

/* Python's round(float, digits): correct in decimal, half to even. */
static double round_float(double x, int64_t digits)
{
    char text[512];
    if (!isfinite(x) || digits > 323)
        return x;
    if (digits < -308)
        return copysign(0.0, x);
    if (digits >= 0) {
        snprintf(text, sizeof text, "%.*f", digits > 100 ? 100 : (int)digits, x);
        return digits > 100 ? x : strtod(text, NULL);
    }
    snprintf(text, sizeof text, "%.0fe%lld", nearbyint(x / pow(10, (double)-digits)), (long long)-digits);
    return strtod(text, NULL);
}

FILTER(filter_round)
{
    int64_t digits = 0, i;
    double x;
    ash_str method = given(args->a[1]) ? text_of(r, args->a[1]) : ASH_STR("common");
    bool ceiling = ash_str_eqc(method, "ceil");
    if (!int_arg(r, args->a[0], &digits))
        return ASH_TVAL_UNDEF;
    if (!ceiling && !ash_str_eqc(method, "floor") && !ash_str_eqc(method, "common"))
        return ash_trun_fail(r, ASH_EINVAL, "method must be common, ceil or floor");
    if (self.t == ASH_T_UNDEF)
        return ash_teval_undefined(r, self);
    if (!ash_tval_number(self, &x))
        return ash_trun_fail(r, ASH_EINVAL, "type %s cannot be rounded", ash_tval_type(self));
    if (ash_str_eqc(method, "common"))
        return ash_tval_integer(self, &i) ? round_int(r, i, digits) : ASH_TVAL_FLOAT(round_float(x, digits));
    if (digits > 300 || digits < -300 || !isfinite(x))
        return ash_trun_fail(r, ASH_EINVAL, "cannot round this number to %lld digits", (long long)digits);
    double unit = pow(10, (double)digits);
    return ASH_TVAL_FLOAT((ceiling ? ceil(x * unit) : floor(x * unit)) / unit);
}

/* ---- values ---- */

FILTER(filter_default)
{
    bool take = self.t == ASH_T_UNDEF || (ash_tval_truth(args->a[1]) && !ash_tval_truth(self));
    if (!take)
        return self;
    return args->a[0].t == ASH_T_MISSING ? ash_tstr_lit(r, "") : args->a[0];
}

FILTER(filter_length)
{
    size_t n;
    if (ash_tval_len(self, &n))
        return ASH_TVAL_INT((int64_t)n);
    return ash_trun_fail(r, ASH_EINVAL, "object of type '%s' has no len()", ash_tval_type(self));
}

FILTER(filter_attr)
{
    ash_str name = text_of(r, args->a[0]);
    return self.t == ASH_T_DICT && !ash_tmethod_find(self.t, name) ? ASH_TVAL_UNDEF
                                                                    : ash_teval_attr(r, self, name);
}

FILTER(filter_list)
{
    return ash_tlist_val(ash_tval_items(r, self));
}

FILTER(filter_items)
{
    if (self.t == ASH_T_UNDEF)
        return ash_tlist_val(ash_tlist_new(r, 0));
    if (self.t != ASH_T_DICT)
        return ash_trun_fail(r, ASH_EINVAL, "Can only get item pairs from a mapping.");
    ash_tview view = {self.dict, ASH_TVIEW_ITEMS};
    return ash_tlist_val(ash_tval_items(r, (ash_tval){.t = ASH_T_VIEW, .view = &view}));
}

FILTER(filter_first)
{
    if (self.t == ASH_T_ITER && !ash_titer_run(r, self.iter))
        return ASH_TVAL_UNDEF;
    if (self.t == ASH_T_ITER) /* takes one and leaves the rest */
        return self.iter->at < self.iter->n ? self.iter->v[self.iter->at++] : ASH_TVAL_UNDEF;
    ash_tlist *l = ash_tval_items(r, self);
    return l && l->n ? l->v[0] : ASH_TVAL_UNDEF;
}

FILTER(filter_last)
{
    if (self.t == ASH_T_ITER)
        return ash_trun_fail(r, ASH_EINVAL, "'%s' object is not reversible", self.iter->name);
    ash_tlist *l = ash_tval_items(r, self);
    return l && l->n ? l->v[l->n - 1] : ASH_TVAL_UNDEF;
}

FILTER(filter_reverse)
{
    if (self.t == ASH_T_STR)
        return ash_teval_slice(r, self, ASH_TVAL_NONE, ASH_TVAL_NONE, ASH_TVAL_INT(-1));
    ash_tlist *l = ash_tval_items(r, self);
    for (size_t i = 0; l && i < l->n / 2; i++) {
        ash_tval t = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = t;
    }
    return self.t == ASH_T_ITER ? ash_tlist_val(l) : ash_titer_val(r, l, "list_reverseiterator");
}

/* ---- attributes of items ---- */

/* make_attrgetter: "a.b.0" one part after the other; given(dflt) replaces what is undefined. */
static ash_tval get_attr(ash_trun *r, ash_tval item, ash_tval attribute, ash_tval dflt)
{
    if (!given(attribute))
        return item;
    if (attribute.t != ASH_T_STR) {
        item = ash_teval_item(r, item, attribute);
        return item.t == ASH_T_UNDEF && given(dflt) ? dflt : item;
    }
    const ash_tstr *s = attribute.s;
    for (size_t b = 0; b <= s->n && !r->rc;) {
        const char *dot = memchr(s->p + b, '.', s->n - b);
        size_t e = dot ? (size_t)(dot - s->p) : s->n;
        ash_tval key = ash_tstr_cut(r, s, b, e);
        int64_t i;
        bool big, digits = e > b && strspn(s->p + b, "0123456789") >= e - b;
        if (digits && ash_ttext_int(key.s, 10, &i, &big) && !big)
            key = ASH_TVAL_INT(i);
        item = ash_teval_item(r, item, key);
        if (item.t == ASH_T_UNDEF && given(dflt))
            item = dflt;
        b = e + 1;
    }
    return item;
}

static ash_tval ignore_case(ash_trun *r, ash_tval v, ash_tval case_sensitive)
{
    return v.t == ASH_T_STR && !ash_tval_truth(case_sensitive) ? ash_tcase_map(r, v.s, ASH_TCASE_LOWER) : v;
}

/* What sort compares: a list of the attributes that "a,b" names. */
static ash_tval sort_key(ash_trun *r, ash_tval item, ash_tval attribute, ash_tval case_sensitive)
{
    ash_tlist *l = ash_tlist_new(r, 1);
    if (attribute.t != ASH_T_STR) {
        ash_tlist_push(r, l, ignore_case(r, get_attr(r, item, attribute, ASH_TVAL_NONE), case_sensitive));
        return ash_tlist_val(l);
    }
    for (size_t b = 0; b <= attribute.s->n && !r->rc;) {
        const char *comma = memchr(attribute.s->p + b, ',', attribute.s->n - b);
        size_t e = comma ? (size_t)(comma - attribute.s->p) : attribute.s->n;
        ash_tval v = get_attr(r, item, ash_tstr_cut(r, attribute.s, b, e), ASH_TVAL_NONE);
        ash_tlist_push(r, l, ignore_case(r, v, case_sensitive));
        b = e + 1;
    }
    return ash_tlist_val(l);
}

FILTER(filter_sort)
{
    ash_tlist *l = ash_tval_items(r, self), *keys = l ? ash_tlist_new(r, l->n) : NULL;
    for (size_t i = 0; keys && i < l->n && !r->rc; i++)
        ash_tlist_push(r, keys, sort_key(r, l->v[i], args->a[2], args->a[1]));
    if (r->rc || !ash_tval_sort(r, keys->v, l->v, l->n, ash_tval_truth(args->a[0])))
        return ASH_TVAL_UNDEF;
    return ash_tlist_val(l);
}

FILTER(filter_dictsort)
{
    ash_str by = given(args->a[1]) ? text_of(r, args->a[1]) : ASH_STR("key");
    if (!ash_str_eqc(by, "key") && !ash_str_eqc(by, "value"))
        return ash_trun_fail(r, ASH_EINVAL, "You can only sort by either \"key\" or \"value\"");
    if (self.t == ASH_T_UNDEF)
        return ash_teval_undefined(r, self);
    if (self.t != ASH_T_DICT)
        return ash_trun_fail(r, ASH_EINVAL, "dictsort takes a mapping, not %s", ash_tval_type(self));
    ash_tdict *d = self.dict;
    ash_tlist *l = ash_tlist_new(r, d->n), *keys = ash_tlist_new(r, d->n);
    for (size_t i = 0; i < d->n && !r->rc; i++) {
        ash_tval key = ash_str_eqc(by, "key") ? d->v[i].key : d->v[i].val;
        ash_tlist_push(r, keys, ignore_case(r, key, args->a[0]));
        ash_tlist_push(r, l, ash_ttuple_pair(r, d->v[i].key, d->v[i].val));
    }
    if (r->rc || !ash_tval_sort(r, keys->v, l->v, l->n, ash_tval_truth(args->a[2])))
        return ASH_TVAL_UNDEF;
    return ash_tlist_val(l);
}

FILTER(filter_unique)
{
    ash_tlist *l = ash_tval_items(r, self), *out = ash_tlist_new(r, 0);
    ash_tdict *seen = ash_tdict_new(r);
    for (size_t i = 0; l && i < l->n && !r->rc; i++) {
        ash_tval key = ignore_case(r, get_attr(r, l->v[i], args->a[1], ASH_TVAL_NONE), args->a[0]);
        size_t before = seen ? seen->n : 0;
        if (ash_tdict_set(r, seen, key, ASH_TVAL_NONE) && seen->n > before)
            ash_tlist_push(r, out, l->v[i]);
    }
    return ash_tlist_val(r->rc ? NULL : out);
}

static ash_tval extreme(ash_trun *r, ash_tval self, const ash_targs *args, bool max)
{
    ash_tlist *l = ash_tval_items(r, self);
    ash_tval best = ASH_TVAL_UNDEF, best_key = ASH_TVAL_UNDEF;
    for (size_t i = 0; l && i < l->n && !r->rc; i++) {
        ash_tval key = ignore_case(r, get_attr(r, l->v[i], args->a[1], ASH_TVAL_NONE), args->a[0]);
        int order = 0;
        bool unordered = false;
        if (i && !ash_tval_order(r, key, best_key, max ? ">" : "<", &order, &unordered))
            break;
        if (i == 0 || (!unordered && (max ? order > 0 : order < 0))) {
            best = l->v[i];
            best_key = key;
        }
    }
    return best;
}

FILTER(filter_max) { return extreme(r, self, args, true); }
FILTER(filter_min) { return extreme(r, self, args, false); }

FILTER(filter_sum)
{
    ash_tlist *l = ash_tval_items(r, self);
    ash_tval acc = args->a[1].t == ASH_T_MISSING ? ASH_TVAL_INT(0) : args->a[1];
    if (acc.t == ASH_T_STR)
        return ash_trun_fail(r, ASH_EINVAL, "sum() can't sum strings [use ''.join(seq) instead]");
    for (size_t i = 0; l && i < l->n && !r->rc; i++) {
        ash_tval v = get_attr(r, l->v[i], args->a[0], ASH_TVAL_NONE);
        acc = v.t == ASH_T_UNDEF ? ash_teval_undefined(r, v) : ash_tmath_binary(r, ASH_TOK_ADD, acc, v);
    }
    return acc;
}

FILTER(filter_join)
{
    ash_tlist *l = ash_tval_items(r, self);
    const ash_tstr *d = args->a[0].t == ASH_T_MISSING ? NULL : ash_tval_str(r, args->a[0]);
    ash_tsink k = {0};
    for (size_t i = 0; l && i < l->n && !r->rc; i++) {
        if (i && d)
            ash_tsink_str(r, &k, d);
        ash_tsink_str(r, &k, ash_tval_str(r, get_attr(r, l->v[i], args->a[1], ASH_TVAL_NONE)));
    }
    return ash_tsink_take(r, &k);
}

/* ---- filters with filters and tests ---- */

FILTER(filter_map)
{
    ash_tval attribute = {0}, dflt = {0};
    bool by_attribute = false;
    for (size_t i = 0; i < args->n_kw && !args->n; i++) {
        const ash_tstr *key = args->kw[i].key.s;
        if (ash_tstr_is(key, "attribute")) {
            attribute = args->kw[i].val;
            by_attribute = true;
        } else if (ash_tstr_is(key, "default")) {
            dflt = args->kw[i].val;
        } else {
            return ash_trun_fail(r, ASH_EINVAL, "map got an unexpected keyword argument '%.*s'",
                                 (int)(key->n < 100 ? key->n : 100), key->p);
        }
    }
    if (!by_attribute && !args->n)
        return ash_trun_fail(r, ASH_EINVAL, "map requires a filter argument");
    ash_tlist *out = ash_tlist_new(r, 0), *l = ash_tval_truth(self) ? ash_tval_items(r, self) : NULL;
    ash_targs rest = {args->a + 1, args->n - 1, args->kw, args->n_kw};
    for (size_t i = 0; l && i < l->n && !r->rc; i++)
        ash_tlist_push(r, out, by_attribute ? get_attr(r, l->v[i], attribute, dflt)
                                            : ash_teval_filter(r, text_of(r, args->a[0]), l->v[i], &rest));
    return ash_tlist_val(r->rc ? NULL : out);
}

/* select and reject, of items or of an attribute of theirs */
static ash_tval choose(ash_trun *r, ash_tval self, const ash_targs *args, bool want, bool attribute)
{
    size_t off = attribute ? 1 : 0;
    ash_tlist *out = ash_tlist_new(r, 0);
    if (!ash_tval_truth(self))
        return ash_tlist_val(out);
    if (args->n < off)
        return ash_trun_fail(r, ASH_EINVAL, "Missing parameter for attribute name");
    ash_targs rest = {args->a + off + 1, args->n > off ? args->n - off - 1 : 0, args->kw, args->n_kw};
    ash_tlist *l = ash_tval_items(r, self);
    for (size_t i = 0; l && i < l->n && !r->rc; i++) {
        ash_tval v = attribute ? get_attr(r, l->v[i], args->a[0], ASH_TVAL_NONE) : l->v[i];
        bool yes = args->n > off ? ash_teval_test(r, text_of(r, args->a[off]), v, &rest) : ash_tval_truth(v);
        if (!r->rc && yes == want)
            ash_tlist_push(r, out, l->v[i]);
    }
    return ash_tlist_val(r->rc ? NULL : out);
}

FILTER(filter_select) { return choose(r, self, args, true, false); }
FILTER(filter_reject) { return choose(r, self, args, false, false); }
FILTER(filter_selectattr) { return choose(r, self, args, true, true); }
FILTER(filter_rejectattr) { return choose(r, self, args, false, true); }

/* ---- groups ---- */

FILTER(filter_batch)
{
    int64_t count = 0;
    ash_tlist *l = ash_tval_items(r, self), *out = ash_tlist_new(r, 0), *row = NULL;
    if (!int_arg(r, args->a[0], &count))
        return ASH_TVAL_UNDEF;
    for (size_t i = 0; l && i < l->n && !r->rc; i++) {
        if (!row || (int64_t)row->n == count) {
            row = ash_tlist_new(r, 0);
            ash_tlist_push(r, out, ash_tlist_val(row));
        }
        ash_tlist_push(r, row, l->v[i]);
    }
    while (row && given(args->a[1]) && (int64_t)row->n < count && ash_tlist_push(r, row, args->a[1])) {
    }
    return ash_tlist_val(r->rc ? NULL : out);
}

FILTER(filter_slice)
{
    int64_t slices = 0;
    ash_tlist *l = ash_tval_items(r, self), *out = ash_tlist_new(r, 0);
    if (!int_arg(r, args->a[0], &slices))
        return ASH_TVAL_UNDEF;
    if (slices == 0)
        return ash_trun_fail(r, ASH_EINVAL, "division by zero");
    int64_t per = l ? (int64_t)l->n / slices : 0, extra = l ? (int64_t)l->n % slices : 0;
    size_t at = 0;
    for (int64_t k = 0; l && k < slices && !r->rc; k++) {
        ash_tlist *row = ash_tlist_new(r, 0);
        for (int64_t i = 0; i < per + (k < extra) && !r->rc; i++) ash_tlist_push(r, row, l->v[at++]);
        if (given(args->a[1]) && k >= extra)
            ash_tlist_push(r, row, args->a[1]);
        ash_tlist_push(r, out, ash_tlist_val(row));
    }
    return ash_tlist_val(r->rc ? NULL : out);
}

const ash_tbuiltin *ash_tfilter_find(ash_str name)
{
    static const ash_tbuiltin table[] = {
        {"abs", filter_abs, 0, ""},
        {"attr", filter_attr, 1, "name"},
        {"batch", filter_batch, 1, "linecount fill_with", true},
        {"capitalize", filter_capitalize, 0, ""},
        {"count", filter_length, 0, ""},
        {"d", filter_default, 0, "default_value boolean"},
        {"default", filter_default, 0, "default_value boolean"},
        {"dictsort", filter_dictsort, 0, "case_sensitive by reverse"},
        {"e", filter_escape, 0, ""},
        {"escape", filter_escape, 0, ""},
        {"first", filter_first, 0, ""},
        {"float", filter_float, 0, "default"},
        {"from_json", filter_from_json, 0, ""},
        {"fromjson", filter_from_json, 0, ""},
        {"indent", filter_indent, 0, "width first blank"},
        {"int", filter_int, 0, "default base"},
        {"items", filter_items, 0, "", true},
        {"join", filter_join, 0, "d attribute"},
        {"last", filter_last, 0, ""},
        {"length", filter_length, 0, ""},
        {"list", filter_list, 0, ""},
        {"lower", filter_lower, 0, ""},
        {"map", filter_map, 0, NULL, true},
        {"max", filter_max, 0, "case_sensitive attribute"},
        {"min", filter_min, 0, "case_sensitive attribute"},
        {"reject", filter_reject, 0, NULL, true},
        {"rejectattr", filter_rejectattr, 0, NULL, true},
        {"replace", filter_replace, 2, "old new count"},
        {"reverse", filter_reverse, 0, ""},
        {"round", filter_round, 0, "precision method"},
        {"safe", filter_safe, 0, ""},
        {"select", filter_select, 0, NULL, true},
        {"selectattr", filter_selectattr, 0, NULL, true},
        {"slice", filter_slice, 1, "slices fill_with", true},
        {"sort", filter_sort, 0, "reverse case_sensitive attribute"},
        {"string", filter_string, 0, ""},
        {"sum", filter_sum, 0, "attribute start"},
        {"title", filter_title, 0, ""},
        {"tojson", ash_tfilter_tojson, 0, "ensure_ascii indent separators sort_keys"},
        {"trim", filter_trim, 0, "chars"},
        {"unique", filter_unique, 0, "case_sensitive attribute", true},
        {"upper", filter_upper, 0, ""},
        {0},
    };
    return ash_tbuiltin_find(table, name);
}
