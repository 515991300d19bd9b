/* Owns what is known of the machine's memories. Refuses more than ASH_MAX_NODES. Any thread. */
#include "base/numa.h"

#include <hwloc.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/library.h"
#include "base/log.h"

typedef struct table {
    int (*topology_init)(hwloc_topology_t *t);
    int (*topology_set_synthetic)(hwloc_topology_t t, const char *description);
    int (*topology_load)(hwloc_topology_t t);
    void (*topology_destroy)(hwloc_topology_t t);
    int (*topology_is_thissystem)(hwloc_topology_t t);
    unsigned (*get_nbobjs_by_depth)(hwloc_topology_t t, int depth);
    hwloc_obj_t (*get_obj_by_depth)(hwloc_topology_t t, int depth, unsigned i);
    int (*bitmap_isset)(hwloc_const_bitmap_t set, unsigned i);
} table;

#define SYMBOL(name) {"hwloc_" #name, offsetof(table, name)}

/* Whether the kernel tells of more than one node with CPUs: a list as "0-1,3"; one number is one node. */
static bool has_nodes(const char *sysfs)
{
    char path[PATH_MAX], list[64] = "";
    if (snprintf(path, sizeof path, "%s/has_cpu", sysfs) >= (int)sizeof path)
        return false;
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool many = fgets(list, sizeof list, f) && strpbrk(list, "-,");
    fclose(f);
    return many;
}

/* The CPUs of one node that are the process's and no earlier node's: memories of two kinds can have the same
 * CPUs, and the first is the usual one. Takes them out of `left`. */
static cpu_set_t take_cpus(const table *h, hwloc_obj_t node, cpu_set_t *left)
{
    cpu_set_t own;
    CPU_ZERO(&own);
    for (unsigned c = 0; c < CPU_SETSIZE; c++) {
        if (!CPU_ISSET(c, left) || !h->bitmap_isset(node->cpuset, c))
            continue;
        CPU_SET(c, &own);
        CPU_CLR(c, left);
    }
    return own;
}

static int read_nodes(const table *h, hwloc_topology_t t, bool real, ash_numa *out, ash_err *err)
{
    cpu_set_t left;
    memset(&left, 0xff, sizeof left); /* of a made-up machine */
    if (real && sched_getaffinity(0, sizeof left, &left))
        return 0;
    int n = 0, all = (int)h->get_nbobjs_by_depth(t, HWLOC_TYPE_DEPTH_NUMANODE);
    for (int i = 0; i < all; i++) {
        hwloc_obj_t node = h->get_obj_by_depth(t, HWLOC_TYPE_DEPTH_NUMANODE, (unsigned)i);
        cpu_set_t own = take_cpus(h, node, &left);
        if (!CPU_COUNT(&own))
            continue;
        if (n == ASH_MAX_NODES)
            return ash_err_set(err, ASH_ELIMIT, "more than %d NUMA nodes", ASH_MAX_NODES);
        out->id[n] = (int)node->os_index;
        out->cpus[n++] = own;
    }
    out->nodes = n > 1 ? n : 1;
    out->real = real;
    return 0;
}

int ash_numa_read(const char *sysfs, const char *synthetic, ash_numa *out, ash_err *err)
{
    static const ash_symbol symbols[] = {
        SYMBOL(topology_init),       SYMBOL(topology_set_synthetic), SYMBOL(topology_load),
        SYMBOL(topology_destroy),    SYMBOL(topology_is_thissystem), SYMBOL(get_nbobjs_by_depth),
        SYMBOL(get_obj_by_depth),    SYMBOL(bitmap_isset),
    };
    table h;
    hwloc_topology_t t;
    *out = (ash_numa){.nodes = 1};
    if (!synthetic && !has_nodes(sysfs))
        return 0;
    int rc = ash_library_open("libhwloc.so.15", symbols, sizeof symbols / sizeof *symbols, &h, err);
    if (rc)
        return rc;
    if (h.topology_init(&t))
        return ash_err_nomem(err, "topology");
    if (synthetic && h.topology_set_synthetic(t, synthetic))
        rc = ash_err_set(err, ASH_EINVAL, "hwloc does not read '%s'", synthetic);
    else if (h.topology_load(t))
        rc = ash_err_set(err, ASH_EIO, "hwloc cannot read the machine's topology");
    else
        rc = read_nodes(&h, t, !synthetic && h.topology_is_thissystem(t), out, err);
    h.topology_destroy(t);
    if (rc)
        *out = (ash_numa){.nodes = 1};
    return rc;
}

static ash_numa numa;

static void read_once(void)
{
    const char *synthetic = getenv("HWLOC_SYNTHETIC");
    ash_err err = ASH_ERR_INIT;
    if (ash_numa_read("/sys/devices/system/node", synthetic && *synthetic ? synthetic : NULL, &numa, &err))
        ash_warn("numa", "threads and memory are not divided among NUMA nodes: %s", err.msg);
    else if (numa.nodes > 1)
        ash_info("numa", "%d NUMA nodes%s", numa.nodes, numa.real ? "" : ", made up: nothing is bound");
}

const ash_numa *ash_numa_get(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_once);
    return &numa;
}
