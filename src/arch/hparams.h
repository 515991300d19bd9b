/* Sizes and constants of a model, read from a checkpoint's metadata and checked to be sane. Plain
 * data, any thread. */
#ifndef ASHLEY_ARCH_HPARAMS_H
#define ASHLEY_ARCH_HPARAMS_H

#include "format/gguf.h"
#include "nn/rope.h"

typedef struct ash_hparams {
    int64_t n_vocab;   /* rows of the token embedding: logits of a position */
    int64_t n_ctx;     /* positions the model was trained on */
    int64_t n_embd;    /* width of the residual stream */
    int64_t n_layers;
    int64_t n_ff;      /* width of the feed-forward's middle */
    int64_t n_heads;   /* query heads; a multiple of n_kv_heads */
    int64_t n_kv_heads;
    int64_t k_dim, v_dim; /* of one head's keys (and queries) and values */
    float rms_eps;
    ash_rope_options rope; /* pairs and freq_factors are the architecture's to set */
} ash_hparams;

/* Reads the keys "PREFIX.*" of a decoder in the manner of Llama; the vocabulary's size comes from the
 * tensor "token_embd.weight". ASH_EFORMAT or ASH_ENOENT names the key, what it must be and what it is;
 * ASH_EUNSUPPORTED for what is well formed but not computed here (experts, LongRoPE, sizes that differ
 * between layers). */
int ash_hparams_read(const ash_gguf *g, const char *prefix, ash_hparams *out,
                     ash_err *err) ASH_MUST_CHECK;

#endif
