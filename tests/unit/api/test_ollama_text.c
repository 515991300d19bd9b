/* Ollama's lines and objects, and what an upstream may send into them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "api/ollama_text.h"
#include "base/json.h"

static ash_str str(const char *s)
{
    return ash_str_from(s);
}

/* The only object of `out`, which is emptied. */
static json_t *taken(ash_buf *out)
{
    json_t *v = json_loadb(out->data, out->len, 0, NULL);
    assert_non_null(v);
    ash_buf_clear(out);
    return v;
}

static const char *member(const json_t *v, const char *a, const char *b)
{
    v = json_object_get(v, a);
    return json_string_value(b ? json_object_get(v, b) : v);
}

static void test_a_stream_is_lines(void **state)
{
    ash_buf out;
    ash_buf_init(&out, 1 << 20);
    ash_ollama *t = ash_ollama_open(true, true, "m\"x");
    assert_int_equal(ash_ollama_delta(t, str(""), str(""), &out), 0);
    assert_int_equal(out.len, 0);
    assert_int_equal(ash_ollama_delta(t, str("a\nb"), str("hm"), &out), 0);
    assert_ptr_equal(memchr(out.data, '\n', out.len), out.data + out.len - 1);
    json_t *v = taken(&out);
    assert_string_equal(member(v, "model", NULL), "m\"x");
    assert_string_equal(member(v, "message", "content"), "a\nb");
    assert_string_equal(member(v, "message", "thinking"), "hm");
    assert_true(json_is_false(json_object_get(v, "done")));
    json_decref(v);
    const ash_answer_usage u = {
        .prompt_tokens = 7, .completion_tokens = 3, .prefill_ms = 2.0, .decode_ms = 4.0};
    ash_ollama_finish(t, "length");
    assert_int_equal(ash_ollama_end(t, &u, &out), 0);
    v = taken(&out);
    assert_string_equal(member(v, "done_reason", NULL), "length");
    assert_int_equal(json_integer_value(json_object_get(v, "prompt_eval_count")), 7);
    assert_int_equal(json_integer_value(json_object_get(v, "eval_duration")), 4000000);
    assert_int_equal(json_integer_value(json_object_get(v, "load_duration")), 0); /* never below */
    json_decref(v);
    ash_ollama_close(t);
    ash_buf_release(&out);
}

static void test_a_whole_answer_of_an_upstream(void **state)
{
    ash_buf out;
    ash_buf_init(&out, 1 << 20);
    ash_ollama *t = ash_ollama_open(false, false, "m");
    assert_int_equal(
        ash_ollama_raw(t,
                       str("{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"length\"}],"
                           "\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":-3}}"),
                       &out),
        0);
    assert_int_equal(out.len, 0);
    assert_int_equal(ash_ollama_end(t, NULL, &out), 0);
    json_t *v = taken(&out);
    assert_string_equal(member(v, "response", NULL), "hi");
    assert_string_equal(member(v, "done_reason", NULL), "length");
    assert_int_equal(json_integer_value(json_object_get(v, "prompt_eval_count")), 5);
    assert_int_equal(json_integer_value(json_object_get(v, "eval_count")), 0);
    json_decref(v);
    ash_ollama_close(t);
    ash_buf_release(&out);
}

static void test_rubbish_of_an_upstream_is_ignored(void **state)
{
    static const char *const rubbish[] = {
        "", "[DONE]", "7", "[]", "{", "{\"choices\":7}", "{\"choices\":[]}", "{\"choices\":[7]}",
        "{\"choices\":[{\"delta\":[]}]}", "{\"choices\":[{\"delta\":{\"content\":{}}}]}",
        "{\"choices\":[{\"delta\":{\"content\":null},\"finish_reason\":7}],\"usage\":[]}",
        "{\"choices\":[{\"text\":\"\"}],\"usage\":{\"prompt_tokens\":\"many\"}}"};
    ash_buf out;
    ash_buf_init(&out, 1 << 20);
    ash_ollama *t = ash_ollama_open(true, true, "m");
    for (size_t i = 0; i < sizeof rubbish / sizeof *rubbish; i++) {
        assert_int_equal(ash_ollama_raw(t, str(rubbish[i]), &out), 0);
        assert_int_equal(out.len, 0);
    }
    assert_int_equal(ash_ollama_raw(t, str("{\"choices\":[{\"text\":\"t\"}]}"), &out), 0);
    json_t *v = taken(&out);
    assert_string_equal(member(v, "message", "content"), "t");
    json_decref(v);
    ash_ollama_close(t);
    ash_buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stream_is_lines),
        cmocka_unit_test(test_a_whole_answer_of_an_upstream),
        cmocka_unit_test(test_rubbish_of_an_upstream_is_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
