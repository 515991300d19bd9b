/* Owns the packing of GPTQ's matrices and the order of their columns. Refuses sizes that overflow. Any
 * thread on disjoint rows. */
#include "kernel/pack_gptq.h"

#include <stdlib.h>
#include <string.h>

#include "kernel/kernel.h"
#include "quant/half.h"

enum { BLOCK = 32, CHUNK = 64 }; /* groups packed together: a page of each row of qweight */

static int64_t whole_blocks(int64_t n)
{
    return (n + BLOCK - 1) / BLOCK * BLOCK;
}

/* Columns in all, columns of a scale; whether any column is not its input. sizes [groups] is zero. */
static void measure(const ash_gptq *q, int32_t *sizes, int64_t *cols, int64_t *span, bool *ordered)
{
    int64_t last = 0;
    *cols = *span = 0;
    *ordered = false;
    for (int64_t i = 0; i < q->in; i++) {
        int64_t g = ash_gptq_group(q, i);
        sizes[g]++;
        *ordered |= g < last;
        last = g;
    }
    for (int64_t g = 0; g < q->groups; g++) {
        int64_t size = whole_blocks(sizes[g]);
        *cols += size;
        for (int64_t rest; size; size = rest) { /* Euclid's */
            rest = *span % size;
            *span = size;
        }
    }
    *ordered |= *cols != q->in;
}

int ash_pack_gptq_plan(ash_packed *w, const ash_gptq *q, bool *ordered, ash_err *err)
{
    if (q->in < 1 || q->in > INT32_MAX / 64 || q->out < 1 || q->out > INT32_MAX || q->groups < 1 ||
        q->groups > INT32_MAX || q->in % BLOCK || q->out % BLOCK || (!q->group_of && q->in % q->groups))
        return ash_err_set(err, ASH_EINVAL, "a GPTQ matrix of [%lld, %lld] in %lld groups: out of range",
                           (long long)q->out, (long long)q->in, (long long)q->groups);
    int32_t *sizes = calloc((size_t)q->groups, sizeof *sizes);
    if (!sizes)
        return ash_err_nomem(err, "the groups of a GPTQ matrix");
    int64_t cols, span;
    measure(q, sizes, &cols, &span, ordered);
    free(sizes);
    *w = (ash_packed){.form = q->bits == 8 ? ASH_FORM_U8G : ASH_FORM_U4G, .dtype = ASH_DTYPE_I32,
                      .rows = q->out, .cols = cols, .groups = (q->out + ASH_GROUP - 1) / ASH_GROUP,
                      .span = span, .wide = q->scale_type != ASH_DTYPE_F16};
    int64_t bytes = cols / BLOCK * ash_pack_gptq_quants(w) + cols / span * ash_pack_gptq_entry(w);
    w->group_bytes = (bytes + 63) / 64 * 64;
    return 0;
}

void ash_pack_gptq_order(const ash_packed *w, const ash_gptq *q, int32_t *order, int32_t *work)
{
    memset(work, 0, (size_t)q->groups * sizeof *work);
    for (int64_t i = 0; i < q->in; i++) work[ash_gptq_group(q, i)]++;
    int64_t at = 0;
    for (int64_t g = 0; g < q->groups; g++) {
        int64_t size = work[g];
        work[g] = (int32_t)at;
        at += whole_blocks(size);
    }
    for (int64_t c = 0; c < w->cols; c++) order[c] = -1;
    for (int64_t i = 0; i < q->in; i++) order[work[ash_gptq_group(q, i)]++] = (int32_t)i;
}

/* Where the bits of input i of 16 rows are taken from and to; two parts where they straddle words. Bits
 * of input -1 are zero. */
static void add_field(const ash_gptq *q, int64_t i, int to, ash_bits *f)
{
    uint32_t mask = (1u << q->bits) - 1;
    int64_t word = i < 0 ? 0 : i * q->bits / 32, row = q->out * 4;
    int from = i < 0 ? 0 : (int)(i * q->bits % 32);
    if (i < 0)
        mask = 0;
    f[0] = (ash_bits){.words = q->qweight + word * row, .rotate = (uint32_t)(to - from) & 31};
    if (q->bits != 3) {
        f[0].mask = mask << to;
        return;
    }
    int low = from + 3 > 32 ? 32 - from : 3; /* bits in the first word */
    f[0].mask = (mask & ((1u << low) - 1)) << to;
    f[1] = (ash_bits){.words = f[0].words + (low < 3 ? row : 0), .rotate = (uint32_t)(to + low) & 31,
                      .mask = (mask >> low) << (to + low) % 32};
}

/* The bits of block b, and how many make up a word of its quants. */
static int block_bits(const ash_packed *w, const ash_gptq *q, const int32_t *order, int64_t b,
                      ash_bits bits[64])
{
    int per_word = q->bits == 8 ? 4 : q->bits == 3 ? 16 : 8, step = q->bits == 3 ? 2 : 1;
    for (int64_t c = 0; c < BLOCK; c++) {
        int64_t i = order ? order[b * BLOCK + c] : b * BLOCK + c, part = c / 4, k = c % 4 * 2;
        if (q->bits == 8) {
            add_field(q, i, (int)(c % 4) * 8, bits + part * per_word + c % 4);
            continue;
        }
        if (c >= 16) { /* the upper half of a byte */
            part -= 4;
            k++;
        }
        add_field(q, i, (int)k * 4, bits + part * per_word + k * step);
    }
    return per_word;
}

static void pack_scales(const ash_packed *w, const ash_gptq *q, int64_t group, int64_t g, uint8_t *to)
{
    int64_t first = g * ASH_GROUP;
    if (w->wide) {
        float scales[ASH_GROUP];
        ash_gptq_scales(q, group, first, ASH_GROUP, scales);
        memcpy(to, scales, sizeof scales);
    } else {
        memcpy(to, q->scales + (group * q->out + first) * 2, ASH_GROUP * 2);
    }
    ash_gptq_zeros(q, group, first, ASH_GROUP, to + (w->wide ? 64 : 32));
}

void ash_pack_gptq_rows(const ash_packed *w, const ash_gptq *q, const int32_t *order, int64_t row,
                        int64_t n)
{
    const ash_kernel *k = ash_kernel_get(ash_cpu_get()->level);
    int64_t blocks = w->cols / BLOCK, quants = ash_pack_gptq_quants(w), entry = ash_pack_gptq_entry(w);
    int64_t g0 = row / ASH_GROUP, end = (row + n + ASH_GROUP - 1) / ASH_GROUP;
    for (int64_t g1; g0 < end; g0 = g1) {
        g1 = g0 + CHUNK < end ? g0 + CHUNK : end;
        uint8_t *to = w->data + g0 * w->group_bytes;
        for (int64_t b = 0; b < blocks; b++) {
            ash_bits bits[64];
            int per_word = block_bits(w, q, order, b, bits);
            for (int i = 0; i < quants / 64 * per_word; i++) bits[i].words += g0 * ASH_GROUP * 4;
            k->pack_bits(bits, (int)(quants / 64), per_word, g1 - g0, to + b * quants, w->group_bytes);
        }
        to += blocks * quants;
        for (int64_t c = 0; c < w->cols; c += w->span, to += entry) {
            int64_t group = ash_gptq_group(q, order ? order[c] : c);
            for (int64_t g = g0; g < g1; g++) pack_scales(w, q, group, g, to + (g - g0) * w->group_bytes);
        }
    }
}

void ash_pack_gptq_decode(const ash_packed *w, const uint8_t *group, int64_t r, int64_t b, float *y)
{
    int64_t blocks = w->cols / BLOCK, quants = ash_pack_gptq_quants(w);
    const uint8_t *q = group + b * quants;
    const uint8_t *e = group + blocks * quants + b * BLOCK / w->span * ash_pack_gptq_entry(w);
    float scale;
    int zero = e[(w->wide ? 64 : 32) + r];
    if (w->wide)
        memcpy(&scale, e + r * 4, 4);
    else
        scale = ash_f16_to_f32((uint16_t)(e[r * 2] | e[r * 2 + 1] << 8));
    for (int c = 0; c < BLOCK; c++) {
        int v = w->form == ASH_FORM_U8G ? q[c / 4 * 64 + r * 4 + c % 4] : q[c % 16 / 4 * 64 + r * 4 + c % 4];
        if (w->form == ASH_FORM_U4G)
            v = c < 16 ? v & 15 : v >> 4;
        y[c] = (float)(v - zero) * scale;
    }
}
