/* Owns what of a load goes into the ledger and comes back from it. Refuses to believe what is not
 * plausible. Lock rules: state.h. */
#include <stdio.h>
#include <sys/stat.h>

#include "residency/state.h"

typedef struct names {
    char revision[640], variant[384];
} names;

/* The files and the settings that what a load takes depends on. */
static ash_ledger_key key_of(const ash_manager *m, const ash_entry *e, uint64_t file_bytes,
                             uint32_t n_ctx, names *n)
{
    struct stat st = {0};
    if (stat(e->spec.path, &st)) st.st_mtime = 0;
    snprintf(n->revision, sizeof n->revision, "%llu:%lld:%.560s", (unsigned long long)file_bytes,
             (long long)st.st_mtime, e->spec.path);
    snprintf(n->variant, sizeof n->variant, "cpu %d, threads %d, kv %s, draft %.300s", (int)m->cpu,
             m->threads, e->spec.kv_q8 ? "q8" : "f16",
             e->spec.draft_path && m->prediction != ASH_PREDICTION_NEVER ? e->spec.draft_path
                                                                         : "none");
    return (ash_ledger_key){e->spec.id, n->revision, n->variant, n_ctx};
}

uint64_t ash_measure_grown(uint64_t before, uint64_t now, uint64_t weights, uint64_t others)
{
    uint64_t grown = now > before ? now - before : 0;
    return grown >= weights && grown / 2 <= weights + others ? grown : 0;
}

void ash_measure_find(const ash_manager *m, const ash_entry *e, const ash_engine_plan *plan,
                      int64_t *beyond, double *seconds)
{
    ash_ledger_row r;
    names n;
    *beyond = 0;
    *seconds = 0.0;
    if (!m->ledger) return;
    ash_ledger_key key = key_of(m, e, plan->file_bytes, plan->n_ctx, &n);
    if (!ash_ledger_find(m->ledger, &key, &r)) return;
    uint64_t others = plan->scratch_bytes + plan->draft_bytes;
    *seconds = r.load_ms * 1e-3;
    if (r.weight_bytes == plan->weight_bytes && r.scratch_bytes + r.draft_bytes == others &&
        ash_measure_grown(0, r.grown_bytes, r.weight_bytes, others))
        *beyond = (int64_t)r.grown_bytes - (int64_t)(r.weight_bytes + others);
}

void ash_measure_put(const ash_manager *m, const ash_entry *e, const ash_ledger_row *row)
{
    names n;
    if (!m->ledger) return;
    ash_ledger_key key = key_of(m, e, row->file_bytes, e->plan.n_ctx, &n);
    ash_ledger_put(m->ledger, &key, row);
}
