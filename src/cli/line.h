/* What people type or pipe into a chat, message by message: with editing and history in a terminal, as it
 * comes otherwise. Main thread. */
#ifndef ASHLEY_CLI_LINE_H
#define ASHLEY_CLI_LINE_H

#include <stdbool.h>

#include "base/err.h"

typedef struct ash_line ash_line;

/* Standard input. ASH_ENOMEM. Without libedit a terminal is read as a pipe is. */
int ash_line_open(ash_line **out, ash_err *err) ASH_MUST_CHECK;
void ash_line_close(ash_line *l); /* NULL is fine */
/* Whether lines are edited in a terminal. */
bool ash_line_edits(const ash_line *l);
/* The next message, without the last line's end: one line, what was pasted at once, or all between two """.
 * Blank ones are passed over. Ctrl-C throws away what was typed; where nothing was, and at the end of
 * the input, NULL. Borrowed until the next call. */
const char *ash_line_read(ash_line *l);

#endif
