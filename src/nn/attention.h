/* Causal attention of a mixed batch over the KV pool, grouped-query (Ainslie et al. 2023), with online
 * softmax: no score leaves the caches. */
#ifndef ASHLEY_NN_ATTENTION_H
#define ASHLEY_NN_ATTENTION_H

#include "nn/kv.h"

typedef struct ash_attention {
    int heads;      /* a multiple of the pool's kv_heads; head h reads KV head h / (heads / kv_heads) */
    float scale;    /* of the scores; usually 1 / sqrt(k_dim) */
    int32_t window; /* a row sees its last `window` positions; 0 means all */
    bool fine;      /* in floats on any CPU, where others round to bfloat16; a latent always is */
} ash_attention;

/* out [n, heads * v_dim] from q [n, heads * k_dim]: row i attends to the positions 0..rows[i].pos of
 * its sequence, which are stored already, its own included (ash_kv_store first). A row's result does
 * not depend on the other rows, nor on how a prompt was cut into forwards. */
void ash_attention_run(ash_nn *nn, const ash_attention *a, const ash_kv *kv, int layer,
                       const ash_row *rows, int n, const float *q, float *out);

#endif
