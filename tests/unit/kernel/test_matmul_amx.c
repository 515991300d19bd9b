/* The matmuls on tiles: the quantised ones against AVX-512's, bit for bit; that of BF16 against the order of
 * additions that the processor documents, bit for bit. Batches around every edge of a tile, a chunk and a
 * band. */
#include "amx_emulator.h"
#include "kernel_test.h"
#include "gptq_fixture.h"

#include "kernel/pack_gptq.h"

static const int batches[] = {1, 2, 11, 12, 13, 16, 17, 23, 24, 25, 31, 32, 33, 47, 48, 49};
enum { BATCHES = sizeof batches / sizeof *batches };

static ash_act open_act(const float *x, int64_t n, int64_t cols)
{
    const ash_kernel *k = ash_kernel_get(ASH_CPU_AMX);
    int64_t ld = (cols + 63) / 64 * 64, nb = ld / 32;
    ash_act a = {.n = n, .cols = cols, .ldx = cols, .ld = ld, .x = x, .h = must_alloc((size_t)(n * ld * 2)),
                 .q = must_alloc((size_t)(n * ld)), .d = must_alloc((size_t)(n * nb * 4)),
                 .ds = must_alloc((size_t)(n * nb * 4)), .ns = must_alloc((size_t)(n * nb * 4))};
    for (int64_t i = 0; i < n; i++) {
        k->to_bf16(x + i * cols, cols, a.h + i * ld);
        if (cols % 32 == 0)
            k->quantise(x + i * cols, cols, a.q + i * ld, a.d + i * nb, a.ds + i * nb, a.ns + i * nb);
    }
    return a;
}

static void close_act(ash_act *a)
{
    free(a->h);
    free(a->q);
    free(a->d);
    free(a->ds);
    free(a->ns);
}

/* y of groups [g0, g1) by a table, everything around it untouched. */
static float *product(ash_cpu_level level, const ash_packed *w, const ash_act *a, int64_t g0, int64_t g1)
{
    const ash_kernel *k = ash_kernel_get(level);
    size_t size = (size_t)(a->n * (w->rows + 3)) * sizeof(float);
    size_t room = (size_t)ash_kernel_scratch(k, w->cols);
    float *y = memset(must_alloc(size), 0x7f, size);
    void *scratch = memset(must_alloc(room), 0xff, room);
    assert_true(amx_test_ready());
    k->matmul[w->form](w, a, g0, g1, y, w->rows + 3, scratch);
    free(scratch);
    return y;
}

/* All groups, and one or three of those in the middle, as AVX-512 has them. */
static void compare(const ash_packed *w, int64_t n, const float *x)
{
    ash_act a = open_act(x, n, w->cols);
    for (int part = 0; part < 3; part++) {
        int64_t g0 = part ? 1 : 0, g1 = part == 0 ? w->groups : part == 1 ? 2 : 4;
        if (g1 > w->groups)
            continue;
        float *want = product(ASH_CPU_AVX512, w, &a, g0, g1), *got = product(ASH_CPU_AMX, w, &a, g0, g1);
        if (memcmp(want, got, (size_t)(n * (w->rows + 3)) * sizeof *want))
            fail_msg("form %d [%d, %d], span %d, batch %d: other bits than AVX-512's", w->form, (int)w->rows,
                     (int)w->cols, (int)w->span, (int)n);
        free(want);
        free(got);
    }
    close_act(&a);
}

static void blocks_case(ash_dtype t, int64_t rows, int64_t cols, int64_t n, float scale)
{
    ash_rng rng;
    ash_rng_init(&rng, (uint64_t)(rows * 1009 + cols * 31 + n));
    ash_packed w;
    assert_true(ash_pack_plan(&w, t, rows, cols));
    uint8_t *src = rand_tensor(&rng, t, rows, cols, scale);
    w.data = must_alloc((size_t)(w.groups * w.group_bytes));
    ash_pack_rows(&w, src, 0, rows);
    float *x = rand_vector(&rng, n * cols, scale);
    if (n > 3)
        x[2 * cols + 1] = NAN; /* of one row, and of no other */
    compare(&w, n, x);
    free(x);
    free(src);
    free(w.data);
}

static void test_blocks(void **state)
{
    static const ash_dtype types[] = {ASH_DTYPE_Q4_0, ASH_DTYPE_Q4_1, ASH_DTYPE_Q8_0};
    for (int t = 0; t < 3; t++) {
        for (int i = 0; i < BATCHES; i++) blocks_case(types[t], 53, 96, batches[i], 1);
        blocks_case(types[t], 16, 32, 14, 1000);
        blocks_case(types[t], 80, 512, 26, 1e-3f);
        blocks_case(types[t], 65, 1120, 40, 1); /* chunks of 16, 16 and 3 blocks */
        blocks_case(types[t], 20, 544, 517, 1); /* bands of 258 and 259 rows */
    }
}

static void gptq_case(int bits, ash_dtype scales, int64_t in, int64_t groups, int64_t n)
{
    enum { OUT = 64 };
    ash_rng rng;
    ash_rng_init(&rng, (uint64_t)(bits * 7 + in + groups + n));
    gptq_fixture f;
    ash_packed w;
    bool ordered;
    gptq_open(&f, &rng, bits, false, false, GPTQ_GIVEN, scales, OUT, in, groups, 1);
    assert_int_equal(ash_pack_gptq_plan(&w, &f.q, &ordered, NULL), 0);
    assert_false(ordered);
    w.data = must_alloc((size_t)(w.groups * w.group_bytes));
    ash_pack_gptq_rows(&w, &f.q, NULL, 0, OUT);
    float *x = rand_vector(&rng, n * w.cols, 1);
    compare(&w, n, x);
    free(x);
    free(w.data);
    gptq_close(&f);
}

static void test_gptq(void **state)
{
    static const int64_t shapes[][2] = {{1024, 8}, {640, 2}, {640, 4}, {480, 5}, {576, 18}, {1024, 2},
                                        {1088, 1}}; /* of 128, 320, 160, 96, 32, 512, 1088 columns */
    for (int bits = 4; bits <= 8; bits += 4) {
        for (int i = 0; i < BATCHES; i++) gptq_case(bits, ASH_DTYPE_F16, 256, 2, batches[i]);
        for (int s = 0; s < 7; s++) {
            gptq_case(bits, ASH_DTYPE_F16, shapes[s][0], shapes[s][1], 29);
            gptq_case(bits, ASH_DTYPE_F32, shapes[s][0], shapes[s][1], 12);
        }
        gptq_case(bits, ASH_DTYPE_F16, 640, 5, 1030);
    }
}

static float widen(uint16_t h)
{
    return ash_bf16_to_f32(h);
}

/* One result by the pseudocode of tdpbf16ps, 32 columns at a time. */
static float bf16_sum(const uint16_t *w, const uint16_t *h, int64_t cols)
{
    float sum = 0;
    for (int64_t k = 0; k < cols; k += 32) {
        float half[2] = {0, 0};
        for (int64_t c = k; c < k + 32 && c < cols; c++)
            half[c % 2] = amx_fma(half[c % 2], widen(h[c]), widen(w[c]));
        sum = amx_fma(sum, amx_fma(half[0], half[1], 1), 1);
    }
    return sum;
}

static void bf16_case(int64_t rows, int64_t cols, int64_t n, float scale)
{
    ash_rng rng;
    ash_rng_init(&rng, (uint64_t)(rows * 1009 + cols * 31 + n));
    ash_packed w;
    assert_true(ash_pack_plan(&w, ASH_DTYPE_BF16, rows, cols));
    uint8_t *src = rand_tensor(&rng, ASH_DTYPE_BF16, rows, cols, scale);
    for (int64_t g = 1; g < 3 && g * 16 + g < rows; g++) /* behind lane g of the group before */
        ((uint16_t *)src)[(g * 16 + g) * cols] = 0x7fc0;
    w.data = must_alloc((size_t)(w.groups * w.group_bytes));
    ash_pack_rows(&w, src, 0, rows);
    float *x = rand_vector(&rng, n * cols, scale);
    ash_act a = open_act(x, n, cols);
    float *y = product(ASH_CPU_AMX, &w, &a, 0, w.groups);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t r = 0; r < rows + 3; r++) {
            float want, got = y[i * (rows + 3) + r];
            if (r < rows)
                want = bf16_sum((const uint16_t *)src + r * cols, a.h + i * a.ld, cols);
            else
                memset(&want, 0x7f, sizeof want);
            if (got != want && !(isnan(got) && isnan(want)))
                fail_msg("[%d, %d], batch %d: y[%d, %d] = %a, expected %a", (int)rows, (int)cols, (int)n,
                         (int)i, (int)r, (double)got, (double)want);
        }
    }
    free(y);
    close_act(&a);
    free(x);
    free(src);
    free(w.data);
}

static void test_bf16(void **state)
{
    for (int i = 0; i < BATCHES; i++) {
        bf16_case(53, 64, batches[i], 1);
        bf16_case(16, 77, batches[i], 1e-18f); /* products below the smallest exponent, odd columns */
    }
    for (int cols = 1; cols <= 33; cols += 4) bf16_case(17, cols, 19, 100);
    bf16_case(40, 1100, 33, 1); /* chunks of 16, 16 and 3 tiles, the last one not full */
    bf16_case(70, 544, 80, 1);
    bf16_case(24, 1100, 20, 1);
}

int main(void)
{
    if (!amx_test_ready())
        return 77; /* skipped */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_gptq),
        cmocka_unit_test(test_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
