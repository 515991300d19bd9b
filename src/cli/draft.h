/* The draft model that an entry of the catalogue or of PRELOAD_MODELS names. Main thread. */
#ifndef ASHLEY_CLI_DRAFT_H
#define ASHLEY_CLI_DRAFT_H

#include "cli/cli.h"
#include "engine/model.h"

typedef struct ash_cli_draft {
    const char *id;   /* of the catalogue, borrowed; NULL: none is named */
    char *path;       /* where it is, owned; NULL: reason says why not */
    char reason[480];
} ash_cli_draft;

/* Finds the draft model of `entry`, which the preload entry (may be NULL) overrides. */
int ash_cli_draft_find(const ash_cli *cli, const ash_catalogue_entry *entry, const ash_preload *preload,
                       ash_cli_draft *out, ash_err *err) ASH_MUST_CHECK;
void ash_cli_draft_release(ash_cli_draft *d); /* safe twice */
/* Adds what the draft model is and takes to the description of the model `m`, whose files these are:
 * "draft", "draft_bytes" (0 if it is refused) and "draft_refused", and its bytes to "memory_bytes". */
void ash_cli_draft_describe(const ash_cli_draft *d, const ash_model *m, const ash_checkpoint *files,
                            bool kv_q8, ash_cpu_level cpu, json_t *out);

#endif
