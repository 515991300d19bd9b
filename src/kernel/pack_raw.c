/* Owns the RAW form: which types have it, packing and decoding back. Any thread on disjoint rows. */
#include "kernel/pack_raw.h"

#include <string.h>

#include "quant/decode.h"

enum { BLOCK_BYTES = 256 }; /* no block is larger */

ash_raw_layout ash_raw_layout_of(ash_dtype t)
{
    int edge = 0;
    bool last = false;
    switch (t) {
    case ASH_DTYPE_Q5_0:
    case ASH_DTYPE_IQ4_NL:
    case ASH_DTYPE_IQ2_XXS:
    case ASH_DTYPE_IQ2_XS:
    case ASH_DTYPE_IQ2_S:
    case ASH_DTYPE_IQ3_XXS:
    case ASH_DTYPE_IQ3_S:
    case ASH_DTYPE_IQ1_S:
    case ASH_DTYPE_Q1_0:
    case ASH_DTYPE_Q2_0: edge = 2; break;
    case ASH_DTYPE_MXFP4: edge = 1; break;
    case ASH_DTYPE_Q3_K:
    case ASH_DTYPE_Q6_K:
    case ASH_DTYPE_TQ1_0:
    case ASH_DTYPE_TQ2_0:
        edge = 2;
        last = true;
        break;
    case ASH_DTYPE_Q5_1:
    case ASH_DTYPE_Q2_K:
    case ASH_DTYPE_Q4_K:
    case ASH_DTYPE_Q5_K:
    case ASH_DTYPE_IQ4_XS:
    case ASH_DTYPE_IQ1_M:
    case ASH_DTYPE_NVFP4: break;
    default: return (ash_raw_layout){0};
    }
    return (ash_raw_layout){(int)ash_dtype_get(t)->block_bytes / 4, edge, last};
}

/* Where the bytes of one lane of a group are. */
typedef struct lane {
    ash_raw_layout l;
    int64_t blocks;
    uint8_t *words, *edges; /* of the first block */
} lane;

static lane lane_of(const ash_packed *w, uint8_t *group, int64_t r)
{
    ash_raw_layout l = ash_raw_layout_of(w->dtype);
    int64_t blocks = w->cols / ash_dtype_get(w->dtype)->block;
    return (lane){l, blocks, group + 4 * r, group + blocks * l.words * 64 + r * l.edge};
}

static void put_block(const lane *p, int64_t b, const uint8_t *src)
{
    int before = p->l.last ? 0 : p->l.edge;
    uint8_t *to = p->words + b * p->l.words * 64;
    for (int i = 0; i < p->l.words; i++) memcpy(to + i * 64, src + before + 4 * i, 4);
    memcpy(p->edges + b * ASH_GROUP * p->l.edge, src + (p->l.last ? 4 * p->l.words : 0), (size_t)p->l.edge);
}

void ash_raw_pack(const ash_packed *w, const uint8_t *src, int64_t row)
{
    lane p = lane_of(w, w->data + row / ASH_GROUP * w->group_bytes, row % ASH_GROUP);
    int64_t size = ash_dtype_get(w->dtype)->block_bytes;
    for (int64_t b = 0; b < p.blocks; b++) put_block(&p, b, src + b * size);
}

void ash_raw_zero(const ash_packed *w, int64_t row)
{
    static const uint8_t zeros[BLOCK_BYTES];
    lane p = lane_of(w, w->data + row / ASH_GROUP * w->group_bytes, row % ASH_GROUP);
    for (int64_t b = 0; b < p.blocks; b++) put_block(&p, b, zeros);
}

void ash_raw_decode(const ash_packed *w, const uint8_t *q, int64_t r, float *y)
{
    const ash_dtype_info *t = ash_dtype_get(w->dtype);
    ash_raw_layout l = ash_raw_layout_of(w->dtype);
    int64_t blocks = w->cols / t->block;
    const uint8_t *words = q + 4 * r, *edges = q + blocks * l.words * 64 + r * l.edge;
    int before = l.last ? 0 : l.edge;
    for (int64_t b = 0; b < blocks; b++, y += t->block) {
        uint8_t block[BLOCK_BYTES];
        for (int i = 0; i < l.words; i++) memcpy(block + before + 4 * i, words + (b * l.words + i) * 64, 4);
        memcpy(block + (l.last ? 4 * l.words : 0), edges + b * ASH_GROUP * l.edge, (size_t)l.edge);
        ash_quant_decode(w->dtype, block, t->block, y);
    }
}
