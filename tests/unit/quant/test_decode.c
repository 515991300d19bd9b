/* Scalar decoding against what ggml itself gives, bit for bit, and the half floats over all their
 * bits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "quant/decode.h"
#include "quant/half.h"

static int digit(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* Bytes of the hexadecimal text at *p up to a blank; moves *p past it. */
static size_t unhex(const char **p, uint8_t *out, size_t max)
{
    size_t n = 0;
    for (; (*p)[0] > ' ' && n < max; *p += 2)
        out[n++] = (uint8_t)(digit((*p)[0]) << 4 | digit((*p)[1]));
    *p += **p == ' ';
    return n;
}

static ash_dtype type_of(const char *name, size_t n)
{
    for (uint32_t t = 0; t < 64; t++) {
        const char *known = ash_dtype_get(t)->name;
        if (known && strlen(known) == n && !memcmp(known, name, n)) return (ash_dtype)t;
    }
    fail_msg("no type %.*s", (int)n, name);
    return ASH_DTYPE_F32;
}

/* Bit for bit; a NaN is a NaN. */
static void check_floats(const char *type, int line, const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ash_f32_bits(got[i]) != ash_f32_bits(want[i]) && !(isnan(got[i]) && isnan(want[i])))
            fail_msg("line %d, %s: element %zu is %a, expected %a", line, type, i, (double)got[i],
                     (double)want[i]);
}

static void test_golden(void **state)
{
    static char line[4096];
    static const ash_dtype want[] = {
        ASH_DTYPE_F16,     ASH_DTYPE_BF16,    ASH_DTYPE_Q4_0,   ASH_DTYPE_Q4_1,  ASH_DTYPE_Q5_0,
        ASH_DTYPE_Q5_1,    ASH_DTYPE_Q8_0,    ASH_DTYPE_Q2_K,   ASH_DTYPE_Q3_K,  ASH_DTYPE_Q4_K,
        ASH_DTYPE_Q5_K,    ASH_DTYPE_Q6_K,    ASH_DTYPE_IQ1_S,  ASH_DTYPE_IQ1_M, ASH_DTYPE_IQ2_XXS,
        ASH_DTYPE_IQ2_XS,  ASH_DTYPE_IQ2_S,   ASH_DTYPE_IQ3_XXS, ASH_DTYPE_IQ3_S, ASH_DTYPE_IQ4_NL,
        ASH_DTYPE_IQ4_XS,  ASH_DTYPE_MXFP4,   ASH_DTYPE_NVFP4,  ASH_DTYPE_TQ1_0, ASH_DTYPE_TQ2_0,
        ASH_DTYPE_Q1_0,    ASH_DTYPE_Q2_0};
    bool seen[64] = {false};
    char path[1024];
    snprintf(path, sizeof path, "%s/quant/blocks.txt", getenv("ASHLEY_TEST_DATA"));
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    for (int lines = 1; fgets(line, sizeof line, f); lines++) {
        uint8_t src[256], bits[1024];
        float y[256], expected[256];
        size_t name = strcspn(line, " ");
        const char *p = line + name + 1;
        ash_dtype t = type_of(line, name);
        assert_true(ash_quant_supported(t));
        size_t bytes = unhex(&p, src + 1, sizeof src - 1), n = unhex(&p, bits, sizeof bits) / 4;
        uint64_t size;
        assert_true(ash_dtype_bytes(t, n, &size));
        assert_int_equal(bytes, size);
        ash_quant_decode(t, src + 1, (int64_t)n, y); /* at an odd address */
        memcpy(expected, bits, n * 4);
        check_floats(ash_dtype_get(t)->name, lines, y, expected, n);
        seen[t] = true;
    }
    fclose(f);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        if (!seen[want[i]])
            fail_msg("no block of %s", ash_dtype_get(want[i])->name);
}

/* Any bytes are blocks: nothing is read or written beyond them (the sanitizers look), several blocks are
 * as each by itself. */
static void test_any_bytes(void **state)
{
    ash_rng rng;
    ash_rng_init(&rng, 5);
    for (uint32_t t = 0; t < 64; t++) {
        const ash_dtype_info *info = ash_dtype_get(t);
        if (!ash_quant_supported((ash_dtype)t))
            continue;
        for (int round = 0; round < 300; round++) {
            size_t bytes = (size_t)info->block_bytes * 3, n = (size_t)info->block * 3;
            uint8_t *src = malloc(bytes + 1);
            float *y = malloc(n * 4), *one = malloc(info->block * 4);
            for (size_t i = 0; i < bytes; i++)
                src[i + 1] = round == 0 ? 0xff : round == 1 ? 0 : (uint8_t)ash_rng_u64(&rng);
            ash_quant_decode((ash_dtype)t, src + 1, (int64_t)n, y);
            for (int b = 0; b < 3; b++) {
                ash_quant_decode((ash_dtype)t, src + 1 + (size_t)b * info->block_bytes, info->block, one);
                assert_memory_equal(one, y + (size_t)b * info->block, info->block * 4);
            }
            free(src);
            free(y);
            free(one);
        }
    }
}

static void test_doubles(void **state)
{
    const double x[] = {1.0 / 3, -0.0, 1e300, -1e300, 0x1p-149, 0x1p-151, (double)NAN, (double)INFINITY};
    float y[8];
    ash_quant_decode(ASH_DTYPE_F64, x, 8, y);
    const float want[] = {1.0f / 3, -0.0f, INFINITY, -INFINITY, 0x1p-149f, 0, NAN, INFINITY};
    check_floats("F64", 0, y, want, 8);
}

static void test_halves(void **state)
{
    for (uint32_t h = 0; h < 65536; h++) {
        int exp = h >> 10 & 31, man = h & 1023;
        double want = exp ? ldexp(1 + man / 1024.0, exp - 15) : ldexp(man, -24);
        float got = ash_f16_to_f32((uint16_t)h), brain = ash_bf16_to_f32((uint16_t)h);
        if (exp == 31)
            assert_true(man ? isnan(got) : isinf(got));
        else
            assert_true((double)fabsf(got) == want);
        assert_int_equal(signbit(got) != 0, h >> 15);
        if (!isnan(got)) assert_int_equal(ash_f16_from_f32(got), h);
        if (!isnan(brain)) assert_int_equal(ash_bf16_from_f32(brain), h);
    }
}

static void test_rounding(void **state)
{
    /* halves between two neighbours go to the even one, and a hair more or less to the nearer */
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float low = ash_f16_to_f32((uint16_t)h), high = ash_f16_to_f32((uint16_t)(h + 1));
        float mid = (low + high) / 2;
        assert_int_equal(ash_f16_from_f32(mid), h % 2 ? h + 1 : h);
        assert_int_equal(ash_f16_from_f32(nextafterf(mid, 0)), h);
        assert_int_equal(ash_f16_from_f32(nextafterf(mid, 1e9f)), h + 1);
        assert_int_equal(ash_f16_from_f32(-mid), (h % 2 ? h + 1 : h) | 0x8000);
    }
    assert_int_equal(ash_f16_from_f32(65519.99f), 0x7bff);
    assert_int_equal(ash_f16_from_f32(65520), 0x7c00);
    assert_true(isnan(ash_f16_to_f32(ash_f16_from_f32(NAN))));
    assert_int_equal(ash_bf16_from_f32(1.0f + 0x1p-8f), 0x3f80);
    assert_int_equal(ash_bf16_from_f32(1.0f + 0x3p-8f), 0x3f82);
    assert_int_equal(ash_bf16_from_f32(3.4e38f), 0x7f80);
    assert_true(isnan(ash_bf16_to_f32(ash_bf16_from_f32(NAN))));
}

static void test_supported(void **state)
{
    assert_true(ash_quant_supported(ASH_DTYPE_Q4_1));
    assert_true(ash_quant_supported(ASH_DTYPE_F64));
    assert_false(ash_quant_supported(ASH_DTYPE_Q8_1));
    assert_false(ash_quant_supported(ASH_DTYPE_Q8_K));
    assert_false(ash_quant_supported(ASH_DTYPE_I64));
    assert_true(ash_quant_supported(ASH_DTYPE_F8_E4M3));
    assert_false(ash_quant_supported(ASH_DTYPE_F8_E5M2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_any_bytes),
        cmocka_unit_test(test_doubles),
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_supported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
