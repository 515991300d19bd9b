/* Owns `ashley rm`: takes a model out of the hub cache, with its packed weights and what is kept of
 * its prompts. Refuses while a server has it in memory or a process fetches it, without consent,
 * and what is not in the cache: those files are the user's. Main thread. */
#include <stdio.h>

#include "cli/removal.h"
#include "config/value.h"

/* ---- what is told -------------------------------------------------------------------------------
 */

static int tell(const ash_cli_removal *r, uint64_t freed, size_t n_kept)
{
    const ash_hub_removal *h = &r->cache;
    char bytes[16];
    if (r->cli->json)
        return ash_cli_print_json(
            json_pack("{s:s, s:I, s:I, s:I, s:b, s:I, s:s?}", "model", r->entry->id, "bytes",
                      (json_int_t)freed, "files", (json_int_t)h->n_files, "blobs",
                      (json_int_t)h->n_blobs, "repository_gone", h->whole, "kept_files",
                      (json_int_t)n_kept, "left", r->cached ? NULL : r->where));
    ash_value_show_bytes(freed, bytes);
    printf("%s: %s are free again (%zu files of the hub cache, %zu that were kept for the next "
           "start)\n",
           r->entry->id, bytes, h->n_files, n_kept);
    if (!r->cached && r->where)
        printf("its own files stay, they are not in the hub cache: %s\n", r->where);
    return ASH_EXIT_DONE;
}

static int consent(const ash_cli_removal *r)
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

static int remove_all(ash_cli_removal *r, ash_err *err)
{
    uint64_t bytes;
    size_t n;
    return ash_cli_removal_run(r, &bytes, &n, err) ? ash_cli_fail(err) : tell(r, bytes, n);
}

static int run(ash_cli_removal *r, ash_err *err)
{
    if (!r->cached && !r->kept.n) {
        fprintf(stderr, "ashley: %s: %s%s\n", r->entry->id,
                r->where ? "its files are not in the hub cache, so they are yours to remove: "
                         : "there is nothing of it on this machine",
                r->where ? r->where : "");
        return r->where ? ASH_EXIT_FAILED : ASH_EXIT_NOT_FOUND;
    }
    int status = consent(r);
    return status ? status : remove_all(r, err);
}

int ash_cmd_rm(ash_cli *cli)
{
    const ash_catalogue_entry *e;
    ash_cli_removal r;
    ash_err err = ASH_ERR_INIT;
    const char *use;
    int status = ash_cli_configure(cli);
    if (status) return status;
    if (ash_catalogue_resolve(cli->catalogue, cli->args[0], &e, &err)) return ash_cli_fail(&err);
    if ((status = ash_cli_server_uses(cli, e->id, e->repo, &use))) return status;
    if (use) {
        fprintf(stderr, "ashley: %s: a running server %s\n", e->id, use);
        return ASH_EXIT_FAILED;
    }
    status = ash_cli_removal_find(cli, e, e->resolved, &r, &err) ? ash_cli_fail(&err) : run(&r, &err);
    ash_cli_removal_release(&r);
    return status;
}
