/* The measured limits are figures that a machine can have, and both threads count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "nn/limits.h"

static void test_plausible_on_every_level(void **state)
{
    for (int level = 0; level <= (int)ash_cpu_get()->level; level++) {
        ash_limits l = {0};
        assert_int_equal(ash_limits_measure(0, (ash_cpu_level)level, &l, NULL), 0);
        assert_true(l.read_gbs > 0.05 && l.read_gbs < 5000.0);
        assert_true(l.int8_gops > 0.05 && l.int8_gops < 1e6);
    }
}

static void test_refuses_what_the_cpu_lacks(void **state)
{
    ash_limits l;
    ash_err err = ASH_ERR_INIT;
    if (ash_cpu_get()->level < ASH_CPU_AVX512)
        assert_int_equal(ash_limits_measure(1, ASH_CPU_AVX512, &l, &err), ASH_EUNSUPPORTED);
    assert_int_equal(ash_limits_measure(-1, ASH_CPU_SCALAR, &l, &err), ASH_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_plausible_on_every_level),
                                       cmocka_unit_test(test_refuses_what_the_cpu_lacks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
