/* Byte ranges of a text, sorted, disjoint and not touching: which bytes came from whom.
 * Plain storage with init by {0}; one thread at a time. */
#ifndef ASHLEY_TEXT_SPAN_H
#define ASHLEY_TEXT_SPAN_H

#include "base/err.h"

typedef struct ash_span {
    size_t begin, end; /* bytes [begin, end) */
} ash_span;

typedef struct ash_spans {
    ash_span *v; /* owned; NULL while empty */
    size_t n, cap;
} ash_spans;

/* Appends [begin, end), which must not start before the last one's begin; an empty range is nothing,
 * a touching or overlapping one widens the last. 0, or ASH_ENOMEM with the list as it was. */
int ash_spans_add(ash_spans *s, size_t begin, size_t end) ASH_MUST_CHECK;
/* Drops all at and beyond `end`. */
void ash_spans_cut(ash_spans *s, size_t end);
/* Whether any byte of [begin, end) is in a span. O(log n). */
bool ash_spans_touch(const ash_spans *s, size_t begin, size_t end);
/* Frees and zeroes; safe twice. */
void ash_spans_release(ash_spans *s);

#endif
