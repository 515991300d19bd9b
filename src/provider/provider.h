/* Who answers a request: the local engine, or an upstream OpenAI-compatible server. Both take the
 * same request and report the same events, so that routes do not care.
 *
 * start() never blocks. Events come on the provider's own threads, in order per choice, and end with
 * exactly one ASH_ANSWER_END (all choices done) or ASH_ANSWER_ERROR. */
#ifndef ASHLEY_PROVIDER_PROVIDER_H
#define ASHLEY_PROVIDER_PROVIDER_H

#include "base/json.h"
#include "text/sampler.h"

typedef enum ash_request_kind { ASH_REQUEST_CHAT, ASH_REQUEST_COMPLETION } ash_request_kind;

/* The four time budgets, in milliseconds; 0 = none. first_token_renewed: nobody set first_token_ms, so
 * that every advance of a prompt that is computed here starts it anew: a long one is no failure. */
typedef struct ash_budgets {
    int64_t queue_ms, load_ms, first_token_ms, idle_ms;
    bool first_token_renewed;
} ash_budgets;

/* A request as the route made it. Everything is borrowed until start() returns. */
typedef struct ash_request {
    ash_request_kind kind;
    const char *id;         /* X-Request-Id, for logs and the upstream */
    const char *model;      /* what should answer: a catalogue id, or the upstream's model name */
    const json_t *body;     /* the client's object, checked by the route, persona applied: `messages`
                               or `prompt`; unknown fields are kept and go upstream unchanged */
    ash_sampler_params sampling; /* read from body (local); the route fills defaults of the persona */
    int64_t max_tokens;     /* -1: to the end of the context */
    const char *const *stops;
    size_t n_stops;
    int n;                  /* choices, 1..ASH_MAX_CHOICES */
    bool stream, include_usage, return_progress;
    bool logprobs;
    bool continue_final_message, add_generation_prompt;
    bool ignore_eos;
    bool background;
    bool has_keep_alive;    /* how long the model stays after its last use, as the request says: */
    int64_t keep_alive_ms;  /* -1: for ever (residency/manager.h, ash_manager_keep) */
    ash_budgets budgets;
} ash_request;

typedef enum ash_answer_kind {
    ASH_ANSWER_HEAD,     /* first: served_by and model are known; status 200 may be sent */
    ASH_ANSWER_WAITING,  /* no data yet: loading or queued; `waiting` holds the progress object.
                            For pings and for a page that shows why; may repeat */
    ASH_ANSWER_PROGRESS, /* prompt progress (return_progress) */
    ASH_ANSWER_DELTA,    /* text of one choice */
    ASH_ANSWER_RAW,      /* upstream, streaming: one JSON payload of a `data:` line, passed through;
                            not streaming: the whole response body */
    ASH_ANSWER_FINISH,   /* one choice ended */
    ASH_ANSWER_END,      /* last: everything was said; usage */
    ASH_ANSWER_ERROR,    /* last: failed */
} ash_answer_kind;

/* An error as clients see it (interfaces: Errors). */
typedef struct ash_api_error {
    int status;           /* HTTP status */
    const char *type;     /* "invalid_request_error", "upstream_error", ... */
    const char *code;     /* "model_loading", "queue_timeout", ... or NULL */
    const char *param;    /* the field, or NULL */
    char message[512];
    int retry_after;      /* seconds, 0 = no header */
    json_t *loading;      /* progress object for model_loading, or NULL; borrowed during the event */
    json_t *extra;        /* more members of "error" (n_prompt, n_ctx), or NULL; borrowed */
} ash_api_error;

typedef struct ash_answer_usage {
    uint32_t prompt_tokens, cached_tokens, completion_tokens;
    double queue_ms, prefill_ms, decode_ms;
} ash_answer_usage;

typedef struct ash_answer {
    ash_answer_kind kind;
    int index;                    /* choice: DELTA, FINISH */
    const char *served_by;        /* HEAD: "local" or the provider's name */
    const char *model;            /* HEAD: what really answers */
    const char *reason;           /* HEAD by an upstream: "default", "loading", "failed", "busy"; else NULL */
    uint32_t truncated_messages, truncated_tokens; /* HEAD: dropped by truncate:"oldest"; 0: none */
    ash_str text, reasoning;      /* DELTA: content and reasoning_content, either may be empty */
    const json_t *logprobs;       /* DELTA: array of OpenAI token objects for this text, or NULL */
    ash_str raw;                  /* RAW */
    int raw_status;               /* RAW without streaming: the upstream's HTTP status (2xx) */
    const char *finish_reason;    /* FINISH: "stop", "length" */
    const json_t *waiting;        /* WAITING: progress object */
    uint32_t total, cached, processed; double time_ms; /* PROGRESS */
    const ash_answer_usage *usage; /* END, local only (an upstream's is in RAW) */
    const ash_api_error *error;   /* ERROR */
} ash_answer;

/* Returns 0, or ASH_EAGAIN: the event was taken, but the reader is behind; the provider pauses (an
 * upstream transfer stops reading) until resume(). Other negatives: the reader is gone; the provider
 * ends without further events. Must not block. */
typedef int (*ash_answer_fn)(void *user, const ash_answer *a);

/* Of prompts computed (prompt) and found in the cache, and of answers. */
typedef struct ash_token_counts {
    uint64_t prompt, cached, completion;
} ash_token_counts;

typedef struct ash_provider ash_provider;
typedef struct ash_answering ash_answering; /* one request being answered; opaque to callers */

struct ash_provider {
    const char *name; /* "local", "openai"; what X-Ashley-Served-By says */
    /* On success *out lives until the last event AND close_request were both seen. Events may come
     * before start returns. */
    int (*start)(ash_provider *p, const ash_request *req, ash_answer_fn fn, void *user,
                 ash_answering **out, ash_err *err);
    /* The reader caught up. Any thread. */
    void (*resume)(ash_provider *p, ash_answering *a);
    /* The caller is done with `a`, before (then it is cancelled: no event after this returns) or after
     * its last event. Exactly once per successful start; not inside the callback. */
    void (*close_request)(ash_provider *p, ash_answering *a);
    void (*close)(ash_provider *p); /* no request may be open */
    /* What all answers took so far, those that failed or were left too. NULL: they were not computed here.
     * Any thread. */
    void (*counts)(ash_provider *p, ash_token_counts *out);
};

#endif
