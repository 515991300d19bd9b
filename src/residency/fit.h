/* What a model gets of the memory that there is: as the loader gives it, and as a plan foretells it.
 *
 * A pure function. Any thread. */
#ifndef ASHLEY_RESIDENCY_FIT_H
#define ASHLEY_RESIDENCY_FIT_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes of one model; sums saturate. */
typedef struct ash_fit {
    uint64_t weights;       /* all of them */
    uint64_t weights_least; /* the same with the fewest experts of a mixture that come and go
                               (engine/expert_cache.h); as many as `weights` where none do */
    uint64_t kv, kv_least;  /* the usual KV pool; of one context */
    uint64_t others;        /* scratch, draft model, and what was measured beyond */
} ash_fit;

uint64_t ash_fit_bytes(const ash_fit *f); /* of all, as they stand */

/* Lowers weights and kv to what `room` holds: of a mixture that is larger as many experts as fit beside the
 * usual KV pool, or beside a context's; of another model as much of the KV pool as fits. False: not even
 * the least fits, and both are that. */
bool ash_fit_room(ash_fit *f, uint64_t room);

#endif
