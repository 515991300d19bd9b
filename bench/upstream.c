/* upstream: an OpenAI-compatible server that answers everything with the same bytes, so that a measurement of
 * what stands before it is of nothing else. One thread, epoll, HTTP/1.1 with connections that stay; bodies by
 * Content-Length only. It trusts its client: for bench/proxy.py alone.
 * usage: bench_upstream [INTERVAL_MS [EVENTS]]    of a stream; says "port N". */
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { CONNS = 8192, REQUEST = 16384 };

typedef struct conn {
    char buf[REQUEST];
    size_t n;
    int fd, events_left; /* > 0: a stream runs */
} conn;

static conn *conns[CONNS]; /* by descriptor */
static long interval_ms = 1000, events = 10;

static const char whole[] =
    "{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,"
    "\"message\":{\"role\":\"assistant\",\"content\":\"Hello there.\"},\"finish_reason\":\"stop\"}],"
    "\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3,\"total_tokens\":12}}";
static const char piece[] =
    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":"
    "[{\"index\":0,\"delta\":{\"content\":\"word \"},\"finish_reason\":null}]}\n\n";
static const char last[] =
    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":"
    "[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

static void drop(conn *c)
{
    conns[c->fd] = NULL;
    close(c->fd);
    free(c);
}

/* What does not fit the socket's buffer is a client that does not read: it is dropped. */
static bool put(conn *c, const char *bytes, size_t n)
{
    if (send(c->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n)
        return true;
    drop(c);
    return false;
}

static bool put_event(conn *c, const char *text)
{
    char out[1024];
    int n = snprintf(out, sizeof out, "%zx\r\n%s\r\n", strlen(text), text);
    return put(c, out, (size_t)n);
}

static bool answer(conn *c, const char *body)
{
    static char fixed[1024];
    static int n;
    if (strstr(body, "\"stream\":true") || strstr(body, "\"stream\": true")) {
        static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                                   "Transfer-Encoding: chunked\r\n\r\n";
        c->events_left = (int)events;
        return put(c, head, sizeof head - 1);
    }
    if (!n)
        n = snprintf(fixed, sizeof fixed, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\n\r\n%s", sizeof whole - 1, whole);
    return put(c, fixed, (size_t)n);
}

static void readable(conn *c)
{
    ssize_t got = recv(c->fd, c->buf + c->n, REQUEST - 1 - c->n, 0);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN)
            drop(c);
        return;
    }
    c->n += (size_t)got;
    for (;;) {
        c->buf[c->n] = 0;
        char *end = strstr(c->buf, "\r\n\r\n"), *length = strcasestr(c->buf, "content-length:");
        if (!end)
            return;
        size_t head = (size_t)(end - c->buf) + 4;
        size_t all = head + (length && length < end ? strtoul(length + 15, NULL, 10) : 0);
        if (c->n < all)
            return;
        char kept = c->buf[all];
        c->buf[all] = 0;
        if (!answer(c, c->buf + head))
            return;
        c->buf[all] = kept;
        memmove(c->buf, c->buf + all, c->n - all);
        c->n -= all;
    }
}

static void step_streams(void)
{
    for (int i = 0; i < CONNS; i++) {
        conn *c = conns[i];
        if (!c || !c->events_left)
            continue;
        bool over = !--c->events_left;
        if (put_event(c, over ? last : piece) && over)
            put(c, "0\r\n\r\n", 5);
    }
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void accept_one(int listener, int poll)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    conn *c = fd < CONNS ? calloc(1, sizeof *c) : NULL;
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    if (!c || epoll_ctl(poll, EPOLL_CTL_ADD, fd, &e)) {
        free(c);
        close(fd);
        return;
    }
    c->fd = fd;
    conns[fd] = c;
}

int main(int argc, char **argv)
{
    struct rlimit most;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, got[256];
    if (argc > 1)
        interval_ms = strtol(argv[1], NULL, 10);
    if (argc > 2)
        events = strtol(argv[2], NULL, 10);
    getrlimit(RLIMIT_NOFILE, &most);
    most.rlim_cur = most.rlim_max;
    setrlimit(RLIMIT_NOFILE, &most);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4096) ||
        getsockname(listener, (struct sockaddr *)&at, &n) ||
        epoll_ctl(poll, EPOLL_CTL_ADD, listener, &e)) {
        perror("upstream");
        return 1;
    }
    printf("port %d\n", ntohs(at.sin_port));
    fflush(stdout);
    for (int64_t next = now_ms() + interval_ms;;) {
        int64_t left = next - now_ms();
        int ready = epoll_wait(poll, got, 256, left < 0 ? 0 : (int)left);
        for (int i = 0; i < ready; i++) {
            if (got[i].data.fd == listener)
                accept_one(listener, poll);
            else if (conns[got[i].data.fd])
                readable(conns[got[i].data.fd]);
        }
        if (now_ms() >= next) {
            step_streams();
            next += interval_ms;
        }
    }
}
