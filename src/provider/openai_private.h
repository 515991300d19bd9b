/* Private to the upstream provider: one request between the transfer thread (openai.c) and what is said
 * to its caller (openai_reply.c). */
#ifndef ASHLEY_PROVIDER_OPENAI_PRIVATE_H
#define ASHLEY_PROVIDER_OPENAI_PRIVATE_H

#include <pthread.h>

#include "base/curl.h"
#include "provider/openai.h"
#include "provider/sse.h"

typedef struct openai openai;

/* Fields without a lock belong to the transfer thread once start() has handed the request over. */
struct ash_answering {
    openai *owner;
    /* what was asked */
    char *body;        /* JSON, body_len bytes */
    size_t body_len;
    char *id, *model;  /* of the request */
    bool chat, stream;
    ash_budgets budgets;
    /* to whom; lock is held during fn, so that close_request can wait it out */
    ash_answer_fn fn;
    void *user;
    pthread_mutex_t lock;
    bool closed;       /* lock: no further event */
    /* the inbox of the transfer thread: under owner->lock */
    struct ash_answering *inbox_next;
    bool in_inbox, want_start, want_resume, want_close;
    /* the transfer */
    struct ash_answering *prev, *next; /* of all that the thread has */
    const ash_curl *curl; /* the owner's, once the request was begun */
    CURL *easy;
    struct curl_slist *headers;
    char curl_error[CURL_ERROR_SIZE];
    int64_t deadline;     /* monotonic ms of the next time-out, 0: none */
    const char *late;     /* the code of that time-out */
    bool close_seen;      /* the note of close_request was read: nobody else knows the request */
    bool transferred;     /* curl is done with it; result says how */
    CURLcode result;
    long status;          /* HTTP status, 0 before the headers */
    /* the reply */
    bool sse_checked, head_sent, paused;
    bool done;            /* a stream's [DONE] was seen */
    bool over;            /* the last event was given, or the reader is gone */
    int failure;          /* ASH_E* of our own that ended the transfer */
    ash_sse sse;
    ash_buf whole;        /* body of a reply that is not streamed, or of an error */
};

/* Bytes of the body. False ends the transfer (failure or over says why). */
bool openai_reply_bytes(ash_answering *a, const char *p, size_t n);
/* The reader caught up: gives what waits. */
void openai_reply_resume(ash_answering *a);
/* The transfer ended (a->result): gives the last event, unless the reader is behind. */
void openai_reply_finish(ash_answering *a);
/* A time budget is spent: gives the error. */
void openai_reply_late(ash_answering *a);
/* An error of ours: 502 upstream_error. */
void openai_reply_fail(ash_answering *a, const char *fmt, ...) ASH_PRINTF(2, 3);

const char *openai_name(const openai *p);
/* Sets the next time-out of a: `code` after ms from now; ms 0: none. */
void openai_deadline(ash_answering *a, int64_t ms, const char *code);

#endif
