/* Owns the translation of an engine's events into answers: text and reasoning, log-probabilities,
 * ends and usage. Runs on the scheduler's thread; refuses nothing. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/utf8.h"
#include "provider/local_private.h"

int local_error(ash_api_error *e, int status, const char *type, const char *code, const char *fmt,
                ...)
{
    *e = (ash_api_error){.status = status, .type = type, .code = code};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->message, sizeof e->message, fmt, ap);
    va_end(ap);
    size_t n = strlen(e->message);
    e->message[n - ash_utf8_incomplete_tail(e->message, n)] = 0;
    return status;
}

void local_give(ash_answering *a, const ash_answer *event)
{
    if (a->closed || a->phase == LOCAL_ENDED) return;
    int rc = a->fn(a->user, event);
    if (rc < 0 && rc != ASH_EAGAIN) /* behind: an engine does not stop for one reader */
        a->phase = LOCAL_ENDED;
}

void local_end(ash_answering *a, const ash_answer *event)
{
    local_give(a, event);
    a->phase = LOCAL_ENDED;
    local_due(a, 0);
}

void local_fail(ash_answering *a, const ash_api_error *e)
{
    pthread_mutex_lock(&a->lock);
    if (!a->closed && a->phase != LOCAL_ENDED)
        ash_info("local", "request %s: %d %s: %s", a->req.id, e->status,
                 e->code ? e->code : e->type, e->message);
    local_end(a, &(ash_answer){.kind = ASH_ANSWER_ERROR, .error = e});
    pthread_mutex_unlock(&a->lock);
}

static void give_head(ash_answering *a)
{
    if (a->head_sent) return;
    a->head_sent = true;
    local_give(a, &(ash_answer){.kind = ASH_ANSWER_HEAD,
                                .served_by = "local",
                                .model = a->req.model,
                                .truncated_messages = a->truncated_messages,
                                .truncated_tokens = a->truncated_tokens});
}

/* ---- log-probabilities ---- */

/* A token's bytes as a JSON string: what is no UTF-8 is U+FFFD, and `bytes` has it exactly. */
static json_t *token_text(ash_str piece)
{
    char text[ASH_MAX_TOKEN_BYTES * 3];
    size_t n = 0;
    for (size_t i = 0; i < piece.n && n + 4 <= sizeof text;) {
        uint32_t cp;
        bool ok;
        i += ash_utf8_decode(piece.p + i, piece.n - i, &cp, &ok);
        n += ash_utf8_encode(cp, text + n);
    }
    return json_stringn(text, n);
}

static json_t *token_object(const ash_tokenizer *t, int32_t id, float logprob)
{
    ash_str piece = {"", 0};
    if (t) ash_tokenizer_piece(t, id, &piece);
    json_t *bytes = json_array();
    for (size_t i = 0; i < piece.n; i++)
        json_array_append_new(bytes, json_integer((unsigned char)piece.p[i]));
    double value = isfinite(logprob) ? (double)logprob : -9999.0;
    return json_pack("{s:o, s:f, s:o}", "token", token_text(piece), "logprob", value, "bytes",
                     bytes);
}

/* [one OpenAI token object]; NULL without memory. */
static json_t *logprobs_of(const ash_tokenizer *t, const ash_sample *s)
{
    json_t *list = json_array(), *one = token_object(t, s->id, s->logprob), *top = json_array();
    for (int i = 0; i < s->n_top; i++)
        json_array_append_new(top, token_object(t, s->top[i].id, s->top[i].logprob));
    json_object_set_new(one, "top_logprobs", top);
    json_array_append_new(list, one);
    return list;
}

/* ---- events, the lock held ---- */

static void give_text(local_job *j, const json_t *logprobs)
{
    ash_answering *a = j->a;
    if (!j->content.len && !j->reasoning.len && !logprobs) return;
    give_head(a);
    local_give(a, &(ash_answer){.kind = ASH_ANSWER_DELTA,
                                .index = j->index,
                                .text = {ash_buf_cstr(&j->content), j->content.len},
                                .reasoning = {ash_buf_cstr(&j->reasoning), j->reasoning.len},
                                .logprobs = logprobs});
}

/* False when the text did not fit into memory: the choice cannot go on without a gap. */
static bool take_text(local_job *j, ash_str text, bool last)
{
    ash_buf_clear(&j->content);
    ash_buf_clear(&j->reasoning);
    int rc = ash_think_push(&j->think, text, &j->reasoning, &j->content);
    if (!rc && last) rc = ash_think_flush(&j->think, &j->reasoning, &j->content);
    return !rc;
}

static void fail_locked(ash_answering *a, int status, const char *code, const char *message)
{
    ash_api_error e;
    local_error(&e, status, status == 500 ? "server_error" : "unavailable_error", code, "%s",
                message);
    if (status == 503) e.retry_after = 1;
    if (!a->closed) ash_warn("local", "request %s: %s: %s", a->req.id, code, message);
    local_end(a, &(ash_answer){.kind = ASH_ANSWER_ERROR, .error = &e});
}

static void on_started(ash_answering *a)
{
    if (a->phase != LOCAL_QUEUED) return;
    a->phase = LOCAL_PREFILL;
    a->started_ms = ash_clock_ms();
    local_due(a, a->req.budgets.first_token_ms);
}

static void on_progress(local_job *j, const ash_event *ev)
{
    ash_answering *a = j->a;
    if (j->index) return; /* one prompt's progress, not all choices' */
    if (a->req.budgets.first_token_renewed && a->phase == LOCAL_PREFILL)
        local_due(a, a->req.budgets.first_token_ms);
    if (!a->req.return_progress) return;
    give_head(a);
    local_give(a, &(ash_answer){.kind = ASH_ANSWER_PROGRESS,
                                .total = ev->total,
                                .cached = ev->cached,
                                .processed = ev->processed,
                                .time_ms = (double)(ash_clock_ms() - a->started_ms)});
}

static void on_token(local_job *j, const ash_event *ev)
{
    ash_answering *a = j->a;
    if (a->phase == LOCAL_ENDED) return;
    a->phase = LOCAL_RUNNING;
    local_due(a, a->req.budgets.idle_ms);
    json_t *logprobs = NULL;
    if (ev->sample && a->req.logprobs)
        logprobs = logprobs_of(ash_engine_tokenizer(a->engine), ev->sample);
    if (take_text(j, ev->text, false))
        give_text(j, logprobs);
    else
        fail_locked(a, 503, "out_of_memory", "out of memory (text of an answer)");
    json_decref(logprobs);
}

static void add_usage(local_job *j, const ash_usage *u)
{
    ash_answer_usage *sum = &j->a->usage;
    if (j->counts_prompt) {
        sum->prompt_tokens += u->prompt_tokens;
        sum->cached_tokens += u->cached_tokens;
    }
    sum->completion_tokens += u->completion_tokens;
    sum->queue_ms = fmax(sum->queue_ms, u->queue_ms);
    sum->prefill_ms = fmax(sum->prefill_ms, u->prefill_ms);
    sum->decode_ms = fmax(sum->decode_ms, u->decode_ms);
}

static void on_done(local_job *j, const ash_event *ev)
{
    ash_answering *a = j->a;
    j->done = true;
    a->n_done++;
    if (ev->usage) {
        add_usage(j, ev->usage);
        local_count(a, ev->usage, j->counts_prompt);
    }
    if (a->phase == LOCAL_ENDED) return;
    if (ev->finish == ASH_FINISH_CANCELED) {
        fail_locked(a, 503, "shutting_down", "the model was closed while it answered");
    } else if (ev->finish != ASH_FINISH_STOP && ev->finish != ASH_FINISH_LENGTH) {
        fail_locked(a, 500, "generation_failed", ev->error ? ev->error->msg : "the engine failed");
    } else if (!take_text(j, ev->text, true)) {
        fail_locked(a, 503, "out_of_memory", "out of memory (text of an answer)");
    } else {
        give_text(j, NULL);
        give_head(a);
        local_give(
            a, &(ash_answer){.kind = ASH_ANSWER_FINISH,
                             .index = j->index,
                             .finish_reason = ev->finish == ASH_FINISH_STOP ? "stop" : "length"});
        if (a->n_done == a->n_jobs)
            local_end(a, &(ash_answer){.kind = ASH_ANSWER_END, .usage = &a->usage});
    }
}

void local_on_event(void *user, const ash_event *ev)
{
    local_job *j = user;
    ash_answering *a = j->a;
    pthread_mutex_lock(&a->lock);
    if (ev->kind == ASH_EVENT_STARTED)
        on_started(a);
    else if (ev->kind == ASH_EVENT_PROGRESS)
        on_progress(j, ev);
    else if (ev->kind == ASH_EVENT_TOKEN)
        on_token(j, ev);
    else
        on_done(j, ev);
    bool stop = a->phase == LOCAL_ENDED && a->n_done < a->n_jobs, last = ev->kind == ASH_EVENT_DONE;
    pthread_mutex_unlock(&a->lock);
    if (stop) local_cancel_jobs(a);
    if (last) {
        local_drop_use(a);
        local_unref(a);
    }
}
