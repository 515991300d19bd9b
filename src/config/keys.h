/* Private to src/config: setting a key's field from its text. */
#ifndef ASHLEY_CONFIG_KEYS_H
#define ASHLEY_CONFIG_KEYS_H

#include "config/options.h"

/* Checks `text` as the key's type says and stores it in its field of `c`; strings are copied to the
 * arena. Secrets and passwords in URLs are registered with ash_log_hide. Errors say what is accepted,
 * the caller adds key, origin and value. */
int ash_key_set(ash_config *c, const ash_key_info *k, const char *text, ash_arena *arena,
                ash_err *err) ASH_MUST_CHECK;
/* PRELOAD_MODELS: a comma list of ids or a JSON array of ids or objects. */
int ash_preload_parse(const char *text, ash_arena *arena, ash_preloads *out, ash_err *err) ASH_MUST_CHECK;

#endif
