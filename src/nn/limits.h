/* What this machine reaches at most, measured: the denominators of every "fraction of the limit". */
#ifndef ASHLEY_NN_LIMITS_H
#define ASHLEY_NN_LIMITS_H

#include "base/err.h"

/* 1e9 bytes or operations a second, all threads together; a multiply-add is two operations. 0 where the
 * CPU has not what it takes. */
typedef struct ash_limits {
    double read_gbs;    /* from memory beyond the caches */
    double int8_gops;   /* vpdpbusd, or vpmaddubsw + vpmaddwd */
    double bf16_gflops; /* vdpbf16ps */
    double f32_gflops;  /* FMA */
} ash_limits;

/* Measures for about two seconds: the best of several rounds, in CPU time of the threads, so that a core
 * that is taken away meanwhile does not count. threads 0 means ash_cpu_threads(). Starts threads of its
 * own; ASH_EINVAL for a count that is negative or over 256, ASH_ENOMEM. */
int ash_limits_measure(int threads, ash_limits *out, ash_err *err) ASH_MUST_CHECK;

enum { ASH_LIMITS_BYTES = 64 << 20 }; /* of memory that each thread takes for that: more than most caches */
/* read_gbs alone, in a tenth of a second. *read_gbs is 0 where the CPU has not what it takes. */
int ash_limits_measure_memory(int threads, double *read_gbs, ash_err *err) ASH_MUST_CHECK;

#endif
