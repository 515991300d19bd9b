/* Owns `ashley verify`: every check of a model's files that there is, a line each. What it refuses
 * it names: file, tensor, element, hash. Main thread and a pool. */
#include <dirent.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/engine_open.h"
#include "cli/term.h"
#include "cli/verify.h"
#include "config/value.h"
#include "engine/model.h"
#include "format/torch.h"
#include "quant/gptq.h"
#include "text/chat.h"

typedef struct verification {
    const ash_cli *cli;
    const ash_catalogue_entry *entry;
    ash_checkpoint *files;
    ash_pool *pool;
    ash_term term;
    json_t *lines;
    uint64_t done, total; /* bytes */
    int bad;              /* first code */
} verification;

/* One line: ok, or what is wrong. */
static void tell(verification *v, const char *what, int rc, const char *text)
{
    json_array_append_new(v->lines, json_pack("{s:s, s:b, s:s}", "what", what, "ok", rc == 0,
                                              rc ? "error" : "detail", text));
    if (rc && !v->bad) v->bad = rc;
    if (v->cli->json) return;
    bool colour = ash_term_color(v->cli, STDOUT_FILENO);
    ash_term_done(&v->term);
    printf("%s%-4s%s %s%s%s\n",
           !colour ? ""
           : rc    ? "\033[31m"
                   : "\033[32m",
           rc ? "BAD" : "ok", colour ? "\033[0m" : "", what, *text ? ": " : "", text);
}

/* ---- files --------------------------------------------------------------------------------------
 */

/* What path must hash to: the catalogue's word counts more than the cache's. */
static ash_verify_hash known_hash(const ash_catalogue_entry *e, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    for (size_t i = 0; i < e->n_sha256; i++) {
        ash_verify_hash h = {.kind = ASH_VERIFY_SHA256, .from = "the catalogue"};
        if (fnmatch(e->sha256[i].file, name, 0)) continue;
        snprintf(h.hex, sizeof h.hex, "%s", e->sha256[i].sha256);
        return h;
    }
    return ash_verify_hub_hash(path);
}

static void on_bytes(void *user, uint64_t bytes)
{
    verification *v = user;
    v->done += bytes;
    ash_term_progress(&v->term, ASH_LOAD_VERIFY, "verify", v->done, v->total);
}

static ash_verify_job job_for(verification *v, const char *path)
{
    return (ash_verify_job){.path = path,
                            .hash = known_hash(v->entry, path),
                            .pool = v->pool,
                            .cancel = ash_cli_interrupt(),
                            .progress = on_bytes,
                            .user = v};
}

static const char *hash_text(const ash_verify_hash *h, char out[64])
{
    snprintf(out, 64, "%s%s", h->kind ? "hash as in " : "no hash known", h->kind ? h->from : "");
    return out;
}

/* A file of weights: hash and elements. */
static int verify_weights(verification *v, uint32_t file)
{
    const ash_tensor_index *idx = v->files->tensors;
    ash_verify_job job = job_for(v, idx->files[file].path);
    ash_err err = ASH_ERR_INIT;
    char size[16], text[160], hash[64];
    size_t n = 0;
    for (size_t i = 0; i < idx->n_tensors; i++) n += idx->tensors[i].file == file;
    job.index = idx;
    job.file = file;
    size_t n_sums = 0;
    int rc = ash_verify_file(&job, &err);
    if (!rc && v->files->kind == ASH_CHECKPOINT_TORCH)
        rc = ash_torch_checksums(&idx->files[file], job.cancel, &n_sums, &err);
    ash_value_show_bytes(idx->files[file].map.size, size);
    int at = snprintf(text, sizeof text, "%s, %zu tensors, all finite, %s", size, n,
                      hash_text(&job.hash, hash));
    if (n_sums) snprintf(text + at, sizeof text - (size_t)at, ", %zu checksums", n_sums);
    tell(v, job.path, rc, rc ? err.msg : text);
    return rc == ASH_ECANCELED || rc == ASH_ENOMEM ? rc : 0;
}

static bool is_side_file(const char *name)
{
    static const char *const patterns[] = {"*.json", "*.model", "*.txt", "*.jinja", "*.py"};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        if (!fnmatch(patterns[i], name, 0)) return true;
    return false;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Small files of the folder that have a known hash. */
static int verify_side_files(verification *v, ash_err *err)
{
    char **names = NULL;
    size_t n = 0;
    int rc = 0;
    DIR *d = opendir(v->files->dir);
    struct dirent *f;
    while (d && !rc && n < 256 && (f = readdir(d))) {
        if (!is_side_file(f->d_name)) continue;
        char **more = realloc(names, (n + 1) * sizeof *names);
        if (more) names = more;
        if (!more || !(names[n] = ash_fs_join(v->files->dir, f->d_name)))
            rc = ash_err_nomem(err, v->files->dir);
        else
            n++;
    }
    if (d) closedir(d);
    if (n) qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
        ash_verify_job job = job_for(v, names[i]);
        char hash[64];
        ash_err bad = ASH_ERR_INIT;
        if (job.hash.kind && ash_fs_is_file(names[i]) && !rc) {
            int code = ash_verify_file(&job, &bad);
            tell(v, names[i], code, code ? bad.msg : hash_text(&job.hash, hash));
        }
        free(names[i]);
    }
    free(names);
    return rc;
}

/* ---- the model ----------------------------------------------------------------------------------
 */

/* Zeros that say another version than the label. */
static size_t mislabelled(const ash_binding *b, size_t *n_gptq)
{
    size_t n = 0;
    *n_gptq = 0;
    for (size_t i = 0; i < b->n_items; i++) {
        const ash_gptq *g = b->items[i].gptq;
        if (!g) continue;
        int version = ash_gptq_version(g);
        n += version && (version == 2) != g->v2;
        ++*n_gptq;
    }
    return n;
}

/* Every tensor has its place and shape; GPTQ's groups are in range. */
static void verify_binding(verification *v)
{
    ash_checkpoint *files;
    ash_model *m = NULL;
    ash_err err = ASH_ERR_INIT;
    ash_engine_opts o = {.path = v->files->path,
                         .ctx = v->entry->context,
                         .kv_q8 = ash_cli_kv_q8(v->cli, v->entry, NULL),
                         .cpu = v->cli->config->cpu};
    char text[400];
    int rc = ash_checkpoint_open(v->files->path, &files, &err);
    if (!rc) rc = ash_model_plan(&o, files, &m, &err);
    if (!rc) {
        size_t n_gptq, wrong = mislabelled(&m->net->binding, &n_gptq);
        int at = snprintf(text, sizeof text, "%s, %s, %zu pieces bound", m->info.architecture,
                          m->info.quantization, m->net->binding.n_items);
        if (n_gptq)
            at += snprintf(text + at, sizeof text - (size_t)at,
                           ", GPTQ groups of %zu matrices in range", n_gptq);
        if (wrong)
            snprintf(
                text + at, sizeof text - (size_t)at,
                "; %zu have zeros of another version than the label says, which the data decide",
                wrong);
    }
    tell(v, "tensors", rc, rc ? err.msg : text);
    ash_model_close(m);
}

static void verify_text(verification *v)
{
    ash_tokenizer *t = NULL;
    ash_template *tpl = NULL;
    ash_err err = ASH_ERR_INIT;
    char text[160] = "none";
    int rc = ash_tokenizer_open(v->files, &t, &err);
    if (!rc)
        snprintf(text, sizeof text, "%s, %zu tokens", ash_tokenizer_from(t),
                 ash_tokenizer_n_vocab(t));
    tell(v, "tokenizer", rc == ASH_ENOENT ? 0 : rc, rc && rc != ASH_ENOENT ? err.msg : text);
    ash_str source = {0};
    const char *from = "none";
    if (v->entry->template_text) {
        source = ash_str_from(v->entry->template_text);
        from = "catalogue";
    } else if (t && ash_tokenizer_chat_template(t, &source)) {
        from = ash_tokenizer_template_from(t);
    }
    rc = source.n ? ash_chat_template_open(source.p, source.n, &tpl, &err) : 0;
    tell(v, "template", rc, rc ? err.msg : from);
    ash_template_close(tpl);
    ash_tokenizer_close(t);
}

static int verify_all(verification *v, const char *path, ash_err *err)
{
    ash_err bad = ASH_ERR_INIT;
    int rc = ash_checkpoint_open(path, &v->files, &bad);
    char text[128];
    if (!rc)
        snprintf(text, sizeof text, "%s, files: %zu, tensors: %zu",
                 ash_checkpoint_kind_name(v->files->kind), v->files->tensors->n_files,
                 v->files->tensors->n_tensors);
    tell(v, "structure", rc, rc ? bad.msg : text);
    if (rc) return rc == ASH_ENOMEM ? ash_err_nomem(err, path) : 0;
    if (v->files->note[0]) tell(v, "note", 0, v->files->note);
    verify_binding(v);
    verify_text(v);
    const ash_tensor_index *idx = v->files->tensors;
    for (size_t i = 0; i < idx->n_files; i++) v->total += idx->files[i].map.size;
    rc = verify_side_files(v, err);
    for (uint32_t i = 0; i < idx->n_files && !rc; i++) rc = verify_weights(v, i);
    return rc == ASH_ECANCELED ? ash_err_set(err, ASH_ECANCELED, "interrupted") : rc;
}

int ash_cmd_verify(ash_cli *cli)
{
    char *path;
    ash_err err = ASH_ERR_INIT;
    verification v = {.cli = cli, .lines = json_array()};
    int status = ash_cli_locate(cli, cli->args[0], &path, &v.entry);
    if (status) {
        json_decref(v.lines);
        return status;
    }
    ash_term_init(&v.term, cli, cli->args[0]);
    int rc = ash_pool_open(0, &v.pool, &err);
    if (!rc) rc = verify_all(&v, path, &err);
    ash_term_done(&v.term);
    if (cli->json)
        ash_cli_print_json(json_pack("{s:s, s:s, s:b, s:O}", "id", v.entry->id, "path", path, "ok",
                                     !rc && !v.bad, "checks", v.lines));
    status = rc == ASH_ECANCELED ? 130
             : rc                ? ash_cli_fail(&err)
             : v.bad             ? ASH_EXIT_BAD_INPUT
                                 : ASH_EXIT_DONE;
    ash_checkpoint_close(v.files);
    ash_pool_close(v.pool);
    json_decref(v.lines);
    free(path);
    return status;
}
