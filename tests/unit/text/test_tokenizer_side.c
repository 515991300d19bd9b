/* The files beside a tokenizer: special ids, BOS and EOS, ends of text, added tokens, templates, and
 * what is said where files disagree. What is refused is refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tokenizer_files.h"

#define MODEL(more)                                                                                \
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"byte_fallback\":true,\"fuse_unk\":true," more     \
    "\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2,\"a\":3,\"b\":4,\"ab\":5,\"\\u2581\":6,"        \
    "\"<|im_end|>\":7,\"<pad>\":8},"                                                             \
    "\"merges\":[\"a b\"]}"
#define ADDED                                                                                      \
    "\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true},"                             \
    "{\"id\":2,\"content\":\"</s>\",\"special\":true},{\"id\":7,\"content\":\"<|im_end|>\",\"special\":true}]"
#define BOS_TEMPLATE                                                                               \
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"  \
    "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[1]}}}"

static const char plain[] = "{" ADDED "," MODEL("") "}";
static const char with_bos[] = "{" ADDED "," BOS_TEMPLATE "," MODEL("") "}";

static ash_tokenizer *must_open(const made_file *list, const json_t *config)
{
    ash_tokenizer *t;
    ash_err err = ASH_ERR_INIT;
    if (open_made_files(list, config, &t, &err))
        fail_msg("%s", err.msg);
    return t;
}

static ash_tokenizer *open_two(const char *main_file, const char *tokenizer_config)
{
    made_file list[] = {{"tokenizer.json", main_file, 0},
                        {"tokenizer_config.json", tokenizer_config, 0}, {0}};
    return must_open(list, NULL);
}

static void expect_refused(const char *name, const char *text, size_t n, int code, const char *message)
{
    made_file list[] = {{name, text, n}, {0}};
    ash_tokenizer *t;
    ash_err err = ASH_ERR_INIT;
    int rc = open_made_files(list, NULL, &t, &err);
    if (rc != code || !strstr(err.msg, message))
        fail_msg("wanted %d with '%s', got %d: %s", code, message, rc, err.msg);
    assert_null(t);
}

static void expect_note(const ash_tokenizer *t, const char *text)
{
    if (!strstr(ash_tokenizer_note(t), text))
        fail_msg("no '%s' in '%s'", text, ash_tokenizer_note(t));
}

/* ---- BOS and EOS ---------------------------------------------------------------------------- */

static void expect_bos(const char *main_file, const char *tokenizer_config, bool adds, const char *note)
{
    ash_tokenizer *t = open_two(main_file, tokenizer_config);
    if (ash_tokenizer_adds_bos(t) != adds)
        fail_msg("%s: %s BOS", tokenizer_config ? tokenizer_config : "no settings", adds ? "no" : "a");
    assert_false(ash_tokenizer_adds_eos(t));
    if (!note)
        assert_string_equal(ash_tokenizer_note(t), "");
    else
        expect_note(t, note);
    ash_tokenizer_close(t);
}

/* As transformers 4.46 does, run over these very settings. */
static void test_bos(void **state)
{
    expect_bos(plain, NULL, false, NULL);
    expect_bos(with_bos, NULL, true, NULL);
    expect_bos(with_bos, "{\"tokenizer_class\":\"LlamaTokenizerFast\"}", true, NULL);
    expect_bos(plain, "{\"tokenizer_class\":\"LlamaTokenizer\"}", true, "true for its tokenizer_class");
    expect_bos(plain, "{\"tokenizer_class\":\"LlamaTokenizerFast\",\"add_bos_token\":true}", true,
               "add_bos_token is true, the post_processor of tokenizer.json says otherwise: "
               "tokenizer_config.json is taken");
    expect_bos(with_bos, "{\"tokenizer_class\":\"LlamaTokenizerFast\",\"add_bos_token\":false}", false,
               "add_bos_token is false");
    expect_bos(with_bos, "{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"add_bos_token\":false}",
               true, "says otherwise: tokenizer.json is taken");
    expect_bos(plain, "{\"tokenizer_class\":\"Qwen2Tokenizer\",\"add_bos_token\":false}", false, NULL);
}

/* ---- special ids ---------------------------------------------------------------------------- */

static void test_special_ids(void **state)
{
    made_file list[] = {
        {"tokenizer.json", plain, 0},
        {"tokenizer_config.json",
         "{\"bos_token\":{\"__type\":\"AddedToken\",\"content\":\"<s>\"},\"eos_token\":\"</s>\","
         "\"pad_token\":\"[PAD]\",\"unk_token\":null,"
         "\"model_max_length\":1000000000000000019884624838656}", 0},
        {"special_tokens_map.json",
         "{\"eos_token\":{\"content\":\"<|im_end|>\"},\"pad_token\":\"<pad>\"}", 0},
        {"generation_config.json", "{\"eos_token_id\":[2,99,-1,\"x\"]}", 0}, {0}};
    json_t *config = json_pack("{s:i,s:i}", "bos_token_id", 3, "eos_token_id", 5);
    ash_tokenizer *t = must_open(list, config);
    size_t n;
    assert_int_equal(ash_tokenizer_bos(t), 1);
    assert_int_equal(ash_tokenizer_eos(t), 7); /* without added_tokens_decoder the map comes first */
    assert_int_equal(ash_tokenizer_pad(t), 8);
    assert_int_equal(ash_tokenizer_unk(t), 0);
    const int32_t *ends = ash_tokenizer_eog(t, &n);
    assert_int_equal(n, 3);
    assert_true(ends[0] == 2 && ends[1] == 5 && ends[2] == 7);
    expect_note(t, "eos_token: tokenizer_config.json says '</s>', special_tokens_map.json '<|im_end|>': "
                   "special_tokens_map.json is taken");
    expect_note(t, "config.json: bos_token_id is 3, the tokenizer's bos_token is 1");
    expect_note(t, "generation_config.json: eos_token_id has not the tokenizer's EOS, 7");
    ash_tokenizer_close(t);
    json_decref(config);
}

static void test_ids_of_config(void **state)
{
    made_file list[] = {{"tokenizer.json", plain, 0}, {0}};
    json_t *config = json_pack("{s:i,s:[i,i]}", "bos_token_id", 1, "eos_token_id", 7, 2);
    ash_tokenizer *t = must_open(list, config);
    assert_int_equal(ash_tokenizer_bos(t), 1);
    assert_int_equal(ash_tokenizer_eos(t), 7);
    assert_true(ash_tokenizer_is_eog(t, 2) && ash_tokenizer_is_eog(t, 7));
    assert_string_equal(ash_tokenizer_note(t), "");
    ash_tokenizer_close(t);
    json_decref(config);
}

/* ---- added tokens --------------------------------------------------------------------------- */

static void expect_ids(const ash_tokenizer *t, const char *text, const ash_span *span, const char *want)
{
    ash_ids ids = ASH_IDS_INIT;
    ash_err err = ASH_ERR_INIT;
    char got[256] = "";
    if (ash_tokenizer_encode(t, text, strlen(text), ASH_ENCODE_SPECIAL, span, span ? 1 : 0, &ids, &err))
        fail_msg("%s", err.msg);
    for (size_t i = 0, n = 0; i < ids.n && n < 240; i++)
        n += (size_t)snprintf(got + n, sizeof got - n, "%s%d", i ? " " : "", ids.p[i]);
    ash_ids_release(&ids);
    assert_string_equal(got, want);
}

static void test_added_tokens(void **state)
{
    made_file list[] = {
        {"tokenizer.json", plain, 0},
        {"tokenizer_config.json",
         "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"added_tokens_decoder\":{"
         "\"1\":{\"content\":\"<s>\",\"special\":true},\"9\":{\"content\":\"<new>\",\"special\":true},"
         "\"8\":{\"content\":\"<pad>\",\"special\":true},\"3\":{\"content\":\"zz\"},"
         "\"40\":{\"content\":\"<far>\"},\"10\":{\"content\":\"ab\"}}}", 0},
        {"added_tokens.json", "{\"<tool>\":11}", 0}, {0}};
    json_t *config = json_pack("{s:i}", "vocab_size", 32);
    ash_tokenizer *t = must_open(list, config);
    assert_int_equal(ash_tokenizer_n_vocab(t), 12);
    expect_ids(t, "a<new>ab<tool><pad>", NULL, "3 9 5 11 8");
    assert_true(ash_tokenizer_is_special(t, 9) && ash_tokenizer_is_special(t, 8));
    assert_false(ash_tokenizer_is_special(t, 11));
    expect_note(t, "tokenizer_config.json: 3 is 'zz'; tokenizer.json has 'a', which is taken");
    expect_note(t, "'<far>' has the id 40 beyond the model's vocabulary: ignored");
    expect_note(t, "'ab' is 10; tokenizer.json has 5, which is taken");
    ash_tokenizer_close(t);
    json_decref(config);
}

/* A token that is matched in normalised text counts as typed by whoever typed the text that it was
 * made of. */
static void test_untrusted(void **state)
{
    static const char file[] =
        "{\"added_tokens\":[{\"id\":9,\"content\":\"<e\\u0301>\",\"normalized\":true},"
        "{\"id\":7,\"content\":\"<|im_end|>\",\"special\":true}],"
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"b\"},"
        "{\"type\":\"NFC\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\"<\"},\"content\":\"a\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\"ba\"},\"content\":\"<\"}]},"
        MODEL("") "}";
    made_file list[] = {{"tokenizer.json", file, 0}, {0}};
    static const ash_span spans[] = {{0, 1}, {3, 4}, {4, 6}, {5, 9}};
    ash_tokenizer *t = must_open(list, NULL);
    /* the content's form, "<" of "ba" and all, is in the text's: b + <é> becomes <é> */
    expect_ids(t, "<e\xcc\x81>", NULL, "9");
    expect_ids(t, "<\xc3\xa9>ab", NULL, "9 5");
    expect_ids(t, "<\xc3\xa9>ab", &spans[0], "0 5");
    expect_ids(t, "<\xc3\xa9>ab", &spans[1], "0 5");
    expect_ids(t, "<\xc3\xa9>ab", &spans[2], "9 5");
    expect_ids(t, "a<|im_end|>a", NULL, "0 7 0");
    expect_ids(t, "a<|im_end|>", &spans[3], "0 3 0");
    ash_tokenizer_close(t);
}

/* ---- templates ------------------------------------------------------------------------------ */

static void expect_template(const ash_tokenizer *t, const char *text, const char *from)
{
    ash_str s;
    assert_true(ash_tokenizer_chat_template(t, &s));
    assert_true(ash_str_eqc(s, text));
    assert_string_equal(ash_tokenizer_template_from(t), from);
}

static void test_templates(void **state)
{
    made_file list[] = {
        {"tokenizer.json", plain, 0},
        {"chat_template.jinja", "one", 0},
        {"tokenizer_config.json", "{\"chat_template\":[{\"name\":\"default\",\"template\":\"two\"},"
                                  "{\"name\":\"tool_use\",\"template\":\"three\"}]}", 0},
        {"chat_template.json", "{\"chat_template\":\"four\"}", 0}, {0}};
    ash_str s;
    ash_tokenizer *t = must_open(list, NULL);
    expect_template(t, "one", "chat_template.jinja");
    expect_note(t, "tokenizer_config.json: the chat template 'default' differs from that of "
                   "chat_template.jinja, which is taken");
    assert_true(ash_tokenizer_named_template(t, "tool_use", &s) && ash_str_eqc(s, "three"));
    assert_false(ash_tokenizer_named_template(t, "rag", &s));
    ash_tokenizer_close(t);
    list[1].text = NULL;
    t = must_open(list, NULL);
    expect_template(t, "two", "tokenizer_config.json");
    ash_tokenizer_close(t);
    list[2].text = NULL;
    t = must_open(list, NULL);
    expect_template(t, "four", "chat_template.json");
    ash_tokenizer_close(t);
    list[3].text = NULL;
    t = must_open(list, NULL);
    assert_false(ash_tokenizer_chat_template(t, &s));
    assert_string_equal(ash_tokenizer_template_from(t), "none");
    ash_tokenizer_close(t);
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* A folder on disk, by the way that the program takes. */
static void test_folder(void **state)
{
    char dir[] = "/tmp/ashley-tokenizer-XXXXXX", path[128], more[128], named[160];
    ash_checkpoint c = {.kind = ASH_CHECKPOINT_SAFETENSORS, .dir = dir};
    ash_tokenizer *t;
    ash_str s;
    ash_err err = ASH_ERR_INIT;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(ash_tokenizer_open(&c, &t, &err), ASH_ENOENT);
    assert_non_null(strstr(err.msg, "neither tokenizer.json nor tokenizer.model is there"));
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    snprintf(more, sizeof more, "%s/additional_chat_templates", dir);
    snprintf(named, sizeof named, "%s/rag.jinja", more);
    write_file(path, plain);
    assert_int_equal(mkdir(more, 0700), 0);
    write_file(named, "{{ documents }}");
    if (ash_tokenizer_open(&c, &t, &err))
        fail_msg("%s", err.msg);
    assert_true(ash_tokenizer_named_template(t, "rag", &s) && ash_str_eqc(s, "{{ documents }}"));
    ash_tokenizer_close(t);
    unlink(named);
    rmdir(more);
    unlink(path);
    rmdir(dir);
}

/* ---- refusals ------------------------------------------------------------------------------- */

#define WITH(part) "{" part "," MODEL("") "}"
#define LEVEL "{\"type\":\"ByteLevel\"}"

static void test_json_refuses(void **state)
{
    static const struct { const char *text; int code; const char *message; } bad[] = {
        {"{}", ASH_EFORMAT, "tokenizer.json: 'model' is missing"},
        {"[1]", ASH_EFORMAT, "an object expected"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", ASH_EUNSUPPORTED,
         "'model.type' is \"Unigram\"; BPE is supported, Unigram, WordPiece and WordLevel are not"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", ASH_EUNSUPPORTED, "\"WordPiece\""},
        {"{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", ASH_EFORMAT, "'model.vocab' is missing"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", ASH_EFORMAT, "'model.merges' is missing"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", ASH_EFORMAT, "has 0 tokens"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", ASH_EFORMAT,
         "'model.vocab': must be a whole number from 0 to 2097151"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":3000000},\"merges\":[]}}", ASH_EFORMAT, "2097151"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", ASH_EFORMAT,
         "the id 0 is given to two tokens"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", ASH_EFORMAT,
         "the token 'a' has two ids, 0 and 1"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", ASH_EFORMAT,
         "'model.merges': entry 0 ('a b') must be two tokens that make a third"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]}}", ASH_EFORMAT,
         "entry 0 must be two tokens"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", ASH_EFORMAT,
         "entry 0 must be two tokens"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\ud800\":0},\"merges\":[]}}", ASH_EFORMAT,
         "an escape that is none"},
        {"{" MODEL("\"dropout\":0.1,") "}", ASH_EUNSUPPORTED, "'model.dropout' must be null"},
        {"{" MODEL("\"continuing_subword_prefix\":\"##\",") "}", ASH_EUNSUPPORTED,
         "'model.continuing_subword_prefix' must be null"},
        {"{" MODEL("\"end_of_word_suffix\":\"</w>\",") "}", ASH_EUNSUPPORTED, "end_of_word_suffix"},
        {"{" MODEL("\"fuse_unk\":1,") "}", ASH_EFORMAT, "'fuse_unk' is there twice"},
        {"{" MODEL("\"ignore_merges\":1,") "}", ASH_EFORMAT, "must be true or false"},
        {"{" MODEL("") "," MODEL("") "}", ASH_EFORMAT, "'model' is there twice"},
        {"{" MODEL("") "} x", ASH_EFORMAT, "the end expected"},
        {"{" MODEL(""), ASH_EFORMAT, "a comma expected"},
        {WITH("\"added_tokens\":[{\"id\":3,\"content\":\"x\"}]"), ASH_EFORMAT,
         "'x' has the id 3, which is 'a' in the vocabulary"},
        {WITH("\"added_tokens\":[{\"id\":3}]"), ASH_EFORMAT, "must have an 'id' and a 'content'"},
        {WITH("\"normalizer\":{\"type\":\"NFKC\"}"), ASH_EUNSUPPORTED,
         "'normalizer': 'NFKC' is not supported; supported are Sequence, NFC"},
        {WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"x\"}"),
         ASH_EUNSUPPORTED, "an empty 'pattern' of Replace"},
        {WITH("\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}"), ASH_EUNSUPPORTED,
         "'pre_tokenizer': 'BertPreTokenizer' is not supported"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Odd\"}"),
         ASH_EUNSUPPORTED, "the 'behavior' of Split"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[" LEVEL "," LEVEL "]}"),
         ASH_EUNSUPPORTED, "a pre-tokeniser behind ByteLevel"},
        {WITH("\"pre_tokenizer\":" LEVEL ",\"decoder\":{\"type\":\"ByteFallback\"}"), ASH_EUNSUPPORTED,
         "ByteLevel must be both"},
        {WITH("\"decoder\":{\"type\":\"WordPiece\"}"), ASH_EUNSUPPORTED, "'WordPiece' is not supported"},
        {WITH("\"post_processor\":{\"type\":\"BertProcessing\"}"), ASH_EUNSUPPORTED, "'BertProcessing'"},
        {"\"\xff\"", ASH_EFORMAT, "is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refused("tokenizer.json", bad[i].text, 0, bad[i].code, bad[i].message);
}

/* A SentencePiece model with one piece and these settings. */
static void test_model_refuses(void **state)
{
    static const struct { const char *text; size_t n; int code; const char *message; } bad[] = {
        {"\x0a\x03\x0a\x01" "a", 5, ASH_EUNSUPPORTED, "its model_type is UNIGRAM; only BPE is supported"},
        {"\x0a\x03\x0a\x01" "a\x12\x02\x18\x03", 9, ASH_EUNSUPPORTED, "its model_type is WORD"},
        {"\x12\x02\x18\x02", 4, ASH_EFORMAT, "has 0 tokens"},
        {"\x12\x02\x18\x02\x1a\x03\x12\x01x", 9, ASH_EUNSUPPORTED, "precompiled_charsmap"},
        {"\x12\x05\x18\x02\xc0\x01\x01", 7, ASH_EUNSUPPORTED, "treat_whitespace_as_suffix"},
        {"\x12\x02\x18\x02\x1a\x02\x28\x00", 8, ASH_EUNSUPPORTED, "escape_whitespaces"},
        {"\x0a\x05\x0a\x01" "a\x18\x07\x12\x02\x18\x02", 11, ASH_EFORMAT, "piece 0 has the unknown type 7"},
        {"\x0a\x08\x0a\x01" "a\x15\x00\x00\xc0\x7f\x12\x02\x18\x02", 14, ASH_EFORMAT, "is no number"},
        {"\x0a\x00\x12\x02\x18\x02", 6, ASH_EFORMAT, "piece 0 is empty"},
        {"\x0a\x05\x0a\x01" "a\x18\x06\x12\x02\x18\x02", 11, ASH_EFORMAT, "byte_fallback is off"},
        {"\x0a\x09\x0a\x01" "a", 5, ASH_EFORMAT, "a field is cut or broken"},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11, ASH_EFORMAT, "cut or broken"},
        {"\x0b", 1, ASH_EFORMAT, "cut or broken"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refused("tokenizer.model", bad[i].text, bad[i].n, bad[i].code, bad[i].message);
}

static void test_side_refuses(void **state)
{
    made_file list[] = {{"tokenizer.json", plain, 0}, {"tokenizer_config.json", NULL, 0}, {0}};
    static const char *const bad[][2] = {
        {"[]", "tokenizer_config.json must be an object"},
        {"{", "tokenizer_config.json"},
        {"{\"add_bos_token\":\"yes\"}", "'add_bos_token' must be"},
        {"{\"chat_template\":[{\"name\":\"default\"}]}", "'chat_template' must be a text or a list"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ash_tokenizer *t;
        ash_err err = ASH_ERR_INIT;
        list[1].text = bad[i][0];
        assert_true(open_made_files(list, NULL, &t, &err) < 0);
        if (!strstr(err.msg, bad[i][1]))
            fail_msg("no '%s' in '%s'", bad[i][1], err.msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bos),          cmocka_unit_test(test_special_ids),
        cmocka_unit_test(test_ids_of_config), cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_untrusted),    cmocka_unit_test(test_templates),
        cmocka_unit_test(test_folder),       cmocka_unit_test(test_json_refuses),
        cmocka_unit_test(test_model_refuses), cmocka_unit_test(test_side_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
