/* Owns the text of chat.completion, chat.completion.chunk and text_completion objects (OpenAI's API
 * reference; `timings` and `prompt_progress` as llama.cpp's server adds them). */
#include "api/openai_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/rng.h"
#include "base/utf8.h"

enum { MAX_TEXT = 64 << 20 }; /* kept text of one choice: more than any context gives */

/* Log-probabilities as comma lists: chats use `content`; completions the four of the old API. */
typedef struct logprob_lists {
    ash_buf content, tokens, values, tops, offsets;
    size_t offset; /* code points of text before the next token */
} logprob_lists;

typedef struct choice {
    bool begun; /* the line with the role is out */
    bool has_logprobs;
    char finish[16]; /* "" while it runs */
    ash_buf text, reasoning;
    logprob_lists logprobs;
} choice;

struct ash_oai {
    ash_request_kind kind;
    bool stream;
    int n, held; /* held: choice whose finish line waits, or -1 */
    char id[48];
    int64_t created;
    uint32_t truncated_messages, truncated_tokens;
    ash_buf prefix; /* {"id":...,"system_fingerprint":...  without its end */
    choice *choices;
};

static void init_lists(logprob_lists *l)
{
    ash_buf_init(&l->content, MAX_TEXT);
    ash_buf_init(&l->tokens, MAX_TEXT);
    ash_buf_init(&l->values, MAX_TEXT);
    ash_buf_init(&l->tops, MAX_TEXT);
    ash_buf_init(&l->offsets, MAX_TEXT);
}

static void clear_lists(logprob_lists *l)
{
    ash_buf_clear(&l->content);
    ash_buf_clear(&l->tokens);
    ash_buf_clear(&l->values);
    ash_buf_clear(&l->tops);
    ash_buf_clear(&l->offsets);
}

static void release_lists(logprob_lists *l)
{
    ash_buf_release(&l->content);
    ash_buf_release(&l->tokens);
    ash_buf_release(&l->values);
    ash_buf_release(&l->tops);
    ash_buf_release(&l->offsets);
}

int ash_oai_model(ash_oai *t, const char *model)
{
    const char *object = t->kind == ASH_REQUEST_COMPLETION ? "text_completion"
                         : t->stream                       ? "chat.completion.chunk"
                                                           : "chat.completion";
    ash_buf_clear(&t->prefix);
    ash_buf_printf(&t->prefix,
                   "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%" PRId64 ",\"model\":", t->id,
                   object, t->created);
    ash_json_quote(&t->prefix, model, strlen(model));
    return ash_buf_adds(&t->prefix, ",\"system_fingerprint\":\"ashley-" ASHLEY_VERSION "\"");
}

ash_oai *ash_oai_open(ash_request_kind kind, bool stream, int n, const char *model)
{
    ash_oai *t = calloc(1, sizeof *t);
    choice *choices = calloc((size_t)n, sizeof *choices);
    if (!t || !choices) {
        free(t);
        free(choices);
        return NULL;
    }
    *t = (ash_oai){.kind = kind, .stream = stream, .n = n, .held = -1, .choices = choices};
    t->created = (int64_t)ash_clock_wall();
    snprintf(t->id, sizeof t->id, "%s-%016" PRIx64, kind == ASH_REQUEST_CHAT ? "chatcmpl" : "cmpl",
             ash_rng_entropy());
    ash_buf_init(&t->prefix, 8 << 10);
    for (int i = 0; i < n; i++) {
        ash_buf_init(&choices[i].text, MAX_TEXT);
        ash_buf_init(&choices[i].reasoning, MAX_TEXT);
        init_lists(&choices[i].logprobs);
    }
    if (!ash_oai_model(t, model)) return t;
    ash_oai_close(t);
    return NULL;
}

void ash_oai_close(ash_oai *t)
{
    if (!t) return;
    for (int i = 0; i < t->n; i++) {
        ash_buf_release(&t->choices[i].text);
        ash_buf_release(&t->choices[i].reasoning);
        release_lists(&t->choices[i].logprobs);
    }
    ash_buf_release(&t->prefix);
    free(t->choices);
    free(t);
}

/* ---- log-probabilities ---- */

static void comma(ash_buf *b)
{
    if (b->len) ash_buf_addc(b, ',');
}

static void add_token_text(ash_buf *b, const json_t *entry)
{
    const json_t *token = json_object_get(entry, "token");
    ash_json_quote(b, json_is_string(token) ? json_string_value(token) : "",
                   json_string_length(token));
}

static void add_number(ash_buf *b, const json_t *entry)
{
    ash_buf_printf(b, "%.9g", json_number_value(json_object_get(entry, "logprob")));
}

static void add_old_form(logprob_lists *l, const json_t *entry)
{
    comma(&l->tokens);
    comma(&l->values);
    comma(&l->tops);
    comma(&l->offsets);
    add_token_text(&l->tokens, entry);
    add_number(&l->values, entry);
    ash_buf_printf(&l->offsets, "%zu", l->offset);
    const json_t *token = json_object_get(entry, "token"),
                 *tops = json_object_get(entry, "top_logprobs");
    l->offset += ash_utf8_count(json_is_string(token) ? json_string_value(token) : "",
                                json_string_length(token));
    ash_buf_addc(&l->tops, '{');
    for (size_t i = 0; i < json_array_size(tops); i++) {
        if (i) ash_buf_addc(&l->tops, ',');
        add_token_text(&l->tops, json_array_get(tops, i));
        ash_buf_addc(&l->tops, ':');
        add_number(&l->tops, json_array_get(tops, i));
    }
    ash_buf_addc(&l->tops, '}');
}

static void keep_logprobs(ash_oai *t, choice *c, const json_t *list)
{
    c->has_logprobs |= list != NULL;
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (t->kind == ASH_REQUEST_COMPLETION) {
            add_old_form(&c->logprobs, json_array_get(list, i));
        } else {
            comma(&c->logprobs.content);
            ash_json_dump(json_array_get(list, i), &c->logprobs.content);
        }
    }
}

static void add_logprobs(const ash_oai *t, const choice *c, ash_buf *out)
{
    const logprob_lists *l = &c->logprobs;
    if (!c->has_logprobs)
        ash_buf_adds(out, ",\"logprobs\":null");
    else if (t->kind == ASH_REQUEST_CHAT)
        ash_buf_printf(out, ",\"logprobs\":{\"content\":[%s],\"refusal\":null}",
                       ash_buf_cstr(&l->content));
    else
        ash_buf_printf(
            out,
            ",\"logprobs\":{\"tokens\":[%s],\"token_logprobs\":[%s],\"top_logprobs\":[%s],"
            "\"text_offset\":[%s]}",
            ash_buf_cstr(&l->tokens), ash_buf_cstr(&l->values), ash_buf_cstr(&l->tops),
            ash_buf_cstr(&l->offsets));
}

/* ---- usage ---- */

static void add_usage(const ash_answer_usage *u, ash_buf *out)
{
    ash_buf_printf(out,
                   ",\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u,"
                   "\"prompt_tokens_details\":{\"cached_tokens\":%u}}",
                   u->prompt_tokens, u->completion_tokens, u->prompt_tokens + u->completion_tokens,
                   u->cached_tokens);
}

static double per(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static void add_timings(const ash_answer_usage *u, ash_buf *out)
{
    uint32_t prompt = u->prompt_tokens - u->cached_tokens, made = u->completion_tokens;
    ash_buf_printf(out,
                   ",\"timings\":{\"cache_n\":%u,\"prompt_n\":%u,\"prompt_ms\":%.3f,"
                   "\"prompt_per_token_ms\":%.3f,\"prompt_per_second\":%.3f,\"predicted_n\":%u,"
                   "\"predicted_ms\":%.3f,\"predicted_per_token_ms\":%.3f,"
                   "\"predicted_per_second\":%.3f,\"queue_ms\":%.3f}",
                   u->cached_tokens, prompt, u->prefill_ms, per(u->prefill_ms, prompt),
                   per(1e3 * prompt, u->prefill_ms), made, u->decode_ms, per(u->decode_ms, made),
                   per(1e3 * made, u->decode_ms), u->queue_ms);
}

/* ---- stream ---- */

static void begin_line(const ash_oai *t, ash_buf *out)
{
    ash_buf_adds(out, "data: ");
    ash_buf_add(out, t->prefix.data, t->prefix.len);
    ash_buf_adds(out, ",\"choices\":[");
}

/* One choice of a chat line: {"index":I,"delta":{ ... the caller adds, then closes. */
static void begin_delta(const ash_oai *t, int index, ash_buf *out)
{
    begin_line(t, out);
    ash_buf_printf(out, "{\"index\":%d,\"delta\":{", index);
}

static void role_line(ash_oai *t, int index, ash_buf *out)
{
    choice *c = &t->choices[index];
    if (c->begun || t->kind != ASH_REQUEST_CHAT) return;
    c->begun = true;
    begin_delta(t, index, out);
    ash_buf_adds(out, "\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                      "\"finish_reason\":null}]}\n\n");
}

static void release_held(ash_oai *t, const ash_answer_usage *usage, ash_buf *out)
{
    if (t->held < 0) return;
    const char *reason = t->choices[t->held].finish;
    if (t->kind == ASH_REQUEST_CHAT) {
        begin_delta(t, t->held, out);
        ash_buf_printf(out, "},\"logprobs\":null,\"finish_reason\":\"%s\"}]", reason);
    } else {
        begin_line(t, out);
        ash_buf_printf(out,
                       "{\"index\":%d,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"%s\"}]",
                       t->held, reason);
    }
    if (usage) add_timings(usage, out);
    ash_buf_adds(out, "}\n\n");
    t->held = -1;
}

static void stream_delta(ash_oai *t, const ash_answer *a, ash_buf *out)
{
    choice *c = &t->choices[a->index];
    release_held(t, NULL, out);
    role_line(t, a->index, out);
    if (!a->text.n && !a->reasoning.n && !json_array_size(a->logprobs)) return;
    clear_lists(&c->logprobs);
    keep_logprobs(t, c, a->logprobs);
    if (t->kind == ASH_REQUEST_CHAT) {
        begin_delta(t, a->index, out);
        if (a->reasoning.n) {
            ash_buf_adds(out, "\"reasoning_content\":");
            ash_json_quote(out, a->reasoning.p, a->reasoning.n);
        }
        if (a->text.n || !a->reasoning.n) {
            ash_buf_adds(out, a->reasoning.n ? ",\"content\":" : "\"content\":");
            ash_json_quote(out, a->text.p, a->text.n);
        }
        ash_buf_addc(out, '}');
    } else {
        begin_line(t, out);
        ash_buf_printf(out, "{\"index\":%d,\"text\":", a->index);
        ash_json_quote(out, a->text.p, a->text.n);
    }
    add_logprobs(t, c, out);
    ash_buf_adds(out, ",\"finish_reason\":null}]}\n\n");
}

static void end_stream(ash_oai *t, const ash_answer_usage *usage, bool include_usage, ash_buf *out)
{
    release_held(t, usage, out);
    if (include_usage && usage) {
        begin_line(t, out);
        ash_buf_addc(out, ']');
        add_usage(usage, out);
        add_timings(usage, out);
        ash_buf_adds(out, "}\n\n");
    }
    ash_buf_adds(out, "data: [DONE]\n\n");
}

/* ---- whole body ---- */

static void add_choice(const ash_oai *t, int index, ash_buf *out)
{
    const choice *c = &t->choices[index];
    ash_buf_printf(out, "%s{\"index\":%d,", index ? "," : "", index);
    if (t->kind == ASH_REQUEST_CHAT) {
        ash_buf_adds(out, "\"message\":{\"role\":\"assistant\",\"content\":");
        ash_json_quote(out, ash_buf_cstr(&c->text), c->text.len);
        if (c->reasoning.len) {
            ash_buf_adds(out, ",\"reasoning_content\":");
            ash_json_quote(out, c->reasoning.data, c->reasoning.len);
        }
        ash_buf_addc(out, '}');
    } else {
        ash_buf_adds(out, "\"text\":");
        ash_json_quote(out, ash_buf_cstr(&c->text), c->text.len);
    }
    add_logprobs(t, c, out);
    ash_buf_printf(out, ",\"finish_reason\":\"%s\"}", c->finish[0] ? c->finish : "stop");
}

static int kept_failure(const ash_oai *t)
{
    int failed = t->prefix.failed;
    for (int i = 0; i < t->n && !failed; i++) {
        const logprob_lists *l = &t->choices[i].logprobs;
        const ash_buf *all[] = {&t->choices[i].text, &t->choices[i].reasoning,
                                &l->content,         &l->tokens,
                                &l->values,          &l->tops,
                                &l->offsets};
        for (size_t j = 0; j < sizeof all / sizeof *all && !failed; j++) failed = all[j]->failed;
    }
    return failed;
}

static void add_truncated(const ash_oai *t, ash_buf *out)
{
    if (t->truncated_messages)
        ash_buf_printf(out, ",\"truncated\":{\"messages\":%u,\"tokens\":%u}", t->truncated_messages,
                       t->truncated_tokens);
}

static void end_body(const ash_oai *t, const ash_answer_usage *usage, ash_buf *out)
{
    ash_buf_add(out, t->prefix.data, t->prefix.len);
    ash_buf_adds(out, ",\"choices\":[");
    for (int i = 0; i < t->n; i++) add_choice(t, i, out);
    ash_buf_addc(out, ']');
    if (usage) {
        add_usage(usage, out);
        add_timings(usage, out);
    }
    add_truncated(t, out);
    ash_buf_addc(out, '}');
}

/* ---- events ---- */

int ash_oai_delta(ash_oai *t, const ash_answer *a, ash_buf *out)
{
    if (a->index < 0 || a->index >= t->n) return 0;
    choice *c = &t->choices[a->index];
    if (t->stream) {
        stream_delta(t, a, out);
    } else {
        ash_buf_addstr(&c->text, a->text);
        ash_buf_addstr(&c->reasoning, a->reasoning);
        keep_logprobs(t, c, a->logprobs);
    }
    return kept_failure(t);
}

void ash_oai_finish(ash_oai *t, int index, const char *reason, ash_buf *out)
{
    if (index < 0 || index >= t->n) return;
    snprintf(t->choices[index].finish, sizeof t->choices[index].finish, "%s", reason);
    if (!t->stream) return;
    release_held(t, NULL, out);
    role_line(t, index, out);
    t->held = index;
}

/* An empty delta, so that clients that take choices[0] for granted go on working. */
static void empty_choice(const ash_oai *t, ash_buf *out)
{
    begin_line(t, out);
    ash_buf_adds(out,
                 t->kind == ASH_REQUEST_CHAT
                     ? "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":null}]"
                     : "{\"index\":0,\"text\":\"\",\"logprobs\":null,\"finish_reason\":null}]");
}

void ash_oai_head(ash_oai *t, const ash_answer *a, bool late, ash_buf *out)
{
    t->truncated_messages = a->truncated_messages;
    t->truncated_tokens = a->truncated_tokens;
    if (!t->stream || (!late && !t->truncated_messages)) return;
    role_line(t, 0, out);
    empty_choice(t, out);
    if (late) {
        ash_buf_adds(out, ",\"served_by\":");
        ash_json_quote(out, a->served_by, strlen(a->served_by));
        if (a->reason) {
            ash_buf_adds(out, ",\"reason\":");
            ash_json_quote(out, a->reason, strlen(a->reason));
        }
    }
    add_truncated(t, out);
    ash_buf_adds(out, "}\n\n");
}

void ash_oai_progress(ash_oai *t, const ash_answer *a, ash_buf *out)
{
    release_held(t, NULL, out);
    role_line(t, 0, out);
    empty_choice(t, out);
    ash_buf_printf(
        out,
        ",\"prompt_progress\":{\"total\":%u,\"cache\":%u,\"processed\":%u,\"time_ms\":%.3f}"
        "}\n\n",
        a->total, a->cached, a->processed, a->time_ms);
}

void ash_oai_waiting(ash_oai *t, const json_t *progress, ash_buf *out)
{
    role_line(t, 0, out);
    empty_choice(t, out);
    ash_buf_adds(out, ",\"loading\":");
    if (!progress || ash_json_dump(progress, out)) ash_buf_adds(out, "null");
    ash_buf_adds(out, "}\n\n");
}

int ash_oai_end(ash_oai *t, const ash_answer_usage *usage, bool include_usage, ash_buf *out)
{
    if (t->stream)
        end_stream(t, usage, include_usage, out);
    else
        end_body(t, usage, out);
    int failed = kept_failure(t);
    return failed ? failed : out->failed;
}
