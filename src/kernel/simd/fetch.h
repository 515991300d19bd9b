/* Fetching weights ahead, for the matmuls. Weights are read once and in order, but often in runs too short
 * for hardware prefetchers to gain from: while some groups are multiplied the next ones are fetched, evenly
 * over all tiles. Into the second cache: the first one has too few misses under way at a time to cover
 * the memory's latency (measured on Zen 4: 1.4 times faster). */
#ifndef ASHLEY_KERNEL_SIMD_FETCH_H
#define ASHLEY_KERNEL_SIMD_FETCH_H

#include "kernel/pack.h"

typedef struct fetch {
    const uint8_t *line; /* the next to fetch */
    const uint8_t *due;  /* all lines below are to be fetched */
    int64_t step;        /* bytes for each step of a tile */
} fetch;

/* Tile i of `tiles`, each of `steps` steps, during which `bytes` from `from` on are fetched. */
static inline fetch fetch_share(const uint8_t *from, int64_t bytes, int64_t i, int64_t tiles, int64_t steps)
{
    const uint8_t *at = from + bytes * i / tiles / 64 * 64;
    return (fetch){at, at, (bytes + tiles * steps - 1) / (tiles * steps)};
}

/* Tile i of `tiles` over groups [g, g + groups), each of `steps` steps. */
static inline fetch fetch_start(const ash_packed *w, int64_t g, int groups, int64_t i, int64_t tiles,
                                int64_t steps)
{
    return fetch_share(w->data + (g + groups) * w->group_bytes, groups * w->group_bytes, i, tiles, steps);
}

static inline __attribute__((always_inline)) void fetch_more(fetch *f)
{
    f->due += f->step;
    for (; f->line < f->due; f->line += 64) __builtin_prefetch(f->line, 0, 2);
}

/* Where a group is long and there is little to compute, hardware prefetchers do better than a fetch of every
 * line: those go through the few misses of the first cache, theirs do not (Zen 4, one core, one row of BF16:
 * 31 GB/s instead of 25). What they miss is what lies between the runs: the scales of a group, read beside
 * its quants, and its first lines. With more rows the loads come too slowly for them to run ahead. */
typedef struct fetch_ends {
    const uint8_t *line, *head; /* of the first group: the next to fetch; its start */
    int64_t group_bytes;
    int64_t wait, tails;        /* steps before the first; lines before `head` */
} fetch_ends;

enum { FETCH_LONG = 32 << 10, FETCH_HEADS = 32 }; /* bytes of a group; lines of its start */

/* During a tile of `steps` steps: of the groups from g on, in which scales begin at `scales`. */
static inline fetch_ends fetch_ends_start(const ash_packed *w, int64_t g, int64_t scales, int64_t steps)
{
    const uint8_t *from = w->data + g * w->group_bytes;
    int64_t tails = (w->group_bytes - scales) / 64;
    return (fetch_ends){from + scales, from, w->group_bytes, steps - tails - FETCH_HEADS, tails};
}

/* One line of each of `groups` groups. */
static inline __attribute__((always_inline)) void fetch_ends_more(fetch_ends *f, const int groups)
{
    if (--f->wait >= 0)
        return;
    if (f->tails-- == 0)
        f->line = f->head;
    for (int r = 0; r < groups; r++) __builtin_prefetch(f->line + r * f->group_bytes, 0, 2);
    f->line += 64;
}

/* Everything, or ends alone. */
typedef struct fetch_ahead {
    fetch all;
    fetch_ends ends;
} fetch_ahead;

/* Tile i of `tiles` over groups [g, g + groups), each of `steps` steps, whose scales begin at `scales`.
 * light: rows are few enough for ends alone, if groups are long; then there is one tile. */
static inline fetch_ahead fetch_ahead_start(const ash_packed *w, int64_t g, int groups, int64_t i,
                                            int64_t tiles, int64_t steps, int64_t scales, bool light)
{
    if (light && w->group_bytes >= FETCH_LONG)
        return (fetch_ahead){.ends = fetch_ends_start(w, g + groups, scales, steps)};
    return (fetch_ahead){.all = fetch_start(w, g, groups, i, tiles, steps), .ends.wait = INT64_MAX};
}

static inline __attribute__((always_inline)) void fetch_ahead_more(fetch_ahead *f, const int groups)
{
    fetch_more(&f->all);
    fetch_ends_more(&f->ends, groups);
}

#endif
