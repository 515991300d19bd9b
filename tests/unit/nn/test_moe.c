/* The choice of experts against plain Python (tests/golden/nn/router.py) and at its edges; a mixture
 * against its definition, on every table: bit for bit the same however rows are batched, and without a
 * look at experts that nobody chose. */
#include "../kernel/kernel_test.h"

#include <sys/mman.h>

#include "nn/moe.h"
#include "quant/decode.h"

typedef struct golden {
    ash_router r;
    bool biased;
    double logits[256], bias[256];
    int32_t ids[8];
    double weights[8];
} golden;

static const golden goldens[] = {
#include "router_golden.inc"
};

static void to_floats(float *to, const double *from, int n)
{
    for (int i = 0; i < n; i++) to[i] = (float)from[i];
}

static void test_golden(void **state)
{
    for (int i = 0; i < (int)(sizeof goldens / sizeof *goldens); i++) {
        const golden *g = &goldens[i];
        float logits[256], bias[256], weights[8];
        int32_t ids[8];
        assert_int_equal(ash_router_check(&g->r, NULL), 0);
        to_floats(logits, g->logits, g->r.experts);
        to_floats(bias, g->bias, g->r.experts);
        ash_router_pick(&g->r, g->biased ? bias : NULL, logits, ids, weights);
        assert_memory_equal(ids, g->ids, (size_t)g->r.used * sizeof *ids);
        for (int j = 0; j < g->r.used; j++)
            if (!(fabs((double)weights[j] - g->weights[j]) <= 2e-6 * fabs(g->weights[j])))
                fail_msg("case %d, weight %d: %g, expected %g", i, j, (double)weights[j], g->weights[j]);
    }
}

static void expect_ids(const ash_router *r, const float *bias, const float *logits, const int32_t *want)
{
    int32_t ids[8];
    float weights[8];
    ash_router_pick(r, bias, logits, ids, weights);
    assert_memory_equal(ids, want, (size_t)r->used * sizeof *ids);
}

static void test_edges(void **state)
{
    static const float alike[8], nan[8] = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
    static const float huge[8] = {1e30f, -1e30f, 3e30f, 0, 2e30f, 0, 0, 3e30f};
    static const float some[8] = {1, NAN, 3, 2, 5, 4, NAN, 0};
    static const float low[8] = {-9, -9, -9, -9, -9, -9, -9, -9};
    ash_router r = {8, 3, 1, 1, ASH_ROUTER_SOFTMAX, false, 1}, grouped = {8, 3, 4, 2, ASH_ROUTER_SIGMOID,
                                                                          true, 1};
    expect_ids(&r, NULL, alike, (int32_t[]){0, 1, 2});        /* ties: the lower index */
    expect_ids(&grouped, NULL, alike, (int32_t[]){0, 1, 2});
    expect_ids(&grouped, low, alike, (int32_t[]){0, 1, 2});   /* a masked group is worse than any choice */
    expect_ids(&r, NULL, huge, (int32_t[]){0, 2, 7});         /* exp(-huge) is 0, without overflow */
    expect_ids(&grouped, low, huge, (int32_t[]){2, 3, 4});    /* groups 1, 2, 3 are alike: the first two */
    for (int i = 0; i < 2; i++) { /* whatever comes, three different experts */
        int32_t ids[3];
        float weights[3];
        ash_router_pick(&r, NULL, i ? some : nan, ids, weights);
        assert_true(0 <= ids[0] && ids[0] < ids[1] && ids[1] < ids[2] && ids[2] < 8);
        ash_router_pick(&grouped, low, i ? some : nan, ids, weights);
        assert_true(0 <= ids[0] && ids[0] < ids[1] && ids[1] < ids[2] && ids[2] < 8);
    }
}

static void test_refusals(void **state)
{
    static const ash_router bad[] = {
        {0, 1, 1, 1, ASH_ROUTER_SOFTMAX, false, 1},
        {ASH_MAX_EXPERTS + 1, 1, 1, 1, ASH_ROUTER_SOFTMAX, false, 1},
        {8, 0, 1, 1, ASH_ROUTER_SOFTMAX, false, 1},  {8, 9, 1, 1, ASH_ROUTER_SOFTMAX, false, 1},
        {8, 2, 3, 1, ASH_ROUTER_SOFTMAX, false, 1},  {8, 2, 0, 1, ASH_ROUTER_SOFTMAX, false, 1},
        {8, 2, 4, 5, ASH_ROUTER_SOFTMAX, false, 1},  {8, 2, 4, 0, ASH_ROUTER_SOFTMAX, false, 1},
        {8, 3, 4, 1, ASH_ROUTER_SOFTMAX, false, 1},  {8, 2, 1, 1, ASH_ROUTER_SOFTMAX, false, NAN},
    };
    for (int i = 0; i < (int)(sizeof bad / sizeof *bad); i++) {
        ash_err err = ASH_ERR_INIT;
        assert_int_equal(ash_router_check(&bad[i], &err), ASH_EINVAL);
        assert_true(err.msg[0]);
    }
}

/* ---- mixtures ------------------------------------------------------------------------------- */

enum { EMBD = 96, INTER = 64, ROWS = 37, MOST = 12 * ROWS, PAGE = 4096 };

/* Matrices of one role, each expert's on pages of its own. */
typedef struct stack {
    ash_linear l[32];
    float *dense[32];
    uint8_t *map;
    size_t each, bytes;
    int n;
} stack;

/* types: of the experts in turn */
static void open_stack(stack *s, ash_rng *r, const ash_dtype types[3], int n, int64_t out, int64_t in)
{
    uint64_t bytes = 0, most = 0;
    for (int e = 0; e < n; e++) {
        assert_int_equal(ash_linear_plan(&s->l[e], types[e % 3], out, in, &bytes, NULL), 0);
        most = bytes > most ? bytes : most;
    }
    s->n = n;
    s->each = (most + PAGE - 1) / PAGE * PAGE;
    s->bytes = s->each * (size_t)n;
    s->map = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(s->map != MAP_FAILED);
    for (int e = 0; e < n; e++) {
        ash_dtype t = types[e % 3];
        uint8_t *src = rand_tensor(r, t, out, in, 0.3f);
        s->dense[e] = must_alloc((size_t)(out * in) * sizeof(float));
        ash_quant_decode(t, src, out * in, s->dense[e]);
        ash_linear_bind(&s->l[e], s->map + (size_t)e * s->each);
        ash_linear_pack(&s->l[e], src, 0, out);
        free(src);
    }
}

static void close_stack(stack *s)
{
    for (int e = 0; e < s->n; e++) free(s->dense[e]);
    munmap(s->map, s->bytes);
}

typedef struct fixture {
    ash_nn *nn;
    ash_moe_shape shape;
    ash_moe moe;
    stack router, gate, up, down;
    float *bias, *x;
    void *scratch;
    const ash_moe_supply *supply; /* or NULL */
} fixture;

static ash_nn *open_nn(ash_cpu_level level, int threads, int max_rows)
{
    ash_nn *nn;
    ash_err err = ASH_ERR_INIT;
    ash_nn_options o = {.level = level, .threads = threads, .max_rows = max_rows, .max_in = EMBD,
                        .max_heads = 1, .max_head_dim = 1, .max_context = 1};
    assert_int_equal(ash_nn_open(&o, &nn, &err), 0);
    return nn;
}

static void open_fixture(fixture *f, const ash_router *r, ash_cpu_level level, const ash_dtype types[3])
{
    static const ash_dtype floats[3] = {ASH_DTYPE_F32, ASH_DTYPE_F32, ASH_DTYPE_F32};
    ash_rng rng;
    ash_rng_init(&rng, 7);
    *f = (fixture){.shape = {*r, EMBD, INTER}};
    f->nn = open_nn(level, 3, ROWS);
    open_stack(&f->router, &rng, floats, 1, r->experts, EMBD);
    open_stack(&f->gate, &rng, types, r->experts, INTER, EMBD);
    open_stack(&f->up, &rng, types, r->experts, INTER, EMBD);
    open_stack(&f->down, &rng, types, r->experts, EMBD, INTER);
    f->bias = rand_vector(&rng, r->experts, 0.2f);
    f->x = rand_vector(&rng, ROWS * EMBD, 1);
    f->moe = (ash_moe){.router = f->router.l[0], .bias = r->score == ASH_ROUTER_SIGMOID ? f->bias : NULL,
                       .gate = f->gate.l, .up = f->up.l, .down = f->down.l};
    f->scratch = must_alloc(ash_moe_bytes(&f->shape, MOST));
}

static void close_fixture(fixture *f)
{
    close_stack(&f->router);
    close_stack(&f->gate);
    close_stack(&f->up);
    close_stack(&f->down);
    free(f->bias);
    free(f->x);
    free(f->scratch);
    ash_nn_close(f->nn);
}

static double dot(const float *w, const double *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)w[i] * x[i];
    return sum;
}

/* The definition. */
static void reference(const fixture *f, int row, double *y)
{
    const ash_router *r = &f->shape.router;
    double x[EMBD], h[INTER];
    float logits[32], weights[32];
    int32_t ids[32];
    for (int i = 0; i < EMBD; i++) x[i] = (double)f->x[row * EMBD + i];
    for (int e = 0; e < r->experts; e++) logits[e] = (float)dot(f->router.dense[0] + e * EMBD, x, EMBD);
    ash_router_pick(r, f->moe.bias, logits, ids, weights);
    for (int i = 0; i < EMBD; i++) y[i] = 0;
    for (int k = 0; k < r->used; k++) {
        int e = ids[k];
        for (int i = 0; i < INTER; i++) {
            double g = dot(f->gate.dense[e] + i * EMBD, x, EMBD);
            h[i] = g / (1 + exp(-g)) * dot(f->up.dense[e] + i * EMBD, x, EMBD);
        }
        for (int i = 0; i < EMBD; i++)
            y[i] += (double)weights[k] * dot(f->down.dense[e] + i * INTER, h, INTER);
    }
}

static void run(const fixture *f, int from, int n, float *y)
{
    for (int i = 0; i < n * EMBD; i++) y[i] = 1; /* it is added to what is there */
    ash_moe_run(f->nn, &f->shape, &f->moe, f->supply, f->x + from * EMBD, n, y, f->scratch);
}

static void check_against_reference(const fixture *f, const float *y, double bound)
{
    double want[EMBD], square = 0, size = 0;
    for (int row = 0; row < ROWS; row++) {
        reference(f, row, want);
        for (int i = 0; i < EMBD; i++) {
            double d = (double)y[row * EMBD + i] - 1 - want[i];
            square += d * d;
            size += want[i] * want[i];
        }
    }
    if (!(sqrt(square / size) <= bound))
        fail_msg("%s: relative error %g", f->nn->k->name, sqrt(square / size));
}

/* All rows at once, by a few experts at a time or by all, give what they give in batches of 1 to 5. */
static void check_batches(fixture *f, const float *all)
{
    static float part[ROWS * EMBD];
    static const struct {
        int threads, max_rows;
    } others[] = {{1, ROWS}, {2, ROWS + 5}, {3, MOST}};
    for (int from = 0, n = 1; from < ROWS; from += n, n = n % 5 + 1) {
        n = n < ROWS - from ? n : ROWS - from;
        run(f, from, n, part + from * EMBD);
    }
    assert_memory_equal(all, part, sizeof part);
    ash_nn *own = f->nn;
    for (int i = 0; i < (int)(sizeof others / sizeof *others); i++) {
        f->nn = open_nn(own->o.level, others[i].threads, others[i].max_rows);
        run(f, 0, ROWS, part);
        assert_memory_equal(all, part, sizeof part);
        ash_nn_close(f->nn);
    }
    f->nn = own;
}

static void test_mixture(void **state)
{
    static const ash_router routers[] = {
        {8, 2, 1, 1, ASH_ROUTER_SOFTMAX, false, 1},
        {32, 11, 1, 1, ASH_ROUTER_SOFTMAX, false, 4},
        {16, 4, 4, 2, ASH_ROUTER_SIGMOID, true, 2.5f},
        {32, 11, 1, 1, ASH_ROUTER_SOFTMAX, false, 4},
    };
    static const ash_dtype types[][3] = {
        {ASH_DTYPE_F32, ASH_DTYPE_F32, ASH_DTYPE_F32},
        {ASH_DTYPE_BF16, ASH_DTYPE_BF16, ASH_DTYPE_BF16},
        {ASH_DTYPE_Q8_0, ASH_DTYPE_Q8_0, ASH_DTYPE_Q8_0},
        {ASH_DTYPE_Q8_0, ASH_DTYPE_F16, ASH_DTYPE_BF16},
    };
    static float all[ROWS * EMBD];
    for (int level = ASH_CPU_SCALAR; level <= (int)ash_cpu_get()->level; level++) {
        for (int i = 0; i < 4; i++) {
            fixture f;
            open_fixture(&f, &routers[i], (ash_cpu_level)level, types[i]);
            run(&f, 0, ROWS, all);
            /* activations in bfloat16 or int8 are off by that much */
            check_against_reference(&f, all, level == ASH_CPU_SCALAR || i == 0 ? 1e-5 : 0.02);
            check_batches(&f, all);
            close_fixture(&f);
        }
    }
}

/* What a forward's scratch is planned by: a row's share, times the rows. */
static void test_bytes(void **state)
{
    const ash_moe_shape s = {{64, 6, 1, 1, ASH_ROUTER_SOFTMAX, false, 1}, 2048, 1408};
    uint64_t one = ash_moe_bytes(&s, 1);
    assert_true(one < 21 << 10);
    for (int rows = 2; rows <= 1024; rows += rows / 2) assert_true(ash_moe_bytes(&s, rows) <= rows * one);
}

/* The weights of experts that no row chose cannot be read: neither by one row nor by several. */
static void test_untouched(void **state)
{
    static float y[ROWS * EMBD];
    const ash_router r = {32, 2, 1, 1, ASH_ROUTER_SOFTMAX, false, 1};
    fixture f;
    open_fixture(&f, &r, ash_cpu_get()->level,
                 (ash_dtype[]){ASH_DTYPE_BF16, ASH_DTYPE_BF16, ASH_DTYPE_BF16});
    for (int n = 1; n <= 5; n += 4) {
        bool chosen[32] = {false};
        stack *stacks[] = {&f.gate, &f.up, &f.down};
        for (int row = 0; row < n; row++) {
            double x[EMBD];
            float logits[32], weights[2];
            int32_t ids[2];
            for (int i = 0; i < EMBD; i++) x[i] = (double)f.x[row * EMBD + i];
            for (int e = 0; e < 32; e++) logits[e] = (float)dot(f.router.dense[0] + e * EMBD, x, EMBD);
            ash_router_pick(&r, NULL, logits, ids, weights);
            chosen[ids[0]] = chosen[ids[1]] = true;
        }
        for (int e = 0; e < 32; e++)
            for (int s = 0; s < 3 && !chosen[e]; s++)
                mprotect(stacks[s]->map + (size_t)e * stacks[s]->each, stacks[s]->each, PROT_NONE);
        run(&f, 0, n, y);
        for (int s = 0; s < 3; s++) mprotect(stacks[s]->map, stacks[s]->bytes, PROT_READ | PROT_WRITE);
    }
    close_fixture(&f);
}

/* Experts that are not held cannot be read. */
typedef struct holder {
    fixture *f;
    bool sure[32];      /* expected with certainty since the last hold */
    int sures, held, foreseen;
    int rows; /* of the batch */
} holder;

static void guard(const fixture *f, int e, int rights)
{
    const stack *stacks[] = {&f->gate, &f->up, &f->down};
    for (int s = 0; s < 3; s++)
        assert_int_equal(mprotect(stacks[s]->map + (size_t)e * stacks[s]->each, stacks[s]->each, rights), 0);
}

static void hold(void *user, int layer, const int32_t *experts, int n, int rows)
{
    holder *h = user;
    assert_int_equal(layer, 5);
    assert_int_equal(rows, h->rows);
    assert_true(1 <= n && n <= h->f->supply->most);
    for (int e = 0; e < h->f->shape.router.experts; e++) guard(h->f, e, PROT_NONE);
    for (int i = 0; i < n; i++) {
        assert_true(i == 0 || experts[i - 1] < experts[i]);
        assert_true(!h->sures || h->sure[experts[i]]);
        guard(h->f, experts[i], PROT_READ);
    }
    assert_true(!h->sures || h->sures == n);
    h->held += n;
    h->sures = 0;
    memset(h->sure, 0, sizeof h->sure);
}

static void expect(void *user, int layer, const int32_t *experts, int n, bool sure)
{
    holder *h = user;
    if (!sure) { /* the next layer's router is this one's here: it foresees this one's choices */
        assert_int_equal(layer, 6);
        h->foreseen += n;
        return;
    }
    assert_int_equal(layer, 5);
    for (int i = 0; i < n; i++) h->sure[experts[i]] = true;
    h->sures += n;
}

/* Held a few at a time, each only when it is needed: the same, bit for bit. */
static void test_supply(void **state)
{
    static float all[ROWS * EMBD], part[ROWS * EMBD];
    const ash_router r = {32, 11, 1, 1, ASH_ROUTER_SOFTMAX, false, 4};
    fixture f;
    open_fixture(&f, &r, ash_cpu_get()->level,
                 (ash_dtype[]){ASH_DTYPE_Q8_0, ASH_DTYPE_F16, ASH_DTYPE_BF16});
    ash_moe next = f.moe;
    f.moe.layer = 5;
    next.layer = 6;
    f.moe.next = &next;
    for (int most = 1; most <= 32; most += most < 4 ? 1 : 14) {
        holder h = {.f = &f};
        const ash_moe_supply supply = {&h, most, hold, expect};
        run(&f, 0, ROWS, all);
        f.supply = &supply;
        for (int n = 1; n <= ROWS; n += 36) {
            h = (holder){.f = &f, .rows = n};
            run(&f, 0, n, part);
            assert_memory_equal(all, part, (size_t)n * EMBD * sizeof(float));
            assert_int_equal(h.foreseen, n == 1 ? 11 : 0);
            assert_true(n == 1 ? h.held == 11 : h.held >= 30);
        }
        f.supply = NULL;
        for (int e = 0; e < 32; e++) guard(&f, e, PROT_READ | PROT_WRITE);
    }
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),    cmocka_unit_test(test_edges),
        cmocka_unit_test(test_refusals),  cmocka_unit_test(test_mixture),
        cmocka_unit_test(test_bytes),     cmocka_unit_test(test_untouched),
        cmocka_unit_test(test_supply),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
