/* Loops that show what one core of this machine can do at most. Pure functions, any thread. */
#ifndef ASHLEY_KERNEL_PEAK_H
#define ASHLEY_KERNEL_PEAK_H

#include <stdint.h>

typedef enum ash_peak {
    ASH_PEAK_READ, /* bytes read from `memory`, once through */
    ASH_PEAK_INT8, /* tdpbssd, vpdpbusd, or vpmaddubsw + vpmaddwd; a multiply-add counts two */
    ASH_PEAK_BF16, /* tdpbf16ps, vdpbf16ps; nothing without them */
    ASH_PEAK_F32,  /* FMA */
    ASH_PEAK_COUNT,
} ash_peak;

/* Runs one loop; returns the operations (or bytes) done, 0 where this CPU has not what it takes. memory:
 * `bytes` (a multiple of 128) on 64 bytes, for ASH_PEAK_READ only. */
double ash_peak_run(ash_peak what, long rounds, const void *memory, long bytes);

#endif
