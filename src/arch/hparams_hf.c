/* Owns nothing; turns config.json into ash_hparams. Refuses what is missing, out of range or does
 * not fit together. Any thread. Keys and defaults: transformers
 * configuration_{llama,mistral,qwen2,qwen3}.py. */
#include <string.h>

#include "arch/config.h"
#include "arch/hparams_impl.h"

static int mismatch(const ash_checkpoint *c, const char *a, int64_t n_a, const char *b, int64_t n_b,
                    ash_err *err)
{
    return ash_err_set(err, ASH_EFORMAT, "%s/config.json: '%s' %lld is no multiple of '%s' %lld",
                       c->dir, a, (long long)n_a, b, (long long)n_b);
}

static int read_sizes(const ash_checkpoint *c, ash_hparams *hp, ash_err *err)
{
    int rc;
    hp->n_ctx = 2048;
    if ((rc = ash_config_need_int(c, "num_hidden_layers", 1, ASH_MAX_LAYERS, &hp->n_layers, err)) ||
        (rc = ash_config_need_int(c, "hidden_size", 1, HP_MAX_EMBD, &hp->n_embd, err)) ||
        (rc = ash_config_need_int(c, "intermediate_size", 1, HP_MAX_FF, &hp->n_ff, err)) ||
        (rc = ash_config_need_int(c, "num_attention_heads", 1, HP_MAX_HEADS, &hp->n_heads, err)) ||
        (rc = ash_config_need_int(c, "vocab_size", 1, ASH_MAX_VOCAB, &hp->n_vocab, err)) ||
        (rc = ash_config_int(c, "max_position_embeddings", 1, HP_MAX_CONTEXT, &hp->n_ctx, err)))
        return rc;
    hp->n_kv_heads = hp->n_heads;
    if ((rc = ash_config_int(c, "num_key_value_heads", 1, HP_MAX_HEADS, &hp->n_kv_heads, err)))
        return rc;
    if (hp->n_heads % hp->n_kv_heads)
        return mismatch(c, "num_attention_heads", hp->n_heads, "num_key_value_heads",
                        hp->n_kv_heads, err);
    return 0;
}

static int read_heads(const ash_checkpoint *c, bool qwen3, ash_hparams *hp, ash_err *err)
{
    int64_t dim = qwen3 ? 128 : 0;
    int rc = ash_config_int(c, "head_dim", 1, HP_MAX_HEAD_DIM, &dim, err);
    if (rc) return rc;
    if (!dim && hp->n_embd % hp->n_heads)
        return mismatch(c, "hidden_size", hp->n_embd, "num_attention_heads", hp->n_heads, err);
    dim = dim ? dim : hp->n_embd / hp->n_heads;
    if (dim > HP_MAX_HEAD_DIM || dim % 2)
        return ash_err_set(
            err, ASH_EFORMAT,
            "%s/config.json: a head ('head_dim', or 'hidden_size' / 'num_attention_heads') must "
            "be even and at most %d, is %lld",
            c->dir, HP_MAX_HEAD_DIM, (long long)dim);
    hp->k_dim = hp->v_dim = dim;
    hp->rope.dims = hp->rope.head_dim = (int)dim;
    return 0;
}

/* "layer_types": which layers see a window only. */
static int read_layer_types(const ash_checkpoint *c, const json_t *types, ash_hparams *hp,
                            ash_err *err)
{
    if (!json_is_array(types) || json_array_size(types) < (size_t)hp->n_layers)
        return ash_err_set(err, ASH_EFORMAT, "%s/config.json: 'layer_types' must be a list of %lld",
                           c->dir, (long long)hp->n_layers);
    for (int64_t i = 0; i < hp->n_layers; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        bool sliding = type && !strcmp(type, "sliding_attention");
        if (!sliding && (!type || strcmp(type, "full_attention") != 0))
            return ash_err_set(
                err, ASH_EUNSUPPORTED,
                "%s/config.json: 'layer_types' of layer %lld is '%.40s'; known here: "
                "full_attention, sliding_attention",
                c->dir, (long long)i, type ? type : "(no string)");
        if (sliding) hp->windowed[i / 64] |= 1ull << i % 64;
    }
    return 0;
}

/* Mistral's windows are in all layers and 4096 wide if nothing is said; Qwen's are off unless they
 * are switched on, and then in the layers from max_window_layers on. The others have none. */
static int read_window(const ash_checkpoint *c, const char *type, ash_hparams *hp, ash_err *err)
{
    bool mistral = !strcmp(type, "mistral"), use = false;
    int64_t window = 4096, first = mistral ? 0 : 28;
    int rc;
    if (!mistral && strcmp(type, "qwen2") != 0 && strcmp(type, "qwen3") != 0) return 0;
    if ((rc = ash_config_int(c, "sliding_window", 1, INT32_MAX, &window, err))) return rc;
    if (!mistral && ((rc = ash_config_bool(c, "use_sliding_window", &use, err)) ||
                     (rc = ash_config_int(c, "max_window_layers", 0, INT32_MAX, &first, err))))
        return rc;
    bool null = json_is_null(json_object_get(c->config, "sliding_window"));
    if (null || !(mistral || use)) return 0;
    hp->window = (int32_t)window;
    const json_t *types = json_object_get(c->config, "layer_types");
    if (types && !json_is_null(types)) return read_layer_types(c, types, hp, err);
    for (int64_t i = first; i < hp->n_layers; i++) hp->windowed[i / 64] |= 1ull << i % 64;
    return 0;
}

static int read_activation(const ash_checkpoint *c, ash_err *err)
{
    const char *act = "silu";
    int rc = ash_config_str(c, "hidden_act", &act, err);
    if (rc || !strcmp(act, "silu") || !strcmp(act, "swish")) return rc;
    return ash_err_set(err, ASH_EUNSUPPORTED,
                       "%s/config.json: 'hidden_act' is '%.40s'; known here: silu", c->dir, act);
}

int ash_hparams_read_hf(const ash_checkpoint *c, const char *type, unsigned flags, ash_hparams *hp,
                        ash_err *err)
{
    double eps = 1e-6;
    int rc;
    if (!json_is_object(c->config))
        return ash_err_set(err, ASH_EFORMAT, "%s/config.json: must be an object, not %s", c->dir,
                           c->config ? ash_json_type_name(c->config) : "missing");
    if ((rc = read_sizes(c, hp, err)) ||
        (rc = ash_config_rope(c, hp->n_ctx, &hp->rope, NULL, err)))
        return rc;
    if (!(flags & ASH_HPARAMS_OWN_HEADS) && (rc = read_heads(c, !strcmp(type, "qwen3"), hp, err)))
        return rc;
    if ((rc = read_window(c, type, hp, err)) || (rc = read_activation(c, err)) ||
        (rc = ash_config_num(c, "rms_norm_eps", 0, 0.1, &eps, err)) ||
        (rc = ash_config_bool(c, "attention_bias", &hp->attention_bias, err)) ||
        (rc = ash_config_bool(c, "mlp_bias", &hp->mlp_bias, err)) ||
        (rc = ash_config_bool(c, "tie_word_embeddings", &hp->tied, err)))
        return rc;
    hp->rms_eps = (float)eps;
    return 0;
}
