/* Owns the threads that touch or move the pages of a model's weights. Refuses nothing: what fails is left
 * where it is. One thread; the region must outlive it. */
#include "engine/placement.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/idle.h"
#include "base/log.h"

enum { PAGE = 4096, STEP_PAGES = 512 }; /* looked at together: a huge page */

typedef struct range {
    uintptr_t from, to; /* whole pages */
} range;

typedef struct node {
    cpu_set_t cpus;
    int id;
    range *ranges; /* owned */
    size_t n_ranges;
    atomic_size_t next; /* the first that no thread has taken */
} node;

typedef struct worker {
    ash_placement *placement;
    node *node;
    pthread_t thread;
} worker;

struct ash_placement {
    bool mapped;
    const atomic_bool *cancel;
    atomic_bool stop;
    atomic_ullong moved; /* pages */
    int n_nodes, n_workers;
    node *nodes;
    worker *workers;
};

static bool stopped(const ash_placement *p)
{
    return atomic_load_explicit(&p->stop, memory_order_relaxed) ||
           (p->cancel && atomic_load_explicit(p->cancel, memory_order_relaxed));
}

/* Those of the pages at [at, at + n pages) that are in memory, to the node. False if that is refused. */
static bool move(ash_placement *p, const node *to, uintptr_t at, size_t n)
{
    enum { MOVE_OWN = 2 }; /* MPOL_MF_MOVE of move_pages(2) */
    unsigned char in[STEP_PAGES];
    void *pages[STEP_PAGES];
    int nodes[STEP_PAGES], was[STEP_PAGES];
    size_t m = 0, moved = 0;
    if (mincore((void *)at, n * PAGE, in))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!(in[i] & 1))
            continue;
        pages[m] = (void *)(at + i * PAGE);
        (void)*(volatile uint8_t *)pages[m]; /* what is not mapped is not moved */
        nodes[m++] = to->id;
    }
    if (!m || syscall(SYS_move_pages, 0, m, pages, NULL, was, 0))
        return !m;
    for (size_t i = 0; i < m; i++) {
        if (was[i] < 0 || was[i] == to->id)
            continue;
        pages[moved] = pages[i];
        nodes[moved++] = to->id;
    }
    if (moved && syscall(SYS_move_pages, 0, moved, pages, nodes, was, MOVE_OWN) < 0)
        return false;
    for (size_t i = 0; i < moved; i++) p->moved += was[i] == to->id;
    return true;
}

static bool place(ash_placement *p, const node *to, range r)
{
    for (uintptr_t at = r.from; at < r.to && !stopped(p); at += STEP_PAGES * PAGE) {
        size_t n = (r.to - at) / PAGE < STEP_PAGES ? (r.to - at) / PAGE : STEP_PAGES;
        if (p->mapped && !move(p, to, at, n))
            return false;
        for (size_t i = 0; i < n && !p->mapped; i++) *(volatile uint8_t *)(at + i * PAGE) = 0;
    }
    return true;
}

static void *work(void *arg)
{
    const worker *w = arg;
    node *n = w->node;
    if (w->placement->mapped)
        ash_idle_enter();
    for (size_t i; (i = atomic_fetch_add(&n->next, 1)) < n->n_ranges;)
        if (!place(w->placement, n, n->ranges[i]))
            break;
    return NULL;
}

/* A thread that never runs elsewhere: its first page would lie there, too. */
static bool start_worker(worker *w)
{
    pthread_attr_t attr;
    if (pthread_attr_init(&attr))
        return false;
    bool ok = !pthread_attr_setaffinity_np(&attr, sizeof w->node->cpus, &w->node->cpus) &&
              !pthread_create(&w->thread, &attr, work, w);
    pthread_attr_destroy(&attr);
    return ok;
}

/* The node's part of every matrix. */
static bool add_ranges(node *to, const ash_binding *b, const ash_pool *pool, int k)
{
    to->ranges = calloc(b->n_items, sizeof *to->ranges);
    for (size_t i = 0; to->ranges && i < b->n_items; i++) {
        const void *from;
        size_t bytes;
        if (!b->items[i].matrix)
            continue;
        ash_linear_local(b->items[i].matrix, pool, k, &from, &bytes);
        const range r = {((uintptr_t)from + PAGE - 1) / PAGE * PAGE, ((uintptr_t)from + bytes) / PAGE * PAGE};
        if (r.from < r.to)
            to->ranges[to->n_ranges++] = r;
    }
    return to->ranges;
}

ash_placement *ash_placement_start(const ash_binding *b, const ash_pool *pool, bool mapped,
                                   const atomic_bool *cancel)
{
    cpu_set_t cpus;
    int id, n = ash_pool_nodes(pool);
    if (!ash_pool_node_get(pool, 0, &cpus, &id))
        return NULL;
    ash_placement *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->mapped = mapped;
    p->cancel = cancel;
    p->nodes = calloc((size_t)n, sizeof *p->nodes);
    p->workers = calloc((size_t)ash_pool_threads(pool), sizeof *p->workers);
    bool ok = p->nodes && p->workers;
    for (int k = 0; ok && k < n; k++) {
        ash_pool_node_get(pool, k, &p->nodes[k].cpus, &p->nodes[k].id);
        p->n_nodes = k + 1;
        ok = add_ranges(&p->nodes[k], b, pool, k);
    }
    for (int k = 0; ok && k < n; k++) {
        int threads = mapped ? 1 : ash_pool_node_threads(pool, k);
        for (int t = 0; t < threads; t++) {
            p->workers[p->n_workers] = (worker){.placement = p, .node = &p->nodes[k]};
            p->n_workers += start_worker(&p->workers[p->n_workers]);
        }
    }
    if (ok)
        return p;
    ash_placement_close(p);
    return NULL;
}

void ash_placement_wait(ash_placement *p)
{
    for (int i = 0; p && i < p->n_workers; i++) pthread_join(p->workers[i].thread, NULL);
    if (p)
        p->n_workers = 0;
}

void ash_placement_close(ash_placement *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    ash_placement_wait(p);
    if (p->moved)
        ash_debug("placement", "%llu MB of weights moved to their NUMA nodes", (p->moved * PAGE) >> 20);
    for (int k = 0; k < p->n_nodes; k++) free(p->nodes[k].ranges);
    free(p->nodes);
    free(p->workers);
    free(p);
}
