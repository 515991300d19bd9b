/* A thread pool for the rows of a matrix and the heads of attention.
 *
 * One caller at a time runs a job: `fn(arg, begin, end, worker)` over [0, n) in chunks of `grain`.
 * Chunks are claimed, so that work flows to the core that is free: each thread begins in a part of its own
 * (eight parts at most on a node), in order, and then takes what others have left. The caller works too
 * (worker 0) and waits only for chunks that a worker has begun. Workers spin for some 50 microseconds
 * between jobs and then sleep. No allocation while running.
 *
 * On a machine of several NUMA nodes (base/numa.h) the threads are divided among them in proportion to their
 * CPUs, workers are bound to their node, and a job's items to nodes in contiguous shares: a thread claims
 * chunks of its own node first and then the others', so that nobody waits for a node that is held up. The
 * caller is not bound; it begins at the node where it runs. */
#ifndef ASHLEY_BASE_POOL_H
#define ASHLEY_BASE_POOL_H

#include "base/err.h"
#include "base/numa.h"

typedef struct ash_pool ash_pool;
typedef void (*ash_pool_fn)(void *arg, int64_t begin, int64_t end, int worker);

/* `threads` includes the caller; 0 means ash_cpu_threads(). */
int ash_pool_open(int threads, ash_pool **out, ash_err *err) ASH_MUST_CHECK;
/* The same on the nodes of a machine; numa is copied, NULL is one node. Nodes that get no thread are left
 * out: with one thread there is one. */
int ash_pool_open_on(const ash_numa *numa, int threads, ash_pool **out, ash_err *err) ASH_MUST_CHECK;
void ash_pool_close(ash_pool *p); /* NULL is fine; no job may be running */
int ash_pool_threads(const ash_pool *p);
/* Returns when all of [0, n) is done. grain >= 1. p NULL runs it on the caller alone. */
void ash_pool_run(ash_pool *p, int64_t n, int64_t grain, ash_pool_fn fn, void *arg);

int ash_pool_nodes(const ash_pool *p);                  /* 1 for NULL */
int ash_pool_node_of(const ash_pool *p, int worker);    /* the caller: 0, wherever it runs */
int ash_pool_node_threads(const ash_pool *p, int node); /* the caller is one of node 0's */
/* The CPUs that the node's workers are bound to and the kernel's number of the node; false where they are not
 * bound: on one node or a made-up machine. */
bool ash_pool_node_get(const ash_pool *p, int node, cpu_set_t *cpus, int *id);
/* Where node's share of n items begins, in proportion to threads; share(n, nodes) is n. */
int64_t ash_pool_share(const ash_pool *p, int64_t n, int node);
/* As run, over [0, ends[nodes - 1]), of which node i's share is [ends[i - 1], ends[i]), from 0 for the first;
 * ends do not fall. No range that fn gets crosses one of them. p NULL: one node. */
void ash_pool_run_shares(ash_pool *p, const int64_t *ends, int64_t grain, ash_pool_fn fn, void *arg);

#endif
