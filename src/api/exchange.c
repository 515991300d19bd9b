/* Owns what any thread may do to an exchange: deciding its answer, writing a stream, ending it, and
 * looking at its request. Refuses a second answer, and cuts off a client that does not read its
 * stream. Who reads requests and sends what is decided here: http.c. */
#include <stdlib.h>
#include <string.h>

#include "api/http_private.h"
#include "base/clock.h"

/* ---- suspend, resume, cut ---- */

void http_resume_locked(ash_exchange *x)
{
    if (!x->suspended || x->busy) return;
    x->suspended = false;
    MHD_resume_connection(x->conn);
}

void http_cut_locked(ash_exchange *x)
{
    if (x->form == HTTP_WHOLE || http_whole_locked(x)) return;
    x->gone = true;
    http_resume_locked(x);
}

bool http_must_end_locked(const ash_exchange *x)
{
    return !http_whole_locked(x) && (x->gone || x->left || atomic_load(&x->http->closing));
}

bool http_whole_locked(const ash_exchange *x)
{
    return x->form == HTTP_STREAM && x->ended && !x->gone && !http_waiting_locked(x);
}

size_t http_waiting_locked(const ash_exchange *x)
{
    return x->queue.len - x->taken;
}

/* ---- answering ---- */

static bool decide(ash_exchange *x, http_form form, int status, const char *type)
{
    if (x->form != HTTP_OPEN) return false;
    x->form = form;
    x->status = status;
    x->type = type;
    x->moved_ms = ash_clock_ms();
    return true;
}

bool ash_exchange_respond(ash_exchange *x, int status, const char *type, ash_buf *body)
{
    pthread_mutex_lock(&x->mutex);
    bool first = decide(x, HTTP_WHOLE, status, type);
    if (first && body) {
        x->whole = *body;
        *body = (ash_buf){.max = body->max};
    }
    http_resume_locked(x);
    pthread_mutex_unlock(&x->mutex);
    return first;
}

bool ash_exchange_respond_static(ash_exchange *x, int status, const char *type, const void *p,
                                 size_t n)
{
    pthread_mutex_lock(&x->mutex);
    bool first = decide(x, HTTP_WHOLE, status, type);
    if (first) {
        x->fixed = p;
        x->fixed_size = n;
    }
    http_resume_locked(x);
    pthread_mutex_unlock(&x->mutex);
    return first;
}

bool ash_exchange_stream(ash_exchange *x, int status, const char *type)
{
    pthread_mutex_lock(&x->mutex);
    bool first = decide(x, HTTP_STREAM, status, type);
    http_resume_locked(x);
    pthread_mutex_unlock(&x->mutex);
    return first;
}

static int write_locked(ash_exchange *x, const void *p, size_t n)
{
    int rc = 0;
    if (http_must_end_locked(x) || x->ended || x->form == HTTP_WHOLE) {
        rc = ASH_ECANCELED;
    } else if (http_waiting_locked(x) + n > x->http->opts.max_queue ||
               ash_buf_add(&x->queue, p, n)) {
        http_cut_locked(x);
        rc = ASH_ECANCELED;
    } else {
        if (x->form == HTTP_STREAM) http_resume_locked(x);
        if (http_waiting_locked(x) >= x->http->opts.high) {
            x->paused = true;
            rc = ASH_EAGAIN;
        }
    }
    return rc;
}

int ash_exchange_write(ash_exchange *x, const void *p, size_t n)
{
    pthread_mutex_lock(&x->mutex);
    int rc = write_locked(x, p, n);
    pthread_mutex_unlock(&x->mutex);
    return rc;
}

int ash_exchange_end(ash_exchange *x, const void *p, size_t n)
{
    pthread_mutex_lock(&x->mutex);
    int rc = n ? write_locked(x, p, n) : 0;
    x->ended = true;
    http_resume_locked(x);
    pthread_mutex_unlock(&x->mutex);
    return rc;
}

void ash_exchange_wake(ash_exchange *x)
{
    pthread_mutex_lock(&x->mutex);
    x->wake = true;
    http_resume_locked(x);
    pthread_mutex_unlock(&x->mutex);
}

void ash_exchange_add_header(ash_exchange *x, const char *name, const char *value)
{
    if (strpbrk(value, "\r\n")) return;
    ash_buf_add(&x->headers, name, strlen(name) + 1);
    ash_buf_add(&x->headers, value, strlen(value) + 1);
}

/* ---- the request, and how it went ---- */

const char *ash_exchange_method(const ash_exchange *x)
{
    return x->method;
}

const char *ash_exchange_path(const ash_exchange *x)
{
    return x->path;
}

const char *ash_exchange_header(const ash_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->conn, MHD_HEADER_KIND, name);
}

const char *ash_exchange_query(const ash_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->conn, MHD_GET_ARGUMENT_KIND, name);
}

ash_str ash_exchange_body(const ash_exchange *x)
{
    return (ash_str){ash_buf_cstr(&x->body), x->body.len};
}

void http_release_body(ash_exchange *x)
{
    ash_buf_release(&x->body);
    atomic_fetch_sub(&x->http->held, x->held);
    x->held = 0;
}

bool ash_exchange_account(ash_exchange *x, size_t bytes)
{
    x->made += bytes;
    return atomic_fetch_add(&x->http->held, bytes) + bytes <= x->http->opts.max_bodies;
}

void http_release_account(ash_exchange *x)
{
    atomic_fetch_sub(&x->http->held, x->made);
    x->made = 0;
}

void ash_exchange_drop_body(ash_exchange *x)
{
    http_release_body(x);
}

int ash_exchange_refused(const ash_exchange *x)
{
    return x->refused;
}

int64_t ash_exchange_since(const ash_exchange *x)
{
    return x->since_ms;
}

void ash_exchange_set_data(ash_exchange *x, void *data)
{
    x->data = data;
}

void *ash_exchange_data(const ash_exchange *x)
{
    return x->data;
}

bool ash_exchange_gone(const ash_exchange *x)
{
    return x->gone;
}

int ash_exchange_status(const ash_exchange *x)
{
    return x->status;
}

uint64_t ash_exchange_sent(const ash_exchange *x)
{
    return x->sent;
}
