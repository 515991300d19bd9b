/* Owns the methods of strings, dictionaries and lists. Beyond the reference, which forbids changing
 * a container, list.append and its like work, as templates written for other engines expect. Refuses
 * str.format by name. Works on one run, one thread. */
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "text/template_impl.h"
#include "text/template_text.h"

#define METHOD(name) static ash_tval name(ash_trun *r, ash_tval self, const ash_targs *args)

static bool given(ash_tval v)
{
    return v.t != ASH_T_MISSING && v.t != ASH_T_NONE;
}

/* Argument i as a string; NULL with failure if it is none. */
static const ash_tstr *text_arg(ash_trun *r, const ash_targs *args, int i)
{
    ash_tval v = args->a[i];
    if (v.t == ASH_T_STR)
        return v.s;
    if (v.t == ASH_T_UNDEF)
        ash_teval_undefined(r, v);
    else
        ash_trun_fail(r, ASH_EINVAL, "expected a string argument, not %s", ash_tval_type(v));
    return NULL;
}

static bool int_arg(ash_trun *r, const ash_targs *args, int i, int64_t *out)
{
    if (args->a[i].t == ASH_T_MISSING || ash_tval_integer(args->a[i], out))
        return true;
    ash_trun_fail(r, ASH_EINVAL, "expected an integer argument, not %s", ash_tval_type(args->a[i]));
    return false;
}

/* ---- str ---- */

METHOD(str_upper) { return ash_tcase_map(r, self.s, ASH_TCASE_UPPER); }
METHOD(str_lower) { return ash_tcase_map(r, self.s, ASH_TCASE_LOWER); }
METHOD(str_title) { return ash_tcase_map(r, self.s, ASH_TCASE_TITLE); }
METHOD(str_capitalize) { return ash_tcase_map(r, self.s, ASH_TCASE_CAPITALIZE); }
METHOD(str_swapcase) { return ash_tcase_map(r, self.s, ASH_TCASE_SWAP); }
METHOD(str_isupper) { return ASH_TVAL_BOOL(ash_tcase_is_upper(self.s)); }
METHOD(str_islower) { return ASH_TVAL_BOOL(ash_tcase_is_lower(self.s)); }

static ash_tval strip(ash_trun *r, ash_tval self, const ash_targs *args, int sides)
{
    const ash_tstr *chars = NULL;
    if (given(args->a[0]) && !(chars = text_arg(r, args, 0)))
        return ASH_TVAL_UNDEF;
    return ash_ttext_strip(r, self.s, chars, sides);
}

METHOD(str_strip) { return strip(r, self, args, ASH_TSTRIP_BOTH); }
METHOD(str_lstrip) { return strip(r, self, args, ASH_TSTRIP_LEFT); }
METHOD(str_rstrip) { return strip(r, self, args, ASH_TSTRIP_RIGHT); }

static ash_tval split(ash_trun *r, ash_tval self, const ash_targs *args, bool right)
{
    const ash_tstr *sep = NULL;
    int64_t most = -1;
    if ((given(args->a[0]) && !(sep = text_arg(r, args, 0))) || !int_arg(r, args, 1, &most))
        return ASH_TVAL_UNDEF;
    return ash_ttext_split(r, self.s, sep, most, right);
}

METHOD(str_split) { return split(r, self, args, false); }
METHOD(str_rsplit) { return split(r, self, args, true); }

METHOD(str_splitlines)
{
    return ash_tlist_val(ash_ttext_lines(r, self.s, ash_tval_truth(args->a[0])));
}

static ash_tval partition(ash_trun *r, ash_tval self, const ash_targs *args, bool right)
{
    const ash_tstr *sep = text_arg(r, args, 0), *s = self.s;
    if (!sep || sep->n == 0)
        return ash_trun_fail(r, ASH_EINVAL, "empty separator");
    size_t at = ash_tstr_find(s, sep, 0);
    for (size_t next = at; right && next != SIZE_MAX && ash_trun_charge(r, 1 + sep->n / 64);
         next = ash_tstr_find(s, sep, next + 1))
        at = next;
    ash_tval none = ash_tstr_lit(r, "");
    ash_tlist *l = ash_tlist_new(r, 3);
    if (at == SIZE_MAX) {
        ash_tlist_push(r, l, right ? none : self);
        ash_tlist_push(r, l, none);
        ash_tlist_push(r, l, right ? self : none);
    } else {
        ash_tlist_push(r, l, ash_tstr_cut(r, s, 0, at));
        ash_tlist_push(r, l, args->a[0]);
        ash_tlist_push(r, l, ash_tstr_cut(r, s, at + sep->n, s->n));
    }
    return ash_ttuple_val(l);
}

METHOD(str_partition) { return partition(r, self, args, false); }
METHOD(str_rpartition) { return partition(r, self, args, true); }

/* The part of self that start and end (arguments 1 and 2, code points) name, as bytes [*b, *e).
 * False if start lies beyond the end, where nothing is found, not even "". */
static bool window(ash_trun *r, const ash_tstr *s, const ash_targs *args, size_t *b, size_t *e)
{
    int64_t lo = 0, hi = (int64_t)s->cps, n = hi;
    if ((given(args->a[1]) && !int_arg(r, args, 1, &lo)) || (given(args->a[2]) && !int_arg(r, args, 2, &hi)))
        return false;
    lo = lo < 0 ? (lo < -n ? 0 : lo + n) : lo;
    hi = hi < 0 ? (hi < -n ? 0 : hi + n) : hi > n ? n : hi;
    if (lo > hi)
        return false;
    *b = ash_tstr_offset(s, (size_t)lo);
    *e = ash_tstr_offset(s, (size_t)hi);
    return ash_trun_charge(r, s->n / 64);
}

static bool has_affix(const ash_tstr *s, size_t b, size_t e, const ash_tstr *x, bool start)
{
    return x->n <= e - b && (x->n == 0 || memcmp(s->p + (start ? b : e - x->n), x->p, x->n) == 0);
}

static ash_tval affix(ash_trun *r, ash_tval self, const ash_targs *args, bool start)
{
    size_t b, e;
    bool open = window(r, self.s, args, &b, &e);
    if (args->a[0].t != ASH_T_TUPLE) {
        const ash_tstr *x = text_arg(r, args, 0);
        return ASH_TVAL_BOOL(x && open && has_affix(self.s, b, e, x, start));
    }
    const ash_tlist *l = args->a[0].list;
    for (size_t i = 0; i < l->n && !r->rc; i++) {
        if (l->v[i].t != ASH_T_STR)
            return ash_trun_fail(r, ASH_EINVAL, "tuple for startswith must only contain str, not %s",
                                 ash_tval_type(l->v[i]));
        if (open && has_affix(self.s, b, e, l->v[i].s, start))
            return ASH_TVAL_BOOL(true);
    }
    return ASH_TVAL_BOOL(false);
}

METHOD(str_startswith) { return affix(r, self, args, true); }
METHOD(str_endswith) { return affix(r, self, args, false); }

METHOD(str_removeprefix)
{
    const ash_tstr *x = text_arg(r, args, 0), *s = self.s;
    return x && x->n && has_affix(s, 0, s->n, x, true) ? ash_tstr_cut(r, s, x->n, s->n) : self;
}

METHOD(str_removesuffix)
{
    const ash_tstr *x = text_arg(r, args, 0), *s = self.s;
    return x && x->n && has_affix(s, 0, s->n, x, false) ? ash_tstr_cut(r, s, 0, s->n - x->n) : self;
}

METHOD(str_replace)
{
    const ash_tstr *old = text_arg(r, args, 0), *new = old ? text_arg(r, args, 1) : NULL;
    int64_t most = -1;
    if (!new || !int_arg(r, args, 2, &most))
        return ASH_TVAL_UNDEF;
    return ash_ttext_replace(r, self.s, old, new, most);
}

/* The code point index of the first or last occurrence; -1 if there is none. */
static int64_t locate(ash_trun *r, ash_tval self, const ash_targs *args, bool last)
{
    const ash_tstr *x = text_arg(r, args, 0), *s = self.s;
    size_t b, e, found = SIZE_MAX;
    if (!x || !window(r, s, args, &b, &e))
        return -1;
    for (size_t at = ash_tstr_find(s, x, b); at != SIZE_MAX && at + x->n <= e;
         at = ash_tstr_find(s, x, at + 1)) {
        found = at;
        if (!last || !ash_trun_charge(r, 1 + x->n / 64))
            break;
    }
    return found == SIZE_MAX ? -1 : (int64_t)ash_utf8_count(s->p, found);
}

METHOD(str_find) { return ASH_TVAL_INT(locate(r, self, args, false)); }
METHOD(str_rfind) { return ASH_TVAL_INT(locate(r, self, args, true)); }

static ash_tval must_locate(ash_trun *r, ash_tval self, const ash_targs *args, bool last)
{
    int64_t at = locate(r, self, args, last);
    return at < 0 ? ash_trun_fail(r, ASH_EINVAL, "substring not found") : ASH_TVAL_INT(at);
}

METHOD(str_index) { return must_locate(r, self, args, false); }
METHOD(str_rindex) { return must_locate(r, self, args, true); }

METHOD(str_count)
{
    const ash_tstr *x = text_arg(r, args, 0), *s = self.s;
    size_t b, e;
    int64_t n = 0;
    if (!x || !window(r, s, args, &b, &e))
        return ASH_TVAL_INT(0);
    if (x->n == 0)
        return ASH_TVAL_INT((int64_t)ash_utf8_count(s->p + b, e - b) + 1);
    for (size_t at = ash_tstr_find(s, x, b); at != SIZE_MAX && at + x->n <= e;
         at = ash_tstr_find(s, x, at + x->n))
        n++;
    return ASH_TVAL_INT(n);
}

METHOD(str_join)
{
    ash_tlist *l = ash_tval_items(r, args->a[0]);
    ash_tsink k = {0};
    for (size_t i = 0; l && i < l->n && !r->rc; i++) {
        if (l->v[i].t != ASH_T_STR)
            return ash_trun_fail(r, ASH_EINVAL, "sequence item %zu: expected str instance, %s found", i,
                                 ash_tval_type(l->v[i]));
        if (i)
            ash_tsink_str(r, &k, self.s);
        ash_tsink_str(r, &k, l->v[i].s);
    }
    return ash_tsink_take(r, &k);
}

/* str.isdigit and its like: all code points, and at least one, of a kind. */
static ash_tval all_are(const ash_tstr *s, bool (*is)(uint32_t))
{
    for (size_t at = 0; at < s->n;) {
        uint32_t cp;
        bool ok;
        at += ash_utf8_decode(s->p + at, s->n - at, &cp, &ok);
        if (!is(cp))
            return ASH_TVAL_BOOL(false);
    }
    return ASH_TVAL_BOOL(s->n > 0);
}

static bool is_alpha(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

static bool is_digit(uint32_t cp)
{
    return utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_ND;
}

static bool is_numeric(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
}

static bool is_alnum(uint32_t cp)
{
    return is_alpha(cp) || is_numeric(cp);
}

METHOD(str_isalpha) { return all_are(self.s, is_alpha); }
METHOD(str_isdigit) { return all_are(self.s, is_digit); }
METHOD(str_isnumeric) { return all_are(self.s, is_numeric); }
METHOD(str_isalnum) { return all_are(self.s, is_alnum); }
METHOD(str_isspace) { return all_are(self.s, ash_tspace); }
METHOD(str_isascii) { return ASH_TVAL_BOOL(self.s->cps == self.s->n); }

METHOD(str_format)
{
    return ash_trun_fail(r, ASH_EUNSUPPORTED, "str.format is not supported");
}

/* ---- dict ---- */

static ash_tval view(ash_trun *r, ash_tval self, ash_tview_kind kind)
{
    ash_tview *v = ash_trun_alloc(r, 1, sizeof *v);
    if (!v)
        return ASH_TVAL_UNDEF;
    *v = (ash_tview){self.dict, kind};
    return (ash_tval){.t = ASH_T_VIEW, .view = v};
}

METHOD(dict_keys) { return view(r, self, ASH_TVIEW_KEYS); }
METHOD(dict_values) { return view(r, self, ASH_TVIEW_VALUES); }
METHOD(dict_items) { return view(r, self, ASH_TVIEW_ITEMS); }

METHOD(dict_get)
{
    const ash_tpair *p = ash_tdict_find(r, self.dict, args->a[0]);
    return p ? p->val : args->a[1].t == ASH_T_MISSING ? ASH_TVAL_NONE : args->a[1];
}

METHOD(dict_setdefault)
{
    ash_tval v = dict_get(r, self, args);
    if (!r->rc && !ash_tdict_find(r, self.dict, args->a[0]))
        ash_tdict_set(r, self.dict, args->a[0], v);
    return v;
}

METHOD(dict_pop)
{
    ash_tpair *p = ash_tdict_find(r, self.dict, args->a[0]);
    if (!p && !r->rc && args->a[1].t == ASH_T_MISSING)
        return ash_trun_fail(r, ASH_EINVAL, "pop: the dictionary has no such key");
    if (!p)
        return args->a[1];
    ash_tval v = p->val;
    ash_tdict_remove(self.dict, p);
    return v;
}

METHOD(dict_update)
{
    const ash_tbuiltin *make = ash_tfunc_find(ASH_STR("dict"));
    ash_tval with = make->fn(r, self, args);
    for (size_t i = 0; with.t == ASH_T_DICT && i < with.dict->n && !r->rc; i++)
        ash_tdict_set(r, self.dict, with.dict->v[i].key, with.dict->v[i].val);
    return ASH_TVAL_NONE;
}

METHOD(dict_copy)
{
    ash_tdict *d = ash_tdict_new(r);
    for (size_t i = 0; i < self.dict->n && !r->rc; i++)
        ash_tdict_set(r, d, self.dict->v[i].key, self.dict->v[i].val);
    return ash_tdict_val(d);
}

METHOD(dict_clear)
{
    self.dict->n = 0;
    return ASH_TVAL_NONE;
}

/* ---- list ---- */

METHOD(list_append)
{
    ash_tlist_push(r, self.list, args->a[0]);
    return ASH_TVAL_NONE;
}

METHOD(list_extend)
{
    ash_tlist *more = ash_tval_items(r, args->a[0]);
    for (size_t i = 0; more && i < more->n && ash_tlist_push(r, self.list, more->v[i]); i++) {
    }
    return ASH_TVAL_NONE;
}

METHOD(list_insert)
{
    int64_t at = 0, n = (int64_t)self.list->n;
    if (!int_arg(r, args, 0, &at) || !ash_trun_charge(r, self.list->n / 16) ||
        !ash_tlist_push(r, self.list, ASH_TVAL_NONE))
        return ASH_TVAL_UNDEF;
    at = at < 0 ? (at < -n ? 0 : at + n) : at > n ? n : at;
    memmove(&self.list->v[at + 1], &self.list->v[at], (size_t)(n - at) * sizeof *self.list->v);
    self.list->v[at] = args->a[1];
    return ASH_TVAL_NONE;
}

static ash_tval remove_at(ash_tlist *l, size_t at)
{
    ash_tval v = l->v[at];
    memmove(&l->v[at], &l->v[at + 1], (l->n - at - 1) * sizeof *l->v);
    l->n--;
    return v;
}

METHOD(list_pop)
{
    int64_t n = (int64_t)self.list->n, at = n - 1;
    if (!int_arg(r, args, 0, &at) || !ash_trun_charge(r, self.list->n / 16))
        return ASH_TVAL_UNDEF;
    at = at < 0 ? at + n : at;
    if (at < 0 || at >= n)
        return ash_trun_fail(r, ASH_EINVAL, n ? "pop index out of range" : "pop from empty list");
    return remove_at(self.list, (size_t)at);
}

METHOD(list_index)
{
    for (size_t i = 0; i < self.list->n && !r->rc; i++)
        if (ash_tval_equal(r, self.list->v[i], args->a[0]))
            return ASH_TVAL_INT((int64_t)i);
    return ash_trun_fail(r, ASH_EINVAL, "the value is not in the list");
}

METHOD(list_count)
{
    int64_t n = 0;
    for (size_t i = 0; i < self.list->n && !r->rc; i++)
        n += ash_tval_equal(r, self.list->v[i], args->a[0]);
    return ASH_TVAL_INT(n);
}

METHOD(list_remove)
{
    ash_tval at = list_index(r, self, args);
    if (!r->rc)
        remove_at(self.list, (size_t)at.i);
    return ASH_TVAL_NONE;
}

METHOD(list_reverse)
{
    ash_tlist *l = self.list;
    for (size_t i = 0; ash_trun_charge(r, 1) && i < l->n / 2; i++) {
        ash_tval t = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = t;
    }
    return ASH_TVAL_NONE;
}

METHOD(list_clear)
{
    self.list->n = 0;
    return ASH_TVAL_NONE;
}

METHOD(list_copy)
{
    return ash_tlist_val(ash_tval_items(r, self));
}

/* ---- loop ---- */

METHOD(loop_cycle)
{
    if (!args->n || args->n_kw)
        return ash_trun_fail(r, ASH_EINVAL, "no items for cycling given");
    return args->a[(size_t)self.loop->index0 % args->n];
}

METHOD(loop_changed)
{
    ash_tlist *l = ash_tlist_new(r, args->n);
    for (size_t i = 0; i < args->n && !r->rc; i++) ash_tlist_push(r, l, args->a[i]);
    bool same = l && self.loop->changed &&
                ash_tval_equal(r, ash_tlist_val(l), ash_tlist_val(self.loop->changed));
    self.loop->changed = l;
    return ASH_TVAL_BOOL(!same);
}

/* ---- tables ---- */

static const ash_tbuiltin str_methods[] = {
    {"upper", str_upper, 0, ""}, {"lower", str_lower, 0, ""}, {"title", str_title, 0, ""},
    {"capitalize", str_capitalize, 0, ""}, {"swapcase", str_swapcase, 0, ""},
    {"strip", str_strip, 0, "chars"}, {"lstrip", str_lstrip, 0, "chars"},
    {"rstrip", str_rstrip, 0, "chars"}, {"split", str_split, 0, "sep maxsplit"},
    {"rsplit", str_rsplit, 0, "sep maxsplit"}, {"splitlines", str_splitlines, 0, "keepends"},
    {"partition", str_partition, 1, "sep"}, {"rpartition", str_rpartition, 1, "sep"},
    {"startswith", str_startswith, 1, "prefix start end"},
    {"endswith", str_endswith, 1, "suffix start end"},
    {"removeprefix", str_removeprefix, 1, "prefix"},
    {"removesuffix", str_removesuffix, 1, "suffix"}, {"replace", str_replace, 2, "old new count"},
    {"find", str_find, 1, "sub start end"}, {"rfind", str_rfind, 1, "sub start end"},
    {"index", str_index, 1, "sub start end"}, {"rindex", str_rindex, 1, "sub start end"},
    {"count", str_count, 1, "sub start end"}, {"join", str_join, 1, "iterable"},
    {"isupper", str_isupper, 0, ""}, {"islower", str_islower, 0, ""},
    {"isalpha", str_isalpha, 0, ""}, {"isdigit", str_isdigit, 0, ""},
    {"isdecimal", str_isdigit, 0, ""}, {"isnumeric", str_isnumeric, 0, ""},
    {"isalnum", str_isalnum, 0, ""}, {"isspace", str_isspace, 0, ""},
    {"isascii", str_isascii, 0, ""}, {"format", str_format, 0, NULL}, {0}};

static const ash_tbuiltin dict_methods[] = {
    {"items", dict_items, 0, ""}, {"keys", dict_keys, 0, ""}, {"values", dict_values, 0, ""},
    {"get", dict_get, 1, "key default"}, {"setdefault", dict_setdefault, 1, "key default"},
    {"pop", dict_pop, 1, "key default"}, {"update", dict_update, 0, NULL},
    {"copy", dict_copy, 0, ""}, {"clear", dict_clear, 0, ""}, {0}};

static const ash_tbuiltin list_methods[] = {
    {"index", list_index, 1, "value"}, {"count", list_count, 1, "value"}, /* tuples too */
    {"append", list_append, 1, "object"}, {"extend", list_extend, 1, "iterable"},
    {"insert", list_insert, 2, "index object"}, {"pop", list_pop, 0, "index"},
    {"remove", list_remove, 1, "value"}, {"reverse", list_reverse, 0, ""},
    {"clear", list_clear, 0, ""}, {"copy", list_copy, 0, ""}, {0}};

static const ash_tbuiltin loop_methods[] = {
    {"cycle", loop_cycle, 0, NULL}, {"changed", loop_changed, 0, NULL}, {0}};

const ash_tbuiltin *ash_tmethod_find(ash_ttype type, ash_str name)
{
    const ash_tbuiltin *b;
    switch (type) {
    case ASH_T_STR: return ash_tbuiltin_find(str_methods, name);
    case ASH_T_DICT: return ash_tbuiltin_find(dict_methods, name);
    case ASH_T_LIST: return ash_tbuiltin_find(list_methods, name);
    case ASH_T_TUPLE:
        b = ash_tbuiltin_find(list_methods, name);
        return b && b < list_methods + 2 ? b : NULL;
    case ASH_T_LOOP: return ash_tbuiltin_find(loop_methods, name);
    default: return NULL;
    }
}
