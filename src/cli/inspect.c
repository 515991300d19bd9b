/* Owns the commands that look and change nothing: list, show, doctor, version. */
#include <curl/curl.h>
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
#include "base/fs.h"
#include "cli/cli.h"
#include "cli/term.h"
#include "config/value.h"
#include "engine/engine.h"
#include "residency/memory.h"

static int print_json(json_t *v)
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
    if (cli->json && !status) return print_json(all);
    json_decref(all);
    return status;
}

/* ---- show -------------------------------------------------------------------------------------
 */

static void show_text(const char *key, const char *value)
{
    if (value && *value) printf("%-16s %s\n", key, value);
}

static void show_bytes(const char *key, uint64_t bytes)
{
    char text[16];
    ash_value_show_bytes(bytes, text);
    printf("%-16s %s (%llu bytes)\n", key, text, (unsigned long long)bytes);
}

static json_t *gguf_value(const ash_gguf_kv *kv)
{
    switch (kv->type) {
    case ASH_GGUF_STRING:
        return kv->bytes > 400 ? json_sprintf("(%llu bytes)", (unsigned long long)kv->bytes)
                               : json_stringn((const char *)kv->data, kv->bytes);
    case ASH_GGUF_ARRAY:
        return json_sprintf("%s[%llu]", ash_gguf_type_name(kv->array.type),
                            (unsigned long long)kv->array.n);
    default:
        break;
    }
    ash_gguf_array one = {.type = kv->type, .n = 1, .data = kv->data, .bytes = kv->bytes};
    if (kv->type == ASH_GGUF_BOOL) return json_boolean(ash_gguf_array_i64(&one, 0));
    if (kv->type == ASH_GGUF_F32 || kv->type == ASH_GGUF_F64)
        return json_real(ash_gguf_array_f64(&one, 0));
    return json_integer(ash_gguf_array_i64(&one, 0));
}

static json_t *metadata(const ash_gguf *g)
{
    json_t *o = json_object();
    for (size_t i = 0; i < ash_gguf_kv_count(g); i++) {
        const ash_gguf_kv *kv = ash_gguf_kv_at(g, i);
        char key[256];
        snprintf(key, sizeof key, "%.*s", (int)kv->key.n, kv->key.p);
        json_t *v = gguf_value(kv);
        json_object_set_new(o, key, v ? v : json_null());
    }
    return o;
}

/* Tensor types by bytes: {"Q4_1": 91000000, ...}. */
static json_t *types(const ash_gguf *g)
{
    json_t *o = json_object();
    const ash_tensor_index *idx = ash_gguf_tensors(g);
    for (size_t i = 0; i < idx->n_tensors; i++) {
        const char *name = ash_dtype_get(idx->tensors[i].dtype)->name;
        json_int_t sum = json_integer_value(json_object_get(o, name));
        json_object_set_new(o, name, json_integer(sum + (json_int_t)idx->tensors[i].bytes));
    }
    return o;
}

static uint64_t parameters(const ash_gguf *g)
{
    uint64_t n = 0;
    const ash_tensor_index *idx = ash_gguf_tensors(g);
    for (size_t i = 0; i < idx->n_tensors; i++) n += ash_tensor_count(&idx->tensors[i]);
    return n;
}

static void show_people(const ash_catalogue_entry *e, const char *path, const ash_gguf *g,
                        const ash_engine_plan *plan, const json_t *meta, const json_t *kinds)
{
    const char *key, *arch = json_string_value(json_object_get(meta, "general.architecture"));
    json_t *v;
    ash_str template = {0};
    bool has = !ash_gguf_get_str(g, "tokenizer.chat_template", &template, NULL) && template.n;
    show_text("model", e->id);
    show_text("description", e->description);
    show_text("repository", e->repo);
    show_text("file", path);
    printf("%-16s GGUF version %u\n", "format", ash_gguf_version(g));
    show_text("architecture", arch);
    printf("%-16s %.1f million\n", "parameters", (double)parameters(g) * 1e-6);
    printf("%-16s ", "tensor types");
    json_object_foreach((json_t *)kinds, key, v)
        printf("%s %.1f MB  ", key, (double)json_integer_value(v) * 1e-6);
    putchar('\n');
    if (plan) {
        printf("%-16s %u tokens\n", "context", plan->n_ctx);
        show_bytes("file size", plan->file_bytes);
        show_bytes("weights, packed", plan->weight_bytes);
        show_bytes("KV cache", plan->kv_bytes);
        show_bytes("scratch", plan->scratch_bytes);
    }
    printf("%-16s %s\n", "template",
           e->template_text ? "of the catalogue"
           : has            ? "GGUF key tokenizer.chat_template"
                            : "none");
    show_text("warning", e->warning);
}

int ash_cmd_show(ash_cli *cli)
{
    char *path;
    const ash_catalogue_entry *e;
    ash_gguf *g = NULL;
    ash_err err = ASH_ERR_INIT, why = ASH_ERR_INIT;
    ash_engine_plan plan;
    int status = ash_cli_locate(cli, cli->args[0], &path, &e);
    if (status) return status;
    if (ash_gguf_open(path, &g, &err)) {
        free(path);
        return ash_cli_fail(&err);
    }
    ash_engine_opts o = {.path = path, .ctx = e->context, .cpu = cli->config->cpu};
    bool runs = ash_engine_plan_read(&o, &plan, &why) == 0;
    json_t *meta = metadata(g), *kinds = types(g);
    if (cli->json) {
        json_t *v =
            json_pack("{s:s, s:s, s:s?, s:O, s:O, s:I, s:s?}", "id", e->id, "path", path, "repo",
                      e->repo, "tensor_types", kinds, "metadata", meta, "parameters",
                      (json_int_t)parameters(g), "refused", runs ? NULL : why.msg);
        if (v && runs)
            json_object_update_new(
                v, json_pack("{s:I, s:I, s:I, s:I, s:I}", "file_bytes", (json_int_t)plan.file_bytes,
                             "weight_bytes", (json_int_t)plan.weight_bytes, "kv_bytes",
                             (json_int_t)plan.kv_bytes, "scratch_bytes",
                             (json_int_t)plan.scratch_bytes, "n_ctx", (json_int_t)plan.n_ctx));
        status = print_json(v);
    } else {
        show_people(e, path, g, runs ? &plan : NULL, meta, kinds);
        if (!runs) show_text("refused", why.msg);
    }
    json_decref(meta);
    json_decref(kinds);
    ash_gguf_close(g);
    free(path);
    return status ? status : runs ? ASH_EXIT_DONE : ASH_EXIT_BAD_INPUT;
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
    snprintf(text, sizeof text, "%s, %d threads, kernel set %s%s", cpu->name, ash_cpu_threads(),
             ash_cpu_level_name(c->cpu), c->cpu == ASH_CPU_AVX512 && cpu->bf16 ? " with BF16" : "");
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
    if (cli->json) print_json(json_incref(f.all));
    json_decref(f.all);
    return f.bad ? ASH_EXIT_FAILED : ASH_EXIT_DONE;
}

/* ---- version ----------------------------------------------------------------------------------
 */

int ash_cmd_version(ash_cli *cli)
{
    char pcre[64] = "";
    const ash_cpu *cpu = ash_cpu_get();
    pcre2_config(PCRE2_CONFIG_VERSION, pcre);
    pcre[strcspn(pcre, " ")] = 0;
    if (cli->json)
        return print_json(json_pack(
            "{s:s, s:s, s:s, s:{s:s, s:s, s:s, s:s, s:s}}", "version", ASHLEY_VERSION, "kernels",
            ash_cpu_level_name(cpu->level), "processor", cpu->name, "libraries", "libmicrohttpd",
            MHD_get_version(), "libcurl", curl_version_info(CURLVERSION_NOW)->version, "jansson",
            jansson_version_str(), "sqlite", sqlite3_libversion(), "pcre2", pcre));
    printf("ashley %s (kernel set %s; libmicrohttpd %s, libcurl %s, jansson %s, sqlite %s, pcre2 "
           "%s)\n",
           ASHLEY_VERSION, ash_cpu_level_name(cpu->level), MHD_get_version(),
           curl_version_info(CURLVERSION_NOW)->version, jansson_version_str(), sqlite3_libversion(),
           pcre);
    return ASH_EXIT_DONE;
}
