/* Owns the reading of JSON without a tree. Refuses what RFC 8259 does not allow, broken UTF-8, lone
 * surrogates and nesting over ASH_MAX_JSON_DEPTH. One thread at a time. */
#include "format/scan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "base/utf8.h"

#define MAX_TEXT ASH_MAX_SAFETENSORS_HEADER /* of one string with escapes */

void ash_scan_init(ash_scan *s, const char *label, const void *p, size_t n, int64_t base,
                   ash_err *err)
{
    *s = (ash_scan){.label = label, .p = p, .n = n, .base = base, .err = err};
    for (int i = 0; i < 2; i++) ash_buf_init(&s->text[i], MAX_TEXT);
}

void ash_scan_release(ash_scan *s)
{
    for (int i = 0; i < 2; i++) ash_buf_release(&s->text[i]);
}

static bool fail(ash_scan *s, int code, size_t at, const char *what)
{
    if (!s->rc)
        s->rc = ash_err_at(s->err, code, s->base + (int64_t)at, "%s: JSON: %s", s->label, what);
    return false;
}

static bool malformed(ash_scan *s, const char *what)
{
    return fail(s, ASH_EFORMAT, s->at, s->at < s->n ? what : "cut short");
}

static void skip_space(ash_scan *s)
{
    while (s->at < s->n && (s->p[s->at] == ' ' || s->p[s->at] == '\n' || s->p[s->at] == '\t' ||
                            s->p[s->at] == '\r'))
        s->at++;
}

/* The next byte that is not white space, 0 at the end or after a failure. */
static char peek(ash_scan *s)
{
    skip_space(s);
    return !s->rc && s->at < s->n ? s->p[s->at] : 0;
}

int64_t ash_scan_pos(ash_scan *s)
{
    skip_space(s);
    return s->base + (int64_t)s->at;
}

bool ash_scan_open(ash_scan *s, char bracket)
{
    if (peek(s) != bracket)
        return malformed(s, bracket == '{' ? "expected an object" : "expected an array");
    if (s->depth == ASH_MAX_JSON_DEPTH) return fail(s, ASH_ELIMIT, s->at, "nested too deep");
    s->depth++;
    s->at++;
    s->fresh = true;
    return true;
}

/* Before a member: takes the comma, or the closing bracket. */
static bool more(ash_scan *s, char close)
{
    char c = peek(s);
    if (c == close) {
        s->at++;
        s->depth--;
        s->fresh = false;
        return false;
    }
    if (!s->fresh) {
        if (c != ',')
            return malformed(s, close == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
        s->at++;
    }
    s->fresh = false;
    return !s->rc;
}

bool ash_scan_element(ash_scan *s)
{
    return more(s, ']');
}

bool ash_scan_key(ash_scan *s, ash_str *key)
{
    if (!more(s, '}')) return false;
    if (peek(s) != '"') return malformed(s, "expected a key in quotes");
    if (!ash_scan_string(s, key)) return false;
    if (peek(s) != ':') return malformed(s, "expected ':' after a key");
    s->at++;
    return true;
}

static bool hex4(ash_scan *s, size_t at, uint32_t *out)
{
    uint32_t v = 0;
    if (s->n - at < 4) return false;
    for (size_t i = at; i < at + 4; i++) {
        char c = s->p[i];
        if (c >= '0' && c <= '9')
            v = v * 16 + (uint32_t)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            v = v * 16 + (uint32_t)((c | 32) - 'a' + 10);
        else
            return false;
    }
    *out = v;
    return true;
}

/* At a backslash; appends what it stands for. */
static bool read_escape(ash_scan *s, ash_buf *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = s->n - s->at > 1 ? s->p[s->at + 1] : 0;
    const char *known = c ? strchr(from, c) : NULL;
    uint32_t cp, low;
    char utf8[4];
    if (known) {
        ash_buf_addc(out, to[known - from]);
        s->at += 2;
        return true;
    }
    if (c != 'u' || !hex4(s, s->at + 2, &cp)) return malformed(s, "unknown escape in a string");
    size_t used = 6;
    if (cp >= 0xD800 && cp < 0xDC00 && s->n - s->at >= 12 && s->p[s->at + 6] == '\\' &&
        s->p[s->at + 7] == 'u' && hex4(s, s->at + 8, &low) && low >= 0xDC00 && low < 0xE000) {
        cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
        used = 12;
    }
    if (cp >= 0xD800 && cp < 0xE000) return malformed(s, "half a surrogate pair in a string");
    ash_buf_add(out, utf8, ash_utf8_encode(cp, utf8));
    s->at += used;
    return true;
}

/* The run of plain bytes from s->at on: up to a quote, a backslash or the end. */
static bool plain_run(ash_scan *s)
{
    while (s->at < s->n) {
        unsigned char c = (unsigned char)s->p[s->at];
        if (c == '"' || c == '\\') return true;
        if (c < 0x20) return malformed(s, "control character in a string");
        uint32_t cp;
        bool ok = true;
        size_t len = c < 0x80 ? 1 : ash_utf8_decode(s->p + s->at, s->n - s->at, &cp, &ok);
        if (!ok) return malformed(s, "not UTF-8");
        s->at += len;
    }
    return malformed(s, "string without an end");
}

bool ash_scan_string(ash_scan *s, ash_str *out)
{
    if (peek(s) != '"') return malformed(s, "expected a string");
    size_t first = s->at++, from = s->at;
    ash_buf *b = NULL;
    for (;;) {
        if (!plain_run(s)) return false;
        if (s->p[s->at] == '"' && !b) break;
        if (!b) {
            b = &s->text[s->turn];
            s->turn ^= 1;
            ash_buf_clear(b);
        }
        ash_buf_add(b, s->p + from, s->at - from);
        if (s->p[s->at] == '"') break;
        if (!read_escape(s, b)) return false;
        from = s->at;
    }
    if (b && b->failed) return fail(s, b->failed, first, "no room for a string");
    *out = b ? (ash_str){ash_buf_cstr(b), b->len} : (ash_str){s->p + from, s->at - from};
    s->at++;
    s->fresh = false;
    return true;
}

bool ash_scan_u64(ash_scan *s, uint64_t *out)
{
    uint64_t v = 0;
    char c = peek(s);
    size_t first = s->at;
    if (c < '0' || c > '9') return malformed(s, "expected a whole number, not negative");
    for (; s->at < s->n && s->p[s->at] >= '0' && s->p[s->at] <= '9'; s->at++) {
        uint64_t d = (uint64_t)(s->p[s->at] - '0');
        if (v > (UINT64_MAX - d) / 10) return fail(s, ASH_EFORMAT, first, "number over 2^64");
        v = v * 10 + d;
    }
    if (c == '0' && s->at - first > 1)
        return fail(s, ASH_EFORMAT, first, "number with a leading zero");
    if (s->at < s->n && (s->p[s->at] == '.' || (s->p[s->at] | 32) == 'e'))
        return fail(s, ASH_EFORMAT, first, "expected a whole number, not negative");
    *out = v;
    s->fresh = false;
    return true;
}

static bool digits(ash_scan *s)
{
    size_t first = s->at;
    while (s->at < s->n && s->p[s->at] >= '0' && s->p[s->at] <= '9') s->at++;
    return s->at > first || malformed(s, "malformed number");
}

static bool skip_number(ash_scan *s)
{
    if (s->p[s->at] == '-') s->at++;
    size_t first = s->at;
    if (!digits(s)) return false;
    if (s->p[first] == '0' && s->at - first > 1) return malformed(s, "number with a leading zero");
    if (s->at < s->n && s->p[s->at] == '.') {
        s->at++;
        if (!digits(s)) return false;
    }
    if (s->at < s->n && (s->p[s->at] | 32) == 'e') {
        s->at++;
        if (s->at < s->n && (s->p[s->at] == '+' || s->p[s->at] == '-')) s->at++;
        return digits(s);
    }
    return true;
}

static bool skip_word(ash_scan *s)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t n = strlen(words[i]);
        if (s->n - s->at >= n && memcmp(s->p + s->at, words[i], n) == 0) {
            s->at += n;
            return true;
        }
    }
    return malformed(s, "expected a value");
}

/* Recursion is as deep as ASH_MAX_JSON_DEPTH allows. */
bool ash_scan_skip(ash_scan *s)
{
    ash_str ignored;
    char c = peek(s);
    bool ok;
    if (c == '{') {
        ok = ash_scan_open(s, '{');
        while (ok && ash_scan_key(s, &ignored)) ok = ash_scan_skip(s);
    } else if (c == '[') {
        ok = ash_scan_open(s, '[');
        while (ok && ash_scan_element(s)) ok = ash_scan_skip(s);
    } else if (c == '"') {
        ok = ash_scan_string(s, &ignored);
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        ok = skip_number(s);
    } else {
        ok = skip_word(s);
    }
    s->fresh = false;
    return ok && !s->rc;
}

bool ash_scan_end(ash_scan *s)
{
    skip_space(s);
    if (!s->rc && s->at < s->n) return fail(s, ASH_EFORMAT, s->at, "text after its end");
    return !s->rc;
}

const char *ash_scan_show(ash_str s, char out[208])
{
    size_t n = 0;
    bool ok = true;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t len = ash_utf8_decode(s.p + i, s.n - i, &cp, &ok);
        size_t room = ok && cp >= 0x20 && cp != 0x7F ? len : 1;
        if (n + room > 200) {
            snprintf(out + n, 208 - n, "...");
            return out;
        }
        if (ok && cp >= 0x20 && cp != 0x7F)
            memcpy(out + n, s.p + i, len);
        else
            out[n] = '?';
        n += room;
        i += len;
    }
    out[n] = 0;
    return out;
}
