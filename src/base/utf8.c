/* Owns UTF-8 decoding and encoding; the table is that of Unicode 15, table 3-7. Any thread. */
#include "base/utf8.h"

#include <string.h>

/* Length of a sequence by its first byte (0 if it cannot start one) and the range of the second. */
static int lead(unsigned char c, unsigned char *lo, unsigned char *hi)
{
    *lo = 0x80;
    *hi = 0xBF;
    if (c < 0x80) return 1;
    if (c < 0xC2) return 0;
    if (c < 0xE0) return 2;
    if (c < 0xF0) {
        if (c == 0xE0) *lo = 0xA0;
        if (c == 0xED) *hi = 0x9F;
        return 3;
    }
    if (c < 0xF5) {
        if (c == 0xF0) *lo = 0x90;
        if (c == 0xF4) *hi = 0x8F;
        return 4;
    }
    return 0;
}

size_t ash_utf8_decode(const char *s, size_t n, uint32_t *cp, bool *ok)
{
    const unsigned char *p = (const unsigned char *)s;
    unsigned char lo, hi;
    int len = lead(p[0], &lo, &hi);
    *ok = true;
    if (len == 1) {
        *cp = p[0];
        return 1;
    }
    uint32_t v = len == 2 ? p[0] & 0x1Fu : len == 3 ? p[0] & 0x0Fu : p[0] & 0x07u;
    size_t i = 1;
    for (; len && i < (size_t)len; i++) {
        if (i >= n || p[i] < lo || p[i] > hi)
            break;
        v = (v << 6) | (p[i] & 0x3Fu);
        lo = 0x80;
        hi = 0xBF;
    }
    if (!len || i < (size_t)len) {
        *ok = false;
        *cp = 0xFFFD;
        return i;
    }
    *cp = v;
    return i;
}

size_t ash_utf8_encode(uint32_t cp, char out[4])
{
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000))
        cp = 0xFFFD;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | (cp >> 6));
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | (cp >> 12));
        out[1] = (char)(0x80 | ((cp >> 6) & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | (cp >> 18));
    out[1] = (char)(0x80 | ((cp >> 12) & 0x3F));
    out[2] = (char)(0x80 | ((cp >> 6) & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

bool ash_utf8_valid(const char *p, size_t n)
{
    bool ok = true;
    uint32_t cp;
    for (size_t i = 0; i < n && ok;) {
        uint64_t eight;
        for (; n - i >= 8; i += 8) { /* most of most text is ASCII */
            memcpy(&eight, p + i, 8);
            if (eight & 0x8080808080808080u)
                break;
        }
        if (i < n)
            i += ash_utf8_decode(p + i, n - i, &cp, &ok);
    }
    return ok;
}

size_t ash_utf8_incomplete_tail(const char *p, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)p[n - back], lo, hi;
        if ((c & 0xC0) == 0x80)
            continue;
        int len = lead(c, &lo, &hi);
        if (len <= (int)back)
            return 0;
        if (back >= 2) {
            unsigned char second = (unsigned char)p[n - back + 1];
            if (second < lo || second > hi)
                return 0;
        }
        return back;
    }
    return 0;
}

size_t ash_utf8_count(const char *p, size_t n)
{
    size_t count = 0;
    uint32_t cp;
    bool ok;
    for (size_t i = 0; i < n; count++) i += ash_utf8_decode(p + i, n - i, &cp, &ok);
    return count;
}

void ash_utf8_disarm(char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i], next = i + 1 < n ? (unsigned char)p[i + 1] : 0;
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F) {
            p[i] = '?';
        } else if (c == 0xC2 && next >= 0x80 && next < 0xA0) {
            p[i] = p[i + 1] = '?';
        }
    }
}
