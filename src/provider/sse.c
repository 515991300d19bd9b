/* Owns the splitting of a byte stream into server-sent events. Refuses lines and events over the
 * cap. One thread at a time each. */
#include "provider/sse.h"

#include <string.h>

enum { PIECE = 1 << 20 };

void ash_sse_init(ash_sse *s, size_t max)
{
    memset(s, 0, sizeof *s);
    s->max = max;
    ash_buf_init(&s->in, 2 * max + PIECE);
    ash_buf_init(&s->data, max);
}

void ash_sse_release(ash_sse *s)
{
    ash_buf_release(&s->in);
    ash_buf_release(&s->data);
}

int ash_sse_push(ash_sse *s, const char *p, size_t n)
{
    if (s->head && s->head >= s->in.len / 2) { /* each byte is moved at most once per doubling */
        ash_buf_consume(&s->in, s->head);
        s->scan -= s->head;
        s->head = 0;
    }
    return ash_buf_add(&s->in, p, n);
}

/* One whole line without its end. 1 when it ends an event that has data. */
static int take_line(ash_sse *s, const char *p, size_t n)
{
    if (!n) {
        bool ends = s->has_data;
        s->has_data = false;
        return ends;
    }
    if (n < 4 || memcmp(p, "data", 4) || (n > 4 && p[4] != ':')) return 0;
    p += n > 4 ? 5 : 4;
    n -= n > 4 ? 5 : 4;
    if (n && *p == ' ') {
        p++;
        n--;
    }
    if (s->has_data) ash_buf_addc(&s->data, '\n');
    s->has_data = true;
    return ash_buf_add(&s->data, p, n);
}

/* Starts a new event if the last one was handed out. */
static void forget_given(ash_sse *s)
{
    if (s->given) ash_buf_clear(&s->data);
    s->given = false;
}

static void skip_start(ash_sse *s)
{
    if (!s->started && s->in.len - s->head >= 3) {
        s->started = true;
        if (!memcmp(s->in.data + s->head, "\xEF\xBB\xBF", 3)) s->head += 3;
    }
    if (s->after_cr && s->head < s->in.len) {
        s->head += s->in.data[s->head] == '\n';
        s->after_cr = false;
    }
    if (s->scan < s->head) s->scan = s->head;
}

int ash_sse_next(ash_sse *s, ash_str *data)
{
    forget_given(s);
    for (;;) {
        skip_start(s);
        if (!s->in.len) return 0;
        const char *p = s->in.data + s->head;
        size_t at = s->scan;
        while (at < s->in.len && s->in.data[at] != '\n' && s->in.data[at] != '\r') at++;
        s->scan = at;
        if (at - s->head > s->max) return ASH_ELIMIT;
        if (at == s->in.len) return 0;
        size_t n = at - s->head;
        s->after_cr = s->in.data[at] == '\r';
        s->head = s->scan = at + 1;
        s->started = true;
        int rc = take_line(s, p, n);
        if (rc < 0) return rc;
        if (rc) {
            *data = (ash_str){ash_buf_cstr(&s->data), s->data.len};
            s->given = true;
            return 1;
        }
    }
}

int ash_sse_finish(ash_sse *s, ash_str *data)
{
    int rc = ash_sse_push(s, "\n\n", 2);
    return rc ? rc : ash_sse_next(s, data);
}
