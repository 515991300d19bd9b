/* A reader over large JSON text that stays text: members and elements come one by one as ranges of
 * it, so that a vocabulary of a hundred thousand tokens costs no tree. What is taken as a range is
 * checked for balance only; whoever uses it parses it. The caller's storage, nothing to release. */
#ifndef ASHLEY_TEXT_TOKENIZER_SKIM_H
#define ASHLEY_TEXT_TOKENIZER_SKIM_H

#include "base/arena.h"

typedef struct tok_skim {
    const char *p;
    size_t n, at;
    bool first; /* nothing of the array or object was read yet */
} tok_skim;

/* At an object or array (open is '{' or '['), behind white space. */
int tok_skim_enter(tok_skim *s, ash_str text, char open, ash_err *err) ASH_MUST_CHECK;
/* Moves to the next member or element: 1, or 0 at the end, after which only white space may follow.
 * `key` gets a member's name between its quotes, escapes and all; NULL in an array. */
int tok_skim_next(tok_skim *s, ash_str *key, ash_err *err) ASH_MUST_CHECK;
/* The value that is next, as a range. */
int tok_skim_value(tok_skim *s, ash_str *value, ash_err *err) ASH_MUST_CHECK;
/* A string's bytes from the range between its quotes: borrowed from it where it has no escapes, else
 * the arena's. */
int tok_skim_text(ash_str raw, ash_arena *arena, ash_str *out, ash_err *err) ASH_MUST_CHECK;
/* The range between the quotes of a value that must be a string. */
int tok_skim_string(ash_str value, ash_str *raw, ash_err *err) ASH_MUST_CHECK;
/* A value that must be a whole number from 0 to max. */
int tok_skim_id(ash_str value, uint32_t max, uint32_t *out, ash_err *err) ASH_MUST_CHECK;

#endif
