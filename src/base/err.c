/* Owns the formatting of errors. Refuses nothing: a message too long is cut at a code point.
 * Thread rule: an ash_err belongs to one thread at a time. */
#include "base/err.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

static void cut_at_code_point(char *s, size_t size)
{
    size_t n = strnlen(s, size - 1);
    if (n < size - 1)
        return;
    size_t i = n;
    while (i > 0 && ((unsigned char)s[i - 1] & 0xC0) == 0x80)
        i--;
    if (i > 0 && (unsigned char)s[i - 1] >= 0x80)
        i--;
    s[(unsigned char)s[n - 1] >= 0x80 ? i : n] = 0;
}

/* UTF-8 without what a terminal would obey; of what is none the upper bytes become '?'. */
static void make_text(char *s)
{
    size_t n = strlen(s);
    bool valid = ash_utf8_valid(s, n);
    for (size_t i = 0; i < n && !valid; i++)
        if ((unsigned char)s[i] >= 0x80) s[i] = '?';
    ash_utf8_disarm(s, n);
}

__attribute__((format(printf, 4, 0))) static int set(ash_err *err, int code, int64_t pos,
                                                     const char *fmt, va_list ap)
{
    if (!err)
        return code;
    err->code = code;
    err->pos = pos;
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    cut_at_code_point(err->msg, sizeof err->msg);
    make_text(err->msg); /* names in it come from files, pieces of what was read from anywhere */
    if (pos >= 0) {
        size_t n = strlen(err->msg);
        snprintf(err->msg + n, sizeof err->msg - n, " at byte %lld", (long long)pos);
    }
    return code;
}

int ash_err_set(ash_err *err, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set(err, code, -1, fmt, ap);
    va_end(ap);
    return code;
}

int ash_err_at(ash_err *err, int code, int64_t pos, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set(err, code, pos, fmt, ap);
    va_end(ap);
    return code;
}

int ash_err_prefix(ash_err *err, const char *fmt, ...)
{
    if (!err)
        return ASH_EINVAL;
    char old[sizeof err->msg];
    memcpy(old, err->msg, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    size_t n = strlen(err->msg);
    snprintf(err->msg + n, sizeof err->msg - n, ": %s", old);
    cut_at_code_point(err->msg, sizeof err->msg);
    make_text(err->msg);
    return err->code;
}

int ash_err_nomem(ash_err *err, const char *what)
{
    return ash_err_set(err, ASH_ENOMEM, "out of memory (%s)", what);
}

const char *ash_err_name(int code)
{
    switch (code) {
    case ASH_OK: return "ok";
    case ASH_EINVAL: return "invalid value";
    case ASH_ENOMEM: return "out of memory";
    case ASH_EIO: return "input/output error";
    case ASH_ENOENT: return "not found";
    case ASH_EFORMAT: return "malformed input";
    case ASH_EUNSUPPORTED: return "not supported";
    case ASH_ELIMIT: return "over a limit";
    case ASH_EAGAIN: return "try again";
    case ASH_ECANCELED: return "cancelled";
    case ASH_ETIMEDOUT: return "timed out";
    case ASH_ENET: return "network error";
    case ASH_EAUTH: return "not authorised";
    case ASH_ENOTMINE: return "not handled here";
    case ASH_ENOSPC: return "does not fit";
    case ASH_EDISK: return "does not fit the disk";
    default: return "unknown error";
    }
}
