/* What is known of a model without loading it: gathered as JSON, printed as a table. */
#ifndef ASHLEY_CLI_SHOW_H
#define ASHLEY_CLI_SHOW_H

#include <jansson.h>

#include "base/cpu.h"
#include "cli/draft.h"

/* Opens what place has (its path, or of a partial checkpoint the index) and plans it. *out is the
 * caller's: id, path, format, architecture, sizes, tokenizer, template, notes, and "refused" if it
 * cannot run here; of the draft model as ash_cli_draft_describe. Errors are those of opening; a model
 * that is refused is none. */
int ash_show_gather(const ash_catalogue_entry *e, const ash_catalogue_place *place,
                    const ash_cli_draft *draft, bool kv_q8, ash_cpu_level cpu, json_t **out,
                    ash_err *err) ASH_MUST_CHECK;
void ash_show_print(const json_t *o);

#endif
