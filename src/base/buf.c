/* Owns growth of byte buffers. Refuses to grow past `max`. One thread at a time. */
#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

ash_str ash_str_from(const char *cstr)
{
    return (ash_str){cstr ? cstr : "", cstr ? strlen(cstr) : 0};
}

bool ash_str_eq(ash_str a, ash_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool ash_str_eqc(ash_str a, const char *b)
{
    return ash_str_eq(a, ash_str_from(b));
}

bool ash_str_starts(ash_str s, const char *prefix)
{
    size_t n = strlen(prefix);
    return s.n >= n && memcmp(s.p, prefix, n) == 0;
}

void ash_buf_init(ash_buf *b, size_t max)
{
    *b = (ash_buf){.max = max};
}

void ash_buf_release(ash_buf *b)
{
    free(b->data);
    *b = (ash_buf){.max = b->max};
}

void ash_buf_clear(ash_buf *b)
{
    b->len = 0;
    b->failed = 0;
    if (b->data)
        b->data[0] = 0;
}

char *ash_buf_reserve(ash_buf *b, size_t n)
{
    if (b->failed)
        return NULL;
    if (n > b->max || b->len > b->max - n) {
        b->failed = ASH_ELIMIT;
        return NULL;
    }
    size_t need = b->len + n + 1;
    if (need > b->cap) {
        size_t cap = b->cap < 64 ? 64 : b->cap;
        while (cap < need) cap = cap > SIZE_MAX / 2 ? need : cap * 2;
        char *p = realloc(b->data, cap);
        if (!p) {
            b->failed = ASH_ENOMEM;
            return NULL;
        }
        b->data = p;
        b->cap = cap;
    }
    return b->data + b->len;
}

int ash_buf_add(ash_buf *b, const void *p, size_t n)
{
    char *to = ash_buf_reserve(b, n);
    if (!to)
        return b->failed;
    if (n)
        memcpy(to, p, n);
    b->len += n;
    b->data[b->len] = 0;
    return 0;
}

int ash_buf_addc(ash_buf *b, char c)
{
    return ash_buf_add(b, &c, 1);
}

int ash_buf_adds(ash_buf *b, const char *cstr)
{
    return ash_buf_add(b, cstr, strlen(cstr));
}

int ash_buf_addstr(ash_buf *b, ash_str s)
{
    return ash_buf_add(b, s.p, s.n);
}

int ash_buf_printf(ash_buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *to = n < 0 ? NULL : ash_buf_reserve(b, (size_t)n);
    if (to) {
        vsnprintf(to, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return to ? 0 : (b->failed ? b->failed : ASH_EINVAL);
}

void ash_buf_consume(ash_buf *b, size_t n)
{
    if (n > b->len)
        n = b->len;
    if (n == 0)
        return;
    memmove(b->data, b->data + n, b->len - n + 1);
    b->len -= n;
}

const char *ash_buf_cstr(const ash_buf *b)
{
    return b->data ? b->data : "";
}

char *ash_buf_take(ash_buf *b)
{
    char *p = b->data;
    *b = (ash_buf){.max = b->max};
    return p;
}

int ash_buf_check(const ash_buf *b, const char *what, ash_err *err)
{
    if (b->failed == ASH_ENOMEM)
        return ash_err_nomem(err, what);
    if (b->failed)
        return ash_err_set(err, b->failed, "%s is larger than its cap of %zu bytes", what, b->max);
    return 0;
}
