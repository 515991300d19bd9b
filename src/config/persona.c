/* Owns the folder of personas. Refuses, file by file, what is no persona, and ids that are taken.
 * Built by one thread, constant afterwards. */
#include "config/persona.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/fs.h"
#include "base/limits.h"

enum { MAX_GREETINGS = 256 };

struct ash_personas {
    ash_arena arena;
    json_t *files; /* array that keeps every accepted file's value */
    ash_persona *v;
    ash_persona_bad *bad;
    size_t n, n_bad;
};

const ash_persona *ash_personas_list(const ash_personas *p, size_t *n)
{
    *n = p->n;
    return p->v;
}

const ash_persona_bad *ash_personas_bad(const ash_personas *p, size_t *n)
{
    *n = p->n_bad;
    return p->bad;
}

const ash_persona *ash_personas_find(const ash_personas *p, const char *id)
{
    for (size_t i = 0; i < p->n; i++)
        if (!strcmp(p->v[i].id, id)) return &p->v[i];
    return NULL;
}

static int check_id(const char *id, ash_err *err)
{
    size_t n = strlen(id);
    bool ok = n && n <= ASH_MAX_MODEL_ID;
    for (size_t i = 0; ok && i < n; i++) ok = (unsigned char)id[i] > 0x20 && id[i] != 0x7F;
    return ok ? 0
              : ash_err_set(err, ASH_EINVAL,
                            "'id' must have 1 to %d bytes without blanks or control characters",
                            ASH_MAX_MODEL_ID);
}

static int check_stop(const json_t *v, ash_err *err)
{
    bool ok = json_is_string(v) || json_is_array(v);
    for (size_t i = 0; ok && i < json_array_size(v); i++) ok = json_is_string(json_array_get(v, i));
    if (!ok || json_array_size(v) > ASH_MAX_STOPS)
        return ash_err_set(err, ASH_EINVAL,
                           "'stop' must be a string or an array of at most %d strings",
                           ASH_MAX_STOPS);
    return 0;
}

/* Ranges of the sampling fields that requests have too; other fields are kept unread. */
static int check_sampling(const json_t *s, ash_err *err)
{
    static const struct {
        const char *key;
        double lo, hi;
    } reals[] = {
        {"temperature", 0, 100},
        {"top_p", 0, 1},
        {"min_p", 0, 1},
        {"repeat_penalty", 0, 100},
        {"presence_penalty", -2, 2},
        {"frequency_penalty", -2, 2},
    };
    static const struct {
        const char *key;
        int64_t lo, hi;
    } whole[] = {{"top_k", 0, INT32_MAX},
                 {"repeat_last_n", -1, INT32_MAX},
                 {"seed", -1, INT64_MAX},
                 {"max_tokens", -1, INT32_MAX}};
    if (!json_is_object(s))
        return ash_err_set(err, ASH_EINVAL, "'sampling' must be an object, not %s",
                           ash_json_type_name(s));
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof reals / sizeof *reals; i++) {
        double x;
        rc = ash_json_get_num(s, reals[i].key, reals[i].lo, reals[i].hi, &x, err);
    }
    for (size_t i = 0; !rc && i < sizeof whole / sizeof *whole; i++) {
        int64_t x;
        rc = ash_json_get_int(s, whole[i].key, whole[i].lo, whole[i].hi, &x, err);
    }
    const json_t *stop = json_object_get(s, "stop");
    if (!rc && stop && !json_is_null(stop)) rc = check_stop(stop, err);
    return rc ? ash_err_prefix(err, "'sampling'") : 0;
}

static int check_greetings(const json_t *g, ash_err *err)
{
    if (!json_is_array(g) || json_array_size(g) > MAX_GREETINGS)
        return ash_err_set(err, ASH_EINVAL, "'greetings' must be an array of at most %d strings",
                           MAX_GREETINGS);
    for (size_t i = 0; i < json_array_size(g); i++) {
        const json_t *s = json_array_get(g, i);
        if (!json_is_string(s) || strlen(json_string_value(s)) != json_string_length(s))
            return ash_err_set(err, ASH_EINVAL, "'greetings[%zu]' must be a string without NUL", i);
    }
    return 0;
}

int ash_persona_parse(const json_t *v, ash_persona *out, ash_err *err)
{
    *out = (ash_persona){.json = v};
    if (!json_is_object(v))
        return ash_err_set(err, ASH_EINVAL, "expected an object, not %s", ash_json_type_name(v));
    const struct {
        const char *key, **field;
    } texts[] = {
        {"id", &out->id},
        {"name", &out->name},
        {"description", &out->description},
        {"system_prompt", &out->system_prompt},
        {"model", &out->model},
        {"first_message", &out->first_message},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int rc = ash_json_get_str(v, texts[i].key, texts[i].field, err);
        if (rc) return rc;
    }
    if (out->model && (!*out->model || strlen(out->model) > ASH_MAX_MODEL_ID))
        return ash_err_set(err, ASH_EINVAL, "'model' must have 1 to %d bytes", ASH_MAX_MODEL_ID);
    const json_t *g = json_object_get(v, "greetings"), *s = json_object_get(v, "sampling");
    int rc = out->id ? check_id(out->id, err) : 0;
    if (!rc && g && !json_is_null(g)) rc = check_greetings(g, err);
    if (!rc && s && !json_is_null(s)) rc = check_sampling(s, err);
    if (!rc && s && !json_is_null(s)) out->sampling = s;
    return rc;
}

/* The strings of "greetings", which was checked. */
static int take_greetings(ash_personas *p, ash_persona *one, ash_err *err)
{
    const json_t *g = json_object_get(one->json, "greetings");
    size_t n = json_array_size(g);
    const char **v = n ? ash_arena_calloc(&p->arena, n, sizeof *v) : NULL;
    if (n && !v) return ash_err_nomem(err, "personas");
    for (size_t i = 0; i < n; i++) v[i] = json_string_value(json_array_get(g, i));
    one->greetings = v;
    one->n_greetings = n;
    return 0;
}

/* An id from the file's name where the file gives none; and whether the id is free. */
static int settle_id(ash_personas *p, ash_persona *one, const char *file, const char *const *taken,
                     size_t n_taken, ash_err *err)
{
    if (!one->id) {
        one->id = ash_arena_strndup(&p->arena, file, strlen(file) - 5);
        if (!one->id) return ash_err_nomem(err, "personas");
        int rc = check_id(one->id, err);
        if (rc) return ash_err_prefix(err, "no 'id', and the file's name will not do");
    }
    if (!one->name) one->name = one->id;
    for (size_t i = 0; i < n_taken; i++)
        if (!strcmp(taken[i], one->id))
            return ash_err_set(err, ASH_EINVAL, "the id '%s' is a model's", one->id);
    const ash_persona *other = ash_personas_find(p, one->id);
    if (other)
        return ash_err_set(err, ASH_EINVAL, "the id '%s' is taken by %s", one->id, other->file);
    return 0;
}

static int read_json(ash_personas *p, const char *path, json_t **out, ash_err *err)
{
    ash_buf text;
    int rc = ash_fs_read(path, ASH_MAX_PERSONA_FILE, &text, err);
    if (!rc) rc = ash_json_parse(ash_buf_cstr(&text), text.len, out, err);
    ash_buf_release(&text);
    if (!rc && json_array_append_new(p->files, *out)) /* steals even when it fails */
        rc = ash_err_nomem(err, "personas");
    return rc;
}

static int read_one(ash_personas *p, const char *path, const char *file, const char *const *taken,
                    size_t n_taken, ash_err *err)
{
    json_t *v = NULL;
    ash_persona one;
    int rc = read_json(p, path, &v, err);
    if (!rc) rc = ash_persona_parse(v, &one, err);
    if (!rc) rc = settle_id(p, &one, file, taken, n_taken, err);
    if (!rc) rc = take_greetings(p, &one, err);
    if (rc) return rc;
    one.file = path;
    p->v[p->n++] = one;
    return 0;
}

static int is_persona(const struct dirent *d)
{
    size_t n = strlen(d->d_name);
    return n > 5 && d->d_name[0] != '.' && !strcmp(d->d_name + n - 5, ".json");
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int read_files(ash_personas *p, const char *dir, struct dirent **files, size_t n,
                      const char *const *taken, size_t n_taken, ash_err *err)
{
    p->v = ash_arena_calloc(&p->arena, n + 1, sizeof *p->v);
    p->bad = ash_arena_calloc(&p->arena, n + 1, sizeof *p->bad);
    if (!p->v || !p->bad) return ash_err_nomem(err, "personas");
    for (size_t i = 0; i < n; i++) {
        char *joined = ash_fs_join(dir, files[i]->d_name);
        const char *path = joined ? ash_arena_strdup(&p->arena, joined) : NULL;
        free(joined);
        if (!path) return ash_err_nomem(err, "personas");
        ash_err why = ASH_ERR_INIT;
        int rc = read_one(p, path, files[i]->d_name, taken, n_taken, &why);
        if (rc == ASH_ENOMEM) return ash_err_nomem(err, "personas");
        if (!rc) continue;
        const char *reason = ash_arena_strdup(&p->arena, why.msg);
        if (!reason) return ash_err_nomem(err, "personas");
        p->bad[p->n_bad++] = (ash_persona_bad){path, reason};
    }
    return 0;
}

static int read_folder(ash_personas *p, const char *dir, const char *const *taken, size_t n_taken,
                       ash_err *err)
{
    struct dirent **files = NULL;
    int n = scandir(dir, &files, is_persona, by_name);
    if (n < 0 && errno == ENOENT) return 0;
    if (n < 0)
        return ash_err_set(err, errno == ENOMEM ? ASH_ENOMEM : ASH_EIO,
                           "cannot read the folder '%s': %s", dir, strerror(errno));
    int rc = n > ASH_MAX_PERSONAS ? ash_err_set(err, ASH_ELIMIT, "'%s' has more than %d personas",
                                                dir, ASH_MAX_PERSONAS)
                                  : read_files(p, dir, files, (size_t)n, taken, n_taken, err);
    for (int i = 0; i < n; i++) free(files[i]);
    free(files);
    return rc;
}

int ash_personas_open(const char *dir, const char *const *taken, size_t n_taken, ash_personas **out,
                      ash_err *err)
{
    *out = NULL;
    ash_personas *p = calloc(1, sizeof *p);
    if (!p) return ash_err_nomem(err, "personas");
    ash_arena_init(&p->arena, ASH_MAX_CONFIG_MEMORY);
    p->files = json_array();
    int rc = p->files ? read_folder(p, dir, taken, n_taken, err) : ash_err_nomem(err, "personas");
    if (rc)
        ash_personas_close(p);
    else
        *out = p;
    return rc;
}

void ash_personas_close(ash_personas *p)
{
    if (!p) return;
    json_decref(p->files);
    ash_arena_release(&p->arena);
    free(p);
}
