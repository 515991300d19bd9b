/* Owns attention for Arm. Any thread. */
#include "kernel/arm/neon.h"

enum { ROWS = 3 };

#define BY_SIZE(n, CALL)                                                                           \
    switch (n) {                                                                                   \
    case 1: CALL(1); break;                                                                        \
    case 2: CALL(2); break;                                                                        \
    default: CALL(3);                                                                              \
    }

#include "kernel/simd/attention.inc.h"

void ash_neon_span(const ash_attn_span *s)
{
    run_span(s);
}

void ash_neon_merge(float *max, float *sum, float *acc, float max2, float sum2, const float *acc2,
                    int64_t v_dim)
{
    merge(max, sum, acc, max2, sum2, acc2, v_dim);
}
