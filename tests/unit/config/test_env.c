/* The grammar of .env files: what each line gives, and what each bad line is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "config/env.h"

static const char *const vars[] = {"HOME=/home/a", "EMPTY=", "B=from environment", NULL};

static void good_lines(void **state)
{
    static const struct {
        const char *text, *key, *value;
    } t[] = {
        {"A=1", "A", "1"},
        {"A=1\n", "A", "1"},
        {"A=1\r\nC=2\r\n", "C", "2"},
        {"A=1\r\nC=2\r\n", "A", "1"},
        {"\xEF\xBB\xBF"
         "A=1",
         "A", "1"},
        {"export A=1", "A", "1"},
        {"export\tA=1", "A", "1"},
        {"  A = 1  ", "A", "1"},
        {"export=1", "export", "1"},
        {"exported=1", "exported", "1"},
        {"# no\n\n \t\nA=1 # yes", "A", "1"},
        {"A=a b  c  # d", "A", "a b  c"},
        {"A=a#b", "A", "a#b"},
        {"A=#b", "A", "#b"},
        {"A= #b", "A", ""},
        {"A=", "A", ""},
        {"A='a b # \\n ${B} $'", "A", "a b # \\n ${B} $"},
        {"A=''", "A", ""},
        {"A='x' # c", "A", "x"},
        {"A=\"a b # c\"", "A", "a b # c"},
        {"A=\"1\\n2\\\"3\\\\4\\$5\"", "A", "1\n2\"3\\4$5"},
        {"A=\"\\${B}\"", "A", "${B}"},
        {"A=\"\"   # c", "A", ""},
        {"A=x\nC=${A}y", "C", "xy"},
        {"A=x\nC=\"${A}y\"", "C", "xy"},
        {"A=${HOME}/m", "A", "/home/a/m"},
        {"A=[${EMPTY}${NOWHERE}]", "A", "[]"},
        {"B=file\nA=${B}", "A", "file"},             /* an earlier key before the environment */
        {"A=${B}\nB=file", "A", "from environment"}, /* a later one does not count */
        {"A=$B $", "A", "$B $"},
        {"A=1\nA=2", "A", "2"},
        {"A=it's", "A", "it's"},
        {"A=[\"a\",\"b\"]", "A", "[\"a\",\"b\"]"},
        {"A=back\\slash", "A", "back\\slash"},
        {"A=\xC3\xA4", "A", "\xC3\xA4"},
        {"A_1=x", "A_1", "x"},
        {"_a=x", "_a", "x"},
        {"A=a=b", "A", "a=b"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        ash_arena a;
        ash_env e;
        ash_err err = ASH_ERR_INIT;
        ash_arena_init(&a, 1 << 20);
        if (ash_env_parse(t[i].text, strlen(t[i].text), "f", vars, &a, &e, &err))
            fail_msg("%s: %s", t[i].text, err.msg);
        const ash_env_var *v = ash_env_find(&e, t[i].key);
        if (!v || strcmp(v->value, t[i].value))
            fail_msg("%s: %s is '%s', not '%s'", t[i].text, t[i].key, v ? v->value : "(none)",
                     t[i].value);
        ash_arena_release(&a);
    }
}

static void bad_lines(void **state)
{
    static const struct {
        const char *text;
        int64_t pos;
        const char *say;
    } t[] = {
        {"A=1\nFOO BAR\n", 8, "f:2: expected = after the key"},
        {"FOO", 3, "f:1: expected = after the key"},
        {"=x", 0, "f:1: expected KEY=value"},
        {"1A=x", 0, "f:1: expected KEY=value"},
        {"A-B=x", 1, "f:1: expected = after the key"},
        {"export", 6, "f:1: expected = after the key"},
        {"export =x", 7, "f:1: expected KEY=value"},
        {"\n\nA='x", 4, "f:3: expected a closing ' before the line's end"},
        {"A=\"x", 2, "f:1: expected a closing \" before the line's end"},
        {"A=\"x\\\"", 2, "f:1: expected a closing \""},
        {"A=\"x\nB=y\"", 2, "f:1: expected a closing \""},
        {"A='x'y", 5, "f:1: expected nothing but a comment"},
        {"A='x'#y", 5, "f:1: expected nothing but a comment"},
        {"A=\"x\" y", 6, "f:1: expected nothing but a comment"},
        {"A=\"\\t\"", 3, "f:1: expected \\n, \\\", \\\\ or \\$"},
        {"A=\"\\", 3, "f:1: expected \\n"},
        {"A=${", 2, "f:1: expected ${NAME}"},
        {"A=${}", 2, "f:1: expected ${NAME}"},
        {"A=${B", 2, "f:1: expected ${NAME}"},
        {"A=${B # }", 2, "f:1: expected ${NAME}"},
        {"A=${1}", 2, "f:1: expected ${NAME}"},
        {"A=${B:-x}", 2, "f:1: expected ${NAME}"},
        {"A=\"${B\"", 3, "f:1: expected ${NAME}"},
        {"A=\xC3(", 0, "f:1: the line is not valid UTF-8"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        ash_arena a;
        ash_env e;
        ash_err err = ASH_ERR_INIT;
        ash_arena_init(&a, 1 << 20);
        int rc = ash_env_parse(t[i].text, strlen(t[i].text), "f", vars, &a, &e, &err);
        if (rc != ASH_EFORMAT || err.pos != t[i].pos ||
            strncmp(err.msg, t[i].say, strlen(t[i].say)))
            fail_msg("%s: %d, byte %lld, %s", t[i].text, rc, (long long)err.pos, err.msg);
        ash_arena_release(&a);
    }
}

static void nul_and_caps(void **state)
{
    ash_arena a;
    ash_env e;
    ash_err err = ASH_ERR_INIT;
    ash_arena_init(&a, ASH_MAX_CONFIG_MEMORY);
    assert_int_equal(ash_env_parse("A=a\0b", 5, "f", NULL, &a, &e, &err), ASH_EFORMAT);
    assert_int_equal(err.pos, 3);

    char *big = malloc(ASH_MAX_ENV_VALUE + 8);
    memset(big, 'x', ASH_MAX_ENV_VALUE + 8);
    memcpy(big, "A=", 2);
    assert_int_equal(ash_env_parse(big, ASH_MAX_ENV_VALUE + 2, "f", NULL, &a, &e, &err), 0);
    assert_int_equal(ash_env_parse(big, ASH_MAX_ENV_VALUE + 3, "f", NULL, &a, &e, &err),
                     ASH_ELIMIT);
    free(big);

    ash_buf b;
    ash_buf_init(&b, 1 << 20);
    for (int i = 0; i < ASH_MAX_ENV_KEYS; i++) ash_buf_printf(&b, "K%d=1\n", i);
    assert_int_equal(ash_env_parse(b.data, b.len, "f", NULL, &a, &e, &err), 0);
    ash_buf_adds(&b, "MORE=1\n");
    assert_int_equal(ash_env_parse(b.data, b.len, "f", NULL, &a, &e, &err), ASH_ELIMIT);
    ash_buf_clear(&b);
    ash_buf_adds(&b, "A=xxxxxxxxxxxxxxxx\n"); /* a value that doubles stops at the cap */
    for (int i = 0; i < 30; i++) ash_buf_adds(&b, "A=${A}${A}\n");
    assert_int_equal(ash_env_parse(b.data, b.len, "f", NULL, &a, &e, &err), ASH_ELIMIT);
    assert_non_null(strstr(err.msg, "f:14:"));
    ash_buf_release(&b);
    ash_arena_release(&a);
}

static void a_missing_file(void **state)
{
    ash_arena a;
    ash_env e;
    ash_err err = ASH_ERR_INIT;
    ash_arena_init(&a, 1 << 20);
    assert_int_equal(ash_env_read("/nonexistent/.env", NULL, &a, &e, &err), ASH_ENOENT);
    assert_non_null(strstr(err.msg, "/nonexistent/.env"));
    ash_arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_lines),
        cmocka_unit_test(bad_lines),
        cmocka_unit_test(nul_and_caps),
        cmocka_unit_test(a_missing_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
