/* A draft model: texts are the same with it, whatever it guesses; what refuses it leaves the model serving;
 * its slots keep what texts have in common; losses are paid from an account. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/drafting.h"
#include "jobs.h"

static ash_engine_opts options(void)
{
    return (ash_engine_opts){.cpu = ash_cpu_get()->level, .threads = 2, .ctx = 256,
                             .prediction = ASH_PREDICTION_ALWAYS};
}

static tiny_model model_of(uint64_t seed)
{
    tiny_model m = TINY_DEFAULT;
    m.tokenizer = true;
    m.type = ASH_DTYPE_Q8_0;
    m.seed = seed;
    return m;
}

/* The model of seed 1 with that draft, a file or NULL. */
static ash_engine *open_with(const char *draft, ash_engine_opts o)
{
    tiny_model m = model_of(1);
    o.draft_path = draft;
    ash_engine *e = engine_of(&m, o);
    assert_non_null(e);
    return e;
}

static void file_of(uint64_t seed, char path[64])
{
    tiny_model m = model_of(seed);
    assert_true(tiny_file(&m, path));
}

static ash_engine_stats stats_of(ash_engine *e)
{
    ash_engine_stats s;
    do ash_engine_get_stats(e, &s);
    while (s.running || s.queued);
    return s;
}

static void run_job(ash_engine *e, const ash_job *j, told *t)
{
    uint64_t id;
    ash_err err = ASH_ERR_INIT;
    told_init(t);
    assert_int_equal(ash_engine_submit(e, j, &id, &err), 0);
    told_wait(t);
    assert_int_equal(t->n_done, 1);
}

/* ---- texts ---------------------------------------------------------------------------------- */

enum { JOBS = 24 };

static ash_job mixed_job(int i, int32_t ids[200], told *t)
{
    size_t n = (size_t)(3 + i * 29 % 150);
    prompt_ids(ids, n, 300 + (uint64_t)(i / 2)); /* pairs begin alike */
    ash_job j = job_of(ids, n, 30 + i, t);
    j.sampling.temperature = i % 3 == 0 ? 0 : i % 3 == 1 ? 0.3 : 1.2;
    j.sampling.seed = 90 + i;
    j.sampling.repeat_penalty = i % 5 == 1 ? 1.05 : 1;
    j.want_logprobs = true;
    j.sampling.top_logprobs = 2;
    return j;
}

/* So many jobs at a time; what the engine counted. */
static ash_engine_stats run_mixed(const char *draft, ash_engine_opts o, int at_once, told *t)
{
    static int32_t ids[JOBS][200];
    ash_engine *e = open_with(draft, o);
    assert_true((ash_engine_info(e)->draft != NULL) == (draft != NULL));
    for (int i = 0; i < JOBS; i++) {
        ash_err err = ASH_ERR_INIT;
        uint64_t id;
        ash_job j = mixed_job(i, ids[i], &t[i]);
        told_init(&t[i]);
        assert_int_equal(ash_engine_submit(e, &j, &id, &err), 0);
        if (i + 1 >= at_once)
            told_wait(&t[i + 1 - at_once]);
    }
    for (int i = 0; i < JOBS; i++) told_wait(&t[i]);
    ash_engine_stats s = stats_of(e);
    assert_int_equal(s.kv_blocks_used, 0);
    assert_true(s.drafted_right <= s.drafted_tokens && s.drafted_tokens <= s.guessed_tokens);
    ash_engine_close(e);
    return s;
}

static void a_text_does_not_depend_on_the_draft_model(void **state)
{
    static told plain[JOBS], drafted[JOBS];
    static const struct {
        uint64_t seed; /* of the draft; 1: the model itself */
        ash_prediction prediction;
        int at_once, threads;
        bool tight;
    } ways[] = {{1, ASH_PREDICTION_ALWAYS, 1, 2, false}, {1, ASH_PREDICTION_ALWAYS, 3, 3, false},
                {2, ASH_PREDICTION_ALWAYS, 1, 1, false}, {2, ASH_PREDICTION_ALWAYS, 4, 2, true},
                {1, ASH_PREDICTION_ALWAYS, 12, 2, true}, {1, ASH_PREDICTION_AUTO, 1, 2, false},
                {2, ASH_PREDICTION_AUTO, 3, 2, false}};
    ash_engine_opts o = options();
    char draft[64];
    o.prediction = ASH_PREDICTION_NEVER;
    assert_int_equal(run_mixed(NULL, o, 1, plain).guessed_tokens, 0);
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        file_of(ways[w].seed, draft);
        o.prediction = ways[w].prediction;
        o.threads = ways[w].threads;
        o.kv_bytes = ways[w].tight; /* 1: one context, so that sequences give way to each other */
        ash_engine_stats s = run_mixed(draft, o, ways[w].at_once, drafted);
        unlink(draft);
        if (o.prediction == ASH_PREDICTION_ALWAYS)
            assert_true(ways[w].seed == 1 ? s.drafted_right > 100 : s.drafted_tokens > 100);
        if (ways[w].seed == 2 && o.prediction == ASH_PREDICTION_ALWAYS) /* else too few to tell */
            assert_true(s.drafted_right <= s.drafted_tokens / 4);
        for (int i = 0; i < JOBS; i++) {
            assert_int_equal(plain[i].n_ids, drafted[i].n_ids);
            assert_memory_equal(plain[i].ids, drafted[i].ids, sizeof plain[i].ids);
            assert_memory_equal(plain[i].logprobs, drafted[i].logprobs, sizeof plain[i].logprobs);
            assert_string_equal(plain[i].text, drafted[i].text);
            assert_int_equal(plain[i].finish, drafted[i].finish);
        }
    }
}

/* The model as its own draft foresees all of a greedy text, over blocks, ends and later prompts. */
static void its_own_draft_is_always_right(void **state)
{
    static told t;
    char draft[64];
    int32_t ids[120];
    file_of(1, draft);
    ash_engine *e = open_with(draft, options());
    for (int i = 0; i < 12; i++) {
        prompt_ids(ids, 120, 7 + (uint64_t)(i / 4)); /* some as before, some longer, some new */
        ash_job j = job_of(ids, (size_t)(20 + 7 * i), 60, &t);
        run_job(e, &j, &t);
        assert_int_equal(t.n_ids, 60);
    }
    ash_engine_stats s = stats_of(e);
    assert_true(s.drafted_tokens > 500);
    assert_int_equal(s.drafted_right, s.drafted_tokens);
    ash_engine_close(e);
    unlink(draft);
}

/* Which third token follows, over other seeds than without a draft: the same shares, but for chance. */
static void the_distribution_is_the_same(void **state)
{
    enum { DRAWS = 1500, TOKENS = 4 };
    static told t;
    static int seen[2][300];
    int32_t ids[12];
    char draft[64];
    file_of(1, draft); /* right often, so that what is kept is mostly guesses */
    prompt_ids(ids, 12, 4);
    for (int with = 0; with < 2; with++) {
        ash_engine *e = open_with(with ? draft : NULL, options());
        for (int i = 0; i < DRAWS; i++) {
            ash_job j = job_of(ids, 12, TOKENS, &t);
            j.sampling.temperature = 0.25;
            j.sampling.top_k = 3;
            j.sampling.seed = 1 + i + with * DRAWS;
            run_job(e, &j, &t);
            assert_int_equal(t.n_ids, TOKENS);
            seen[with][t.ids[2]]++;
        }
        if (with)
            assert_true(stats_of(e).drafted_right > DRAWS / 2);
        ash_engine_close(e);
    }
    double chi2 = 0, kinds = 0;
    for (int i = 0; i < 300; i++) {
        double a = seen[0][i], b = seen[1][i];
        if (a + b < 10)
            continue;
        chi2 += (a - b) * (a - b) / (a + b);
        kinds++;
    }
    assert_true(kinds >= 4); /* not one text over and over */
    if (chi2 > 2 * kinds + 20)
        fail_msg("chi-square %g of %g tokens", chi2, kinds);
    unlink(draft);
}

static void a_cancel_may_come_at_any_token(void **state)
{
    static told t[40], again, plain;
    static int32_t ids[40][60];
    char draft[64];
    file_of(1, draft);
    ash_engine *e = open_with(draft, options());
    for (int i = 0; i < 40; i++) {
        ash_err err = ASH_ERR_INIT;
        uint64_t id;
        prompt_ids(ids[i], 60, 50 + (uint64_t)i % 5);
        ash_job j = job_of(ids[i], 60, 150, &t[i]);
        told_init(&t[i]);
        assert_int_equal(ash_engine_submit(e, &j, &id, &err), 0);
        told_wait_ids(&t[i], i);
        ash_engine_cancel(e, id);
        if (i % 3 == 0)
            told_wait(&t[i]);
    }
    for (int i = 0; i < 40; i++) told_wait(&t[i]);
    assert_int_equal(stats_of(e).kv_blocks_used, 0);
    ash_job j = job_of(ids[0], 60, 100, &again);
    run_job(e, &j, &again);
    ash_engine_close(e); /* and at any moment of another's run */
    e = open_with(NULL, options());
    j.user = &plain;
    run_job(e, &j, &plain);
    assert_memory_equal(plain.ids, again.ids, sizeof plain.ids);
    ash_engine_close(e);
    for (int i = 0; i < 6; i++) {
        ash_err err = ASH_ERR_INIT;
        uint64_t id;
        e = open_with(draft, options());
        j = job_of(ids[i], 60, 150, &t[i]);
        told_init(&t[i]);
        assert_int_equal(ash_engine_submit(e, &j, &id, &err), 0);
        told_wait_ids(&t[i], 7 * i);
        ash_engine_close(e);
        assert_int_equal(t[i].n_done, 1);
    }
    unlink(draft);
}

/* ---- refused -------------------------------------------------------------------------------- */

static void expect_refused(const char *draft, const char *why)
{
    static told t;
    int32_t ids[10];
    prompt_ids(ids, 10, 1);
    ash_engine *e = open_with(draft, options());
    const ash_model_info *info = ash_engine_info(e);
    assert_null(info->draft);
    assert_int_equal(info->draft_bytes, 0);
    assert_non_null(info->draft_refused);
    if (!strstr(info->draft_refused, why))
        fail_msg("'%s' does not say '%s'", info->draft_refused, why);
    ash_job j = job_of(ids, 10, 20, &t);
    run_job(e, &j, &t);
    assert_int_equal(t.n_ids, 20);
    assert_int_equal(stats_of(e).drafted_tokens, 0);
    ash_engine_close(e);
}

/* A file of these bytes, to be unlinked. */
static void write_file(const void *data, size_t n, char path[64])
{
    snprintf(path, 64, "/tmp/ashley-tiny-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    close(fd);
}

static void what_refuses_a_draft_leaves_the_model_serving(void **state)
{
    char path[64];
    ash_buf b;
    tiny_model m = model_of(2);
    expect_refused("/nowhere/draft.gguf", "/nowhere/draft.gguf");
    m.vocab = 310;
    assert_true(tiny_file(&m, path));
    expect_refused(path, "another vocabulary: the draft model has 310 tokens, the model 300");
    unlink(path);
    m.vocab = 290;
    assert_true(tiny_file(&m, path));
    expect_refused(path, "another vocabulary: the draft model has 290 rows, the model 300");
    unlink(path);
    m = model_of(2);
    m.ctx = 40;
    assert_true(tiny_file(&m, path));
    expect_refused(path, "a context of 40 tokens");
    unlink(path);
    tiny_build(&m, &b);
    write_file(b.data, b.len / 2, path); /* cut short */
    expect_refused(path, path);
    unlink(path);
    ash_buf_release(&b);
    m = model_of(2);
    m.tokenizer = false;
    assert_true(tiny_file(&m, path));
    expect_refused(path, "tokenizer.ggml.model");
    unlink(path);
    m = model_of(2);
    tiny_build(&m, &b);
    char *at = memmem(b.data, b.len, "w290", 4);
    assert_non_null(at);
    *at = 'x';
    write_file(b.data, b.len, path);
    expect_refused(path, "token 290 is 'x290' in the draft model, 'w290' in the model");
    unlink(path);
    ash_buf_release(&b);
}

static void without_prediction_no_draft_is_opened(void **state)
{
    ash_engine_opts o = options();
    o.prediction = ASH_PREDICTION_NEVER;
    ash_engine *e = open_with("/nowhere/draft.gguf", o);
    assert_null(ash_engine_info(e)->draft);
    assert_null(ash_engine_info(e)->draft_refused);
    ash_engine_close(e);
}

static void its_memory_is_planned(void **state)
{
    char path[64], draft[64];
    ash_engine_plan plan;
    ash_err err = ASH_ERR_INIT;
    file_of(1, path);
    file_of(2, draft);
    ash_engine_opts o = options();
    o.path = path;
    o.draft_path = draft;
    assert_int_equal(ash_engine_plan_read(&o, &plan, &err), 0);
    ash_engine *e = open_with(draft, options());
    assert_true(plan.draft_bytes > plan.weight_bytes);
    assert_int_equal(plan.draft_bytes, ash_engine_info(e)->draft_bytes);
    ash_engine_close(e);
    o.draft_path = "/nowhere/draft.gguf";
    assert_int_equal(ash_engine_plan_read(&o, &plan, &err), 0);
    assert_int_equal(plan.draft_bytes, 0);
    unlink(path);
    unlink(draft);
}

/* ---- slots and account ---------------------------------------------------------------------- */

typedef struct bench {
    char path[64];
    ash_engine_opts o;
    ash_model *model;
    ash_pool *pool;
    ash_draft_model *draft;
} bench;

static void bench_open(bench *b)
{
    ash_err err = ASH_ERR_INIT;
    file_of(1, b->path);
    b->o = options();
    b->o.path = b->o.draft_path = b->path;
    assert_int_equal(ash_pool_open(2, &b->pool, &err), 0);
    assert_int_equal(ash_model_open(&b->o, &b->model, &err), 0);
    assert_int_equal(ash_model_load(b->model, &b->o, b->pool, &err), 0);
    assert_int_equal(ash_model_finish(b->model, &err), 0);
    assert_int_equal(ash_draft_model_open(&b->o, b->model, b->pool, &b->draft, &err), 0);
}

static void bench_close(bench *b)
{
    ash_draft_model_close(b->draft);
    ash_model_close(b->model);
    ash_pool_close(b->pool);
    unlink(b->path);
}

static void read_all(ash_draft_model *d, int slot, const int32_t *ids, uint32_t n, ash_draft_input *in)
{
    uint32_t behind = ash_draft_model_behind(d, slot, ids, n);
    *in = (ash_draft_input){.slot = slot, .ids = ids + n - behind, .n = behind};
    ash_draft_model_read(d, in, 1, true);
}

static void slots_keep_what_texts_share(void **state)
{
    bench b;
    int32_t one[100], two[100];
    ash_draft_input in, fresh;
    bench_open(&b);
    prompt_ids(one, 100, 1);
    memcpy(two, one, sizeof two);
    prompt_ids(two + 60, 40, 2);
    uint64_t busy[] = {1, 2, 3, 4};
    int a = ash_draft_model_place(b.draft, 1, one, 80, busy, 1);
    assert_int_equal(ash_draft_model_behind(b.draft, a, one, 80), 80);
    read_all(b.draft, a, one, 80, &in);
    assert_int_equal(ash_draft_model_behind(b.draft, a, one, 80), 1); /* the last one, for its logits */
    read_all(b.draft, a, one, 80, &in);
    int32_t wrong = in.guess + 1;
    in = (ash_draft_input){.slot = a, .ids = &wrong, .n = 1};
    ash_draft_model_read(b.draft, &in, 1, true);
    assert_int_equal(ash_draft_model_behind(b.draft, a, one, 90), 10); /* the guess is forgotten */
    read_all(b.draft, a, one, 90, &in);
    /* another text beside it has a slot of its own; once that job is over, its slot serves what is like it */
    int c = ash_draft_model_place(b.draft, 2, two, 100, busy, 2);
    assert_true(a != c);
    assert_int_equal(ash_draft_model_behind(b.draft, c, two, 100), 100);
    read_all(b.draft, c, two, 100, &fresh);
    int d = ash_draft_model_place(b.draft, 3, two, 95, busy + 2, 1);
    assert_int_equal(d, c);
    assert_int_equal(ash_draft_model_behind(b.draft, d, two, 95), 1);
    int e = ash_draft_model_place(b.draft, 4, two, 100, busy + 2, 2);
    assert_int_equal(e, a);
    assert_int_equal(ash_draft_model_behind(b.draft, e, two, 100), 40);
    read_all(b.draft, e, two, 100, &in);
    assert_int_equal(in.guess, fresh.guess);
    assert_memory_equal(&in.sure, &fresh.sure, sizeof in.sure);
    /* from its middle on, and what does not fit any more */
    ash_draft_model_restart(b.draft, e, 70);
    assert_int_equal(ash_draft_model_behind(b.draft, e, two, 100), 30);
    static int32_t longer[300];
    assert_int_equal(ash_draft_model_context(b.draft), 256);
    assert_int_equal(ash_draft_model_behind(b.draft, e, longer, 300), 230);
    ash_draft_model_restart(b.draft, e, 0);
    assert_true(ash_draft_model_behind(b.draft, e, longer, 256 - ASH_MAX_DRAFT + 1) == UINT32_MAX);
    bench_close(&b);
}

/* ---- the accounts, by a made-up clock --------------------------------------------------------- */

enum { STEP_NS = 1000000000 };
/* Parts of a step that they take: a forward of the draft, a row that it reads, a guess that is computed. */
static const double FORWARD = 0.2, ROW = 0.01, COMPUTED = 0.06;
static int64_t made_up_ns; /* 0: clocks are what they are */

int64_t __real_ash_clock_ns(void);
int64_t __wrap_ash_clock_ns(void);
void __real_ash_draft_model_read(ash_draft_model *d, ash_draft_input *in, int n, bool want_guesses);
void __wrap_ash_draft_model_read(ash_draft_model *d, ash_draft_input *in, int n, bool want_guesses);

int64_t __wrap_ash_clock_ns(void)
{
    return made_up_ns ? made_up_ns : __real_ash_clock_ns();
}

void __wrap_ash_draft_model_read(ash_draft_model *d, ash_draft_input *in, int n, bool want_guesses)
{
    double rows = 0;
    for (int i = 0; i < n; i++) rows += in[i].n;
    __real_ash_draft_model_read(d, in, n, want_guesses);
    if (made_up_ns)
        made_up_ns += (int64_t)(STEP_NS * (want_guesses ? FORWARD : ROW * rows));
}

typedef struct made_up {
    bench b;
    ash_pace pace;
    ash_drafting d;
    ash_allowance all;
    uint64_t texts;
    int guessed;         /* steps with guesses */
    double took, tokens; /* steps; of all texts */
} made_up;

static void made_up_open(made_up *m)
{
    memset(m, 0, sizeof *m);
    bench_open(&m->b);
    ash_pace_init(&m->pace, STEP_NS / 100);
    ash_drafting_init(&m->d, m->b.draft, false);
    for (int k = 0; k < ASH_DRAFT_SLOTS; k++) m->d.step_ns[k] = FORWARD * STEP_NS;
    m->d.row_ns = ROW * STEP_NS;
    made_up_ns = STEP_NS;
}

static void made_up_close(made_up *m)
{
    made_up_ns = 0;
    bench_close(&m->b);
}

/* One step: what is drafted is computed as far as it is covered, and comes true or not. */
static void made_up_step(made_up *m, ash_sequence *q, bool right)
{
    for (int k = 0; k <= ASH_MAX_DRAFT; k++)
        for (int twice = 0; twice < 2; twice++)
            ash_pace_note(&m->pace, &(ash_pace_step){.decoding = 1, .guesses = k},
                          (int64_t)(STEP_NS * (1 + COMPUTED * k)));
    int64_t before = made_up_ns;
    ash_drafting_guess(&m->d, &m->pace, &m->all, &q, 1);
    int n = (int)q->drafted.n;
    while (n && ash_pace_cost(&m->pace, 1, n, false) >
                    ash_allowance_left(&m->all, &q->allowance, q->max_ids - q->n_ids, true))
        n--;
    q->n_guesses = (uint32_t)n;
    q->n_samples = right ? q->n_guesses + 1 : 1;
    for (uint32_t k = 0; k < q->n_samples; k++) /* of guesses that are not computed, too */
        q->samples[k].id = k < q->drafted.n ? (q->drafted.ids[k] + (right ? 0 : 1)) % 300 : 5;
    ash_allowance_earn(&m->all, &q->allowance);
    ash_allowance_pay(&m->all, &q->allowance, COMPUTED * n, q->n_samples - 1);
    ash_drafting_learn(&m->d, &q, 1);
    for (uint32_t k = 0; k < q->n_samples; k++) q->ids[q->n_ids++] = q->samples[k].id;
    made_up_ns += (int64_t)(STEP_NS * (1 + COMPUTED * n));
    m->took += (double)(made_up_ns - before) / STEP_NS;
    m->tokens += q->n_samples;
    m->guessed += n > 0;
}

/* A text of n tokens of which the guesses before `right_until` come true. Returns the steps that it took. */
static double made_up_text(made_up *m, int n, int right_until)
{
    enum { PROMPT = 24, MOST = 150 };
    static int32_t ids[PROMPT + MOST + ASH_MAX_DRAFT];
    ash_sequence q = {.id = ++m->texts, .ids = ids, .n_ids = PROMPT, .n_prompt = PROMPT};
    double before = m->took;
    assert_true(n <= MOST);
    q.max_ids = (uint32_t)(PROMPT + n);
    prompt_ids(ids, PROMPT, (int)m->texts);
    while (q.n_ids < q.max_ids) made_up_step(m, &q, (int)q.n_ids - PROMPT < right_until);
    return m->took - before;
}

/* At every length, and for all at any time, by costs that are what they were thought to be. */
static void no_text_takes_two_per_cent_longer(void **state)
{
    static const int lengths[] = {5, 12, 33, 64, 100, 150};
    made_up m;
    made_up_open(&m);
    for (int i = 0; i < 120; i++) {
        int n = lengths[i % 6], kind = i / 6 % 4; /* foreseen, by chance, first one and then the other */
        assert_true(made_up_text(&m, n, kind == 0 ? 0 : kind == 1 ? n : kind == 2 ? n / 2 : 0) <= 1.02 * n);
        assert_true(m.took <= 1.015 * m.tokens + 1e-3);
    }
    assert_true(m.guessed > 100);
    made_up_close(&m);
}

static void chance_is_found_out_and_left(void **state)
{
    made_up m;
    made_up_open(&m);
    for (int i = 0; i < 30; i++) made_up_text(&m, 100, 0);
    assert_true(m.took <= 1.015 * m.tokens);
    assert_true(m.guessed < 100);
    int before = m.guessed;
    for (int i = 0; i < 30; i++) made_up_text(&m, 100, 100); /* and that it ended, too */
    assert_true(m.guessed - before > 300);
    made_up_close(&m);
}

static void what_pays_goes_on(void **state)
{
    made_up m;
    made_up_open(&m);
    made_up_text(&m, 150, 150);
    made_up_text(&m, 150, 150);
    assert_true(made_up_text(&m, 64, 64) < 0.6 * 64); /* from its start, by what others gained */
    made_up_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_does_not_depend_on_the_draft_model),
        cmocka_unit_test(its_own_draft_is_always_right),
        cmocka_unit_test(the_distribution_is_the_same),
        cmocka_unit_test(a_cancel_may_come_at_any_token),
        cmocka_unit_test(what_refuses_a_draft_leaves_the_model_serving),
        cmocka_unit_test(without_prediction_no_draft_is_opened),
        cmocka_unit_test(its_memory_is_planned),
        cmocka_unit_test(slots_keep_what_texts_share),
        cmocka_unit_test(no_text_takes_two_per_cent_longer),
        cmocka_unit_test(chance_is_found_out_and_left),
        cmocka_unit_test(what_pays_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
