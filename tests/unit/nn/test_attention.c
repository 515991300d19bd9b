/* Attention over the KV pool against the textbook in double precision, on every table: mixed batches,
 * windows, odd head sizes, split contexts; and bit for bit the same however rows are batched. */
#include "../kernel/kernel_test.h"

#include "nn/attention.h"

typedef struct setup {
    ash_kv_shape shape;
    int heads, seqs, tokens; /* tokens of each sequence */
    int32_t window;
    int threads;
} setup;

typedef struct fixture {
    setup s;
    ash_nn *nn;
    ash_kv *kv;
    int32_t *tables; /* [seqs][blocks] */
    int per_seq;
    float *q, *k, *v; /* [seqs * tokens][...], layer 1 */
    ash_row *rows;    /* [seqs * tokens] */
    int total;
} fixture;

/* x [n] as ASH_KV_Q8 keeps it. */
static void round_head(float *x, int n)
{
    float most = 0;
    for (int i = 0; i < n; i++) most = fmaxf(most, fabsf(x[i]));
    for (int i = 0; i < n; i++) x[i] = rintf(x[i] * (127 / most)) * (most / 127);
}

static void open_fixture(fixture *f, const setup *s, ash_cpu_level level)
{
    ash_err err = ASH_ERR_INIT;
    *f = (fixture){.s = *s};
    ash_nn_options o = {.level = level, .threads = s->threads, .max_rows = 4096, .max_in = 64,
                        .max_heads = s->heads, .max_head_dim = 576, .max_context = s->tokens};
    assert_int_equal(ash_nn_open(&o, &f->nn, &err), 0);
    f->per_seq = (s->tokens + 31) / 32;
    int blocks = f->per_seq * s->seqs;
    assert_int_equal(ash_kv_open(&s->shape, blocks, &f->kv, &err), 0);
    /* Blocks in a scattered order, full of NaN: what is not stored must not count. */
    f->tables = must_alloc((size_t)blocks * sizeof *f->tables);
    for (int i = 0; i < blocks; i++) {
        int32_t b = ash_kv_take(f->kv);
        f->tables[(i * 7 + 3) % blocks] = b;
        memset(ash_kv_block(f->kv, b), 0xff, (size_t)f->kv->block_bytes);
    }
    ash_rng r;
    ash_rng_init(&r, 99);
    f->total = s->seqs * s->tokens;
    f->q = rand_vector(&r, (int64_t)f->total * s->heads * s->shape.k_dim, 2);
    f->k = rand_vector(&r, (int64_t)f->total * s->shape.kv_heads * s->shape.k_dim, 2);
    f->v = rand_vector(&r, (int64_t)f->total * s->shape.kv_heads * s->shape.v_dim, 2);
    f->rows = must_alloc((size_t)f->total * sizeof *f->rows);
    for (int i = 0; i < f->total; i++)
        f->rows[i] = (ash_row){f->tables + i / s->tokens * f->per_seq, i % s->tokens};
    ash_kv_store(f->nn, f->kv, 1, f->rows, f->total, f->k, f->v);
    for (int i = 0; s->shape.type == ASH_KV_Q8 && i < f->total * s->shape.kv_heads; i++) {
        round_head(f->k + (int64_t)i * s->shape.k_dim, s->shape.k_dim);
        round_head(f->v + (int64_t)i * s->shape.v_dim, s->shape.v_dim);
    }
}

static void close_fixture(fixture *f)
{
    ash_kv_close(f->kv);
    ash_nn_close(f->nn);
    free(f->tables);
    free(f->q);
    free(f->k);
    free(f->v);
    free(f->rows);
}

/* Whether queries, keys and values are multiplied as bfloat16; a latent never is. */
static bool is_rounded(const fixture *f)
{
    return f->nn->k->span_act == ASH_ACT_BF16 && f->s.shape.type != ASH_KV_Q8 && !f->s.shape.v_in_k;
}

/* x as the kernel multiplies it. */
static double rounded(const fixture *f, float x)
{
    return (double)(is_rounded(f) ? ash_bf16_to_f32(ash_bf16_from_f32(x)) : x);
}

/* x as the pool holds it, and as the kernel multiplies that. */
static double kept(const fixture *f, float x)
{
    return rounded(f, f->s.shape.type != ASH_KV_F16 ? x : ash_f16_to_f32(ash_f16_from_f32(x)));
}

/* Component c of the value of a token (counted over all sequences). */
static double value_at(const fixture *f, int token, int kv, int c)
{
    const ash_kv_shape *s = &f->s.shape;
    int64_t head = (int64_t)token * s->kv_heads + kv;
    return kept(f, s->v_in_k ? f->k[head * s->k_dim + c] : f->v[head * s->v_dim + c]);
}

/* Component c of head h of row i; *size is the largest value that went into it. */
static double textbook(const fixture *f, int i, int h, int c, float scale, double *size)
{
    const ash_kv_shape *s = &f->s.shape;
    int seq = i / f->s.tokens * f->s.tokens, pos = i % f->s.tokens, kv = h / (f->s.heads / s->kv_heads);
    int lo = f->s.window && pos >= f->s.window ? pos - f->s.window + 1 : 0;
    double top = -(double)INFINITY, sum = 0, out = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int t = lo; t <= pos; t++) {
            const float *k = f->k + ((int64_t)(seq + t) * s->kv_heads + kv) * s->k_dim;
            const float *q = f->q + ((int64_t)i * f->s.heads + h) * s->k_dim;
            double dot = 0;
            for (int e = 0; e < s->k_dim; e++) dot += rounded(f, q[e]) * kept(f, k[e]);
            dot *= (double)scale;
            if (pass == 0) {
                top = fmax(top, dot);
                continue;
            }
            double p = exp(dot - top);
            sum += p;
            double v = value_at(f, seq + t, kv, c);
            out += p * v;
            *size = fmax(*size, fabs(v));
        }
    }
    return out / sum;
}

static void check_values(const fixture *f, const float *out, float scale)
{
    int dim = f->s.shape.v_dim;
    for (int i = 0; i < f->total; i += 1 + f->total / 40) {
        for (int h = 0; h < f->s.heads; h++) {
            int c = (i + 5 * h) % dim;
            double size = 0, want = textbook(f, i, h, c, scale, &size);
            double got = (double)out[((int64_t)i * f->s.heads + h) * dim + c];
            /* float sums of k_dim + tokens terms of size up to 4 k_dim scale and 2; weights of 8 bits are
             * off by up to 2^-9 of themselves, and their mean is taken off again */
            double bound = 3e-5 + (is_rounded(f) ? 2 * size / 512 : 0);
            if (f->s.shape.type == ASH_KV_Q8)
                bound = f->nn->k->level == ASH_CPU_SCALAR  ? 3e-5
                        : f->nn->k->span_q8                ? 3e-5 + 1e-4 * size /* weights of 16 bits */
                                                           : 1e-3 * size; /* all of half floats */
            if (!(fabs(got - want) <= bound))
                fail_msg("%s row %d head %d: %g, expected %g", f->nn->k->name, i, h, got, want);
        }
    }
}

static void run_setup(const setup *s, ash_cpu_level level)
{
    fixture f;
    open_fixture(&f, s, level);
    int width = s->heads * s->shape.v_dim, q_width = s->heads * s->shape.k_dim;
    size_t size = (size_t)f.total * (size_t)width * sizeof(float);
    float *all = must_alloc(size), *parts = must_alloc(size);
    ash_attention a = {.heads = s->heads, .scale = 0.1f, .window = s->window};
    ash_attention_run(f.nn, &a, f.kv, 1, f.rows, f.total, f.q, all);
    check_values(&f, all, a.scale);
    /* the same rows in pieces of other sizes, single ones included */
    for (int i = 0, n = 1; i < f.total; i += n, n = n % 9 + 1) {
        n = n < f.total - i ? n : f.total - i;
        ash_attention_run(f.nn, &a, f.kv, 1, f.rows + i, n, f.q + (int64_t)i * q_width,
                          parts + (int64_t)i * width);
    }
    assert_memory_equal(all, parts, size);
    free(all);
    free(parts);
    close_fixture(&f);
}

static void run_levels(const setup *s)
{
    for (int level = ASH_CPU_SCALAR; level <= (int)ash_cpu_get()->level; level++)
        run_setup(s, (ash_cpu_level)level);
}

static void test_shapes(void **state)
{
    static const setup all[] = {
        {{2, 3, 64, 64}, 9, 2, 70, 0, 2},   /* SmolLM2 */
        {{2, 1, 16, 16}, 1, 1, 5, 0, 1},    {{2, 2, 128, 128}, 8, 1, 140, 0, 3},
        {{2, 1, 24, 40}, 5, 3, 45, 0, 2},   /* no multiple of a register */
        {{2, 1, 192, 128}, 60, 1, 33, 0, 2}, /* more heads of one KV head than a tile holds */
        {{2, 2, 7, 5}, 2, 1, 40, 0, 2},
    };
    for (int i = 0; i < (int)(sizeof all / sizeof *all); i++) run_levels(&all[i]);
}

/* Values that are the beginning of their keys, as MLA keeps them: one head for all queries. The blocks
 * begin full of NaN, which a value of weight zero must not bring in. */
static void test_latent(void **state)
{
    static const setup all[] = {
        {{2, 1, 576, 512, ASH_KV_F16, true}, 16, 1, 35, 0, 2},  /* DeepSeek-V2-Lite */
        {{2, 1, 576, 512, ASH_KV_F16, true}, 128, 1, 9, 0, 3}, /* DeepSeek-V3 */
        {{2, 1, 40, 32, ASH_KV_F16, true}, 4, 2, 300, 0, 2},
        {{2, 2, 40, 40, ASH_KV_F16, true}, 6, 1, 133, 0, 2},
        {{2, 1, 71, 67, ASH_KV_F16, true}, 7, 3, 45, 0, 2}, /* no multiple of a register */
        {{2, 3, 3, 1, ASH_KV_F16, true}, 3, 1, 9, 0, 1},
        {{2, 1, 40, 32, ASH_KV_F16, true}, 5, 2, 300, 33, 2},
        {{2, 1, 72, 64, ASH_KV_F16, true}, 4, 1, 900, 0, 2}, /* single rows are split over the context */
    };
    for (int i = 0; i < (int)(sizeof all / sizeof *all); i++) run_levels(&all[i]);
}

/* Pools of floats are the reference's: without v_in_k and with. */
static void test_floats(void **state)
{
    static const setup all[] = {
        {{2, 3, 24, 40, ASH_KV_F32, false}, 9, 2, 150, 40, 2},
        {{2, 1, 40, 32, ASH_KV_F32, true}, 4, 2, 150, 0, 2},
    };
    assert_int_equal(ash_kernel_get(ASH_CPU_SCALAR)->kv, ASH_KV_F32);
    for (int i = 0; i < 2; i++) run_setup(&all[i], ASH_CPU_SCALAR);
}

static void test_bytes(void **state)
{
    static const setup all[] = {
        {{2, 3, 64, 64, ASH_KV_Q8, false}, 9, 2, 70, 0, 2},
        {{2, 2, 128, 128, ASH_KV_Q8, false}, 8, 1, 300, 0, 3},
        {{2, 1, 24, 40, ASH_KV_Q8, false}, 5, 3, 45, 0, 2},
        {{2, 1, 192, 128, ASH_KV_Q8, false}, 120, 1, 33, 0, 2},
        {{2, 1, 300, 20, ASH_KV_Q8, false}, 2, 1, 40, 0, 2}, /* more components than a query is turned in */
        {{2, 2, 7, 5, ASH_KV_Q8, false}, 2, 1, 40, 0, 2},
        {{2, 2, 32, 48, ASH_KV_Q8, false}, 4, 1, 900, 0, 2}, /* rows alone are split over the context */
        {{2, 1, 16, 16, ASH_KV_Q8, false}, 2, 2, 300, 33, 2},
    };
    for (int i = 0; i < (int)(sizeof all / sizeof *all); i++) run_levels(&all[i]);
}

/* A value that is not finite makes its readers' results NaN, as with half floats, and nothing else. */
static void test_bytes_of_nan(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        setup s = {{2, 1, 16, 16, ASH_KV_Q8, false}, 1, 1, 5, 0, 1};
        fixture f;
        float out[5 * 16];
        ash_attention a = {.heads = 1, .scale = 0.1f};
        open_fixture(&f, &s, ash_cpu_get()->level);
        f.k[3 * 16 + 2] = bad[i];
        ash_kv_store(f.nn, f.kv, 1, f.rows, f.total, f.k, f.v);
        ash_attention_run(f.nn, &a, f.kv, 1, f.rows, f.total, f.q, out);
        for (int c = 0; c < 16; c++) {
            assert_false(isnan(out[2 * 16 + c]));
            assert_true(isnan(out[3 * 16 + c]) && isnan(out[4 * 16 + c]));
        }
        close_fixture(&f);
    }
}

static void test_window(void **state)
{
    static const int32_t windows[] = {1, 2, 31, 32, 33, 127, 128, 129, 200};
    for (int i = 0; i < 9; i++) {
        setup s = {{2, 1, 16, 16}, 2, 2, 300, windows[i], 2};
        run_levels(&s);
    }
}

static void test_long(void **state)
{
    setup s = {{2, 2, 32, 32}, 4, 1, 900, 0, 2}; /* rows alone are split over the context */
    run_levels(&s);
}

static void test_pool(void **state)
{
    ash_kv_shape shape = {2, 3, 64, 32};
    assert_int_equal(ash_kv_block_bytes(&shape), 2 * 3 * (64 + 32) * 32 * 2);
    ash_kv_shape floats = {2, 3, 64, 32, ASH_KV_F32, false}, latent = {2, 3, 64, 32, ASH_KV_F16, true};
    assert_int_equal(ash_kv_block_bytes(&floats), 2 * 3 * (64 + 32) * 32 * 4);
    assert_int_equal(ash_kv_block_bytes(&latent), 2 * 3 * 64 * 32 * 2);
    ash_kv_shape bad[] = {{0, 1, 1, 1}, {1, -1, 1, 1}, {1, 1, 0, 1}, {1, 1, 1, 1 << 30},
                          {1, 1, 8, 9, ASH_KV_F16, true}};
    ash_kv_shape bytes = {2, 3, 62, 32, ASH_KV_Q8, false}, both = {2, 3, 64, 32, ASH_KV_Q8, true};
    assert_int_equal(ash_kv_block_bytes(&bytes), 2 * 3 * (64 + 4 + 32 + 4) * 32);
    assert_int_equal(ash_kv_block_bytes(&both), 0);
    for (int i = 0; i < 5; i++) assert_int_equal(ash_kv_block_bytes(&bad[i]), 0);
    ash_kv *kv;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_kv_open(&bad[0], 4, &kv, &err), ASH_EINVAL);
    assert_int_equal(ash_kv_open(&shape, 0, &kv, &err), ASH_EINVAL);
    assert_int_equal(ash_kv_open(&shape, 3, &kv, &err), 0);
    for (int i = 0; i < 3; i++) assert_int_equal(ash_kv_take(kv), i);
    assert_int_equal(ash_kv_take(kv), -1);
    memset(ash_kv_block(kv, 1), 7, (size_t)kv->block_bytes);
    ash_kv_copy(kv, 2, 1);
    assert_memory_equal(ash_kv_block(kv, 2), ash_kv_block(kv, 1), (size_t)kv->block_bytes);
    ash_kv_share(kv, 0);
    ash_kv_drop(kv, 0);
    assert_int_equal(kv->free, 0);
    ash_kv_drop(kv, 2);
    ash_kv_drop(kv, 0);
    assert_int_equal(kv->free, 2);
    assert_int_equal(ash_kv_take(kv), 0);
    assert_int_equal(ash_kv_take(kv), 2);
    ash_kv_close(kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_latent),
        cmocka_unit_test(test_floats),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_bytes_of_nan),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
