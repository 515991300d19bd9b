/* Owns lists of byte ranges. Refuses nothing but to grow without memory. One thread at a time each. */
#include "text/span.h"

#include <stdlib.h>

int ash_spans_add(ash_spans *s, size_t begin, size_t end)
{
    if (begin >= end)
        return 0;
    if (s->n && begin <= s->v[s->n - 1].end) {
        if (end > s->v[s->n - 1].end)
            s->v[s->n - 1].end = end;
        return 0;
    }
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 8;
        ash_span *v = cap > SIZE_MAX / sizeof *v ? NULL : realloc(s->v, cap * sizeof *v);
        if (!v)
            return ASH_ENOMEM;
        s->v = v;
        s->cap = cap;
    }
    s->v[s->n++] = (ash_span){begin, end};
    return 0;
}

void ash_spans_cut(ash_spans *s, size_t end)
{
    while (s->n && s->v[s->n - 1].begin >= end) s->n--;
    if (s->n && s->v[s->n - 1].end > end)
        s->v[s->n - 1].end = end;
}

bool ash_spans_touch(const ash_spans *s, size_t begin, size_t end)
{
    size_t lo = 0, hi = s->n; /* the first span that ends after begin */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->v[mid].end > begin)
            hi = mid;
        else
            lo = mid + 1;
    }
    return begin < end && lo < s->n && s->v[lo].begin < end;
}

void ash_spans_release(ash_spans *s)
{
    free(s->v);
    *s = (ash_spans){0};
}
