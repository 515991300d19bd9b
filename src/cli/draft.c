/* Owns the search for draft models and what `show` tells of them. Refuses ids that the catalogue does not
 * have. Main thread. */
#include "cli/draft.h"

#include <stdlib.h>

#include "engine/draft_model.h"

int ash_cli_draft_find(const ash_cli *cli, const ash_catalogue_entry *entry, const ash_preload *preload,
                       ash_cli_draft *out, ash_err *err)
{
    *out = (ash_cli_draft){.id = preload && preload->draft ? preload->draft : entry->draft};
    if (!out->id || !*out->id) {
        out->id = NULL;
        return 0;
    }
    const ash_catalogue_entry *e = ash_catalogue_find(cli->catalogue, out->id);
    if (!e) {
        const char *near = ash_catalogue_nearest(cli->catalogue, out->id);
        snprintf(out->reason, sizeof out->reason, "the catalogue has no model '%s'%s%s%s", out->id,
                 near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
        return 0;
    }
    ash_catalogue_place place;
    ash_err why = ASH_ERR_INIT;
    int rc = ash_catalogue_locate(cli->catalogue, e, cli->yes || (preload && preload->confirm), &place, &why);
    if (rc == ASH_ENOMEM)
        ash_err_nomem(err, "draft model");
    else
        snprintf(out->reason, sizeof out->reason, "%s", rc ? why.msg : place.reason);
    if (!rc) {
        out->path = place.path;
        place.path = NULL;
    }
    ash_catalogue_place_release(&place);
    return rc == ASH_ENOMEM ? rc : 0;
}

void ash_cli_draft_release(ash_cli_draft *d)
{
    free(d->path);
    d->path = NULL;
}

/* Bytes of the draft model beside m, whose vocabulary it has. */
static int weigh(const ash_cli_draft *d, const ash_model *m, const ash_checkpoint *files, bool kv_q8,
                 ash_cpu_level cpu, uint64_t *bytes, ash_err *err)
{
    ash_checkpoint *own = NULL;
    ash_tokenizer *mine = NULL, *its = NULL;
    ash_engine_opts o = {.draft_path = d->path, .kv_q8 = kv_q8, .cpu = cpu};
    int rc = ash_draft_model_plan(&o, m->sizes.n_ctx, bytes, err);
    rc = rc ? rc : ash_checkpoint_open(d->path, &own, err);
    rc = rc ? rc : ash_tokenizer_open(own, &its, err);
    rc = rc ? rc : ash_tokenizer_open(files, &mine, err);
    rc = rc ? rc : ash_draft_vocabulary(mine, its, err);
    ash_tokenizer_close(mine);
    ash_tokenizer_close(its);
    ash_checkpoint_close(own);
    return rc;
}

void ash_cli_draft_describe(const ash_cli_draft *d, const ash_model *m, const ash_checkpoint *files,
                            bool kv_q8, ash_cpu_level cpu, json_t *out)
{
    ash_err err = ASH_ERR_INIT;
    uint64_t bytes = 0;
    const char *refused = d->path ? NULL : d->reason;
    if (!d->id)
        return;
    if (d->path && weigh(d, m, files, kv_q8, cpu, &bytes, &err)) {
        refused = err.msg;
        bytes = 0;
    }
    json_int_t memory = json_integer_value(json_object_get(out, "memory_bytes"));
    json_object_set_new(out, "draft", json_string(d->id));
    json_object_set_new(out, "draft_bytes", json_integer((json_int_t)bytes));
    json_object_set_new(out, "memory_bytes", json_integer(memory + (json_int_t)bytes));
    if (refused)
        json_object_set_new(out, "draft_refused", json_string(refused));
}
