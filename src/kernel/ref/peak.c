/* Owns the scalar peak loop. */
#include "kernel/peak.h"

int64_t ash_peak_scalar(int64_t rounds)
{
    enum { LANES = 8 };
    float acc[LANES] = {0}, x = 1.0000001f;
    for (int64_t r = 0; r < rounds; r++) {
        for (int i = 0; i < LANES; i++) acc[i] = acc[i] * x + x;
        __asm__ volatile("" : "+m"(acc));
    }
    return rounds * LANES * 2;
}
