/* Owns the text of Ollama's answers. Refuses nothing. */
#include "api/ollama_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"

enum { MAX_TEXT = 64 << 20 }; /* kept text: more than any context gives */

struct ash_ollama {
    bool chat, stream;
    char model[ASH_MAX_MODEL_ID + 1], reason[16];
    int64_t began_ns;
    ash_answer_usage usage; /* an upstream's, without times */
    ash_buf text, thinking;
};

ash_ollama *ash_ollama_open(bool chat, bool stream, const char *model)
{
    ash_ollama *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->chat = chat;
    t->stream = stream;
    t->began_ns = ash_clock_ns();
    ash_buf_init(&t->text, MAX_TEXT);
    ash_buf_init(&t->thinking, MAX_TEXT);
    ash_ollama_model(t, model);
    ash_ollama_finish(t, "stop");
    return t;
}

void ash_ollama_close(ash_ollama *t)
{
    if (!t) return;
    ash_buf_release(&t->text);
    ash_buf_release(&t->thinking);
    free(t);
}

void ash_ollama_since(ash_ollama *t, int64_t ms)
{
    t->began_ns = ms * 1000000;
}

void ash_ollama_model(ash_ollama *t, const char *model)
{
    snprintf(t->model, sizeof t->model, "%s", model);
}

void ash_ollama_finish(ash_ollama *t, const char *reason)
{
    snprintf(t->reason, sizeof t->reason, "%s", reason);
}

/* {"model":...,"created_at":...,"message":{...} or "response":...  without its end. */
static void begin(const ash_ollama *t, ash_str text, ash_str thinking, ash_buf *out)
{
    char now[25];
    ash_clock_iso(ash_clock_wall(), now);
    ash_buf_adds(out, "{\"model\":");
    ash_json_quote(out, t->model, strlen(t->model));
    ash_buf_printf(out, ",\"created_at\":\"%s\"", now);
    ash_buf_adds(out, t->chat ? ",\"message\":{\"role\":\"assistant\",\"content\":" : ",\"response\":");
    ash_json_quote(out, text.n ? text.p : "", text.n);
    if (thinking.n) {
        ash_buf_adds(out, ",\"thinking\":");
        ash_json_quote(out, thinking.p, thinking.n);
    }
    if (t->chat) ash_buf_addc(out, '}');
}

int ash_ollama_delta(ash_ollama *t, ash_str text, ash_str thinking, ash_buf *out)
{
    if (!t->stream) {
        ash_buf_addstr(&t->text, text);
        ash_buf_addstr(&t->thinking, thinking);
        return t->text.failed ? t->text.failed : t->thinking.failed;
    }
    if (!text.n && !thinking.n) return 0;
    begin(t, text, thinking, out);
    return ash_buf_adds(out, ",\"done\":false}\n");
}

static ash_str text_of(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_string(v) ? (ash_str){json_string_value(v), json_string_length(v)} : (ash_str){0};
}

static uint32_t count_of(const json_t *usage, const char *key)
{
    json_int_t n = json_integer_value(json_object_get(usage, key));
    return n > 0 && n <= INT32_MAX ? (uint32_t)n : 0;
}

int ash_ollama_raw(ash_ollama *t, ash_str raw, ash_buf *out)
{
    json_t *v = NULL;
    ash_err err = ASH_ERR_INIT;
    int rc = ash_json_parse(raw.p, raw.n, &v, &err);
    if (rc) return rc == ASH_ENOMEM ? rc : 0; /* "[DONE]" */
    const json_t *choice = json_array_get(json_object_get(v, "choices"), 0);
    const json_t *usage = json_object_get(v, "usage");
    const json_t *said = json_object_get(choice, t->stream ? "delta" : "message");
    const char *reason = json_string_value(json_object_get(choice, "finish_reason"));
    bool text = json_is_string(json_object_get(choice, "text")); /* of a completion */
    if (reason) ash_ollama_finish(t, !strcmp(reason, "length") ? "length" : "stop");
    if (json_is_object(usage)) {
        t->usage.prompt_tokens = count_of(usage, "prompt_tokens");
        t->usage.completion_tokens = count_of(usage, "completion_tokens");
    }
    rc = ash_ollama_delta(t, text ? text_of(choice, "text") : text_of(said, "content"),
                          text_of(said, "reasoning_content"), out);
    json_decref(v);
    return rc;
}

static int64_t ns(double ms)
{
    return ms > 0.0 ? (int64_t)(ms * 1e6) : 0;
}

int ash_ollama_end(ash_ollama *t, const ash_answer_usage *usage, ash_buf *out)
{
    const ash_answer_usage *u = usage ? usage : &t->usage;
    double total_ms = (double)(ash_clock_ns() - t->began_ns) * 1e-6;
    double load_ms = total_ms - u->prefill_ms - u->decode_ms;
    begin(t, (ash_str){t->text.data, t->text.len}, (ash_str){t->thinking.data, t->thinking.len}, out);
    ash_buf_printf(out,
                   ",\"done\":true,\"done_reason\":\"%s\",\"total_duration\":%" PRId64
                   ",\"load_duration\":%" PRId64 ",\"prompt_eval_count\":%u,\"prompt_eval_duration\":%" PRId64
                   ",\"eval_count\":%u,\"eval_duration\":%" PRId64 "}",
                   t->reason, ns(total_ms), ns(usage ? load_ms : 0.0), u->prompt_tokens, ns(u->prefill_ms),
                   u->completion_tokens, ns(u->decode_ms));
    return t->stream ? ash_buf_addc(out, '\n') : out->failed;
}
