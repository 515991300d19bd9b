/* y = W x + b for weights in packed form (kernel/pack.h).
 *
 * A matrix is planned, bound to memory of the caller's and packed from the file's rows, by any number
 * of threads on disjoint rows; from then on it is immutable. A slice of a matrix (tensor parallelism)
 * is a linear of fewer rows or columns, packed from those rows alone. */
#ifndef ASHLEY_NN_LINEAR_H
#define ASHLEY_NN_LINEAR_H

#include "nn/nn.h"
#include "quant/gptq.h"

/* How a quantised matrix takes x where that is rounded to int8: alone, or with what the rounding leaves,
 * rounded to int8 and multiplied as well, which makes 15 bits of it. */
typedef enum ash_terms {
    ASH_TERMS_ONE,
    ASH_TERMS_SPIKES, /* both for a row of which one value is far above all others (half of the sum of
                         squares of the blocks' largest): what a model keeps in the first token of a text
                         and all later ones look at ("massive activations", Sun et al. 2024). Few are so */
    ASH_TERMS_TWO,    /* both for all rows: the same work for one row, twice for many */
} ash_terms;

typedef struct ash_linear {
    ash_packed w;        /* W [out, in], columns in packed order */
    const float *bias;   /* [out], borrowed, or NULL */
    int64_t in;          /* values of x; w.cols unless columns were reordered */
    int64_t block_out;   /* rows with one scale, of FP8 */
    const int32_t *perm; /* [w.cols]: column c multiplies x[perm[c]], or 0 where it is -1 (GPTQ's act-order
                            sorted by group, groups filled up to the kernels' blocks); or NULL */
    bool fine;           /* of bfloat16 and FP8: x is not rounded to bfloat16 on any CPU. The caller's to set;
                            about the same work for one row, twice for many */
    ash_terms terms;     /* the caller's to set; ash_linear_run's alone */
} ash_linear;

enum { ASH_LINEAR_MAX = 16 }; /* matrices of one run */

/* Plans W [out, in] of the file's type t. *bytes is the memory to bind, a multiple of 64; the layout is
 * the same for every CPU. ASH_EUNSUPPORTED for a type without kernels, ASH_EINVAL for sizes that are
 * not positive, overflow, or do not hold whole blocks. */
int ash_linear_plan(ash_linear *l, ash_dtype t, int64_t out, int64_t in, uint64_t *bytes,
                    ash_err *err) ASH_MUST_CHECK;
/* The same for F8_E4M3 [out, in] with a float scale for each block of [block_out, block_in]. */
int ash_linear_plan_fp8(ash_linear *l, int64_t out, int64_t in, int64_t block_out, int64_t block_in,
                        uint64_t *bytes, ash_err *err) ASH_MUST_CHECK;
/* The same for GPTQ. Reads q->group_of (to sort columns), no weights; borrows nothing. The memory holds
 * the order of the columns, too. w.cols, which an ash_nn's max_in must cover, may be more than `in`:
 * groups that are no multiple of 32 are filled up. */
int ash_linear_plan_gptq(ash_linear *l, const ash_gptq *q, uint64_t *bytes, ash_err *err) ASH_MUST_CHECK;
/* Borrows mem: *bytes of the plan, 64-byte aligned, for as long as l is used. */
void ash_linear_bind(ash_linear *l, void *mem);
/* Rows [row, row + n) from src, n rows as the file holds them (in elements of t each, any alignment). */
void ash_linear_pack(const ash_linear *l, const void *src, int64_t row, int64_t n);
/* scales [ceil(out / block_out), ceil(in / block_in)], all of them; src as above, rows of bytes;
 * fast in multiples of 16 rows. */
void ash_linear_pack_fp8(const ash_linear *l, const void *src, const float *scales, int64_t row, int64_t n);
/* Writes the order of the columns into the bound memory: once, by one thread, before any rows of a GPTQ
 * matrix are packed. Reads q->group_of; the same q as planned with. */
void ash_linear_order_gptq(const ash_linear *l, const ash_gptq *q);
/* Whether the bound order of columns, which was not written by ash_linear_order_gptq just now, stays within
 * the inputs. True without one. */
bool ash_linear_order_valid(const ash_linear *l);
/* Rows from the whole q that was planned with. row is a multiple of 16, and n unless the last row is
* among them. Fastest with n = 1024, a page of every row of qweight: 4 to 6 GB a second and core. */
void ash_linear_pack_gptq(const ash_linear *l, const ash_gptq *q, int64_t row, int64_t n);
/* Matrices whose columns are in the same order (q, k and v have seen the same activations) share one
 * permutation from here on, so that a run converts x once for all. After ash_linear_order_gptq. */
void ash_linear_share(ash_linear *const *ls, int n_ls);
/* The part of the bound memory that a node of the pool multiplies with, see base/pool.h: groups of rows
 * beside each other. *bytes may be 0. */
void ash_linear_local(const ash_linear *l, const ash_pool *pool, int node, const void **from, size_t *bytes);
/* One row of W as floats, bit for bit as the file's type decodes: y [in]. Any thread. */
void ash_linear_row(const ash_linear *l, int64_t row, float *y);

/* ys[j] [n, out_j] = x [n, in] times the transpose of ls[j], plus bias, for all j: matrices of the same
 * `perm` in one job, with one conversion of x. All have the same `in`; n <= max_rows; n_ls <= 16.
 * x and the ys do not overlap. A row's result does not depend on the other rows. */
void ash_linear_run(ash_nn *nn, const ash_linear *const *ls, int n_ls, const float *x, int n,
                    float *const *ys);

/* ys [n, n_ls * out] from x [n, n_ls * in]: matrix j reads the j-th piece of a row and writes the j-th.
 * All are of one shape, form and `perm`: the heads of an absorbed attention. Any n_ls; n <= max_rows. */
void ash_linear_run_each(ash_nn *nn, const ash_linear *ls, int n_ls, const float *x, int n, float *y);

/* Some rows of a batch through one or two matrices of one shape of inputs and one `perm`. */
typedef struct ash_linear_part {
    const ash_linear *l[2]; /* the second may be NULL */
    float *y[2];            /* [n, out] each */
    int first, n;           /* rows [first, first + n) of the batch's list */
} ash_linear_part;

typedef struct ash_linear_batch {
    const ash_linear_part *parts; /* each begins where the one before ends, the first at row 0 */
    int n_parts, n;               /* rows of all parts: <= max_rows */
    const float *x;               /* [.., in]: row i of the list is x[rows[i]]; or NULL, then: */
    const int32_t *rows;          /* [n] */
    float *room;                  /* [n, in], for rows in the list's order where floats are multiplied */
    float *gate;                  /* [n, in]: the list is silu(gate) * up, which is left in gate */
    const float *up;              /* [n, in] */
} ash_linear_batch;

/* All parts in one job: the experts of a mixture. All matrices have the same `in`, none has two_terms; x,
 * room, gate, up and the ys do not overlap. Work is cut by what it costs, so that a part with many rows is
 * as evenly shared as one with few. A row's result does not depend on the other rows nor on the parts. */
void ash_linear_run_parts(ash_nn *nn, const ash_linear_batch *b);

#endif
