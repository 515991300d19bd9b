/* The known name that someone who mistyped probably meant. Pure functions, any thread. */
#ifndef ASHLEY_BASE_NEAREST_H
#define ASHLEY_BASE_NEAREST_H

#include <stddef.h>

enum { ASH_NEAREST_MAX = 256, ASH_NEAREST_FAR = 1 << 20 };

/* How far `name` is from `known`: insertions, deletions, replacements and swaps of neighbours
 * (optimal string alignment), letter case ignored. A known name that goes on after `name`
 * ("smollm2" for "smollm2-135m-instruct") counts the edits of the part typed plus 1, one that
 * contains it 2 at most. ASH_NEAREST_FAR when neither is so and more than a third of the letters of `name`
 * would change, or either is empty or longer than ASH_NEAREST_MAX bytes. */
int ash_nearest_distance(const char *name, const char *known);
/* The closest of known[0..n) (NULL entries are skipped, the first of equals wins), or NULL. */
const char *ash_nearest(const char *name, const char *const *known, size_t n);

#endif
