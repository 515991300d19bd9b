/* .env text -> keys and values -> a configuration. The text is both a file of its own and, as
 * PRELOAD_MODELS, a value; errors name the line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "config/env.h"
#include "config/keys.h"
#include "config/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void as_file(const char *text, size_t n)
{
    static const char *const vars[] = {"HOME=/h", "LONG=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", NULL};
    ash_arena a;
    ash_env e;
    ash_err err = ASH_ERR_INIT;
    ash_arena_init(&a, ASH_MAX_CONFIG_MEMORY);
    int rc = ash_env_parse(text, n, "f", vars, &a, &e, &err);
    if (rc && (strncmp(err.msg, "f:", 2) || err.pos > (int64_t)n)) abort();
    for (size_t i = 0; !rc && i < e.n; i++) {
        if (strlen(e.v[i].value) > ASH_MAX_ENV_VALUE || !*e.v[i].key) abort();
        if (ash_env_find(&e, e.v[i].key) != &e.v[i]) abort(); /* each key once */
    }
    ash_arena_release(&a);
}

/* The text as the value of every key: types are checked whatever it is. */
static void as_value(const char *text)
{
    size_t n;
    const ash_key_info *k = ash_config_keys(&n);
    ash_config *c = calloc(1, sizeof *c);
    for (size_t i = 0; c && i < n; i++) {
        ash_arena a;
        ash_err err = ASH_ERR_INIT;
        ash_arena_init(&a, ASH_MAX_CONFIG_MEMORY);
        if (k[i].secret) continue; /* the log keeps secrets for good */
        if (ash_key_set(c, &k[i], text, &a, &err) && !err.msg[0]) abort();
        ash_arena_release(&a);
    }
    free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    as_file((const char *)data, size);
    char *text = size <= ASH_MAX_ENV_VALUE ? malloc(size + 1) : NULL;
    if (!text) return 0;
    if (size) memcpy(text, data, size);
    text[size] = 0;
    if (!memchr(text, 0, size) && !memchr(text, '@', size))
        as_value(text); /* '@': passwords are kept too */
    free(text);
    return 0;
}
