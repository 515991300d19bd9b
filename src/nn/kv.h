/* A pool of blocks that hold the keys and values of 32 tokens for all layers, as half floats, floats, or 8
 * bits with a step for each token and head.
 *
 * A sequence is a table of block ids: token t is in block table[t / 32]. Blocks are counted, so that
 * sequences may share a common prefix: whole blocks are shared, a block is written only while it has
 * one owner. The memory is one reservation that becomes resident as blocks are first used, and stays so
 * until it is given back (ash_kv_give_back); freed blocks are used again, lowest number first. One thread
 * at a time.
 *
 * block: [layer] { K [kv_heads][k_dim][32 tokens], V [kv_heads][32 tokens][v_dim] }, each K and V on
 * 64 bytes; of ASH_KV_Q8 see kernel.h. K is transposed so that a vector register holds one component of many
 * tokens. With v_in_k there is no V: a value is the first v_dim components of its key (the latent of MLA with
 * its rotated part behind; DeepSeek-V2, Liu et al. 2024, section 2.1). */
#ifndef ASHLEY_NN_KV_H
#define ASHLEY_NN_KV_H

#include "nn/nn.h"

typedef struct ash_kv_shape {
    int layers, kv_heads, k_dim, v_dim;
    ash_kv_type type; /* ash_kernel.kv of the table that will read it, ASH_KV_F16, or ASH_KV_Q8 */
    bool v_in_k;      /* then v_dim <= k_dim, and no ASH_KV_Q8 */
} ash_kv_shape;

typedef struct ash_kv {
    ash_kv_shape shape;
    int32_t blocks;      /* of the pool */
    int32_t free;        /* not in use */
    int64_t block_bytes;
    int64_t layer_bytes; /* of one block */
    uint8_t *data;       /* owned */
    uint16_t *refs;      /* [blocks], owned */
    int32_t lowest;      /* no free block has a smaller number */
} ash_kv;

/* Bytes of one block; 0 if the shape is not positive or overflows. */
int64_t ash_kv_block_bytes(const ash_kv_shape *shape);
int ash_kv_open(const ash_kv_shape *shape, int32_t blocks, ash_kv **out, ash_err *err) ASH_MUST_CHECK;
void ash_kv_close(ash_kv *kv); /* NULL is fine */

/* A free block with one owner, or -1. Its content is undefined. */
int32_t ash_kv_take(ash_kv *kv);
void ash_kv_share(ash_kv *kv, int32_t block); /* one owner more (at most 65,535) */
void ash_kv_drop(ash_kv *kv, int32_t block);  /* one owner less; free at none */
void ash_kv_copy(ash_kv *kv, int32_t to, int32_t from);
/* The block's block_bytes, to save or restore; the layout depends on the shape only. */
void *ash_kv_block(const ash_kv *kv, int32_t block);
/* Gives the memory of a block back to the machine; its content is undefined then, and the next use has new
 * pages. The pages at its ends, which it shares with the blocks before and after it, go too where those have
 * no memory either. */
void ash_kv_give_back(ash_kv *kv, int32_t block, bool before_is_empty, bool after_is_empty);

/* One row of a batch: a token of a sequence. Rows of one sequence with adjacent positions that stand
 * together are computed together: keep them so. */
typedef struct ash_row {
    const int32_t *table; /* borrowed; has entries up to pos / 32 */
    int32_t pos;          /* from 0 */
} ash_row;

/* Stores k [n, kv_heads * k_dim] and v [n, kv_heads * v_dim] of one layer at the rows' places; v is not
 * read with v_in_k. */
void ash_kv_store(ash_nn *nn, ash_kv *kv, int layer, const ash_row *rows, int n, const float *k,
                  const float *v);

#endif
