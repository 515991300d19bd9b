/* Owns the thread that maps what nobody has touched. Refuses nothing: a page that cannot be read (the file
 * was cut, the disk failed) ends the work, and who needs it finds that out (base/fault.h). */
#include "engine/populate.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/idle.h"

#ifndef MADV_POPULATE_READ /* Linux 5.14; older ones refuse it */
#define MADV_POPULATE_READ 22
#endif

enum { PIECE = 2 << 20 };

struct ash_populate {
    uintptr_t at;
    size_t bytes;
    atomic_bool stop;
    pthread_t thread;
};

static void *work(void *arg)
{
    ash_populate *p = arg;
    ash_idle_enter();
    for (size_t from = 0; from < p->bytes && !atomic_load(&p->stop); from += PIECE) {
        size_t n = p->bytes - from < PIECE ? p->bytes - from : PIECE;
        if (madvise((void *)(p->at + from), n, MADV_POPULATE_READ))
            break;
    }
    return NULL;
}

ash_populate *ash_populate_start(const void *at, size_t bytes)
{
    ash_populate *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->at = (uintptr_t)at;
    p->bytes = bytes;
    if (!pthread_create(&p->thread, NULL, work, p))
        return p;
    free(p);
    return NULL;
}

void ash_populate_close(ash_populate *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    pthread_join(p->thread, NULL);
    free(p);
}
