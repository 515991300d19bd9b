/* A thread pool for the rows of a matrix and the heads of attention.
 *
 * One caller at a time runs a job: `fn(arg, begin, end, worker)` over [0, n) in chunks of `grain`.
 * Chunks are claimed, so that work flows to the core that is free; the caller works too (worker 0) and
 * waits only for chunks that a worker has begun. Workers spin for some 50 microseconds between jobs and
 * then sleep. No allocation while running. */
#ifndef ASHLEY_BASE_POOL_H
#define ASHLEY_BASE_POOL_H

#include "base/err.h"

typedef struct ash_pool ash_pool;
typedef void (*ash_pool_fn)(void *arg, int64_t begin, int64_t end, int worker);

/* `threads` includes the caller; 0 means ash_cpu_threads(). */
int ash_pool_open(int threads, ash_pool **out, ash_err *err) ASH_MUST_CHECK;
void ash_pool_close(ash_pool *p); /* NULL is fine; no job may be running */
int ash_pool_threads(const ash_pool *p);
/* Returns when all of [0, n) is done. grain >= 1. p NULL runs it on the caller alone. */
void ash_pool_run(ash_pool *p, int64_t n, int64_t grain, ash_pool_fn fn, void *arg);

#endif
