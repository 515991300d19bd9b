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

#endif
