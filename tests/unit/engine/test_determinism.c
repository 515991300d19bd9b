/* The same request and seed give the same tokens and log-probabilities, to the bit, whatever the way to
 * them: alone, among 32, by another number of threads, from keys and values that an earlier request left,
 * and after a restart from what was kept on disk. For every kind of weights and attention that has kernels
 * of its own, and every set of kernels that this machine has. Guessing is looked at in test_engine.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <dirent.h>
#include <time.h>

#include "../scratch_dir.h"
#include "engine/packs.h"
#include "jobs.h"

enum { JOBS = 32, PROMPT_MAX = 160, TOKENS = 12 };

/* The checkpoints of tests/golden whose vocabulary is of 80 or more ids. */
static const char *const checkpoints[] = {
    "hf/llama-f32",         "hf/llama-f16",           "hf/llama-bf16",
    "logits/tiny-q4-0.gguf", "logits/tiny-q4-1.gguf", "logits/tiny-q8-0.gguf",
    "logits/tiny-odd.gguf", "hf/gptq-4b-32g-act",     "hf/gptq-64g-uneven-act",
    "hf/gptq-3b-64g-act-v2", "hf/gptq-8b-64g-act",    "hf/mistral",
    "hf/qwen3",             "hf/deepseek-v2-lite",    "hf/deepseek-gptq",
    "hf/deepseek-v3",       "hf/deepseek-v3-fp8",
};

typedef struct way {
    const char *name;
    int threads;
    bool at_once, state, again; /* again: every job a second time, which finds its prefix */
} way;

typedef struct tried {
    told t[JOBS];
    uint32_t cached; /* tokens that the jobs did not have to compute */
} tried;

/* Some greedy, some with all that a sampler remembers; lengths at and beside the edges of KV blocks. */
static ash_job job_number(int i, int32_t vocab, int32_t ids[PROMPT_MAX], told *t)
{
    static const size_t lengths[] = {1, 31, 32, 33, 64, 5, 97, 160};
    size_t n = lengths[i % 8];
    ash_rng r;
    ash_rng_init(&r, 50 + (uint64_t)i);
    for (size_t k = 0; k < n; k++) ids[k] = (int32_t)(ash_rng_u64(&r) % (uint64_t)vocab);
    ash_job j = job_of(ids, n, TOKENS + i % 5, t);
    j.want_logprobs = true;
    if (i % 3) {
        j.sampling.temperature = 1.3;
        j.sampling.seed = 900 + i;
        j.sampling.repeat_penalty = i % 2 ? 1.1 : 1;
    }
    return j;
}

static ash_engine *open_way(const char *path, ash_cpu_level level, bool kv_q8, const way *w, const char *dir)
{
    ash_engine_opts o = {.path = path, .cpu = level, .kv_q8 = kv_q8, .threads = w->threads, .bare = true,
                         .ctx = 256, .max_sequences = JOBS, .kv_bytes = 64 << 20,
                         .state_dir = w->state ? dir : NULL, .disk_budget = 1 << 30};
    ash_engine *e = NULL;
    ash_err err = ASH_ERR_INIT;
    if (ash_engine_open(&o, &e, &err))
        fail_msg("%s: %s", path, err.msg);
    return e;
}

static void run_all(ash_engine *e, bool at_once, tried *out)
{
    static int32_t ids[JOBS][PROMPT_MAX];
    int32_t vocab = (int32_t)ash_engine_info(e)->n_vocab;
    out->cached = 0;
    for (int i = 0; i < JOBS; i++) {
        uint64_t id;
        ash_err err = ASH_ERR_INIT;
        told_init(&out->t[i]);
        ash_job j = job_number(i, vocab, ids[i], &out->t[i]);
        if (ash_engine_submit(e, &j, &id, &err))
            fail_msg("submit: %s", err.msg);
        if (!at_once)
            told_wait(&out->t[i]);
    }
    for (int i = 0; i < JOBS; i++) {
        told_wait(&out->t[i]);
        out->cached += out->t[i].usage.cached_tokens;
    }
}

static void expect_same(const tried *a, const tried *b, const char *path, const char *name)
{
    for (int i = 0; i < JOBS; i++) {
        const told *x = &a->t[i], *y = &b->t[i];
        size_t n = (size_t)x->n_ids;
        if (x->n_ids != y->n_ids || memcmp(x->ids, y->ids, n * sizeof *x->ids) ||
            memcmp(x->logprobs, y->logprobs, n * sizeof *x->logprobs))
            fail_msg("%s, job %d %s: not what it gives alone", path, i, name);
    }
}

/* Weights are kept in the background: waits for the file, 20 s at most. */
static bool pack_is_kept(const char *dir)
{
    char path[320];
    snprintf(path, sizeof path, "%.300s/packs", dir);
    for (int i = 0; i < 2000; i++) {
        DIR *d = opendir(path);
        bool found = false;
        for (struct dirent *f; d && (f = readdir(d));) {
            size_t n = strlen(f->d_name);
            found |= n > 5 && !strcmp(f->d_name + n - 5, ".pack");
        }
        if (d)
            closedir(d);
        if (found)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return false;
}

/* dir is made, and left to who removes what it lies in. */
static void all_ways(const char *path, ash_cpu_level level, bool kv_q8, const char *dir)
{
    static const way ways[] = {
        {"alone by three threads", 3, false, false, false},
        {"among 32", 2, true, false, false},
        {"among 32, prefixes found", 1, true, false, true},
        {"keeping what it packs", 2, true, true, false},
        {"after a restart", 3, true, true, true},
    };
    static tried alone, other;
    const way first = {.name = "alone", .threads = 1};
    assert_int_equal(mkdir(dir, 0700), 0);
    ash_engine *e = open_way(path, level, kv_q8, &first, dir);
    run_all(e, false, &alone);
    ash_engine_close(e);
    for (int i = 0; i < JOBS; i++) assert_int_equal(alone.t[i].n_ids, TOKENS + i % 5);
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        e = open_way(path, level, kv_q8, &ways[w], dir);
        run_all(e, ways[w].at_once, &other);
        expect_same(&alone, &other, path, ways[w].name);
        if (ways[w].again) {
            run_all(e, ways[w].at_once, &other);
            expect_same(&alone, &other, path, ways[w].name);
            assert_true(other.cached > 1000); /* or nothing was reused */
        }
        if (ways[w].state)
            assert_true(ash_engine_info(e)->weight_bytes < ASH_PACK_LEAST || pack_is_kept(dir));
        ash_engine_close(e);
    }
}

static void every_checkpoint(const char *dir, ash_cpu_level level, int other)
{
    for (int i = 0; i < (int)(sizeof checkpoints / sizeof *checkpoints); i++) {
        char path[512], own[300];
        snprintf(path, sizeof path, "%s/%s", getenv("ASHLEY_TEST_DATA"), checkpoints[i]);
        snprintf(own, sizeof own, "%.250s/%d-%d", dir, (int)level, i);
        all_ways(path, level, (i + other) % 2, own);
    }
}

static void a_text_depends_on_its_request_alone(void **state)
{
    for (int level = 0; level <= (int)ash_cpu_get()->level; level++)
        every_checkpoint(*state, (ash_cpu_level)level, 0);
}

static void with_keys_and_values_of_the_other_size_too(void **state)
{
    every_checkpoint(*state, ash_cpu_get()->level, 1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_dir_make, scratch_dir_remove)
    const struct CMUnitTest tests[] = {TEST(a_text_depends_on_its_request_alone),
                                       TEST(with_keys_and_values_of_the_other_size_too)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
