/* NUMA: which CPUs share a memory. Any thread.
 *
 * hwloc knows, and is opened only where the kernel tells of more than one node with CPUs (one small file is
 * read to see that), so that a machine of one node starts as if it were not there. HWLOC_SYNTHETIC describes
 * a made-up machine, see hwloc's manual, "Synthetic topologies": work is divided as on that one, and nothing
 * is bound. */
#ifndef ASHLEY_BASE_NUMA_H
#define ASHLEY_BASE_NUMA_H

#include <sched.h>

#include "base/err.h"

enum { ASH_MAX_NODES = 64 };

typedef struct ash_numa {
    int nodes;                     /* that have CPUs of this process; with 1, no cpus are told */
    bool real;                     /* the machine's own: threads may be bound to cpus */
    int id[ASH_MAX_NODES];         /* the kernel's number of the node */
    cpu_set_t cpus[ASH_MAX_NODES]; /* of this process's affinity; no CPU is in two of them, none is empty */
} ash_numa;

/* Asked at the first call, which can take milliseconds where there is more than one node. What cannot be
 * read is one node, and a line in the log. */
const ash_numa *ash_numa_get(void);
/* The same, asked anew. sysfs: a folder as /sys/devices/system/node. synthetic: as HWLOC_SYNTHETIC, or NULL.
 * ASH_ENOENT without hwloc, ASH_EINVAL for a description that it refuses, ASH_ELIMIT for more than
 * ASH_MAX_NODES; *out is one node then. */
int ash_numa_read(const char *sysfs, const char *synthetic, ash_numa *out, ash_err *err) ASH_MUST_CHECK;

#endif
