/* Blocks of quantised tensors as GGUF files hold them: little-endian, elements of one row in order,
 * no padding between blocks (ggml, src/ggml-common.h). Files may hold them at any address: copy or
 * read bytes, never cast to a struct that wants alignment; these have only bytes and are read so.
 *
 * x[i] is the element, q the stored integer, d and m half floats of the block. */
#ifndef ASHLEY_QUANT_BLOCKS_H
#define ASHLEY_QUANT_BLOCKS_H

#include <assert.h>
#include <stdint.h>

enum { ASH_QK = 32 }; /* elements of a plain block */

/* x = d * (q - 8); q of element i is the low nibble of qs[i], of i + 16 the high one. 4.5 bits. */
typedef struct ash_block_q4_0 {
    uint8_t d[2];
    uint8_t qs[ASH_QK / 2];
} ash_block_q4_0;
static_assert(sizeof(ash_block_q4_0) == 18, "Q4_0 is 18 bytes");

/* x = d * q + m; nibbles as in Q4_0. 5 bits. */
typedef struct ash_block_q4_1 {
    uint8_t d[2];
    uint8_t m[2];
    uint8_t qs[ASH_QK / 2];
} ash_block_q4_1;
static_assert(sizeof(ash_block_q4_1) == 20, "Q4_1 is 20 bytes");

/* x = d * q. 8.5 bits. */
typedef struct ash_block_q8_0 {
    uint8_t d[2];
    int8_t qs[ASH_QK];
} ash_block_q8_0;
static_assert(sizeof(ash_block_q8_0) == 34, "Q8_0 is 34 bytes");

/* A half float's bits from two bytes of a block. */
static inline uint16_t ash_le16(const uint8_t p[2])
{
    return (uint16_t)(p[0] | p[1] << 8);
}

#endif
