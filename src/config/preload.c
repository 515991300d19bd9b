/* Owns the grammar of PRELOAD_MODELS. Refuses an entry without a model, members it does not know
 * and more than ASH_MAX_PRELOAD entries; a model named twice keeps its first place. For the thread
 * that loads the configuration. */
#include <string.h>

#include "base/json.h"
#include "base/nearest.h"
#include "base/utf8.h"
#include "config/keys.h"
#include "config/value.h"

static int check_id(const char *id, ash_err *err)
{
    size_t n = strlen(id);
    if (!n || n > ASH_MAX_MODEL_ID)
        return ash_err_set(err, ASH_EINVAL, "expected a model's id of 1 to %d bytes",
                           ASH_MAX_MODEL_ID);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)id[i] < 0x20 || id[i] == 0x7F)
            return ash_err_set(err, ASH_EINVAL, "a model's id has no control characters");
    return 0;
}

static int check_members(const json_t *v, ash_err *err)
{
    static const char *const known[] = {"model", "required", "ctx", "keep_alive", "pin", "confirm",
                                        "kv", "draft"};
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)v, key, member)
    {
        bool ok = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) ok |= !strcmp(key, known[i]);
        const char *near = ok ? NULL : ash_nearest(key, known, sizeof known / sizeof *known);
        if (!ok)
            return ash_err_set(
                err, ASH_EINVAL,
                "'%.64s' is not a member; expected model, required, ctx, keep_alive, pin, "
                "confirm, kv or draft%s%s%s",
                key, near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
    }
    return 0;
}

static int read_object(const json_t *v, ash_preload *p, ash_err *err)
{
    int64_t ctx = 0;
    int rc = check_members(v, err);
    if (!rc) rc = ash_json_get_str(v, "model", &p->model, err);
    if (!rc && !p->model) rc = ash_err_set(err, ASH_EINVAL, "'model' is missing");
    if (!rc) rc = ash_json_get_bool(v, "required", &p->required, err);
    if (!rc) rc = ash_json_get_bool(v, "confirm", &p->confirm, err);
    if (!rc) rc = ash_json_get_int(v, "ctx", 1, INT32_MAX, &ctx, err);
    if (!rc) rc = ash_json_get_str(v, "kv", &p->kv, err);
    if (!rc && p->kv && strcmp(p->kv, "f16") && strcmp(p->kv, "q8"))
        rc = ash_err_set(err, ASH_EINVAL, "'kv' is '%.60s'; expected one of f16, q8", p->kv);
    if (!rc && p->kv)
        p->kv = !strcmp(p->kv, "q8") ? "q8" : "f16"; /* the JSON goes */
    if (!rc) rc = ash_json_get_str(v, "draft", &p->draft, err);
    if (!rc) rc = ash_value_keep_alive(v, &p->has_keep_alive, &p->keep_alive_ms, err);
    if (p->has_keep_alive) p->pin = false;
    if (!rc) rc = ash_json_get_bool(v, "pin", &p->pin, err);
    p->ctx = (uint32_t)ctx;
    return rc;
}

/* Copies p's model and appends it, unless an entry has that model already. */
static int append(ash_preload *list, size_t *n, const ash_preload *p, ash_arena *arena,
                  ash_err *err)
{
    int rc = check_id(p->model, err);
    if (!rc && p->draft && *p->draft) rc = check_id(p->draft, err);
    if (rc) return rc;
    for (size_t i = 0; i < *n; i++)
        if (!strcmp(list[i].model, p->model)) return 0;
    list[*n] = *p;
    list[*n].model = ash_arena_strdup(arena, p->model);
    list[*n].draft = p->draft ? ash_arena_strdup(arena, p->draft) : NULL;
    bool ok = list[*n].model && !p->draft == !list[*n].draft;
    ++*n;
    return ok ? 0 : ash_err_nomem(err, "PRELOAD_MODELS");
}

static int read_entry(const json_t *v, ash_preload *p, ash_err *err)
{
    *p = (ash_preload){.required = true, .pin = true};
    if (json_is_object(v)) return read_object(v, p, err);
    if (!json_is_string(v))
        return ash_err_set(err, ASH_EINVAL, "expected an id or an object, not %s",
                           ash_json_type_name(v));
    p->model = json_string_value(v);
    if (strlen(p->model) != json_string_length(v))
        return ash_err_set(err, ASH_EINVAL, "a model's id has no NUL character");
    return 0;
}

static int parse_json(const char *text, ash_arena *arena, ash_preload *list, size_t *n,
                      ash_err *err)
{
    json_t *a = NULL;
    int rc = ash_json_parse(text, strlen(text), &a, err);
    if (!rc && json_array_size(a) > ASH_MAX_PRELOAD)
        rc = ash_err_set(err, ASH_ELIMIT, "expected at most %d entries", ASH_MAX_PRELOAD);
    for (size_t i = 0; !rc && i < json_array_size(a); i++) {
        ash_preload p;
        rc = read_entry(json_array_get(a, i), &p, err);
        if (!rc) rc = append(list, n, &p, arena, err);
        if (rc) ash_err_prefix(err, "entry %zu", i + 1);
    }
    json_decref(a);
    return rc;
}

static int parse_list(const char *text, ash_arena *arena, ash_preload *list, size_t *n,
                      ash_err *err)
{
    const char *const *ids;
    size_t count;
    int rc = ash_value_list(text, arena, &ids, &count, err);
    if (!rc && count > ASH_MAX_PRELOAD)
        rc = ash_err_set(err, ASH_ELIMIT, "expected at most %d entries", ASH_MAX_PRELOAD);
    for (size_t i = 0; !rc && i < count; i++) {
        ash_preload p = {.model = ids[i], .required = true, .pin = true};
        rc = append(list, n, &p, arena, err);
    }
    return rc;
}

int ash_preload_parse(const char *text, ash_arena *arena, ash_preloads *out, ash_err *err)
{
    ash_preload *list = ash_arena_calloc(arena, ASH_MAX_PRELOAD, sizeof *list);
    size_t n = 0;
    if (!list) return ash_err_nomem(err, "PRELOAD_MODELS");
    const char *p = text + strspn(text, " \t\r\n");
    if (*p == '{')
        return ash_err_set(err, ASH_EINVAL,
                           "expected a JSON array of objects, [{...}], or ids with commas");
    int rc =
        *p == '[' ? parse_json(text, arena, list, &n, err) : parse_list(text, arena, list, &n, err);
    if (!rc) *out = (ash_preloads){list, n};
    return rc;
}
