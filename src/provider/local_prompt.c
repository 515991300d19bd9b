/* Owns the way from a request to token ids: chat template, tokenizer, context check, and truncation
 * where the client asked for it. Refuses with errors in the client's terms. On the thread that has
 * the lease; touches no weights. */
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "provider/local_private.h"
#include "text/chat.h"

enum { LEAST_MAX_IDS = 1 << 16, CONTEXTS = 4 }; /* see maker.max_ids */

typedef struct maker {
    ash_answering *a;
    const ash_engine *engine;
    const ash_tokenizer *tok;
    uint32_t n_ctx;
    size_t max_ids; /* counting stops here, well beyond the context: it runs on the connection's
                       thread */
    ash_api_error *e;
} maker;

static int invalid(maker *m, const char *param, const char *fmt, ...) ASH_PRINTF(3, 4);
static int invalid(maker *m, const char *param, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    local_error(m->e, 400, "invalid_request_error", NULL, "%s", text);
    m->e->param = param;
    return 400;
}

static int from_err(maker *m, const ash_err *err, const char *param)
{
    if (err->code == ASH_ENOMEM)
        return local_error(m->e, 503, "unavailable_error", "out_of_memory", "%s", err->msg);
    if (err->code == ASH_EUNSUPPORTED)
        return local_error(m->e, 501, "not_supported_error", NULL, "%s", err->msg);
    return invalid(m, param, "%s", err->msg);
}

/* Adds the ids of text, and the BOS that the checkpoint wants and the text does not have. */
static int encode(maker *m, const char *text, size_t n, const ash_spans *untrusted,
                  const char *param, ash_ids *ids)
{
    ash_err err = ASH_ERR_INIT;
    ids->max = m->max_ids;
    int32_t bos = ash_tokenizer_adds_bos(m->tok) ? ash_tokenizer_bos(m->tok) : -1;
    int rc = bos >= 0 ? ash_ids_add(ids, bos, &err) : 0;
    if (!rc)
        rc = ash_tokenizer_encode(m->tok, text, n, ASH_ENCODE_SPECIAL,
                                  untrusted ? untrusted->v : NULL, untrusted ? untrusted->n : 0,
                                  ids, &err);
    if (rc == ASH_ELIMIT) {
        ids->n = m->max_ids; /* told as an overflow of the context */
        return 0;
    }
    if (rc) return from_err(m, &err, param);
    if (bos >= 0 && ids->n > 1 && ids->p[1] == bos) { /* the text has it */
        memmove(ids->p, ids->p + 1, (ids->n - 1) * sizeof *ids->p);
        ids->n--;
    }
    return 0;
}

static bool ends_with_think(const char *text, size_t n)
{
    while (n && (text[n - 1] == '\n' || text[n - 1] == ' ')) n--;
    return n >= 7 && !memcmp(text + n - 7, "<think>", 7);
}

static int make_chat(maker *m, const json_t *messages, local_prompt *out)
{
    const ash_request *q = &m->a->req;
    const ash_template *t = ash_engine_template(m->engine);
    if (!t)
        return invalid(
            m, "messages",
            "the model '%.100s' has no chat template; set \"template\" in its catalogue entry, "
            "or use /v1/completions",
            q->model);
    const json_t *tools = json_object_get(q->body, "tools"),
                 *docs = json_object_get(q->body, "documents");
    const json_t *kwargs = json_object_get(q->body, "chat_template_kwargs");
    ash_chat_opts opts = {
        .bos_token = ash_engine_bos_text(m->engine),
        .eos_token = ash_engine_eos_text(m->engine),
        .tools = json_is_array(tools) ? tools : NULL,
        .documents = json_is_array(docs) ? docs : NULL,
        .kwargs = json_is_object(kwargs) ? kwargs : NULL,
        .add_generation_prompt = q->add_generation_prompt,
        .continue_final_message = q->continue_final_message,
    };
    ash_err err = ASH_ERR_INIT;
    ash_spans untrusted = {0};
    ash_buf text;
    ash_buf_init(&text, ASH_MAX_TEMPLATE_OUTPUT);
    int rc = ash_chat_format(t, messages, &opts, &text, &untrusted, &err);
    if (rc)
        rc = from_err(m, &err, "messages");
    else
        rc = encode(m, ash_buf_cstr(&text), text.len, &untrusted, "messages", &out->ids);
    out->thinks = !rc && ends_with_think(ash_buf_cstr(&text), text.len);
    ash_buf_release(&text);
    ash_spans_release(&untrusted);
    return rc;
}

static bool fits(const maker *m, const ash_ids *ids)
{
    return ids->n < m->n_ctx || (ids->n == m->n_ctx && m->a->req.max_tokens == 0);
}

static int overflow(maker *m, size_t n_prompt, const char *param)
{
    invalid(m, param,
            "the request has %s%zu tokens; the context of '%.100s' holds %u, the answer included",
            n_prompt >= m->max_ids ? "at least " : "", n_prompt, m->a->req.model, m->n_ctx);
    m->e->code = "context_length_exceeded";
    m->e->extra =
        json_pack("{s:I, s:I}", "n_prompt", (json_int_t)n_prompt, "n_ctx", (json_int_t)m->n_ctx);
    return 400;
}

static bool has_role(const json_t *message, const char *role)
{
    const char *r = json_string_value(json_object_get(message, "role"));
    return r && !strcmp(r, role);
}

/* The messages without the oldest that are no system's: `from` is the first that stays. New
 * reference. */
static json_t *without_oldest(const json_t *messages, size_t from)
{
    json_t *kept = json_array();
    for (size_t i = 0; i < json_array_size(messages); i++) {
        json_t *one = json_array_get(messages, i);
        if (i >= from || has_role(one, "system") || has_role(one, "developer"))
            json_array_append(kept, one);
    }
    return kept;
}

/* truncate: "oldest". Conversations are cut before a user's message, so that roles still alternate;
 * the fewest messages that make it fit are dropped (fewer messages are fewer tokens). Found from the end,
 * by doubling and then halving: of a history of megabytes only what may fit is rendered again. */
static int truncate_chat(maker *m, const json_t *messages, local_prompt *out)
{
    size_t n = json_array_size(messages), n_cuts = 0, whole = out->ids.n, step = 1;
    size_t *cuts = calloc(n + 1, sizeof *cuts);
    if (!cuts)
        return local_error(m->e, 503, "unavailable_error", "out_of_memory",
                           "out of memory (truncation)");
    for (size_t i = 1; i < n; i++)
        if (has_role(json_array_get(messages, i), "user")) cuts[n_cuts++] = i;
    size_t lo = 0, hi = n_cuts, best = n_cuts;
    int rc = 0;
    while (!rc && lo < hi) {
        size_t mid = !step ? lo + (hi - lo) / 2 : hi - lo > step ? hi - step : lo;
        json_t *kept = without_oldest(messages, cuts[mid]);
        local_prompt p = {0};
        rc = make_chat(m, kept, &p);
        bool ok = !rc && fits(m, &p.ids);
        if (ok) {
            ash_ids_release(&out->ids);
            *out = p;
            best = hi = mid;
            step *= 2;
            m->a->truncated_messages = (uint32_t)(n - json_array_size(kept));
            m->a->truncated_tokens = (uint32_t)(whole - p.ids.n);
        } else {
            ash_ids_release(&p.ids);
            lo = mid + 1;
            step = 0;
        }
        json_decref(kept);
    }
    free(cuts);
    if (rc) return rc;
    return best < n_cuts ? 0 : overflow(m, whole, "messages");
}

/* Whether the client wants whole messages dropped. */
static int wants_truncation(maker *m, bool *out)
{
    const json_t *v = json_object_get(m->a->req.body, "truncate");
    const char *s = json_string_value(v);
    *out = s && !strcmp(s, "oldest");
    if (*out || !v || json_is_null(v) || json_is_false(v) || (s && !strcmp(s, "none"))) return 0;
    return invalid(m, "truncate", "'truncate' must be \"oldest\" or \"none\"");
}

static int chat(maker *m, local_prompt *out)
{
    const json_t *messages = json_object_get(m->a->req.body, "messages");
    bool truncate;
    int rc = wants_truncation(m, &truncate);
    if (!rc) rc = make_chat(m, messages, out);
    if (rc || fits(m, &out->ids)) return rc;
    return truncate ? truncate_chat(m, messages, out) : overflow(m, out->ids.n, "messages");
}

/* Ids given as numbers; the vocabulary bounds them. */
static int take_ids(maker *m, const json_t *list, ash_ids *ids)
{
    ash_err err = ASH_ERR_INIT;
    ids->max = m->max_ids;
    size_t vocab = ash_tokenizer_n_vocab(m->tok);
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_int_t id = json_integer_value(json_array_get(list, i));
        if (!json_is_integer(json_array_get(list, i)) || id < 0 || (size_t)id >= vocab)
            return invalid(m, "prompt", "'prompt[%zu]' must be a token id from 0 to %zu", i,
                           vocab - 1);
        int rc = ash_ids_add(ids, (int32_t)id, &err);
        if (rc == ASH_ELIMIT) break; /* told as an overflow */
        if (rc) return from_err(m, &err, "prompt");
    }
    return 0;
}

static int one_prompt(maker *m, const json_t *v, local_prompt *out)
{
    int rc = json_is_string(v)
                 ? encode(m, json_string_value(v), json_string_length(v), NULL, "prompt", &out->ids)
                 : take_ids(m, v, &out->ids);
    if (rc) return rc;
    if (!out->ids.n) {
        ash_err err = ASH_ERR_INIT;
        int32_t start = ash_tokenizer_bos(m->tok);
        if (start < 0)
            return invalid(m, "prompt",
                           "'prompt' is empty, and the model has no token to start with");
        rc = ash_ids_add(&out->ids, start, &err);
        if (rc) return from_err(m, &err, "prompt");
    }
    return fits(m, &out->ids) ? 0 : overflow(m, out->ids.n, "prompt");
}

static int completion(maker *m, local_prompt *prompts, size_t *n)
{
    const json_t *v = json_object_get(m->a->req.body, "prompt");
    bool list = json_is_array(v) && !json_is_integer(json_array_get(v, 0));
    size_t count = list ? json_array_size(v) : 1;
    if (!count || count > ASH_MAX_CHOICES)
        return invalid(m, "prompt", "'prompt' must have 1 to %d entries", ASH_MAX_CHOICES);
    int rc = 0;
    while (!rc && *n < count) {
        const json_t *one = list ? json_array_get(v, *n) : v;
        rc = one_prompt(m, one, &prompts[(*n)++]);
    }
    return rc;
}

int local_prompts_make(ash_answering *a, const ash_engine *engine, local_prompt *prompts, size_t *n,
                       ash_api_error *e)
{
    uint32_t n_ctx = ash_engine_info(engine)->n_ctx;
    size_t most = (size_t)n_ctx * CONTEXTS;
    maker m = {
        a, engine, ash_engine_tokenizer(engine), n_ctx, most < LEAST_MAX_IDS ? LEAST_MAX_IDS : most,
        e};
    *n = 0;
    if (!m.tok)
        return local_error(e, 501, "not_supported_error", NULL,
                           "the model '%.100s' has no tokenizer", a->req.model);
    if (a->req.kind == ASH_REQUEST_COMPLETION) return completion(&m, prompts, n);
    *n = 1;
    return chat(&m, prompts);
}
