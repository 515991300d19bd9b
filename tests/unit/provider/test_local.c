/* The local provider over a pretended engine: prompts, events, budgets, cancellation. */
#include <pthread.h>
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
#include "pretend.h"
#include "provider/local.h"

#define CHATML                                                                                     \
    "{% for m in messages %}{% if m.role == 'bad' %}{{ raise_exception('no role bad') }}{% endif " \
    "%}"                                                                                           \
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"                            \
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
#define TOKENS(...) ((const char *const[]){__VA_ARGS__, NULL})

static const char *const HELLO[] = {"Hel", "lo", "", "!", NULL};

typedef struct record {
    pthread_mutex_t lock;
    pthread_cond_t more;
    char text[8192];
    size_t used;
    int waiting, deltas;
    bool last, gone; /* gone: the callback says the reader left at the first DELTA */
} record;

static const char *describe(const ash_answer *a, char line[1024])
{
    char *extra = a->kind == ASH_ANSWER_ERROR && a->error->extra
                      ? json_dumps(a->error->extra, JSON_COMPACT)
                      : NULL;
    char *logprobs = a->logprobs ? json_dumps(a->logprobs, JSON_COMPACT) : NULL;
    line[0] = 0;
    switch (a->kind) {
    case ASH_ANSWER_HEAD:
        snprintf(line, 1024, "HEAD %s %s\n", a->served_by, a->model);
        if (a->truncated_messages)
            snprintf(line, 1024, "HEAD truncated %u %u\n", a->truncated_messages,
                     a->truncated_tokens);
        break;
    case ASH_ANSWER_PROGRESS:
        snprintf(line, 1024, "PROGRESS %u %u %u\n", a->processed, a->cached, a->total);
        break;
    case ASH_ANSWER_DELTA:
        snprintf(line, 1024, "%d '%.*s' '%.*s'%s%s\n", a->index, (int)a->text.n, a->text.p,
                 (int)a->reasoning.n, a->reasoning.p, logprobs ? " " : "",
                 logprobs ? logprobs : "");
        break;
    case ASH_ANSWER_FINISH:
        snprintf(line, 1024, "%d %s\n", a->index, a->finish_reason);
        break;
    case ASH_ANSWER_END:
        snprintf(line, 1024, "END %u %u\n", a->usage->prompt_tokens, a->usage->completion_tokens);
        break;
    case ASH_ANSWER_ERROR:
        snprintf(line, 1024, "ERROR %d %s %s %s %d %s%s: %s\n", a->error->status, a->error->type,
                 a->error->code ? a->error->code : "-", a->error->param ? a->error->param : "-",
                 a->error->retry_after, a->error->loading ? "loading" : "-", extra ? extra : "",
                 a->error->message);
        break;
    default:
        break;
    }
    free(extra);
    free(logprobs);
    return line;
}

static int on_answer(void *user, const ash_answer *a)
{
    record *r = user;
    char line[1024];
    pthread_mutex_lock(&r->lock);
    describe(a, line);
    if (r->last) snprintf(line, sizeof line, "AFTER THE LAST\n");
    if (r->used + strlen(line) < sizeof r->text) {
        memcpy(r->text + r->used, line, strlen(line) + 1);
        r->used += strlen(line);
    }
    r->waiting += a->kind == ASH_ANSWER_WAITING;
    r->deltas += a->kind == ASH_ANSWER_DELTA;
    r->last |= a->kind == ASH_ANSWER_END || a->kind == ASH_ANSWER_ERROR;
    int rc = r->gone && a->kind == ASH_ANSWER_DELTA ? ASH_ECANCELED : ASH_EAGAIN;
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

static void wait_count(record *r, const int *count, int n)
{
    pthread_mutex_lock(&r->lock);
    while (*count < n) pthread_cond_wait(&r->more, &r->lock);
    pthread_mutex_unlock(&r->lock);
}

static ash_provider *provider;

static void start_world(const char *template_text, uint32_t n_ctx, pretend_play play)
{
    pretend_open(template_text, n_ctx);
    if (!play.tokens) play.tokens = HELLO;
    if (!play.finish) play.finish = ASH_FINISH_STOP;
    pretend_set(play);
    assert_int_equal(ash_local_open(NULL, &provider, NULL), 0);
}

/* Ends the world; all leases must have come back. */
static void end_world(void)
{
    provider->close(provider);
    pretend_log s = pretend_seen();
    assert_int_equal(s.leases, s.released);
    pretend_close();
}

static ash_request request(ash_request_kind kind, const char *json)
{
    ash_request q = {.kind = kind,
                     .id = "r",
                     .model = "tiny",
                     .n = 1,
                     .max_tokens = -1,
                     .add_generation_prompt = true,
                     .sampling = ash_sampler_params_default()};
    q.body = json_loads(json, 0, NULL);
    if (!q.body) fail_msg("test's own JSON: %s", json);
    return q;
}

static ash_answering *ask(ash_request *q, record *r)
{
    ash_answering *a = NULL;
    record_init(r);
    assert_int_equal(provider->start(provider, q, on_answer, r, &a, NULL), 0);
    json_decref((json_t *)q->body); /* the provider has its own reference */
    return a;
}

/* Whether got is want, where each '*' stands for any text within a line. */
static bool like(const char *got, const char *want)
{
    for (; *want != '*'; got++, want++) {
        if (*got != *want) return false;
        if (!*got) return true;
    }
    do {
        if (like(got, want + 1)) return true;
    } while (*got && *got++ != '\n');
    return false;
}

static void expect_events(ash_request q, const char *want)
{
    record r;
    ash_answering *a = ask(&q, &r);
    wait_last(&r);
    provider->close_request(provider, a);
    if (!like(r.text, want)) fail_msg("\n%s--- not ---\n%s", r.text, want);
}

#define CHAT(json) request(ASH_REQUEST_CHAT, json)
#define COMPLETION(json) request(ASH_REQUEST_COMPLETION, json)
#define HI "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"
#define HEAD "HEAD local tiny\n"

static void expect_ids(const char *text, bool special)
{
    ash_ids ids = ASH_IDS_INIT;
    pretend_log s = pretend_seen();
    assert_int_equal(ash_tokenizer_encode(pretend_tokenizer(), text, strlen(text),
                                          special ? ASH_ENCODE_SPECIAL : 0, NULL, 0, &ids, NULL),
                     0);
    assert_int_equal(s.n_ids, ids.n);
    assert_memory_equal(s.ids, ids.p, ids.n * sizeof *ids.p);
    ash_ids_release(&ids);
}

static void a_chat(void **state)
{
    start_world(CHATML, 512, (pretend_play){.hold_at = 99});
    static const char *const stops[] = {"END"};
    ash_request q = CHAT(HI);
    q.stops = stops;
    q.n_stops = 1;
    q.max_tokens = 7;
    expect_events(q, HEAD "0 'Hel' ''\n0 'lo' ''\n0 '!' ''\n0 stop\nEND * 4\n");
    expect_ids("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", true);
    pretend_log s = pretend_seen();
    assert_string_equal(s.stop, "END");
    assert_int_equal(s.max_tokens, 7);
    end_world();
}

static void special_tokens_of_users_are_text(void **state)
{
    start_world("{{ messages[0].content }}<|im_end|>", 512, (pretend_play){.hold_at = 99});
    int32_t end = ash_tokenizer_find(pretend_tokenizer(), "<|im_end|>", 10);
    expect_events(CHAT("{\"messages\":[{\"role\":\"user\",\"content\":\"a<|im_end|>b\"}]}"),
                  HEAD "*\n*\n*\n0 stop\nEND*\n");
    pretend_log s = pretend_seen();
    int seen = 0;
    for (size_t i = 0; i < s.n_ids; i++) seen += s.ids[i] == end;
    assert_int_equal(seen, 1);
    assert_int_equal(s.ids[s.n_ids - 1], end);
    end_world();
}

static void choices(void **state)
{
    start_world(CHATML, 512, (pretend_play){.tokens = TOKENS("x"), .hold_at = 99});
    ash_request q = CHAT(HI);
    record r;
    q.n = 3;
    q.sampling.seed = 40;
    ash_answering *a = ask(&q, &r);
    wait_last(&r);
    provider->close_request(provider, a);
    for (int i = 0; i < 3; i++) {
        char line[32];
        snprintf(line, sizeof line, "%d 'x' ''\n", i);
        assert_non_null(strstr(r.text, line));
        snprintf(line, sizeof line, "%d stop\n", i);
        assert_non_null(strstr(r.text, line));
        assert_int_equal(pretend_seen().seeds[i], 40 + i);
    }
    pretend_log s = pretend_seen();
    char usage[64]; /* the prompt counts once */
    snprintf(usage, sizeof usage, "END %zu 3\n", s.n_ids);
    assert_non_null(strstr(r.text, usage));
    end_world();
}

static void completions(void **state)
{
    start_world(NULL, 64, (pretend_play){.tokens = TOKENS("x"), .hold_at = 99});
    expect_events(COMPLETION("{\"prompt\":\"hello <|im_start|>\"}"),
                  HEAD "0 'x' ''\n0 stop\nEND * 1\n");
    expect_ids("hello <|im_start|>", true);
    expect_events(COMPLETION("{\"prompt\":[3,4,5]}"), HEAD "0 'x' ''\n0 stop\nEND 3 1\n");
    pretend_log s = pretend_seen();
    assert_int_equal(s.n_ids, 3);
    assert_int_equal(s.ids[2], 5);
    expect_events(COMPLETION("{\"prompt\":\"\"}"), HEAD "0 'x' ''\n0 stop\nEND 1 1\n");
    ash_request q = COMPLETION("{\"prompt\":[\"a\",[3,4]]}");
    q.n = 2;
    int before = pretend_seen().submitted;
    record r;
    ash_answering *a = ask(&q, &r);
    wait_last(&r);
    provider->close_request(provider, a);
    assert_int_equal(pretend_seen().submitted - before, 4);
    assert_non_null(strstr(r.text, "END 3 4\n"));
    assert_non_null(strstr(r.text, "3 stop\n"));

    expect_events(COMPLETION("{\"prompt\":[3,99999999]}"),
                  "ERROR 400 invalid_request_error - prompt 0 -: 'prompt[1]' must be a token id "
                  "from 0 to *\n");
    expect_events(COMPLETION("{\"prompt\":[]}"),
                  "ERROR 400 invalid_request_error - prompt 0 -: *\n");
    q = COMPLETION("{\"prompt\":[\"a\",\"b\",\"c\"]}");
    q.n = ASH_MAX_CHOICES;
    expect_events(q, "ERROR 400 invalid_request_error - - 0 -: 'n' must give*\n");
    expect_events(COMPLETION("{\"prompt\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
                             "1,1,1,1,1,1,1,1,1,1,"
                             "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}"),
                  "ERROR 400 invalid_request_error context_length_exceeded prompt 0 "
                  "-{\"n_prompt\":64,\"n_ctx\":64}: *\n");
    expect_events(CHAT(HI), "ERROR 400 invalid_request_error - messages 0 -: the model 'tiny' has "
                            "no chat template;*\n");
    end_world();
}

static void refused_chats(void **state)
{
    start_world(CHATML, 40, (pretend_play){.hold_at = 99});
    expect_events(CHAT("{\"messages\":[{\"role\":\"bad\",\"content\":\"x\"}]}"),
                  "ERROR 400 invalid_request_error - messages 0 -: *no role bad*\n");
    expect_events(CHAT("{\"messages\":[]}"), "ERROR 400 invalid_request_error - messages 0 -: *\n");
    expect_events(
        CHAT("{\"messages\":[{\"role\":\"user\",\"content\":\"1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7 8 9 "
             "1 2 3 4 5 6 7 8 9 "
             "1 2 3 4 5 6 7 8 9\"}]}"),
        "ERROR 400 invalid_request_error context_length_exceeded messages 0 -{\"n_prompt\":*\n");
    expect_events(
        CHAT("{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"truncate\":\"newest\"}"),
        "ERROR 400 invalid_request_error - truncate 0 -: 'truncate' must be*\n");
    assert_int_equal(pretend_seen().submitted, 0);
    end_world();
}

static void truncation(void **state)
{
    start_world(CHATML, 100, (pretend_play){.hold_at = 99});
#define LONG "1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7 8 9"
    const char *json =
        "{\"truncate\":\"oldest\",\"messages\":[{\"role\":\"system\",\"content\":\"S\"},"
        "{\"role\":\"user\",\"content\":\"A " LONG
        "\"},{\"role\":\"assistant\",\"content\":\"B " LONG "\"},"
        "{\"role\":\"user\",\"content\":\"C " LONG "\"},{\"role\":\"assistant\",\"content\":\"D\"},"
        "{\"role\":\"user\",\"content\":\"E\"}]}";
    record r;
    ash_request q = CHAT(json);
    ash_answering *a = ask(&q, &r);
    wait_last(&r);
    provider->close_request(provider, a);
    assert_non_null(strstr(r.text, "HEAD truncated 2 "));
    assert_non_null(strstr(r.text, "0 stop\n"));
    expect_ids("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nC " LONG
               "<|im_end|>\n<|im_start|>assistant\nD<|im_end|>\n"
               "<|im_start|>user\nE<|im_end|>\n<|im_start|>assistant\n",
               true);
    expect_events(
        CHAT("{\"truncate\":\"oldest\",\"messages\":[{\"role\":\"user\",\"content\":\"" LONG LONG
                 LONG LONG "\"}]}"),
        "ERROR 400 invalid_request_error context_length_exceeded messages*\n");
    end_world();
}

static void reasoning_and_logprobs(void **state)
{
    start_world(CHATML, 512,
                (pretend_play){.tokens = TOKENS("<th", "ink>", "why", "</thi", "nk>", "\nso"),
                               .hold_at = 99});
    expect_events(CHAT(HI), HEAD "0 '' 'why'\n0 'so' ''\n0 stop\nEND * 6\n");
    expect_events(CHAT("{\"reasoning_format\":\"none\",\"messages\":[{\"role\":\"user\","
                       "\"content\":\"hi\"}]}"),
                  HEAD "0 '<th' ''\n0 'ink>' ''\n0 'why' ''\n0 '</thi' ''\n0 'nk>' ''\n0 '\nso' "
                       "''\n0 stop\nEND * 6\n");
    pretend_set((pretend_play){.tokens = TOKENS("x"), .hold_at = 99, .finish = ASH_FINISH_LENGTH});
    ash_request q = CHAT(HI);
    q.logprobs = q.return_progress = true;
    record r;
    ash_answering *a = ask(&q, &r);
    wait_last(&r);
    provider->close_request(provider, a);
    assert_non_null(strstr(r.text, HEAD "PROGRESS 9 3 9\n0 'x' '' [{\"token\":\""));
    assert_non_null(strstr(r.text, "\"logprob\":-0.5,\"bytes\":["));
    assert_non_null(strstr(r.text, "\"top_logprobs\":[{\"token\":\""));
    assert_non_null(strstr(r.text, "\"logprob\":-0.25"));
    assert_non_null(strstr(r.text, "0 length\n"));
    end_world();
}

static void loading(void **state)
{
    start_world(CHATML, 512, (pretend_play){.hold_at = 99});
    pretend_manager(false, 0, "");
    record r;
    ash_request q = CHAT(HI);
    ash_answering *a = ask(&q, &r);
    wait_count(&r, &r.waiting, 2); /* the second comes a second later */
    pretend_loaded(0, NULL);
    wait_last(&r);
    provider->close_request(provider, a);
    assert_string_not_equal(r.text, "");
    assert_memory_equal(r.text, HEAD "0 'Hel'", strlen(HEAD) + 7);

    assert_int_equal(pretend_seen().kept, 0);

    pretend_manager(true, 0, "");
    q = CHAT(HI);
    q.has_keep_alive = true;
    q.keep_alive_ms = 5000;
    a = ask(&q, &r);
    wait_last(&r);
    provider->close_request(provider, a);
    assert_int_equal(pretend_seen().kept, 1);
    assert_int_equal(pretend_seen().kept_ms, 5000);
    pretend_manager(false, 0, "");

    q = CHAT(HI); /* left while it loads */
    a = ask(&q, &r);
    wait_count(&r, &r.waiting, 1);
    provider->close_request(provider, a);
    assert_int_equal(pretend_seen().abandoned, 1);
    assert_string_equal(r.text, "");

    static const struct {
        const char *model;
        int code;
        const char *want;
    } t[] = {
        {"tiny", ASH_ETIMEDOUT,
         "ERROR 503 unavailable_error model_loading - 7 loading: the model 'tiny' "
         "is still loading after 0 ms*\n"},
        {"tiny", ASH_EFORMAT,
         "ERROR 503 unavailable_error not_downloaded - 7 -: the model 'tiny' is "
         "not ready: why (fetch it)\n"},
        {"tiny", ASH_ECANCELED, "ERROR 503 unavailable_error shutting_down - 7 -: *\n"},
        {"stopped", ASH_ECANCELED, "ERROR 503 unavailable_error load_canceled - 7 -: *\n"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        q = CHAT(HI);
        q.model = t[i].model;
        a = ask(&q, &r);
        pretend_loaded(t[i].code, "why");
        wait_last(&r);
        provider->close_request(provider, a);
        size_t n = strcspn(t[i].want, "*");
        assert_memory_equal(r.text, t[i].want, n);
    }
    pretend_manager(false, ASH_ENOENT, "not here");
    expect_events(CHAT(HI), "ERROR 503 unavailable_error not_downloaded - 7 -: *\n");
    q = CHAT(HI);
    q.model = "nobody";
    expect_events(q, "ERROR 404 not_found_error model_not_found - 0 -: not here\n");
    end_world();
}

static void budgets(void **state)
{
    start_world(CHATML, 512, (pretend_play){.hold_at = -1});
    ash_request q = CHAT(HI);
    q.budgets.queue_ms = 30;
    expect_events(q, "ERROR 503 unavailable_error queue_timeout - 5 -: the queue did not reach "
                     "this request within 30 ms\n");
    pretend_set((pretend_play){.tokens = HELLO, .hold_at = 0, .finish = ASH_FINISH_STOP});
    q = CHAT(HI);
    q.budgets.queue_ms = 10000;
    q.budgets.first_token_ms = 30;
    expect_events(q, "ERROR 503 unavailable_error first_token_timeout - 5 -: no first token came "
                     "within 30 ms\n");
    pretend_set((pretend_play){.tokens = HELLO, .hold_at = 2, .finish = ASH_FINISH_STOP});
    q = CHAT(HI);
    q.budgets = (ash_budgets){10000, 10000, 10000, 30, false};
    expect_events(q, HEAD "0 'Hel' ''\n0 'lo' ''\nERROR 503 unavailable_error idle_timeout - 5 -: "
                          "no token came within 30 ms\n");
    while (pretend_seen().canceled < 3) usleep(1000); /* what was late does not go on */
    /* the prompt takes longer than the budget, but advances; nobody asked to be told */
    pretend_set((pretend_play){
        .tokens = HELLO, .hold_at = 99, .finish = ASH_FINISH_STOP, .steps = 8});
    q = CHAT(HI);
    q.budgets = (ash_budgets){10000, 10000, 500, 0, true};
    expect_events(q, HEAD "0 'Hel' ''\n0 'lo' ''\n0 '!' ''\n0 stop\nEND * 4\n");
    q = CHAT(HI);
    q.budgets = (ash_budgets){10000, 10000, 500, 0, false};
    expect_events(q, "ERROR 503 unavailable_error first_token_timeout - 5 -: no first token came "
                     "within 500 ms\n");
    end_world();
}

static void engine_trouble(void **state)
{
    start_world(CHATML, 512, (pretend_play){.hold_at = 99, .finish = ASH_FINISH_ERROR});
    expect_events(CHAT(HI), HEAD "0 'Hel' ''\n0 'lo' ''\n0 '!' ''\nERROR 500 server_error "
                                 "generation_failed - 0 -: logits are "
                                 "not numbers\n");
    pretend_set(
        (pretend_play){.tokens = TOKENS(NULL), .hold_at = 99, .finish = ASH_FINISH_CANCELED});
    expect_events(CHAT(HI), "ERROR 503 unavailable_error shutting_down - 1 -: *\n");
    pretend_set((pretend_play){.submit_rc = ASH_EAGAIN});
    expect_events(CHAT(HI), "ERROR 503 unavailable_error queue_full - 5 -: submit refused\n");
    pretend_set((pretend_play){.submit_rc = ASH_ENOMEM});
    expect_events(CHAT(HI), "ERROR 503 unavailable_error out_of_memory - 5 -: *\n");
    end_world();
}

static void leaving(void **state)
{
    start_world(CHATML, 512, (pretend_play){.hold_at = 1});
    record r;
    ash_request q = CHAT(HI);
    q.n = 4;
    ash_answering *a = ask(&q, &r);
    wait_count(&r, &r.deltas, 4);
    provider->close_request(provider, a);
    size_t used = r.used;
    while (pretend_seen().canceled < 4) usleep(1000);
    while (pretend_seen().released < 1) usleep(1000);
    assert_int_equal(r.used, used);
    ash_token_counts counts; /* the prompt once, and each choice's one token */
    provider->counts(provider, &counts);
    assert_int_equal(counts.prompt, pretend_seen().n_ids);
    assert_int_equal(counts.completion, 4);

    pretend_set((pretend_play){.tokens = HELLO, .hold_at = 1, .finish = ASH_FINISH_STOP});
    q = CHAT(HI);
    record_init(&r);
    r.gone = true;
    assert_int_equal(provider->start(provider, &q, on_answer, &r, &a, NULL), 0);
    json_decref((json_t *)q.body);
    while (pretend_seen().released < 2) usleep(1000); /* ends by itself */
    assert_int_equal(r.deltas, 1);
    assert_false(r.last);
    provider->close_request(provider, a);
    end_world();
}

static void *storm_thread(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    for (int i = 0; i < 150; i++) {
        record r;
        ash_request q = CHAT(HI);
        q.n = 1 + (int)(seed % 3);
        q.budgets = (ash_budgets){seed % 4, 0, seed % 5, seed % 3, seed & 32};
        ash_answering *a = ask(&q, &r);
        seed = seed * 1103515245u + 12345u;
        if (seed & 64) usleep(seed >> 8 & 1023);
        if (seed & 128) wait_last(&r);
        provider->close_request(provider, a);
    }
    return NULL;
}

static void storm(void **state)
{
    start_world(CHATML, 512, (pretend_play){.hold_at = 99});
    pthread_t t[4];
    for (uintptr_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, storm_thread, (void *)(i + 1)), 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    end_world();
}

static int quiet(void **state)
{
    ash_log_set_level(ASH_LOG_NONE);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat),
        cmocka_unit_test(special_tokens_of_users_are_text),
        cmocka_unit_test(choices),
        cmocka_unit_test(completions),
        cmocka_unit_test(refused_chats),
        cmocka_unit_test(truncation),
        cmocka_unit_test(reasoning_and_logprobs),
        cmocka_unit_test(loading),
        cmocka_unit_test(budgets),
        cmocka_unit_test(engine_trouble),
        cmocka_unit_test(leaving),
        cmocka_unit_test(storm),
    };
    return cmocka_run_group_tests(tests, quiet, NULL);
}
