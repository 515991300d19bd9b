/* Owns the packed layout: planning, packing from the file's rows, decoding back. Refuses types without
 * a form. Any thread on disjoint rows. */
#include "kernel/pack.h"

#include <string.h>

#include "kernel/pack_raw.h"
#include "kernel/pack_fp8.h"
#include "kernel/pack_gptq.h"
#include "quant/blocks.h"
#include "quant/decode.h"
#include "quant/half.h"

/* Bytes of one group's block: quants, then half floats per row. */
typedef struct layout {
    ash_form form;
    int cols;       /* columns of a block */
    int quants;     /* bytes of 16 rows */
    int halves;     /* d, or d and m: 2 bytes a row each */
} layout;

static const layout *layout_of(ash_dtype t)
{
    static const layout f32 = {ASH_FORM_F32, 1, 64, 0}, f16 = {ASH_FORM_F16, 1, 32, 0};
    static const layout bf16 = {ASH_FORM_BF16, 2, 64, 0}, u4z = {ASH_FORM_U4Z, 32, 256, 1};
    static const layout u4m = {ASH_FORM_U4M, 32, 256, 2}, u8z = {ASH_FORM_U8Z, 32, 512, 1};
    switch (t) {
    case ASH_DTYPE_F64: /* rounded to floats */
    case ASH_DTYPE_F32: return &f32;
    case ASH_DTYPE_F16: return &f16;
    case ASH_DTYPE_BF16: return &bf16;
    case ASH_DTYPE_Q4_0: return &u4z;
    case ASH_DTYPE_Q4_1: return &u4m;
    case ASH_DTYPE_Q8_0: return &u8z;
    default: return NULL;
    }
}

bool ash_pack_plan(ash_packed *w, ash_dtype t, int64_t rows, int64_t cols)
{
    const ash_dtype_info *info = ash_dtype_get(t);
    ash_raw_layout raw = ash_raw_layout_of(t);
    const layout as_is = {ASH_FORM_RAW, (int)info->block, raw.words * 64 + raw.edge * ASH_GROUP, 0};
    const layout *l = raw.words ? &as_is : layout_of(t);
    if (!l || rows < 1 || cols < 1 || cols % info->block || rows > INT64_MAX / 64)
        return false;
    int64_t blocks = cols / l->cols + (cols % l->cols != 0);
    int64_t bytes = l->quants + l->halves * 2 * ASH_GROUP;
    int64_t groups = (rows + ASH_GROUP - 1) / ASH_GROUP;
    if (blocks > INT64_MAX / bytes / groups)
        return false;
    *w = (ash_packed){.form = l->form, .dtype = t, .rows = rows, .cols = cols, .groups = groups,
                      .group_bytes = blocks * bytes};
    return true;
}

/* The lane of `row` in its group, and the group's first byte. */
static uint8_t *group_of(const ash_packed *w, int64_t row, int64_t *lane)
{
    *lane = row % ASH_GROUP;
    return w->data + row / ASH_GROUP * w->group_bytes;
}

static void put16(uint8_t *p, const uint8_t v[2])
{
    p[0] = v[0];
    p[1] = v[1];
}

static void pack_u4(const ash_packed *w, const uint8_t *src, int64_t row)
{
    int64_t r, nb = ash_pack_blocks(w), size = w->form == ASH_FORM_U4M ? 20 : 18;
    uint8_t *q = group_of(w, row, &r), *d = q + nb * 256, *m = d + nb * 32;
    for (int64_t b = 0; b < nb; b++, src += size) {
        const uint8_t *qs = src + size - 16;
        for (int c = 0; c < 4; c++) memcpy(q + b * 256 + c * 64 + r * 4, qs + c * 4, 4);
        put16(d + b * 32 + r * 2, src);
        if (w->form == ASH_FORM_U4M)
            put16(m + b * 32 + r * 2, src + 2);
    }
}

static void pack_u8(const ash_packed *w, const uint8_t *src, int64_t row)
{
    int64_t r, nb = ash_pack_blocks(w);
    uint8_t *q = group_of(w, row, &r), *d = q + nb * 512;
    for (int64_t b = 0; b < nb; b++, src += sizeof(ash_block_q8_0)) {
        for (int c = 0; c < 8; c++) {
            uint32_t v;
            memcpy(&v, src + 2 + c * 4, 4);
            v ^= 0x80808080u; /* signed to unsigned with zero at 128 */
            memcpy(q + b * 512 + c * 64 + r * 4, &v, 4);
        }
        put16(d + b * 32 + r * 2, src);
    }
}

static void pack_plain(const ash_packed *w, const uint8_t *src, int64_t row)
{
    int64_t r;
    uint8_t *q = group_of(w, row, &r);
    switch (w->form) {
    case ASH_FORM_F32:
        for (int64_t k = 0; k < w->cols; k++) {
            float v;
            if (w->dtype == ASH_DTYPE_F64)
                ash_quant_decode(ASH_DTYPE_F64, src + k * 8, 1, &v);
            else
                memcpy(&v, src + k * 4, 4);
            memcpy(q + k * 64 + r * 4, &v, 4);
        }
        break;
    case ASH_FORM_F16:
        for (int64_t k = 0; k < w->cols; k++) memcpy(q + k * 32 + r * 2, src + k * 2, 2);
        break;
    default: /* BF16 */
        for (int64_t k = 0; k < w->cols; k++)
            memcpy(q + k / 2 * 64 + r * 4 + k % 2 * 2, src + k * 2, 2);
        if (w->cols % 2)
            memset(q + w->cols / 2 * 64 + r * 4 + 2, 0, 2);
    }
}

static void pack_zero(const ash_packed *w, int64_t row)
{
    /* Zero bytes decode to zero in every form: d and m are 0. Lane by lane, so that a thread packing
     * another row of this group is not disturbed. */
    if (w->form == ASH_FORM_RAW) {
        ash_raw_zero(w, row);
        return;
    }
    int64_t r, nb = w->cols / 32;
    uint8_t *q = group_of(w, row, &r);
    int width = w->form == ASH_FORM_F16 ? 2 : 4;
    bool blocks = w->form >= ASH_FORM_U4Z;
    int64_t quants = !blocks ? w->group_bytes : nb * (w->form == ASH_FORM_U8Z ? 512 : 256);
    for (int64_t at = 0; at < quants; at += ASH_GROUP * width) memset(q + at + r * width, 0, width);
    for (int64_t at = quants; at < w->group_bytes; at += 32) memset(q + at + r * 2, 0, 2);
}

void ash_pack_rows(const ash_packed *w, const void *src, int64_t row, int64_t n)
{
    const ash_dtype_info *t = ash_dtype_get(w->dtype);
    int64_t stride = w->cols / t->block * t->block_bytes;
    const uint8_t *p = src;
    for (int64_t i = row; i < row + n; i++, p += stride) {
        switch (w->form) {
        case ASH_FORM_U4Z:
        case ASH_FORM_U4M: pack_u4(w, p, i); break;
        case ASH_FORM_U8Z: pack_u8(w, p, i); break;
        case ASH_FORM_RAW: ash_raw_pack(w, p, i); break;
        default: pack_plain(w, p, i);
        }
    }
    if (row + n == w->rows)
        for (int64_t i = w->rows; i < w->groups * ASH_GROUP; i++) pack_zero(w, i);
}

static void decode_u4(const ash_packed *w, const uint8_t *q, int64_t r, float *y)
{
    int64_t nb = ash_pack_blocks(w);
    const uint8_t *d = q + nb * 256, *m = d + nb * 32;
    for (int64_t b = 0; b < nb; b++, y += 32) {
        float scale = ash_f16_to_f32(ash_le16(d + b * 32 + r * 2));
        float min = w->form == ASH_FORM_U4M ? ash_f16_to_f32(ash_le16(m + b * 32 + r * 2)) : 0;
        for (int i = 0; i < 16; i++) {
            int v = q[b * 256 + i / 4 * 64 + r * 4 + i % 4];
            if (w->form == ASH_FORM_U4M) {
                y[i] = (float)(v & 15) * scale + min;
                y[i + 16] = (float)(v >> 4) * scale + min;
            } else {
                y[i] = (float)((v & 15) - 8) * scale;
                y[i + 16] = (float)((v >> 4) - 8) * scale;
            }
        }
    }
}

static void decode_u8(const ash_packed *w, const uint8_t *q, int64_t r, float *y)
{
    int64_t nb = ash_pack_blocks(w);
    const uint8_t *d = q + nb * 512;
    for (int64_t b = 0; b < nb; b++, y += 32) {
        float scale = ash_f16_to_f32(ash_le16(d + b * 32 + r * 2));
        for (int i = 0; i < 32; i++)
            y[i] = (float)(q[b * 512 + i / 4 * 64 + r * 4 + i % 4] - 128) * scale;
    }
}

static void decode_lane(const ash_packed *w, const uint8_t *q, int64_t r, float *y)
{
    switch (w->form) {
    case ASH_FORM_U4Z:
    case ASH_FORM_U4M: decode_u4(w, q, r, y); break;
    case ASH_FORM_U8Z: decode_u8(w, q, r, y); break;
    case ASH_FORM_F8: ash_pack_fp8_decode(w, q, r, y); break;
    case ASH_FORM_RAW: ash_raw_decode(w, q, r, y); break;
    case ASH_FORM_F32:
        for (int64_t k = 0; k < w->cols; k++) memcpy(&y[k], q + k * 64 + r * 4, 4);
        break;
    case ASH_FORM_F16:
        for (int64_t k = 0; k < w->cols; k++) y[k] = ash_f16_to_f32(ash_le16(q + k * 32 + r * 2));
        break;
    case ASH_FORM_U4G:
    case ASH_FORM_U8G:
        for (int64_t b = 0; b < ash_pack_blocks(w); b++) ash_pack_gptq_decode(w, q, r, b, y + b * 32);
        break;
    default:
        for (int64_t k = 0; k < w->cols; k++)
            y[k] = ash_bf16_to_f32(ash_le16(q + k / 2 * 64 + r * 4 + k % 2 * 2));
    }
}

void ash_pack_row_decode(const ash_packed *w, int64_t row, float *y)
{
    int64_t r;
    const uint8_t *q = group_of(w, row, &r);
    decode_lane(w, q, r, y);
}

void ash_pack_group_decode(const ash_packed *w, int64_t g, float *y)
{
    for (int64_t r = 0; r < ASH_GROUP; r++)
        decode_lane(w, w->data + g * w->group_bytes, r, y + r * w->cols);
}
