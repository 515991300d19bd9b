/* An engine and the heap: no allocation between two tokens, and every allocation of a load and of a
 * job failing in turn. Linked with malloc, calloc and realloc wrapped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "../scratch_dir.h"
#include "jobs.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static atomic_long n_allocs;        /* so far */
static atomic_long fail_at = -1;    /* the one that fails, and all after it if fail_all */
static atomic_bool fail_all;

static bool fails(void)
{
    long i = atomic_fetch_add(&n_allocs, 1), at = atomic_load(&fail_at);
    return at >= 0 && (i == at || (i > at && atomic_load(&fail_all)));
}

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return fails() ? NULL : __real_realloc(p, n);
}

static tiny_model model(void)
{
    tiny_model m = TINY_DEFAULT;
    m.tokenizer = true;
    m.type = ASH_DTYPE_Q8_0;
    m.template = "{% for m in messages %}{{ m.role + m.content }}{% endfor %}";
    return m;
}

/* ---- no allocation in a token step ---------------------------------------------------------- */

enum { JOBS = 5, TOKENS = 200, FROM = 20 };

static long count_from, count_to;

static void count_event(void *user, const ash_event *ev)
{
    told *t = user;
    told_event(user, ev);
    if (ev->kind == ASH_EVENT_TOKEN && t->n_ids == FROM)
        count_from = atomic_load(&n_allocs);
    if (ev->kind == ASH_EVENT_TOKEN && t->n_ids == TOKENS - FROM)
        count_to = atomic_load(&n_allocs);
}

static void a_token_allocates_nothing(void **state)
{
    static const char *const stops[] = {"will not come"};
    static told t[JOBS];
    int32_t ids[50];
    tiny_model m = model();
    char draft[64];
    assert_true(tiny_file(&m, draft));
    ash_engine *e = engine_of(&m, (ash_engine_opts){.cpu = ash_cpu_get()->level, .threads = 2,
                                                    .draft_path = *state ? draft : NULL,
                                                    .prediction = *state ? ASH_PREDICTION_ALWAYS
                                                                         : ASH_PREDICTION_AUTO});
    unlink(draft);
    assert_non_null(e);
    assert_true(!ash_engine_info(e)->draft == !*state);
    for (int i = *state ? 1 : JOBS - 1; i >= 0; i--) { /* the counting one last: all others run by then */
        ash_err err = ASH_ERR_INIT;
        uint64_t id;
        told_init(&t[i]);
        prompt_ids(ids, 50, (uint64_t)i);
        ash_job j = job_of(ids, 50, i ? 400 : TOKENS, &t[i]);
        j.sampling.temperature = i % 2 ? 1 : 0;
        j.sampling.repeat_penalty = 1.1;
        j.want_logprobs = i == 2;
        j.stops = stops;
        j.n_stops = 1;
        if (!i)
            j.on_event = count_event;
        assert_int_equal(ash_engine_submit(e, &j, &id, &err), 0);
        if (i)
            told_wait_ids(&t[i], 1);
    }
    told_wait(&t[0]);
    assert_int_equal(t[0].n_ids, TOKENS);
    assert_int_equal(count_to - count_from, 0);
    ash_engine_stats s;
    ash_engine_get_stats(e, &s);
    assert_true(s.drafted_tokens > 100 || !*state);
    ash_engine_close(e);
}

/* ---- out of memory -------------------------------------------------------------------------- */

static void a_load_may_run_out_anywhere(void **state)
{
    long with = 0, without = 0; /* loads with a draft model, and those that went on without */
    for (int all = 0; all < 2; all++) {
        for (long n = 0;; n++) {
            tiny_model m = model();
            char path[64];
            ash_engine *e;
            ash_err err = ASH_ERR_INIT;
            assert_true(tiny_file(&m, path));
            ash_engine_opts o = {.cpu = ASH_CPU_SCALAR, .threads = 2, .path = path, .draft_path = path,
                                 .warm_prompt = "a prompt of the persona"};
            atomic_store(&fail_all, all);
            atomic_store(&fail_at, atomic_load(&n_allocs) + n);
            int rc = ash_engine_open(&o, &e, &err);
            bool reached = atomic_load(&n_allocs) > atomic_load(&fail_at);
            atomic_store(&fail_at, -1);
            unlink(path);
            if (!rc) {
                with += ash_engine_info(e)->draft != NULL;
                without += ash_engine_info(e)->draft_refused != NULL;
                ash_engine_close(e);
            } else {
                assert_null(e);
            }
            if (rc != 0 && rc != ASH_ENOMEM)
                fail_msg("allocation %ld: %d: %s", n, rc, err.msg);
            if (!reached) {
                assert_int_equal(rc, 0);
                assert_true(n > 30);
                break;
            }
        }
    }
    assert_true(with >= 2 && without >= 10);
}

/* With a state folder: the first load keeps its prompt there, later ones restore it. */
static void keeping_a_prompt_may_run_out_anywhere(void **state)
{
    tiny_model m = model();
    char path[64];
    assert_true(tiny_file(&m, path));
    const struct timespec settle = {.tv_nsec = 60000000}, pause = {.tv_nsec = 5000000};
    nanosleep(&settle, NULL); /* a file that has just changed is not believed to be what it is */
    for (long n = 0, reached = 1; reached; n++) {
        ash_engine *e;
        ash_err err = ASH_ERR_INIT;
        ash_engine_opts o = {.cpu = ASH_CPU_SCALAR, .threads = 1, .path = path, .state_dir = *state,
                             .disk_budget = 1 << 30,
                             .warm_prompt = n % 2 ? "a prompt of the persona" : "another prompt"};
        atomic_store(&fail_at, atomic_load(&n_allocs) + n);
        int rc = ash_engine_open(&o, &e, &err);
        if (!rc) {
            nanosleep(&pause, NULL);
            ash_engine_close(e);
        }
        reached = atomic_load(&n_allocs) > atomic_load(&fail_at);
        atomic_store(&fail_at, -1);
        if (rc && rc != ASH_ENOMEM)
            fail_msg("allocation %ld: %d: %s", n, rc, err.msg);
        assert_true(reached || (!rc && n > 30));
    }
    unlink(path);
}

static void a_job_may_run_out_anywhere(void **state)
{
    static told t;
    static const char *const stops[] = {"one", "two"};
    static const ash_logit_bias bias = {5, 1};
    int32_t ids[40];
    prompt_ids(ids, 40, 1);
    tiny_model m = model();
    ash_engine *e = engine_of(&m, (ash_engine_opts){.cpu = ASH_CPU_SCALAR, .threads = 1});
    assert_non_null(e);
    for (long n = 0;; n++) {
        ash_err err = ASH_ERR_INIT;
        uint64_t id;
        told_init(&t);
        ash_job j = job_of(ids, 40, 3, &t);
        j.stops = stops;
        j.n_stops = 2;
        j.sampling.logit_bias = &bias;
        j.sampling.n_logit_bias = 1;
        atomic_store(&fail_at, atomic_load(&n_allocs) + n);
        int rc = ash_engine_submit(e, &j, &id, &err);
        if (!rc)
            told_wait(&t);
        bool reached = atomic_load(&n_allocs) > atomic_load(&fail_at);
        atomic_store(&fail_at, -1);
        assert_int_equal(t.n_done, rc ? 0 : 1);
        if (rc)
            assert_int_equal(rc, ASH_ENOMEM);
        else if (reached)
            assert_int_equal(t.err.code, ASH_ENOMEM);
        else
            assert_int_equal(t.finish, ASH_FINISH_LENGTH);
        if (!reached) {
            assert_true(n > 5);
            break;
        }
    }
    ash_engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_allocates_nothing),
        cmocka_unit_test_prestate(a_token_allocates_nothing, "with a draft model"),
        cmocka_unit_test(a_load_may_run_out_anywhere),
        cmocka_unit_test_setup_teardown(keeping_a_prompt_may_run_out_anywhere, scratch_dir_make,
                                        scratch_dir_remove),
        cmocka_unit_test(a_job_may_run_out_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
