/* Owns the choice of who answers. A request for a local model never leaves the machine unless the
 * policy of its catalogue entry, or else the server's, says so; a model nobody knows is 404 under
 * every policy. */
#include "api/route.h"

#include <stdio.h>
#include <string.h>

#include "api/params.h"
#include "base/nearest.h"

const ash_api_persona *ash_route_persona(const ash_server_opts *o, const char *id)
{
    for (size_t i = 0; i < o->n_personas; i++)
        if (!strcmp(o->personas[i].id, id)) return &o->personas[i];
    return NULL;
}

static bool names_upstream(const ash_server_opts *o, const char *name)
{
    return !strcmp(name, ASH_ROUTE_UPSTREAM) ||
           (o->upstream && o->fallback_model && !strcmp(name, o->fallback_model));
}

static const char *closer(const char *name, const char *a, const char *b)
{
    if (!a || !b) return a ? a : b;
    return ash_nearest_distance(name, b) < ash_nearest_distance(name, a) ? b : a;
}

static int not_found(const ash_server_opts *o, const char *name, const char *nearest,
                     ash_api_error *e)
{
    for (size_t i = 0; i < o->n_personas; i++) {
        const char *id = o->personas[i].id;
        if (strcmp(name, id) && ash_nearest(name, &id, 1)) nearest = closer(name, nearest, id);
    }
    return ash_errors_set(e, 404, "model_not_found", "model",
                          nearest ? "the model '%.128s' does not exist; did you mean '%.128s'?"
                                  : "the model '%.128s' does not exist%.0s",
                          name, nearest ? nearest : "");
}

/* A plain model or the upstream; no persona. */
static bool plain_model(const ash_server_opts *o, const char *name, ash_arena *a, ash_route *out,
                        const char **nearest)
{
    if (names_upstream(o, name)) {
        out->upstream = true;
        out->model = o->fallback_model ? o->fallback_model : ASH_ROUTE_UPSTREAM;
        return true;
    }
    const char *near = NULL;
    bool known = ash_manager_knows(o->manager, name, &near);
    if (known) out->model = ash_arena_strdup(a, name);
    if (nearest && !known) *nearest = near;
    return known && out->model;
}

static const char *default_model(const ash_server_opts *o)
{
    return o->default_model && *o->default_model ? o->default_model : ASH_ROUTE_UPSTREAM;
}

static int persona_model(const ash_server_opts *o, const ash_api_persona *p, ash_arena *a,
                         ash_route *out, ash_api_error *e)
{
    const char *name = p && p->model && *p->model ? p->model : default_model(o), *nearest = NULL;
    out->persona = p;
    if (plain_model(o, name, a, out, &nearest)) return 0;
    not_found(o, name, nearest, e);
    size_t n = strlen(e->message);
    snprintf(e->message + n, sizeof e->message - n, " (it is %s)",
             p && p->model && *p->model ? "the persona's model" : "DEFAULT_MODEL");
    return e->status;
}

static int named(const ash_server_opts *o, const char *name, ash_arena *a, ash_route *out,
                 const char **nearest, ash_api_error *e)
{
    if (plain_model(o, name, a, out, nearest)) return 0;
    const ash_api_persona *p = ash_route_persona(o, name);
    return p ? persona_model(o, p, a, out, e) : ASH_ENOENT;
}

int ash_route_name(const ash_server_opts *o, const char *name, ash_arena *a, ash_route *out,
                   ash_api_error *e)
{
    static const char tag[] = ":latest";
    *out = (ash_route){0};
    if (!name || !*name) return persona_model(o, NULL, a, out, e);
    const char *nearest = NULL;
    size_t n = strlen(name), t = sizeof tag - 1;
    if (n > ASH_MAX_MODEL_ID) return not_found(o, name, NULL, e);
    int rc = named(o, name, a, out, &nearest, e);
    if (rc == ASH_ENOENT && n > t && !strcmp(name + n - t, tag)) {
        const char *bare = ash_arena_strndup(a, name, n - t);
        rc = bare ? named(o, bare, a, out, &nearest, e) : ASH_ENOENT;
    }
    return rc == ASH_ENOENT ? not_found(o, name, nearest, e) : rc;
}

int ash_route_body(const ash_server_opts *o, const json_t *body, ash_arena *a, ash_route *out,
                   ash_api_error *e)
{
    const char *model = NULL, *persona = NULL;
    ash_err err = ASH_ERR_INIT;
    *out = (ash_route){0};
    if (ash_json_get_str(body, "model", &model, &err) ||
        ash_json_get_str(body, "persona", &persona, &err)) {
        ash_errors_from(e, &err, a);
        return e->status;
    }
    if (!persona || !*persona) return ash_route_name(o, model, a, out, e);
    const ash_api_persona *p = ash_route_persona(o, persona);
    if (!p)
        return ash_errors_set(e, 404, "persona_not_found", "persona",
                              "the persona '%.128s' does not exist", persona);
    if (!model || !*model) return persona_model(o, p, a, out, e);
    int rc = ash_route_name(o, model, a, out, e);
    out->persona = p;
    return rc;
}

/* ---- persona ---- */

/* The names under which a request may already have said how long an answer may be. */
static bool says_length(const json_t *body)
{
    static const char *const names[] = {"n_predict", "max_tokens", "max_completion_tokens"};
    bool says = false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *v = json_object_get(body, names[i]);
        says |= v && !json_is_null(v);
    }
    return says;
}

static int add_defaults(json_t *body, const json_t *sampling)
{
    bool length = says_length(body);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)sampling, key, value)
    {
        const json_t *has = json_object_get(body, key);
        bool is_length = !strcmp(key, "n_predict") || !strncmp(key, "max_", 4);
        if ((has && !json_is_null(has)) || (is_length && length)) continue;
        if (json_object_set(body, key, value)) return ASH_ENOMEM;
    }
    return 0;
}

/* The request's system message with the persona's prompt before it, joined by a blank line. */
static json_t *joined_system(const char *prompt, const json_t *message)
{
    json_t *out = json_copy((json_t *)(uintptr_t)message);
    const json_t *content = json_object_get(message, "content");
    json_t *joined = NULL;
    if (json_is_array(content)) {
        joined = json_copy((json_t *)(uintptr_t)content);
        /* parts are joined by one line break when they are rendered */
        json_t *part = json_pack("{s:s, s:s+}", "type", "text", "text", prompt, "\n");
        if (json_array_insert_new(joined, 0, part)) {
            json_decref(joined);
            joined = NULL;
        }
    } else if (json_is_string(content) && json_string_length(content)) {
        joined = json_pack("s++", prompt, "\n\n", json_string_value(content));
    } else {
        joined = json_string(prompt);
    }
    if (!joined || !out || json_object_set_new(out, "content", joined)) {
        json_decref(out);
        return NULL;
    }
    return out;
}

static bool is_system(const json_t *message)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    return role && (!strcmp(role, "system") || !strcmp(role, "developer"));
}

static int add_system(json_t *body, const char *prompt)
{
    const json_t *given = json_object_get(body, "messages");
    if (!json_is_array(given) || !*prompt)
        return 0; /* what is wrong with them is said when they are read */
    json_t *messages = json_copy((json_t *)(uintptr_t)given);
    const json_t *first = json_array_get(given, 0);
    int rc = messages ? 0 : -1;
    if (!rc && is_system(first))
        rc = json_array_set_new(messages, 0, joined_system(prompt, first));
    else if (!rc)
        rc = json_array_insert_new(messages, 0,
                                   json_pack("{s:s, s:s}", "role", "system", "content", prompt));
    if (rc) {
        json_decref(messages);
        return ASH_ENOMEM;
    }
    return json_object_set_new(body, "messages", messages) ? ASH_ENOMEM : 0;
}

int ash_route_apply(const ash_api_persona *persona, ash_request_kind kind, json_t **body)
{
    if (!persona && !json_object_get(*body, "persona")) return 0;
    json_t *copy = json_copy(*body);
    if (!copy) return ASH_ENOMEM;
    json_object_del(copy, "persona"); /* ours; no upstream knows it */
    int rc = 0;
    if (persona && persona->sampling) rc = add_defaults(copy, persona->sampling);
    if (!rc && persona && persona->system_prompt && kind == ASH_REQUEST_CHAT)
        rc = add_system(copy, persona->system_prompt);
    if (rc) {
        json_decref(copy);
        return rc;
    }
    json_decref(*body);
    *body = copy;
    return 0;
}

/* ---- plan ---- */

static ash_fallback policy_of(const ash_server_opts *o, const char *id)
{
    ash_fallback p = o->model_fallback ? o->model_fallback(o->user, id) : ASH_FALLBACK_UNSET;
    if (p == ASH_FALLBACK_UNSET) p = o->fallback;
    return p == ASH_FALLBACK_UNSET ? ASH_FALLBACK_NEVER : p;
}

/* Why a request should not wait for its own model, or NULL. */
static const char *reason_not_ready(const ash_server_opts *o, const char *id)
{
    switch (ash_manager_state(o->manager, id)) {
    case ASH_MODEL_LOADED:
        return NULL;
    case ASH_MODEL_FAILED:
        return "failed";
    default:
        return "loading";
    }
}

typedef struct busy_probe {
    const char *id;
    bool queued;
} busy_probe;

static void probe_engine(void *user, const char *id, ash_engine *e)
{
    busy_probe *p = user;
    if (strcmp(p->id, id) != 0) return;
    ash_engine_stats stats = {0};
    ash_engine_get_stats(e, &stats);
    /* The queue moves when a running answer ends: more waiting than running means at least one
     * whole answer of waiting, which no queue budget of seconds outlasts. */
    p->queued = stats.queued > stats.running;
}

/* Whether by the estimate a budget would be missed by waiting for a model that is there: for its engine,
 * which others have the room of first, or in its queue. */
static bool is_busy(const ash_server_opts *o, const char *id, const ash_budgets *budgets)
{
    double eta_ms = ash_manager_eta(o->manager, id) * 1e3;
    if (budgets->load_ms && eta_ms > (double)budgets->load_ms) return true;
    if (!budgets->queue_ms) return false;
    busy_probe probe = {.id = id};
    ash_manager_each(o->manager, probe_engine, &probe);
    return probe.queued;
}

static int upstream_missing(const ash_server_opts *o, ash_api_error *e)
{
    return ash_errors_set(e, 503, "upstream_not_configured", NULL,
                          "no upstream provider is configured: %.300s",
                          o->upstream_missing ? o->upstream_missing : "set OPENAI_API_KEY");
}

int ash_route_plan_make(const ash_server_opts *o, const ash_route *r, const ash_budgets *budgets,
                        ash_route_plan *out, ash_api_error *e)
{
    *out = (ash_route_plan){0};
    const char *upstream_model = o->fallback_model ? o->fallback_model : r->model;
    if (r->upstream) {
        out->steps[out->n++] = (ash_route_step){o->upstream, r->model, "default"};
        return o->upstream ? 0 : upstream_missing(o, e);
    }
    ash_fallback policy = o->upstream ? policy_of(o, r->model) : ASH_FALLBACK_NEVER;
    const char *reason = NULL;
    if (policy == ASH_FALLBACK_ON_NOT_READY || policy == ASH_FALLBACK_ALWAYS)
        reason = reason_not_ready(o, r->model);
    if (policy == ASH_FALLBACK_ALWAYS && !reason && is_busy(o, r->model, budgets)) reason = "busy";
    if (reason) {
        ash_manager_want(o->manager, r->model);
        out->steps[out->n++] = (ash_route_step){o->upstream, upstream_model, reason};
        out->passed_over = r->model;
        return 0;
    }
    out->steps[out->n++] = (ash_route_step){o->local, r->model, NULL};
    if (policy != ASH_FALLBACK_NEVER)
        out->steps[out->n++] = (ash_route_step){o->upstream, upstream_model, "failed"};
    return 0;
}

int ash_route_budgets(const ash_server_opts *o, const ash_route *r, const ash_exchange *x,
                      ash_budgets *out, ash_api_error *e)
{
    *out = o->budgets;
    if (o->model_budgets && !r->upstream) o->model_budgets(o->user, r->model, out);
    const ash_budgets *cap = &o->budget_caps;
    const struct {
        const char *header;
        int64_t *ms, cap;
    } all[] = {
        {"X-Ashley-Queue-Timeout", &out->queue_ms, cap->queue_ms},
        {"X-Ashley-Load-Timeout", &out->load_ms, cap->load_ms},
        {"X-Ashley-First-Token-Timeout", &out->first_token_ms, cap->first_token_ms},
        {"X-Ashley-Idle-Timeout", &out->idle_ms, cap->idle_ms},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const char *text = ash_exchange_header(x, all[i].header);
        if (!text) continue;
        if (all[i].ms == &out->first_token_ms) out->first_token_renewed = false;
        if (!ash_params_time(text, all[i].ms))
            return ash_errors_set(e, 400, NULL, all[i].header,
                                  "%s must be a time like 500ms, 30s or 10m, not '%.40s'",
                                  all[i].header, text);
        if (*all[i].ms == 0) /* 0 ms from a client means at once, not for ever */
            *all[i].ms = 1;
        if (all[i].cap && *all[i].ms > all[i].cap) *all[i].ms = all[i].cap;
    }
    return 0;
}
