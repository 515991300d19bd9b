/* Owns the reading of large JSON by ranges (RFC 8259). Refuses what is not balanced, nested deeper than
 * ASH_MAX_JSON_DEPTH, strings with raw control characters and escapes that are none. Any thread. */
#include "text/tokenizer_skim.h"

#include <string.h>

#include "base/limits.h"
#include "base/utf8.h"

static int bad(const tok_skim *s, const char *expected, ash_err *err)
{
    return ash_err_set(err, ASH_EFORMAT, "%s expected, %zu bytes into its value", expected, s->at);
}

/* What a byte is outside of strings. */
enum { WORD, SPACE, SEPARATOR, QUOTE, OPEN, CLOSE };
static const uint8_t class_of[256] = {
    [' '] = SPACE,     ['\t'] = SPACE,    ['\r'] = SPACE, ['\n'] = SPACE, [','] = SEPARATOR,
    [':'] = SEPARATOR, ['"'] = QUOTE,     ['{'] = OPEN,   ['['] = OPEN,   ['}'] = CLOSE,
    [']'] = CLOSE,
};

#define EACH(byte) (0x0101010101010101u * (byte))

/* Eight bytes, the first the lowest. */
static uint64_t load8(const char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Where the white space at p[at..n) ends. Indentation is most of it. */
static size_t space_end(const char *p, size_t at, size_t n)
{
    while (at < n && class_of[(unsigned char)p[at]] == SPACE) {
        at++;
        if (n - at >= 8) {
            uint64_t other = load8(p + at) ^ EACH(' ');
            at += other ? (size_t)__builtin_ctzll(other) / 8 : 8;
        }
    }
    return at;
}

/* The first quote, backslash or control character of p[at..n), or n. Of eight bytes a difference below
 * zero borrows from those behind it only, so that the lowest that is found is one. */
static size_t string_stop(const char *p, size_t at, size_t n)
{
    for (; n - at >= 8; at += 8) {
        uint64_t v = load8(p + at), quote = v ^ EACH('"'), slash = v ^ EACH('\\');
        uint64_t found = ((quote - EACH(1)) & ~quote) | ((slash - EACH(1)) & ~slash) |
                         ((v - EACH(0x20)) & ~v);
        if (found & EACH(0x80))
            return at + (size_t)__builtin_ctzll(found & EACH(0x80)) / 8;
    }
    while (at < n && p[at] != '"' && p[at] != '\\' && (unsigned char)p[at] >= 0x20) at++;
    return at;
}

static void skip_space(tok_skim *s)
{
    s->at = space_end(s->p, s->at, s->n);
}

static int peek(const tok_skim *s)
{
    return s->at < s->n ? (unsigned char)s->p[s->at] : -1;
}

/* p[at] is behind a quote; *end becomes where the next is. */
static int string_end(const char *p, size_t at, size_t n, size_t *end)
{
    while ((at = string_stop(p, at, n)) < n && p[at] == '\\') at = n - at > 2 ? at + 2 : n;
    *end = at;
    return at < n && p[at] == '"' ? 0 : -1;
}

static int bad_string(tok_skim *s, size_t at, ash_err *err)
{
    s->at = at;
    return bad(s, at < s->n ? "no control character" : "the end of a string", err);
}

/* At a quote; *raw is what lies between it and the next. */
static int skip_string(tok_skim *s, ash_str *raw, ash_err *err)
{
    size_t from = s->at + 1, end;
    if (string_end(s->p, from, s->n, &end))
        return bad_string(s, end, err);
    *raw = (ash_str){s->p + from, end - from};
    s->at = end + 1;
    return 0;
}

/* In an array or object: to the bracket that closes it. */
static int skip_inside(tok_skim *s, ash_err *err)
{
    char open[ASH_MAX_JSON_DEPTH];
    const char *p = s->p;
    size_t depth = 0, at = s->at, n = s->n;
    do {
        at = space_end(p, at, n);
        s->at = at;
        if (at == n)
            return bad(s, "a value", err);
        switch (class_of[(unsigned char)p[at]]) {
        case QUOTE:
            if (string_end(p, at + 1, n, &at))
                return bad_string(s, at, err);
            at++;
            break;
        case OPEN:
            if (depth == ASH_MAX_JSON_DEPTH)
                return ash_err_set(err, ASH_ELIMIT, "nested deeper than %d", ASH_MAX_JSON_DEPTH);
            open[depth++] = p[at++];
            break;
        case CLOSE:
            if (open[--depth] != (p[at] == '}' ? '{' : '['))
                return bad(s, "the other bracket", err);
            at++;
            break;
        case SEPARATOR:
            at++;
            break;
        default: /* numbers and words: whatever has none of the characters that end one */
            while (at < n && class_of[(unsigned char)p[at]] == WORD) at++;
        }
    } while (depth);
    s->at = at;
    return 0;
}

static int skip_value(tok_skim *s, ash_err *err)
{
    ash_str raw;
    int c = peek(s);
    if (c == '"')
        return skip_string(s, &raw, err);
    if (c == '{' || c == '[')
        return skip_inside(s, err);
    size_t from = s->at;
    while (s->at < s->n && class_of[(unsigned char)s->p[s->at]] == WORD) s->at++;
    return s->at > from ? 0 : bad(s, "a value", err);
}

int tok_skim_enter(tok_skim *s, ash_str text, char open, ash_err *err)
{
    *s = (tok_skim){.p = text.p, .n = text.n, .first = true};
    skip_space(s);
    if (peek(s) != open)
        return bad(s, open == '{' ? "an object" : "an array", err);
    s->at++;
    return 0;
}

int tok_skim_next(tok_skim *s, ash_str *key, ash_err *err)
{
    char close = key ? '}' : ']';
    skip_space(s);
    if (peek(s) == close) {
        s->at++;
        skip_space(s);
        return s->at == s->n ? 0 : bad(s, "the end", err);
    }
    if (!s->first) {
        if (peek(s) != ',')
            return bad(s, "a comma", err);
        s->at++;
        skip_space(s);
    }
    s->first = false;
    if (!key)
        return 1;
    if (peek(s) != '"')
        return bad(s, "a name", err);
    int rc = skip_string(s, key, err);
    if (rc)
        return rc;
    skip_space(s);
    if (peek(s) != ':')
        return bad(s, "a colon", err);
    s->at++;
    return 1;
}

int tok_skim_value(tok_skim *s, ash_str *value, ash_err *err)
{
    skip_space(s);
    size_t from = s->at;
    int rc = skip_value(s, err);
    *value = (ash_str){s->p + from, s->at - from};
    return rc;
}

/* ---- strings -------------------------------------------------------------------------------- */

static int hex4(ash_str raw, size_t at, uint32_t *out)
{
    *out = 0;
    if (raw.n - at < 4)
        return -1;
    for (size_t i = at; i < at + 4; i++) {
        char c = raw.p[i];
        int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                              : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (d < 0)
            return -1;
        *out = *out * 16 + (uint32_t)d;
    }
    return 0;
}

/* The code point of \uXXXX, raw.p[*at] being the u; *at moves behind it. */
static int unicode_escape(ash_str raw, size_t *at, uint32_t *cp)
{
    uint32_t low;
    if (hex4(raw, *at + 1, cp) || (*cp >= 0xDC00 && *cp < 0xE000))
        return -1;
    *at += 5;
    if (*cp < 0xD800 || *cp >= 0xDC00)
        return 0;
    if (raw.n - *at < 6 || raw.p[*at] != '\\' || raw.p[*at + 1] != 'u' || hex4(raw, *at + 2, &low) ||
        low < 0xDC00 || low >= 0xE000)
        return -1;
    *cp = 0x10000 + ((*cp - 0xD800) << 10) + (low - 0xDC00);
    *at += 6;
    return 0;
}

int tok_skim_text(ash_str raw, ash_arena *arena, ash_str *out, ash_err *err)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    *out = raw;
    if (!memchr(raw.p, '\\', raw.n))
        return 0;
    char *p = ash_arena_alloc(arena, raw.n + 4);
    size_t n = 0;
    if (!p)
        return ash_err_nomem(err, "a string");
    for (size_t i = 0; i < raw.n;) {
        uint32_t cp;
        if (raw.p[i] != '\\') {
            p[n++] = raw.p[i++];
            continue;
        }
        const char *at = ++i < raw.n && raw.p[i] ? strchr(names, raw.p[i]) : NULL;
        if (at) {
            p[n++] = values[at - names];
            i++;
        } else if (i < raw.n && raw.p[i] == 'u' && !unicode_escape(raw, &i, &cp)) {
            n += ash_utf8_encode(cp, p + n);
        } else {
            return ash_err_set(err, ASH_EFORMAT, "a string has an escape that is none");
        }
    }
    *out = (ash_str){p, n};
    return 0;
}

int tok_skim_string(ash_str value, ash_str *raw, ash_err *err)
{
    if (value.n < 2 || value.p[0] != '"')
        return ash_err_set(err, ASH_EFORMAT, "must be a string");
    *raw = (ash_str){value.p + 1, value.n - 2};
    return 0;
}

int tok_skim_id(ash_str value, uint32_t max, uint32_t *out, ash_err *err)
{
    uint64_t id = 0;
    bool ok = value.n > 0 && value.n <= 10;
    for (size_t i = 0; ok && i < value.n; i++) {
        ok = value.p[i] >= '0' && value.p[i] <= '9';
        id = id * 10 + (uint64_t)(value.p[i] - '0');
    }
    if (!ok || id > max)
        return ash_err_set(err, ASH_EFORMAT, "must be a whole number from 0 to %u", max);
    *out = (uint32_t)id;
    return 0;
}
