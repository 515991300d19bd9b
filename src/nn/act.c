/* Owns gated activations over a batch. */
#include "nn/act.h"

#include "nn/scratch.h"

typedef struct job {
    const ash_kernel *k;
    float *g;
    const float *u;
    int64_t dim;
} job;

static void silu_mul(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    j->k->silu_mul(j->g + begin * j->dim, j->u + begin * j->dim, (end - begin) * j->dim);
}

void ash_act_silu_mul(ash_nn *nn, float *g, const float *u, int n, int64_t dim)
{
    job j = {.k = nn->k, .g = g, .u = u, .dim = dim};
    ash_nn_rows(nn, n, 4 * dim, silu_mul, &j); /* an exponential costs some elements */
}
