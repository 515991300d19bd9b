/* Requests that wait for a model, and states to wait for. */
#ifndef ASHLEY_TESTS_RESIDENCY_WAITED_H
#define ASHLEY_TESTS_RESIDENCY_WAITED_H

#include <unistd.h>

#include "residency/manager.h"

typedef struct waited {
    atomic_int calls;
    uint64_t ticket;
    ash_engine *engine;
    ash_err err;
} waited;

static inline void on_lease(void *user, ash_engine *e, const ash_err *err)
{
    waited *w = user;
    w->engine = e;
    if (err) w->err = *err;
    atomic_fetch_add(&w->calls, 1);
}

static inline void until_called(waited *w)
{
    for (int i = 0; i < 10000 && !atomic_load(&w->calls); i++) usleep(1000);
    assert_int_equal(atomic_load(&w->calls), 1);
}

static inline void until_state(ash_manager *m, const char *id, ash_model_state s)
{
    for (int i = 0; i < 10000 && ash_manager_state(m, id) != s; i++) usleep(1000);
    assert_int_equal(ash_manager_state(m, id), s);
}

#endif
