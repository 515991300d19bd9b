/* Where files meet maths: the one table-driven step from a checkpoint's named tensors to the fields
 * an architecture computes with.
 *
 * An architecture lists rules: name, shape, whether it may be absent, and the field. Planning checks
 * every tensor against them before any memory is taken; placing gives each a piece of one region and
 * reads the vectors; packing fills the matrices, row by row from any thread. A tensor that no rule
 * names is reported and ignored. */
#ifndef ASHLEY_ARCH_BIND_H
#define ASHLEY_ARCH_BIND_H

#include "format/tensor_index.h"
#include "nn/linear.h"

/* The sizes that shapes are written in. */
typedef enum ash_dim {
    ASH_DIM_NONE,
    ASH_DIM_VOCAB,
    ASH_DIM_EMBD,
    ASH_DIM_Q,    /* heads * k_dim */
    ASH_DIM_K,    /* kv_heads * k_dim */
    ASH_DIM_V,    /* kv_heads * v_dim */
    ASH_DIM_ATTN, /* heads * v_dim */
    ASH_DIM_FF,
    ASH_DIM_FREQ, /* rope dims / 2 */
    ASH_DIM_COUNT,
} ash_dim;

typedef enum ash_bind_kind {
    ASH_BIND_MATRIX, /* field: ash_linear, W [out, in], any type with kernels */
    ASH_BIND_VECTOR, /* field: const float *, [out]; F32, F16 or BF16 in the file */
} ash_bind_kind;

typedef struct ash_bind_rule {
    const char *name; /* with "%u" for the layer: then the field is the layer's, else the model's */
    ash_bind_kind kind;
    bool optional;
    ash_dim out, in; /* in: ASH_DIM_NONE for vectors */
    size_t field;    /* offsetof; an optional field that is absent stays zero */
} ash_bind_rule;

/* What rules apply to. */
typedef struct ash_bind_target {
    const ash_bind_rule *rules;
    size_t n_rules;
    int64_t dims[ASH_DIM_COUNT];
    void *model;       /* base of the fields of rules without a layer */
    void *layers;      /* [n_layers] of layer_size bytes */
    size_t layer_size;
    int64_t n_layers;
} ash_bind_target;

typedef struct ash_bind_item {
    const ash_tensor *tensor; /* borrowed */
    ash_linear *matrix;       /* one of the two */
    const float **vector;
    uint64_t offset, bytes; /* in the region; offset is a multiple of 64 */
} ash_bind_item;

typedef struct ash_binding {
    const ash_tensor_index *index; /* borrowed; needed until all is packed */
    ash_bind_item *items;          /* in the files' order; in the arena */
    size_t n_items;
    uint64_t bytes;    /* of the region */
    uint64_t n_params; /* elements of all items */
    int64_t max_in;    /* columns of the widest matrix */
} ash_binding;

/* Checks the index against the rules and plans the region. Fields in `t` are zeroed, matrices planned.
 * ASH_EFORMAT: "PATH: tensor 'NAME' must be [576, 1536] (embedding, feed-forward), is [...]", missing
 * tensors likewise; ASH_EUNSUPPORTED for a type without kernels, with those there are; ASH_ENOMEM. */
int ash_bind_plan(const ash_bind_target *t, const ash_tensor_index *index, ash_arena *arena,
                  ash_binding *out, ash_err *err) ASH_MUST_CHECK;
/* Gives every field its place in region (b->bytes, 64-byte aligned, zeroed) and reads the vectors.
 * ASH_EFORMAT for a vector with an element that is not finite. */
int ash_bind_place(const ash_binding *b, void *region, ash_err *err) ASH_MUST_CHECK;
/* Packs rows [row, row + n) of a placed matrix item from the file's map. Any thread. */
void ash_bind_pack(const ash_binding *b, const ash_bind_item *item, int64_t row, int64_t n);

#endif
