/* Owns the thread that serves requests with large bodies, one at a time: reading a tree of megabytes,
 * rendering and tokenising it takes seconds, which an I/O thread would keep from all its other
 * connections; and no two such trees are made at once. The smallest goes first, so that a long chat
 * does not wait for floods.
 *
 * The allocator keeps what such a tree took, in pieces all over its arenas; here it gives them back to
 * the machine once the request is over. Refuses nothing. */
#include <malloc.h>
#include <string.h>
#include <time.h>

#include "api/http_private.h"
#include "base/clock.h"

enum { TRIM_AFTER_MS = 200 }; /* a request's last memory is freed a moment after its answer */

/* Its connection goes on, on its own thread. */
static void give_back(ash_exchange *x)
{
    atomic_store(&x->ticking, true);
    pthread_mutex_lock(&x->mutex);
    x->busy = false;
    http_resume_locked(x);
    pthread_mutex_unlock(&x->mutex);
}

bool http_large_is(const ash_exchange *x)
{
    return x->body.len > HTTP_LARGE_BODY;
}

void http_large_push(ash_exchange *x)
{
    http_large *q = &x->http->large;
    pthread_mutex_lock(&x->mutex);
    x->busy = x->suspended = true; /* nobody resumes it before give_back() */
    MHD_suspend_connection(x->conn);
    pthread_mutex_unlock(&x->mutex);
    pthread_mutex_lock(&q->mutex);
    bool late = q->stop; /* the server closes: the exchange ends unserved */
    if (!late) {
        x->large_next = q->first;
        q->first = x;
        pthread_cond_signal(&q->changed);
    }
    pthread_mutex_unlock(&q->mutex);
    if (late) give_back(x);
}

void http_large_done(ash_http *h)
{
    http_large *q = &h->large;
    pthread_mutex_lock(&q->mutex);
    q->trim_ms = ash_clock_ms() + TRIM_AFTER_MS;
    pthread_cond_signal(&q->changed);
    pthread_mutex_unlock(&q->mutex);
}

static bool is_over(ash_exchange *x)
{
    pthread_mutex_lock(&x->mutex);
    bool over = http_must_end_locked(x);
    pthread_mutex_unlock(&x->mutex);
    return over;
}

/* The next one: of a client that left, else the smallest. The lock is held; an exchange's mutex is never held
 * where it is taken. */
static ash_exchange *take_locked(http_large *q)
{
    ash_exchange **best = &q->first;
    for (ash_exchange **at = &q->first; *at; at = &(*at)->large_next) {
        if (is_over(*at)) {
            best = at;
            break;
        }
        if ((*at)->body.len < (*best)->body.len) best = at;
    }
    ash_exchange *x = *best;
    if (x) *best = x->large_next;
    return x;
}

static void run_one(ash_http *h, ash_exchange *x)
{
    if (!is_over(x)) h->opts.on_request(h->opts.user, x);
    give_back(x);
}

/* Waits for something to do, or until it is time to trim; the lock is held. */
static void wait_locked(http_large *q)
{
    if (!q->trim_ms) {
        pthread_cond_wait(&q->changed, &q->mutex);
        return;
    }
    struct timespec t = {.tv_sec = q->trim_ms / 1000, .tv_nsec = q->trim_ms % 1000 * 1000000};
    pthread_cond_timedwait(&q->changed, &q->mutex, &t);
}

static void *serve(void *arg)
{
    ash_http *h = arg;
    http_large *q = &h->large;
    pthread_mutex_lock(&q->mutex);
    for (;;) {
        ash_exchange *x = take_locked(q);
        bool trim = !x && q->trim_ms && ash_clock_ms() >= q->trim_ms;
        if (!x && q->stop) break;
        if (!x && !trim) {
            wait_locked(q);
            continue;
        }
        if (trim) q->trim_ms = 0;
        pthread_mutex_unlock(&q->mutex);
        if (x) run_one(h, x);
#ifdef __GLIBC__
        if (trim) malloc_trim(0);
#endif
        pthread_mutex_lock(&q->mutex);
    }
    pthread_mutex_unlock(&q->mutex);
    return NULL;
}

int http_large_open(ash_http *h, ash_err *err)
{
    http_large *q = &h->large;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->mutex, NULL);
    pthread_cond_init(&q->changed, &attr);
    pthread_condattr_destroy(&attr);
    int rc = pthread_create(&q->thread, NULL, serve, h);
    q->running = !rc;
    return rc ? ash_err_set(err, ASH_EIO, "cannot start a thread: %s", strerror(rc)) : 0;
}

void http_large_close(ash_http *h)
{
    http_large *q = &h->large;
    pthread_mutex_lock(&q->mutex);
    q->stop = true;
    pthread_cond_signal(&q->changed);
    pthread_mutex_unlock(&q->mutex);
    if (q->running) pthread_join(q->thread, NULL);
    q->running = false;
}

void http_large_release(ash_http *h)
{
    pthread_mutex_destroy(&h->large.mutex);
    pthread_cond_destroy(&h->large.changed);
}
