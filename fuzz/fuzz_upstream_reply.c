/* What an upstream answers, as the caller gets it: status, content type and body, fed whole and in pieces, to
 * a reader that keeps up and to one that does not. Exactly one last event, the same events whatever the
 * pieces; each payload of a stream is one line of JSON; each message is text; and Ollama's form of it is JSON
 * again.
 *
 * First byte: bit 0 a stream was asked for, bit 1 as SSE, bit 2 the transfer breaks at the end; second: the
 * HTTP status, by a table; third: the pieces' size. */
#include <stdlib.h>
#include <string.h>

#include "api/ollama_text.h"
#include "base/log.h"
#include "base/utf8.h"
#include "provider/openai_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const long statuses[8] = {200, 200, 200, 201, 302, 400, 429, 500};
static ash_provider *provider;
static const uint8_t *head; /* the input */

/* ---- the transfer that this stands for ---- */

static CURLcode getinfo(CURL *easy, CURLINFO info, ...)
{
    va_list args;
    va_start(args, info);
    if (info == CURLINFO_RESPONSE_CODE)
        *va_arg(args, long *) = statuses[head[1] % 8];
    else if (info == CURLINFO_RETRY_AFTER)
        *va_arg(args, curl_off_t *) = head[2] % 3 ? -1 : (curl_off_t)head[2] << 20;
    else if (info == CURLINFO_CONTENT_TYPE)
        *va_arg(args, const char **) = head[0] & 2 ? "text/event-stream; charset=utf-8"
                                                   : "text/\xff\x80html\xe2";
    else
        abort();
    va_end(args);
    return CURLE_OK;
}

static const char *strerror_of(CURLcode code)
{
    return code ? "it broke" : "no error";
}

/* ---- the reader ---- */

typedef struct reader {
    ash_buf said; /* each event, with what it holds */
    ash_ollama *ollama;
    ash_buf lines;
    bool slow, stream;
    int last;
} reader;

static int on_answer(void *user, const ash_answer *a)
{
    reader *r = user;
    if (r->last) abort(); /* nothing comes after it */
    ash_buf_printf(&r->said, "%d:", (int)a->kind);
    if (a->kind == ASH_ANSWER_RAW) {
        json_t *v = NULL;
        if (ash_json_parse(a->raw.p, a->raw.n, &v, NULL) || !json_is_object(v)) abort();
        if (r->stream && (memchr(a->raw.p, '\n', a->raw.n) || memchr(a->raw.p, '\r', a->raw.n))) abort();
        json_decref(v);
        ash_buf_addstr(&r->said, a->raw);
        if (ash_ollama_raw(r->ollama, a->raw, &r->lines)) abort();
    }
    if (a->kind == ASH_ANSWER_ERROR) {
        const ash_api_error *e = a->error;
        if (e->status < 400 || !e->type || !e->message[0]) abort();
        if (!ash_utf8_valid(e->message, strlen(e->message))) abort();
        ash_buf_printf(&r->said, "%d %s %d %s", e->status, e->code ? e->code : "-", e->retry_after,
                       e->message);
    }
    r->last += a->kind == ASH_ANSWER_END || a->kind == ASH_ANSWER_ERROR;
    return r->slow ? ASH_EAGAIN : 0;
}

static void check_lines(reader *r)
{
    if (ash_ollama_end(r->ollama, NULL, &r->lines)) abort();
    const char *p = r->lines.data, *end = p + r->lines.len;
    while (p < end) {
        const char *stop = r->stream ? memchr(p, '\n', (size_t)(end - p)) : end;
        json_t *v = NULL;
        if (!stop || ash_json_parse(p, (size_t)(stop - p), &v, NULL)) abort();
        json_decref(v);
        p = stop + (r->stream ? 1 : 0);
    }
}

/* ---- one reply ---- */

static void run(const char *p, size_t n, size_t piece, bool slow, ash_buf *said)
{
    static const ash_curl curl = {.easy_getinfo = getinfo, .easy_strerror = strerror_of};
    reader r = {.slow = slow, .stream = head[0] & 1};
    ash_answering a = {.owner = (openai *)provider, .stream = head[0] & 1, .fn = on_answer, .user = &r,
                       .curl = &curl, .id = (char *)(uintptr_t)"id", .model = (char *)(uintptr_t)"m",
                       .result = head[0] & 4 ? CURLE_RECV_ERROR : CURLE_OK};
    pthread_mutex_init(&a.lock, NULL);
    ash_sse_init(&a.sse, ASH_MAX_SSE_LINE);
    ash_buf_init(&a.whole, ASH_MAX_UPSTREAM_BODY);
    ash_buf_init(&r.said, 64u << 20);
    ash_buf_init(&r.lines, 64u << 20);
    r.ollama = ash_ollama_open(true, r.stream, "m");
    if (!r.ollama) abort();
    for (size_t at = 0; at < n; at += piece) {
        if (!openai_reply_bytes(&a, p + at, n - at < piece ? n - at : piece)) break;
        while (a.paused) openai_reply_resume(&a);
    }
    for (openai_reply_finish(&a); a.paused; openai_reply_finish(&a)) openai_reply_resume(&a);
    if (r.last != 1) abort();
    check_lines(&r);
    *said = r.said;
    ash_buf_release(&r.lines);
    ash_ollama_close(r.ollama);
    ash_sse_release(&a.sse);
    ash_buf_release(&a.whole);
    pthread_mutex_destroy(&a.lock);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const ash_openai_opts opts = {.name = "openai", .base_url = "http://127.0.0.1:9/v1"};
    if (size < 3) return 0;
    if (!provider) ash_log_set_level(ASH_LOG_ERROR);
    if (!provider && ash_openai_open(&opts, &provider, NULL)) abort();
    head = data;
    const char *p = (const char *)data + 3;
    ash_buf whole, parts, slow;
    run(p, size - 3, size, false, &whole);
    run(p, size - 3, (size_t)data[2] + 1, false, &parts);
    run(p, size - 3, (size_t)data[2] + 1, true, &slow);
    if (whole.len != parts.len || memcmp(ash_buf_cstr(&whole), ash_buf_cstr(&parts), whole.len)) abort();
    if (whole.len != slow.len || memcmp(ash_buf_cstr(&whole), ash_buf_cstr(&slow), whole.len)) abort();
    ash_buf_release(&whole);
    ash_buf_release(&parts);
    ash_buf_release(&slow);
    return 0;
}
