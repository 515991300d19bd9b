/* Templates: golden vectors of Python's Jinja2 (tests/golden/template/make.py), taint, limits,
 * errors. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/limits.h"
#include "text/template.h"

/* What make.py's strftime_now shows. */
static const ash_template_opts at_fixed_time = {.now = 1700000000, .utc = true};

static int render_with(const char *src, size_t n, const json_t *ctx, const ash_template_opts *o,
                       ash_buf *out, ash_spans *spans, ash_err *err)
{
    ash_template *t;
    int rc = ash_template_parse(src, n, &t, err);
    if (rc) return rc;
    rc = ash_template_render(t, ctx, o, out, spans, err);
    ash_template_close(t);
    return rc;
}

static json_t *parse(const char *json)
{
    json_t *v;
    ash_err err;
    if (ash_json_parse(json, strlen(json), &v, &err)) fail_msg("%s: %s", json, err.msg);
    return v;
}

/* ---- golden ---- */

static int mismatches;

static void compare(const char *what, const json_t *src, const json_t *ctx, const char *kind,
                    const json_t *want)
{
    ash_buf out;
    ash_err err = ASH_ERR_INIT;
    ash_buf_init(&out, 1 << 20);
    int rc = render_with(json_string_value(src), json_string_length(src), ctx, &at_fixed_time, &out,
                         NULL, &err);
    bool ok = strcmp(kind, "error") == 0
                  ? rc != 0 && err.msg[0] &&
                        (!json_is_string(want) || !strcmp(json_string_value(want), err.msg))
                  : rc == 0 && out.len == json_string_length(want) &&
                        !memcmp(ash_buf_cstr(&out), json_string_value(want), out.len);
    if (!ok) {
        mismatches++;
        char *text = json_dumps(want, JSON_ENCODE_ANY);
        print_error("%s: %s\n  want %s %s\n  got  %s\n", what, json_string_value(src), kind, text,
                    rc ? err.msg : ash_buf_cstr(&out));
        free(text);
    }
    ash_buf_release(&out);
}

static json_t *load_golden(void)
{
    const char *data = getenv("ASHLEY_TEST_DATA"); /* set by meson */
    assert_non_null(data);
    char *path = ash_fs_join(data, "template/vectors.json");
    ash_buf text;
    json_t *v = NULL;
    ash_err err;
    if (ash_fs_read(path, 4 << 20, &text, &err) || ash_json_parse(text.data, text.len, &v, &err))
        fail_msg("%s", err.msg);
    ash_buf_release(&text);
    free(path);
    return v;
}

static void test_golden(void **state)
{
    json_t *golden = load_golden(), *row, *data = json_object_get(golden, "data");
    size_t i;
    mismatches = 0;
    json_array_foreach(json_object_get(golden, "families"), i, row)
    {
        const char *kind = json_object_get(row, "error") ? "error" : "expected";
        compare(json_string_value(json_object_get(row, "name")), json_object_get(row, "template"),
                json_object_get(row, "context"), kind, json_object_get(row, kind));
    }
    assert_true(i >= 50);
    json_array_foreach(json_object_get(golden, "statements"), i, row)
        compare("statement", json_array_get(row, 0), data,
                json_string_value(json_array_get(row, 1)), json_array_get(row, 2));
    assert_true(i >= 100);
    json_array_foreach(json_object_get(golden, "expressions"), i, row)
    {
        json_t *src = json_sprintf("{{ %s }}", json_string_value(json_array_get(row, 0)));
        compare("expression", src, data, json_string_value(json_array_get(row, 1)),
                json_array_get(row, 2));
        json_decref(src);
    }
    assert_true(i >= 600);
    assert_int_equal(mismatches, 0);
    json_decref(golden);
}

/* ---- taint ---- */

/* Renders and shows untrusted bytes between ( and ): the templates and data here have none. */
static void expect_taint(const char *src, const char *want)
{
    json_t *ctx =
        parse("{\"messages\":[{\"role\":\"user\",\"content\":\"a<s>b\",\"k\":{\"x\":[\"é,ü\"]}}],"
              "\"bos\":\"<s>\",\"n\":1,\"documents\":[\"D\"],\"tools\":[{\"name\":\"T\"}]}");
    ash_buf out;
    ash_spans spans = {0};
    ash_err err;
    char shown[512];
    size_t n = 0;
    ash_buf_init(&out, 1 << 20);
    assert_int_equal(ash_buf_adds(&out, "pre"), 0);
    if (render_with(src, strlen(src), ctx, NULL, &out, &spans, &err))
        fail_msg("%s: %s", src, err.msg);
    for (size_t i = 3, k = 0; i <= out.len; i++) {
        if (k < spans.n && i == spans.v[k].end) {
            shown[n++] = ')';
            k++;
        }
        if (k < spans.n && i == spans.v[k].begin) shown[n++] = '(';
        if (i < out.len) shown[n++] = out.data[i];
    }
    shown[n] = 0;
    assert_string_equal(shown, want);
    ash_buf_release(&out);
    ash_spans_release(&spans);
    json_decref(ctx);
}

static void test_taint(void **state)
{
    expect_taint("{{ bos }}{{ messages[0].content }}", "<s>(a<s>b)");
    expect_taint(
        "{{ '<|im_start|>' + messages[0]['role'] + '\\n' + messages[0].content + '<|im_end|>' }}",
        "<|im_start|>(user)\n(a<s>b)<|im_end|>");
    expect_taint("{{ (bos + messages[0].content)[2:6] }}", ">(a<s)");
    expect_taint("{{ (bos + messages[0].content + bos)[::-1] }}", ">s<(b>s<a)>s<");
    expect_taint("{{ ('  ' + messages[0].content + ' ') | trim }}", "(a<s>b)");
    expect_taint("{{ messages[0].content.split('<s>') | join(bos) }}", "(a)<s>(b)");
    expect_taint("{{ messages[0].content.replace('<s>', '-') }}", "(a)-(b)");
    expect_taint("{{ '<u>'.replace('u', messages[0].content) }}", "<(a<s>b)>");
    expect_taint("{{ messages[0].content | upper }}", "(A<S>B)");
    expect_taint("{{ (bos ~ messages[0].content) | upper }}", "<S>(A<S>B)");
    expect_taint("{{ ('É' ~ messages[0].content) | lower }}", "(éa<s>b)");
    expect_taint("{{ messages[0].k | tojson }}", "({\"x\": [\"é,ü\"]})");
    expect_taint("{{ [bos, 'x'] | tojson }}{{ n }}", "[\"<s>\", \"x\"]1");
    expect_taint("{{ messages[0].k }}", "({'x': ['é,ü']})");
    expect_taint("{% for k, v in messages[0].items() if v is string %}{{ k }}={{ v }};{% endfor %}",
                 "(role)=(user);(content)=(a<s>b);");
    expect_taint("{% set x %}{{ bos }}{{ messages[0].role }}{% endset %}{{ x }}!", "<s>(user)!");
    expect_taint("{% macro m(c) %}<{{ c }}>{% endmacro %}{{ m(messages[0].role) + m(bos) }}",
                 "<(user)><<s>>");
    expect_taint("{% set ns = namespace(s='') %}{% for c in messages[0].content %}{% set ns.s = "
                 "ns.s ~ c ~ '.' %}"
                 "{% endfor %}{{ ns.s }}",
                 "(a).(<).(s).(>).(b).");
    expect_taint("{{ documents[0] }}{{ tools[0].name }}{{ messages[0].k.x[0].split(',')[1] }}",
                 "(DTü)");
    expect_taint("{{ messages[0].content | indent(2, true) }}{{ messages[0].role.title() }}",
                 "  (a<s>bUser)");
    expect_taint("{{ messages[0].content if messages[0].role == 'user' else bos }}", "(a<s>b)");
    expect_taint("{{ bos if messages[0].role == 'user' }}{{ messages[0].content | length }}",
                 "<s>5");
    expect_taint("{{ messages | map(attribute='content') | first }}", "(a<s>b)");
    expect_taint("{{ messages[0].content | safe }}{{ messages[0].content | e }}",
                 "(a<s>ba)&lt;(s)&gt;(b)");
    expect_taint("{{ '{\"a\": 1}' | from_json }}{{ messages[0].k | string | length }}",
                 "{'a': 1}14");
    expect_taint("{{ messages[0].role * 2 ~ 'x' * 2 }}", "(useruser)xx");
    expect_taint(
        "{{ 'a' in messages[0].content }}{{ messages[0].content[0] ~ messages[0].content[-1] }}",
        "True(ab)");
}

static void test_untrusted_keys(void **state)
{
    json_t *ctx = parse("{\"mine\":\"m\",\"messages\":\"x\"}");
    const char *keys[] = {"mine", NULL};
    ash_template_opts o = {.untrusted_keys = keys};
    ash_buf out;
    ash_spans spans = {0};
    ash_buf_init(&out, 100);
    assert_int_equal(render_with("{{ messages }}{{ mine }}", 24, ctx, &o, &out, &spans, NULL), 0);
    assert_string_equal(out.data, "xm");
    assert_int_equal(spans.n, 1);
    assert_int_equal(spans.v[0].begin, 1);
    assert_int_equal(spans.v[0].end, 2);
    ash_buf_release(&out);
    ash_spans_release(&spans);
    json_decref(ctx);
}

/* ---- errors and limits ---- */

static void expect_error(const char *src, const ash_template_opts *o, int code, const char *part)
{
    json_t *ctx = parse("{\"s\":\"text\",\"l\":[1,2],\"big\":9223372036854775807}");
    ash_buf out;
    ash_spans spans = {0};
    ash_err err = ASH_ERR_INIT;
    ash_buf_init(&out, 1 << 20);
    assert_int_equal(ash_buf_adds(&out, "kept"), 0);
    int rc = render_with(src, strlen(src), ctx, o, &out, &spans, &err);
    if (rc != code || !strstr(err.msg, part))
        fail_msg("%s: wanted %d with \"%s\", got %d: %s", src, code, part, rc, err.msg);
    assert_string_equal(out.data, "kept");
    assert_int_equal(spans.n, 0);
    ash_buf_release(&out);
    ash_spans_release(&spans);
    json_decref(ctx);
}

static void test_errors(void **state)
{
    expect_error("a\n{{ 1 + }}", NULL, ASH_EFORMAT,
                 "template line 2 column 8: expected an expression, got }}");
    expect_error("é{% nope %}", NULL, ASH_EFORMAT, "line 1 column 5: unknown tag 'nope'");
    expect_error("{% if s %}", NULL, ASH_EFORMAT, "looking for 'elif'");
    expect_error("{% endif %}", NULL, ASH_EFORMAT, "unknown tag 'endif'");
    expect_error("{{ 'a }}", NULL, ASH_EFORMAT, "string without its end");
    expect_error("{{ (1] }}", NULL, ASH_EFORMAT, "unexpected ']', expected ')'");
    expect_error("{{ '\\ud800' }}", NULL, ASH_EFORMAT, "no Unicode character");
    expect_error("{{ '\\N{DASH}' }}", NULL, ASH_EUNSUPPORTED, "character names");
    expect_error("\xff", NULL, ASH_EFORMAT, "UTF-8");
    expect_error("{% include 'x' %}", NULL, ASH_EUNSUPPORTED, "the tag 'include'");
    expect_error("{% for a in l recursive %}{% endfor %}", NULL, ASH_EUNSUPPORTED, "recursive");
    expect_error("{% break %}", NULL, ASH_EFORMAT, "outside of a loop");
    expect_error("{{ raise_exception('no ' ~ s) }}", NULL, ASH_EINVAL, "no text");
    expect_error("x\n{{ nothing.at.all }}", NULL, ASH_EINVAL,
                 "line 2 column 11: 'nothing' is undefined");
    expect_error("{{ s.at.all }}", NULL, ASH_EINVAL, "'str object' has no attribute 'at'");
    expect_error("{{ s + 1 }}", NULL, ASH_EINVAL,
                 "unsupported operand types for +: 'str' and 'int'");
    expect_error("{{ s | nope }}", NULL, ASH_EUNSUPPORTED, "no filter named 'nope'");
    expect_error("{{ s is nope }}", NULL, ASH_EUNSUPPORTED, "no test named 'nope'");
    expect_error("{{ '%s' % s }}", NULL, ASH_EUNSUPPORTED, "formatting");
    expect_error("{{ s.format(1) }}", NULL, ASH_EUNSUPPORTED, "str.format");
    expect_error("{{ cycler(1) }}", NULL, ASH_EUNSUPPORTED, "cycler");
    expect_error("{{ s | trim(bad=1) }}", NULL, ASH_EINVAL, "unexpected keyword argument 'bad'");
    expect_error("{{ s | replace('a') }}", NULL, ASH_EINVAL, "misses its argument 'new'");
    expect_error("{{ s | from_json }}", NULL, ASH_EFORMAT, "from_json: expected a value at byte 0");
    ash_template *t;
    ash_err err;
    assert_int_equal(ash_template_parse("ab\n {{ 1 2 }}", 13, &t, &err), ASH_EFORMAT);
    assert_int_equal(err.pos, 9);
    json_t *list = json_array();
    assert_int_equal(ash_template_parse("", 0, &t, &err), 0);
    ash_buf out;
    ash_buf_init(&out, 10);
    assert_int_equal(ash_template_render(t, list, NULL, &out, NULL, &err), ASH_EINVAL);
    assert_int_equal(ash_template_render(t, NULL, NULL, &out, NULL, &err), 0);
    ash_template_close(t);
    ash_template_close(NULL);
    json_decref(list);
    ash_buf_release(&out);
}

/* n copies of `unit` between two ends. */
static char *repeated(const char *before, const char *unit, size_t n, const char *after)
{
    ash_buf b;
    ash_buf_init(&b, 64 << 20);
    ash_buf_adds(&b, before);
    for (size_t i = 0; i < n; i++) ash_buf_adds(&b, unit);
    ash_buf_adds(&b, after);
    assert_int_equal(b.failed, 0);
    return ash_buf_take(&b);
}

static void expect_nested(const char *before, const char *unit, size_t n, const char *after,
                          int code, const char *part)
{
    char *src = repeated(before, unit, n, after);
    expect_error(src, NULL, code, part);
    free(src);
}

static void test_limits(void **state)
{
    const ash_template_opts few = {.max_steps = 1000}, small = {.max_memory = 100000},
                            brief = {.max_output = 10};
    expect_error("{% for i in range(1000) %}{% endfor %}", &few, ASH_ELIMIT,
                 "more than 1000 steps");
    expect_error("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
                 NULL, ASH_ELIMIT, "steps");
    expect_error("{% set x = 'ab' * 200000 %}", &small, ASH_ELIMIT, "bytes of memory");
    expect_error("{{ 'x' * 99999999999 }}", NULL, ASH_ELIMIT, "");
    expect_error("{{ [1] * 99999999999 }}", NULL, ASH_ELIMIT, "");
    expect_error("{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ "
                 "ns.s %}{% endfor %}",
                 NULL, ASH_ELIMIT, "");
    expect_error("{{ 'x' * 11 }}", &brief, ASH_ELIMIT, "longer than 10 bytes");
    expect_error("{{ big + 1 }}", NULL, ASH_ELIMIT, "64 bits");
    expect_error("{{ 2 ** 63 }}", NULL, ASH_ELIMIT, "64 bits");
    expect_error("{{ 99999999999999999999 }}", NULL, ASH_ELIMIT, "64 bits");
    expect_error("{{ range(100001) }}", NULL, ASH_ELIMIT, "longer than 100000");
    expect_error("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", NULL, ASH_ELIMIT,
                 "deeper than");
    expect_error("{% set x = [] %}{% set y = x.append(x) %}{{ x }}", NULL, ASH_ELIMIT,
                 "nested too deeply");
    expect_error("{% set x = [] %}{% set y = x.append(x) %}{{ x == [x] }}", NULL, ASH_ELIMIT,
                 "nested too deeply");
    expect_error("{% set x = [] %}{% set y = x.append(x) %}{{ x | tojson }}", NULL, ASH_ELIMIT,
                 "nested");
    expect_nested("{{ ", "[", 101, "", ASH_ELIMIT, "nested deeper than 100");
    expect_nested("{{ ", "-", 100000, "1 }}", ASH_ELIMIT, "nested deeper than");
    expect_nested("", "{% if 1 %}", 1000, "", ASH_ELIMIT, "nested deeper than");
    expect_nested("{{ s", ".x", 100000, " }}", ASH_ELIMIT, "nested too deeply");
    expect_nested("{{ s", "|upper", 100000, " }}", ASH_ELIMIT, "nested too deeply");
    expect_nested("{{ 1", " if 1 else 1", 1000, " }}", ASH_ELIMIT, "nested deeper than");
    expect_nested("{% set x | ", "upper|", 100000, "upper %}{% endset %}", ASH_ELIMIT,
                  "nested too deeply");
    char *big = repeated("", "x", ASH_MAX_TEMPLATE + 1, "");
    expect_error(big, NULL, ASH_ELIMIT, "larger than");
    free(big);
}

/* Long chains are no nesting: they work. */
static void test_long_chains(void **state)
{
    char *src[] = {repeated("{{ 1", " + 1", 20000, " }}"),
                   repeated("{{ ''", " ~ ''", 20000, " }}"),
                   repeated("{{ 0", " or 0", 20000, " }}"),
                   repeated("{{ ", "not ", 100000, "1 }}"),
                   repeated("{% if 0 %}", "{% elif 0 %}", 20000, "{% endif %}x"),
                   repeated("{{ 1", " < 2 > 1", 10000, " }}")};
    const char *want[] = {"20001", "", "0", "True", "x", "True"};
    for (int i = 0; i < 6; i++) {
        ash_buf out;
        ash_err err;
        ash_buf_init(&out, 100);
        if (render_with(src[i], strlen(src[i]), NULL, NULL, &out, NULL, &err))
            fail_msg("%.40s: %s", src[i], err.msg);
        assert_string_equal(ash_buf_cstr(&out), want[i]);
        ash_buf_release(&out);
        free(src[i]);
    }
}

/* ---- the rest of the interface ---- */

static void test_text_context(void **state)
{
    static const char json[] = " {\"messages\": [\"a\\u0000\\ud83d\\ude00\"], \"o\": "
                               "{\"k\\u0000\": -1.5e3}, \"b\": \"\\n\"} ";
    static const char src[] =
        "{{ messages[0] | length }}{{ messages[0][2] }}{{ o | tojson }}{{ b }}";
    ash_template *t;
    ash_err err;
    ash_buf out;
    ash_spans spans = {0};
    ash_buf_init(&out, 100);
    assert_int_equal(ash_template_parse(src, sizeof src - 1, &t, &err), 0);
    assert_int_equal(ash_template_render_text(t, json, sizeof json - 1, NULL, &out, &spans, &err),
                     0);
    assert_string_equal(out.data, "3\xF0\x9F\x98\x80{\"k\\u0000\": -1500.0}\n");
    assert_int_equal(spans.n, 1);
    assert_int_equal(spans.v[0].begin, 1);
    assert_int_equal(spans.v[0].end, 5);
    static const char *const bad[] = {"",
                                      "[]",
                                      "{",
                                      "{\"a\"}",
                                      "{\"a\":1,}",
                                      "{\"a\":01}",
                                      "{\"a\":tru}",
                                      "{\"a\":\"\n\"}",
                                      "{\"a\":\"\\ud800\"}",
                                      "{\"a\":\"\\x\"}",
                                      "{} x",
                                      "{\"a\":1e999}",
                                      "{\"a\":\"\xff\"}",
                                      "{\"a\":99999999999999999999}",
                                      "{\"a\":-}",
                                      "{\"a\":1.}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (ash_template_render_text(t, bad[i], strlen(bad[i]), NULL, &out, &spans, &err) !=
            ASH_EFORMAT)
            fail_msg("%s was accepted", bad[i]);
    char *deep = repeated("{\"a\":", "[", 5000, "");
    assert_int_equal(ash_template_render_text(t, deep, strlen(deep), NULL, &out, &spans, &err),
                     ASH_ELIMIT);
    free(deep);
    ash_template_close(t);
    ash_buf_release(&out);
    ash_spans_release(&spans);
}

static void test_mentions(void **state)
{
    static const char src[] =
        "a\r\n{% for m in messages %}{{ m.tools }}{% endfor %}{{ enable_thinking is defined }}\n";
    ash_template *t;
    ash_err err;
    assert_int_equal(ash_template_parse(src, sizeof src - 1, &t, &err), 0);
    assert_string_equal(ash_template_source(t), src);
    assert_true(ash_template_mentions(t, "messages"));
    assert_true(ash_template_mentions(t, "enable_thinking"));
    assert_false(ash_template_mentions(t, "tools"));
    ash_template_close(t);
}

/* What goes beyond the reference: lists and dictionaries can be changed. */
static void test_mutation(void **state)
{
    static const char src[] =
        "{% set l = [1] %}{{ l.append(2) or '' }}{{ l.insert(0, 0) or '' }}{{ l.pop() }}{{ "
        "l.pop(0) }}{{ l }}"
        "{% set d = {'a': 1} %}{{ d.update({'b': 2}, c=3) or '' }}{{ d.pop('a') }}{{ d.pop('zz', "
        "9) }}"
        "{{ d.setdefault('x', 5) }}{{ d }}{{ l.extend('ab') or '' }}{{ l.reverse() or '' }}{{ l }}"
        "{{ l.remove('a') or '' }}{{ l.clear() or '' }}{{ l }}{{ d.clear() or '' }}{{ d }}";
    ash_buf out;
    ash_err err;
    ash_buf_init(&out, 1000);
    if (render_with(src, sizeof src - 1, NULL, NULL, &out, NULL, &err)) fail_msg("%s", err.msg);
    assert_string_equal(out.data, "20[1]195{'b': 2, 'c': 3, 'x': 5}['b', 'a', 1][]{}");
    ash_buf_release(&out);
}

static void *render_often(void *arg)
{
    json_t *ctx = parse("{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    for (int i = 0; i < 200; i++) {
        ash_buf out;
        ash_buf_init(&out, 1000);
        if (ash_template_render(arg, ctx, NULL, &out, NULL, NULL) || strcmp(out.data, "user:HI;é1"))
            return arg;
        ash_buf_release(&out);
    }
    json_decref(ctx);
    return NULL;
}

/* One template, several threads. */
static void test_threads(void **state)
{
    static const char src[] =
        "{% macro m(x, y='é') %}{{ x | upper }};{{ y }}{% endmacro %}"
        "{% for m2 in messages %}{{ m2.role }}:{{ m(m2.content) }}{{ loop.index }}{% endfor %}";
    ash_template *t;
    assert_int_equal(ash_template_parse(src, sizeof src - 1, &t, NULL), 0);
    pthread_t id[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&id[i], NULL, render_often, t), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(id[i], &failed);
        assert_null(failed);
    }
    ash_template_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),         cmocka_unit_test(test_taint),
        cmocka_unit_test(test_untrusted_keys), cmocka_unit_test(test_errors),
        cmocka_unit_test(test_limits),         cmocka_unit_test(test_long_chains),
        cmocka_unit_test(test_text_context),   cmocka_unit_test(test_mentions),
        cmocka_unit_test(test_mutation),       cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
