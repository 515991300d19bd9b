/* One request answered by the first of a plan's providers that can: a failure before the first token
 * goes on to the next step. The reader sees one sequence of events with one HEAD, as of one provider.
 *
 * Thread rule: start, advance, resume and close on one thread (the connection's); events on the
 * providers' threads. */
#ifndef ASHLEY_API_CHAIN_H
#define ASHLEY_API_CHAIN_H

#include "api/route.h"

typedef struct ash_chain ash_chain;

typedef struct ash_chain_opts {
    const ash_request *req; /* borrowed until close; `model` is the step's, not this one */
    ash_route_plan plan;
    ash_answer_fn fn;
    void (*wake)(void *user); /* asks for ash_chain_advance soon; any thread */
    void *user;               /* of both */
} ash_chain_opts;

/* Opens; nothing is asked yet. NULL without memory. */
ash_chain *ash_chain_open(const ash_chain_opts *opts);
/* Asks the next provider; called once to start and after each wake. Events may come before it returns.
 * A provider that cannot even start counts as failed. */
void ash_chain_advance(ash_chain *c);
/* Whether it is certain which step answers, because no other may. */
bool ash_chain_certain(const ash_chain *c, ash_route_step *step);
void ash_chain_resume(ash_chain *c);
/* Cancels what runs; no event comes after it. NULL is fine. */
void ash_chain_close(ash_chain *c);

#endif
