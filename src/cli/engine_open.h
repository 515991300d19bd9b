/* Opening an engine for one command, with progress on the terminal and Ctrl-C. */
#ifndef ASHLEY_CLI_ENGINE_OPEN_H
#define ASHLEY_CLI_ENGINE_OPEN_H

#include "cli/cli.h"
#include "engine/engine.h"
#include "residency/manager.h"

/* Finds and loads `model`. `o` has what the command wants (ctx, bare, ...); path, kernel set and
 * progress are filled here. *out is the caller's. 0 or an exit status with the message printed. */
int ash_cli_engine(ash_cli *cli, const char *model, ash_engine_opts o, ash_engine **out);
/* The same of a file, without the catalogue. */
int ash_cli_engine_file(ash_cli *cli, const char *path, const char *shown, ash_engine_opts o,
                        ash_engine **out);
/* What the configuration says of a manager of models; the specs are the caller's to add. Borrows c. */
ash_manager_opts ash_cli_manager_opts(const ash_config *c);
/* True after Ctrl-C or SIGTERM; the first call installs the handlers. */
const atomic_bool *ash_cli_interrupt(void);
/* The exit status of the signal that came: 130 or 143. */
int ash_cli_interrupt_status(void);
/* Forgets a Ctrl-C that was acted on. */
void ash_cli_interrupt_clear(void);

#endif
