/* The reader of `.env` files.
 *
 * Grammar, line by line (LF or CRLF; a UTF-8 byte order mark is skipped):
 *   blank, or  # comment
 *   [export] KEY=value [# comment]      KEY: letter or _, then letters, digits, _
 * value is one of
 *   bare words: up to the end of the line or to a `#` after white space; trailing white space is
 *     dropped; ${VAR} is expanded
 *   'literal': nothing in it is special
 *   "quoted": \n \" \\ \$ are escapes, ${VAR} is expanded
 * ${VAR} is an earlier key of the file or, failing that, of the environment; one that is set nowhere is
 * empty. A `$` without `{` is itself. A key given twice takes the later value. Blanks around `=` are
 * dropped. A quote left open at the line's end, text after a closing quote, other escapes, NUL bytes
 * and invalid UTF-8 are errors. */
#ifndef ASHLEY_CONFIG_ENV_H
#define ASHLEY_CONFIG_ENV_H

#include "base/arena.h"

typedef struct ash_env_var {
    const char *key, *value; /* NUL-terminated, in the arena */
    int line;                /* 1-based, where the key stands */
} ash_env_var;

typedef struct ash_env {
    ash_env_var *v; /* in the order of the file, each key once */
    size_t n;
} ash_env;

/* Parses text[0..n). `name` is the file's, for messages. `vars` is NULL-terminated "KEY=value" for
 * expansion, NULL for none. Results live in `arena`. Errors are ASH_EFORMAT, "NAME:LINE: what was
 * expected" with the byte in err->pos; ASH_ELIMIT over ASH_MAX_ENV_VALUE or ASH_MAX_ENV_KEYS;
 * ASH_ENOMEM. A value never shows in a message: it may be a secret. */
int ash_env_parse(const char *text, size_t n, const char *name, const char *const *vars,
                  ash_arena *arena, ash_env *out, ash_err *err) ASH_MUST_CHECK;
/* Reads a file of at most ASH_MAX_ENV_FILE bytes and parses it. ASH_ENOENT if there is none. */
int ash_env_read(const char *path, const char *const *vars, ash_arena *arena, ash_env *out,
                 ash_err *err) ASH_MUST_CHECK;
/* NULL if the key is not there. */
const ash_env_var *ash_env_find(const ash_env *e, const char *key);

#endif
