/* Every table's matmul on every type against the plain definition, with bounds that follow from the
 * rounding of the activations, and bit for bit the same whatever the batch. */
#include "amx_emulator.h"
#include "kernel_test.h"

#include "kernel/kernel.h"
#include "quant/decode.h"

static const ash_dtype types[] = {
    ASH_DTYPE_F32,     ASH_DTYPE_F16,    ASH_DTYPE_BF16,  ASH_DTYPE_F64,     ASH_DTYPE_Q4_0,
    ASH_DTYPE_Q4_1,    ASH_DTYPE_Q8_0,   ASH_DTYPE_Q5_0,  ASH_DTYPE_Q5_1,    ASH_DTYPE_Q2_K,
    ASH_DTYPE_Q3_K,    ASH_DTYPE_Q4_K,   ASH_DTYPE_Q5_K,  ASH_DTYPE_Q6_K,    ASH_DTYPE_IQ1_S,
    ASH_DTYPE_IQ1_M,   ASH_DTYPE_IQ2_XXS, ASH_DTYPE_IQ2_XS, ASH_DTYPE_IQ2_S, ASH_DTYPE_IQ3_XXS,
    ASH_DTYPE_IQ3_S,   ASH_DTYPE_IQ4_NL, ASH_DTYPE_IQ4_XS, ASH_DTYPE_MXFP4,  ASH_DTYPE_NVFP4,
    ASH_DTYPE_TQ1_0,   ASH_DTYPE_TQ2_0,  ASH_DTYPE_Q1_0,  ASH_DTYPE_Q2_0};
enum { TYPES = sizeof types / sizeof *types };

typedef struct fixture {
    ash_packed w;
    uint8_t *src;
    float *dense; /* [rows, cols] */
    ash_act a;    /* every form */
    bool exact;   /* the activations are whole numbers of their blocks' steps */
} fixture;

static void open_act(const ash_kernel *k, ash_act *a, const float *x, int64_t n, int64_t cols)
{
    int64_t ld = (cols + 63) / 64 * 64, nb = ld / 32;
    *a = (ash_act){.n = n, .cols = cols, .ldx = cols, .ld = ld, .x = x, .h = must_alloc((size_t)(n * ld * 2)),
                   .q = must_alloc((size_t)(n * ld)), .d = must_alloc((size_t)(n * nb * 4)),
                   .ds = must_alloc((size_t)(n * nb * 4)), .ns = must_alloc((size_t)(n * nb * 4)),
                   .hs = must_alloc((size_t)(n * nb * 4))};
    for (int64_t i = 0; i < n; i++) {
        k->to_bf16(x + i * cols, cols, a->h + i * ld);
        if (cols % 32 == 0)
            k->quantise(x + i * cols, cols, a->q + i * ld, a->d + i * nb, a->ds + i * nb, a->ns + i * nb);
        if (cols % 32 == 0 && k->half_sums)
            k->half_sums(a->q + i * ld, cols, a->hs + i * nb);
    }
}

static void close_act(ash_act *a)
{
    free(a->h);
    free(a->q);
    free(a->d);
    free(a->ds);
    free(a->ns);
    free(a->hs);
}

static void open_weights(fixture *f, ash_rng *r, ash_dtype t, int64_t rows, int64_t cols, float scale)
{
    assert_true(ash_pack_plan(&f->w, t, rows, cols));
    f->src = rand_tensor(r, t, rows, cols, scale);
    f->dense = must_alloc((size_t)(rows * cols) * 4);
    ash_quant_decode(t, f->src, rows * cols, f->dense);
    f->w.data = must_alloc((size_t)(f->w.groups * f->w.group_bytes));
    memset(f->w.data, 0xff, (size_t)(f->w.groups * f->w.group_bytes));
    ash_pack_rows(&f->w, f->src, 0, rows);
}

static void close_weights(fixture *f)
{
    free(f->src);
    free(f->dense);
    free(f->w.data);
}

/* The largest value that the kernel's own terms may reach at an element, quants and minima apart: what
 * float rounding is relative to. Quants and minima, and quants with a zero point of at most 128, are
 * together within 16 times the largest element of a random block. */
static double block_size(const fixture *f, int64_t row, int64_t k)
{
    int64_t block = ash_dtype_get(f->w.dtype)->block;
    const float *w = f->dense + row * f->w.cols + k / block * block;
    if (block == 1)
        return fabs((double)w[0]);
    double top = 0;
    for (int64_t i = 0; i < block; i++) top = fmax(top, fabs((double)w[i]));
    return 16 * top;
}

/* Columns in blocks of t, for so many blocks of 32. */
static int64_t columns(ash_dtype t, int64_t cols)
{
    int64_t block = ash_dtype_get(t)->block;
    return block > 32 ? cols * (block / 32) : cols;
}

/* Exact product and the bound on what a kernel that rounds activations as `form` says may be off:
 * int8: half a step of the block's scale per element; bfloat16: 2^-9 of the element; and the float
 * rounding of a chain of `cols` operations on the terms' sizes. */
static double expect(const fixture *f, ash_act_form form, int64_t row, int64_t i, double *bound)
{
    const float *x = f->a.x + i * f->w.cols, *w = f->dense + row * f->w.cols;
    int64_t block = ash_dtype_get(f->w.dtype)->block;
    double sum = 0, noise = 0, size = 0, top = 0;
    for (int64_t k = 0; k < f->w.cols; k++) {
        if (k % block == 0)
            top = block_size(f, row, k);
        sum += (double)w[k] * (double)x[k];
        size += top * fabs((double)x[k]);
        if (form == ASH_ACT_I8 && !f->exact)
            noise += fabs((double)w[k]) * 0.5001 * (double)f->a.d[i * f->a.ld / 32 + k / 32];
        else if (form == ASH_ACT_BF16)
            noise += fabs((double)w[k] * (double)x[k]) * 0x1p-8;
    }
    *bound = noise + 0x1p-23 * (double)(f->w.cols + 8) * size + 1e-35;
    return sum;
}

static void check_product(const ash_kernel *k, const fixture *f, const float *y, int64_t ldy)
{
    for (int64_t i = 0; i < f->a.n; i++) {
        for (int64_t r = 0; r < f->w.rows; r++) {
            double bound, want = expect(f, k->act[f->w.form], r, i, &bound);
            double got = (double)y[i * ldy + r];
            if (!(fabs(got - want) <= bound))
                fail_msg("%s %s [%d,%d] batch %d: y[%d,%d] = %g, expected %g +- %g", k->name,
                         ash_dtype_get(f->w.dtype)->name, (int)f->w.rows, (int)f->w.cols, (int)f->a.n,
                         (int)i, (int)r, got, want, bound);
        }
    }
}

/* x in whole steps of xscale, 127 of them in every block of 32. */
static void make_exact(ash_rng *rng, float *x, int64_t n, float xscale)
{
    for (int64_t i = 0; i < n; i++) {
        int v = i % 32 == 5 ? 127 : (int)(ash_rng_u64(rng) % 255) - 127;
        x[i] = (float)(v == 127 && i % 64 < 32 ? -127 : v) * xscale;
    }
}

static void run_case(const ash_kernel *k, ash_dtype t, int64_t rows, int64_t cols, int n, float wscale,
                     float xscale, bool exact)
{
    cols = columns(t, cols);
    ash_rng rng;
    ash_rng_init(&rng, (uint64_t)(rows * 1000003 + cols * 101 + n) * 64 + t);
    fixture f = {.exact = exact};
    open_weights(&f, &rng, t, rows, cols, wscale);
    float *x = rand_vector(&rng, n * cols, xscale);
    if (exact)
        make_exact(&rng, x, n * cols, xscale);
    open_act(k, &f.a, x, n, cols);
    int64_t ldy = rows + 3;
    size_t size = (size_t)(n * ldy) * sizeof(float);
    float *y = must_alloc(size), *z = must_alloc(size);
    void *scratch = must_alloc((size_t)ash_kernel_scratch(k, cols));
    memset(y, 0x7f, size);
    memset(z, 0x7f, size);
    k->matmul[f.w.form](&f.w, &f.a, 0, f.w.groups, y, ldy, scratch);
    check_product(k, &f, y, ldy);
    /* one row and one group at a time: the same bits, and nothing written beyond the rows */
    for (int i = 0; i < n; i++) {
        ash_act one;
        open_act(k, &one, x + i * cols, 1, cols);
        for (int64_t g = 0; g < f.w.groups; g++)
            k->matmul[f.w.form](&f.w, &one, g, g + 1, z + i * ldy, ldy, scratch);
        close_act(&one);
    }
    assert_memory_equal(y, z, size);
    free(scratch);
    free(y);
    free(z);
    free(x);
    close_act(&f.a);
    close_weights(&f);
}

static void all_variants(ash_dtype t, int64_t rows, int64_t cols, int n, float ws, float xs)
{
    const ash_kernel *k;
    for (int v = 0; (k = amx_test_variant(v)); v++) run_case(k, t, rows, cols, n, ws, xs, false);
}

/* The largest quants times the largest activations, all of one sign or not: no sum may saturate. */
static void test_extremes(void **state)
{
    enum { ROWS = 16, N = 2 };
    const ash_kernel *k;
    for (int v = 0; (k = amx_test_variant(v)); v++) {
        for (int t = 4; t < TYPES * 4; t++) {
            ash_dtype type = types[t / 4];
            int64_t cols = columns(type, 64), size = ash_dtype_get(type)->block_bytes;
            ash_rng rng;
            ash_rng_init(&rng, 9);
            fixture f = {.exact = true};
            open_weights(&f, &rng, type, ROWS, cols, 1);
            int64_t blocks = f.w.cols / ash_dtype_get(type)->block * ROWS;
            memset(f.src, t % 2 ? 0xff : 0, (size_t)(blocks * size));
            for (int64_t b = 0; b < blocks; b++) rand_scales(&rng, type, f.src + b * size, 1);
            ash_quant_decode(type, f.src, ROWS * cols, f.dense);
            ash_pack_rows(&f.w, f.src, 0, ROWS);
            float *x = must_alloc((size_t)(N * cols) * 4), y[N * ROWS];
            for (int64_t i = 0; i < N * cols; i++) x[i] = t / 2 % 2 && i / 4 % 2 ? -127.0f : 127.0f;
            open_act(k, &f.a, x, N, cols);
            void *scratch = must_alloc((size_t)ash_kernel_scratch(k, cols));
            k->matmul[f.w.form](&f.w, &f.a, 0, 1, y, ROWS, scratch);
            check_product(k, &f, y, ROWS);
            free(scratch);
            free(x);
            close_act(&f.a);
            close_weights(&f);
        }
    }
}

/* Where nothing is lost by rounding activations, nothing else is. */
static void test_exact(void **state)
{
    const ash_kernel *k;
    for (int v = 0; (k = amx_test_variant(v)); v++)
        for (int t = 0; t < TYPES; t++)
            for (int n = 1; n <= 7; n += 3) run_case(k, types[t], 40, 64, n, 1, 0.25f, true);
}

static void test_shapes(void **state)
{
    static const int64_t rows[] = {1, 15, 16, 17, 31, 33, 50, 100}, cols[] = {32, 64, 96, 288};
    for (int t = 0; t < TYPES; t++)
        for (int i = 0; i < 8; i++)
            for (int j = 0; j < 4; j++) all_variants(types[t], rows[i], cols[j], 1 + (i + j) % 5, 1, 1);
}

static void test_batches(void **state)
{
    for (int t = 0; t < TYPES; t++)
        for (int n = 1; n <= 40; n++) all_variants(types[t], 40, t < 7 ? 96 : 32, n, 0.1f, 3);
}

/* Rows whose sums are kept in memory in between, and many rows where few are multiplied in another way. */
static void test_long_rows(void **state)
{
    for (int t = 0; t < TYPES; t++) {
        int64_t block = ash_dtype_get(types[t])->block, cols = block == 256 ? 32 * 17 : 256 * 17;
        all_variants(types[t], 17, cols, t < 7 ? 2 : 27, 1, 1);
        all_variants(types[t], 33, 96, 29, 1, 1);
        all_variants(types[t], 17, 64, 100, 1, 1);
    }
}

static void test_odd_columns(void **state)
{
    static const ash_dtype plain[] = {ASH_DTYPE_F32, ASH_DTYPE_F16, ASH_DTYPE_BF16};
    for (int t = 0; t < 3; t++)
        for (int cols = 1; cols <= 37; cols += 3) all_variants(plain[t], 19, cols, 1 + cols % 7, 1, 1);
}

static void test_scales(void **state)
{
    static const float scales[][2] = {{1e-4f, 1e-6f}, {3e-3f, 1e30f}, {1000, 1e-30f}, {100, 1e4f}};
    for (int t = 0; t < TYPES; t++)
        for (int s = 0; s < 4; s++) all_variants(types[t], 33, 128, 3, scales[s][0], scales[s][1]);
}

/* Activations that are no numbers give no number in their own row, and leave the others alone. */
static void test_not_finite(void **state)
{
    const float bad[] = {NAN, INFINITY, -INFINITY};
    const ash_kernel *k;
    for (int v = 0; (k = amx_test_variant(v)); v++) {
        for (int t = 0; t < TYPES * 3; t++) {
            ash_rng rng;
            ash_rng_init(&rng, 7);
            fixture f = {0};
            int64_t cols = columns(types[t % TYPES], 64);
            open_weights(&f, &rng, types[t % TYPES], 16, cols, 1);
            float *x = rand_vector(&rng, 3 * cols, 1), y[3 * 16];
            x[cols + 40] = bad[t / TYPES];
            open_act(k, &f.a, x, 3, cols);
            void *scratch = must_alloc((size_t)ash_kernel_scratch(k, cols));
            k->matmul[f.w.form](&f.w, &f.a, 0, 1, y, 16, scratch);
            for (int i = 0; i < 48; i++)
                if (i / 16 != 1)
                    assert_true(isfinite(y[i]));
                else if (f.dense[i % 16 * cols + 40] != 0)
                    assert_false(isfinite(y[i]));
            free(scratch);
            free(x);
            close_act(&f.a);
            close_weights(&f);
        }
    }
}

/* Packing in pieces and in any order gives the same bytes; rows come back bit for bit. */
static void test_packing(void **state)
{
    for (int t = 0; t < TYPES; t++) {
        ash_rng rng;
        ash_rng_init(&rng, (uint64_t)t + 1);
        fixture f = {0};
        int64_t rows = 37, cols = columns(types[t], 160);
        open_weights(&f, &rng, types[t], rows, cols, 1);
        size_t bytes = (size_t)(f.w.groups * f.w.group_bytes);
        ash_packed w = f.w;
        w.data = must_alloc(bytes);
        memset(w.data, 0xaa, bytes);
        uint64_t stride;
        assert_true(ash_dtype_bytes(types[t], (uint64_t)cols, &stride));
        for (int64_t row = rows - 1; row >= 0; row--)
            ash_pack_rows(&w, f.src + row * (int64_t)stride, row, 1);
        assert_memory_equal(w.data, f.w.data, bytes);
        float *y = must_alloc((size_t)(ASH_GROUP * cols) * sizeof *y);
        for (int64_t row = 0; row < rows; row++) {
            ash_pack_row_decode(&f.w, row, y);
            assert_memory_equal(y, f.dense + row * cols, (size_t)cols * sizeof *y);
        }
        ash_pack_group_decode(&f.w, 2, y);
        for (int64_t i = 5 * cols; i < ASH_GROUP * cols; i++) assert_true(y[i] == 0);
        free(y);
        free(w.data);
        close_weights(&f);
    }
}

static void test_plan(void **state)
{
    ash_packed w;
    assert_true(ash_pack_plan(&w, ASH_DTYPE_Q4_1, 576, 1536));
    assert_int_equal(w.groups * w.group_bytes, 576 * 1536 / 32 * 20); /* no byte more than the file */
    assert_false(ash_pack_plan(&w, ASH_DTYPE_Q4_1, 576, 1537));
    assert_false(ash_pack_plan(&w, ASH_DTYPE_Q4_1, 0, 1536));
    assert_false(ash_pack_plan(&w, ASH_DTYPE_Q4_1, 16, -32));
    for (int t = 0; t < TYPES; t++) { /* whole groups are no byte more than the file, but F64's */
        uint64_t bytes;
        int64_t cols = columns(types[t], 96);
        assert_true(ash_pack_plan(&w, types[t], 48, cols));
        assert_true(ash_dtype_bytes(types[t], (uint64_t)(48 * cols), &bytes));
        assert_int_equal(w.groups * w.group_bytes, types[t] == ASH_DTYPE_F64 ? bytes / 2 : bytes);
        assert_false(ash_pack_plan(&w, types[t], INT64_MAX / 64, cols * 10000));
    }
    assert_false(ash_pack_plan(&w, ASH_DTYPE_Q4_K, 16, 128));
    assert_false(ash_pack_plan(&w, ASH_DTYPE_I64, 16, 32));
    assert_false(ash_pack_plan(&w, ASH_DTYPE_Q8_K, 16, 256));
    assert_false(ash_pack_plan(&w, ASH_DTYPE_F32, INT64_MAX / 64, INT64_MAX / 64));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan),       cmocka_unit_test(test_packing),
        cmocka_unit_test(test_shapes),     cmocka_unit_test(test_batches),
        cmocka_unit_test(test_long_rows),   cmocka_unit_test(test_odd_columns), cmocka_unit_test(test_scales),
        cmocka_unit_test(test_exact),      cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
