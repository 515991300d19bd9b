/* What several transfers reach together: those that run at once share a line, so that the rate of one alone
 * tells little. They are measured from the first one's beginning to the moment when none runs any more.
 *
 * Pure; the caller's lock, if any. */
#ifndef ASHLEY_BASE_METER_H
#define ASHLEY_BASE_METER_H

#include <stdbool.h>
#include <stdint.h>

/* Zeros: none runs. Times are milliseconds of one clock that never goes back. */
typedef struct ash_meter {
    int running;
    bool whole; /* of all that have ended the bytes are known */
    uint64_t bytes;
    int64_t began_ms;
} ash_meter;

typedef struct ash_metered {
    uint64_t bytes;
    int64_t ms;
} ash_metered;

void ash_meter_begin(ash_meter *m, int64_t now_ms);
/* One of those that run ended; it moved so many bytes, if `known`. True if none runs now and all were known:
 * *out is what they moved, and how long that took. */
bool ash_meter_end(ash_meter *m, uint64_t bytes, bool known, int64_t now_ms, ash_metered *out);

#endif
