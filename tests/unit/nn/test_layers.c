/* Layers over a batch: matrices that share one run, bias, packing by pieces, slices; norm,
 * activation and rotation against their definitions; refusals. On every table, with one and several
 * threads. */
#include "../kernel/kernel_test.h"

#include "nn/act.h"
#include "nn/linear.h"
#include "nn/norm.h"
#include "nn/rope.h"
#include "quant/decode.h"

static ash_nn *open_nn(ash_cpu_level level, int threads)
{
    ash_err err = ASH_ERR_INIT;
    ash_nn_options o = {.level = level,
                        .threads = threads,
                        .max_rows = 70,
                        .max_in = 512,
                        .max_heads = 4,
                        .max_head_dim = 64,
                        .max_context = 256};
    ash_nn *nn;
    assert_int_equal(ash_nn_open(&o, &nn, &err), 0);
    return nn;
}

/* body(nn) for every level and 1 and 3 threads. */
static void each_nn(void (*body)(ash_nn *))
{
    for (int level = ASH_CPU_SCALAR; level <= (int)ash_cpu_get()->level; level++) {
        for (int threads = 1; threads <= 3; threads += 2) {
            ash_nn *nn = open_nn((ash_cpu_level)level, threads);
            body(nn);
            ash_nn_close(nn);
        }
    }
}

typedef struct matrix {
    ash_linear l;
    uint8_t *src;
    float *dense;
    void *mem;
} matrix;

static void open_matrix(matrix *m, ash_rng *r, ash_dtype t, int64_t out, int64_t in)
{
    uint64_t bytes, row;
    assert_int_equal(ash_linear_plan(&m->l, t, out, in, &bytes, NULL), 0);
    assert_int_equal(bytes % 64, 0);
    m->src = rand_tensor(r, t, out, in, 1);
    m->dense = must_alloc((size_t)(out * in) * 4);
    ash_quant_decode(t, m->src, out * in, m->dense);
    m->mem = must_alloc(bytes);
    ash_linear_bind(&m->l, m->mem);
    assert_true(ash_dtype_bytes(t, (uint64_t)in, &row));
    for (int64_t at = 0, n = 1; at < out; at += n, n = n % 7 + 1) {
        n = n < out - at ? n : out - at;
        ash_linear_pack(&m->l, m->src + at * (int64_t)row, at, n);
    }
}

static void close_matrix(matrix *m)
{
    free(m->src);
    free(m->dense);
    free(m->mem);
}

/* Relative to the product of the norms; int8 activations are the coarsest: half a step of 1/127 of
 * the largest of 32, which for uniform numbers is some 0.3 % of each element, and rows add up. */
static void check_rows_within(const matrix *m, const float *x, int n, const float *y, const float *bias,
                              double most)
{
    for (int i = 0; i < n; i++) {
        for (int64_t r = 0; r < m->l.w.rows; r++) {
            double sum = bias ? (double)bias[r] : 0, w2 = 0, x2 = 0;
            for (int64_t k = 0; k < m->l.w.cols; k++) {
                double w = (double)m->dense[r * m->l.w.cols + k],
                       v = (double)x[i * m->l.w.cols + k];
                sum += w * v;
                w2 += w * w;
                x2 += v * v;
            }
            assert_true(fabs((double)y[i * m->l.w.rows + r] - sum) <= most * sqrt(w2 * x2) + 1e-6);
        }
    }
}

static void check_rows(const matrix *m, const float *x, int n, const float *y, const float *bias)
{
    check_rows_within(m, x, n, y, bias, 0.03);
}

static void linear_body(ash_nn *nn)
{
    ash_rng rng;
    ash_rng_init(&rng, 3);
    matrix m[4];
    open_matrix(&m[0], &rng, ASH_DTYPE_Q4_1, 70, 320);
    open_matrix(&m[1], &rng, ASH_DTYPE_Q8_0, 16, 320); /* other types share the run */
    open_matrix(&m[2], &rng, ASH_DTYPE_BF16, 5, 320);
    open_matrix(&m[3], &rng, ASH_DTYPE_F32, 33, 320);
    float *x = rand_vector(&rng, 70 * 320, 1), *bias = rand_vector(&rng, 16, 100), *ys[4];
    m[1].l.bias = bias;
    for (int j = 0; j < 4; j++) ys[j] = must_alloc((size_t)m[j].l.w.rows * 70 * 4);
    const ash_linear *ls[4] = {&m[0].l, &m[1].l, &m[2].l, &m[3].l};
    static const int batches[] = {1, 2, 7, 33, 70};
    for (int b = 0; b < 5; b++) {
        ash_linear_run(nn, ls, 4, x, batches[b], ys);
        for (int j = 0; j < 4; j++) check_rows(&m[j], x, batches[b], ys[j], m[j].l.bias);
    }
    float row[320];
    for (int j = 0; j < 4; j++) {
        ash_linear_row(&m[j].l, m[j].l.w.rows - 1, row);
        assert_memory_equal(row, m[j].dense + (m[j].l.w.rows - 1) * 320, sizeof row);
        free(ys[j]);
        close_matrix(&m[j]);
    }
    free(x);
    free(bias);
}

/* In two terms int8 activations have 15 bits, beside matrices that take one; no row depends on others. */
static void two_terms_body(ash_nn *nn)
{
    enum { IN = 512, ROWS = 33, TYPES = 5 };
    static const ash_dtype types[TYPES] = {ASH_DTYPE_Q4_1, ASH_DTYPE_Q8_0, ASH_DTYPE_Q4_K, ASH_DTYPE_Q4_0,
                                           ASH_DTYPE_Q6_K};
    static const int64_t out[TYPES] = {70, 16, 5, 33, 48};
    ash_rng rng;
    ash_rng_init(&rng, 12);
    matrix m[TYPES];
    const ash_linear *ls[TYPES];
    float *x = rand_vector(&rng, ROWS * IN, 1), *bias = rand_vector(&rng, 70, 1), *ys[TYPES], *alone[TYPES];
    for (int j = 0; j < TYPES; j++) {
        open_matrix(&m[j], &rng, types[j], out[j], IN);
        m[j].l.terms = j != 3 ? ASH_TERMS_TWO : ASH_TERMS_ONE;
        ls[j] = &m[j].l;
        ys[j] = must_alloc((size_t)out[j] * ROWS * 4);
        alone[j] = must_alloc((size_t)out[j] * 4);
    }
    m[0].l.bias = bias;
    ash_linear_run(nn, ls, TYPES, x, ROWS, ys);
    for (int j = 0; j < TYPES; j++)
        check_rows_within(&m[j], x, ROWS, ys[j], m[j].l.bias, m[j].l.terms ? 1e-4 : 0.03);
    for (int i = 0; i < ROWS; i += 8) {
        ash_linear_run(nn, ls, TYPES, x + i * IN, 1, alone);
        for (int j = 0; j < TYPES; j++)
            assert_memory_equal(alone[j], ys[j] + i * out[j], (size_t)out[j] * 4);
    }
    for (int j = 0; j < TYPES; j++) {
        free(ys[j]);
        free(alone[j]);
        close_matrix(&m[j]);
    }
    free(x);
    free(bias);
}

/* The largest error of row i but for its value at `spike`, as a part of the largest it could be. */
static double beside_spike(const matrix *m, const float *x, int spike, const float *y)
{
    double worst = 0;
    for (int64_t r = 0; r < m->l.w.rows; r++) {
        double sum = 0, w2 = 0, x2 = 0;
        for (int64_t k = 0; k < m->l.w.cols; k++) {
            double w = (double)m->dense[r * m->l.w.cols + k], v = (double)x[k];
            sum += w * v;
            w2 += k == spike ? 0 : w * w;
            x2 += k == spike ? 0 : v * v;
        }
        double off = fabs((double)y[r] - sum) / sqrt(w2 * x2);
        worst = off > worst ? off : worst;
    }
    return worst;
}

/* One value far above all others costs those nothing: of rows that have one, where that is asked for. */
static void spikes_body(ash_nn *nn)
{
    enum { IN = 512, ROWS = 21, TYPES = 3, SPIKE = 77 };
    static const ash_dtype types[TYPES] = {ASH_DTYPE_Q4_1, ASH_DTYPE_Q8_0, ASH_DTYPE_Q8_0};
    static const int64_t out[TYPES] = {70, 37, 37};
    ash_rng rng;
    ash_rng_init(&rng, 13);
    matrix m[TYPES];
    const ash_linear *ls[TYPES];
    float *x = rand_vector(&rng, ROWS * IN, 1), *ys[TYPES], *alone[TYPES];
    for (int j = 0; j < TYPES; j++) {
        open_matrix(&m[j], &rng, types[j], out[j], IN);
        m[j].l.terms = j < 2 ? ASH_TERMS_SPIKES : ASH_TERMS_ONE;
        ls[j] = &m[j].l;
        ys[j] = must_alloc((size_t)out[j] * ROWS * 4);
        alone[j] = must_alloc((size_t)out[j] * 4);
    }
    for (int i = 0; i < ROWS; i++) /* rows 0, 6, 7, 13, 14, 20 */
        if (i % 7 == 0 || i % 7 == 6)
            x[i * IN + SPIKE] = 1000;
    ash_linear_run(nn, ls, TYPES, x, ROWS, ys);
    bool exact = nn->k->act[ASH_FORM_U8Z] != ASH_ACT_I8;
    for (int i = 0; i < ROWS; i++) {
        bool spiky = i % 7 == 0 || i % 7 == 6;
        for (int j = 0; j < TYPES; j++) {
            double off = beside_spike(&m[j], x + i * IN, spiky ? SPIKE : -1, ys[j] + i * out[j]);
            assert_true(off < 0.01 || (j == 2 && spiky));
            assert_true(exact || j < 2 || !spiky || off > 0.02); /* or the others would show nothing */
        }
        ash_linear_run(nn, ls, TYPES, x + i * IN, 1, alone);
        for (int j = 0; j < TYPES; j++)
            assert_memory_equal(alone[j], ys[j] + i * out[j], (size_t)out[j] * 4);
    }
    for (int j = 0; j < TYPES; j++) {
        free(ys[j]);
        free(alone[j]);
        close_matrix(&m[j]);
    }
    free(x);
}

/* FP8 with a scale for each 32 x 32; dense gets its values. */
static void open_fp8(matrix *m, ash_rng *r, int64_t out, int64_t in)
{
    uint64_t bytes;
    int64_t across = in / 32, n = (out + 31) / 32 * across;
    assert_int_equal(ash_linear_plan_fp8(&m->l, out, in, 32, 32, &bytes, NULL), 0);
    float *scales = rand_vector(r, n, 1);
    m->src = must_alloc((size_t)(out * in));
    for (int64_t i = 0; i < out * in; i++) m->src[i] = (uint8_t)(ash_rng_u64(r) & 0xbf); /* up to 2 */
    m->mem = must_alloc(bytes);
    ash_linear_bind(&m->l, m->mem);
    ash_linear_pack_fp8(&m->l, m->src, scales, 0, out);
    m->dense = must_alloc((size_t)(out * in) * 4);
    for (int64_t i = 0; i < out; i++) ash_linear_row(&m->l, i, m->dense + i * in);
    free(scales);
}

/* Where x is not to be rounded, matrices give what floats would, alone and by heads. */
static void check_fine(ash_nn *nn, bool fp8)
{
    enum { OUT = 40, IN = 96, ROWS = 9 };
    ash_rng rng;
    ash_rng_init(&rng, 8);
    matrix m[2];
    ash_linear heads[2];
    float *x = rand_vector(&rng, ROWS * 2 * IN, 1);
    static float y[ROWS * OUT], both[ROWS * 2 * OUT];
    for (int j = 0; j < 2; j++) {
        if (fp8)
            open_fp8(&m[j], &rng, OUT, IN);
        else
            open_matrix(&m[j], &rng, ASH_DTYPE_BF16, OUT, IN);
        m[j].l.fine = true;
        heads[j] = m[j].l;
    }
    ash_linear_run(nn, (const ash_linear *[]){&m[0].l}, 1, x, ROWS, (float *[]){y});
    ash_linear_run_each(nn, heads, 2, x, ROWS, both);
    for (int i = 0; i < ROWS; i++) {
        for (int r = 0; r < OUT; r++) {
            double sum = 0, each[2] = {0, 0};
            for (int k = 0; k < IN; k++) {
                sum += (double)m[0].dense[r * IN + k] * (double)x[i * IN + k];
                for (int j = 0; j < 2; j++)
                    each[j] += (double)m[j].dense[r * IN + k] * (double)x[(i * 2 + j) * IN + k];
            }
            assert_true(fabs((double)y[i * OUT + r] - sum) <= 1e-5);
            for (int j = 0; j < 2; j++)
                assert_true(fabs((double)both[(i * 2 + j) * OUT + r] - each[j]) <= 1e-5);
        }
    }
    for (int j = 0; j < 2; j++) close_matrix(&m[j]);
    free(x);
}

static void fine_body(ash_nn *nn)
{
    check_fine(nn, false);
    check_fine(nn, true);
}

/* A slice of the rows gives the same bits as the whole has there. */
static void slice_body(ash_nn *nn)
{
    ash_rng rng;
    ash_rng_init(&rng, 4);
    matrix m, part;
    open_matrix(&m, &rng, ASH_DTYPE_Q4_0, 96, 64);
    uint64_t bytes;
    assert_int_equal(ash_linear_plan(&part.l, ASH_DTYPE_Q4_0, 40, 64, &bytes, NULL), 0);
    part.mem = must_alloc(bytes);
    ash_linear_bind(&part.l, part.mem);
    ash_linear_pack(&part.l, m.src + 48 * 36, 0, 40);
    float *x = rand_vector(&rng, 3 * 64, 1), whole[3 * 96], sliced[3 * 40];
    const ash_linear *a = &m.l, *b = &part.l;
    ash_linear_run(nn, &a, 1, x, 3, (float *[]){whole});
    ash_linear_run(nn, &b, 1, x, 3, (float *[]){sliced});
    for (int i = 0; i < 3; i++) assert_memory_equal(whole + i * 96 + 48, sliced + i * 40, 40 * 4);
    free(x);
    free(part.mem);
    close_matrix(&m);
}

/* Matrices whose columns are in orders of their own, one filled up, in one run with one that is not:
 * each gives what it gives alone on activations that were put in its order before. */
static void order_body(ash_nn *nn)
{
    enum { N = 9, IN = 96, WIDE = 128 };
    static const ash_dtype types[4] = {ASH_DTYPE_Q8_0, ASH_DTYPE_Q4_1, ASH_DTYPE_Q4_0, ASH_DTYPE_Q8_0};
    ash_rng rng;
    ash_rng_init(&rng, 8);
    matrix m[4];
    int32_t wide[WIDE], back[IN], copy[IN];
    for (int c = 0; c < WIDE; c++) wide[c] = c % 4 == 3 ? -1 : c * 7 % IN;
    for (int c = 0; c < IN; c++) copy[c] = back[c] = IN - 1 - c;
    const int32_t *perms[4] = {wide, NULL, back, copy};
    const ash_linear *ls[4];
    float *x = rand_vector(&rng, N * IN, 1), *ordered = must_alloc(N * WIDE * 4), *ys[4];
    for (int j = 0; j < 4; j++) {
        open_matrix(&m[j], &rng, types[j], 40, j ? IN : WIDE);
        m[j].l.in = IN;
        m[j].l.perm = perms[j];
        ls[j] = &m[j].l;
        ys[j] = must_alloc(N * 40 * 4);
    }
    for (int shared = 0; shared < 2; shared++) {
        ash_linear_run(nn, ls, 4, x, N, ys);
        for (int j = 0; j < 4; j++) {
            int64_t cols = m[j].l.w.cols;
            for (int i = 0; i < N; i++)
                for (int64_t c = 0; c < cols; c++) {
                    int64_t at = perms[j] ? perms[j][c] : c;
                    ordered[i * cols + c] = at < 0 ? 0 : x[i * IN + at];
                }
            ash_linear plain = m[j].l;
            const ash_linear *one = &plain;
            plain.in = cols;
            plain.perm = NULL;
            float alone[N * 40];
            ash_linear_run(nn, &one, 1, ordered, N, (float *[]){alone});
            assert_memory_equal(alone, ys[j], sizeof alone);
        }
        ash_linear_share((ash_linear *[]){&m[0].l, &m[1].l, &m[2].l, &m[3].l}, 4);
        assert_ptr_equal(m[3].l.perm, back);
        assert_ptr_equal(m[0].l.perm, wide);
        assert_null(m[1].l.perm);
    }
    for (int j = 0; j < 4; j++) {
        free(ys[j]);
        close_matrix(&m[j]);
    }
    free(ordered);
    free(x);
}

/* Pieces of a row, each by its own matrix: the bits of runs of their own. More pieces than the
 * conversion has room for at once. */
static void each_body(ash_nn *nn)
{
    static const ash_dtype types[] = {ASH_DTYPE_F32, ASH_DTYPE_BF16, ASH_DTYPE_F16, ASH_DTYPE_Q8_0,
                                      ASH_DTYPE_Q6_K};
    enum { HEADS = 7, IN = 256, OUT = 24, N = 70 };
    ash_rng rng;
    ash_rng_init(&rng, 9);
    float *x = rand_vector(&rng, N * HEADS * IN, 1), *y = must_alloc(N * HEADS * OUT * 4);
    float *piece = must_alloc(N * IN * 4), *want = must_alloc(N * OUT * 4);
    float *bias = rand_vector(&rng, OUT, 1);
    for (int t = 0; t < 5; t++) {
        matrix m[HEADS];
        ash_linear ls[HEADS];
        for (int h = 0; h < HEADS; h++) {
            open_matrix(&m[h], &rng, types[t], OUT, IN);
            ls[h] = m[h].l;
            ls[h].bias = h == 2 ? bias : NULL;
        }
        for (int n = 1; n <= N; n += 23) {
            ash_linear_run_each(nn, ls, HEADS, x, n, y);
            for (int h = 0; h < HEADS; h++) {
                const ash_linear *one = &ls[h];
                for (int i = 0; i < n; i++)
                    memcpy(piece + i * IN, x + (i * HEADS + h) * IN, IN * 4);
                ash_linear_run(nn, &one, 1, piece, n, (float *[]){want});
                for (int i = 0; i < n; i++)
                    assert_memory_equal(want + i * OUT, y + (i * HEADS + h) * OUT, OUT * 4);
            }
        }
        for (int h = 0; h < HEADS; h++) close_matrix(&m[h]);
    }
    free(bias);
    free(want);
    free(piece);
    free(y);
    free(x);
}

static void norm_body(ash_nn *nn)
{
    ash_rng rng;
    ash_rng_init(&rng, 5);
    enum { N = 70, DIM = 300 };
    float *x = rand_vector(&rng, N * DIM, 3), *d = rand_vector(&rng, N * DIM, 1),
          *w = rand_vector(&rng, DIM, 1);
    float *y = must_alloc(N * DIM * 4), *sum = must_alloc(N * DIM * 4);
    memcpy(sum, x, N * DIM * 4);
    ash_norm_rms_add(nn, y, sum, d, w, N, DIM, 1e-5f);
    for (int i = 0; i < N; i++) {
        double square = 0;
        for (int k = i * DIM; k < (i + 1) * DIM; k++) {
            assert_true(sum[k] == x[k] + d[k]);
            square += (double)sum[k] * (double)sum[k];
        }
        for (int k = 0; k < DIM; k++) {
            double want = (double)sum[i * DIM + k] / sqrt(square / DIM + 1e-5) * (double)w[k];
            assert_true(fabs((double)y[i * DIM + k] - want) <= 1e-5 * fabs(want) + 1e-7);
        }
    }
    ash_norm_add(nn, x, d, N, DIM);
    assert_memory_equal(x, sum, N * DIM * 4);
    ash_norm_rms(nn, x, x, w, N, DIM, 1e-5f);
    assert_memory_equal(x, y, N * DIM * 4);
    ash_act_silu_mul(nn, x, d, N, DIM);
    for (int k = 0; k < N * DIM; k++) {
        double g = (double)y[k], want = g / (1 + exp(-g)) * (double)d[k];
        assert_true(fabs((double)x[k] - want) <= 1e-5 * fabs(want) + 1e-7);
    }
    free(x);
    free(d);
    free(w);
    free(y);
    free(sum);
}

static void rope_body(ash_nn *nn)
{
    for (int pairs = 0; pairs < 2; pairs++) {
        ash_rope_options o = {
            .pairs = (ash_rope_pairs)pairs, .dims = 12, .head_dim = 16, .base = 10000};
        ash_rope r;
        assert_int_equal(ash_rope_init(&r, &o, NULL), 0);
        ash_rng rng;
        ash_rng_init(&rng, 6);
        enum { N = 40, HEADS = 3 };
        float *x = rand_vector(&rng, N * HEADS * 16, 1), *y = must_alloc(N * HEADS * 16 * 4),
              cs[N * 12];
        int32_t pos[N];
        for (int i = 0; i < N; i++) pos[i] = i * 37;
        memcpy(y, x, N * HEADS * 16 * 4);
        ash_rope_angles(&r, pos, N, cs);
        ash_rope_run(nn, &r, cs, y, N, HEADS);
        for (int i = 0; i < N * HEADS; i++) {
            for (int j = 0; j < 6; j++) {
                double a = pos[i / HEADS] * pow(10000, -2.0 * j / 12);
                int p = i * 16 + (pairs == ASH_ROPE_ADJACENT ? 2 * j : j);
                int q = i * 16 + (pairs == ASH_ROPE_ADJACENT ? 2 * j + 1 : j + 6);
                /* a float angle of up to 1,443 radians is off by up to 6e-5 */
                assert_true(fabs((double)y[p] - ((double)x[p] * cos(a) - (double)x[q] * sin(a))) <
                            2e-4);
                assert_true(fabs((double)y[q] - ((double)x[p] * sin(a) + (double)x[q] * cos(a))) <
                            2e-4);
            }
            assert_memory_equal(y + i * 16 + 12, x + i * 16 + 12,
                                16); /* the rest of a head stays */
        }
        free(x);
        free(y);
        ash_rope_release(&r);
    }
}

static void test_order(void **state)
{
    each_nn(order_body);
}

static void test_each(void **state)
{
    each_nn(each_body);
}

static void test_linear(void **state)
{
    each_nn(linear_body);
}
static void test_two_terms(void **state)
{
    each_nn(two_terms_body);
}

static void test_spikes(void **state)
{
    each_nn(spikes_body);
}

static void test_fine(void **state)
{
    each_nn(fine_body);
}

static void test_slice(void **state)
{
    each_nn(slice_body);
}
static void test_norm(void **state)
{
    each_nn(norm_body);
}
static void test_rope(void **state)
{
    each_nn(rope_body);
}

static float freq_of(const ash_rope_options *o, int i, float *factor)
{
    ash_rope r;
    ash_err err = ASH_ERR_INIT;
    if (ash_rope_init(&r, o, &err)) fail_msg("%s", err.msg);
    float f = r.freq[i];
    if (factor) *factor = r.factor;
    ash_rope_release(&r);
    return f;
}

/* Values from transformers 5.23 modeling_rope_utils (see tests/golden/nn/rope.py). */
static void test_scalings(void **state)
{
    static const double golden[][4] = {
#include "rope_golden.inc"
    };
    ash_rope_options o = {.dims = 64,
                          .head_dim = 64,
                          .base = 500000,
                          .factor = 8,
                          .low_freq = 1,
                          .high_freq = 4,
                          .original_context = 8192,
                          .beta_fast = 32,
                          .beta_slow = 1};
    for (int i = 0; i < 32; i++) {
        for (int s = 0; s < 4; s++) {
            o.scaling = (ash_rope_scaling)s;
            double want = golden[i][s], got = (double)freq_of(&o, i, NULL);
            if (!(fabs(got - want) <= 1e-6 * want))
                fail_msg("scaling %d, frequency %d: %g, expected %g", s, i, got, want);
        }
    }
    float factor, divisors[32];
    for (int i = 0; i < 32; i++) divisors[i] = (float)(i + 1);
    o.scaling = ASH_ROPE_NONE;
    float plain = freq_of(&o, 5, &factor);
    assert_true(factor == 1);
    o.freq_factors = divisors;
    assert_true(fabsf(freq_of(&o, 5, NULL) - plain / 6) <= 1e-7f * plain);
    o.freq_factors = NULL;
    o.scaling = ASH_ROPE_YARN;
    freq_of(&o, 0, &factor);
    assert_true(fabs((double)factor - (0.1 * log(8) + 1)) < 1e-6);
    o.attention_factor = 0.5;
    freq_of(&o, 0, &factor);
    assert_true(factor == 0.5f);
}

static void test_refusals(void **state)
{
    static const ash_rope_options good = {.dims = 8,
                                          .head_dim = 8,
                                          .base = 10000,
                                          .scaling = ASH_ROPE_YARN,
                                          .factor = 2,
                                          .original_context = 64,
                                          .beta_fast = 32,
                                          .beta_slow = 1};
    ash_rope r;
    ash_err err = ASH_ERR_INIT;
    ash_rope_options bad[8];
    for (int i = 0; i < 8; i++) bad[i] = good;
    bad[0].dims = 7;
    bad[1].dims = 10;
    bad[2].base = (double)NAN;
    bad[3].base = 1;
    bad[4].factor = 0.5;
    bad[5].factor = (double)INFINITY;
    bad[6].beta_slow = 64;
    bad[7].original_context = 0;
    for (int i = 0; i < 8; i++) assert_int_equal(ash_rope_init(&r, &bad[i], &err), ASH_EINVAL);
    ash_linear l;
    uint64_t bytes;
    assert_int_equal(ash_linear_plan(&l, ASH_DTYPE_Q8_K, 16, 256, &bytes, &err), ASH_EUNSUPPORTED);
    assert_non_null(strstr(err.msg, "Q8_K"));
    assert_int_equal(ash_linear_plan(&l, (ash_dtype)999, 16, 256, &bytes, &err), ASH_EUNSUPPORTED);
    assert_int_equal(ash_linear_plan(&l, ASH_DTYPE_Q4_0, 16, 33, &bytes, &err), ASH_EINVAL);
    assert_int_equal(ash_linear_plan(&l, ASH_DTYPE_F32, INT64_MAX / 8, 1 << 20, &bytes, &err),
                     ASH_EINVAL);
    ash_nn_options o = {
        .max_rows = 1, .max_in = 1, .max_heads = 1, .max_head_dim = 1, .max_context = 1};
    for (int i = 0; i < 6; i++) {
        ash_nn *nn;
        ash_nn_options b = o;
        *(int *[]){&b.max_rows, &b.max_heads, &b.max_head_dim, &b.threads}[i % 4] =
            i < 4 ? -1 : 1 << 20;
        assert_int_equal(ash_nn_open(&b, &nn, &err), ASH_EINVAL);
        assert_null(nn);
    }
    assert_true(ash_nn_bytes(&o) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),   cmocka_unit_test(test_slice),
        cmocka_unit_test(test_order),    cmocka_unit_test(test_each),
        cmocka_unit_test(test_two_terms),
        cmocka_unit_test(test_spikes),
        cmocka_unit_test(test_fine),     cmocka_unit_test(test_norm),     cmocka_unit_test(test_rope),
        cmocka_unit_test(test_scalings), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
