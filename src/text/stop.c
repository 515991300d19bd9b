/* Owns the match state of stop strings over a stream. Refuses empty and oversized stops.
 * One thread at a time each. */
#include "text/stop.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

/* One string and its Knuth-Morris-Pratt automaton. */
typedef struct pattern {
    const char *p; /* [n] in ash_stop.bytes */
    uint32_t *back; /* [n]: back[i] = length of the longest proper border of p[0..i] */
    uint32_t n;
    uint32_t at; /* bytes matched at the end of the stream so far, < n */
} pattern;

struct ash_stop {
    pattern *v; /* [n] */
    size_t n;
    char *bytes;     /* all patterns, one after the other */
    uint32_t *backs; /* likewise */
    char *held;      /* [max]: bytes read but not passed on; its end is the stream's end */
    size_t n_held;
    int hit;
};

static void borders(pattern *x)
{
    x->back[0] = 0;
    for (uint32_t i = 1, k = 0; i < x->n; i++) {
        while (k && x->p[i] != x->p[k]) k = x->back[k - 1];
        if (x->p[i] == x->p[k])
            k++;
        x->back[i] = k;
    }
}

static int check(const ash_str *stops, size_t n, size_t *total, size_t *longest, ash_err *err)
{
    if (n > ASH_MAX_STOPS)
        return ash_err_set(err, ASH_ELIMIT, "'stop' has %zu strings, more than %d", n, ASH_MAX_STOPS);
    *total = *longest = 0;
    for (size_t i = 0; i < n; i++) {
        if (stops[i].n == 0)
            return ash_err_set(err, ASH_EINVAL, "'stop[%zu]' is empty", i);
        if (stops[i].n > ASH_MAX_STOP_BYTES)
            return ash_err_set(err, ASH_ELIMIT, "'stop[%zu]' has %zu bytes, more than %d", i,
                               stops[i].n, ASH_MAX_STOP_BYTES);
        *total += stops[i].n;
        if (stops[i].n > *longest)
            *longest = stops[i].n;
    }
    return 0;
}

int ash_stop_open(const ash_str *stops, size_t n, ash_stop **out, ash_err *err)
{
    *out = NULL;
    size_t total = 0, longest = 0;
    int rc = check(stops, n, &total, &longest, err);
    if (rc)
        return rc;
    ash_stop *s = calloc(1, sizeof *s);
    if (!s)
        return ash_err_nomem(err, "stop strings");
    s->hit = -1;
    if (n) {
        s->v = calloc(n, sizeof *s->v);
        s->bytes = malloc(total);
        s->backs = malloc(total * sizeof *s->backs);
        s->held = malloc(longest);
        if (!s->v || !s->bytes || !s->backs || !s->held) {
            ash_stop_close(s);
            return ash_err_nomem(err, "stop strings");
        }
    }
    for (size_t i = 0, at = 0; i < n; at += stops[i++].n) {
        memcpy(s->bytes + at, stops[i].p, stops[i].n);
        s->v[i] = (pattern){.p = s->bytes + at, .back = s->backs + at, .n = (uint32_t)stops[i].n};
        borders(&s->v[i]);
    }
    s->n = n;
    *out = s;
    return 0;
}

void ash_stop_close(ash_stop *s)
{
    if (!s)
        return;
    free(s->v);
    free(s->bytes);
    free(s->backs);
    free(s->held);
    free(s);
}

/* Takes one byte into every automaton. The longest partial match goes to *partial; returns the stop
 * that is complete now, or -1. */
static int step(ash_stop *s, char c, size_t *partial)
{
    int hit = -1;
    *partial = 0;
    for (size_t i = 0; i < s->n; i++) {
        pattern *x = &s->v[i];
        while (x->at && x->p[x->at] != c) x->at = x->back[x->at - 1];
        if (x->p[x->at] == c)
            x->at++;
        if (x->at == x->n && (hit < 0 || x->n > s->v[hit].n))
            hit = (int)i;
        if (x->at > *partial)
            *partial = x->at;
    }
    return hit;
}

/* Passes on all of held + p[0..n) but its last `keep` bytes; with `drop` those are forgotten. */
static int pass(ash_stop *s, const char *p, size_t n, size_t keep, bool drop, ash_buf *emit)
{
    size_t old = keep > n ? keep - n : 0; /* bytes of held that stay */
    int rc = ash_buf_add(emit, s->held, s->n_held - old);
    if (!rc)
        rc = ash_buf_add(emit, p, n - (keep - old));
    if (rc)
        return rc;
    if (drop) {
        s->n_held = 0;
        return 0;
    }
    if (old)
        memmove(s->held, s->held + s->n_held - old, old);
    if (keep - old)
        memcpy(s->held + old, p + n - (keep - old), keep - old);
    s->n_held = keep;
    return 0;
}

int ash_stop_push(ash_stop *s, const char *p, size_t n, ash_buf *emit, int *hit)
{
    *hit = s->hit;
    if (s->hit >= 0 || n == 0)
        return 0;
    if (s->n == 0)
        return ash_buf_add(emit, p, n);
    size_t partial = 0;
    for (size_t i = 0; i < n; i++) {
        int k = step(s, p[i], &partial);
        if (k >= 0) {
            *hit = s->hit = k;
            return pass(s, p, i + 1, s->v[k].n, true, emit);
        }
    }
    return pass(s, p, n, partial, false, emit);
}

int ash_stop_flush(ash_stop *s, ash_buf *emit)
{
    int rc = ash_buf_add(emit, s->held, s->n_held);
    if (rc)
        return rc;
    s->n_held = 0;
    for (size_t i = 0; i < s->n; i++) s->v[i].at = 0;
    return 0;
}

size_t ash_stop_held(const ash_stop *s)
{
    return s->n_held;
}

void ash_stop_reset(ash_stop *s)
{
    s->n_held = 0;
    s->hit = -1;
    for (size_t i = 0; i < s->n; i++) s->v[i].at = 0;
}
