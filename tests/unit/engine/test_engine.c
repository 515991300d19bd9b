/* An engine over small random models: what a job is told, that a text does not depend on its company,
 * KV memory running out, prefixes shared, cancels and shutdown at any moment, bad jobs and bad files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "jobs.h"

static tiny_model model(void)
{
    tiny_model m = TINY_DEFAULT;
    m.tokenizer = true;
    return m;
}

static ash_engine *open_level(ash_dtype type, ash_engine_opts opts)
{
    tiny_model m = model();
    m.type = type;
    ash_engine *e = engine_of(&m, opts);
    assert_non_null(e);
    return e;
}

static ash_engine_opts fastest(void)
{
    return (ash_engine_opts){.cpu = ash_cpu_get()->level, .threads = 2};
}

static void submit(ash_engine *e, const ash_job *j, uint64_t *id)
{
    ash_err err = ASH_ERR_INIT;
    if (ash_engine_submit(e, j, id, &err))
        fail_msg("submit: %s", err.msg);
}

static void run_job(ash_engine *e, const ash_job *j, told *t)
{
    uint64_t id;
    told_init(t);
    submit(e, j, &id);
    told_wait(t);
    assert_int_equal(t->n_done, 1);
}

static void expect_same(const told *a, const told *b)
{
    assert_int_equal(a->n_ids, b->n_ids);
    assert_memory_equal(a->ids, b->ids, (size_t)a->n_ids * sizeof *a->ids);
    assert_int_equal(a->n_text, b->n_text);
    assert_memory_equal(a->text, b->text, a->n_text);
    assert_int_equal(a->finish, b->finish);
}

/* ---- events --------------------------------------------------------------------------------- */

static void a_job_is_told_everything(void **state)
{
    static told t;
    int32_t ids[70];
    prompt_ids(ids, 70, 1);
    ash_engine *e = open_level(ASH_DTYPE_F32, fastest());
    ash_job j = job_of(ids, 70, 5, &t);
    j.want_logprobs = j.want_progress = true;
    j.sampling.top_logprobs = 3;
    run_job(e, &j, &t);
    assert_int_equal(t.n_started, 1);
    assert_int_equal(t.n_ids, 5);
    assert_int_equal(t.n_samples, 5);
    assert_int_equal(t.last_sample.n_top, 3);
    assert_int_equal(t.last_sample.id, t.last_sample.top[0].id);
    assert_true(t.last_sample.logprob <= 0);
    assert_true(t.n_progress >= 1);
    assert_int_equal(t.last_processed, 70);
    assert_int_equal(t.finish, ASH_FINISH_LENGTH);
    assert_int_equal(t.usage.prompt_tokens, 70);
    assert_int_equal(t.usage.cached_tokens, 0);
    assert_int_equal(t.usage.completion_tokens, 5);
    assert_int_equal(t.after_done, 0);
    ash_engine_stats s;
    do ash_engine_get_stats(e, &s);
    while (s.running);
    assert_int_equal(s.prompt_tokens, 70);
    assert_int_equal(s.completion_tokens, 5);
    assert_int_equal(s.kv_blocks_used, 0);
    assert_int_equal(s.kv_blocks_cached, 3); /* the last one half full */
    assert_true(s.last_step_ns > 0);
    ash_engine_close(e);
}

static void ends_of_a_text(void **state)
{
    static const char *const stops[] = {"zzz", "aaa"};
    static told t;
    int32_t ids[4];
    prompt_ids(ids, 4, 1);
    ash_engine *e = open_level(ASH_DTYPE_F32, fastest());
    ash_logit_bias a = {259, 1000}, eos = {2, 1000};

    ash_job j = job_of(ids, 4, 7, &t);
    j.sampling.logit_bias = &a;
    j.sampling.n_logit_bias = 1;
    run_job(e, &j, &t);
    assert_int_equal(t.finish, ASH_FINISH_LENGTH);
    assert_int_equal(t.n_text, 7);
    assert_memory_equal(t.text, "aaaaaaa", 7);

    j.stops = stops; /* held back until it cannot become a stop any more */
    j.n_stops = 2;
    run_job(e, &j, &t);
    assert_int_equal(t.finish, ASH_FINISH_STOP);
    assert_string_equal(t.stop_string, "aaa");
    assert_int_equal(t.n_text, 0);
    assert_int_equal(t.n_ids, 3);

    j.max_tokens = 2; /* what was held back comes with DONE */
    run_job(e, &j, &t);
    assert_int_equal(t.finish, ASH_FINISH_LENGTH);
    assert_int_equal(t.n_text, 2);

    j = job_of(ids, 4, 7, &t);
    j.sampling.logit_bias = &eos;
    j.sampling.n_logit_bias = 1;
    j.ignore_eos = false;
    run_job(e, &j, &t);
    assert_int_equal(t.finish, ASH_FINISH_STOP);
    assert_int_equal(t.n_ids, 0);
    assert_int_equal(t.n_text, 0);

    j.ignore_eos = true;
    j.max_tokens = 2;
    run_job(e, &j, &t);
    assert_int_equal(t.finish, ASH_FINISH_LENGTH);
    assert_memory_equal(t.text, "</s></s>", 8);
    j.skip_special = true;
    run_job(e, &j, &t);
    assert_int_equal(t.n_text, 0);

    j = job_of(ids, 4, 0, &t);
    run_job(e, &j, &t);
    assert_int_equal(t.finish, ASH_FINISH_LENGTH);
    assert_int_equal(t.n_ids, 0);
    ash_engine_close(e);
}

static void the_context_is_an_end(void **state)
{
    static told t;
    int32_t ids[65];
    prompt_ids(ids, 65, 1);
    ash_engine_opts o = fastest();
    o.ctx = 64;
    ash_engine *e = open_level(ASH_DTYPE_F32, o);
    ash_job j = job_of(ids, 60, -1, &t);
    run_job(e, &j, &t);
    assert_int_equal(t.finish, ASH_FINISH_LENGTH);
    assert_int_equal(t.n_ids, 4);
    ash_err err = ASH_ERR_INIT;
    uint64_t id;
    j.n_ids = 64;
    assert_int_equal(ash_engine_submit(e, &j, &id, &err), ASH_ELIMIT);
    assert_non_null(strstr(err.msg, "n_prompt 64, n_ctx 64"));
    j.max_tokens = 0;
    run_job(e, &j, &t);
    j.n_ids = 65;
    assert_int_equal(ash_engine_submit(e, &j, &id, &err), ASH_ELIMIT);
    assert_non_null(strstr(err.msg, "n_prompt 65, n_ctx 64"));
    ash_engine_close(e);
}

static void bad_jobs_are_refused(void **state)
{
    static const char *const empty[] = {""};
    static told t;
    int32_t ids[] = {5, 300, -1};
    ash_engine *e = open_level(ASH_DTYPE_F32, fastest());
    ash_err err = ASH_ERR_INIT;
    uint64_t id;
    told_init(&t);
    ash_job j = job_of(ids, 0, 5, &t);
    assert_int_equal(ash_engine_submit(e, &j, &id, &err), ASH_EINVAL);
    j.n_ids = 2;
    assert_int_equal(ash_engine_submit(e, &j, &id, &err), ASH_EINVAL);
    assert_non_null(strstr(err.msg, "id 300 at 1"));
    j.ids = ids + 2;
    j.n_ids = 1;
    assert_int_equal(ash_engine_submit(e, &j, &id, &err), ASH_EINVAL);
    j = job_of(ids, 1, 5, &t);
    j.sampling.temperature = -1;
    assert_int_equal(ash_engine_submit(e, &j, &id, &err), ASH_EINVAL);
    j = job_of(ids, 1, 5, &t);
    j.stops = empty;
    j.n_stops = 1;
    assert_int_equal(ash_engine_submit(e, &j, &id, &err), ASH_EINVAL);
    j.n_stops = ASH_MAX_STOPS + 1;
    assert_int_equal(ash_engine_submit(e, &j, &id, &err), ASH_ELIMIT);
    float logits[300];
    assert_int_equal(ash_engine_eval(e, ids, 2, false, logits, &err), ASH_EINVAL);
    assert_int_equal(ash_engine_eval(e, ids, 0, false, logits, &err), ASH_ELIMIT);
    assert_int_equal(t.n_done, 0);
    ash_engine_close(e);
}

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void wait_at_gate(void *user, const ash_event *ev)
{
    if (ev->kind == ASH_EVENT_STARTED) {
        pthread_mutex_lock(&gate);
        pthread_mutex_unlock(&gate);
    }
    told_event(user, ev);
}

static void the_queue_has_an_end(void **state)
{
    static told t[ASH_MAX_QUEUE + 1];
    int32_t ids[] = {5};
    ash_engine *e = open_level(ASH_DTYPE_F32, fastest());
    pthread_mutex_lock(&gate); /* the first job holds the scheduler up */
    for (int i = 0; i <= ASH_MAX_QUEUE; i++) {
        ash_err err = ASH_ERR_INIT;
        uint64_t id;
        told_init(&t[i]);
        ash_job j = job_of(ids, 1, 1, &t[i]);
        j.on_event = wait_at_gate;
        assert_int_equal(ash_engine_submit(e, &j, &id, &err), i < ASH_MAX_QUEUE ? 0 : ASH_EAGAIN);
    }
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < ASH_MAX_QUEUE; i++) told_wait(&t[i]);
    assert_int_equal(t[ASH_MAX_QUEUE].n_done, 0);
    ash_engine_close(e);
}

/* ---- company -------------------------------------------------------------------------------- */

enum { MANY = 10 };

static ash_job mixed_job(int i, int32_t ids[200], told *t)
{
    size_t n = (size_t)(3 + i * 17 % 190);
    prompt_ids(ids, n, 100 + (uint64_t)i);
    ash_job j = job_of(ids, n, 20 + i, t);
    if (i % 3) {
        j.sampling.temperature = 1.5;
        j.sampling.seed = 7 + i;
        j.sampling.repeat_penalty = i % 2 ? 1.2 : 1;
    }
    return j;
}

static void alone_and_together(ash_dtype type, ash_cpu_level level)
{
    static told alone[MANY], together[MANY];
    static int32_t ids[MANY][200];
    ash_engine_opts o = fastest();
    o.cpu = level;
    ash_engine *e = open_level(type, o);
    for (int i = 0; i < MANY; i++) {
        ash_job j = mixed_job(i, ids[i], &alone[i]);
        run_job(e, &j, &alone[i]);
        assert_int_equal(alone[i].n_ids, 20 + i);
    }
    ash_engine_close(e);
    e = open_level(type, o); /* nothing cached */
    for (int i = 0; i < MANY; i++) {
        uint64_t id;
        ash_job j = mixed_job(i, ids[i], &together[i]);
        told_init(&together[i]);
        submit(e, &j, &id);
    }
    for (int i = 0; i < MANY; i++) {
        told_wait(&together[i]);
        expect_same(&alone[i], &together[i]);
    }
    ash_engine_close(e);
}

static void a_text_does_not_depend_on_its_company(void **state)
{
    static const ash_dtype types[] = {ASH_DTYPE_F32, ASH_DTYPE_BF16, ASH_DTYPE_Q8_0};
    for (int level = 0; level <= (int)ash_cpu_get()->level; level++)
        for (int i = 0; i < 3; i++) alone_and_together(types[i], (ash_cpu_level)level);
}

/* ---- prediction ----------------------------------------------------------------------------- */

enum { GUESSED = 32 };

/* Everything that a sampler keeps from one token to the next; i < GUESSED. The prompts of odd ones repeat
 * themselves, and greedy texts of these models do so soon. */
static ash_job guessed_job(int i, int32_t ids[200], told *t)
{
    static const ash_logit_bias bias[] = {{40, 2}, {41, -1}};
    size_t n = (size_t)(3 + i * 17 % 150), period = i % 2 ? 7 : 1000;
    prompt_ids(ids, n, 200 + (uint64_t)i);
    for (size_t k = period; k < n; k++) ids[k] = ids[k - period];
    ash_job j = job_of(ids, n, 40 + i, t);
    j.sampling.temperature = i % 4 == 0 ? 0 : i % 4 == 1 ? 0.1 : 1.2;
    j.sampling.seed = 70 + i;
    j.sampling.repeat_penalty = i % 5 == 1 ? 1.05 : 1;
    j.sampling.frequency_penalty = i % 5 == 2 ? 0.1 : 0;
    j.sampling.logit_bias = i % 3 ? NULL : bias;
    j.sampling.n_logit_bias = i % 3 ? 0 : 2;
    j.want_logprobs = i % 2;
    j.sampling.top_logprobs = i % 2 ? 3 : 0;
    return j;
}

static void expect_same_probabilities(const told *a, const told *b)
{
    assert_int_equal(a->n_samples, b->n_samples);
    if (!a->n_samples)
        return;
    assert_memory_equal(&a->last_sample.logprob, &b->last_sample.logprob, sizeof(float));
    assert_memory_equal(a->last_sample.top, b->last_sample.top,
                        (size_t)a->last_sample.n_top * sizeof *a->last_sample.top);
}

/* All jobs at once, or one after the other; how many guesses were right. */
static uint64_t run_guessed(ash_engine_opts o, bool at_once, told *t)
{
    static int32_t ids[GUESSED][200];
    ash_engine *e = open_level(ASH_DTYPE_Q8_0, o);
    for (int i = 0; i < GUESSED; i++) {
        ash_job j = guessed_job(i, ids[i], &t[i]);
        uint64_t id;
        told_init(&t[i]);
        submit(e, &j, &id);
        if (!at_once)
            told_wait(&t[i]);
    }
    for (int i = 0; i < GUESSED; i++) told_wait(&t[i]);
    ash_engine_stats s;
    do ash_engine_get_stats(e, &s);
    while (s.running);
    assert_true(s.right_tokens <= s.guessed_tokens);
    ash_engine_close(e);
    return s.right_tokens;
}

static void a_text_does_not_depend_on_guesses(void **state)
{
    static told plain[GUESSED], guessed[GUESSED];
    static const struct {
        ash_prediction prediction;
        bool at_once, tight;
        int threads;
    } ways[] = {{ASH_PREDICTION_ALWAYS, false, false, 2}, {ASH_PREDICTION_ALWAYS, true, false, 2},
                {ASH_PREDICTION_ALWAYS, true, true, 3},   {ASH_PREDICTION_AUTO, false, false, 1},
                {ASH_PREDICTION_AUTO, true, false, 2},    {ASH_PREDICTION_NEVER, true, false, 3}};
    ash_engine_opts o = fastest();
    o.ctx = 256;
    o.prediction = ASH_PREDICTION_NEVER;
    assert_int_equal(run_guessed(o, false, plain), 0);
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        o.prediction = ways[w].prediction;
        o.threads = ways[w].threads;
        o.kv_bytes = ways[w].tight; /* 1: one context, so that sequences give way to each other */
        uint64_t right = run_guessed(o, ways[w].at_once, guessed);
        if (o.prediction == ASH_PREDICTION_ALWAYS)
            assert_true(right > 100); /* not by never guessing */
        for (int i = 0; i < GUESSED; i++) {
            expect_same(&plain[i], &guessed[i]);
            expect_same_probabilities(&plain[i], &guessed[i]);
        }
    }
}

/* A text of one letter, which guesses foresee: it ends where it would without them. */
static void ends_are_found_among_guesses(void **state)
{
    static const char *const stops[] = {"aaaaaaaaaaaaaaaaaaaaa"};
    static told t, next;
    int32_t ids[40];
    ash_engine_opts o = fastest();
    o.ctx = 64;
    o.prediction = ASH_PREDICTION_ALWAYS;
    ash_engine *e = open_level(ASH_DTYPE_F32, o);
    ash_logit_bias a = {259, 1000}, b[] = {{259, 1000}, {260, 2000}};
    for (int i = 0; i < 40; i++) ids[i] = 259;
    for (int n = 1; n < 40; n++) {
        ash_job j = job_of(ids, 6, n, &t);
        j.sampling.logit_bias = &a;
        j.sampling.n_logit_bias = 1;
        run_job(e, &j, &t);
        assert_int_equal(t.n_ids, n);
        assert_int_equal(t.usage.completion_tokens, n);
        assert_int_equal(t.finish, ASH_FINISH_LENGTH);
        j.max_tokens = 50;
        j.stops = stops;
        j.n_stops = 1;
        run_job(e, &j, &t);
        assert_int_equal(t.n_ids, 21);
        assert_int_equal(t.finish, ASH_FINISH_STOP);
        j.n_stops = 0;
        j.max_tokens = -1;
        j.n_ids = (size_t)n;
        run_job(e, &j, &t);
        assert_int_equal(t.n_ids, 64 - n);
        /* what guesses left in the KV pool is nobody's prefix: another text after the same start */
        j.sampling.logit_bias = b;
        j.sampling.n_logit_bias = 2;
        j.user = &next;
        run_job(e, &j, &next);
        for (int i = 0; i < next.n_ids; i++) assert_int_equal(next.ids[i], 260);
    }
    ash_engine_stats s;
    do ash_engine_get_stats(e, &s);
    while (s.running);
    assert_true(s.right_tokens > 1000);
    assert_int_equal(s.kv_blocks_used, 0);
    ash_engine_close(e);
}

static void little_kv_memory_only_takes_longer(void **state)
{
    static told roomy[8], tight[8];
    static int32_t ids[8][40];
    ash_engine_opts o = fastest();
    o.ctx = 256;
    ash_engine *e = open_level(ASH_DTYPE_Q8_0, o);
    for (int i = 0; i < 8; i++) {
        prompt_ids(ids[i], 40, (uint64_t)i);
        ash_job j = job_of(ids[i], 40, 100 + 10 * i, &roomy[i]);
        run_job(e, &j, &roomy[i]);
    }
    ash_engine_close(e);
    o.kv_bytes = 1; /* the least: one context, 8 blocks; two of these jobs need 9 or more */
    e = open_level(ASH_DTYPE_Q8_0, o);
    assert_true(ash_engine_info(e)->kv_bytes > 1);
    for (int i = 0; i < 8; i++) {
        uint64_t id;
        told_init(&tight[i]);
        ash_job j = job_of(ids[i], 40, 100 + 10 * i, &tight[i]);
        j.background = i % 4 == 3;
        submit(e, &j, &id);
    }
    for (int i = 0; i < 8; i++) {
        told_wait(&tight[i]);
        if (i % 4 != 3)
            expect_same(&roomy[i], &tight[i]);
        assert_true(tight[i].n_started <= 1);
    }
    ash_engine_close(e);
}

/* ---- prefixes ------------------------------------------------------------------------------- */

static void prefixes_are_shared(void **state)
{
    static told first, again, longer, fresh;
    int32_t ids[300];
    prompt_ids(ids, 100, 5);
    ash_engine *e = open_level(ASH_DTYPE_Q8_0, fastest());
    ash_job j = job_of(ids, 100, 40, &first);
    run_job(e, &j, &first);
    j.user = &again;
    run_job(e, &j, &again);
    assert_int_equal(again.usage.cached_tokens, 99); /* all but the one for its logits */
    expect_same(&first, &again);
    memcpy(ids + 100, first.ids, 40 * sizeof *ids); /* the chat goes on: answer and a new message */
    prompt_ids(ids + 140, 30, 6);
    j = job_of(ids, 170, 20, &longer);
    run_job(e, &j, &longer);
    assert_int_equal(longer.usage.cached_tokens, 139); /* the answer's last token was never computed */
    ash_engine_close(e);
    e = open_level(ASH_DTYPE_Q8_0, fastest());
    j.user = &fresh;
    run_job(e, &j, &fresh);
    assert_int_equal(fresh.usage.cached_tokens, 0);
    expect_same(&fresh, &longer);
    ash_engine_close(e);
}

static void equal_prompts_at_once_are_computed_once(void **state)
{
    static told t[6];
    int32_t ids[200];
    prompt_ids(ids, 200, 5);
    ash_engine *e = open_level(ASH_DTYPE_F32, fastest());
    static told blocker; /* keeps the scheduler busy so that the others start in one step */
    told_init(&blocker);
    uint64_t id;
    int32_t other = ids[0] + 1; /* it may have ended: nothing of it is to be shared */
    ash_job b = job_of(&other, 1, 50, &blocker);
    submit(e, &b, &id);
    for (int i = 0; i < 6; i++) {
        told_init(&t[i]);
        ash_job j = job_of(ids, 200, 5, &t[i]);
        submit(e, &j, &id);
    }
    uint32_t cached = 0;
    for (int i = 0; i < 6; i++) {
        told_wait(&t[i]);
        expect_same(&t[0], &t[i]);
        cached += t[i].usage.cached_tokens;
    }
    assert_in_range(cached, 5 * 192, 5 * 199); /* more if some start when the first has ended */
    ash_engine_close(e);
}

static void background_work_spares_chats(void **state)
{
    static told chat, work, again;
    int32_t ids[100], other[100];
    prompt_ids(ids, 100, 5);
    ash_engine_opts o = fastest();
    o.ctx = 160;
    o.kv_bytes = 1;
    ash_engine *e = open_level(ASH_DTYPE_F32, o); /* 5 blocks */
    ash_job j = job_of(ids, 70, 10, &chat);
    run_job(e, &j, &chat);
    for (int i = 0; i < 10; i++) {
        prompt_ids(other, 50, 50 + (uint64_t)i);
        ash_job w = job_of(other, 50, 10, &work);
        w.background = true;
        run_job(e, &w, &work);
        assert_int_equal(work.finish, ASH_FINISH_LENGTH);
    }
    prompt_ids(other, 90, 99); /* more than the chat's prefix leaves */
    ash_job w = job_of(other, 90, 10, &work);
    w.background = true;
    run_job(e, &w, &work);
    assert_int_equal(work.finish, ASH_FINISH_ERROR);
    assert_int_equal(work.err.code, ASH_ENOSPC);
    j.user = &again;
    run_job(e, &j, &again);
    assert_int_equal(again.usage.cached_tokens, 69);
    expect_same(&chat, &again);
    w.background = false;
    run_job(e, &w, &work);
    assert_int_equal(work.finish, ASH_FINISH_LENGTH);
    ash_engine_close(e);
}

/* ---- any moment ----------------------------------------------------------------------------- */

enum { STORM = 40, CLIENTS = 4 };

typedef struct client {
    ash_engine *e;
    told *told;
    int begin, end;
    uint64_t seed;
} client;

static void *client_main(void *arg)
{
    client *c = arg;
    uint64_t ids[STORM];
    int32_t prompt[120];
    ash_rng r;
    ash_rng_init(&r, c->seed);
    for (int i = c->begin; i < c->end; i++) {
        size_t n = 1 + ash_rng_u64(&r) % 119;
        prompt_ids(prompt, n, ash_rng_u64(&r) % 5); /* some are equal */
        ash_job j = job_of(prompt, n, 1 + (int64_t)(ash_rng_u64(&r) % 60), &c->told[i]);
        j.background = ash_rng_u64(&r) % 4 == 0;
        j.sampling.temperature = 1;
        ash_err err = ASH_ERR_INIT;
        if (ash_engine_submit(c->e, &j, &ids[i], &err))
            return arg;
        if (ash_rng_u64(&r) % 2)
            usleep((useconds_t)(ash_rng_u64(&r) % 2000));
        if (ash_rng_u64(&r) % 3 == 0)
            ash_engine_cancel(c->e, ids[c->begin + (int)(ash_rng_u64(&r) % (uint64_t)(i - c->begin + 1))]);
    }
    return NULL;
}

/* Many clients, some leaving, over a pool too small for all; then the end, waited for or not. */
static void storm(bool wait, uint64_t kv_bytes)
{
    static told t[STORM];
    ash_engine_opts o = fastest();
    o.ctx = 256;
    o.kv_bytes = kv_bytes;
    o.max_sequences = 8;
    ash_engine *e = open_level(ASH_DTYPE_Q8_0, o);
    client c[CLIENTS];
    pthread_t threads[CLIENTS];
    for (int i = 0; i < STORM; i++) told_init(&t[i]);
    for (int i = 0; i < CLIENTS; i++) {
        c[i] = (client){e, t, i * STORM / CLIENTS, (i + 1) * STORM / CLIENTS, 11 + (uint64_t)i};
        assert_int_equal(pthread_create(&threads[i], NULL, client_main, &c[i]), 0);
    }
    float logits[300];
    int32_t ids[] = {4, 5, 6};
    ash_err err = ASH_ERR_INIT;
    for (int i = 0; i < 3; i++) assert_int_equal(ash_engine_eval(e, ids, 3, false, logits, &err), 0);
    for (int i = 0; i < CLIENTS; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    for (int i = 0; i < STORM && wait; i++) told_wait(&t[i]);
    ash_engine_close(e);
    for (int i = 0; i < STORM; i++) {
        assert_int_equal(t[i].n_done, 1);
        assert_int_equal(t[i].after_done, 0);
        /* background work may find no room beside the chats' prefixes */
        bool full = kv_bytes == 1 && t[i].finish == ASH_FINISH_ERROR && t[i].err.code == ASH_ENOSPC;
        assert_true(full || t[i].finish == ASH_FINISH_LENGTH || t[i].finish == ASH_FINISH_CANCELED);
    }
}

static void clients_come_and_go(void **state)
{
    storm(true, 0);
    storm(true, 1);
}

static void the_end_may_come_at_any_time(void **state)
{
    storm(false, 0);
    storm(false, 1);
}

static void cancel_from_an_event(void *user, const ash_event *ev)
{
    void **u = user;
    if (ev->kind == ASH_EVENT_TOKEN)
        ash_engine_cancel(u[0], *(uint64_t *)u[1]);
    told_event(u[2], ev);
}

static void a_cancel_acts_at_once(void **state)
{
    static told t;
    int32_t ids[] = {5};
    uint64_t id = 1; /* the first of an engine */
    ash_engine *e = open_level(ASH_DTYPE_F32, fastest());
    void *user[] = {e, &id, &t};
    told_init(&t);
    ash_job j = job_of(ids, 1, -1, &t);
    j.on_event = cancel_from_an_event;
    j.user = user;
    submit(e, &j, &id);
    told_wait(&t);
    assert_int_equal(t.finish, ASH_FINISH_CANCELED);
    assert_int_equal(t.n_ids, 1);
    ash_engine_cancel(e, id); /* gone: nothing happens */
    ash_engine_cancel(e, 999);
    ash_engine_close(e);
}

/* ---- eval ----------------------------------------------------------------------------------- */

static void eval_agrees_with_generation(void **state)
{
    static told t;
    static float logits[60 * 300], last[300];
    int32_t ids[60];
    prompt_ids(ids, 40, 3);
    ash_engine *e = open_level(ASH_DTYPE_Q8_0, fastest());
    ash_job j = job_of(ids, 40, 20, &t);
    run_job(e, &j, &t);
    memcpy(ids + 40, t.ids, 20 * sizeof *ids);
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_engine_eval(e, ids, 60, true, logits, &err), 0);
    assert_int_equal(ash_engine_eval(e, ids, 60, false, last, &err), 0);
    assert_memory_equal(last, logits + 59 * 300, sizeof last);
    for (int i = 40; i < 60; i++) {
        int best = 0;
        for (int k = 1; k < 300; k++)
            if (logits[(i - 1) * 300 + k] > logits[(i - 1) * 300 + best])
                best = k;
        assert_int_equal(best, ids[i]);
    }
    ash_engine_close(e);
}

/* ---- loading -------------------------------------------------------------------------------- */

typedef struct seen {
    uint64_t done[5], total[5];
    int calls, last;
    atomic_bool *cancel;
    int cancel_at;
    int warm_calls; /* calls when the last step of warming was told */
} seen;

static void see(void *user, ash_load_stage stage, uint64_t done, uint64_t total)
{
    seen *s = user;
    assert_true((int)stage >= s->last && done <= total);
    s->last = (int)stage;
    s->done[stage] = done;
    s->total[stage] = total;
    if (stage == ASH_LOAD_WARM && done < total)
        s->warm_calls = s->calls;
    if (s->calls++ == s->cancel_at && s->cancel)
        atomic_store(s->cancel, true);
}

static void loading_is_told(void **state)
{
    static told t;
    seen s = {.cancel_at = -1};
    tiny_model m = model();
    m.template = "{% for m in messages %}{{ '<s>' + m.role + m.content }}{% endfor %}";
    ash_engine_opts o = fastest();
    o.progress = see;
    o.user = &s;
    o.warm_prompt = "you are a small model, and this is what you were told before anything else was said";
    ash_engine *e = engine_of(&m, o);
    assert_non_null(e);
    for (int i = 0; i < 5; i++) assert_true(s.total[i] > 0 && s.done[i] == s.total[i]);
    const ash_model_info *info = ash_engine_info(e);
    assert_string_equal(info->architecture, "llama");
    assert_string_equal(info->name, "tiny");
    assert_string_equal(info->quantization, "F32");
    assert_string_equal(info->template_from, "GGUF tokenizer.chat_template");
    assert_string_equal(info->chat_template, m.template);
    assert_string_equal(ash_engine_bos_text(e), "<s>");
    assert_int_equal(info->n_ctx, 512);
    ash_ids ids = ASH_IDS_INIT; /* the persona's first chat finds its prompt computed */
    ash_err err = ASH_ERR_INIT;
    char text[256];
    snprintf(text, sizeof text, "<s>system%s<s>userhello", o.warm_prompt);
    assert_int_equal(ash_tokenizer_encode(ash_engine_tokenizer(e), text, strlen(text), ASH_ENCODE_SPECIAL,
                                          NULL, 0, &ids, &err), 0);
    ash_job j = job_of(ids.p, ids.n, 1, &t);
    run_job(e, &j, &t);
    assert_int_equal(t.usage.cached_tokens, ids.n - 5);
    assert_true(t.usage.cached_tokens % 32 > 0);
    ash_ids_release(&ids);
    ash_engine_close(e);
}

/* A request that begins to wait at any moment of a load: up to the last step of the warming it takes the
 * place of what is left of that, and is answered as ever. */
static void who_waits_overtakes_the_warming(void **state)
{
    static told want, got;
    int32_t ids[70];
    prompt_ids(ids, 70, 1);
    for (int at = -1;; at++) {
        atomic_bool awaited = false;
        seen s = {.cancel = &awaited, .cancel_at = at};
        ash_engine_opts o = fastest();
        o.progress = see;
        o.user = &s;
        o.awaited = &awaited;
        ash_engine *e = open_level(ASH_DTYPE_Q8_0, o);
        assert_int_equal(ash_engine_info(e)->warmed, !(atomic_load(&awaited) && at <= s.warm_calls));
        for (int i = 0; i < 5; i++) assert_true(s.done[i] == s.total[i]);
        ash_job j = job_of(ids, 70, 20, at < 0 ? &want : &got);
        run_job(e, &j, at < 0 ? &want : &got);
        if (at >= 0)
            expect_same(&want, &got);
        ash_engine_close(e);
        if (at > s.calls)
            break;
    }
}

static void loading_can_be_cancelled(void **state)
{
    for (int at = 0;; at++) {
        atomic_bool cancel = false;
        seen s = {.cancel = &cancel, .cancel_at = at};
        tiny_model m = model();
        char path[64];
        ash_engine *e;
        ash_err err = ASH_ERR_INIT;
        ash_engine_opts o = fastest();
        o.progress = see;
        o.user = &s;
        o.cancel = &cancel;
        o.path = path;
        o.warm_prompt = "some words";
        atomic_bool awaited = at % 2; /* nor does a request that waits keep it */
        o.awaited = &awaited;
        assert_true(tiny_file(&m, path));
        int rc = ash_engine_open(&o, &e, &err);
        unlink(path);
        if (!rc) { /* fewer than `at` calls */
            assert_true(at > 5);
            ash_engine_close(e);
            return;
        }
        assert_int_equal(rc, ASH_ECANCELED);
        assert_null(e);
    }
}

static void expect_no_engine(const tiny_model *m, ash_engine_opts o, int code, const char *text)
{
    char path[64];
    ash_engine *e;
    ash_err err = ASH_ERR_INIT;
    assert_true(tiny_file(m, path));
    o.path = path;
    int rc = ash_engine_open(&o, &e, &err);
    unlink(path);
    if (rc != code || !strstr(err.msg, text))
        fail_msg("wanted %d with '%s', got %d: %s", code, text, rc, err.msg);
    assert_null(e);
}

static void bad_files_are_refused(void **state)
{
    tiny_model m = model();
    ash_engine_opts o = fastest();
    m.omit = "blk.1.attn_k.weight";
    expect_no_engine(&m, o, ASH_EFORMAT, "'blk.1.attn_k.weight' is missing");
    m.omit = NULL;
    m.poison = "output_norm.weight";
    expect_no_engine(&m, o, ASH_EFORMAT, "not finite");
    m.poison = NULL;
    m.tokenizer = false;
    expect_no_engine(&m, o, ASH_ENOENT, "");
    o.bare = true;
    ash_engine *e = engine_of(&m, o);
    assert_non_null(e);
    assert_null(ash_engine_tokenizer(e));
    static told t;
    int32_t ids[] = {1};
    ash_job j = job_of(ids, 1, 3, &t);
    run_job(e, &j, &t);
    assert_int_equal(t.n_ids, 3);
    ash_engine_close(e);
    o.bare = false;
    m.tokenizer = true;
    o.template_text = "{% if %}";
    expect_no_engine(&m, o, ASH_EFORMAT, "chat template of the catalogue");
    o.template_text = NULL;
    o.max_sequences = ASH_MAX_SEQUENCES + 1;
    expect_no_engine(&m, o, ASH_ELIMIT, "sequences at once");
    m.template = "{% if %}"; /* the file's own: completions still work */
    e = engine_of(&m, fastest());
    assert_non_null(e);
    assert_null(ash_engine_template(e));
    ash_engine_close(e);
    const tiny_key odd = {"tokenizer.ggml.bos_token_id", ASH_GGUF_U32, .i = 3 + 0xff};
    m.keys = &odd; /* the token of a byte that is no text */
    m.n_keys = 1;
    m.template = "{{ bos_token }}{{ messages[0].content }}";
    o = fastest();
    o.warm_prompt = "some words";
    e = engine_of(&m, o);
    assert_non_null(e);
    assert_string_equal(ash_engine_bos_text(e), "");
    ash_engine_close(e);
}

static void the_plan_is_what_a_load_takes(void **state)
{
    tiny_model m = model();
    char path[64];
    ash_engine_plan p;
    ash_err err = ASH_ERR_INIT;
    ash_engine_opts o = fastest();
    assert_true(tiny_file(&m, path));
    o.path = path;
    assert_int_equal(ash_engine_plan_read(&o, &p, &err), 0);
    ash_engine *e;
    assert_int_equal(ash_engine_open(&o, &e, &err), 0);
    unlink(path);
    const ash_model_info *info = ash_engine_info(e);
    assert_int_equal(p.file_bytes, info->file_bytes);
    assert_int_equal(p.weight_bytes, info->weight_bytes);
    assert_int_equal(p.kv_bytes, info->kv_bytes);
    assert_int_equal(p.scratch_bytes, info->scratch_bytes);
    assert_int_equal(p.n_ctx, info->n_ctx);
    assert_int_equal(p.kv_bytes, 4 * 4096 * 2 * 2 * 16 * 2 * 2); /* tokens layers kv_heads dim K,V half */
    ash_engine_close(e);
    o.path = "/nonexistent.gguf";
    assert_int_equal(ash_engine_plan_read(&o, &p, &err), ASH_ENOENT);
}

/* What was planned is opened: the file's name is gone by then. The sizes are those of the last options. */
static void headers_are_read_once(void **state)
{
    tiny_model m = model();
    char path[64];
    ash_engine_plan usual, small;
    ash_err err = ASH_ERR_INIT;
    ash_headers *h = NULL;
    ash_engine_opts o = fastest();
    assert_true(tiny_file(&m, path));
    o.path = path;
    o.headers = &h;
    assert_int_equal(ash_engine_plan_read(&o, &usual, &err), 0);
    assert_non_null(h);
    unlink(path);
    o.kv_bytes = 1;
    assert_int_equal(ash_engine_plan_read(&o, &small, &err), 0);
    assert_int_equal(small.kv_bytes, usual.kv_least);
    assert_int_equal(small.weight_bytes, usual.weight_bytes);
    o.kv_bytes = 0;
    ash_engine *e;
    assert_int_equal(ash_engine_open(&o, &e, &err), 0);
    assert_null(h);
    assert_int_equal(ash_engine_info(e)->kv_bytes, usual.kv_bytes);
    assert_int_equal(ash_engine_info(e)->scratch_bytes, usual.scratch_bytes);
    ash_engine_close(e);
    assert_int_equal(ash_engine_plan_read(&o, &usual, &err), ASH_ENOENT);
    assert_null(h);
}

static void headers_that_do_not_do_are_given_up(void **state)
{
    tiny_model m = model();
    char path[64];
    ash_engine_plan p;
    ash_err err = ASH_ERR_INIT;
    ash_headers *h = NULL;
    ash_engine_opts o = fastest();
    assert_true(tiny_file(&m, path));
    o.path = path;
    o.headers = &h;
    assert_int_equal(ash_engine_plan_read(&o, &p, &err), 0);
    o.max_sequences = ASH_MAX_SEQUENCES + 1;
    assert_int_equal(ash_engine_plan_read(&o, &p, &err), ASH_ELIMIT);
    assert_null(h);
    o.max_sequences = 0;
    assert_int_equal(ash_engine_plan_read(&o, &p, &err), 0);
    unlink(path);
    ash_headers_close(h);
}

/* Headers with their text begun, by options that are gone when it is used. */
static ash_headers *with_text_ahead(const char *template_text, ash_engine_opts *o)
{
    tiny_model m = model();
    char path[64];
    ash_engine_plan p;
    ash_err err = ASH_ERR_INIT;
    ash_headers *h = NULL;
    char *text = strdup(template_text);
    assert_true(tiny_file(&m, path));
    *o = fastest();
    o->path = path;
    o->template_text = text;
    o->text_ahead = true;
    o->headers = &h;
    assert_int_equal(ash_engine_plan_read(o, &p, &err), 0);
    assert_int_equal(ash_engine_plan_read(o, &p, &err), 0); /* sized anew while it is read */
    unlink(path);
    memset(path, '?', sizeof path);
    memset(text, '?', strlen(text));
    free(text);
    o->path = "/nonexistent.gguf";
    o->template_text = NULL;
    return h;
}

static void the_text_is_read_ahead(void **state)
{
    ash_err err = ASH_ERR_INIT;
    ash_engine_opts o;
    ash_engine *e;
    ash_headers *h = with_text_ahead("{{ messages[0].content }}", &o);
    ash_headers_close(h);
    h = with_text_ahead("{{ messages[0].content }}", &o);
    o.headers = &h;
    assert_int_equal(ash_engine_open(&o, &e, &err), 0);
    assert_string_equal(ash_engine_info(e)->template_from, "catalogue");
    assert_string_equal(ash_engine_info(e)->chat_template, "{{ messages[0].content }}");
    ash_engine_close(e);
    h = with_text_ahead("{% if %}", &o); /* what it refuses, the load refuses */
    o.headers = &h;
    assert_int_equal(ash_engine_open(&o, &e, &err), ASH_EFORMAT);
    assert_non_null(strstr(err.msg, "chat template of the catalogue"));
    assert_null(e);
    assert_null(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_text_is_read_ahead),
        cmocka_unit_test(a_job_is_told_everything),
        cmocka_unit_test(headers_are_read_once),
        cmocka_unit_test(headers_that_do_not_do_are_given_up),
        cmocka_unit_test(ends_of_a_text),
        cmocka_unit_test(the_context_is_an_end),
        cmocka_unit_test(bad_jobs_are_refused),
        cmocka_unit_test(the_queue_has_an_end),
        cmocka_unit_test(a_text_does_not_depend_on_its_company),
        cmocka_unit_test(a_text_does_not_depend_on_guesses),
        cmocka_unit_test(ends_are_found_among_guesses),
        cmocka_unit_test(little_kv_memory_only_takes_longer),
        cmocka_unit_test(prefixes_are_shared),
        cmocka_unit_test(equal_prompts_at_once_are_computed_once),
        cmocka_unit_test(background_work_spares_chats),
        cmocka_unit_test(clients_come_and_go),
        cmocka_unit_test(the_end_may_come_at_any_time),
        cmocka_unit_test(a_cancel_acts_at_once),
        cmocka_unit_test(eval_agrees_with_generation),
        cmocka_unit_test(loading_is_told),
        cmocka_unit_test(who_waits_overtakes_the_warming),
        cmocka_unit_test(loading_can_be_cancelled),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(the_plan_is_what_a_load_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
