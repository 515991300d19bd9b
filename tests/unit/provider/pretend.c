/* The pretended manager and engine: one thread plays all jobs, as a scheduler does. */
#include "pretend.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct job {
    struct job *next;
    uint64_t id;
    ash_job what;
    pretend_play play;
    int at; /* tokens given, -1: not started */
    atomic_bool canceled;
    bool go;
} job;

typedef struct waiter {
    struct waiter *next;
    uint64_t ticket;
    ash_lease_fn cb;
    void *user;
} waiter;

struct ash_engine {
    ash_model_info info;
    ash_gguf *file;
    ash_tokenizer *tok;
    ash_template *tmpl;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool stop, ready;
    int acquire_rc;
    atomic_bool canceled; /* the last wait ended by a cancel */
    char message[128];
    job *jobs;
    waiter *waiters;
    uint64_t last_id;
    pretend_play play;
    pretend_log seen;
    ash_engine engine;
} world = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

/* ---- the engine ---- */

const ash_model_info *ash_engine_info(const ash_engine *e)
{
    return &e->info;
}
const ash_tokenizer *ash_engine_tokenizer(const ash_engine *e)
{
    return e->tok;
}
const ash_template *ash_engine_template(const ash_engine *e)
{
    return e->tmpl;
}
const char *ash_engine_bos_text(const ash_engine *e)
{
    return "<s>";
}
const char *ash_engine_eos_text(const ash_engine *e)
{
    return "</s>";
}

int ash_engine_submit(ash_engine *e, const ash_job *what, uint64_t *id, ash_err *err)
{
    pthread_mutex_lock(&world.lock);
    int rc = world.play.submit_rc;
    job *j = rc ? NULL : calloc(1, sizeof *j);
    if (!rc && !j) rc = ASH_ENOMEM;
    if (!rc) {
        *j = (job){.next = world.jobs, .what = *what, .play = world.play, .at = -1};
        *id = j->id = ++world.last_id;
        world.jobs = j;
        pretend_log *s = &world.seen;
        s->n_ids = what->n_ids < 4096 ? what->n_ids : 4096;
        memcpy(s->ids, what->ids, s->n_ids * sizeof *s->ids);
        s->seeds[s->submitted % PRETEND_MAX] = what->sampling.seed;
        s->max_tokens = what->max_tokens;
        snprintf(s->stop, sizeof s->stop, "%s", what->n_stops ? what->stops[0] : "");
        s->submitted++;
        pthread_cond_broadcast(&world.wake);
    }
    pthread_mutex_unlock(&world.lock);
    return rc ? ash_err_set(err, rc, "submit refused") : 0;
}

void ash_engine_cancel(ash_engine *e, uint64_t id)
{
    pthread_mutex_lock(&world.lock);
    for (job *j = world.jobs; j; j = j->next)
        if (j->id == id) {
            world.seen.canceled += !j->canceled;
            j->canceled = true;
        }
    pthread_cond_broadcast(&world.wake);
    pthread_mutex_unlock(&world.lock);
}

/* One event of j; true if it was the last. Not under the lock. */
static bool play_one(job *j)
{
    const char *text = j->at >= 0 ? j->play.tokens[j->at] : NULL;
    ash_event ev = {.kind = ASH_EVENT_DONE, .text = {"", 0}};
    ash_usage u = {.prompt_tokens = (uint32_t)j->what.n_ids,
                   .prefilled_tokens = (uint32_t)(j->at < 0 ? 0 : j->what.n_ids),
                   .completion_tokens = (uint32_t)(j->at < 0 ? 0 : j->at)};
    ash_sample s = {.id = 65, .logprob = -0.5f, .n_top = 1, .top = {{66, -0.25f}}};
    ash_err err = ASH_ERR_INIT;
    if (j->canceled) {
        ev.finish = ASH_FINISH_CANCELED;
    } else if (j->at < 0) {
        ev.kind = ASH_EVENT_STARTED;
        j->what.on_event(j->what.user, &ev);
        for (int i = 0; i < j->play.steps; i++) {
            usleep(100000);
            ev = (ash_event){.kind = ASH_EVENT_PROGRESS, .total = 9, .processed = 1};
            if (j->what.want_progress) j->what.on_event(j->what.user, &ev);
        }
        if (j->what.want_progress) {
            ev = (ash_event){.kind = ASH_EVENT_PROGRESS, .total = 9, .cached = 3, .processed = 9};
            j->what.on_event(j->what.user, &ev);
        }
        j->at = 0;
        return false;
    } else if (text) {
        ev.kind = ASH_EVENT_TOKEN;
        ev.text = ash_str_from(text);
        ev.sample = j->what.want_logprobs ? &s : NULL;
        j->at++;
    } else {
        ev.finish = j->play.finish;
        if (ev.finish == ASH_FINISH_ERROR) ash_err_set(&err, ASH_EFORMAT, "logits are not numbers");
    }
    ev.usage = &u;
    ev.error = &err;
    bool last = ev.kind == ASH_EVENT_DONE;
    j->what.on_event(j->what.user, &ev);
    return last;
}

static bool may_go(const job *j)
{
    return j->canceled || j->go || j->at != j->play.hold_at;
}

static void *scheduler(void *arg)
{
    pthread_mutex_lock(&world.lock);
    while (!world.stop || world.jobs) {
        job *j = world.jobs;
        while (j && !may_go(j)) j = j->next;
        if (!j) {
            pthread_cond_wait(&world.wake, &world.lock);
            continue;
        }
        pthread_mutex_unlock(&world.lock);
        bool last = play_one(j);
        pthread_mutex_lock(&world.lock);
        if (!last) continue;
        job **at = &world.jobs;
        while (*at != j) at = &(*at)->next;
        *at = j->next;
        free(j);
    }
    pthread_mutex_unlock(&world.lock);
    return NULL;
}

/* ---- the manager ---- */

int ash_manager_acquire(ash_manager *m, const char *id, int64_t load_ms, ash_lease_fn cb,
                        void *user, uint64_t *ticket, ash_err *err)
{
    pthread_mutex_lock(&world.lock);
    int rc = world.acquire_rc;
    bool ready = world.ready;
    *ticket = ++world.last_id;
    if (!rc && !ready) {
        waiter *w = malloc(sizeof *w);
        *w = (waiter){world.waiters, *ticket, cb, user};
        world.waiters = w;
    }
    world.seen.leases += !rc && ready;
    pthread_mutex_unlock(&world.lock);
    if (rc) return ash_err_set(err, rc, "%s", world.message);
    if (ready) cb(user, &world.engine, NULL);
    return 0;
}

int ash_manager_keep(ash_manager *m, const char *id, int64_t keep_alive_ms, ash_err *err)
{
    pthread_mutex_lock(&world.lock);
    world.seen.kept_ms = keep_alive_ms;
    world.seen.kept++;
    pthread_mutex_unlock(&world.lock);
    return 0;
}

void ash_manager_abandon(ash_manager *m, uint64_t ticket)
{
    pthread_mutex_lock(&world.lock);
    waiter **at = &world.waiters, *w;
    while (*at && (*at)->ticket != ticket) at = &(*at)->next;
    w = *at;
    if (w) {
        *at = w->next;
        world.seen.abandoned++;
    }
    pthread_mutex_unlock(&world.lock);
    ash_err err = ASH_ERR_INIT;
    ash_err_set(&err, ASH_ECANCELED, "the request was cancelled");
    if (w) w->cb(w->user, NULL, &err);
    free(w);
}

void ash_manager_release(ash_manager *m, ash_engine *e)
{
    pthread_mutex_lock(&world.lock);
    world.seen.released++;
    pthread_mutex_unlock(&world.lock);
}

json_t *ash_manager_progress(const ash_manager *m, const char *id)
{
    if (!strcmp(id, "nobody")) return NULL;
    json_t *error = world.canceled ? json_null() /* it did not fail */
                                   : json_pack("{s:s, s:s}", "code", "not_downloaded", "hint", "fetch it");
    return json_pack("{s:s, s:s, s:f, s:o}", "model", id, "state",
                     strcmp(id, "stopped") ? "loading" : "unloaded", "eta_seconds", 6.5, "error", error);
}

/* ---- for tests ---- */

void pretend_open(const char *template_text, uint32_t n_ctx)
{
    char path[512];
    snprintf(path, sizeof path, "%s/tokenizer/bpe.gguf", getenv("ASHLEY_TEST_DATA"));
    ash_err err = ASH_ERR_INIT;
    ash_engine *e = &world.engine;
    memset(e, 0, sizeof *e);
    if (ash_gguf_open(path, &e->file, &err) || ash_tokenizer_open_gguf(e->file, &e->tok, &err) ||
        (template_text &&
         ash_template_parse(template_text, strlen(template_text), &e->tmpl, &err))) {
        fprintf(stderr, "%s\n", err.msg);
        abort();
    }
    e->info = (ash_model_info){.n_ctx = n_ctx, .architecture = "llama"};
    memset(&world.seen, 0, sizeof world.seen);
    world.stop = false;
    pretend_manager(true, 0, "");
    if (pthread_create(&world.thread, NULL, scheduler, NULL)) abort();
}

void pretend_close(void)
{
    pthread_mutex_lock(&world.lock);
    world.stop = true;
    pthread_cond_broadcast(&world.wake);
    pthread_mutex_unlock(&world.lock);
    pthread_join(world.thread, NULL);
    ash_template_close(world.engine.tmpl);
    ash_tokenizer_close(world.engine.tok);
    ash_gguf_close(world.engine.file);
}

void pretend_set(pretend_play play)
{
    pthread_mutex_lock(&world.lock);
    world.play = play;
    pthread_mutex_unlock(&world.lock);
}

pretend_log pretend_seen(void)
{
    pthread_mutex_lock(&world.lock);
    pretend_log s = world.seen;
    pthread_mutex_unlock(&world.lock);
    return s;
}

const ash_tokenizer *pretend_tokenizer(void)
{
    return world.engine.tok;
}

void pretend_go(void)
{
    pthread_mutex_lock(&world.lock);
    for (job *j = world.jobs; j; j = j->next) j->go = true;
    pthread_cond_broadcast(&world.wake);
    pthread_mutex_unlock(&world.lock);
}

void pretend_manager(bool ready, int acquire_rc, const char *message)
{
    pthread_mutex_lock(&world.lock);
    world.ready = ready;
    world.canceled = false;
    world.acquire_rc = acquire_rc;
    snprintf(world.message, sizeof world.message, "%s", message);
    pthread_mutex_unlock(&world.lock);
}

void pretend_loaded(int code, const char *message)
{
    ash_err err = ASH_ERR_INIT;
    if (code) ash_err_set(&err, code, "%s", message);
    pthread_mutex_lock(&world.lock);
    waiter *w = world.waiters;
    world.waiters = NULL;
    world.canceled = code == ASH_ECANCELED;
    for (waiter *i = w; i; i = i->next) world.seen.leases += !code;
    pthread_mutex_unlock(&world.lock);
    while (w) {
        waiter *next = w->next;
        w->cb(w->user, code ? NULL : &world.engine, code ? &err : NULL);
        free(w);
        w = next;
    }
}
