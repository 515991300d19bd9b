/* The scripted upstream: a thread that accepts, and one a connection. */
#include "upstream.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct connection {
    upstream *u;
    int fd;
    char request[sizeof((upstream *)0)->request];
} connection;

/* Reads one request; 0 when the client closed. */
static size_t read_request(connection *c, char *buf, size_t max)
{
    size_t n = 0, want = 0;
    while (n < max - 1) {
        ssize_t r = recv(c->fd, buf + n, max - 1 - n, 0);
        if (r <= 0) return 0;
        n += (size_t)r;
        buf[n] = 0;
        char *end = strstr(buf, "\r\n\r\n");
        char *len = strcasestr(buf, "content-length:");
        if (end) want = (size_t)(end + 4 - buf) + (len ? (size_t)strtoul(len + 15, NULL, 10) : 0);
        if (end && n >= want) break;
    }
    return n;
}

static int send_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t w = send(fd, p, n, MSG_NOSIGNAL);
        if (w <= 0) return -1;
        p += w;
        n -= (size_t)w;
    }
    return 0;
}

/* Until the client closes or the server stops. */
static void hold(connection *c)
{
    char b;
    struct pollfd p = {.fd = c->fd, .events = POLLIN | POLLRDHUP};
    while (!atomic_load(&c->u->stop))
        if (poll(&p, 1, 20) == 1 && recv(c->fd, &b, 1, 0) <= 0) {
            atomic_fetch_add(&c->u->left, 1);
            return;
        }
}

/* One response; whether another request may follow. */
static int play(connection *c, const step *s)
{
    for (; s->kind != STEP_END; s++) {
        int rc = 0;
        if (s->kind == STEP_SEND) rc = send_all(c->fd, s->text, strlen(s->text));
        for (size_t i = 0; s->kind == STEP_BYTES && !rc && s->text[i]; i++)
            rc = send_all(c->fd, s->text + i, 1);
        for (size_t i = 0; s->kind == STEP_FLOOD && !rc && i < s->n; i++)
            rc = send_all(c->fd, s->text, strlen(s->text));
        if (s->kind == STEP_FLOOD && !rc) atomic_fetch_add(&c->u->floods, 1);
        if (s->kind == STEP_HOLD) hold(c);
        if (s->kind == STEP_SLEEP) usleep((unsigned)s->n * 1000);
        if (s->kind == STEP_RESET) {
            struct linger l = {1, 0};
            setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
            return 0;
        }
        if (s->kind == STEP_AGAIN) return 1;
        if (rc) {
            atomic_fetch_add(&c->u->left, 1);
            return 0;
        }
    }
    return 0;
}

static const step *choose(upstream *u, const char *request)
{
    const char *path = strstr(request, " /");
    for (const script *s = u->scripts; path && s->name; s++) {
        size_t n = strlen(s->name);
        if (!strncmp(path + 2, s->name, n) && path[2 + n] == '/') return s->steps;
    }
    return NULL;
}

static void *serve(void *arg)
{
    connection *c = arg;
    char *buf = c->request;
    int more = 1;
    while (more && read_request(c, buf, sizeof c->request)) {
        pthread_mutex_lock(&c->u->lock);
        memcpy(c->u->request, buf, strlen(buf) + 1);
        pthread_mutex_unlock(&c->u->lock);
        const step *s = choose(c->u, buf);
        more = s ? play(c, s) : 0;
    }
    close(c->fd);
    atomic_fetch_sub(&c->u->running, 1);
    free(c);
    return NULL;
}

static void *accept_thread(void *arg)
{
    upstream *u = arg;
    struct pollfd p = {.fd = u->listener, .events = POLLIN};
    while (!atomic_load(&u->stop)) {
        if (poll(&p, 1, 20) != 1) continue;
        int fd = accept(u->listener, NULL, NULL);
        if (fd < 0) continue;
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        atomic_fetch_add(&u->connections, 1);
        atomic_fetch_add(&u->running, 1);
        connection *c = malloc(sizeof *c);
        if (!c) { /* a test of running out */
            close(fd);
            atomic_fetch_sub(&u->running, 1);
            continue;
        }
        c->u = u;
        c->fd = fd;
        pthread_attr_t a;
        pthread_t t;
        pthread_attr_init(&a);
        pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&a, 256 << 10);
        if (pthread_create(&t, &a, serve, c)) abort();
        pthread_attr_destroy(&a);
    }
    return NULL;
}

void upstream_open(upstream *u, const script *scripts)
{
    memset(u, 0, sizeof *u);
    u->scripts = scripts;
    pthread_mutex_init(&u->lock, NULL);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    u->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(u->listener, (struct sockaddr *)&a, n) || listen(u->listener, 1024) ||
        getsockname(u->listener, (struct sockaddr *)&a, &n))
        abort();
    u->port = ntohs(a.sin_port);
    if (pthread_create(&u->thread, NULL, accept_thread, u)) abort();
}

void upstream_close(upstream *u)
{
    atomic_store(&u->stop, true);
    pthread_join(u->thread, NULL);
    while (atomic_load(&u->running)) usleep(1000);
    close(u->listener);
    pthread_mutex_destroy(&u->lock);
}

void upstream_url(const upstream *u, const char *name, char out[128])
{
    snprintf(out, 128, "http://127.0.0.1:%u/%s/v1", u->port, name);
}
