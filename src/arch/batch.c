/* Owns nothing; one forward at a time. */
#include "arch/batch.h"

#include <string.h>

typedef struct lookup {
    const ash_batch *batch;
    const ash_linear *embed;
    float *x;
    int64_t width;
} lookup;

static void embed_rows(void *arg, int64_t begin, int64_t end, int worker)
{
    const lookup *l = arg;
    for (int64_t i = begin; i < end; i++)
        ash_linear_row(l->embed, l->batch->rows[i].token, l->x + i * l->width);
}

void ash_batch_embed(ash_nn *nn, const ash_batch *b, const ash_linear *embed, float *x, int64_t width)
{
    lookup l = {b, embed, x, width};
    ash_pool_run(nn->pool, b->n, 16, embed_rows, &l);
}

void ash_batch_move(float *x, int64_t width, int to, int from)
{
    if (to != from)
        memcpy(x + to * width, x + from * width, (size_t)width * sizeof *x);
}
