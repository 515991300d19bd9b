/* GPTQ's integers against an independent writer of the format and against GPTQModel's own packer; the
 * version told from the data; FP8 over all its bytes as torch reads them. */
#include "../kernel/gptq_fixture.h"

#include <stdio.h>

#include "quant/fp8.h"

static void check_rows(const gptq_fixture *f)
{
    float *y = must_alloc((size_t)f->q.in * 4);
    for (int64_t row = 0; row < f->q.out; row++) {
        ash_gptq_row(&f->q, row, y);
        assert_memory_equal(y, f->dense + row * f->q.in, (size_t)f->q.in * 4);
    }
    free(y);
}

static void test_formula(void **state)
{
    static const int bits[] = {2, 3, 4, 8};
    static const ash_dtype types[] = {ASH_DTYPE_F16, ASH_DTYPE_F32, ASH_DTYPE_BF16};
    for (int b = 0; b < 4; b++)
        for (int order = GPTQ_PLAIN; order <= GPTQ_ODD; order++)
            for (int v2 = 0; v2 < 2; v2++)
                for (int t = 0; t < 3; t++) {
                    ash_rng rng;
                    ash_rng_init(&rng, (uint64_t)(b * 100 + order * 10 + v2));
                    gptq_fixture f;
                    gptq_open(&f, &rng, bits[b], v2, false, (gptq_order)order, types[t], 64, 96, 6, 1);
                    check_rows(&f);
                    assert_int_equal(ash_gptq_version(&f.q), 0);
                    gptq_close(&f);
                }
}

/* Symmetric zeros say which version wrote them, whatever the label says. */
static void test_version(void **state)
{
    static const int bits[] = {2, 3, 4, 8};
    for (int b = 0; b < 4; b++)
        for (int v2 = 0; v2 < 2; v2++) {
            ash_rng rng;
            ash_rng_init(&rng, 1);
            gptq_fixture f;
            gptq_open(&f, &rng, bits[b], v2, true, GPTQ_PLAIN, ASH_DTYPE_F16, 64, 64, 2, 1);
            assert_int_equal(ash_gptq_version(&f.q), v2 ? 2 : 1);
            check_rows(&f);
            f.mem[1][1 + 2 * 64 * bits[b] / 8 - 1] ^= 0x80; /* one bit of the last zero */
            assert_int_equal(ash_gptq_version(&f.q), 0);
            gptq_close(&f);
        }
}

static FILE *open_golden(const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/gptq/%s", getenv("ASHLEY_TEST_DATA"), name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    return f;
}

static unsigned digit(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* Bytes of the hexadecimal word at *p, which is moved past it. */
static uint8_t *unhex(char **p, size_t want)
{
    uint8_t *out = must_alloc(want);
    size_t n = 0;
    for (; n < want && (*p)[0] > ' '; *p += 2) out[n++] = (uint8_t)(digit((*p)[0]) << 4 | digit((*p)[1]));
    assert_int_equal(n, want);
    *p += 1;
    return out;
}

static void check_vector(char *p)
{
    enum { IN = 64, OUT = 32 };
    int bits = (int)strtol(p, &p, 10), version = (int)strtol(p, &p, 10), groups = (int)strtol(p, &p, 10);
    p++;
    uint8_t *qweight = unhex(&p, (size_t)(IN * bits / 8 * OUT));
    uint8_t *qzeros = unhex(&p, (size_t)(groups * OUT * bits / 8));
    uint8_t *scales = unhex(&p, (size_t)(groups * OUT * 2)), *g_idx = unhex(&p, IN * 4);
    uint8_t *dense = unhex(&p, IN * OUT * 2);
    ash_gptq q = {.bits = bits, .v2 = version == 2, .in = IN, .out = OUT, .groups = groups,
                  .qweight = qweight, .qzeros = qzeros, .scales = scales, .scale_type = ASH_DTYPE_F16,
                  .group_of = (const int32_t *)g_idx};
    for (int64_t row = 0; row < OUT; row++) {
        float y[IN];
        ash_gptq_row(&q, row, y);
        for (int i = 0; i < IN; i++) {
            uint16_t want;
            memcpy(&want, dense + (row * IN + i) * 2, 2);
            if (want != ash_f16_from_f32(y[i]) && (want & 0x7fff || y[i] != 0))
                fail_msg("%d bits, version %d: W[%d, %d] = %g, expected %g", bits, version, (int)row, i,
                         (double)y[i], (double)ash_f16_to_f32(want));
        }
    }
    free(qweight);
    free(qzeros);
    free(scales);
    free(g_idx);
    free(dense);
}

static void test_golden(void **state)
{
    static char line[1 << 16];
    FILE *f = open_golden("vectors.txt");
    int n = 0;
    for (; fgets(line, sizeof line, f); n++) check_vector(line);
    fclose(f);
    assert_int_equal(n, 12);
}

static void test_fp8(void **state)
{
    FILE *f = open_golden("fp8.txt");
    for (int v = 0; v < 256; v++) {
        char line[16];
        assert_non_null(fgets(line, sizeof line, f));
        uint32_t want = (uint32_t)strtoul(line, NULL, 16);
        float got = ash_fp8_to_f32((uint8_t)v);
        if (isnan(ash_f32_from_bits(want)))
            assert_true(isnan(got));
        else
            assert_int_equal(ash_f32_bits(got), want);
        assert_int_equal(isnan(got) != 0, (v & 0x7f) == 0x7f);
    }
    fclose(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_formula), cmocka_unit_test(test_version),
                                       cmocka_unit_test(test_golden), cmocka_unit_test(test_fp8)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
