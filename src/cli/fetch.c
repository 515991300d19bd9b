/* Owns what one fetch of the server is: list, choose, fetch, and where the weights are then. The manager's
 * fetching thread. */
#include "cli/fetch.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/hub.h"
#include "cli/rates.h"

int ash_cli_fetch(void *user, const char *id, const ash_hub_watch *watch, char **path, ash_err *err)
{
    const ash_cli *cli = user;
    const ash_catalogue_entry *e = ash_catalogue_find(cli->catalogue, id);
    ash_hub *hub = NULL;
    ash_hub_pin *pins = NULL;
    ash_hub_tree *tree = NULL;
    ash_hub_plan *plan = NULL;
    ash_hub_want want;
    ash_hub_here here = {0};
    ash_buf at;
    char *snapshot = NULL;
    *path = NULL;
    if (!e) return ash_err_set(err, ASH_ENOENT, "no model '%s' in the catalogue", id);
    int rc = ash_cli_hub_want(e, id, &want, &pins, err);
    rc = rc ? rc : ash_cli_hub_open(cli, &hub, err);
    rc = rc ? rc : ash_hub_list(hub, e->repo, e->revision, watch->cancel, &tree, err);
    rc = rc ? rc : ash_hub_choose(tree, &want, &plan, err);
    rc = rc ? rc : ash_hub_look(hub, plan, &here, err);
    int64_t began = ash_clock_ms();
    rc = rc ? rc : ash_hub_fetch(hub, plan, watch, &snapshot, err);
    if (!rc) ash_rates_note_fetch(cli, plan->bytes - here.bytes - here.partial, ash_clock_ms() - began);
    ash_buf_init(&at, 1u << 16);
    if (!rc) {
        ash_buf_adds(&at, snapshot);
        if (plan->weights) ash_buf_printf(&at, "/%s", plan->weights);
        rc = ash_buf_check(&at, "a path", err);
    }
    if (!rc && !(*path = strdup(at.data))) rc = ash_err_nomem(err, id);
    ash_buf_release(&at);
    free(snapshot);
    free(pins);
    ash_hub_plan_close(plan);
    ash_hub_tree_close(tree);
    ash_hub_close(hub);
    return rc;
}
