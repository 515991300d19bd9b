/* Patterns of pre-tokenisers. Those of tokenizer.json are written for Oniguruma (Ruby's syntax, as
 * Hugging Face `tokenizers` sets it up) and are rewritten for PCRE2 piece by piece: what is not known
 * to mean the same there is refused by name. A compiled pattern is immutable: any thread. */
#ifndef ASHLEY_TEXT_TOKENIZER_REGEX_H
#define ASHLEY_TEXT_TOKENIZER_REGEX_H

#include "base/buf.h"

/* Unicode White_Space, as \s in the originals; PCRE2's own \s adds U+180E. Goes inside a class. */
#define TOK_WS                                                                                     \
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"    \
    "\\x{205F}\\x{3000}"

typedef struct tok_regex tok_regex;

/* Appends PCRE2's form of an Oniguruma pattern. ASH_EUNSUPPORTED with what and where. */
int tok_regex_rewrite(ash_str pattern, ash_buf *out, ash_err *err) ASH_MUST_CHECK;
/* `own`: a pattern of this program in PCRE2's syntax, which may take its time on long text; others
 * are Oniguruma's and work against a budget. ASH_EUNSUPPORTED, ASH_EFORMAT, ASH_ENOMEM. */
int tok_regex_open(ash_str pattern, bool own, tok_regex **out, ash_err *err) ASH_MUST_CHECK;
void tok_regex_close(tok_regex *re); /* NULL is fine */

/* Scratch of one encode call. */
typedef struct tok_matcher tok_matcher;
int tok_matcher_open(tok_matcher **out, ash_err *err) ASH_MUST_CHECK;
void tok_matcher_close(tok_matcher *m); /* NULL is fine */
/* Allows work for n more bytes of text. */
void tok_matcher_allow(tok_matcher *m, size_t n);
/* The first match in valid UTF-8 p[0..n) at or after `from`: 1 and its range, 0 if there is none.
 * Sees p[0..from) as what came before. ASH_ELIMIT for a pattern that needs more than some hundred
 * steps a byte. */
int tok_matcher_find(tok_matcher *m, const tok_regex *re, const char *p, size_t n, size_t from,
                     size_t *begin, size_t *end, ash_err *err) ASH_MUST_CHECK;

#endif
