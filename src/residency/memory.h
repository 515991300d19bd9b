/* What the kernel says of memory and of this process: proc(5), cgroups(7) v2 and v1, PSI
 * (Documentation/accounting/psi.rst). Any thread. */
#ifndef ASHLEY_RESIDENCY_MEMORY_H
#define ASHLEY_RESIDENCY_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

typedef struct ash_memory {
    uint64_t total;     /* bytes of the machine, or the least limit of the control groups; 0 if unknown */
    uint64_t available; /* bytes this process may still take: MemAvailable, or what the limits of its control
                           groups leave (their page cache counts as free), whichever is less. UINT64_MAX
                           where neither can be read */
    uint64_t spare;     /* of these, what is no part of a file that some process has mapped: such pages count
                           as available, but who runs from them needs them (mapped packs among them) */
    uint64_t own;       /* bytes it took that nothing but itself can give back: RssAnon and RssShmem */
    uint64_t resident;  /* VmRSS; 0 if unknown */
    double stalled;     /* percent of the last 10 s in which all work of the machine or of the group stood
                           still for memory, the worse of both; 0 if unknown */
} ash_memory;

/* root stands before /proc and /sys; "" for this machine's own, a folder for tests. */
void ash_memory_read(const char *root, ash_memory *out);
/* Seconds of processor time that this process has used; false where they cannot be read. */
bool ash_memory_cpu_seconds(const char *root, double *out);
/* `available` and `resident` of this machine. */
uint64_t ash_memory_available(void);
uint64_t ash_memory_resident(void);

#endif
