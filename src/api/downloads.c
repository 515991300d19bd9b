/* Owns what clients may do to the files of models: download (POST /models), removal (DELETE /models). Refuses
 * names that are neither known nor a hub's. */
#include <string.h>

#include "api/call.h"
#include "api/params.h"

/* Member `model` of the body, or the query's where there is no body. The text is the body's or the
 * exchange's. */
static int read_model(ash_call *c, json_t **body, const char **model, ash_api_error *e)
{
    ash_str text = ash_exchange_body(c->x);
    ash_err err = ASH_ERR_INIT;
    *model = ash_exchange_query(c->x, "model");
    if (text.n || !*model) {
        int rc = ash_params_parse(text, body, e);
        if (rc) return rc;
        if (ash_json_get_str(*body, "model", model, &err))
            return ash_errors_set(e, 400, NULL, "model", "%s", err.msg);
    }
    if (!*model || !**model) return ash_errors_set(e, 400, NULL, "model", "'model' is required");
    return 0;
}

static int answered_elsewhere(const char *model, ash_api_error *e)
{
    return ash_errors_set(e, 400, NULL, "model", "'%.128s' is answered by an upstream provider", model);
}

/* The id of a model that is known, or becomes so by its name; *id lives in the arena or the options. */
static int known_or_added(const ash_server_opts *o, const char *model, ash_arena *a, const char **id,
                          ash_api_error *e)
{
    ash_route route;
    ash_err err = ASH_ERR_INIT;
    if (!ash_route_name(o, model, a, &route, e)) {
        *id = route.model;
        return route.upstream ? answered_elsewhere(model, e) : 0;
    }
    if (e->status != 404 || !o->add_model || !strchr(model, '/')) return e->status;
    if (!o->add_model(o->user, model, &err)) {
        *id = model;
        return 0;
    }
    if (err.code == ASH_ENOENT)
        return ash_errors_set(e, 404, "model_not_found", "model",
                              "'%.128s' is neither a model of the catalogue nor org/repo[:QUANT]", model);
    ash_errors_from(e, &err, a);
    e->param = "model";
    return e->status;
}

int ash_downloads_begin(ash_call *c, const char *model, bool confirm, ash_arena *a, const char **id,
                        ash_api_error *e)
{
    const ash_server_opts *o = &c->server->opts;
    ash_err err = ASH_ERR_INIT;
    int rc = known_or_added(o, model, a, id, e);
    if (rc || !ash_manager_download(o->manager, *id, confirm, &err)) return rc;
    ash_errors_manage(e, &err, a);
    if (err.code == ASH_EAGAIN) ash_errors_set(e, 409, "model_in_use", "model", "%s", err.msg);
    if (err.code == ASH_ENOENT) e->code = "not_downloaded"; /* and cannot be: without a repository, offline */
    return e->status;
}

static int download(ash_call *c, ash_arena *a, json_t **body, ash_api_error *e)
{
    const char *model, *id = NULL;
    bool confirm = false;
    ash_err err = ASH_ERR_INIT;
    int rc = read_model(c, body, &model, e);
    if (rc) return rc;
    if (*body && ash_json_get_bool(*body, "confirm", &confirm, &err))
        return ash_errors_set(e, 400, NULL, "confirm", "%s", err.msg);
    if ((rc = ash_downloads_begin(c, model, confirm, a, &id, e))) return rc;
    json_t *status = ash_manager_progress(c->server->opts.manager, id);
    ash_call_value(c, 200, status ? json_pack("{s:b, s:s, s:o}", "success", 1, "model", id, "status", status)
                                  : NULL);
    return 0;
}

static int take_away(ash_call *c, ash_arena *a, json_t **body, ash_api_error *e)
{
    const ash_server_opts *o = &c->server->opts;
    const char *model;
    ash_route route;
    ash_err err = ASH_ERR_INIT;
    uint64_t bytes;
    int rc = read_model(c, body, &model, e);
    if (rc || (rc = ash_route_name(o, model, a, &route, e))) return rc;
    if (route.persona)
        return ash_errors_set(e, 400, NULL, "model", "'%.128s' is a persona; its model is '%.128s'", model,
                              route.model);
    if (route.upstream) return answered_elsewhere(model, e);
    if (!ash_manager_remove(o->manager, route.model, &bytes, &err)) {
        ash_call_value(c, 200, json_pack("{s:b, s:s, s:I}", "success", 1, "model", route.model, "bytes",
                                         (json_int_t)bytes));
        return 0;
    }
    ash_errors_from(e, &err, a);
    e->param = "model";
    if (err.code == ASH_EAGAIN) ash_errors_set(e, 409, "model_in_use", "model", "%s", err.msg);
    if (err.code == ASH_ENOENT) e->code = "not_downloaded";
    if (err.code == ASH_EINVAL) e->code = "not_in_cache";
    return e->status;
}

static void serve(ash_call *c, int (*fn)(ash_call *, ash_arena *, json_t **, ash_api_error *))
{
    ash_arena arena;
    ash_api_error e;
    json_t *body = NULL;
    ash_arena_init(&arena, 64 << 10);
    if (fn(c, &arena, &body, &e)) ash_call_error(c, &e);
    json_decref(body);
    ash_arena_release(&arena);
}

void ash_models_download(ash_call *c)
{
    serve(c, download);
}

void ash_models_remove(ash_call *c)
{
    serve(c, take_away);
}
