/* The upstream provider against a scripted server: what reaches the caller of whole, split, cut,
 * slow, huge and lying answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/log.h"
#include "provider/openai.h"
#include "upstream.h"

#define KEY "sk-test-key-123456"
#define SSE "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
#define CHUNKED                                                                                    \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"                        \
    "Transfer-Encoding: chunked\r\n\r\n"
#define A "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"
#define B "data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n"
#define DONE "data: [DONE]\n\n"
#define JSON(status, extra, body)                                                                  \
    "HTTP/1.1 " status "\r\nContent-Type: application/json\r\nConnection: close\r\n" extra         \
    "\r\n" body
#define STEPS(...)                                                                                 \
    (const step[])                                                                                 \
    {                                                                                              \
        __VA_ARGS__,                                                                               \
        {                                                                                          \
            STEP_END                                                                               \
        }                                                                                          \
    }
#define SEND(t)                                                                                    \
    {                                                                                              \
        STEP_SEND, t                                                                               \
    }

enum { FLOOD = 10000 }; /* events of 4 KiB: more than any socket holds */

static char padding[4097];        /* 4 KiB */
static char big_event[4096 + 32]; /* an event that holds it */

static const script scripts[] = {
    {"ok", STEPS(SEND(SSE A B DONE))},
    {"bytes", STEPS({STEP_BYTES, SSE ": ping\r\n\r\n" A B DONE})},
    {"again", STEPS(SEND(CHUNKED "e\r\n"
                                 "data: {\"a\":1}\n"
                                 "\r\n1\r\n\n\r\ne\r\n" DONE "\r\n"),
                    {STEP_SLEEP, NULL, 5}, SEND("8\r\n: bye\n\n\r\n0\r\n\r\n"), {STEP_AGAIN})},
    {"lines", STEPS(SEND(SSE "data: {\"a\":\ndata: 1}\n\n" DONE))},
    {"open-done", STEPS(SEND(SSE A "data: [DONE]"))},
    {"cut", STEPS(SEND(SSE A))},
    {"reset", STEPS(SEND(CHUNKED "5\r\ndata:"), {STEP_RESET})},
    {"late-reset", STEPS(SEND(SSE A), {STEP_SLEEP, NULL, 50}, {STEP_RESET})},
    {"only-done", STEPS(SEND(SSE DONE))},
    {"empty", STEPS(SEND(SSE))},
    {"rubbish", STEPS(SEND(SSE A "data: {nonsense\n\n" DONE))},
    {"array", STEPS(SEND(SSE "data: []\n\n" DONE))},
    {"error-first", STEPS(SEND(SSE "data: {\"error\":{\"message\":\"no luck\"}}\n\n"))},
    {"error-later", STEPS(SEND(SSE A "data: {\"error\":\"no luck\"}\n\n"))},
    {"html",
     STEPS(SEND("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<p>"))},
    {"not-http", STEPS(SEND("what?\n"))},
    {"closes", STEPS({STEP_SLEEP, NULL, 1})},
    {"whole", STEPS(SEND(JSON("200 OK", "", "{\"choices\":[{}],\"model\":\"theirs\"}")))},
    {"whole-rubbish", STEPS(SEND(JSON("200 OK", "", "{\"choices\":")))},
    {"whole-empty", STEPS(SEND(JSON("200 OK", "", "{\"choices\":[]}")))},
    {"whole-error", STEPS(SEND(JSON("200 OK", "", "{\"error\":{\"message\":\"no luck\"}}")))},
    {"whole-array", STEPS(SEND(JSON("200 OK", "", "[1]")))},
    {"whole-cut", STEPS(SEND(JSON("200 OK", "Content-Length: 100\r\n", "{\"choices\":[]}")))},
    {"huge",
     STEPS(SEND(JSON("200 OK", "", "")), {STEP_FLOOD, padding, (ASH_MAX_UPSTREAM_BODY >> 12) + 2})},
    {"huge-line", STEPS(SEND(SSE "data: "), {STEP_FLOOD, padding, (ASH_MAX_SSE_LINE >> 12) + 2})},
    {"400",
     STEPS(SEND(JSON(
         "400 Bad", "",
         "{\"error\":{\"message\":\"bad n\",\"type\":\"t\",\"code\":\"c\",\"param\":\"n\"}}")))},
    {"401", STEPS(SEND(JSON("401 No", "", "{\"error\":{\"message\":\"wrong key " KEY "\"}}")))},
    {"429", STEPS(SEND(JSON("429 Slow", "Retry-After: 7\r\n",
                            "{\"error\":{\"message\":\"slow down\",\"code\":\"rate\"}}")))},
    {"429-bare", STEPS(SEND(JSON("429 Slow", "", "")))},
    {"404", STEPS(SEND(JSON("404 No", "", "{\"detail\":\"no such model " KEY "\"}")))},
    {"500", STEPS(SEND(JSON("500 Oops", "", "<html>oops")))},
    {"503", STEPS(SEND(JSON("503 Busy", "Retry-After: 7\r\n", "{\"error\":\"overloaded\"}")))},
    {"302",
     STEPS(
         SEND("HTTP/1.1 302 F\r\nLocation: /ok/v1/chat/completions\r\nConnection: close\r\n\r\n"))},
    {"silent", STEPS({STEP_HOLD})},
    {"late", STEPS({STEP_SLEEP, NULL, 300}, SEND(JSON("200 OK", "", "{\"choices\":[{}]}")))},
    {"pings", STEPS(SEND(SSE ": ping\n\n: ping\n\n"), {STEP_HOLD})},
    {"stalls", STEPS(SEND(SSE A), {STEP_HOLD})},
    {"flood", STEPS(SEND(SSE), {STEP_FLOOD, big_event, FLOOD}, SEND(DONE))},
    {NULL},
};

/* What a request's events were, as lines. */
typedef struct record {
    pthread_mutex_t lock;
    pthread_cond_t more;
    char text[8192];
    size_t used;
    int raws, eagain_every; /* every n-th RAW returns EAGAIN */
    bool last, gone;        /* gone: the callback says the reader left at the first RAW */
} record;

static int on_answer(void *user, const ash_answer *a)
{
    record *r = user;
    int rc = 0;
    pthread_mutex_lock(&r->lock);
    char line[1024] = "";
    if (r->last) snprintf(line, sizeof line, "AFTER THE LAST\n");
    if (a->kind == ASH_ANSWER_HEAD)
        snprintf(line, sizeof line, "HEAD %s %s\n", a->served_by, a->model);
    if (a->kind == ASH_ANSWER_RAW) {
        snprintf(line, sizeof line, "RAW %d %.*s\n", a->raw_status,
                 (int)(a->raw.n < 80 ? a->raw.n : 80), a->raw.p);
        r->raws++;
        if (r->eagain_every && r->raws % r->eagain_every == 0) rc = ASH_EAGAIN;
        if (r->gone) rc = ASH_ECANCELED;
    }
    if (a->kind == ASH_ANSWER_END) snprintf(line, sizeof line, "END\n");
    if (a->kind == ASH_ANSWER_ERROR)
        snprintf(line, sizeof line, "ERROR %d %s %s %s %d: %s\n", a->error->status, a->error->type,
                 a->error->code ? a->error->code : "-", a->error->param ? a->error->param : "-",
                 a->error->retry_after, a->error->message);
    bool always = a->kind != ASH_ANSWER_RAW; /* floods leave room for the end */
    if (r->used + strlen(line) + (always ? 0 : 2000) < sizeof r->text) {
        memcpy(r->text + r->used, line, strlen(line) + 1);
        r->used += strlen(line);
    }
    r->last |= a->kind == ASH_ANSWER_END || a->kind == ASH_ANSWER_ERROR;
    pthread_cond_broadcast(&r->more);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

static void record_init(record *r)
{
    memset(r, 0, sizeof *r);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->more, NULL);
}

static void wait_last(record *r)
{
    pthread_mutex_lock(&r->lock);
    while (!r->last) pthread_cond_wait(&r->more, &r->lock);
    pthread_mutex_unlock(&r->lock);
}

static void wait_raws(record *r, int n)
{
    pthread_mutex_lock(&r->lock);
    while (r->raws < n && !r->last) pthread_cond_wait(&r->more, &r->lock);
    pthread_mutex_unlock(&r->lock);
}

static upstream server;
static bool renewed; /* of what is asked: nobody has set the first token's budget */

static int enter(void **state)
{
    memset(padding, 'x', sizeof padding - 1);
    snprintf(big_event, sizeof big_event, "data: {\"x\":\"%s\"}\n\n", padding);
    ash_log_set_level(ASH_LOG_NONE);
    upstream_open(&server, scripts);
    return 0;
}

static int leave(void **state)
{
    upstream_close(&server);
    return 0;
}

static ash_provider *provider_of(const char *name)
{
    char url[128];
    ash_provider *p;
    ash_err err = ASH_ERR_INIT;
    upstream_url(&server, name, url);
    if (ash_openai_open(&(ash_openai_opts){.name = "openai", .base_url = url, .api_key = KEY}, &p,
                        &err))
        fail_msg("%s", err.msg);
    return p;
}

static ash_answering *ask(ash_provider *p, bool stream, int64_t first_ms, int64_t idle_ms,
                          record *r)
{
    json_t *body = json_pack("{s:s, s:[{s:s, s:s}], s:i, s:b}", "model", "ashley", "messages",
                             "role", "user", "content", "hi", "odd_field", 7, "return_progress", 1);
    ash_request q = {.kind = ASH_REQUEST_CHAT,
                     .id = "req-1",
                     .model = "gpt-x",
                     .body = body,
                     .stream = stream,
                     .budgets = {.first_token_ms = first_ms, .idle_ms = idle_ms,
                                 .first_token_renewed = renewed}};
    ash_answering *a = NULL;
    assert_int_equal(p->start(p, &q, on_answer, r, &a, NULL), 0);
    json_decref(body);
    return a;
}

/* Asks script `name` and compares all events; a line of `want` may end early with '*'. */
static void expect(const char *name, bool stream, int64_t first_ms, int64_t idle_ms,
                   const char *want)
{
    record r;
    record_init(&r);
    ash_provider *p = provider_of(name);
    ash_answering *a = ask(p, stream, first_ms, idle_ms, &r);
    wait_last(&r);
    p->close_request(p, a);
    p->close(p);
    const char *got = r.text, *w = want;
    while (*w && *got) {
        if (*w == '*') {
            got = strchr(got, '\n');
            w++;
        } else if (*w++ != *got++) {
            fail_msg("%s:\n%s--- not ---\n%s", name, r.text, want);
        }
    }
    if (*w || *got) fail_msg("%s:\n%s--- not ---\n%s", name, r.text, want);
    assert_null(strstr(r.text, KEY));
}

#define HEAD "HEAD openai gpt-x\n"
#define RAW_A "RAW 200 {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n"
#define RAW_B "RAW 200 {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n"
#define BAD "ERROR 502 upstream_error upstream_error - 0: The upstream 'openai' "

static void good_streams(void **state)
{
    expect("ok", true, 0, 0, HEAD RAW_A RAW_B "END\n");
    expect("bytes", true, 10000, 10000, HEAD RAW_A RAW_B "END\n");
    expect("lines", true, 0, 0, HEAD "RAW 200 {\"a\": 1}\nEND\n");
    expect("open-done", true, 0, 0, HEAD RAW_A "END\n");
}

static void the_request(void **state)
{
    expect("ok", true, 0, 0, HEAD RAW_A RAW_B "END\n");
    pthread_mutex_lock(&server.lock);
    char got[sizeof server.request];
    memcpy(got, server.request, sizeof got);
    pthread_mutex_unlock(&server.lock);
    assert_non_null(strstr(got, "POST /ok/v1/chat/completions HTTP/1.1\r\n"));
    assert_non_null(strstr(got, "Authorization: Bearer " KEY "\r\n"));
    assert_non_null(strstr(got, "X-Request-Id: req-1\r\n"));
    assert_non_null(strstr(got, "Content-Type: application/json\r\n"));
    json_t *body = json_loads(strstr(got, "\r\n\r\n") + 4, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(body, "model")), "gpt-x");
    assert_int_equal(json_integer_value(json_object_get(body, "odd_field")), 7);
    assert_null(json_object_get(body, "return_progress"));
    assert_true(json_is_true(json_object_get(body, "stream")));
    assert_int_equal(json_array_size(json_object_get(body, "messages")), 1);
    json_decref(body);
}

static void whole_answers(void **state)
{
    expect("whole", false, 10000, 10000,
           HEAD "RAW 200 {\"choices\":[{}],\"model\":\"theirs\"}\nEND\n");
    expect("whole-rubbish", false, 0, 0, BAD "answered with a body that is not JSON: *\n");
    expect("whole-array", false, 0, 0, BAD "answered with an array; expected an object.\n");
    expect("whole-empty", false, 0, 0, BAD "answered without 'choices'.\n");
    expect("whole-error", false, 0, 0, BAD "answered without 'choices': no luck\n");
    expect("whole-cut", false, 0, 0, BAD "cannot be reached or broke off: *\n");
    expect("huge", false, 0, 0, BAD "answered with more than 67108864 bytes.\n");
}

static void broken_streams(void **state)
{
    expect("cut", true, 0, 0, HEAD RAW_A BAD "ended its stream without [DONE].\n");
    expect("reset", true, 0, 0, BAD "cannot be reached or broke off: *\n");
    expect("late-reset", true, 0, 0, HEAD RAW_A BAD "broke off its stream: *\n");
    expect("only-done", true, 0, 0, BAD "ended its stream before it said anything.\n");
    expect("empty", true, 0, 0, BAD "ended its stream without [DONE].\n");
    expect("rubbish", true, 0, 0, HEAD RAW_A BAD "sent an event that is not JSON: *\n");
    expect("array", true, 0, 0, BAD "sent an event that is an array; expected an object.\n");
    expect("error-first", true, 0, 0, BAD "sent an error: no luck\n");
    expect("error-later", true, 0, 0, HEAD RAW_A BAD "sent an error: no luck\n");
    expect("html", true, 0, 0,
           BAD "answered with Content-Type 'text/html'; expected text/event-stream.\n");
    expect("whole", true, 0, 0, BAD "answered with Content-Type 'application/json'; *\n");
    expect("huge-line", true, 0, 0, BAD "sent an event over 8388608 bytes.\n");
}

static void refusals(void **state)
{
    for (int stream = 0; stream < 2; stream++) {
        expect("400", stream, 0, 0, "ERROR 400 invalid_request_error c n 0: bad n\n");
        expect("401", stream, 0, 0,
               BAD "refused our key (401): check OPENAI_API_KEY and OPENAI_BASE_URL.\n");
        expect("429", stream, 0, 0, "ERROR 429 rate_limit_error rate - 7: slow down\n");
        expect("429-bare", stream, 0, 0,
               "ERROR 429 rate_limit_error - - 1: The upstream is busy.\n");
        expect("404", stream, 0, 0, BAD "answered 404: no such model ***\n");
        expect("500", stream, 0, 0, BAD "answered 500.\n");
        expect("503", stream, 0, 0, BAD "answered 503: overloaded\n");
        expect("302", stream, 0, 0,
               BAD "answered with a redirect (302), which is not followed: *\n");
        expect("not-http", stream, 0, 0, BAD "cannot be reached or broke off: *\n");
        expect("closes", stream, 0, 0, BAD "cannot be reached or broke off: *\n");
    }
}

static void unreachable(void **state)
{
    upstream gone;
    char url[128];
    upstream_open(&gone, scripts);
    upstream_url(&gone, "ok", url);
    upstream_close(&gone);
    ash_provider *p;
    assert_int_equal(ash_openai_open(&(ash_openai_opts){.base_url = url}, &p, NULL), 0);
    record r;
    record_init(&r);
    ash_answering *a = ask(p, true, 0, 0, &r);
    wait_last(&r);
    p->close_request(p, a);
    p->close(p);
    assert_non_null(strstr(r.text, "ERROR 502 upstream_error"));
    assert_non_null(strstr(r.text, "cannot be reached"));
}

static void budgets(void **state)
{
    expect("silent", true, 50, 0,
           "ERROR 503 unavailable_error first_token_timeout - 5: The upstream 'openai' gave no "
           "token within 50 ms (ASHLEY_FIRST_TOKEN_TIMEOUT).\n");
    expect("silent", false, 50, 0, "ERROR 503 unavailable_error first_token_timeout - 5: *\n");
    expect("pings", true, 50, 0, "ERROR 503 unavailable_error first_token_timeout - 5: *\n");
    expect("late", false, 50, 0, "ERROR 503 unavailable_error first_token_timeout - 5: *\n");
    renewed = true; /* a whole answer takes as long as its last token */
    expect("late", false, 50, 0, HEAD "RAW 200 {\"choices\":[{}]}\nEND\n");
    expect("silent", true, 50, 0, "ERROR 503 unavailable_error first_token_timeout - 5: *\n");
    renewed = false;
    expect("stalls", true, 10000, 50,
           HEAD RAW_A "ERROR 503 unavailable_error idle_timeout - 5: The upstream 'openai' "
                      "sent nothing for 50 ms (ASHLEY_IDLE_TIMEOUT).\n");
}

static void connections_are_reused(void **state)
{
    ash_provider *p = provider_of("again");
    int before = atomic_load(&server.connections);
    for (int i = 0; i < 5; i++) {
        record r;
        record_init(&r);
        ash_answering *a = ask(p, true, 0, 0, &r);
        wait_last(&r);
        p->close_request(p, a); /* at once: the tail after [DONE] is still read */
        assert_string_equal(r.text, HEAD "RAW 200 {\"a\":1}\nEND\n");
        usleep(20000);
    }
    p->close(p);
    assert_int_equal(atomic_load(&server.connections) - before, 1);
}

static void back_pressure(void **state)
{
    record r;
    record_init(&r);
    r.eagain_every = FLOOD / 10;
    int floods = atomic_load(&server.floods);
    ash_provider *p = provider_of("flood");
    ash_answering *a = ask(p, true, 10000, 10000, &r);
    for (int seen = FLOOD / 10; seen <= FLOOD; seen += FLOOD / 10) {
        wait_raws(&r, seen);
        if (seen == FLOOD / 10) usleep(200000); /* time for the server to send all, if we read it */
        pthread_mutex_lock(&r.lock);
        assert_int_equal(r.raws, seen); /* paused: nothing more came */
        assert_false(r.last);
        pthread_mutex_unlock(&r.lock);
        if (seen == FLOOD / 10) assert_int_equal(atomic_load(&server.floods), floods);
        p->resume(p, a);
    }
    wait_last(&r);
    assert_non_null(strstr(r.text + r.used - 4, "END"));
    assert_int_equal(atomic_load(&server.floods), floods + 1);
    p->close_request(p, a);
    p->close(p);
}

static void a_slow_reader_is_not_an_idle_upstream(void **state)
{
    record r;
    record_init(&r);
    r.eagain_every = 1;
    ash_provider *p = provider_of("ok");
    ash_answering *a = ask(p, true, 10000, 50, &r);
    for (int i = 1; i <= 2; i++) {
        wait_raws(&r, i);
        usleep(150000);
        p->resume(p, a);
    }
    wait_last(&r);
    assert_string_equal(r.text, HEAD RAW_A RAW_B "END\n");
    p->close_request(p, a);
    p->close(p);
}

static void leaving(void **state)
{
    static const char *const names[] = {"stalls", "silent", "flood"};
    for (size_t i = 0; i < 3; i++) {
        record r;
        record_init(&r);
        int left = atomic_load(&server.left);
        ash_provider *p = provider_of(names[i]);
        ash_answering *a = ask(p, true, 0, 0, &r);
        if (i != 1) wait_raws(&r, 1);
        p->close_request(p, a);
        int raws = r.raws; /* no event may write any more */
        if (i == 1)        /* perhaps never sent */
            usleep(1000);
        else
            while (atomic_load(&server.left) == left) usleep(1000);
        assert_int_equal(raws, r.raws);
        p->close(p);
    }
    record r;
    record_init(&r);
    r.gone = true;
    int left = atomic_load(&server.left);
    ash_provider *p = provider_of("flood");
    ash_answering *a = ask(p, true, 0, 0, &r);
    while (atomic_load(&server.left) == left) usleep(1000);
    p->close_request(p, a);
    p->close(p);
    assert_int_equal(r.raws, 1);
    assert_false(r.last);
}

static void closing_at_any_time(void **state)
{
    ash_provider *p = provider_of("ok");
    record *r = calloc(300, sizeof *r);
    for (int i = 0; i < 300; i++) {
        record_init(&r[i]);
        ash_answering *a = ask(p, i & 1, 1000, 1000, &r[i]);
        if (i % 3) usleep((unsigned)(i * 7 % 900));
        if (i % 5 == 0) p->resume(p, a);
        p->close_request(p, a);
    }
    p->close(p);
    free(r);
}

static void many_at_once(void **state)
{
    enum { N = 300 };
    ash_provider *p = provider_of("ok");
    record *r = calloc(N, sizeof *r);
    ash_answering *a[N];
    for (int i = 0; i < N; i++) {
        record_init(&r[i]);
        a[i] = ask(p, true, 0, 0, &r[i]);
    }
    for (int i = 0; i < N; i++) {
        wait_last(&r[i]);
        assert_string_equal(r[i].text, HEAD RAW_A RAW_B "END\n");
        p->close_request(p, a[i]);
    }
    p->close(p);
    free(r);
}

static void bad_options(void **state)
{
    static const char *const urls[] = {
        NULL, "", "ftp://x/", "http://", "http:///v1", "https://a b", "example.com", "http://a\nb"};
    ash_provider *p;
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        assert_int_equal(ash_openai_open(&(ash_openai_opts){.base_url = urls[i]}, &p, NULL),
                         ASH_EINVAL);
        assert_null(p);
    }
    assert_int_equal(
        ash_openai_open(&(ash_openai_opts){.base_url = "http://a", .api_key = "x\r\ny"}, &p, NULL),
        ASH_EINVAL);
    assert_int_equal(ash_openai_open(&(ash_openai_opts){.base_url = "http://a/?x#y"}, &p, NULL), 0);
    p->close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_streams),  cmocka_unit_test(the_request),
        cmocka_unit_test(whole_answers), cmocka_unit_test(broken_streams),
        cmocka_unit_test(refusals),      cmocka_unit_test(unreachable),
        cmocka_unit_test(budgets),       cmocka_unit_test(connections_are_reused),
        cmocka_unit_test(back_pressure), cmocka_unit_test(a_slow_reader_is_not_an_idle_upstream),
        cmocka_unit_test(leaving),       cmocka_unit_test(closing_at_any_time),
        cmocka_unit_test(many_at_once),  cmocka_unit_test(bad_options),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
