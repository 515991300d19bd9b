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

static void test_golden(void **state)
{
    char path[1024], line[2048];
    snprintf(path, sizeof path, "%s/quant/blocks.txt", getenv("ASHLEY_TEST_DATA"));
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    int lines = 0;
    for (; fgets(line, sizeof line, f); lines++) {
        uint8_t src[256], bits[256];
        float y[64];
        size_t name = strcspn(line, " ");
        const char *p = line + name + 1;
        ash_dtype t = type_of(line, name);
        assert_true(ash_quant_supported(t));
        size_t bytes = unhex(&p, src + 1, sizeof src - 1), n = unhex(&p, bits, sizeof bits) / 4;
        uint64_t want;
        assert_true(ash_dtype_bytes(t, n, &want));
        assert_int_equal(bytes, want);
        ash_quant_decode(t, src + 1, (int64_t)n, y); /* at an odd address */
        assert_memory_equal(y, bits, n * 4);
    }
    fclose(f);
    assert_int_equal(lines, 40);
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
    assert_false(ash_quant_supported(ASH_DTYPE_Q6_K));
    assert_false(ash_quant_supported(ASH_DTYPE_I64));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_supported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
