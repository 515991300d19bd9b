/* The policy's rule, case by case, and its promises over random figures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "residency/policy.h"

enum { NOW = 10000000, MOST = 12 };

/* Resident for a long time and idle for idle_s. */
static ash_policy_model there(const char *id, uint64_t bytes, int64_t idle_s, double cost)
{
    return (ash_policy_model){.id = id,
                              .bytes = bytes,
                              .resident = true,
                              .last_use_ms = NOW - idle_s * 1000,
                              .bring_back_s = cost};
}

static ash_policy_model absent(const char *id, uint64_t bytes)
{
    return (ash_policy_model){.id = id, .bytes = bytes, .bring_back_s = 1.0};
}

static ash_policy_decision ask(uint64_t budget, const ash_policy_model *m, size_t n, size_t *list)
{
    return ash_policy_admit(budget, m, n, n - 1, ASH_POLICY_DEMAND, NOW, list);
}

static void test_what_fits_evicts_nothing(void **state)
{
    ash_policy_model m[] = {there("a", 40, 100, 1.0), there("b", 30, 100, 1.0), absent("w", 30)};
    size_t list[3];
    ash_policy_decision d = ask(100, m, 3, list);
    assert_int_equal(d.verdict, ASH_POLICY_ADMIT);
    assert_int_equal(d.n, 0);
    d = ask(99, m, 3, list);
    assert_int_equal(d.verdict, ASH_POLICY_ADMIT);
    assert_int_equal(d.n, 1);
    assert_int_equal(d.short_bytes, 1);
}

static void expect_first(const ash_policy_model *m, const char *id)
{
    size_t list[3];
    ash_policy_decision d = ask(100, m, 3, list);
    assert_int_equal(d.verdict, ASH_POLICY_ADMIT);
    assert_int_equal(d.n, 1);
    assert_string_equal(m[list[0]].id, id);
}

static void test_order(void **state)
{
    ash_policy_model m[] = {there("a", 50, 100, 1.0), there("b", 50, 200, 1.0), absent("w", 50)};
    expect_first(m, "b"); /* idle for longer */
    m[0].last_use_ms = m[1].last_use_ms;
    expect_first(m, "a"); /* by name */
    m[0].bring_back_s = 2.0;
    expect_first(m, "b"); /* cheaper to bring back */
    m[0].bring_back_s = 1.0;
    m[1].uses = (ash_policy_uses){1000.0, NOW};
    expect_first(m, "a"); /* used less often */
    m[1].uses.count = 0.0;
    m[0].preload = m[0].required = true;
    expect_first(m, "b"); /* a required preload goes last */
    m[0].last_use_ms = 0;
    expect_first(m, "b"); /* however long it was idle */
    m[1].pinned = true;
    expect_first(m, "a");
}

static void test_what_a_larger_one_makes_needless_stays(void **state)
{
    ash_policy_model m[] = {there("small", 10, 1000, 1.0), there("large", 90, 10, 1.0), absent("w", 90)};
    size_t list[3];
    ash_policy_decision d = ask(100, m, 3, list);
    assert_int_equal(d.verdict, ASH_POLICY_ADMIT);
    assert_int_equal(d.n, 1);
    assert_string_equal(m[list[0]].id, "large");
}

static void test_refusals_say_why(void **state)
{
    ash_policy_model m[] = {there("a", 60, 100, 1.0), absent("w", 101)};
    size_t list[2];
    ash_policy_decision d = ask(100, m, 2, list);
    assert_int_equal(d.verdict, ASH_POLICY_REFUSE);
    assert_int_equal(d.reason, ASH_POLICY_TOO_LARGE);
    assert_int_equal(d.short_bytes, 1);
    m[1].bytes = 50;
    m[0].pinned = true;
    d = ask(100, m, 2, list);
    assert_int_equal(d.verdict, ASH_POLICY_REFUSE);
    assert_int_equal(d.reason, ASH_POLICY_PINNED);
    assert_int_equal(d.short_bytes, 10);
    assert_int_equal(d.pinned_bytes, 60);
}

static void test_minimum_residence(void **state)
{
    ash_policy_model m[] = {there("a", 60, 4, 20.0), absent("w", 60)};
    size_t list[2];
    m[0].loaded_ms = NOW - 10000; /* 20 s are its due; 5 s of rest let it go before */
    ash_policy_decision d = ask(100, m, 2, list);
    assert_int_equal(d.verdict, ASH_POLICY_WAIT);
    assert_int_equal(d.reason, ASH_POLICY_YOUNG);
    assert_int_equal(d.until_ms, NOW + 1000);
    m[0].last_use_ms = NOW - 5000;
    assert_int_equal(ask(100, m, 2, list).verdict, ASH_POLICY_ADMIT);
    m[0].last_use_ms = NOW;
    m[0].loaded_ms = NOW - 20000;
    assert_int_equal(ask(100, m, 2, list).verdict, ASH_POLICY_ADMIT);
    assert_int_equal(ash_policy_residence_ms(&(ash_policy_model){.bring_back_s = 0.1}), 2000);
    assert_int_equal(ash_policy_residence_ms(&(ash_policy_model){.bring_back_s = 1e9}), 60000);
}

static void test_in_use_drains_after_its_residence(void **state)
{
    ash_policy_model m[] = {there("a", 60, 0, 20.0), absent("w", 60)};
    size_t list[2];
    m[0].leases = 1;
    m[0].loaded_ms = NOW - 19000;
    ash_policy_decision d = ask(100, m, 2, list);
    assert_int_equal(d.verdict, ASH_POLICY_WAIT);
    assert_int_equal(d.reason, ASH_POLICY_IN_USE);
    assert_int_equal(d.n, 0);
    assert_int_equal(d.until_ms, NOW + 1000);
    m[0].loaded_ms = NOW - 20000;
    d = ask(100, m, 2, list);
    assert_int_equal(d.n, 1);
    assert_int_equal(list[0], 0);
    m[0].leases = 0;
    m[0].loading = true; /* a load is never ended for another */
    d = ask(100, m, 2, list);
    assert_int_equal(d.verdict, ASH_POLICY_WAIT);
    assert_int_equal(d.n, 0);
}

static void test_background_disturbs_nobody(void **state)
{
    ash_policy_model m[] = {there("a", 60, 59, 1.0), absent("w", 60)};
    size_t list[2];
    ash_policy_decision d = ash_policy_admit(100, m, 2, 1, ASH_POLICY_BACKGROUND, NOW, list);
    assert_int_equal(d.verdict, ASH_POLICY_WAIT);
    assert_int_equal(d.reason, ASH_POLICY_NOT_IDLE);
    m[0].last_use_ms -= 1000;
    d = ash_policy_admit(100, m, 2, 1, ASH_POLICY_BACKGROUND, NOW, list);
    assert_int_equal(d.verdict, ASH_POLICY_ADMIT);
    m[0].preload = true;
    d = ash_policy_admit(100, m, 2, 1, ASH_POLICY_BACKGROUND, NOW, list);
    assert_int_equal(d.verdict, ASH_POLICY_WAIT);
}

static void test_room_counts_what_nobody_can_take(void **state)
{
    ash_policy_model m[] = {there("a", 10, 0, 1.0), there("b", 20, 0, 1.0), there("c", 30, 0, 1.0),
                            there("d", 5, 0, 1.0), absent("w", 1)};
    m[0].pinned = true;
    m[1].leases = 1;
    m[3].loading = true;
    assert_int_equal(ash_policy_room(100, m, 5, 4, ASH_POLICY_DEMAND, NOW), 65);
    assert_int_equal(ash_policy_room(30, m, 5, 4, ASH_POLICY_DEMAND, NOW), 0);
    assert_int_equal(ash_policy_room(100, m, 5, 4, ASH_POLICY_BACKGROUND, NOW), 35);
    assert_int_equal(ash_policy_resident(m, 5), 65);
}

static void test_shrink(void **state)
{
    ash_policy_model m[] = {there("a", 40, 1, 50.0), there("b", 40, 100, 1.0), there("c", 40, 50, 1.0)};
    size_t list[3];
    assert_int_equal(ash_policy_shrink(120, m, 3, NOW, list), 0);
    assert_int_equal(ash_policy_shrink(119, m, 3, NOW, list), 1);
    assert_string_equal(m[list[0]].id, "b");
    m[0].leases = 1;
    m[2].pinned = true;
    assert_int_equal(ash_policy_shrink(0, m, 3, NOW, list), 1);
}

/* ---- over random figures ---- */

static const char *const names[MOST] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"};

static size_t make_up(ash_rng *r, ash_policy_model *m, uint64_t *budget)
{
    size_t n = 1 + (size_t)(ash_rng_u64(r) % MOST);
    uint64_t used = 0, extreme = ash_rng_u64(r) % 50 == 0 ? UINT64_MAX / 16 : 0;
    for (size_t i = 0; i < n; i++) {
        m[i] = there(names[i], ash_rng_u64(r) % 1000 + (ash_rng_u64(r) % 3 ? 0 : extreme),
                     (int64_t)(ash_rng_u64(r) % 100), (double)(ash_rng_u64(r) % 30));
        m[i].resident = i + 1 < n && ash_rng_u64(r) % 4;
        m[i].pinned = ash_rng_u64(r) % 6 == 0;
        m[i].preload = ash_rng_u64(r) % 3 == 0;
        m[i].required = m[i].preload && ash_rng_u64(r) % 2;
        m[i].leases = ash_rng_u64(r) % 4 == 0 ? (uint32_t)(ash_rng_u64(r) % 3) : 0;
        m[i].loading = m[i].resident && ash_rng_u64(r) % 10 == 0;
        m[i].loaded_ms = NOW - (int64_t)(ash_rng_u64(r) % 60000);
        m[i].uses.count = (double)(ash_rng_u64(r) % 100);
        m[i].uses.at_ms = NOW - (int64_t)(ash_rng_u64(r) % 100000);
        used += m[i].resident ? m[i].bytes : 0;
    }
    *budget = ash_rng_u64(r) % (2 * (used % 100000) + 2);
    return n;
}

static void check(const ash_policy_model *m, size_t n, uint64_t budget, ash_policy_urgency urgency,
                  const size_t *list, const ash_policy_decision *d)
{
    bool gone[MOST] = {0};
    uint64_t left = ash_policy_resident(m, n);
    for (size_t i = 0; i < d->n; i++) {
        const ash_policy_model *v = &m[list[i]];
        assert_true(v->resident && !v->pinned && !v->loading && !gone[list[i]]);
        assert_true(d->verdict == ASH_POLICY_WAIT ? v->leases > 0 : v->leases == 0);
        assert_true(urgency == ASH_POLICY_DEMAND || !v->preload);
        gone[list[i]] = true;
        left -= v->bytes;
    }
    if (d->verdict == ASH_POLICY_ADMIT) {
        assert_true(m[n - 1].bytes <= budget && left <= budget - m[n - 1].bytes);
        for (size_t i = 0; i < d->n; i++) /* none of them for nothing */
            assert_true(left + m[list[i]].bytes > budget - m[n - 1].bytes);
    }
    if (d->verdict == ASH_POLICY_WAIT) {
        assert_true(urgency == ASH_POLICY_DEMAND || !d->n);
        bool something = d->until_ms > NOW && d->until_ms < INT64_MAX; /* or a use or load will end */
        for (size_t i = 0; i < n; i++) something |= m[i].resident && (m[i].leases || m[i].loading);
        assert_true(something);
    }
}

static void test_promises_over_random_figures(void **state)
{
    ash_rng r;
    ash_rng_init(&r, 7);
    int verdicts[3] = {0};
    for (int round = 0; round < 200000; round++) {
        ash_policy_model m[MOST], other[MOST];
        size_t list[MOST], list2[MOST], at[MOST];
        uint64_t budget;
        size_t n = make_up(&r, m, &budget);
        ash_policy_urgency urgency = ash_rng_u64(&r) % 3 ? ASH_POLICY_DEMAND : ASH_POLICY_BACKGROUND;
        ash_policy_decision d = ash_policy_admit(budget, m, n, n - 1, urgency, NOW, list), d2;
        verdicts[d.verdict]++;
        check(m, n, budget, urgency, list, &d);
        for (size_t i = 0; i < n; i++) at[i] = i; /* the same in another order */
        for (size_t i = n; i > 1; i--) {
            size_t k = (size_t)(ash_rng_u64(&r) % i), t = at[k];
            at[k] = at[i - 1];
            at[i - 1] = t;
        }
        size_t wanted = 0;
        for (size_t i = 0; i < n; i++) {
            other[i] = m[at[i]];
            wanted = at[i] == n - 1 ? i : wanted;
        }
        d2 = ash_policy_admit(budget, other, n, wanted, urgency, NOW, list2);
        assert_int_equal(d.verdict, d2.verdict);
        assert_int_equal(d.n, d2.n);
        assert_true(d.until_ms == d2.until_ms && d.reason == d2.reason);
        for (size_t i = 0; i < d.n; i++) assert_ptr_equal(m[list[i]].id, other[list2[i]].id);
        size_t shrunk = ash_policy_shrink(budget, m, n, NOW, list);
        for (size_t i = 0; i < shrunk; i++)
            assert_true(!m[list[i]].pinned && !m[list[i]].leases && !m[list[i]].loading);
    }
    for (int v = 0; v < 3; v++) assert_true(verdicts[v] > 1000);
}

static void test_two_loads_at_once(void **state)
{
    const ash_policy_standing other = ASH_POLICY_OTHER, required = ASH_POLICY_REQUIRED,
                              awaited = ASH_POLICY_AWAITED;
    const struct {
        ash_policy_load running, next;
        double busy;
        bool may;
    } all[] = {
        {{other, 1e9}, {awaited, 0.0}, 1.0, true}, /* whoever is wanted more does not wait */
        {{required, 1e9}, {awaited, 0.0}, 1.0, true},
        {{other, 1e9}, {required, 1e9}, 1.0, true},
        {{required, 1e9}, {other, 1e8}, 0.0, false},
        {{awaited, 1e9}, {required, 1e8}, 0.0, false},
        {{required, 1e9}, {required, 1e8}, 0.1, true},  /* one waits for the disk, the other computes */
        {{required, 1e9}, {required, 1e8}, 0.6, false}, /* both compute */
        {{required, 1e9}, {required, 1e9}, 0.1, false}, /* both wait for the disk */
        {{required, 1e9}, {required, 0.0}, 0.1, false}, /* nobody knows */
        {{required, 0.0}, {required, 1e8}, 0.1, false},
        {{other, 1e9}, {other, 1e8}, 0.1, true},
        {{awaited, 1e9}, {awaited, 1e8}, 0.1, true},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (ash_policy_beside(&all[i].running, &all[i].next, all[i].busy) != all[i].may)
            fail_msg("case %zu", i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_fits_evicts_nothing),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_what_a_larger_one_makes_needless_stays),
        cmocka_unit_test(test_refusals_say_why),
        cmocka_unit_test(test_minimum_residence),
        cmocka_unit_test(test_in_use_drains_after_its_residence),
        cmocka_unit_test(test_background_disturbs_nobody),
        cmocka_unit_test(test_room_counts_what_nobody_can_take),
        cmocka_unit_test(test_shrink),
        cmocka_unit_test(test_promises_over_random_figures),
        cmocka_unit_test(test_two_loads_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
