/* Owns config.json and the settings of a quantisation, from whichever file has them. Refuses
 * malformed files; settings that differ between two files are noted, since the tensors decide. Any
 * thread. */
#include <stdlib.h>
#include <string.h>

#include "format/checkpoint_private.h"

/* ---- JSON as Python writes it -----------------------------------------------------------------
 */

/* Copies p[0..n) with "e0" after whole numbers of 19 digits and more: 1e30 written out, as
 * transformers does for "no limit", is no integer for C. Counts what a tree would hold. */
static int tame(const char *path, const char *p, size_t n, ash_buf *out, ash_err *err)
{
    size_t containers = 0, values = 0, from = 0;
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        if (quoted) {
            i += c == '\\';
            quoted = c != '"';
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            containers++;
        } else if (c == ',') {
            values++;
        } else if (c >= '0' && c <= '9') {
            size_t first = i;
            while (i < n && p[i] >= '0' && p[i] <= '9') i++;
            bool real = i < n && (p[i] == '.' || (p[i] | 32) == 'e');
            if (i - first >= 19 && !real) {
                ash_buf_add(out, p + from, i - from);
                ash_buf_adds(out, "e0");
                from = i;
            } else if (real) { /* its fraction and exponent are not looked at */
                while (i < n && p[i] != ',' && p[i] != '}' && p[i] != ']') i++;
            }
            i--;
        }
    }
    if (containers > ASH_MAX_CONFIG_CONTAINERS || values > ASH_MAX_CONFIG_VALUES)
        return ash_err_set(err, ASH_ELIMIT, "%s: more than %u arrays and objects or %u values",
                           path, ASH_MAX_CONFIG_CONTAINERS, ASH_MAX_CONFIG_VALUES);
    ash_buf_add(out, p + from, n - from);
    return ash_buf_check(out, path, err);
}

int ash_checkpoint_read_json(const char *dir, const char *name, size_t max, json_t **out,
                             ash_err *err)
{
    ash_buf file, text;
    char *path = ash_fs_join(dir, name);
    *out = NULL;
    if (!path) return ash_err_nomem(err, name);
    ash_buf_init(&text, max > SIZE_MAX / 2 ? SIZE_MAX : 2 * max + 16);
    int rc = ash_fs_read(path, max, &file, err);
    if (rc == ASH_ENOENT) {
        rc = 0;
    } else if (!rc) {
        rc = tame(path, ash_buf_cstr(&file), file.len, &text, err);
        ash_buf_release(&file);
        if (!rc) {
            rc = ash_json_parse(ash_buf_cstr(&text), text.len, out, err);
            if (rc) rc = ash_err_prefix(err, "%s", path);
        }
    }
    ash_buf_release(&text);
    ash_buf_release(&file);
    free(path);
    return rc;
}

/* ---- quantisation -----------------------------------------------------------------------------
 */

static const json_t *setting(const json_t *q, const char *const names[2])
{
    const json_t *v = json_object_get(q, names[0]);
    if (!v || json_is_null(v)) v = names[1] ? json_object_get(q, names[1]) : NULL;
    return v && !json_is_null(v) ? v : NULL;
}

static void show(const json_t *v, ash_buf *out)
{
    ash_buf text;
    ash_buf_init(&text, 4096);
    if (!v)
        ash_buf_adds(out, "nothing");
    else if (ash_json_dump(v, &text) == 0 && text.len <= 64)
        ash_buf_adds(out, ash_buf_cstr(&text));
    else
        ash_buf_adds(out, ash_json_type_name(v));
    ash_buf_release(&text);
}

/* Notes each setting that both have and that differs. Where one says nothing of the format, it says
 * "gptq", the writers' default. */
static void compare(const json_t *a, const char *a_from, const json_t *b, const char *b_from,
                    ash_buf *note)
{
    static const char *const names[][2] = {
        {"bits", "w_bit"}, {"group_size", "q_group_size"}, {"desc_act", NULL},
        {"sym", NULL},     {"quant_method", "method"},     {"checkpoint_format", "format"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *x = setting(a, names[i]), *y = setting(b, names[i]);
        bool format = i == sizeof names / sizeof *names - 1;
        if ((!x || !y) && !format) continue;
        if (x && y ? json_equal(x, y) : !x && !y) continue;
        const char *said = json_string_value(x ? x : y);
        if ((!x || !y) && said && strcmp(said, "gptq") == 0) continue;
        ash_buf_printf(note, "%s%s says %s ", note->len ? "; " : "", a_from, names[i][0]);
        show(x, note);
        ash_buf_printf(note, ", %s says ", b_from);
        show(y, note);
    }
}

static int must_be_object(const char *dir, const char *name, const json_t *v, ash_err *err)
{
    if (!v || json_is_object(v)) return 0;
    return ash_err_set(err, ASH_EFORMAT, "%s/%s must be an object, not %s", dir, name,
                       ash_json_type_name(v));
}

int ash_checkpoint_read_config(const char *dir, json_t **config, json_t **quant,
                               const char **quant_from, ash_buf *note, ash_err *err)
{
    static const char *const files[] = {"quantize_config.json", "quant_config.json"};
    static const char inner[] = "config.json's quantization_config";
    *quant = NULL;
    *quant_from = NULL;
    int rc = ash_checkpoint_read_json(dir, "config.json", ASH_MAX_CONFIG_FILE, config, err);
    if (!rc && !*config)
        rc = ash_err_set(err, ASH_ENOENT,
                         "'%s' holds no config.json, which a checkpoint of this format needs", dir);
    if (!rc) rc = must_be_object(dir, "config.json", *config, err);
    for (size_t i = 0; !rc && i < sizeof files / sizeof *files; i++) {
        json_t *q;
        rc = ash_checkpoint_read_json(dir, files[i], ASH_MAX_CONFIG_FILE, &q, err);
        if (!rc) rc = must_be_object(dir, files[i], q, err);
        if (!rc && q && *quant) compare(*quant, *quant_from, q, files[i], note);
        if (rc || !q || *quant) {
            json_decref(q);
        } else {
            *quant = q;
            *quant_from = files[i];
        }
    }
    json_t *own = rc ? NULL : json_object_get(*config, "quantization_config");
    if (!own || json_is_null(own)) return rc ? rc : ash_buf_check(note, dir, err);
    if (!json_is_object(own))
        return ash_err_set(err, ASH_EFORMAT,
                           "%s/config.json: 'quantization_config' must be an object, not %s", dir,
                           ash_json_type_name(own));
    if (*quant) {
        compare(*quant, *quant_from, own, inner, note);
    } else {
        *quant = json_incref(own);
        *quant_from = inner;
    }
    return ash_buf_check(note, dir, err);
}
