/* What a model gets of the memory that there is, alone and beside those that are to be loaded after it, as
 * the loader gives it and as a plan foretells it, and what share of its experts a mixture finds there.
 *
 * Pure functions. Any thread. */
#ifndef ASHLEY_RESIDENCY_FIT_H
#define ASHLEY_RESIDENCY_FIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of one model; sums saturate. */
typedef struct ash_fit {
    uint64_t weights;       /* all of them */
    uint64_t weights_least; /* the same with the fewest experts of a mixture that come and go
                               (engine/expert_cache.h); as many as `weights` where none do */
    uint64_t kv, kv_least;  /* the usual KV pool; of one context */
    uint64_t draft;         /* the model that guesses for it (engine/draft_model.h): 0 if there is none */
    uint64_t others;        /* scratch, and what was measured beyond */
} ash_fit;

/* What share of a mixture's experts was in memory when they were chosen (store/ledger.h). */
typedef struct ash_fit_found {
    double room, found; /* 0 to 1: of their bytes what could be there at once; of those chosen what was */
} ash_fit_found;
enum { ASH_FIT_ROOMS = 64 };

typedef struct ash_fit_known {
    size_t n;
    ash_fit_found v[ASH_FIT_ROOMS];
} ash_fit_known;

typedef enum ash_fit_basis {
    ASH_FIT_ALIKE,        /* nothing was measured: as if all experts were chosen alike */
    ASH_FIT_INTERPOLATED, /* in other rooms it was */
    ASH_FIT_MEASURED,     /* in a room that is at most a tenth larger or smaller */
} ash_fit_basis;
const char *ash_fit_basis_name(ash_fit_basis b); /* "alike", "interpolated", "measured" */

/* The share to be expected where `room` (0 to 1) of the experts' bytes can be in memory at once: on straight
 * lines between what was measured, none found with no room, and all with room for all. Who keeps those chosen
 * most gains less by each further one, so that lines lie below what will be; without a measurement it is the
 * line of experts that are chosen alike. */
double ash_fit_share(const ash_fit_known *known, double room, ash_fit_basis *basis);

uint64_t ash_fit_bytes(const ash_fit *f); /* of all, as they stand */
uint64_t ash_fit_least(const ash_fit *f); /* of the least that serves */

/* Lowers draft, weights and kv to what `room` holds. The draft model goes first: the pool serves more. Then
 * of a mixture that is larger as many experts stay as fit beside the usual KV pool, or beside a context's; of
 * another model as much of the KV pool as fits. False: not even the least fits, and all are that. */
bool ash_fit_room(ash_fit *f, uint64_t room);

/* The bytes that models[i] may take of `room` where all n are to be loaded: at most what it likes, and not so
 * much that another, of those that can be there together, lacks its least.
 *
 * Those can be there together that have their least beside the least of those before them, in this order.
 * What is left is shared evenly: all get the same beyond their least, but none more than it likes, and what
 * it leaves is the others'. So a small one has all it likes where a large one has less; the order does not
 * count among those that can be there; and what the rest gets is the same once one has taken its own. If
 * models[i] is none of them: what the least of those before it leaves, less than its own. O(n^2). */
uint64_t ash_fit_beside(const ash_fit *models, size_t n, size_t i, uint64_t room);

#endif
