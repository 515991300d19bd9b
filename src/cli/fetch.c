/* Owns what one fetch of the server is: list, choose, fetch, and where the weights are then; and before that,
 * how much it is. The manager's threads. */
#include "cli/fetch.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/hub.h"
#include "cli/plan_facts.h"
#include "cli/rates.h"
#include "cli/room.h"

/* One question to the hub: what a model's files are. */
typedef struct listing {
    ash_hub *hub;
    ash_hub_pin *pins;
    ash_hub_tree *tree;
    ash_hub_plan *plan;
} listing;

static int list(const ash_cli *cli, const char *id, const atomic_bool *cancel, listing *l, ash_err *err)
{
    const ash_catalogue_entry *e = ash_catalogue_find(cli->catalogue, id);
    ash_hub_want want;
    *l = (listing){0};
    if (!e) return ash_err_set(err, ASH_ENOENT, "no model '%s' in the catalogue", id);
    int rc = ash_cli_hub_want(e, id, &want, &l->pins, err);
    rc = rc ? rc : ash_cli_hub_open(cli, &l->hub, err);
    rc = rc ? rc : ash_hub_list(l->hub, e->repo, e->revision, cancel, &l->tree, err);
    return rc ? rc : ash_hub_choose(l->tree, &want, &l->plan, err);
}

static void release(listing *l)
{
    free(l->pins);
    ash_hub_plan_close(l->plan);
    ash_hub_tree_close(l->tree);
    ash_hub_close(l->hub);
}

int ash_cli_fetch(void *user, const char *id, const ash_hub_watch *watch, char **path, ash_err *err)
{
    listing l;
    ash_hub_here here = {0};
    ash_buf at;
    char *snapshot = NULL;
    *path = NULL;
    int rc = list(user, id, watch->cancel, &l, err);
    rc = rc ? rc : ash_hub_look(l.hub, l.plan, &here, err);
    int64_t began = ash_clock_ms();
    rc = rc ? rc : ash_hub_fetch(l.hub, l.plan, watch, &snapshot, err);
    if (!rc) ash_rates_note_fetch(user, here.missing, ash_clock_ms() - began);
    ash_buf_init(&at, 1u << 16);
    if (!rc) {
        ash_buf_adds(&at, snapshot);
        if (l.plan->weights) ash_buf_printf(&at, "/%s", l.plan->weights);
        rc = ash_buf_check(&at, "a path", err);
    }
    if (!rc && !(*path = strdup(at.data))) rc = ash_err_nomem(err, id);
    ash_buf_release(&at);
    free(snapshot);
    release(&l);
    return rc;
}

int ash_cli_weigh(void *user, const char *id, const atomic_bool *cancel, ash_fetch_need *out, ash_err *err)
{
    listing l;
    ash_hub_here here = {0};
    ash_plan_machine machine;
    *out = (ash_fetch_need){0};
    int rc = list(user, id, cancel, &l, err);
    rc = rc ? rc : ash_hub_look(l.hub, l.plan, &here, err);
    if (!rc) {
        ash_plan_machine_gather(user, NULL, false, &machine);
        *out = (ash_fetch_need){.bytes = here.missing,
                                .disk_free = machine.disk_free,
                                .disk_reserve = machine.disk_reserve};
    }
    release(&l);
    return rc;
}

void ash_cli_advise(void *user, const char *id, uint64_t missing, char *text, size_t size)
{
    ash_cli_room_advise(user, id, missing, text, size);
}
