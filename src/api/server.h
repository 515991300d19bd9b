/* The HTTP server. Plain options in, a port out; owns its threads and connections. */
#ifndef ASHLEY_API_SERVER_H
#define ASHLEY_API_SERVER_H

#include "base/policy.h"
#include "provider/provider.h"
#include "residency/manager.h"

/* A persona as routes need it. */
typedef struct ash_api_persona {
    const char *id, *name, *description, *system_prompt, *model /* NULL = default */, *first_message;
    const json_t *sampling; /* object of sampling fields used where the request has none, or NULL */
    const json_t *extra;    /* the whole persona file (unknown fields kept) */
} ash_api_persona;

/* Everything is borrowed for the server's life. */
typedef struct ash_server_opts {
    const char *host;             /* "127.0.0.1" */
    uint16_t port;                /* 0 = any free one */
    const char *const *api_keys;  /* n_api_keys; none = open (loopback only; checked by the CLI) */
    size_t n_api_keys;
    const char *const *origins;   /* allowed web origins: see ash_auth_opts; none = its defaults */
    size_t n_origins;
    ash_manager *manager;
    ash_provider *local;
    ash_provider *upstream;       /* NULL: not configured; then upstream_missing says what to set */
    const char *upstream_missing; /* "set OPENAI_API_KEY ..." */
    const char *default_model;    /* a catalogue id, or "openai" = the upstream with fallback_model */
    const char *fallback_model;   /* upstream model name */
    ash_fallback fallback;        /* server-wide; UNSET = on-error when default_model is "openai" */
    ash_fallback (*model_fallback)(void *user, const char *id); /* per catalogue entry; may be NULL */
    /* Changes the budgets of a request to what its model's catalogue entry says; may be NULL. */
    void (*model_budgets)(void *user, const char *id, ash_budgets *budgets);
    /* Makes a model known to the manager that a client names for the first time (org/repo[:QUANT]); may be
     * NULL. ASH_ENOENT for what is no such name, ASH_EINVAL, ASH_ELIMIT. Any thread, also several. */
    int (*add_model)(void *user, const char *name, ash_err *err);
    void *user;
    const ash_api_persona *personas;
    size_t n_personas;
    ash_budgets budgets;          /* defaults */
    ash_budgets budget_caps;      /* most that a request header may ask for; 0 = no cap */
    int64_t drain_ms;
    int64_t idle_ms;              /* connections that dawdle end after it; 0 = a minute */
    bool allow_open;
} ash_server_opts;

typedef struct ash_server ash_server;

/* Listens and answers at once. */
int ash_server_open(const ash_server_opts *opts, ash_server **out, ash_err *err) ASH_MUST_CHECK;
uint16_t ash_server_port(const ash_server *s);
/* From now on new requests get 503 shutting_down; returns when running answers are done or
 * drain_ms passed (or *hurry became true). Watchers (/models/sse) are ended. */
void ash_server_drain(ash_server *s, const atomic_bool *hurry);
void ash_server_close(ash_server *s);

#endif
