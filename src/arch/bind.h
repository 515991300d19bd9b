/* Where files meet maths: the one table-driven step from a checkpoint's named tensors to the fields
 * an architecture computes with.
 *
 * An architecture lists rules: a tensor's name in GGUF and in Hugging Face's files, shape, whether it
 * may be absent, and the field. Planning checks every tensor against them before any memory is taken;
 * placing gives each a piece of one region and reads the vectors; packing fills the matrices, row by row
 * from any thread. What a matrix is stored as is found here too: rows of any type, FP8 with block
 * scales ("X.weight_scale_inv", maybe in another shard), GPTQ ("X.qweight" and its kin instead of
 * "X.weight"). A tensor that no rule names is reported and ignored, and so are the layers after the last
 * (DeepSeek's prediction layer). */
#ifndef ASHLEY_ARCH_BIND_H
#define ASHLEY_ARCH_BIND_H

#include "arch/quantization.h"
#include "format/checkpoint.h"
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
    ASH_DIM_HEAD, /* k_dim */
    /* mixtures of experts */
    ASH_DIM_EXPERTS,
    ASH_DIM_EXPERT_FF,
    ASH_DIM_SHARED_FF, /* of all shared experts together */
    /* latent attention */
    ASH_DIM_HEADS,
    ASH_DIM_NOPE,    /* of a head's query and key, without rope */
    ASH_DIM_HEAD_V,  /* of a head's value */
    ASH_DIM_Q_LORA,
    ASH_DIM_KV_LORA,
    ASH_DIM_KV_A,    /* KV_LORA + rope dims */
    ASH_DIM_COUNT,
} ash_dim;

typedef enum ash_bind_kind {
    ASH_BIND_MATRIX,     /* field: ash_linear, W [out, in], any type with kernels */
    ASH_BIND_MATRIX_F32, /* the same, decoded to floats whatever the file's type (routers) */
    ASH_BIND_VECTOR,     /* field: const float *, [out]; F32, F16 or BF16 in the file */
    /* field: ash_linear *, [count] matrices W [out, in]. The tensor is [count, out, in], or
     * [count * out, in]; or one tensor each, if the name has a second "%u" */
    ASH_BIND_STACK,
    /* field: ash_linear *, [HEADS], cut from DeepSeek's kv_b [HEADS * (NOPE + HEAD_V), KV_LORA], in
     * which the rows of a head's key come before those of its value */
    ASH_BIND_HEADS_K, /* W [KV_LORA, NOPE]: the key's part transposed */
    ASH_BIND_HEADS_V, /* W [HEAD_V, KV_LORA] */
} ash_bind_kind;

typedef enum ash_bind_need {
    ASH_REQUIRED,
    ASH_OPTIONAL, /* an absent field stays zero; a vector of zeros is dropped, as if it were absent */
    ASH_ELSE,     /* another form of the rule before, taken if that one is absent; the last of such a row
                     is required */
} ash_bind_need;

/* Conditions of rules. Those from ASH_IF_OWN on are the architecture's to give meaning (ash_bind_target
 * lists which hold). */
enum {
    ASH_IF_DENSE = 1,   /* layers below n_dense */
    ASH_IF_EXPERTS = 2, /* the others */
    ASH_IF_OWN = 4,
};

typedef struct ash_bind_rule {
    const char *gguf, *hf; /* NULL: not in such files. With "%u" for the layer: then the field is the
                              layer's, else the model's. HF names also match without "model." */
    ash_bind_kind kind;
    ash_bind_need need;
    ash_dim out, in;       /* in: ASH_DIM_NONE for vectors */
    size_t field;          /* offsetof */
    unsigned when;         /* all of these must hold for the rule to apply; 0: always */
    ash_dim count;         /* of ASH_BIND_STACK */
    unsigned must;         /* an optional rule is required where all of these hold; 0: nowhere */
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
    int64_t n_dense;   /* leading layers without experts */
    int64_t n_used;    /* routed experts that a token goes through */
    unsigned when;     /* the architecture's conditions that hold */
} ash_bind_target;

/* One vector or one matrix: a whole tensor or a part of one. */
typedef struct ash_bind_item {
    const ash_tensor *tensor; /* borrowed; GPTQ: its qweight */
    const ash_tensor *scales; /* FP8's or GPTQ's, or NULL */
    const ash_tensor *zeros;  /* GPTQ's, or NULL */
    ash_gptq *gptq;           /* or NULL */
    ash_linear *matrix;       /* one of the two */
    const float **vector;
    int64_t rows, cols;       /* of W; a vector has one column */
    int64_t first;            /* of the tensor's rows that are W, or its columns if transposed */
    int64_t step;             /* rows to pack in one call at best: a multiple of ASH_GROUP, or all */
    bool transposed;
    bool decoded;             /* to floats, and packed as such */
    bool optional;
    bool apart;               /* begins on a page of its own */
    int32_t layer, expert;    /* a routed expert's: its layer, its number from 1; else expert is 0 */
    uint64_t offset, bytes;   /* in the region; offset is a multiple of 64 */
} ash_bind_item;

typedef struct ash_binding {
    const ash_tensor_index *index; /* borrowed; needed until all is packed */
    ash_quantization quant;
    ash_bind_item *items;          /* in the files' order */
    size_t n_items;
    uint64_t bytes;    /* of the region */
    uint64_t n_params; /* elements of all items */
    uint64_t token_params; /* of those, what every token of a prompt is multiplied with: not the
                              vocabulary's matrices, and of routed experts as many as it goes through */
    uint64_t step_bytes;   /* of the region, what decoding one token reads: not the embedding beside a head
                              of its own, and of routed experts as many as it goes through */
    uint64_t step_expert_bytes; /* of those, of routed experts */
    uint64_t head_bytes;   /* of the matrix that gives the logits */
    int64_t max_in;    /* columns of the widest matrix */
    bool restored;     /* the region holds all that placing and packing write, of the same plan (a pack file):
                          nothing is read from the files or written. The caller's to set before binding */
    size_t scratch;    /* bytes a call of ash_bind_pack works in */
    ash_arena arena;   /* owns the items and what they point at */
} ash_binding;

/* Checks the tensors against the rules and plans the region. Fields in `t` are zeroed, matrices planned;
 * arrays of matrices are the arena's. *out is released by ash_bind_release, on failure already.
 * Reads no weights but GPTQ's order of columns. ASH_EFORMAT: "PATH: tensor 'NAME' must be [576, 1536]
 * (embedding, feed-forward), is [...]", missing tensors likewise; ASH_EUNSUPPORTED for a type without
 * kernels, with those there are, and for a way of quantisation that is not known; ASH_ENOMEM. */
int ash_bind_plan(const ash_bind_target *t, const ash_checkpoint *c, ash_arena *arena, ash_binding *out,
                  ash_err *err) ASH_MUST_CHECK;
/* Gives every field its place in region (b->bytes, 64-byte aligned, zeroed) and reads the vectors.
 * ASH_EFORMAT for a vector with an element that is not finite. Of a restored region orders of columns are
 * checked too: ASH_EFORMAT for one that points outside; it may be placed again, elsewhere, after that. */
int ash_bind_place(const ash_binding *b, void *region, ash_err *err) ASH_MUST_CHECK;
/* Frees the items, when all is packed or given up; what else is in b stays. Safe twice. */
void ash_bind_release(ash_binding *b);
/* Packs rows [row, row + n) of a placed matrix item from the file's map; row is a multiple of the item's
 * step and n is the step or the rest, except that tensors as they are take any. scratch: b->scratch
 * bytes of this thread's, 64-byte aligned. Any thread. */
void ash_bind_pack(const ash_binding *b, const ash_bind_item *item, int64_t row, int64_t n, void *scratch);

/* Bytes of the files that n rows of an item are packed from. */
uint64_t ash_bind_source(const ash_bind_item *item, int64_t n);
/* Advice as ash_tensor_want and ash_tensor_drop for the source of rows [row, row + n). The rows of GPTQ's
 * matrices lie across the whole tensor, which is wanted and dropped as one: call drop after several
 * rows, not after each. */
void ash_bind_want(const ash_binding *b, const ash_bind_item *item, int64_t row, int64_t n);
void ash_bind_drop(const ash_binding *b, const ash_bind_item *item, int64_t row, int64_t n);

/* How most weights are stored: "Q4_1", "BF16", "FP8", "GPTQ 4-bit, group 128, act-order";
 * returns out. */
const char *ash_bind_describe(const ash_binding *b, char out[64]);

#endif
