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
    ash_hub_pin *pins;
    ash_hub_tree *tree;
    ash_hub_plan *plan;
    ash_hub_here here;
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
    ash_term_progress(&a->term, p->stage, names[p->stage], p->bytes_done, p->bytes_total);
}

/* A warning of the catalogue, with this download's own numbers; asked for on a terminal only. */
static int consent(const pull *a, ash_err *err)
{
    char size[16], room[16];
    ash_value_show_bytes(a->here.missing, size);
    ash_value_show_bytes(a->here.free_disk, room);
    if (!a->entry->warning || a->cli->yes || a->here.n_files == a->plan->n_files) return 0;
    fprintf(stderr, "%s: %s\n%s: %zu files, %s to fetch; %s free on this disk.\n", a->model,
            a->entry->warning, a->model, a->plan->n_files - a->here.n_files, size, room);
    if (ash_cli_ask(a->cli, "Fetch it?")) return 0;
    if (atomic_load(ash_cli_interrupt())) return ash_err_set(err, ASH_ECANCELED, "interrupted");
    return ash_err_set(err, ASH_EAUTH, "%s: not fetched without consent: give --yes", a->model);
}

static int report(const pull *a, ash_err *err)
{
    ash_buf path;
    ash_buf_init(&path, 1u << 16);
    ash_buf_adds(&path, a->snapshot);
    if (a->plan->weights) ash_buf_printf(&path, "/%s", a->plan->weights);
    int rc = ash_buf_check(&path, "a path", err);
    if (!rc && !a->cli->json) printf("%s\n", path.data);
    int status = 0;
    if (!rc && a->cli->json)
        status = ash_cli_print_json(json_pack(
            "{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:b}", "model", a->model, "repo",
            a->tree->repo, "revision", a->tree->revision, "commit", a->tree->commit, "path",
            path.data, "files", (json_int_t)a->plan->n_files, "bytes", (json_int_t)a->plan->bytes,
            "bytes_fetched", (json_int_t)a->here.missing,
            "files_hashed", (json_int_t)a->proof.n_hashed, "files_damaged",
            (json_int_t)a->proof.n_wrong, "seconds", (double)a->ms / 1000, "from_cache",
            a->tree->from_cache));
    ash_buf_release(&path);
    return rc ? rc : status;
}

static int fetch(pull *a, ash_err *err)
{
    ash_hub_want want;
    const char *revision = ash_cli_get(a->cli, "revision");
    int64_t began = ash_clock_ms();
    int rc = ash_cli_hub_want(a->entry, a->model, &want, &a->pins, err);
    if (!rc) rc = ash_cli_hub_open(a->cli, &a->hub, err);
    if (!rc)
        rc = ash_hub_list(a->hub, a->entry->repo, revision ? revision : a->entry->revision,
                          ash_cli_interrupt(), &a->tree, err);
    if (!rc) rc = ash_hub_choose(a->tree, &want, &a->plan, err);
    ash_hub_watch watch = {.progress = on_progress, .user = a, .cancel = ash_cli_interrupt()};
    ash_term_init(&a->term, a->cli, a->model);
    bool all = ash_cli_get(a->cli, "verify") != NULL;
    if (!rc) rc = ash_hub_prove(a->hub, a->plan, all, &watch, &a->proof, err);
    if (a->proof.n_hashed) ash_term_done(&a->term); /* before a question */
    if (!rc) rc = ash_hub_look(a->hub, a->plan, &a->here, err);
    if (!rc) rc = consent(a, err);
    int64_t listed = ash_clock_ms();
    if (!rc) rc = ash_hub_fetch(a->hub, a->plan, &watch, &a->snapshot, err);
    ash_term_done(&a->term);
    a->ms = ash_clock_ms() - began;
    if (!rc) ash_rates_note_fetch(a->cli, a->here.missing, ash_clock_ms() - listed);
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
    free(a.pins);
    ash_hub_plan_close(a.plan);
    ash_hub_tree_close(a.tree);
    ash_hub_close(a.hub);
    return status;
}
