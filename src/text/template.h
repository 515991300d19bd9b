/* Chat templates: the Jinja2 that published chat templates are written in, parsed once and rendered
 * often. The reference is Python's Jinja2 3.1 as transformers sets it up: ImmutableSandboxedEnvironment
 * with trim_blocks, lstrip_blocks, loopcontrols and the generation tag, tojson = json.dumps with
 * ensure_ascii off, globals raise_exception and strftime_now.
 *
 * A template sees nothing but the data it is given; it cannot reach files, the network or another
 * request. Integers have 64 bits, strings are UTF-8 and are indexed by code point.
 *
 * Taint: bytes of the output that come from strings under the untrusted context keys are reported,
 * so that the tokenizer does not honour special tokens that a user typed. Concatenation, slices,
 * strip, split, join, replace and the like track bytes exactly; where case mapping, tojson and such
 * cannot, the whole result is untrusted if any input was. */
#ifndef ASHLEY_TEXT_TEMPLATE_H
#define ASHLEY_TEXT_TEMPLATE_H

#include <jansson.h>

#include "base/buf.h"
#include "text/span.h"

typedef struct ash_template ash_template;

/* Zero-initialised means: every default. */
typedef struct ash_template_opts {
    const char *const *untrusted_keys; /* borrowed, NULL-terminated; NULL: messages, tools, documents */
    int64_t now;                       /* Unix seconds for strftime_now; 0: the wall clock */
    bool utc;                          /* strftime_now in UTC and not in local time */
    uint64_t max_steps;                /* 0: ASH_MAX_TEMPLATE_STEPS; likewise below */
    size_t max_output;                 /* bytes; ASH_MAX_TEMPLATE_OUTPUT */
    size_t max_memory;                 /* bytes of values; ASH_MAX_TEMPLATE_MEMORY */
} ash_template_opts;

/* Parses src[0..n), which is copied. *out is the caller's (close), NULL on failure. The template is
 * immutable: any number of threads may render it at once.
 * Errors: ASH_EFORMAT with line and column in the message and the byte in err->pos; ASH_EUNSUPPORTED
 * for Jinja that chat templates have no use for, by name; ASH_ELIMIT for size and nesting; ASH_ENOMEM. */
int ash_template_parse(const char *src, size_t n, ash_template **out, ash_err *err) ASH_MUST_CHECK;
void ash_template_close(ash_template *t); /* NULL is fine */
/* The source as given, NUL-terminated, borrowed. */
const char *ash_template_source(const ash_template *t);
/* Whether the template reads the variable `name` anywhere ("tools", "enable_thinking"). */
bool ash_template_mentions(const ash_template *t, const char *name);

/* Renders with the variables of `context` (an object, borrowed and not changed; NULL is empty) and
 * appends to `out`; `untrusted` (may be NULL) gets the tainted ranges as offsets into out->data.
 * opts may be NULL. On failure `out` and `untrusted` are as long as before.
 * Errors: ASH_EINVAL with the template's own text for raise_exception, and with line for what Jinja2
 * raises at run time (undefined, wrong type); ASH_ELIMIT for steps, depth, output, memory and
 * integers beyond 64 bits; ASH_EUNSUPPORTED; ASH_ENOMEM. Any thread with 256 KiB of stack to spare
 * (measured at -O2 at the nesting caps). */
int ash_template_render(const ash_template *t, const json_t *context, const ash_template_opts *opts,
                        ash_buf *out, ash_spans *untrusted, ash_err *err) ASH_MUST_CHECK;
/* The same with the context as JSON text json[0..n): unlike Jansson's objects it may have "\u0000" in
 * keys. Malformed JSON is ASH_EFORMAT. */
int ash_template_render_text(const ash_template *t, const char *json, size_t n,
                             const ash_template_opts *opts, ash_buf *out, ash_spans *untrusted,
                             ash_err *err) ASH_MUST_CHECK;

#endif
