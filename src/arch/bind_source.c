/* Owns finding out what a matrix is stored as. Refuses types without kernels, FP8 without its
 * scales and GPTQ whose tensors do not fit together, by name. One thread. */
#include <stdio.h>
#include <string.h>

#include "arch/bind_impl.h"
#include "base/log.h"
#include "quant/decode.h"

enum { NAME = ASH_MAX_TENSOR_NAME + 80 };

/* The types a build computes with, for messages. */
static const char *known_types(char *out, size_t n)
{
    size_t len = 0;
    out[0] = 0;
    for (uint32_t id = 0; id < ASH_DTYPE_END; id++) {
        const char *name = ash_dtype_get(id)->name;
        if (name && ash_quant_supported((ash_dtype)id) && len < n)
            len += (size_t)snprintf(out + len, n - len, "%s%s", len ? " " : "", name);
    }
    return out;
}

/* ---- FP8 ------------------------------------------------------------------------------------ */

static bool is_float(ash_dtype t)
{
    return t == ASH_DTYPE_F32 || t == ASH_DTYPE_F16 || t == ASH_DTYPE_BF16;
}

/* `scales` of W [out, in], if its type and shape are right. */
static int check_scales(const bind_plan *p, const ash_tensor *t, uint64_t rows, uint64_t cols,
                        ash_err *err)
{
    char shape[96];
    if (t->n_dims != 2 || t->dims[0] != rows || t->dims[1] != cols)
        return ash_err_set(err, ASH_EFORMAT, "%s: tensor '%s' must be [%llu, %llu], is %s",
                           bind_path(p, t), t->name, (unsigned long long)rows,
                           (unsigned long long)cols, ash_tensor_shape(t, shape));
    if (!is_float(t->dtype) || t->strides)
        return ash_err_set(err, ASH_EUNSUPPORTED,
                           "%s: tensor '%s' must be F32, F16 or BF16 row by row, is %s",
                           bind_path(p, t), t->name, ash_dtype_get(t->dtype)->name);
    return 0;
}

static int resolve_fp8(const bind_plan *p, const char *name, int64_t out, int64_t in,
                       bind_source *src, ash_err *err)
{
    const ash_quantization *q = &p->b->quant;
    const ash_tensor *t = src->tensor;
    char scale[NAME];
    snprintf(scale, sizeof scale, "%s_scale_inv", name);
    src->scales = bind_find(p, scale);
    if (src->scales && q->block_out)
        ash_tensor_declare(src->scales, (uint64_t)((out + q->block_out - 1) / q->block_out),
                           (uint64_t)((in + q->block_in - 1) / q->block_in));
    if (!src->scales)
        return ash_err_set(
            err, ASH_EUNSUPPORTED,
            "%s: tensor '%s' has type F8_E4M3, but '%s' is missing: FP8 is read with block "
            "scales only",
            bind_path(p, t), t->name, scale);
    if (!q->block_out)
        return ash_err_set(
            err, ASH_EFORMAT,
            "%s: tensor '%s' has type F8_E4M3, but config.json has no quantization_config "
            "with quant_method fp8 and weight_block_size",
            bind_path(p, t), t->name);
    if (t->strides)
        return ash_err_set(err, ASH_EUNSUPPORTED, "%s: tensor '%s' is not stored row by row",
                           bind_path(p, t), t->name);
    return check_scales(p, src->scales, (uint64_t)((out + q->block_out - 1) / q->block_out),
                        (uint64_t)((in + q->block_in - 1) / q->block_in), err);
}

int bind_resolve(bind_plan *p, const char *name, int64_t out, int64_t in, bind_source *src,
                 ash_err *err)
{
    char known[512], module[NAME], other[NAME];
    size_t n = strlen(name);
    *src = (bind_source){.tensor = bind_find(p, name)};
    if (p->c->kind != ASH_CHECKPOINT_GGUF && n > 7 && n < NAME &&
        !strcmp(name + n - 7, ".weight")) {
        snprintf(module, sizeof module, "%.*s", (int)(n - 6), name);
        snprintf(other, sizeof other, "%.*sqweight", (int)(n - 6), name);
        const ash_tensor *q = bind_find(p, other);
        if (q) return bind_resolve_gptq(p, module, q, out, in, src, err);
    }
    const ash_tensor *t = src->tensor;
    if (!t) return 0;
    ash_tensor_declare(t, (uint64_t)out, (uint64_t)in);
    if (t->dtype == ASH_DTYPE_F8_E4M3) return resolve_fp8(p, name, out, in, src, err);
    if (ash_quant_supported(t->dtype)) return 0;
    return ash_err_set(err, ASH_EUNSUPPORTED, "%s: tensor '%s' has type %s; supported here: %s",
                       bind_path(p, t), t->name, ash_dtype_get(t->dtype)->name,
                       known_types(known, sizeof known));
}

/* ---- GPTQ ----------------------------------------------------------------------------------- */

static int32_t load_i32(const uint8_t *p)
{
    return (int32_t)((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
                     (uint32_t)p[3] << 24);
}

static int check_words(const bind_plan *p, const ash_tensor *t, ash_err *err)
{
    if ((t->dtype == ASH_DTYPE_I32 || t->dtype == ASH_DTYPE_U32) && !t->strides) return 0;
    return ash_err_set(err, ASH_EUNSUPPORTED, "%s: tensor '%s' must be I32 row by row, is %s",
                       bind_path(p, t), t->name, ash_dtype_get(t->dtype)->name);
}

/* Bits and groups from the shapes, which are decisive. */
static int read_shapes(const bind_plan *p, const bind_source *src, ash_gptq *g, ash_err *err)
{
    const ash_tensor *q = src->tensor, *z = src->zeros;
    char shape[96];
    uint64_t rows = q->n_dims == 2 ? q->dims[0] : 0, cols = q->n_dims == 2 ? q->dims[1] : 0;
    uint64_t in = (uint64_t)g->in, out = (uint64_t)g->out;
    bool whole = rows && rows <= in && rows * 32 % in == 0 && in % 32 == 0 && out % 32 == 0;
    g->bits = whole && cols == out ? (int)(rows * 32 / in) : 0;
    if (g->bits != 2 && g->bits != 3 && g->bits != 4 && g->bits != 8) {
        bool awq = rows == in && cols && cols < out && out % cols == 0;
        return ash_err_set(
            err, awq ? ASH_EUNSUPPORTED : ASH_EFORMAT,
            "%s: tensor '%s' must be [%lld * bits / 32, %lld] with 2, 3, 4 or 8 bits, is %s%s",
            bind_path(p, q), q->name, (long long)in, (long long)out, ash_tensor_shape(q, shape),
            awq ? " (AWQ packs so: take the GPTQ or GGUF conversion of this model)" : "");
    }
    uint64_t words = out * (uint64_t)g->bits / 32, groups = z->n_dims == 2 ? z->dims[0] : 0;
    if (!groups || groups > in || z->dims[1] != words)
        return ash_err_set(err, ASH_EFORMAT,
                           "%s: tensor '%s' must be [1 to %lld groups, %llu], is %s",
                           bind_path(p, z), z->name, (long long)in, (unsigned long long)words,
                           ash_tensor_shape(z, shape));
    g->groups = (int64_t)groups;
    g->scale_type = src->scales->dtype;
    return check_scales(p, src->scales, groups, out, err);
}

/* Columns of a group, where they follow each other; 0 if that cannot be told. */
static int64_t group_size(const bind_plan *p, const ash_gptq *g)
{
    int64_t said = p->b->quant.group_size;
    if (g->in % g->groups == 0) return g->in / g->groups;
    return said > 0 && (g->in + said - 1) / said == g->groups ? said : 0;
}

/* g->group_of: NULL where the groups follow each other and are of one size. */
static int read_order(const bind_plan *p, const ash_tensor *t, ash_gptq *g, ash_err *err)
{
    int64_t size = group_size(p, g);
    char shape[96];
    const uint8_t *data = NULL;
    bool zero = true, plain = size > 0;
    if (t) {
        int rc = check_words(p, t, err);
        if (rc) return rc;
        if (t->n_dims != 1 || t->dims[0] != (uint64_t)g->in)
            return ash_err_set(err, ASH_EFORMAT, "%s: tensor '%s' must be [%lld], is %s",
                               bind_path(p, t), t->name, (long long)g->in,
                               ash_tensor_shape(t, shape));
        data = ash_tensor_data(p->b->index, t);
    }
    for (int64_t i = 0; data && i < g->in; i++) {
        int32_t v = load_i32(data + i * 4);
        if (v < 0 || v >= g->groups)
            return ash_err_set(err, ASH_EFORMAT,
                               "%s: tensor '%s': element %lld must be a group from 0 to "
                               "%lld, is %ld",
                               bind_path(p, t), t->name, (long long)i, (long long)g->groups - 1,
                               (long)v);
        zero = zero && v == 0;
        plain = plain && v == i / size;
    }
    if (data && zero) /* how some exports write "in order" */
        data = NULL;
    if (!data && !size)
        return ash_err_set(err, ASH_EFORMAT,
                           "%s: tensor '%s': %lld columns in %lld groups, and no settings "
                           "that tell the groups' size",
                           bind_path(p, t), t ? t->name : "g_idx", (long long)g->in,
                           (long long)g->groups);
    if ((!data || plain) && g->in % g->groups == 0) return 0;
    int32_t *of = ash_arena_alloc(&p->b->arena, (size_t)g->in * sizeof *of);
    if (!of) return ash_err_nomem(err, "order of columns");
    for (int64_t i = 0; i < g->in; i++) of[i] = data ? load_i32(data + i * 4) : (int32_t)(i / size);
    g->group_of = of;
    return 0;
}

/* Tells once when the settings say something else than the shapes, which are followed. Settings
 * with exceptions for some modules ("dynamic") may. */
static void compare_settings(bind_plan *p, const bind_source *src)
{
    const ash_quantization *q = &p->b->quant;
    const ash_gptq *g = src->gptq;
    int64_t size = q->group_size > 0 ? q->group_size : g->in;
    bool bits = q->bits && q->bits != g->bits;
    bool groups = q->group_size && (g->in + size - 1) / size != g->groups;
    if (p->told || !(bits || groups) || json_object_size(json_object_get(p->c->quant, "dynamic")))
        return;
    p->told = true;
    ash_warn("arch",
             "%s: says GPTQ of %d bits in groups of %lld, but tensor '%s' has %d bits and %lld "
             "groups of %lld columns: the tensors are followed",
             p->c->quant_from, q->bits, (long long)q->group_size, src->tensor->name, g->bits,
             (long long)g->groups, (long long)g->in);
}

/* Shapes of tensors whose files are not there, as the settings say. */
static void declare_gptq(const bind_plan *p, const ash_tensor *const found[3], const ash_tensor *q,
                         int64_t out, int64_t in)
{
    const ash_quantization *s = &p->b->quant;
    int64_t groups = s->group_size > 0 ? (in + s->group_size - 1) / s->group_size : 1;
    uint64_t bits = (uint64_t)s->bits;
    ash_tensor_declare(q, (uint64_t)in * bits / 32, (uint64_t)out);
    ash_tensor_declare(found[0], (uint64_t)groups, (uint64_t)out * bits / 32);
    ash_tensor_declare(found[1], (uint64_t)groups, (uint64_t)out);
    if (found[2]) ash_tensor_declare(found[2], (uint64_t)in, 0);
}

int bind_resolve_gptq(bind_plan *p, const char *module, const ash_tensor *q, int64_t out,
                      int64_t in, bind_source *src, ash_err *err)
{
    static const char *const parts[] = {"qzeros", "scales", "g_idx"};
    const ash_tensor *found[3];
    char name[NAME + 16];
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s%s", module, parts[i]);
        found[i] = bind_find(p, name);
        if (!found[i] && i < 2)
            return ash_err_set(err, ASH_EFORMAT, "%s: tensor '%s' is missing beside '%s'",
                               bind_path(p, q), name, q->name);
    }
    declare_gptq(p, found, q, out, in);
    ash_gptq *g = ash_arena_calloc(&p->b->arena, 1, sizeof *g);
    if (!g) return ash_err_nomem(err, "GPTQ matrix");
    *src = (bind_source){.tensor = q, .zeros = found[0], .scales = found[1], .gptq = g};
    *g = (ash_gptq){.in = in, .out = out, .v2 = p->b->quant.v2};
    int rc;
    if ((rc = check_words(p, q, err)) || (rc = check_words(p, src->zeros, err)) ||
        (rc = read_shapes(p, src, g, err)) || (rc = read_order(p, found[2], g, err)))
        return rc;
    g->qweight = ash_tensor_data(p->b->index, q);
    g->qzeros = ash_tensor_data(p->b->index, src->zeros);
    g->scales = ash_tensor_data(p->b->index, src->scales);
    compare_settings(p, src);
    return 0;
}
