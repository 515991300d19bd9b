/* Owns the table of routes, the way of every request through it (id, keys, drain, 404, 405, 501),
 * the access log, and the server's start, drain and end. */
#include "api/server.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "api/call.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"

enum {
    IO_THREADS = 4,
    IDLE_MS = 60000,
    STREAM_HIGH = 256 << 10,
    STREAM_LOW = 64 << 10,
    MAX_ECHOED_HEADERS = 1024,
};

static const char later[] = "is not built yet";

static const ash_endpoint endpoints[] = {
    {"POST", "/chat/completions", false, ash_openai_chat, NULL},
    {"POST", "/completions", false, ash_openai_completion, NULL},
    {"GET", "/models", false, ash_models_list, NULL},
    {"GET", "/models/sse", false, ash_models_watch, NULL},
    {"POST", "/models/load", false, ash_models_load, NULL},
    {"POST", "/models/retry", false, ash_models_load, NULL},
    {"POST", "/models/unload", false, ash_models_unload, NULL},
    {"POST", "/models/cancel", false, ash_models_cancel, NULL},
    {"POST", "/models/pause", false, ash_models_pause, NULL},
    {"POST", "/models", false, ash_models_download, NULL},
    {"DELETE", "/models", false, ash_models_remove, NULL},
    {"GET", "/api/version", false, ash_ollama_version, NULL},
    {"GET", "/api/tags", false, ash_ollama_tags, NULL},
    {"GET", "/api/ps", false, ash_ollama_ps, NULL},
    {"POST", "/api/show", false, ash_ollama_show, NULL},
    {"POST", "/api/chat", false, ash_ollama_chat, NULL},
    {"POST", "/api/generate", false, ash_ollama_generate, NULL},
    {"POST", "/api/pull", false, ash_pull_serve, NULL},
    {"GET", "/livez", true, ash_health_live, NULL},
    {"GET", "/health", true, ash_health_live, NULL},
    {"GET", "/readyz", true, ash_health_ready, NULL},
    {"GET", "/metrics", true, ash_health_metrics, NULL},
    {"GET", "/", true, ash_page_root, NULL},
    {"POST", "/embeddings", false, NULL, later},
    {"POST", "/responses", false, NULL, later},
    {"POST", "/completion", false, NULL, later},
    {"POST", "/tokenize", false, NULL, later},
    {"POST", "/detokenize", false, NULL, later},
    {"POST", "/apply-template", false, NULL, later},
    {"GET", "/props", false, NULL, later},
    {"GET", "/slots", false, NULL, later},
};
static const ash_endpoint one_model = {"GET", "/models/{id}", false, ash_models_one, NULL};
static const ash_endpoint asset = {"GET", "/assets/*", true, ash_page_asset, NULL};
static const ash_endpoint later_prefix = {"*", "/api/*", false, NULL, later};
static const ash_endpoint preflight = {"OPTIONS", "*", true, NULL, NULL};

/* ---- answers of every route ---- */

void ash_call_error(ash_call *c, const ash_api_error *e)
{
    ash_errors_send(c->x, e);
}

void ash_call_json(ash_call *c, int status, ash_buf *body)
{
    if (!body->failed) {
        ash_exchange_respond(c->x, status, "application/json", body);
        return;
    }
    ash_api_error e;
    ash_errors_set(&e, 503, "out_of_memory", NULL, "out of memory (answer)");
    ash_errors_send(c->x, &e);
}

void ash_call_value(ash_call *c, int status, json_t *value)
{
    ash_buf body;
    ash_buf_init(&body, 64 << 20);
    if (!value || ash_json_dump(value, &body)) body.failed = ASH_ENOMEM;
    json_decref(value);
    ash_call_json(c, status, &body);
    ash_buf_release(&body);
}

/* ---- routing ---- */

static bool method_fits(const ash_endpoint *e, const char *method)
{
    return !strcmp(e->method, method) || e->method[0] == '*' ||
           (!strcmp(e->method, "GET") && !strcmp(method, "HEAD"));
}

/* The path without a leading /v1. */
static const char *api_path(const char *path)
{
    return !strncmp(path, "/v1/", 4) ? path + 3 : path;
}

/* Sets *allow to the methods of a path that exists with other ones. */
static const ash_endpoint *find_endpoint(const char *method, const char *path, const char **tail,
                                         char *allow, size_t size)
{
    *tail = NULL;
    allow[0] = 0;
    if (!strcmp(method, "OPTIONS")) return &preflight;
    if (!strncmp(path, "/assets/", 8)) return method_fits(&asset, method) ? &asset : NULL;
    const char *p = api_path(path);
    for (size_t i = 0; i < sizeof endpoints / sizeof *endpoints; i++) {
        const ash_endpoint *e = &endpoints[i];
        if (strcmp(e->path, p) != 0) continue;
        if (method_fits(e, method)) return e;
        size_t n = strlen(allow);
        snprintf(allow + n, size - n, "%s%s%s", n ? ", " : "", e->method,
                 !strcmp(e->method, "GET") ? ", HEAD" : "");
    }
    if (!allow[0] && !strncmp(path, "/api/", 5)) return &later_prefix;
    if (allow[0] || strncmp(p, "/models/", 8) != 0 || !p[8]) return NULL;
    *tail = p + 8;
    if (method_fits(&one_model, method)) return &one_model;
    snprintf(allow, size, "GET, HEAD");
    return NULL;
}

static void take_request_id(ash_call *c)
{
    const char *given = ash_exchange_header(c->x, "X-Request-Id");
    size_t n = given ? strlen(given) : 0;
    bool usable = n > 0 && n < sizeof c->id;
    for (size_t i = 0; i < n && usable; i++)
        usable = isalnum((unsigned char)given[i]) || strchr("-_.:", given[i]);
    if (usable)
        memcpy(c->id, given, n + 1);
    else
        snprintf(c->id, sizeof c->id, "req-%016" PRIx64, ash_rng_entropy());
    ash_exchange_add_header(c->x, "X-Request-Id", c->id);
}

static void cors_headers(ash_call *c)
{
    const char *origin = ash_exchange_header(c->x, "Origin");
    if (!origin) return;
    ash_exchange_add_header(c->x, "Vary", "Origin");
    if (!ash_auth_origin_allowed(&c->server->auth, origin)) return;
    ash_exchange_add_header(c->x, "Access-Control-Allow-Origin", origin);
    ash_exchange_add_header(c->x, "Access-Control-Expose-Headers",
                            "X-Request-Id, X-Ashley-Model, X-Ashley-Served-By, X-Ashley-Reason, "
                            "X-Ashley-Truncated, X-Should-Retry, Retry-After");
    const char *wants = ash_exchange_header(c->x, "Access-Control-Request-Headers");
    if (strcmp(ash_exchange_method(c->x), "OPTIONS") != 0) return;
    ash_exchange_add_header(c->x, "Access-Control-Allow-Methods",
                            "GET, HEAD, POST, DELETE, OPTIONS");
    ash_exchange_add_header(c->x, "Access-Control-Allow-Headers",
                            wants && strlen(wants) < MAX_ECHOED_HEADERS
                                ? wants
                                : "Authorization, Content-Type, X-Request-Id");
    ash_exchange_add_header(c->x, "Access-Control-Max-Age", "600");
    if (ash_exchange_header(c->x, "Access-Control-Request-Private-Network"))
        ash_exchange_add_header(c->x, "Access-Control-Allow-Private-Network", "true");
}

static int check_call(ash_call *c, const char *allow, ash_api_error *e)
{
    ash_exchange *x = c->x;
    const char *path = ash_exchange_path(x), *method = ash_exchange_method(x);
    ash_auth_request who = {
        .method = method,
        .host = ash_exchange_header(x, "Host"),
        .origin = ash_exchange_header(x, "Origin"),
        .authorization = ash_exchange_header(x, "Authorization"),
        .api_key = ash_exchange_header(x, "x-api-key"),
    };
    int rc = ash_auth_check(&c->server->auth, &who, c->endpoint && c->endpoint->is_public, e);
    if (rc) return rc;
    if (strlen(path) > ASH_MAX_URL)
        return ash_errors_set(e, 414, "uri_too_long", NULL, "the path is longer than %d bytes",
                              ASH_MAX_URL);
    if (!c->endpoint && allow[0]) {
        ash_exchange_add_header(x, "Allow", allow);
        return ash_errors_set(e, 405, "method_not_allowed", NULL, "%.16s %.200s: use %s", method,
                              path, allow);
    }
    if (!c->endpoint)
        return ash_errors_set(e, 404, "not_found", NULL, "there is no route %.16s %.200s", method,
                              path);
    if (!c->endpoint->is_public && atomic_load(&c->server->draining)) {
        ash_exchange_add_header(x, "Connection", "close");
        ash_errors_set(e, 503, "shutting_down", NULL, "the server is shutting down");
        e->retry_after = 5;
        return e->status;
    }
    if (!c->endpoint->serve && c->endpoint->not_built)
        return ash_errors_set(e, 501, "not_implemented", NULL, "%.16s %.200s %s", method, path,
                              c->endpoint->not_built);
    const char *encoding = ash_exchange_header(x, "Content-Encoding");
    if (encoding && strcasecmp(encoding, "identity") != 0)
        return ash_errors_set(e, 415, "unsupported_encoding", NULL,
                              "a body is read as it is, not with Content-Encoding '%.40s'", encoding);
    return 0;
}

/* ---- callbacks of the exchange ---- */

static void on_head(void *user, ash_exchange *x)
{
    ash_call *c = calloc(1, sizeof *c);
    ash_api_error e;
    char allow[64];
    if (!c) {
        ash_exchange_respond(x, 503, NULL, NULL);
        return;
    }
    c->server = user;
    c->x = x;
    ash_exchange_set_data(x, c);
    c->endpoint =
        find_endpoint(ash_exchange_method(x), ash_exchange_path(x), &c->tail, allow, sizeof allow);
    take_request_id(c);
    cors_headers(c);
    if (check_call(c, allow, &e)) ash_call_error(c, &e);
}

static void on_request(void *user, ash_exchange *x)
{
    ash_call *c = ash_exchange_data(x);
    ash_api_error e;
    if (ash_exchange_refused(x) == ASH_ENOMEM) {
        ash_errors_crowded(&e);
        ash_call_error(c, &e);
    } else if (ash_exchange_refused(x)) {
        ash_errors_set(&e, 413, "body_too_large", NULL, "the body is larger than %u bytes",
                       ASH_MAX_JSON_BODY);
        ash_call_error(c, &e);
    } else if (c->endpoint == &preflight) {
        ash_exchange_add_header(x, "Allow", "GET, HEAD, POST, DELETE, OPTIONS");
        ash_exchange_respond(x, 204, NULL, NULL);
    } else {
        c->endpoint->serve(c);
    }
}

static void on_wake(void *user, ash_exchange *x)
{
    ash_call *c = ash_exchange_data(x);
    if (c->reply) ash_reply_wake(c->reply);
}

static void on_drain(void *user, ash_exchange *x)
{
    ash_call *c = ash_exchange_data(x);
    if (c->reply) ash_reply_drain(c->reply);
}

static void on_tick(void *user, ash_exchange *x, int64_t now_ms)
{
    ash_call *c = ash_exchange_data(x);
    if (c && c->reply)
        ash_reply_tick(c->reply, now_ms);
    else if (c && atomic_load(&c->load_ends_ms))
        ash_ollama_tick(c, now_ms);
    else if (c && c->pull)
        ash_pull_tick(c, c->pull);
    else if (c && atomic_load(&c->watched))
        ash_models_tick(c, now_ms);
}

/* Whether the log is to have it. Of what supervisors ask each second only a change. */
static bool is_news(const ash_call *c, int status)
{
    bool good_get = status < 400 && !strcmp(ash_exchange_method(c->x), "GET");
    void (*serve)(ash_call *) = c->endpoint ? c->endpoint->serve : NULL;
    if (serve != ash_health_ready && serve != ash_health_live) return !good_get;
    atomic_int *told = serve == ash_health_ready ? &c->server->told_ready : &c->server->told_live;
    int before = atomic_exchange(told, status);
    return status != before && (before || !good_get);
}

static void log_call(const ash_call *c, int64_t ms)
{
    const char *method = ash_exchange_method(c->x), *path = ash_exchange_path(c->x);
    int status = ash_exchange_status(c->x);
    ash_log_write(is_news(c, status) ? ASH_LOG_INFO : ASH_LOG_DEBUG, "http",
                  "%s %s %.200s %d%s %" PRIu64 " bytes %" PRId64 " ms%s%s", c->id, method, path,
                  status, ash_exchange_gone(c->x) ? " (client left)" : "", ash_exchange_sent(c->x),
                  ms, c->model[0] ? " " : "", c->model);
}

static void on_done(void *user, ash_exchange *x)
{
    ash_server *s = user;
    ash_call *c = ash_exchange_data(x);
    if (!c) return;
    ash_reply_close(c->reply);
    ash_pull_close(c->pull);
    int64_t ms = ash_clock_ms() - ash_exchange_since(x);
    ash_metrics_request(s->metrics, c->endpoint ? c->endpoint->path : "none",
                        ash_exchange_status(x), (double)ms / 1e3);
    log_call(c, ms);
    free(c);
}

/* ---- life ---- */

static bool is_loopback_host(const char *host)
{
    return !strcmp(host, "localhost") || !strncmp(host, "127.", 4) || !strcmp(host, "::1");
}

static int open_parts(ash_server *s, ash_err *err)
{
    s->metrics = ash_metrics_open();
    s->feed = ash_feed_open();
    if (!s->metrics || !s->feed) return ash_err_nomem(err, "server");
    const ash_http_opts http = {
        .host = s->opts.host,
        .port = s->opts.port,
        .threads = IO_THREADS,
        .max_connections = ASH_MAX_CONNECTIONS,
        .max_body = ASH_MAX_JSON_BODY,
        .max_bodies = ASH_MAX_BODIES,
        .idle_ms = s->opts.idle_ms ? s->opts.idle_ms : IDLE_MS,
        .high = STREAM_HIGH,
        .low = STREAM_LOW,
        .max_queue = ASH_MAX_STREAM_BUFFER,
        .user = s,
        .on_head = on_head,
        .on_request = on_request,
        .on_wake = on_wake,
        .on_drain = on_drain,
        .on_done = on_done,
        .on_tick = on_tick,
    };
    return ash_http_open(&http, &s->http, err);
}

int ash_server_open(const ash_server_opts *opts, ash_server **out, ash_err *err)
{
    *out = NULL;
    ash_server *s = calloc(1, sizeof *s);
    if (!s) return ash_err_nomem(err, "server");
    s->opts = *opts;
    s->created = (int64_t)ash_clock_wall();
    s->auth = (ash_auth_opts){
        .keys = opts->api_keys,
        .n_keys = opts->n_api_keys,
        .origins = opts->origins,
        .n_origins = opts->n_origins,
        .loopback = is_loopback_host(opts->host),
    };
    int rc = open_parts(s, err);
    if (rc) {
        ash_server_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

uint16_t ash_server_port(const ash_server *s)
{
    return ash_http_port(s->http);
}

void ash_server_drain(ash_server *s, const atomic_bool *hurry)
{
    const struct timespec step = {.tv_nsec = 10 * 1000 * 1000};
    int64_t end = ash_clock_ms() + s->opts.drain_ms;
    atomic_store(&s->draining, true); /* the next tick ends the watchers */
    while (atomic_load(&s->answering) > 0 && ash_clock_ms() < end && !(hurry && atomic_load(hurry)))
        nanosleep(&step, NULL);
    int left = atomic_load(&s->answering);
    if (left) ash_warn("http", "%d answers did not finish in time and are cut off", left);
}

void ash_server_close(ash_server *s)
{
    if (!s) return;
    ash_http_close(s->http);
    ash_feed_close(s->feed);
    ash_metrics_close(s->metrics);
    free(s);
}
