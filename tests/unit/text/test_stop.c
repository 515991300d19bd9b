/* Stop strings: what is shown, held and matched, for every way of cutting the stream. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/rng.h"
#include "text/stop.h"

static ash_stop *open_stops(const char *const *v, size_t n)
{
    ash_str s[8];
    for (size_t i = 0; i < n; i++) s[i] = ash_str_from(v[i]);
    ash_stop *out;
    ash_err err;
    assert_int_equal(ash_stop_open(s, n, &out, &err), 0);
    return out;
}

/* Feeds text in pieces of `cut` bytes; checks shown text and hit. */
static void expect(const char *const *v, size_t n, const char *text, const char *shown, int want)
{
    for (size_t cut = 1; cut <= strlen(text) + 1; cut++) {
        ash_stop *s = open_stops(v, n);
        ash_buf out;
        ash_buf_init(&out, 1 << 20);
        int hit = -1;
        for (size_t i = 0; i < strlen(text); i += cut) {
            size_t left = strlen(text) - i;
            assert_int_equal(ash_stop_push(s, text + i, left < cut ? left : cut, &out, &hit), 0);
        }
        assert_int_equal(ash_stop_flush(s, &out), 0);
        assert_string_equal(ash_buf_cstr(&out), shown);
        assert_int_equal(hit, want);
        ash_buf_release(&out);
        ash_stop_close(s);
    }
}

static void test_matches(void **state)
{
    const char *one[] = {"</s>"};
    expect(one, 1, "hello</s>world", "hello", 0);
    expect(one, 1, "a<</s</s>", "a<</s", 0);
    expect(one, 1, "no stop </s", "no stop </s", -1);
    expect(one, 1, "", "", -1);
    const char *self[] = {"aab"};
    expect(self, 1, "aaaab", "aa", 0);
    const char *border[] = {"abcabd"};
    expect(border, 1, "abcabcabd!", "abc", 0);
    const char *fallback[] = {"aabaaac"}; /* after aabaaa the border is aa, found in two steps */
    expect(fallback, 1, "aabaaabaaac", "aaba", 0);
    const char *two[] = {"\nUser:", "\n\n"};
    expect(two, 2, "hi\n\nUser:", "hi", 1);
    expect(two, 2, "hi\nUsed\nUser: x", "hi\nUsed", 0);
    const char *inner[] = {"abcd", "bc"};
    expect(inner, 2, "xabcd", "xa", 1); /* bc ends first */
    const char *suffix[] = {"c", "abc", "bc"};
    expect(suffix, 3, "xabc", "x", 1); /* all end at c: the longest */
    expect(NULL, 0, "anything", "anything", -1);
    const char *utf8[] = {"\xE2\x82\xAC"};
    expect(utf8, 1, "5 \xE2\x82\xAC", "5 ", 0);
}

static void test_holds_back(void **state)
{
    const char *v[] = {"STOP"};
    ash_stop *s = open_stops(v, 1);
    ash_buf out;
    ash_buf_init(&out, 100);
    int hit;
    assert_int_equal(ash_stop_push(s, "abST", 4, &out, &hit), 0);
    assert_string_equal(ash_buf_cstr(&out), "ab");
    assert_int_equal(ash_stop_held(s), 2);
    assert_int_equal(ash_stop_push(s, "OX", 2, &out, &hit), 0);
    assert_string_equal(ash_buf_cstr(&out), "abSTOX");
    assert_int_equal(ash_stop_held(s), 0);
    assert_int_equal(ash_stop_push(s, "STOPmore", 8, &out, &hit), 0);
    assert_int_equal(hit, 0);
    assert_int_equal(ash_stop_push(s, "and more", 8, &out, &hit), 0);
    assert_int_equal(hit, 0);
    assert_string_equal(ash_buf_cstr(&out), "abSTOX");
    ash_stop_reset(s);
    assert_int_equal(ash_stop_push(s, "new", 3, &out, &hit), 0);
    assert_int_equal(hit, -1);
    assert_string_equal(ash_buf_cstr(&out), "abSTOXnew");
    ash_buf_release(&out);
    ash_stop_close(s);
}

/* Against the plain definition, over a two-letter alphabet where partial matches abound. */
static void test_random(void **state)
{
    ash_rng r;
    ash_rng_init(&r, 7);
    for (int round = 0; round < 6000; round++) {
        char text[25], pat[3][10];
        const char *v[3];
        size_t n = 1 + ash_rng_u64(&r) % 3;
        for (size_t k = 0; k < n; k++) {
            size_t len = 1 + ash_rng_u64(&r) % 9;
            for (size_t i = 0; i < len; i++) pat[k][i] = (char)('a' + ash_rng_u64(&r) % 2);
            pat[k][len] = 0;
            v[k] = pat[k];
        }
        for (size_t i = 0; i < 24; i++) text[i] = (char)('a' + ash_rng_u64(&r) % 2);
        text[24] = 0;
        int want = -1;
        size_t cut = 24;
        for (size_t end = 1; end <= 24 && want < 0; end++)
            for (size_t k = 0; k < n; k++) {
                size_t len = strlen(v[k]);
                if (len <= end && !memcmp(text + end - len, v[k], len) &&
                    (want < 0 || len > strlen(v[want]))) {
                    want = (int)k;
                    cut = end - len;
                }
            }
        char shown[25];
        memcpy(shown, text, cut);
        shown[cut] = 0;
        expect(v, n, text, shown, want);
    }
}

static void test_refuses(void **state)
{
    ash_str v[ASH_MAX_STOPS + 1];
    for (int i = 0; i <= ASH_MAX_STOPS; i++) v[i] = ASH_STR("x");
    ash_stop *s;
    ash_err err;
    assert_int_equal(ash_stop_open(v, ASH_MAX_STOPS + 1, &s, &err), ASH_ELIMIT);
    assert_null(s);
    v[1] = ASH_STR("");
    assert_int_equal(ash_stop_open(v, 3, &s, &err), ASH_EINVAL);
    assert_string_equal(err.msg, "'stop[1]' is empty");
    char big[ASH_MAX_STOP_BYTES + 1];
    memset(big, 'a', sizeof big);
    v[1] = (ash_str){big, sizeof big};
    assert_int_equal(ash_stop_open(v, 3, &s, &err), ASH_ELIMIT);
    v[1].n--;
    assert_int_equal(ash_stop_open(v, 3, &s, &err), 0);
    ash_stop_close(s);
    ash_stop_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches),
        cmocka_unit_test(test_holds_back),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
