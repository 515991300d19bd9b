/* One line for people about what the server's models are doing: systemd's status line. Pure. */
#ifndef ASHLEY_CLI_STATUS_H
#define ASHLEY_CLI_STATUS_H

#include "base/json.h"

enum { ASH_CLI_STATUS = 512 }; /* bytes of a line */

/* Of an array of progress objects (ash_manager_list), "" if nothing is known: what is fetched and loaded, how
 * far, how fast and how long still, then how many are loaded, wait and failed. No control characters, cut at
 * ASH_CLI_STATUS. */
void ash_cli_status_line(const json_t *list, char out[ASH_CLI_STATUS]);
/* What follows the id of one model of /models in `ashley ps`: "fetch 45 %, 1.85 of 4.10 GB, ...". */
void ash_cli_status_progress(const json_t *progress, char *out, size_t size);

#endif
