/* Gated activations. */
#ifndef ASHLEY_NN_ACT_H
#define ASHLEY_NN_ACT_H

#include "nn/nn.h"

/* g [n, dim] = silu(g) * u, silu(x) = x / (1 + exp(-x)) (SwiGLU: Shazeer 2020). */
void ash_act_silu_mul(ash_nn *nn, float *g, const float *u, int n, int64_t dim);

#endif
