/* Blocks of quantised tensors as GGUF files hold them: little-endian, elements of one row in order,
 * no padding between blocks (ggml, src/ggml-common.h). Files may hold them at any address: copy or
 * read bytes, never cast to a struct that wants alignment; these have only bytes and are read so.
 *
 * x[i] is the element, q the stored integer, d and m half floats of the block. Any bytes are a block. */
#ifndef ASHLEY_QUANT_BLOCKS_H
#define ASHLEY_QUANT_BLOCKS_H

#include <assert.h>
#include <stdint.h>

enum {
    ASH_QK = 32,   /* elements of a plain block */
    ASH_QK_K = 256, /* of a super-block */
};

#define ASH_BLOCK(name, size) static_assert(sizeof(ash_block_##name) == (size), #name)

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

/* x = d * (q - 16); q's fifth bit is bit i of qh. 5.5 bits. */
typedef struct ash_block_q5_0 {
    uint8_t d[2];
    uint8_t qh[4];
    uint8_t qs[ASH_QK / 2];
} ash_block_q5_0;
ASH_BLOCK(q5_0, 22);

/* x = d * q + m; quants as in Q5_0. 6 bits. */
typedef struct ash_block_q5_1 {
    uint8_t d[2];
    uint8_t m[2];
    uint8_t qh[4];
    uint8_t qs[ASH_QK / 2];
} ash_block_q5_1;
ASH_BLOCK(q5_1, 24);

/* Two-bit quants of Q2_K, Q3_K and TQ2_0: elements 128 h + 32 j + i, i < 32, are bits 2 j, 2 j + 1 of byte
 * 32 h + i. */

/* x = d * s * q - m * t; s is the low and t the high nibble of a byte for every 16 elements. 2.625 bits. */
typedef struct ash_block_q2_k {
    uint8_t scales[ASH_QK_K / 16];
    uint8_t qs[ASH_QK_K / 4];
    uint8_t d[2];
    uint8_t m[2];
} ash_block_q2_k;
ASH_BLOCK(q2_k, 84);

/* x = d * (s - 32) * (q - 4); q's third bit is bit 4 h + j of hmask[i]; s has 6 bits for every 16
 * elements: 16 low nibbles in the first 8 bytes (low halves first), 16 upper pairs in the last 4 (byte k
 * holds those of k, k + 4, k + 8, k + 12). 3.4375 bits. */
typedef struct ash_block_q3_k {
    uint8_t hmask[ASH_QK_K / 8];
    uint8_t qs[ASH_QK_K / 4];
    uint8_t scales[12];
    uint8_t d[2];
} ash_block_q3_k;
ASH_BLOCK(q3_k, 110);

/* x = d * s * q - m * t for every 32 elements; s and t have 6 bits: those of the first four are the low 6
 * bits of bytes 0..3 and 4..7, those of the last four are the nibbles of bytes 8..11, low s and high t,
 * under the upper pairs of bytes 0..3 and 4..7. Of 64 elements the first 32 are the low nibbles of 32
 * bytes. 4.5 bits. */
typedef struct ash_block_q4_k {
    uint8_t d[2];
    uint8_t m[2];
    uint8_t scales[12];
    uint8_t qs[ASH_QK_K / 2];
} ash_block_q4_k;
ASH_BLOCK(q4_k, 144);

/* The same with a fifth bit: of element i of 32-element part p, bit p of qh[i]. 5.5 bits. */
typedef struct ash_block_q5_k {
    uint8_t d[2];
    uint8_t m[2];
    uint8_t scales[12];
    uint8_t qh[ASH_QK_K / 8];
    uint8_t qs[ASH_QK_K / 2];
} ash_block_q5_k;
ASH_BLOCK(q5_k, 176);

/* x = d * s * (q - 32), s for every 16 elements. Per 128 elements: the low nibbles of 64 bytes of ql are
 * elements 0..63, the high ones 64..127; the upper pair of element 32 j + i is bits 2 j of qh[i].
 * 6.5625 bits. */
typedef struct ash_block_q6_k {
    uint8_t ql[ASH_QK_K / 2];
    uint8_t qh[ASH_QK_K / 4];
    int8_t scales[ASH_QK_K / 16];
    uint8_t d[2];
} ash_block_q6_k;
ASH_BLOCK(q6_k, 210);

/* Types with a codebook (quant/grids.h). An index names 8 or 4 magnitudes at once, a sign bit each flips
 * them. Seven stored signs have an eighth that makes the number of minuses even. */

/* x = d * (s + 1/2) / 4 * g. Per 32 elements: 4 indices of 8 bits, then a word of 4 times 7 signs and, on
 * top, 4 bits s. 2.0625 bits. */
typedef struct ash_block_iq2_xxs {
    uint8_t d[2];
    uint8_t qs[ASH_QK_K / 4];
} ash_block_iq2_xxs;
ASH_BLOCK(iq2_xxs, 66);

/* x = d * (s + 1/2) / 4 * g. Per 8 elements 16 bits: an index of 9 and 7 signs; s is a nibble for every 16
 * elements. 2.3125 bits. */
typedef struct ash_block_iq2_xs {
    uint8_t d[2];
    uint8_t qs[ASH_QK_K / 4];
    uint8_t scales[ASH_QK_K / 32];
} ash_block_iq2_xs;
ASH_BLOCK(iq2_xs, 74);

/* The same with 10 bits of index, the upper two in a byte of qh for every 4 indices, and 8 signs of their
 * own. 2.5625 bits. */
typedef struct ash_block_iq2_s {
    uint8_t d[2];
    uint8_t qs[ASH_QK_K / 8];
    uint8_t signs[ASH_QK_K / 8];
    uint8_t qh[ASH_QK_K / 32];
    uint8_t scales[ASH_QK_K / 32];
} ash_block_iq2_s;
ASH_BLOCK(iq2_s, 82);

/* x = d * (s + 1/2) / 2 * g. qs: an index for every 4 elements; then per 32 elements a word of signs and s
 * as in IQ2_XXS. 3.0625 bits. */
typedef struct ash_block_iq3_xxs {
    uint8_t d[2];
    uint8_t qs[ASH_QK_K / 4];
    uint8_t signs[ASH_QK_K / 8];
} ash_block_iq3_xxs;
ASH_BLOCK(iq3_xxs, 98);

/* x = d * (2 s + 1) * g. An index for every 4 elements has its ninth bit in qh; s is a nibble for every 32.
 * 3.4375 bits. */
typedef struct ash_block_iq3_s {
    uint8_t d[2];
    uint8_t qs[ASH_QK_K / 4];
    uint8_t qh[ASH_QK_K / 32];
    uint8_t signs[ASH_QK_K / 8];
    uint8_t scales[ASH_QK_K / 64];
} ash_block_iq3_s;
ASH_BLOCK(iq3_s, 110);

/* x = d * (2 s + 1) * (g +- 1/8). Per 32 elements 16 bits of qh: 4 times 3 upper bits of an index of 11,
 * 3 bits s, the sign of the shift. 1.5625 bits. */
typedef struct ash_block_iq1_s {
    uint8_t d[2];
    uint8_t qs[ASH_QK_K / 8];
    uint8_t qh[ASH_QK_K / 16];
} ash_block_iq1_s;
ASH_BLOCK(iq1_s, 50);

/* The same with a nibble of qh for every 8 elements, 3 upper bits and the sign of the shift, and 3 bits s
 * for every 16: four in 12 bits of a 16-bit word of scales, whose upper nibbles together are d. 1.75
 * bits. */
typedef struct ash_block_iq1_m {
    uint8_t qs[ASH_QK_K / 8];
    uint8_t qh[ASH_QK_K / 16];
    uint8_t scales[ASH_QK_K / 32];
} ash_block_iq1_m;
ASH_BLOCK(iq1_m, 56);

/* x = d * v[q], 16 values v of quant/grids.h; nibbles as in Q4_0. 4.5 bits. */
typedef ash_block_q4_0 ash_block_iq4_nl;

/* x = d * (s - 32) * v[q] for every 32 elements; s has a nibble in scales and two bits in upper. 4.25
 * bits. */
typedef struct ash_block_iq4_xs {
    uint8_t d[2];
    uint8_t upper[2];
    uint8_t scales[ASH_QK_K / 64];
    uint8_t qs[ASH_QK_K / 2];
} ash_block_iq4_xs;
ASH_BLOCK(iq4_xs, 136);

/* x = 2^(e - 128) * v[q], v twice the values of E2M1; nibbles as in Q4_0 (OCP Microscaling
 * 1.0). 4.25 bits. */
typedef struct ash_block_mxfp4 {
    uint8_t e;
    uint8_t qs[ASH_QK / 2];
} ash_block_mxfp4;
ASH_BLOCK(mxfp4, 17);

/* x = d / 2 * v[q] for every 16 elements, the low nibbles of 8 bytes first; d is an unsigned E4M3. 4.5
 * bits. */
typedef struct ash_block_nvfp4 {
    uint8_t d[4];
    uint8_t qs[32];
} ash_block_nvfp4;
ASH_BLOCK(nvfp4, 36);

/* x = d * (t - 1). Five base-3 digits t a byte, as a fraction of 256: elements 32 k + i of the first 160 are
 * digit k of qs[i], i < 32, those of the next 80 (16 k + i) of qs[32 + i], of the last 16 (4 k + i) of qh[i].
 * 1.6875 bits. */
typedef struct ash_block_tq1_0 {
    uint8_t qs[48];
    uint8_t qh[4];
    uint8_t d[2];
} ash_block_tq1_0;
ASH_BLOCK(tq1_0, 54);

/* x = d * (q - 1). 2.0625 bits. */
typedef struct ash_block_tq2_0 {
    uint8_t qs[ASH_QK_K / 4];
    uint8_t d[2];
} ash_block_tq2_0;
ASH_BLOCK(tq2_0, 66);

/* x = d or -d, as bits in order are set or not. 1.125 bits. */
typedef struct ash_block_q1_0 {
    uint8_t d[2];
    uint8_t qs[16];
} ash_block_q1_0;
ASH_BLOCK(q1_0, 18);

/* x = d * (q - 1), pairs of bits in order. 2.25 bits. */
typedef struct ash_block_q2_0 {
    uint8_t d[2];
    uint8_t qs[16];
} ash_block_q2_0;
ASH_BLOCK(q2_0, 18);

/* A half float's bits from two bytes of a block. */
static inline uint16_t ash_le16(const uint8_t p[2])
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t ash_le32(const uint8_t p[4])
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

#endif
