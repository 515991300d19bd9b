/* Owns what one fetch of the server is: list, choose, fetch, and where the weights are then; and before that,
 * how much it is. Keeps the last listings until they are fetched. The manager's threads; what is kept is
 * under the lock. */
#include "cli/fetch.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/meter.h"
#include "cli/hub.h"
#include "cli/plan_facts.h"
#include "cli/rates.h"
#include "cli/removal.h"
#include "cli/room.h"

enum {
    KEPT = 8,               /* listings: of more models that wait the oldest are asked for again */
    KEPT_MS = 10 * 60 * 1000, /* a branch may have moved since */
};

typedef struct kept {
    char *id; /* NULL: free */
    ash_cli_listing listing;
    int64_t ms;
} kept;

struct ash_cli_fetcher {
    ash_cli *cli;
    pthread_mutex_t lock;
    kept kept[KEPT];
    ash_meter meter; /* of all fetches */
};

int ash_cli_fetcher_open(ash_cli *cli, ash_cli_fetcher **out, ash_err *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out) return ash_err_nomem(err, "fetching");
    (*out)->cli = cli;
    pthread_mutex_init(&(*out)->lock, NULL);
    return 0;
}

static void drop(kept *k)
{
    free(k->id);
    ash_cli_listing_release(&k->listing);
    *k = (kept){0};
}

void ash_cli_fetcher_close(ash_cli_fetcher *f)
{
    if (!f) return;
    for (int i = 0; i < KEPT; i++) drop(&f->kept[i]);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

/* Takes the listing, in place of one of the same model or of the oldest. */
static void keep(ash_cli_fetcher *f, const char *id, ash_cli_listing *l)
{
    char *copy = l->tree->from_cache ? NULL : strdup(id); /* the hub is asked again where it said nothing */
    if (copy) {
        pthread_mutex_lock(&f->lock);
        kept *to = &f->kept[0];
        for (int i = 0; i < KEPT; i++) {
            kept *k = &f->kept[i];
            if (k->id && !strcmp(k->id, id)) {
                to = k;
                break;
            }
            if (to->id && (!k->id || k->ms < to->ms)) to = k;
        }
        drop(to);
        *to = (kept){.id = copy, .listing = *l, .ms = ash_clock_ms()};
        *l = (ash_cli_listing){0};
        pthread_mutex_unlock(&f->lock);
    }
    ash_cli_listing_release(l);
}

/* Whether there is one for the model, which is *out's then. */
static bool take(ash_cli_fetcher *f, const char *id, ash_cli_listing *out)
{
    bool found = false;
    pthread_mutex_lock(&f->lock);
    for (int i = 0; i < KEPT && !found; i++) {
        kept *k = &f->kept[i];
        if (!k->id || strcmp(k->id, id) != 0) continue;
        found = ash_clock_ms() - k->ms < KEPT_MS;
        if (found) {
            *out = k->listing;
            k->listing = (ash_cli_listing){0};
        }
        drop(k);
    }
    pthread_mutex_unlock(&f->lock);
    return found;
}

static int list(ash_cli_fetcher *f, ash_hub *hub, const char *id, const ash_hub_watch *watch,
                ash_cli_listing *out, ash_err *err)
{
    const ash_catalogue_entry *e = ash_catalogue_find(f->cli->catalogue, id);
    if (!e) return ash_err_set(err, ASH_ENOENT, "no model '%s' in the catalogue", id);
    return ash_cli_hub_list(hub, e, id, NULL, watch, out, err);
}

static void begin_measuring(ash_cli_fetcher *f)
{
    pthread_mutex_lock(&f->lock);
    ash_meter_begin(&f->meter, ash_clock_ms());
    pthread_mutex_unlock(&f->lock);
}

/* Of a fetch that brought so many bytes; failed: nobody knows how many. */
static void end_measuring(ash_cli_fetcher *f, uint64_t bytes, bool failed)
{
    ash_metered got;
    pthread_mutex_lock(&f->lock);
    bool known = ash_meter_end(&f->meter, bytes, !failed, ash_clock_ms(), &got);
    pthread_mutex_unlock(&f->lock);
    if (known) ash_rates_note_fetch(f->cli, got.bytes, got.ms);
}

int ash_cli_fetch(void *user, const char *id, const ash_hub_watch *watch, char **path, ash_err *err)
{
    ash_cli_fetcher *f = user;
    ash_cli_listing l = {0};
    ash_hub *hub = NULL;
    char *snapshot = NULL;
    *path = NULL;
    int rc = ash_cli_hub_open(f->cli, &hub, err);
    if (!rc && !take(f, id, &l)) rc = list(f, hub, id, watch, &l, err);
    rc = rc ? rc : ash_hub_look(hub, l.plan, &l.here, err); /* others may have fetched meanwhile */
    if (!rc) {
        begin_measuring(f);
        rc = ash_hub_fetch(hub, l.plan, watch, &snapshot, err);
        end_measuring(f, l.here.missing, rc != 0);
    }
    rc = rc ? rc : ash_cli_hub_weights(l.plan, snapshot, path, err);
    free(snapshot);
    ash_cli_listing_release(&l);
    ash_hub_close(hub);
    return rc;
}

int ash_cli_weigh(void *user, const char *id, const atomic_bool *cancel, ash_fetch_need *out, ash_err *err)
{
    ash_cli_fetcher *f = user;
    ash_cli_listing l = {0};
    ash_hub *hub = NULL;
    ash_plan_machine machine;
    *out = (ash_fetch_need){0};
    int rc = ash_cli_hub_open(f->cli, &hub, err);
    const ash_hub_watch watch = {.cancel = cancel}; /* a request may wait: it is told soon */
    rc = rc ? rc : list(f, hub, id, &watch, &l, err);
    ash_hub_close(hub);
    if (rc) {
        ash_cli_listing_release(&l);
        return rc;
    }
    ash_plan_machine_gather(f->cli, NULL, false, &machine);
    *out = (ash_fetch_need){
        .bytes = l.here.missing, .disk_free = machine.disk_free, .disk_reserve = machine.disk_reserve};
    keep(f, id, &l);
    return 0;
}

void ash_cli_advise(void *user, const char *id, uint64_t missing, char *text, size_t size)
{
    const ash_cli_fetcher *f = user;
    ash_cli_room_advise(f->cli, id, missing, text, size);
}

int ash_cli_remove(void *user, const char *id, uint64_t *bytes, ash_err *err)
{
    const ash_cli_fetcher *f = user;
    return ash_cli_removal_of(f->cli, id, bytes, err);
}

char *ash_cli_fetch_find(void *user, const char *id)
{
    const ash_cli_fetcher *f = user;
    const ash_catalogue_entry *e = ash_catalogue_find(f->cli->catalogue, id);
    ash_catalogue_place place;
    char *path = NULL;
    if (!e) return NULL; /* of PRELOAD_MODELS, and known to nobody */
    if (!ash_catalogue_locate(f->cli->catalogue, e, true, &place, NULL)) {
        path = place.path;
        place.path = NULL;
    }
    ash_catalogue_place_release(&place);
    return path;
}
