/* Private to src/api/http.c and exchange.c: the server's table of clients, an exchange, and what both
 * do to it. Names here begin with http_.
 *
 * Locks, in this order: ash_http.mutex (table of clients), ash_exchange.mutex, libmicrohttpd's own. A
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
    atomic_size_t held; /* bytes of all request bodies */
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
    size_t held;         /* its share of ash_http.held */
    bool dispatched;     /* on_request was called; connection's thread only */
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
};

/* ---- exchange.c; all but the last with the exchange's mutex held ---- */

void http_resume_locked(ash_exchange *x);
/* Ends an exchange that still waits or streams. A whole answer on its way is left to the socket. */
void http_cut_locked(ash_exchange *x);
/* Whether nothing more can reach the client. */
bool http_must_end_locked(const ash_exchange *x);
/* Bytes of a stream that the client has not taken yet. */
size_t http_waiting_locked(const ash_exchange *x);
/* Frees the request's body and its share of ash_http.held; on the connection's thread. */
void http_release_body(ash_exchange *x);

#endif
