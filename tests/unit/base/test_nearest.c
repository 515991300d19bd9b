/* What a mistyped name is taken for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/nearest.h"

static void distances(void **state)
{
    static const struct {
        const char *name, *known;
        int want;
    } t[] = {
        {"ASHLEY_PORT", "ASHLEY_PORT", 0},
        {"ASHLEY_PROT", "ASHLEY_PORT", 1}, /* a swap */
        {"ashley_port", "ASHLEY_PORT", 0},
        {"ASHLEY_PRT", "ASHLEY_PORT", 1},
        {"ASHLEY_PORTX", "ASHLEY_PORT", 1},
        {"smollm2", "smollm2-135m-instruct", 1},
        {"smolm2", "smollm2-135m-instruct", 2},
        {"coder-v2", "deepseek-coder-v2", 2},
        {"nope", "openhermes-2.5", ASH_NEAREST_FAR}, /* of four letters all have to be right */
        {"gpt-4", "smollm2-135m-instruct", ASH_NEAREST_FAR},
        {"lst", "list", 1},
        {"llama", "tinyllama-1b", 2},
        {"ph3", "phi-3", ASH_NEAREST_FAR}, /* two letters of three */
        {"foo", "cpu", ASH_NEAREST_FAR},
        {"serf", "show", ASH_NEAREST_FAR},
        {"smoll", "smell2", ASH_NEAREST_FAR},
        {"smollm", "smell2", 2},
        {"", "a", ASH_NEAREST_FAR},
        {"a", "", ASH_NEAREST_FAR},
        {"ab", "cd", ASH_NEAREST_FAR},
        {"x", "a", ASH_NEAREST_FAR},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        int d = ash_nearest_distance(t[i].name, t[i].known);
        if (d != t[i].want)
            fail_msg("%s, %s: %d, not %d", t[i].name, t[i].known, d, t[i].want);
    }
}

static void long_names_are_far(void **state)
{
    char a[ASH_NEAREST_MAX + 2], b[ASH_NEAREST_MAX + 2];
    memset(a, 'x', sizeof a);
    memset(b, 'x', sizeof b);
    a[ASH_NEAREST_MAX] = b[ASH_NEAREST_MAX] = 0;
    b[1] = 'y';
    assert_int_equal(ash_nearest_distance(a, b), 1);
    a[ASH_NEAREST_MAX] = 'x';
    a[ASH_NEAREST_MAX + 1] = 0;
    assert_int_equal(ash_nearest_distance(a, b), ASH_NEAREST_FAR);
}

static void picks_the_first_of_the_closest(void **state)
{
    static const char *const known[] = {"abcd", NULL, "abcx", "abce"};
    assert_string_equal(ash_nearest("abcx", known, 4), "abcx");
    assert_string_equal(ash_nearest("abcz", known, 4), "abcd");
    assert_null(ash_nearest("zzzzzz", known, 4));
    assert_null(ash_nearest("abcd", known, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distances),
        cmocka_unit_test(long_names_are_far),
        cmocka_unit_test(picks_the_first_of_the_closest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
