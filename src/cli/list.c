/* Owns `ashley list`: the models of the catalogue and whether they are on this machine; with --disk
 * also what they and all else that is kept take of the disk, and what could go. Changes nothing.
 * Main thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "cli/cli.h"
#include "cli/measure.h"
#include "config/value.h"
#include "format/checkpoint.h"
#include "hub/survey.h"

static json_t *entry_json(const ash_catalogue_entry *e, const ash_catalogue_place *p)
{
    return json_pack("{s:s, s:s?, s:s?, s:s?, s:s?, s:s?, s:s?, s:s?, s:s?}", "id", e->id, "repo",
                     e->repo, "format", e->format, "size", e->size, "description", e->description,
                     "warning", e->warning, "path", p->path, "code", p->path ? NULL : p->code,
                     "reason",
                     e->bad    ? e->bad
                     : p->path ? NULL
                               : p->reason);
}

/* ---- the catalogue ------------------------------------------------------------------------------
 */

/* Bytes of a checkpoint's weight files, by its headers; 0 if they cannot be read. */
static uint64_t weight_bytes(const char *path)
{
    ash_checkpoint *c;
    uint64_t bytes = 0;
    if (ash_checkpoint_open(path, &c, NULL)) return 0;
    for (size_t i = 0; i < c->tensors->n_files; i++) bytes += c->tensors->files[i].map.size;
    ash_checkpoint_close(c);
    return bytes;
}

static void print_entry(const ash_catalogue_entry *e, const ash_catalogue_place *p, bool disk,
                        uint64_t bytes)
{
    char size[16] = "-";
    if (bytes) ash_value_show_bytes(bytes, size);
    if (disk)
        printf("%-32s %9s  %s\n", e->id, size, p->path ? p->path : p->reason);
    else
        printf("%-32s %-8s %-12s %s\n", e->id, e->size ? e->size : "-", e->format ? e->format : "-",
               p->path ? p->path : p->reason);
}

/* Every entry, printed or into `all`. 0 or an exit status. */
static int list_entries(ash_cli *cli, bool disk, json_t *all)
{
    ash_err err = ASH_ERR_INIT;
    size_t n = ash_catalogue_count(cli->catalogue);
    for (size_t i = 0; i < n; i++) {
        const ash_catalogue_entry *e = ash_catalogue_at(cli->catalogue, i);
        ash_catalogue_place place;
        if (ash_catalogue_locate(cli->catalogue, e, true, &place, &err)) return ash_cli_fail(&err);
        uint64_t bytes = disk && place.path ? weight_bytes(place.path) : 0;
        if (all) {
            json_t *o = entry_json(e, &place);
            if (o && disk) json_object_set_new(o, "disk_bytes", json_integer((json_int_t)bytes));
            json_array_append_new(all, o);
        } else {
            print_entry(e, &place, disk, bytes);
        }
        ash_catalogue_place_release(&place);
    }
    return 0;
}

/* ---- the disk -----------------------------------------------------------------------------------
 */

static json_t *repo_json(const ash_hub_use *u)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:s?, s:I, s:I, s:I, s:I, s:I}", "repo", u->repo,
                     "bytes", (json_int_t)u->bytes, "snapshots", (json_int_t)u->n_snapshots,
                     "files", (json_int_t)u->n_files, "broken", (json_int_t)u->n_broken,
                     "first_broken", u->broken, "unused_blobs", (json_int_t)u->n_orphans,
                     "unused_bytes", (json_int_t)u->orphan_bytes, "unfinished",
                     (json_int_t)u->n_partial, "unfinished_bytes", (json_int_t)u->partial_bytes,
                     "lost_refs", (json_int_t)u->n_lost_refs);
}

static void print_repo(const ash_hub_use *u)
{
    char bytes[16], more[16];
    ash_value_show_bytes(u->bytes, bytes);
    printf("%-48s %9s", u->repo, bytes);
    ash_value_show_bytes(u->partial_bytes, more);
    if (u->n_partial) printf("  %s of it unfinished", more);
    ash_value_show_bytes(u->orphan_bytes, more);
    if (u->n_orphans) printf("  %s of it used by nothing", more);
    if (u->n_broken) printf("  %zu files without content", u->n_broken);
    putchar('\n');
}

/* One folder of the state folder: a row, or a member of `out`. */
static void list_folder(const ash_cli *cli, const char *name, const char *what, json_t *out)
{
    char bytes[16];
    size_t n;
    const char *dir = cli->config->state_dir;
    char *path = dir ? ash_fs_join(dir, name) : NULL; /* without a home there is none */
    uint64_t b = path ? ash_measure_folder(path, &n) : 0;
    if (out && path)
        json_object_set_new(out, name,
                            json_pack("{s:s, s:I, s:I}", "path", path, "bytes", (json_int_t)b,
                                      "files", (json_int_t)n));
    ash_value_show_bytes(b, bytes);
    if (!out && path) printf("%-48s %9s  %s\n", what, bytes, path);
    free(path);
}

static void print_rest(const ash_cli *cli, const ash_hub_survey *s)
{
    char bytes[16], all[16];
    uint64_t free_bytes, total;
    const char *hub = cli->config->hub_dir ? cli->config->hub_dir : ".";
    printf("\n%-48s %9s\n", "HUB CACHE", "ON DISK");
    for (size_t i = 0; i < s->n; i++) print_repo(&s->v[i]);
    ash_value_show_bytes(s->removed_bytes, bytes);
    if (s->n_removed)
        printf("%-48s %9s  `ashley rm` takes them away\n", "removals that were cut short", bytes);
    if (!s->n && !s->n_removed) printf("nothing in %s\n", hub);
    printf("\n%-48s %9s\n", "KEPT FOR THE NEXT START", "ON DISK");
    list_folder(cli, "packs", "packed weights", NULL);
    list_folder(cli, "kv", "keys and values of prompts", NULL);
    if (!ash_measure_free(hub, &free_bytes, &total)) return;
    ash_value_show_bytes(free_bytes, bytes);
    ash_value_show_bytes(total, all);
    printf("\n%s of %s are free. `ashley rm MODEL` removes a model of the hub cache and what is "
           "kept of it.\n",
           bytes, all);
}

static json_t *disk_json(const ash_cli *cli, json_t *models, const ash_hub_survey *s)
{
    const char *hub = cli->config->hub_dir;
    uint64_t free_bytes = 0, total = 0;
    bool known = ash_measure_free(hub ? hub : ".", &free_bytes, &total);
    json_t *repos = json_array(), *state = json_object();
    for (size_t i = 0; i < s->n; i++) json_array_append_new(repos, repo_json(&s->v[i]));
    list_folder(cli, "packs", NULL, state);
    list_folder(cli, "kv", NULL, state);
    return json_pack("{s:o, s:{s:s?, s:o, s:I, s:I}, s:o, s:{s:o, s:o}}", "models", models, "cache",
                     "path", hub, "repos", repos, "removed", (json_int_t)s->n_removed,
                     "removed_bytes", (json_int_t)s->removed_bytes, "state", state, "disk", "free",
                     known ? json_integer((json_int_t)free_bytes) : json_null(), "total",
                     known ? json_integer((json_int_t)total) : json_null());
}

int ash_cmd_list(ash_cli *cli)
{
    ash_err err = ASH_ERR_INIT;
    int status = ash_cli_configure(cli);
    if (status) return status;
    bool disk = ash_cli_get(cli, "disk") != NULL;
    json_t *all = cli->json ? json_array() : NULL;
    if (!cli->json && disk) printf("%-32s %9s  %s\n", "MODEL", "WEIGHTS", "ON THIS MACHINE");
    if (!cli->json && !disk)
        printf("%-32s %-8s %-12s %s\n", "MODEL", "SIZE", "FORMAT", "ON THIS MACHINE");
    status = list_entries(cli, disk, all);
    if (status || !disk) {
        if (all && !status) return ash_cli_print_json(all);
        json_decref(all);
        return status;
    }
    ash_hub_survey survey = {0};
    if (cli->config->hub_dir && ash_hub_survey_read(cli->config->hub_dir, &survey, &err)) {
        json_decref(all);
        status = ash_cli_fail(&err);
    } else if (all) {
        status = ash_cli_print_json(disk_json(cli, all, &survey));
    } else {
        print_rest(cli, &survey);
    }
    ash_hub_survey_release(&survey);
    return status;
}
