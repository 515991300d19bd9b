/* Sizes, times, yes and no, lists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "config/value.h"

static void sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t want;
    } t[] = {
        {"0", 0},
        {"512", 512},
        {"512B", 512},
        {"4K", 4000},
        {"4k", 4000},
        {"4KB", 4000},
        {"4Ki", 4096},
        {"4KiB", 4096},
        {"1.5G", 1500000000},
        {"1.5 GiB", 1610612736},
        {"2M", 2000000},
        {"2Mi", 2097152},
        {"3T", 3000000000000},
        {"1Ti", 1099511627776},
        {" 7 ", 7},
        {".5K", 500},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        uint64_t v = 99;
        ash_err err = ASH_ERR_INIT;
        if (ash_value_bytes(t[i].text, &v, &err) || v != t[i].want)
            fail_msg("%s: %llu %s", t[i].text, (unsigned long long)v, err.msg);
    }
    static const char *const bad[] = {"",    "K",   "-1", "1e9",  "0x10", "4 X",
                                      "4KK", "1.5", "1.", "4K 4", "nan"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint64_t v = 99;
        if (ash_value_bytes(bad[i], &v, NULL) != ASH_EINVAL || v != 99)
            fail_msg("'%s' was taken", bad[i]);
    }
    uint64_t v = 99;
    assert_int_equal(ash_value_bytes("99999999999T", &v, NULL), ASH_ELIMIT);
    assert_int_equal(v, 99);
}

static void times(void **state)
{
    static const struct {
        const char *text;
        int64_t want;
    } t[] = {{"0", 0},        {"30", 30000},   {"30s", 30000},  {"250ms", 250}, {"1.5s", 1500},
             {"10m", 600000}, {"2h", 7200000}, {"5 m", 300000}, {"0.5", 500},
             {"1h30m", 5400000}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        int64_t v = 99;
        if (ash_value_time(t[i].text, false, &v, NULL) || v != t[i].want)
            fail_msg("%s: %lld", t[i].text, (long long)v);
    }
    int64_t v = 99;
    assert_int_equal(ash_value_time("-1", true, &v, NULL), 0);
    assert_int_equal(v, -1);
    static const char *const bad[] = {"", "-1", "s", "1d", "1 2", "+3", "1h30", "inf"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (ash_value_time(bad[i], false, &v, NULL) != ASH_EINVAL)
            fail_msg("'%s' was taken", bad[i]);
    assert_int_equal(ash_value_time("-2", true, &v, NULL), ASH_EINVAL);
    assert_int_equal(ash_value_time("999999h", false, &v, NULL), ASH_ELIMIT);
}

static void yes_and_no(void **state)
{
    bool b = false;
    assert_int_equal(ash_value_bool("Yes", &b, NULL), 0);
    assert_true(b);
    assert_int_equal(ash_value_bool("0", &b, NULL), 0);
    assert_false(b);
    assert_int_equal(ash_value_bool("2", &b, NULL), ASH_EINVAL);
    assert_int_equal(ash_value_bool("", &b, NULL), ASH_EINVAL);
}

static void lists(void **state)
{
    ash_arena a;
    const char *const *v;
    size_t n;
    ash_arena_init(&a, 1 << 16);
    assert_int_equal(ash_value_list(" a, b c ,,d,", &a, &v, &n, NULL), 0);
    assert_int_equal(n, 3);
    assert_string_equal(v[0], "a");
    assert_string_equal(v[1], "b c");
    assert_string_equal(v[2], "d");
    assert_int_equal(ash_value_list(" , ", &a, &v, &n, NULL), 0);
    assert_int_equal(n, 0);
    assert_null(v);
    ash_arena_release(&a);
}

static void shown_sizes(void **state)
{
    static const struct {
        uint64_t v;
        const char *want;
    } t[] = {{0, "0 bytes"},         {999, "999 bytes"},    {1000, "1.0 kB"},
             {4160000000, "4.2 GB"}, {98362432, "98.4 MB"}, {688586727753, "689 GB"},
             {UINT64_MAX, "18.4 EB"}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char s[16];
        ash_value_show_bytes(t[i].v, s);
        assert_string_equal(s, t[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes), cmocka_unit_test(times),       cmocka_unit_test(yes_and_no),
        cmocka_unit_test(lists), cmocka_unit_test(shown_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
