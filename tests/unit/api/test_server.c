/* The server under many clients at once, for the thread and address sanitizers: streams, waits,
 * clients that leave at any moment, fallback, drain and close in the midst of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../../http/fake_parts.h"
#include "api/server.h"
#include "base/log.h"

enum { CLIENTS = 12, ROUNDS = 6 };

typedef struct world {
    ash_server_opts o;
    ash_server *server;
    uint16_t port; /* guests may outlive the server */
    atomic_int answered;
} world;

static void open_world(world *w, ash_fallback policy)
{
    *w = (world){0};
    w->o = (ash_server_opts){
        .host = "127.0.0.1",
        .manager = fake_manager_open(),
        .local = fake_provider_open("local", false),
        .upstream = fake_provider_open("openai", true),
        .default_model = "tiny",
        .fallback_model = "up",
        .fallback = policy,
        .drain_ms = 300,
    };
    ash_err err;
    assert_int_equal(ash_server_open(&w->o, &w->server, &err), 0);
    w->port = ash_server_port(w->server);
}

static void close_world(world *w)
{
    ash_server_close(w->server);
    w->o.local->close(w->o.local);
    w->o.upstream->close(w->o.upstream);
    free(w->o.manager);
}

static int dial(const world *w)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(w->port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval limit = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (fd >= 0 && !connect(fd, (struct sockaddr *)&at, sizeof at)) return fd;
    close(fd);
    return -1;
}

static void post(int fd, const char *body)
{
    char text[1024];
    int n =
        snprintf(text, sizeof text,
                 "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                 "Content-Length: %zu\r\n\r\n%s",
                 strlen(body), body);
    ssize_t ignored = send(fd, text, (size_t)n, MSG_NOSIGNAL);
    (void)ignored;
}

/* Reads at most `max` bytes; true if the answer was whole. */
static bool take(int fd, size_t max)
{
    static const char done[] = "[DONE]";
    char buf[4096];
    size_t got = 0;
    bool whole = false;
    ssize_t n;
    while (got < max && (n = recv(fd, buf, sizeof buf - 1, 0)) > 0) {
        buf[n] = 0;
        whole |= strstr(buf, done) || strstr(buf, "\"usage\"") || strstr(buf, "upstream says");
        got += (size_t)n;
    }
    return whole;
}

static const char *const bodies[] = {
    "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream\":true,\"fake\":{\"tokens\":20}"
    "}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"fake\":{\"wait_ms\":60}}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream\":true,\"fake\":{\"only\":"
    "\"local\","
    "\"error\":{\"status\":503,\"after\":-1}}}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream\":true,\"return_progress\":"
    "true,"
    "\"fake\":{\"wait_ms\":50,\"tokens\":50,\"interval_ms\":1,\"progress\":true}}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream\":true,"
    "\"fake\":{\"tokens\":40,\"bytes\":30000}}",
    "{\"messages\":",
};

typedef struct guest {
    world *w;
    int number;
} guest;

static void *visit(void *arg)
{
    guest *g = arg;
    for (int round = 0; round < ROUNDS; round++) {
        int fd = dial(g->w);
        if (fd < 0) break; /* the server closed */
        int which = (g->number + round) % (int)(sizeof bodies / sizeof *bodies);
        bool leaves = (g->number * 7 + round) % 3 == 0;
        post(fd, bodies[which]);
        if (leaves)
            nanosleep(&(struct timespec){.tv_nsec = (long)(g->number * 3 + round) * 1000000}, NULL);
        else if (take(fd, 64 << 20))
            atomic_fetch_add(&g->w->answered, 1);
        close(fd);
    }
    return NULL;
}

static void *watch(void *arg)
{
    world *w = arg;
    static const char get[] =
        "GET /models/sse HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    int fd = dial(w);
    ssize_t ignored = send(fd, get, sizeof get - 1, MSG_NOSIGNAL);
    (void)ignored;
    take(fd, 64 << 20);
    close(fd);
    return NULL;
}

static void start(world *w, pthread_t *threads, guest *guests)
{
    for (int i = 0; i < CLIENTS; i++) {
        guests[i] = (guest){w, i};
        assert_int_equal(pthread_create(&threads[i], NULL, visit, &guests[i]), 0);
    }
    assert_int_equal(pthread_create(&threads[CLIENTS], NULL, watch, w), 0);
}

static void test_many_clients(void **state)
{
    world w;
    pthread_t threads[CLIENTS + 1];
    guest guests[CLIENTS];
    open_world(&w, ASH_FALLBACK_ON_ERROR);
    start(&w, threads, guests);
    for (int i = 0; i < CLIENTS; i++) pthread_join(threads[i], NULL);
    /* who stayed and sent whole JSON was answered in full */
    int wanted = 0;
    for (int i = 0; i < CLIENTS; i++)
        for (int r = 0; r < ROUNDS; r++) wanted += (i * 7 + r) % 3 != 0 && (i + r) % 6 != 5;
    assert_int_equal(atomic_load(&w.answered), wanted);
    ash_server_drain(w.server, NULL);
    pthread_join(threads[CLIENTS], NULL);
    close_world(&w);
}

static void test_close_amid_it(void **state)
{
    for (int i = 0; i < 3; i++) {
        world w;
        pthread_t threads[CLIENTS + 1];
        guest guests[CLIENTS];
        open_world(&w, ASH_FALLBACK_ON_ERROR);
        start(&w, threads, guests);
        nanosleep(&(struct timespec){.tv_nsec = (i * 40 + 10) * 1000000L}, NULL);
        ash_server_close(w.server);
        for (int t = 0; t <= CLIENTS; t++) pthread_join(threads[t], NULL);
        w.server = NULL;
        close_world(&w);
    }
}

static void test_port_in_use(void **state)
{
    world w;
    open_world(&w, ASH_FALLBACK_NEVER);
    ash_server *second;
    ash_err err;
    ash_server_opts o = w.o;
    o.port = ash_server_port(w.server);
    assert_int_equal(ash_server_open(&o, &second, &err), ASH_EIO);
    assert_non_null(strstr(err.msg, "127.0.0.1 port "));
    o.host = "no such host";
    assert_int_equal(ash_server_open(&o, &second, &err), ASH_EINVAL);
    assert_null(second);
    close_world(&w);
}

int main(void)
{
    ash_log_set_level(ASH_LOG_NONE);
    fake_quiet = true;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_clients),
        cmocka_unit_test(test_close_amid_it),
        cmocka_unit_test(test_port_in_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
