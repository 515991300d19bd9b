/* Private to src/api/http.c, exchange.c and http_large.c: the server's table of clients, an exchange, and
 * what they do to it. Names here begin with http_.
 *
 * Locks, in this order: ash_http.mutex (table of clients), http_large.mutex, ash_exchange.mutex,
 * libmicrohttpd's own. A
 * connection is suspended and resumed only under its exchange's mutex, so that a resume always follows
 * its suspend. */
#ifndef ASHLEY_API_HTTP_PRIVATE_H
#define ASHLEY_API_HTTP_PRIVATE_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "api/http.h"

typedef enum http_form { HTTP_OPEN, HTTP_WHOLE, HTTP_STREAM } http_form;

/* A connection, from accept to close; guarded by ash_http.mutex. */
typedef struct http_client {
    int fd; /* -1: the slot is free */
    uint32_t generation;
    bool left;        /* its end of the connection is closed */
    int64_t since_ms; /* no request in progress since then */
    ash_exchange *x;
} http_client;

enum { HTTP_LARGE_BODY = 64 << 10 }; /* bytes; a larger body takes milliseconds to read, and up to seconds */

/* Requests with large bodies that wait for their thread. */
typedef struct http_large {
    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t changed;
    ash_exchange *first; /* by large_next; suspended and busy */
    int64_t trim_ms;     /* when memory is given back; 0: there is none */
    bool stop;
    bool running; /* open and close alone */
    pthread_t thread;
} http_large;

struct ash_http {
    ash_http_opts opts;
    struct MHD_Daemon *daemon;
    uint16_t port;
    pthread_mutex_t mutex;
    http_client *clients;
    int n_clients;
    int epoll_fd, stop_fd;
    pthread_t watcher;
    bool watching;
    atomic_bool closing;
    atomic_size_t held; /* bytes of all request bodies, and of what was made of them */
    http_large large;
};

struct ash_exchange {
    ash_http *http;
    struct MHD_Connection *conn;
    http_client *client;
    char *method, *path;
    int64_t since_ms;
    ash_buf body;
    uint64_t dropped;     /* bytes of a body not kept */
    _Atomic uint64_t got; /* bytes of body so far; the watcher reads it */
    bool drop;
    int refused;         /* why it is dropped: ASH_ELIMIT, ASH_ENOMEM, or 0 */
    size_t held, made;   /* its shares of ash_http.held: the body, and what was made of it */
    bool dispatched;     /* on_request was called, or will be soon; connection's thread only */
    atomic_bool ticking; /* on_request returned: on_tick may come */
    ash_buf headers;     /* of the answer: name NUL value NUL ... */
    void *data;

    pthread_mutex_t mutex; /* guards the rest */
    http_form form;
    int status;
    const char *type;
    ash_buf whole;
    const void *fixed;
    size_t fixed_size;
    ash_buf queue; /* stream: bytes [taken, queue.len) wait for the client */
    size_t taken;
    uint64_t sent;
    int64_t moved_ms; /* when the client last took something, or there was nothing to take */
    bool paused, ended, gone, left, suspended, wake, completed;
    bool busy; /* http_large.c has it: it stays suspended */
    ash_exchange *large_next; /* under http_large.mutex */
};

/* ---- exchange.c; all but the last two with the exchange's mutex held ---- */

void http_resume_locked(ash_exchange *x);
/* Ends an exchange that still waits or streams. A whole answer on its way is left to the socket. */
void http_cut_locked(ash_exchange *x);
/* Whether nothing more can reach the client. */
bool http_must_end_locked(const ash_exchange *x);
/* All of a stream was handed to the connection: a client that leaves now has its answer. */
bool http_whole_locked(const ash_exchange *x);
/* Bytes of a stream that the client has not taken yet. */
size_t http_waiting_locked(const ash_exchange *x);
/* Frees the request's body and its share of ash_http.held; on the connection's thread, or in on_request. */
void http_release_body(ash_exchange *x);
/* The end of what ash_exchange_account counted. */
void http_release_account(ash_exchange *x);

/* ---- http_large.c ---- */

int http_large_open(ash_http *h, ash_err *err) ASH_MUST_CHECK;
/* Ends the thread once the queue is empty, of exchanges that end: `closing` is set. */
void http_large_close(ash_http *h);
void http_large_release(ash_http *h);
/* Whether a complete request goes that way. */
bool http_large_is(const ash_exchange *x);
/* Suspends the connection and has on_request called on the thread of large bodies. */
void http_large_push(ash_exchange *x);
/* An exchange with a large body was freed: its memory goes back to the machine soon. */
void http_large_done(ash_http *h);

#endif
