/* What every layer computes with: a table of kernels, a pool of threads and the scratch of one forward.
 *
 * One ash_nn serves one forward at a time, called from one thread; an engine owns one and opens it once.
 * Nothing under nn allocates after ash_nn_open. All calls below that take an ash_nn run on its pool
 * and return when the result is complete. */
#ifndef ASHLEY_NN_NN_H
#define ASHLEY_NN_NN_H

#include "base/pool.h"
#include "kernel/kernel.h"

typedef struct ash_nn_options {
    ash_cpu_level level;  /* ash_cpu_get()->level, or a lower one */
    int threads;          /* with the caller; 0 means ash_cpu_threads() */
    const ash_numa *numa; /* nodes that the threads are divided among, copied by open; NULL: one node */
    ash_pool *pool;       /* borrowed, in place of both: of an nn whose forwards take turns with these; or
                             NULL: one of its own */
    int max_rows;         /* rows of one forward */
    int64_t max_in;       /* columns of the widest matrix, in packed order: the largest w.cols of a linear */
    int max_heads;        /* query heads */
    int max_head_dim;     /* the larger of k_dim and v_dim */
    int64_t max_context;  /* positions of the longest sequence */
} ash_nn_options;

typedef struct ash_nn_scratch ash_nn_scratch; /* nn's own */

typedef struct ash_nn {
    const ash_kernel *k;
    ash_pool *pool;  /* o.pool, or owned */
    ash_nn_options o;
    ash_nn_scratch *scratch;
} ash_nn;

/* ASH_EINVAL for sizes that are not positive, over a cap, or a level this CPU lacks; ASH_ENOMEM. */
int ash_nn_open(const ash_nn_options *o, ash_nn **out, ash_err *err) ASH_MUST_CHECK;
void ash_nn_close(ash_nn *nn); /* NULL is fine; no forward may be running */
/* Bytes that ash_nn_open with these options reserves; they become resident as forwards touch them. */
uint64_t ash_nn_bytes(const ash_nn_options *o);

#endif
