/* Multi-head latent attention in its absorbed form (DeepSeek-V2, Liu et al. 2024, section 2.1).
 *
 * A token's keys and values of all heads are made of one latent c [rank] and one rotated part r [rope]:
 *
 *   key of head h = [K_h c | r],  value of head h = V_h c
 *
 * so the scores are (K_h^T q_nope) . c + q_rope . r, and the sum over tokens can be taken of c before V_h
 * is applied. The cache holds c and r alone, as one KV head whose values are the beginning of its keys
 * (ash_kv_shape.v_in_k with k_dim = rank + rope, v_dim = rank). */
#ifndef ASHLEY_NN_MLA_H
#define ASHLEY_NN_MLA_H

#include "nn/kv.h"
#include "nn/linear.h"
#include "nn/rope.h"

typedef struct ash_mla_shape {
    int heads;
    int rank, rope; /* of the latent and of the part that is rotated */
    int nope, v;    /* of a head's query and key without rope, and of its value */
    float scale;    /* of the scores */
    float eps;      /* of the latent's norm */
} ash_mla_shape;

/* One layer's. */
typedef struct ash_mla {
    const float *norm; /* [rank] */
    ash_linear *k;     /* [heads] of [rank, nope]: K_h transposed; these arrays are borrowed */
    ash_linear *v;     /* [heads] of [v, rank] */
} ash_mla;

/* Rotation is by `turn`, whose head_dim is rank + rope and whose dims is rope, and the angles `cs` of the
 * rows (ash_rope_angles). */

/* Norms and turns c [n, rank + rope] in place and stores it. */
void ash_mla_store(ash_nn *nn, const ash_mla_shape *s, const ash_mla *m, const ash_rope *turn,
                   const float *cs, ash_kv *kv, int layer, const ash_row *rows, int n, float *c);
/* Floats of scratch for each row of a run. */
int64_t ash_mla_floats(const ash_mla_shape *s);
/* out [n, heads * v] from q [n, heads * (nope + rope)], not yet turned; the rows' own tokens are stored.
 * scratch: ash_mla_floats for each row. A row's result does not depend on the other rows. */
void ash_mla_run(ash_nn *nn, const ash_mla_shape *s, const ash_mla *m, const ash_rope *turn,
                 const float *cs, const ash_kv *kv, int layer, const ash_row *rows, int n, const float *q,
                 float *out, float *scratch);

#endif
