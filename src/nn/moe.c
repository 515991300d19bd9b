/* Owns the order in which experts compute a batch. Allocates nothing; one forward at a time. */
#include "nn/moe.h"

#include <string.h>

#include "nn/act.h"
#include "nn/scratch.h"

/* The scratch of a run of n rows. */
typedef struct state {
    float *logits;   /* [n, experts] */
    float *weights;  /* [n, used] */
    int32_t *ids;    /* [n, used] */
    int32_t *order;  /* [n * used]: row * used + place of every choice, sorted by expert, then by row */
    int32_t *starts; /* [experts + 1] into order */
    float *x, *d;    /* [n, embd]: an expert's rows, and what it gives; of one row: d [used, embd] */
    float *gate, *up; /* [n, inter]; of one row: [used, inter] */
    uint64_t bytes;
} state;

static void *carve(char *base, uint64_t *used, uint64_t n)
{
    void *p = base ? base + *used : NULL;
    *used += (n * 4 + 63) / 64 * 64; /* floats and int32_t */
    return p;
}

static state lay_out(const ash_moe_shape *s, void *scratch, int n)
{
    state t = {0};
    uint64_t rows = (uint64_t)n, used = (uint64_t)s->router.used, experts = (uint64_t)s->router.experts;
    uint64_t parts = n == 1 ? used : rows, embd = (uint64_t)s->embd, inter = (uint64_t)s->inter;
    t.logits = carve(scratch, &t.bytes, rows * experts);
    t.weights = carve(scratch, &t.bytes, rows * used);
    t.ids = carve(scratch, &t.bytes, rows * used);
    t.order = carve(scratch, &t.bytes, rows * used);
    t.starts = carve(scratch, &t.bytes, experts + 1);
    t.x = carve(scratch, &t.bytes, n == 1 ? 0 : rows * embd);
    t.d = carve(scratch, &t.bytes, parts * embd);
    t.gate = carve(scratch, &t.bytes, parts * inter);
    t.up = carve(scratch, &t.bytes, parts * inter);
    return t;
}

uint64_t ash_moe_bytes(const ash_moe_shape *s, int max_rows)
{
    uint64_t one = lay_out(s, NULL, 1).bytes, most = lay_out(s, NULL, max_rows).bytes;
    return one > most ? one : most;
}

typedef struct job {
    const ash_moe_shape *s;
    const ash_moe *m;
    const state *t;
    const float *x;
    float *y;
    int expert;
} job;

static void pick(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    const ash_router *r = &j->s->router;
    for (int64_t i = begin; i < end; i++)
        ash_router_pick(r, j->m->bias, j->t->logits + i * r->experts, j->t->ids + i * r->used,
                        j->t->weights + i * r->used);
}

static void route(ash_nn *nn, job *j, int n)
{
    const ash_router *r = &j->s->router;
    ash_linear_run(nn, (const ash_linear *[]){&j->m->router}, 1, j->x, n, (float *[]){j->t->logits});
    ash_nn_rows(nn, n, (int64_t)r->experts * (r->used + 8), pick, j);
}

/* Sorts the choices of n rows by expert. */
static void sort(const ash_router *r, const state *t, int n)
{
    int32_t total = n * r->used;
    memset(t->starts, 0, ((size_t)r->experts + 1) * sizeof *t->starts);
    for (int32_t i = 0; i < total; i++) t->starts[t->ids[i] + 1]++;
    for (int e = 0; e < r->experts; e++) t->starts[e + 1] += t->starts[e];
    for (int32_t i = 0; i < total; i++) t->order[t->starts[t->ids[i]]++] = i;
    /* every start has moved to the next one's place */
    memmove(t->starts + 1, t->starts, (size_t)r->experts * sizeof *t->starts);
    t->starts[0] = 0;
}

/* y += weight * d */
static void add_scaled(float *y, const float *d, float weight, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] += weight * d[i];
}

/* ---- many rows ------------------------------------------------------------------------------ */

static void gather(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    int64_t embd = j->s->embd;
    const int32_t *order = j->t->order + j->t->starts[j->expert];
    for (int64_t i = begin; i < end; i++)
        memcpy(j->t->x + i * embd, j->x + order[i] / j->s->router.used * embd,
               (size_t)embd * sizeof(float));
}

static void scatter(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    int64_t embd = j->s->embd;
    const int32_t *order = j->t->order + j->t->starts[j->expert];
    for (int64_t i = begin; i < end; i++)
        add_scaled(j->y + order[i] / j->s->router.used * embd, j->t->d + i * embd,
                   j->t->weights[order[i]], embd);
}

static void run_expert(ash_nn *nn, job *j)
{
    const state *t = j->t;
    int e = j->expert, n = t->starts[e + 1] - t->starts[e];
    ash_nn_rows(nn, n, j->s->embd, gather, j);
    ash_linear_run(nn, (const ash_linear *[]){&j->m->gate[e], &j->m->up[e]}, 2, t->x, n,
                   (float *[]){t->gate, t->up});
    ash_act_silu_mul(nn, t->gate, t->up, n, j->s->inter);
    ash_linear_run(nn, (const ash_linear *[]){&j->m->down[e]}, 1, t->gate, n, (float *[]){t->d});
    ash_nn_rows(nn, n, j->s->embd, scatter, j);
}

/* ---- one row -------------------------------------------------------------------------------- */

/* The chosen experts' down, each with its own piece of gate: in one run if they are alike. */
static void run_down(ash_nn *nn, const job *j, int first, int n)
{
    const state *t = j->t;
    ash_linear each[ASH_LINEAR_MAX];
    bool alike = true;
    for (int i = 0; i < n; i++) {
        each[i] = j->m->down[t->ids[first + i]];
        alike = alike && each[i].w.form == each[0].w.form && each[i].w.dtype == each[0].w.dtype &&
                !each[i].perm;
    }
    if (alike) {
        ash_linear_run_each(nn, each, n, t->gate + first * j->s->inter, 1, t->d + first * j->s->embd);
        return;
    }
    for (int i = 0; i < n; i++)
        ash_linear_run(nn, (const ash_linear *[]){&each[i]}, 1, t->gate + (first + i) * j->s->inter, 1,
                       (float *[]){t->d + (first + i) * j->s->embd});
}

static void run_one(ash_nn *nn, const job *j)
{
    enum { STEP = ASH_LINEAR_MAX / 2 };
    const state *t = j->t;
    int64_t inter = j->s->inter, embd = j->s->embd;
    int used = j->s->router.used;
    for (int first = 0; first < used; first += STEP) {
        int n = used - first < STEP ? used - first : STEP;
        const ash_linear *ls[ASH_LINEAR_MAX];
        float *ys[ASH_LINEAR_MAX];
        for (int i = 0; i < n; i++) {
            ls[2 * i] = &j->m->gate[t->ids[first + i]];
            ys[2 * i] = t->gate + (first + i) * inter;
            ls[2 * i + 1] = &j->m->up[t->ids[first + i]];
            ys[2 * i + 1] = t->up + (first + i) * inter;
        }
        ash_linear_run(nn, ls, 2 * n, j->x, 1, ys);
        ash_act_silu_mul(nn, t->gate + first * inter, t->up + first * inter, n, inter);
        run_down(nn, j, first, n);
    }
    for (int i = 0; i < used; i++) add_scaled(j->y, t->d + i * embd, t->weights[i], embd);
}

void ash_moe_run(ash_nn *nn, const ash_moe_shape *s, const ash_moe *m, const float *x, int n, float *y,
                 void *scratch)
{
    state t = lay_out(s, scratch, n);
    job j = {.s = s, .m = m, .t = &t, .x = x, .y = y};
    route(nn, &j, n);
    if (n == 1) {
        run_one(nn, &j);
        return;
    }
    sort(&s->router, &t, n);
    for (j.expert = 0; j.expert < s->router.experts; j.expert++)
        if (t.starts[j.expert + 1] > t.starts[j.expert])
            run_expert(nn, &j);
}
