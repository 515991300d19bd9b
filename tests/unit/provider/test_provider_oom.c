/* Both providers without memory: every allocation of a request fails once. It ends as an error,
 * from start or as the last event; leases come back, nothing leaks or crashes. Linked with malloc,
 * calloc and realloc wrapped. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "oom.h"
#include "pretend.h"
#include "provider/local.h"
#include "provider/openai.h"
#include "upstream.h"

typedef struct ended {
    pthread_mutex_t lock;
    pthread_cond_t more;
    bool last, good;
    int status;
} ended;

static int on_answer(void *user, const ash_answer *a)
{
    ended *e = user;
    pthread_mutex_lock(&e->lock);
    e->good |= a->kind == ASH_ANSWER_END;
    if (a->kind == ASH_ANSWER_ERROR) e->status = a->error->status;
    e->last |= a->kind == ASH_ANSWER_END || a->kind == ASH_ANSWER_ERROR;
    pthread_cond_broadcast(&e->more);
    pthread_mutex_unlock(&e->lock);
    return 0;
}

/* One request with allocation `at` failing; whether it was answered whole. */
static bool ask(ash_provider *p, const ash_request *q, long at, int status)
{
    ended e = {.last = false};
    ash_answering *a;
    ash_err err = ASH_ERR_INIT;
    pthread_mutex_init(&e.lock, NULL);
    pthread_cond_init(&e.more, NULL);
    atomic_store(&oom_left, at);
    int rc = p->start(p, q, on_answer, &e, &a, &err);
    if (rc) {
        atomic_store(&oom_left, -1);
        assert_int_equal(rc, ASH_ENOMEM);
        return false;
    }
    pthread_mutex_lock(&e.lock);
    while (!e.last) pthread_cond_wait(&e.more, &e.lock);
    pthread_mutex_unlock(&e.lock);
    atomic_store(&oom_left, -1);
    p->close_request(p, a);
    if (!e.good) assert_int_equal(e.status, status);
    return e.good;
}

static const char body[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hello there\"}]}";

static void local(void **state)
{
    static const char *const tokens[] = {"<think>", "a", "</think>", "some text", NULL};
    ash_provider *p;
    ash_logit_bias bias = {1, 2};
    const char *stops[] = {"x", "yy"};
    ash_request q = {.id = "r",
                     .model = "tiny",
                     .n = 2,
                     .max_tokens = 9,
                     .add_generation_prompt = true,
                     .stops = stops,
                     .n_stops = 2,
                     .sampling = ash_sampler_params_default()};
    q.sampling.logit_bias = &bias;
    q.sampling.n_logit_bias = 1;
    q.body = json_loads(body, 0, NULL);
    pretend_open("{% for m in messages %}{{ m.content }}{% endfor %}", 512);
    pretend_set((pretend_play){.tokens = tokens, .hold_at = 99, .finish = ASH_FINISH_STOP});
    assert_int_equal(ash_local_open(NULL, &p, NULL), 0);
    long at = 0;
    while (!ask(p, &q, at, 503)) at++;
    assert_true(at > 10);
    p->close(p);
    pretend_log s = pretend_seen();
    assert_int_equal(s.leases, s.released);
    pretend_close();
    json_decref((json_t *)q.body);
}

static const step stream[] = {
    {STEP_SEND,
     "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
     "data: {\"a\":1}\n\ndata: [DONE]\n\n",
     0},
    {STEP_END, NULL, 0},
};
static const script scripts[] = {{"ok", stream}, {NULL, NULL}};

static void openai(void **state)
{
    upstream u;
    char url[128];
    ash_provider *p;
    ash_request q = {.id = "r", .model = "m", .stream = true};
    q.body = json_loads(body, 0, NULL);
    upstream_open(&u, scripts);
    upstream_url(&u, "ok", url);
    assert_int_equal(ash_openai_open(&(ash_openai_opts){.base_url = url}, &p, NULL), 0);
    ask(p, &q, -1, 502);
    long at = 0; /* the scripted server allocates too, and loses a connection for it: also 502 */
    while (!ask(p, &q, at, 502)) at++;
    assert_true(at > 3);
    p->close(p);
    upstream_close(&u);
    json_decref((json_t *)q.body);
}

static int quiet(void **state)
{
    ash_log_set_level(ASH_LOG_NONE);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(local), cmocka_unit_test(openai)};
    return cmocka_run_group_tests(tests, quiet, NULL);
}
