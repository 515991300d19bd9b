/* Asking one model from the command line, through the same providers that the server uses. */
#ifndef ASHLEY_CLI_ASKER_H
#define ASHLEY_CLI_ASKER_H

#include "cli/cli.h"
#include "provider/provider.h"

typedef struct ash_asker ash_asker;

/* Loads `model` (an id, a persona, a path, "openai"; NULL = DEFAULT_MODEL) with progress on the
 * terminal. 0 or an exit status, message printed. */
int ash_asker_open(ash_cli *cli, const char *model, ash_asker **out);
void ash_asker_close(ash_asker *a); /* NULL is fine */
/* The persona's system prompt or NULL; what answers. Borrowed. */
const char *ash_asker_system(const ash_asker *a);
const char *ash_asker_model(const ash_asker *a);
/* Sends the messages (borrowed) and prints the answer to standard output as it comes; the whole
 * answer is appended to `text`. Ctrl-C ends it: 130. 0 or an exit status, message printed. */
int ash_asker_ask(ash_asker *a, const json_t *messages, ash_buf *text);
/* Figures of the last answer, zero if the upstream gave none. */
const ash_answer_usage *ash_asker_usage(const ash_asker *a);

#endif
