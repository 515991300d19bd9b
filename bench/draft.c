/* draft MODEL DRAFT [PAIRS] [TOKENS]: texts of TOKENS tokens (100) with a draft model and without any
 * guesses, by two engines in one process that take turns, PAIRS times (10): greedy, drawn at temperature 0.8,
 * and drawn almost evenly from the vocabulary, where there is nothing to foresee. Prompts are cached. By the
 * clock and by CPU time, which other work disturbs less. bench/prediction.py compares servers. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "engine/engine.h"

enum { MOST_PAIRS = 1000 };

typedef struct text {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t hash; /* of the ids */
    int tokens;
    bool done;
    int64_t first, last;
} text;

static void on_event(void *user, const ash_event *ev)
{
    text *t = user;
    pthread_mutex_lock(&t->lock);
    if (ev->kind == ASH_EVENT_TOKEN) {
        t->last = ash_clock_ns();
        if (!t->tokens++)
            t->first = t->last;
        t->hash = (t->hash ^ (uint32_t)ev->id) * 0x9E3779B97F4A7C15u;
    }
    t->done |= ev->kind == ASH_EVENT_DONE;
    pthread_cond_signal(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

/* Seconds of all threads; one engine runs at a time. */
static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Milliseconds a token, after the first. */
static double run(ash_engine *e, const ash_ids *ids, double temperature, int tokens, uint64_t *hash,
                  double *cpu)
{
    double began = cpu_seconds();
    ash_err err = ASH_ERR_INIT;
    uint64_t id;
    text t = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    ash_job job = {.ids = ids->p, .n_ids = ids->n, .sampling = ash_sampler_params_default(),
                   .max_tokens = tokens, .ignore_eos = true, .on_event = on_event, .user = &t};
    job.sampling.temperature = temperature;
    job.sampling.seed = 5;
    if (temperature > 1) {
        job.sampling.top_k = 0;
        job.sampling.min_p = 0;
    }
    if (ash_engine_submit(e, &job, &id, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    pthread_mutex_lock(&t.lock);
    while (!t.done) pthread_cond_wait(&t.changed, &t.lock);
    pthread_mutex_unlock(&t.lock);
    *hash = t.hash;
    *cpu = cpu_seconds() - began;
    return (double)(t.last - t.first) * 1e-6 / (t.tokens - 1);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, compare);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void scene(ash_engine *off, ash_engine *on, const char *name, double temperature, int pairs,
                  int tokens)
{
    static const char prompt[] = "<|im_start|>user\nDescribe a quiet street at night, in detail.<|im_end|>\n"
                                 "<|im_start|>assistant\n";
    static double plain[MOST_PAIRS], drafted[MOST_PAIRS], ratio[MOST_PAIRS], cpu[MOST_PAIRS];
    double plain_cpu = 0, drafted_cpu = 0;
    ash_engine_stats before, after;
    ash_err err = ASH_ERR_INIT;
    ash_ids ids = ASH_IDS_INIT;
    uint64_t a, b;
    bool equal = true;
    if (ash_tokenizer_encode(ash_engine_tokenizer(on), prompt, sizeof prompt - 1, ASH_ENCODE_SPECIAL, NULL, 0,
                             &ids, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    ash_engine_get_stats(on, &before);
    for (int i = 0; i < pairs; i++) {
        if (i % 2)
            plain[i] = run(off, &ids, temperature, tokens, &a, &plain_cpu);
        drafted[i] = run(on, &ids, temperature, tokens, &b, &drafted_cpu);
        if (i % 2 == 0)
            plain[i] = run(off, &ids, temperature, tokens, &a, &plain_cpu);
        ratio[i] = plain[i] / drafted[i];
        cpu[i] = drafted_cpu / plain_cpu;
        equal &= a == b;
    }
    ash_engine_get_stats(on, &after);
    double m = median(ratio, pairs);
    printf("%-8s without %6.2f  with %6.2f ms a token  ratio %.3f (%.2f-%.2f)  CPU time %.3f"
           "  drafted %llu, right %llu; looked up %llu, right %llu  %s\n",
           name, median(plain, pairs), median(drafted, pairs), m, ratio[0], ratio[pairs - 1],
           median(cpu, pairs),
           (unsigned long long)(after.drafted_tokens - before.drafted_tokens),
           (unsigned long long)(after.drafted_right - before.drafted_right),
           (unsigned long long)(after.guessed_tokens - after.drafted_tokens - before.guessed_tokens +
                                before.drafted_tokens),
           (unsigned long long)(after.right_tokens - after.drafted_right - before.right_tokens +
                                before.drafted_right),
           equal ? "texts equal" : "texts DIFFER");
    fflush(stdout);
    ash_ids_release(&ids);
}

int main(int argc, char **argv)
{
    if (argc < 3) return fprintf(stderr, "usage: draft MODEL DRAFT|- [PAIRS] [TOKENS]\n"), 2;
    int pairs = argc > 3 ? (int)strtol(argv[3], NULL, 10) : 10;
    int tokens = argc > 4 ? (int)strtol(argv[4], NULL, 10) : 100;
    pairs = pairs < 1 ? 1 : pairs < MOST_PAIRS ? pairs : MOST_PAIRS;
    tokens = tokens < 2 ? 2 : tokens;
    ash_err err = ASH_ERR_INIT;
    ash_engine *on, *off;
    ash_engine_opts o = {.path = argv[1], .cpu = ash_cpu_get()->level, .ctx = 1024, .max_sequences = 4,
                         .kv_bytes = 1, .prediction = ASH_PREDICTION_NEVER};
    if (ash_engine_open(&o, &off, &err)) return fprintf(stderr, "%s\n", err.msg), 1;
    o.prediction = ASH_PREDICTION_AUTO;
    o.draft_path = strcmp(argv[2], "-") ? argv[2] : NULL; /* -: look-up alone */
    if (ash_engine_open(&o, &on, &err)) return fprintf(stderr, "%s\n", err.msg), 1;
    if (ash_engine_info(on)->draft_refused)
        return fprintf(stderr, "%s\n", ash_engine_info(on)->draft_refused), 1;
    scene(off, on, "greedy", 0, pairs, tokens);
    scene(off, on, "drawn", 0.8, pairs, tokens);
    scene(off, on, "chance", 20, pairs, tokens);
    ash_engine_close(on);
    ash_engine_close(off);
    return 0;
}
