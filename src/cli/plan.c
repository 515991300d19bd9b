/* Owns `ashley plan`: what the preload list, or the models named, will take of memory, disk and
 * time before anything moves; a verdict each, and the exit status. Reads headers, and some pieces of
 * one file for the rate of its disk. Main thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/measure.h"
#include "cli/plan_facts.h"
#include "cli/rates.h"
#include "config/value.h"

enum { MEASURE_MS = 150 };

typedef struct plan {
    ash_cli *cli;
    ash_plan_machine machine;
    ash_plan_hub hub;
    ash_ledger *ledger; /* or NULL */
    ash_plan_model models[ASH_PLAN_MAX];
    ash_plan_facts facts[ASH_PLAN_MAX];
    ash_plan_entry entries[ASH_PLAN_MAX];
    ash_plan_total total;
    size_t n;
    ash_arena arena; /* of --what-if */
} plan;

/* ---- the list ---------------------------------------------------------------------------------
 */

static const ash_preload *preload_of(const ash_config *c, const char *id)
{
    for (size_t i = 0; i < c->preload.n; i++)
        if (!strcmp(c->preload.v[i].model, id)) return &c->preload.v[i];
    return NULL;
}

static int add_model(plan *p, const char *id)
{
    for (size_t i = 0; i < p->n; i++)
        if (!strcmp(p->models[i].id, id)) return 0;
    if (p->n == ASH_PLAN_MAX) return ash_cli_usage("more than %d models in one plan", ASH_PLAN_MAX);
    p->models[p->n++] = (ash_plan_model){.id = id, .preload = preload_of(p->cli->config, id)};
    return 0;
}

static int remove_model(plan *p, const char *id)
{
    for (size_t i = 0; i < p->n; i++) {
        if (strcmp(p->models[i].id, id)) continue;
        memmove(&p->models[i], &p->models[i + 1], (p->n - i - 1) * sizeof *p->models);
        p->n--;
        return 0;
    }
    return ash_cli_usage("--what-if: '%s' is not in the list, so it cannot be taken out", id);
}

/* "+ID,-ID": an ID without a sign is put in. */
static int what_if(plan *p, const char *text)
{
    const char *const *ids;
    size_t n;
    ash_err err = ASH_ERR_INIT;
    if (ash_value_list(text, &p->arena, &ids, &n, &err)) return ash_cli_fail(&err);
    int status = 0;
    for (size_t i = 0; i < n && !status; i++) {
        const char *id = ids[i] + (ids[i][0] == '+' || ids[i][0] == '-');
        if (!*id) return ash_cli_usage("--what-if is +ID,-ID with commas, not '%s'", text);
        status = ids[i][0] == '-' ? remove_model(p, id) : add_model(p, id);
    }
    return status;
}

static int make_list(plan *p)
{
    const ash_config *c = p->cli->config;
    const char *change = ash_cli_get(p->cli, "what-if");
    int status = 0;
    for (int i = 0; i < p->cli->n_args && !status; i++) status = add_model(p, p->cli->args[i]);
    for (size_t i = 0; i < c->preload.n && !p->cli->n_args && !status; i++)
        status = add_model(p, c->preload.v[i].model);
    return status || !change ? status : what_if(p, change);
}

/* ---- what is told -------------------------------------------------------------------------------
 */

static json_t *bytes_json(uint64_t n)
{
    if (n == ASH_PLAN_UNKNOWN_BYTES) return json_null();
    return json_integer(n < INT64_MAX ? (json_int_t)n : INT64_MAX);
}

static json_t *seconds_json(double s)
{
    return s < 0.0 ? json_null() : json_real(s);
}

static json_t *rate_json(double r)
{
    return r > 0.0 ? json_real(r) : json_null();
}

static double all_seconds(const ash_plan_entry *e)
{
    return e->fetch_seconds < 0.0 || e->load_seconds < 0.0 ? -1.0 : e->fetch_seconds + e->load_seconds;
}

static bool has_sizes(const ash_plan_entry *e)
{
    return e->verdict != ASH_PLAN_ABSENT && e->verdict != ASH_PLAN_REFUSED &&
           e->verdict != ASH_PLAN_NO_ACCESS;
}

/* The catalogue's warning with this machine's own numbers; "" without one. */
static void warning_text(const plan *p, const ash_plan_model *m, char *out, size_t size)
{
    char memory[16], disk[16];
    out[0] = 0;
    if (!m->entry || !m->entry->warning) return;
    ash_value_show_bytes(p->machine.memory, memory);
    ash_value_show_bytes(p->machine.disk_free, disk);
    snprintf(out, size, "%.300s This machine has %s of memory for models and %s of free disk.",
             m->entry->warning, memory, disk);
}

/* Returns the length of the text. */
static int explain_disk(const plan *p, const ash_plan_entry *e, const char *missing, char *out,
                        size_t size)
{
    char fetch[16], pack[16], kept[16];
    ash_value_show_bytes(e->fetch_bytes, fetch);
    ash_value_show_bytes(e->pack_bytes, pack);
    ash_value_show_bytes(p->machine.disk_reserve, kept);
    if (!e->pack_bytes)
        return snprintf(out, size, "%s have to be fetched; %s of disk are missing, with %s kept free", fetch,
                        missing, kept);
    return snprintf(out, size,
                    "larger than memory, it needs a pack file of %s in ASHLEY_STATE_DIR%s%s; of what "
                    "ASHLEY_DISK_BUDGET allows there %s are missing",
                    pack, e->fetch_bytes ? " beside the fetch of " : "", e->fetch_bytes ? fetch : "",
                    missing);
}

/* Why a verdict is no good, and what to do; "" where there is nothing to say. */
static void explain(const plan *p, size_t i, char *reason, size_t n_reason, char *hint, size_t n_hint)
{
    const ash_plan_model *m = &p->models[i];
    const ash_plan_entry *e = &p->entries[i];
    char missing[16], have[16], need[16];
    ash_value_show_bytes(e->short_bytes, missing);
    snprintf(reason, n_reason, "%s", m->reason);
    snprintf(hint, n_hint, "%s", m->hint);
    if (e->verdict == ASH_PLAN_NO_MEMORY) {
        ash_value_show_bytes(p->machine.memory, have);
        ash_value_show_bytes(e->resident_bytes, need);
        snprintf(reason, n_reason, "needs %s of memory; of %s for models it lacks %s", need, have, missing);
        snprintf(hint, n_hint,
                 "a smaller ctx, \"kv\":\"q8\", a smaller quantisation, or fewer models (--what-if -ID)");
    } else if (e->verdict == ASH_PLAN_NO_DISK) {
        int at = explain_disk(p, e, missing, reason, n_reason);
        ash_value_show_bytes(e->resident_bytes, need);
        ash_value_show_bytes(p->machine.memory, have);
        if (e->resident_bytes != ASH_PLAN_UNKNOWN_BYTES && e->resident_bytes > p->machine.memory)
            snprintf(reason + at, n_reason - (size_t)at,
                     "; and it needs %s of memory, of %s for models", need, have);
        snprintf(hint, n_hint, "%s`ashley list --disk` shows what can go",
                 e->pack_bytes ? "raise ASHLEY_DISK_BUDGET; " : "");
    } else if (e->verdict == ASH_PLAN_CONSENT) {
        snprintf(reason, n_reason, "nobody has accepted its warning");
        snprintf(hint, n_hint,
                 "accept it with --yes, or with \"confirm\":true in its entry of PRELOAD_MODELS");
    } else if (e->verdict == ASH_PLAN_UNKNOWN) {
        snprintf(reason, n_reason, "%s; the catalogue does not say its size", m->reason);
    }
}

static void set(json_t *o, const char *key, bool known, json_t *value)
{
    json_object_set_new(o, key, known ? value : json_null());
    if (!known) json_decref(value);
}

static void set_text(json_t *o, const char *key, const char *text)
{
    json_object_set_new(o, key, text && *text ? json_string(text) : json_null());
}

/* Where the figures are from, and what a mixture larger than its room does. */
static void add_basis(const plan *p, size_t i, json_t *o)
{
    const ash_plan_model *m = &p->models[i];
    const ash_plan_entry *e = &p->entries[i];
    bool sizes = has_sizes(e) && e->resident_bytes != ASH_PLAN_UNKNOWN_BYTES;
    bool rate = e->tokens_per_second > 0.0, fetched = e->fetch_bytes && e->fetch_seconds >= 0.0;
    set_text(o, "memory_basis", !sizes ? NULL : m->measured && !e->streams ? "measured" : "estimated");
    set_text(o, "load_basis", !has_sizes(e) || e->load_seconds < 0.0 ? NULL
                              : e->load_measured                     ? "measured"
                                                                     : "disk rate");
    set_text(o, "fetch_basis", has_sizes(e) && fetched ? "fetch rate" : NULL);
    set(o, "beyond_bytes", m->measured, json_integer(m->beyond_bytes));
    set(o, "streams", true, json_boolean(e->streams));
    set(o, "pack_bytes", sizes, bytes_json(e->pack_bytes));
    set(o, "experts_room", e->streams, json_real(e->experts_room));
    set(o, "experts_found", e->streams, json_real(e->experts_found));
    set_text(o, "experts_basis", e->streams ? ash_fit_basis_name(e->found_basis) : NULL);
    set(o, "tokens_per_second", has_sizes(e) && rate, json_real(e->tokens_per_second));
}

static json_t *model_json(const plan *p, size_t i)
{
    const ash_plan_model *m = &p->models[i];
    const ash_plan_entry *e = &p->entries[i];
    char warning[480], reason[600], hint[480];
    bool sizes = has_sizes(e), headers = m->weight_bytes != 0;
    warning_text(p, m, warning, sizeof warning);
    explain(p, i, reason, sizeof reason, hint, sizeof hint);
    json_t *o = json_object();
    set_text(o, "model", m->id);
    set_text(o, "verdict", ash_plan_verdict_name(e->verdict));
    set(o, "files", m->files, json_integer((json_int_t)m->files));
    set(o, "bytes_to_fetch", sizes, bytes_json(e->fetch_bytes));
    set(o, "disk_after", true, bytes_json(e->disk_after));
    set(o, "peak_bytes", sizes, bytes_json(e->peak_bytes));
    set(o, "resident_bytes", sizes, bytes_json(e->resident_bytes));
    set(o, "evicts", true, json_array()); /* a preload evicts none */
    set(o, "seconds", sizes, seconds_json(all_seconds(e)));
    set(o, "fetch_seconds", sizes, seconds_json(e->fetch_seconds));
    set(o, "load_seconds", sizes, seconds_json(e->load_seconds));
    set_text(o, "warning", warning);
    set_text(o, "reason", reason);
    set_text(o, "hint", hint);
    set_text(o, "path", m->path);
    set_text(o, "basis", m->basis);
    set(o, "pin", true, json_boolean(m->facts.pin));
    set(o, "required", true, json_boolean(m->facts.required));
    set(o, "weight_bytes", headers, bytes_json(m->weight_bytes));
    set(o, "kv_bytes", headers, bytes_json(e->kv_bytes));
    set(o, "scratch_bytes", headers, bytes_json(m->scratch_bytes));
    set(o, "draft_bytes", headers, bytes_json(e->draft_bytes));
    set(o, "n_ctx", headers, json_integer(m->n_ctx));
    add_basis(p, i, o);
    return o;
}

static json_t *plan_json(const plan *p)
{
    const ash_plan_machine *h = &p->machine;
    const ash_plan_total *t = &p->total;
    json_t *models = json_array();
    for (size_t i = 0; i < p->n; i++) json_array_append_new(models, model_json(p, i));
    return json_pack("{s:{s:o, s:o, s:o, s:o, s:o, s:o, s:o}, s:o, s:{s:o, s:o, s:o, s:o, s:o}, s:b}",
                     "machine", "memory_bytes", bytes_json(h->memory), "disk_free", bytes_json(h->disk_free),
                     "disk_reserve", bytes_json(h->disk_reserve), "pack_room", bytes_json(h->state_free),
                     "read_rate", rate_json(h->read_rate), "fetch_rate", rate_json(h->fetch_rate),
                     "memory_rate", rate_json(h->memory_rate), "models", models, "total", "bytes_to_fetch",
                     bytes_json(t->fetch_bytes), "disk_after", bytes_json(t->disk_after), "peak_bytes",
                     bytes_json(t->peak_bytes), "resident_bytes", bytes_json(t->resident_bytes), "seconds",
                     seconds_json(t->seconds), "fits", t->fits);
}

/* ---- the table ----------------------------------------------------------------------------------
 */

/* What is estimated has a ~ before it. */
static const char *bytes_cell(bool known, bool estimated, uint64_t n, char out[24])
{
    char text[16];
    if (!known || n == ASH_PLAN_UNKNOWN_BYTES) return memcpy(out, "?", 2);
    if (!n) return memcpy(out, "-", 2);
    ash_value_show_bytes(n, text);
    snprintf(out, 24, "%s%s", estimated ? "~" : "", text);
    return out;
}

static const char *seconds_cell(double s, bool estimated, char out[24])
{
    const char *mark = estimated && s > 0.0 ? "~" : "";
    if (s < 0.0)
        memcpy(out, "?", 2);
    else if (s < 120.0)
        snprintf(out, 24, "%s%.1f s", mark, s);
    else if (s < 7200.0)
        snprintf(out, 24, "%s%.0f min", mark, s / 60.0);
    else
        snprintf(out, 24, "%s%.1f h", mark, s / 3600.0);
    return out;
}

/* Where all weights are in memory its rate is the most that is possible. */
static const char *rate_cell(double per_second, bool streams, char out[24])
{
    if (per_second > 0.0)
        snprintf(out, 24, "%c%.*f", streams ? '~' : '<', per_second < 9.95 ? 1 : 0, per_second);
    else
        memcpy(out, "?", 2);
    return out;
}

/* One line of the table. */
typedef struct row {
    const char *name, *verdict;
    bool known, about_memory, about_time; /* sizes; they, and the time, are estimated */
    uint64_t fetch, after, peak, resident;
    double seconds, tokens_per_second;
    bool streams, no_rate; /* of a sum there is no rate */
} row;

static void print_row(const row *r)
{
    char a[24], b[24], c[24], d[24], e[24], f[24];
    printf("%-32s %-19s %9s %11s %9s %9s %9s %9s\n", r->name, r->verdict,
           bytes_cell(r->known, false, r->fetch, a), bytes_cell(true, false, r->after, b),
           bytes_cell(r->known, r->about_memory, r->peak, c),
           bytes_cell(r->known, r->about_memory, r->resident, d),
           r->known ? seconds_cell(r->seconds, r->about_time, e) : "?",
           r->no_rate ? "-" : r->known ? rate_cell(r->tokens_per_second, r->streams, f) : "?");
}

/* What a mixture that is larger than its room will do. */
static void print_experts(const ash_plan_entry *e)
{
    char pack[16];
    ash_value_show_bytes(e->pack_bytes, pack);
    if (!e->streams) return;
    printf("  larger than its room: experts come and go, %.0f %% of them are in memory at once;",
           100.0 * e->experts_room);
    if (e->pack_bytes) printf(" its pack file takes %s of disk;", pack);
    if (e->found_basis == ASH_FIT_ALIKE)
        printf(" tokens/s if all are\n  chosen alike, more where some are chosen more\n");
    else
        printf(" tokens/s with\n  %.0f %% of those chosen found there, as measured%s\n",
               100.0 * e->experts_found,
               e->found_basis == ASH_FIT_MEASURED ? " before" : " in other rooms");
}

/* What it does not get of what it likes. */
static void print_less(const ash_plan_facts *f, const ash_plan_entry *e)
{
    char pool[16], usual[16];
    if (e->verdict != ASH_PLAN_READY && e->verdict != ASH_PLAN_FITS) return;
    ash_value_show_bytes(e->kv_bytes, pool);
    ash_value_show_bytes(f->kv_bytes, usual);
    if (e->kv_bytes < f->kv_bytes)
        printf("  a KV pool of %s instead of %s, which the memory has room for\n", pool, usual);
    if (e->draft_bytes < f->draft_bytes) printf("  without its draft model, for which there is no room\n");
}

static void print_entry(const plan *p, size_t i)
{
    const ash_plan_model *m = &p->models[i];
    const ash_plan_entry *e = &p->entries[i];
    char warning[480], reason[600], hint[480];
    print_row(&(row){.name = m->id,
                     .verdict = ash_plan_verdict_name(e->verdict),
                     .known = has_sizes(e),
                     .about_memory = !m->measured || e->streams,
                     .about_time = !e->load_measured || e->fetch_bytes,
                     .fetch = e->fetch_bytes,
                     .after = e->disk_after,
                     .peak = e->peak_bytes,
                     .resident = e->resident_bytes,
                     .seconds = all_seconds(e),
                     .tokens_per_second = e->tokens_per_second,
                     .streams = e->streams});
    if (has_sizes(e)) print_experts(e);
    print_less(&p->facts[i], e);
    warning_text(p, m, warning, sizeof warning);
    explain(p, i, reason, sizeof reason, hint, sizeof hint);
    if (*warning) printf("  warning: %s\n", warning);
    if (*reason) printf("  %s\n", reason);
    if (*hint && e->verdict != ASH_PLAN_READY) printf("  %s\n", hint);
    if (m->basis && !strcmp(m->basis, "catalogue")) printf("  sizes as the catalogue says them\n");
}

static const char *per_second(double rate, char out[16])
{
    if (rate > 0.0)
        ash_value_show_bytes((uint64_t)rate, out);
    else
        memcpy(out, "?", 2);
    return out;
}

static void print_machine(const plan *p)
{
    const ash_plan_machine *h = &p->machine;
    char a[16], b[16], c[16];
    ash_value_show_bytes(h->memory, a);
    ash_value_show_bytes(h->disk_free, b);
    ash_value_show_bytes(h->disk_reserve, c);
    printf("\n%s of memory for models; %s of free disk, of which %s stay free\n", a, b, c);
    printf("measured, a second: %s from the disk, which a load takes at least; %s of downloads; %s from "
           "memory\n",
           per_second(h->read_rate, a), per_second(h->fetch_rate, b), per_second(h->memory_rate, c));
    printf("~ is estimated, by headers and these rates; < is the most; without either: measured by a load\n");
}

static void print_plan(const plan *p)
{
    const ash_plan_total *t = &p->total;
    bool about_memory = false, about_time = false;
    printf("%-32s %-19s %9s %11s %9s %9s %9s %9s\n", "MODEL", "VERDICT", "FETCH", "DISK AFTER", "PEAK",
           "RESIDENT", "TIME", "TOKENS/S");
    for (size_t i = 0; i < p->n; i++) {
        const ash_plan_entry *e = &p->entries[i];
        print_entry(p, i);
        about_memory = about_memory || !p->models[i].measured || e->streams;
        about_time = about_time || !e->load_measured || e->fetch_bytes;
    }
    if (!p->n) printf("PRELOAD_MODELS is empty; `ashley plan MODEL...` plans any models\n");
    print_row(&(row){.name = "all that fit",
                     .verdict = t->fits ? "" : "not all fit",
                     .known = true,
                     .about_memory = about_memory,
                     .about_time = about_time,
                     .fetch = t->fetch_bytes,
                     .after = t->disk_after,
                     .peak = t->peak_bytes,
                     .resident = t->resident_bytes,
                     .seconds = t->seconds,
                     .no_rate = true});
    print_machine(p);
}

/* ---- the command --------------------------------------------------------------------------------
 */

static int gather(plan *p)
{
    ash_err err = ASH_ERR_INIT;
    double disk = 0.0;
    p->ledger = ash_rates_open(p->cli);
    ash_plan_machine_gather(p->cli, p->ledger, p->n > 0, &p->machine);
    for (size_t i = 0; i < p->n; i++) {
        bool ask = !p->cli->config->hf_hub_offline;
        int rc = ash_plan_model_gather(p->cli, ask ? &p->hub : NULL, p->ledger, &p->models[i], &err);
        if (rc == ASH_ECANCELED) return 130;
        if (rc) return ash_cli_fail(&err);
        p->facts[i] = p->models[i].facts;
        const char *path = p->models[i].path;
        if (path && disk <= 0.0) disk = ash_measure_disk(path, MEASURE_MS);
    }
    if (disk > 0.0) p->machine.read_rate = disk;
    ash_rates_note_disk(p->ledger, disk);
    return 0;
}

/* The worst that is true of any entry: a script looks at one number. */
static int exit_status(const plan *p)
{
    static const struct {
        ash_plan_verdict verdict;
        int status;
    } order[] = {{ASH_PLAN_NO_MEMORY, ASH_EXIT_NO_ROOM}, {ASH_PLAN_NO_DISK, ASH_EXIT_NO_ROOM},
                 {ASH_PLAN_ABSENT, ASH_EXIT_NOT_FOUND},  {ASH_PLAN_REFUSED, ASH_EXIT_BAD_INPUT},
                 {ASH_PLAN_NO_ACCESS, ASH_EXIT_AUTH},    {ASH_PLAN_CONSENT, ASH_EXIT_AUTH},
                 {ASH_PLAN_UNKNOWN, ASH_EXIT_NOT_FOUND}};
    for (size_t k = 0; k < sizeof order / sizeof *order; k++)
        for (size_t i = 0; i < p->n; i++)
            if (p->entries[i].verdict == order[k].verdict) return order[k].status;
    return ASH_EXIT_DONE;
}

int ash_cmd_plan(ash_cli *cli)
{
    int status = ash_cli_configure(cli);
    if (status) return status;
    plan *p = calloc(1, sizeof *p);
    ash_err err = ASH_ERR_INIT;
    if (!p) return ash_cli_fail((ash_err_nomem(&err, "plan"), &err));
    p->cli = cli;
    ash_arena_init(&p->arena, ASH_MAX_CONFIG_MEMORY);
    status = make_list(p);
    if (!status) status = gather(p);
    if (!status) {
        ash_plan_make(&p->machine, p->facts, p->n, p->entries, &p->total);
        if (cli->json)
            status = ash_cli_print_json(plan_json(p));
        else
            print_plan(p);
        status = status ? status : exit_status(p);
    }
    ash_hub_close(p->hub.hub);
    ash_ledger_close(p->ledger);
    for (size_t i = 0; i < p->n; i++) ash_plan_model_release(&p->models[i]);
    ash_arena_release(&p->arena);
    free(p);
    return status;
}
