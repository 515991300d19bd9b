/* y = W x + b for weights in packed form (kernel/pack.h).
 *
 * A matrix is planned, bound to memory of the caller's and packed from the file's rows, by any number
 * of threads on disjoint rows; from then on it is immutable. A slice of a matrix (tensor parallelism)
 * is a linear of fewer rows or columns, packed from those rows alone. */
#ifndef ASHLEY_NN_LINEAR_H
#define ASHLEY_NN_LINEAR_H

#include "nn/nn.h"

typedef struct ash_linear {
    ash_packed w;      /* W [out, in] */
    const float *bias; /* [out], borrowed, or NULL */
} ash_linear;

enum { ASH_LINEAR_MAX = 16 }; /* matrices of one run */

/* Plans W [out, in] of the file's type t. *bytes is the memory to bind, a multiple of 64; the layout is
 * the same for every CPU. ASH_EUNSUPPORTED for a type without kernels, ASH_EINVAL for sizes that are
 * not positive, overflow, or do not hold whole blocks. */
int ash_linear_plan(ash_linear *l, ash_dtype t, int64_t out, int64_t in, uint64_t *bytes,
                    ash_err *err) ASH_MUST_CHECK;
/* Borrows mem: *bytes of the plan, 64-byte aligned, for as long as l is used. */
void ash_linear_bind(ash_linear *l, void *mem);
/* Rows [row, row + n) from src, n rows as the file holds them (in elements of t each, any alignment). */
void ash_linear_pack(const ash_linear *l, const void *src, int64_t row, int64_t n);
/* One row of W as floats, bit for bit as the file's type decodes: y [in]. Any thread. */
void ash_linear_row(const ash_linear *l, int64_t row, float *y);

/* ys[j] [n, out_j] = x [n, in] times the transpose of ls[j], plus bias, for all j in one job: the
 * matrices share x and so its conversion. All have the same `in`; n <= max_rows; n_ls <= 16.
 * x and the ys do not overlap. A row's result does not depend on the other rows. */
void ash_linear_run(ash_nn *nn, const ash_linear *const *ls, int n_ls, const float *x, int n,
                    float *const *ys);

#endif
