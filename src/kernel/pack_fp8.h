/* The packed layout of FP8 matrices with block scales (form F8 of kernel/pack.h). */
#ifndef ASHLEY_KERNEL_PACK_FP8_H
#define ASHLEY_KERNEL_PACK_FP8_H

#include "kernel/pack.h"

/* Fills everything but data for F8_E4M3 [rows, cols] with a scale for each [block_out, block_in]; false if
 * a size is not positive or overflows. */
bool ash_pack_fp8_plan(ash_packed *w, int64_t rows, int64_t cols, int64_t block_out, int64_t block_in);
/* Packs rows [row, row + n) from src, n rows of bytes, with the scales [ceil(rows / block_out),
 * ceil(cols / block_in)] of the whole matrix, as planned. Disjoint rows may be packed by different threads
 * at once; fast from whole groups of 16. */
void ash_pack_fp8_rows(const ash_packed *w, int64_t block_out, const void *src, const float *scales,
                       int64_t row, int64_t n);
/* y [cols] = lane r of a group, bit for bit as the formula gives it in floats. */
void ash_pack_fp8_decode(const ash_packed *w, const uint8_t *group, int64_t r, float *y);

/* The scales of a group: [ceil(cols / span)], or as many times 16 where `wide`. */
static inline const uint8_t *ash_pack_fp8_scales(const ash_packed *w, const uint8_t *group)
{
    return group + w->cols * ASH_GROUP;
}

#endif
