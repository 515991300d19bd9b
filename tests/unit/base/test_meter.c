/* Transfers that run at once count as one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/meter.h"

static void expect_none(ash_meter *m, uint64_t bytes, bool known, int64_t now)
{
    ash_metered got;
    assert_false(ash_meter_end(m, bytes, known, now, &got));
}

static void expect(ash_meter *m, uint64_t bytes, int64_t now, uint64_t sum, int64_t ms)
{
    ash_metered got;
    assert_true(ash_meter_end(m, bytes, true, now, &got));
    assert_int_equal(got.bytes, sum);
    assert_int_equal(got.ms, ms);
}

static void one_by_one(void **state)
{
    ash_meter m = {0};
    ash_meter_begin(&m, 1000);
    expect(&m, 500, 1500, 500, 500);
    ash_meter_begin(&m, 9000);
    expect(&m, 70, 9010, 70, 10);
}

static void at_once(void **state)
{
    ash_meter m = {0};
    ash_meter_begin(&m, 1000);
    ash_meter_begin(&m, 1200);
    expect_none(&m, 300, true, 2000);
    ash_meter_begin(&m, 2500); /* one still runs */
    expect_none(&m, 400, true, 2600);
    expect(&m, 300, 3000, 1000, 2000);
    ash_meter_begin(&m, 5000);
    expect(&m, 1, 5001, 1, 1);
}

static void one_that_failed_spoils_the_others(void **state)
{
    ash_meter m = {0};
    ash_meter_begin(&m, 0);
    ash_meter_begin(&m, 0);
    expect_none(&m, 300, false, 10);
    expect_none(&m, 300, true, 20);
    ash_meter_begin(&m, 30); /* but not those after it */
    expect(&m, 300, 40, 300, 10);
}

static void sums_do_not_wrap(void **state)
{
    ash_meter m = {0};
    ash_meter_begin(&m, 0);
    ash_meter_begin(&m, 0);
    expect_none(&m, UINT64_MAX, true, 10);
    expect_none(&m, 2, true, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_by_one),
        cmocka_unit_test(at_once),
        cmocka_unit_test(one_that_failed_spoils_the_others),
        cmocka_unit_test(sums_do_not_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
