/* Owns filling the fields: places, vectors, and rows from the files to the packed form. Refuses
 * vectors with elements that are not finite. Placing: one thread; packing: any. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "arch/bind_impl.h"
#include "base/log.h"
#include "quant/decode.h"

static const char *path_of(const ash_binding *b, const ash_tensor *t)
{
    return b->index->files[t->file].path;
}

static int place_vector(const ash_binding *b, const ash_bind_item *it, float *v, ash_err *err)
{
    bool zero = true;
    const uint8_t *src = ash_tensor_rows(b->index, it->tensor, 0, 1, v);
    /* gathered rows lie where the floats go: those of narrower types are widened from the end */
    if (src == (const uint8_t *)v) {
        size_t size = ash_dtype_get(it->tensor->dtype)->block_bytes;
        for (int64_t i = it->rows; i-- > 0;) {
            uint8_t one[8];
            memcpy(one, src + (size_t)i * size, size);
            ash_quant_decode(it->tensor->dtype, one, 1, v + i);
        }
    } else {
        ash_quant_decode(it->tensor->dtype, src, it->rows, v);
    }
    for (int64_t i = 0; i < it->rows; i++) {
        if (!isfinite(v[i]))
            return ash_err_set(err, ASH_EFORMAT,
                               "%s: tensor '%s' has an element that is not finite",
                               path_of(b, it->tensor), it->tensor->name);
        zero = zero && v[i] == 0;
    }
    /* exporters of GPTQ write biases of zeros for linears that have none */
    *it->vector = it->optional && zero ? NULL : v;
    return 0;
}

/* Labels lie: where the zeros are the symmetric ones they tell the version themselves. */
static void place_gptq(const ash_binding *b, const ash_bind_item *it, bool *told)
{
    ash_gptq *g = it->gptq;
    int version = ash_gptq_version(g);
    if (version && g->v2 != (version == 2) && !*told) {
        *told = true;
        ash_warn("arch", "%s: labelled as GPTQ version %d, but the zeros of '%s' are those of version %d",
                 path_of(b, it->tensor), g->v2 ? 2 : 1, it->tensor->name, version);
    }
    if (version) g->v2 = version == 2;
    if (!it->decoded) ash_linear_order_gptq(it->matrix, g);
    ash_tensor_drop(b->index, it->zeros, 0, it->zeros->bytes);
}

/* The same of a region that holds them already. */
static int restore_item(const ash_binding *b, const ash_bind_item *it, void *place, ash_err *err)
{
    if (it->matrix) {
        ash_linear_bind(it->matrix, place);
        if (ash_linear_order_valid(it->matrix)) return 0;
        return ash_err_set(err, ASH_EFORMAT, "the order of the columns of '%s' is damaged", it->tensor->name);
    }
    const float *v = place;
    bool zero = true;
    for (int64_t i = 0; i < it->rows; i++) {
        if (!isfinite(v[i]))
            return ash_err_set(err, ASH_EFORMAT, "'%s' has an element that is not finite", it->tensor->name);
        zero = zero && v[i] == 0;
    }
    *it->vector = it->optional && zero ? NULL : v;
    return 0;
}

/* Asks for all that placing reads: small pieces all over the files. At each of them a fault would have the
 * kernel read megabytes around it, and wait for them. */
static void want_small(const ash_binding *b)
{
    for (size_t i = 0; i < b->n_items; i++) {
        const ash_bind_item *it = &b->items[i];
        if (it->vector) ash_tensor_want(b->index, it->tensor, 0, it->tensor->bytes);
        if (it->gptq) ash_tensor_want(b->index, it->zeros, 0, it->zeros->bytes);
    }
}

int ash_bind_place(const ash_binding *b, void *region, ash_err *err)
{
    bool told = false;
    if (!b->restored) want_small(b);
    for (size_t i = 0; i < b->n_items; i++) {
        const ash_bind_item *it = &b->items[i];
        void *place = (char *)region + it->offset;
        if (b->restored) {
            int rc = restore_item(b, it, place, err);
            if (rc) return rc;
            continue;
        }
        if (it->vector) {
            int rc = place_vector(b, it, place, err);
            if (rc) return rc;
            continue;
        }
        ash_linear_bind(it->matrix, place);
        if (it->gptq) place_gptq(b, it, &told);
    }
    return 0;
}

/* ---- packing -------------------------------------------------------------------------------- */

/* The next n bytes of a call's scratch. */
static void *carve(char **at, size_t n)
{
    void *p = *at;
    *at += (n + 63) / 64 * 64;
    return p;
}

/* FP8's scales as floats. */
static const float *scales_of(const ash_binding *b, const ash_bind_item *it, char **scratch)
{
    uint64_t n = ash_tensor_count(it->scales);
    float *s = carve(scratch, n * sizeof *s);
    ash_quant_decode(it->scales->dtype, ash_tensor_data(b->index, it->scales), (int64_t)n, s);
    return s;
}

/* Rows of the tensor as they are; buf is used for views with strides. */
static const uint8_t *rows_of(const ash_binding *b, const ash_bind_item *it, int64_t row, int64_t n,
                              void *buf)
{
    const ash_tensor *t = it->tensor;
    if (t->strides) return ash_tensor_rows(b->index, t, (uint64_t)row, (uint64_t)n, buf);
    return ash_tensor_data(b->index, t) + (uint64_t)row * bind_row_bytes(t);
}

/* One row of the source as floats, y [its columns]. */
static void decode_row(const ash_binding *b, const ash_bind_item *it, const float *scales,
                       int64_t row, void *buf, float *y)
{
    const ash_tensor *t = it->tensor;
    if (it->gptq) {
        ash_gptq_row(it->gptq, row, y);
        return;
    }
    int64_t n = (int64_t)t->dims[t->n_dims - 1];
    ash_quant_decode(t->dtype, rows_of(b, it, row, 1, buf), n, y);
    if (!scales) return;
    const ash_quantization *q = &b->quant;
    scales += row / q->block_out * ((n + q->block_in - 1) / q->block_in);
    for (int64_t i = 0; i < n; i++) y[i] *= scales[i / q->block_in];
}

/* All of a transposed piece: W[i][j] = source[first + j][i]. */
static void pack_transposed(const ash_binding *b, const ash_bind_item *it, const float *scales,
                            char *scratch)
{
    size_t size = it->decoded ? sizeof(float) : ash_dtype_get(it->tensor->dtype)->block_bytes;
    uint8_t *w = carve(&scratch, (size_t)(it->rows * it->cols) * sizeof(float));
    float *row = carve(&scratch, (size_t)it->rows * sizeof *row);
    for (int64_t j = 0; j < it->cols; j++) {
        const uint8_t *src = (const uint8_t *)row;
        if (it->decoded)
            decode_row(b, it, scales, it->first + j, scratch, row);
        else
            src = rows_of(b, it, it->first + j, 1, scratch);
        for (int64_t i = 0; i < it->rows; i++)
            memcpy(w + (size_t)(i * it->cols + j) * size, src + (size_t)i * size, size);
    }
    ash_linear_pack(it->matrix, w, 0, it->rows);
}

static void pack_decoded(const ash_binding *b, const ash_bind_item *it, const float *scales,
                         int64_t row, int64_t n, char *scratch)
{
    float *w = carve(&scratch, (size_t)(n * it->cols) * sizeof *w);
    for (int64_t i = 0; i < n; i++)
        decode_row(b, it, scales, it->first + row + i, scratch, w + i * it->cols);
    ash_linear_pack(it->matrix, w, row, n);
}

void ash_bind_pack(const ash_binding *b, const ash_bind_item *it, int64_t row, int64_t n,
                   void *scratch)
{
    char *at = scratch;
    const float *scales = it->scales && !it->gptq ? scales_of(b, it, &at) : NULL;
    if (it->transposed) {
        pack_transposed(b, it, scales, at);
    } else if (it->decoded) {
        pack_decoded(b, it, scales, row, n, at);
    } else if (it->gptq) {
        ash_linear_pack_gptq(it->matrix, it->gptq, row, n);
    } else if (scales) {
        const ash_quantization *q = &b->quant;
        int64_t across = (it->cols + q->block_in - 1) / q->block_in;
        ash_linear_pack_fp8(it->matrix, rows_of(b, it, it->first + row, n, at),
                            scales + it->first / q->block_out * across, row, n);
    } else {
        ash_linear_pack(it->matrix, rows_of(b, it, it->first + row, n, at), row, n);
    }
}

/* ---- what the pages are for ------------------------------------------------------------------ */

uint64_t ash_bind_source(const ash_bind_item *it, int64_t n)
{
    const ash_tensor *t = it->tensor;
    if (it->gptq)
        return (uint64_t)((double)(t->bytes + it->zeros->bytes + it->scales->bytes) /
                          (double)it->gptq->out * (double)n);
    if (it->transposed)
        return (uint64_t)it->cols * bind_row_bytes(t) / (uint64_t)it->rows * (uint64_t)n;
    return (uint64_t)n * bind_row_bytes(t);
}

typedef void advise_fn(const ash_tensor_index *idx, const ash_tensor *t, uint64_t from, uint64_t n);

static void advise(const ash_binding *b, const ash_bind_item *it, int64_t row, int64_t n,
                   advise_fn *fn)
{
    const ash_tensor *t = it->tensor;
    if (it->gptq || t->strides) {
        fn(b->index, t, 0, t->bytes);
    } else {
        uint64_t size = bind_row_bytes(t);
        int64_t first = it->first + (it->transposed ? 0 : row);
        fn(b->index, t, (uint64_t)first * size, (uint64_t)(it->transposed ? it->cols : n) * size);
    }
    if (it->zeros) fn(b->index, it->zeros, 0, it->zeros->bytes);
    if (it->scales) fn(b->index, it->scales, 0, it->scales->bytes);
}

void ash_bind_want(const ash_binding *b, const ash_bind_item *it, int64_t row, int64_t n)
{
    advise(b, it, row, n, ash_tensor_want);
}

void ash_bind_drop(const ash_binding *b, const ash_bind_item *it, int64_t row, int64_t n)
{
    advise(b, it, row, n, ash_tensor_drop);
}

/* Columns of a group. The last one may be shorter: then the settings know the size of the others. */
static int64_t group_size(const ash_binding *b, const ash_gptq *g)
{
    int64_t said = b->quant.group_size;
    if (said > 0 && (g->in + said - 1) / said == g->groups) return said;
    return (g->in + g->groups - 1) / g->groups;
}

const char *ash_bind_describe(const ash_binding *b, char out[64])
{
    uint64_t weights[ASH_DTYPE_END] = {0}, gptq = 0, most = 0;
    const ash_gptq *g = NULL;
    bool ordered = false;
    uint32_t type = 0;
    for (size_t i = 0; i < b->n_items; i++) {
        const ash_bind_item *it = &b->items[i];
        uint64_t n = it->matrix ? (uint64_t)it->rows * (uint64_t)it->cols : 0;
        if (it->gptq) {
            gptq += n;
            g = g ? g : it->gptq;
            ordered = ordered || it->gptq->group_of;
        } else {
            weights[it->tensor->dtype] += n;
        }
    }
    for (uint32_t id = 0; id < ASH_DTYPE_END; id++)
        if (weights[id] > most) {
            most = weights[id];
            type = id;
        }
    if (!g || gptq < most)
        snprintf(out, 64, "%s", type == ASH_DTYPE_F8_E4M3 ? "FP8" : ash_dtype_get(type)->name);
    else if (g->groups == 1)
        snprintf(out, 64, "GPTQ %d-bit, one group", g->bits);
    else
        snprintf(out, 64, "GPTQ %d-bit, group %lld%s", g->bits,
                 (long long)group_size(b, g), ordered ? ", act-order" : "");
    return out;
}
