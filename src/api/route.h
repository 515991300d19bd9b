/* Who answers a request: persona, model, provider, and where it may go when that fails. Pure over the
 * server's options and the manager's states; any thread. */
#ifndef ASHLEY_API_ROUTE_H
#define ASHLEY_API_ROUTE_H

#include "api/errors.h"
#include "api/server.h"

#define ASH_ROUTE_UPSTREAM "openai" /* the model id that means the upstream */

typedef struct ash_route {
    const ash_api_persona *persona; /* or NULL */
    const char *model;              /* the catalogue id, or the upstream's model name; lives in the
                                       options or the arena */
    bool upstream;                  /* the upstream answers, by request */
} ash_route;

/* One who may answer. */
typedef struct ash_route_step {
    ash_provider *provider;
    const char *model;
    const char *reason; /* X-Ashley-Reason if this one answers, or NULL */
} ash_route_step;

enum { ASH_ROUTE_MAX_STEPS = 2 };

typedef struct ash_route_plan {
    ash_route_step steps[ASH_ROUTE_MAX_STEPS]; /* in order; a later one is tried on failure only */
    size_t n;
    const char *passed_over; /* the model that an upstream answers for at once, or NULL; as ash_route's */
} ash_route_plan;

const ash_api_persona *ash_route_persona(const ash_server_opts *o, const char *id);

/* Resolves the name of a model or persona ("id:latest" too); NULL or "" is the default model's.
 * 0, or the status of *e: 404 model_not_found with the nearest known id. */
int ash_route_name(const ash_server_opts *o, const char *name, ash_arena *a, ash_route *out,
                   ash_api_error *e) ASH_MUST_CHECK;
/* The same from a body's `model` and `persona` (a persona with the request's own model). */
int ash_route_body(const ash_server_opts *o, const json_t *body, ash_arena *a, ash_route *out,
                   ash_api_error *e) ASH_MUST_CHECK;

/* Puts the persona into a chat's body: its system prompt before the request's own, its sampling where
 * the request says nothing. *body (an object of the caller's) is replaced by a copy. persona NULL is
 * fine. ASH_ENOMEM. */
int ash_route_apply(const ash_api_persona *persona, ash_request_kind kind, json_t **body) ASH_MUST_CHECK;

/* By policy, state and estimate: who answers, in order. A load that is needed is started here when the
 * request itself goes upstream. 0, or the status of *e: 503 upstream_not_configured. */
int ash_route_plan_make(const ash_server_opts *o, const ash_route *r, const ash_budgets *budgets,
                        ash_route_plan *out, ash_api_error *e) ASH_MUST_CHECK;

/* The server's budgets, changed by the model's own, then by X-Ashley-*-Timeout headers up to the caps. 0 or
 * the 400 of *e. */
int ash_route_budgets(const ash_server_opts *o, const ash_route *r, const ash_exchange *x, ash_budgets *out,
                      ash_api_error *e) ASH_MUST_CHECK;

#endif
