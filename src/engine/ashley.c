/* Owns the public interface: plain C types over the engine. Refuses what the engine refuses, with its
 * codes and messages. Any thread. */
#include "ashley.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "engine/engine.h"

struct ashley_model {
    ash_engine *engine;
};

_Static_assert(ASHLEY_EINVAL == (int)ASH_EINVAL && ASHLEY_ENOMEM == (int)ASH_ENOMEM &&
                   ASHLEY_EIO == (int)ASH_EIO && ASHLEY_ENOENT == (int)ASH_ENOENT &&
                   ASHLEY_EFORMAT == (int)ASH_EFORMAT && ASHLEY_EUNSUPPORTED == (int)ASH_EUNSUPPORTED &&
                   ASHLEY_ELIMIT == (int)ASH_ELIMIT && ASHLEY_EAGAIN == (int)ASH_EAGAIN &&
                   ASHLEY_ECANCELED == (int)ASH_ECANCELED && ASHLEY_ENOSPC == (int)ASH_ENOSPC,
               "the public codes are the internal ones");

const char *ashley_version(void)
{
    return ASHLEY_VERSION;
}

/* Copies an error out; rc. */
static int report(int rc, const ash_err *from, ashley_error *to)
{
    if (to) {
        to->code = rc;
        _Static_assert(sizeof to->message >= sizeof from->msg, "a message fits");
        memcpy(to->message, from->msg, sizeof from->msg);
    }
    return rc;
}

/* ---- models --------------------------------------------------------------------------------- */

void ashley_options_init(ashley_options *o)
{
    *o = (ashley_options){0};
}

typedef struct load {
    const ashley_options *o;
    atomic_bool cancel;
} load;

static void on_progress(void *user, ash_load_stage stage, uint64_t done, uint64_t total)
{
    static const char *const names[] = {"verify", "map", "pack", "warm", "prefill"};
    load *l = user;
    if (l->o->on_progress && l->o->on_progress(l->o->user, names[stage], done, total))
        atomic_store(&l->cancel, true);
}

int ashley_open(const char *path, const ashley_options *o, ashley_model **out, ashley_error *err)
{
    ashley_options none;
    ash_err e = ASH_ERR_INIT;
    ashley_options_init(&none);
    load l = {.o = o ? o : &none};
    const ash_engine_opts opts = {.path = path,
                                  .template_text = l.o->template_text,
                                  .ctx = l.o->context,
                                  .max_sequences = l.o->parallel,
                                  .kv_bytes = l.o->kv_bytes,
                                  .kv_q8 = l.o->kv_8bit,
                                  .state_dir = l.o->state_dir,
                                  .threads = l.o->threads,
                                  .cpu = ash_cpu_get()->level,
                                  .bare = l.o->weights_only,
                                  .progress = on_progress,
                                  .user = &l,
                                  .cancel = &l.cancel};
    *out = NULL;
    ashley_model *m = calloc(1, sizeof *m);
    int rc = m ? ash_engine_open(&opts, &m->engine, &e) : ash_err_nomem(&e, "model");
    if (rc) {
        free(m);
        return report(rc, &e, err);
    }
    *out = m;
    return 0;
}

void ashley_close(ashley_model *m)
{
    if (!m)
        return;
    ash_engine_close(m->engine);
    free(m);
}

void ashley_get_info(const ashley_model *m, ashley_info *out)
{
    const ash_model_info *i = ash_engine_info(m->engine);
    *out = (ashley_info){.architecture = i->architecture,
                         .name = i->name,
                         .quantization = i->quantization,
                         .chat_template = i->chat_template,
                         .n_params = i->n_params,
                         .file_bytes = i->file_bytes,
                         .weight_bytes = i->weight_bytes,
                         .kv_bytes = i->kv_bytes,
                         .scratch_bytes = i->scratch_bytes,
                         .n_ctx = i->n_ctx,
                         .n_ctx_train = i->n_ctx_train,
                         .n_vocab = i->n_vocab,
                         .n_layers = i->n_layers,
                         .n_embd = i->n_embd};
}

/* ---- text and tokens ------------------------------------------------------------------------ */

static int need_tokenizer(const ashley_model *m, const ash_tokenizer **out, ash_err *err)
{
    *out = ash_engine_tokenizer(m->engine);
    return *out ? 0 : ash_err_set(err, ASH_ENOENT, "the checkpoint has no tokenizer");
}

/* Tokenises into fresh memory for the caller. */
static int encode(const ashley_model *m, const char *text, size_t n_text, unsigned flags,
                  const ash_spans *untrusted, int32_t **out, size_t *n, ash_err *err)
{
    const ash_tokenizer *t;
    ash_ids ids = ASH_IDS_INIT;
    int rc = need_tokenizer(m, &t, err);
    if (!rc)
        rc = ash_tokenizer_encode(t, text, n_text, flags, untrusted ? untrusted->v : NULL,
                                  untrusted ? untrusted->n : 0, &ids, err);
    if (rc) {
        ash_ids_release(&ids);
        return rc;
    }
    *out = ids.p;
    *n = ids.n;
    return 0;
}

int ashley_tokenize(const ashley_model *m, const char *text, size_t n_text, unsigned flags,
                    int32_t **ids, size_t *n, ashley_error *err)
{
    ash_err e = ASH_ERR_INIT;
    unsigned f = (flags & ASHLEY_SPECIAL ? ASH_ENCODE_SPECIAL : 0u) |
                 (flags & ASHLEY_BOS_EOS ? ASH_ENCODE_BOS_EOS : 0u);
    *ids = NULL;
    *n = 0;
    int rc = encode(m, text, n_text, f, NULL, ids, n, &e);
    return rc ? report(rc, &e, err) : 0;
}

/* Hands a finished buffer to the caller, or releases it. */
static int hand_over(ash_buf *b, int rc, const char *what, char **text, size_t *n, ash_err *err)
{
    if (!rc)
        rc = ash_buf_addc(b, 0) ? ash_buf_check(b, what, err) : 0;
    if (rc) {
        ash_buf_release(b);
        return rc;
    }
    *n = b->len - 1;
    *text = ash_buf_take(b);
    return 0;
}

int ashley_detokenize(const ashley_model *m, const int32_t *ids, size_t n_ids, char **text, size_t *n,
                      ashley_error *err)
{
    ash_err e = ASH_ERR_INIT;
    const ash_tokenizer *t;
    ash_buf b;
    ash_detok d;
    *text = NULL;
    *n = 0;
    ash_buf_init(&b, ASH_MAX_TEXT);
    int rc = need_tokenizer(m, &t, &e);
    if (!rc) {
        ash_detok_init(&d, t, ASH_DETOK_SPECIAL);
        for (size_t i = 0; i < n_ids && !rc; i++) rc = ash_detok_push(&d, ids[i], &b);
        if (!rc)
            rc = ash_detok_flush(&d, &b);
        if (rc)
            rc = ash_buf_check(&b, "text", &e);
    }
    rc = hand_over(&b, rc, "text", text, n, &e);
    return rc ? report(rc, &e, err) : 0;
}

/* Renders messages into out, which the caller releases. */
static int render(const ashley_model *m, const char *messages, int add_prompt, ash_buf *out,
                  ash_spans *untrusted, ash_err *err)
{
    const ash_template *t = ash_engine_template(m->engine);
    if (!t)
        return ash_err_set(err, ASH_ENOENT, "the checkpoint has no chat template");
    json_t *list = NULL;
    int rc = ash_json_parse(messages, strlen(messages), &list, err);
    if (rc)
        return rc;
    const ash_chat_opts opts = {.bos_token = ash_engine_bos_text(m->engine),
                                .eos_token = ash_engine_eos_text(m->engine),
                                .add_generation_prompt = add_prompt};
    rc = ash_chat_format(t, list, &opts, out, untrusted, err);
    json_decref(list);
    return rc;
}

int ashley_render(const ashley_model *m, const char *messages, int add_prompt, char **text, size_t *n,
                  ashley_error *err)
{
    ash_err e = ASH_ERR_INIT;
    ash_buf b;
    *text = NULL;
    *n = 0;
    ash_buf_init(&b, ASH_MAX_TEMPLATE_OUTPUT);
    int rc = render(m, messages, add_prompt, &b, NULL, &e);
    rc = hand_over(&b, rc, "rendered chat", text, n, &e);
    return rc ? report(rc, &e, err) : 0;
}

int ashley_chat(const ashley_model *m, const char *messages, int add_prompt, int32_t **ids, size_t *n,
                ashley_error *err)
{
    ash_err e = ASH_ERR_INIT;
    ash_buf b;
    ash_spans untrusted = {0};
    *ids = NULL;
    *n = 0;
    ash_buf_init(&b, ASH_MAX_TEMPLATE_OUTPUT);
    int rc = render(m, messages, add_prompt, &b, &untrusted, &e);
    if (!rc)
        rc = encode(m, ash_buf_cstr(&b), b.len, ASH_ENCODE_SPECIAL, &untrusted, ids, n, &e);
    ash_spans_release(&untrusted);
    ash_buf_release(&b);
    return rc ? report(rc, &e, err) : 0;
}

void ashley_free(void *p)
{
    free(p);
}

/* ---- generation ----------------------------------------------------------------------------- */

void ashley_request_init(ashley_request *r)
{
    ash_sampler_params p = ash_sampler_params_default();
    *r = (ashley_request){.max_tokens = -1,
                          .temperature = p.temperature,
                          .top_p = p.top_p,
                          .min_p = p.min_p,
                          .repeat_penalty = p.repeat_penalty,
                          .presence_penalty = p.presence_penalty,
                          .frequency_penalty = p.frequency_penalty,
                          .top_k = p.top_k,
                          .seed = p.seed};
}

/* A generation whose caller waits for it. */
typedef struct generation {
    ash_engine *engine;
    const ashley_request *request;
    uint64_t id;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool known; /* id is set */
    bool unwanted, done;
    ash_finish finish;
    ash_usage usage;
    ash_err err;
} generation;

static void on_event(void *user, const ash_event *ev)
{
    generation *g = user;
    if (ev->kind != ASH_EVENT_TOKEN && ev->kind != ASH_EVENT_DONE)
        return;
    const ashley_request *r = g->request;
    int32_t id = ev->kind == ASH_EVENT_TOKEN ? ev->id : -1;
    if (!g->unwanted && r->on_text && r->on_text(r->user, ev->text.p, ev->text.n, id)) {
        g->unwanted = true;
        pthread_mutex_lock(&g->lock);
        while (!g->known) pthread_cond_wait(&g->changed, &g->lock);
        pthread_mutex_unlock(&g->lock);
        ash_engine_cancel(g->engine, g->id);
    }
    if (ev->kind != ASH_EVENT_DONE)
        return;
    pthread_mutex_lock(&g->lock);
    g->done = true;
    g->finish = ev->finish;
    g->usage = *ev->usage;
    if (ev->error)
        g->err = *ev->error;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

static ash_job job_of(const ashley_request *r, generation *g)
{
    ash_sampler_params p = ash_sampler_params_default();
    p.temperature = r->temperature;
    p.top_p = r->top_p;
    p.min_p = r->min_p;
    p.repeat_penalty = r->repeat_penalty;
    p.presence_penalty = r->presence_penalty;
    p.frequency_penalty = r->frequency_penalty;
    p.top_k = r->top_k;
    p.seed = r->seed;
    return (ash_job){.ids = r->ids,
                     .n_ids = r->n_ids,
                     .sampling = p,
                     .max_tokens = r->max_tokens,
                     .stops = r->stops,
                     .n_stops = r->n_stops,
                     .ignore_eos = r->ignore_end,
                     .skip_special = !r->with_special,
                     .on_event = on_event,
                     .user = g};
}

int ashley_generate(ashley_model *m, const ashley_request *r, ashley_result *out, ashley_error *err)
{
    ash_err e = ASH_ERR_INIT;
    generation g = {.engine = m->engine,
                    .request = r,
                    .lock = PTHREAD_MUTEX_INITIALIZER,
                    .changed = PTHREAD_COND_INITIALIZER,
                    .err = ASH_ERR_INIT};
    const ash_job job = job_of(r, &g);
    uint64_t id;
    int rc = ash_engine_submit(m->engine, &job, &id, &e);
    if (rc)
        return report(rc, &e, err);
    pthread_mutex_lock(&g.lock);
    g.id = id;
    g.known = true;
    pthread_cond_broadcast(&g.changed);
    while (!g.done) pthread_cond_wait(&g.changed, &g.lock);
    pthread_mutex_unlock(&g.lock);
    if (g.finish == ASH_FINISH_ERROR)
        return report(g.err.code, &g.err, err);
    if (out)
        *out = (ashley_result){.finish = g.finish == ASH_FINISH_STOP     ? ASHLEY_FINISH_STOP
                                         : g.finish == ASH_FINISH_LENGTH ? ASHLEY_FINISH_LENGTH
                                                                         : ASHLEY_FINISH_CANCELED,
                               .prompt_tokens = g.usage.prompt_tokens,
                               .cached_tokens = g.usage.cached_tokens,
                               .completion_tokens = g.usage.completion_tokens,
                               .queue_ms = g.usage.queue_ms,
                               .prefill_ms = g.usage.prefill_ms,
                               .decode_ms = g.usage.decode_ms};
    return 0;
}

int ashley_eval(ashley_model *m, const int32_t *ids, size_t n, int all, float *logits, ashley_error *err)
{
    ash_err e = ASH_ERR_INIT;
    int rc = ash_engine_eval(m->engine, ids, n, all, logits, &e);
    return rc ? report(rc, &e, err) : 0;
}
