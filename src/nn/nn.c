/* Owns the scratch and the pool of an engine's forwards. Refuses sizes over caps and levels that the
 * CPU lacks. One forward at a time. */
#include "nn/nn.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "nn/scratch.h"

enum { MAX_ROWS = 1 << 16, MAX_IN = 1 << 22, MAX_HEADS = 1 << 12, MAX_HEAD_DIM = 1 << 12 };
#define MAX_CONTEXT ((int64_t)1 << 28)

/* Hands out 64-byte aligned pieces of a mapping; with base NULL it only counts. */
typedef struct carver {
    uint8_t *base;
    uint64_t used;
} carver;

static void *carve(carver *c, uint64_t bytes)
{
    void *p = c->base ? c->base + c->used : NULL;
    c->used += (bytes + 63) / 64 * 64;
    return p;
}

static int threads_of(const ash_nn_options *o)
{
    return o->pool ? ash_pool_threads(o->pool) : o->threads ? o->threads : ash_cpu_threads();
}

static void carve_act(carver *c, const ash_nn_options *o, ash_act *a)
{
    uint64_t rows = (uint64_t)o->max_rows, terms = 2 * rows, ld = (uint64_t)ash_act_stride(o->max_in);
    a->q = carve(c, terms * ld);
    a->d = carve(c, terms * ld / 8);
    a->ds = carve(c, terms * ld / 8);
    a->ns = carve(c, terms * ld / 8);
    a->hs = carve(c, terms * ld / 8);
    a->h = carve(c, rows * ld * 2);
    a->ld = (int64_t)ld;
}

static void carve_all(carver *c, const ash_nn_options *o, ash_nn_scratch *s)
{
    ash_nn_scratch counted;
    ash_worker none, *w = &none;
    if (!s)
        s = &counted;
    carve(c, sizeof *s);
    carve_act(c, o, &s->act);
    s->x = o->level == ASH_CPU_SCALAR ? carve(c, (uint64_t)o->max_rows * (uint64_t)s->act.ld * sizeof(float))
                                      : NULL;
    s->spiky = carve(c, (uint64_t)o->max_rows);
    s->tiles = carve(c, (uint64_t)o->max_rows * sizeof *s->tiles);
    s->max_parts = (o->max_context / ASH_SPAN + 2) * o->max_heads;
    s->parts = carve(c, (uint64_t)s->max_parts * (uint64_t)(o->max_head_dim + 2) * sizeof(float));
    int threads = threads_of(o);
    s->workers = carve(c, (uint64_t)threads * sizeof *s->workers);
    for (int i = 0; i < threads; i++) {
        if (c->base)
            w = &s->workers[i];
        w->matmul = carve(c, (uint64_t)ash_kernel_scratch(ash_kernel_get(o->level), o->max_in));
        w->p = carve(c, (uint64_t)ASH_TILE * ASH_SPAN * sizeof(float));
        w->x = carve(c, (uint64_t)o->max_in * sizeof(float));
        w->terms = carve(c, (uint64_t)o->max_rows * 2 * 2 * ASH_GROUP * sizeof(float));
        w->wide = ash_kernel_get(o->level)->span_q8
                      ? NULL
                      : carve(c, (uint64_t)ASH_SPAN * 2 * (uint64_t)o->max_head_dim * sizeof(uint16_t));
        w->acc = carve(c, (uint64_t)ASH_TILE * (uint64_t)o->max_head_dim * sizeof(float));
    }
}

uint64_t ash_nn_bytes(const ash_nn_options *o)
{
    carver c = {0};
    carve_all(&c, o, NULL);
    return c.used;
}

static int check(const ash_nn_options *o, ash_err *err)
{
    if (o->level < ASH_CPU_SCALAR || o->level > ash_cpu_get()->level)
        return ash_err_set(err, ASH_EINVAL, "this CPU has no kernels of level %d", (int)o->level);
    if (o->threads < 0 || o->max_rows < 1 || o->max_rows > MAX_ROWS || o->max_in < 1 ||
        o->max_in > MAX_IN || o->max_heads < 1 || o->max_heads > MAX_HEADS || o->max_head_dim < 1 ||
        o->max_head_dim > MAX_HEAD_DIM || o->max_context < 1 || o->max_context > MAX_CONTEXT)
        return ash_err_set(err, ASH_EINVAL,
                           "forward of %d rows, %lld columns, %d heads of %d, context %lld: out of range",
                           o->max_rows, (long long)o->max_in, o->max_heads, o->max_head_dim,
                           (long long)o->max_context);
    return 0;
}

int ash_nn_open(const ash_nn_options *o, ash_nn **out, ash_err *err)
{
    *out = NULL;
    int rc = check(o, err);
    if (rc)
        return rc;
    ash_nn *nn = calloc(1, sizeof *nn);
    if (!nn)
        return ash_err_nomem(err, "layer scratch");
    nn->o = *o;
    nn->o.threads = threads_of(o);
    nn->k = ash_kernel_get(o->level);
    nn->pool = o->pool;
    if (!nn->pool && (rc = ash_pool_open_on(o->numa, nn->o.threads, &nn->pool, err)))
        goto fail;
    uint64_t bytes = ash_nn_bytes(&nn->o);
    void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                     -1, 0);
    if (mem == MAP_FAILED) {
        rc = ash_err_nomem(err, "layer scratch");
        goto fail;
    }
    nn->scratch = mem;
    carver c = {.base = mem};
    carve_all(&c, &nn->o, nn->scratch);
    nn->scratch->bytes = bytes;
    *out = nn;
    return 0;
fail:
    ash_nn_close(nn);
    return rc;
}

void ash_nn_close(ash_nn *nn)
{
    if (!nn)
        return;
    if (!nn->o.pool)
        ash_pool_close(nn->pool);
    if (nn->scratch)
        munmap(nn->scratch, nn->scratch->bytes);
    free(nn);
}

void ash_nn_rows(ash_nn *nn, int64_t n, int64_t cost, ash_pool_fn fn, void *arg)
{
    enum { WORTH = 16384 }; /* elements a chunk should have: some microseconds */
    if (n * cost < 2 * WORTH) {
        fn(arg, 0, n, 0);
        return;
    }
    int64_t grain = WORTH / cost;
    ash_pool_run(nn->pool, n, grain < 1 ? 1 : grain, fn, arg);
}
