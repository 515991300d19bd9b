/* Owns `ashley bench`: prefill and decode speed of a model through its scheduler, as requests see
 * it. Every run uses fresh random ids, so that no prefix is reused. Main thread; events come on the
 * scheduler's. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cli/engine_open.h"
#include "cli/synthetic.h"
#include "config/value.h"
#include "nn/limits.h"

enum { MAX_TESTS = 32, MAX_RUNS = 100 };

/* What one run of several sequences saw. Decoding is timed while all of them run: from the moment
 * the last one had its first token to the moment the first one was done. */
typedef struct bench_run {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    int sequences, firsts, ended;
    int64_t started_ns; /* the first job left the queue */
    int64_t all_first_ns, first_end_ns, last_end_ns;
    uint64_t tokens, tokens_all_run; /* sampled in all; while all were running */
    ash_err err;
} bench_run;

typedef struct bench_job {
    bench_run *run;
    bool first;
} bench_job;

static void on_event(void *user, const ash_event *ev)
{
    bench_job *j = user;
    bench_run *r = j->run;
    int64_t now = ash_clock_ns();
    pthread_mutex_lock(&r->mutex);
    if (ev->kind == ASH_EVENT_STARTED && !r->started_ns) r->started_ns = now;
    if (ev->kind == ASH_EVENT_TOKEN) {
        r->tokens++;
        r->tokens_all_run += r->all_first_ns && !r->first_end_ns;
        if (!j->first && ++r->firsts == r->sequences) r->all_first_ns = now;
        j->first = true;
    }
    if (ev->kind == ASH_EVENT_DONE) {
        if (ev->finish == ASH_FINISH_ERROR) r->err = *ev->error;
        r->first_end_ns = r->first_end_ns ? r->first_end_ns : now;
        r->last_end_ns = now;
        r->ended++;
        pthread_cond_signal(&r->cond);
    }
    pthread_mutex_unlock(&r->mutex);
}

/* Runs `sequences` jobs of n_prompt random ids, each for n_tokens more. */
static int run_once(ash_engine *e, ash_rng *rng, long n_prompt, long n_tokens, long sequences,
                    double heat, bench_run *r, ash_err *err)
{
    *r = (bench_run){
        .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER, .err = ASH_ERR_INIT};
    uint32_t n_vocab = ash_engine_info(e)->n_vocab;
    bench_job *jobs = calloc((size_t)sequences, sizeof *jobs);
    int32_t *ids = calloc((size_t)n_prompt, sizeof *ids);
    int rc = jobs && ids ? 0 : ash_err_nomem(err, "a benchmark run");
    r->sequences = (int)sequences;
    long submitted = 0;
    while (!rc && submitted < sequences) {
        uint64_t id;
        for (long i = 0; i < n_prompt; i++) ids[i] = (int32_t)(ash_rng_u64(rng) % n_vocab);
        bench_job *j = &jobs[submitted];
        j->run = r;
        ash_job job = {.ids = ids,
                       .n_ids = (size_t)n_prompt,
                       .sampling = ash_sampler_params_default(),
                       .max_tokens = n_tokens,
                       .ignore_eos = true,
                       .on_event = on_event,
                       .user = j};
        job.sampling.temperature = heat;
        job.sampling.top_k = 0;
        job.sampling.min_p = 0;
        rc = ash_engine_submit(e, &job, &id, err);
        submitted += !rc;
    }
    pthread_mutex_lock(&r->mutex);
    while (r->ended < submitted) pthread_cond_wait(&r->cond, &r->mutex);
    if (!rc && r->err.code) rc = ash_err_set(err, r->err.code, "%s", r->err.msg);
    pthread_mutex_unlock(&r->mutex);
    free(jobs);
    free(ids);
    return rc;
}

typedef struct bench_test {
    char name[40];
    long prompt, tokens, sequences;
    double heat; /* temperature. 0: greedy, which goes in circles and asks for the same experts again */
    double speed[MAX_RUNS]; /* tokens a second */
    ash_engine_stats before, after; /* of all runs */
    double computed;                /* tokens in them, with the prompts */
} bench_test;

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double seconds(int64_t from_ns, int64_t to_ns)
{
    return (double)(to_ns - from_ns) * 1e-9;
}

/* Tokens a second. A run so short that the sequences never ran together counts as a whole, prefill
 * included: less than the truth, never more. */
static double speed_of(const bench_run *r, const bench_test *t)
{
    if (t->tokens <= 1) return (double)t->prompt / seconds(r->started_ns, r->all_first_ns);
    if (r->first_end_ns > r->all_first_ns && r->tokens_all_run)
        return (double)r->tokens_all_run / seconds(r->all_first_ns, r->first_end_ns);
    return (double)r->tokens / seconds(r->started_ns, r->last_end_ns);
}

/* The fraction of the machine's limit that a speed is: prefill against the peak of what the weights are
 * multiplied with (two operations a weight and token; attention is not counted), decode against the
 * read bandwidth (the weights of a step, read once; several sequences of a mixture read more experts
 * than are counted). 0: not measured here. */
static double limit_fraction(const ash_engine *e, const bench_test *t, double speed,
                             const ash_limits *limits)
{
    const ash_model_info *info = ash_engine_info(e);
    double bytes = (double)info->step_bytes * speed / (double)t->sequences;
    if (t->tokens > 1) return limits->read_gbs > 0.0 ? bytes / (limits->read_gbs * 1e9) : 0.0;
    double peak = limits->int8_gops, ops = 2.0 * (double)info->token_params * speed;
    if (!strcmp(info->quantization, "BF16"))
        peak = limits->bf16_gflops > 0.0 ? limits->bf16_gflops : limits->f32_gflops;
    return peak > 0.0 ? ops / (peak * 1e9) : 0.0;
}

static int run_test(ash_engine *e, bench_test *t, long repeat, ash_rng *rng, ash_err *err)
{
    bench_run r;
    ash_engine_get_stats(e, &t->before);
    for (long i = -1; i < repeat; i++) { /* the first is a warm-up */
        int rc = run_once(e, rng, t->prompt, t->tokens, t->sequences, t->heat, &r, err);
        if (!rc && atomic_load(ash_cli_interrupt()))
            rc = ash_err_set(err, ASH_ECANCELED, "interrupted");
        if (rc) return rc;
        if (i >= 0) t->speed[i] = speed_of(&r, t);
        t->computed += (double)((t->prompt + t->tokens) * t->sequences);
    }
    ash_engine_get_stats(e, &t->after);
    qsort(t->speed, (size_t)repeat, sizeof *t->speed, compare);
    return 0;
}

/* Where experts come and go: the part that needed no read, and what was read for each token. */
static void print_experts(const ash_cli *cli, const bench_test *t)
{
    double chosen = (double)(t->after.experts_chosen - t->before.experts_chosen);
    double found = (double)(t->after.experts_found - t->before.experts_found);
    double bytes = (double)(t->after.expert_read_bytes - t->before.expert_read_bytes);
    if (!(chosen > 0) || !(t->computed > 0)) return;
    if (cli->json)
        printf(",\"experts_found\":%.4f,\"read_bytes_per_token\":%.0f", found / chosen, bytes / t->computed);
    else
        printf("%-16s %9.1f %% of the experts needed no read, %.1f MB read for a token\n", "",
               100.0 * found / chosen, bytes / t->computed * 1e-6);
}

static void print_test(const ash_cli *cli, const bench_test *t, long n, double fraction, bool last)
{
    double median = n % 2 ? t->speed[n / 2] : 0.5 * (t->speed[n / 2 - 1] + t->speed[n / 2]);
    if (cli->json)
        printf("{\"test\":\"%s\",\"median\":%.2f,\"min\":%.2f,\"max\":%.2f,\"n\":%ld,\"limit_fraction\":%.4f",
               t->name, median, t->speed[0], t->speed[n - 1], n, fraction * median);
    else
        printf("%-16s %9.1f tokens/s  (%.1f to %.1f, %ld runs)  %.0f %% of the limit\n", t->name,
               median, t->speed[0], t->speed[n - 1], n, 100.0 * fraction * median);
    print_experts(cli, t);
    if (cli->json) printf("}%s", last ? "" : ",");
    fflush(stdout);
}

/* The tests that the options ask for; the count, or -1 with the message printed. */
static int make_tests(const ash_cli *cli, bench_test *tests, long *repeat)
{
    const char *p = ash_cli_get(cli, "prefill"), *s = ash_cli_get(cli, "sequences");
    long prompts[MAX_TESTS / 2], sequences[MAX_TESTS / 2], decode = 64;
    int n = 0,
        n_p = ash_cli_ints("--prefill", p ? p : "128,512", 0, 1 << 20, prompts, MAX_TESTS / 2);
    int n_s =
        n_p < 0 ? -1 : ash_cli_ints("--sequences", s ? s : "1", 1, 256, sequences, MAX_TESTS / 2);
    if (n_s < 0 || ash_cli_int(cli, "decode", 0, 1 << 20, &decode) ||
        ash_cli_int(cli, "repeat", 1, MAX_RUNS, repeat))
        return -1;
    for (int i = 0; i < n_p; i++) {
        if (!prompts[i]) continue;
        tests[n] = (bench_test){.prompt = prompts[i], .tokens = 1, .sequences = 1};
        snprintf(tests[n].name, sizeof tests[n].name, "prefill-%ld", prompts[i]);
        n++;
    }
    for (int i = 0; decode && i < n_s; i++) {
        tests[n] = (bench_test){.prompt = 8, .tokens = decode + 1, .sequences = sequences[i]};
        if (sequences[i] == 1)
            snprintf(tests[n].name, sizeof tests[n].name, "decode-%ld", decode);
        else
            snprintf(tests[n].name, sizeof tests[n].name, "decode-%ldx%ld", decode, sequences[i]);
        n++;
    }
    return n;
}

static int open_model(ash_cli *cli, ash_engine_opts o, ash_engine **out)
{
    const char *spec = ash_cli_get(cli, "synthetic");
    ash_err err = ASH_ERR_INIT;
    char path[64];
    int fd;
    if ((cli->n_args == 0) == !spec)
        return ash_cli_usage("bench takes either MODEL or --synthetic SHAPE:FORMAT");
    int status = cli->config ? 0 : ash_cli_configure(cli);
    if (status) return status;
    const char *weights = ash_cli_get(cli, "weights");
    if (weights && (ash_value_bytes(weights, &o.weights_max, &err) || !o.weights_max))
        return ash_cli_usage("--weights: bytes with a suffix, such as 4G");
    if (weights) { /* for the pack file */
        const ash_manager_opts m = ash_cli_manager_opts(cli->config);
        o.state_dir = m.state_dir;
        o.disk_budget = m.disk_budget;
    }
    if (!spec) return ash_cli_engine(cli, cli->args[0], o, out);
    o.kv_q8 = ash_cli_kv_q8(cli, NULL, NULL);
    if (ash_synthetic_make(spec, &fd, path, &err)) return ash_cli_fail(&err);
    status = ash_cli_engine_file(cli, path, spec, o, out);
    ash_synthetic_remove(fd, path);
    return status;
}

int ash_cmd_bench(ash_cli *cli)
{
    static bench_test tests[MAX_TESTS];
    long repeat = 5, most = 0, sequences = 1;
    ash_err err = ASH_ERR_INIT;
    ash_engine *e;
    ash_rng rng;
    ash_limits limits;
    int n = make_tests(cli, tests, &repeat);
    if (n < 0) return ASH_EXIT_USAGE;
    for (int i = 0; i < n; i++) {
        long need = tests[i].prompt + tests[i].tokens + 1;
        most = need > most ? need : most;
        sequences = tests[i].sequences > sequences ? tests[i].sequences : sequences;
    }
    for (int i = 0; i < n && ash_cli_get(cli, "weights"); i++) tests[i].heat = 100;
    ash_engine_opts o = {.max_sequences = (uint32_t)sequences,
                         .ctx = (uint32_t)(most < 64 ? 64 : most),
                         .bare = true,
                         .prediction = ASH_PREDICTION_NEVER}; /* random ids go on in circles */
    int rc = ash_limits_measure(0, &limits, &err); /* before the model: it takes memory of its own */
    if (rc) return ash_cli_fail(&err);
    int status = open_model(cli, o, &e);
    if (status) return status;
    ash_rng_init(&rng, 42);
    if (cli->json && !rc)
        printf("{\"model\":\"%s\",\"threads\":%d,\"limits\":{\"read_gbs\":%.2f,\"int8_gops\":%.1f,"
               "\"bf16_gflops\":%.1f},\"results\":[",
               ash_engine_info(e)->name, ash_cpu_threads(), limits.read_gbs, limits.int8_gops,
               limits.bf16_gflops);
    for (int i = 0; !rc && i < n; i++) {
        rc = run_test(e, &tests[i], repeat, &rng, &err);
        if (!rc)
            print_test(cli, &tests[i], repeat, limit_fraction(e, &tests[i], 1.0, &limits),
                       i + 1 == n);
    }
    if (cli->json && !rc) puts("]}");
    ash_engine_close(e);
    return rc ? ash_cli_fail(&err) : 0;
}
