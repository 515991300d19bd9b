/* Owns when the ledger is told what share of its experts a mixture larger than its room finds in memory.
 * Refuses what too few choices say. Lock rules: state.h. */
#include "residency/state.h"

/* Choices that say something, and those after which a running engine is asked again: a minute or a few of
 * decoding, so that little is lost by a process that is killed. */
enum { ENOUGH = 10000, MANY = 100000 };

/* The share since the last time, if there were so many choices. */
static bool take(ash_entry *e, const ash_engine *engine, uint64_t enough, ash_fit_found *out)
{
    ash_engine_stats s;
    double room = ash_engine_info(engine)->expert_room;
    if (!(room > 0.0)) return false;
    ash_engine_get_stats(engine, &s);
    uint64_t chosen = s.token_experts_chosen - e->experts_chosen;
    uint64_t found = s.token_experts_found > e->experts_found ? s.token_experts_found - e->experts_found : 0;
    if (chosen < enough) return false;
    e->experts_chosen = s.token_experts_chosen;
    e->experts_found = s.token_experts_found;
    *out = (ash_fit_found){room, (double)(found < chosen ? found : chosen) / (double)chosen};
    return true;
}

static void write_down(ash_manager *m, const ash_entry *e, const ash_fit_found *found)
{
    const ash_measure_of of = ash_entry_measured_as(m, e);
    ash_measure_put_found(m->ledger, &of, e->plan.file_bytes, found);
}

void ash_experts_note_last(ash_manager *m, ash_entry *e, const ash_engine *engine)
{
    ash_fit_found found;
    if (engine && take(e, engine, ENOUGH, &found)) write_down(m, e, &found);
}

void ash_experts_note_running(ash_manager *m)
{
    for (size_t i = 0; i < m->n && !m->stopping; i++) {
        ash_entry *e = &m->entries[i];
        ash_fit_found found;
        if (e->state != ASH_MODEL_LOADED || !take(e, e->engine, MANY, &found)) continue;
        e->leases++; /* so that its files stay what they are */
        pthread_mutex_unlock(&m->mutex);
        write_down(m, e, &found);
        pthread_mutex_lock(&m->mutex);
        if (!--e->leases) ash_loader_wake(m);
    }
}
