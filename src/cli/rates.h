/* What this machine was measured to reach, for plans: kept in the ledger from one command to the next.
 * Main thread, or the server's fetching thread. */
#ifndef ASHLEY_CLI_RATES_H
#define ASHLEY_CLI_RATES_H

#include "cli/cli.h"
#include "store/ledger.h"

/* The ledger of the state folder, or NULL: there is none and none can be made, or nothing is to be kept on
 * disk. To be closed. */
ash_ledger *ash_rates_open(const ash_cli *cli);

/* Bytes a second of earlier downloads, of loads' reads from the disk; 0: not known. l may be NULL. */
double ash_rates_fetch(ash_ledger *l);
double ash_rates_disk(ash_ledger *l);
/* Bytes a second that all threads together read from memory. Where it is not known it is measured, in some
 * 0.1 s, and kept, if `room` bytes of memory are enough for that; 0 else. */
double ash_rates_memory(ash_ledger *l, uint64_t room);

/* Keeps what was measured. l may be NULL; 0 is not kept. */
void ash_rates_note_disk(ash_ledger *l, double rate);
void ash_rates_note_memory(ash_ledger *l, double rate);
/* A download of so many bytes, or several at once (base/meter.h), took so long; one too short to tell is not
 * kept. */
void ash_rates_note_fetch(const ash_cli *cli, uint64_t bytes, int64_t ms);

#endif
