/* Owns the search for what is a model's, and its removal. Refuses what is not in the cache: those files
 * are the user's. */
#include "cli/removal.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "cli/engine_open.h"
#include "format/checkpoint.h"

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

static int remove_cached(const ash_cli_removal *r, bool dry, ash_hub_removal *out, ash_err *err)
{
    bool some = r->entry->n_files && !strcmp(r->entry->format, "gguf");
    return ash_hub_remove(r->cli->config->hub_dir, r->entry->repo, *r->commit ? r->commit : NULL,
                          some && *r->commit ? names_file : NULL, (void *)(uintptr_t)r->entry, dry,
                          out, err);
}

/* Whether the repository has a name of a revision: a fetch gives it at its end. */
static bool has_revisions(const char *base)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/refs", base);
    DIR *d = opendir(path);
    const struct dirent *e;
    bool any = false;
    while (d && !any && (e = readdir(d))) any = e->d_name[0] != '.';
    if (d) closedir(d);
    return any;
}

/* What a fetch has left of the entry's revision, or of a repository that has none: but for `others`, no
 * other revision is touched. The first fetch of a repository, unfinished, is the only one that it has. */
static bool has_remains(ash_cli_removal *r, const char *base)
{
    char *path;
    ash_hub_survey survey;
    if (!ash_checkpoint_snapshot(base, r->entry->revision, &path, NULL)) {
        snprintf(r->commit, sizeof r->commit, "%.40s", path + strlen(base) + strlen("/snapshots/"));
        free(path);
        return true;
    }
    if (r->others) return true;
    bool none = !ash_hub_survey_read(r->cli->config->hub_dir, &survey, NULL);
    const ash_hub_use *u = none ? ash_hub_survey_find(&survey, r->entry->repo) : NULL;
    none = u && (!u->n_snapshots || (u->n_snapshots == 1 && u->n_partial && !has_revisions(base)));
    ash_hub_survey_release(&survey);
    return none;
}

/* .../HUB/models--ORG--NAME/snapshots/COMMIT...: the entry's own place in the cache. */
static bool in_cache(ash_cli_removal *r)
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

static int find_kept(ash_cli_removal *r, const char *path, ash_err *err)
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

int ash_cli_removal_find(const ash_cli *cli, const ash_catalogue_entry *entry, bool others,
                         ash_cli_removal *out, ash_err *err)
{
    *out = (ash_cli_removal){.cli = cli, .entry = entry, .others = others && !entry->n_files};
    int rc = ash_catalogue_locate(cli->catalogue, entry, true, &out->place, err);
    if (rc) return rc;
    out->where = out->place.path ? out->place.path : out->place.partial;
    if (cli->config->hub_dir) ash_hub_clean(cli->config->hub_dir);
    out->cached = in_cache(out);
    rc = find_kept(out, out->place.path, err);
    if (!rc && out->cached) rc = remove_cached(out, true, &out->cache, err);
    return rc;
}

/* What is kept goes first: without the files nobody could tell whose it is. */
int ash_cli_removal_run(ash_cli_removal *r, uint64_t *bytes, size_t *n_kept, ash_err *err)
{
    ash_state_files_remove(&r->kept, n_kept, bytes);
    int rc = r->cached ? remove_cached(r, false, &r->cache, err) : 0;
    if (!rc) *bytes += r->cache.bytes;
    return rc;
}

void ash_cli_removal_release(ash_cli_removal *r)
{
    ash_state_files_release(&r->kept);
    ash_catalogue_place_release(&r->place);
}

int ash_cli_removal_of(const ash_cli *cli, const char *id, uint64_t *bytes, ash_err *err)
{
    const ash_catalogue_entry *e = ash_catalogue_find(cli->catalogue, id);
    ash_cli_removal r;
    size_t n_kept;
    *bytes = 0;
    if (!e) return ash_err_set(err, ASH_ENOENT, "no model '%s' in the catalogue", id);
    int rc = ash_cli_removal_find(cli, e, false, &r, err);
    if (!rc && !r.cached)
        rc = r.where ? ash_err_set(err, ASH_EINVAL,
                                   "the files of '%s' are not in the hub cache, so they are yours to "
                                   "remove: %s",
                                   id, r.where)
                     : ash_err_set(err, ASH_ENOENT, "there is nothing of '%s' on this machine", id);
    rc = rc ? rc : ash_cli_removal_run(&r, bytes, &n_kept, err);
    ash_cli_removal_release(&r);
    return rc;
}
