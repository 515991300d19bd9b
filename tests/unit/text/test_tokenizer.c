/* The tokenizer's edges: what opening refuses, special ids, special tokens in trusted and untrusted
 * text, odd vocabularies, limits, long words, threads. Ids of real text: test_tokenizer_golden.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/pool.h"
#include "tokenizer_fixture.h"

/* 0..8 letters, 9..12 merged, 15.. special, user-defined and odd ones: see bpe_types */
static const char *const bpe_tokens[] = {
    "h", "e", "l", "o", "w", "<", ">", "|", "\xc4\xa0" /* space */, "he", "ll", "hell", "hello",
    "", "he", "<|end|>", "<b>", "<s>", "<bos>", "ee", "[PAD20]", "eeo", "ow",
    "<\xef\xbd\x9c>", "<EOT>", NULL};
static const int bpe_types[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 4, 3, 3, 4, 4, 4, 1, 3, 1};
static const char *const bpe_merges[] = {"h e", "l l", "he ll", "hell o", NULL};
static const made_vocab bpe = {.model = "gpt2", .pre = "gpt-2", .tokens = bpe_tokens,
                               .types = bpe_types, .merges = bpe_merges};

static void expect_ids(const ash_tokenizer *t, const char *text, unsigned flags,
                       const ash_span *spans, size_t n_spans, const char *want)
{
    ash_ids ids = ASH_IDS_INIT;
    ash_err err = ASH_ERR_INIT;
    char got[512] = "";
    if (ash_tokenizer_encode(t, text, strlen(text), flags, spans, n_spans, &ids, &err))
        fail_msg("%s", err.msg);
    for (size_t i = 0, n = 0; i < ids.n && n < 480; i++)
        n += (size_t)snprintf(got + n, sizeof got - n, "%s%d", i ? " " : "", ids.p[i]);
    ash_ids_release(&ids);
    assert_string_equal(got, want);
}

static void expect_refused(const made_vocab *v, int code, const char *text)
{
    ash_tokenizer *t;
    ash_err err = ASH_ERR_INIT;
    int rc = open_made(v, &t, &err);
    if (rc != code || !strstr(err.msg, text))
        fail_msg("wanted %d with '%s', got %d: %s", code, text, rc, err.msg);
    assert_null(t);
}

static ash_tokenizer *must_open(const made_vocab *v)
{
    ash_tokenizer *t;
    ash_err err = ASH_ERR_INIT;
    if (open_made(v, &t, &err))
        fail_msg("%s", err.msg);
    return t;
}

/* ---- opening -------------------------------------------------------------------------------- */

static void two_types(ash_buf *b)
{
    gw_array(b, "tokenizer.ggml.token_type", ASH_GGUF_I32, 2);
    gw_int(b, 1, 4), gw_int(b, 1, 4);
}

static void test_open_refuses(void **state)
{
    static const char *const two[] = {"a", "b", NULL}, *const none[] = {NULL};
    static const char *const one_sided[] = {"h", NULL}, *const unknown[] = {"h l", NULL};
    static const int odd[] = {1, 9};
    static const float nan_score[] = {0, NAN};
    made_vocab v = {.model = "bert", .tokens = two};
    char *huge = calloc(1, ASH_MAX_TOKEN_BYTES + 2);
    const char *const long_token[] = {"a", huge, NULL};
    memset(huge, 'x', ASH_MAX_TOKEN_BYTES + 1);
    expect_refused(&v, ASH_EUNSUPPORTED, "only 'gpt2' and 'llama' are read, not 'bert'");
    v = (made_vocab){.model = "gpt2"};
    expect_refused(&v, ASH_ENOENT, "key 'tokenizer.ggml.tokens' is missing");
    v.tokens = none;
    expect_refused(&v, ASH_EFORMAT, "has 0 tokens");
    v.tokens = two;
    expect_refused(&v, ASH_ENOENT, "key 'tokenizer.ggml.merges' is missing");
    v = bpe;
    v.pre = "nobody";
    expect_refused(&v, ASH_EUNSUPPORTED, "'nobody' is no known pre-tokeniser; known are default gpt-2");
    v.pre = "gpt-2 smollm";
    expect_refused(&v, ASH_EUNSUPPORTED, "no known pre-tokeniser");
    v = bpe;
    v.merges = one_sided;
    expect_refused(&v, ASH_EFORMAT, "entry 0 ('h') must be two tokens that make a third");
    v.merges = unknown;
    expect_refused(&v, ASH_EFORMAT, "entry 0 ('h l')");
    v = (made_vocab){.model = "gpt2", .tokens = two, .types = odd, .merges = none};
    expect_refused(&v, ASH_EFORMAT, "token 1 has the unknown type 9");
    v = bpe;
    v.types = NULL;
    v.more = two_types;
    v.n_more = 1;
    expect_refused(&v, ASH_EFORMAT, "has 2 entries for 25 tokens");
    v = (made_vocab){.model = "llama", .tokens = two};
    expect_refused(&v, ASH_ENOENT, "key 'tokenizer.ggml.scores' is missing");
    v.scores = nan_score;
    expect_refused(&v, ASH_EFORMAT, "token 1 has no number");
    v = (made_vocab){.model = "gpt2", .tokens = long_token, .merges = none};
    expect_refused(&v, ASH_ELIMIT, "token 1 has 4097 bytes");
    free(huge);
}

static void odd_ids(ash_buf *b)
{
    gw_kv_int(b, "tokenizer.ggml.bos_token_id", ASH_GGUF_I32, 0xFFFFFFFF, 4);
    gw_kv_int(b, "tokenizer.ggml.eos_token_id", ASH_GGUF_U64, 1ull << 40, 8);
    gw_kv_int(b, "tokenizer.ggml.padding_token_id", ASH_GGUF_U8, 3, 1);
    gw_kv_int(b, "tokenizer.ggml.eom_token_id", ASH_GGUF_U32, 16, 4);
    gw_kv_int(b, "tokenizer.ggml.add_bos_token", ASH_GGUF_BOOL, 1, 1);
}

static void text_id(ash_buf *b)
{
    gw_kv_str(b, "tokenizer.ggml.bos_token_id", "1");
}

static void test_special_ids(void **state)
{
    made_vocab v = bpe;
    ash_tokenizer *t = must_open(&v);
    size_t n;
    assert_int_equal(ash_tokenizer_bos(t), -1); /* token 11 is plain text: no default */
    assert_int_equal(ash_tokenizer_eog(t, &n)[0], 15);
    assert_int_equal(n, 1); /* "<EOT>" is plain text here */
    ash_tokenizer_close(t);

    v.more = odd_ids;
    v.n_more = 5;
    t = must_open(&v);
    assert_int_equal(ash_tokenizer_bos(t), -1);
    assert_int_equal(ash_tokenizer_eos(t), -1);
    assert_int_equal(ash_tokenizer_pad(t), 3);
    assert_false(ash_tokenizer_adds_bos(t)); /* asked for, but there is none */
    assert_true(ash_tokenizer_is_eog(t, 15) && ash_tokenizer_is_eog(t, 16));
    assert_false(ash_tokenizer_is_eog(t, -1));
    expect_ids(t, "o", ASH_ENCODE_BOS_EOS, NULL, 0, "3");
    ash_tokenizer_close(t);

    v.more = text_id;
    v.n_more = 1;
    expect_refused(&v, ASH_EFORMAT, "key 'tokenizer.ggml.bos_token_id' must be an integer");
}

static void with_bos_eos(ash_buf *b)
{
    gw_kv_int(b, "tokenizer.ggml.bos_token_id", ASH_GGUF_U32, 18, 4);
    gw_kv_int(b, "tokenizer.ggml.eos_token_id", ASH_GGUF_U32, 15, 4);
    gw_kv_int(b, "tokenizer.ggml.add_bos_token", ASH_GGUF_BOOL, 1, 1);
    gw_kv_int(b, "tokenizer.ggml.add_eos_token", ASH_GGUF_BOOL, 1, 1);
    gw_kv_str(b, "tokenizer.chat_template", "{{ x }}");
}

static void test_bos_eos_and_lookups(void **state)
{
    made_vocab v = bpe;
    v.more = with_bos_eos;
    v.n_more = 5;
    ash_tokenizer *t = must_open(&v);
    ash_str s;
    expect_ids(t, "hello", ASH_ENCODE_BOS_EOS, NULL, 0, "18 12 15");
    expect_ids(t, "", ASH_ENCODE_BOS_EOS, NULL, 0, "18 15");
    expect_ids(t, "", 0, NULL, 0, "");
    assert_true(ash_tokenizer_chat_template(t, &s) && ash_str_eqc(s, "{{ x }}"));
    assert_int_equal(ash_tokenizer_n_vocab(t), 25);
    assert_true(ash_tokenizer_piece(t, 8, &s) && ash_str_eqc(s, " "));
    assert_true(ash_tokenizer_piece(t, 13, &s) && s.n == 0);
    assert_true(ash_tokenizer_piece(t, 20, &s) && s.n == 0); /* a filler */
    assert_false(ash_tokenizer_piece(t, 25, &s));
    assert_false(ash_tokenizer_piece(t, -1, &s));
    assert_int_equal(ash_tokenizer_find(t, "he", 2), 9); /* of two the lower */
    assert_int_equal(ash_tokenizer_find(t, "", 0), -1);
    assert_int_equal(ash_tokenizer_find(t, "nothing", 7), -1);
    assert_true(ash_tokenizer_is_special(t, 15));
    assert_false(ash_tokenizer_is_special(t, 16)); /* user-defined: text */
    ash_tokenizer_close(t);
}

/* ---- special tokens in text ----------------------------------------------------------------- */

static void test_whole_words(void **state)
{
    made_vocab v = bpe; /* "ow" is a token that no merge makes */
    ash_tokenizer *t = must_open(&v);
    expect_ids(t, "ow", 0, NULL, 0, "3 4");
    assert_false(ash_tokenizer_adds_bos(t));
    ash_tokenizer_close(t);
    v.pre = "llama-bpe";
    t = must_open(&v);
    expect_ids(t, "ow", 0, NULL, 0, "22");
    expect_ids(t, "oww", 0, NULL, 0, "3 4 4");
    ash_tokenizer_close(t);
}

static void test_untrusted(void **state)
{
    ash_tokenizer *t = must_open(&bpe);
    static const ash_span second[] = {{3, 6}}, inside[] = {{1, 2}}, after[] = {{3, 4}};
    static const ash_span edge[] = {{1, 1}, {3, 3}}, both[] = {{0, 1}, {4, 5}};
    /* "<b>" is user-defined markup, "<s>" control; without the flag neither counts */
    expect_ids(t, "<s><s>", 0, NULL, 0, "5 6 5 6");
    expect_ids(t, "<s><s>", ASH_ENCODE_SPECIAL, NULL, 0, "17 17");
    expect_ids(t, "<s><s>", ASH_ENCODE_SPECIAL, second, 1, "17 5 6");
    expect_ids(t, "<s><s>", ASH_ENCODE_SPECIAL, inside, 1, "5 6 17");
    expect_ids(t, "<s><s>", ASH_ENCODE_SPECIAL, both, 2, "5 6 5 6");
    expect_ids(t, "<s><s>", ASH_ENCODE_SPECIAL, edge, 2, "17 17"); /* empty ranges are nothing */
    expect_ids(t, "<b>o", ASH_ENCODE_SPECIAL, after, 1, "16 3");
    expect_ids(t, "<b>", 0, NULL, 0, "5 6");
    /* merges cross the borders of ranges; "ee" is no markup and matches anywhere, before merging */
    expect_ids(t, "hello", ASH_ENCODE_SPECIAL, inside, 1, "12");
    expect_ids(t, "heel", 0, NULL, 0, "0 19 2");
    expect_ids(t, "heeo", 0, NULL, 0, "0 21"); /* the longest */
    expect_ids(t, "heel", ASH_ENCODE_SPECIAL, inside, 1, "0 19 2");
    /* a filler never matches; bytes without a token vanish */
    expect_ids(t, "o[PAD20]o", ASH_ENCODE_SPECIAL, NULL, 0, "3 3");
    ash_tokenizer_close(t);
}

static void test_untrusted_in_broken_text(void **state)
{
    /* Each bad byte becomes three: the ranges must move along, outwards. */
    ash_tokenizer *t = must_open(&bpe);
    static const ash_span second[] = {{5, 8}}, first[] = {{2, 5}}, bad[] = {{0, 2}};
    expect_ids(t, "\xff\xff<s><s>", ASH_ENCODE_SPECIAL, second, 1, "17 5 6");
    expect_ids(t, "\xff\xff<s><s>", ASH_ENCODE_SPECIAL, first, 1, "5 6 17");
    expect_ids(t, "\xff\xff<s><s>", ASH_ENCODE_SPECIAL, bad, 1, "17 17");
    expect_ids(t, "\xe4\xbd<s>", ASH_ENCODE_SPECIAL, (ash_span[]){{1, 1}}, 1, "17");
    /* a border inside a character */
    expect_ids(t, "\xff<\xef\xbd\x9c>", ASH_ENCODE_SPECIAL, NULL, 0, "23");
    expect_ids(t, "\xff<\xef\xbd\x9c>", ASH_ENCODE_SPECIAL, (ash_span[]){{3, 4}}, 1, "5 6");
    ash_tokenizer_close(t);
}

static void test_bad_arguments(void **state)
{
    ash_tokenizer *t = must_open(&bpe);
    static const ash_span bad[][2] = {{{2, 1}, {3, 3}}, {{0, 2}, {1, 3}}, {{0, 1}, {4, 6}}};
    ash_ids ids = ASH_IDS_INIT;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_ids_add(&ids, 42, NULL), 0);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(ash_tokenizer_encode(t, "hello", 5, 0, bad[i], 2, &ids, &err), ASH_EINVAL);
    ids.max = 3;
    assert_int_equal(ash_tokenizer_encode(t, "hhhh", 4, 0, NULL, 0, &ids, &err), ASH_ELIMIT);
    assert_non_null(strstr(err.msg, "more than 3 tokens"));
    assert_int_equal(ids.n, 1); /* what it held before */
    assert_int_equal(ash_tokenizer_encode(t, "hw", 2, 0, NULL, 0, &ids, &err), 0);
    assert_int_equal(ids.n, 3);
    char *large = calloc(1, (size_t)ASH_MAX_TEXT + 1);
    assert_int_equal(ash_tokenizer_encode(t, large, (size_t)ASH_MAX_TEXT + 1, 0, NULL, 0, &ids, &err),
                     ASH_ELIMIT);
    assert_int_equal(ash_tokenizer_encode(t, large, 1u << 20, 0, NULL, 0, &ids, &err), ASH_ELIMIT);
    free(large);
    ash_ids_release(&ids);
    ash_tokenizer_close(t);
}

/* ---- SentencePiece -------------------------------------------------------------------------- */

#define M "\xe2\x96\x81"

static void no_prefix(ash_buf *b)
{
    gw_kv_int(b, "tokenizer.ggml.add_space_prefix", ASH_GGUF_BOOL, 0, 1);
}

static void charsmap(ash_buf *b)
{
    gw_array(b, "tokenizer.ggml.precompiled_charsmap", ASH_GGUF_U8, 3);
    gw_zeros(b, 3);
}

static void test_spm(void **state)
{
    /* 9 "ab" is unused: it is made, then taken apart again; 10 joins over a space */
    static const char *const tokens[] = {"<unk>", "<s>", "</s>", "<0x41>", M,      "a", "b", "c",
                                         M "a",   "ab",  "b" M,  "abc",    "<x>", NULL};
    static const int types[] = {2, 3, 3, 6, 1, 1, 1, 1, 1, 5, 1, 1, 4};
    static const float scores[] = {0, 0, 0, 0, -9, -9, -9, -9, -3, -1, -2, -1.5f, 0};
    made_vocab v = {.model = "llama", .tokens = tokens, .types = types, .scores = scores};
    ash_tokenizer *t = must_open(&v);
    assert_true(ash_tokenizer_adds_bos(t));
    assert_int_equal(ash_tokenizer_bos(t), 1);
    assert_int_equal(ash_tokenizer_unk(t), 0);
    expect_ids(t, "a", ASH_ENCODE_BOS_EOS, NULL, 0, "1 8");
    expect_ids(t, "cab", 0, NULL, 0, "4 7 5 6");
    expect_ids(t, "abc", 0, NULL, 0, "4 11");
    expect_ids(t, "b a", 0, NULL, 0, "4 10 5"); /* scores: "b_" before "_a" */
    expect_ids(t, "A", 0, NULL, 0, "4 3");
    expect_ids(t, "xyzzy", 0, NULL, 0, "4 0"); /* unknown ones are one */
    expect_ids(t, "", ASH_ENCODE_BOS_EOS, NULL, 0, "1");
    expect_ids(t, "a<s>a", ASH_ENCODE_SPECIAL, NULL, 0, "8 1 8"); /* each piece gets its space */
    expect_ids(t, "<unk>", 0, NULL, 0, "4 0");
    ash_tokenizer_close(t);
    v.more = no_prefix;
    v.n_more = 1;
    t = must_open(&v);
    expect_ids(t, "a a", 0, NULL, 0, "5 8");
    ash_tokenizer_close(t);
    v.more = charsmap;
    expect_refused(&v, ASH_EUNSUPPORTED, "precompiled_charsmap");
}

/* ---- long and hostile text ------------------------------------------------------------------ */

static void encode_long(const ash_tokenizer *t, const char *unit, size_t times)
{
    ash_buf b;
    ash_ids ids = ASH_IDS_INIT;
    ash_err err = ASH_ERR_INIT;
    ash_buf_init(&b, ASH_MAX_TEXT);
    while (times--) ash_buf_adds(&b, unit);
    ash_buf_adds(&b, "\xe4\xb8\xadx"); /* so that a run ends before its piece does */
    if (ash_tokenizer_encode(t, b.data, b.len, 0, NULL, 0, &ids, &err))
        fail_msg("%s", err.msg);
    assert_true(ids.n > 0);
    ash_ids_release(&ids);
    ash_buf_release(&b);
}

/* Quadratic work on any of these would not end within the test's time. */
static void test_long_words(void **state)
{
    static const char *const pres[] = {"gpt-2", "qwen2", "deepseek-llm", "deepseek-v3", "tekken",
                                       "default"};
    static const char *const units[] = {"a", " ", "\n", "\xcc\x81\xcc\xa3", "A", "\xe4\xb8\xad", "'",
                                        "1", " \t"};
    for (size_t p = 0; p < sizeof pres / sizeof *pres; p++) {
        ash_tokenizer *t;
        assert_int_equal(open_bpe_as(pres[p], &t, NULL), 0);
        for (size_t i = 0; i < sizeof units / sizeof *units; i++)
            encode_long(t, units[i], 200000);
        ash_tokenizer_close(t);
    }
    char path[512];
    ash_tokenizer *t;
    assert_int_equal(open_file(fixture_path("spm.gguf", path), &t, NULL), 0);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) encode_long(t, units[i], 200000);
    ash_tokenizer_close(t);
}

/* ---- threads -------------------------------------------------------------------------------- */

typedef struct share {
    const ash_tokenizer *t;
    int failures;
} share;

static void encode_share(void *ctx, int64_t begin, int64_t end, int worker)
{
    static const char text[] = "The quick brown f\xc3\xb6x's 1234 tails <s>\n\n   jumped over it all.";
    share *s = ctx;
    ash_ids first = ASH_IDS_INIT;
    for (int i = 0; i < 200; i++) {
        ash_ids ids = ASH_IDS_INIT;
        int rc = ash_tokenizer_encode(s->t, text, sizeof text - 1, ASH_ENCODE_SPECIAL, NULL, 0, &ids,
                                      NULL);
        bool same = !first.p || (ids.n == first.n && !memcmp(ids.p, first.p, ids.n * sizeof *ids.p));
        if (rc || !same)
            __atomic_add_fetch(&s->failures, 1, __ATOMIC_RELAXED);
        if (first.p)
            ash_ids_release(&ids);
        else
            first = ids;
    }
    ash_ids_release(&first);
}

static void test_threads(void **state)
{
    ash_pool *pool;
    share s = {0};
    ash_tokenizer *t;
    assert_int_equal(open_bpe_as("qwen2", &t, NULL), 0);
    s.t = t;
    assert_int_equal(ash_pool_open(4, &pool, NULL), 0);
    ash_pool_run(pool, 8, 1, encode_share, &s);
    ash_pool_close(pool);
    assert_int_equal(s.failures, 0);
    ash_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_refuses),
        cmocka_unit_test(test_special_ids),
        cmocka_unit_test(test_bos_eos_and_lookups),
        cmocka_unit_test(test_whole_words),
        cmocka_unit_test(test_untrusted),
        cmocka_unit_test(test_untrusted_in_broken_text),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_spm),
        cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
