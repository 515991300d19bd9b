/* Oniguruma's patterns in PCRE2's form: what is rewritten, what is refused and where, and that no
 * pattern of a file can take more than its share of steps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "text/tokenizer_regex.h"

static void test_rewritten(void **state)
{
    static const char *const pairs[][2] = {
        {"ab", "\\x{61}\\x{62}"},
        {"[a-c]", "[\\x{61}-\\x{63}]"},
        {"[-a^-]", "[\\x{2D}\\x{61}\\x{5E}\\x{2D}]"},
        {"[^\\r\\n]", "[^\\x{D}\\x{A}]"},
        {"\\p{L}+", "\\p{L}+"},
        {"\\p{^L}\\P{Letter}", "\\P{L}\\P{L}"},
        {"\\p{Han}", "\\p{sc:Han}"},
        {"\\u4e00\\x{1F600}\\x41", "\\x{4E00}\\x{1F600}\\x{41}"},
        {"\\d\\D", "[\\p{Nd}][\\P{Nd}]"},
        {"(a)(?:b)(?!c)", "(?:\\x{61})(?:\\x{62})(?!\\x{63})"},
        {"(?i)a", "(?i)\\x{61}"},
        {"x{,3}y{2,}z{4}", "\\x{78}{0,3}\\x{79}{2,}\\x{7A}{4}"},
        {"{a{b}", "\\{\\x{61}\\{\\x{62}\\x{7D}"},
        {"a++b*?c?+", "\\x{61}++\\x{62}*?\\x{63}?+"},
        {"^.$|\\A\\z", "^[^\\n]$|\\A\\z"},
        {"\\[\\]\\-", "\\x{5B}\\x{5D}\\x{2D}"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        ash_buf out;
        ash_err err = ASH_ERR_INIT;
        ash_buf_init(&out, 4096);
        if (tok_regex_rewrite(ash_str_from(pairs[i][0]), &out, &err))
            fail_msg("%s: %s", pairs[i][0], err.msg);
        assert_string_equal(ash_buf_cstr(&out), pairs[i][1]);
        ash_buf_release(&out);
    }
}

static void test_refused(void **state)
{
    static const char *const bad[][2] = {
        {"a\\b", "'\\b' at byte 1"},       {"\\h", "'\\h' at byte 0"},
        {"\\1", "'\\1'"},                  {"(?m:.)", "a group of this kind at byte 0"},
        {"(?<n>a)", "a group of this kind"}, {"a(?i)b", "a group of this kind at byte 1"},
        {"[[:alpha:]]", "a POSIX class"},  {"[a[b]]", "a class in a class"},
        {"[a&&b]", "the intersection"},    {"[]a]", "begins with ']'"},
        {"[z-a]", "a range of this kind"}, {"[a", "a class without end"},
        {"[\\W]", "'\\W' in a class"},     {"(a", "a group without end"},
        {"a)", "a ')' without its '('"},   {"*a", "a repeat of nothing at byte 0"},
        {"a**", "a repeat of nothing at byte 2"}, {"a{2}+", "a repeat of a repeat"},
        {"a{2}?", "a repeat of a repeat"}, {"\\p{Q}", "a property of this name"},
        {"\\pL", "a property without braces"}, {"\\xE2", "this \\x"},
        {"\\u12", "this \\u"},             {"a\\", "a backslash at the end"},
        {"\\p{Nonsense}", "the pattern fails in PCRE2"},
        {"((a{1,999}){1,999}){1,999}", "the pattern fails in PCRE2"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tok_regex *re;
        ash_err err = ASH_ERR_INIT;
        assert_int_equal(tok_regex_open(ash_str_from(bad[i][0]), false, &re, &err), ASH_EUNSUPPORTED);
        assert_null(re);
        if (!strstr(err.msg, bad[i][1]))
            fail_msg("%s: no '%s' in '%s'", bad[i][0], bad[i][1], err.msg);
    }
}

/* The end of the first match at or after `from`; -1 none, or the error. */
static long find_end(const char *pattern, const char *text, size_t n, size_t from)
{
    tok_regex *re;
    tok_matcher *m;
    ash_err err = ASH_ERR_INIT;
    size_t begin, end;
    if (tok_regex_open(ash_str_from(pattern), false, &re, &err))
        fail_msg("%s: %s", pattern, err.msg);
    assert_int_equal(tok_matcher_open(&m, NULL), 0);
    tok_matcher_allow(m, n);
    int rc = tok_matcher_find(m, re, text, n, from, &begin, &end, &err);
    tok_matcher_close(m);
    tok_regex_close(re);
    return rc < 0 ? rc : rc ? (long)end : -1;
}

/* "\s+$" is tried once for a run of blanks, and means what it meant. */
static void test_trailing_blanks(void **state)
{
    assert_int_equal(find_end("\\s+$", "a  b  ", 6, 0), 6);
    assert_int_equal(find_end("\\s+$", "a  \n b", 6, 0), 3);
    assert_int_equal(find_end("\\s+$", "a \n\n b", 6, 0), 3);
    assert_int_equal(find_end("\\s+$", "a\n", 2, 0), 2);
    assert_int_equal(find_end("\\s+$", "a\nb", 3, 0), -1);
    assert_int_equal(find_end("(?:\\s+)$", "a  \n b", 6, 0), 3);
}

/* A long run is worth its steps; a pattern that would take its square is stopped. */
static void test_budget(void **state)
{
    size_t n = 1u << 18;
    char *text = malloc(n);
    assert_non_null(text);
    memset(text, 'a', n);
    assert_int_equal(find_end("\\p{L}+", text, n, 0), (long)n);
    assert_int_equal(find_end("[a-z]*x|a+", text, n, 0), (long)n);
    assert_int_equal(find_end("(a+)+[b-d]", text, n, 0), ASH_ELIMIT);
    assert_int_equal(find_end("\\w+\\s*[=:]", text, n, 0), ASH_ELIMIT);
    assert_int_equal(find_end("^(?:.|\\n)*[x-z]", text, n, 0), ASH_ELIMIT);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rewritten), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_trailing_blanks), cmocka_unit_test(test_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
