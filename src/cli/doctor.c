/* Owns `ashley doctor`: this machine, the configuration and what it will do, each line with what
 * was found or measured and, where something could be better, what to change. Changes nothing. Main
 * thread. */
#include "cli/doctor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/plan_facts.h"
#include "cli/rates.h"
#include "cli/term.h"
#include "config/value.h"

void ash_doctor_tell(ash_doctor *d, ash_doctor_level level, const char *what, const char *advice,
                     const char *fmt, ...)
{
    static const char *const names[] = {"ok", "note", "bad"};
    static const char *const colours[] = {"\033[32m", "\033[33m", "\033[31m"};
    char text[1300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    d->bad += level == ASH_DOCTOR_BAD;
    json_array_append_new(d->all, json_pack("{s:s, s:s, s:s, s:s?}", "level", names[level], "what",
                                            what, "text", text, "advice", advice));
    if (d->cli->json) return;
    bool colour = ash_term_color(d->cli, STDOUT_FILENO);
    printf("%s%-5s%s %-16s %s\n", colour ? colours[level] : "", names[level],
           colour ? "\033[0m" : "", what, text);
    if (advice) printf("%-22s -> %s\n", "", advice);
    fflush(stdout);
}

/* ---- the catalogue ------------------------------------------------------------------------------
 */

/* *file: a file of a model that is here, for the disk's rate; owned, NULL if there is none. */
static void find_catalogue(ash_doctor *d, char **file)
{
    const ash_catalogue *cat = d->cli->catalogue;
    size_t here = 0, n = ash_catalogue_count(cat);
    *file = NULL;
    for (size_t i = 0; i < n; i++) {
        const ash_catalogue_entry *e = ash_catalogue_at(cat, i);
        ash_catalogue_place place;
        if (e->bad)
            ash_doctor_tell(d, ASH_DOCTOR_BAD, "catalogue", "correct the entry", "%s: %s", e->id,
                            e->bad);
        if (!ash_catalogue_locate(cat, e, true, &place, NULL)) {
            here += place.path != NULL;
            if (!*file) {
                *file = place.path;
                place.path = NULL;
            }
        }
        ash_catalogue_place_release(&place);
    }
    ash_doctor_tell(d, here ? ASH_DOCTOR_OK : ASH_DOCTOR_NOTE, "catalogue", NULL,
                    "%s: %zu models, %zu of them on this machine", d->cli->config->models_file, n,
                    here);
}

/* ---- the preload list ---------------------------------------------------------------------------
 */

static const char *preload_advice(const ash_plan_model *m, const ash_plan_entry *e)
{
    if (e->verdict == ASH_PLAN_NO_MEMORY)
        return "out of memory: a smaller ctx, \"kv\":\"q8\", a smaller quantisation or fewer "
               "models; see `ashley plan`";
    if (e->verdict == ASH_PLAN_NO_DISK) return "`ashley list --disk` shows what can go";
    if (e->verdict == ASH_PLAN_CONSENT)
        return "accept its warning: {\"model\":\"...\",\"confirm\":true} in PRELOAD_MODELS";
    return *m->hint ? m->hint : NULL;
}

/* One that the server fetches before it loads it. */
static void find_fetch(ash_doctor *d, const ash_plan_model *m, const ash_plan_entry *e)
{
    char bytes[16] = "?", time[48] = "", advice[240];
    bool offline = d->cli->config->hf_hub_offline;
    if (e->fetch_bytes != ASH_PLAN_UNKNOWN_BYTES) ash_value_show_bytes(e->fetch_bytes, bytes);
    if (e->fetch_seconds > 0.0)
        snprintf(time, sizeof time, ", about %.0f s by the rate of those before", e->fetch_seconds);
    snprintf(advice, sizeof advice, "%s`ashley pull %.120s` beforehand%s", offline ? "" : "slow start: ",
             m->id, offline ? ", or HF_HUB_OFFLINE=0" : "");
    ash_doctor_tell(d, offline ? ASH_DOCTOR_BAD : ASH_DOCTOR_NOTE, "preload", advice,
                    offline ? "%s: not on this machine (%s%s), and HF_HUB_OFFLINE is set"
                            : "%s: %s have to be fetched first%s",
                    m->id, bytes, time);
}

/* A mixture that is larger than its room. */
static void find_experts(ash_doctor *d, const ash_plan_model *m, const ash_plan_entry *e)
{
    char found[80] = "";
    if (e->found_basis != ASH_FIT_ALIKE)
        snprintf(found, sizeof found, ", %.0f %% of those chosen, by earlier runs", 100.0 * e->experts_found);
    ash_doctor_tell(d, ASH_DOCTOR_NOTE, "preload",
                    "slow answers: more memory, or a smaller quantisation; see `ashley plan`",
                    "%s: larger than its room, %.0f %% of its experts are in memory at once%s; the others "
                    "are read from the disk for each token",
                    m->id, 100.0 * e->experts_room, found);
}

/* What the load of one that is here takes: as its last one did, else as the disk's rate says. */
static void find_load(ash_doctor *d, const ash_plan_model *m, const ash_plan_entry *e)
{
    char resident[16], advice[200] = "", time[80] = "";
    int64_t load_ms = d->cli->config->load_ms;
    bool late = load_ms && e->load_seconds * 1e3 > (double)load_ms;
    ash_value_show_bytes(e->resident_bytes, resident);
    if (e->load_measured)
        snprintf(time, sizeof time, "; its last load took %.1f s", e->load_seconds);
    else if (e->load_seconds > 0.0)
        snprintf(time, sizeof time, "; %.1f s to read it from the disk, at least", e->load_seconds);
    if (late)
        snprintf(
            advice, sizeof advice,
            "time-outs: set ASHLEY_LOAD_TIMEOUT to %.0fs or more, or have clients wait for /readyz",
            2.0 * e->load_seconds + 1.0);
    ash_doctor_tell(d, late ? ASH_DOCTOR_NOTE : ASH_DOCTOR_OK, "preload", late ? advice : NULL,
                    "%s: %s of memory with %u tokens of context%s%s", m->id, resident, m->n_ctx,
                    m->measured && !e->streams ? ", as measured" : "", time);
    if (e->streams) find_experts(d, m, e);
}

static void find_preload(ash_doctor *d, const ash_plan_model *m, const ash_plan_entry *e)
{
    bool by_hub = m->entry && m->entry->repo && !m->path;
    if (e->verdict == ASH_PLAN_READY)
        find_load(d, m, e);
    else if (by_hub && (e->verdict == ASH_PLAN_FITS || e->verdict == ASH_PLAN_UNKNOWN))
        find_fetch(d, m, e);
    else
        ash_doctor_tell(d, ASH_DOCTOR_BAD, "preload", preload_advice(m, e), "%s: %s%s%s", m->id,
                        ash_plan_verdict_name(e->verdict), *m->reason ? ": " : "", m->reason);
}

/* A budget that the machine, or a control group, cannot give. */
static void find_budget(ash_doctor *d, uint64_t memory)
{
    uint64_t asked = d->cli->config->memory_budget;
    char a[16], b[16];
    if (asked == ASH_BYTES_AUTO || asked <= memory) return;
    ash_value_show_bytes(asked, a);
    ash_value_show_bytes(memory, b);
    ash_doctor_tell(d, ASH_DOCTOR_NOTE, "memory budget",
                    "out of memory: leave ASHLEY_MEMORY_BUDGET out, or raise MemoryMax= or --memory",
                    "ASHLEY_MEMORY_BUDGET asks for %s; there are %s, and no more is used", a, b);
}

/* The plan of PRELOAD_MODELS, a line each. */
static int find_preloads(ash_doctor *d)
{
    const ash_preloads *list = &d->cli->config->preload;
    ash_plan_model *models = calloc(list->n + 1, sizeof *models);
    ash_plan_facts *facts = calloc(list->n + 1, sizeof *facts);
    ash_plan_entry *entries = calloc(list->n + 1, sizeof *entries);
    ash_plan_machine machine;
    ash_plan_total total;
    ash_err err = ASH_ERR_INIT;
    ash_ledger *ledger = ash_rates_open(d->cli);
    int rc = models && facts && entries ? 0 : ash_err_nomem(&err, "doctor");
    for (size_t i = 0; i < list->n && !rc; i++) {
        models[i] = (ash_plan_model){.id = list->v[i].model, .preload = &list->v[i]};
        rc = ash_plan_model_gather(d->cli, NULL, ledger, &models[i], &err);
        facts[i] = models[i].facts;
    }
    ash_plan_machine_gather(d->cli, ledger, false, &machine);
    if (d->disk_rate > 0.0) machine.read_rate = d->disk_rate;
    if (d->read_gbs > 0.0) machine.memory_rate = d->read_gbs * 1e9;
    ash_rates_note_disk(ledger, d->disk_rate);
    ash_rates_note_memory(ledger, d->read_gbs * 1e9);
    find_budget(d, machine.memory);
    if (!rc) ash_plan_make(&machine, facts, list->n, entries, &total);
    for (size_t i = 0; i < list->n && !rc; i++) find_preload(d, &models[i], &entries[i]);
    if (!rc && !list->n)
        ash_doctor_tell(
            d, ASH_DOCTOR_NOTE, "preload",
            "name models in PRELOAD_MODELS: they then answer at once",
            "PRELOAD_MODELS is empty: the first request of each model waits for its load");
    for (size_t i = 0; models && i < list->n; i++) ash_plan_model_release(&models[i]);
    ash_ledger_close(ledger);
    free(models);
    free(facts);
    free(entries);
    return rc ? ash_cli_fail(&err) : 0;
}

/* ---- the configuration --------------------------------------------------------------------------
 */

static void find_personas(ash_doctor *d)
{
    const ash_config *c = d->cli->config;
    ash_personas *personas = NULL;
    ash_err err = ASH_ERR_INIT;
    size_t n = 0, n_bad = 0;
    if (ash_personas_open(c->personas_dir, NULL, 0, &personas, &err)) {
        ash_doctor_tell(d, ASH_DOCTOR_BAD, "personas", "set ASHLEY_PERSONAS_DIR to a folder", "%s",
                        err.msg);
    } else {
        const ash_persona_bad *bad = ash_personas_bad(personas, &n_bad);
        ash_personas_list(personas, &n);
        for (size_t i = 0; i < n_bad; i++)
            ash_doctor_tell(d, ASH_DOCTOR_BAD, "personas", "correct the file", "%s: %s",
                            bad[i].file, bad[i].reason);
        ash_doctor_tell(d, ASH_DOCTOR_OK, "personas", NULL, "%s: %zu", c->personas_dir, n);
    }
    ash_personas_close(personas);
}

/* Every key that was set: where, and what it does. Values are not shown: some are secret, all are
 * in the place that is named. */
static void find_settings(ash_doctor *d)
{
    const ash_config *c = d->cli->config;
    size_t n;
    const ash_key_info *keys = ash_config_keys(&n);
    if (c->env_file) ash_doctor_tell(d, ASH_DOCTOR_OK, "configuration", NULL, "%s", c->env_file);
    for (size_t i = 0; i < n; i++) {
        const char *origin = ash_config_origin(c, keys[i].key);
        if (!strcmp(origin, "default")) continue;
        ash_doctor_tell(d, keys[i].built ? ASH_DOCTOR_OK : ASH_DOCTOR_NOTE, "setting", NULL,
                        "%s (%s): %s%s", keys[i].key, origin, keys[i].help,
                        keys[i].built ? "" : "; without effect in this version");
    }
    for (size_t i = 0; i < c->n_notices; i++)
        ash_doctor_tell(d, ASH_DOCTOR_NOTE, "configuration", NULL, "%s", c->notices[i]);
}

static void find_upstream(ash_doctor *d)
{
    const ash_config *c = d->cli->config;
    bool needs = !strcmp(c->default_model, "openai") && !c->openai_api_key;
    ash_doctor_tell(
        d, needs ? ASH_DOCTOR_NOTE : ASH_DOCTOR_OK, "upstream",
        needs ? "set OPENAI_API_KEY, or DEFAULT_MODEL to a model of this machine" : NULL,
        "DEFAULT_MODEL=%s, FALLBACK_MODEL=%s at %s, key %s", c->default_model, c->fallback_model,
        c->openai_base_url, c->openai_api_key ? "set" : "not set (OPENAI_API_KEY)");
    ash_doctor_tell(d, ASH_DOCTOR_OK, "address", NULL, "%s:%u, %zu API keys", c->host, c->port,
                    c->api_keys.n);
}

int ash_cmd_doctor(ash_cli *cli)
{
    int status = ash_cli_configure(cli);
    if (status) return status;
    const char *root = ash_cli_get(cli, "root");
    char *file;
    ash_doctor d = {.cli = cli, .root = root ? root : "", .all = json_array()};
    ash_doctor_kernel(&d);
    find_catalogue(&d, &file);
    if (!ash_cli_get(cli, "quick")) ash_doctor_measure(&d, file);
    free(file);
    ash_doctor_disk(&d);
    status = find_preloads(&d);
    find_personas(&d);
    find_upstream(&d);
    find_settings(&d);
    if (cli->json && !status) status = ash_cli_print_json(json_incref(d.all));
    json_decref(d.all);
    return status ? status : d.bad ? ASH_EXIT_FAILED : ASH_EXIT_DONE;
}
