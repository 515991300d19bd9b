/* Mapped files that lose their pages: somebody cuts the file, or the disk cannot read it, and the next
 * touch raises SIGBUS, which ends a process. A guarded range gets pages of zeros instead and its flag is set:
 * whoever reads it looks at the flag before results are believed.
 *
 * The handler is installed with a guard, where it is not or no more; faults outside guarded ranges go where
 * they went before.
 * This table is the one mutable global beside log and cpu: a signal handler has no other way to know. */
#ifndef ASHLEY_BASE_FAULT_H
#define ASHLEY_BASE_FAULT_H

#include <stdatomic.h>

#include "base/err.h"

/* Guards [at, at + n), a mapping of whole pages. *lost is borrowed until forgotten. False if too many are
 * guarded or no handler can be installed. Any thread. */
bool ash_fault_guard(void *at, size_t n, atomic_bool *lost) ASH_MUST_CHECK;
/* Before the range is unmapped; nobody may read it any more. Does nothing for what is not guarded. */
void ash_fault_forget(const void *at);

#endif
