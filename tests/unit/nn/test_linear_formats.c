/* GPTQ and FP8 matrices as layers: planned, packed by pieces, read back by rows in the order of the
 * inputs, and multiplied on every table with one and several threads; parts of a list of rows, through
 * matrices of every kind of activations, bit for bit as each row alone. */
#include "../kernel/gptq_fixture.h"

#include "nn/linear.h"
#include "quant/fp8.h"

enum { MAX_IN = 512, MAX_ROWS = 20 };

static void each_nn(void (*body)(ash_nn *))
{
    for (int level = ASH_CPU_SCALAR; level <= (int)ash_cpu_get()->level; level++)
        for (int threads = 1; threads <= 3; threads += 2) { /* three on two nodes */
            ash_err err = ASH_ERR_INIT;
            ash_numa numa = {.nodes = 2};
            CPU_SET(0, &numa.cpus[0]);
            CPU_SET(1, &numa.cpus[1]);
            ash_nn_options o = {.level = (ash_cpu_level)level, .threads = threads, .numa = &numa,
                                .max_rows = MAX_ROWS, .max_in = MAX_IN, .max_heads = 1, .max_head_dim = 64,
                                .max_context = 64};
            ash_nn *nn;
            assert_int_equal(ash_nn_open(&o, &nn, &err), 0);
            body(nn);
            ash_nn_close(nn);
        }
}

/* As in test_layers: relative to the product of the norms. */
static void check_product(const float *dense, int64_t out, int64_t in, const float *x, int n, const float *y)
{
    for (int i = 0; i < n; i++)
        for (int64_t r = 0; r < out; r++) {
            double sum = 0, w2 = 0, x2 = 0;
            for (int64_t k = 0; k < in; k++) {
                double w = (double)dense[r * in + k], v = (double)x[i * in + k];
                sum += w * v;
                w2 += w * w;
                x2 += v * v;
            }
            assert_true(fabs((double)y[i * out + r] - sum) <= 0.03 * sqrt(w2 * x2) + 1e-6);
        }
}

static void check_rows(const ash_linear *l, const float *dense)
{
    float *row = must_alloc((size_t)l->in * 4);
    for (int64_t r = 0; r < l->w.rows; r++) {
        memset(row, 0x7f, (size_t)l->in * 4);
        ash_linear_row(l, r, row);
        assert_memory_equal(row, dense + r * l->in, (size_t)l->in * 4);
    }
    free(row);
}

typedef struct gptq_matrix {
    gptq_fixture f;
    ash_linear l;
    void *mem;
} gptq_matrix;

static void open_gptq(gptq_matrix *m, uint64_t seed, int bits, gptq_order order, int64_t out, int64_t groups)
{
    ash_rng rng;
    uint64_t bytes;
    ash_rng_init(&rng, seed);
    gptq_open(&m->f, &rng, bits, true, false, order, ASH_DTYPE_F16, out, 256, groups, 1);
    assert_int_equal(ash_linear_plan_gptq(&m->l, &m->f.q, &bytes, NULL), 0);
    assert_int_equal(m->l.in, 256);
    assert_int_equal(bytes % 64, 0);
    m->mem = must_alloc(bytes + 1);
    memset(m->mem, 0xee, bytes + 1);
    ash_linear_bind(&m->l, m->mem);
    ash_linear_order_gptq(&m->l, &m->f.q);
    for (int64_t row = out - 32; row >= 0; row -= 32) ash_linear_pack_gptq(&m->l, &m->f.q, row, 32);
    assert_int_equal(((uint8_t *)m->mem)[bytes], 0xee); /* no byte past the plan's */
}

static void close_gptq(gptq_matrix *m)
{
    gptq_close(&m->f);
    free(m->mem);
}

static void gptq_body(ash_nn *nn)
{
    gptq_matrix m[5];
    open_gptq(&m[0], 1, 4, GPTQ_SORTED, 96, 4);
    open_gptq(&m[1], 1, 4, GPTQ_SORTED, 96, 4); /* the same order as the first */
    open_gptq(&m[2], 2, 8, GPTQ_SORTED, 64, 2); /* another */
    open_gptq(&m[3], 3, 3, GPTQ_PLAIN, 32, 2);
    open_gptq(&m[4], 4, 2, GPTQ_PLAIN, 32, 16); /* groups of 16, filled up */
    assert_null(m[3].l.perm);
    assert_int_equal(m[4].l.w.cols, 512);
    ash_linear_share((ash_linear *[]){&m[0].l, &m[1].l, &m[2].l, &m[3].l, &m[4].l}, 5);
    assert_ptr_equal(m[0].l.perm, m[1].l.perm);
    assert_ptr_not_equal(m[0].l.perm, m[2].l.perm);
    ash_rng rng;
    ash_rng_init(&rng, 9);
    float *x = rand_vector(&rng, MAX_ROWS * 256, 1), *ys[5];
    const ash_linear *ls[5];
    for (int j = 0; j < 5; j++) {
        ls[j] = &m[j].l;
        ys[j] = must_alloc(MAX_ROWS * 96 * 4);
        check_rows(ls[j], m[j].f.dense);
    }
    for (int n = 1; n <= MAX_ROWS; n += 6) {
        ash_linear_run(nn, ls, 5, x, n, ys);
        for (int j = 0; j < 5; j++) check_product(m[j].f.dense, m[j].f.q.out, 256, x, n, ys[j]);
    }
    for (int j = 0; j < 5; j++) {
        free(ys[j]);
        close_gptq(&m[j]);
    }
    free(x);
}

static void fp8_body(ash_nn *nn)
{
    enum { OUT = 150, IN = 300 };
    ash_rng rng;
    ash_rng_init(&rng, 5);
    uint8_t *src = must_alloc(OUT * IN);
    float *scales = rand_vector(&rng, 2 * 3, 1), *dense = must_alloc(OUT * IN * 4);
    for (int i = 0; i < OUT * IN; i++) {
        src[i] = (uint8_t)ash_rng_u64(&rng) & 0xf7; /* no NaN */
        dense[i] = ash_fp8_to_f32(src[i]) * scales[i / IN / 128 * 3 + i % IN / 128];
    }
    ash_linear l;
    uint64_t bytes;
    assert_int_equal(ash_linear_plan_fp8(&l, OUT, IN, 128, 128, &bytes, NULL), 0);
    void *mem = must_alloc(bytes);
    ash_linear_bind(&l, mem);
    for (int64_t row = 0; row < OUT; row += 50) ash_linear_pack_fp8(&l, src + row * IN, scales, row, 50);
    check_rows(&l, dense);
    float *x = rand_vector(&rng, MAX_ROWS * IN, 1), *y = must_alloc(MAX_ROWS * OUT * 4);
    const ash_linear *one = &l;
    for (int n = 1; n <= MAX_ROWS; n += 6) {
        ash_linear_run(nn, &one, 1, x, n, &y);
        check_product(dense, OUT, IN, x, n, y);
    }
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_linear_plan_fp8(&l, OUT, IN, 0, 128, &bytes, &err), ASH_EINVAL);
    assert_non_null(strstr(err.msg, "F8_E4M3"));
    free(src);
    free(scales);
    free(dense);
    free(mem);
    free(x);
    free(y);
}

/* A matrix of 256 inputs of one of GGUF's types. */
static void *open_plain(ash_linear *l, ash_rng *rng, ash_dtype t, int64_t out)
{
    uint64_t bytes;
    assert_int_equal(ash_linear_plan(l, t, out, 256, &bytes, NULL), 0);
    void *mem = must_alloc(bytes), *src = rand_tensor(rng, t, out, 256, 0.2f);
    ash_linear_bind(l, mem);
    ash_linear_pack(l, src, 0, out);
    free(src);
    return mem;
}

enum { PARTS = 6, LIST = 18 };

/* What each row of the list gives alone. */
static void check_parts(ash_nn *nn, const ash_linear_part *parts, const float *const *list)
{
    float want[96], *to = want;
    for (int i = 0; i < PARTS; i++)
        for (int m = 0; m < 2 && parts[i].l[m]; m++)
            for (int row = 0; row < parts[i].n; row++) {
                const ash_linear *l = parts[i].l[m];
                ash_linear_run(nn, &l, 1, list[parts[i].first + row], 1, &to);
                assert_memory_equal(parts[i].y[m] + row * l->w.rows, want,
                                    (size_t)l->w.rows * sizeof(float));
            }
}

static void run_parts(ash_nn *nn, ash_linear_part *parts, ash_rng *rng)
{
    static const int32_t rows[LIST] = {4, 4, 0, 1, 2, 3, 4, 5, 6, 2, 2, 7, 0, 5, 6, 1, 7, 3};
    static const int first[PARTS + 1] = {0, 1, 9, 11, 12, 17, LIST};
    const float *list[LIST];
    float *x = rand_vector(rng, 8 * 256, 1), *up = rand_vector(rng, LIST * 256, 1);
    float *gate = rand_vector(rng, LIST * 256, 1), *room = must_alloc((LIST + 1) * 256 * sizeof(float));
    for (int i = 0; i < PARTS; i++) {
        parts[i].first = first[i];
        parts[i].n = first[i + 1] - first[i];
    }
    ash_linear_batch b = {.parts = parts, .n_parts = PARTS, .n = LIST, .x = x, .rows = rows, .room = room};
    for (int i = 0; i < LIST; i++) list[i] = x + rows[i] * 256;
    room[LIST * 256] = 1;
    ash_linear_run_parts(nn, &b);
    check_parts(nn, parts, list);
    assert_true(room[LIST * 256] == 1); /* the last matrix has 512 columns, none of them there */

    float *both = must_alloc(LIST * 256 * sizeof(float));
    memcpy(both, gate, LIST * 256 * sizeof(float));
    for (int i = 0; i < LIST; i++) {
        nn->k->silu_mul(both + i * 256, up + i * 256, 256);
        list[i] = both + i * 256;
    }
    ash_linear_run_parts(nn, &(ash_linear_batch){.parts = parts, .n_parts = PARTS, .n = LIST, .gate = gate,
                                                 .up = up});
    check_parts(nn, parts, list);
    assert_memory_equal(gate, both, LIST * 256 * sizeof(float));
    free(x);
    free(up);
    free(gate);
    free(room);
    free(both);
}

static void parts_body(ash_nn *nn)
{
    gptq_matrix m[4];
    ash_linear plain[4];
    ash_linear_part parts[PARTS] = {{.n = 0}};
    ash_rng rng;
    ash_rng_init(&rng, 11);
    open_gptq(&m[0], 1, 4, GPTQ_SORTED, 96, 4);
    open_gptq(&m[1], 1, 4, GPTQ_SORTED, 96, 4);
    open_gptq(&m[2], 2, 8, GPTQ_SORTED, 64, 2);
    open_gptq(&m[3], 4, 2, GPTQ_PLAIN, 32, 16);
    void *mem[4] = {open_plain(&plain[0], &rng, ASH_DTYPE_F32, 17),
                    open_plain(&plain[1], &rng, ASH_DTYPE_Q8_0, 80),
                    open_plain(&plain[2], &rng, ASH_DTYPE_BF16, 33),
                    open_plain(&plain[3], &rng, ASH_DTYPE_Q4_K, 96)};
    ash_linear_share((ash_linear *[]){&m[0].l, &m[1].l}, 2);
    plain[1].bias = rand_vector(&rng, 80, 1);
    const ash_linear *ls[PARTS][2] = {{&plain[2]}, {&m[0].l, &m[1].l}, {&plain[0], &plain[1]},
                                      {&m[2].l},   {&plain[3], &plain[2]}, {&m[3].l}};
    for (int i = 0; i < PARTS; i++)
        for (int k = 0; k < 2; k++) {
            parts[i].l[k] = ls[i][k];
            parts[i].y[k] = must_alloc(LIST * 96 * sizeof(float));
        }
    run_parts(nn, parts, &rng);
    for (int i = 0; i < PARTS; i++)
        for (int k = 0; k < 2; k++) free(parts[i].y[k]);
    for (int i = 0; i < 4; i++) {
        free(mem[i]);
        close_gptq(&m[i]);
    }
    free((float *)plain[1].bias);
}

static void test_parts(void **state)
{
    each_nn(parts_body);
}

static void test_gptq(void **state)
{
    each_nn(gptq_body);
}

static void test_fp8(void **state)
{
    each_nn(fp8_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gptq), cmocka_unit_test(test_fp8),
                                       cmocka_unit_test(test_parts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
