/* The measured limits are figures that a machine can have, and both threads count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "nn/limits.h"

static void test_plausible(void **state)
{
    ash_limits l = {0};
    assert_int_equal(ash_limits_measure(0, &l, NULL), 0);
    if (ash_cpu_get()->level == ASH_CPU_SCALAR)
        skip();
    assert_true(l.read_gbs > 0.05 && l.read_gbs < 5000.0);
    assert_true(l.f32_gflops > 0.5 && l.int8_gops > l.f32_gflops && l.int8_gops < 1e6);
    assert_int_equal(l.bf16_gflops > 0.0, ash_cpu_get()->bf16);
    double read = 0.0;
    assert_int_equal(ash_limits_measure_memory(0, &read, NULL), 0);
    assert_true(read > l.read_gbs / 20.0 && read < l.read_gbs * 20.0);
}

static void test_refuses_odd_counts_of_threads(void **state)
{
    ash_limits l;
    assert_int_equal(ash_limits_measure(-1, &l, NULL), ASH_EINVAL);
    assert_int_equal(ash_limits_measure(257, &l, NULL), ASH_EINVAL);
    assert_int_equal(ash_limits_measure_memory(257, &l.read_gbs, NULL), ASH_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_plausible),
                                       cmocka_unit_test(test_refuses_odd_counts_of_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
