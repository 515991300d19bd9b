/* Owns the packing of FP8 matrices. Refuses sizes that overflow. Any thread on disjoint rows. */
#include "kernel/pack_fp8.h"

#include <string.h>

#include "quant/fp8.h"

static int64_t spans_of(const ash_packed *w)
{
    return (w->cols + w->span - 1) / w->span;
}

bool ash_pack_fp8_plan(ash_packed *w, int64_t rows, int64_t cols, int64_t block_out, int64_t block_in)
{
    if (rows < 1 || cols < 1 || block_out < 1 || block_in < 1 || rows > INT64_MAX / 64)
        return false;
    int64_t groups = (rows + ASH_GROUP - 1) / ASH_GROUP;
    if (cols > (INT64_MAX / groups - 64) / (ASH_GROUP + 64))
        return false;
    *w = (ash_packed){.form = ASH_FORM_F8, .dtype = ASH_DTYPE_F8_E4M3, .rows = rows, .cols = cols,
                      .groups = groups, .span = block_in < cols ? block_in : cols,
                      .wide = block_out % ASH_GROUP != 0 && block_out < rows};
    int64_t bytes = cols * ASH_GROUP + spans_of(w) * (w->wide ? 64 : 4);
    w->group_bytes = (bytes + 63) / 64 * 64;
    return true;
}

typedef uint8_t bytes16 __attribute__((vector_size(16)));

#define LOW(a, b)                                                                                     \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH(a, b)                                                                                    \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)

/* 16 rows of 16 bytes, `stride` apart, to 16 columns. */
static void transpose(const uint8_t *src, int64_t stride, uint8_t *to)
{
    bytes16 a[16], b[16];
    for (int i = 0; i < 16; i++) memcpy(&a[i], src + i * stride, 16);
    for (int round = 0; round < 4; round++) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            b[2 * i] = LOW(a[i], a[i + 8]);
            b[2 * i + 1] = HIGH(a[i], a[i + 8]);
        }
        memcpy(a, b, sizeof a);
    }
    memcpy(to, a, sizeof a);
}

static void pack_group(const ash_packed *w, const uint8_t *src, uint8_t *to)
{
    int64_t k = 0;
    for (; k + 16 <= w->cols; k += 16) transpose(src + k, w->cols, to + k * ASH_GROUP);
    for (; k < w->cols; k++)
        for (int64_t r = 0; r < ASH_GROUP; r++) to[k * ASH_GROUP + r] = src[r * w->cols + k];
}

/* The scales of a row: the group's, with its first row, or a lane of its own. */
static void pack_scales(const ash_packed *w, const float *scales, int64_t row)
{
    int64_t r = row % ASH_GROUP, n = spans_of(w);
    uint8_t *to = w->data + row / ASH_GROUP * w->group_bytes + w->cols * ASH_GROUP;
    if (!w->wide && r == 0)
        memcpy(to, scales, (size_t)n * sizeof *scales);
    for (int64_t s = 0; w->wide && s < n; s++) memcpy(to + s * 64 + r * 4, &scales[s], 4);
}

/* Rows past the last: zeros. */
static void pack_rest(const ash_packed *w)
{
    uint8_t *to = w->data + (w->groups - 1) * w->group_bytes;
    for (int64_t row = w->rows; row < w->groups * ASH_GROUP; row++) {
        int64_t r = row % ASH_GROUP;
        for (int64_t k = 0; k < w->cols; k++) to[k * ASH_GROUP + r] = 0;
        for (int64_t s = 0; w->wide && s < spans_of(w); s++)
            memset(to + w->cols * ASH_GROUP + s * 64 + r * 4, 0, 4);
    }
}

void ash_pack_fp8_rows(const ash_packed *w, int64_t block_out, const void *src, const float *scales,
                       int64_t row, int64_t n)
{
    const uint8_t *p = src;
    for (int64_t end = row + n; row < end;) {
        uint8_t *to = w->data + row / ASH_GROUP * w->group_bytes;
        int64_t rows = row % ASH_GROUP == 0 && row + ASH_GROUP <= end ? ASH_GROUP : 1;
        if (rows == ASH_GROUP)
            pack_group(w, p, to);
        else
            for (int64_t k = 0; k < w->cols; k++) to[k * ASH_GROUP + row % ASH_GROUP] = p[k];
        for (int64_t i = 0; i < rows; i++, row++, p += w->cols)
            pack_scales(w, scales + row / block_out * spans_of(w), row);
        if (row == w->rows)
            pack_rest(w);
    }
}

void ash_pack_fp8_decode(const ash_packed *w, const uint8_t *group, int64_t r, float *y)
{
    const uint8_t *s = ash_pack_fp8_scales(w, group);
    for (int64_t k = 0; k < w->cols; k++) {
        float scale;
        memcpy(&scale, s + k / w->span * (w->wide ? 64 : 4) + (w->wide ? r * 4 : 0), 4);
        y[k] = ash_fp8_to_f32(group[k * ASH_GROUP + r]) * scale;
    }
}
