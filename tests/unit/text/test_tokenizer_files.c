/* tokenizer.json and tokenizer.model against Hugging Face `tokenizers` and `sentencepiece`
 * (tests/golden/tokenizer/make_files.py): ids of every case in every variant, and text from them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tokenizer_files.h"

static json_t *root;

static int read_root(void **state)
{
    root = read_files_json();
    return root ? 0 : -1;
}

static int free_root(void **state)
{
    json_decref(root);
    return 0;
}

static void check_text(const ash_tokenizer *t, const char *name, const ash_ids *ids, const json_t *text,
                       const json_t *want)
{
    ash_buf out;
    ash_detok d;
    if (json_is_false(want))
        return;
    if (json_is_null(want))
        want = text;
    ash_buf_init(&out, 1u << 20);
    ash_detok_init(&d, t, ASH_DETOK_SPECIAL);
    for (size_t k = 0; k < ids->n; k++) assert_int_equal(ash_detok_push(&d, ids->p[k], &out), 0);
    assert_int_equal(ash_detok_flush(&d, &out), 0);
    if (out.len != json_string_length(want) ||
        memcmp(ash_buf_cstr(&out), json_string_value(want), out.len) != 0)
        fail_msg("%s: '%s' came back as '%s'", name, json_string_value(text), ash_buf_cstr(&out));
    ash_buf_release(&out);
}

static void check_case(const ash_tokenizer *t, const char *name, unsigned flags, const json_t *text,
                       const json_t *want, const json_t *back)
{
    ash_ids ids = ASH_IDS_INIT;
    ash_err err = ASH_ERR_INIT;
    if (ash_tokenizer_encode(t, json_string_value(text), json_string_length(text), flags, NULL, 0, &ids,
                             &err))
        fail_msg("%s: %s", name, err.msg);
    bool same = ids.n == json_array_size(want);
    for (size_t k = 0; same && k < ids.n; k++)
        same = ids.p[k] == json_integer_value(json_array_get(want, k));
    if (!same) {
        for (size_t k = 0; k < ids.n; k++) print_error("%d ", ids.p[k]);
        fail_msg("%s: '%s': wanted %s", name, json_string_value(text), json_dumps(want, JSON_COMPACT));
    }
    check_text(t, name, &ids, text, back);
    ash_ids_release(&ids);
}

static void test_variants(void **state)
{
    const json_t *cases = json_object_get(root, "cases"), *v;
    size_t i;
    assert_true(json_array_size(cases) > 90);
    assert_int_equal(json_array_size(json_object_get(root, "variants")), 33);
    json_array_foreach(json_object_get(root, "variants"), i, v) {
        const char *name = json_string_value(json_object_get(v, "name"));
        bool sp = strncmp(name, "sp", 2) == 0; /* sentencepiece takes no control token from text */
        ash_tokenizer *t;
        ash_err err = ASH_ERR_INIT;
        if (open_variant(root, v, &t, &err))
            fail_msg("%s: %s", name, err.msg);
        assert_string_equal(ash_tokenizer_from(t), sp ? "tokenizer.model" : "tokenizer.json");
        for (size_t k = 0; k < json_array_size(cases); k++)
            check_case(t, name, sp ? 0 : ASH_ENCODE_SPECIAL, json_array_get(cases, k),
                       json_array_get(json_object_get(v, "ids"), k),
                       json_array_get(json_object_get(v, "text"), k));
        ash_tokenizer_close(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_variants)};
    return cmocka_run_group_tests(tests, read_root, free_root);
}
