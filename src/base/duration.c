/* Owns nothing; refuses what it cannot read to the last character. */
#include "base/duration.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

static const char *skip(const char *s)
{
    return s + strspn(s, " \t");
}

/* A decimal number at *s: digits, at most one point with digits behind it. Not strtod: no sign, exponent,
 * hex, "inf" or locale. */
static bool take_number(const char **s, double *out)
{
    double v = 0.0, unit = 1.0;
    bool any = false;
    for (; isdigit((unsigned char)**s); ++*s, any = true) v = v * 10.0 + (**s - '0');
    if (**s == '.') {
        any = false;
        for (++*s; isdigit((unsigned char)**s); ++*s, any = true) v += (**s - '0') * (unit /= 10.0);
    }
    *out = v;
    return any;
}

/* Milliseconds of the unit at *s; 0: none is there. */
static double take_unit(const char **s)
{
    static const struct {
        const char *name;
        double ms;
    } units[] = {{"ms", 1.0}, {"s", 1e3}, {"m", 60e3}, {"h", 3600e3}};
    size_t n = 0;
    while (isalpha((unsigned char)(*s)[n])) n++;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strlen(units[i].name) == n && !strncasecmp(units[i].name, *s, n)) {
            *s += n;
            return units[i].ms;
        }
    return 0.0;
}

bool ash_duration_read(const char *text, double *ms)
{
    double sum = 0.0, v;
    const char *s = skip(text);
    for (bool first = true; first || *s; first = false) {
        if (!take_number(&s, &v)) return false;
        s = skip(s);
        double unit = take_unit(&s);
        if (unit == 0.0 && first && !*s) unit = 1e3;
        if (unit == 0.0) return false;
        sum += v * unit;
        s = skip(s);
    }
    *ms = sum;
    return true;
}
