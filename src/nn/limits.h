/* What this machine reaches at most, measured: the denominators of every "fraction of the limit". */
#ifndef ASHLEY_NN_LIMITS_H
#define ASHLEY_NN_LIMITS_H

#include "base/cpu.h"

typedef struct ash_limits {
    double read_gbs;  /* 1e9 bytes a second read from memory, all threads */
    double int8_gops; /* 1e9 int8 operations a second in registers, all threads (a multiply-add is two);
                         float ones on the scalar level */
} ash_limits;

/* Measures for about half a second, best of several passes over 256 MiB. threads 0 means
 * ash_cpu_threads(). The caller's thread and a pool of its own; ASH_ENOMEM, ASH_EUNSUPPORTED for a level
 * this CPU lacks. */
int ash_limits_measure(int threads, ash_cpu_level level, ash_limits *out, ash_err *err) ASH_MUST_CHECK;

#endif
