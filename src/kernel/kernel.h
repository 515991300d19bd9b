/* One table of function pointers per instruction set: all the arithmetic of a model.
 *
 * Kernels allocate nothing, lock nothing, know no thread and no model. Every table is complete; the
 * scalar one is the float reference: weights widened to float, activations float. The others turn
 * activations into int8 or bfloat16 first and stay within the bounds of tests/unit/kernel. Within one
 * table a row's result depends on that row alone: bit for bit the same whatever else is in the batch,
 * so that a text does not change with the company it is computed in.
 *
 * Sizes are elements, arrays float unless said; pointers do not alias unless said, and need no
 * alignment beyond their type's but for packed weights and KV blocks (64 bytes). */
#ifndef ASHLEY_KERNEL_KERNEL_H
#define ASHLEY_KERNEL_KERNEL_H

#include "base/cpu.h"
#include "kernel/pack.h"

/* What a matmul wants its activations as. */
typedef enum ash_act_form {
    ASH_ACT_F32,  /* x */
    ASH_ACT_BF16, /* h */
    ASH_ACT_I8,   /* q, d, ds, ns */
    ASH_ACT_COUNT,
} ash_act_form;

/* n rows of activations: rows of x begin every `ldx` elements, of h and q every `ld`, of d, ds and ns
 * every ld / 32 (hs too); ld is a multiple of 64. */
typedef struct ash_act {
    int64_t n, cols, ldx, ld;
    const float *x;
    uint16_t *h; /* bfloat16, zero from cols up to a multiple of 32 */
    int8_t *q;   /* x = d q in blocks of 32, q in -127..127 */
    float *d;
    float *ds;   /* d times the block's sum of q */
    int32_t *ns; /* minus the block's sum of q */
    uint32_t *hs; /* minus the sums of its first and its last 16, 16 bits each, the first lower: for
                     ASH_FORM_RAW on a table that has half_sums */
} ash_act;

/* y[i * ldy + r] = sum over k of W[r, k] x[i, k], for rows r of groups [g0, g1) that exist and all i.
 * scratch: ash_kernel_scratch() bytes of the calling thread's own. */
typedef void (*ash_matmul_fn)(const ash_packed *w, const ash_act *a, int64_t g0, int64_t g1, float *y,
                              int64_t ldy, void *scratch);

enum {
    ASH_KV_TOKENS = 32,  /* tokens of a KV block */
    ASH_SPAN_BLOCKS = 4, /* blocks that attention takes in one step */
    ASH_SPAN = ASH_KV_TOKENS * ASH_SPAN_BLOCKS,
    ASH_TILE = 96, /* most query vectors of one attention step */
};

/* Elements of a KV block. */
typedef enum ash_kv_type {
    ASH_KV_F16, /* every table's */
    ASH_KV_F32, /* the scalar one's too */
    ASH_KV_Q8,  /* every table's, where V is no part of K */
} ash_kv_type;

/* Of a head's K or V of 32 tokens, ASH_KV_Q8 keeps q = round(x / d) in -127..127 with d = max |x| / 127 over
 * the components of a token; NaN as d, and zeros, if one is not finite. K is q + 128 as bytes [k_dim / 4, up]
 * [32 tokens][4], V is q as [8][v_dim][4 tokens]: what vpdpbusd takes at once. Both take `dim`, rounded up
 * to 4, times 32 bytes; behind them is d [32], float. */
static inline int64_t ash_kv_q8_bytes(int dim)
{
    return (int64_t)(dim + 3) / 4 * 4 * ASH_KV_TOKENS;
}

static inline const float *ash_kv_steps(const void *head, int dim)
{
    return (const float *)((const uint8_t *)head + ash_kv_q8_bytes(dim));
}

/* Bytes of one head's K or V of a block. */
static inline int64_t ash_kv_part_bytes(ash_kv_type type, int dim)
{
    if (type == ASH_KV_Q8)
        return ash_kv_q8_bytes(dim) + ASH_KV_TOKENS * (int64_t)sizeof(float);
    return (int64_t)dim * ASH_KV_TOKENS * (type == ASH_KV_F32 ? 4 : 2);
}

/* Up to ASH_TILE query vectors of one KV head against up to ASH_SPAN tokens of one sequence.
 * K of a block is [k_dim][32 tokens], V is [32 tokens][v_dim], but for ASH_KV_Q8. Where v is NULL beside
 * a k, V is the first v_dim components of K (a latent of which keys and values are made: MLA), in all
 * blocks alike.
 * Query vector i sees the tokens [lo[i], hi[i]) of the span (empty if hi <= lo), others may hold
 * anything, NaN too. The state of a query vector (max, sum, acc) starts as (-INFINITY, 0, zeros);
 * out = acc / sum in the end. */
typedef struct ash_attn_span {
    ash_kv_type type;
    int m, k_dim, v_dim;
    float scale;                     /* of the scores */
    const float *q[ASH_TILE];        /* [k_dim] each */
    int lo[ASH_TILE], hi[ASH_TILE];
    float *max[ASH_TILE], *sum[ASH_TILE];
    float *acc[ASH_TILE];            /* [v_dim] each */
    const void *k[ASH_SPAN_BLOCKS], *v[ASH_SPAN_BLOCKS]; /* both NULL past the last token wanted */
    const void *next;                /* K of the block after these, to be fetched ahead, or NULL */
    float *p;                        /* scratch [m][ASH_SPAN] */
} ash_attn_span;

/* The tokens [*t0, *t1) that any of the query vectors [i, i + n) sees; false if there are none. */
static inline bool ash_span_seen(const ash_attn_span *s, int i, int n, int *t0, int *t1)
{
    *t0 = ASH_SPAN;
    *t1 = 0;
    for (int end = i + n; i < end; i++) {
        if (s->hi[i] <= s->lo[i])
            continue;
        *t0 = s->lo[i] < *t0 ? s->lo[i] : *t0;
        *t1 = s->hi[i] > *t1 ? s->hi[i] : *t1;
    }
    return *t0 < *t1;
}

/* What a word of packed quants has of one input of 16 outputs: bits of the 16 words at `words`. */
typedef struct ash_bits {
    const uint8_t *words; /* any alignment */
    uint32_t rotate;      /* to the left */
    uint32_t mask;        /* of what is kept after */
} ash_bits;

typedef struct ash_kernel {
    const char *name; /* "avx512+bf16" */
    ash_cpu_level level;
    ash_act_form act[ASH_FORM_COUNT]; /* what matmul[form] reads */
    ash_matmul_fn matmul[ASH_FORM_COUNT];
    /* Of the forms whose act is ASH_ACT_BF16, one that reads ASH_ACT_F32: where rounded activations would
     * not do. NULL of the others. */
    ash_matmul_fn fine[ASH_FORM_COUNT];
    ash_kv_type kv; /* what a KV pool for this table should hold */
    /* One row of activations, n = cols, to int8 (n % 32 == 0; d, ds, ns are [n / 32]) or to bfloat16
     * (h [n rounded up to 32]). A block with an infinity or NaN gives d = NaN and q = 0. */
    void (*quantise)(const float *x, int64_t n, int8_t *q, float *d, float *ds, int32_t *ns);
    /* hs [n / 32] of the q of a row, n % 32 == 0. NULL: no matmul of the table reads hs. */
    void (*half_sums)(const int8_t *q, int64_t n, uint32_t *hs);
    void (*to_bf16)(const float *x, int64_t n, uint16_t *h);
    void (*to_f16)(const float *x, int64_t n, uint16_t *h);
    /* Word r of row p of 64 bytes of group g, at to + g * stride: the `or` over j < per_word (4, 8 or 16) of
     * bits[p * per_word + j], applied to word r of its `words` + 64 g. to is 64-byte aligned, stride a
     * multiple of 64. */
    void (*pack_bits)(const ash_bits *bits, int n_words, int per_word, int64_t groups, uint8_t *to,
                      int64_t stride);
    /* y = x / sqrt(mean(x x) + eps) * w; y may be x. */
    void (*rms_norm)(float *y, const float *x, const float *w, int64_t n, float eps);
    void (*add)(float *x, const float *d, int64_t n);      /* x += d */
    void (*silu_mul)(float *g, const float *u, int64_t n); /* g = g / (1 + exp(-g)) * u */
    /* Rotates n pairs by the angles whose cosines are c [n] and sines s [n]: pairs (x[2i], x[2i+1]), or
     * (x[i], x[n + i]). */
    void (*rope_adjacent)(float *x, const float *c, const float *s, int64_t n);
    void (*rope_halves)(float *x, const float *c, const float *s, int64_t n);
    /* One step of attention: adds a span to the states of s->m query vectors. Queries, keys, values and the
     * weights of tokens are multiplied as span_act says: as floats, or rounded to bfloat16. */
    ash_act_form span_act; /* ASH_ACT_F32 or ASH_ACT_BF16 */
    void (*span)(const ash_attn_span *s);
    void (*fine_span)(const ash_attn_span *s); /* the same in floats; NULL where span is so */
    /* The same of ASH_KV_Q8, queries and weights in 16 bits at least; NULL where ash_attention_run has to
     * widen blocks to half floats for span. */
    void (*span_q8)(const ash_attn_span *s);
    /* (max, sum, acc) += (*max2, *sum2, acc2 [v_dim]), exactly as span would have added it. */
    void (*merge)(float *max, float *sum, float *acc, float max2, float sum2, const float *acc2,
                  int64_t v_dim);
} ash_kernel;

/* The table of a level, which this CPU must have (ash_cpu_get). Never NULL. */
const ash_kernel *ash_kernel_get(ash_cpu_level level);
/* Every table this CPU can run, the scalar one first; NULL from some index on. For tests and benches. */
const ash_kernel *ash_kernel_variant(int index);
/* Bytes of scratch a matmul wants for matrices of up to max_cols columns. */
int64_t ash_kernel_scratch(const ash_kernel *k, int64_t max_cols);

#endif
