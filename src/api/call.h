/* What the server's files share: the server, and what it knows of one exchange. */
#ifndef ASHLEY_API_CALL_H
#define ASHLEY_API_CALL_H

#include "api/auth.h"
#include "api/metrics.h"
#include "api/route.h"
#include "api/sse.h"

typedef struct ash_feed ash_feed;       /* models.c: changes of models for /models/sse */
typedef struct ash_reply ash_reply;     /* openai.c: an answer being made */
typedef struct ash_call ash_call;

struct ash_server {
    ash_server_opts opts;
    ash_auth_opts auth;
    ash_http *http;
    ash_metrics *metrics;
    ash_feed *feed;
    int64_t created;       /* Unix seconds, for model lists */
    atomic_bool draining;
    atomic_int answering;  /* replies alive */
};

typedef struct ash_endpoint {
    const char *method; /* "GET" also serves HEAD */
    const char *path;   /* without /v1 */
    bool is_public;     /* no key, also while draining */
    void (*serve)(ash_call *c);
    const char *not_built; /* serve NULL: 501 with this text */
} ash_endpoint;

/* One exchange. Made when the headers are in, freed when it is done. */
struct ash_call {
    ash_server *server;
    ash_exchange *x;
    const ash_endpoint *endpoint; /* NULL: none fits */
    char id[129];                 /* X-Request-Id */
    char model[ASH_MAX_MODEL_ID + 1]; /* who answered, for the log */
    const char *tail;             /* path after the endpoint's: the id of /models/{id} */
    ash_reply *reply;             /* or NULL; from serve to done */
    _Atomic uint64_t watched;     /* /models/sse: changes sent so far + 1; 0: no watcher */
    _Atomic int64_t written_ms;   /* when the stream last got anything */
};

/* Answers with JSON; `body` is emptied. A failed buffer answers 503. */
void ash_call_json(ash_call *c, int status, ash_buf *body);
/* The same from a value, which is taken (NULL: no memory). */
void ash_call_value(ash_call *c, int status, json_t *value);
void ash_call_error(ash_call *c, const ash_api_error *e);

/* openai.c */
void ash_openai_chat(ash_call *c);
void ash_openai_completion(ash_call *c);
void ash_reply_wake(ash_reply *r);                  /* connection's thread */
void ash_reply_drain(ash_reply *r);                 /* connection's thread */
void ash_reply_tick(ash_reply *r, int64_t now_ms);  /* watcher's thread */
void ash_reply_close(ash_reply *r);                 /* connection's thread */

/* models.c */
ash_feed *ash_feed_open(void);
void ash_feed_close(ash_feed *f);
void ash_models_list(ash_call *c);
void ash_models_one(ash_call *c);
void ash_models_watch(ash_call *c);
void ash_models_load(ash_call *c);
void ash_models_unload(ash_call *c);
void ash_models_cancel(ash_call *c);
void ash_models_pause(ash_call *c);
void ash_models_tick(ash_call *c, int64_t now_ms);

/* downloads.c */
void ash_models_download(ash_call *c);
void ash_models_remove(ash_call *c); /* blocks its connection's thread while files are unlinked */

/* health.c */
void ash_health_live(ash_call *c);
void ash_health_ready(ash_call *c);
void ash_health_metrics(ash_call *c);

/* page.c */
void ash_page_root(ash_call *c);
void ash_page_asset(ash_call *c);

#endif
