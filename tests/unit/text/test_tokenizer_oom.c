/* Every allocation of opening and encoding fails in turn: a clean error, nothing lost or changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "oom.h"
#include "tokenizer_files.h"

static ash_gguf *open_fixture(const char *name)
{
    char path[512];
    ash_gguf *g;
    assert_int_equal(ash_gguf_open(fixture_path(name, path), &g, NULL), 0);
    return g;
}

static void check_open(const char *name)
{
    ash_gguf *g = open_fixture(name);
    ash_tokenizer *t;
    int rc = ASH_ENOMEM;
    long n = 0;
    for (; rc && n < 10000; n++) {
        ash_err err = ASH_ERR_INIT;
        oom_left = n;
        rc = ash_tokenizer_open_gguf(g, &t, &err);
        oom_left = -1;
        if (rc) {
            assert_int_equal(rc, ASH_ENOMEM);
            assert_null(t);
        }
    }
    assert_int_equal(rc, 0);
    assert_true(n > 5);
    ash_tokenizer_close(t);
    ash_gguf_close(g);
}

/* A text with a special token, invalid UTF-8, marks out of order and a long word. */
static void check_encode(ash_tokenizer *t)
{
    static const char text[] = "The\xff <s>  e\xcc\x81\xcc\xa3 caf\xc3\xa9 the the "
                               "ethethethethethethethethethethethethethethethethethethethethethe";
    static const ash_span span[] = {{0, 2}};
    ash_ids ids = ASH_IDS_INIT;
    int rc = ASH_ENOMEM;
    long n = 0;
    assert_int_equal(ash_ids_add(&ids, 7, NULL), 0);
    for (; rc && n < 10000; n++) {
        ash_err err = ASH_ERR_INIT;
        oom_left = n;
        rc = ash_tokenizer_encode(t, text, sizeof text - 1, ASH_ENCODE_SPECIAL, span, 1, &ids, &err);
        oom_left = -1;
        if (rc) {
            assert_int_equal(rc, ASH_ENOMEM);
            assert_int_equal(ids.n, 1);
        }
    }
    assert_int_equal(rc, 0);
    assert_true(n > 5 && ids.n > 5 && ids.p[0] == 7);
    ash_ids_release(&ids);
}

static void test_open(void **state)
{
    check_open("bpe.gguf");
    check_open("spm.gguf");
}

static void test_encode(void **state)
{
    char path[512];
    ash_tokenizer *t;
    assert_int_equal(open_bpe_as("qwen2", &t, NULL), 0);
    check_encode(t);
    ash_tokenizer_close(t);
    assert_int_equal(open_file(fixture_path("spm.gguf", path), &t, NULL), 0);
    check_encode(t);
    ash_tokenizer_close(t);
}

static const char tokenizer_config[] =
    "{\"tokenizer_class\":\"LlamaTokenizer\",\"legacy\":false,\"bos_token\":\"<s>\","
    "\"eos_token\":{\"content\":\"</s>\"},\"pad_token\":\"[PAD]\",\"chat_template\":[{\"name\":\"default\","
    "\"template\":\"a\"},{\"name\":\"tool_use\",\"template\":\"b\"}],"
    "\"added_tokens_decoder\":{\"5000\":{\"content\":\"<|end|>\",\"special\":true}}}";

/* A variant of files.json with all of its side files. */
static void check_files(const json_t *root, const char *name)
{
    made_file list[] = {{0}, {"tokenizer_config.json", tokenizer_config, 0},
                        {"special_tokens_map.json", "{\"eos_token\":\"<unk>\"}", 0},
                        {"generation_config.json", "{\"eos_token_id\":[1,2]}", 0},
                        {"added_tokens.json", "{\"<x>\":5001}", 0},
                        {"chat_template.jinja", "c", 0}, {0}};
    ash_buf b;
    ash_tokenizer *t = NULL;
    int rc = ASH_ENOMEM;
    long n = 0;
    write_variant(root, find_variant(root, name), &b, &list[0].name);
    list[0].text = b.data;
    list[0].n = b.len;
    for (; rc && n < 10000; n++) {
        ash_err err = ASH_ERR_INIT;
        oom_left = n;
        rc = open_made_files(list, NULL, &t, &err);
        oom_left = -1;
        if (rc && rc != ASH_ENOMEM)
            fail_msg("%s: allocation %ld: %s", name, n, err.msg);
        assert_true(!rc == !!t);
    }
    assert_int_equal(rc, 0);
    assert_true(n > 20);
    assert_int_equal(ash_tokenizer_n_vocab(t), 5002);
    check_encode(t);
    ash_tokenizer_close(t);
    ash_buf_release(&b);
}

static void test_files(void **state)
{
    json_t *root = read_files_json();
    assert_non_null(root);
    check_files(root, "llama2 with added tokens");
    check_files(root, "llama2, first only");
    check_files(root, "qwen2");
    check_files(root, "replaced");
    check_files(root, "gpt2 with a space before");
    check_files(root, "sp trimmed");
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_open), cmocka_unit_test(test_encode),
                                       cmocka_unit_test(test_files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
