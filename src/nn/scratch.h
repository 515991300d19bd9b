/* The memory of one forward, reserved by ash_nn_open; private to nn. */
#ifndef ASHLEY_NN_SCRATCH_H
#define ASHLEY_NN_SCRATCH_H

#include "nn/nn.h"

/* One thread's. */
typedef struct ash_worker {
    void *matmul;                       /* ash_kernel_scratch bytes */
    float *p;                           /* [ASH_TILE][ASH_SPAN] */
    float *acc;                         /* [ASH_TILE][max_head_dim] */
    uint16_t *wide;                     /* a span's keys and values as half floats, or NULL */
    float *x;                           /* [max_in]: activations in the order of a matrix's columns */
    float *terms;                       /* [2 max_rows][2 groups]: products of first and second terms */
    float max[ASH_TILE], sum[ASH_TILE];
} ash_worker;

/* Rows of one sequence with adjacent positions. */
typedef struct ash_row_tile {
    int row, n;
} ash_row_tile;

/* Elements between rows of activations of so many columns: an odd number of 64, for rows a multiple of 4 KiB
 * apart would share the few places that a cache has for their addresses. */
static inline int64_t ash_act_stride(int64_t cols)
{
    return ((cols + 63) / 64 | 1) * 64;
}

struct ash_nn_scratch {
    uint64_t bytes;        /* of this mapping */
    ash_act act;           /* of the widest matrix and most rows; x unset. Behind the int8 of n rows there is
                              room for their second terms, see ash_linear.terms */
    uint8_t *spiky;        /* [max_rows], see ASH_TERMS_SPIKES */
    float *x;              /* [max_rows, ld of act], for tables that multiply floats; or NULL */
    ash_row_tile *tiles;   /* [max_rows] */
    float *parts;          /* attention states of single spans: max, sum, acc [max_head_dim] */
    int64_t max_parts;
    ash_worker *workers;   /* [threads] */
};

/* fn over [0, n) rows that cost `cost` elements each: on the pool if that is worth waking it. */
void ash_nn_rows(ash_nn *nn, int64_t n, int64_t cost, ash_pool_fn fn, void *arg);

#endif
