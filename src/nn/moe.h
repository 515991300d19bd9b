/* A mixture of experts: each token goes through the few that a router chooses (Shazeer et al. 2017,
 * Dai et al. 2024), SwiGLU each.
 *
 * Tokens are gathered expert by expert, so that an expert's matrices are read once for all its tokens;
 * those of experts that nobody chose are not touched. As many experts are computed at once as together have
 * no more tokens than a forward may have rows: their matrices are the pieces of one job. */
#ifndef ASHLEY_NN_MOE_H
#define ASHLEY_NN_MOE_H

#include "nn/linear.h"
#include "nn/router.h"

/* Where not all experts of a model are in memory: who brings what a batch has chosen. Called on the forward's
 * thread, one forward at a time. */
typedef struct ash_moe_supply {
    void *user;
    int most; /* experts that can be held at once, >= 1 */
    /* Returns when the experts [n] of a layer (ascending, n <= most), chosen for a batch of so many rows, can
     * be read; they can until the next hold. Has no way to fail: where the disk does, what is computed means
     * nothing, and the supply knows. */
    void (*hold)(void *user, int layer, const int32_t *experts, int n, int rows);
    /* These are held next, probably or (sure) certainly; returns at once. */
    void (*expect)(void *user, int layer, const int32_t *experts, int n, bool sure);
} ash_moe_supply;

/* One layer's. */
typedef struct ash_moe {
    int layer;                  /* of the model, for a supply */
    const struct ash_moe *next; /* of the layer after it, or NULL: its choices can be foreseen */
    ash_linear router;  /* [experts, embd]; floats, so that no expert is chosen by a rounding error */
    const float *bias;  /* [experts], of the choice; borrowed, or NULL */
    ash_linear *gate;   /* [experts] of [inter, embd]; these arrays are borrowed */
    ash_linear *up;     /* [experts] of [inter, embd] */
    ash_linear *down;   /* [experts] of [embd, inter] */
} ash_moe;

/* What all layers have in common. */
typedef struct ash_moe_shape {
    ash_router router; /* as ash_router_check accepts it */
    int64_t embd, inter;
} ash_moe_shape;

/* Bytes of scratch for runs on an ash_nn of so many max_rows; at most max_rows times what 1 takes. */
uint64_t ash_moe_bytes(const ash_moe_shape *s, int max_rows);
/* y [n, embd] += sum over a row's experts of weight * down(silu(gate x) * up x), x [n, embd]. Experts are
 * added in ascending order: a row's result does not depend on the other rows, nor on the supply (NULL: all
 * experts are in memory). scratch: ash_moe_bytes of nn's max_rows, 64-byte aligned. */
void ash_moe_run(ash_nn *nn, const ash_moe_shape *s, const ash_moe *m, const ash_moe_supply *supply,
                 const float *x, int n, float *y, void *scratch);

#endif
