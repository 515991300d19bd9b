/* What the ledger says of a load, and of a mixture's experts: under which key, and what of it is believed.
 * Any thread; a find or a put may wait for the disk. */
#ifndef ASHLEY_RESIDENCY_MEASURE_H
#define ASHLEY_RESIDENCY_MEASURE_H

#include "engine/engine.h"
#include "residency/fit.h"
#include "store/ledger.h"

/* A load as it is asked for; all that what it takes depends on. Borrowed. */
typedef struct ash_measure_of {
    const char *id, *path;
    ash_cpu_level cpu;
    int threads;            /* as asked for: 0 is the machine's */
    bool kv_q8;
    const char *draft_path; /* NULL: no draft model, or prediction is off */
} ash_measure_of;

typedef struct ash_measured {
    int64_t beyond; /* bytes that it takes beyond the plan's weights, scratch and draft model (not KV) */
    bool memory;    /* beyond was measured, of a load of these very sizes */
    double seconds; /* the last load took; 0: unknown */
} ash_measured;

/* What is known of a load as planned; zeros of what is not. l may be NULL. */
void ash_measure_find(ash_ledger *l, const ash_measure_of *of, const ash_engine_plan *plan,
                      ash_measured *out);
/* Keeps the figures of a load that was planned with n_ctx tokens of context. l may be NULL. */
void ash_measure_put(ash_ledger *l, const ash_measure_of *of, uint32_t n_ctx, const ash_ledger_row *row);
/* What share of a mixture's experts was found in memory, in the rooms where that was measured; none: nothing
 * is known. l may be NULL. */
void ash_measure_find_found(ash_ledger *l, const ash_measure_of *of, uint64_t file_bytes, ash_fit_known *out);
void ash_measure_put_found(ash_ledger *l, const ash_measure_of *of, uint64_t file_bytes,
                           const ash_fit_found *found);
/* The process grew by this from `before` to `now` bytes, neither with the KV pool, if that is plausible of
 * the model; else 0. */
uint64_t ash_measure_grown(uint64_t before, uint64_t now, uint64_t weights, uint64_t others);

#endif
