/* Owns a loaded model with its scratch, KV pool and scheduler. Refuses what model and scheduler refuse.
 * Public functions: any thread; open and close: one. */
#include "engine/engine.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/pages.h"
#include "engine/kv_folder.h"
#include "engine/kv_prompt.h"
#include "engine/model_text.h"

struct ash_engine {
    ash_model *model;
    ash_run run;
    float *logits;      /* [max_sequences + ASH_MAX_DRAFT][n_vocab], behind the run's scratch */
    void *map;          /* owned: scratch and logits */
    uint64_t map_bytes;
    ash_draft_model *draft; /* or NULL */
    char draft_refused[sizeof ((ash_err *)0)->msg];
    ash_scheduler *scheduler;
    ash_kv_prompt *kept; /* the warm prompt's file, or NULL */
};

/* Takes the headers that are open already, sized by these options, or opens them. */
static int have_headers(const ash_engine_opts *opts, ash_model **out, ash_err *err)
{
    ash_model *m = opts->headers ? *opts->headers : NULL;
    *out = NULL;
    if (!m)
        return ash_model_open(opts, out, err);
    *opts->headers = NULL;
    int rc = ash_model_size(m, opts, err);
    if (rc)
        ash_model_close(m);
    else
        *out = m;
    return rc;
}

int ash_engine_plan_read(const ash_engine_opts *opts, ash_engine_plan *out, ash_err *err)
{
    ash_model *m;
    int rc = have_headers(opts, &m, err);
    if (rc)
        return rc;
    *out = m->sizes.plan;
    if (opts->headers && opts->text_ahead)
        ash_model_text_start(m, opts);
    ash_err own = ASH_ERR_INIT;
    if (opts->draft_path && opts->prediction != ASH_PREDICTION_NEVER &&
        ash_draft_model_plan(opts, out->n_ctx, &out->draft_bytes, &own) == ASH_ENOMEM)
        rc = ash_err_nomem(err, "draft model");
    if (opts->headers)
        *opts->headers = m;
    else
        ash_model_close(m);
    return rc;
}

void ash_headers_close(ash_headers *h)
{
    ash_model_close(h);
}

/* ---- opening -------------------------------------------------------------------------------- */

static int reserve_run(ash_engine *e, ash_err *err)
{
    const ash_sizes *z = &e->model->sizes;
    uint64_t run = (z->run_bytes + 63) / 64 * 64;
    int rc = ash_kv_open(&z->kv, z->kv_blocks, &e->run.kv, err);
    if (rc)
        return rc;
    e->map_bytes = run + z->logits_bytes;
    void *map = mmap(NULL, e->map_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return ash_err_nomem(err, "scratch of an engine");
    e->map = map;
    e->run.scratch = map;
    e->logits = (float *)((char *)map + run);
    return 0;
}

/* One forward of n rows at positions 0.. of a sequence in the pool's first blocks. */
static int64_t warm_step(ash_engine *e, ash_batch_row *rows, const int32_t *table, int n)
{
    for (int i = 0; i < n; i++)
        rows[i] = (ash_batch_row){.pos = i, .table = table, .wants_logits = i == n - 1};
    int64_t t = ash_clock_ns();
    const ash_batch batch = {.rows = rows, .n = n, .logits = e->logits};
    e->model->net->arch->forward(e->model->net, &e->run, &batch);
    return ash_clock_ns() - t;
}

/* Runs the code and touches the memory of prompts and single tokens, so that no request pays for that;
 * *row_ns is what a prompt's row took, and *used says how many of the pool's first blocks were. A large
 * model's first token has touched all that matters, and its prompts are not kept waiting: a row among many
 * takes less than a quarter of the time of one alone. A request that waits already would pay for every step
 * twice, so that it ends them. */
static int warm(ash_engine *e, const ash_engine_opts *opts, int64_t *row_ns, uint32_t *used, ash_err *err)
{
    enum { STEPS = 3, FIRST = ASH_KV_TOKENS, WORTH_NS = 200000000, BYTES_A_NS = 10 };
    const ash_sizes *z = &e->model->sizes;
    ash_model_info *info = &e->model->info;
    int most = (int)z->n_ctx < z->max_rows ? (int)z->n_ctx : z->max_rows;
    const int counts[STEPS] = {1, most < FIRST ? most : FIRST, most};
    int blocks = (most + ASH_KV_TOKENS - 1) / ASH_KV_TOKENS;
    ash_batch_row *rows = calloc((size_t)most, sizeof *rows);
    int32_t *table = calloc((size_t)blocks, sizeof *table);
    int rc = rows && table ? 0 : ash_err_nomem(err, "warming up");
    for (int i = 0; !rc && i < blocks; i++) table[i] = i;
    *row_ns = (int64_t)(info->step_bytes / BYTES_A_NS / 4); /* until it is measured */
    info->warmed = true;
    e->run.give_way = opts->awaited;
    for (int i = 0; !rc && i < STEPS && (!i || *row_ns * counts[i] < WORTH_NS); i++) {
        rc = ash_model_progress(opts, ASH_LOAD_WARM, (uint64_t)i, STEPS, err);
        int64_t ns = !rc && !ash_run_gives_way(&e->run) ? warm_step(e, rows, table, counts[i]) : 0;
        if (ns)
            *used = (uint32_t)(counts[i] + ASH_KV_TOKENS - 1) / ASH_KV_TOKENS;
        if (ash_run_gives_way(&e->run)) {
            info->warmed = false;
            break;
        }
        *row_ns = i ? ns / counts[i] : ns / 4;
    }
    e->run.give_way = NULL;
    free(rows);
    free(table);
    return rc ? rc : ash_model_progress(opts, ASH_LOAD_WARM, STEPS, STEPS, err);
}

/* What keeps a draft model from guessing costs a warning: the model serves without. */
static int open_draft(ash_engine *e, const ash_engine_opts *opts, ash_err *err)
{
    ash_model_info *info = &e->model->info;
    ash_err own = ASH_ERR_INIT;
    if (!opts->draft_path || opts->prediction == ASH_PREDICTION_NEVER)
        return 0;
    int rc = ash_draft_model_open(opts, e->model, e->run.nn->pool, &e->draft, &own);
    if (rc == ASH_ECANCELED)
        return ash_err_set(err, rc, "%s", own.msg);
    if (!rc) {
        info->draft = ash_draft_model_name(e->draft);
        info->draft_bytes = ash_draft_model_bytes(e->draft);
        return 0;
    }
    memcpy(e->draft_refused, own.msg, sizeof e->draft_refused);
    info->draft_refused = e->draft_refused;
    ash_warn("engine", "%s: no draft model guesses: %s", opts->path, own.msg);
    return 0;
}

/* ---- warm prompt ---------------------------------------------------------------------------- */

/* Adds the ids of the prompt that a chat with this system message and this first word would send. */
static int chat_ids(const ash_engine *e, const char *system, const char *user, ash_ids *ids, ash_err *err)
{
    const ash_model *m = e->model;
    json_t *messages = json_pack("[{s:s,s:s},{s:s,s:s}]", "role", "system", "content", system, "role",
                                 "user", "content", user);
    if (!messages)
        return ash_err_set(err, ASH_EINVAL, "the warm prompt is no valid UTF-8, or memory is short");
    ash_buf text;
    ash_spans untrusted = {0};
    ash_buf_init(&text, ASH_MAX_TEMPLATE_OUTPUT);
    const ash_chat_opts opts = {.bos_token = m->bos_text, .eos_token = m->eos_text,
                                .add_generation_prompt = true};
    int rc = ash_chat_format(m->template, messages, &opts, &text, &untrusted, err);
    if (!rc)
        rc = ash_tokenizer_encode(m->tokenizer, ash_buf_cstr(&text), text.len, ASH_ENCODE_SPECIAL,
                                  untrusted.v, untrusted.n, ids, err);
    ash_spans_release(&untrusted);
    ash_buf_release(&text);
    json_decref(messages);
    return rc;
}

/* The ids that all chats with this system message begin with: what two of them have in common. Without
 * a template the text itself. */
static int warm_ids(const ash_engine *e, const char *system, ash_ids *ids, ash_err *err)
{
    if (!e->model->template)
        return ash_tokenizer_encode(e->model->tokenizer, system, strlen(system), ASH_ENCODE_BOS_EOS,
                                    NULL, 0, ids, err);
    ash_ids other = ASH_IDS_INIT;
    int rc = chat_ids(e, system, "a", ids, err);
    if (!rc)
        rc = chat_ids(e, system, "1", &other, err);
    size_t n = 0;
    while (!rc && n < ids->n && n < other.n && ids->p[n] == other.p[n]) n++;
    ids->n = n;
    ash_ids_release(&other);
    return rc;
}

typedef struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t done_cond;
    bool done;
    ash_finish finish;
    ash_err err; /* why not, for ASH_FINISH_ERROR */
    uint32_t processed;
} waiter;

static void on_warm_event(void *user, const ash_event *ev)
{
    waiter *w = user;
    pthread_mutex_lock(&w->lock);
    if (ev->kind == ASH_EVENT_PROGRESS)
        w->processed = ev->processed;
    if (ev->kind == ASH_EVENT_DONE) {
        w->done = true;
        w->finish = ev->finish;
        if (ev->error)
            w->err = *ev->error;
        pthread_cond_signal(&w->done_cond);
    }
    pthread_mutex_unlock(&w->lock);
}

/* Waits for the prefill, reporting and looking for a cancel ten times a second. */
static int await_prefill(ash_engine *e, const ash_engine_opts *opts, waiter *w, uint64_t id,
                         uint64_t total, ash_err *err)
{
    int rc = 0;
    pthread_mutex_lock(&w->lock);
    while (!w->done) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&w->done_cond, &w->lock, &until);
        uint32_t processed = w->processed;
        pthread_mutex_unlock(&w->lock);
        if (!rc)
            rc = ash_model_progress(opts, ASH_LOAD_PREFILL, processed, total, err);
        if (rc)
            ash_engine_cancel(e, id);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    if (!rc && w->finish == ASH_FINISH_ERROR)
        rc = ash_err_set(err, w->err.code, "%s", w->err.msg);
    return rc ? rc : ash_model_progress(opts, ASH_LOAD_PREFILL, total, total, err);
}

static int compute_warm_prompt(ash_engine *e, const ash_engine_opts *opts, const ash_ids *ids, ash_err *err)
{
    waiter w = {.lock = PTHREAD_MUTEX_INITIALIZER, .done_cond = PTHREAD_COND_INITIALIZER};
    const ash_job job = {.ids = ids->p, .n_ids = ids->n, .sampling = ash_sampler_params_default(),
                         .max_tokens = 0, .want_progress = true, .on_event = on_warm_event,
                         .user = &w};
    uint64_t id;
    int rc = ash_engine_submit(e, &job, &id, err);
    return rc ? rc : await_prefill(e, opts, &w, id, ids->n, err);
}

/* Restores what an earlier start kept of the prompt, or computes it and has it kept. */
static int have_warm_prompt(ash_engine *e, const ash_engine_opts *opts, const ash_ids *ids, ash_err *err)
{
    ash_err own = ASH_ERR_INIT;
    if (opts->state_dir && ids->n <= ash_net_fixed(e->model->net) &&
        ash_kv_prompt_open(opts->state_dir, opts->disk_budget, e->model, e->scheduler, ids->p, ids->n,
                           &e->kept, &own))
        ash_warn("engine", "the warm prompt is not kept: %s", own.msg);
    if (e->kept && ash_kv_prompt_restore(e->kept, e->run.nn->pool))
        return ash_model_progress(opts, ASH_LOAD_PREFILL, ids->n, ids->n, err);
    int rc = compute_warm_prompt(e, opts, ids, err);
    if (!rc && e->kept)
        ash_kv_prompt_keep(e->kept);
    return rc;
}

/* A prompt that cannot be warmed (a template that wants no system message, a text over the context)
 * is no reason to refuse the model: the log says so. */
static int prefill_warm_prompt(ash_engine *e, const ash_engine_opts *opts, ash_err *err)
{
    if (!opts->warm_prompt || !*opts->warm_prompt || !e->model->tokenizer)
        return 0;
    ash_ids ids = ASH_IDS_INIT;
    ash_err own = ASH_ERR_INIT;
    int rc = warm_ids(e, opts->warm_prompt, &ids, &own);
    if (!rc && ids.n > 0)
        rc = have_warm_prompt(e, opts, &ids, &own);
    ash_ids_release(&ids);
    if (!rc)
        return 0;
    if (rc == ASH_ECANCELED || rc == ASH_ENOMEM)
        return ash_err_set(err, rc, "%s", own.msg);
    ash_warn("engine", "%s: the warm prompt is not computed ahead: %s", opts->path, own.msg);
    return 0;
}

/* ---- spill ---------------------------------------------------------------------------------- */

/* Evicted prefixes go to the disk, if what the weights are is known already. Without that, and where the
 * disk has no place, they are computed again. */
static void open_spill(ash_engine *e, const ash_engine_opts *opts)
{
    ash_err err = ASH_ERR_INIT;
    ash_kv_slots_opts o = {.block_bytes = (uint64_t)e->run.kv->block_bytes, .block_tokens = ASH_KV_TOKENS};
    ash_kv_slots *store;
    char *dir = NULL;
    if (!opts->state_dir || opts->bare)
        return;
    int rc = ash_kv_key(e->model, o.key, &err);
    if (rc == ASH_EAGAIN)
        return;
    rc = rc ? rc : ash_kv_folder_open(opts->state_dir, &dir, &err);
    if (!rc) {
        o.dir = dir;
        o.share = ash_kv_folder_share(dir, opts->disk_budget);
        rc = ash_kv_slots_open(&o, &store, &err);
    }
    rc = rc ? rc : ash_scheduler_spill(e->scheduler, store, &err);
    if (rc)
        ash_info("engine", "%s: evicted prefixes are not kept on disk: %s", opts->path, err.msg);
    free(dir);
}

/* ---- public --------------------------------------------------------------------------------- */

static int load_weights(ash_engine *e, const ash_engine_opts *opts, ash_err *err)
{
    int rc = ash_model_load(e->model, opts, e->run.nn->pool, err);
    e->run.experts = ash_expert_cache_supply(e->model->cache);
    return rc;
}

int ash_engine_open(const ash_engine_opts *opts, ash_engine **out, ash_err *err)
{
    *out = NULL;
    ash_engine *e = calloc(1, sizeof *e);
    if (!e)
        return ash_err_nomem(err, "engine");
    int64_t row_ns = 0;
    uint32_t warm_blocks = 0;
    int rc;
    if ((rc = ash_model_progress(opts, ASH_LOAD_VERIFY, 0, 1, err)) ||
        (rc = have_headers(opts, &e->model, err)))
        goto fail;
    e->model->sizes.nn.numa = ash_numa_get();
    if ((rc = ash_nn_open(&e->model->sizes.nn, &e->run.nn, err)) || (rc = reserve_run(e, err)) ||
        (rc = load_weights(e, opts, err)) ||
        (rc = warm(e, opts, &row_ns, &warm_blocks, err)) || (rc = ash_model_finish(e->model, err)) ||
        (rc = open_draft(e, opts, err)) ||
        (rc = ash_scheduler_open(e->model, &e->run, e->logits, opts->prediction, e->draft, row_ns,
                                 warm_blocks, &e->scheduler, err)) ||
        (rc = prefill_warm_prompt(e, opts, err)) || (rc = ash_scheduler_settle(e->scheduler, err)))
        goto fail;
    open_spill(e, opts);
    ash_packs_start(e->model->packs, e->model->region);
    *out = e;
    return 0;
fail:
    ash_engine_close(e);
    return rc;
}

void ash_engine_close(ash_engine *e)
{
    if (!e)
        return;
    ash_kv_prompt_close(e->kept);
    ash_scheduler_close(e->scheduler);
    ash_draft_model_close(e->draft); /* before the pool that it borrows */
    ash_kv_close(e->run.kv);
    ash_nn_close(e->run.nn);
    ash_model_close(e->model);
    if (e->map)
        munmap(e->map, e->map_bytes);
    free(e);
}

const ash_model_info *ash_engine_info(const ash_engine *e)
{
    return &e->model->info;
}

const ash_tokenizer *ash_engine_tokenizer(const ash_engine *e)
{
    return e->model->tokenizer;
}

const ash_template *ash_engine_template(const ash_engine *e)
{
    return e->model->template;
}

const char *ash_engine_bos_text(const ash_engine *e)
{
    return e->model->bos_text;
}

const char *ash_engine_eos_text(const ash_engine *e)
{
    return e->model->eos_text;
}

int ash_engine_submit(ash_engine *e, const ash_job *job, uint64_t *id, ash_err *err)
{
    return ash_scheduler_submit(e->scheduler, job, id, err);
}

void ash_engine_cancel(ash_engine *e, uint64_t id)
{
    ash_scheduler_cancel(e->scheduler, id);
}

int ash_engine_eval(ash_engine *e, const int32_t *ids, size_t n, bool all, float *logits, ash_err *err)
{
    return ash_scheduler_eval(e->scheduler, ids, n, all, logits, err);
}

void ash_engine_get_stats(const ash_engine *e, ash_engine_stats *out)
{
    ash_expert_counts counts;
    ash_scheduler_stats(e->scheduler, out);
    ash_expert_cache_counts(e->model->cache, &counts);
    out->experts_chosen = counts.chosen;
    out->experts_found = counts.found;
    out->token_experts_chosen = counts.token_chosen;
    out->token_experts_found = counts.token_found;
    out->expert_read_bytes = counts.read_bytes;
    out->expert_wait_ns = counts.wait_ns;
    out->lost = ash_model_lost(e->model);
}

uint64_t ash_engine_untouched(const ash_engine *e)
{
    ash_engine_stats s;
    ash_scheduler_stats(e->scheduler, &s);
    return (uint64_t)(s.kv_blocks - s.kv_blocks_resident) * (uint64_t)e->run.kv->block_bytes +
           ash_pages_untouched(e->map, e->map_bytes) +
           ash_pages_untouched(e->run.nn->scratch, ash_nn_bytes(&e->run.nn->o)) +
           ash_scheduler_untouched(e->scheduler) + ash_draft_model_untouched(e->draft);
}
