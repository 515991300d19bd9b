/* Matrices on made-up machines of several nodes: their memory is divided among the nodes without gap or
 * overlap, and a product has the bits that one thread gives, however it is divided. */
#include "../kernel/kernel_test.h"

#include "nn/linear.h"

enum { IN = 256, MAX_ROWS = 20, MATRICES = 4, HEADS = 5 };

static const int64_t outs[MATRICES] = {17, 272, 33, 1040};
static const ash_dtype types[] = {ASH_DTYPE_Q4_0, ASH_DTYPE_Q8_0, ASH_DTYPE_Q4_K, ASH_DTYPE_BF16,
                                  ASH_DTYPE_F32};

/* Every node has one CPU, so that each gets as many threads. */
static ash_nn *open_nn(ash_cpu_level level, int nodes, int threads)
{
    ash_numa numa = {.nodes = nodes};
    for (int k = 0; k < nodes; k++) CPU_SET((size_t)k, &numa.cpus[k]);
    ash_err err = ASH_ERR_INIT;
    ash_nn_options o = {.level = level, .threads = threads, .numa = &numa, .max_rows = MAX_ROWS, .max_in = IN,
                        .max_heads = 1, .max_head_dim = 64, .max_context = 64};
    ash_nn *nn;
    assert_int_equal(ash_nn_open(&o, &nn, &err), 0);
    assert_int_equal(ash_pool_nodes(nn->pool), nodes < threads ? nodes : threads);
    return nn;
}

static void *open_matrix(ash_linear *l, ash_rng *rng, ash_dtype t, int64_t out)
{
    uint64_t bytes;
    assert_int_equal(ash_linear_plan(l, t, out, IN, &bytes, NULL), 0);
    void *mem = must_alloc(bytes), *src = rand_tensor(rng, t, out, IN, 0.2f);
    ash_linear_bind(l, mem);
    ash_linear_pack(l, src, 0, out);
    free(src);
    return mem;
}

static void check_memory(const ash_nn *nn, const ash_linear *l)
{
    const uint8_t *at = l->w.data;
    for (int k = 0; k < ash_pool_nodes(nn->pool); k++) {
        const void *from;
        size_t bytes;
        ash_linear_local(l, nn->pool, k, &from, &bytes);
        assert_ptr_equal(from, at);
        assert_int_equal(bytes % (size_t)l->w.group_bytes, 0);
        at += bytes;
    }
    assert_ptr_equal(at, l->w.data + l->w.groups * l->w.group_bytes);
}

/* All that linear computes, of n rows of x, one after the other in y. */
static size_t compute(ash_nn *nn, const ash_linear *l, const ash_linear *heads, const float *x, int n,
                      float *y)
{
    const ash_linear *ls[MATRICES];
    float *ys[MATRICES], *to = y;
    for (int m = 0; m < MATRICES; to += n * outs[m++]) {
        ls[m] = &l[m];
        ys[m] = to;
    }
    ash_linear_run(nn, ls, MATRICES, x, n, ys);
    if (n <= MAX_ROWS / HEADS)
        ash_linear_run_each(nn, heads, HEADS, x, n, to);
    to += n * HEADS * outs[0];
    int32_t rows[MAX_ROWS];
    float *room = must_alloc((size_t)n * IN * sizeof *room);
    ash_linear_part parts[2] = {{{&l[1], &l[3]}, {to, to + n * outs[1]}, 0, n - n / 3}};
    to += n * (outs[1] + outs[3]);
    parts[1] = (ash_linear_part){{&l[2]}, {to}, n - n / 3, n / 3};
    to += n * outs[2];
    for (int i = 0; i < n; i++) rows[i] = i * 7 % n;
    ash_linear_run_parts(nn, &(ash_linear_batch){.parts = parts, .n_parts = n / 3 ? 2 : 1, .n = n, .x = x,
                                                 .rows = rows, .room = room});
    free(room);
    return (size_t)(to - y);
}

static void check_type(ash_cpu_level level, ash_dtype t)
{
    enum { ROOM = MAX_ROWS * 4096 };
    static const int machines[][2] = {{1, 3}, {2, 2}, {2, 5}, {3, 4}, {7, 7}}; /* nodes, threads */
    static const int counts[] = {1, 3, 4, 20};
    ash_rng rng;
    ash_rng_init(&rng, 3);
    ash_linear l[MATRICES], heads[HEADS];
    void *mem[MATRICES + HEADS];
    for (int m = 0; m < MATRICES; m++) mem[m] = open_matrix(&l[m], &rng, t, outs[m]);
    for (int m = 0; m < HEADS; m++) mem[MATRICES + m] = open_matrix(&heads[m], &rng, t, outs[0]);
    float *x = rand_vector(&rng, MAX_ROWS * HEADS * IN, 1);
    float *want = must_alloc(ROOM * sizeof *want), *got = must_alloc(ROOM * sizeof *got);
    ash_nn *one = open_nn(level, 1, 1);
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        ash_nn *nn = open_nn(level, machines[i][0], machines[i][1]);
        for (int m = 0; m < MATRICES; m++) check_memory(nn, &l[m]);
        for (int c = 0; c < 4; c++) {
            memset(want, 0, ROOM * sizeof *want);
            memset(got, 0, ROOM * sizeof *got);
            size_t n = compute(one, l, heads, x, counts[c], want);
            assert_true(n <= ROOM);
            assert_int_equal(compute(nn, l, heads, x, counts[c], got), n);
            assert_memory_equal(got, want, n * sizeof *want);
        }
        ash_nn_close(nn);
    }
    ash_nn_close(one);
    for (int m = 0; m < MATRICES + HEADS; m++) free(mem[m]);
    free(x);
    free(want);
    free(got);
}

static void test_the_same_bits(void **state)
{
    for (int level = ASH_CPU_SCALAR; level <= (int)ash_cpu_get()->level; level++)
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) check_type((ash_cpu_level)level, types[t]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_the_same_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
