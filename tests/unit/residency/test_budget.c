/* The budget follows what is configured, what there is, and pressure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "residency/budget.h"

static const uint64_t GB = 1000000000;

static void test_auto_leaves_a_reserve(void **state)
{
    ash_budget b = {0};
    ash_memory m = {.available = 12 * GB, .own = 4 * GB};
    assert_int_equal(ash_budget_bytes(&b, &m), 15 * GB);
    m.available = 252 * GB;
    assert_int_equal(ash_budget_bytes(&b, &m), 256 * GB - (4ull << 30));
    m.available = UINT64_MAX;
    assert_true(ash_budget_bytes(&b, &m) == UINT64_MAX);
    assert_int_equal(ash_budget_reserve(&m), 0);
    m = (ash_memory){.total = 32 * GB, .available = 3 * GB, .own = 4 * GB}; /* others have the rest */
    assert_int_equal(ash_budget_bytes(&b, &m), 5 * GB);
    m.available = m.own = GB / 2;
    assert_int_equal(ash_budget_bytes(&b, &m), 0);
}

static void test_configured_is_at_most_what_there_is(void **state)
{
    ash_budget b = {.limit = 10 * GB};
    ash_memory m = {.available = 12 * GB, .own = 4 * GB};
    assert_int_equal(ash_budget_bytes(&b, &m), 10 * GB);
    m.available = 2 * GB;
    assert_int_equal(ash_budget_bytes(&b, &m), 6 * GB);
}

static void test_pressure_lowers_and_calm_raises(void **state)
{
    ash_budget b = {0};
    ash_memory m = {.available = 12 * GB, .own = 4 * GB, .stalled = 9.9};
    assert_false(ash_budget_step(&b, &m, 8 * GB, 5000));
    m.stalled = 10.0;
    assert_true(ash_budget_step(&b, &m, 8 * GB, 6000));
    assert_int_equal(ash_budget_bytes(&b, &m), 7 * GB);
    assert_false(ash_budget_step(&b, &m, 8 * GB, 6500)); /* once a second */
    assert_true(ash_budget_step(&b, &m, 4 * GB, 7000));
    assert_int_equal(ash_budget_bytes(&b, &m), 3500000000);
    m.stalled = 0.5;
    assert_false(ash_budget_step(&b, &m, 4 * GB, 16000));
    assert_int_equal(ash_budget_bytes(&b, &m), 3500000000);
    assert_false(ash_budget_step(&b, &m, 4 * GB, 17000));
    assert_true(ash_budget_bytes(&b, &m) > 3900000000);
    m.stalled = 5.0; /* neither: calm begins anew */
    assert_false(ash_budget_step(&b, &m, 4 * GB, 26000));
    m.stalled = 0.0;
    uint64_t before = b.ceiling;
    assert_false(ash_budget_step(&b, &m, 4 * GB, 30000));
    assert_int_equal(b.ceiling, before);
    for (int64_t t = 36000; b.ceiling && t < 1000000; t += 10000)
        assert_false(ash_budget_step(&b, &m, 4 * GB, t));
    assert_int_equal(b.ceiling, 0);
    assert_int_equal(ash_budget_bytes(&b, &m), 15 * GB);
}

/* A file of many GB that is being written makes others wait, too; a model less would not help them. */
static void test_waiting_beside_spare_memory_is_none(void **state)
{
    ash_budget b = {0};
    ash_memory m = {.available = 12 * GB, .spare = GB, .own = 4 * GB, .stalled = 50.0};
    assert_false(ash_budget_step(&b, &m, 8 * GB, 5000));
    assert_int_equal(b.ceiling, 0);
    m.spare -= 2; /* the rest is mapped: a file that somebody runs from */
    assert_true(ash_budget_step(&b, &m, 8 * GB, 6000));
}

static void test_little_left_is_pressure(void **state)
{
    ash_budget b = {.limit = 15 * GB};
    ash_memory m = {.available = GB / 4, .own = 16 * GB - GB / 4};
    assert_false(ash_budget_step(&b, &m, 8 * GB, 5000));
    m.available -= 2;
    assert_true(ash_budget_step(&b, &m, 8 * GB, 5000));
    assert_false(ash_budget_step(&(ash_budget){0}, &m, 0, 5000)); /* nothing to give up */
    b = (ash_budget){0};
    m = (ash_memory){.total = 16 * GB, .available = GB / 4, .own = GB}; /* another process took it all */
    assert_false(ash_budget_step(&b, &m, GB, 5000));
    m.available -= 2;
    assert_true(ash_budget_step(&b, &m, GB, 5000));
}

/* A quarter of a second later there would be none left. */
static void test_memory_that_goes_fast_is_pressure(void **state)
{
    const uint64_t MB = 1000000; /* the reserve is 1,000 of them */
    const ash_memory first = {.total = 16 * GB, .available = 2000 * MB, .own = 4 * GB};
    ash_memory m = first;
    ash_budget b = {0};
    assert_false(ash_budget_step(&b, &m, 8 * GB, 5000));
    m.available = 1100 * MB;
    assert_true(ash_budget_step(&b, &m, 8 * GB, 5250)); /* 900 went, and 900 more would leave 200 */
    b = (ash_budget){0};
    m = first;
    assert_false(ash_budget_step(&b, &m, 8 * GB, 5000));
    m.available = 1200 * MB;
    assert_false(ash_budget_step(&b, &m, 8 * GB, 5250)); /* 800 went, and 800 more leave 400 */
    assert_false(ash_budget_step(&b, &m, 8 * GB, 5500)); /* nothing went since */
    m = (ash_memory){.total = 16 * GB, .available = 300 * MB, .own = 4900 * MB}; /* a model of our own did */
    assert_false(ash_budget_step(&b, &m, 8 * GB, 5750));
    b = (ash_budget){0};
    m = first;
    assert_false(ash_budget_step(&b, &m, 8 * GB, 5000));
    m.available = 1000 * MB;
    assert_false(ash_budget_step(&b, &m, 8 * GB, 15000)); /* long ago */
    b = (ash_budget){0};
    m.available = 9 * GB;
    assert_false(ash_budget_step(&b, &m, 8 * GB, 5000));
    m.available = 1300 * MB;
    assert_false(ash_budget_step(&b, &m, 8 * GB, 5250)); /* by leaps: at most the reserve counts */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_auto_leaves_a_reserve),
        cmocka_unit_test(test_configured_is_at_most_what_there_is),
        cmocka_unit_test(test_pressure_lowers_and_calm_raises),
        cmocka_unit_test(test_waiting_beside_spare_memory_is_none),
        cmocka_unit_test(test_little_left_is_pressure),
        cmocka_unit_test(test_memory_that_goes_fast_is_pressure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
