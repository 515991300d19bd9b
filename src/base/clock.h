/* Time. Monotonic for measuring and deadlines, wall for showing. Any thread. */
#ifndef ASHLEY_BASE_CLOCK_H
#define ASHLEY_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Monotonic nanoseconds. */
int64_t ash_clock_ns(void);
static inline int64_t ash_clock_ms(void) { return ash_clock_ns() / 1000000; }
/* Unix time in seconds, with fraction. */
double ash_clock_wall(void);
/* Wall time as "2026-11-23T15:52:05.123Z" into out[25]. */
void ash_clock_iso(double wall, char out[25]);

#endif
