/* Owns the checks between a tensor index and an architecture's rules. Refuses missing tensors, wrong
 * shapes and types without kernels, by name. Planning and placing: one thread; packing: any. */
#include "arch/bind.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "quant/decode.h"

static const char *const dim_names[ASH_DIM_COUNT] = {
    [ASH_DIM_VOCAB] = "vocabulary",
    [ASH_DIM_EMBD] = "embedding",
    [ASH_DIM_Q] = "heads * key length",
    [ASH_DIM_K] = "kv heads * key length",
    [ASH_DIM_V] = "kv heads * value length",
    [ASH_DIM_ATTN] = "heads * value length",
    [ASH_DIM_FF] = "feed-forward",
    [ASH_DIM_FREQ] = "rope dimensions / 2",
};

static const char *path_of(const ash_tensor_index *index, const ash_tensor *t)
{
    return index->n_files ? index->files[t ? t->file : 0].path : "checkpoint";
}

/* The types a build computes with, for messages. */
static const char *known_types(char *out, size_t n)
{
    size_t len = 0;
    out[0] = 0;
    for (uint32_t id = 0; id < 64; id++) {
        const char *name = ash_dtype_get(id)->name;
        if (name && ash_quant_supported((ash_dtype)id) && len < n)
            len += (size_t)snprintf(out + len, n - len, "%s%s", len ? " " : "", name);
    }
    return out;
}

static int check_shape(const ash_bind_target *t, const ash_bind_rule *r, const ash_tensor_index *index,
                       const ash_tensor *tensor, ash_err *err)
{
    uint64_t out = (uint64_t)t->dims[r->out], in = (uint64_t)t->dims[r->in];
    char shape[96];
    if (r->kind == ASH_BIND_VECTOR) {
        if (tensor->n_dims == 1 && tensor->dims[0] == out)
            return 0;
        return ash_err_set(err, ASH_EFORMAT, "%s: tensor '%s' must be [%llu] (%s), is %s",
                           path_of(index, tensor), tensor->name, (unsigned long long)out,
                           dim_names[r->out], ash_tensor_shape(tensor, shape));
    }
    if (tensor->n_dims == 2 && tensor->dims[0] == out && tensor->dims[1] == in)
        return 0;
    return ash_err_set(err, ASH_EFORMAT, "%s: tensor '%s' must be [%llu, %llu] (%s, %s), is %s",
                       path_of(index, tensor), tensor->name, (unsigned long long)out,
                       (unsigned long long)in, dim_names[r->out], dim_names[r->in],
                       ash_tensor_shape(tensor, shape));
}

static int check_type(const ash_bind_rule *r, const ash_tensor_index *index, const ash_tensor *t,
                      ash_err *err)
{
    char known[128];
    bool plain = t->dtype == ASH_DTYPE_F32 || t->dtype == ASH_DTYPE_F16 || t->dtype == ASH_DTYPE_BF16;
    if (r->kind == ASH_BIND_VECTOR ? plain : ash_quant_supported(t->dtype))
        return 0;
    return ash_err_set(err, ASH_EUNSUPPORTED, "%s: tensor '%s' has type %s; supported here: %s",
                       path_of(index, t), t->name, ash_dtype_get(t->dtype)->name,
                       r->kind == ASH_BIND_VECTOR ? "F32 F16 BF16" : known_types(known, sizeof known));
}

/* Checks one tensor against its rule and adds it to the binding; its bytes, not yet its offset. */
static int add_item(const ash_bind_target *t, const ash_bind_rule *r, const ash_tensor *tensor,
                    void *field, ash_binding *b, ash_err *err)
{
    int rc;
    if ((rc = check_shape(t, r, b->index, tensor, err)) || (rc = check_type(r, b->index, tensor, err)))
        return rc;
    ash_bind_item *item = &b->items[b->n_items];
    *item = (ash_bind_item){.tensor = tensor};
    if (r->kind == ASH_BIND_VECTOR) {
        item->vector = field;
        item->bytes = (tensor->dims[0] * sizeof(float) + 63) / 64 * 64;
    } else {
        item->matrix = field;
        rc = ash_linear_plan(field, tensor->dtype, t->dims[r->out], t->dims[r->in], &item->bytes, err);
        if (rc)
            return ash_err_prefix(err, "%s: tensor '%s'", path_of(b->index, tensor), tensor->name);
        if (t->dims[r->in] > b->max_in)
            b->max_in = t->dims[r->in];
    }
    b->n_items++;
    b->n_params += ash_tensor_count(tensor);
    return 0;
}

static int apply_rule(const ash_bind_target *t, const ash_bind_rule *r, uint32_t layer, char *base,
                      ash_binding *b, ash_err *err)
{
    char name[ASH_MAX_TENSOR_NAME + 16];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(name, sizeof name, r->name, layer); /* rules are constants of this program */
#pragma GCC diagnostic pop
    const ash_tensor *tensor = ash_tensor_find(b->index, name);
    if (tensor)
        return add_item(t, r, tensor, base + r->field, b, err);
    if (r->optional)
        return 0;
    return ash_err_set(err, ASH_EFORMAT, "%s: tensor '%s' is missing", path_of(b->index, NULL), name);
}

static int by_place(const void *x, const void *y)
{
    const ash_tensor *a = ((const ash_bind_item *)x)->tensor, *b = ((const ash_bind_item *)y)->tensor;
    if (a->file != b->file)
        return a->file < b->file ? -1 : 1;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

/* Rotation tables that old converters wrote; recomputed here. */
static bool is_redundant(const char *name)
{
    return strstr(name, "rotary_emb.inv_freq") || strstr(name, "attn_rot_embd");
}

/* Tensors that no rule took: told, as they may be a sign of a newer variant, but no reason to refuse. */
static void warn_leftover(const ash_binding *b)
{
    size_t left = 0;
    const char *first = NULL;
    for (size_t i = 0; i < b->index->n_tensors; i++) {
        const ash_tensor *t = &b->index->tensors[i];
        bool taken = false;
        /* items are sorted by place as the index is, but a reader may order its tensors otherwise */
        for (size_t lo = 0, hi = b->n_items; lo < hi && !taken;) {
            size_t mid = lo + (hi - lo) / 2;
            ash_bind_item probe = {.tensor = t};
            int order = by_place(&probe, &b->items[mid]);
            taken = order == 0;
            if (order < 0)
                hi = mid;
            else
                lo = mid + 1;
        }
        if (taken || is_redundant(t->name))
            continue;
        if (!left++)
            first = t->name;
    }
    if (left)
        ash_warn("arch", "%s: %zu tensors are not used, the first is '%s'", path_of(b->index, NULL),
                 left, first);
}

int ash_bind_plan(const ash_bind_target *t, const ash_tensor_index *index, ash_arena *arena,
                  ash_binding *out, ash_err *err)
{
    size_t most = 0;
    for (size_t i = 0; i < t->n_rules; i++)
        most += strstr(t->rules[i].name, "%u") ? (size_t)t->n_layers : 1;
    *out = (ash_binding){.index = index};
    out->items = ash_arena_calloc(arena, most, sizeof *out->items);
    if (!out->items)
        return ash_err_nomem(err, "tensor table");
    for (size_t i = 0; i < t->n_rules; i++) {
        const ash_bind_rule *r = &t->rules[i];
        int64_t times = strstr(r->name, "%u") ? t->n_layers : 0;
        int rc = times ? 0 : apply_rule(t, r, 0, t->model, out, err);
        for (int64_t layer = 0; layer < times && !rc; layer++)
            rc = apply_rule(t, r, (uint32_t)layer, (char *)t->layers + (size_t)layer * t->layer_size,
                            out, err);
        if (rc)
            return rc;
    }
    qsort(out->items, out->n_items, sizeof *out->items, by_place);
    for (size_t i = 0; i < out->n_items; i++) {
        out->items[i].offset = out->bytes;
        if (out->items[i].bytes > (uint64_t)INT64_MAX - out->bytes)
            return ash_err_set(err, ASH_EFORMAT, "%s: weights of more than 2^63 bytes",
                               path_of(index, NULL));
        out->bytes += out->items[i].bytes;
    }
    warn_leftover(out);
    return 0;
}

int ash_bind_place(const ash_binding *b, void *region, ash_err *err)
{
    for (size_t i = 0; i < b->n_items; i++) {
        const ash_bind_item *item = &b->items[i];
        void *place = (char *)region + item->offset;
        if (item->matrix) {
            ash_linear_bind(item->matrix, place);
            continue;
        }
        float *v = place;
        uint64_t n = item->tensor->dims[0];
        ash_quant_decode(item->tensor->dtype, ash_tensor_data(b->index, item->tensor), (int64_t)n, v);
        for (uint64_t j = 0; j < n; j++)
            if (!isfinite(v[j]))
                return ash_err_set(err, ASH_EFORMAT, "%s: tensor '%s' has an element that is not finite",
                                   path_of(b->index, item->tensor), item->tensor->name);
        *item->vector = v;
    }
    return 0;
}

void ash_bind_pack(const ash_binding *b, const ash_bind_item *item, int64_t row, int64_t n)
{
    const uint8_t *src = ash_tensor_data(b->index, item->tensor);
    uint64_t row_bytes = item->tensor->bytes / item->tensor->dims[0];
    ash_linear_pack(item->matrix, src + (uint64_t)row * row_bytes, row, n);
}
