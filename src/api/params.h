/* From a request's JSON body to an ash_request: types, ranges, two names for one setting. */
#ifndef ASHLEY_API_PARAMS_H
#define ASHLEY_API_PARAMS_H

#include "api/errors.h"

/* Bytes that the tree of a body takes, about and rather too many; 0 if ash_params_parse refuses to make
 * it. */
size_t ash_params_weight(ash_str body);
/* Parses a body: one JSON object. On failure *e is a 400 that tells the byte, line and column. On
 * success *out is the caller's. */
int ash_params_parse(ash_str body, json_t **out, ash_api_error *e) ASH_MUST_CHECK;

/* Reads body (borrowed, must outlive req) into *req; arrays and strings made on the way live in `a`.
 * Sets every field but id, model, background and budgets. null counts as absent, unknown fields are
 * ignored, of two names for one setting llama.cpp's wins.
 * 0, or the HTTP status of *e: 400 with `param` for a wrong type or range, 501 for what is not built. */
int ash_params_read(const json_t *body, ash_request_kind kind, ash_arena *a, ash_request *req,
                    ash_api_error *e) ASH_MUST_CHECK;

/* Reads a time as base/duration.h does: "500ms", "10m", "1h30m", bare seconds. false if it is none or over
 * a year. */
bool ash_params_time(const char *text, int64_t *ms);
/* How long a model stays after its last use: `keep_alive` as Ollama reads it, a number of seconds or a time
 * as text ("10m", "1h30m"), negative for ever; else `ttl` (LM Studio's word), the same. *has says whether
 * the body has one; *ms is then its value, -1: for ever. ASH_EINVAL names the field. */
int ash_params_keep_alive(const json_t *body, bool *has, int64_t *ms, ash_err *err) ASH_MUST_CHECK;

/* How many choices an answer to req has: n times its prompts. */
int ash_params_choices(const ash_request *req);

#endif
