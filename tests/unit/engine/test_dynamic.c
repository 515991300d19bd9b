/* Dynamic rope scaling in a running engine: a text's keys depend on how long its prompt is, so beyond the
 * original context nothing that another text computed is used again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "jobs.h"

enum { SAME = 70, LONG = 100, OTHER = 90 }; /* tokens; the model's original context is 32 */

static ash_engine *open_dynamic(void)
{
    char path[512];
    ash_engine *e;
    ash_err err = ASH_ERR_INIT;
    snprintf(path, sizeof path, "%s/hf/llama-dynamic", getenv("ASHLEY_TEST_DATA"));
    const ash_engine_opts o = {
        .path = path, .bare = true, .cpu = ASH_CPU_SCALAR, .ctx = 256, .max_sequences = 4};
    if (ash_engine_open(&o, &e, &err))
        fail_msg("%s", err.msg);
    return e;
}

/* Two prompts that begin alike. */
static void make_prompts(int32_t a[LONG], int32_t b[OTHER])
{
    ash_rng r;
    ash_rng_init(&r, 3);
    for (int i = 0; i < LONG; i++) a[i] = (int32_t)(ash_rng_u64(&r) % 96);
    for (int i = 0; i < OTHER; i++) b[i] = i < SAME ? a[i] : (int32_t)(ash_rng_u64(&r) % 96);
}

static void submit(ash_engine *e, const int32_t *ids, size_t n, told *t)
{
    uint64_t id;
    ash_err err = ASH_ERR_INIT;
    told_init(t);
    ash_job j = job_of(ids, n, 12, t);
    if (ash_engine_submit(e, &j, &id, &err))
        fail_msg("%s", err.msg);
}

static void long_prompts_share_nothing(void **state)
{
    int32_t a[LONG], b[OTHER];
    told alone, first, second;
    make_prompts(a, b);
    ash_engine *e = open_dynamic();
    submit(e, b, OTHER, &alone);
    told_wait(&alone);
    ash_engine_close(e);

    e = open_dynamic();
    submit(e, a, LONG, &first);
    told_wait(&first);
    submit(e, b, OTHER, &second);
    told_wait(&second);
    assert_int_equal(second.usage.cached_tokens, 0);
    assert_int_equal(second.n_ids, alone.n_ids);
    assert_memory_equal(second.ids, alone.ids, (size_t)alone.n_ids * sizeof *alone.ids);

    /* at once: neither waits for what the other is computing */
    submit(e, a, LONG, &first);
    submit(e, b, OTHER, &second);
    told_wait(&first);
    told_wait(&second);
    assert_int_equal(first.usage.cached_tokens + second.usage.cached_tokens, 0);
    assert_memory_equal(second.ids, alone.ids, (size_t)alone.n_ids * sizeof *alone.ids);
    ash_engine_close(e);
}

/* The first token after a prompt is what a forward of the whole prompt says, however it was cut. */
static void a_prompt_follows_its_own_length(void **state)
{
    int32_t a[LONG], b[OTHER];
    float logits[96];
    ash_err err = ASH_ERR_INIT;
    told t;
    make_prompts(a, b);
    ash_engine *e = open_dynamic();
    submit(e, a, LONG, &t);
    told_wait(&t);
    assert_int_equal(ash_engine_eval(e, a, LONG, false, logits, &err), 0);
    int best = 0;
    for (int i = 1; i < 96; i++) best = logits[i] > logits[best] ? i : best;
    assert_int_equal(t.ids[0], best);
    ash_engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(long_prompts_share_nothing),
                                       cmocka_unit_test(a_prompt_follows_its_own_length)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
