/* Owns the way Jansson is used: depth cap, positions, typed getters, quoting.
 * Refuses what json.h lists. A json_t belongs to one thread at a time. */
#include "base/json.h"

#include <math.h>
#include <string.h>

#include "base/limits.h"
#include "base/utf8.h"

/* Jansson's own depth cap is 2048, too deep for recursion over untrusted input in small stacks. */
static int check_depth(const char *p, size_t n, ash_err *err)
{
    int depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '[' || c == '{') {
            if (++depth > ASH_MAX_JSON_DEPTH)
                return ash_err_at(err, ASH_ELIMIT, (int64_t)i, "JSON nested deeper than %d",
                                  ASH_MAX_JSON_DEPTH);
        } else if (c == ']' || c == '}') {
            depth--;
        }
    }
    return 0;
}

int ash_json_parse(const char *p, size_t n, json_t **out, ash_err *err)
{
    *out = NULL;
    int rc = check_depth(p, n, err);
    if (rc)
        return rc;
    json_error_t je;
    json_t *v = json_loadb(p, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
    if (v) {
        *out = v;
        return 0;
    }
    if (json_error_code(&je) == json_error_out_of_memory || !je.text[0]) /* it often says nothing */
        return ash_err_nomem(err, "JSON");
    return ash_err_at(err, ASH_EFORMAT, je.position, "JSON line %d column %d: %s", je.line, je.column,
                      je.text);
}

const char *ash_json_type_name(const json_t *v)
{
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "a number";
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    default: return "null";
    }
}

static int wrong_type(const char *key, const char *want, const json_t *v, ash_err *err)
{
    return ash_err_set(err, ASH_EINVAL, "'%s' must be %s, not %s", key, want, ash_json_type_name(v));
}

static const json_t *field(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return json_is_null(v) ? NULL : v;
}

int ash_json_get_str(const json_t *obj, const char *key, const char **out, ash_err *err)
{
    const json_t *v = field(obj, key);
    if (!v)
        return 0;
    if (!json_is_string(v))
        return wrong_type(key, "a string", v, err);
    if (strlen(json_string_value(v)) != json_string_length(v))
        return ash_err_set(err, ASH_EINVAL, "'%s' must not contain a NUL character", key);
    *out = json_string_value(v);
    return 0;
}

int ash_json_get_bool(const json_t *obj, const char *key, bool *out, ash_err *err)
{
    const json_t *v = field(obj, key);
    if (!v)
        return 0;
    if (!json_is_boolean(v))
        return wrong_type(key, "a boolean", v, err);
    *out = json_is_true(v);
    return 0;
}

int ash_json_get_int(const json_t *obj, const char *key, int64_t lo, int64_t hi, int64_t *out,
                     ash_err *err)
{
    const json_t *v = field(obj, key);
    if (!v)
        return 0;
    int64_t n;
    if (json_is_integer(v)) {
        n = json_integer_value(v);
    } else if (json_is_real(v) && json_real_value(v) == floor(json_real_value(v)) &&
               fabs(json_real_value(v)) < 9e15) {
        n = (int64_t)json_real_value(v);
    } else {
        return wrong_type(key, "an integer", v, err);
    }
    if (n < lo || n > hi)
        return ash_err_set(err, ASH_EINVAL, "'%s' must be from %lld to %lld, not %lld", key,
                           (long long)lo, (long long)hi, (long long)n);
    *out = n;
    return 0;
}

int ash_json_get_num(const json_t *obj, const char *key, double lo, double hi, double *out,
                     ash_err *err)
{
    const json_t *v = field(obj, key);
    if (!v)
        return 0;
    if (!json_is_number(v))
        return wrong_type(key, "a number", v, err);
    double x = json_number_value(v);
    if (!(x >= lo && x <= hi))
        return ash_err_set(err, ASH_EINVAL, "'%s' must be from %g to %g, not %g", key, lo, hi, x);
    *out = x;
    return 0;
}

static int dump_chunk(const char *p, size_t n, void *out)
{
    return ash_buf_add(out, p, n) ? -1 : 0;
}

int ash_json_dump(const json_t *v, ash_buf *out)
{
    if (json_dump_callback(v, dump_chunk, out, JSON_COMPACT | JSON_ENCODE_ANY) && !out->failed)
        out->failed = ASH_ENOMEM;
    return out->failed;
}

int ash_json_quote(ash_buf *out, const char *p, size_t n)
{
    ash_buf_addc(out, '"');
    size_t plain = 0; /* bytes waiting that need no escape */
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)p[i];
        uint32_t cp;
        bool ok = true;
        size_t len = c < 0x80 ? 1 : ash_utf8_decode(p + i, n - i, &cp, &ok);
        if (ok && c >= 0x20 && c != '"' && c != '\\' && c != 0x7F) {
            plain += len;
            i += len;
            continue;
        }
        ash_buf_add(out, p + i - plain, plain);
        plain = 0;
        if (!ok)
            ash_buf_adds(out, "\xEF\xBF\xBD");
        else if (c == '"' || c == '\\')
            ash_buf_printf(out, "\\%c", c);
        else if (c == '\n')
            ash_buf_adds(out, "\\n");
        else
            ash_buf_printf(out, "\\u%04x", c);
        i += len;
    }
    ash_buf_add(out, p + n - plain, plain);
    return ash_buf_addc(out, '"');
}
