/* Owns reading the clocks. Any thread. */
#include "base/clock.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

int64_t ash_clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

double ash_clock_wall(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void ash_clock_iso(double wall, char out[25])
{
    time_t s = (time_t)floor(wall);
    unsigned ms = (unsigned)((wall - floor(wall)) * 1000.0) % 1000;
    struct tm tm;
    char day[40];
    gmtime_r(&s, &tm);
    strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out, 25, "%.19s.%03uZ", day, ms);
}
