/* Owns the provider without a model: one thread a request, so that cancelling and back-pressure
 * have the real thing's races. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "fake_parts.h"

typedef struct plan {
    int64_t wait_ms, tokens, interval_ms, bytes, status, after, truncated;
    bool progress, fails;
    char code[64];
} plan;

struct ash_answering {
    ash_provider *provider;
    bool raw;
    plan p;
    char id[160], model[300];
    int n;
    bool logprobs, stream;
    int64_t load_ms, max_tokens;
    char *echo; /* the last message, or the prompt */
    ash_answer_fn fn;
    void *user;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool canceled, resumed, over;
    bool left; /* the callback said that the reader is gone; the fake's thread alone */
};

typedef struct fake {
    ash_provider base;
    bool raw;
    atomic_ullong prompt, cached, completion; /* tokens */
} fake;

bool fake_quiet;

static void say(const char *what, const ash_answering *a)
{
    char line[600];
    if (fake_quiet)
        return;
    int n = snprintf(line, sizeof line, "%s %s %s %s\n", what, a->provider->name, a->id, a->model);
    fwrite(line, 1, (size_t)n, stdout);
    fflush(stdout);
}

/* false when cancelled meanwhile. */
static bool pause_ms(ash_answering *a, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&a->mutex);
    while (!a->canceled && ms && pthread_cond_timedwait(&a->cond, &a->mutex, &until) == 0) {
    }
    bool go = !a->canceled;
    pthread_mutex_unlock(&a->mutex);
    return go;
}

/* One event; waits while the reader is behind. false: stop. */
static bool send(ash_answering *a, const ash_answer *ev)
{
    pthread_mutex_lock(&a->mutex);
    a->resumed = false;
    bool go = !a->canceled;
    pthread_mutex_unlock(&a->mutex);
    int rc = go ? a->fn(a->user, ev) : ASH_ECANCELED;
    a->left |= rc && rc != ASH_EAGAIN;
    if (rc != ASH_EAGAIN) return rc == 0;
    say("paused", a);
    pthread_mutex_lock(&a->mutex);
    while (!a->resumed && !a->canceled) pthread_cond_wait(&a->cond, &a->mutex);
    go = !a->canceled;
    pthread_mutex_unlock(&a->mutex);
    say("resumed", a);
    return go;
}

static void send_error(ash_answering *a, int status, const char *code, json_t *loading)
{
    ash_api_error e = {.status = status, .code = code, .loading = loading};
    e.type = status == 503 ? "unavailable_error" : status == 502 ? "upstream_error" : NULL;
    if (status == 429) e.type = "rate_limit_error";
    snprintf(e.message, sizeof e.message, "fake failure of %s", a->provider->name);
    e.retry_after = status == 503 ? 7 : 0;
    ash_answer ev = {.kind = ASH_ANSWER_ERROR, .error = &e};
    send(a, &ev);
}

static bool wait_for_model(ash_answering *a)
{
    json_t *progress =
        json_pack("{s:s, s:s, s:f}", "model", a->model, "state", "loading", "progress", 0.5);
    int64_t begin = ash_clock_ms();
    bool go = true, late = false;
    while (go && !late && ash_clock_ms() - begin < a->p.wait_ms) {
        ash_answer ev = {.kind = ASH_ANSWER_WAITING, .waiting = progress};
        go = send(a, &ev) && pause_ms(a, 50);
        late = a->load_ms && ash_clock_ms() - begin > a->load_ms;
    }
    if (go && late) send_error(a, 503, "model_loading", progress);
    json_decref(progress);
    return go && !late;
}

static bool send_word(ash_answering *a, int64_t i, int index)
{
    char text[70000], raw[70400];
    int64_t n = a->p.bytes < 65536 ? a->p.bytes : 65536;
    if (n > 0) {
        memset(text, 'x', (size_t)n);
        text[n] = 0;
    } else if (i == 0 && a->echo) {
        snprintf(text, sizeof text, "%s", a->echo);
    } else {
        snprintf(text, sizeof text, " w%" PRId64 "\xC3\xA9", i);
    }
    ash_answer ev = {.kind = ASH_ANSWER_DELTA, .index = index, .text = ash_str_from(text)};
    if (a->raw) {
        int len = snprintf(
            raw, sizeof raw,
            "{\"id\":\"up\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"%s\","
            "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"u%" PRId64 "%.60000s\"},"
            "\"finish_reason\":%s}]}",
            a->model, i, n > 0 ? text : "", i + 1 == a->p.tokens ? "\"stop\"" : "null");
        ev = (ash_answer){.kind = ASH_ANSWER_RAW, .raw = {raw, (size_t)len}};
        return send(a, &ev);
    }
    json_t *lp = NULL;
    if (a->logprobs)
        ev.logprobs = lp =
            json_pack("[{s:s, s:f, s:[], s:[{s:s, s:f, s:[]}]}]", "token", text, "logprob", -0.25,
                      "bytes", "top_logprobs", "token", text, "logprob", -0.25, "bytes");
    bool go = send(a, &ev);
    json_decref(lp);
    return go;
}

static bool send_whole(ash_answering *a)
{
    char raw[512];
    int n = snprintf(
        raw, sizeof raw,
        "{\"id\":\"up\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"%s\",\"choices\":"
        "[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"upstream says\"},"
        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,"
        "\"total_tokens\":2}}",
        a->model);
    ash_answer ev = {.kind = ASH_ANSWER_RAW, .raw = {raw, (size_t)n}, .raw_status = 200};
    return send(a, &ev);
}

static bool send_words(ash_answering *a)
{
    for (int64_t i = 0; i < a->p.tokens; i++) {
        if (a->p.fails && i == a->p.after) {
            send_error(a, (int)a->p.status, a->p.code[0] ? a->p.code : NULL, NULL);
            return false;
        }
        for (int c = 0; c < a->n; c++)
            if (!send_word(a, i, c)) return false;
        if (!pause_ms(a, a->p.interval_ms)) return false;
    }
    for (int c = 0; c < a->n && !a->raw; c++) {
        bool cut = a->max_tokens >= 0 && a->p.tokens >= a->max_tokens;
        ash_answer ev = {
            .kind = ASH_ANSWER_FINISH, .index = c, .finish_reason = cut ? "length" : "stop"};
        if (!send(a, &ev)) return false;
    }
    return true;
}

static void answer(ash_answering *a)
{
    if (a->p.wait_ms && !wait_for_model(a)) return;
    if (a->p.fails && a->p.after < 0) {
        send_error(a, (int)a->p.status, a->p.code[0] ? a->p.code : NULL, NULL);
        return;
    }
    ash_answer head = {.kind = ASH_ANSWER_HEAD, .served_by = a->provider->name, .model = a->model};
    head.truncated_messages = (uint32_t)a->p.truncated;
    head.truncated_tokens = 100 * head.truncated_messages;
    if (!send(a, &head)) return;
    if (a->p.progress) {
        ash_answer ev = {
            .kind = ASH_ANSWER_PROGRESS, .total = 8, .cached = 2, .processed = 6, .time_ms = 1};
        if (!send(a, &ev)) return;
    }
    if (a->raw && !a->stream ? !send_whole(a) : !send_words(a)) return;
    ash_answer_usage u = {.prompt_tokens = 8, .cached_tokens = 2, .prefill_ms = 3, .decode_ms = 4};
    u.completion_tokens = (uint32_t)(a->p.tokens * a->n);
    ash_answer end = {.kind = ASH_ANSWER_END, .usage = a->raw ? NULL : &u};
    fake *f = (fake *)a->provider;
    atomic_fetch_add(&f->prompt, u.prompt_tokens - u.cached_tokens);
    atomic_fetch_add(&f->cached, u.cached_tokens);
    atomic_fetch_add(&f->completion, u.completion_tokens);
    send(a, &end);
}

static void *run(void *arg)
{
    ash_answering *a = arg;
    answer(a);
    pthread_mutex_lock(&a->mutex);
    bool canceled = a->canceled || a->left;
    a->over = true;
    pthread_mutex_unlock(&a->mutex);
    say(canceled ? "canceled" : "over", a);
    return NULL;
}

static void read_plan(const json_t *body, plan *p)
{
    const json_t *f = json_object_get(body, "fake"), *e = json_object_get(f, "error");
    *p = (plan){.tokens = 3};
    p->wait_ms = json_integer_value(json_object_get(f, "wait_ms"));
    if (json_object_get(f, "tokens")) p->tokens = json_integer_value(json_object_get(f, "tokens"));
    p->interval_ms = json_integer_value(json_object_get(f, "interval_ms"));
    p->truncated = json_integer_value(json_object_get(f, "truncated"));
    p->bytes = json_integer_value(json_object_get(f, "bytes"));
    p->progress = json_is_true(json_object_get(f, "progress"));
    p->fails = e != NULL;
    p->status = json_integer_value(json_object_get(e, "status"));
    p->after = json_integer_value(json_object_get(e, "after"));
    const char *code = json_string_value(json_object_get(e, "code"));
    snprintf(p->code, sizeof p->code, "%s", code ? code : "");
}

/* What the model would read: all messages as "role:text|...", or the prompt. */
static char *echo_of(const json_t *body)
{
    ash_buf b;
    ash_buf_init(&b, 60000);
    const json_t *messages = json_object_get(body, "messages"), *m;
    size_t i;
    json_array_foreach(messages, i, m)
    {
        const json_t *content = json_object_get(m, "content");
        ash_buf_printf(&b, "%s%s:", i ? "|" : "", json_string_value(json_object_get(m, "role")));
        if (json_is_string(content))
            ash_buf_adds(&b, json_string_value(content));
        else
            ash_json_dump(content, &b);
    }
    if (!messages) ash_json_dump(json_object_get(body, "prompt"), &b);
    return ash_buf_take(&b);
}

static int start(ash_provider *p, const ash_request *req, ash_answer_fn fn, void *user,
                 ash_answering **out, ash_err *err)
{
    const json_t *f = json_object_get(req->body, "fake");
    int64_t refuse = json_integer_value(json_object_get(f, "start"));
    if (refuse) return ash_err_set(err, (int)refuse, "'fake.start' was asked to fail");
    int64_t long_ms = json_integer_value(json_object_get(f, "start_ms")); /* as a long template takes */
    if (long_ms) nanosleep(&(struct timespec){long_ms / 1000, long_ms % 1000 * 1000000}, NULL);
    ash_answering *a = calloc(1, sizeof *a);
    if (!a) return ash_err_nomem(err, "fake");
    const json_t *limited = json_object_get(f, "only");
    *a = (ash_answering){
        .provider = p, .raw = ((fake *)p)->raw, .fn = fn, .user = user, .n = req->n};
    if (!limited || !strcmp(json_string_value(limited), p->name))
        read_plan(req->body, &a->p);
    else
        a->p.tokens = 3;
    a->logprobs = req->logprobs;
    a->stream = req->stream;
    a->max_tokens = req->max_tokens;
    a->load_ms = req->budgets.load_ms;
    if (req->kind == ASH_REQUEST_COMPLETION &&
        json_is_array(json_object_get(req->body, "prompt")) &&
        !json_is_integer(json_array_get(json_object_get(req->body, "prompt"), 0)))
        a->n *= (int)json_array_size(json_object_get(req->body, "prompt"));
    snprintf(a->id, sizeof a->id, "%s", req->id);
    snprintf(a->model, sizeof a->model, "%s", req->model);
    a->echo = echo_of(req->body);
    pthread_mutex_init(&a->mutex, NULL);
    pthread_cond_init(&a->cond, NULL);
    say("start", a);
    *out = a;
    if (!pthread_create(&a->thread, NULL, run, a)) return 0;
    free(a->echo);
    free(a);
    return ash_err_set(err, ASH_EIO, "no thread");
}

static void resume(ash_provider *p, ash_answering *a)
{
    pthread_mutex_lock(&a->mutex);
    a->resumed = true;
    pthread_cond_broadcast(&a->cond);
    pthread_mutex_unlock(&a->mutex);
}

static void close_request(ash_provider *p, ash_answering *a)
{
    pthread_mutex_lock(&a->mutex);
    a->canceled = !a->over;
    pthread_cond_broadcast(&a->cond);
    pthread_mutex_unlock(&a->mutex);
    pthread_join(a->thread, NULL);
    pthread_mutex_destroy(&a->mutex);
    pthread_cond_destroy(&a->cond);
    free(a->echo);
    free(a);
}

static void close_provider(ash_provider *p)
{
    free(p);
}

static void counts(ash_provider *p, ash_token_counts *out)
{
    fake *f = (fake *)p;
    *out = (ash_token_counts){.prompt = atomic_load(&f->prompt),
                              .cached = atomic_load(&f->cached),
                              .completion = atomic_load(&f->completion)};
}

ash_provider *fake_provider_open(const char *name, bool raw)
{
    fake *f = calloc(1, sizeof *f);
    if (!f) return NULL;
    *f = (fake){.base = {name, start, resume, close_request, close_provider, counts}, .raw = raw};
    return &f->base;
}
