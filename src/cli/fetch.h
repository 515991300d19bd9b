/* How the server fetches: the manager's `fetch` over the hub and the catalogue. */
#ifndef ASHLEY_CLI_FETCH_H
#define ASHLEY_CLI_FETCH_H

#include "cli/cli.h"
#include "hub/hub.h"
#include "residency/manager.h"

/* As ash_manager_opts.fetch; user is the ash_cli. Opens a client
 * of its own each time, so that a token that was set since is used. */
int ash_cli_fetch(void *user, const char *id, const ash_hub_watch *watch, char **path, ash_err *err)
    ASH_MUST_CHECK;
/* As ash_manager_opts.weigh and advise; user is the ash_cli. The reserve is the plan's. */
int ash_cli_weigh(void *user, const char *id, const atomic_bool *cancel, ash_fetch_need *out,
                  ash_err *err) ASH_MUST_CHECK;
void ash_cli_advise(void *user, const char *id, uint64_t missing, char *text, size_t size);

#endif
