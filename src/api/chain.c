/* Owns the going on from one provider to the next. */
#include "api/chain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { ARENA_BYTES = 64 << 10 };

/* Where a step's events arrive. */
typedef struct listener {
    ash_chain *chain;
    size_t step;
} listener;

struct ash_chain {
    ash_chain_opts opts;
    ash_request req;
    ash_arena arena;        /* names of fields in errors */
    _Atomic size_t next;    /* step that advance asks next */
    ash_provider *provider; /* of `answering` */
    ash_answering *answering;
    listener listeners[ASH_ROUTE_MAX_STEPS];
    bool talked;   /* the first token is out: no going on */
    bool has_head; /* a HEAD that waits for the first token */
    ash_answer head;
    char head_model[ASH_MAX_MODEL_ID + 1];
    char failure[512]; /* why an earlier step failed */
};

ash_chain *ash_chain_open(const ash_chain_opts *opts)
{
    ash_chain *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->opts = *opts;
    c->req = *opts->req;
    ash_arena_init(&c->arena, ARENA_BYTES);
    for (size_t i = 0; i < ASH_ROUTE_MAX_STEPS; i++) c->listeners[i] = (listener){c, i};
    return c;
}

bool ash_chain_certain(const ash_chain *c, ash_route_step *step)
{
    if (c->next < c->opts.plan.n || c->next == 0) return false;
    *step = c->opts.plan.steps[c->next - 1];
    return true;
}

/* Whether another provider may do better: our trouble, not the client's mistake. */
static bool may_go_on(const ash_chain *c, size_t step, const ash_api_error *e)
{
    return !c->talked && step + 1 < c->opts.plan.n && e->status >= 500 && e->status != 501 &&
           !(e->code && !strcmp(e->code, "shutting_down"));
}

static const char *reason_of(const ash_api_error *e)
{
    const char *code = e->code ? e->code : "";
    if (!strcmp(code, "model_loading")) return "loading";
    if (!strcmp(code, "queue_timeout") || !strcmp(code, "first_token_timeout")) return "busy";
    return "failed";
}

static void note_failure(ash_chain *c, size_t step, const ash_api_error *e)
{
    snprintf(c->failure, sizeof c->failure, "%s", e->message);
    c->opts.plan.steps[step + 1].reason = reason_of(e);
    c->has_head = false;
    ash_info("api", "%s: %s failed (%s); asking %s", c->req.id, c->opts.plan.steps[step].model,
             e->message, c->opts.plan.steps[step + 1].provider->name);
}

static int deliver_error(ash_chain *c, const ash_api_error *e)
{
    ash_api_error full = *e;
    size_t n = strlen(full.message);
    const char *reason = c->next ? c->opts.plan.steps[c->next - 1].reason : NULL;
    if (c->failure[0])
        snprintf(full.message + n, sizeof full.message - n, " (before that: %s)", c->failure);
    else if (reason && c->opts.plan.passed_over)
        snprintf(full.message + n, sizeof full.message - n, " (asked instead of '%.128s': %s)",
                 c->opts.plan.passed_over, reason);
    ash_answer a = {.kind = ASH_ANSWER_ERROR, .error = &full};
    return c->opts.fn(c->opts.user, &a);
}

static int on_head(ash_chain *c, size_t step, const ash_answer *a)
{
    c->head = *a;
    c->head.reason = c->opts.plan.steps[step].reason;
    snprintf(c->head_model, sizeof c->head_model, "%s", a->model ? a->model : "");
    c->head.model = c->head_model;
    c->head.served_by = c->opts.plan.steps[step].provider->name;
    if (step + 1 < c->opts.plan.n) {
        c->has_head = true; /* not before it is sure who answers */
        return 0;
    }
    return c->opts.fn(c->opts.user, &c->head);
}

static int on_answer(void *user, const ash_answer *a)
{
    const listener *l = user;
    ash_chain *c = l->chain;
    switch (a->kind) {
    case ASH_ANSWER_HEAD:
        return on_head(c, l->step, a);
    case ASH_ANSWER_WAITING:
    case ASH_ANSWER_PROGRESS:
        return c->opts.fn(c->opts.user, a);
    case ASH_ANSWER_ERROR:
        if (!may_go_on(c, l->step, a->error)) return deliver_error(c, a->error);
        note_failure(c, l->step, a->error);
        c->opts.wake(c->opts.user);
        return 0;
    default:
        break;
    }
    c->talked = true;
    if (c->has_head) {
        c->has_head = false;
        int rc = c->opts.fn(c->opts.user, &c->head);
        if (rc && rc != ASH_EAGAIN) return rc;
    }
    return c->opts.fn(c->opts.user, a);
}

static void end_current(ash_chain *c)
{
    if (c->answering) c->provider->close_request(c->provider, c->answering);
    c->answering = NULL;
}

void ash_chain_advance(ash_chain *c)
{
    end_current(c);
    while (c->next < c->opts.plan.n) {
        size_t i = c->next++;
        const ash_route_step *step = &c->opts.plan.steps[i];
        ash_err err = ASH_ERR_INIT;
        c->req.model = step->model;
        c->provider = step->provider;
        int rc = c->provider->start(c->provider, &c->req, on_answer, &c->listeners[i],
                                    &c->answering, &err);
        if (!rc) return;
        c->answering = NULL;
        ash_api_error e;
        ash_errors_from(&e, &err, &c->arena);
        if (!may_go_on(c, i, &e)) {
            deliver_error(c, &e);
            return;
        }
        note_failure(c, i, &e);
    }
}

void ash_chain_resume(ash_chain *c)
{
    if (c->answering) c->provider->resume(c->provider, c->answering);
}

void ash_chain_close(ash_chain *c)
{
    if (!c) return;
    end_current(c);
    ash_arena_release(&c->arena);
    free(c);
}
