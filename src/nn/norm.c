/* Owns RMSNorm over a batch. */
#include "nn/norm.h"

#include "nn/scratch.h"

typedef struct job {
    const ash_kernel *k;
    float *y, *x;
    const float *in, *d, *w;
    int64_t dim;
    float eps;
} job;

static void rms(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    for (int64_t i = begin; i < end; i++)
        j->k->rms_norm(j->y + i * j->dim, j->in + i * j->dim, j->w, j->dim, j->eps);
}

static void add(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    j->k->add(j->x + begin * j->dim, j->d + begin * j->dim, (end - begin) * j->dim);
}

static void add_rms(void *arg, int64_t begin, int64_t end, int worker)
{
    for (int64_t i = begin; i < end; i++) { /* row by row: the second pass finds it in the cache */
        add(arg, i, i + 1, worker);
        rms(arg, i, i + 1, worker);
    }
}

void ash_norm_rms(ash_nn *nn, float *y, const float *x, const float *w, int n, int64_t dim, float eps)
{
    job j = {.k = nn->k, .y = y, .in = x, .w = w, .dim = dim, .eps = eps};
    ash_nn_rows(nn, n, dim, rms, &j);
}

void ash_norm_rms_add(ash_nn *nn, float *y, float *x, const float *d, const float *w, int n,
                      int64_t dim, float eps)
{
    job j = {.k = nn->k, .y = y, .x = x, .in = x, .d = d, .w = w, .dim = dim, .eps = eps};
    ash_nn_rows(nn, n, dim, add_rms, &j);
}

void ash_norm_add(ash_nn *nn, float *x, const float *d, int n, int64_t dim)
{
    job j = {.k = nn->k, .x = x, .d = d, .dim = dim};
    ash_nn_rows(nn, n, dim, add, &j);
}
