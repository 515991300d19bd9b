/* Owns /v1/chat/completions and /v1/completions, and Ollama's /api/chat and /api/generate as far as they make
 * text: a reply from the parsed request to the last event.
 *
 * Threads: made in on_request, woken and closed on the connection's thread; events on the provider's;
 * ticks on the watcher's. reply.mutex guards what they share and is never held into a provider. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "api/call.h"
#include "api/chain.h"
#include "api/ollama_text.h"
#include "api/openai_text.h"
#include "api/params.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    ARENA_BYTES = 1 << 20,
    EARLY_WAIT_MS = 1000, /* a stream that waits so long gets its headers, then pings */
    MAX_WHOLE = 128 << 20,
};

struct ash_reply {
    ash_call *call;
    ash_arena arena;
    json_t *body;
    ash_request req;
    ash_chain *chain;

    pthread_mutex_t mutex; /* guards the rest */
    ash_oai *oai;
    ash_ollama *ollama; /* in place of oai where its API is asked */
    ash_buf out;
    bool opened;   /* the stream's headers are out */
    bool head_set; /* X-Ashley-* headers are set */
    bool over;     /* answered or failed */
    bool talked;   /* first token seen */
    int64_t waiting_since_ms;
};

/* ---- output, with the mutex held ---- */

static void head_headers(ash_reply *r, const char *model, const char *served_by, const char *reason)
{
    if (r->head_set || r->opened) return;
    r->head_set = true;
    ash_exchange *x = r->call->x;
    ash_exchange_add_header(x, "X-Ashley-Model", model);
    ash_exchange_add_header(x, "X-Ashley-Served-By", served_by);
    if (reason) ash_exchange_add_header(x, "X-Ashley-Reason", reason);
}

/* Sends 200. Before HEAD, who answers is told only if nobody else can. */
static void open_stream(ash_reply *r)
{
    ash_route_step step;
    if (r->opened) return;
    if (!r->head_set && ash_chain_certain(r->chain, &step))
        head_headers(r, step.model, step.provider->name, step.reason);
    r->opened = true;
    if (r->ollama)
        ash_exchange_stream(r->call->x, 200, "application/x-ndjson");
    else
        ash_sse_open(r->call->x);
    atomic_store(&r->call->written_ms, ash_clock_ms());
}

static int fail(ash_reply *r, const ash_api_error *e)
{
    if (r->over) return ASH_ECANCELED;
    r->over = true;
    ash_exchange *x = r->call->x;
    if (r->opened) {
        ash_buf_clear(&r->out);
        if (r->ollama) {
            ash_errors_plain(e, &r->out);
            ash_buf_addc(&r->out, '\n');
        } else {
            ash_sse_error(&r->out, e);
        }
        ash_exchange_end(x, ash_buf_cstr(&r->out), r->out.len);
    } else {
        ash_call_error(r->call, e);
    }
    return ASH_ECANCELED;
}

static int fail_nomem(ash_reply *r)
{
    ash_api_error e;
    ash_errors_set(&e, 503, "out_of_memory", NULL, "out of memory (answer)");
    return fail(r, &e);
}

/* Writes what was built in r->out to the stream. */
static int flush(ash_reply *r)
{
    if (r->out.failed) return fail_nomem(r);
    if (!r->out.len) return 0;
    open_stream(r);
    int rc = ash_exchange_write(r->call->x, r->out.data, r->out.len);
    atomic_store(&r->call->written_ms, ash_clock_ms());
    ash_buf_clear(&r->out);
    return rc;
}

static int flush_stream(ash_reply *r)
{
    return r->req.stream ? flush(r) : 0;
}

/* ---- events ---- */

static void first_token(ash_reply *r)
{
    if (r->talked) return;
    r->talked = true;
    double ms = (double)(ash_clock_ms() - ash_exchange_since(r->call->x));
    ash_metrics_first_token(r->call->server->metrics, ms / 1e3);
}

static void truncated_header(ash_reply *r, const ash_answer *a)
{
    char text[64];
    if (!a->truncated_messages || r->opened) return;
    snprintf(text, sizeof text, "messages=%u, tokens=%u", a->truncated_messages,
             a->truncated_tokens);
    ash_exchange_add_header(r->call->x, "X-Ashley-Truncated", text);
}

static int on_head(ash_reply *r, const ash_answer *a)
{
    snprintf(r->call->model, sizeof r->call->model, "%s", a->model);
    head_headers(r, a->model, a->served_by, a->reason);
    truncated_header(r, a);
    if (r->ollama) {
        ash_ollama_model(r->ollama, a->model);
        if (r->req.stream) open_stream(r);
        return 0;
    }
    if (ash_oai_model(r->oai, a->model)) return fail_nomem(r);
    if (!r->req.stream) {
        ash_oai_head(r->oai, a, false, &r->out);
        return 0;
    }
    bool late = r->opened && !r->head_set;
    open_stream(r);
    ash_oai_head(r->oai, a, late, &r->out);
    return flush(r);
}

static int on_waiting(ash_reply *r, const ash_answer *a)
{
    if (!r->waiting_since_ms) r->waiting_since_ms = ash_clock_ms();
    if (r->ollama || !r->req.stream || !r->req.return_progress) return 0;
    ash_oai_waiting(r->oai, a->waiting, &r->out);
    return flush(r);
}

static int on_raw(ash_reply *r, const ash_answer *a)
{
    first_token(r);
    if (r->ollama) return ash_ollama_raw(r->ollama, a->raw, &r->out) ? fail_nomem(r) : flush_stream(r);
    if (r->req.stream) {
        ash_sse_data(&r->out, a->raw);
        return flush(r);
    }
    ash_buf body;
    ash_buf_init(&body, MAX_WHOLE);
    if (ash_buf_addstr(&body, a->raw)) return fail_nomem(r);
    r->over = true;
    ash_exchange_respond(r->call->x, a->raw_status ? a->raw_status : 200, "application/json",
                         &body);
    ash_buf_release(&body);
    return 0;
}

static int on_end(ash_reply *r, const ash_answer *a)
{
    const ash_answer_usage *u = a->usage;
    if (r->over) return 0;
    int rc = r->ollama ? ash_ollama_end(r->ollama, u, &r->out)
                       : ash_oai_end(r->oai, u, r->req.include_usage, &r->out);
    if (rc) return fail_nomem(r);
    if (r->req.stream) {
        if (r->out.failed) return fail_nomem(r);
        open_stream(r);
        r->over = true;
        ash_exchange_end(r->call->x, r->out.data, r->out.len);
        ash_buf_clear(&r->out);
    } else {
        r->over = true;
        ash_exchange_respond(r->call->x, 200, "application/json", &r->out);
    }
    return 0;
}

static int on_event_locked(ash_reply *r, const ash_answer *a)
{
    if (r->over && a->kind != ASH_ANSWER_END) return ASH_ECANCELED;
    switch (a->kind) {
    case ASH_ANSWER_HEAD:
        return on_head(r, a);
    case ASH_ANSWER_WAITING:
        return on_waiting(r, a);
    case ASH_ANSWER_PROGRESS:
        if (r->ollama || !r->req.stream || !r->req.return_progress) return 0;
        ash_oai_progress(r->oai, a, &r->out);
        return flush(r);
    case ASH_ANSWER_DELTA:
        first_token(r);
        if (r->ollama ? ash_ollama_delta(r->ollama, a->text, a->reasoning, &r->out)
                      : ash_oai_delta(r->oai, a, &r->out))
            return fail_nomem(r);
        return flush_stream(r);
    case ASH_ANSWER_RAW:
        return on_raw(r, a);
    case ASH_ANSWER_FINISH:
        if (r->ollama)
            ash_ollama_finish(r->ollama, a->finish_reason);
        else
            ash_oai_finish(r->oai, a->index, a->finish_reason, &r->out);
        return flush_stream(r);
    case ASH_ANSWER_END:
        return on_end(r, a);
    case ASH_ANSWER_ERROR:
        return fail(r, a->error);
    default:
        return 0;
    }
}

static int on_event(void *user, const ash_answer *a)
{
    ash_reply *r = user;
    pthread_mutex_lock(&r->mutex);
    int rc = on_event_locked(r, a);
    pthread_mutex_unlock(&r->mutex);
    return rc;
}

static void wake(void *user)
{
    ash_reply *r = user;
    ash_exchange_wake(r->call->x);
}

/* ---- life ---- */

void ash_reply_wake(ash_reply *r)
{
    ash_chain_advance(r->chain);
}

void ash_reply_drain(ash_reply *r)
{
    ash_chain_resume(r->chain);
}

void ash_reply_tick(ash_reply *r, int64_t now_ms)
{
    pthread_mutex_lock(&r->mutex);
    int64_t age = now_ms - ash_exchange_since(r->call->x);
    bool waited = r->waiting_since_ms && now_ms - r->waiting_since_ms >= EARLY_WAIT_MS;
    if (r->req.stream && !r->over && !r->ollama) { /* Ollama's lines have no comments */
        if (!r->opened && (waited || age >= ASH_SSE_PING_MS)) {
            open_stream(r);
            ash_sse_ping(r->call->x);
        } else if (r->opened && now_ms - atomic_load(&r->call->written_ms) >= ASH_SSE_PING_MS) {
            ash_sse_ping(r->call->x);
            atomic_store(&r->call->written_ms, now_ms);
        }
    }
    pthread_mutex_unlock(&r->mutex);
}

void ash_reply_close(ash_reply *r)
{
    if (!r) return;
    ash_chain_close(r->chain); /* no event comes after this */
    ash_oai_close(r->oai);
    ash_ollama_close(r->ollama);
    ash_buf_release(&r->out);
    json_decref(r->body);
    ash_arena_release(&r->arena);
    atomic_fetch_sub(&r->call->server->answering, 1);
    pthread_mutex_destroy(&r->mutex);
    free(r);
}

static ash_reply *new_reply(ash_call *c)
{
    ash_reply *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->call = c;
    ash_arena_init(&r->arena, ARENA_BYTES);
    ash_buf_init(&r->out, MAX_WHOLE);
    pthread_mutex_init(&r->mutex, NULL);
    atomic_fetch_add(&c->server->answering, 1);
    return r;
}

/* What writes the answer. false without memory. */
static bool open_text(ash_reply *r, ash_form form)
{
    const ash_request *q = &r->req;
    if (form == ASH_FORM_OPENAI)
        r->oai = ash_oai_open(q->kind, q->stream, ash_params_choices(q), q->model);
    else
        r->ollama = ash_ollama_open(form == ASH_FORM_OLLAMA_CHAT, q->stream, q->model);
    return r->oai || r->ollama;
}

/* From the body to an open chain; *lone: nobody else may be asked later. 0 or the status of *e. */
static int prepare(ash_reply *r, ash_request_kind kind, ash_form form, bool *lone, ash_api_error *e)
{
    ash_call *c = r->call;
    const ash_server_opts *o = &c->server->opts;
    ash_route route;
    ash_chain_opts chain = {.req = &r->req, .fn = on_event, .wake = wake, .user = r};
    int rc = 0;
    if (!ash_exchange_account(c->x, ash_params_weight(ash_exchange_body(c->x))))
        rc = ash_errors_crowded(e);
    if (!rc) rc = ash_params_parse(ash_exchange_body(c->x), &r->body, e);
    ash_exchange_drop_body(c->x);
    if (!rc && form != ASH_FORM_OPENAI)
        rc = ash_ollama_request(&r->body, form == ASH_FORM_OLLAMA_CHAT, &kind, &r->arena, e);
    if (!rc) rc = ash_route_body(o, r->body, &r->arena, &route, e);
    if (!rc && ash_route_apply(route.persona, kind, &r->body))
        rc = ash_errors_set(e, 503, "out_of_memory", NULL, "out of memory (request)");
    if (!rc) rc = ash_params_read(r->body, kind, &r->arena, &r->req, e);
    if (!rc) rc = ash_route_budgets(o, &route, c->x, &r->req.budgets, e);
    if (!rc) rc = ash_route_plan_make(o, &route, &r->req.budgets, &chain.plan, e);
    if (rc) return rc;
    *lone = chain.plan.n == 1;
    const char *priority = ash_exchange_header(c->x, "X-Ashley-Priority");
    r->req.background = priority && !strcmp(priority, "background");
    r->req.id = c->id;
    r->req.model = chain.plan.steps[0].model;
    snprintf(c->model, sizeof c->model, "%s", r->req.model);
    r->chain = open_text(r, form) ? ash_chain_open(&chain) : NULL;
    if (!r->chain) return ash_errors_set(e, 503, "out_of_memory", NULL, "out of memory (request)");
    return 0;
}

void ash_reply_answer(ash_call *c, ash_request_kind kind, ash_form form)
{
    ash_api_error e;
    ash_reply *r = new_reply(c);
    if (!r) {
        ash_errors_set(&e, 503, "out_of_memory", NULL, "out of memory (request)");
        ash_call_error(c, &e);
        return;
    }
    c->reply = r;
    bool lone = false;
    if (prepare(r, kind, form, &lone, &e)) {
        r->over = true;
        ash_call_error(c, &e);
        return;
    }
    ash_chain_advance(r->chain);
    if (lone) { /* a long conversation is not kept for as long as its answer takes */
        json_decref(r->body);
        r->body = NULL;
    }
}

void ash_openai_chat(ash_call *c)
{
    ash_reply_answer(c, ASH_REQUEST_CHAT, ASH_FORM_OPENAI);
}

void ash_openai_completion(ash_call *c)
{
    ash_reply_answer(c, ASH_REQUEST_COMPLETION, ASH_FORM_OPENAI);
}
