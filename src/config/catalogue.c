/* Owns the list of named models. Refuses a file that is no JSON object; quarantines entries that
 * are wrong. Names are added under a lock; an entry is constant once it is in the list. */
#include "config/catalogue.h"

#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/limits.h"
#include "base/nearest.h"
#include "config/catalogue_private.h"

size_t ash_catalogue_count(const ash_catalogue *c)
{
    return c->n;
}

const ash_catalogue_entry *ash_catalogue_at(const ash_catalogue *c, size_t i)
{
    return i < c->n ? c->entries[i] : NULL;
}

const ash_catalogue_entry *ash_catalogue_find(const ash_catalogue *c, const char *id)
{
    for (size_t i = 0; i < c->n; i++)
        if (!strcmp(c->entries[i]->id, id)) return c->entries[i];
    return NULL;
}

const char *ash_catalogue_nearest(const ash_catalogue *c, const char *id)
{
    const char *best = NULL;
    int least = ASH_NEAREST_FAR;
    for (size_t i = 0; i < c->n; i++) {
        int d = ash_nearest_distance(id, c->entries[i]->id);
        if (d < least) {
            least = d;
            best = c->entries[i]->id;
        }
    }
    return best;
}

/* A new entry, cleared but for its id, that is not in the list yet; NULL without memory or room. */
static ash_catalogue_entry *new_entry(ash_catalogue *c, const char *id)
{
    if (c->n == c->cap) return NULL;
    ash_catalogue_entry *e = ash_arena_calloc(&c->arena, 1, sizeof *e);
    if (!e || !(e->id = ash_arena_strdup(&c->arena, id))) return NULL;
    return e;
}

/* The last one from now on. */
static void list_entry(ash_catalogue *c, ash_catalogue_entry *e)
{
    c->entries[c->n] = e;
    c->n++;
}

static int nomem(const ash_catalogue *c, ash_err *err)
{
    return ash_err_nomem(err, c->file);
}

/* An entry that is wrong stays, as its reason. */
static int quarantine(ash_catalogue *c, ash_catalogue_entry *e, const ash_err *why, ash_err *err)
{
    *e = (ash_catalogue_entry){.id = e->id, .json = e->json};
    e->bad = ash_arena_strdup(&c->arena, why->msg);
    return e->bad ? 0 : nomem(c, err);
}

static int read_entries(ash_catalogue *c, ash_err *err)
{
    const char *id;
    json_t *v;
    json_object_foreach(c->root, id, v)
    {
        ash_catalogue_entry *e = new_entry(c, id);
        if (!e) return nomem(c, err);
        list_entry(c, e);
        e->json = v;
        ash_err why = ASH_ERR_INIT;
        int rc = ash_catalogue_read_entry(c, e, &why);
        if (rc == ASH_ENOMEM) return nomem(c, err);
        if (rc && (rc = quarantine(c, e, &why, err))) return rc;
    }
    return 0;
}

static int read_file(ash_catalogue *c, bool optional, ash_err *err)
{
    ash_buf text;
    int rc = ash_fs_read(c->file, ASH_MAX_CATALOGUE_FILE, &text, err);
    if (rc == ASH_ENOENT && optional) {
        ash_buf_release(&text);
        c->root = json_object();
        return c->root ? 0 : nomem(c, err);
    }
    if (!rc) {
        rc = ash_json_parse(ash_buf_cstr(&text), text.len, &c->root, err);
        if (rc) ash_err_prefix(err, "%s", c->file);
    }
    ash_buf_release(&text);
    if (!rc && !json_is_object(c->root))
        rc = ash_err_set(err, ASH_EFORMAT, "%s: expected an object of ids at the top, not %s",
                         c->file, ash_json_type_name(c->root));
    if (!rc && json_object_size(c->root) > ASH_MAX_CATALOGUE_ENTRIES)
        rc = ash_err_set(err, ASH_ELIMIT, "%s: more than %d entries", c->file,
                         ASH_MAX_CATALOGUE_ENTRIES);
    return rc;
}

static int init(ash_catalogue *c, const ash_catalogue_opts *opts, ash_err *err)
{
    ash_arena_init(&c->arena, ASH_MAX_CONFIG_MEMORY);
    const char *slash = strrchr(opts->path, '/');
    c->file = ash_arena_strdup(&c->arena, opts->path);
    if (!slash)
        c->folder = ".";
    else
        c->folder = ash_arena_strndup(&c->arena, opts->path,
                                      slash == opts->path ? 1 : (size_t)(slash - opts->path));
    c->hub_dir = opts->hub_dir ? ash_arena_strdup(&c->arena, opts->hub_dir) : NULL;
    c->cap = 2 * ASH_MAX_CATALOGUE_ENTRIES; /* half for resolved names */
    c->entries = ash_arena_calloc(&c->arena, c->cap, sizeof(ash_catalogue_entry *));
    if (!c->file || !c->folder || (opts->hub_dir && !c->hub_dir) || !c->entries)
        return ash_err_nomem(err, "catalogue");
    return 0;
}

int ash_catalogue_open(const ash_catalogue_opts *opts, ash_catalogue **out, ash_err *err)
{
    *out = NULL;
    ash_catalogue *c = calloc(1, sizeof *c);
    if (!c) return ash_err_nomem(err, "catalogue");
    pthread_mutex_init(&c->adding, NULL);
    int rc = init(c, opts, err);
    if (!rc) rc = read_file(c, opts->optional, err);
    if (!rc) rc = read_entries(c, err);
    if (rc)
        ash_catalogue_close(c);
    else
        *out = c;
    return rc;
}

void ash_catalogue_close(ash_catalogue *c)
{
    if (!c) return;
    json_decref(c->root);
    ash_arena_release(&c->arena);
    pthread_mutex_destroy(&c->adding);
    free(c);
}

static int full(const ash_catalogue *c, ash_err *err)
{
    return c->n == c->cap ? ash_err_set(err, ASH_ELIMIT, "more than %zu models", c->cap)
                          : nomem(c, err);
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcasecmp(s + n - m, end);
}

/* An absolute path whose last part may be a link: the hub cache names files by links to their
 * hashes. malloc'ed; NULL with errno. */
static char *absolute(const char *name)
{
    if (ash_fs_is_dir(name)) return realpath(name, NULL);
    const char *slash = strrchr(name, '/');
    char *folder = slash ? strndup(name, slash == name ? 1 : (size_t)(slash - name)) : strdup(".");
    char *real = folder ? realpath(folder, NULL) : NULL;
    char *path = real ? ash_fs_join(real, slash ? slash + 1 : name) : NULL;
    free(real);
    free(folder);
    return path;
}

static bool named_as_checkpoint(const char *name)
{
    static const char *const ends[] = {".gguf", ".safetensors", ".bin",
                                       ".pt",   ".pth",         ".index.json"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (ends_with(name, ends[i])) return true;
    return false;
}

/* A checkpoint given by its file or folder. ASH_ENOTMINE if the name is no path. */
static int resolve_path(ash_catalogue *c, const char *name, ash_catalogue_entry **out, ash_err *err)
{
    bool path = name[0] == '/' || !strncmp(name, "./", 2) || !strncmp(name, "../", 3);
    bool file = ash_fs_is_file(name), folder = ash_fs_is_dir(name);
    if (!file && !folder) {
        if (path || (named_as_checkpoint(name) && !strchr(name, ':')))
            return ash_err_set(err, ASH_ENOENT, "no file '%s'", name);
        return ASH_ENOTMINE;
    }
    if (file && !path && !strchr(name, '/') && !named_as_checkpoint(name)) return ASH_ENOTMINE;
    char *full_path = absolute(name);
    ash_catalogue_entry *e = full_path ? new_entry(c, name) : NULL;
    int rc = e && (e->path = ash_arena_strdup(&c->arena, full_path)) ? 0 : full(c, err);
    free(full_path);
    if (!rc) {
        e->revision = "main";
        e->format = "auto";
        e->description = file ? "a file given by its path" : "a folder given by its path";
        *out = e;
    }
    return rc;
}

/* models--ORG--NAME as ORG/NAME; false if it is not of that form. */
static bool cache_name(const char *name, char repo[128])
{
    const char *org = name + strlen("models--");
    const char *sep = strncmp(name, "models--", 8) ? NULL : strstr(org, "--");
    return sep && snprintf(repo, 128, "%.*s/%s", (int)(sep - org), org, sep + 2) < 128;
}

/* org/repo, org/repo:QUANT, or models--ORG--REPO. */
static int resolve_repo(ash_catalogue *c, const char *name, ash_catalogue_entry **out, ash_err *err)
{
    char cached[128];
    const char *repo = cache_name(name, cached) ? cached : name;
    const char *colon = strchr(repo, ':');
    size_t n = colon ? (size_t)(colon - repo) : strlen(repo);
    if (!ash_catalogue_repo_ok(repo, n)) return ASH_ENOTMINE;
    const char *quant = colon ? colon + 1 : NULL;
    if (quant &&
        (!*quant ||
         strspn(quant, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") !=
             strlen(quant)))
        return ash_err_set(err, ASH_EINVAL,
                           "'%.200s': expected a quantization after ':', such as Q4_0", name);
    ash_catalogue_entry *e = new_entry(c, name);
    const char **files = ash_arena_calloc(&c->arena, 1, sizeof *files);
    ash_buf pattern;
    ash_buf_init(&pattern, 1024);
    ash_buf_printf(&pattern, "*%s*.gguf", quant ? quant : "");
    bool ok = e && files && !pattern.failed &&
              (files[0] = ash_arena_strdup(&c->arena, pattern.data)) &&
              (e->repo = ash_arena_strndup(&c->arena, repo, n));
    ash_buf_release(&pattern);
    if (!ok) return full(c, err);
    e->revision = "main";
    e->format = quant ? "gguf" : "auto";
    e->files = files;
    e->n_files = quant != NULL;
    e->description = "a repository given by its name";
    *out = e;
    return 0;
}

static int unknown(const ash_catalogue *c, const char *name, ash_err *err)
{
    const char *near = ash_catalogue_nearest(c, name);
    return ash_err_set(err, ASH_ENOENT, "no model '%.100s' in %s%s%s%s", name, c->file,
                       near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* `paths`: a file or folder of this machine may be meant. */
static int resolve(ash_catalogue *c, const char *name, bool paths, const ash_catalogue_entry **out,
                   ash_err *err)
{
    ash_catalogue_entry *e = NULL;
    *out = ash_catalogue_find(c, name);
    if (*out) return 0;
    int rc = paths ? resolve_path(c, name, &e, err) : ASH_ENOTMINE;
    if (rc == ASH_ENOTMINE) rc = resolve_repo(c, name, &e, err);
    if (rc == ASH_ENOTMINE) return unknown(c, name, err);
    if (!rc) {
        e->resolved = true;
        list_entry(c, e);
        *out = e;
    }
    return rc;
}

int ash_catalogue_resolve(ash_catalogue *c, const char *name, const ash_catalogue_entry **out,
                          ash_err *err)
{
    *out = NULL;
    if (!*name || strlen(name) > ASH_MAX_MODEL_ID * 16)
        return ash_err_set(err, ASH_EINVAL,
                           "expected a model: an id, a folder, a file, org/repo or org/repo:QUANT");
    pthread_mutex_lock(&c->adding);
    int rc = resolve(c, name, true, out, err);
    pthread_mutex_unlock(&c->adding);
    return rc;
}

int ash_catalogue_reference(ash_catalogue *c, const char *name, const ash_catalogue_entry **out,
                            ash_err *err)
{
    *out = NULL;
    if (!*name || strlen(name) > ASH_MAX_MODEL_ID)
        return ash_err_set(err, ASH_EINVAL, "expected a model: an id, org/repo or org/repo:QUANT");
    pthread_mutex_lock(&c->adding);
    int rc = resolve(c, name, false, out, err);
    pthread_mutex_unlock(&c->adding);
    return rc;
}
