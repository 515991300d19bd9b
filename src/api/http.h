/* HTTP itself, on libmicrohttpd and nowhere else: listening, reading requests, whole answers, and
 * streams that wait without holding a thread.
 *
 * An exchange is one request with its answer. It is made when the headers are in and lives until
 * on_done. Callbacks named "connection's thread" run on one of a few I/O threads and must not block;
 * on_request for a body over 64 KiB runs on a thread for those, one after the other.
 * Answering functions may be called by any thread while the exchange lives.
 *
 * A client that leaves while its answer is still being made is noticed by a watcher thread
 * (EPOLLRDHUP) in the same millisecond; the exchange then ends and on_done says so. */
#ifndef ASHLEY_API_HTTP_H
#define ASHLEY_API_HTTP_H

#include "base/buf.h"

typedef struct ash_http ash_http;
typedef struct ash_exchange ash_exchange;

typedef struct ash_http_opts {
    const char *host; /* name or address; borrowed for open */
    uint16_t port;    /* 0 = any free one */
    int threads;      /* I/O threads, >= 1 */
    int max_connections;
    size_t max_body;    /* a larger request body is read and dropped; see ash_exchange_refused */
    size_t max_bodies;  /* of all connections together, with what ash_exchange_account counts */
    int64_t idle_ms;    /* connections without a complete request, or that take nothing, end after it */
    size_t high, low;   /* a stream's queue: ash_exchange_write says ASH_EAGAIN from `high` on;
                           on_drain comes below `low` */
    size_t max_queue;   /* a client that leaves more than this unread is cut off */
    void *user;
    /* All on the connection's thread but on_tick and, for a large body, on_request. on_head: headers
     * are in; may answer already, then the body is read and dropped. on_request: the body is in;
     * answers now or later. on_wake: after ash_exchange_wake. on_drain: a stream that was told
     * ASH_EAGAIN may go on. on_done: last; the exchange and what ash_exchange_set_data gave it end
     * now. */
    void (*on_head)(void *user, ash_exchange *x);
    void (*on_request)(void *user, ash_exchange *x);
    void (*on_wake)(void *user, ash_exchange *x);
    void (*on_drain)(void *user, ash_exchange *x);
    void (*on_done)(void *user, ash_exchange *x);
    /* Four times a second for every exchange after on_request, on the watcher's thread. */
    void (*on_tick)(void *user, ash_exchange *x, int64_t now_ms);
} ash_http_opts;

/* Binds, listens, starts the threads. ASH_EIO names host and port with the system's reason. */
int ash_http_open(const ash_http_opts *opts, ash_http **out, ash_err *err) ASH_MUST_CHECK;
uint16_t ash_http_port(const ash_http *h);
/* Ends every exchange (on_done comes for each), closes all sockets, joins the threads. NULL is fine. */
void ash_http_close(ash_http *h);
/* Calls fn for every exchange after its on_request, with the server's table locked: fn must be quick
 * and must not call back but into the functions below. Any thread. */
void ash_http_each(ash_http *h, void (*fn)(void *user, ash_exchange *x), void *user);

/* The request. All borrowed for the exchange's life. */
const char *ash_exchange_method(const ash_exchange *x);
const char *ash_exchange_path(const ash_exchange *x);                     /* decoded, no query */
const char *ash_exchange_header(const ash_exchange *x, const char *name); /* NULL if absent */
const char *ash_exchange_query(const ash_exchange *x, const char *name);  /* NULL if absent */
ash_str ash_exchange_body(const ash_exchange *x);
/* Frees the body early; in on_request. */
void ash_exchange_drop_body(ash_exchange *x);
/* Counts bytes that live as long as the exchange at most, of what is made of its body; in on_request. False:
 * with them all are over max_bodies, and the request must be refused. */
bool ash_exchange_account(ash_exchange *x, size_t bytes) ASH_MUST_CHECK;
/* Why the body was dropped and is empty: ASH_ELIMIT (over max_body), ASH_ENOMEM (all of them are over
 * max_bodies, or no memory); 0 if it was not. */
int ash_exchange_refused(const ash_exchange *x);
int64_t ash_exchange_since(const ash_exchange *x); /* ash_clock_ms() when the headers were in */
/* A slot for the caller's own data. */
void ash_exchange_set_data(ash_exchange *x, void *data);
void *ash_exchange_data(const ash_exchange *x);

/* A header of the answer, before respond or stream; copied; one thread at a time. A value with a line
 * break is dropped. */
void ash_exchange_add_header(ash_exchange *x, const char *name, const char *value);
/* The whole answer. `body` is emptied (its bytes are taken); NULL is an empty body. The first of
 * respond, respond_static and stream wins; later ones do nothing and return false. */
bool ash_exchange_respond(ash_exchange *x, int status, const char *type, ash_buf *body);
/* The same with bytes that outlive the server. */
bool ash_exchange_respond_static(ash_exchange *x, int status, const char *type, const void *p, size_t n);
/* Sends status and headers now; the body follows by write and end. */
bool ash_exchange_stream(ash_exchange *x, int status, const char *type);
/* Queues a copy of p[0..n). 0; ASH_EAGAIN: queued, but the reader is behind; ASH_ECANCELED: the client
 * is gone or was cut off, nothing was queued. */
int ash_exchange_write(ash_exchange *x, const void *p, size_t n);
/* The last write (n may be 0), as above; what is queued is still sent. */
int ash_exchange_end(ash_exchange *x, const void *p, size_t n);
/* Has on_wake called on the connection's thread, soon. */
void ash_exchange_wake(ash_exchange *x);

/* For on_done. */
bool ash_exchange_gone(const ash_exchange *x);      /* ended before its answer was out */
int ash_exchange_status(const ash_exchange *x);     /* 0: nothing was answered */
uint64_t ash_exchange_sent(const ash_exchange *x);  /* bytes of body handed to the connection */

#endif
