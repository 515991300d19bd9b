/* What gives memory of the KV pool back to the machine: that of blocks which nobody has needed for a while.
 *
 * Blocks are free again when a chat ends or a prefix is evicted, and are used again soon on a busy server:
 * new pages cost it some 0.4 ms/MB, so that only those go of which a whole while (10 s) had no need, a few
 * each step, and never those that the next prompt's first step would fill. Nothing is allocated.
 *
 * The scheduler's thread's. */
#ifndef ASHLEY_ENGINE_KV_TRIM_H
#define ASHLEY_ENGINE_KV_TRIM_H

#include "engine/prefix_cache.h"
#include "nn/kv.h"

typedef struct ash_kv_trim {
    ash_prefix_cache *cache; /* borrowed */
    ash_kv *kv;              /* borrowed */
    uint32_t keep;           /* free blocks whose memory stays */
    uint32_t left;           /* blocks that are to give theirs */
    int64_t until_ns;        /* the end of this while; 0: there is none */
} ash_kv_trim;

/* Once a turn of the scheduler, whose step took or may take step_ns: gives back what some 1 % of that has
 * time for, a block at least. Returns when to call again at the latest: now_ns, there is more to do;
 * INT64_MAX, not before blocks were used again. */
int64_t ash_kv_trim_turn(ash_kv_trim *t, int64_t now_ns, int64_t step_ns);

#endif
