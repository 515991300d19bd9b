/* Owns `ashley pull`: a model's files from the hub into its cache, with consent where the catalogue
 * warns, progress, and a status that tells a script what went wrong. Main thread; fetching has its
 * own second one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "cli/engine_open.h"
#include "cli/hub.h"
#include "cli/rates.h"
#include "cli/term.h"
#include "config/value.h"

typedef struct pull {
    ash_cli *cli;
    const char *model;
    const ash_catalogue_entry *entry;
    ash_hub *hub;
    ash_cli_listing found;
    ash_hub_proof proof;
    ash_term term;
    char *snapshot;
    int64_t ms;
} pull;

static void on_progress(void *user, const ash_hub_progress *p)
{
    static const char *const names[] = {"fetch", "verify", "wait for another process"};
    pull *a = user;
    a->term.rate = p->stage == ASH_HUB_FETCHING ? p->bytes_per_second : 0;
    a->term.left_ms = p->stage == ASH_HUB_FETCHING ? p->eta_ms : -1;
    a->term.tries = p->trouble ? p->tries : 0;
    a->term.trouble = p->trouble;
    a->term.retry_ms = p->retry_ms;
    ash_term_progress(&a->term, p->stage, names[p->stage], p->bytes_done, p->bytes_total);
}

/* A warning of the catalogue, with this download's own numbers; asked for on a terminal only. */
static int consent(const pull *a, ash_err *err)
{
    char size[16], room[16];
    ash_value_show_bytes(a->found.here.missing, size);
    ash_value_show_bytes(a->found.here.free_disk, room);
    if (!a->entry->warning || a->cli->yes || a->found.here.n_files == a->found.plan->n_files) return 0;
    fprintf(stderr, "%s: %s\n%s: %zu files, %s to fetch; %s free on this disk.\n", a->model,
            a->entry->warning, a->model, a->found.plan->n_files - a->found.here.n_files, size, room);
    if (ash_cli_ask(a->cli, "Fetch it?")) return 0;
    if (atomic_load(ash_cli_interrupt())) return ash_err_set(err, ASH_ECANCELED, "interrupted");
    return ash_err_set(err, ASH_EAUTH, "%s: not fetched without consent: give --yes", a->model);
}

static int report(const pull *a, ash_err *err)
{
    char *path;
    int rc = ash_cli_hub_weights(a->found.plan, a->snapshot, &path, err);
    if (!rc && !a->cli->json) printf("%s\n", path);
    int status = 0;
    if (!rc && a->cli->json)
        status = ash_cli_print_json(json_pack(
            "{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:b}", "model", a->model, "repo",
            a->found.tree->repo, "revision", a->found.tree->revision, "commit", a->found.tree->commit, "path",
            path, "files", (json_int_t)a->found.plan->n_files, "bytes", (json_int_t)a->found.plan->bytes,
            "bytes_fetched", (json_int_t)a->found.here.missing,
            "files_hashed", (json_int_t)a->proof.n_hashed, "files_damaged",
            (json_int_t)a->proof.n_wrong, "seconds", (double)a->ms / 1000, "from_cache",
            a->found.tree->from_cache));
    free(path);
    return rc ? rc : status;
}

static int fetch(pull *a, ash_err *err)
{
    int64_t began = ash_clock_ms();
    ash_hub_watch watch = {.progress = on_progress, .user = a, .cancel = ash_cli_interrupt()};
    ash_term_init(&a->term, a->cli, a->model);
    int rc = ash_cli_hub_open(a->cli, &a->hub, err);
    if (!rc)
        rc = ash_cli_hub_list(a->hub, a->entry, a->model, ash_cli_get(a->cli, "revision"), &watch,
                              &a->found, err);
    if (a->term.drawn) ash_term_done(&a->term); /* before a question */
    bool all = ash_cli_get(a->cli, "verify") != NULL;
    if (!rc) rc = ash_hub_prove(a->hub, a->found.plan, all, &watch, &a->proof, err);
    if (a->proof.n_hashed) ash_term_done(&a->term); /* before a question */
    if (!rc && a->proof.n_wrong) rc = ash_hub_look(a->hub, a->found.plan, &a->found.here, err);
    if (!rc) rc = consent(a, err);
    int64_t listed = ash_clock_ms();
    if (!rc) rc = ash_hub_fetch(a->hub, a->found.plan, &watch, &a->snapshot, err);
    ash_term_done(&a->term);
    a->ms = ash_clock_ms() - began;
    if (!rc) ash_rates_note_fetch(a->cli, a->found.here.missing, ash_clock_ms() - listed);
    return rc;
}

/* A model that is on this machine without the hub (a path, models/) needs no fetching. 1: told where it
 * is. */
static int at_hand(const pull *a, ash_err *err)
{
    ash_catalogue_place place = {0};
    if (a->entry->repo) return 0;
    if (ash_cli_get(a->cli, "verify"))
        return ash_err_set(err, ASH_EINVAL,
                           "%s has no repository to fetch anew from: `ashley verify` checks its files",
                           a->model);
    int rc = ash_catalogue_locate(a->cli->catalogue, a->entry, true, &place, err);
    if (!rc && place.path && !a->cli->json) printf("%s\n", place.path);
    if (!rc && place.path && a->cli->json)
        ash_cli_print_json(json_pack("{s:s, s:s, s:i}", "model", a->model, "path", place.path,
                                     "bytes_fetched", 0));
    rc = rc ? rc : place.path != NULL;
    ash_catalogue_place_release(&place);
    return rc;
}

int ash_cmd_pull(ash_cli *cli)
{
    pull a = {.cli = cli, .model = cli->args[0]};
    ash_err err = ASH_ERR_INIT;
    int status = ash_cli_configure(cli), rc = 0;
    if (status) return status;
    rc = ash_catalogue_resolve(cli->catalogue, a.model, &a.entry, &err);
    if (!rc && (rc = at_hand(&a, &err)) == 1) return 0;
    if (!rc) rc = fetch(&a, &err);
    if (!rc) rc = report(&a, &err);
    if (rc < 0) status = ash_cli_fail(&err);
    if (rc > 0) status = rc;
    if (rc == ASH_ECANCELED) status = ash_cli_interrupt_status();
    free(a.snapshot);
    ash_cli_listing_release(&a.found);
    ash_hub_close(a.hub);
    return status;
}
