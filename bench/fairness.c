/* fairness MODEL [PROMPT] [RUNS]: a running stream while prompts of PROMPT tokens (4,000) arrive one after
 * the other, RUNS (3) of them, and short requests beside both: the time between two tokens of the stream, and
 * the time to the first token of the others. Ids are random, so nothing is shared. Times are those of the
 * engine's events, without HTTP, so that `chrt -f 1` can keep a busy machine's other work out.
 * Guessing is off: it would only fill in tokens between the gaps. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/rng.h"
#include "engine/engine.h"

enum { MOST = 1 << 16, SHORT = 20, SHORT_TOKENS = 8, PAUSE_MS = 100 };

typedef struct list {
    double v[MOST]; /* milliseconds */
    int n;
} list;

/* One job: what its events say. */
typedef struct job {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    list *gaps, *first; /* either may be NULL */
    int64_t began, last;
    int tokens;
    bool done;
} job;

static void add(list *l, int64_t ns)
{
    if (l && l->n < MOST)
        l->v[l->n++] = (double)ns * 1e-6;
}

static void on_event(void *user, const ash_event *ev)
{
    job *j = user;
    int64_t now = ash_clock_ns();
    pthread_mutex_lock(&j->lock);
    if (ev->kind == ASH_EVENT_TOKEN) {
        if (j->tokens++)
            add(j->gaps, now - j->last);
        else
            add(j->first, now - j->began);
        j->last = now;
    }
    j->done |= ev->kind == ASH_EVENT_DONE;
    pthread_cond_signal(&j->changed);
    pthread_mutex_unlock(&j->lock);
}

static uint64_t submit(ash_engine *e, ash_rng *rng, job *j, int n_prompt, int n_tokens)
{
    ash_err err = ASH_ERR_INIT;
    uint64_t id = 0;
    int32_t *ids = malloc((size_t)n_prompt * sizeof *ids);
    if (!ids) exit(1);
    for (int i = 0; i < n_prompt; i++) ids[i] = (int32_t)(ash_rng_u64(rng) % ash_engine_info(e)->n_vocab);
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->changed, NULL);
    j->began = ash_clock_ns();
    ash_job what = {.ids = ids, .n_ids = (size_t)n_prompt, .sampling = ash_sampler_params_default(),
                    .max_tokens = n_tokens, .ignore_eos = true, .on_event = on_event, .user = j};
    what.sampling.temperature = 0;
    if (ash_engine_submit(e, &what, &id, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    free(ids);
    return id;
}

static void wait_for(job *j, int tokens)
{
    pthread_mutex_lock(&j->lock);
    while (!j->done && j->tokens < tokens) pthread_cond_wait(&j->changed, &j->lock);
    pthread_mutex_unlock(&j->lock);
}

static bool is_done(job *j)
{
    pthread_mutex_lock(&j->lock);
    bool done = j->done;
    pthread_mutex_unlock(&j->lock);
    return done;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void show(const char *name, list *l)
{
    if (!l->n)
        return;
    qsort(l->v, (size_t)l->n, sizeof *l->v, compare);
    int over = 0;
    for (int i = 0; i < l->n; i++) over += l->v[i] > 50;
    printf("%-44s median %6.1f  99 %% %6.1f  longest %6.1f ms  over 50: %d of %d\n", name, l->v[l->n / 2],
           l->v[l->n * 99 / 100], l->v[l->n - 1], over, l->n);
    fflush(stdout);
}

static void pause_ms(int ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000l}, NULL);
}

/* A stream beside `runs` prompts one after the other, or beside nothing, and short ones if asked. */
static void scene(ash_engine *e, ash_rng *rng, const char *name, int prompt, int runs, bool shorts)
{
    static list gaps, first, first_short;
    char title[100];
    gaps.n = first.n = first_short.n = 0;
    job stream = {0};
    uint64_t id = submit(e, rng, &stream, SHORT, -1);
    wait_for(&stream, 8);
    pthread_mutex_lock(&stream.lock);
    stream.gaps = &gaps;
    pthread_mutex_unlock(&stream.lock);
    for (int i = 0; i < runs; i++) {
        job *shorter = calloc(1000, sizeof *shorter);
        job longer = {.first = &first};
        int n = 0;
        if (!shorter) exit(1);
        if (prompt)
            submit(e, rng, &longer, prompt, 1);
        for (; n < 1000 && (prompt ? !is_done(&longer) : n < 10); n++) {
            pause_ms(PAUSE_MS);
            shorter[n].first = &first_short;
            if (shorts) {
                submit(e, rng, &shorter[n], SHORT, SHORT_TOKENS);
                wait_for(&shorter[n], 1 << 30);
            }
        }
        if (prompt)
            wait_for(&longer, 1 << 30);
        free(shorter);
    }
    ash_engine_cancel(e, id);
    wait_for(&stream, 1 << 30);
    snprintf(title, sizeof title, "stream %s, gaps", name);
    show(title, &gaps);
    show("  first token of the long prompts", &first);
    show("  first token of the short ones", &first_short);
}

int main(int argc, char **argv)
{
    if (argc < 2) return fprintf(stderr, "usage: fairness MODEL [PROMPT] [RUNS]\n"), 2;
    int prompt = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 4000;
    int runs = argc > 3 ? (int)strtol(argv[3], NULL, 10) : 3;
    ash_err err = ASH_ERR_INIT;
    ash_engine *e;
    ash_rng rng;
    ash_engine_opts o = {.path = argv[1], .bare = true, .cpu = ash_cpu_get()->level, .ctx = 8192,
                         .prediction = ASH_PREDICTION_NEVER};
    if (ash_engine_open(&o, &e, &err)) return fprintf(stderr, "%s\n", err.msg), 1;
    ash_rng_init(&rng, 1);
    scene(e, &rng, "alone", 0, 1, false);
    scene(e, &rng, "beside short ones", 0, 1, true);
    scene(e, &rng, "beside long prompts", prompt, runs, false);
    scene(e, &rng, "beside long prompts and short ones", prompt, runs, true);
    ash_engine_close(e);
    return 0;
}
