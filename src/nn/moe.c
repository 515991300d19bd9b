/* Owns the order in which experts compute a batch. Allocates nothing; one forward at a time. */
#include "nn/moe.h"

#include <string.h>

#include "nn/act.h"
#include "nn/scratch.h"

enum { FORESEE_ROWS = 4 }; /* more rows choose most experts anyway, or keep the disk busy as it is */

/* The scratch of a run of n rows. Choices of experts, a row's `used`, are sorted by expert; as many experts
 * as have `slots` choices together are computed at once. */
typedef struct state {
    int slots;
    float *logits;   /* [n, experts] */
    float *weights;  /* [n, used] */
    int32_t *ids;    /* [n, used] */
    int32_t *place;  /* [n, used]: of the choice when sorted by expert, then by row */
    int32_t *rows;   /* [n * used]: of the choices so sorted */
    int32_t *starts; /* [experts + 1] into rows */
    int32_t *chosen; /* [experts]: a list for the supply */
    ash_linear_part *parts; /* of the experts that are computed at once */
    float *gate, *up; /* [slots, inter] */
    float *x, *d;    /* [slots, embd], in one place: gathered rows, where floats are multiplied; and what
                        experts give */
    uint64_t bytes;
} state;

static void *carve(char *base, uint64_t *used, uint64_t bytes)
{
    void *p = base ? base + *used : NULL;
    *used += (bytes + 63) / 64 * 64;
    return p;
}

static state lay_out(const ash_moe_shape *s, void *scratch, int n, int max_rows)
{
    uint64_t rows = (uint64_t)n, used = (uint64_t)s->router.used, experts = (uint64_t)s->router.experts;
    uint64_t slots = rows * used < (uint64_t)max_rows ? rows * used : (uint64_t)max_rows;
    uint64_t parts = rows * used < experts ? rows * used : experts;
    uint64_t embd = (uint64_t)s->embd, inter = (uint64_t)s->inter, word = sizeof(float);
    state t = {.slots = (int)slots};
    t.logits = carve(scratch, &t.bytes, rows * experts * word);
    t.weights = carve(scratch, &t.bytes, rows * used * word);
    t.ids = carve(scratch, &t.bytes, rows * used * word);
    t.place = carve(scratch, &t.bytes, rows * used * word);
    t.rows = carve(scratch, &t.bytes, rows * used * word);
    t.starts = carve(scratch, &t.bytes, (experts + 1) * word);
    t.chosen = carve(scratch, &t.bytes, experts * word);
    t.parts = carve(scratch, &t.bytes, parts * sizeof *t.parts);
    t.gate = carve(scratch, &t.bytes, slots * inter * word);
    t.up = carve(scratch, &t.bytes, slots * inter * word);
    t.x = t.d = carve(scratch, &t.bytes, slots * embd * word);
    return t;
}

uint64_t ash_moe_bytes(const ash_moe_shape *s, int max_rows)
{
    return lay_out(s, NULL, max_rows, max_rows).bytes;
}

typedef struct job {
    const ash_moe_shape *s;
    const ash_moe *m;
    const state *t;
    float *y;
    int first, last; /* experts [first, last) are computed */
} job;

static void pick(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    const ash_router *r = &j->s->router;
    for (int64_t i = begin; i < end; i++)
        ash_router_pick(r, j->m->bias, j->t->logits + i * r->experts, j->t->ids + i * r->used,
                        j->t->weights + i * r->used);
}

static void route(ash_nn *nn, job *j, const float *x, int n)
{
    const ash_router *r = &j->s->router;
    ash_linear_run(nn, (const ash_linear *[]){&j->m->router}, 1, x, n, (float *[]){j->t->logits});
    ash_nn_rows(nn, n, (int64_t)r->experts * (r->used + 8), pick, j);
}

/* Sorts the choices of n rows by expert. */
static void sort(const ash_router *r, const state *t, int n)
{
    int32_t total = n * r->used;
    memset(t->starts, 0, ((size_t)r->experts + 1) * sizeof *t->starts);
    for (int32_t i = 0; i < total; i++) t->starts[t->ids[i] + 1]++;
    for (int e = 0; e < r->experts; e++) t->starts[e + 1] += t->starts[e];
    for (int32_t i = 0; i < total; i++) {
        t->place[i] = t->starts[t->ids[i]]++;
        t->rows[t->place[i]] = i / r->used;
    }
    /* every start has moved to the next one's place */
    memmove(t->starts + 1, t->starts, (size_t)r->experts * sizeof *t->starts);
    t->starts[0] = 0;
}

/* y += what the experts of this time give to each row, in ascending order. */
static void add(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    const state *t = j->t;
    int64_t embd = j->s->embd;
    for (int64_t i = begin * j->s->router.used; i < end * j->s->router.used; i++) {
        if (t->ids[i] < j->first || t->ids[i] >= j->last)
            continue;
        const float *d = t->d + (t->place[i] - t->starts[j->first]) * embd;
        float *y = j->y + i / j->s->router.used * embd, weight = t->weights[i];
        for (int64_t c = 0; c < embd; c++) y[c] += weight * d[c];
    }
}

/* The rows of every expert through one matrix of it, or two that read them in the same order. */
static void run_parts(ash_nn *nn, const job *j, ash_linear_batch b, const ash_linear *one, float *y,
                      const ash_linear *two, float *y2)
{
    const state *t = j->t;
    b.n = t->starts[j->last] - t->starts[j->first];
    b.parts = t->parts;
    for (int e = j->first; e < j->last; e++) {
        int first = t->starts[e] - t->starts[j->first], n = t->starts[e + 1] - t->starts[e];
        if (!n)
            continue;
        ash_linear_part *p = &t->parts[b.n_parts++];
        *p = (ash_linear_part){.l = {&one[e]}, .y = {y + first * one[e].w.rows}, .first = first, .n = n};
        if (two) {
            p->l[1] = &two[e];
            p->y[1] = y2 + first * two[e].w.rows;
        }
    }
    ash_linear_run_parts(nn, &b);
}

static void run_experts(ash_nn *nn, const job *j, const float *x)
{
    const state *t = j->t;
    const ash_moe *m = j->m;
    ash_linear_batch in = {.x = x, .rows = t->rows + t->starts[j->first], .room = t->x};
    bool alike = true; /* the order of inputs of an expert's two */
    for (int e = j->first; e < j->last; e++) alike = alike && m->gate[e].perm == m->up[e].perm;
    run_parts(nn, j, in, m->gate, t->gate, alike ? m->up : NULL, t->up);
    if (!alike)
        run_parts(nn, j, in, m->up, t->up, NULL, NULL);
    run_parts(nn, j, (ash_linear_batch){.gate = t->gate, .up = t->up}, m->down, t->d, NULL, NULL);
}

/* The end of the experts from j->last on that are computed at once: no more rows than slots (one expert never
 * has more), no more experts than `most`. Those chosen are listed; returns how many. */
static int take(job *j, int most)
{
    const state *t = j->t;
    int n = 0;
    for (j->first = j->last; j->last < j->s->router.experts; j->last++) {
        int rows = t->starts[j->last + 1] - t->starts[j->last];
        if (t->starts[j->last + 1] - t->starts[j->first] > t->slots || (rows && n == most))
            break;
        if (rows)
            t->chosen[n++] = j->last;
    }
    return n;
}

/* Tells the supply what comes after j's experts: the layer's next ones, or what the router of the next
 * layer makes of this one's x. Between two layers most of x stays, and with it most choices. */
static void look_ahead(ash_nn *nn, const job *j, const ash_moe_supply *supply, const float *x, int n)
{
    const ash_router *r = &j->s->router;
    const state *t = j->t;
    job ahead = *j;
    int next = take(&ahead, supply->most);
    if (next) {
        supply->expect(supply->user, j->m->layer, t->chosen, next, true);
        return;
    }
    if (!j->m->next || n > FORESEE_ROWS)
        return;
    const float *bias = j->m->next->bias;
    float logits[ASH_MAX_EXPERTS], weights[ASH_MAX_EXPERTS]; /* the scratch has this layer's, in use */
    for (int i = 0; i < n; i++) {
        ash_linear_run(nn, (const ash_linear *[]){&j->m->next->router}, 1, x + i * j->s->embd, 1,
                       (float *[]){logits});
        ash_router_pick(r, bias, logits, t->chosen, weights);
        supply->expect(supply->user, j->m->next->layer, t->chosen, r->used, false);
    }
}

void ash_moe_run(ash_nn *nn, const ash_moe_shape *s, const ash_moe *m, const ash_moe_supply *supply,
                 const float *x, int n, float *y, void *scratch)
{
    state t = lay_out(s, scratch, n, nn->o.max_rows);
    job j = {.s = s, .m = m, .t = &t, .y = y};
    int most = supply ? supply->most : s->router.experts;
    route(nn, &j, x, n);
    sort(&s->router, &t, n);
    for (int held; (held = take(&j, most)) > 0;) {
        if (supply) {
            supply->hold(supply->user, m->layer, t.chosen, held, n);
            look_ahead(nn, &j, supply, x, n);
        }
        run_experts(nn, &j, x);
        ash_nn_rows(nn, n, s->router.used * s->embd, add, &j);
    }
}
