/* Owns the requests that wait for a model. Lock rules: state.h. */
#include <stdlib.h>

#include "base/clock.h"
#include "residency/state.h"

void ash_waiters_take(ash_manager *m, bool (*match)(const ash_waiter *, const void *),
                      const void *arg, ash_waiter **done)
{
    for (ash_waiter **at = &m->waiters; *at;) {
        ash_waiter *w = *at;
        if (!match(w, arg)) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        w->next = *done;
        *done = w;
    }
}

bool ash_waiter_of(const ash_waiter *w, const void *entry)
{
    return w->entry == entry;
}

bool ash_waiter_has(const ash_waiter *w, const void *ticket)
{
    return w->ticket == *(const uint64_t *)ticket;
}

bool ash_waiter_late(const ash_waiter *w, const void *now_ns)
{
    return w->deadline_ns && w->deadline_ns <= *(const int64_t *)now_ns;
}

static bool can_have(const ash_waiter *w, const void *arg)
{
    return ash_entry_lends(w->entry);
}

void ash_waiters_lend(ash_manager *m, ash_waiter **done)
{
    ash_waiter *ready = NULL;
    int64_t now = ash_clock_ns();
    ash_waiters_take(m, can_have, NULL, &ready);
    while (ready) {
        ash_waiter *w = ready;
        ready = w->next;
        w->engine = w->entry->engine;
        w->entry->leases++;
        w->entry->unload_pending = false;
        w->entry->last_use_ns = now;
        ash_policy_used(&w->entry->uses, now / 1000000);
        m->changes++;
        w->next = *done;
        *done = w;
    }
}

bool ash_waiters_any(const ash_manager *m, const ash_entry *e)
{
    for (const ash_waiter *w = m->waiters; w; w = w->next)
        if (w->entry == e) return true;
    return false;
}

void ash_waiters_fail(ash_waiter *done, int code, const char *msg)
{
    for (ash_waiter *w = done; w; w = w->next) ash_err_set(&w->err, code, "%s", msg);
}

void ash_waiters_answer(ash_waiter *done)
{
    while (done) {
        ash_waiter *w = done;
        done = w->next;
        w->cb(w->user, w->engine, w->engine ? NULL : &w->err);
        free(w);
    }
}
