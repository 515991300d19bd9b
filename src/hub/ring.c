/* Owns the ring of pieces on their way from a connection to the hash (job.h): bytes that are in their file
 * already, handed over so that the hash need not read them back. Refuses nothing: what does not come this
 * way is read back. All with hub_job.lock held, but opening and closing. */
#include <stdlib.h>
#include <time.h>

#include "hub/job.h"

enum { LEFT = HUB_PIECES * 3 / 4 }; /* pieces that the hash has still when the fetching thread is woken */

int hub_ring_open(hub_ring *r, ash_err *err)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->room, &attr);
    pthread_condattr_destroy(&attr);
    for (int i = 0; i < HUB_PIECES; i++)
        if (!(r->pieces[i].data = malloc(HUB_PIECE))) return ash_err_nomem(err, "a hash");
    return 0;
}

void hub_ring_close(hub_ring *r)
{
    for (int i = 0; i < HUB_PIECES; i++) free(r->pieces[i].data);
    pthread_cond_destroy(&r->room);
}

bool hub_ring_put(hub_ring *r, hub_item *it, uint8_t **data, size_t n, uint64_t end)
{
    if (r->n == HUB_PIECES) return false;
    hub_piece *p = &r->pieces[(r->first + r->n++) % HUB_PIECES];
    uint8_t *spare = p->data;
    *p = (hub_piece){.item = it, .data = *data, .n = n, .end = end};
    *data = spare;
    return true;
}

const hub_piece *hub_ring_first(const hub_ring *r)
{
    return r->n ? &r->pieces[r->first] : NULL;
}

void hub_ring_pop(hub_ring *r)
{
    r->first = (r->first + 1) % HUB_PIECES;
    if (--r->n == LEFT) pthread_cond_signal(&r->room);
}

void hub_ring_await(hub_ring *r, pthread_mutex_t *lock, int ms)
{
    struct timespec until;
    if (r->n < HUB_PIECES) return;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += ms * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (r->n > LEFT && !pthread_cond_timedwait(&r->room, lock, &until));
}
