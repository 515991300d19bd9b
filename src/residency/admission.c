/* Owns the way from the entries to the policy's figures and back to words. The caller holds the
 * lock. */
#include "base/clock.h"
#include "residency/state.h"

/* A load that was never seen is taken to run at this rate: between a disk and a page cache. */
static const double LOAD_BYTES_PER_S = 1e9;

double ash_admission_seconds(const ash_entry *e)
{
    return e->bring_back_s > 0.0 ? e->bring_back_s : (double)e->plan.file_bytes / LOAD_BYTES_PER_S;
}

void ash_admission_figures(ash_manager *m)
{
    for (size_t i = 0; i < m->n; i++) {
        const ash_entry *e = &m->entries[i];
        bool loaded = e->state == ASH_MODEL_LOADED;
        m->figures[i] = (ash_policy_model){
            .id = e->spec.id,
            .bytes = e->charge,
            .resident = e->charge > 0,
            .loading = e->charge > 0 && !loaded, /* loads, or is being closed */
            .pinned = e->spec.pin && !e->unload_pending,
            .preload = e->spec.preload,
            .required = e->spec.required,
            .leases = e->leases,
            .uses = e->uses,
            .last_use_ms = e->last_use_ns / 1000000,
            .loaded_ms = e->loaded_ns / 1000000,
            .bring_back_s = ash_admission_seconds(e),
        };
    }
}

uint64_t ash_admission_budget(const ash_manager *m)
{
    ash_memory now;
    ash_memory_read(m->memory_root ? m->memory_root : "", &now);
    return ash_budget_bytes(&m->budget, &now);
}

static ash_policy_urgency urgency(bool demand)
{
    return demand ? ASH_POLICY_DEMAND : ASH_POLICY_BACKGROUND;
}

uint64_t ash_admission_room(ash_manager *m, const ash_entry *e, uint64_t budget)
{
    ash_admission_figures(m);
    return ash_policy_room(budget, m->figures, m->n, (size_t)(e - m->entries), urgency(e->demand),
                           ash_clock_ms());
}

ash_policy_decision ash_admission_ask(ash_manager *m, const ash_entry *e, uint64_t budget, bool demand,
                                      size_t *list)
{
    size_t wanted = (size_t)(e - m->entries);
    ash_admission_figures(m);
    m->figures[wanted].bytes = e->need;
    return ash_policy_admit(budget, m->figures, m->n, wanted, urgency(demand), ash_clock_ms(), list);
}

void ash_admission_explain(const ash_manager *m, const ash_entry *e, const ash_policy_decision *d,
                           ash_err *err)
{
    double budget = (double)ash_admission_budget(m) * 1e-9;
    double need = (double)e->need * 1e-9, weights = (double)e->plan.weight_bytes * 1e-9;
    double kv = (double)e->plan.kv_bytes * 1e-9,
           used = (double)ash_policy_resident(m->figures, m->n) * 1e-9;
    if (d->reason == ASH_POLICY_TOO_LARGE)
        ash_err_set(err, ASH_ENOSPC,
                    "'%s' needs %.2f GB of memory (weights %.2f, KV cache %.2f), and the budget "
                    "for all models is %.2f GB",
                    e->spec.id, need, weights, kv, budget);
    else if (d->reason == ASH_POLICY_PINNED)
        ash_err_set(err, ASH_ENOSPC,
                    "'%s' needs %.2f GB of memory (weights %.2f, KV cache %.2f), and of a budget "
                    "of %.2f GB pinned models have %.2f",
                    e->spec.id, need, weights, kv, budget, (double)d->pinned_bytes * 1e-9);
    else
        ash_err_set(err, ASH_ENOSPC,
                    "'%s' needs %.2f GB of memory (weights %.2f, KV cache %.2f), and of a budget "
                    "of %.2f GB "
                    "preloads and models in use have %.2f",
                    e->spec.id, need, weights, kv, budget, used);
}
