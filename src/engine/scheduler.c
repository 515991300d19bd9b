/* Owns the scheduler's thread, its step and its inbox. Refuses jobs over ASH_MAX_QUEUE. The lock covers the
 * inbox, the list of all jobs and the statistics; it is never held over a forward or an event. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/scheduler_private.h"

/* ---- a step --------------------------------------------------------------------------------- */

static void draw_range(void *arg, int64_t begin, int64_t end, int worker)
{
    ash_scheduler *s = arg;
    for (int64_t i = begin; i < end; i++) ash_sequence_draw(s->drawn[i]);
}

/* After the forward: tokens out, ends. */
static void settle(ash_scheduler *s, ash_sequence *q)
{
    const char *stop_string = NULL;
    ash_finish why = ASH_FINISH_NONE;
    bool prefill = !q->t_first;
    uint32_t right = q->logits && q->n_samples ? q->n_samples - 1 : 0;
    s->guessed_tokens += q->n_guesses;
    s->right_tokens += right;
    if (q->drafted.n) {
        s->drafted_tokens += q->n_guesses;
        s->drafted_right += right;
    }
    q->n_kv += q->rows - q->n_guesses + right; /* keys of wrong guesses are written over */
    sched_publish(s, q);
    if (prefill)
        ash_sequence_progress(q);
    for (uint32_t i = 0; q->logits && i < q->n_samples && why == ASH_FINISH_NONE; i++)
        why = ash_sequence_take(q, &q->samples[i], &stop_string);
    if (why == ASH_FINISH_NONE && q->logits && q->sample_rc)
        why = ASH_FINISH_ERROR;
    else if (why == ASH_FINISH_NONE && !q->logits && !sched_rows_left(q))
        why = ASH_FINISH_LENGTH; /* a prefill was all that was asked */
    if (why == ASH_FINISH_NONE)
        return;
    ash_err err = q->err;
    sched_forget(s, q);
    sched_finish(s, q, why, stop_string, why == ASH_FINISH_ERROR ? &err : NULL);
}

/* Weights that were mapped are gone: nothing that runs can be right, nor its keys and values. */
static void fail_running(ash_scheduler *s)
{
    ash_err err = ASH_ERR_INIT;
    ash_err_set(&err, ASH_EIO,
                "the pack file was damaged while it was in use: the model is to be opened again");
    while (s->n_running) {
        ash_sequence *q = s->running[s->n_running - 1];
        sched_forget(s, q);
        sched_finish(s, q, ASH_FINISH_ERROR, NULL, &err);
    }
}

/* Books what this step's guesses cost and saved. */
static void pay_guesses(ash_scheduler *s)
{
    double cost = ash_pace_paid(&s->pace, &s->plan, s->step_ns) * s->plan.decoding;
    for (int i = 0; i < s->n_drawn; i++) {
        ash_sequence *q = s->drawn[i];
        if (!q->decodes)
            continue;
        ash_allowance_earn(&s->allowance, &q->allowance);
        if (q->n_guesses)
            ash_allowance_pay(&s->allowance, &q->allowance, cost * q->n_guesses / s->plan.guesses,
                              q->n_samples ? q->n_samples - 1 : 0);
    }
}

static void step(ash_scheduler *s)
{
    sched_plan(s);
    s->steps++;
    if (!s->n_rows)
        return;
    int64_t t = ash_clock_ns();
    const ash_batch batch = {.rows = s->rows, .n = s->n_rows, .logits = s->logits};
    s->model->net->arch->forward(s->model->net, s->run, &batch);
    if (ash_model_lost(s->model)) {
        fail_running(s);
        return;
    }
    ash_pool_run(s->run->nn->pool, s->n_drawn, 1, draw_range, s);
    s->step_ns = ash_clock_ns() - t;
    ash_pace_note(&s->pace, &s->plan, s->step_ns);
    pay_guesses(s);
    ash_drafting_learn(&s->drafting, s->drawn, s->n_drawn);
    for (uint32_t i = 0; i < s->n_running;) {
        ash_sequence *q = s->running[i];
        if (q->rows)
            settle(s, q);
        if (i < s->n_running && s->running[i] == q)
            i++;
    }
}

/* ---- calls ---------------------------------------------------------------------------------- */

static int run_eval(ash_scheduler *s, const sched_call *e)
{
    uint32_t want = sched_blocks((uint32_t)e->n);
    while (s->n_running && ash_prefix_cache_room(s->cache, false) < want)
        sched_preempt(s, s->running[s->n_running - 1]); /* an empty pool holds one context at least */
    if (ash_prefix_cache_room(s->cache, false) < want)
        return ash_err_set(e->err, ASH_EAGAIN, "KV memory is held for a moment");
    for (uint32_t i = 0; i < want; i++) s->eval_blocks[i] = ash_prefix_cache_take(s->cache, false);
    float *out = e->logits;
    for (size_t at = 0; at < e->n;) {
        size_t n = e->n - at, most = (size_t)s->model->sizes.max_rows;
        n = n < most ? n : most;
        for (size_t i = 0; i < n; i++)
            s->rows[i] = (ash_batch_row){.token = e->ids[at + i],
                                         .pos = (int32_t)(at + i),
                                         .table = s->eval_blocks,
                                         .wants_logits = e->all || at + i == e->n - 1,
                                         .text = (int32_t)e->n};
        const ash_batch batch = {.rows = s->rows, .n = (int)n, .logits = out};
        s->model->net->arch->forward(s->model->net, s->run, &batch);
        if (e->all)
            out += (int64_t)n * s->model->net->hp.n_vocab;
        at += n;
    }
    ash_prefix_cache_give(s->cache, s->eval_blocks, want);
    if (ash_model_lost(s->model))
        return ash_err_set(e->err, ASH_EIO, "the pack file was damaged while it was in use");
    return 0;
}

/* ---- thread --------------------------------------------------------------------------------- */

static void answer(ash_scheduler *s, sched_call *e, int rc)
{
    pthread_mutex_lock(&s->lock);
    e->rc = rc;
    e->done = true;
    pthread_cond_broadcast(&s->answered);
    pthread_mutex_unlock(&s->lock);
}

static void note_stats(ash_scheduler *s, bool turn)
{
    uint64_t completion = s->completion_tokens;
    for (uint32_t i = 0; i < s->n_running; i++) completion += s->running[i]->usage.completion_tokens;
    uint32_t waiting = 0;
    for (ash_sequence *q = s->waiting; q; q = q->next) {
        completion += q->usage.completion_tokens;
        waiting++;
    }
    pthread_mutex_lock(&s->lock);
    s->stats.running = s->n_running;
    s->stats.queued = waiting;
    s->stats.kv_blocks_used = ash_prefix_cache_used(s->cache);
    s->stats.kv_blocks_cached = ash_prefix_cache_cached(s->cache);
    s->stats.kv_blocks_resident = ash_prefix_cache_resident(s->cache);
    s->stats.prompt_tokens = s->prompt_tokens;
    s->stats.cached_tokens = s->cached_tokens;
    s->stats.completion_tokens = completion;
    s->stats.guessed_tokens = s->guessed_tokens;
    s->stats.right_tokens = s->right_tokens;
    s->stats.drafted_tokens = s->drafted_tokens;
    s->stats.drafted_right = s->drafted_right;
    s->stats.last_step_ns = ash_clock_ns();
    s->turn |= turn;
    pthread_mutex_unlock(&s->lock);
}

/* Waits to be woken, or for the time at which the pool may give memory back; false once that has come. */
static bool wait_to_be_woken(ash_scheduler *s)
{
    if (s->trim_at == INT64_MAX)
        return !pthread_cond_wait(&s->wake, &s->lock);
    struct timespec at = {.tv_sec = s->trim_at / 1000000000, .tv_nsec = s->trim_at % 1000000000};
    return pthread_cond_timedwait(&s->wake, &s->lock, &at) != ETIMEDOUT;
}

/* Waits for something to do; what came in is the thread's from here on. False at the end. */
static bool take_work(ash_scheduler *s, sched_call **calls)
{
    pthread_mutex_lock(&s->lock);
    while (!s->stop && !s->inbox && !s->calls && !s->canceled && !s->turn &&
           (!s->waiting || s->stuck) && !s->n_running && wait_to_be_woken(s))
        continue;
    ash_sequence *in = s->inbox;
    s->inbox = NULL;
    s->inbox_end = &s->inbox;
    *calls = s->calls;
    s->calls = NULL;
    s->calls_end = &s->calls;
    bool stop = s->stop, canceled = s->canceled;
    s->canceled = s->turn = false;
    pthread_mutex_unlock(&s->lock);
    while (in) {
        ash_sequence *next = in->next;
        sched_wait(s, in);
        in = next;
    }
    if (canceled || stop) {
        if (stop)
            for (ash_sequence *q = s->all; q; q = q->all_next) atomic_store(&q->canceled, true);
        sched_drop_canceled(s);
    }
    return !stop;
}

static void *thread_main(void *arg)
{
    ash_scheduler *s = arg;
    sched_call *calls;
    while (take_work(s, &calls)) {
        while (calls) {
            sched_call *e = calls;
            calls = e->next; /* e is gone once it is answered */
            answer(s, e, e->fn ? e->fn(s->cache, s->run->kv, e->arg, e->err) : run_eval(s, e));
        }
        ash_kv_spill_turn(s->spill, s->n_running ? s->step_ns : STEP_BESIDE_NS);
        sched_start(s);
        bool steps = s->n_running;
        if (steps)
            step(s);
        int64_t now = ash_clock_ns();
        s->trim_at = ash_kv_trim_turn(&s->trim, now, steps ? s->step_ns : STEP_BESIDE_NS);
        note_stats(s, (steps && s->spill) || s->trim_at <= now);
    }
    while (calls) {
        sched_call *e = calls;
        calls = e->next;
        answer(s, e, ash_err_set(e->err, ASH_ECANCELED, "the engine was closed"));
    }
    return NULL;
}

/* ---- public --------------------------------------------------------------------------------- */

static int reserve(ash_scheduler *s, uint32_t warm_blocks, ash_err *err)
{
    const ash_sizes *z = &s->model->sizes;
    s->running = calloc(z->max_sequences, sizeof *s->running);
    s->drawn = calloc(z->max_sequences, sizeof *s->drawn);
    s->prompts = calloc(z->max_sequences, sizeof *s->prompts);
    s->rows = calloc((size_t)z->max_rows, sizeof *s->rows);
    s->eval_blocks = calloc(sched_blocks(z->n_ctx), sizeof *s->eval_blocks);
    if (!s->running || !s->drawn || !s->prompts || !s->rows || !s->eval_blocks)
        return ash_err_nomem(err, "scheduler");
    int rc = ash_prefix_cache_open((uint32_t)z->kv_blocks, ASH_KV_TOKENS, &s->cache, err);
    if (rc)
        return rc;
    ash_prefix_cache_warmed(s->cache, warm_blocks);
    s->stats.kv_blocks_resident = ash_prefix_cache_resident(s->cache);
    s->trim = (ash_kv_trim){.cache = s->cache, .kv = s->run->kv, .keep = sched_blocks((uint32_t)z->max_rows)};
    s->trim_at = INT64_MAX;
    return 0;
}

static void release(ash_scheduler *s)
{
    ash_kv_spill_close(s->spill);
    ash_prefix_cache_close(s->cache);
    free(s->running);
    free(s->drawn);
    free(s->prompts);
    free(s->rows);
    free(s->eval_blocks);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    pthread_cond_destroy(&s->answered);
    free(s);
}

int ash_scheduler_open(const ash_model *m, ash_run *run, float *logits, ash_prediction prediction,
                       ash_draft_model *draft, int64_t row_ns, uint32_t warm_blocks, ash_scheduler **out,
                       ash_err *err)
{
    *out = NULL;
    ash_scheduler *s = calloc(1, sizeof *s);
    if (!s)
        return ash_err_nomem(err, "scheduler");
    s->model = m;
    s->run = run;
    s->logits = logits;
    s->prediction = prediction;
    ash_pace_init(&s->pace, row_ns);
    ash_drafting_init(&s->drafting, draft, prediction == ASH_PREDICTION_ALWAYS);
    s->inbox_end = &s->inbox;
    s->calls_end = &s->calls;
    s->stats.kv_blocks = (uint32_t)m->sizes.kv_blocks;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_cond_init(&s->answered, NULL);
    int rc = reserve(s, warm_blocks, err);
    if (!rc && pthread_create(&s->thread, NULL, thread_main, s))
        rc = ash_err_nomem(err, "the scheduler's thread");
    if (rc) {
        release(s);
        return rc;
    }
    *out = s;
    return 0;
}

void ash_scheduler_close(ash_scheduler *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    release(s);
}

int ash_scheduler_submit(ash_scheduler *s, const ash_job *job, uint64_t *id, ash_err *err)
{
    ash_sequence *q;
    int rc = ash_sequence_open(s->model, job, &q, err);
    if (rc)
        return rc;
    pthread_mutex_lock(&s->lock);
    if (s->stop)
        rc = ash_err_set(err, ASH_ECANCELED, "the engine is closing");
    else if (s->n_all >= ASH_MAX_QUEUE)
        rc = ash_err_set(err, ASH_EAGAIN, "%u jobs wait or run already", s->n_all);
    if (!rc) {
        *id = q->id = ++s->last_id;
        *s->inbox_end = q;
        s->inbox_end = &q->next;
        q->all_next = s->all;
        s->all = q;
        s->n_all++;
        pthread_cond_signal(&s->wake);
    }
    pthread_mutex_unlock(&s->lock);
    if (rc)
        ash_sequence_close(q);
    return rc;
}

void ash_scheduler_cancel(ash_scheduler *s, uint64_t id)
{
    pthread_mutex_lock(&s->lock);
    for (ash_sequence *q = s->all; q; q = q->all_next)
        if (q->id == id) {
            atomic_store(&q->canceled, true);
            s->canceled = true;
            pthread_cond_signal(&s->wake);
            break;
        }
    pthread_mutex_unlock(&s->lock);
}

/* Has the thread answer c, and waits for that. */
static int make_call(ash_scheduler *s, sched_call *c)
{
    pthread_mutex_lock(&s->lock);
    if (s->stop) {
        pthread_mutex_unlock(&s->lock);
        return ash_err_set(c->err, ASH_ECANCELED, "the engine is closing");
    }
    *s->calls_end = c;
    s->calls_end = &c->next;
    pthread_cond_signal(&s->wake);
    while (!c->done) pthread_cond_wait(&s->answered, &s->lock);
    pthread_mutex_unlock(&s->lock);
    return c->rc;
}

int ash_scheduler_call(ash_scheduler *s, ash_scheduler_fn fn, void *arg, ash_err *err)
{
    return make_call(s, &(sched_call){.fn = fn, .arg = arg, .err = err});
}

uint64_t ash_scheduler_untouched(const ash_scheduler *s)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&s->lock;
    pthread_mutex_lock(lock);
    uint32_t most = s->model->sizes.max_sequences, running = s->stats.running;
    pthread_mutex_unlock(lock);
    uint64_t idle = running < most ? most - running : 0;
    return idle * ash_model_sampler_bytes(s->model) + ash_kv_spill_untouched(s->spill);
}

static int do_nothing(ash_prefix_cache *cache, ash_kv *kv, void *arg, ash_err *err)
{
    return 0;
}

int ash_scheduler_settle(ash_scheduler *s, ash_err *err)
{
    return ash_scheduler_call(s, do_nothing, NULL, err);
}

static void disk_is_done(void *user)
{
    ash_scheduler *s = user;
    pthread_mutex_lock(&s->lock);
    s->turn = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

typedef struct spilling {
    ash_scheduler *scheduler;
    ash_kv_slots *store;
} spilling;

static int begin_spilling(ash_prefix_cache *cache, ash_kv *kv, void *arg, ash_err *err)
{
    spilling *p = arg;
    ash_kv_slots *store = p->store;
    p->store = NULL;
    return ash_kv_spill_open(store, cache, kv, p->scheduler->model->sizes.n_ctx, &p->scheduler->spill, err);
}

int ash_scheduler_spill(ash_scheduler *s, ash_kv_slots *store, ash_err *err)
{
    spilling p = {s, store};
    ash_kv_slots_on_done(store, disk_is_done, s);
    int rc = ash_scheduler_call(s, begin_spilling, &p, err);
    ash_kv_slots_close(p.store); /* the scheduler was closing */
    return rc;
}

int ash_scheduler_eval(ash_scheduler *s, const int32_t *ids, size_t n, bool all, float *logits,
                       ash_err *err)
{
    int64_t n_vocab = s->model->net->hp.n_vocab;
    if (n < 1 || n > s->model->sizes.n_ctx)
        return ash_err_set(err, ASH_ELIMIT, "the prompt does not fit the context: n_prompt %zu, n_ctx %u",
                           n, s->model->sizes.n_ctx);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= n_vocab)
            return ash_err_set(err, ASH_EINVAL, "id %d at %zu of the prompt; the vocabulary has %lld",
                               ids[i], i, (long long)n_vocab);
    return make_call(s, &(sched_call){.ids = ids, .n = n, .all = all, .logits = logits, .err = err});
}

void ash_scheduler_stats(const ash_scheduler *s, ash_engine_stats *out)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&s->lock;
    pthread_mutex_lock(lock);
    *out = s->stats;
    for (const ash_sequence *q = s->inbox; q; q = q->next) out->queued++;
    pthread_mutex_unlock(lock);
}
