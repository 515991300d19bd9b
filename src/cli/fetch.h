/* How the server fetches: the manager's functions over the hub and the catalogue. What weighing listed is
 * kept for the fetch, so that the hub is asked once. Any thread. */
#ifndef ASHLEY_CLI_FETCH_H
#define ASHLEY_CLI_FETCH_H

#include "cli/cli.h"
#include "hub/hub.h"
#include "residency/manager.h"

typedef struct ash_cli_fetcher ash_cli_fetcher;

/* Borrows cli until it is closed. */
int ash_cli_fetcher_open(ash_cli *cli, ash_cli_fetcher **out, ash_err *err) ASH_MUST_CHECK;
void ash_cli_fetcher_close(ash_cli_fetcher *f); /* no call may run; NULL is fine */

/* As ash_manager_opts.fetch; user is the ash_cli_fetcher, here and below. Opens a client of its own each
 * time, so that a token that was set since is used. */
int ash_cli_fetch(void *user, const char *id, const ash_hub_watch *watch, char **path, ash_err *err)
    ASH_MUST_CHECK;
/* As ash_manager_opts.find. */
char *ash_cli_fetch_find(void *user, const char *id);
/* As ash_manager_opts.weigh, advise and remove. The reserve is the plan's. */
int ash_cli_weigh(void *user, const char *id, const atomic_bool *cancel, ash_fetch_need *out,
                  ash_err *err) ASH_MUST_CHECK;
void ash_cli_advise(void *user, const char *id, uint64_t missing, char *text, size_t size);
int ash_cli_remove(void *user, const char *id, uint64_t *bytes, ash_err *err) ASH_MUST_CHECK;

#endif
