/* Owns the commands that look and change nothing: list, doctor, version; show and verify have files
 * of their own. */
#include <jansson.h>
#include <microhttpd.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/curl.h"
#include "base/fs.h"
#include "cli/cli.h"
#include "cli/term.h"
#include "config/value.h"
#include "engine/engine.h"
#include "kernel/kernel.h"
#include "residency/memory.h"

int ash_cli_print_json(json_t *v)
{
    ash_err err = ASH_ERR_INIT;
    if (!v) return ash_cli_fail((ash_err_nomem(&err, "JSON"), &err));
    json_dumpf(v, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(v);
    return ASH_EXIT_DONE;
}

/* ---- list -------------------------------------------------------------------------------------
 */

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

int ash_cmd_list(ash_cli *cli)
{
    ash_err err = ASH_ERR_INIT;
    int status = ash_cli_configure(cli);
    if (status) return status;
    json_t *all = cli->json ? json_array() : NULL;
    size_t n = ash_catalogue_count(cli->catalogue);
    if (!cli->json) printf("%-32s %-8s %-12s %s\n", "MODEL", "SIZE", "FORMAT", "ON THIS MACHINE");
    for (size_t i = 0; i < n && !status; i++) {
        const ash_catalogue_entry *e = ash_catalogue_at(cli->catalogue, i);
        ash_catalogue_place place;
        if (ash_catalogue_locate(cli->catalogue, e, true, &place, &err)) {
            status = ash_cli_fail(&err);
            break;
        }
        if (cli->json)
            json_array_append_new(all, entry_json(e, &place));
        else
            printf("%-32s %-8s %-12s %s\n", e->id, e->size ? e->size : "-",
                   e->format ? e->format : "-", place.path ? place.path : place.reason);
        ash_catalogue_place_release(&place);
    }
    if (cli->json && !status) return ash_cli_print_json(all);
    json_decref(all);
    return status;
}

/* ---- doctor -----------------------------------------------------------------------------------
 */

typedef struct findings {
    json_t *all;
    const ash_cli *cli;
    int bad;
} findings;

/* level: "ok", "note", "bad". */
static void find(findings *f, const char *level, const char *what, const char *text)
{
    bool colour = ash_term_color(f->cli, STDOUT_FILENO), ok = !strcmp(level, "ok"),
         bad = !strcmp(level, "bad");
    f->bad += bad;
    json_array_append_new(f->all,
                          json_pack("{s:s, s:s, s:s}", "level", level, "what", what, "text", text));
    if (!f->cli->json)
        printf("%s%-5s%s %-14s %s\n",
               !colour ? ""
               : ok    ? "\033[32m"
               : bad   ? "\033[31m"
                       : "\033[33m",
               level, colour ? "\033[0m" : "", what, text);
}

static void find_machine(findings *f, const ash_config *c)
{
    char text[256], room[16];
    const ash_cpu *cpu = ash_cpu_get();
    snprintf(text, sizeof text, "%s, %d threads, kernel set %s", cpu->name, ash_cpu_threads(),
             ash_kernel_get(c->cpu)->name);
    find(f, c->cpu == ASH_CPU_SCALAR ? "note" : "ok", "processor", text);
    ash_value_show_bytes(ash_memory_available(), room);
    snprintf(text, sizeof text, "%s free for models", room);
    find(f, "ok", "memory", text);
}

static void find_models(findings *f, const ash_catalogue *cat, const ash_config *c)
{
    char text[1300];
    size_t here = 0, n = ash_catalogue_count(cat);
    for (size_t i = 0; i < n; i++) {
        const ash_catalogue_entry *e = ash_catalogue_at(cat, i);
        ash_catalogue_place place;
        if (e->bad) {
            snprintf(text, sizeof text, "%s: %s", e->id, e->bad);
            find(f, "bad", "catalogue", text);
        }
        if (ash_catalogue_locate(cat, e, true, &place, NULL)) continue;
        here += place.path != NULL;
        ash_catalogue_place_release(&place);
    }
    snprintf(text, sizeof text, "%s: %zu models, %zu of them on this machine", c->models_file, n,
             here);
    find(f, here ? "ok" : "note", "catalogue", text);
    for (size_t i = 0; i < c->preload.n; i++) {
        const char *id = c->preload.v[i].model;
        const ash_catalogue_entry *e = ash_catalogue_find(cat, id);
        ash_catalogue_place place = {0};
        if (!e && !strchr(id, '/') && !strstr(id, ".gguf")) {
            const char *near = ash_catalogue_nearest(cat, id);
            snprintf(text, sizeof text, "%s is not in the catalogue%s%s", id,
                     near ? "; nearest is " : "", near ? near : "");
            find(f, "bad", "preload", text);
            continue;
        }
        if (e && !ash_catalogue_locate(cat, e, c->preload.v[i].confirm, &place, NULL) &&
            !place.path) {
            snprintf(text, sizeof text, "%s: %s; %s", id, place.reason, place.hint);
            find(f, "bad", "preload", text);
        } else {
            find(f, "ok", "preload", id);
        }
        ash_catalogue_place_release(&place);
    }
}

static void find_rest(findings *f, const ash_config *c)
{
    char text[1300];
    ash_personas *personas = NULL;
    ash_err err = ASH_ERR_INIT;
    size_t n = 0, n_bad = 0;
    if (ash_personas_open(c->personas_dir, NULL, 0, &personas, &err)) {
        find(f, "bad", "personas", err.msg);
    } else {
        const ash_persona_bad *bad = ash_personas_bad(personas, &n_bad);
        ash_personas_list(personas, &n);
        for (size_t i = 0; i < n_bad; i++) {
            snprintf(text, sizeof text, "%s: %s", bad[i].file, bad[i].reason);
            find(f, "bad", "personas", text);
        }
        snprintf(text, sizeof text, "%s: %zu", c->personas_dir, n);
        find(f, "ok", "personas", text);
    }
    ash_personas_close(personas);
    bool needs = !strcmp(c->default_model, "openai");
    snprintf(text, sizeof text, "DEFAULT_MODEL=%s, FALLBACK_MODEL=%s at %s, key %s",
             c->default_model, c->fallback_model, c->openai_base_url,
             c->openai_api_key ? "set" : "not set (OPENAI_API_KEY)");
    find(f, needs && !c->openai_api_key ? "note" : "ok", "upstream", text);
    snprintf(text, sizeof text, "%s:%u, %zu API keys", c->host, c->port, c->api_keys.n);
    find(f, "ok", "address", text);
    if (c->env_file) find(f, "ok", "configuration", c->env_file);
    for (size_t i = 0; i < c->n_notices; i++) find(f, "note", "configuration", c->notices[i]);
}

int ash_cmd_doctor(ash_cli *cli)
{
    int status = ash_cli_configure(cli);
    if (status) return status;
    findings f = {.all = json_array(), .cli = cli};
    find_machine(&f, cli->config);
    find_models(&f, cli->catalogue, cli->config);
    find_rest(&f, cli->config);
    if (cli->json) ash_cli_print_json(json_incref(f.all));
    json_decref(f.all);
    return f.bad ? ASH_EXIT_FAILED : ASH_EXIT_DONE;
}

/* ---- version ----------------------------------------------------------------------------------
 */

int ash_cmd_version(ash_cli *cli)
{
    char pcre[64] = "";
    const char *curl = "missing";
    ash_curl lib;
    ash_err err = ASH_ERR_INIT;
    const ash_cpu *cpu = ash_cpu_get();
    if (!ash_curl_open(&lib, &err)) curl = lib.version_info(CURLVERSION_NOW)->version;
    pcre2_config(PCRE2_CONFIG_VERSION, pcre);
    pcre[strcspn(pcre, " ")] = 0;
    if (cli->json)
        return ash_cli_print_json(json_pack(
            "{s:s, s:s, s:s, s:{s:s, s:s, s:s, s:s, s:s}}", "version", ASHLEY_VERSION, "kernels",
            ash_cpu_level_name(cpu->level), "processor", cpu->name, "libraries", "libmicrohttpd",
            MHD_get_version(), "libcurl", curl, "jansson",
            jansson_version_str(), "sqlite", sqlite3_libversion(), "pcre2", pcre));
    printf("ashley %s (kernel set %s; libmicrohttpd %s, libcurl %s, jansson %s, sqlite %s, pcre2 "
           "%s)\n",
           ASHLEY_VERSION, ash_cpu_level_name(cpu->level), MHD_get_version(),
           curl, jansson_version_str(), sqlite3_libversion(), pcre);
    return ASH_EXIT_DONE;
}
