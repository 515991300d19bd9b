/* Owns attention for AVX-512. Any thread. */
#include "kernel/x86/avx512.h"

enum { ROWS = 6 };

#include "kernel/simd/attention.inc.h"

void ash_avx512_span(const ash_attn_span *s)
{
    run_span(s);
}

void ash_avx512_merge(float *max, float *sum, float *acc, float max2, float sum2, const float *acc2,
                      int64_t v_dim)
{
    merge(max, sum, acc, max2, sum2, acc2, v_dim);
}
