/* How much memory this process may still take. Any thread. */
#ifndef ASHLEY_RESIDENCY_MEMORY_H
#define ASHLEY_RESIDENCY_MEMORY_H

#include <stdint.h>

/* Bytes free for new models: the kernel's MemAvailable, and what the cgroup's memory.max leaves
 * (its page cache counts as free), whichever is less. UINT64_MAX where neither can be read. */
uint64_t ash_memory_available(void);
/* Resident bytes of this process (VmRSS), 0 if unknown. */
uint64_t ash_memory_resident(void);

#endif
