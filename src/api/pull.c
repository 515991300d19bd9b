/* Owns Ollama's POST /api/pull: a download as its clients expect it, one JSON line for each change of the
 * progress, or one answer at the end. The download goes on when the client leaves. Errors are Ollama's
 * {"error":"text"}. Source: ollama docs/api.md, "Pull a Model". */
#include <stdlib.h>
#include <string.h>

#include "api/call.h"
#include "api/params.h"

struct ash_pull {
    char id[ASH_MAX_MODEL_ID + 1];
    bool stream, over;
    char *last; /* the line that was sent last */
};

/* Hosts of the hub as Ollama's clients write them before ORG/NAME, and the tag that they add. */
static const char *bare_name(const char *model, char out[ASH_MAX_MODEL_ID + 1])
{
    static const char *const hosts[] = {"hf.co/", "huggingface.co/"};
    static const char tag[] = ":latest";
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
        if (!strncmp(model, hosts[i], strlen(hosts[i]))) model += strlen(hosts[i]);
    size_t n = strlen(model), t = sizeof tag - 1;
    if (n > ASH_MAX_MODEL_ID) return model; /* which is refused */
    if (n > t && !strcmp(model + n - t, tag)) n -= t;
    memcpy(out, model, n);
    out[n] = 0;
    return out;
}

static void answer_error(ash_call *c, int status, const char *text)
{
    json_t *v = json_pack("{s:s}", "error", text);
    ash_call_value(c, status, v);
}

/* A line of the stream, if it is another than the last one; takes v. */
static void say(ash_call *c, ash_pull *p, json_t *v)
{
    ash_buf line;
    ash_buf_init(&line, 64 << 10);
    int rc = v ? ash_json_dump(v, &line) : ASH_ENOMEM;
    rc = rc ? rc : ash_buf_adds(&line, "\n");
    json_decref(v);
    if (rc || (p->last && !strcmp(p->last, line.data))) {
        ash_buf_release(&line);
        return;
    }
    ash_exchange_write(c->x, line.data, line.len);
    free(p->last);
    p->last = ash_buf_take(&line);
}

/* The last word: an error, or success where that is NULL. */
static void finish(ash_call *c, ash_pull *p, const char *error)
{
    p->over = true;
    if (!p->stream && error) {
        answer_error(c, 500, error);
    } else if (!p->stream) {
        ash_call_value(c, 200, json_pack("{s:s}", "status", "success"));
    } else {
        if (!error) say(c, p, json_pack("{s:s}", "status", "verifying sha256 digest"));
        say(c, p, error ? json_pack("{s:s}", "error", error) : json_pack("{s:s}", "status", "success"));
        ash_exchange_end(c->x, NULL, 0);
    }
}

static void tell_progress(ash_call *c, ash_pull *p, const json_t *progress)
{
    const char *stage = json_string_value(json_object_get(progress, "stage"));
    json_int_t total = json_integer_value(json_object_get(progress, "bytes_total"));
    if (!p->stream) return;
    if (!stage || total <= 0) {
        say(c, p, json_pack("{s:s}", "status", "pulling manifest"));
        return;
    }
    json_t *v = json_pack("{s:o, s:I, s:O}", "status", json_sprintf("pulling %s", p->id), "total", total,
                          "completed", json_object_get(progress, "bytes_done"));
    say(c, p, v);
}

/* Looks at the model once. */
static void look(ash_call *c, ash_pull *p, bool begun)
{
    json_t *progress = ash_manager_progress(c->server->opts.manager, p->id);
    const char *state = json_string_value(json_object_get(progress, "state"));
    const json_t *error = json_object_get(progress, "error");
    if (!state)
        finish(c, p, "out of memory");
    else if (!strcmp(state, "downloading"))
        tell_progress(c, p, progress);
    else if (!strcmp(state, "failed") && !begun)
        finish(c, p, json_string_value(json_object_get(error, "message")));
    else if (!strcmp(state, "unloaded") && !begun)
        finish(c, p, "the download was cancelled");
    else
        finish(c, p, NULL); /* it is here, whatever becomes of it in memory */
    json_decref(progress);
}

static int read_body(ash_call *c, json_t **body, const char **model, bool *stream, ash_api_error *e)
{
    ash_err err = ASH_ERR_INIT;
    int rc = ash_params_parse(ash_exchange_body(c->x), body, e);
    if (rc) return rc;
    *stream = true;
    *model = NULL;
    if (ash_json_get_str(*body, "name", model, &err) || ash_json_get_str(*body, "model", model, &err) ||
        ash_json_get_bool(*body, "stream", stream, &err))
        return ash_errors_set(e, 400, NULL, NULL, "%s", err.msg);
    if (!*model || !**model) return ash_errors_set(e, 400, NULL, NULL, "'model' is required");
    return 0;
}

static int begin(ash_call *c, ash_arena *a, json_t **body, ash_pull **out, ash_api_error *e)
{
    char name[ASH_MAX_MODEL_ID + 1];
    const char *model, *id;
    bool stream;
    int rc = read_body(c, body, &model, &stream, e);
    if (rc || (rc = ash_downloads_begin(c, bare_name(model, name), false, a, &id, e))) return rc;
    ash_pull *p = calloc(1, sizeof *p);
    if (!p || strlen(id) > ASH_MAX_MODEL_ID) {
        free(p);
        return ash_errors_set(e, 503, NULL, NULL, "out of memory (pull)");
    }
    memcpy(p->id, id, strlen(id) + 1);
    p->stream = stream;
    *out = p;
    return 0;
}

void ash_pull_serve(ash_call *c)
{
    ash_arena arena;
    ash_api_error e;
    ash_pull *p = NULL;
    json_t *body = NULL;
    ash_arena_init(&arena, 64 << 10);
    if (begin(c, &arena, &body, &p, &e)) {
        answer_error(c, e.status, e.message);
    } else {
        if (p->stream) ash_exchange_stream(c->x, 200, "application/x-ndjson");
        c->pull = p;
        look(c, p, true);
    }
    json_decref(body);
    ash_arena_release(&arena);
}

void ash_pull_tick(ash_call *c, ash_pull *p)
{
    if (p->over) return; /* what is queued is being sent */
    if (atomic_load(&c->server->draining))
        finish(c, p, "the server is shutting down");
    else
        look(c, p, false);
}

void ash_pull_close(ash_pull *p)
{
    if (!p) return;
    free(p->last);
    free(p);
}
