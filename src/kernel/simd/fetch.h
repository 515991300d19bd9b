/* Fetching weights ahead, for the matmuls. Weights are read once and in order, but in runs too short for
 * hardware prefetchers to gain from: while some groups are multiplied the next ones are fetched, evenly
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

#endif
