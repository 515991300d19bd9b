/* What a plan is made from: the facts of each model, of headers and listings only, and of this machine. Main
 * thread. */
#ifndef ASHLEY_CLI_PLAN_FACTS_H
#define ASHLEY_CLI_PLAN_FACTS_H

#include "cli/cli.h"
#include "hub/hub.h"
#include "store/ledger.h"
#include "residency/plan.h"

/* One model of a plan. */
typedef struct ash_plan_model {
    const char *id;                   /* as it was named; borrowed */
    const ash_catalogue_entry *entry; /* NULL: nobody knows it */
    const ash_preload *preload;       /* of PRELOAD_MODELS, or NULL */
    ash_plan_facts facts;
    const char *basis;   /* where the sizes are from: "headers" or "index", here or at the hub; "listing" of
                            the hub; "catalogue"; NULL: from nowhere */
    size_t files;        /* weight files; 0: not known */
    uint64_t weight_bytes, scratch_bytes, draft_bytes; /* basis "headers" or "index" */
    int64_t beyond_bytes; /* that an earlier load was measured to take beyond these, KV left aside */
    bool measured;        /* beyond_bytes is known */
    uint32_t n_ctx;
    bool kv_q8;
    char *path;          /* on this machine, owned, or NULL */
    char reason[480], hint[400]; /* where it is not here, or cannot be used; "" else */
} ash_plan_model;

/* The hub, asked for what is not here; opened by the first such model. A hub that cannot be reached is not
 * asked again. */
typedef struct ash_plan_hub {
    ash_hub *hub; /* owned by who made this (ash_hub_close), or NULL */
    bool unreachable;
} ash_plan_hub;

/* Fills the facts of m, whose id and preload are set: from the files' headers if they are on this
 * machine; else from listing and headers at the hub; else from the index of files of which a part is here;
 * else what the catalogue says. hub NULL: it is not asked. What was measured of its last load is in ledger,
 * which may be NULL. ASH_ENOMEM, ASH_ECANCELED; all else is a fact. */
int ash_plan_model_gather(ash_cli *cli, ash_plan_hub *hub, ash_ledger *ledger, ash_plan_model *m,
                          ash_err *err) ASH_MUST_CHECK;
void ash_plan_model_release(ash_plan_model *m); /* safe twice */

/* What this machine has, with the rates of the ledger (may be NULL); that of the memory is measured if it is
 * not there and `measure`. */
void ash_plan_machine_gather(const ash_cli *cli, ash_ledger *ledger, bool measure, ash_plan_machine *out);

#endif
