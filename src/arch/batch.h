/* What the forwards of all architectures begin with. */
#ifndef ASHLEY_ARCH_BATCH_H
#define ASHLEY_ARCH_BATCH_H

#include "arch/arch.h"

/* x [n, width] = the batch's tokens' rows of embed [vocab, width]. */
void ash_batch_embed(ash_nn *nn, const ash_batch *b, const ash_linear *embed, float *x, int64_t width);
/* Row `from` of x [.., width] to row `to`, which is not behind it. */
void ash_batch_move(float *x, int64_t width, int to, int from);

#endif
