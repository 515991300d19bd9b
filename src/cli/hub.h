/* What commands share that ask the hub: its client as the configuration says, and what an entry of
 * the catalogue wants of its repository. */
#ifndef ASHLEY_CLI_HUB_H
#define ASHLEY_CLI_HUB_H

#include "cli/cli.h"
#include "hub/hub.h"

/* A client by HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE, HF_HUB_OFFLINE, HTTPS_PROXY, ...; reads the
 * token's file. *out is the caller's (ash_hub_close). */
int ash_cli_hub_open(const ash_cli *cli, ash_hub **out, ash_err *err) ASH_MUST_CHECK;

/* What the entry's model needs, for ash_hub_choose; `name` is what the user called it. *pins is the
 * caller's (free), and *out borrows it, the entry and the name. ASH_ENOENT if the entry has no
 * repository, with what to do; ASH_EINVAL for a bad entry. */
int ash_cli_hub_want(const ash_catalogue_entry *e, const char *name, ash_hub_want *out,
                     ash_hub_pin **pins, ash_err *err) ASH_MUST_CHECK;

/* What the hub says of an entry's model, and what of it is here. */
typedef struct ash_cli_listing {
    ash_hub_pin *pins;
    ash_hub_tree *tree;
    ash_hub_plan *plan; /* borrows tree and pins */
    ash_hub_here here;  /* when it was listed */
} ash_cli_listing;

/* List, choose, look: as every fetch begins. `name` is what the user called the entry; revision NULL: the
 * entry's. *out is to be released, also on failure. Errors of ash_cli_hub_want and hub/hub.h. */
int ash_cli_hub_list(ash_hub *hub, const ash_catalogue_entry *e, const char *name, const char *revision,
                     const ash_hub_watch *watch, ash_cli_listing *out, ash_err *err) ASH_MUST_CHECK;
void ash_cli_listing_release(ash_cli_listing *l); /* safe twice */

/* Where a fetched model is, for ash_checkpoint_open: *path is the caller's (free). */
int ash_cli_hub_weights(const ash_hub_plan *p, const char *snapshot, char **path,
                        ash_err *err) ASH_MUST_CHECK;

#endif
