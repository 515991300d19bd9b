/* Owns the reading of request bodies. Refuses wrong types and ranges by the field's name; what is
 * missing, null or unknown is no error. Pure, any thread. */
#include "api/params.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/duration.h"
#include "text/chat.h"

typedef struct reader {
    const json_t *body;
    ash_arena *arena;
    ash_request *req;
    ash_err err;
} reader;

/* What Jansson takes: an empty object, a member without its texts. */
enum { CONTAINER_BYTES = 256, VALUE_BYTES = 128 };

/* A tree of JSON takes many times its text ("{}," a hundred times), so that the cap on bytes alone
 * does not bound memory. -1, or where there are too many arrays and objects, or values. *weight: bytes of the
 * tree, about. */
static int64_t too_many_values(ash_str body, size_t *weight)
{
    uint32_t containers = 0, values = 0;
    bool quoted = false;
    *weight = 0;
    for (size_t i = 0; i < body.n; i++) {
        char c = body.p[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == '[' || c == '{'))
            containers++;
        else if (!quoted && c == ',')
            values++;
        if (containers > ASH_MAX_BODY_CONTAINERS || values > ASH_MAX_BODY_VALUES) return (int64_t)i;
    }
    *weight = body.n + (size_t)containers * CONTAINER_BYTES + (size_t)values * VALUE_BYTES;
    return -1;
}

size_t ash_params_weight(ash_str body)
{
    size_t weight;
    too_many_values(body, &weight);
    return weight;
}

int ash_params_parse(ash_str body, json_t **out, ash_api_error *e)
{
    *out = NULL;
    ash_err err = ASH_ERR_INIT;
    size_t weight;
    if (!body.n) return ash_errors_set(e, 400, "invalid_json", NULL, "the request has no body");
    int64_t at = too_many_values(body, &weight);
    if (at >= 0)
        return ash_errors_set(e, 400, "invalid_json", NULL,
                              "more than %u arrays and objects or %u values at byte %lld",
                              ASH_MAX_BODY_CONTAINERS, ASH_MAX_BODY_VALUES, (long long)at);
    if (ash_json_parse(body.p, body.n, out, &err)) {
        ash_errors_from(e, &err, NULL);
        e->code = err.code == ASH_ENOMEM ? "out_of_memory" : "invalid_json";
        return e->status;
    }
    if (json_is_object(*out)) return 0;
    ash_errors_set(e, 400, "invalid_json", NULL, "the body must be a JSON object, not %s",
                   ash_json_type_name(*out));
    json_decref(*out);
    *out = NULL;
    return e->status;
}

static const json_t *field(const reader *r, const char *key)
{
    const json_t *v = json_object_get(r->body, key);
    return json_is_null(v) ? NULL : v;
}

static int nomem(reader *r)
{
    return ash_err_nomem(&r->err, "request");
}

/* ---- sampling ---- */

static int read_numbers(reader *r)
{
    ash_sampler_params *s = &r->req->sampling;
    const struct {
        const char *key;
        double lo, hi, *out;
    } numbers[] = {
        {"temperature", 0, 100, &s->temperature},
        {"top_p", 0, 1, &s->top_p},
        {"min_p", 0, 1, &s->min_p},
        {"repetition_penalty", 0, 100, &s->repeat_penalty},
        {"repeat_penalty", 0, 100, &s->repeat_penalty},
        {"presence_penalty", -2, 2, &s->presence_penalty},
        {"frequency_penalty", -2, 2, &s->frequency_penalty},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        int rc = ash_json_get_num(r->body, numbers[i].key, numbers[i].lo, numbers[i].hi,
                                  numbers[i].out, &r->err);
        if (rc) return rc;
    }
    if (s->top_p <= 0) /* clients mean "only the likeliest" */
        s->top_p = 1e-9;
    if (s->repeat_penalty < 1e-3) /* a smaller one makes logits infinite */
        return ash_err_set(&r->err, ASH_EINVAL, "'repeat_penalty' must be at least 0.001");
    return 0;
}

static int read_integers(reader *r)
{
    ash_sampler_params *s = &r->req->sampling;
    int64_t n = 1;
    const struct {
        const char *key;
        int64_t lo, hi, *out;
    } integers[] = {
        {"top_k", INT32_MIN, INT32_MAX, &s->top_k},
        {"repeat_last_n", -1, INT32_MAX, &s->repeat_last_n},
        {"seed", INT64_MIN, INT64_MAX, &s->seed},
        {"n", 1, ASH_MAX_CHOICES, &n},
        {"max_tokens", -1, INT32_MAX, &r->req->max_tokens},
        {"max_completion_tokens", -1, INT32_MAX, &r->req->max_tokens},
        {"n_predict", -2, INT32_MAX, &r->req->max_tokens},
    };
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        int rc = ash_json_get_int(r->body, integers[i].key, integers[i].lo, integers[i].hi,
                                  integers[i].out, &r->err);
        if (rc) return rc;
    }
    if (s->top_k < 0) s->top_k = 0;
    if (s->seed < 0) s->seed = -1;
    if (r->req->max_tokens < 0) r->req->max_tokens = -1;
    r->req->n = (int)n;
    return 0;
}

static int bias_id(reader *r, const char *text, int64_t *id)
{
    char *end;
    *id = strtoll(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || *id > INT32_MAX)
        return ash_err_set(&r->err, ASH_EINVAL,
                           "'logit_bias' must have token ids as keys, not '%.40s'", text);
    return 0;
}

/* false in llama.cpp's form forbids the token, as -inf would. */
static int bias_value(reader *r, const json_t *v, float *out)
{
    double x = json_is_false(v) ? -1000 : json_number_value(v);
    if (!json_is_false(v) && (!json_is_number(v) || !(fabs(x) <= 1000)))
        return ash_err_set(&r->err, ASH_EINVAL, "'logit_bias' must have numbers from -100 to 100");
    *out = (float)x;
    return 0;
}

static int bias_from_object(reader *r, const json_t *v, ash_logit_bias *out)
{
    const char *key;
    json_t *value;
    size_t i = 0;
    json_object_foreach((json_t *)(uintptr_t)v, key, value)
    {
        int64_t id;
        int rc = bias_id(r, key, &id);
        if (!rc) rc = bias_value(r, value, &out[i].bias);
        if (rc) return rc;
        out[i++].id = (int32_t)id;
    }
    return 0;
}

/* llama.cpp: [[id, bias], ...]; its form with text in place of ids needs a tokenizer and is
 * refused. */
static int bias_from_array(reader *r, const json_t *v, ash_logit_bias *out)
{
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *pair = json_array_get(v, i), *id = json_array_get(pair, 0);
        if (!json_is_array(pair) || json_array_size(pair) != 2 || !json_is_integer(id) ||
            json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return ash_err_set(&r->err, ASH_EINVAL,
                               "'logit_bias' must hold pairs [token id, number]; entry %zu is none",
                               i);
        out[i].id = (int32_t)json_integer_value(id);
        int rc = bias_value(r, json_array_get(pair, 1), &out[i].bias);
        if (rc) return rc;
    }
    return 0;
}

static int read_logit_bias(reader *r)
{
    const json_t *v = field(r, "logit_bias");
    if (!v) return 0;
    if (!json_is_object(v) && !json_is_array(v))
        return ash_err_set(&r->err, ASH_EINVAL, "'logit_bias' must be an object, not %s",
                           ash_json_type_name(v));
    size_t n = json_is_object(v) ? json_object_size(v) : json_array_size(v);
    if (n > ASH_MAX_LOGIT_BIAS)
        return ash_err_set(&r->err, ASH_EINVAL,
                           "'logit_bias' must have at most %d entries, not %zu", ASH_MAX_LOGIT_BIAS,
                           n);
    ash_logit_bias *list = ash_arena_calloc(r->arena, n + 1, sizeof *list);
    if (!list) return nomem(r);
    r->req->sampling.logit_bias = list;
    r->req->sampling.n_logit_bias = n;
    return json_is_object(v) ? bias_from_object(r, v, list) : bias_from_array(r, v, list);
}

/* OpenAI's chat: logprobs bool with top_logprobs; OpenAI's completions: logprobs a number;
 * llama.cpp: n_probs. A bool is taken for completions too. */
static int read_logprobs(reader *r)
{
    ash_sampler_params *s = &r->req->sampling;
    const json_t *v = field(r, "logprobs");
    int64_t top = 0;
    bool on = false;
    int rc = 0;
    if (json_is_integer(v) && r->req->kind == ASH_REQUEST_COMPLETION) {
        rc = ash_json_get_int(r->body, "logprobs", 0, ASH_MAX_TOP_LOGPROBS, &top, &r->err);
        on = true;
    } else {
        rc = ash_json_get_bool(r->body, "logprobs", &on, &r->err);
    }
    int64_t asked = -1, n_probs = 0;
    if (!rc)
        rc = ash_json_get_int(r->body, "top_logprobs", 0, ASH_MAX_TOP_LOGPROBS, &asked, &r->err);
    if (!rc) rc = ash_json_get_int(r->body, "n_probs", 0, ASH_MAX_TOP_LOGPROBS, &n_probs, &r->err);
    if (rc) return rc;
    if (n_probs > 0) {
        on = true;
        asked = n_probs;
    }
    if (asked > 0 && !on)
        return ash_err_set(&r->err, ASH_EINVAL, "'top_logprobs' must come with 'logprobs': true");
    s->logprobs = r->req->logprobs = on;
    s->top_logprobs = !on ? 0 : asked >= 0 ? asked : top;
    return 0;
}

/* ---- texts ---- */

static int stop_text(reader *r, const json_t *v, const char **out)
{
    if (!json_is_string(v))
        return ash_err_set(&r->err, ASH_EINVAL, "'stop' must be a string or an array of strings");
    if (json_string_length(v) > ASH_MAX_STOP_BYTES)
        return ash_err_set(&r->err, ASH_EINVAL, "'stop' must have at most %d bytes each",
                           ASH_MAX_STOP_BYTES);
    if (strlen(json_string_value(v)) != json_string_length(v))
        return ash_err_set(&r->err, ASH_EINVAL, "'stop' must not contain a NUL character");
    *out = json_string_value(v);
    return 0;
}

static int read_stop(reader *r)
{
    const json_t *v = field(r, "stop");
    if (!v) return 0;
    size_t n = json_is_array(v) ? json_array_size(v) : 1, kept = 0;
    if (n > ASH_MAX_STOPS)
        return ash_err_set(&r->err, ASH_EINVAL, "'stop' must have at most %d entries, not %zu",
                           ASH_MAX_STOPS, n);
    const char **list = ash_arena_calloc(r->arena, n + 1, sizeof *list);
    if (!list) return nomem(r);
    for (size_t i = 0; i < n; i++) {
        int rc = stop_text(r, json_is_array(v) ? json_array_get(v, i) : v, &list[kept]);
        if (rc) return rc;
        kept += list[kept][0] != 0; /* an empty one stops nothing */
    }
    r->req->stops = list;
    r->req->n_stops = kept;
    return 0;
}

static bool all_ids(const json_t *v)
{
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *id = json_array_get(v, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            return false;
    }
    return json_array_size(v) > 0;
}

static bool all_prompts(const json_t *v)
{
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *one = json_array_get(v, i);
        if (!json_is_string(one) && !(json_is_array(one) && all_ids(one))) return false;
    }
    return json_array_size(v) > 0;
}

static bool is_prompt_list(const json_t *prompt)
{
    return json_is_array(prompt) && !json_is_integer(json_array_get(prompt, 0));
}

int ash_params_choices(const ash_request *req)
{
    const json_t *prompt = json_object_get(req->body, "prompt");
    if (req->kind == ASH_REQUEST_COMPLETION && is_prompt_list(prompt))
        return req->n * (int)json_array_size(prompt);
    return req->n;
}

static int read_prompt(reader *r)
{
    const json_t *v = field(r, "prompt");
    if (!v) return ash_err_set(&r->err, ASH_EINVAL, "'prompt' is required");
    if (!json_is_string(v) && !(json_is_array(v) && (all_ids(v) || all_prompts(v))))
        return ash_err_set(
            &r->err, ASH_EINVAL,
            "'prompt' must be a string, an array of strings or an array of token ids");
    if (is_prompt_list(v) && json_array_size(v) > (size_t)(ASH_MAX_CHOICES / r->req->n))
        return ash_err_set(&r->err, ASH_EINVAL,
                           "'prompt' must have at most %d entries (with n = %d)",
                           ASH_MAX_CHOICES / r->req->n, r->req->n);
    return 0;
}

static int read_input(reader *r)
{
    if (r->req->kind == ASH_REQUEST_COMPLETION) return read_prompt(r);
    if (!field(r, "messages")) return ash_err_set(&r->err, ASH_EINVAL, "'messages' is required");
    return ash_chat_check(field(r, "messages"), &r->err);
}

/* ---- switches, and what is not built ---- */

static int read_switches(reader *r)
{
    ash_request *q = r->req;
    bool cache_prompt = true;
    const struct {
        const char *key;
        bool *out;
    } switches[] = {
        {"stream", &q->stream},
        {"return_progress", &q->return_progress},
        {"continue_final_message", &q->continue_final_message},
        {"add_generation_prompt", &q->add_generation_prompt},
        {"ignore_eos", &q->ignore_eos},
        {"cache_prompt", &cache_prompt},
    };
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
        int rc = ash_json_get_bool(r->body, switches[i].key, switches[i].out, &r->err);
        if (rc) return rc;
    }
    const json_t *options = field(r, "stream_options");
    if (options && !json_is_object(options))
        return ash_err_set(&r->err, ASH_EINVAL, "'stream_options' must be an object, not %s",
                           ash_json_type_name(options));
    if (options && ash_json_get_bool(options, "include_usage", &q->include_usage, &r->err))
        return ash_err_set(&r->err, ASH_EINVAL, "'stream_options.include_usage' must be a boolean");
    if (q->continue_final_message && q->add_generation_prompt) {
        if (field(r, "add_generation_prompt"))
            return ash_err_set(
                &r->err, ASH_EINVAL,
                "'continue_final_message' must come with 'add_generation_prompt': false");
        q->add_generation_prompt = false;
    }
    return 0;
}

static int read_keep_alive(reader *r)
{
    return ash_params_keep_alive(r->body, &r->req->has_keep_alive, &r->req->keep_alive_ms, &r->err);
}

static int unsupported(reader *r, const char *key, const char *what)
{
    return ash_err_set(&r->err, ASH_EUNSUPPORTED, "'%s' %s is not supported", key, what);
}

static int refuse_response_format(reader *r)
{
    const json_t *v = field(r, "response_format");
    if (!v) return 0;
    const char *type = json_string_value(json_object_get(v, "type"));
    if (!type)
        return ash_err_set(&r->err, ASH_EINVAL,
                           "'response_format' must be an object with a 'type'");
    if (!strcmp(type, "text")) return 0;
    return ash_err_set(&r->err, ASH_EUNSUPPORTED,
                       "'response_format' of type '%.40s' is not supported", type);
}

static int refuse_unbuilt(reader *r)
{
    const char *suffix = NULL, *grammar = NULL;
    bool echo = false;
    int64_t best_of = r->req->n;
    int rc = refuse_response_format(r);
    if (!rc) rc = ash_json_get_str(r->body, "grammar", &grammar, &r->err);
    if (!rc && grammar && *grammar) rc = unsupported(r, "grammar", "(constrained output)");
    if (!rc && field(r, "json_schema")) rc = unsupported(r, "json_schema", "(constrained output)");
    if (rc || r->req->kind == ASH_REQUEST_CHAT) return rc;
    if ((rc = ash_json_get_str(r->body, "suffix", &suffix, &r->err)) ||
        (rc = ash_json_get_bool(r->body, "echo", &echo, &r->err)) ||
        (rc = ash_json_get_int(r->body, "best_of", 1, ASH_MAX_CHOICES, &best_of, &r->err)))
        return rc;
    if (suffix && *suffix) return unsupported(r, "suffix", "(fill in the middle)");
    if (echo) return unsupported(r, "echo", "(the prompt in the answer)");
    return best_of > r->req->n ? unsupported(r, "best_of", "above n") : 0;
}

static int read_tools(reader *r)
{
    const json_t *v = field(r, "tools");
    if (v && !json_is_array(v))
        return ash_err_set(&r->err, ASH_EINVAL, "'tools' must be an array, not %s",
                           ash_json_type_name(v));
    return 0;
}

int ash_params_read(const json_t *body, ash_request_kind kind, ash_arena *a, ash_request *req,
                    ash_api_error *e)
{
    static int (*const steps[])(reader *) = {
        read_integers, read_numbers, read_logit_bias, read_logprobs, read_stop,
        read_switches, read_tools,   refuse_unbuilt,  read_keep_alive, read_input,
    };
    reader r = {.body = body, .arena = a, .req = req, .err = ASH_ERR_INIT};
    req->kind = kind;
    req->body = body;
    req->sampling = ash_sampler_params_default();
    req->max_tokens = -1;
    req->add_generation_prompt = true;
    int rc = 0;
    for (size_t i = 0; i < sizeof steps / sizeof *steps && !rc; i++) rc = steps[i](&r);
    if (!rc) rc = ash_sampler_check(&req->sampling, &r.err);
    if (!rc) return 0;
    ash_errors_from(e, &r.err, a);
    if (r.err.code == ASH_EUNSUPPORTED) e->code = "unsupported_parameter";
    return e->status;
}

/* A year. */
static const double MOST_MS = 366.0 * 24 * 3600e3;

bool ash_params_time(const char *text, int64_t *ms)
{
    double x;
    if (!ash_duration_read(text, &x) || x > MOST_MS) return false;
    *ms = (int64_t)x;
    return true;
}

/* A time, or a negative one: for ever. */
static bool keep_alive_text(const char *text, int64_t *ms)
{
    double x;
    bool negative = *text == '-';
    if (!ash_duration_read(text + negative, &x)) return false;
    *ms = negative || x > MOST_MS ? -1 : (int64_t)x;
    return true;
}

int ash_params_keep_alive(const json_t *body, bool *has, int64_t *ms, ash_err *err)
{
    static const char *const names[] = {"keep_alive", "ttl"};
    *has = false;
    for (size_t i = 0; i < sizeof names / sizeof *names && !*has; i++) {
        const json_t *v = json_object_get(body, names[i]);
        double seconds = json_number_value(v);
        if (!v || json_is_null(v)) continue;
        *has = json_is_number(v) || (json_is_string(v) && keep_alive_text(json_string_value(v), ms));
        if (!*has)
            return ash_err_set(err, ASH_EINVAL,
                               "'%s' must be a number of seconds or a time like \"10m\", negative for ever",
                               names[i]);
        if (json_is_number(v))
            *ms = seconds < 0.0 || seconds * 1e3 > MOST_MS ? -1 : (int64_t)(seconds * 1e3);
    }
    return 0;
}
