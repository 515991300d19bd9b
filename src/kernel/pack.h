/* The packed layout of a matrix W [rows, cols], one for every instruction set, about the file's bytes.
 *
 * Rows go in groups of 16, the lanes of a 512-bit register; a last group is filled with zero rows. A
 * group is contiguous: first the quants of all its blocks, then the blocks' half floats d, then m.
 *
 * | form | a block of 16 rows        | quants                                             | value       |
 * | U4Z  | 32 columns, 256 + 32 B    | 4 x 64 B; byte 4 r + j of part c holds column      | d (q - 8)   |
 * |      |                           | 4 c + j in its low and 16 + 4 c + j in its high half |           |
 * | U4M  | 32 columns, 256 + 64 B    | the same                                           | d q + m     |
 * | U8Z  | 32 columns, 512 + 32 B    | 8 x 64 B; byte 4 r + j of part c is column 4 c + j | d (q - 128) |
 * | U4G  | 32 columns, 256 B         | as U4Z                                             | s (q - z)   |
 * | U8G  | 32 columns, 512 B         | as U8Z                                             | s (q - z)   |
 * | BF16 | 2 columns, 64 B           | half 2 r + j is column j                           |             |
 * | F16  | 1 column, 32 B            | half r                                             |             |
 * | F32  | 1 column, 64 B            | float r                                            |             |
 * | F8   | 1 column, 16 B            | byte r                                             | s q         |
 * | RAW  | a block of the file's     | words of 4 B side by side, see kernel/pack_raw.h   | the type's  |
 *
 * In U4G and U8G (GPTQ's; kernel/pack_gptq.h) the quants are followed, for each `span` columns, by 16 half
 * floats s (`wide`: floats) and 16 bytes z; a group ends at a multiple of 64 bytes. In F8
 * (kernel/pack_fp8.h) each `span` columns, the last fewer, have one float s (`wide`: 16).
 *
 * So one 64-byte load is an operand of vpdpbusd (or, in two halves, of vpmaddubsw), of vdpbf16ps or of
 * an FMA: 16 rows times 4, 2 or 1 columns, against one broadcast of the activations. Quants are
 * unsigned; what that adds is taken off through the sums of the activations. */
#ifndef ASHLEY_KERNEL_PACK_H
#define ASHLEY_KERNEL_PACK_H

#include "base/dtype.h"

enum { ASH_GROUP = 16 }; /* rows of a group */

/* Of the bytes that packing gives, of any form. Raise it with every change of them: packed weights are kept
 * on disk, and those of another version are packed again (tests/unit/kernel/test_pack_version.c fails until
 * both are changed). */
enum { ASH_PACK_VERSION = 1 };

typedef enum ash_form {
    ASH_FORM_F32,
    ASH_FORM_F16,
    ASH_FORM_BF16,
    ASH_FORM_U4Z, /* Q4_0 */
    ASH_FORM_U4M, /* Q4_1 */
    ASH_FORM_U8Z, /* Q8_0 */
    ASH_FORM_U4G, /* GPTQ of 2, 3 and 4 bits */
    ASH_FORM_U8G, /* GPTQ of 8 bits */
    ASH_FORM_F8,  /* F8_E4M3 with scales of blocks */
    ASH_FORM_RAW, /* every other block type of GGUF: kernel/pack_raw.h */
    ASH_FORM_COUNT,
} ash_form;

typedef struct ash_packed {
    ash_form form;
    ash_dtype dtype;     /* of the file's rows */
    int64_t rows, cols;
    int64_t groups;      /* ceil(rows / 16) */
    int64_t group_bytes;
    int64_t span;        /* columns with one scale, where the form does not fix them */
    bool wide;           /* such scales are floats (U4G, U8G), one for each row (F8) */
    uint8_t *data;       /* borrowed, groups * group_bytes, 64-byte aligned */
} ash_packed;

/* Fills everything but data; false if t has no form, cols is no multiple of its block, or a size is
 * not positive or overflows. */
bool ash_pack_plan(ash_packed *w, ash_dtype t, int64_t rows, int64_t cols);
/* Packs rows [row, row + n) from src, n rows as the file holds them (any alignment). Disjoint rows may
 * be packed by different threads at once. The zero rows of a last group come with row rows - 1. */
void ash_pack_rows(const ash_packed *w, const void *src, int64_t row, int64_t n);
/* y[0..cols) = row, bit for bit what ash_quant_decode gives. */
void ash_pack_row_decode(const ash_packed *w, int64_t row, float *y);
/* y [16][cols] = rows of group g, the zero rows too. */
void ash_pack_group_decode(const ash_packed *w, int64_t g, float *y);

/* Blocks of 32 columns; the half floats d and m of block b of a group, [16] each. */
static inline int64_t ash_pack_blocks(const ash_packed *w)
{
    return w->cols / 32;
}

#endif
