/* Owns sockets, I/O threads and the watcher thread. Refuses bodies over max_body, connections that
 * dawdle and clients that do not read. With exchange.c the only file that knows libmicrohttpd.
 *
 * Threads: I/O threads run the callbacks, but on_request for a large body (http_large.c); the
 * watcher cuts off and ticks; any thread writes answers (exchange.c). Callbacks on I/O threads run
 * with no lock held, on_tick with ash_http.mutex. */
#include "api/http.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/http_private.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    CONNECTION_MEMORY = 32 << 10, /* headers and write buffer of a connection */
    STREAM_BLOCK = 16 << 10,
    TICK_MS = 250,
    MIN_BYTES_PER_MS = 16,  /* slower uploads and downloads of whole bodies are cut off */
    MAX_DROPPED_FACTOR = 4, /* a refused body is read up to so many max_body, then cut off */
    MAX_ANSWER_HEADERS = 16 << 10,
};

#if MHD_VERSION >= 0x00097601
#define STRICT_OPTION MHD_OPTION_CLIENT_DISCIPLINE_LVL
#else
#define STRICT_OPTION MHD_OPTION_STRICT_FOR_CLIENT /* the older name, deprecated since */
#endif

/* ---- reading requests ---- */

static void free_exchange(ash_exchange *x)
{
    ash_http *h = x->http;
    bool large = atomic_load(&x->got) > HTTP_LARGE_BODY;
    http_release_body(x);
    http_release_account(x);
    ash_buf_release(&x->headers);
    ash_buf_release(&x->whole);
    ash_buf_release(&x->queue);
    pthread_mutex_destroy(&x->mutex);
    free(x->method);
    free(x->path);
    free(x);
    if (large) http_large_done(h);
}

static http_client *client_of(struct MHD_Connection *conn)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

static ash_exchange *new_exchange(ash_http *h, struct MHD_Connection *conn, const char *method,
                                  const char *path)
{
    http_client *c = client_of(conn);
    ash_exchange *x = c ? calloc(1, sizeof *x) : NULL;
    if (!x) return NULL;
    x->http = h;
    x->conn = conn;
    x->client = c;
    x->since_ms = ash_clock_ms();
    x->method = strdup(method);
    x->path = strdup(path);
    ash_buf_init(&x->body, h->opts.max_body);
    ash_buf_init(&x->headers, MAX_ANSWER_HEADERS);
    ash_buf_init(&x->queue, SIZE_MAX / 2);
    pthread_mutex_init(&x->mutex, NULL);
    if (!x->method || !x->path) {
        free_exchange(x);
        return NULL;
    }
    pthread_mutex_lock(&h->mutex);
    c->x = x;
    x->left = c->left;
    pthread_mutex_unlock(&h->mutex);
    return x;
}

/* Whether the body is not worth reading: the client waits for a go-ahead, or announced a flood. */
static bool refuse_unread(const ash_exchange *x)
{
    const char *length = ash_exchange_header(x, "Content-Length");
    unsigned long long n = length ? strtoull(length, NULL, 10) : 0;
    if (n > (unsigned long long)x->http->opts.max_body * MAX_DROPPED_FACTOR) return true;
    return ash_exchange_header(x, "Expect") && (x->drop || n > x->http->opts.max_body);
}

typedef struct framing {
    int lengths, encodings, hosts;
} framing;

static enum MHD_Result count_framing(void *cls, enum MHD_ValueKind kind, const char *key,
                                     const char *value)
{
    framing *f = cls;
    f->lengths += !strcasecmp(key, MHD_HTTP_HEADER_CONTENT_LENGTH);
    f->encodings += !strcasecmp(key, MHD_HTTP_HEADER_TRANSFER_ENCODING);
    f->hosts += !strcasecmp(key, MHD_HTTP_HEADER_HOST);
    return MHD_YES;
}

/* Headers that two readers may understand differently, so that a request hides behind a proxy (RFC
 * 9112, 11.2): libmicrohttpd takes them until 1.0.5. */
static bool is_ambiguous(const ash_exchange *x)
{
    framing f = {0};
    MHD_get_connection_values(x->conn, MHD_HEADER_KIND, count_framing, &f);
    return f.lengths + f.encodings > 1 || f.hosts > 1;
}

static enum MHD_Result queue_answer(ash_exchange *x);

static enum MHD_Result on_headers(ash_exchange *x)
{
    ash_http *h = x->http;
    if (is_ambiguous(x)) return MHD_NO; /* nobody knows where it ends: close */
    h->opts.on_head(h->opts.user, x);
    x->drop = x->form != HTTP_OPEN;
    if (!refuse_unread(x)) return MHD_YES;
    if (x->form == HTTP_OPEN) {
        x->refused = ASH_ELIMIT;
        x->dispatched = true;
        h->opts.on_request(h->opts.user, x);
    }
    return x->form == HTTP_WHOLE ? queue_answer(x) : MHD_NO;
}

static enum MHD_Result on_upload(ash_exchange *x, const char *p, size_t n)
{
    ash_http *h = x->http;
    atomic_fetch_add(&x->got, n);
    if (!x->drop) {
        x->held += n;
        size_t all = atomic_fetch_add(&h->held, n) + n;
        x->refused = ash_buf_add(&x->body, p, n);
        if (!x->refused && all > h->opts.max_bodies) x->refused = ASH_ENOMEM;
        x->drop = x->refused != 0;
        if (x->drop) http_release_body(x);
    }
    if (x->drop) x->dropped += n;
    return x->dropped > (uint64_t)h->opts.max_body * MAX_DROPPED_FACTOR ? MHD_NO : MHD_YES;
}

static bool take_wake_locked(ash_exchange *x)
{
    bool wake = x->wake;
    x->wake = false;
    return wake;
}

/* The request is complete: lets the caller answer, and suspends until there is an answer. */
static enum MHD_Result on_complete(ash_exchange *x)
{
    const ash_http_opts *o = &x->http->opts;
    if (!x->dispatched) {
        x->dispatched = true;
        if (x->form == HTTP_OPEN && http_large_is(x)) {
            http_large_push(x);
            return MHD_YES;
        }
        if (x->form == HTTP_OPEN) o->on_request(o->user, x);
        atomic_store(&x->ticking, true);
    }
    for (;;) {
        pthread_mutex_lock(&x->mutex);
        bool wake = take_wake_locked(x), answered = x->form != HTTP_OPEN,
             end = http_must_end_locked(x);
        if (!wake && !answered && !end) {
            x->suspended = true;
            MHD_suspend_connection(x->conn);
        }
        pthread_mutex_unlock(&x->mutex);
        if (wake && !end)
            o->on_wake(o->user, x);
        else if (answered)
            return queue_answer(x);
        else
            return end ? MHD_NO : MHD_YES;
    }
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *conn, const char *url,
                                 const char *method, const char *version, const char *upload,
                                 size_t *upload_size, void **con_cls)
{
    ash_exchange *x = *con_cls;
    if (!x) {
        x = new_exchange(cls, conn, method, url);
        *con_cls = x;
        return x ? on_headers(x) : MHD_NO;
    }
    if (*upload_size) {
        enum MHD_Result rc = on_upload(x, upload, *upload_size);
        *upload_size = 0;
        return rc;
    }
    return on_complete(x);
}

static void on_completed(void *cls, struct MHD_Connection *conn, void **con_cls,
                         enum MHD_RequestTerminationCode how)
{
    ash_exchange *x = *con_cls;
    if (!x) return;
    ash_http *h = x->http;
    *con_cls = NULL;
    pthread_mutex_lock(&h->mutex);
    x->client->x = NULL;
    x->client->since_ms = ash_clock_ms();
    pthread_mutex_unlock(&h->mutex);
    pthread_mutex_lock(&x->mutex);
    x->gone |= how != MHD_REQUEST_TERMINATED_COMPLETED_OK && !http_whole_locked(x); /* writers stop now */
    x->completed = true;
    pthread_mutex_unlock(&x->mutex);
    h->opts.on_done(h->opts.user, x);
    free_exchange(x);
}

/* ---- sending answers ---- */

/* Bytes already taken are moved out only when they are the larger part: linear in all. */
static void compact_locked(ash_exchange *x)
{
    if (x->taken == x->queue.len) {
        ash_buf_clear(&x->queue);
        x->taken = 0;
    } else if (x->taken > x->queue.len / 2) {
        ash_buf_consume(&x->queue, x->taken);
        x->taken = 0;
    }
}

static ssize_t take_locked(ash_exchange *x, char *to, size_t max)
{
    size_t n = http_waiting_locked(x);
    n = n < max ? n : max;
    memcpy(to, x->queue.data + x->taken, n);
    x->taken += n;
    x->sent += n;
    x->moved_ms = ash_clock_ms();
    compact_locked(x);
    return (ssize_t)n;
}

/* libmicrohttpd asks for more of a stream. Returning 0 without being suspended would spin. */
static ssize_t read_stream(void *cls, uint64_t pos, char *to, size_t max)
{
    ash_exchange *x = cls;
    const ash_http_opts *o = &x->http->opts;
    for (;;) {
        ssize_t n = 0;
        bool drained = false;
        pthread_mutex_lock(&x->mutex);
        bool wake = take_wake_locked(x);
        if (http_must_end_locked(x)) {
            n = MHD_CONTENT_READER_END_WITH_ERROR;
            wake = false;
        } else if (wake) {
            n = 0;
        } else if (http_waiting_locked(x)) {
            n = take_locked(x, to, max);
            drained = x->paused && http_waiting_locked(x) < o->low;
            x->paused = x->paused && !drained;
        } else if (x->ended) {
            n = MHD_CONTENT_READER_END_OF_STREAM;
        } else {
            x->moved_ms = ash_clock_ms();
            x->suspended = true;
            MHD_suspend_connection(x->conn);
        }
        pthread_mutex_unlock(&x->mutex);
        if (drained) o->on_drain(o->user, x);
        if (!wake) return n;
        o->on_wake(o->user, x);
    }
}

static struct MHD_Response *make_response(ash_exchange *x)
{
    if (x->form == HTTP_STREAM)
        return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, x,
                                                 NULL);
    if (x->fixed) {
        x->sent = x->fixed_size;
        return MHD_create_response_from_buffer(x->fixed_size, (void *)(uintptr_t)x->fixed,
                                               MHD_RESPMEM_PERSISTENT);
    }
    size_t n = x->whole.len;
    char *p = ash_buf_take(&x->whole);
    struct MHD_Response *r = MHD_create_response_from_buffer(
        n, p ? p : (void *)(uintptr_t) "", p ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (!r) free(p);
    x->sent = n;
    return r;
}

static enum MHD_Result queue_answer(ash_exchange *x)
{
    pthread_mutex_lock(&x->mutex);
    struct MHD_Response *r = make_response(x);
    int status = x->status;
    const char *type = x->type;
    pthread_mutex_unlock(&x->mutex);
    if (!r || x->headers.failed) {
        if (r) MHD_destroy_response(r);
        return MHD_NO;
    }
    bool ok = !type || MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type) == MHD_YES;
    const char *p = x->headers.data, *end = p ? p + x->headers.len : NULL;
    while (ok && p < end) {
        const char *value = p + strlen(p) + 1;
        ok = MHD_add_response_header(r, p, value) == MHD_YES;
        p = value + strlen(value) + 1;
    }
    enum MHD_Result rc = ok ? MHD_queue_response(x->conn, (unsigned)status, r) : MHD_NO;
    MHD_destroy_response(r);
    return rc;
}

/* ---- connections and the watcher ---- */

static uint64_t client_key(const ash_http *h, const http_client *c)
{
    return (uint64_t)c->generation << 32 | (uint32_t)(c - h->clients);
}

static void on_connection(void *cls, struct MHD_Connection *conn, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    ash_http *h = cls;
    http_client *c = *context;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (!c) return;
        pthread_mutex_lock(&h->mutex);
        epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
        c->fd = -1;
        c->generation++;
        pthread_mutex_unlock(&h->mutex);
        return;
    }
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    pthread_mutex_lock(&h->mutex);
    for (int i = 0; info && i < h->n_clients && !c; i++)
        if (h->clients[i].fd < 0) c = &h->clients[i];
    if (c) {
        *c = (http_client){
            .fd = info->connect_fd, .generation = c->generation, .since_ms = ash_clock_ms()};
        struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLET, .data.u64 = client_key(h, c)};
        epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, c->fd, &ev);
    }
    pthread_mutex_unlock(&h->mutex);
    *context = c; /* NULL: its requests are refused by closing */
}

static void client_left(ash_http *h, uint64_t key)
{
    uint32_t slot = (uint32_t)key;
    pthread_mutex_lock(&h->mutex);
    http_client *c = slot < (uint32_t)h->n_clients ? &h->clients[slot] : NULL;
    if (c && c->fd >= 0 && c->generation == key >> 32) {
        c->left = true;
        if (c->x) {
            pthread_mutex_lock(&c->x->mutex);
            c->x->left = true;
            if (atomic_load(&c->x->ticking)) http_cut_locked(c->x);
            pthread_mutex_unlock(&c->x->mutex);
        }
    }
    pthread_mutex_unlock(&h->mutex);
}

/* Whether the client took too long over what it has to do now. */
static bool too_slow(const ash_http *h, http_client *c, int64_t now)
{
    int64_t idle = h->opts.idle_ms;
    ash_exchange *x = c->x;
    if (!x) return now - c->since_ms > idle;
    bool slow = false;
    pthread_mutex_lock(&x->mutex);
    if (x->busy) /* it is our turn */
        slow = false;
    else if (!atomic_load(&x->ticking)) /* still uploading */
        slow = now - x->since_ms > idle + (int64_t)(atomic_load(&x->got) / MIN_BYTES_PER_MS);

    else if (x->form == HTTP_WHOLE)
        slow = now - x->moved_ms > idle + (int64_t)(x->sent / MIN_BYTES_PER_MS);
    else if (x->form == HTTP_STREAM && http_waiting_locked(x))
        slow = now - x->moved_ms > idle;
    if (slow) http_cut_locked(x);
    pthread_mutex_unlock(&x->mutex);
    return slow;
}

static void tick(ash_http *h)
{
    int64_t now = ash_clock_ms();
    pthread_mutex_lock(&h->mutex);
    for (int i = 0; i < h->n_clients; i++) {
        http_client *c = &h->clients[i];
        if (c->fd < 0) continue;
        if (too_slow(h, c, now))
            shutdown(c->fd, SHUT_RDWR); /* libmicrohttpd sees it and closes */
        else if (c->x && atomic_load(&c->x->ticking))
            h->opts.on_tick(h->opts.user, c->x, now);
    }
    pthread_mutex_unlock(&h->mutex);
}

static void *watch(void *arg)
{
    ash_http *h = arg;
    struct epoll_event events[64];
    int64_t next = ash_clock_ms() + TICK_MS;
    while (!atomic_load(&h->closing)) {
        int64_t wait = next - ash_clock_ms();
        int n = epoll_wait(h->epoll_fd, events, 64, wait > 0 ? (int)wait : 0);
        for (int i = 0; i < n; i++)
            if (events[i].data.u64 != UINT64_MAX) client_left(h, events[i].data.u64);
        if (ash_clock_ms() >= next) {
            tick(h);
            next = ash_clock_ms() + TICK_MS;
        }
    }
    return NULL;
}

void ash_http_each(ash_http *h, void (*fn)(void *user, ash_exchange *x), void *user)
{
    pthread_mutex_lock(&h->mutex);
    for (int i = 0; i < h->n_clients; i++) {
        http_client *c = &h->clients[i];
        if (c->fd >= 0 && c->x && atomic_load(&c->x->ticking)) fn(user, c->x);
    }
    pthread_mutex_unlock(&h->mutex);
}

/* ---- open and close ---- */

/* A listening socket of our own, for exact errors. */
static int listen_on(const char *host, uint16_t port, uint16_t *bound, ash_err *err)
{
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *list;
    int rc = getaddrinfo(host, service, &hints, &list);
    if (rc)
        return ash_err_set(err, ASH_EINVAL, "cannot listen on '%s': %s", host, gai_strerror(rc));
    int fd = -1, why = 0, one = 1;
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) ||
                        bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, 1024))) {
            why = errno;
            close(fd);
            fd = -1;
        } else if (fd < 0) {
            why = errno;
        }
    }
    freeaddrinfo(list);
    if (fd < 0)
        return ash_err_set(err, ASH_EIO, "cannot listen on %s port %u: %s", host, port,
                           strerror(why));
    struct sockaddr_storage at;
    socklen_t len = sizeof at;
    getsockname(fd, (struct sockaddr *)&at, &len);
    *bound = ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port
                                            : ((struct sockaddr_in *)&at)->sin_port);
    return fd;
}

__attribute__((format(printf, 2, 0))) static void log_mhd(void *cls, const char *fmt, va_list ap)
{
    char line[512];
    vsnprintf(line, sizeof line, fmt, ap);
    ash_debug("http", "%s", line);
}

/* As libmicrohttpd decodes paths and queries, but %00 stays as it is: a name does not end before its end. */
static size_t unescape(void *cls, struct MHD_Connection *conn, char *s)
{
    char *to = s;
    for (const char *p = s; *p;) {
        char code[3] = {0};
        if (p[0] == '%' && isxdigit((unsigned char)p[1]) && isxdigit((unsigned char)p[2]))
            memcpy(code, p + 1, 2);
        long c = strtol(code, NULL, 16);
        *to++ = c ? (char)c : *p;
        p += c ? 3 : 1;
    }
    *to = 0;
    return (size_t)(to - s);
}

static int start_daemon(ash_http *h, int fd, ash_err *err)
{
    const ash_http_opts *o = &h->opts;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    struct MHD_OptionItem more[] = {
        {MHD_OPTION_THREAD_POOL_SIZE, o->threads, NULL},
        {MHD_OPTION_END, 0, NULL},
    };
    if (o->threads < 2) more[0].option = MHD_OPTION_END;
    h->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_access, h, MHD_OPTION_EXTERNAL_LOGGER, log_mhd, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
        MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
        h, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)o->max_connections, STRICT_OPTION, 1,
        MHD_OPTION_ARRAY, more, MHD_OPTION_END);
    if (h->daemon) return 0;
    return ash_err_set(err, ASH_EIO, "cannot start the HTTP server on port %u: %s", h->port,
                       strerror(errno));
}

static int start_watcher(ash_http *h, ash_err *err)
{
    h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    h->stop_fd = eventfd(0, EFD_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = UINT64_MAX};
    if (h->epoll_fd < 0 || h->stop_fd < 0 || epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, h->stop_fd, &ev))
        return ash_err_set(err, ASH_EIO, "cannot watch connections: %s", strerror(errno));
    int rc = pthread_create(&h->watcher, NULL, watch, h);
    if (rc) return ash_err_set(err, ASH_EIO, "cannot start a thread: %s", strerror(rc));
    h->watching = true;
    return 0;
}

int ash_http_open(const ash_http_opts *opts, ash_http **out, ash_err *err)
{
    *out = NULL;
    ash_http *h = calloc(1, sizeof *h);
    http_client *clients = calloc((size_t)opts->max_connections, sizeof *clients);
    if (!h || !clients) {
        free(h);
        free(clients);
        return ash_err_nomem(err, "HTTP server");
    }
    h->opts = *opts;
    h->opts.host = NULL;
    h->clients = clients;
    h->n_clients = opts->max_connections;
    for (int i = 0; i < h->n_clients; i++) clients[i].fd = -1;
    h->epoll_fd = h->stop_fd = -1;
    pthread_mutex_init(&h->mutex, NULL);
    int fd = -1, rc = http_large_open(h, err);
    if (!rc) rc = start_watcher(h, err);
    if (!rc) {
        fd = listen_on(opts->host, opts->port, &h->port, err);
        rc = fd < 0 ? fd : start_daemon(h, fd, err);
    }
    if (rc) {
        if (fd >= 0) close(fd);
        ash_http_close(h);
        return rc;
    }
    *out = h;
    return 0;
}

uint16_t ash_http_port(const ash_http *h)
{
    return h->port;
}

/* libmicrohttpd must not stop while a connection is suspended: `closing` keeps new ones from it,
 * and all that are get resumed here. */
void ash_http_close(ash_http *h)
{
    if (!h) return;
    atomic_store(&h->closing, true);
    if (h->watching) {
        uint64_t one = 1;
        ssize_t ignored = write(h->stop_fd, &one, sizeof one);
        (void)ignored;
        pthread_join(h->watcher, NULL);
    }
    http_large_close(h);
    pthread_mutex_lock(&h->mutex);
    for (int i = 0; i < h->n_clients; i++) {
        ash_exchange *x = h->clients[i].fd >= 0 ? h->clients[i].x : NULL;
        if (!x) continue;
        pthread_mutex_lock(&x->mutex);
        http_resume_locked(x);
        pthread_mutex_unlock(&x->mutex);
    }
    pthread_mutex_unlock(&h->mutex);
    if (h->daemon) MHD_stop_daemon(h->daemon);
    if (h->epoll_fd >= 0) close(h->epoll_fd);
    if (h->stop_fd >= 0) close(h->stop_fd);
    http_large_release(h);
    pthread_mutex_destroy(&h->mutex);
    free(h->clients);
    free(h);
}
