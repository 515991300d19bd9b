/* What is taken from texts of others before a terminal, or a message, shows them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/utf8.h"

static void disarmed(void **state)
{
    static const char *const all[][2] = {{"", ""},
                                         {"\xC3\xA9, \xF0\x9F\x99\x82", "\xC3\xA9, \xF0\x9F\x99\x82"},
                                         {"a\tb\nc", "a\tb\nc"},
                                         {"\x1b[2Jx\r\a\x7f", "?[2Jx???"},
                                         {"\xC2\x9B" "31m\xC2\x80\xC2\x9F\xC2\xA0", "??31m????\xC2\xA0"},
                                         {"\xC2", "\xC2"},
                                         {"\xC2\x1b", "\xC2?"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char text[64];
        memcpy(text, all[i][0], strlen(all[i][0]) + 1);
        ash_utf8_disarm(text, strlen(text));
        assert_string_equal(text, all[i][1]);
    }
    char nul[3] = {'a', 0, 'b'};
    ash_utf8_disarm(nul, sizeof nul);
    assert_memory_equal(nul, "a?b", 3);
}

static void errors_hold_no_commands(void **state)
{
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_err_set(&err, ASH_EFORMAT, "tensor '%s'", "\x1b]0;x\a"), ASH_EFORMAT);
    assert_string_equal(err.msg, "tensor '?]0;x?'");
    assert_int_equal(ash_err_prefix(&err, "%s", "a\x1b.gguf"), ASH_EFORMAT);
    ash_err other = ASH_ERR_INIT; /* what is no UTF-8 is shown without its upper bytes */
    ash_err_at(&other, ASH_EFORMAT, 3, "near [%s]", "\xc3\xa9\xff");
    assert_string_equal(other.msg, "near [???] at byte 3");
    assert_int_equal(ash_err_prefix(&other, "%s", "\xfe"), ASH_EFORMAT);
    assert_string_equal(other.msg, "?: near [???] at byte 3");
    ash_err_set(&other, ASH_EFORMAT, "%s", "\xc3\xa9");
    assert_string_equal(other.msg, "\xc3\xa9");
    assert_string_equal(err.msg, "a?.gguf: tensor '?]0;x?'");
    assert_int_equal(ash_err_at(&err, ASH_EFORMAT, 7, "\x1b"), ASH_EFORMAT);
    assert_string_equal(err.msg, "? at byte 7");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(disarmed), cmocka_unit_test(errors_hold_no_commands)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
