/* Owns what an upstream's bytes mean: events of a stream, a whole body, errors in the caller's
 * terms. Refuses what is no JSON, streams without [DONE] and bodies over the cap. Runs on the
 * transfer thread. */
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/utf8.h"
#include "provider/openai_private.h"

enum { MAX_ERROR_BODY = 64 << 10, MAX_SHOWN = 300 };

/* Gives one event, unless the caller left. EAGAIN makes the transfer pause. */
static void give(ash_answering *a, const ash_answer *event)
{
    pthread_mutex_lock(&a->lock);
    int rc = a->closed || a->over ? 0 : a->fn(a->user, event);
    pthread_mutex_unlock(&a->lock);
    if (rc == ASH_EAGAIN)
        a->paused = true;
    else if (rc < 0)
        a->over = true;
}

static void give_last(ash_answering *a, const ash_answer *event)
{
    give(a, event);
    a->over = true;
    a->paused = false;
    openai_deadline(a, 0, NULL);
}

static void give_error(ash_answering *a, ash_api_error *e)
{
    ash_log_redact(e->message);
    if (!a->over)
        ash_warn("upstream", "request %s: %d %s: %s", a->id, e->status, e->code ? e->code : e->type,
                 e->message);
    give_last(a, &(ash_answer){.kind = ASH_ANSWER_ERROR, .error = e});
}

void openai_reply_fail(ash_answering *a, const char *fmt, ...)
{
    ash_api_error e = {.status = 502, .type = "upstream_error", .code = "upstream_error"};
    int n = snprintf(e.message, sizeof e.message, "The upstream '%.60s' ", openai_name(a->owner));
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e.message + n, sizeof e.message - (size_t)n, fmt, ap);
    va_end(ap);
    size_t len = strlen(e.message);
    e.message[len - ash_utf8_incomplete_tail(e.message, len)] = 0;
    give_error(a, &e);
}

void openai_reply_late(ash_answering *a)
{
    ash_api_error e = {
        .status = 503, .type = "unavailable_error", .code = a->late, .retry_after = 5};
    if (!strcmp(a->late, "idle_timeout"))
        snprintf(e.message, sizeof e.message,
                 "The upstream '%.60s' sent nothing for %lld ms (ASHLEY_IDLE_TIMEOUT).",
                 openai_name(a->owner), (long long)a->budgets.idle_ms);
    else
        snprintf(e.message, sizeof e.message,
                 "The upstream '%.60s' gave no %s within %lld ms (ASHLEY_FIRST_TOKEN_TIMEOUT).",
                 openai_name(a->owner), a->stream ? "token" : "answer",
                 (long long)a->budgets.first_token_ms);
    give_error(a, &e);
}

static void give_head(ash_answering *a)
{
    a->head_sent = true;
    give(a, &(ash_answer){
                .kind = ASH_ANSWER_HEAD, .served_by = openai_name(a->owner), .model = a->model});
}

/* The text of an error object in any of the forms that servers use; NULL if there is none. */
static const char *error_text(const json_t *root, const json_t **object)
{
    static const char *const places[] = {"message", "detail", "error"};
    const json_t *e = json_object_get(root, "error");
    *object = json_is_object(e) ? e : root;
    const char *s = json_is_string(e) ? json_string_value(e) : NULL;
    for (size_t i = 0; !s && i < sizeof places / sizeof *places; i++)
        s = json_string_value(json_object_get(*object, places[i]));
    return s;
}

/* Cuts an upstream's text for a message of ours, at a code point, without control characters, and what is no
 * UTF-8 without its upper bytes. */
static void shown(const char *s, char out[MAX_SHOWN + 1])
{
    size_t n = s ? strlen(s) : 0;
    if (n > MAX_SHOWN) n = MAX_SHOWN;
    if (n) memcpy(out, s, n);
    n -= ash_utf8_incomplete_tail(out, n);
    out[n] = 0;
    bool text = ash_utf8_valid(out, n); /* a header may hold any byte */
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)out[i] < 0x20 || out[i] == 0x7F) out[i] = ' ';
        if ((unsigned char)out[i] >= 0x80 && !text) out[i] = '?';
    }
}

static int retry_after(const ash_answering *a)
{
    curl_off_t s = 0;
    if (a->curl->easy_getinfo(a->easy, CURLINFO_RETRY_AFTER, &s) != CURLE_OK || s < 0) return 0;
    return s > 86400 ? 86400 : (int)s;
}

/* 400 and 429 mean the same to the client as to us: their words go on. */
static void pass_error(ash_answering *a, const json_t *root)
{
    const json_t *object;
    const char *text = error_text(root, &object);
    char s[MAX_SHOWN + 1];
    shown(text, s);
    ash_api_error e = {
        .status = (int)a->status,
        .type = a->status == 429 ? "rate_limit_error" : "invalid_request_error",
        .code = json_string_value(json_object_get(object, "code")),
        .param = json_string_value(json_object_get(object, "param")),
        .retry_after = retry_after(a),
    };
    if (a->status == 429 && !e.retry_after) e.retry_after = 1;
    snprintf(e.message, sizeof e.message, "%s",
             *s                 ? s
             : a->status == 429 ? "The upstream is busy."
                                : "The upstream refused the request.");
    give_error(a, &e);
}

static void refuse_status(ash_answering *a)
{
    json_t *root = NULL;
    const json_t *object;
    char s[MAX_SHOWN + 1] = "";
    if (!ash_json_parse(ash_buf_cstr(&a->whole), a->whole.len, &root, NULL))
        shown(error_text(root, &object), s);
    if (a->status == 400 || a->status == 429)
        pass_error(a, root);
    else if (a->status == 401)
        openai_reply_fail(a, "refused our key (401): check OPENAI_API_KEY and OPENAI_BASE_URL.");
    else if (a->status >= 300 && a->status < 400)
        openai_reply_fail(
            a, "answered with a redirect (%ld), which is not followed: check OPENAI_BASE_URL.",
            a->status);
    else
        openai_reply_fail(a, "answered %ld%s%s", a->status, *s ? ": " : ".", s);
    json_decref(root);
}

/* One payload of the stream. */
static void take_payload(ash_answering *a, ash_str data)
{
    if (ash_str_eqc(data, "[DONE]")) {
        a->done = true;
        if (a->head_sent)
            give_last(a, &(ash_answer){.kind = ASH_ANSWER_END});
        else
            openai_reply_fail(a, "ended its stream before it said anything.");
        return;
    }
    json_t *v = NULL;
    ash_err err = ASH_ERR_INIT;
    if (ash_json_parse(data.p, data.n, &v, &err)) {
        openai_reply_fail(a, "sent an event that is not JSON: %.200s", err.msg);
        return;
    }
    const json_t *object, *error = json_object_get(v, "error");
    char s[MAX_SHOWN + 1];
    if (!json_is_object(v)) {
        openai_reply_fail(a, "sent an event that is %s; expected an object.",
                          ash_json_type_name(v));
    } else if (error && !json_is_null(error)) {
        shown(error_text(v, &object), s);
        openai_reply_fail(a, "sent an error%s%s", *s ? ": " : ".", s);
    } else {
        if (!a->head_sent) give_head(a);
        openai_deadline(a, a->budgets.idle_ms, "idle_timeout");
        give(a, &(ash_answer){.kind = ASH_ANSWER_RAW, .raw = data, .raw_status = (int)a->status});
    }
    json_decref(v);
}

/* Line breaks inside a payload can only be JSON's white space; one `data:` line has none. */
static void one_line(ash_str data)
{
    char *p = (char *)data.p;
    for (size_t i = 0; i < data.n; i++)
        if (p[i] == '\n' || p[i] == '\r') p[i] = ' ';
}

/* Gives what the parser holds until the reader is behind. */
static void drain(ash_answering *a)
{
    ash_str data;
    int rc = 0;
    while (!a->paused && !a->over && (rc = ash_sse_next(&a->sse, &data)) > 0) {
        one_line(data);
        take_payload(a, data);
    }
    if (rc < 0 && !a->over)
        openai_reply_fail(
            a, rc == ASH_ELIMIT ? "sent an event over %u bytes." : "answer did not fit (%u).",
            ASH_MAX_SSE_LINE);
    if (a->paused) openai_deadline(a, 0, NULL); /* the reader's time, not the upstream's */
}

/* At the first byte of a 2xx body: whether it is a stream where one was asked for. */
static bool check_type(ash_answering *a)
{
    const char *type = NULL;
    a->sse_checked = true;
    a->curl->easy_getinfo(a->easy, CURLINFO_CONTENT_TYPE, &type);
    if (!a->stream || (type && !strncasecmp(type, "text/event-stream", 17))) return true;
    char s[MAX_SHOWN + 1];
    shown(type ? type : "nothing", s);
    openai_reply_fail(a, "answered with Content-Type '%.80s'; expected text/event-stream.", s);
    return false;
}

bool openai_reply_bytes(ash_answering *a, const char *p, size_t n)
{
    if (a->over) return a->done; /* after [DONE] the rest is read, so that the connection lives */
    if (!a->status) a->curl->easy_getinfo(a->easy, CURLINFO_RESPONSE_CODE, &a->status);
    if (a->status / 100 != 2) {
        size_t room = MAX_ERROR_BODY - a->whole.len;
        ash_buf_add(&a->whole, p, n < room ? n : room);
        return true;
    }
    if (!a->sse_checked && !check_type(a)) return false;
    if (!a->stream) {
        openai_deadline(a, a->budgets.idle_ms, "idle_timeout");
        a->failure = ash_buf_add(&a->whole, p, n);
        return !a->failure;
    }
    a->failure = ash_sse_push(&a->sse, p, n);
    if (!a->failure) drain(a);
    return !a->failure && (!a->over || a->done);
}

void openai_reply_resume(ash_answering *a)
{
    a->paused = false;
    if (a->stream && a->head_sent && !a->over) {
        openai_deadline(a, a->budgets.idle_ms, "idle_timeout");
        drain(a);
    }
}

static void finish_stream(ash_answering *a)
{
    ash_str data;
    if (a->result == CURLE_OK && ash_sse_finish(&a->sse, &data) == 1 && ash_str_eqc(data, "[DONE]"))
        take_payload(a, data);
    else if (a->result == CURLE_OK)
        openai_reply_fail(a, "ended its stream without [DONE].");
    else
        openai_reply_fail(a, "broke off its stream: %s.", a->curl->easy_strerror(a->result));
}

static void finish_whole(ash_answering *a)
{
    json_t *v = NULL;
    const json_t *object;
    ash_err err = ASH_ERR_INIT;
    char s[MAX_SHOWN + 1];
    if (ash_json_parse(ash_buf_cstr(&a->whole), a->whole.len, &v, &err)) {
        openai_reply_fail(a, "answered with a body that is not JSON: %.200s", err.msg);
    } else if (!json_is_object(v)) {
        openai_reply_fail(a, "answered with %s; expected an object.", ash_json_type_name(v));
    } else if (!json_array_size(json_object_get(v, "choices"))) { /* some send errors with 200 */
        shown(error_text(v, &object), s);
        openai_reply_fail(a, "answered without 'choices'%s%s", *s ? ": " : ".", s);
    } else {
        give_head(a);
        ash_str body = {ash_buf_cstr(&a->whole), a->whole.len};
        give(a, &(ash_answer){.kind = ASH_ANSWER_RAW, .raw = body, .raw_status = (int)a->status});
        give_last(a, &(ash_answer){.kind = ASH_ANSWER_END});
    }
    json_decref(v);
}

void openai_reply_finish(ash_answering *a)
{
    if (a->over || a->paused) return;
    if (!a->status) a->curl->easy_getinfo(a->easy, CURLINFO_RESPONSE_CODE, &a->status);
    if (a->failure)
        openai_reply_fail(a, "answered with more than %u bytes.", ASH_MAX_UPSTREAM_BODY);
    else if (a->status && a->status / 100 != 2)
        refuse_status(a);
    else if (a->result != CURLE_OK && !a->head_sent)
        openai_reply_fail(a, "cannot be reached or broke off: %.200s.",
                          *a->curl_error ? a->curl_error : a->curl->easy_strerror(a->result));
    else if (!a->sse_checked && !check_type(a))
        return;
    else if (a->stream)
        finish_stream(a);
    else
        finish_whole(a);
}
