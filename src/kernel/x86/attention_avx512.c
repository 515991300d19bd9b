/* Owns attention for AVX-512. Any thread. */
#include "kernel/x86/avx512.h"

enum { ROWS = 6 };

#include "kernel/x86/attention.inc.h"

void ash_avx512_span(const ash_attn_span *s)
{
    int tiles = (s->m + ROWS - 1) / ROWS;
    for (int j = 0; j < tiles; j++) {
        int i = s->m * j / tiles;
        switch (s->m * (j + 1) / tiles - i) {
        case 1: run_rows(s, i, 1); break;
        case 2: run_rows(s, i, 2); break;
        case 3: run_rows(s, i, 3); break;
        case 4: run_rows(s, i, 4); break;
        case 5: run_rows(s, i, 5); break;
        default: run_rows(s, i, 6);
        }
    }
}

void ash_avx512_merge(float *max, float *sum, float *acc, float max2, float sum2, const float *acc2,
                      int64_t v_dim)
{
    merge(max, sum, acc, max2, sum2, acc2, v_dim);
}
