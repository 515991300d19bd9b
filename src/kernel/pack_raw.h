/* The RAW form: any block type of GGUF files, its bytes as they are, those of 16 rows laid side by side so
 * that a register holds the same field of 16 rows.
 *
 * A block is cut into words of 4 bytes and an edge of at most 2, which is what the format puts before or
 * after them: a half float d, or a byte. Block b of a group, `words` words and `edge` bytes a row:
 *
 *   word i of row r   at  (b * words + i) * 64 + 4 r
 *   edge of row r     at  blocks * words * 64 + (b * 16 + r) * edge
 *
 * | edge of 2 before the words | Q5_0 IQ4_NL IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ1_S Q1_0 Q2_0 |
 * | edge of 1 before the words | MXFP4                                                          |
 * | edge of 2 after the words  | Q3_K Q6_K TQ1_0 TQ2_0                                          |
 * | none                       | Q5_1 Q2_K Q4_K Q5_K IQ4_XS IQ1_M NVFP4                         |
 *
 * Shared by packing and the kernels; pure functions, any thread. */
#ifndef ASHLEY_KERNEL_PACK_RAW_H
#define ASHLEY_KERNEL_PACK_RAW_H

#include "kernel/pack.h"

typedef struct ash_raw_layout {
    int words; /* of 4 bytes in a block */
    int edge;  /* bytes besides them, 0 to 2 */
    bool last; /* the edge follows the words */
} ash_raw_layout;

/* words == 0 for a type that is not packed so. */
ash_raw_layout ash_raw_layout_of(ash_dtype t);
/* One row of the file to its lane. */
void ash_raw_pack(const ash_packed *w, const uint8_t *src, int64_t row);
/* A row of zero bytes, which every type decodes to zeros. */
void ash_raw_zero(const ash_packed *w, int64_t row);
/* y [cols] = lane r of the group at q. */
void ash_raw_decode(const ash_packed *w, const uint8_t *q, int64_t r, float *y);

#endif
