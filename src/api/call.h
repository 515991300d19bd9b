/* What the server's files share: the server, and what it knows of one exchange. */
#ifndef ASHLEY_API_CALL_H
#define ASHLEY_API_CALL_H

#include "api/auth.h"
#include "api/metrics.h"
#include "api/route.h"
#include "api/sse.h"

typedef struct ash_feed ash_feed;       /* models.c: changes of models for /models/sse */
typedef struct ash_reply ash_reply;     /* openai.c: an answer being made */
typedef struct ash_pull ash_pull;       /* pull.c: an Ollama client that waits for a download */
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
    atomic_int told_live, told_ready; /* status of /livez and /readyz that the log has last; 0: none */
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
    ash_pull *pull;               /* or NULL; from serve to done */
    _Atomic uint64_t watched;     /* /models/sse: changes sent so far + 1; 0: no watcher */
    _Atomic int64_t written_ms;   /* when the stream last got anything */
    _Atomic int64_t load_ends_ms; /* ollama.c waits for a load until then; 0: it does not */
    char load_model[ASH_MAX_MODEL_ID + 1], load_name[ASH_MAX_MODEL_ID + 1]; /* its id; as it was named */
    bool load_chat;               /* answered as a chat */
};

/* Answers with JSON; `body` is emptied. A failed buffer answers 503. */
void ash_call_json(ash_call *c, int status, ash_buf *body);
/* The same from a value, which is taken (NULL: no memory). */
void ash_call_value(ash_call *c, int status, json_t *value);
void ash_call_error(ash_call *c, const ash_api_error *e);

/* How an answer is written. */
typedef enum ash_form { ASH_FORM_OPENAI, ASH_FORM_OLLAMA_CHAT, ASH_FORM_OLLAMA_GENERATE } ash_form;

/* openai.c */
/* Answers the call from its body; `kind` counts for ASH_FORM_OPENAI only. */
void ash_reply_answer(ash_call *c, ash_request_kind kind, ash_form form);
void ash_openai_chat(ash_call *c);
void ash_openai_completion(ash_call *c);
void ash_reply_wake(ash_reply *r);                  /* connection's thread */
void ash_reply_drain(ash_reply *r);                 /* connection's thread */
void ash_reply_tick(ash_reply *r, int64_t now_ms);  /* watcher's thread */
void ash_reply_close(ash_reply *r);                 /* connection's thread */

/* models.c */
/* The entries of /models, or the one of an id (new reference, NULL without memory). */
json_t *ash_models_entries(const ash_server *s, const char *only);
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
/* Has the manager download what `model` names, a known id or one of the hub; *id lives in the arena or the
 * server's options. 0, or the status of *e. */
int ash_downloads_begin(ash_call *c, const char *model, bool confirm, ash_arena *a, const char **id,
                        ash_api_error *e) ASH_MUST_CHECK;
void ash_models_download(ash_call *c);
void ash_models_remove(ash_call *c); /* blocks its connection's thread while files are unlinked */

/* ollama.c */
void ash_ollama_version(ash_call *c);
void ash_ollama_tags(ash_call *c);
void ash_ollama_ps(ash_call *c);
void ash_ollama_show(ash_call *c);
void ash_ollama_chat(ash_call *c);
void ash_ollama_generate(ash_call *c);
void ash_ollama_tick(ash_call *c, int64_t now_ms); /* watcher's thread */
/* Ollama's body in *body becomes OpenAI's of *kind; names in *e live in the arena. 0, or the status of *e:
 * what is not built is 501, a wrong type 400. */
int ash_ollama_request(json_t **body, bool chat, ash_request_kind *kind, ash_arena *a,
                       ash_api_error *e) ASH_MUST_CHECK;

/* pull.c */
void ash_pull_serve(ash_call *c);
void ash_pull_tick(ash_call *c, ash_pull *p); /* watcher's thread, after serve and before close */
void ash_pull_close(ash_pull *p);             /* connection's thread; NULL is fine */

/* health.c */
void ash_health_live(ash_call *c);
void ash_health_ready(ash_call *c);
void ash_health_metrics(ash_call *c);

/* page.c */
void ash_page_root(ash_call *c);
void ash_page_asset(ash_call *c);

#endif
