/* A plan adds up: verdicts, sums, and whatever the facts are, never more memory or disk
 * than there is. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "residency/plan.h"

#define GB 1000000000ull

static const ash_plan_machine roomy = {
    .memory = 32 * GB, .disk_free = 100 * GB, .disk_reserve = 4 * GB, .fetch_rate = 1e8, .read_rate = 1e9};

static ash_plan_facts model(uint64_t fetch, uint64_t fixed)
{
    return (ash_plan_facts){.pin = true,
                            .required = true,
                            .fetch_bytes = fetch,
                            .fixed_bytes = fixed,
                            .kv_bytes = GB,
                            .kv_least = GB / 4,
                            .load_bytes = 32 << 20,
                            .read_bytes = fixed};
}

static void test_sums(void **state)
{
    ash_plan_facts f[] = {model(0, 4 * GB), model(5 * GB, 8 * GB)};
    ash_plan_entry e[2];
    ash_plan_total t;
    ash_plan_make(&roomy, f, 2, e, &t);
    assert_int_equal(e[0].verdict, ASH_PLAN_READY);
    assert_int_equal(e[0].resident_bytes, 5 * GB);
    assert_int_equal(e[0].peak_bytes, 5 * GB + (32 << 20));
    assert_int_equal(e[0].disk_after, 100 * GB);
    assert_true(e[0].fetch_seconds == 0.0 && e[0].load_seconds == 4.0);
    assert_int_equal(e[1].verdict, ASH_PLAN_FITS);
    assert_int_equal(e[1].disk_after, 95 * GB);
    assert_true(e[1].fetch_seconds == 50.0 && e[1].load_seconds == 8.0);
    assert_int_equal(t.resident_bytes, 14 * GB);
    assert_int_equal(t.peak_bytes, 14 * GB + (32 << 20));
    assert_int_equal(t.fetch_bytes, 5 * GB);
    assert_int_equal(t.disk_after, 95 * GB);
    assert_true(t.seconds == 62.0 && t.fits);
}

/* Each fits the disk, both together do not; the reserve is not touched. */
static void test_disk_is_admitted_together(void **state)
{
    ash_plan_facts f[] = {model(50 * GB, GB), model(50 * GB, GB), model(46 * GB, GB)};
    ash_plan_entry e[3];
    ash_plan_total t;
    ash_plan_make(&roomy, f, 3, e, &t);
    assert_int_equal(e[0].verdict, ASH_PLAN_FITS);
    assert_int_equal(e[1].verdict, ASH_PLAN_NO_DISK);
    assert_int_equal(e[1].short_bytes, 4 * GB);
    assert_int_equal(e[1].disk_after, 50 * GB);
    assert_int_equal(e[2].verdict, ASH_PLAN_FITS); /* exactly what may be used */
    assert_int_equal(t.disk_after, 4 * GB);
    assert_int_equal(t.resident_bytes, 4 * GB);
    assert_false(t.fits);
}

static void test_memory(void **state)
{
    ash_plan_facts f[] = {model(0, 20 * GB), model(0, 20 * GB), model(7 * GB, 40 * GB)};
    ash_plan_entry e[3];
    ash_plan_total t;
    ash_plan_make(&roomy, f, 3, e, &t);
    assert_int_equal(e[0].verdict, ASH_PLAN_READY);
    assert_int_equal(e[1].verdict, ASH_PLAN_NO_MEMORY);
    assert_int_equal(e[1].short_bytes, 20 * GB + GB / 4 - 11 * GB);
    assert_int_equal(e[2].verdict, ASH_PLAN_NO_MEMORY);
    assert_int_equal(e[2].disk_after, 100 * GB); /* and so it is not fetched */
    assert_int_equal(t.fetch_bytes, 0);
    assert_false(t.fits);
}

/* The pool shrinks before anything goes, down to a context. */
static void test_pool_shrinks(void **state)
{
    ash_plan_facts f = model(0, 29 * GB);
    ash_plan_entry e;
    ash_plan_total t;
    f.kv_bytes = 8 * GB;
    ash_plan_make(&roomy, &f, 1, &e, &t);
    assert_int_equal(e.verdict, ASH_PLAN_READY);
    assert_int_equal(e.kv_bytes, 3 * GB); /* as the loader has it */
    f.fixed_bytes = 32 * GB - GB / 4;
    ash_plan_make(&roomy, &f, 1, &e, &t);
    assert_int_equal(e.verdict, ASH_PLAN_READY);
    assert_int_equal(e.kv_bytes, GB / 4);
    f.fixed_bytes = 31 * GB + 800000000;
    ash_plan_make(&roomy, &f, 1, &e, &t);
    assert_int_equal(e.verdict, ASH_PLAN_NO_MEMORY);
}

/* What comes later has its room, whatever the order: both fit with what the first alone would take. */
static void test_preloads_leave_room_for_each_other(void **state)
{
    ash_plan_facts large = model(0, 20 * GB), small = model(GB, GB);
    large.kv_bytes = 40 * GB;
    for (int order = 0; order < 2; order++) {
        ash_plan_facts f[2];
        ash_plan_entry e[2];
        ash_plan_total t;
        f[order] = large;
        f[!order] = small;
        ash_plan_make(&roomy, f, 2, e, &t);
        assert_int_equal(e[order].verdict, ASH_PLAN_READY);
        assert_int_equal(e[order].kv_bytes, 10 * GB);
        assert_int_equal(e[!order].verdict, ASH_PLAN_FITS);
        assert_int_equal(e[!order].kv_bytes, GB);
        assert_true(t.fits && t.resident_bytes == roomy.memory);
    }
}

/* Nobody leaves room for what will not come: it has no consent, no known size, no disk, or cannot be used;
 * nor for what does not fit beside the least of those before it. */
static void test_no_room_is_left_for_what_does_not_come(void **state)
{
    ash_plan_facts f[] = {model(0, 20 * GB), model(GB, 5 * GB), model(GB, 5 * GB), model(GB, 5 * GB),
                          model(GB, 5 * GB), model(97 * GB, 5 * GB), model(0, 12 * GB)};
    enum { N = sizeof f / sizeof *f };
    static const ash_plan_verdict verdicts[N] = {
        ASH_PLAN_READY,     ASH_PLAN_CONSENT, ASH_PLAN_UNKNOWN, ASH_PLAN_ABSENT,
        ASH_PLAN_NO_ACCESS, ASH_PLAN_NO_DISK, ASH_PLAN_NO_MEMORY};
    ash_plan_entry e[N];
    ash_plan_total t;
    f[0].kv_bytes = 40 * GB;
    f[1].needs_consent = true;
    f[2].fetch_bytes = ASH_PLAN_UNKNOWN_BYTES;
    f[3].absent = true;
    f[4].no_access = true;
    ash_plan_make(&roomy, f, N, e, &t);
    for (size_t i = 0; i < N; i++) assert_int_equal(e[i].verdict, verdicts[i]);
    assert_int_equal(e[0].kv_bytes, 12 * GB);
}

/* Before anything gets smaller. */
static void test_the_draft_model_goes_first(void **state)
{
    ash_plan_facts f[] = {model(0, 20 * GB), model(0, 10 * GB)};
    ash_plan_entry e[2];
    ash_plan_total t;
    f[0].draft_bytes = 2 * GB;
    ash_plan_make(&roomy, f, 2, e, &t);
    assert_true(e[0].draft_bytes == 2 * GB && e[0].resident_bytes == 21 * GB);
    f[1].fixed_bytes = 11 * GB;
    ash_plan_make(&roomy, f, 2, e, &t);
    assert_true(e[0].draft_bytes == 0 && e[0].kv_bytes == GB && e[0].resident_bytes == 19 * GB);
    assert_true(e[1].kv_bytes == GB && t.fits);
}

/* A mixture of 60 GB, 3 of them always in memory, 6 of 57 chosen for a token. */
static ash_plan_facts mixture(uint64_t fetch)
{
    ash_plan_facts f = model(fetch, 60 * GB);
    f.expert_bytes = 57 * GB;
    f.expert_least = 2 * GB;
    f.pack_bytes = 60 * GB;
    f.token_bytes = 9 * GB;
    f.token_expert_bytes = 6 * GB;
    return f;
}

static void test_experts_come_and_go(void **state)
{
    ash_plan_machine m = roomy;
    ash_plan_facts f[] = {mixture(0), model(0, GB)};
    ash_plan_entry e[2];
    ash_plan_total t;
    m.memory_rate = 3e10;
    m.state_free = 60 * GB;
    m.one_disk = true;
    ash_plan_make(&m, f, 2, e, &t);
    assert_int_equal(e[0].verdict, ASH_PLAN_READY);
    assert_true(e[0].streams && e[0].resident_bytes == m.memory - 2 * GB); /* all but the other's */
    assert_int_equal(e[0].kv_bytes, GB);
    assert_int_equal(e[0].pack_bytes, 60 * GB);
    assert_int_equal(e[0].disk_after, 40 * GB);
    assert_true(e[0].load_seconds == 180.0); /* twice read, once written */
    double found = (30e9 - 1e9 - 3e9) / 57e9, read = 6e9 * (1.0 - found) / 1e9;
    assert_true(fabs(e[0].experts_room - found) < 1e-9);
    assert_true(fabs(e[0].experts_found - found) < 1e-9 && e[0].found_basis == ASH_FIT_ALIKE);
    assert_true(fabs(e[0].tokens_per_second - 1.0 / (9.0 / 30.0 + read)) < 1e-9);
    assert_true(e[1].verdict == ASH_PLAN_READY && e[1].kv_bytes == GB);
    f[0].pack_bytes = 0; /* it is there */
    m.state_free = 0;
    ash_plan_make(&m, f, 1, e, &t);
    assert_true(e[0].verdict == ASH_PLAN_READY && e[0].disk_after == 100 * GB);
    assert_true(e[0].load_seconds == 3.0);
    m.memory = 70 * GB; /* all are in memory */
    ash_plan_make(&m, f, 1, e, &t);
    assert_true(!e[0].streams && e[0].experts_found == 1.0 && e[0].load_seconds == 60.0);
    assert_true(fabs(e[0].tokens_per_second - 30.0 / 9.0) < 1e-9);
    m.memory_rate = 0.0;
    ash_plan_make(&m, f, 1, e, &t);
    assert_true(e[0].tokens_per_second == 0.0);
}

/* The share of chosen experts that was found the last time says how fast it will be. */
static void test_what_was_found_before_counts(void **state)
{
    ash_plan_machine m = roomy;
    ash_plan_facts f = mixture(0);
    ash_plan_entry e;
    ash_plan_total t;
    m.memory_rate = 3e10;
    m.state_free = 60 * GB;
    f.found = (ash_fit_known){.n = 1, .v = {{0.5, 0.95}}};
    ash_plan_make(&m, &f, 1, &e, &t);
    assert_true(e.streams && e.found_basis == ASH_FIT_MEASURED);
    double found = 0.95 * e.experts_room / 0.5;
    assert_true(e.experts_room < 0.5 && fabs(e.experts_found - found) < 1e-9);
    assert_true(fabs(e.tokens_per_second - 1.0 / (9.0 / 30.0 + 6.0 * (1.0 - found))) < 1e-9);
    f.found.v[0].room = 0.25;
    ash_plan_make(&m, &f, 1, &e, &t);
    assert_true(e.found_basis == ASH_FIT_INTERPOLATED && e.experts_found > 0.95);
    m.memory = 70 * GB; /* all are in memory */
    ash_plan_make(&m, &f, 1, &e, &t);
    assert_true(!e.streams && e.experts_found == 1.0 && e.experts_room == 1.0);
}

/* Without room for its pack file it is not loaded, and what it would have had is the next one's. */
static void test_a_pack_file_takes_disk(void **state)
{
    ash_plan_machine m = roomy;
    ash_plan_facts f[] = {mixture(20 * GB), model(0, GB)};
    ash_plan_entry e[2];
    ash_plan_total t;
    m.one_disk = true;
    m.state_free = 64 * GB;
    m.fetch_share = 4;
    ash_plan_make(&m, f, 2, e, &t);
    assert_int_equal(e[0].verdict, ASH_PLAN_NO_DISK);
    assert_int_equal(e[0].short_bytes, GB); /* a quarter of 20 is gone from 64 */
    assert_int_equal(e[1].verdict, ASH_PLAN_READY);
    assert_true(!t.fits && t.fetch_bytes == 0 && t.disk_after == 100 * GB);
    m.state_free = 65 * GB;
    ash_plan_make(&m, f, 2, e, &t);
    assert_true(e[0].verdict == ASH_PLAN_FITS && e[0].disk_after == 20 * GB);
    m.state_free = 200 * GB;
    m.disk_free = 83 * GB; /* of which four stay free */
    ash_plan_make(&m, f, 2, e, &t);
    assert_true(e[0].verdict == ASH_PLAN_NO_DISK && e[0].short_bytes == GB);
    m.one_disk = false;
    m.fetch_share = 0;
    ash_plan_make(&m, f, 2, e, &t);
    assert_true(e[0].verdict == ASH_PLAN_FITS && e[0].disk_after == 63 * GB);
}

static void test_what_was_measured_counts(void **state)
{
    ash_plan_facts f = model(0, 4 * GB);
    ash_plan_entry e;
    ash_plan_total t;
    ash_plan_make(&roomy, &f, 1, &e, &t);
    assert_false(e.load_measured);
    f.load_seconds = 2.5;
    ash_plan_make(&roomy, &f, 1, &e, &t);
    assert_true(e.load_measured && e.load_seconds == 2.5 && t.seconds == 2.5);
}

/* It is not pinned, and stays all the same, and what is small enough comes behind. */
static void test_no_entry_goes_for_another(void **state)
{
    ash_plan_facts f[] = {model(0, 10 * GB), model(0, 25 * GB), model(0, 18 * GB)};
    ash_plan_entry e[3];
    ash_plan_total t;
    f[0].pin = false;
    ash_plan_make(&roomy, f, 3, e, &t);
    assert_int_equal(e[0].verdict, ASH_PLAN_READY);
    assert_int_equal(e[1].verdict, ASH_PLAN_NO_MEMORY);
    assert_int_equal(e[1].short_bytes, e[1].resident_bytes - 21 * GB);
    assert_int_equal(e[2].verdict, ASH_PLAN_READY);
    assert_int_equal(t.resident_bytes, e[0].resident_bytes + e[2].resident_bytes);
    assert_false(t.fits);
}

static void test_verdicts_without_sizes(void **state)
{
    const uint64_t unknown = ASH_PLAN_UNKNOWN_BYTES;
    ash_plan_facts f[] = {{.absent = true}, {.refused = true},      model(GB, GB),
                          model(0, GB),     model(200 * GB, GB), model(unknown, unknown)};
    ash_plan_entry e[6];
    ash_plan_total t;
    f[2].needs_consent = f[3].needs_consent = f[4].needs_consent = true;
    ash_plan_make(&roomy, f, 6, e, &t);
    assert_int_equal(e[0].verdict, ASH_PLAN_ABSENT);
    assert_int_equal(e[1].verdict, ASH_PLAN_REFUSED);
    assert_int_equal(e[2].verdict, ASH_PLAN_CONSENT);
    assert_int_equal(e[3].verdict, ASH_PLAN_READY); /* it is here: nothing to ask */
    assert_int_equal(e[4].verdict, ASH_PLAN_NO_DISK);
    assert_int_equal(e[5].verdict, ASH_PLAN_UNKNOWN);
    assert_true(e[5].fetch_seconds < 0.0);
    assert_true(e[5].resident_bytes == ASH_PLAN_UNKNOWN_BYTES);
    assert_int_equal(t.resident_bytes, e[3].resident_bytes);
    assert_int_equal(t.disk_after, 100 * GB);
    assert_string_equal(ash_plan_verdict_name(e[4].verdict), "does_not_fit_disk");
    assert_string_equal(ash_plan_verdict_name(e[5].verdict), "unknown");
}

/* Headers may claim anything. */
static void test_huge_sizes(void **state)
{
    ash_plan_facts f[] = {model(0, UINT64_MAX - 2), model(UINT64_MAX - 1, GB), model(0, GB)};
    ash_plan_entry e[3];
    ash_plan_total t;
    f[0].kv_bytes = f[0].kv_least = UINT64_MAX - 5;
    ash_plan_make(&roomy, f, 3, e, &t);
    assert_int_equal(e[0].verdict, ASH_PLAN_NO_MEMORY);
    assert_int_equal(e[1].verdict, ASH_PLAN_NO_DISK);
    assert_int_equal(e[2].verdict, ASH_PLAN_READY);
    assert_true(e[0].peak_bytes == UINT64_MAX - 1);
}

static uint64_t some_bytes(ash_rng *r)
{
    uint64_t v = ash_rng_u64(r);
    return v % 16 == 0 ? ash_rng_u64(r) : v % 20000;
}

static void test_never_over(void **state)
{
    enum { N = 12 };
    ash_rng r;
    size_t loaded = 0;
    ash_rng_init(&r, 7);
    for (int round = 0; round < 20000; round++) {
        ash_plan_machine m = {.memory = ash_rng_u64(&r) % 60000,
                              .disk_free = ash_rng_u64(&r) % 60000,
                              .disk_reserve = ash_rng_u64(&r) % 20000,
                              .state_free = ash_rng_u64(&r) % 60000,
                              .one_disk = round % 2,
                              .fetch_share = round % 4 > 1 ? 4 : 0};
        ash_plan_facts f[N] = {0};
        ash_plan_entry e[N];
        ash_plan_total t;
        for (int i = 0; i < N; i++) {
            uint64_t bits = ash_rng_u64(&r);
            f[i] = (ash_plan_facts){.pin = bits & 1,
                                    .required = bits & 2,
                                    .needs_consent = !(bits & 28),
                                    .fetch_bytes = bits & 32 ? 0 : some_bytes(&r),
                                    .fixed_bytes = some_bytes(&r),
                                    .kv_bytes = some_bytes(&r),
                                    .kv_least = some_bytes(&r),
                                    .draft_bytes = some_bytes(&r) % 5000,
                                    .expert_bytes = some_bytes(&r),
                                    .expert_least = some_bytes(&r),
                                    .pack_bytes = some_bytes(&r),
                                    .load_bytes = some_bytes(&r) % 1000};
        }
        ash_plan_make(&m, f, N, e, &t);
        uint64_t fetched = 0, used = 0, packs = 0;
        for (int k = 0; k < 2 * N; k++) { /* required ones first */
            int i = k % N;
            if (f[i].required != (k < N)) continue;
            if (e[i].verdict != ASH_PLAN_READY && e[i].verdict != ASH_PLAN_FITS) continue;
            loaded++;
            used += e[i].resident_bytes;
            fetched += e[i].fetch_bytes + (m.one_disk ? e[i].pack_bytes : 0);
            packs += e[i].pack_bytes;
            assert_true(packs <= m.state_free);
            assert_true(used <= m.memory);
            assert_true(e[i].peak_bytes == e[i].resident_bytes + f[i].load_bytes);
            assert_true(e[i].disk_after == m.disk_free - fetched);
            assert_true(!fetched || e[i].disk_after >= m.disk_reserve);
        }
        assert_int_equal(t.resident_bytes, used);
        assert_int_equal(t.disk_after, m.disk_free - fetched);
        assert_true(t.peak_bytes >= used && t.peak_bytes < m.memory + 1000);
    }
    assert_true(loaded > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sums),
                                       cmocka_unit_test(test_disk_is_admitted_together),
                                       cmocka_unit_test(test_memory),
                                       cmocka_unit_test(test_pool_shrinks),
                                       cmocka_unit_test(test_preloads_leave_room_for_each_other),
                                       cmocka_unit_test(test_no_room_is_left_for_what_does_not_come),
                                       cmocka_unit_test(test_the_draft_model_goes_first),
                                       cmocka_unit_test(test_experts_come_and_go),
                                       cmocka_unit_test(test_what_was_found_before_counts),
                                       cmocka_unit_test(test_a_pack_file_takes_disk),
                                       cmocka_unit_test(test_what_was_measured_counts),
                                       cmocka_unit_test(test_no_entry_goes_for_another),
                                       cmocka_unit_test(test_verdicts_without_sizes),
                                       cmocka_unit_test(test_huge_sizes),
                                       cmocka_unit_test(test_never_over)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
