/* Owns the lists of models in both forms (OpenAI's and llama-server's router's are one), loading
 * and unloading, and the stream of changes. Personas and the upstream are listed beside the models.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "api/call.h"
#include "api/params.h"
#include "base/clock.h"

/* ---- lists ---- */

static json_t *text_or_null(const char *s)
{
    return s ? json_string(s) : json_null();
}

static json_t *entry(const ash_server *s, const char *id, const char *owner, const char *state)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:b, s:{s:s}, s:{}}", "id", id, "object", "model",
                     "created", (json_int_t)s->created, "owned_by", owner, "loaded",
                     !strcmp(state, "loaded"), "status", "value", state, "meta");
}

static void copy_members(json_t *to, const json_t *from, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        json_t *v = json_object_get(from, names[i]);
        if (v) json_object_set(to, names[i], v);
    }
}

/* A model of the catalogue from its progress object, which goes into `status` as a whole. */
static json_t *model_entry(const ash_server *s, const json_t *progress)
{
    static const char *const meta[] = {"n_ctx",        "resident_bytes", "description", "repo",
                                       "format",       "size",           "warning",     "required",
                                       "pin",          "architecture",   "quantization", "n_params",
                                       "n_ctx_train",  "n_embd",         "n_vocab"};
    const char *id = json_string_value(json_object_get(progress, "model"));
    const char *state = json_string_value(json_object_get(progress, "state"));
    json_t *e = id && state ? entry(s, id, "ashley", state) : NULL;
    if (!e) return NULL;
    json_object_update(json_object_get(e, "status"), (json_t *)(uintptr_t)progress);
    copy_members(json_object_get(e, "meta"), progress, meta, sizeof meta / sizeof *meta);
    return e;
}

static const char *state_behind(const ash_server *s, const ash_route *r)
{
    if (r->upstream) return s->opts.upstream ? "loaded" : "failed";
    return ash_model_state_name(ash_manager_state(s->opts.manager, r->model));
}

static json_t *persona_entry(const ash_server *s, const ash_api_persona *p)
{
    ash_arena arena;
    ash_arena_init(&arena, 64 << 10);
    ash_route route;
    ash_api_error err;
    bool found = !ash_route_name(&s->opts, p->id, &arena, &route, &err);
    json_t *e = entry(s, p->id, "persona", found ? state_behind(s, &route) : "failed");
    json_t *meta = json_object_get(e, "meta"), *greetings = json_object_get(p->extra, "greetings");
    json_object_set_new(meta, "name", text_or_null(p->name));
    json_object_set_new(meta, "description", text_or_null(p->description));
    json_object_set_new(meta, "first_message", text_or_null(p->first_message));
    json_object_set_new(meta, "greetings", greetings ? json_incref(greetings) : json_array());
    json_object_set_new(meta, "model",
                        found ? json_string(route.upstream ? ASH_ROUTE_UPSTREAM : route.model)
                              : json_null());
    ash_arena_release(&arena);
    return e;
}

static json_t *upstream_entry(const ash_server *s)
{
    json_t *e = entry(s, ASH_ROUTE_UPSTREAM, s->opts.upstream->name, "loaded");
    json_object_set_new(json_object_get(e, "meta"), "model", text_or_null(s->opts.fallback_model));
    return e;
}

json_t *ash_models_entries(const ash_server *s, const char *only)
{
    json_t *out = json_array(), *list = ash_manager_list(s->opts.manager);
    size_t i;
    const json_t *p;
    json_array_foreach(list, i, p)
    {
        const char *id = json_string_value(json_object_get(p, "model"));
        if (!only || (id && !strcmp(id, only))) json_array_append_new(out, model_entry(s, p));
    }
    json_decref(list);
    for (i = 0; i < s->opts.n_personas; i++)
        if (!only || !strcmp(s->opts.personas[i].id, only))
            json_array_append_new(out, persona_entry(s, &s->opts.personas[i]));
    if (s->opts.upstream && (!only || !strcmp(only, ASH_ROUTE_UPSTREAM)))
        json_array_append_new(out, upstream_entry(s));
    return out;
}

void ash_models_list(ash_call *c)
{
    ash_call_value(c, 200,
                   json_pack("{s:s, s:o}", "object", "list", "data", ash_models_entries(c->server, NULL)));
}

void ash_models_one(ash_call *c)
{
    ash_arena arena;
    ash_route route;
    ash_api_error e;
    ash_arena_init(&arena, 64 << 10);
    if (ash_route_name(&c->server->opts, c->tail, &arena, &route, &e)) {
        ash_call_error(c, &e);
    } else {
        const char *id = route.persona    ? route.persona->id
                         : route.upstream ? ASH_ROUTE_UPSTREAM
                                          : route.model;
        json_t *list = ash_models_entries(c->server, id), *one = json_array_get(list, 0);
        if (one)
            ash_call_value(c, 200, json_incref(one));
        else if (list && route.upstream) {
            ash_errors_set(&e, 404, "model_not_found", "model", "no upstream is configured: %.300s",
                           c->server->opts.upstream_missing ? c->server->opts.upstream_missing
                                                            : "");
            ash_call_error(c, &e);
        } else
            ash_call_value(c, 200, NULL);
        json_decref(list);
    }
    ash_arena_release(&arena);
}

/* ---- load, unload, cancel ---- */

typedef int (*manage_fn)(ash_manager *m, const char *id, ash_err *err);

/* What a load's body says of how long the model stays after it. */
static int keep(ash_manager *m, const char *id, const json_t *body, ash_err *err)
{
    bool has;
    int64_t ms;
    int rc = ash_params_keep_alive(body, &has, &ms, err);
    if (!rc && has && !ms)
        rc = ash_err_set(err, ASH_EINVAL, "'keep_alive' of a load must not be 0; see /models/unload");
    return rc || !has ? rc : ash_manager_keep(m, id, ms, err);
}

static int manage_one(ash_call *c, manage_fn fn, ash_arena *a, json_t **body, ash_api_error *e)
{
    const ash_server_opts *o = &c->server->opts;
    const char *model = NULL;
    ash_route route;
    ash_err err = ASH_ERR_INIT;
    int rc = ash_params_parse(ash_exchange_body(c->x), body, e);
    if (rc) return rc;
    if (ash_json_get_str(*body, "model", &model, &err)) {
        ash_errors_from(e, &err, a);
        return e->status;
    }
    if (!model || !*model) return ash_errors_set(e, 400, NULL, "model", "'model' is required");
    if ((rc = ash_route_name(o, model, a, &route, e))) return rc;
    if (route.upstream)
        return ash_errors_set(e, 400, NULL, "model", "'%.128s' is answered by an upstream provider",
                              model);
    if (fn == ash_manager_load && keep(o->manager, route.model, *body, &err)) {
        ash_errors_from(e, &err, a);
        return e->status;
    }
    if (!fn(o->manager, route.model, &err)) return 0;
    ash_errors_manage(e, &err, a);
    if (err.code == ASH_ENOENT) e->code = "not_downloaded"; /* its id is known */
    return e->status;
}

static void manage(ash_call *c, manage_fn fn)
{
    ash_arena arena;
    ash_api_error e;
    json_t *body = NULL;
    ash_arena_init(&arena, 64 << 10);
    if (manage_one(c, fn, &arena, &body, &e))
        ash_call_error(c, &e);
    else
        ash_call_value(c, 200, json_pack("{s:b}", "success", 1));
    json_decref(body);
    ash_arena_release(&arena);
}

void ash_models_load(ash_call *c)
{
    manage(c, ash_manager_load);
}

void ash_models_unload(ash_call *c)
{
    manage(c, ash_manager_unload);
}

void ash_models_cancel(ash_call *c)
{
    manage(c, ash_manager_cancel);
}

void ash_models_pause(ash_call *c)
{
    manage(c, ash_manager_pause);
}

/* ---- changes ---- */

/* The last text of every model, with the number of the change that brought it. */
typedef struct feed_item {
    char *text;
    uint64_t seq;
} feed_item;

struct ash_feed {
    pthread_mutex_t mutex;
    bool filled;
    uint64_t version; /* of the manager when it was last asked */
    uint64_t seq;
    feed_item *items; /* in the order of ash_manager_list, which grows only */
    size_t n;
};

ash_feed *ash_feed_open(void)
{
    ash_feed *f = calloc(1, sizeof *f);
    if (f) pthread_mutex_init(&f->mutex, NULL);
    return f;
}

void ash_feed_close(ash_feed *f)
{
    if (!f) return;
    for (size_t i = 0; i < f->n; i++) free(f->items[i].text);
    free(f->items);
    pthread_mutex_destroy(&f->mutex);
    free(f);
}

/* The progress object itself, with llama-server's members (model, event, data) beside its own. */
static char *event_text(const json_t *progress, bool first)
{
    const json_t *state = json_object_get(progress, "state");
    json_t *e = json_copy((json_t *)(uintptr_t)progress);
    json_t *data = json_pack("{s:O, s:{s:O, s:O}}", "status", state, "progress", "stage",
                             json_object_get(progress, "stage"), "value",
                             json_object_get(progress, "progress"));
    json_object_set_new(e, "event", json_string(first ? "model_status" : "status_change"));
    json_object_set_new(e, "data", data ? data : json_null());
    ash_buf out;
    ash_buf_init(&out, 1 << 20);
    int rc = e ? ash_json_dump(e, &out) : ASH_ENOMEM;
    json_decref(e);
    if (rc) ash_buf_release(&out);
    return ash_buf_take(&out);
}

static void update_item(ash_feed *f, size_t i, const json_t *progress)
{
    char *text = event_text(progress, f->items[i].seq == 0);
    if (!text || (f->items[i].text && !strcmp(f->items[i].text, text))) {
        free(text);
        return;
    }
    free(f->items[i].text);
    f->items[i] = (feed_item){text, ++f->seq};
}

static void refresh_locked(ash_feed *f, ash_manager *m)
{
    uint64_t version = ash_manager_version(m);
    if (f->filled && version == f->version) return;
    json_t *list = ash_manager_list(m);
    size_t n = json_array_size(list), i;
    const json_t *p;
    if (n > f->n) { /* models that were added come last */
        feed_item *items = realloc(f->items, n * sizeof *items);
        if (items) {
            memset(items + f->n, 0, (n - f->n) * sizeof *items);
            f->items = items;
            f->n = n;
        }
    }
    json_array_foreach(list, i, p) if (i < f->n) update_item(f, i, p);
    f->filled = list != NULL;
    f->version = version;
    json_decref(list);
}

/* Sends what changed since the watcher's last look; all at first. */
static void send_changes(ash_call *c)
{
    ash_feed *f = c->server->feed;
    ash_buf out;
    ash_buf_init(&out, 16 << 20);
    pthread_mutex_lock(&f->mutex);
    refresh_locked(f, c->server->opts.manager);
    uint64_t seen = atomic_load(&c->watched) - 1;
    for (size_t i = 0; i < f->n; i++)
        if (f->items[i].seq > seen) ash_sse_data(&out, ash_str_from(f->items[i].text));
    atomic_store(&c->watched, f->seq + 1);
    pthread_mutex_unlock(&f->mutex);
    if (out.len && !out.failed) {
        ash_exchange_write(c->x, out.data, out.len);
        atomic_store(&c->written_ms, ash_clock_ms());
    }
    ash_buf_release(&out);
}

void ash_models_watch(ash_call *c)
{
    ash_sse_open(c->x);
    atomic_store(&c->watched, 1);
    atomic_store(&c->written_ms, ash_clock_ms());
    send_changes(c);
}

void ash_models_tick(ash_call *c, int64_t now_ms)
{
    if (atomic_load(&c->server->draining)) {
        ash_exchange_end(c->x, NULL, 0);
        return;
    }
    send_changes(c);
    if (now_ms - atomic_load(&c->written_ms) >= ASH_SSE_PING_MS) {
        ash_sse_ping(c->x);
        atomic_store(&c->written_ms, now_ms);
    }
}
