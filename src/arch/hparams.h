/* Sizes and constants of a model, read from a checkpoint's metadata and checked to be sane. Plain
 * data, any thread. */
#ifndef ASHLEY_ARCH_HPARAMS_H
#define ASHLEY_ARCH_HPARAMS_H

#include "format/checkpoint.h"
#include "nn/rope.h"

enum { ASH_MAX_LAYERS = 1024 };

typedef struct ash_hparams {
    int64_t n_vocab;   /* rows of the token embedding: logits of a position */
    int64_t n_ctx;     /* positions the model was trained on */
    int64_t n_embd;    /* width of the residual stream */
    int64_t n_layers;
    int64_t n_ff;      /* width of the feed-forward's middle */
    int64_t n_heads;   /* query heads; a multiple of n_kv_heads */
    int64_t n_kv_heads;
    int64_t k_dim, v_dim; /* of one head's keys (and queries) and values */
    int64_t n_experts;    /* 0: none */
    float rms_eps;
    bool tied;            /* the head is the embedding, even if the files hold one */
    bool attention_bias, mlp_bias; /* the linears there must have biases */
    ash_rope_options rope; /* pairs and freq_factors are the architecture's to set */
    int32_t window;        /* positions that a row of a windowed layer sees; 0: there are none */
    uint64_t windowed[ASH_MAX_LAYERS / 64]; /* a bit for each layer */
} ash_hparams;

enum {
    ASH_HPARAMS_OWN_HEADS = 1, /* k_dim, v_dim, rope.dims and rope.head_dim stay 0: the architecture's */
};

/* Reads the sizes of a decoder in the manner of Llama: of GGUF the keys "NAME.*", with the
 * vocabulary's size from the tensor "token_embd.weight"; else config.json of the model type NAME, on
 * which some defaults depend. ASH_EFORMAT or ASH_ENOENT
 * names the key, what it must be and what it is; ASH_EUNSUPPORTED for what is well formed but not
 * computed here (LongRoPE, sizes that differ between layers, another activation). */
int ash_hparams_read(const ash_checkpoint *c, const char *name, unsigned flags, ash_hparams *out,
                     ash_err *err) ASH_MUST_CHECK;
/* Window of a layer; 0: it sees all. */
int32_t ash_hparams_window(const ash_hparams *hp, int64_t layer);

#endif
