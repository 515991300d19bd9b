/* Personas: every *.json of a folder. A persona's id is accepted wherever a model's id is.
 *
 * A bad file never stops the rest: it is in the list of refused ones with its reason. Built by one
 * thread, constant afterwards. */
#ifndef ASHLEY_CONFIG_PERSONA_H
#define ASHLEY_CONFIG_PERSONA_H

#include "base/json.h"

/* Strings live as long as the set; NULL where the file has none. */
typedef struct ash_persona {
    const char *id;            /* default: the file's name without .json */
    const char *name;          /* default: the id */
    const char *description, *system_prompt;
    const char *model;         /* NULL: DEFAULT_MODEL */
    const char *first_message;
    const char *const *greetings;
    size_t n_greetings;
    const json_t *sampling;    /* object of sampling fields, checked, or NULL */
    const json_t *json;        /* the whole file, unknown fields kept */
    const char *file;          /* path */
} ash_persona;

typedef struct ash_persona_bad {
    const char *file, *reason;
} ash_persona_bad;

typedef struct ash_personas ash_personas;

/* Reads dir/ *.json in order of their names. `taken` (n_taken ids, may be NULL) are names that a persona
 * may not have: those of the catalogue and of providers. A missing folder has no personas; one that
 * cannot be read is an error. */
int ash_personas_open(const char *dir, const char *const *taken, size_t n_taken, ash_personas **out,
                      ash_err *err) ASH_MUST_CHECK;
void ash_personas_close(ash_personas *p); /* NULL is fine */
const ash_persona *ash_personas_list(const ash_personas *p, size_t *n);
const ash_persona_bad *ash_personas_bad(const ash_personas *p, size_t *n);
/* NULL if there is none. */
const ash_persona *ash_personas_find(const ash_personas *p, const char *id);

/* Checks one parsed file (borrowed); fills *out with pointers into v. For the folder reader and fuzzers. */
int ash_persona_parse(const json_t *v, ash_persona *out, ash_err *err) ASH_MUST_CHECK;

#endif
