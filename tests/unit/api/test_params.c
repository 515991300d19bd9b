/* Request bodies: what comes out of them, and that no allocation may fail unseen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/openai_text.h"
#include "api/params.h"
#include "oom.h"

typedef struct parsed {
    json_t *body;
    ash_arena arena;
    ash_request req;
    ash_api_error e;
    int rc;
} parsed;

static parsed parse(ash_request_kind kind, const char *text)
{
    parsed p = {0};
    ash_arena_init(&p.arena, 1 << 20);
    p.rc = ash_params_parse(ash_str_from(text), &p.body, &p.e);
    if (!p.rc) p.rc = ash_params_read(p.body, kind, &p.arena, &p.req, &p.e);
    return p;
}

static void drop(parsed *p)
{
    json_decref(p->body);
    ash_arena_release(&p->arena);
}

#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static const char full[] =
    "{" HI ",\"temperature\":0.25,\"top_p\":0.5,\"min_p\":0.1,\"top_k\":7,\"repeat_penalty\":1.5,"
    "\"presence_penalty\":-1,\"frequency_penalty\":2,\"repeat_last_n\":-1,\"seed\":42,\"max_"
    "tokens\":9,\"n\":2,"
    "\"stop\":[\"a\",\"\",\"b\"],\"stream\":true,\"stream_options\":{\"include_usage\":true},"
    "\"logit_bias\":{\"5\":-100,\"6\":1.5},\"logprobs\":true,\"top_logprobs\":3,\"ignore_eos\":"
    "true,"
    "\"return_progress\":true,\"continue_final_message\":true}";

static void test_everything(void **state)
{
    parsed p = parse(ASH_REQUEST_CHAT, full);
    assert_int_equal(p.rc, 0);
    const ash_sampler_params *s = &p.req.sampling;
    assert_true(s->temperature == 0.25 && s->top_p == 0.5 && s->min_p == 0.1 &&
                s->repeat_penalty == 1.5);
    assert_true(s->presence_penalty == -1 && s->frequency_penalty == 2);
    assert_true(s->top_k == 7 && s->repeat_last_n == -1 && s->seed == 42);
    assert_true(s->logprobs && s->top_logprobs == 3 && p.req.logprobs);
    assert_int_equal(s->n_logit_bias, 2);
    assert_int_equal(s->logit_bias[0].id, 5);
    assert_true(s->logit_bias[1].bias == 1.5f);
    assert_int_equal(p.req.n_stops, 2);
    assert_string_equal(p.req.stops[1], "b");
    assert_true(p.req.max_tokens == 9 && p.req.n == 2 && p.req.stream && p.req.include_usage);
    assert_true(p.req.ignore_eos && p.req.return_progress && p.req.continue_final_message);
    assert_false(p.req.add_generation_prompt);
    drop(&p);
}

static void test_defaults(void **state)
{
    parsed p = parse(ASH_REQUEST_CHAT,
                     "{" HI ",\"seed\":-5,\"top_k\":-1,\"max_tokens\":null,\"n_predict\":-2}");
    assert_int_equal(p.rc, 0);
    ash_sampler_params d = ash_sampler_params_default();
    assert_true(p.req.sampling.temperature == d.temperature && p.req.sampling.seed == -1);
    assert_true(p.req.sampling.top_k == 0 && p.req.max_tokens == -1 && p.req.n == 1);
    assert_true(p.req.add_generation_prompt && !p.req.stream && p.req.n_stops == 0);
    drop(&p);
}

static void test_completion_logprobs(void **state)
{
    parsed p = parse(ASH_REQUEST_COMPLETION, "{\"prompt\":[\"a\",\"b\"],\"n\":3,\"logprobs\":0}");
    assert_int_equal(p.rc, 0);
    assert_true(p.req.logprobs && p.req.sampling.top_logprobs == 0);
    assert_int_equal(ash_params_choices(&p.req), 6);
    drop(&p);
    p = parse(ASH_REQUEST_COMPLETION, "{\"prompt\":[1,2],\"n_probs\":4,\"logprobs\":null}");
    assert_int_equal(p.rc, 0);
    assert_true(p.req.logprobs && p.req.sampling.top_logprobs == 4);
    assert_int_equal(ash_params_choices(&p.req), 1);
    drop(&p);
    p = parse(ASH_REQUEST_COMPLETION, "{\"prompt\":[\"a\",\"b\",\"c\"],\"n\":6}");
    assert_int_equal(p.rc, 400);
    assert_string_equal(p.e.param, "prompt");
    drop(&p);
}

static void test_times(void **state)
{
    const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"0", 0},       {"1", 1000},    {"1.5s", 1500},
                {"250ms", 250}, {"2m", 120000}, {"1h", 3600000}, {"1 s", 1000}, {"1h30m", 5400000}};
    const char *bad[] = {"",    "s",   "-1",    "1d",  "1 2",     "1e3", "0x10",
                         "inf", "nan", "1.2.3", "1ss", "100000h", "1mm"};
    int64_t ms;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(ash_params_time(good[i].text, &ms));
        assert_int_equal(ms, good[i].ms);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(ash_params_time(bad[i], &ms));
}

static void test_keep_alive(void **state)
{
    const struct {
        const char *body;
        bool has;
        int64_t ms;
    } good[] = {
        {"{}", false, 0},
        {"{\"keep_alive\":null}", false, 0},
        {"{\"keep_alive\":0}", true, 0},
        {"{\"keep_alive\":\"0\"}", true, 0},
        {"{\"keep_alive\":1.5}", true, 1500},
        {"{\"keep_alive\":\"10m\"}", true, 600000},
        {"{\"keep_alive\":\"1h30m5s\"}", true, 5405000},
        {"{\"keep_alive\":-1}", true, -1},
        {"{\"keep_alive\":\"-1m\"}", true, -1},
        {"{\"keep_alive\":1e300}", true, -1},
        {"{\"keep_alive\":\"99999999h\"}", true, -1},
        {"{\"ttl\":60}", true, 60000},
        {"{\"ttl\":60,\"keep_alive\":5}", true, 5000},
        {"{\"ttl\":60,\"keep_alive\":null}", true, 60000},
    };
    const char *bad[] = {"true",      "[]",       "\"\"",  "\"-\"",   "\"soon\"",
                         "\"1 2\"",   "\"1d\"",   "\"m\"", "\"1mm\"", "\"1s-1s\""};
    char text[128];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        json_t *body = json_loads(good[i].body, 0, NULL);
        bool has = !good[i].has;
        int64_t ms = 7;
        assert_int_equal(ash_params_keep_alive(body, &has, &ms, NULL), 0);
        assert_int_equal(has, good[i].has);
        if (has) assert_int_equal(ms, good[i].ms);
        json_decref(body);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "{" HI ",\"keep_alive\":%s}", bad[i]);
        parsed p = parse(ASH_REQUEST_CHAT, text);
        assert_int_equal(p.rc, 400);
        assert_string_equal(p.e.param, "keep_alive");
        drop(&p);
    }
}

/* Every allocation of ours fails once: an error, no crash and no leak (ASan looks). Jansson keeps its
 * own allocator: 2.14 frees twice when its lexer gets no memory. */
static void test_out_of_memory(void **state)
{
    int failed = 0;
    for (long i = 0; i < 400; i++) {
        oom_left = i;
        parsed p = parse(ASH_REQUEST_CHAT, full);
        bool reached = oom_left < 0;
        oom_left = -1;
        if (p.rc) {
            assert_int_equal(p.e.status, 503);
            failed++;
        }
        drop(&p);
        if (!reached) break;
        assert_true(i < 399);
    }
    assert_true(failed >= 1);
}

static bool answers(void)
{
    ash_buf b;
    ash_buf_init(&b, 1 << 20);
    ash_oai *t = ash_oai_open(ASH_REQUEST_CHAT, false, 2, "model");
    bool ok = t != NULL;
    ash_answer d = {.kind = ASH_ANSWER_DELTA,
                    .index = 1,
                    .text = ASH_STR("text of an answer"),
                    .reasoning = ASH_STR("some thought")};
    ok = ok && !ash_oai_delta(t, &d, &b);
    if (t) ash_oai_finish(t, 1, "stop", &b);
    ok = ok && !ash_oai_end(t, NULL, false, &b);
    ash_oai_close(t);
    ash_buf_release(&b);
    return ok;
}

static void test_out_of_memory_in_an_answer(void **state)
{
    for (long i = 0; i < 100; i++) {
        oom_left = i;
        bool ok = answers();
        bool reached = oom_left < 0;
        oom_left = -1;
        assert_int_equal(ok, !reached); /* a lost allocation is never an answer */
        if (!reached) return;
    }
    fail();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_completion_logprobs),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_out_of_memory_in_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
