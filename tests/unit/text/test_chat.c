/* Chat formatting: built-in templates, content parts, tool calls, continuation, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "text/chat.h"

static json_t *parse(const char *json)
{
    json_t *v;
    ash_err err;
    if (ash_json_parse(json, strlen(json), &v, &err)) fail_msg("%s: %s", json, err.msg);
    return v;
}

static ash_template *open_template(const char *text)
{
    ash_template *t;
    ash_err err;
    if (ash_chat_template_open(text, strlen(text), &t, &err)) fail_msg("%s", err.msg);
    return t;
}

/* Formats and compares, untrusted bytes in square brackets. */
static void expect(const char *template, const char *messages, const ash_chat_opts *o,
                   const char *want)
{
    ash_template *t = open_template(template);
    json_t *m = parse(messages), *before = json_deep_copy(m);
    ash_buf out, shown;
    ash_spans spans = {0};
    ash_err err = ASH_ERR_INIT;
    ash_buf_init(&out, 1 << 20);
    ash_buf_init(&shown, 1 << 20);
    if (ash_chat_format(t, m, o, &out, &spans, &err)) fail_msg("%s: %s", messages, err.msg);
    for (size_t i = 0, k = 0; i <= out.len; i++) {
        if (k < spans.n && i == spans.v[k].end) k++, ash_buf_addc(&shown, ']');
        if (k < spans.n && i == spans.v[k].begin) ash_buf_addc(&shown, '[');
        if (i < out.len) ash_buf_addc(&shown, out.data[i]);
    }
    assert_string_equal(ash_buf_cstr(&shown), want);
    assert_true(json_equal(m, before)); /* the caller's messages are not changed */
    json_decref(m);
    json_decref(before);
    ash_buf_release(&out);
    ash_buf_release(&shown);
    ash_spans_release(&spans);
    ash_template_close(t);
}

static const char two[] =
    "[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\" U \"},"
    "{\"role\":\"assistant\",\"content\":\"A\"},{\"role\":\"user\",\"content\":\"V\"}]";

static void test_builtin(void **state)
{
    ash_chat_opts o = {.bos_token = "<s>", .eos_token = "</s>", .add_generation_prompt = true};
    expect("chatml", two, &o,
           "<|im_start|>[system]\n[S]<|im_end|>\n<|im_start|>[user]\n[ U ]<|im_end|>\n"
           "<|im_start|>[assistant]\n[A]<|im_end|>\n<|im_start|>[user]\n[V]<|im_end|>\n"
           "<|im_start|>assistant\n");
    expect("alpaca", two, &o,
           "<s>[S]\n\n### Instruction:\n[ U ]\n\n### Response:\n[A]\n\n### Instruction:\n[V]\n\n"
           "### Response:\n");
    expect("llama2", two, &o,
           "<s>[INST] <<SYS>>\n[S]\n<</SYS>>\n\n[ U] [/INST] [A] </s><s>[INST] [V] [/INST]");
    expect("deepseek-llm", two, &o,
           "<s>[S]\n\nUser: [ U ]\n\nAssistant: [A]</s>User: [V]\n\nAssistant:");
    expect("alpaca", "[{\"role\":\"user\",\"content\":\"x\"}]", &(ash_chat_opts){0},
           "Below is an instruction that describes a task. Write a response that appropriately "
           "completes the "
           "request.\n\n### Instruction:\n[x]\n\n");
    assert_null(ash_chat_builtin("nope"));
}

static void test_parts(void **state)
{
    expect("{{ messages[0].content }}",
           "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
           "{\"type\":\"text\",\"text\":\"b\"}]}]",
           &(ash_chat_opts){0}, "[a\nb]");
    expect("{{ messages[0].content }}.", "[{\"role\":\"user\",\"content\":[]}]",
           &(ash_chat_opts){0}, ".");
}

static void test_variables(void **state)
{
    json_t *tools = parse("[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"),
           *kw = parse("{\"thinking\":false,\"x\":\"y\"}");
    ash_chat_opts o = {.tools = tools, .kwargs = kw, .render = {.now = 86400, .utc = true}};
    expect("{{ tools[0].function.name }}{{ documents is none }}{{ thinking }}{{ x }}{{ "
           "add_generation_prompt }}"
           "{{ bos_token }}{{ strftime_now('%Y') }}",
           "[{\"role\":\"user\",\"content\":\"\"}]", &o, "[f]TrueFalse[y]False1970");
    expect("{{ messages[0].reasoning_content }}{{ messages[0].thinking }}",
           "[{\"role\":\"assistant\",\"content\":\"\",\"reasoning\":\"r\"}]", &(ash_chat_opts){0},
           "[rr]");
    json_decref(tools);
    json_decref(kw);
}

static const char called[] =
    "[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"type\":\"function\",\"function\":"
    "{\"name\":\"f\",\"arguments\":\"{\\\"a\\\": 1}\"}}]}]";

static void test_tool_calls(void **state)
{
    /* an object for templates that print it, the text for those that join it to a string */
    expect("{{ messages[0].tool_calls[0].function.arguments | tojson }}", called,
           &(ash_chat_opts){0}, "[{\"a\": 1}]");
    expect("{{ 'x' + messages[0].tool_calls[0].function.arguments }}", called, &(ash_chat_opts){0},
           "x[{\"a\": 1}]");
    /* a template that knows no tools; with both, the arguments stay what the template takes */
    static const char plain[] = "{{ messages[0].role + '|' + messages[0]['content'] }}",
                      missing[] = "[{\"role\":\"assistant\",\"tool_calls\":[{}]}]";
    expect(plain, called, &(ash_chat_opts){0}, "[assistant]|");
    expect(plain, missing, &(ash_chat_opts){0}, "[assistant]|");
    expect("{{ messages[0].content + messages[0].tool_calls[0].function.arguments }}", called,
           &(ash_chat_opts){0}, "[{\"a\": 1}]");
    expect("{{ messages[0].content is none }}", called, &(ash_chat_opts){0}, "True");
}

static void test_continue(void **state)
{
    ash_chat_opts o = {.continue_final_message = true, .eos_token = "</s>"};
    const char *m =
        "[{\"role\":\"user\",\"content\":\"U\"},{\"role\":\"assistant\",\"content\":\"I am \"}]";
    expect("chatml", m, &o, "<|im_start|>[user]\n[U]<|im_end|>\n<|im_start|>[assistant]\n[I am ]");
    expect("{% for m in messages %}<{{ m.content | trim }}>{% endfor %}", m, &o, "<[U]><[I am]");
    expect("{% for m in messages %}<{{ m.content }}>{% endfor %}",
           "[{\"role\":\"user\",\"content\":\"CONTINUE_FINAL_MESSAGE_TAG "
           "\"},{\"role\":\"assistant\",\"content\":\"x\"}]",
           &o, "<[CONTINUE_FINAL_MESSAGE_TAG ]><[x]");
}

static void refuse(const char *template, const char *messages, const ash_chat_opts *o, int code,
                   const char *part)
{
    ash_template *t = open_template(template);
    json_t *m = parse(messages);
    ash_buf out;
    ash_spans spans = {0};
    ash_err err = ASH_ERR_INIT;
    ash_buf_init(&out, 1 << 20);
    assert_int_equal(ash_buf_adds(&out, "kept"), 0);
    int rc = ash_chat_format(t, m, o, &out, &spans, &err);
    if (rc != code || !strstr(err.msg, part))
        fail_msg("%s: wanted %d with \"%s\", got %d: %s", messages, code, part, rc, err.msg);
    assert_string_equal(out.data, "kept");
    assert_int_equal(spans.n, 0);
    json_decref(m);
    ash_buf_release(&out);
    ash_spans_release(&spans);
    ash_template_close(t);
}

static void test_refusals(void **state)
{
    const ash_chat_opts o = {0}, go_on = {.continue_final_message = true};
    refuse("", "{}", &o, ASH_EINVAL, "'messages' must be an array, not an object");
    refuse("", "[]", &o, ASH_EINVAL, "'messages' must not be empty");
    refuse("", "[{\"role\":\"user\",\"content\":\"\"},5]", &o, ASH_EINVAL,
           "'messages[1]' must be an object");
    refuse("", "[{\"content\":\"\"}]", &o, ASH_EINVAL, "'messages[0].role' must be a string");
    refuse("", "[{\"role\":1,\"content\":\"\"}]", &o, ASH_EINVAL,
           "'messages[0].role' must be a string, not a number");
    refuse("", "[{\"role\":\"user\"}]", &o, ASH_EINVAL,
           "'messages[0].content' must be a string or a list");
    refuse("", "[{\"role\":\"user\",\"content\":null}]", &o, ASH_EINVAL, "not null");
    refuse("", "[{\"role\":\"user\",\"content\":{}}]", &o, ASH_EINVAL, "not an object");
    refuse("", "[{\"role\":\"user\",\"content\":[\"x\"]}]", &o, ASH_EINVAL,
           "'messages[0].content[0]' must be an object");
    refuse("", "[{\"role\":\"user\",\"content\":[{}]}]", &o, ASH_EINVAL,
           "content[0].type' must be a string");
    refuse("", "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":1}]}]", &o, ASH_EINVAL,
           "content[0].text' must be");
    refuse("",
           "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"\"},{\"type\":\"image_"
           "url\"}]}]",
           &o, ASH_EUNSUPPORTED, "'messages[0].content[1]' has the type 'image_url'");
    refuse("", "[{\"role\":\"user\",\"content\":\"\",\"tool_calls\":5}]", &o, ASH_EINVAL,
           "tool_calls' must be an array");
    refuse("{{ raise_exception('only users') }}", called, &o, ASH_EINVAL, "only users");
    refuse("", called, &go_on, ASH_EINVAL, "needs a last message with content");
    refuse("nothing", "[{\"role\":\"user\",\"content\":\"x\"}]", &go_on, ASH_EINVAL,
           "does not show the last message");
    refuse("{{ messages[0].content | upper }}", "[{\"role\":\"user\",\"content\":\"x\"}]", &go_on,
           ASH_EINVAL, "does not show");
    refuse("", "[{\"role\":\"user\",\"content\":\"x\"}]",
           &(ash_chat_opts){.continue_final_message = true, .add_generation_prompt = true},
           ASH_EINVAL, "cannot both be true");
    json_t *kw = parse("{\"messages\":[]}"), *list = parse("[]");
    refuse("", two, &(ash_chat_opts){.kwargs = kw}, ASH_EINVAL,
           "'chat_template_kwargs.messages' cannot be set");
    refuse("", two, &(ash_chat_opts){.kwargs = list}, ASH_EINVAL,
           "'chat_template_kwargs' must be an object");
    json_decref(kw);
    json_decref(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_builtin),   cmocka_unit_test(test_parts),
        cmocka_unit_test(test_variables), cmocka_unit_test(test_tool_calls),
        cmocka_unit_test(test_continue),  cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
