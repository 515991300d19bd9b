/* RMSNorm (Zhang and Sennrich 2019). */
#ifndef ASHLEY_NN_NORM_H
#define ASHLEY_NN_NORM_H

#include "nn/nn.h"

/* y [n, dim] = x / sqrt(mean(x x) + eps) * w, row by row; w [dim]; y may be x. */
void ash_norm_rms(ash_nn *nn, float *y, const float *x, const float *w, int n, int64_t dim, float eps);
/* x [n, dim] += d [n, dim], then y = rms(x): a residual connection and the norm after it in one pass.
 * y is neither x nor d. */
void ash_norm_rms_add(ash_nn *nn, float *y, float *x, const float *d, const float *w, int n,
                      int64_t dim, float eps);
/* x [n, dim] += d [n, dim]. */
void ash_norm_add(ash_nn *nn, float *x, const float *d, int n, int64_t dim);

#endif
