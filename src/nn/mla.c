/* Owns latent attention over a batch. Allocates nothing; one forward at a time. */
#include "nn/mla.h"

#include <string.h>

#include "nn/attention.h"
#include "nn/scratch.h"

typedef struct job {
    const ash_kernel *k;
    const ash_mla_shape *s;
    const float *norm;
    const float *q;  /* [n, heads * (nope + rope)] */
    float *c;        /* [n, rank + rope] */
    float *nope;     /* [n, heads * nope] */
    float *latent;   /* [n, heads * rank] */
    float *query;    /* [n, heads * (rank + rope)]: what is compared with the cache */
} job;

static void norm_rows(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    int64_t width = j->s->rank + j->s->rope;
    for (int64_t i = begin; i < end; i++) {
        float *c = j->c + i * width;
        j->k->rms_norm(c, c, j->norm, j->s->rank, j->s->eps);
    }
}

void ash_mla_store(ash_nn *nn, const ash_mla_shape *s, const ash_mla *m, const ash_rope *turn,
                   const float *cs, ash_kv *kv, int layer, const ash_row *rows, int n, float *c)
{
    job j = {.k = nn->k, .s = s, .norm = m->norm, .c = c};
    ash_nn_rows(nn, n, s->rank, norm_rows, &j);
    ash_rope_run(nn, turn, cs, c + s->rank, n, 1);
    ash_kv_store(nn, kv, layer, rows, n, c, NULL);
}

int64_t ash_mla_floats(const ash_mla_shape *s)
{
    return (int64_t)s->heads * (s->nope + s->rank + s->rank + s->rope);
}

/* The parts of q to where they go on: one through the heads' matrices, the other as it is. */
static void split(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    const ash_mla_shape *s = j->s;
    for (int64_t i = begin * s->heads; i < end * s->heads; i++) {
        const float *q = j->q + i * (s->nope + s->rope);
        memcpy(j->nope + i * s->nope, q, (size_t)s->nope * sizeof *q);
        memcpy(j->query + i * (s->rank + s->rope) + s->rank, q + s->nope, (size_t)s->rope * sizeof *q);
    }
}

static void join(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    const ash_mla_shape *s = j->s;
    for (int64_t i = begin * s->heads; i < end * s->heads; i++)
        memcpy(j->query + i * (s->rank + s->rope), j->latent + i * s->rank,
               (size_t)s->rank * sizeof(float));
}

void ash_mla_run(ash_nn *nn, const ash_mla_shape *s, const ash_mla *m, const ash_rope *turn,
                 const float *cs, const ash_kv *kv, int layer, const ash_row *rows, int n, const float *q,
                 float *out, float *scratch)
{
    int64_t vectors = (int64_t)n * s->heads;
    job j = {.s = s, .q = q, .nope = scratch};
    j.latent = j.nope + vectors * s->nope;
    j.query = j.latent + vectors * s->rank;
    ash_nn_rows(nn, n, (int64_t)s->heads * (s->nope + s->rope), split, &j);
    ash_rope_run(nn, turn, cs, j.query + s->rank, n, s->heads);
    ash_linear_run_each(nn, m->k, s->heads, j.nope, n, j.latent);
    ash_nn_rows(nn, n, (int64_t)s->heads * s->rank, join, &j);
    ash_attention a = {.heads = s->heads, .scale = s->scale};
    ash_attention_run(nn, &a, kv, layer, rows, n, j.query, j.latent);
    ash_linear_run_each(nn, m->v, s->heads, j.latent, n, out);
}
