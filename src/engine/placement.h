/* Puts the weights' pages on the NUMA nodes whose threads multiply with them first (ash_linear_local).
 *
 * Memory lies on the node of the thread that touches it first. So, before a model is packed, threads bound to
 * each node touch that node's share of every matrix. The pages of a mapped pack file are in memory before
 * anyone touches them, where the process ran that read or wrote the file, if not on this disk only: a thread
 * of the least priority for each node moves those to it that this process alone has mapped, while the model
 * serves; what has to be read from the disk comes to the node that needs it first.
 *
 * On one node there is nothing to do, and no thread. What the system refuses costs speed alone. */
#ifndef ASHLEY_ENGINE_PLACEMENT_H
#define ASHLEY_ENGINE_PLACEMENT_H

#include <stdatomic.h>

#include "arch/bind.h"

typedef struct ash_placement ash_placement;

/* Begins; b is placed and borrowed during the call, its region and `cancel` (or NULL) until close. mapped: a
 * pack file's, which is only read; else fresh memory, of which no row is packed yet. NULL where there is
 * nothing to do, or no memory to do it with. */
ash_placement *ash_placement_start(const ash_binding *b, const ash_pool *pool, bool mapped,
                                   const atomic_bool *cancel);
/* Waits until all is placed, or `cancel` is set. */
void ash_placement_wait(ash_placement *p); /* NULL is fine */
/* Ends the work, within some 10 ms, and frees. */
void ash_placement_close(ash_placement *p); /* NULL is fine */

#endif
