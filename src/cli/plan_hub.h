/* What the hub tells of a model before a byte of it is fetched, for a plan. Main thread. */
#ifndef ASHLEY_CLI_PLAN_HUB_H
#define ASHLEY_CLI_PLAN_HUB_H

#include "cli/hub.h"
#include "config/catalogue.h"

/* One entry's repository as it was listed. */
typedef struct ash_plan_remote {
    size_t n_files;        /* of weights */
    uint64_t weight_bytes; /* of the weight files */
    char *folder;          /* temporary, owned: see ash_plan_remote_head */
    bool declared;         /* the folder has an index and no weights (ash_checkpoint_declare), */
    char path[4200];       /* else a checkpoint whose tensors have no content; "": neither */
    ash_cli_listing found; /* here.missing: configuration and tokenizer included */
    ash_hub *hub;          /* borrowed */
} ash_plan_remote;

/* Lists and chooses as a fetch would. ASH_ENOENT, ASH_EAUTH, ASH_ENET and other errors of hub/hub.h; out is
 * to be released even then. `name` is what the user called the entry. */
int ash_plan_remote_open(ash_hub *hub, const ash_catalogue_entry *e, const char *name, ash_plan_remote *out,
                         ash_err *err) ASH_MUST_CHECK;
/* Fetches configuration, index and the first `head` bytes of GGUF files, or the headers of
 * safetensors, into a temporary folder that readers can open: files are as long as the real ones and
 * empty beyond their headers, which takes no room. Sets declared or path. May be called again with more. */
int ash_plan_remote_head(ash_plan_remote *r, size_t head, ash_err *err) ASH_MUST_CHECK;
void ash_plan_remote_release(ash_plan_remote *r); /* removes the folder; safe twice */

#endif
