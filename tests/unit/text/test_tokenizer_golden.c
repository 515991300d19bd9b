/* Ids against Hugging Face `tokenizers` and `sentencepiece` (tests/golden/tokenizer/make.py), for every
 * pre-tokeniser, and text back from ids. The real model is read where it is there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "text/tokenizer_impl.h"
#include "tokenizer_fixture.h"

static json_t *golden;

static int read_golden(void **state)
{
    char path[512];
    ash_buf text;
    ash_err err = ASH_ERR_INIT;
    int rc = ash_fs_read(fixture_path("golden.json", path), 4u << 20, &text, &err);
    if (!rc)
        rc = ash_json_parse(ash_buf_cstr(&text), text.len, &golden, &err);
    if (rc)
        print_error("%s\n", err.msg);
    ash_buf_release(&text);
    return rc;
}

static int free_golden(void **state)
{
    json_decref(golden);
    return 0;
}

static int hex_digit(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* The bytes of a case in `out`. */
static void case_bytes(const json_t *c, ash_buf *out)
{
    const json_t *text = json_object_get(c, "text");
    const char *hex = json_string_value(json_object_get(c, "hex"));
    ash_buf_clear(out);
    ash_buf_add(out, "", 0);
    if (text)
        ash_buf_add(out, json_string_value(text), json_string_length(text));
    else
        for (; *hex; hex += 2) ash_buf_addc(out, (char)(hex_digit(hex[0]) * 16 + hex_digit(hex[1])));
}

static void check_ids(const char *name, size_t i, const ash_ids *got, const json_t *want)
{
    bool same = got->n == json_array_size(want);
    for (size_t k = 0; same && k < got->n; k++)
        same = got->p[k] == json_integer_value(json_array_get(want, k));
    if (same)
        return;
    char *text = json_dumps(want, JSON_COMPACT);
    for (size_t k = 0; k < got->n; k++) print_error("%d ", got->p[k]);
    fail_msg("%s: case %zu: wanted %s", name, i, text);
}

/* Text back, as a reader of the stream sees it: what encoding read, invalid bytes as U+FFFD. */
static void check_text(const ash_tokenizer *t, const char *name, size_t i, const ash_ids *ids,
                       const ash_buf *text)
{
    ash_buf out;
    ash_detok d;
    ash_buf_init(&out, 1u << 20);
    ash_detok_init(&d, t, ASH_DETOK_SPECIAL);
    for (size_t k = 0; k < ids->n; k++) assert_int_equal(ash_detok_push(&d, ids->p[k], &out), 0);
    assert_int_equal(ash_detok_flush(&d, &out), 0);
    if (out.len != text->len || memcmp(ash_buf_cstr(&out), text->data, out.len) != 0)
        fail_msg("%s: case %zu: came back as '%s'", name, i, ash_buf_cstr(&out));
    ash_buf_release(&out);
}

static void check_set(const ash_tokenizer *t, const char *name, bool special, bool back)
{
    const json_t *cases = json_object_get(golden, special ? "special_cases" : "cases");
    const json_t *want = json_object_get(json_object_get(golden, special ? "special_ids" : "ids"),
                                         name);
    ash_buf text;
    ash_buf_init(&text, 1u << 20);
    assert_true(json_array_size(cases) > 10 && json_array_size(cases) == json_array_size(want));
    for (size_t i = 0; i < json_array_size(cases); i++) {
        ash_ids ids = ASH_IDS_INIT;
        ash_err err = ASH_ERR_INIT;
        case_bytes(json_array_get(cases, i), &text);
        if (ash_tokenizer_encode(t, text.data, text.len, special ? ASH_ENCODE_SPECIAL : 0, NULL, 0,
                                 &ids, &err))
            fail_msg("%s: case %zu: %s", name, i, err.msg);
        check_ids(name, i, &ids, json_array_get(want, i));
        if (back && json_object_get(json_array_get(cases, i), "text"))
            check_text(t, name, i, &ids, &text);
        ash_ids_release(&ids);
    }
    ash_buf_release(&text);
}

static void test_pre_tokenisers(void **state)
{
    /* The fixture's vocabulary has all bytes, so text comes back whole but for NFC's changes. */
    static const char *const names[] = {"default",      "gpt-2",          "smollm",
                                        "llama-bpe",    "qwen2",          "tekken",
                                        "deepseek-llm", "deepseek-coder", "deepseek-v3"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        ash_tokenizer *t;
        ash_err err = ASH_ERR_INIT;
        if (open_bpe_as(names[i], &t, &err))
            fail_msg("%s", err.msg);
        check_set(t, names[i], false, strcmp(names[i], "qwen2") != 0);
        ash_tokenizer_close(t);
    }
}

typedef struct word_list {
    const json_t *want;
    size_t n;
    bool same;
} word_list;

static int next_word(void *ctx, const char *p, size_t n, ash_err *err)
{
    word_list *w = ctx;
    w->same = w->same && (json_int_t)n == json_integer_value(json_array_get(w->want, w->n));
    w->n++;
    return 0;
}

/* Where text is cut, which ids of a small vocabulary do not always tell. */
static void test_words(void **state)
{
    const json_t *cases = json_object_get(golden, "cases"), *all = json_object_get(golden, "words");
    const char *name;
    json_t *lists;
    assert_int_equal(json_object_size(all), 9);
    json_object_foreach((json_t *)all, name, lists) {
        tok_pre *pre;
        tok_pre_info info;
        tok_splitter *s;
        assert_int_equal(tok_pre_open(ash_str_from(name), &pre, &info, NULL), 0);
        assert_int_equal(tok_splitter_open(pre, &s, NULL), 0);
        for (size_t i = 0; i < json_array_size(cases); i++) {
            const json_t *text = json_object_get(json_array_get(cases, i), "text");
            word_list w = {.want = json_array_get(lists, i), .same = true};
            if (!text)
                continue;
            assert_int_equal(tok_split(s, json_string_value(text), json_string_length(text),
                                       next_word, &w, NULL), 0);
            if (!w.same || w.n != json_array_size(w.want))
                fail_msg("%s: case %zu is cut elsewhere", name, i);
        }
        tok_splitter_close(s);
        tok_pre_close(pre);
    }
}

static void test_special_tokens(void **state)
{
    ash_tokenizer *t;
    assert_int_equal(open_bpe_as("gpt-2", &t, NULL), 0);
    check_set(t, "gpt-2", true, true);
    ash_tokenizer_close(t);
}

static void test_sentencepiece(void **state)
{
    char path[512];
    ash_tokenizer *t;
    ash_err err = ASH_ERR_INIT;
    if (open_file(fixture_path("spm.gguf", path), &t, &err))
        fail_msg("%s", err.msg);
    check_set(t, "spm", false, false);
    ash_tokenizer_close(t);
}

static void test_real_model(void **state)
{
    static const char name[] = "../../models/SmolLM2-135M-Instruct.Q4_1.gguf";
    const char *dir = getenv("ASHLEY_TEST_DATA"), *given = getenv("ASHLEY_TEST_MODEL");
    char path[512];
    ash_tokenizer *t;
    ash_err err = ASH_ERR_INIT;
    snprintf(path, sizeof path, "%s/%s", dir ? dir : "tests/golden", name);
    if (given && given[0])
        snprintf(path, sizeof path, "%s", given);
    if (access(path, R_OK) != 0) {
        print_message("no model at %s\n", path);
        skip();
    }
    if (open_file(path, &t, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(ash_tokenizer_n_vocab(t), 49152);
    check_set(t, "smollm2", false, false);
    check_set(t, "smollm2", true, false);
    assert_int_equal(ash_tokenizer_find(t, "<|im_end|>", 10), 2);
    assert_true(ash_tokenizer_is_eog(t, 2) && ash_tokenizer_is_eog(t, 0));
    assert_false(ash_tokenizer_is_eog(t, 1));
    assert_false(ash_tokenizer_adds_bos(t));
    ash_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_pre_tokenisers),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_sentencepiece),
        cmocka_unit_test(test_real_model),
    };
    return cmocka_run_group_tests(tests, read_golden, free_golden);
}
