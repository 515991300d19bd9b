/* Owns the reference matmul: each group of 16 rows is widened to floats once and multiplied with every
 * row of activations. Slow and plain; any thread. */
#include "kernel/ref/ref.h"

/* Eight partial sums: a better bound on rounding than one, and lanes for the compiler. */
static float dot(const float *a, const float *b, int64_t n)
{
    float s[8] = {0};
    int64_t k = 0;
    for (; k + 8 <= n; k += 8)
        for (int j = 0; j < 8; j++) s[j] += a[k + j] * b[k + j];
    for (; k < n; k++) s[0] += a[k] * b[k];
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

void ash_ref_matmul(const ash_packed *w, const ash_act *a, int64_t g0, int64_t g1, float *y, int64_t ldy,
                    void *scratch)
{
    float *rows = scratch;
    for (int64_t g = g0; g < g1; g++) {
        ash_pack_group_decode(w, g, rows);
        int64_t first = g * ASH_GROUP, left = w->rows - first;
        int64_t n = left < ASH_GROUP ? left : ASH_GROUP;
        for (int64_t i = 0; i < a->n; i++)
            for (int64_t r = 0; r < n; r++)
                y[i * ldy + first + r] = dot(rows + r * w->cols, a->x + i * a->ldx, w->cols);
    }
}
