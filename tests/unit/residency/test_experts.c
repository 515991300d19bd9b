/* A mixture larger than its room, run by the manager: the ledger knows afterwards what share of its experts
 * was in memory when they were chosen. When it is told is tested in test_evict.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../engine/jobs.h"
#include "../engine/mixture.h"
#include "../scratch_dir.h"
#include "base/log.h"
#include "residency/measure.h"
#include "waited.h"

enum { TOKENS = 1000, JOBS = 2, VOCAB = 80, ROOM = 20000 }; /* bytes of experts beyond the least */

/* A token for each printable character. */
static void add_tokenizer(const char *folder, char path[100])
{
    json_t *vocab = json_object();
    for (int i = 0; i < VOCAB; i++) {
        const char token[] = {(char)('!' + i), 0};
        json_object_set_new(vocab, token, json_integer(i));
    }
    json_t *root = json_pack("{s:{s:s, s:o, s:[]}, s:{s:s, s:b}, s:{s:s}}", "model", "type", "BPE", "vocab",
                             vocab, "merges", "pre_tokenizer", "type", "ByteLevel", "add_prefix_space", 0,
                             "decoder", "type", "ByteLevel");
    char *text = json_dumps(root, JSON_COMPACT);
    assert_non_null(text);
    snprintf(path, 100, "%s/tokenizer.json", folder);
    assert_int_equal(ash_fs_replace(path, text, strlen(text), NULL), 0);
    free(text);
    json_decref(root);
}

static void decode(ash_engine *e)
{
    for (int i = 0; i < JOBS; i++) {
        told t;
        uint64_t id;
        const int32_t ids[] = {3, 7 + i, 11, 40};
        ash_err err = ASH_ERR_INIT;
        told_init(&t);
        ash_job j = job_of(ids, 4, TOKENS, &t);
        j.sampling.temperature = 1;
        j.sampling.seed = (uint64_t)i;
        assert_int_equal(ash_engine_submit(e, &j, &id, &err), 0);
        told_wait(&t);
        assert_int_equal(t.usage.completion_tokens, TOKENS);
    }
}

static void a_run_is_kept(void **state)
{
    char folder[64], tokenizer[100];
    ash_engine_plan plan;
    ash_engine_stats s;
    ash_manager *m;
    ash_ledger *l;
    ash_fit_known known;
    waited w = {0};
    ash_err err = ASH_ERR_INIT;
    widen("deepseek-v2-lite", folder);
    add_tokenizer(folder, tokenizer);
    const ash_engine_opts sizes = {.path = folder, .threads = 1, .state_dir = *state};
    assert_int_equal(ash_engine_plan_read(&sizes, &plan, &err), 0);
    assert_true(plan.weights_least + ROOM < plan.weight_bytes);
    const ash_model_spec spec = {.id = "mixture", .path = folder, .keep_alive_ms = -1};
    const ash_manager_opts o = {
        .specs = &spec, .n_specs = 1, .threads = 1, .state_dir = *state,
        .prediction = ASH_PREDICTION_NEVER,
        .memory_budget = plan.weights_least + ROOM + plan.kv_bytes + plan.scratch_bytes};
    assert_int_equal(ash_manager_open(&o, &m, &err), 0);
    assert_int_equal(ash_manager_start(m, &err), 0);
    assert_int_equal(ash_manager_acquire(m, "mixture", 60000, on_lease, &w, &w.ticket, &err), 0);
    until_called(&w);
    if (!w.engine) fail_msg("%s", w.err.msg);
    const double room = ash_engine_info(w.engine)->expert_room;
    assert_true(room > 0.1 && room < 0.5);
    decode(w.engine);
    ash_engine_get_stats(w.engine, &s);
    ash_manager_release(m, w.engine);
    ash_manager_close(m);
    assert_true(s.token_experts_chosen >= 10000 && s.token_experts_chosen < s.experts_chosen);
    const double found = (double)s.token_experts_found / (double)s.token_experts_chosen;
    assert_true(found > 0.05 && found < 0.95);

    const ash_measure_of of = {.id = "mixture", .path = folder};
    assert_int_equal(ash_ledger_open(*state, &l, NULL), 0);
    ash_measure_find_found(l, &of, plan.file_bytes, &known);
    ash_ledger_close(l);
    assert_int_equal(known.n, 1);
    assert_true(known.v[0].room == room && known.v[0].found == found);
    unlink(tokenizer);
    unwiden(folder);
}

int main(void)
{
    ash_log_set_level(ASH_LOG_NONE);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_run_is_kept, scratch_dir_make, scratch_dir_remove)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
