/* Templates, chats, samplers and stops without memory: every allocation fails once, nothing leaks
 * or crashes, and the failure is reported as such. Linked with malloc, calloc and realloc wrapped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "oom.h"
#include "text/chat.h"
#include "text/sampler.h"
#include "text/stop.h"

/* Runs `fn` with its first, second, ... allocation failing, until it gets through. */
static void fail_each(int (*fn)(void *), void *arg)
{
    long at = 0;
    for (;; at++) {
        oom_left = at;
        int rc = fn(arg);
        bool reached = oom_left < 0;
        oom_left = -1;
        if (!reached) {
            assert_int_equal(rc, 0);
            break;
        }
        assert_int_equal(rc, ASH_ENOMEM);
    }
    assert_true(at > 1);
}

static int run_template(void *arg)
{
    static const char src[] =
        "{% macro f(x, y='d') %}{{ x | upper }}{{ y }}{% endmacro %}"
        "{% set ns = namespace(a=[]) %}{% for m in messages if m.role %}{% set ns.a = ns.a + [m] %}"
        "{{ f(m.content) }}{{ m | tojson }}{{ m }}{{ m.content.split() | join('-') }}{% endfor %}"
        "{{ ns.a | map(attribute='role') | sort | list }}{{ 'x' * 50000 }}";
    ash_template *t;
    ash_err err;
    ash_buf out;
    ash_spans spans = {0};
    ash_buf_init(&out, 1 << 20);
    int rc = ash_template_parse(src, sizeof src - 1, &t, &err);
    if (!rc) rc = ash_template_render(t, arg, NULL, &out, &spans, &err);
    if (rc) assert_int_equal(err.code, ASH_ENOMEM);
    ash_template_close(t);
    ash_buf_release(&out);
    ash_spans_release(&spans);
    return rc;
}

static int run_chat(void *arg)
{
    ash_template *t;
    ash_buf out;
    ash_spans spans = {0};
    json_t *messages = json_object_get(arg, "messages");
    ash_chat_opts o = {
        .continue_final_message = true, .kwargs = json_object_get(arg, "kw"), .tools = messages};
    ash_buf_init(&out, 1 << 20);
    int rc = ash_chat_template_open("chatml", 6, &t, NULL);
    if (!rc) rc = ash_chat_format(t, messages, &o, &out, &spans, NULL);
    ash_template_close(t);
    ash_buf_release(&out);
    ash_spans_release(&spans);
    return rc;
}

static int run_sampler(void *arg)
{
    ash_sampler_params p = ash_sampler_params_default();
    p.presence_penalty = 1;
    p.logprobs = true;
    p.logit_bias = &(ash_logit_bias){1, 1};
    p.n_logit_bias = 1;
    ash_sampler *s;
    int rc = ash_sampler_open(&p, 8, 8, &s, NULL);
    ash_sampler_close(s);
    return rc;
}

static int run_stop(void *arg)
{
    ash_stop *s;
    ash_buf out;
    int hit;
    ash_buf_init(&out, 100);
    int rc = ash_stop_open(&(ash_str){"stop", 4}, 1, &s, NULL);
    if (!rc) rc = ash_stop_push(s, "a st", 4, &out, &hit);
    ash_stop_close(s);
    ash_buf_release(&out);
    return rc;
}

static json_t *context(void)
{
    /* no call with its arguments as text: Jansson's reader takes a failed allocation for a bad
     * token */
    static const char text[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a "
        "b\"},{\"type\":\"text\",\"text\":\"c\"}]},"
        "{\"role\":\"assistant\",\"content\":\"x "
        "y\",\"reasoning\":\"r\",\"tool_calls\":[{\"function\":{\"arguments\":{}}}]}],"
        "\"kw\":{\"a\":1}}";
    json_t *v;
    assert_int_equal(ash_json_parse(text, sizeof text - 1, &v, NULL), 0);
    return v;
}

static void test_template(void **state)
{
    json_t *ctx = context();
    json_t *first = json_array_get(json_object_get(ctx, "messages"), 0);
    json_object_set_new(first, "content", json_string("a b c"));
    fail_each(run_template, ctx);
    json_decref(ctx);
}

static void test_chat(void **state)
{
    json_t *ctx = context();
    fail_each(run_chat, ctx);
    json_decref(ctx);
}

static void test_sampler(void **state)
{
    fail_each(run_sampler, NULL);
}

static void test_stop(void **state)
{
    fail_each(run_stop, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_template),
        cmocka_unit_test(test_chat),
        cmocka_unit_test(test_sampler),
        cmocka_unit_test(test_stop),
    };
    json_set_alloc_funcs(__wrap_malloc, free); /* Jansson is a shared library: it is not wrapped */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
