/* Owns Ollama's API (its docs/api.md): lists, loading by an empty request, and the way from its bodies to
 * OpenAI's; text is made by openai.c. Refuses what is not built (format, images, suffix) by name. Threads:
 * the connection's; a request that waits for a load is looked at by the watcher's. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/call.h"
#include "api/ollama_text.h"
#include "api/params.h"
#include "base/clock.h"
#include "base/hash.h"

enum { ARENA_BYTES = 1 << 20 };

static const double FOR_EVER_S = 9.2e9; /* 292 years, as Ollama shows it */

/* ---- lists ---- */

void ash_ollama_version(ash_call *c)
{
    ash_call_value(c, 200, json_pack("{s:s}", "version", ASHLEY_VERSION));
}

/* With an offset, which its clients want. */
static json_t *iso(double wall)
{
    char text[25];
    ash_clock_iso(wall, text);
    return json_sprintf("%.23s+00:00", text);
}

/* "id:latest", unless the id has a tag of its own. */
static json_t *tagged(const char *id)
{
    return json_sprintf("%s%s", id, strchr(id, ':') ? "" : ":latest");
}

static const char *text_of(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "";
}

/* "134.52M", "7.2B", as Ollama writes numbers of weights; "" below a thousand. */
static void show_count(double n, char out[24])
{
    out[0] = 0;
    if (n >= 1e9)
        snprintf(out, 24, "%.1fB", n / 1e9);
    else if (n >= 1e6)
        snprintf(out, 24, "%.2fM", n / 1e6);
    else if (n >= 1e3)
        snprintf(out, 24, "%.0fK", n / 1e3);
}

/* Of what /models tells of a model: its weights are known while it is in memory. */
static json_t *details(const json_t *meta)
{
    char count[24];
    const char *family = text_of(meta, "architecture");
    show_count((double)json_integer_value(json_object_get(meta, "n_params")), count);
    json_t *families = json_array();
    if (*family) json_array_append_new(families, json_string(family));
    return json_pack("{s:s, s:s, s:s, s:o, s:s, s:s}", "parent_model", "", "format", text_of(meta, "format"),
                     "family", family, "families", families, "parameter_size", count, "quantization_level",
                     text_of(meta, "quantization"));
}

/* Ollama's command line cuts twelve digits out of it without a look. All files of a model have no hash in
 * common, so that it is one of the id. */
static json_t *digest_of(const char *id)
{
    uint64_t sums[4];
    for (uint64_t i = 0; i < 4; i++) sums[i] = ash_hash_bytes(id, strlen(id), (uint64_t[2]){i, 0});
    return json_sprintf("%016" PRIx64 "%016" PRIx64 "%016" PRIx64 "%016" PRIx64, sums[0], sums[1], sums[2],
                        sums[3]);
}

static json_t *listed(const char *id, json_t *size, const json_t *meta)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "name", tagged(id), "model", tagged(id), "size", size,
                     "digest", digest_of(id), "details", details(meta));
}

void ash_ollama_tags(ash_call *c)
{
    json_t *list = ash_models_entries(c->server, NULL), *out = json_array();
    size_t i;
    const json_t *m;
    json_array_foreach(list, i, m)
    {
        const json_t *status = json_object_get(m, "status"), *meta = json_object_get(m, "meta");
        const char *id = json_string_value(json_object_get(m, "id"));
        const char *state = json_string_value(json_object_get(status, "value"));
        if (!id || !state || !strcmp(state, "failed")) continue;
        /* of its files; until they were looked at, what it is taken to need of memory */
        json_int_t bytes = json_integer_value(json_object_get(status, "file_bytes"));
        const json_t *memory = json_object_get(status, "memory");
        if (!bytes) bytes = json_integer_value(json_object_get(memory, "estimated"));
        json_t *o = listed(id, json_integer(bytes), meta);
        json_object_set_new(o, "modified_at", iso((double)c->server->created));
        json_array_append_new(out, o);
    }
    json_decref(list);
    ash_call_value(c, 200, json_pack("{s:o}", "models", out));
}

void ash_ollama_ps(ash_call *c)
{
    json_t *list = ash_manager_list(c->server->opts.manager), *out = json_array();
    size_t i;
    const json_t *m;
    json_array_foreach(list, i, m)
    {
        const char *id = json_string_value(json_object_get(m, "model"));
        const char *state = json_string_value(json_object_get(m, "state"));
        const json_t *expires = json_object_get(m, "expires_at");
        if (!id || !state || strcmp(state, "loaded") != 0) continue;
        json_int_t bytes = json_integer_value(json_object_get(m, "resident_bytes"));
        json_t *o = listed(id, json_integer(bytes), m);
        json_object_set_new(o, "expires_at",
                            iso(json_is_number(expires) ? json_number_value(expires)
                                                        : ash_clock_wall() + FOR_EVER_S));
        json_object_set_new(o, "size_vram", json_integer(0));
        json_object_set(o, "context_length", json_object_get(m, "n_ctx"));
        json_array_append_new(out, o);
    }
    json_decref(list);
    ash_call_value(c, 200, json_pack("{s:o}", "models", out));
}

/* ---- one model ---- */

/* The body and whom it names, as `model` or, as it once was, `name`. */
static int read_named(ash_call *c, ash_arena *a, json_t **body, const char **name, ash_route *route,
                      ash_api_error *e)
{
    ash_err err = ASH_ERR_INIT;
    int rc = ash_params_parse(ash_exchange_body(c->x), body, e);
    if (rc) return rc;
    *name = NULL;
    if (ash_json_get_str(*body, "name", name, &err) || ash_json_get_str(*body, "model", name, &err)) {
        ash_errors_from(e, &err, a);
        return e->status;
    }
    return ash_route_name(&c->server->opts, *name, a, route, e);
}

/* Clients look for the architecture first and then for what has its name before it. */
static json_t *model_info(const char *id, const json_t *meta)
{
    static const char *const names[][2] = {{"n_ctx", "context_length"}, {"n_embd", "embedding_length"}};
    const char *architecture = text_of(meta, "architecture");
    json_t *info = json_pack("{s:s, s:s}", "general.basename", id, "general.architecture", architecture);
    json_t *n = json_object_get(meta, "n_params");
    if (json_is_integer(n)) json_object_set(info, "general.parameter_count", n);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char key[128];
        n = json_object_get(meta, names[i][0]);
        snprintf(key, sizeof key, "%.100s.%s", architecture, names[i][1]);
        if (json_is_integer(n)) json_object_set(info, key, n);
    }
    n = json_object_get(meta, "n_ctx");
    if (json_is_integer(n)) json_object_set(info, "general.context_length", n);
    return info;
}

void ash_ollama_show(ash_call *c)
{
    ash_arena arena;
    ash_api_error e;
    ash_route route;
    json_t *body = NULL;
    const char *name;
    ash_arena_init(&arena, ARENA_BYTES);
    if (read_named(c, &arena, &body, &name, &route, &e)) {
        ash_call_error(c, &e);
    } else {
        const char *id = route.persona    ? route.persona->id
                         : route.upstream ? ASH_ROUTE_UPSTREAM
                                          : route.model;
        json_t *list = ash_models_entries(c->server, id);
        const json_t *meta = json_object_get(json_array_get(list, 0), "meta");
        json_t *info = model_info(id, meta);
        ash_call_value(c, 200,
                       json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:[s], s:o}", "license", "", "modelfile", "",
                                 "parameters", "", "template", "", "details",
                                 details(meta), "model_info", info, "capabilities",
                                 "completion", "modified_at", iso((double)c->server->created)));
        json_decref(list);
    }
    json_decref(body);
    ash_arena_release(&arena);
}

/* ---- loading by an empty request ---- */

static bool is_empty(const json_t *body, bool chat)
{
    const json_t *v = json_object_get(body, chat ? "messages" : "prompt");
    return !v || json_is_null(v) || (chat ? json_is_array(v) && !json_array_size(v)
                                          : json_is_string(v) && !json_string_length(v));
}

static void answer_empty(ash_call *c, const char *reason)
{
    ash_buf out;
    ash_buf_init(&out, 64 << 10);
    ash_ollama *t = ash_ollama_open(c->load_chat, false, c->load_name);
    if (t) {
        ash_ollama_since(t, ash_exchange_since(c->x));
        ash_ollama_finish(t, reason);
    }
    if (!t || ash_ollama_end(t, &(ash_answer_usage){0}, &out)) out.failed = ASH_ENOMEM;
    ash_ollama_close(t);
    ash_call_json(c, 200, &out);
    ash_buf_release(&out);
}

void ash_ollama_tick(ash_call *c, int64_t now_ms)
{
    ash_manager *m = c->server->opts.manager;
    ash_api_error e;
    ash_model_state s = ash_manager_state(m, c->load_model);
    if (s == ASH_MODEL_LOADED) {
        answer_empty(c, "load");
    } else if (s == ASH_MODEL_FAILED || s == ASH_MODEL_UNLOADED) {
        json_t *progress = ash_manager_progress(m, c->load_model);
        const char *why =
            json_string_value(json_object_get(json_object_get(progress, "error"), "message"));
        ash_errors_set(&e, 503, "load_failed", NULL, "the model '%.128s' is not ready: %.300s",
                       c->load_model, why ? why : "its load was cancelled");
        ash_call_error(c, &e);
        json_decref(progress);
    } else if (now_ms >= atomic_load(&c->load_ends_ms)) {
        ash_errors_set(&e, 503, "model_loading", NULL,
                       "the model '%.128s' is still loading; the load goes on", c->load_model);
        ash_call_error(c, &e);
    } else {
        return;
    }
    atomic_store(&c->load_ends_ms, 0);
}

/* Loads the model, or, with keep_alive 0, lets it go. 0 or the status of *e; *waits: for the load. */
static int load_or_unload(ash_call *c, const json_t *body, const ash_route *route, ash_arena *a, bool *waits,
                          ash_api_error *e)
{
    ash_manager *m = c->server->opts.manager;
    ash_budgets budgets;
    ash_err err = ASH_ERR_INIT;
    bool has;
    int64_t keep_ms;
    *waits = false;
    int rc = ash_params_keep_alive(body, &has, &keep_ms, &err);
    if (!rc && !route->upstream && has && !keep_ms) {
        rc = ash_manager_unload(m, route->model, &err);
    } else if (!rc && !route->upstream) {
        if ((rc = ash_route_budgets(&c->server->opts, route, c->x, &budgets, e))) return rc;
        if (has) rc = ash_manager_keep(m, route->model, keep_ms, &err);
        if (!rc) rc = ash_manager_load(m, route->model, &err);
        *waits = !rc;
        snprintf(c->load_model, sizeof c->load_model, "%s", route->model);
        if (!rc)
            atomic_store(&c->load_ends_ms,
                         budgets.load_ms ? ash_clock_ms() + budgets.load_ms : INT64_MAX);
    }
    if (!rc) return 0;
    return ash_errors_manage(e, &err, a);
}

/* Whether the request was an empty one, which is answered then or by a tick: no tick comes before this
 * returns. */
static bool serve_empty(ash_call *c, bool chat)
{
    ash_arena arena;
    ash_api_error e;
    ash_route route;
    json_t *body = NULL;
    const char *name;
    bool waits;
    ash_arena_init(&arena, ARENA_BYTES);
    int rc = ash_params_parse(ash_exchange_body(c->x), &body, &e);
    bool empty = rc || is_empty(body, chat);
    json_decref(body);
    body = NULL;
    c->load_chat = chat;
    if (empty && !rc) rc = read_named(c, &arena, &body, &name, &route, &e);
    if (empty && !rc) {
        snprintf(c->load_name, sizeof c->load_name, "%s", name ? name : route.model);
        rc = load_or_unload(c, body, &route, &arena, &waits, &e);
    }
    if (empty && rc)
        ash_call_error(c, &e);
    else if (empty && !waits)
        answer_empty(c, route.upstream ? "load" : "unload");
    else if (empty && ash_manager_state(c->server->opts.manager, c->load_model) == ASH_MODEL_LOADED)
        ash_ollama_tick(c, ash_clock_ms());
    json_decref(body);
    ash_arena_release(&arena);
    return empty;
}

void ash_ollama_chat(ash_call *c)
{
    if (!serve_empty(c, true)) ash_reply_answer(c, ASH_REQUEST_CHAT, ASH_FORM_OLLAMA_CHAT);
}

void ash_ollama_generate(ash_call *c)
{
    if (!serve_empty(c, false)) ash_reply_answer(c, ASH_REQUEST_CHAT, ASH_FORM_OLLAMA_GENERATE);
}

/* ---- bodies ---- */

static bool is_set(const json_t *v)
{
    return v && !json_is_null(v) && !json_is_false(v) && !(json_is_string(v) && !json_string_length(v)) &&
           !(json_is_array(v) && !json_array_size(v));
}

static int refuse_unbuilt(const json_t *in, ash_err *err)
{
    static const char *const names[] = {"format", "images", "suffix"};
    size_t i;
    const json_t *message;
    for (i = 0; i < sizeof names / sizeof *names; i++)
        if (is_set(json_object_get(in, names[i])))
            return ash_err_set(err, ASH_EUNSUPPORTED, "'%s' is not supported", names[i]);
    json_array_foreach(json_object_get(in, "messages"), i, message)
        if (is_set(json_object_get(message, "images")))
            return ash_err_set(err, ASH_EUNSUPPORTED, "'images' of a message are not supported");
    return 0;
}

static void copy(json_t *out, const json_t *in, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (json_object_get(in, names[i])) json_object_set(out, names[i], json_object_get(in, names[i]));
}

static int add_options(json_t *out, const json_t *in, ash_err *err)
{
    static const char *const names[] = {"temperature", "top_p",          "top_k",         "min_p",
                                        "seed",        "repeat_penalty", "repeat_last_n", "presence_penalty",
                                        "stop",        "frequency_penalty"};
    const json_t *options = json_object_get(in, "options");
    int64_t n = -1;
    if (!options || json_is_null(options)) return 0;
    if (!json_is_object(options))
        return ash_err_set(err, ASH_EINVAL, "'options' must be an object, not %s",
                           ash_json_type_name(options));
    copy(out, options, names, sizeof names / sizeof *names);
    int rc = ash_json_get_int(options, "num_predict", -2, INT32_MAX, &n, err);
    if (!rc && n >= 0) json_object_set_new(out, "max_tokens", json_integer(n));
    return rc;
}

/* A prompt is a message of the user, with `system` before it; a raw one is text to go on with. */
static int add_prompt(json_t *out, const json_t *in, bool raw, ash_err *err)
{
    const char *prompt = NULL, *system = NULL;
    int rc = ash_json_get_str(in, "prompt", &prompt, err);
    if (!rc) rc = ash_json_get_str(in, "system", &system, err);
    if (rc) return rc;
    if (raw) return json_object_set(out, "prompt", json_object_get(in, "prompt"));
    json_t *messages = json_array();
    if (system && *system)
        json_array_append_new(messages, json_pack("{s:s, s:O}", "role", "system", "content",
                                                  json_object_get(in, "system")));
    json_array_append_new(messages, json_pack("{s:s, s:O}", "role", "user", "content",
                                              json_object_get(in, "prompt")));
    return json_object_set_new(out, "messages", messages);
}

int ash_ollama_request(json_t **body, bool chat, ash_request_kind *kind, ash_arena *a, ash_api_error *e)
{
    static const char *const names[] = {"model", "keep_alive", "tools"};
    const json_t *in = *body;
    ash_err err = ASH_ERR_INIT;
    bool stream = true, raw = false;
    json_t *out = json_object();
    int rc = out ? refuse_unbuilt(in, &err) : ash_err_nomem(&err, "request");
    if (!rc) rc = ash_json_get_bool(in, "stream", &stream, &err);
    if (!rc && !chat) rc = ash_json_get_bool(in, "raw", &raw, &err);
    if (!rc) rc = add_options(out, in, &err);
    if (!rc && !chat) rc = add_prompt(out, in, raw, &err);
    if (rc) {
        json_decref(out);
        if (!err.code) ash_err_nomem(&err, "request");
        ash_errors_from(e, &err, a);
        return e->status;
    }
    copy(out, in, names, sizeof names / sizeof *names);
    if (chat) json_object_set(out, "messages", json_object_get(in, "messages"));
    json_object_set_new(out, "stream", json_boolean(stream));
    if (stream) json_object_set_new(out, "stream_options", json_pack("{s:b}", "include_usage", 1));
    *kind = raw ? ASH_REQUEST_COMPLETION : ASH_REQUEST_CHAT;
    json_decref(*body);
    *body = out;
    return 0;
}
