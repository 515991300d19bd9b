/* Owns the gathering of a plan's facts. Refuses nothing but want of memory: a model that cannot be read, or
 * is not there, is a fact with its reason. Reads headers, indexes and configurations. Main thread. */
#include "cli/plan_facts.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "cli/draft.h"
#include "cli/engine_open.h"
#include "cli/measure.h"
#include "cli/plan_hub.h"
#include "cli/rates.h"
#include "engine/draft_model.h"
#include "engine/model.h"
#include "engine/pack_room.h"
#include "residency/budget.h"
#include "residency/measure.h"

enum { LOAD_BYTES = 32 << 20 }; /* of source in flight beside the packed weights (engine/model.h) */

#define DISK_RESERVE ((uint64_t)4 << 30) /* or a twentieth of the disk, where that is less */

static void say(ash_plan_model *m, const char *reason, const char *hint)
{
    snprintf(m->reason, sizeof m->reason, "%.*s", (int)sizeof m->reason - 1, reason);
    snprintf(m->hint, sizeof m->hint, "%.*s", (int)sizeof m->hint - 1, hint);
}

/* The draft model beside m, as the manager would open it: none if it does not do. *path: where it is, owned,
 * or NULL. */
static int add_draft(ash_cli *cli, ash_plan_model *m, char **path, ash_err *err)
{
    ash_cli_draft draft;
    ash_engine_opts o = {.kv_q8 = m->kv_q8, .cpu = cli->config->cpu};
    int rc = cli->config->prediction ? ash_cli_draft_find(cli, m->entry, m->preload, &draft, err) : 0;
    if (rc || !cli->config->prediction) return rc;
    ash_err own = ASH_ERR_INIT;
    o.draft_path = draft.path;
    if (draft.path && ash_draft_model_plan(&o, m->n_ctx, &m->draft_bytes, &own)) {
        m->draft_bytes = 0;
        if (own.code == ASH_ENOMEM) rc = ash_err_nomem(err, "draft model");
    }
    *path = draft.path;
    draft.path = NULL;
    ash_cli_draft_release(&draft);
    return rc;
}

static void take_sizes(ash_plan_model *m, const ash_model *model)
{
    const ash_engine_plan *p = &model->sizes.plan;
    m->weight_bytes = p->weight_bytes;
    m->scratch_bytes = p->scratch_bytes;
    m->n_ctx = p->n_ctx;
    m->facts.kv_bytes = p->kv_bytes;
    m->facts.kv_least = p->kv_least;
    m->facts.load_bytes = LOAD_BYTES;
    m->facts.read_bytes = p->file_bytes;
    m->facts.token_bytes = model->net->binding.step_bytes;
}

/* Of a mixture whose experts can come and go, what that takes. Files that are not all here have no pack. */
static int take_experts(const ash_engine_opts *o, ash_plan_model *m, const ash_model *model, bool here,
                        ash_err *err)
{
    ash_packs *packs = NULL;
    const ash_engine_plan *p = &model->sizes.plan;
    if (p->weights_least >= p->weight_bytes) return 0;
    m->facts.expert_bytes = model->experts.experts;
    m->facts.expert_least = p->weights_least - model->experts.fixed;
    m->facts.token_expert_bytes = model->net->binding.step_expert_bytes;
    if (!ash_pack_file_size(p->weight_bytes, &m->facts.pack_bytes)) m->facts.pack_bytes = p->weight_bytes;
    int rc = here ? ash_packs_open(o->state_dir, o->disk_budget, model->files, model->net, &packs, err) : 0;
    if (!rc && ash_packs_present(packs)) m->facts.pack_bytes = 0;
    ash_packs_close(packs);
    return rc;
}

/* What an earlier load of these files was measured to take. */
static void take_measured(const ash_cli *cli, ash_ledger *ledger, ash_plan_model *m, const char *path,
                          const char *draft_path, const ash_engine_plan *sizes)
{
    ash_engine_plan plan = *sizes;
    ash_measured known;
    const ash_measure_of of = {.id = m->entry->id,
                               .path = path,
                               .cpu = cli->config->cpu,
                               .kv_q8 = m->kv_q8,
                               .draft_path = draft_path};
    plan.draft_bytes = m->draft_bytes;
    ash_measure_find(ledger, &of, &plan, &known);
    m->measured = known.memory;
    m->beyond_bytes = known.beyond;
    m->facts.load_seconds = known.seconds;
    ash_measure_find_found(ledger, &of, plan.file_bytes, &m->facts.found);
}

/* Bytes of the declared tensors in files that are not there, and of all. */
static void missing_bytes(const ash_tensor_index *idx, uint64_t *missing, uint64_t *all)
{
    bool here = false;
    uint32_t last = UINT32_MAX; /* tensors come file by file: a file is looked at once */
    *missing = *all = 0;
    for (size_t i = 0; i < idx->n_tensors; i++) {
        const ash_tensor *t = &idx->tensors[i];
        if (t->file != last) here = ash_fs_is_file(idx->files[t->file].path);
        last = t->file;
        *all += t->bytes;
        if (!here) *missing += t->bytes;
    }
}

/* Sizes from the files, all of them or, place->path NULL, the index of those that are not there. */
static int read_headers(ash_cli *cli, ash_ledger *ledger, ash_plan_model *m, const ash_catalogue_place *place,
                        ash_err *err)
{
    ash_checkpoint *files;
    ash_model *model = NULL;
    char *draft = NULL;
    const char *path = place->path ? place->path : place->partial;
    uint32_t ctx = m->preload && m->preload->ctx ? m->preload->ctx : m->entry->context;
    const ash_manager_opts manager = ash_cli_manager_opts(cli->config);
    ash_engine_opts o = {.path = path,
                         .ctx = ctx,
                         .kv_q8 = m->kv_q8,
                         .state_dir = manager.state_dir,
                         .disk_budget = manager.disk_budget,
                         .cpu = cli->config->cpu};
    int rc = place->path ? ash_checkpoint_open(path, &files, err) : ash_checkpoint_declare(path, &files, err);
    if (!rc) rc = ash_model_plan(&o, files, &model, err);
    if (rc) return rc;
    m->basis = place->path ? "headers" : "index";
    m->files = model->files->tensors->n_files;
    take_sizes(m, model);
    rc = take_experts(&o, m, model, place->path != NULL, err);
    if (!place->path) missing_bytes(model->files->tensors, &m->facts.fetch_bytes, &m->facts.read_bytes);
    if (!rc) rc = add_draft(cli, m, &draft, err);
    if (!rc && place->path) take_measured(cli, ledger, m, path, draft, &model->sizes.plan);
    m->facts.fixed_bytes = (m->weight_bytes + m->scratch_bytes + m->draft_bytes) + (uint64_t)m->beyond_bytes;
    m->facts.draft_bytes = m->draft_bytes;
    free(draft);
    ash_model_close(model);
    return rc;
}

/* Of files that are not here: what the catalogue says, if it does. */
static void take_declared(ash_plan_model *m, const ash_catalogue_place *place)
{
    const ash_catalogue_entry *e = m->entry;
    m->facts.fetch_bytes = e->disk ? e->disk : ASH_PLAN_UNKNOWN_BYTES;
    m->facts.fixed_bytes = e->memory ? e->memory : ASH_PLAN_UNKNOWN_BYTES;
    m->facts.read_bytes = m->facts.fetch_bytes;
    m->facts.kv_bytes = m->facts.kv_least = 0; /* in what the catalogue calls memory */
    m->files = place->n_files;
    m->basis = e->disk || e->memory ? "catalogue" : NULL;
}

/* ---- at the hub ---------------------------------------------------------------------------------
 */

/* A reader's message without the name of the temporary folder; msg is cut in place. */
static const char *without_folder(char *msg, const char *folder)
{
    size_t n = folder ? strlen(folder) : 0;
    for (char *at; n && (at = strstr(msg, folder));) {
        size_t skip = n + (at[n] == '/');
        memmove(at, at + skip, strlen(at + skip) + 1);
    }
    return msg;
}

/* Sizes from the headers, which are read to their end in steps. */
static int read_remote(ash_cli *cli, ash_plan_model *m, ash_plan_remote *r, ash_err *err)
{
    static const size_t heads[] = {1 << 20, 8 << 20, ASH_MAX_HUB_PEEK};
    int rc = 0;
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        ash_err own = ASH_ERR_INIT;
        rc = ash_plan_remote_head(r, heads[i], &own);
        if (!rc && !r->declared && !*r->path)
            rc = ash_err_set(&own, ASH_EUNSUPPORTED, "headers of PyTorch files are not read at the hub");
        ash_catalogue_place place = {.path = r->declared ? NULL : r->path, .partial = r->folder};
        bool read = !rc;
        if (!rc) rc = read_headers(cli, NULL, m, &place, &own);
        if (rc) ash_err_set(err, rc, "%s", without_folder(own.msg, r->folder));
        if (!read || rc != ASH_EFORMAT || r->declared) break; /* a header that was cut is malformed */
    }
    return rc;
}

/* What stands in the way of a listing. */
static void take_failure(ash_plan_hub *hub, ash_plan_model *m, int rc, const char *why)
{
    m->facts.no_access = rc == ASH_EAUTH;
    m->facts.absent = rc == ASH_ENOENT;
    m->facts.refused = rc == ASH_EFORMAT || rc == ASH_EINVAL;
    hub->unreachable = rc == ASH_ENET || rc == ASH_ETIMEDOUT;
    say(m, why, m->facts.no_access ? "set HF_TOKEN to a token that may read it" : "");
}

/* Facts of what is not here. ASH_EAGAIN: the hub says nothing, and m is as it was but for the reason. */
static int ask_hub(ash_cli *cli, ash_plan_hub *hub, ash_plan_model *m, ash_err *err)
{
    ash_plan_remote r = {0};
    ash_err why = ASH_ERR_INIT;
    int rc = hub->hub ? 0 : ash_cli_hub_open(cli, &hub->hub, &why);
    if (!rc) rc = ash_plan_remote_open(hub->hub, m->entry, m->id, &r, &why);
    const ash_hub_tree *tree = r.found.tree;
    if (!rc && !tree->whole) rc = ash_err_set(&why, ASH_ENET, "%s", tree->why ? tree->why : "offline");
    if (rc == ASH_ENOMEM || rc == ASH_ECANCELED) {
        *err = why;
    } else if (rc) {
        take_failure(hub, m, rc, why.msg);
        rc = m->facts.no_access || m->facts.absent || m->facts.refused ? 0 : ASH_EAGAIN;
    } else if ((rc = read_remote(cli, m, &r, &why)) == ASH_ENOMEM || rc == ASH_ECANCELED) {
        *err = why;
    } else if (rc == ASH_EAUTH) { /* a gated repository is listed to everyone */
        take_failure(hub, m, rc, why.msg);
        rc = 0;
    } else {
        if (rc) { /* packed weights take about what their files do */
            m->facts.fixed_bytes = r.weight_bytes;
            m->facts.kv_bytes = m->facts.kv_least = 0;
            m->basis = "listing";
        }
        say(m, rc ? why.msg : "", "");
        m->facts.refused = rc == ASH_EUNSUPPORTED && *r.path; /* its headers were read, and will not do */
        m->facts.fetch_bytes = r.found.here.missing;
        m->facts.read_bytes = r.weight_bytes;
        m->files = r.n_files;
        rc = 0;
    }
    ash_plan_remote_release(&r);
    return rc;
}

/* ---- a model ------------------------------------------------------------------------------------
 */

static int place_facts(ash_cli *cli, ash_plan_hub *hub, ash_ledger *ledger, ash_plan_model *m,
                       ash_catalogue_place *place, ash_err *err)
{
    ash_err why = ASH_ERR_INIT;
    bool refused = !place->path && strcmp(place->code, "not_downloaded");
    int rc = 0;
    if (!place->path) say(m, place->reason, place->hint);
    m->facts.refused = refused;
    if (refused) return 0;
    if (!place->path && hub && !hub->unreachable && m->entry->repo &&
        (rc = ask_hub(cli, hub, m, err)) != ASH_EAGAIN)
        return rc;
    rc = 0;
    if (place->path || place->partial) rc = read_headers(cli, ledger, m, place, &why);
    if (rc == ASH_ENOMEM) return ash_err_nomem(err, m->id);
    if (rc && place->path) {
        m->facts.refused = true;
        say(m, why.msg, "choose another file of this model");
    }
    if (!place->path && (rc || !place->partial)) {
        if (!m->entry->repo) m->facts.absent = true;
        take_declared(m, place);
    }
    return 0;
}

int ash_plan_model_gather(ash_cli *cli, ash_plan_hub *hub, ash_ledger *ledger, ash_plan_model *m,
                          ash_err *err)
{
    ash_catalogue_place place = {0};
    ash_err why = ASH_ERR_INIT;
    const ash_preload *p = m->preload;
    m->facts = (ash_plan_facts){.pin = !p || p->pin, .required = !p || p->required};
    int rc = ash_catalogue_resolve(cli->catalogue, m->id, &m->entry, &why);
    if (rc == ASH_ENOMEM) return ash_err_nomem(err, m->id);
    if (rc) {
        m->entry = NULL;
        m->facts.absent = true;
        say(m, why.msg, "correct the name, or add it to the catalogue");
        return 0;
    }
    m->kv_q8 = ash_cli_kv_q8(cli, m->entry, p);
    m->facts.needs_consent = m->entry->warning && !cli->yes && !(p && p->confirm);
    rc = ash_catalogue_locate(cli->catalogue, m->entry, true, &place, &why);
    if (rc == ASH_ENOMEM)
        ash_err_nomem(err, m->id);
    else if (rc)
        m->facts.absent = true, say(m, why.msg, ""), rc = 0;
    else
        rc = place_facts(cli, hub, ledger, m, &place, err);
    m->path = place.path;
    place.path = NULL;
    ash_catalogue_place_release(&place);
    return rc;
}

void ash_plan_model_release(ash_plan_model *m)
{
    free(m->path);
    m->path = NULL;
}

/* The device of a path, or of its nearest folder that exists. */
static bool device_of(const char *path, dev_t *out)
{
    struct stat st;
    char at[4096];
    if (strlen(path) >= sizeof at) return false;
    memcpy(at, path, strlen(path) + 1);
    while (stat(at, &st)) {
        char *slash = strrchr(at, '/');
        if (!slash || slash == at) return false;
        *slash = 0;
    }
    *out = st.st_dev;
    return true;
}

/* What pack files may take more, as engine/packs.h shares the budget out. */
static void take_state(const char *models, const ash_manager_opts *o, ash_plan_machine *out)
{
    uint64_t free_bytes, total;
    size_t n;
    dev_t a, b;
    char *packs = o->state_dir ? ash_fs_join(o->state_dir, "packs") : NULL;
    if (packs && ash_measure_free(o->state_dir, &free_bytes, &total)) {
        uint64_t held = ash_measure_folder(packs, &n), budget = o->disk_budget - o->disk_budget / 4;
        out->state_free = ash_pack_budget(budget, free_bytes, held); /* packs not in use give way */
        out->one_disk = device_of(models, &a) && device_of(o->state_dir, &b) && a == b;
        out->fetch_share = out->one_disk && !budget ? ASH_PACK_SHARE : 0;
    }
    free(packs);
}

void ash_plan_machine_gather(const ash_cli *cli, ash_ledger *ledger, bool measure, ash_plan_machine *out)
{
    const ash_config *c = cli->config;
    uint64_t free_bytes, total;
    const ash_manager_opts o = ash_cli_manager_opts(c);
    ash_budget budget = {.limit = o.memory_budget};
    ash_memory now;
    ash_memory_read("", &now);
    *out = (ash_plan_machine){.memory = ash_budget_bytes(&budget, &now),
                              .fetch_rate = ash_rates_fetch(ledger),
                              .read_rate = ash_rates_disk(ledger)};
    out->memory_rate = ash_rates_memory(ledger, measure ? out->memory : 0);
    if (ash_measure_free(c->hub_dir ? c->hub_dir : ".", &free_bytes, &total)) {
        out->disk_free = free_bytes;
        out->disk_reserve = DISK_RESERVE < total / 20 ? DISK_RESERVE : total / 20;
    }
    take_state(c->hub_dir ? c->hub_dir : ".", &o, out);
}
