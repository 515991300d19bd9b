/* What models that are to be loaded together get of the memory, and what share of its experts a mixture is
 * expected to find there. That plan and loader agree is tested with the loader. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "residency/fit.h"

/* A model that likes so much and runs in so little. */
static ash_fit model(uint64_t likes, uint64_t least)
{
    return (ash_fit){
        .weights = least - 1, .weights_least = least - 1, .kv = likes - least + 1, .kv_least = 1};
}

static void expect_shares(const ash_fit *models, size_t n, uint64_t room, const uint64_t *shares)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t got = ash_fit_beside(models, n, i, room);
        if (got != shares[i])
            fail_msg("%zu of %zu in %llu: %llu, wanted %llu", i, n, (unsigned long long)room,
                     (unsigned long long)got, (unsigned long long)shares[i]);
    }
}

#define SHARES(models, room, ...)                                                                  \
    expect_shares(models, sizeof models / sizeof *models, room, (const uint64_t[]){__VA_ARGS__})

static void all_have_what_they_like_where_that_fits(void **state)
{
    const ash_fit models[] = {model(60, 20), model(30, 10), model(10, 10)};
    SHARES(models, 100, 60, 30, 10);
    SHARES(models, 1000, 60, 30, 10);
}

static void what_is_left_beyond_the_least_is_shared_evenly(void **state)
{
    const ash_fit models[] = {model(60, 20), model(30, 10), model(10, 10), model(12, 10)};
    SHARES(models, 90, 39, 29, 10, 12); /* of 40 two, and 19 for each of those who like more */
    SHARES(models, 60, 24, 14, 10, 12);
    SHARES(models, 53, 21, 11, 10, 11);
    SHARES(models, 52, 20, 10, 10, 10); /* what cannot be divided is nobody's */
    SHARES(models, 50, 20, 10, 10, 10);
    const ash_fit turned[] = {model(12, 10), model(10, 10), model(60, 20), model(30, 10)};
    SHARES(turned, 60, 12, 10, 24, 14);
}

static void the_order_says_who_can_be_there(void **state)
{
    const ash_fit models[] = {model(60, 20), model(90, 90), model(30, 10), model(71, 71)};
    SHARES(models, 100, 60, 80, 30, 70);
    SHARES(models, 40, 25, 20, 15, 10);
    SHARES(models, 15, 15, 15, 15, 5); /* not even the first */
    const ash_fit alone[] = {model(60, 20)};
    SHARES(alone, 40, 40);
    SHARES(alone, 100, 60);
    SHARES(alone, 19, 19);
}

static uint64_t some_bytes(ash_rng *r)
{
    uint64_t v = ash_rng_u64(r);
    return v % 16 == 0 ? ash_rng_u64(r) : v % 1000;
}

/* Whatever the sizes: those that fit together have their least, nothing is overdrawn, and what one has taken
 * changes no other's share. */
static void shares_add_up(void **state)
{
    enum { N = 6 };
    ash_rng r;
    size_t left_out = 0;
    ash_rng_init(&r, 11);
    for (int round = 0; round < 20000; round++) {
        ash_fit models[N], rest[N];
        uint64_t room = some_bytes(&r) * 4, left = room, first;
        for (int i = 0; i < N; i++)
            models[i] = (ash_fit){.weights = some_bytes(&r),
                                  .weights_least = some_bytes(&r),
                                  .kv = some_bytes(&r),
                                  .kv_least = some_bytes(&r),
                                  .draft = some_bytes(&r),
                                  .others = some_bytes(&r)};
        for (int i = 0; i < N; i++) {
            uint64_t share = ash_fit_beside(models, N, i, room);
            ash_fit f = models[i];
            if (!ash_fit_room(&f, share)) {
                assert_true(share < ash_fit_least(&models[i]));
                left_out++;
                continue;
            }
            assert_true(share <= ash_fit_bytes(&models[i]) && share <= left);
            assert_true(ash_fit_bytes(&f) <= share);
            left -= share;
        }
        first = ash_fit_beside(models, N, 0, room);
        if (first < ash_fit_least(&models[0])) continue;
        for (int i = 1; i < N; i++) rest[i - 1] = models[i];
        for (int i = 1; i < N; i++) {
            uint64_t before = ash_fit_beside(models, N, i, room);
            uint64_t now = ash_fit_beside(rest, N - 1, i - 1, room - first);
            if (before < ash_fit_least(&models[i])) continue;
            assert_true(now >= before && now - before <= N); /* the bytes that could not be divided */
        }
    }
    assert_true(left_out > 1000);
}

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
        cmocka_unit_test(all_have_what_they_like_where_that_fits),
        cmocka_unit_test(what_is_left_beyond_the_least_is_shared_evenly),
        cmocka_unit_test(the_order_says_who_can_be_there),
        cmocka_unit_test(shares_add_up),
        cmocka_unit_test(without_a_measurement_all_are_chosen_alike),
        cmocka_unit_test(what_was_measured_counts),
        cmocka_unit_test(odd_measurements_stay_within_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
