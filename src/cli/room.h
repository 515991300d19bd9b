/* What could be removed to make room on the disk of the hub cache. Any thread. */
#ifndef ASHLEY_CLI_ROOM_H
#define ASHLEY_CLI_ROOM_H

#include "cli/cli.h"

/* Writes "`ashley rm X` frees 4.1 GB" of the smallest repository of the cache, other than that of `id` (may
 * be NULL), that frees at least `missing` bytes, else of the largest, and that this is not enough; "" if
 * there is none. What is being fetched is none. */
void ash_cli_room_advise(const ash_cli *cli, const char *id, uint64_t missing, char *text, size_t size);

#endif
