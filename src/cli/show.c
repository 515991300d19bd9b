/* Owns `ashley show`: what a checkpoint is, where each part of it came from, and what it will take.
 * Reads headers and side files, no weights; of a sharded checkpoint the configuration and the index
 * are enough. Main thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/show.h"
#include "cli/term.h"
#include "config/value.h"
#include "engine/model.h"

/* ---- gathering ----------------------------------------------------------------------------------
 */

static void set(json_t *o, const char *key, json_t *value)
{
    json_object_set_new(o, key, value ? value : json_null());
}

static void set_bytes(json_t *o, const char *key, uint64_t n)
{
    set(o, key, json_integer((json_int_t)n));
}

static void note(json_t *o, const char *text)
{
    json_t *all = json_object_get(o, "notes");
    for (const char *end; *text; text = *end ? end + 1 : end) {
        end = text + strcspn(text, "\n");
        if (end > text) json_array_append_new(all, json_stringn(text, (size_t)(end - text)));
    }
}

static void notef(json_t *o, const char *fmt, ...) ASH_PRINTF(2, 3);
static void notef(json_t *o, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    note(o, text);
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
        set(o, key, gguf_value(kv));
    }
    return o;
}

/* Bytes by type: {"Q4_1": 91000000, ...}, and parameters as the files' elements: what packs several
 * in a word is counted by the binder. */
static void add_tensors(json_t *o, const ash_tensor_index *idx)
{
    json_t *types = json_object();
    uint64_t elements = 0, unknown = 0;
    for (size_t i = 0; i < idx->n_tensors; i++) {
        const ash_tensor *t = &idx->tensors[i];
        const char *name = ash_dtype_get(t->dtype)->name;
        unknown += !t->n_dims;
        if (!t->n_dims || !name) continue;
        elements += ash_tensor_count(t);
        json_int_t sum = json_integer_value(json_object_get(types, name));
        set(types, name, json_integer(sum + (json_int_t)t->bytes));
    }
    set(o, "tensors", json_integer((json_int_t)idx->n_tensors));
    set(o, "tensor_types", types);
    if (!json_object_get(o, "parameters")) set_bytes(o, "parameters", elements);
    if (unknown)
        notef(o, "%llu tensors are of no layer that is computed; they are not in the sizes",
              (unsigned long long)unknown);
}

/* Sizes from the plan; all of what is resident in the end. */
static void add_plan(json_t *o, const ash_model *m)
{
    const ash_model_info *info = &m->info;
    const ash_engine_plan *p = &m->sizes.plan;
    uint64_t block = (uint64_t)ash_kv_block_bytes(&m->sizes.kv);
    uint64_t blocks = ((uint64_t)p->n_ctx + ASH_KV_TOKENS - 1) / ASH_KV_TOKENS;
    set(o, "architecture", json_string(info->architecture));
    set(o, "quantization", json_string(info->quantization));
    set_bytes(o, "parameters", info->n_params);
    set(o, "layers", json_integer(info->n_layers));
    set(o, "vocabulary", json_integer(info->n_vocab));
    set(o, "n_ctx", json_integer(p->n_ctx));
    set(o, "n_ctx_train", json_integer(info->n_ctx_train));
    set_bytes(o, "file_bytes", p->file_bytes);
    set_bytes(o, "weight_bytes", p->weight_bytes);
    set(o, "kv", json_string(m->sizes.kv.type == ASH_KV_Q8    ? "q8"
                             : m->sizes.kv.type == ASH_KV_F32 ? "f32"
                                                              : "f16"));
    set_bytes(o, "kv_bytes", p->kv_bytes);
    set_bytes(o, "kv_bytes_per_token", block / ASH_KV_TOKENS);
    set_bytes(o, "kv_bytes_at_context", block * blocks);
    set_bytes(o, "scratch_bytes", p->scratch_bytes);
    set_bytes(o, "memory_bytes", p->weight_bytes + block * blocks + p->scratch_bytes);
}

static json_t *token_json(const ash_tokenizer *t, int32_t id)
{
    ash_str s;
    return id >= 0 && ash_tokenizer_piece(t, id, &s) ? json_stringn(s.p, s.n) : NULL;
}

static void add_text(json_t *o, const ash_catalogue_entry *e, const ash_checkpoint *c)
{
    ash_tokenizer *t = NULL;
    ash_err why = ASH_ERR_INIT;
    if (ash_tokenizer_open(c, &t, &why)) {
        set(o, "tokenizer", NULL);
        note(o, why.msg);
    } else {
        size_t n;
        const int32_t *ids = ash_tokenizer_eog(t, &n);
        json_t *ends = json_array();
        for (size_t i = 0; i < n; i++) json_array_append_new(ends, token_json(t, ids[i]));
        set(o, "tokenizer", json_string(ash_tokenizer_from(t)));
        set(o, "tokens", json_integer((json_int_t)ash_tokenizer_n_vocab(t)));
        set(o, "bos", token_json(t, ash_tokenizer_bos(t)));
        set(o, "eos", token_json(t, ash_tokenizer_eos(t)));
        set(o, "ends_of_text", ends);
        note(o, ash_tokenizer_note(t));
    }
    const char *from = t ? ash_tokenizer_template_from(t) : "none";
    if (e->template_text && strcmp(from, "none"))
        notef(o, "the catalogue's template replaces that of %s", from);
    set(o, "template", json_string(e->template_text ? "catalogue" : from));
    ash_tokenizer_close(t);
}

/* What the catalogue says and the files do not. */
static void compare(json_t *o, const ash_catalogue_entry *e)
{
    json_int_t trained = json_integer_value(json_object_get(o, "n_ctx_train"));
    json_int_t files = json_integer_value(json_object_get(o, "file_bytes"));
    if (trained && e->context > trained)
        notef(o, "the catalogue asks for a context of %u, it was trained on %lld", e->context,
              (long long)trained);
    if (files && e->disk &&
        ((uint64_t)files > e->disk * 11 / 10 || (uint64_t)files < e->disk * 9 / 10))
        notef(o, "the catalogue says %.2f GB of disk, the files have %.2f GB",
              (double)e->disk * 1e-9, (double)files * 1e-9);
}

static void add_files(json_t *o, const ash_checkpoint *c, const ash_catalogue_place *place)
{
    set(o, "format", json_string(ash_checkpoint_kind_name(c->kind)));
    set(o, "path", json_string(c->path));
    set(o, "files", json_integer((json_int_t)c->tensors->n_files));
    set(o, "files_missing", json_integer((json_int_t)place->n_missing));
    set(o, "quantization_from", c->quant_from ? json_string(c->quant_from) : NULL);
    if (c->gguf) {
        set(o, "gguf_version", json_integer(ash_gguf_version(c->gguf)));
        set(o, "metadata", metadata(c->gguf));
    }
    if (!place->path) note(o, place->reason);
    note(o, c->note);
}

/* Files that are not there are as large as their tensors. */
static void declared_size(json_t *o, const ash_tensor_index *idx)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < idx->n_tensors; i++) bytes += idx->tensors[i].bytes;
    if (!json_integer_value(json_object_get(o, "file_bytes"))) set_bytes(o, "file_bytes", bytes);
}

static int open_files(const ash_catalogue_place *p, ash_checkpoint **out, ash_err *err)
{
    return p->path ? ash_checkpoint_open(p->path, out, err)
                   : ash_checkpoint_declare(p->partial, out, err);
}

int ash_show_gather(const ash_catalogue_entry *e, const ash_catalogue_place *place,
                    const ash_cli_draft *draft, bool kv_q8, ash_cpu_level cpu, json_t **out,
                    ash_err *err)
{
    ash_checkpoint *files = NULL, *planned = NULL;
    ash_model *m = NULL;
    ash_err why = ASH_ERR_INIT;
    json_t *o = json_pack("{s:s, s:s?, s:s?, s:s?, s:[]}", "id", e->id, "description",
                          e->description, "repo", e->repo, "warning", e->warning, "notes");
    *out = NULL;
    int rc = o ? open_files(place, &files, err) : ash_err_nomem(err, "JSON");
    if (!rc) rc = open_files(place, &planned, err);
    if (rc) {
        json_decref(o);
        ash_checkpoint_close(files);
        return rc;
    }
    add_files(o, files, place);
    ash_engine_opts opts = {.path = files->path, .ctx = e->context, .kv_q8 = kv_q8, .cpu = cpu};
    if (ash_model_plan(&opts, planned, &m, &why)) {
        ash_str name;
        if (ash_arch_name(files, &name)) set(o, "architecture", json_stringn(name.p, name.n));
        set(o, "refused", json_string(why.msg));
    } else {
        add_plan(o, m);
        ash_cli_draft_describe(draft, m, files, kv_q8, cpu, o);
        declared_size(o, m->files->tensors);
    }
    add_tensors(o, m ? m->files->tensors : files->tensors);
    add_text(o, e, files);
    compare(o, e);
    ash_model_close(m);
    ash_checkpoint_close(files);
    *out = o;
    return 0;
}

/* ---- printing -----------------------------------------------------------------------------------
 */

static void row(const char *key, const char *value)
{
    if (!value || !*value) return;
    printf("%-17s ", key);
    ash_term_text(stdout, value, strlen(value));
    putchar('\n');
}

static void row_text(const json_t *o, const char *key, const char *member)
{
    row(key, json_string_value(json_object_get(o, member)));
}

static void row_bytes(const json_t *o, const char *key, const char *member)
{
    char text[16];
    const json_t *v = json_object_get(o, member);
    if (!json_is_integer(v)) return;
    ash_value_show_bytes((uint64_t)json_integer_value(v), text);
    printf("%-17s %s (%lld bytes)\n", key, text, (long long)json_integer_value(v));
}

static long long number(const json_t *o, const char *member)
{
    return json_integer_value(json_object_get(o, member));
}

static void print_what(const json_t *o)
{
    row_text(o, "model", "id");
    row_text(o, "description", "description");
    row_text(o, "repository", "repo");
    row_text(o, "path", "path");
    const char *format = json_string_value(json_object_get(o, "format"));
    const char *from = json_string_value(json_object_get(o, "quantization_from"));
    const char *quantization = json_string_value(json_object_get(o, "quantization"));
    long long n = number(o, "files");
    if (json_object_get(o, "gguf_version"))
        printf("%-17s %s version %lld, %lld file%s\n", "format", format, number(o, "gguf_version"),
               n, n == 1 ? "" : "s");
    else
        printf("%-17s %s, %lld file%s\n", "format", format, n, n == 1 ? "" : "s");
    row_text(o, "architecture", "architecture");
    if (quantization)
        printf("%-17s %s%s%s\n", "quantisation", quantization, from ? ", settings of " : "",
               from ? from : "");
    double p = (double)number(o, "parameters");
    const char *unit = p < 1e6 ? "thousand" : p < 1e9 ? "million" : "billion";
    printf("%-17s %.2f %s\n", "parameters", p / (p < 1e6 ? 1e3 : p < 1e9 ? 1e6 : 1e9), unit);
}

static void print_sizes(const json_t *o)
{
    const char *key;
    json_t *v;
    printf("%-17s ", "tensor types");
    json_object_foreach((json_t *)json_object_get(o, "tensor_types"), key, v)
    {
        char text[16];
        ash_value_show_bytes((uint64_t)json_integer_value(v), text);
        printf("%s %s  ", key, text);
    }
    putchar('\n');
    if (!json_object_get(o, "n_ctx")) return;
    printf("%-17s %lld tokens, trained on %lld\n", "context", number(o, "n_ctx"),
           number(o, "n_ctx_train"));
    row_bytes(o, "files", "file_bytes");
    row_bytes(o, "weights, packed", "weight_bytes");
    printf("%-17s %s\n", "KV", json_string_value(json_object_get(o, "kv")));
    row_bytes(o, "KV of a token", "kv_bytes_per_token");
    row_bytes(o, "KV at the context", "kv_bytes_at_context");
    row_bytes(o, "KV pool", "kv_bytes");
    row_bytes(o, "scratch", "scratch_bytes");
    row_text(o, "draft model", "draft");
    row_text(o, "  not used", "draft_refused");
    if (number(o, "draft_bytes")) row_bytes(o, "  of it memory", "draft_bytes");
    row_bytes(o, "memory", "memory_bytes");
}

void ash_show_print(const json_t *o)
{
    size_t i;
    json_t *v;
    print_what(o);
    print_sizes(o);
    const char *tokenizer = json_string_value(json_object_get(o, "tokenizer"));
    if (tokenizer)
        printf("%-17s %s, %lld tokens\n", "tokenizer", tokenizer, number(o, "tokens"));
    else
        row("tokenizer", "none");
    json_t *ends = json_object_get(o, "ends_of_text");
    if (json_array_size(ends)) printf("%-17s", "ends of text");
    json_array_foreach(ends, i, v)
    {
        const char *text = json_string_value(v) ? json_string_value(v) : "?";
        putchar(' ');
        ash_term_text(stdout, text, strlen(text));
        if (i + 1 == json_array_size(ends)) putchar('\n');
    }
    row_text(o, "template", "template");
    row_text(o, "warning", "warning");
    json_array_foreach(json_object_get(o, "notes"), i, v) row("note", json_string_value(v));
    row_text(o, "refused", "refused");
}

int ash_cmd_show(ash_cli *cli)
{
    ash_catalogue_place place;
    const ash_catalogue_entry *e;
    ash_err err = ASH_ERR_INIT;
    json_t *o;
    int status = ash_cli_place(cli, cli->args[0], &place, &e);
    if (status) return status;
    ash_cli_draft draft;
    if (ash_cli_draft_find(cli, e, NULL, &draft, &err) ||
        ash_show_gather(e, &place, &draft, ash_cli_kv_q8(cli, e, NULL), cli->config->cpu, &o, &err)) {
        if (!place.path) ash_err_prefix(&err, "%s; what there is", place.reason);
        status = ash_cli_fail(&err);
    } else {
        if (!cli->json) ash_show_print(o);
        status = json_object_get(o, "refused") ? ASH_EXIT_BAD_INPUT
                 : place.path                  ? ASH_EXIT_DONE
                                               : ASH_EXIT_NOT_FOUND;
        if (cli->json) ash_cli_print_json(o);
        if (!cli->json) json_decref(o);
    }
    ash_cli_draft_release(&draft);
    ash_catalogue_place_release(&place);
    return status;
}
