/* The bodies and lines of answers: every line is JSON, whatever the text holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "api/openai_text.h"
#include "api/sse.h"

/* The events of a stream as a JSON array; "[DONE]" as a string. */
static json_t *events(const ash_buf *b)
{
    json_t *out = json_array();
    const char *p = ash_buf_cstr(b);
    while (*p) {
        const char *end = strstr(p, "\n\n");
        assert_non_null(end);
        assert_memory_equal(p, "data: ", 6);
        p += 6;
        json_t *v = json_loadb(p, (size_t)(end - p), 0, NULL);
        if (!v) v = json_stringn(p, (size_t)(end - p));
        json_array_append_new(out, v);
        p = end + 2;
    }
    return out;
}

static const char *at(const json_t *v, size_t i, const char *member)
{
    const json_t *choice = json_array_get(json_object_get(json_array_get(v, i), "choices"), 0);
    const json_t *found = json_object_get(json_object_get(choice, "delta"), member);
    if (!found) found = json_object_get(choice, member);
    return json_string_value(found);
}

static ash_answer delta(int index, const char *text)
{
    return (ash_answer){.kind = ASH_ANSWER_DELTA, .index = index, .text = ash_str_from(text)};
}

static void test_stream(void **state)
{
    ash_oai *t = ash_oai_open(ASH_REQUEST_CHAT, true, 1, "a \"model\"");
    ash_buf b;
    ash_buf_init(&b, 1 << 20);
    ash_answer d = delta(0, "q\"\\\n\x01\xF0\x9F\x98\x80");
    assert_int_equal(ash_oai_delta(t, &d, &b), 0);
    ash_answer think = {.kind = ASH_ANSWER_DELTA, .reasoning = ASH_STR("hm")};
    assert_int_equal(ash_oai_delta(t, &think, &b), 0);
    size_t before = b.len;
    ash_oai_finish(t, 0, "length", &b);
    assert_int_equal(b.len, before); /* held for the timings */
    ash_answer_usage u = {.prompt_tokens = 5, .cached_tokens = 4, .completion_tokens = 2};
    assert_int_equal(ash_oai_end(t, &u, true, &b), 0);
    json_t *v = events(&b);
    assert_int_equal(json_array_size(v), 6);
    assert_string_equal(json_string_value(json_object_get(json_array_get(v, 0), "model")),
                        "a \"model\"");
    assert_string_equal(at(v, 0, "role"), "assistant");
    assert_string_equal(at(v, 1, "content"), "q\"\\\n\x01\xF0\x9F\x98\x80");
    assert_string_equal(at(v, 2, "reasoning_content"), "hm");
    assert_null(at(v, 2, "content"));
    assert_string_equal(at(v, 3, "finish_reason"), "length");
    assert_int_equal(json_integer_value(json_object_get(
                         json_object_get(json_array_get(v, 3), "timings"), "prompt_n")),
                     1);
    assert_non_null(json_object_get(json_array_get(v, 4), "usage"));
    assert_string_equal(json_string_value(json_array_get(v, 5)), "[DONE]");
    json_decref(v);
    ash_buf_release(&b);
    ash_oai_close(t);
}

/* Choices may end in any order; only the last line with a finish_reason tells the timings. */
static void test_choices_end_in_any_order(void **state)
{
    ash_oai *t = ash_oai_open(ASH_REQUEST_COMPLETION, true, 3, "m");
    ash_buf b;
    ash_buf_init(&b, 1 << 20);
    ash_answer_usage u = {.prompt_tokens = 1};
    ash_oai_finish(t, 2, "stop", &b);
    ash_answer d = delta(1, "one");
    assert_int_equal(ash_oai_delta(t, &d, &b), 0);
    ash_oai_finish(t, 1, "stop", &b);
    ash_oai_finish(t, 0, "length", &b);
    ash_oai_finish(t, 7, "stop", &b); /* no such choice */
    assert_int_equal(ash_oai_end(t, &u, false, &b), 0);
    json_t *v = events(&b);
    assert_int_equal(json_array_size(v), 5);
    const int order[] = {2, 1, 1, 0};
    for (size_t i = 0; i < 4; i++) {
        const json_t *line = json_array_get(v, i);
        const json_t *c = json_array_get(json_object_get(line, "choices"), 0);
        assert_int_equal(json_integer_value(json_object_get(c, "index")), order[i]);
        assert_int_equal(json_object_get(line, "timings") != NULL, i == 3);
    }
    json_decref(v);
    ash_buf_release(&b);
    ash_oai_close(t);
}

static void test_whole(void **state)
{
    ash_oai *t = ash_oai_open(ASH_REQUEST_CHAT, false, 2, "before");
    ash_buf b;
    ash_buf_init(&b, 1 << 20);
    assert_int_equal(ash_oai_model(t, "after"), 0);
    ash_answer d[] = {delta(0, "a\xFF"), delta(1, "b"), delta(0, "c"), delta(5, "lost"),
                      delta(-1, "lost")};
    for (size_t i = 0; i < 5; i++) assert_int_equal(ash_oai_delta(t, &d[i], &b), 0);
    ash_oai_finish(t, 0, "stop", &b);
    ash_oai_finish(t, 1, "length", &b);
    assert_int_equal(b.len, 0);
    assert_int_equal(ash_oai_end(t, NULL, false, &b), 0);
    json_t *v = json_loadb(b.data, b.len, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(v, "model")), "after");
    json_t *list = json_object_get(v, "choices");
    json_t *first = json_object_get(json_array_get(list, 0), "message");
    assert_string_equal(json_string_value(json_object_get(first, "content")), "a\xEF\xBF\xBD"
                                                                              "c");
    assert_string_equal(
        json_string_value(json_object_get(json_array_get(list, 1), "finish_reason")), "length");
    json_decref(v);
    ash_buf_release(&b);
    ash_oai_close(t);
}

static void test_payload_with_line_breaks(void **state)
{
    ash_buf b;
    ash_buf_init(&b, 1000);
    ash_sse_data(&b, ASH_STR("{\n1}"));
    ash_sse_data(&b, ASH_STR(""));
    assert_string_equal(ash_buf_cstr(&b), "data: {\ndata: 1}\n\ndata: \n\n");
    ash_buf_release(&b);
}

static void test_error_body(void **state)
{
    ash_api_error e;
    json_t *extra = json_pack("{s:i, s:i}", "n_prompt", 9, "n_ctx", 8);
    ash_errors_set(&e, 400, "context_length_exceeded", "messages", "too \"long\"");
    e.extra = extra;
    ash_buf b;
    ash_buf_init(&b, 1000);
    assert_int_equal(ash_errors_body(&e, &b), 0);
    assert_string_equal(
        ash_buf_cstr(&b),
        "{\"error\":{\"message\":\"too \\\"long\\\"\",\"type\":\"invalid_request_error\","
        "\"code\":\"context_length_exceeded\",\"param\":\"messages\",\"n_prompt\":9,"
        "\"n_ctx\":8}}");
    ash_buf_release(&b);
    json_decref(extra);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream),     cmocka_unit_test(test_choices_end_in_any_order),
        cmocka_unit_test(test_whole),      cmocka_unit_test(test_payload_with_line_breaks),
        cmocka_unit_test(test_error_body),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
