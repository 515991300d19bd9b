/* Owns the list of tensors while files are read. Refuses names that cannot be shown and shapes that
 * overflow. One thread at a time. */
#include "format/tensor_list.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

void ash_tensor_list_release(ash_tensor_list *l)
{
    free(l->p);
    *l = (ash_tensor_list){.idx = l->idx};
}

int ash_tensor_list_add(ash_tensor_list *l, const ash_tensor *t, ash_err *err)
{
    if (l->n == ASH_MAX_TENSORS)
        return ash_err_set(err, ASH_ELIMIT, "%s: more than %u tensors", l->idx->files[t->file].path,
                           ASH_MAX_TENSORS);
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        ash_tensor *p = realloc(l->p, cap * sizeof *p);
        if (!p) return ash_err_nomem(err, "tensors");
        l->p = p;
        l->cap = cap;
    }
    l->p[l->n++] = *t;
    return 0;
}

static int by_place(const void *x, const void *y)
{
    const ash_tensor *a = x, *b = y;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

void ash_tensor_list_sort(ash_tensor_list *l, size_t first)
{
    if (l->n > first) qsort(l->p + first, l->n - first, sizeof *l->p, by_place);
}

int ash_tensor_list_finish(ash_tensor_list *l, ash_err *err)
{
    ash_tensor_index *idx = l->idx;
    idx->tensors = ash_arena_calloc(&idx->arena, l->n ? l->n : 1, sizeof *idx->tensors);
    if (!idx->tensors) return ash_err_nomem(err, "tensors");
    if (l->n) memcpy(idx->tensors, l->p, l->n * sizeof *l->p);
    idx->n_tensors = l->n;
    ash_tensor_list_release(l);
    return ash_tensor_index_seal(idx, err);
}

int ash_tensor_list_name(ash_tensor_list *l, const char *label, ash_str name, int64_t pos,
                         const char **out, ash_err *err)
{
    if (name.n > ASH_MAX_HF_NAME)
        return ash_err_at(err, ASH_ELIMIT, pos, "%s: a tensor's name has %zu bytes; at most %d",
                          label, name.n, ASH_MAX_HF_NAME);
    bool ok = name.n && ash_utf8_valid(name.p, name.n);
    for (size_t i = 0; ok && i < name.n; i++)
        ok = (unsigned char)name.p[i] >= 0x20 && name.p[i] != 0x7F;
    if (!ok)
        return ash_err_at(err, ASH_EFORMAT, pos,
                          "%s: a tensor's name is empty, not UTF-8 or holds a control character",
                          label);
    *out = ash_arena_strndup(&l->idx->arena, name.p, name.n);
    return *out ? 0 : ash_err_nomem(err, "tensors");
}

int ash_tensor_list_shape(ash_tensor *t, const char *label, const uint64_t *dims, size_t n,
                          int64_t pos, ash_err *err)
{
    uint64_t count = 1;
    if (n > ASH_MAX_DIMS)
        return ash_err_at(err, ASH_ELIMIT, pos,
                          "%s: tensor '%.200s' has %zu dimensions; at most %d", label, t->name, n,
                          ASH_MAX_DIMS);
    for (size_t i = 0; i < ASH_MAX_DIMS; i++) t->dims[i] = 1;
    t->n_dims = n ? (uint32_t)n : 1;
    for (size_t i = 0; i < n; i++) {
        if (dims[i] > INT64_MAX || (dims[i] && count > (uint64_t)INT64_MAX / dims[i]))
            return ash_err_at(err, ASH_EFORMAT, pos,
                              "%s: tensor '%.200s': dimension %zu of %" PRIu64
                              " makes it too large",
                              label, t->name, i, dims[i]);
        count *= dims[i] ? dims[i] : 1; /* a zero must not hide an overflow behind it */
        t->dims[i] = dims[i];
    }
    const ash_dtype_info *info = ash_dtype_get(t->dtype);
    if (t->dims[t->n_dims - 1] % info->block)
        return ash_err_at(err, ASH_EFORMAT, pos,
                          "%s: tensor '%.200s': rows of %" PRIu64
                          " are no multiple of %s's block of %u",
                          label, t->name, t->dims[t->n_dims - 1], info->name, info->block);
    if (!ash_dtype_bytes(t->dtype, ash_tensor_count(t), &t->bytes) || t->bytes > INT64_MAX)
        return ash_err_at(err, ASH_EFORMAT, pos, "%s: tensor '%.200s' is too large", label,
                          t->name);
    return 0;
}
