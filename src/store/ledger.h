/* The ledger: what models were measured to take, how long their loads took, what share of its experts a
 * mixture larger than its room found in memory, and what rates this machine reached, kept for the next time.
 *
 * One SQLite file, `ledger.db`, in a state folder, in WAL mode; several processes may use it. It is
 * advice: if it is missing, foreign, damaged or cannot be written it is as if it were empty. A file that
 * SQLite cannot read, or whose tables are not ours, is set aside as ledger.db.damaged (in place of the one
 * before), with a line in the log, and a new one is begun. Rows with figures that cannot be are left alone.
 *
 * No row is chosen by the clock: a row is found by what it is of, and the longest unwritten go first by a
 * counter, so that a clock that is set back changes nothing. Any thread; calls are serialised, and wait at
 * most 200 ms for another process. */
#ifndef ASHLEY_STORE_LEDGER_H
#define ASHLEY_STORE_LEDGER_H

#include <stdbool.h>

#include "base/err.h"

typedef struct ash_ledger ash_ledger;

enum { ASH_LEDGER_STAGES = 6, ASH_LEDGER_ROWS = 4096 }; /* rows that are kept */

/* What a row is of. Texts are borrowed; none may be NULL. */
typedef struct ash_ledger_key {
    const char *model;    /* its id */
    const char *revision; /* which files: anything that changes with them */
    const char *variant;  /* what else bears on memory: kernels, threads, type of KV, draft model */
    uint32_t ctx;
} ash_ledger_key;

typedef struct ash_ledger_row {
    uint64_t weight_bytes, kv_bytes, scratch_bytes, draft_bytes; /* as the engine sized them */
    uint64_t file_bytes;
    uint64_t grown_bytes;  /* by which the process grew, with all scratch and without the KV pool. 0: the
                              load was not alone, so nobody knows */
    double load_ms;
    double stage_ms[ASH_LEDGER_STAGES];
    uint64_t loads;        /* times it was written; ash_ledger_put counts */
} ash_ledger_row;

/* What a mixture of experts found in memory, of which a part only was there at once. */
typedef struct ash_ledger_found {
    double room;  /* of the bytes of its experts the share that could be in memory at once, 0 to 1 */
    double found; /* of the experts chosen for a token the share that needed no read, 0 to 1 */
} ash_ledger_found;
enum { ASH_LEDGER_ROOMS = 64 }; /* rows of a model and revision: rooms nearer than 1/64 are one */

/* Opens nothing yet: the file with the first find or put. dir is copied. ASH_ENOMEM. */
int ash_ledger_open(const char *dir, ash_ledger **out, ash_err *err) ASH_MUST_CHECK;
void ash_ledger_close(ash_ledger *l); /* NULL is fine */
/* False if there is none; *out is then zeroed. */
bool ash_ledger_find(ash_ledger *l, const ash_ledger_key *key, ash_ledger_row *out);
/* Writes the row in the place of the one before; grown_bytes 0 keeps what was known. False if it could not
 * be written: said in the log, once. */
bool ash_ledger_put(ash_ledger *l, const ash_ledger_key *key, const ash_ledger_row *row);

/* The rows of a model's revision, by room; returns how many. */
size_t ash_ledger_found_of(ash_ledger *l, const char *model, const char *revision,
                           ash_ledger_found out[ASH_LEDGER_ROOMS]);
/* Keeps half of what was known for that room and half of this, as of a rate. False if it cannot be, or could
 * not be written. */
bool ash_ledger_put_found(ash_ledger *l, const char *model, const char *revision,
                          const ash_ledger_found *row);

/* A rate of this machine, in bytes a second, under a name that its writers agree on. False if there is none
 * that can be; *out is then 0. */
bool ash_ledger_rate(ash_ledger *l, const char *what, double *out);
/* Keeps half of what was known and half of this, so that one odd measurement does not last. False if it could
 * not be written: said in the log, once. */
bool ash_ledger_put_rate(ash_ledger *l, const char *what, double rate);

#endif
