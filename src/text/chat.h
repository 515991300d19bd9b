/* From a chat's messages to the text a model continues: checks the messages, builds the template's
 * variables and renders. Any thread; templates are immutable. */
#ifndef ASHLEY_TEXT_CHAT_H
#define ASHLEY_TEXT_CHAT_H

#include "text/template.h"

/* Zero-initialised means: every default. All pointers are borrowed for the call. */
typedef struct ash_chat_opts {
    const char *bos_token, *eos_token; /* NULL: "" */
    const json_t *tools;               /* array, or NULL */
    const json_t *documents;           /* array, or NULL */
    const json_t *kwargs;              /* object of further variables (enable_thinking, ...), or NULL;
                                          cannot replace messages; untrusted like messages */
    bool add_generation_prompt;
    bool continue_final_message;       /* ends right after the last message's content; not together
                                          with add_generation_prompt */
    ash_template_opts render;          /* limits and clock */
} ash_chat_opts;

/* Jinja text of a built-in template: "alpaca", "chatml", "llama2", "deepseek-llm"; NULL if there is
 * none of that name. Static. */
const char *ash_chat_builtin(const char *name);
/* A model's template: `text` is the name of a built-in one, or Jinja. Errors as ash_template_parse. */
int ash_chat_template_open(const char *text, size_t n, ash_template **out, ash_err *err) ASH_MUST_CHECK;

/* Checks messages: a non-empty array of objects with a string "role" and a "content" that is a
 * string, null, missing (only beside tool_calls), or a list of {"type":"text","text":...} parts.
 * ASH_EINVAL says "'messages[2].content' must be ..."; parts of other types (image_url) are
 * ASH_EUNSUPPORTED by name and index. */
int ash_chat_check(const json_t *messages, ash_err *err) ASH_MUST_CHECK;

/* Checks, renders and appends the text to `out`, its untrusted ranges to `untrusted` (may be NULL).
 * Lists of text parts reach the template as one string, the parts joined by "\n".
 * Errors: as ash_chat_check and ash_template_render; ASH_EINVAL if continue_final_message has nothing to
 * go on with, or the template does not show the last message. */
int ash_chat_format(const ash_template *t, const json_t *messages, const ash_chat_opts *opts,
                    ash_buf *out, ash_spans *untrusted, ash_err *err) ASH_MUST_CHECK;

#endif
