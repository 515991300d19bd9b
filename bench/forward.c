/* forward MODEL [LEVEL] [THREADS] [ROUNDS]: tokens/s of a model's bare forward, without engine or
 * sampling: prefill of 512 and decode after it of 1, 4, 8 sequences. One line of JSON per round, by
 * the wall and by the CPU time of all threads divided by their number (what a machine without other
 * work would do at best). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "engine/model.h"

enum { PROMPT = 512, STEPS = 32, SEQS = 8 };

typedef struct bench {
    ash_model *m;
    ash_run run;
    int32_t *tables; /* [SEQS][blocks] */
    int blocks;
    float *logits;
    double wall, cpu; /* nanoseconds, at the start */
} bench;

static void must_ok(int rc, const ash_err *err)
{
    if (rc) {
        fprintf(stderr, "%s\n", err->msg);
        exit(1);
    }
}

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void start(bench *b)
{
    b->wall = (double)ash_clock_ns();
    b->cpu = cpu_ns();
}

static void report(const bench *b, const char *test, int tokens)
{
    double wall = (double)ash_clock_ns() - b->wall, cpu = cpu_ns() - b->cpu;
    printf("{\"kernel\":\"%s\",\"threads\":%d,\"test\":\"%s\",\"tokens_s\":%.1f,\"by_cpu_time\":%."
           "1f}\n",
           b->run.nn->k->name, b->run.nn->o.threads, test, tokens * 1e9 / wall,
           tokens * 1e9 / cpu * b->run.nn->o.threads);
    fflush(stdout);
}

static void forward(bench *b, const ash_batch_row *rows, int n)
{
    ash_batch batch = {.rows = rows, .n = n, .logits = b->logits};
    b->m->net->arch->forward(b->m->net, &b->run, &batch);
}

static void prefill(bench *b, int seq)
{
    static ash_batch_row rows[PROMPT];
    for (int i = 0; i < PROMPT; i++)
        rows[i] = (ash_batch_row){100 + i * 7, i, b->tables + seq * b->blocks, i == PROMPT - 1};
    forward(b, rows, PROMPT);
}

static void decode(bench *b, int seqs)
{
    ash_batch_row rows[SEQS];
    for (int step = 0; step < STEPS; step++) {
        for (int s = 0; s < seqs; s++)
            rows[s] = (ash_batch_row){50 + step, PROMPT + step, b->tables + s * b->blocks, true};
        forward(b, rows, seqs);
    }
}

static void open_run(bench *b, ash_cpu_level level, int threads)
{
    ash_err err = ASH_ERR_INIT;
    const ash_net *net = b->m->net;
    ash_nn_options o = ash_net_nn_options(net, level, threads, PROMPT, 2048);
    must_ok(ash_nn_open(&o, &b->run.nn, &err), &err);
    b->blocks = (PROMPT + STEPS + 31) / 32;
    must_ok(ash_kv_open(&net->kv, b->blocks * SEQS, &b->run.kv, &err), &err);
    b->run.scratch = aligned_alloc(64, (net->row_bytes * PROMPT + 63) / 64 * 64);
    b->tables = malloc((size_t)(b->blocks * SEQS) * sizeof *b->tables);
    b->logits = malloc((size_t)SEQS * (size_t)net->hp.n_vocab * sizeof(float));
    if (!b->run.scratch || !b->tables || !b->logits) exit(1);
    for (int i = 0; i < b->blocks * SEQS; i++) b->tables[i] = i;
}

int main(int argc, char **argv)
{
    ash_err err = ASH_ERR_INIT;
    ash_cpu_level level = ash_cpu_get()->level;
    if (argc < 2) return fprintf(stderr, "usage: forward MODEL [LEVEL] [THREADS] [ROUNDS]\n"), 2;
    if (argc > 2) must_ok(ash_cpu_parse(argv[2], &level, &err), &err);
    int threads = argc > 3 ? (int)strtol(argv[3], NULL, 10) : ash_cpu_threads();
    int rounds = argc > 4 ? (int)strtol(argv[4], NULL, 10) : 3;
    ash_engine_opts opts = {.path = argv[1], .bare = true, .threads = threads, .cpu = level};
    bench b = {0};
    must_ok(ash_model_open(&opts, &b.m, &err), &err);
    open_run(&b, level, threads);
    must_ok(ash_model_load(b.m, &opts, b.run.nn->pool, &err), &err);
    for (int s = 0; s < SEQS; s++) prefill(&b, s);
    for (int round = 0; round < rounds; round++) {
        start(&b);
        prefill(&b, 0);
        report(&b, "prefill-512", PROMPT);
        for (int seqs = 1; seqs <= SEQS; seqs *= seqs == 1 ? 4 : 2) {
            char name[32];
            snprintf(name, sizeof name, "decode-%dx%d", STEPS, seqs);
            start(&b);
            decode(&b, seqs);
            report(&b, name, STEPS * seqs);
        }
    }
    ash_kv_close(b.run.kv);
    ash_nn_close(b.run.nn);
    ash_model_close(b.m);
    free(b.run.scratch);
    free(b.tables);
    free(b.logits);
    return 0;
}
