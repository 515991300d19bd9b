/* Owns what stands in for the peak loops where there are none. */
#include "kernel/peak.h"

#if !defined(__x86_64__) && !defined(__aarch64__)
double ash_peak_run(ash_peak what, long rounds, const void *memory, long bytes)
{
    return 0.0;
}
#endif
