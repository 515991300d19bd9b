/* Reasoning and content, each text cut at every place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "provider/think.h"

static void splits(void **state)
{
    static const struct {
        const char *text, *reasoning, *content;
        bool inside, off;
    } t[] = {
        {"<think>a b</think>c", "a b", "c", false, false},
        {"<think>\na\n</think>\n\nc\n", "a\n", "c\n", false, false},
        {" \n<think>a</think> c", "a", "c", false, false},
        {"<think></think>c", "", "c", false, false},
        {"<think>a < b </ c </thin </think>d", "a < b </ c </thin ", "d", false, false},
        {"<think>a <</think>d", "a <", "d", false, false},
        {"<think>a <</thi</think>d", "a <</thi", "d", false, false},
        {"<think>never closed </thi", "never closed </thi", "", false, false},
        {"no <think>a</think>", "", "no <think>a</think>", false, false},
        {"<thin", "", "<thin", false, false},
        {"<thinx>", "", "<thinx>", false, false},
        {"  x", "", "  x", false, false},
        {"", "", "", false, false},
        {" ", "", " ", false, false},
        {"a</think>b", "a", "b", true, false},
        {"a", "a", "", true, false},
        {"<think>a</think>b", "", "<think>a</think>b", false, true},
        {"<think>a</think>b<think>c</think>", "a", "b<think>c</think>", false, false},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        size_t n = strlen(t[i].text);
        for (size_t cut = 0; cut <= n; cut++)
            for (size_t step = 1; step <= n + 1; step++) {
                ash_think th;
                ash_buf r, c;
                ash_think_init(&th, t[i].inside, t[i].off);
                ash_buf_init(&r, 1000);
                ash_buf_init(&c, 1000);
                for (size_t at = 0; at < n;) {
                    size_t len = at < cut ? cut - at : step;
                    if (len > n - at) len = n - at;
                    assert_int_equal(ash_think_push(&th, (ash_str){t[i].text + at, len}, &r, &c),
                                     0);
                    at += len;
                }
                assert_int_equal(ash_think_flush(&th, &r, &c), 0);
                if (strcmp(ash_buf_cstr(&r), t[i].reasoning) ||
                    strcmp(ash_buf_cstr(&c), t[i].content))
                    fail_msg("'%s' (%zu, %zu): '%s' and '%s'", t[i].text, cut, step,
                             ash_buf_cstr(&r), ash_buf_cstr(&c));
                ash_buf_release(&r);
                ash_buf_release(&c);
            }
    }
}

static void much_white_space_is_content(void **state)
{
    char text[200];
    memset(text, ' ', sizeof text);
    ash_think th;
    ash_buf r, c;
    ash_think_init(&th, false, false);
    ash_buf_init(&r, 1000);
    ash_buf_init(&c, 1000);
    assert_int_equal(ash_think_push(&th, (ash_str){text, sizeof text}, &r, &c), 0);
    assert_int_equal(c.len, sizeof text);
    ash_buf_release(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(splits),
                                       cmocka_unit_test(much_white_space_is_content)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
