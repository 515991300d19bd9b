/* Owns nothing; turns metadata into ash_hparams. Refuses what is missing, out of range or does not fit
 * together: the bounds are far beyond any published model and keep later products within 63 bits.
 * Any thread. Keys: ggml docs/gguf.md; defaults: llama.cpp src/llama-model.cpp. */
#include "arch/hparams_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* "PREFIX.NAME" for the getters. */
typedef struct reader {
    const ash_gguf *g;
    const char *prefix;
    unsigned flags;
    char key[128];
} reader;

static const char *key_of(reader *r, const char *name)
{
    snprintf(r->key, sizeof r->key, "%s.%s", r->prefix, name);
    return r->key;
}

/* An integer, or an array that gives every layer the same one (newer converters write those). */
static int get_size(reader *r, const char *name, int64_t hi, int64_t *out, ash_err *err)
{
    const char *key = key_of(r, name);
    const ash_gguf_kv *kv = ash_gguf_find(r->g, key);
    if (!kv || kv->type != ASH_GGUF_ARRAY)
        return ash_gguf_get_i64(r->g, key, 1, hi, out, err);
    ash_gguf_array a;
    int rc = ash_gguf_get_array(r->g, key, ASH_GGUF_I64, &a, err);
    if (rc)
        return rc;
    int64_t first = a.n ? ash_gguf_array_i64(&a, 0) : 0;
    for (uint64_t i = 1; i < a.n; i++)
        if (ash_gguf_array_i64(&a, i) != first)
            return ash_err_set(err, ASH_EUNSUPPORTED, "%s: key '%s' differs between layers",
                               ash_gguf_path(r->g), key);
    if (first < 1 || first > hi)
        return ash_err_set(err, ASH_EFORMAT, "%s: key '%s' must be an integer from 1 to %lld, is %lld",
                           ash_gguf_path(r->g), key, (long long)hi, (long long)first);
    *out = first;
    return 0;
}

static int need_size(reader *r, const char *name, int64_t hi, int64_t *out, ash_err *err)
{
    if (!ash_gguf_find(r->g, key_of(r, name)))
        return ash_err_set(err, ASH_ENOENT, "%s: key '%s' is missing", ash_gguf_path(r->g), r->key);
    return get_size(r, name, hi, out, err);
}

/* A real in [lo, hi]; an absent key leaves *out. */
static int get_real(reader *r, const char *name, double lo, double hi, double *out, ash_err *err)
{
    double v = *out;
    const char *key = key_of(r, name);
    int rc = ash_gguf_get_f64(r->g, key, &v, err);
    if (rc || !ash_gguf_find(r->g, key))
        return rc;
    if (!(v >= lo && v <= hi))
        return ash_err_set(err, ASH_EFORMAT, "%s: key '%s' must be from %g to %g, is %g",
                           ash_gguf_path(r->g), key, lo, hi, v);
    *out = v;
    return 0;
}

static int read_heads(reader *r, ash_hparams *hp, ash_err *err)
{
    hp->k_dim = hp->v_dim = hp->n_embd / hp->n_heads;
    if (!ash_gguf_find(r->g, key_of(r, "attention.key_length")) && hp->n_embd % hp->n_heads)
        return ash_err_set(err, ASH_EFORMAT,
                           "%s: key '%s' is missing and embedding_length %lld is no multiple of %lld "
                           "heads",
                           ash_gguf_path(r->g), r->key, (long long)hp->n_embd,
                           (long long)hp->n_heads);
    int rc;
    if ((rc = get_size(r, "attention.key_length", HP_MAX_HEAD_DIM, &hp->k_dim, err)) ||
        (rc = get_size(r, "attention.value_length", HP_MAX_HEAD_DIM, &hp->v_dim, err)))
        return rc;
    if (hp->k_dim < 1 || hp->k_dim > HP_MAX_HEAD_DIM || hp->v_dim < 1 || hp->v_dim > HP_MAX_HEAD_DIM)
        return ash_err_set(err, ASH_EFORMAT, "%s: a head of %lld elements; at most %d",
                           ash_gguf_path(r->g), (long long)hp->k_dim, HP_MAX_HEAD_DIM);
    int64_t dims = hp->k_dim;
    if ((rc = get_size(r, "rope.dimension_count", HP_MAX_HEAD_DIM, &dims, err)))
        return rc;
    if (dims > hp->k_dim || dims % 2)
        return ash_err_set(err, ASH_EFORMAT,
                           "%s: key '%s' must be even and at most the head's %lld elements, is %lld",
                           ash_gguf_path(r->g), key_of(r, "rope.dimension_count"),
                           (long long)hp->k_dim, (long long)dims);
    hp->rope.dims = (int)dims;
    hp->rope.head_dim = (int)hp->k_dim;
    return 0;
}

static int read_sizes(reader *r, ash_hparams *hp, ash_err *err)
{
    int rc;
    if ((rc = need_size(r, "block_count", ASH_MAX_LAYERS, &hp->n_layers, err)) ||
        (rc = need_size(r, "embedding_length", HP_MAX_EMBD, &hp->n_embd, err)) ||
        (rc = need_size(r, "feed_forward_length", HP_MAX_FF, &hp->n_ff, err)) ||
        (rc = need_size(r, "context_length", HP_MAX_CONTEXT, &hp->n_ctx, err)) ||
        (rc = need_size(r, "attention.head_count", HP_MAX_HEADS, &hp->n_heads, err)))
        return rc;
    hp->n_kv_heads = hp->n_heads;
    if ((rc = get_size(r, "attention.head_count_kv", HP_MAX_HEADS, &hp->n_kv_heads, err)))
        return rc;
    if (hp->n_heads % hp->n_kv_heads)
        return ash_err_set(err, ASH_EFORMAT,
                           "%s: %lld attention heads are no multiple of %lld key and value heads",
                           ash_gguf_path(r->g), (long long)hp->n_heads, (long long)hp->n_kv_heads);
    return ash_gguf_get_i64(r->g, key_of(r, "expert_count"), 0, HP_MAX_EXPERTS, &hp->n_experts, err);
}

/* Sliding windows; a pattern of layers may be given as one flag for each. */
static int read_window(reader *r, ash_hparams *hp, ash_err *err)
{
    int64_t window = 0;
    int rc = ash_gguf_get_i64(r->g, key_of(r, "attention.sliding_window"), 0, INT32_MAX, &window, err);
    if (rc || !window)
        return rc;
    hp->window = (int32_t)window;
    const char *key = key_of(r, "attention.sliding_window_pattern");
    const ash_gguf_kv *kv = ash_gguf_find(r->g, key);
    ash_gguf_array a = {0};
    if (kv && (rc = ash_gguf_get_array(r->g, key, ASH_GGUF_I64, &a, err))) return rc;
    if (kv && a.n != (uint64_t)hp->n_layers)
        return ash_err_set(
            err, ASH_EFORMAT, "%s: key '%s' must have a flag for each of %lld layers, has %llu",
            ash_gguf_path(r->g), key, (long long)hp->n_layers, (unsigned long long)a.n);
    for (int64_t i = 0; i < hp->n_layers; i++)
        if (!kv || ash_gguf_array_i64(&a, (uint64_t)i)) hp->windowed[i / 64] |= 1ull << i % 64;
    return 0;
}

static int read_scaling_type(reader *r, ash_rope_options *o, ash_err *err)
{
    /* Without a type a factor means linear scaling, as in llama.cpp. */
    ash_str type = ASH_STR("linear");
    int rc = ash_gguf_get_str(r->g, key_of(r, "rope.scaling.type"), &type, err);
    if (rc)
        return rc;
    if (ash_str_eqc(type, "none"))
        o->scaling = ASH_ROPE_NONE;
    else if (ash_str_eqc(type, "linear"))
        o->scaling = ASH_ROPE_LINEAR;
    else if (ash_str_eqc(type, "yarn"))
        o->scaling = ASH_ROPE_YARN;
    else
        return ash_err_set(err, ASH_EUNSUPPORTED, "%s: key '%s' is '%.*s'; known: none, linear, yarn",
                           ash_gguf_path(r->g), r->key, (int)(type.n < 40 ? type.n : 40), type.p);
    return 0;
}

static int read_rope(reader *r, ash_hparams *hp, ash_err *err)
{
    ash_rope_options *o = &hp->rope;
    double factor = 0, attention = 1;
    *o = (ash_rope_options){.base = 10000, .low_freq = 1, .high_freq = 4, .beta_fast = 32,
                            .beta_slow = 1, .original_context = (double)hp->n_ctx};
    int rc;
    if ((rc = get_real(r, "rope.freq_base", 1, 1e12, &o->base, err)) ||
        (rc = get_real(r, "rope.scale_linear", 0, 1e6, &factor, err)) ||
        (rc = get_real(r, "rope.scaling.factor", 0, 1e6, &factor, err)) ||
        (rc = get_real(r, "rope.scaling.original_context_length", 1, HP_MAX_CONTEXT,
                       &o->original_context, err)) ||
        (rc = get_real(r, "rope.scaling.attn_factor", 1e-3, 1e3, &attention, err)) ||
        (rc = get_real(r, "rope.scaling.yarn_beta_fast", 1e-3, 1e6, &o->beta_fast, err)) ||
        (rc = get_real(r, "rope.scaling.yarn_beta_slow", 1e-3, 1e6, &o->beta_slow, err)) ||
        (rc = read_scaling_type(r, o, err)))
        return rc;
    if (factor == 0 || factor == 1)
        o->scaling = ASH_ROPE_NONE; /* 0 is how some converters write "not scaled" */
    else if (factor < 1 && o->scaling != ASH_ROPE_NONE)
        return ash_err_set(err, ASH_EFORMAT, "%s: the rope scaling factor must be 1 or more, is %g",
                           ash_gguf_path(r->g), factor);
    o->factor = o->scaling == ASH_ROPE_NONE ? 1 : factor;
    if (o->scaling == ASH_ROPE_YARN)
        o->attention_factor = attention * (0.1 * log(factor) + 1);
    return 0;
}

static int read_vocab(reader *r, ash_hparams *hp, ash_err *err)
{
    const ash_tensor *t = ash_tensor_find(ash_gguf_tensors(r->g), "token_embd.weight");
    if (!t)
        return ash_err_set(err, ASH_EFORMAT, "%s: tensor 'token_embd.weight' is missing",
                           ash_gguf_path(r->g));
    char shape[96];
    if (t->n_dims != 2 || t->dims[0] < 1 || t->dims[0] > ASH_MAX_VOCAB)
        return ash_err_set(err, ASH_EFORMAT,
                           "%s: tensor 'token_embd.weight' must have 1 to %u rows of %lld, is %s",
                           ash_gguf_path(r->g), ASH_MAX_VOCAB, (long long)hp->n_embd,
                           ash_tensor_shape(t, shape));
    hp->n_vocab = (int64_t)t->dims[0];
    return 0;
}

static int read_gguf(reader *r, ash_hparams *out, ash_err *err)
{
    double eps = 1e-5;
    int rc;
    if ((rc = read_sizes(r, out, err)) || (rc = read_rope(r, out, err)) ||
        (!(r->flags & ASH_HPARAMS_OWN_HEADS) && (rc = read_heads(r, out, err))) ||
        (rc = read_vocab(r, out, err)) || (rc = read_window(r, out, err)) ||
        (rc = get_real(r, "attention.layer_norm_rms_epsilon", 0, 0.1, &eps, err)))
        return rc;
    out->rms_eps = (float)eps;
    return 0;
}

int ash_hparams_read(const ash_checkpoint *c, const char *name, unsigned flags, ash_hparams *out,
                     ash_err *err)
{
    *out = (ash_hparams){0};
    if (!c->gguf)
        return ash_hparams_read_hf(c, name, flags, out, err);
    reader r = {.g = c->gguf, .prefix = name, .flags = flags};
    return read_gguf(&r, out, err);
}

int32_t ash_hparams_window(const ash_hparams *hp, int64_t layer)
{
    return hp->windowed[layer / 64] >> layer % 64 & 1 ? hp->window : 0;
}
