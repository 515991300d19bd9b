/* Owns strip, split, replace, splitlines and number reading as Python's str does them. Refuses an
 * empty separator. Works on one run, one thread. */
#include "text/template_text.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/utf8.h"

/* The code point that starts at `at`, and its length. */
static size_t cp_at(const ash_tstr *s, size_t at, uint32_t *cp)
{
    bool ok;
    return ash_utf8_decode(s->p + at, s->n - at, cp, &ok);
}

/* Where the code point that ends at `end` (> 0) starts. */
static size_t cp_before(const ash_tstr *s, size_t end)
{
    size_t at = end - 1;
    while (at > 0 && ((unsigned char)s->p[at] & 0xC0) == 0x80) at--;
    return at;
}

static bool stripped(const ash_tstr *s, size_t at, const ash_tstr *chars)
{
    uint32_t cp, c;
    cp_at(s, at, &cp);
    if (!chars)
        return ash_tspace(cp);
    for (size_t i = 0; i < chars->n;) {
        i += cp_at(chars, i, &c);
        if (c == cp)
            return true;
    }
    return false;
}

ash_tval ash_ttext_strip(ash_trun *r, const ash_tstr *s, const ash_tstr *chars, int sides)
{
    size_t b = 0, e = s->n;
    size_t each = 1 + (chars ? chars->n / 8 : 0);
    while ((sides & ASH_TSTRIP_LEFT) && b < e && stripped(s, b, chars) && ash_trun_charge(r, each)) {
        uint32_t cp;
        b += cp_at(s, b, &cp);
    }
    while ((sides & ASH_TSTRIP_RIGHT) && e > b && stripped(s, cp_before(s, e), chars) &&
           ash_trun_charge(r, each))
        e = cp_before(s, e);
    return ash_tstr_cut(r, s, b, e);
}

/* ---- splitting ---- */

static void split_blank(ash_trun *r, const ash_tstr *s, int64_t most, ash_tlist *out)
{
    uint32_t cp;
    size_t at = 0, len;
    for (;;) {
        while (at < s->n && (len = cp_at(s, at, &cp), ash_tspace(cp))) at += len;
        if (at >= s->n || r->rc)
            return;
        size_t b = at;
        if (most-- == 0) {
            ash_tlist_push(r, out, ash_tstr_cut(r, s, b, s->n));
            return;
        }
        while (at < s->n && (len = cp_at(s, at, &cp), !ash_tspace(cp))) at += len;
        ash_tlist_push(r, out, ash_tstr_cut(r, s, b, at));
    }
}

static void rsplit_blank(ash_trun *r, const ash_tstr *s, int64_t most, ash_tlist *out)
{
    size_t end = s->n;
    for (;;) {
        while (end > 0 && stripped(s, cp_before(s, end), NULL)) end = cp_before(s, end);
        if (end == 0 || r->rc)
            return;
        size_t b = end;
        if (most-- == 0) {
            ash_tlist_push(r, out, ash_tstr_cut(r, s, 0, end));
            return;
        }
        while (b > 0 && !stripped(s, cp_before(s, b), NULL)) b = cp_before(s, b);
        ash_tlist_push(r, out, ash_tstr_cut(r, s, b, end));
        end = b;
    }
}

/* The last occurrence of sep that ends at or before `end`; SIZE_MAX if none. */
static size_t find_last(ash_trun *r, const ash_tstr *s, const ash_tstr *sep, size_t end)
{
    size_t at = end < sep->n ? SIZE_MAX : end - sep->n;
    for (; at != SIZE_MAX && ash_trun_charge(r, sep->n / 64); at--)
        if (memcmp(s->p + at, sep->p, sep->n) == 0)
            return at;
    return SIZE_MAX;
}

static void reverse(ash_tlist *l)
{
    for (size_t i = 0; i < l->n / 2; i++) {
        ash_tval t = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = t;
    }
}

ash_tval ash_ttext_split(ash_trun *r, const ash_tstr *s, const ash_tstr *sep, int64_t most, bool right)
{
    ash_tlist *out = ash_tlist_new(r, 0);
    if (!out || !ash_trun_charge(r, s->n / 16))
        return ASH_TVAL_UNDEF;
    if (sep && sep->n == 0)
        return ash_trun_fail(r, ASH_EINVAL, "empty separator");
    if (!sep) {
        if (right)
            rsplit_blank(r, s, most, out);
        else
            split_blank(r, s, most, out);
    } else if (right) {
        size_t end = s->n;
        for (size_t at; !r->rc && most-- != 0 && (at = find_last(r, s, sep, end)) != SIZE_MAX; end = at)
            ash_tlist_push(r, out, ash_tstr_cut(r, s, at + sep->n, end));
        ash_tlist_push(r, out, ash_tstr_cut(r, s, 0, end));
    } else {
        size_t begin = 0;
        for (size_t at; !r->rc && most-- != 0 && (at = ash_tstr_find(s, sep, begin)) != SIZE_MAX;
             begin = at + sep->n)
            ash_tlist_push(r, out, ash_tstr_cut(r, s, begin, at));
        ash_tlist_push(r, out, ash_tstr_cut(r, s, begin, s->n));
    }
    if (right)
        reverse(out);
    return r->rc ? ASH_TVAL_UNDEF : ash_tlist_val(out);
}

static bool ends_line(uint32_t cp)
{
    return (cp >= 0x0A && cp <= 0x0D) || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 || cp == 0x2028 ||
           cp == 0x2029;
}

ash_tlist *ash_ttext_lines(ash_trun *r, const ash_tstr *s, bool keep_ends)
{
    ash_tlist *out = ash_tlist_new(r, 0);
    size_t begin = 0;
    if (!ash_trun_charge(r, s->n / 16))
        return NULL;
    for (size_t at = 0; at < s->n && !r->rc;) {
        uint32_t cp;
        size_t end = at;
        at += cp_at(s, at, &cp);
        if (!ends_line(cp))
            continue;
        if (cp == '\r' && at < s->n && s->p[at] == '\n')
            at++;
        ash_tlist_push(r, out, ash_tstr_cut(r, s, begin, keep_ends ? at : end));
        begin = at;
    }
    if (begin < s->n)
        ash_tlist_push(r, out, ash_tstr_cut(r, s, begin, s->n));
    return r->rc ? NULL : out;
}

ash_tval ash_ttext_replace(ash_trun *r, const ash_tstr *s, const ash_tstr *old, const ash_tstr *new,
                           int64_t most)
{
    ash_tsink k = {0};
    size_t done = 0;
    if (!ash_trun_charge(r, s->n / 16))
        return ASH_TVAL_UNDEF;
    if (old->n == 0) { /* before every code point and at the end */
        for (size_t at = 0; !r->rc && most-- != 0;) {
            uint32_t cp;
            ash_tsink_str(r, &k, new);
            done = at;
            if (at >= s->n || !ash_trun_charge(r, 1))
                break;
            at += cp_at(s, at, &cp);
            ash_tsink_part(r, &k, s, done, at);
            done = at;
        }
    } else {
        for (size_t at; !r->rc && most-- != 0 && (at = ash_tstr_find(s, old, done)) != SIZE_MAX;) {
            ash_tsink_part(r, &k, s, done, at);
            ash_tsink_str(r, &k, new);
            done = at + old->n;
            ash_trun_charge(r, 1);
        }
    }
    ash_tsink_part(r, &k, s, done, s->n);
    return ash_tsink_take(r, &k);
}

/* ---- numbers ---- */

/* The text without white space around it and without single underscores between digits, in out[cap];
 * false if it does not fit or an underscore stands elsewhere. */
static bool clean_number(const ash_tstr *s, char *out, size_t cap)
{
    size_t b = 0, e = s->n, n = 0;
    uint32_t cp;
    while (b < e && stripped(s, b, NULL)) b += cp_at(s, b, &cp);
    while (e > b && stripped(s, cp_before(s, e), NULL)) e = cp_before(s, e);
    for (size_t i = b; i < e; i++) {
        char c = s->p[i];
        if (c == '_') {
            if (i == b || i + 1 == e || !strchr("0123456789abcdefxABCDEFXoO", s->p[i - 1]) ||
                !strchr("0123456789abcdefABCDEF", s->p[i + 1]) || !s->p[i - 1] || !s->p[i + 1])
                return false;
            continue;
        }
        if (n + 1 >= cap || c == 0)
            return false;
        out[n++] = c;
    }
    out[n] = 0;
    return n > 0;
}

bool ash_ttext_int(const ash_tstr *s, int64_t base, int64_t *out, bool *big)
{
    char text[512];
    *big = false;
    if (!clean_number(s, text, sizeof text))
        return false;
    const char *p = text + (text[0] == '-' || text[0] == '+');
    char mark = (char)(p[0] == '0' ? p[1] | 0x20 : 0);
    int64_t marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked && (base == marked || base == 0)) {
        memmove(text + (p - text), p + 2, strlen(p + 2) + 1);
        base = marked;
    } else if (base == 0) {
        base = 10;
        if (p[0] == '0' && strspn(p, "0") != strlen(p))
            return false;
    }
    bool digit = (p[0] >= '0' && p[0] <= '9') || ((p[0] | 0x20) >= 'a' && (p[0] | 0x20) <= 'z');
    if (!digit || (base == 16 && (p[1] | 0x20) == 'x'))
        return false;
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, (int)base);
    if (*end)
        return false;
    *big = errno == ERANGE;
    *out = v;
    return true;
}

bool ash_ttext_float(const ash_tstr *s, double *out)
{
    char text[512];
    if (!clean_number(s, text, sizeof text))
        return false;
    const char *p = text + (text[0] == '-' || text[0] == '+');
    bool word = !strcasecmp(p, "inf") || !strcasecmp(p, "infinity") || !strcasecmp(p, "nan");
    if (!word && strspn(p, "0123456789.eE+-") != strlen(p))
        return false;
    char *end;
    *out = strtod(text, &end);
    return end != text && *end == 0 && (word || (p[0] >= '0' && p[0] <= '9') || p[0] == '.');
}
