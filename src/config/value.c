/* Owns how sizes, times, yes and no and lists are written. Refuses what it cannot read to the last
 * character. Pure, any thread. */
#include "config/value.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/duration.h"

/* A decimal number at the start of s: digits, at most one point. Not strtod: no sign, exponent,
 * hex, "inf" or locale. Returns what follows, NULL if there is no number. */
static const char *read_number(const char *s, double *out, bool *whole)
{
    double v = 0, unit = 1;
    bool any = false;
    for (; *s >= '0' && *s <= '9'; s++, any = true) v = v * 10 + (*s - '0');
    *whole = true;
    if (*s == '.') {
        *whole = false;
        any = false;
        for (s++; *s >= '0' && *s <= '9'; s++, any = true) v += (*s - '0') * (unit /= 10);
    }
    *out = v;
    return any ? s : NULL;
}

static const char *skip(const char *s)
{
    while (*s == ' ' || *s == '\t') s++;
    return s;
}

typedef struct suffix {
    const char *text;
    double factor;
} suffix;

/* The factor of the suffix that is all of s, 0 if there is none such. */
static double find_suffix(const suffix *t, size_t n, const char *s)
{
    size_t len = strlen(s);
    while (len && (s[len - 1] == ' ' || s[len - 1] == '\t')) len--;
    for (size_t i = 0; i < n; i++)
        if (strlen(t[i].text) == len && !strncasecmp(t[i].text, s, len)) return t[i].factor;
    return 0;
}

int ash_value_bytes(const char *text, uint64_t *out, ash_err *err)
{
    static const suffix units[] = {
        {"", 1},
        {"B", 1},
        {"K", 1e3},
        {"KB", 1e3},
        {"M", 1e6},
        {"MB", 1e6},
        {"G", 1e9},
        {"GB", 1e9},
        {"T", 1e12},
        {"TB", 1e12},
        {"Ki", 1024},
        {"KiB", 1024},
        {"Mi", 1048576},
        {"MiB", 1048576},
        {"Gi", 1073741824},
        {"GiB", 1073741824},
        {"Ti", 1099511627776},
        {"TiB", 1099511627776},
    };
    double v;
    bool whole;
    const char *rest = read_number(skip(text), &v, &whole);
    double factor = rest ? find_suffix(units, sizeof units / sizeof *units, skip(rest)) : 0;
    if (factor <= 0 || (factor == 1 && !whole))
        return ash_err_set(
            err, ASH_EINVAL,
            "expected a size: a number with K, M, G, T (powers of 1000) or Ki, Mi, Gi, Ti "
            "(of 1024), or plain bytes");
    if (v * factor >= 9.2e18)
        return ash_err_set(err, ASH_ELIMIT, "expected a size below 9.2e18 bytes");
    *out = (uint64_t)(v * factor + 0.5);
    return 0;
}

int ash_value_time(const char *text, bool for_ever, int64_t *out, ash_err *err)
{
    double ms;
    if (for_ever && !strcmp(skip(text), "-1")) {
        *out = -1;
        return 0;
    }
    if (!ash_duration_read(text, &ms))
        return ash_err_set(err, ASH_EINVAL,
                           "expected a time: a number with ms, s, m or h, or plain seconds%s",
                           for_ever ? ", or -1 for ever" : "");
    if (ms > 10 * 365.25 * 86400e3)
        return ash_err_set(err, ASH_ELIMIT, "expected a time of at most 10 years");
    *out = (int64_t)(ms + 0.5);
    return 0;
}

int ash_value_keep_alive(const json_t *object, bool *has, int64_t *out, ash_err *err)
{
    char text[32];
    const json_t *v = json_object_get(object, "keep_alive");
    const char *s = json_string_value(v);
    *has = false;
    if (!v || json_is_null(v)) return 0;
    if (json_is_number(v)) {
        double seconds = json_number_value(v);
        snprintf(text, sizeof text, seconds == floor(seconds) ? "%.0f" : "%.3f", seconds);
        s = text;
    }
    if (!s)
        return ash_err_set(err, ASH_EINVAL, "'keep_alive' must be a time, not %s",
                           ash_json_type_name(v));
    int rc = ash_value_time(s, true, out, err);
    if (rc) return ash_err_prefix(err, "'keep_alive'");
    *has = true;
    return 0;
}

int ash_value_bool(const char *text, bool *out, ash_err *err)
{
    static const char *const words[] = {"0", "1", "false", "true", "no", "yes", "off", "on"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcasecmp(text, words[i])) {
            *out = i & 1;
            return 0;
        }
    return ash_err_set(err, ASH_EINVAL, "expected 1 or 0, true or false, yes or no, on or off");
}

int ash_value_list(const char *text, ash_arena *arena, const char *const **out, size_t *n,
                   ash_err *err)
{
    size_t most = 1, count = 0;
    for (const char *p = text; *p; p++) most += *p == ',';
    const char **v = ash_arena_calloc(arena, most, sizeof *v);
    if (!v) return ash_err_nomem(err, "a list");
    for (const char *p = text;; p++) {
        p += strspn(p, " \t\r\n");
        size_t len = strcspn(p, ",");
        size_t used = len;
        while (used && strchr(" \t\r\n", p[used - 1])) used--;
        if (used && !(v[count++] = ash_arena_strndup(arena, p, used)))
            return ash_err_nomem(err, "a list");
        p += len;
        if (!*p) break;
    }
    *out = count ? v : NULL;
    *n = count;
    return 0;
}

void ash_value_show_bytes(uint64_t bytes, char out[16])
{
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB", "PB", "EB"};
    double v = (double)bytes;
    size_t u = 0;
    for (; v >= 999.5 && u < 6; u++) v /= 1000;
    if (!u || v >= 99.95)
        snprintf(out, 16, "%.0f %s", v, units[u]);
    else
        snprintf(out, 16, "%.1f %s", v, units[u]);
}
