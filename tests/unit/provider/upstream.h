/* A scripted upstream on a loopback port, for tests: the first part of the path chooses the script.
 */
#ifndef ASHLEY_TESTS_PROVIDER_UPSTREAM_H
#define ASHLEY_TESTS_PROVIDER_UPSTREAM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Steps, in order, after a request was read whole. */
typedef enum step_kind {
    STEP_END,   /* close the connection */
    STEP_SEND,  /* text */
    STEP_BYTES, /* text, one byte a packet */
    STEP_HOLD,  /* until the client closes or the server is closed */
    STEP_RESET, /* close with RST */
    STEP_FLOOD, /* n times text */
    STEP_SLEEP, /* n ms */
    STEP_AGAIN, /* wait for the next request on this connection */
} step_kind;

typedef struct step {
    step_kind kind;
    const char *text;
    size_t n;
} step;

typedef struct script {
    const char *name;
    const step *steps;
} script;

typedef struct upstream {
    const script *scripts; /* name NULL ends */
    int listener;
    uint16_t port;
    pthread_t thread;
    atomic_bool stop;
    atomic_int connections, running, left; /* left: clients seen to close while held */
    atomic_int floods;                     /* sent whole */
    pthread_mutex_t lock;
    char request[16384]; /* lock: the last one, whole */
} upstream;

void upstream_open(upstream *u, const script *scripts);
void upstream_close(upstream *u);
/* http://127.0.0.1:PORT/NAME/v1 into out. */
void upstream_url(const upstream *u, const char *name, char out[128]);

#endif
