/* Owns requests to models on this machine: lease, prompt, jobs, time budgets, cancellation. Refuses
 * what does not fit the context. Its one thread watches budgets and tells waiting clients of a
 * load; all else runs on the caller's, the manager's or the scheduler's thread. */
#include "provider/local.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "provider/local_private.h"

enum { WAITING_EVERY_MS = 1000, MAX_TEXT = 1 << 20, DEFAULT_RETRY_S = 5 };

struct local {
    ash_provider provider; /* first: what callers hold */
    ash_manager *manager;
    pthread_t timer;
    pthread_mutex_t lock;
    pthread_cond_t changed;   /* for the timer, and for close */
    ash_answering *all;       /* lock */
    int freeing;              /* lock; requests taken out of `all` whose memory is being freed */
    bool stop;                /* lock */
    _Atomic int64_t wakes_at; /* when the timer looks next; INT64_MAX: when it is told */
    atomic_ullong prompt, cached, completion; /* tokens */
};

/* ---- time ---- */

static void set_due(ash_answering *a, int64_t when)
{
    local *p = a->owner;
    atomic_store(&a->due, when);
    if (!when || when >= atomic_load(&p->wakes_at)) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

void local_due(ash_answering *a, int64_t ms)
{
    set_due(a, ms > 0 ? ash_clock_ms() + ms : 0);
}

static const char *late_code(const ash_answering *a, const char **what, int64_t *ms)
{
    const ash_budgets *b = &a->req.budgets;
    if (a->phase == LOCAL_QUEUED) {
        *what = "the queue did not reach this request";
        *ms = b->queue_ms;
        return "queue_timeout";
    }
    if (a->phase == LOCAL_PREFILL) {
        *what = "no first token came";
        *ms = b->first_token_ms;
        return "first_token_timeout";
    }
    *what = "no token came";
    *ms = b->idle_ms;
    return "idle_timeout";
}

/* A budget is spent, unless an event came just now. */
static void fail_late(ash_answering *a)
{
    ash_api_error e;
    const char *what;
    int64_t ms;
    pthread_mutex_lock(&a->lock);
    bool due = atomic_load(&a->due) && ash_clock_ms() >= atomic_load(&a->due);
    bool late = due && a->phase >= LOCAL_QUEUED && a->phase <= LOCAL_RUNNING;
    if (late) {
        const char *code = late_code(a, &what, &ms);
        local_error(&e, 503, "unavailable_error", code, "%s within %lld ms", what, (long long)ms);
        e.retry_after = DEFAULT_RETRY_S;
        ash_info("local", "request %s: %s", a->req.id, e.message);
        local_end(a, &(ash_answer){.kind = ASH_ANSWER_ERROR, .error = &e});
    } else if (due) {
        local_due(a, 0);
    }
    pthread_mutex_unlock(&a->lock);
    if (late) local_cancel_jobs(a);
}

/* Tells a client that waits for a load how far it is; at most once a second. */
static void tell_waiting(ash_answering *a)
{
    json_t *progress = ash_manager_progress(a->owner->manager, a->req.model);
    pthread_mutex_lock(&a->lock);
    if (a->phase == LOCAL_LOADING && !a->leased) {
        if (progress) local_give(a, &(ash_answer){.kind = ASH_ANSWER_WAITING, .waiting = progress});
        local_due(a, a->phase == LOCAL_LOADING ? WAITING_EVERY_MS : 0);
    }
    pthread_mutex_unlock(&a->lock);
    json_decref(progress);
}

static void look(ash_answering *a)
{
    pthread_mutex_lock(&a->lock);
    bool loading = a->phase == LOCAL_LOADING;
    pthread_mutex_unlock(&a->lock);
    if (loading)
        tell_waiting(a);
    else
        fail_late(a);
}

/* One that is due (and stays so until look() moves it), with a reference; else NULL and when the
 * next one is. The lock is held. */
static ash_answering *find_due(local *p, int64_t now, int64_t *next)
{
    *next = INT64_MAX;
    for (ash_answering *a = p->all; a; a = a->next) {
        int64_t due = atomic_load(&a->due);
        if (due && due <= now) {
            a->refs++;
            return a;
        }
        if (due && due < *next) *next = due;
    }
    return NULL;
}

static void sleep_until(local *p, int64_t when)
{
    if (when == INT64_MAX) {
        pthread_cond_wait(&p->changed, &p->lock);
        return;
    }
    struct timespec t = {.tv_sec = when / 1000, .tv_nsec = when % 1000 * 1000000};
    pthread_cond_timedwait(&p->changed, &p->lock, &t);
}

static void *timer_thread(void *arg)
{
    local *p = arg;
    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        int64_t next;
        atomic_store(&p->wakes_at, INT64_MAX); /* a due time set from here on wakes us */
        ash_answering *a = find_due(p, ash_clock_ms(), &next);
        if (a) {
            pthread_mutex_unlock(&p->lock);
            look(a);
            local_unref(a);
            pthread_mutex_lock(&p->lock);
            continue;
        }
        atomic_store(&p->wakes_at, next);
        sleep_until(p, next);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* ---- life of a request ---- */

static void free_request(ash_answering *a)
{
    for (int i = 0; i < a->n_jobs; i++) {
        ash_buf_release(&a->jobs[i].content);
        ash_buf_release(&a->jobs[i].reasoning);
    }
    free(a->jobs);
    free((void *)a->req.stops);
    free((void *)a->req.sampling.logit_bias);
    free(a->strings);
    json_decref((json_t *)a->req.body);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

void local_ref(ash_answering *a)
{
    pthread_mutex_lock(&a->owner->lock);
    a->refs++;
    pthread_mutex_unlock(&a->owner->lock);
}

void local_unref(ash_answering *a)
{
    local *p = a->owner;
    pthread_mutex_lock(&p->lock);
    bool last = --a->refs == 0;
    if (last) {
        if (p->all == a) p->all = a->next;
        if (a->prev) a->prev->next = a->next;
        if (a->next) a->next->prev = a->prev;
        p->freeing++; /* local_close waits for it: p is used once more below */
    }
    pthread_mutex_unlock(&p->lock);
    if (!last) return;
    free_request(a);
    pthread_mutex_lock(&p->lock);
    p->freeing--;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

void local_count(ash_answering *a, const ash_usage *u, bool with_prompt)
{
    local *p = a->owner;
    uint32_t cached = u->cached_tokens < u->prefilled_tokens ? u->cached_tokens : u->prefilled_tokens;
    atomic_fetch_add(&p->completion, u->completion_tokens);
    if (!with_prompt) return;
    atomic_fetch_add(&p->prompt, u->prefilled_tokens - cached);
    atomic_fetch_add(&p->cached, cached);
}

static void local_counts(ash_provider *provider, ash_token_counts *out)
{
    local *p = (local *)provider;
    *out = (ash_token_counts){.prompt = atomic_load(&p->prompt),
                              .cached = atomic_load(&p->cached),
                              .completion = atomic_load(&p->completion)};
}

void local_drop_use(ash_answering *a)
{
    pthread_mutex_lock(&a->lock);
    ash_engine *e = --a->engine_uses == 0 ? a->engine : NULL;
    pthread_mutex_unlock(&a->lock);
    if (e) ash_manager_release(a->owner->manager, e);
}

void local_cancel_jobs(ash_answering *a)
{
    uint64_t ids[ASH_MAX_CHOICES];
    int n = 0;
    pthread_mutex_lock(&a->lock);
    ash_engine *e = a->engine_uses ? a->engine : NULL;
    for (int i = 0; e && i < a->n_jobs; i++)
        if (a->jobs[i].id && !a->jobs[i].done) ids[n++] = a->jobs[i].id;
    a->engine_uses += n > 0;
    pthread_mutex_unlock(&a->lock);
    for (int i = 0; i < n; i++) ash_engine_cancel(e, ids[i]);
    if (n) local_drop_use(a);
}

/* Copies s to *at, which moves on; where the copy is. */
static const char *put(char **at, const char *s)
{
    size_t n = strlen(s) + 1;
    char *to = memcpy(*at, s, n);
    *at += n;
    return to;
}

/* Copies what the request points to; its body is shared. */
static int copy_request(ash_answering *a, const ash_request *q)
{
    const char *id = q->id ? q->id : "";
    size_t bytes = strlen(id) + strlen(q->model) + 2, bias = q->sampling.n_logit_bias;
    for (size_t i = 0; i < q->n_stops; i++) bytes += strlen(q->stops[i]) + 1;
    a->req = *q;
    a->req.body = json_incref((json_t *)q->body);
    a->req.stops = calloc(q->n_stops + 1, sizeof *q->stops);
    a->req.sampling.logit_bias = calloc(bias + 1, sizeof(ash_logit_bias));
    a->strings = malloc(bytes);
    if (!a->req.stops || !a->req.sampling.logit_bias || !a->strings) return ASH_ENOMEM;
    if (bias)
        memcpy((void *)a->req.sampling.logit_bias, q->sampling.logit_bias,
               bias * sizeof(ash_logit_bias));
    char *at = a->strings;
    a->req.id = put(&at, id);
    a->req.model = put(&at, q->model);
    for (size_t i = 0; i < q->n_stops; i++)
        ((const char **)a->req.stops)[i] = put(&at, q->stops[i]);
    return 0;
}

/* ---- with the lease ---- */

static int make_jobs(ash_answering *a, const local_prompt *prompts, size_t n_prompts, ash_err *err)
{
    if (a->req.n < 1 || n_prompts * (size_t)a->req.n > ASH_MAX_CHOICES)
        return ash_err_set(err, ASH_EINVAL, "'n' must give 1 to %d choices in all",
                           ASH_MAX_CHOICES);
    int n = (int)n_prompts * a->req.n;
    const json_t *format = json_object_get(a->req.body, "reasoning_format");
    bool whole = a->req.kind == ASH_REQUEST_COMPLETION ||
                 (json_is_string(format) && !strcmp(json_string_value(format), "none"));
    local_job *jobs = calloc((size_t)n, sizeof *jobs);
    if (!jobs) return ash_err_nomem(err, "choices of a request");
    for (int i = 0; i < n; i++) {
        jobs[i].a = a;
        jobs[i].index = i;
        jobs[i].counts_prompt = i % a->req.n == 0;
        ash_think_init(&jobs[i].think, prompts[i / a->req.n].thinks, whole);
        ash_buf_init(&jobs[i].content, MAX_TEXT);
        ash_buf_init(&jobs[i].reasoning, MAX_TEXT);
    }
    pthread_mutex_lock(&a->lock);
    a->jobs = jobs;
    a->n_jobs = n;
    pthread_mutex_unlock(&a->lock);
    return 0;
}

static int submit_job(ash_answering *a, local_job *j, const local_prompt *prompt, ash_err *err)
{
    const ash_request *q = &a->req;
    ash_job job = {
        .ids = prompt->ids.p,
        .n_ids = prompt->ids.n,
        .sampling = q->sampling,
        .max_tokens = q->max_tokens,
        .stops = q->stops,
        .n_stops = q->n_stops,
        .ignore_eos = q->ignore_eos,
        .want_logprobs = q->logprobs,
        .want_progress = (q->return_progress || q->budgets.first_token_renewed) && !j->index,
        .skip_special = true,
        .background = q->background,
        .on_event = local_on_event,
        .user = j,
    };
    if (job.sampling.seed >= 0)
        job.sampling.seed =
            (int64_t)(((uint64_t)q->sampling.seed + (uint64_t)(j->index % q->n)) & INT64_MAX);
    local_ref(a);
    pthread_mutex_lock(&a->lock);
    a->engine_uses++;
    pthread_mutex_unlock(&a->lock);
    uint64_t id;
    int rc = ash_engine_submit(a->engine, &job, &id, err);
    pthread_mutex_lock(&a->lock);
    if (!rc) j->id = id;
    pthread_mutex_unlock(&a->lock);
    if (rc) {
        local_drop_use(a);
        local_unref(a);
    }
    return rc;
}

static void fail_submit(ash_answering *a, const ash_err *err)
{
    ash_api_error e;
    static const char bias[] = "'logit_bias'"; /* the one field that only the engine can check */
    if (err->code == ASH_EINVAL || err->code == ASH_ELIMIT) {
        local_error(&e, 400, "invalid_request_error", NULL, "%s", err->msg);
        if (!strncmp(err->msg, bias, sizeof bias - 1)) e.param = "logit_bias";
    } else {
        local_error(&e, 503, "unavailable_error",
                    err->code == ASH_EAGAIN      ? "queue_full"
                    : err->code == ASH_ECANCELED ? "shutting_down"
                                                 : "out_of_memory",
                    "%s", err->msg);
        e.retry_after = DEFAULT_RETRY_S;
    }
    local_fail(a, &e);
}

static void submit(ash_answering *a, const local_prompt *prompts, size_t n_prompts)
{
    ash_err err = ASH_ERR_INIT;
    int rc = make_jobs(a, prompts, n_prompts, &err);
    pthread_mutex_lock(&a->lock);
    bool gone = a->closed || a->phase == LOCAL_ENDED;
    if (!gone) a->phase = LOCAL_QUEUED;
    pthread_mutex_unlock(&a->lock);
    if (gone) return;
    local_due(a, a->req.budgets.queue_ms);
    for (int i = 0; !rc && i < a->n_jobs; i++)
        rc = submit_job(a, &a->jobs[i], &prompts[i / a->req.n], &err);
    if (rc) fail_submit(a, &err);
    pthread_mutex_lock(&a->lock);
    gone = a->closed || a->phase == LOCAL_ENDED;
    pthread_mutex_unlock(&a->lock);
    if (gone) local_cancel_jobs(a); /* events that came before the ids were known could not */
}

static void answer_with(ash_answering *a, ash_engine *engine)
{
    local_prompt prompts[ASH_MAX_CHOICES] = {0};
    size_t n = 0;
    ash_api_error e = {0};
    if (local_prompts_make(a, engine, prompts, &n, &e))
        local_fail(a, &e);
    else
        submit(a, prompts, n);
    json_decref(e.extra);
    for (size_t i = 0; i < n; i++) ash_ids_release(&prompts[i].ids);
    json_decref((json_t *)a->req.body); /* it may take megabytes, and the answer minutes */
    a->req.body = NULL;
}

/* ---- without the lease ---- */

static int retry_seconds(const json_t *progress)
{
    double eta = json_number_value(json_object_get(progress, "eta_seconds"));
    return eta < 1 ? DEFAULT_RETRY_S : eta > 3600 ? 3600 : (int)eta + 1;
}

/* The load failed or was ended: the manager's own code for it, and what to do. */
static void describe_failure(ash_answering *a, const ash_err *err, const json_t *progress,
                             ash_api_error *e)
{
    const json_t *why = json_object_get(progress, "error");
    const char *code = json_string_value(json_object_get(why, "code"));
    const char *hint = json_string_value(json_object_get(why, "hint"));
    const char *state = json_string_value(json_object_get(progress, "state"));
    if (err->code == ASH_ECANCELED && !code) /* after a cancel by somebody the model is unloaded */
        code = state && !strcmp(state, "unloaded") ? "load_canceled" : "shutting_down";
    local_error(e, 503, "unavailable_error", code ? code : "load_failed",
                "the model '%.80s' is not ready: %.300s%s%.110s%s", a->req.model, err->msg,
                hint ? " (" : "", hint ? hint : "", hint ? ")" : "");
}

static void fail_lease(ash_answering *a, const ash_err *err)
{
    ash_api_error e;
    json_t *progress = ash_manager_progress(a->owner->manager, a->req.model);
    if (err->code == ASH_ENOENT && !progress) {
        local_error(&e, 404, "not_found_error", "model_not_found", "%s", err->msg);
    } else if (err->code == ASH_ETIMEDOUT) {
        local_error(&e, 503, "unavailable_error", "model_loading",
                    "the model '%.100s' is still loading after %lld ms; the load goes on",
                    a->req.model, (long long)a->req.budgets.load_ms);
        e.loading = progress;
    } else {
        describe_failure(a, err, progress, &e);
    }
    if (e.status == 503) e.retry_after = retry_seconds(progress);
    local_fail(a, &e);
    json_decref(progress);
}

static void on_lease(void *user, ash_engine *engine, const ash_err *err)
{
    ash_answering *a = user;
    pthread_mutex_lock(&a->lock);
    a->leased = true;
    if (a->phase == LOCAL_LOADING) a->phase = LOCAL_PREPARING;
    bool gone = a->closed || a->phase == LOCAL_ENDED;
    a->engine = engine;
    a->engine_uses = engine != NULL;
    local_due(a, 0);
    pthread_mutex_unlock(&a->lock);
    if (engine && !gone && a->req.has_keep_alive &&
        ash_manager_keep(a->owner->manager, a->req.model, a->req.keep_alive_ms, NULL))
        ash_warn("local", "request %s: '%s' is gone", a->req.id, a->req.model);
    if (!engine && !gone)
        fail_lease(a, err);
    else if (engine && !gone)
        answer_with(a, engine);
    if (engine) local_drop_use(a);
    local_unref(a);
}

/* ---- the provider ---- */

static ash_answering *make_request(local *p, const ash_request *req, ash_answer_fn fn, void *user)
{
    ash_answering *a = calloc(1, sizeof *a);
    if (!a) return NULL;
    pthread_mutex_init(&a->lock, NULL);
    a->owner = p;
    a->fn = fn;
    a->user = user;
    a->refs = 2; /* the caller's, and the lease's */
    if (copy_request(a, req)) {
        free_request(a);
        return NULL;
    }
    pthread_mutex_lock(&p->lock);
    a->next = p->all;
    if (p->all) p->all->prev = a;
    p->all = a;
    pthread_mutex_unlock(&p->lock);
    return a;
}

static int local_start(ash_provider *provider, const ash_request *req, ash_answer_fn fn, void *user,
                       ash_answering **out, ash_err *err)
{
    local *p = (local *)provider;
    ash_answering *a = make_request(p, req, fn, user);
    *out = a;
    if (!a) return ash_err_nomem(err, "request");
    ash_err why = ASH_ERR_INIT;
    int rc = ash_manager_acquire(p->manager, a->req.model, a->req.budgets.load_ms, on_lease, a,
                                 &a->ticket, &why);
    if (rc) {
        on_lease(a, NULL, &why);
        return 0;
    }
    pthread_mutex_lock(&a->lock);
    if (!a->leased) set_due(a, ash_clock_ms());
    pthread_mutex_unlock(&a->lock);
    return 0;
}

static void local_resume(ash_provider *provider, ash_answering *a)
{
    (void)provider; /* an engine never stopped for this reader */
    (void)a;
}

static void local_close_request(ash_provider *provider, ash_answering *a)
{
    local *p = (local *)provider;
    pthread_mutex_lock(&a->lock); /* waits for an event that is being given */
    a->closed = true;
    bool waits = !a->leased;
    pthread_mutex_unlock(&a->lock);
    if (waits) ash_manager_abandon(p->manager, a->ticket);
    local_cancel_jobs(a);
    local_unref(a);
}

static void local_close(ash_provider *provider)
{
    local *p = (local *)provider;
    pthread_mutex_lock(&p->lock);
    while (p->all || p->freeing) /* canceled jobs end soon */
        pthread_cond_wait(&p->changed, &p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->timer, NULL);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static int start_timer(local *p)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->changed, &attr);
    pthread_condattr_destroy(&attr);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&p->timer, NULL, timer_thread, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int ash_local_open(ash_manager *m, ash_provider **out, ash_err *err)
{
    *out = NULL;
    local *p = calloc(1, sizeof *p);
    if (!p) return ash_err_nomem(err, "local provider");
    p->manager = m;
    p->wakes_at = INT64_MAX;
    pthread_mutex_init(&p->lock, NULL);
    int rc = start_timer(p);
    if (rc) {
        pthread_mutex_destroy(&p->lock);
        free(p);
        return ash_err_set(err, ASH_EIO, "cannot start the timer's thread: %s", strerror(rc));
    }
    p->provider = (ash_provider){
        .name = "local",
        .start = local_start,
        .resume = local_resume,
        .close_request = local_close_request,
        .close = local_close,
        .counts = local_counts,
    };
    *out = &p->provider;
    return 0;
}
