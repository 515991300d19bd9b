/* What share of its experts a mixture is expected to find in memory. What it gets of the memory is tested
 * with the plan and with the loader, which must agree. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "residency/fit.h"

static void expect_share(const ash_fit_known *known, double room, double share, ash_fit_basis basis)
{
    ash_fit_basis b;
    double got = ash_fit_share(known, room, &b);
    if (fabs(got - share) > 1e-12 || b != basis)
        fail_msg("%g of the room: %g (%s), wanted %g", room, got, ash_fit_basis_name(b), share);
}

static void without_a_measurement_all_are_chosen_alike(void **state)
{
    const ash_fit_known none = {0};
    for (double room = 0.0; room <= 1.0; room += 0.125) expect_share(&none, room, room, ASH_FIT_ALIKE);
}

static void what_was_measured_counts(void **state)
{
    const ash_fit_known known = {.n = 2, .v = {{0.2, 0.7}, {0.5, 0.95}}};
    expect_share(&known, 0.2, 0.7, ASH_FIT_MEASURED);
    expect_share(&known, 0.5, 0.95, ASH_FIT_MEASURED);
    expect_share(&known, 0.21, 0.7 + 0.25 / 30, ASH_FIT_MEASURED); /* a tenth */
    expect_share(&known, 0.19, 0.7 * 0.95, ASH_FIT_MEASURED);
    expect_share(&known, 0.3, 0.7 + 0.25 / 3, ASH_FIT_INTERPOLATED);
    expect_share(&known, 0.1, 0.35, ASH_FIT_INTERPOLATED);
    expect_share(&known, 0.75, 0.975, ASH_FIT_INTERPOLATED);
    expect_share(&known, 0.0, 0.0, ASH_FIT_INTERPOLATED);
    expect_share(&known, 1.0, 1.0, ASH_FIT_INTERPOLATED);
}

/* The order does not count, nor do rooms that are the same, nor one that says more of less room. */
static void odd_measurements_stay_within_bounds(void **state)
{
    const ash_fit_known known = {.n = 5, .v = {{0.5, 0.2}, {0.2, 0.9}, {0.5, 0.4}, {0.0, 0.3}, {1.0, 0.8}}};
    for (double room = 0.0; room <= 1.0; room += 1.0 / 64) {
        ash_fit_basis basis;
        double share = ash_fit_share(&known, room, &basis);
        assert_true(share >= 0.2 && share <= 0.9);
    }
    expect_share(&known, 0.0, 0.3, ASH_FIT_MEASURED);
    expect_share(&known, 0.1, 0.6, ASH_FIT_INTERPOLATED);
    expect_share(&known, 1.0, 0.8, ASH_FIT_MEASURED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_measurement_all_are_chosen_alike),
        cmocka_unit_test(what_was_measured_counts),
        cmocka_unit_test(odd_measurements_stay_within_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
