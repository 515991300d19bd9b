/* Owns the reading of an answer's headers. Refuses more than a cap of them; a field that is
 * malformed counts as missing. One thread a hub_headers. */
#include <string.h>
#include <strings.h>
#include <time.h>

#include "hub/hub_private.h"

void hub_headers_init(hub_headers *h)
{
    memset(h, 0, sizeof *h);
    h->retry_after_s = -1;
}

/* Decimal digits at *p, at most 19 of them; moves on behind them. */
static bool number(const char **p, const char *end, uint64_t *out)
{
    uint64_t v = 0;
    const char *from = *p;
    while (*p < end && **p >= '0' && **p <= '9') {
        if (*p - from >= 18) return false;
        v = v * 10 + (uint64_t)(*(*p)++ - '0');
    }
    *out = v;
    return *p > from;
}

static bool whole_number(ash_str v, uint64_t *out)
{
    const char *p = v.p;
    return number(&p, v.p + v.n, out) && p == v.p + v.n;
}

/* Copies if it fits; else out is "". */
static void copy(char *out, size_t room, ash_str v)
{
    out[0] = 0;
    if (v.n >= room || memchr(v.p, 0, v.n)) return;
    memcpy(out, v.p, v.n);
    out[v.n] = 0;
}

/* For people: printable ASCII, cut. */
static void copy_text(char *out, size_t room, ash_str v)
{
    size_t n = v.n < room - 1 ? v.n : room - 1;
    for (size_t i = 0; i < n; i++) out[i] = v.p[i] >= 0x20 && v.p[i] < 0x7F ? v.p[i] : '?';
    out[n] = 0;
}

static void read_etag(hub_headers *h, ash_str v, bool linked)
{
    if (h->linked_etag && !linked) return;
    if (v.n >= 2 && !memcmp(v.p, "W/", 2)) v.p += 2, v.n -= 2;
    if (v.n >= 2 && v.p[0] == '"' && v.p[v.n - 1] == '"') v.p++, v.n -= 2;
    copy(h->etag, sizeof h->etag, v);
    h->linked_etag = linked;
}

/* bytes 0-99/1000, bytes 0-99/ * and bytes * /1000 */
static void read_range(hub_headers *h, ash_str v)
{
    const char *p = v.p, *end = v.p + v.n;
    h->has_range = h->has_total = false; /* the last one counts, also one that is none */
    if (v.n < 6 || strncasecmp(p, "bytes ", 6)) return;
    p += 6;
    bool star = p < end && *p == '*';
    if (star)
        p++;
    else if (!number(&p, end, &h->first) || p == end || *p++ != '-' || !number(&p, end, &h->last) ||
             h->first > h->last)
        return;
    if (p == end || *p++ != '/') return;
    ash_str rest = {p, (size_t)(end - p)};
    h->has_total = whole_number(rest, &h->total);
    h->has_range = !star && (h->has_total || ash_str_eqc(rest, "*"));
}

/* Seconds or a date (RFC 9110, 10.2.3); the clock may be wrong, so the result is never more than a
 * day. */
static void read_retry_after(hub_headers *h, ash_str v)
{
    char text[64];
    uint64_t s;
    enum { DAY = 86400 };
    if (whole_number(v, &s)) {
        h->retry_after_s = s < DAY ? (int)s : DAY;
        return;
    }
    copy(text, sizeof text, v);
    struct tm tm = {0};
    char *end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    if (!end || *end) return;
    double in = difftime(timegm(&tm), time(NULL));
    h->retry_after_s = in < 0 ? 0 : in < DAY ? (int)in + 1 : DAY;
}

/* <URL>; rel="next", <URL>; rel="last" (RFC 8288). */
static void read_link(hub_headers *h, ash_str v)
{
    const char *p = v.p, *end = v.p + v.n;
    while (p < end) {
        const char *open = memchr(p, '<', (size_t)(end - p));
        const char *close = open ? memchr(open, '>', (size_t)(end - open)) : NULL;
        if (!close) return;
        const char *stop = memchr(close, '<', (size_t)(end - close));
        ash_str params = {close + 1, (size_t)((stop ? stop : end) - close - 1)};
        if (memmem(params.p, params.n, "rel=\"next\"", 10) ||
            memmem(params.p, params.n, "rel=next", 8)) {
            copy(h->next, sizeof h->next, (ash_str){open + 1, (size_t)(close - open - 1)});
            return;
        }
        p = stop ? stop : end;
    }
}

static void field(hub_headers *h, ash_str name, ash_str v)
{
    static const char *const names[] = {"etag",          "x-linked-etag", "x-linked-size",
                                        "x-repo-commit", "x-error-code",  "x-error-message",
                                        "retry-after",   "content-range", "link"};
    size_t i = 0, n = sizeof names / sizeof *names;
    while (i < n && (strlen(names[i]) != name.n || strncasecmp(names[i], name.p, name.n))) i++;
    switch (i) {
    case 0:
    case 1:
        read_etag(h, v, i == 1);
        break;
    case 2:
        h->has_linked_size = whole_number(v, &h->linked_size);
        break;
    case 3:
        copy(h->commit, sizeof h->commit, v);
        break;
    case 4:
        copy_text(h->error_code, sizeof h->error_code, v);
        break;
    case 5:
        copy_text(h->error_text, sizeof h->error_text, v);
        break;
    case 6:
        read_retry_after(h, v);
        break;
    case 7:
        read_range(h, v);
        break;
    case 8:
        read_link(h, v);
        break;
    default:
        break;
    }
}

bool hub_headers_line(hub_headers *h, const char *line, size_t n)
{
    if (n >= 5 && !memcmp(line, "HTTP/", 5)) {
        size_t bytes = h->bytes; /* interim answers and a proxy's count too */
        hub_headers_init(h);
        h->bytes = bytes;
    }
    h->bytes += n;
    if (h->bytes > ASH_MAX_HUB_HEADERS) return false;
    while (n && (line[n - 1] == '\n' || line[n - 1] == '\r' || line[n - 1] == ' ' ||
                 line[n - 1] == '\t'))
        n--;
    const char *colon = memchr(line, ':', n);
    if (!colon) return true;
    const char *p = colon + 1, *end = line + n;
    while (p < end && (*p == ' ' || *p == '\t')) p++;
    field(h, (ash_str){line, (size_t)(colon - line)}, (ash_str){p, (size_t)(end - p)});
    return true;
}
