/* Owns what of a load goes into the ledger and comes back from it. Refuses to believe what is not
 * plausible. */
#include "residency/measure.h"

#include <stdio.h>
#include <sys/stat.h>

typedef struct names {
    char revision[640], variant[384];
} names;

/* The files and the settings that what a load takes depends on. */
static ash_ledger_key key_of(const ash_measure_of *of, uint64_t file_bytes, uint32_t n_ctx, names *n)
{
    struct stat st = {0};
    if (stat(of->path, &st)) st.st_mtime = 0;
    snprintf(n->revision, sizeof n->revision, "%llu:%lld:%.560s", (unsigned long long)file_bytes,
             (long long)st.st_mtime, of->path);
    snprintf(n->variant, sizeof n->variant, "cpu %d, threads %d, kv %s, draft %.300s", (int)of->cpu,
             of->threads, of->kv_q8 ? "q8" : "f16", of->draft_path ? of->draft_path : "none");
    return (ash_ledger_key){of->id, n->revision, n->variant, n_ctx};
}

uint64_t ash_measure_grown(uint64_t before, uint64_t now, uint64_t weights, uint64_t others)
{
    uint64_t grown = now > before ? now - before : 0;
    return grown >= weights && grown / 2 <= weights + others ? grown : 0;
}

void ash_measure_find(ash_ledger *l, const ash_measure_of *of, const ash_engine_plan *plan,
                      ash_measured *out)
{
    ash_ledger_row r;
    names n;
    *out = (ash_measured){0};
    if (!l) return;
    ash_ledger_key key = key_of(of, plan->file_bytes, plan->n_ctx, &n);
    if (!ash_ledger_find(l, &key, &r)) return;
    uint64_t others = plan->scratch_bytes + plan->draft_bytes;
    out->seconds = r.load_ms * 1e-3;
    out->memory = r.weight_bytes == plan->weight_bytes && r.scratch_bytes + r.draft_bytes == others &&
                  ash_measure_grown(0, r.grown_bytes, r.weight_bytes, others);
    if (out->memory) out->beyond = (int64_t)r.grown_bytes - (int64_t)(r.weight_bytes + others);
}

void ash_measure_put(ash_ledger *l, const ash_measure_of *of, uint32_t n_ctx, const ash_ledger_row *row)
{
    names n;
    if (!l) return;
    ash_ledger_key key = key_of(of, row->file_bytes, n_ctx, &n);
    ash_ledger_put(l, &key, row);
}

_Static_assert((int)ASH_FIT_ROOMS == (int)ASH_LEDGER_ROOMS, "all that the ledger keeps is looked at");

void ash_measure_find_found(ash_ledger *l, const ash_measure_of *of, uint64_t file_bytes, ash_fit_known *out)
{
    ash_ledger_found rows[ASH_LEDGER_ROOMS];
    names n;
    *out = (ash_fit_known){0};
    if (!l) return;
    ash_ledger_key key = key_of(of, file_bytes, 0, &n);
    out->n = ash_ledger_found_of(l, key.model, key.revision, rows);
    for (size_t i = 0; i < out->n; i++) out->v[i] = (ash_fit_found){rows[i].room, rows[i].found};
}

void ash_measure_put_found(ash_ledger *l, const ash_measure_of *of, uint64_t file_bytes,
                           const ash_fit_found *found)
{
    names n;
    if (!l) return;
    ash_ledger_key key = key_of(of, file_bytes, 0, &n);
    ash_ledger_put_found(l, key.model, key.revision, &(ash_ledger_found){found->room, found->found});
}
