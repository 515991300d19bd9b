/* Owns attention for AVX2. Any thread. */
#include "kernel/x86/avx2.h"

enum { ROWS = 3 };

#define BY_SIZE(n, CALL)                                                                           \
    switch (n) {                                                                                   \
    case 1: CALL(1); break;                                                                        \
    case 2: CALL(2); break;                                                                        \
    default: CALL(3);                                                                              \
    }

#include "kernel/simd/attention.inc.h"

void ash_avx2_span(const ash_attn_span *s)
{
    run_span(s);
}

void ash_avx2_merge(float *max, float *sum, float *acc, float max2, float sum2, const float *acc2,
                      int64_t v_dim)
{
    merge(max, sum, acc, max2, sum2, acc2, v_dim);
}
