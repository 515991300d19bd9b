/* JSON on top of Jansson: parsing with a cap on depth and the error's position, typed getters that
 * name the field they refuse. Values are reference counted by Jansson; one thread at a time each. */
#ifndef ASHLEY_BASE_JSON_H
#define ASHLEY_BASE_JSON_H

#include <jansson.h>

#include "base/buf.h"

/* Parses p[0..n). Refuses duplicate keys, trailing text, depth over ASH_MAX_JSON_DEPTH; err->pos is
 * the byte where it went wrong. On success *out is the caller's (json_decref). "\u0000" is allowed
 * in strings: use json_string_length. Any value may be at the top. */
int ash_json_parse(const char *p, size_t n, json_t **out, ash_err *err) ASH_MUST_CHECK;

/* Getters. `obj` is an object; a missing or null field leaves *out as it is and returns 0. A field
 * of another type is ASH_EINVAL with "'KEY' must be a string, not a number" (err->msg), so preset
 * *out with the default. */
int ash_json_get_str(const json_t *obj, const char *key, const char **out, ash_err *err) ASH_MUST_CHECK;
int ash_json_get_bool(const json_t *obj, const char *key, bool *out, ash_err *err) ASH_MUST_CHECK;
/* Integers also as reals without fraction (1.0); out of [lo, hi] is refused with the range. */
int ash_json_get_int(const json_t *obj, const char *key, int64_t lo, int64_t hi, int64_t *out,
                     ash_err *err) ASH_MUST_CHECK;
int ash_json_get_num(const json_t *obj, const char *key, double lo, double hi, double *out,
                     ash_err *err) ASH_MUST_CHECK;

/* "an object", "a string", ... for messages. */
const char *ash_json_type_name(const json_t *v);
/* Appends v as compact UTF-8 JSON. */
int ash_json_dump(const json_t *v, ash_buf *out);
/* Appends p[0..n) as a quoted JSON string; invalid UTF-8 becomes U+FFFD. */
int ash_json_quote(ash_buf *out, const char *p, size_t n);

#endif
