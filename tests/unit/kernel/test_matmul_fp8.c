/* FP8 with block scales: rows come back bit for bit, packed whole or by single rows; every table's product
 * keeps to the bound of float rounding, and of activations rounded to bfloat16 where it takes those, and to
 * the same bits in any batch; NaN stays in its row. */
#include "kernel_test.h"

#include "kernel/kernel.h"
#include "kernel/pack_fp8.h"
#include "quant/fp8.h"

typedef struct fixture {
    ash_packed w;
    int64_t block_out;
    uint8_t *src;
    float *scales, *dense;
} fixture;

static void open_weights(fixture *f, ash_rng *r, int64_t rows, int64_t cols, int64_t bo, int64_t bi)
{
    int64_t across = (cols + bi - 1) / bi, n_scales = (rows + bo - 1) / bo * across;
    f->block_out = bo;
    f->src = must_alloc((size_t)(rows * cols));
    f->scales = rand_vector(r, n_scales, 2);
    f->dense = must_alloc((size_t)(rows * cols) * 4);
    for (int64_t i = 0; i < rows * cols; i++) {
        do
            f->src[i] = (uint8_t)ash_rng_u64(r);
        while ((f->src[i] & 0x7f) == 0x7f);
        f->dense[i] = ash_fp8_to_f32(f->src[i]) * f->scales[i / cols / bo * across + i % cols / bi];
    }
    assert_true(ash_pack_fp8_plan(&f->w, rows, cols, bo, bi));
    size_t bytes = (size_t)(f->w.groups * f->w.group_bytes);
    f->w.data = memset(must_alloc(bytes), 0xff, bytes);
    ash_pack_fp8_rows(&f->w, bo, f->src, f->scales, 0, rows);
}

static void close_weights(fixture *f)
{
    free(f->src);
    free(f->scales);
    free(f->dense);
    free(f->w.data);
}

static void check_rows(const fixture *f)
{
    const ash_packed *w = &f->w;
    float *y = must_alloc((size_t)(w->cols * ASH_GROUP) * 4);
    ash_packed again = *w;
    size_t bytes = (size_t)(w->groups * w->group_bytes);
    again.data = memset(must_alloc(bytes), 0xff, bytes);
    for (int64_t row = w->rows - 1; row >= 0; row--) {
        ash_pack_row_decode(w, row, y);
        assert_memory_equal(y, f->dense + row * w->cols, (size_t)w->cols * 4);
        ash_pack_fp8_rows(&again, f->block_out, f->src + row * w->cols, f->scales, row, 1);
        ash_pack_row_decode(&again, row, y);
    }
    for (int64_t row = 0; row < w->rows; row++) {
        ash_pack_row_decode(&again, row, y);
        assert_memory_equal(y, f->dense + row * w->cols, (size_t)w->cols * 4);
    }
    ash_pack_group_decode(&again, w->groups - 1, y);
    for (int64_t i = (w->rows - 1) % ASH_GROUP + 1; i < ASH_GROUP; i++)
        for (int64_t k = 0; k < w->cols; k++) assert_true(y[i * w->cols + k] == 0);
    free(again.data);
    free(y);
}

/* bfloat16 rounds an element by at most 2^-8 of it. */
static void check_product(const char *name, ash_act_form form, const fixture *f, const float *x, int n,
                          const float *y, int64_t ldy)
{
    const double rounding = form == ASH_ACT_BF16 ? 0x1p-8 : 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t r = 0; r < f->w.rows; r++) {
            double want = 0, size = 0, got = (double)y[i * ldy + r];
            for (int64_t c = 0; c < f->w.cols; c++) {
                double term = (double)f->dense[r * f->w.cols + c] * (double)x[i * f->w.cols + c];
                want += term;
                size += fabs(term);
            }
            double bound = (0x1p-23 * (double)(f->w.cols + 8) + rounding) * size + 1e-35;
            if (!(fabs(got - want) <= bound))
                fail_msg("%s [%d, %d], batch %d: y[%d, %d] = %g, expected %g +- %g", name, (int)f->w.rows,
                         (int)f->w.cols, n, (int)i, (int)r, got, want, bound);
        }
}

/* One product of n rows and each row's alone: within the bound, and the same bits. */
static void check_matmul(const ash_kernel *k, ash_matmul_fn matmul, ash_act_form form, const fixture *f,
                         const float *x, int n)
{
    int64_t cols = f->w.cols, ldy = f->w.rows + 3, ld = (cols + 63) / 64 * 64;
    size_t size = (size_t)(n * ldy) * 4;
    float *y = memset(must_alloc(size), 0x7f, size), *z = memset(must_alloc(size), 0x7f, size);
    uint16_t *h = memset(must_alloc((size_t)(n * ld) * 2), 0x7f, (size_t)(n * ld) * 2);
    void *scratch = must_alloc((size_t)ash_kernel_scratch(k, cols));
    for (int64_t i = 0; i < n && form == ASH_ACT_BF16; i++) k->to_bf16(x + i * cols, cols, h + i * ld);
    ash_act a = {.n = n, .cols = cols, .ldx = cols, .ld = ld, .x = form == ASH_ACT_F32 ? x : NULL, .h = h};
    matmul(&f->w, &a, 0, f->w.groups, y, ldy, scratch);
    check_product(k->name, form, f, x, n, y, ldy);
    for (int i = 0; i < n; i++) {
        a.n = 1;
        a.x = form == ASH_ACT_F32 ? x + i * cols : NULL;
        a.h = h + i * ld;
        for (int64_t g = 0; g < f->w.groups; g++) matmul(&f->w, &a, g, g + 1, z + i * ldy, ldy, scratch);
    }
    assert_memory_equal(y, z, size);
    free(y);
    free(z);
    free(h);
    free(scratch);
}

/* Activations of about xscale. */
static void run_scaled(int64_t rows, int64_t cols, int64_t bo, int64_t bi, int n, float xscale)
{
    ash_rng rng;
    ash_rng_init(&rng, (uint64_t)(rows * 1000 + cols + n));
    fixture f;
    open_weights(&f, &rng, rows, cols, bo, bi);
    check_rows(&f);
    float *x = rand_vector(&rng, n * cols, xscale);
    const ash_kernel *k;
    for (int v = 0; (k = ash_kernel_variant(v)); v++) {
        check_matmul(k, k->matmul[ASH_FORM_F8], k->act[ASH_FORM_F8], &f, x, n);
        if (k->fine[ASH_FORM_F8])
            check_matmul(k, k->fine[ASH_FORM_F8], ASH_ACT_F32, &f, x, n);
    }
    free(x);
    close_weights(&f);
}

static void run_case(int64_t rows, int64_t cols, int64_t bo, int64_t bi, int n)
{
    run_scaled(rows, cols, bo, bi, n, 1);
}

static void test_shapes(void **state)
{
    static const int64_t rows[] = {1, 15, 16, 17, 31, 50, 192}, cols[] = {1, 31, 128, 130, 333, 1030};
    static const int64_t blocks[][2] = {{128, 128}, {1, 1000}, {16, 32}, {24, 7}, {1000, 1000}, {64, 1}};
    for (int r = 0; r < 7; r++)
        for (int c = 0; c < 6; c++)
            for (int b = 0; b < 6; b++)
                run_case(rows[r], cols[c], blocks[b][0], blocks[b][1], 1 + (r + c + b) % 5);
}

static void test_batches(void **state)
{
    for (int n = 1; n <= 40; n++) {
        run_case(40, 96, 16, 32, n);
        run_case(40, 270, 40, 270, n);
    }
}

/* Every value of E4M3 times activations from the smallest to the largest. */
static void test_scales(void **state)
{
    static const float scales[] = {0x1p-100f, 0x1p-20f, 0x1p20f, 0x1p100f};
    for (int i = 0; i < 4; i++) run_scaled(33, 130, 128, 128, 5, scales[i]);
}

/* Each of the 254 numbers alone, in every place of a register. */
static void test_values(void **state)
{
    enum { ROWS = 16, COLS = 256 };
    ash_rng rng;
    ash_rng_init(&rng, 2);
    fixture f;
    open_weights(&f, &rng, ROWS, COLS, ROWS, COLS);
    f.scales[0] = 1;
    for (int i = 0; i < ROWS * COLS; i++) { /* row r, column c: c + 17 r, NaN left out */
        uint8_t v = (uint8_t)(i % COLS + i / COLS * 17);
        f.src[i] = (v & 0x7f) == 0x7f ? 0 : v;
    }
    ash_pack_fp8_rows(&f.w, ROWS, f.src, f.scales, 0, ROWS);
    float x[COLS], y[ROWS];
    uint16_t h[COLS];
    const ash_kernel *k;
    for (int v = 0; (k = ash_kernel_variant(v)); v++) {
        void *scratch = must_alloc((size_t)ash_kernel_scratch(k, COLS));
        for (int c = 0; c < COLS; c++) {
            memset(x, 0, sizeof x);
            x[c] = 1;
            k->to_bf16(x, COLS, h);
            ash_act a = {.n = 1, .cols = COLS, .ldx = COLS, .ld = COLS, .x = x, .h = h};
            k->matmul[ASH_FORM_F8](&f.w, &a, 0, 1, y, ROWS, scratch);
            for (int r = 0; r < ROWS; r++) assert_true(y[r] == ash_fp8_to_f32(f.src[r * COLS + c]));
        }
        free(scratch);
    }
    close_weights(&f);
}

static void test_nan(void **state)
{
    ash_rng rng;
    ash_rng_init(&rng, 1);
    fixture f;
    open_weights(&f, &rng, 32, 64, 128, 128);
    f.src[5 * 64 + 40] = 0x7f;
    f.src[20 * 64 + 41] = 0xff;
    ash_pack_fp8_rows(&f.w, 128, f.src, f.scales, 0, 32);
    float *x = rand_vector(&rng, 64, 1), y[3 * 32];
    uint16_t h[3 * 64];
    const ash_kernel *k;
    for (int v = 0; (k = ash_kernel_variant(v)); v++) {
        void *scratch = must_alloc((size_t)ash_kernel_scratch(k, 64));
        for (int n = 1; n <= 3; n += 2) { /* the same row again */
            ash_act a = {.n = n, .cols = 64, .ldx = 0, .ld = 64, .x = x, .h = h};
            for (int i = 0; i < n; i++) k->to_bf16(x, 64, h + i * 64);
            k->matmul[ASH_FORM_F8](&f.w, &a, 0, 2, y, 32, scratch);
            for (int r = 0; r < n * 32; r++)
                assert_int_equal(isnan(y[r]) != 0, r % 32 == 5 || r % 32 == 20);
        }
        free(scratch);
    }
    free(x);
    close_weights(&f);
}

static void test_plan(void **state)
{
    ash_packed w;
    assert_true(ash_pack_fp8_plan(&w, 7168, 7168, 128, 128));
    assert_true(w.groups * w.group_bytes <= 7168 * 7168 / 1000 * 1002 + 448 * 64);
    assert_false(ash_pack_fp8_plan(&w, 0, 7168, 128, 128));
    assert_false(ash_pack_fp8_plan(&w, 7168, -1, 128, 128));
    assert_false(ash_pack_fp8_plan(&w, 7168, 1, 0, 128));
    assert_false(ash_pack_fp8_plan(&w, 7168, 1, 128, 0));
    assert_false(ash_pack_fp8_plan(&w, INT64_MAX / 64, 128, 128, 128));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_plan), cmocka_unit_test(test_shapes),
                                       cmocka_unit_test(test_batches), cmocka_unit_test(test_nan),
                                       cmocka_unit_test(test_scales), cmocka_unit_test(test_values)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
