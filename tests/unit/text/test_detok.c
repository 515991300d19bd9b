/* Ids to text: whole code points only, U+FFFD for what is none, special tokens, the leading space. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/utf8.h"
#include "tokenizer_fixture.h"

#define M "\xe2\x96\x81"
#define BAD "\xef\xbf\xbd"

/* 256 tokens of one byte each, by byte-level letters; then a special, a user-defined one, an empty
 * and an unused one. */
static ash_tokenizer *open_bytes(void)
{
    static char text[256][4];
    static const char *tokens[261];
    static int types[260];
    for (unsigned b = 0; b < 256; b++) {
        uint32_t cp = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE ? b
                      : b <= 0x20                                                      ? 0x100 + b
                      : b == 0xAD ? 0x143
                                  : 0x121 + b - 0x7F;
        text[b][ash_utf8_encode(cp, text[b])] = 0;
        tokens[b] = text[b];
        types[b] = 1;
    }
    tokens[256] = "<end>", types[256] = 3;
    tokens[257] = "\xc3\xbc", types[257] = 4; /* also the letter of byte FC */
    tokens[258] = "", types[258] = 1;
    tokens[259] = "unused", types[259] = 5;
    static const char *const merges[] = {NULL};
    made_vocab v = {.model = "gpt2", .pre = "gpt-2", .tokens = tokens, .types = types,
                    .merges = merges};
    ash_tokenizer *t;
    ash_err err = ASH_ERR_INIT;
    if (open_made(&v, &t, &err))
        fail_msg("%s", err.msg);
    return t;
}

static ash_tokenizer *open_spm(void)
{
    static const char *const tokens[] = {"<unk>",  "<s>",    "</s>",   M "Hi",   M,   "there",
                                         "<0xE4>", "<0xBD>", "<0xA0>", "<0xFF>", "<0x20>", NULL};
    static const int types[] = {2, 3, 3, 1, 1, 1, 6, 6, 6, 6, 6};
    static const float scores[11];
    made_vocab v = {.model = "llama", .tokens = tokens, .types = types, .scores = scores};
    ash_tokenizer *t;
    ash_err err = ASH_ERR_INIT;
    if (open_made(&v, &t, &err))
        fail_msg("%s", err.msg);
    return t;
}

/* After each id the text so far must be whole code points. */
static void expect_text(const ash_tokenizer *t, unsigned flags, const int *ids, size_t n,
                        const char *want)
{
    ash_buf out;
    ash_detok d;
    ash_buf_init(&out, 4096);
    ash_detok_init(&d, t, flags);
    for (int twice = 0; twice < 2; twice++) { /* flush leaves it as new */
        ash_buf_clear(&out);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(ash_detok_push(&d, ids[i], &out), 0);
            assert_true(out.len == 0 || ash_utf8_valid(out.data, out.len));
        }
        assert_int_equal(ash_detok_flush(&d, &out), 0);
        assert_string_equal(ash_buf_cstr(&out), want);
    }
    ash_buf_release(&out);
}

#define EXPECT(t, flags, want, ...)                                                                \
    expect_text(t, flags, (const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int), \
                want)

static void test_bytes(void **state)
{
    ash_tokenizer *t = open_bytes();
    EXPECT(t, 0, " hi", ' ', 'h', 'i'); /* byte-level: a leading space is text */
    EXPECT(t, 0, "\xe4\xbd\xa0!", 0xE4, 0xBD, 0xA0, '!');
    EXPECT(t, 0, "\xf0\x9f\x98\x80", 0xF0, 0x9F, 0x98, 0x80);
    EXPECT(t, 0, BAD, 0xF0, 0x9F, 0x98);               /* cut: one for the subpart */
    EXPECT(t, 0, BAD "a", 0xE4, 0xBD, 'a');            /* broken off by another */
    EXPECT(t, 0, BAD BAD "a", 0xFF, 0xFE, 'a');        /* no starts at all */
    EXPECT(t, 0, BAD BAD BAD, 0xED, 0xA0, 0x80);       /* a surrogate */
    EXPECT(t, 0, BAD "\xe4\xbd\xa0", 0xE4, 0xE4, 0xBD, 0xA0);
    EXPECT(t, 0, "\xc3\xbc" BAD, 257, 0xFC);
    EXPECT(t, 0, "ab", 'a', 256, 258, 259, -1, 260, 1 << 30, 'b');
    EXPECT(t, ASH_DETOK_SPECIAL, "a<end>b", 'a', 256, 'b');
    EXPECT(t, ASH_DETOK_SPECIAL, BAD "<end>", 0xE4, 256);
    EXPECT(t, 0, "\xe4\xbd\xa0", 0xE4, 256, 0xBD, 0xA0); /* what vanishes does not break a character */
    ash_tokenizer_close(t);
}

static void test_byte_fallback(void **state)
{
    ash_tokenizer *t = open_spm();
    EXPECT(t, 0, "\xe4\xbd\xa0", 6, 7, 8);
    EXPECT(t, 0, BAD BAD "there", 6, 7, 5); /* one for each byte */
    EXPECT(t, 0, BAD BAD, 6, 7);
    EXPECT(t, 0, BAD "there", 9, 5);
    ash_tokenizer_close(t);
}

static void test_leading_space(void **state)
{
    ash_tokenizer *t = open_spm();
    EXPECT(t, 0, "Hi there", 3, 4, 5);
    EXPECT(t, 0, " there", 4, 4, 5); /* only one is dropped */
    EXPECT(t, 0, "there", 10, 5);    /* also as a byte */
    EXPECT(t, 0, "Hi", 1, 3);
    EXPECT(t, ASH_DETOK_SPECIAL, "<s> Hi", 1, 3);
    EXPECT(t, ASH_DETOK_CONTINUE, " Hi", 3);
    ash_tokenizer_close(t);
}

static void test_full_buffer(void **state)
{
    ash_tokenizer *t = open_bytes();
    ash_buf out;
    ash_detok d;
    ash_buf_init(&out, 2);
    ash_detok_init(&d, t, 0);
    assert_int_equal(ash_detok_push(&d, 'a', &out), 0);
    assert_int_equal(ash_detok_push(&d, 'a', &out), 0);
    assert_int_equal(ash_detok_push(&d, 'a', &out), ASH_ELIMIT);
    ash_buf_release(&out);
    ash_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_byte_fallback),
        cmocka_unit_test(test_leading_space),
        cmocka_unit_test(test_full_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
