/* Owns attention for AVX2. Any thread. */
#include "kernel/x86/avx2.h"

enum { ROWS = 3 };

#include "kernel/x86/attention.inc.h"

void ash_avx2_span(const ash_attn_span *s)
{
    int tiles = (s->m + ROWS - 1) / ROWS;
    for (int j = 0; j < tiles; j++) {
        int i = s->m * j / tiles;
        switch (s->m * (j + 1) / tiles - i) {
        case 1: run_rows(s, i, 1); break;
        case 2: run_rows(s, i, 2); break;
        default: run_rows(s, i, 3);
        }
    }
}

void ash_avx2_merge(float *max, float *sum, float *acc, float max2, float sum2, const float *acc2,
                      int64_t v_dim)
{
    merge(max, sum, acc, max2, sum2, acc2, v_dim);
}
