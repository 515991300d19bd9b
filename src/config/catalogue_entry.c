/* Owns the check of one catalogue entry. Refuses wrong types, unknown words and template files
 * outside the catalogue's folder; unknown members are kept for others. For the thread that builds
 * the catalogue. */
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/limits.h"
#include "base/utf8.h"
#include "config/catalogue_private.h"
#include "config/value.h"

static int check_id(const char *id, ash_err *err)
{
    size_t n = strlen(id);
    bool ok = n && n <= ASH_MAX_MODEL_ID;
    for (size_t i = 0; ok && i < n; i++) ok = (unsigned char)id[i] > 0x20 && id[i] != 0x7F;
    if (!ok)
        return ash_err_set(err, ASH_EINVAL,
                           "an id has 1 to %d bytes without blanks or control characters",
                           ASH_MAX_MODEL_ID);
    if (!strcmp(id, "openai"))
        return ash_err_set(err, ASH_EINVAL, "the id 'openai' is the upstream's");
    return 0;
}

bool ash_catalogue_repo_ok(const char *repo, size_t n)
{
    const char *slash = memchr(repo, '/', n);
    if (n > 96 || !slash || slash == repo || slash == repo + n - 1) return false;
    for (size_t i = 0; i < n; i++) {
        char c = repo[i];
        bool word =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
        if (!word && c != '.' && c != '-' && repo + i != slash) return false;
        if (i && (c == '-' || c == '.') && repo[i - 1] == c) return false;
        bool first = !i || repo + i == slash + 1, last = i == n - 1 || repo + i + 1 == slash;
        if ((first || last) && (c == '.' || c == '-')) return false;
    }
    return n < 4 || memcmp(repo + n - 4, ".git", 4) != 0;
}

/* A field that is one of a few words; the index in `words` or -1 in *out if it is not there. */
static int get_word(const json_t *v, const char *key, const char *const *words, int *out,
                    const char **text, ash_err *err)
{
    const char *s = NULL;
    *out = -1;
    int rc = ash_json_get_str(v, key, &s, err);
    if (rc || !s) return rc;
    for (int i = 0; words[i]; i++)
        if (!strcmp(s, words[i])) {
            *out = i;
            if (text) *text = s;
            return 0;
        }
    char all[128] = "";
    size_t n = 0;
    for (int i = 0; words[i]; i++)
        n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", words[i]);
    return ash_err_set(err, ASH_EINVAL, "'%s' is '%.60s'; expected one of %s", key, s, all);
}

/* Bytes as an integer or as text with a suffix. */
static int get_bytes(const json_t *v, const char *key, uint64_t *out, ash_err *err)
{
    const json_t *f = json_object_get(v, key);
    if (!json_is_string(f)) {
        int64_t n = 0;
        int rc = ash_json_get_int(v, key, 0, INT64_MAX, &n, err);
        *out = (uint64_t)n;
        return rc;
    }
    int rc = ash_value_bytes(json_string_value(f), out, err);
    return rc ? ash_err_prefix(err, "'%s'", key) : 0;
}

/* A time budget; 0 in the file is none. */
static int get_time(const json_t *v, const char *key, int64_t *out, ash_err *err)
{
    const json_t *f = json_object_get(v, key);
    if (!f || json_is_null(f)) return 0;
    int64_t ms = 0;
    int rc;
    if (json_is_string(f)) {
        rc = ash_value_time(json_string_value(f), false, &ms, err);
        if (rc) return ash_err_prefix(err, "'%s'", key);
    } else {
        rc = ash_json_get_int(v, key, 0, 10ll * 366 * 24 * 3600, &ms, err);
        ms *= 1000;
    }
    if (!rc) *out = ms ? ms : -1;
    return rc;
}

static int get_times(ash_catalogue_entry *e, ash_err *err)
{
    int rc = get_time(e->json, "queue_timeout", &e->queue_ms, err);
    if (!rc) rc = get_time(e->json, "load_timeout", &e->load_ms, err);
    if (!rc) rc = get_time(e->json, "first_token_timeout", &e->first_token_ms, err);
    return rc ? rc : get_time(e->json, "idle_timeout", &e->idle_ms, err);
}

static int get_files(ash_catalogue *c, ash_catalogue_entry *e, ash_err *err)
{
    const json_t *v = json_object_get(e->json, "files");
    if (!v || json_is_null(v)) return 0;
    if (!json_is_array(v) || json_array_size(v) > 256)
        return ash_err_set(err, ASH_EINVAL, "'files' must be an array of at most 256 patterns");
    size_t n = json_array_size(v);
    const char **files = ash_arena_calloc(&c->arena, n ? n : 1, sizeof *files);
    if (!files) return ash_err_nomem(err, "catalogue");
    for (size_t i = 0; i < n; i++) {
        const json_t *f = json_array_get(v, i);
        const char *s = json_string_value(f);
        if (!s || !*s || strlen(s) != json_string_length(f) || *s == '/' || strchr(s, '\\') ||
            strstr(s, ".."))
            return ash_err_set(err, ASH_EINVAL,
                               "'files[%zu]' must be a name or pattern inside the repository", i);
        files[i] = s;
    }
    e->files = files;
    e->n_files = n;
    return 0;
}

static bool hex64(const char *s)
{
    return s && strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}

static int get_hashes(ash_catalogue *c, ash_catalogue_entry *e, ash_err *err)
{
    json_t *v = json_object_get(e->json, "sha256");
    if (!v || json_is_null(v)) return 0;
    if (!json_is_object(v))
        return ash_err_set(err, ASH_EINVAL, "'sha256' must be an object of file names, not %s",
                           ash_json_type_name(v));
    ash_catalogue_hash *h = ash_arena_calloc(&c->arena, json_object_size(v) + 1, sizeof *h);
    if (!h) return ash_err_nomem(err, "catalogue");
    const char *file;
    json_t *hash;
    json_object_foreach(v, file, hash)
    {
        if (!hex64(json_string_value(hash)))
            return ash_err_set(err, ASH_EINVAL,
                               "'sha256' of '%.60s' must be 64 lower-case hex digits", file);
        h[e->n_sha256++] = (ash_catalogue_hash){file, json_string_value(hash)};
    }
    e->sha256 = h;
    return 0;
}

/* "path": a checkpoint file; relative ones start at the catalogue's folder. */
static int get_path(ash_catalogue *c, ash_catalogue_entry *e, ash_err *err)
{
    const char *p = NULL;
    int rc = ash_json_get_str(e->json, "path", &p, err);
    if (rc || !p) return rc;
    if (!*p) return ash_err_set(err, ASH_EINVAL, "'path' is empty");
    char *joined = ash_fs_join(c->folder, p);
    e->path = joined ? ash_arena_strdup(&c->arena, joined) : NULL;
    free(joined);
    return e->path ? 0 : ash_err_nomem(err, "catalogue");
}

/* Whether file, its links followed, is inside folder. */
static bool inside(const char *folder, const char *file)
{
    char *f = realpath(folder, NULL), *p = realpath(file, NULL);
    size_t n = f ? strlen(f) : 0;
    bool ok = f && p && !strncmp(p, f, n) && (p[n] == '/' || (n == 1 && *f == '/'));
    free(f);
    free(p);
    return ok;
}

static int read_template(ash_catalogue *c, ash_catalogue_entry *e, const char *name, ash_err *err)
{
    if (!*name || *name == '/')
        return ash_err_set(err, ASH_EINVAL,
                           "'template': expected a file after @, relative to the catalogue");
    char *path = ash_fs_join(c->folder, name);
    if (!path) return ash_err_nomem(err, "catalogue");
    ash_buf text;
    ash_buf_init(&text, 0);
    int rc = 0;
    if (ash_fs_is_file(path) && !inside(c->folder, path))
        rc = ash_err_set(err, ASH_EINVAL, "'template': '%.200s' is outside the catalogue's folder",
                         name);
    if (!rc) rc = ash_fs_read(path, ASH_MAX_TEMPLATE, &text, err);
    if (!rc && (memchr(ash_buf_cstr(&text), 0, text.len) ||
                !ash_utf8_valid(ash_buf_cstr(&text), text.len)))
        rc = ash_err_set(err, ASH_EFORMAT, "'template': '%.200s' is not UTF-8 text", name);
    if (!rc && !(e->template_text = ash_arena_strndup(&c->arena, ash_buf_cstr(&text), text.len)))
        rc = ash_err_nomem(err, "catalogue");
    ash_buf_release(&text);
    free(path);
    return rc;
}

static int get_template(ash_catalogue *c, ash_catalogue_entry *e, ash_err *err)
{
    const char *t = NULL;
    int rc = ash_json_get_str(e->json, "template", &t, err);
    if (rc || !t) return rc;
    if (*t == '@') return read_template(c, e, t + 1, err);
    e->template_text = t;
    return 0;
}

static int get_repo(ash_catalogue_entry *e, ash_err *err)
{
    int rc = ash_json_get_str(e->json, "repo", &e->repo, err);
    if (!rc && e->repo && !ash_catalogue_repo_ok(e->repo, strlen(e->repo)))
        rc = ash_err_set(err, ASH_EINVAL, "'repo' is '%.100s'; expected org/name as on the hub",
                         e->repo);
    e->revision = "main";
    if (!rc) rc = ash_json_get_str(e->json, "revision", &e->revision, err);
    if (!rc && (!*e->revision || *e->revision == '/' || strstr(e->revision, "..")))
        rc = ash_err_set(err, ASH_EINVAL, "'revision' must be a branch, tag or commit");
    return rc;
}

static int get_words(ash_catalogue_entry *e, ash_err *err)
{
    static const char *const formats[] = {"gptq", "gguf", "safetensors", "pytorch", "auto", NULL};
    static const char *const sizes[] = {"small", "medium", "large", NULL};
    static const char *const policies[] = {"never", "on-error", "on-not-ready", "always", NULL};
    static const char *const kinds[] = {"f16", "q8", NULL};
    int i;
    e->format = "auto";
    int rc = get_word(e->json, "format", formats, &i, &e->format, err);
    if (!rc) rc = get_word(e->json, "size", sizes, &i, &e->size, err);
    if (!rc) rc = get_word(e->json, "kv", kinds, &i, &e->kv, err);
    if (!rc) rc = get_word(e->json, "fallback", policies, &i, NULL, err);
    if (!rc && i >= 0) e->fallback = (ash_fallback)(ASH_FALLBACK_NEVER + i);
    return rc;
}

int ash_catalogue_read_entry(ash_catalogue *c, ash_catalogue_entry *e, ash_err *err)
{
    int rc = check_id(e->id, err);
    if (!rc && !json_is_object(e->json))
        rc =
            ash_err_set(err, ASH_EINVAL, "expected an object, not %s", ash_json_type_name(e->json));
    if (!rc) rc = get_repo(e, err);
    if (!rc) rc = get_words(e, err);
    if (!rc) rc = ash_json_get_str(e->json, "description", &e->description, err);
    if (!rc) rc = ash_json_get_str(e->json, "warning", &e->warning, err);
    if (!rc) rc = ash_json_get_str(e->json, "draft", &e->draft, err);
    if (!rc && e->draft && !*e->draft) rc = ash_err_set(err, ASH_EINVAL, "'draft' is empty");
    int64_t context = 0;
    if (!rc) rc = ash_json_get_int(e->json, "context", 1, INT32_MAX, &context, err);
    e->context = (uint32_t)context;
    if (!rc) rc = get_bytes(e->json, "memory", &e->memory, err);
    if (!rc) rc = get_bytes(e->json, "disk", &e->disk, err);
    if (!rc) rc = get_times(e, err);
    if (!rc) rc = ash_value_keep_alive(e->json, &e->has_keep_alive, &e->keep_alive_ms, err);
    if (!rc) rc = get_files(c, e, err);
    if (!rc) rc = get_hashes(c, e, err);
    if (!rc) rc = get_path(c, e, err);
    return rc ? rc : get_template(c, e, err);
}
