/* Runs jobs on an engine and keeps what they told. Tests only. */
#ifndef ASHLEY_TESTS_JOBS_H
#define ASHLEY_TESTS_JOBS_H

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "../tiny_model.h"
#include "engine/engine.h"

enum { JOB_IDS = 1024, JOB_TEXT = 8192 };

/* What a job told. Written on the scheduler's thread, read after job_wait. */
typedef struct told {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int n_started, n_done, n_progress, after_done;
    int32_t ids[JOB_IDS];
    float logprobs[JOB_IDS]; /* of those, where asked for */
    int n_ids, n_samples;
    char text[JOB_TEXT];
    size_t n_text;
    ash_finish finish;
    char stop_string[64];
    ash_usage usage;
    ash_err err;
    uint32_t last_processed;
    ash_sample last_sample;
} told;

static inline void told_event(void *user, const ash_event *ev)
{
    told *t = user;
    pthread_mutex_lock(&t->lock);
    t->after_done += t->n_done;
    if (t->n_text + ev->text.n < sizeof t->text) {
        memcpy(t->text + t->n_text, ev->text.p ? ev->text.p : "", ev->text.n);
        t->n_text += ev->text.n;
    }
    switch (ev->kind) {
    case ASH_EVENT_STARTED: t->n_started++; break;
    case ASH_EVENT_PROGRESS:
        t->n_progress++;
        t->last_processed = ev->processed;
        break;
    case ASH_EVENT_TOKEN:
        if (t->n_ids < JOB_IDS) {
            t->logprobs[t->n_ids] = ev->sample ? ev->sample->logprob : 0;
            t->ids[t->n_ids++] = ev->id;
        }
        if (ev->sample) {
            t->n_samples++;
            t->last_sample = *ev->sample;
        }
        break;
    case ASH_EVENT_DONE:
        t->n_done++;
        t->finish = ev->finish;
        t->usage = *ev->usage;
        if (ev->stop_string)
            snprintf(t->stop_string, sizeof t->stop_string, "%s", ev->stop_string);
        if (ev->error)
            t->err = *ev->error;
        break;
    }
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

static inline void told_init(told *t)
{
    memset(t, 0, sizeof *t);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, NULL);
}

static inline void told_wait(told *t)
{
    pthread_mutex_lock(&t->lock);
    while (!t->n_done) pthread_cond_wait(&t->changed, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

/* Waits until at least n tokens came (or the job ended). */
static inline void told_wait_ids(told *t, int n)
{
    pthread_mutex_lock(&t->lock);
    while (!t->n_done && t->n_ids < n) pthread_cond_wait(&t->changed, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

static inline ash_job job_of(const int32_t *ids, size_t n, int64_t max_tokens, told *t)
{
    ash_job j = {.ids = ids, .n_ids = n, .sampling = ash_sampler_params_default(),
                 .max_tokens = max_tokens, .ignore_eos = true, .on_event = told_event, .user = t};
    j.sampling.temperature = 0;
    return j;
}

/* n ids that depend on seed; never special ones. */
static inline void prompt_ids(int32_t *ids, size_t n, uint64_t seed)
{
    ash_rng r;
    ash_rng_init(&r, seed);
    for (size_t i = 0; i < n; i++) ids[i] = 3 + (int32_t)(ash_rng_u64(&r) % 290);
}

static inline ash_engine *engine_of(const tiny_model *m, ash_engine_opts opts)
{
    char path[64];
    ash_engine *e = NULL;
    ash_err err = ASH_ERR_INIT;
    if (!tiny_file(m, path))
        return NULL;
    opts.path = path;
    if (ash_engine_open(&opts, &e, &err))
        fprintf(stderr, "engine: %s\n", err.msg);
    unlink(path);
    return e;
}

#endif
