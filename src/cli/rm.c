/* Owns `ashley rm`: takes a model out of the hub cache, with its packed weights and what is kept of
 * its prompts. Refuses while a server has it in memory or a process fetches it, without consent,
 * and what is not in the cache: those files are the user's. Main thread. */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "cli/cli.h"
#include "cli/engine_open.h"
#include "config/value.h"
#include "engine/state_files.h"
#include "format/checkpoint.h"
#include "hub/survey.h"

typedef struct removal {
    ash_cli *cli;
    const ash_catalogue_entry *entry;
    const char *where; /* its files, or the folder of a part of them; NULL: none */
    char commit[41];   /* its snapshot in the cache; "": none */
    bool cached;       /* the cache has its repository, and its files are there or nowhere */
    ash_hub_removal cache;
    ash_state_files kept;
} removal;

/* ---- what is meant ------------------------------------------------------------------------------
 */

/* Of a repository with several GGUF files only those that the entry names go. */
static bool names_file(void *user, const char *rel)
{
    const ash_catalogue_entry *e = user;
    const char *slash = strrchr(rel, '/'), *name = slash ? slash + 1 : rel;
    for (size_t i = 0; i < e->n_files; i++)
        if (!fnmatch(e->files[i], rel, FNM_CASEFOLD) || !fnmatch(e->files[i], name, FNM_CASEFOLD))
            return true;
    return false;
}

static int remove_cached(const removal *r, bool dry, ash_hub_removal *out, ash_err *err)
{
    bool some = r->entry->n_files && !strcmp(r->entry->format, "gguf");
    return ash_hub_remove(r->cli->config->hub_dir, r->entry->repo, *r->commit ? r->commit : NULL,
                          some && *r->commit ? names_file : NULL, (void *)(uintptr_t)r->entry, dry,
                          out, err);
}

/* What a fetch has left of the entry's revision, or of a repository that has none: no other
 * revision is touched. */
static bool has_remains(removal *r, const char *base)
{
    char *path;
    ash_hub_survey survey;
    if (!ash_checkpoint_snapshot(base, r->entry->revision, &path, NULL)) {
        snprintf(r->commit, sizeof r->commit, "%.40s", path + strlen(base) + strlen("/snapshots/"));
        free(path);
        return true;
    }
    bool none = !ash_hub_survey_read(r->cli->config->hub_dir, &survey, NULL);
    const ash_hub_use *u = none ? ash_hub_survey_find(&survey, r->entry->repo) : NULL;
    none = u && !u->n_snapshots;
    ash_hub_survey_release(&survey);
    return none;
}

/* .../HUB/models--ORG--NAME/snapshots/COMMIT...: the entry's own place in the cache. */
static bool in_cache(removal *r)
{
    const char *hub = r->cli->config->hub_dir, *repo = r->entry->repo,
               *slash = repo ? strchr(repo, '/') : NULL;
    char base[4096];
    if (!hub || !slash) return false;
    size_t n = (size_t)snprintf(base, sizeof base, "%s/models--%.*s--%s", hub, (int)(slash - repo),
                                repo, slash + 1);
    if (n >= sizeof base || !ash_fs_is_dir(base)) return false;
    if (!r->where) return has_remains(r, base);
    if (strncmp(r->where, base, n)) return false;
    static const char below[] = "/snapshots/";
    const char *commit =
        strncmp(r->where + n, below, sizeof below - 1) ? "" : r->where + n + sizeof below - 1;
    if (strspn(commit, "0123456789abcdef") >= 40)
        snprintf(r->commit, sizeof r->commit, "%.40s", commit);
    return true;
}

static int find_kept(removal *r, const char *path, ash_err *err)
{
    const ash_config *c = r->cli->config;
    ash_engine_opts o = {.path = path,
                         .ctx = r->entry->context,
                         .kv_q8 = ash_cli_kv_q8(r->cli, r->entry, NULL),
                         .cpu = c->cpu,
                         .state_dir = c->state_dir};
    ash_err own = ASH_ERR_INIT;
    int rc = path ? ash_state_files_find(&o, &r->kept, &own) : 0;
    return rc == ASH_ENOMEM ? ash_err_nomem(err, "files of the state folder")
                            : 0; /* unreadable: none kept */
}

/* ---- what is told -------------------------------------------------------------------------------
 */

static int tell(const removal *r, uint64_t kept_bytes, size_t n_kept)
{
    const ash_hub_removal *h = &r->cache;
    char bytes[16];
    if (r->cli->json)
        return ash_cli_print_json(
            json_pack("{s:s, s:I, s:I, s:I, s:b, s:I, s:s?}", "model", r->entry->id, "bytes",
                      (json_int_t)(h->bytes + kept_bytes), "files", (json_int_t)h->n_files, "blobs",
                      (json_int_t)h->n_blobs, "repository_gone", h->whole, "kept_files",
                      (json_int_t)n_kept, "left", r->cached ? NULL : r->where));
    ash_value_show_bytes(h->bytes + kept_bytes, bytes);
    printf("%s: %s are free again (%zu files of the hub cache, %zu that were kept for the next "
           "start)\n",
           r->entry->id, bytes, h->n_files, n_kept);
    if (!r->cached && r->where)
        printf("its own files stay, they are not in the hub cache: %s\n", r->where);
    return ASH_EXIT_DONE;
}

static int consent(const removal *r)
{
    char bytes[16], question[640];
    ash_value_show_bytes(r->cache.bytes + r->kept.bytes, bytes);
    snprintf(question, sizeof question, "remove %.300s: %zu files, %s?", r->entry->id,
             r->cache.n_files + r->kept.n, bytes);
    if (r->cli->yes || ash_cli_ask(r->cli, question)) return 0;
    fprintf(stderr, "ashley: nothing was removed; --yes removes %zu files, %s\n",
            r->cache.n_files + r->kept.n, bytes);
    return ASH_EXIT_AUTH;
}

/* ---- the command --------------------------------------------------------------------------------
 */

/* What is kept goes first: without the files nobody could tell whose it is. */
static int remove_all(removal *r, ash_err *err)
{
    uint64_t bytes;
    size_t n;
    ash_state_files_remove(&r->kept, &n, &bytes);
    int rc = r->cached ? remove_cached(r, false, &r->cache, err) : 0;
    return rc ? ash_cli_fail(err) : tell(r, bytes, n);
}

static int run(removal *r, const char *path)
{
    ash_err err = ASH_ERR_INIT;
    bool used;
    int status = ash_cli_server_uses(r->cli, r->entry->id, r->entry->repo, &used);
    if (status) return status;
    if (used) {
        fprintf(stderr, "ashley: a running server has %s in memory; `ashley unload %s` first\n",
                r->entry->id, r->entry->id);
        return ASH_EXIT_FAILED;
    }
    if (r->cli->config->hub_dir) ash_hub_clean(r->cli->config->hub_dir);
    r->cached = in_cache(r);
    if (find_kept(r, path, &err)) return ash_cli_fail(&err);
    if (r->cached && remove_cached(r, true, &r->cache, &err)) return ash_cli_fail(&err);
    if (!r->cached && !r->kept.n) {
        fprintf(stderr, "ashley: %s: %s%s\n", r->entry->id,
                r->where ? "its files are not in the hub cache, so they are yours to remove: "
                         : "there is nothing of it on this machine",
                r->where ? r->where : "");
        return r->where ? ASH_EXIT_FAILED : ASH_EXIT_NOT_FOUND;
    }
    status = consent(r);
    return status ? status : remove_all(r, &err);
}

int ash_cmd_rm(ash_cli *cli)
{
    removal r = {.cli = cli};
    ash_catalogue_place place = {0};
    ash_err err = ASH_ERR_INIT;
    int status = ash_cli_configure(cli);
    if (status) return status;
    if (ash_catalogue_resolve(cli->catalogue, cli->args[0], &r.entry, &err) ||
        ash_catalogue_locate(cli->catalogue, r.entry, true, &place, &err)) {
        ash_catalogue_place_release(&place);
        return ash_cli_fail(&err);
    }
    r.where = place.path ? place.path : place.partial;
    status = run(&r, place.path);
    ash_state_files_release(&r.kept);
    ash_catalogue_place_release(&place);
    return status;
}
