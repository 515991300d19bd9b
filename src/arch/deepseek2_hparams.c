/* Owns nothing; turns metadata of DeepSeek-V2 and V3 into sizes. Refuses what is missing, out of range or
 * does not fit together. Any thread.
 *
 * Sources: configuration_deepseek.py of both models, inference/model.py of V3; for GGUF llama.cpp
 * conversion and src/llama-model.cpp. GGUF's key and value lengths are a head's in older files; newer
 * ones give those of the cache there and a head's as key_length_mla and value_length_mla. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "arch/config.h"
#include "arch/deepseek2.h"

enum { MAX_RANK = 1 << 16, MAX_LATENT = 2048, MAX_HEAD = 1024, MAX_FF = 1 << 20, MAX_SHARED = 256 };

#define FIELD(name) offsetof(ash_deepseek2, name)

typedef struct field {
    const char *gguf, *json; /* NULL: not there */
    int64_t lo, hi;
    bool need;
    size_t at; /* of an int64_t */
} field;

static const field fields[] = {
    {"attention.q_lora_rank", "q_lora_rank", 0, MAX_RANK, false, FIELD(q_lora)},
    {"attention.kv_lora_rank", "kv_lora_rank", 1, MAX_LATENT, true, FIELD(kv_lora)},
    {"rope.dimension_count", "qk_rope_head_dim", 2, MAX_HEAD, true, FIELD(rope)},
    {NULL, "qk_nope_head_dim", 1, MAX_HEAD, true, FIELD(nope)},
    {NULL, "v_head_dim", 1, MAX_HEAD, true, FIELD(v)},
    {"leading_dense_block_count", "first_k_dense_replace", 0, ASH_MAX_LAYERS, false, FIELD(n_dense)},
    {"expert_count", "n_routed_experts", 0, ASH_MAX_EXPERTS, false, FIELD(n_experts)},
    {"expert_used_count", "num_experts_per_tok", 0, ASH_MAX_EXPERTS, false, FIELD(n_used)},
    {"expert_group_count", "n_group", 0, ASH_MAX_EXPERTS, false, FIELD(n_groups)},
    {"expert_group_used_count", "topk_group", 0, ASH_MAX_EXPERTS, false, FIELD(n_used_groups)},
    {"expert_shared_count", "n_shared_experts", 0, MAX_SHARED, false, FIELD(n_shared)},
    {"expert_feed_forward_length", "moe_intermediate_size", 0, MAX_FF, false, FIELD(expert_ff)},
};

static const char *gguf_key(const char *name, char key[96])
{
    snprintf(key, 96, "deepseek2.%s", name);
    return key;
}

static int read_field(const ash_checkpoint *c, const field *f, ash_deepseek2 *out, ash_err *err)
{
    char key[96];
    int64_t *to = (int64_t *)(void *)((char *)out + f->at);
    const char *name = c->gguf ? f->gguf : f->json;
    if (!name)
        return 0;
    if (c->gguf) {
        gguf_key(name, key);
        if (f->need && !ash_gguf_find(c->gguf, key))
            return ash_err_set(err, ASH_ENOENT, "%s: key '%s' is missing", c->path, key);
        return ash_gguf_get_i64(c->gguf, key, f->lo, f->hi, to, err);
    }
    return f->need ? ash_config_need_int(c, name, f->lo, f->hi, to, err)
                   : ash_config_int(c, name, f->lo, f->hi, to, err);
}

/* ---- GGUF ----------------------------------------------------------------------------------- */

static int need_length(const ash_checkpoint *c, const char *name, const char *older, int64_t *out,
                       ash_err *err)
{
    char key[96];
    if (!ash_gguf_find(c->gguf, gguf_key(name, key)))
        gguf_key(older, key);
    if (!ash_gguf_find(c->gguf, key))
        return ash_err_set(err, ASH_ENOENT, "%s: key '%s' is missing", c->path, key);
    return ash_gguf_get_i64(c->gguf, key, 1, 2 * MAX_HEAD, out, err);
}

static int read_gguf_heads(const ash_checkpoint *c, ash_deepseek2 *d, ash_err *err)
{
    int64_t k = 0;
    int rc;
    if ((rc = need_length(c, "attention.key_length_mla", "attention.key_length", &k, err)) ||
        (rc = need_length(c, "attention.value_length_mla", "attention.value_length", &d->v, err)))
        return rc;
    d->nope = k - d->rope;
    if (d->nope < 1 || d->nope > MAX_HEAD || d->v > MAX_HEAD)
        return ash_err_set(err, ASH_EFORMAT,
                           "%s: heads of %lld with %lld for rotation, values of %lld: expected more than "
                           "those for rotation, and at most %d",
                           c->path, (long long)k, (long long)d->rope, (long long)d->v, MAX_HEAD);
    return 0;
}

/* Files from before there were keys for groups: the published models of those sizes have them. */
static void guess_groups(const ash_hparams *hp, ash_deepseek2 *d)
{
    bool v2 = hp->n_layers == 60 && d->n_experts == 160 && d->router.score == ASH_ROUTER_SOFTMAX;
    bool v3 = hp->n_layers == 61 && d->n_experts == 256 && d->biased;
    if (d->n_groups || !(v2 || v3))
        return;
    d->n_groups = 8;
    d->n_used_groups = v2 ? 3 : 4;
}

static int read_gguf_router(const ash_checkpoint *c, const ash_hparams *hp, ash_deepseek2 *d,
                            ash_err *err)
{
    enum { SOFTMAX = 1, SIGMOID = 2 };
    char key[96];
    int64_t gating = SOFTMAX;
    double scale = 0;
    int rc;
    if ((rc = ash_gguf_get_i64(c->gguf, gguf_key("expert_gating_func", key), 0, 64, &gating, err)) ||
        (rc = ash_gguf_get_bool(c->gguf, gguf_key("expert_weights_norm", key), &d->router.normalise, err)) ||
        (rc = ash_gguf_get_f64(c->gguf, gguf_key("expert_weights_scale", key), &scale, err)))
        return rc;
    if (gating > SIGMOID)
        return ash_err_set(err, ASH_EUNSUPPORTED,
                           "%s: key 'deepseek2.expert_gating_func' is %lld; known: 1 (softmax), 2 (sigmoid)",
                           c->path, (long long)gating);
    d->router.score = gating == SIGMOID ? ASH_ROUTER_SIGMOID : ASH_ROUTER_SOFTMAX;
    d->router.scale = scale == 0 ? 1.0f : (float)scale; /* 0: not said */
    snprintf(key, sizeof key, "blk.%lld.exp_probs_b.bias", (long long)d->n_dense);
    d->biased = ash_tensor_find(c->tensors, key) != NULL;
    guess_groups(hp, d);
    return 0;
}

/* ---- config.json ---------------------------------------------------------------------------- */

static bool is_v3(const ash_checkpoint *c)
{
    const char *type = json_string_value(json_object_get(c->config, "model_type"));
    const char *class = json_string_value(json_array_get(json_object_get(c->config, "architectures"), 0));
    return type ? !strcmp(type, "deepseek_v3") : class && !strcmp(class, "DeepseekV3ForCausalLM");
}

static int read_json_router(const ash_checkpoint *c, ash_deepseek2 *d, ash_err *err)
{
    bool v3 = is_v3(c);
    const char *score = v3 ? "sigmoid" : "softmax", *method = v3 ? "noaux_tc" : "greedy";
    double scale = v3 ? 2.5 : 1;
    int64_t every = 1;
    d->router.normalise = v3;
    int rc;
    if ((rc = ash_config_str(c, "scoring_func", &score, err)) ||
        (rc = ash_config_str(c, "topk_method", &method, err)) ||
        (rc = ash_config_bool(c, "norm_topk_prob", &d->router.normalise, err)) ||
        (rc = ash_config_num(c, "routed_scaling_factor", -1e6, 1e6, &scale, err)) ||
        (rc = ash_config_int(c, "moe_layer_freq", 1, ASH_MAX_LAYERS, &every, err)))
        return rc;
    d->router.scale = (float)scale;
    d->router.score = !strcmp(score, "sigmoid") ? ASH_ROUTER_SIGMOID : ASH_ROUTER_SOFTMAX;
    d->biased = !strcmp(method, "noaux_tc");
    if (!strcmp(method, "greedy") || !strcmp(method, "gready")) /* the class's own default is misspelt */
        d->n_groups = d->n_used_groups = 1;
    else if (!d->biased && strcmp(method, "group_limited_greedy"))
        return ash_err_set(err, ASH_EUNSUPPORTED, "%s/config.json: 'topk_method' is '%.40s'; known: greedy, "
                           "group_limited_greedy, noaux_tc", c->dir, method);
    if (d->router.score == ASH_ROUTER_SOFTMAX && strcmp(score, "softmax"))
        return ash_err_set(err, ASH_EUNSUPPORTED,
                           "%s/config.json: 'scoring_func' is '%.40s'; known: softmax, sigmoid", c->dir,
                           score);
    if (every != 1)
        return ash_err_set(err, ASH_EUNSUPPORTED,
                           "%s/config.json: 'moe_layer_freq' is %lld; known: 1, experts in every layer",
                           c->dir, (long long)every);
    return 0;
}

/* ---- both ----------------------------------------------------------------------------------- */

static int finish_router(const ash_checkpoint *c, ash_deepseek2 *d, ash_err *err)
{
    ash_router *r = &d->router;
    r->experts = (int)d->n_experts;
    r->used = (int)d->n_used;
    r->groups = d->n_groups ? (int)d->n_groups : 1;
    r->used_groups = d->n_groups && d->n_used_groups ? (int)d->n_used_groups : r->groups;
    r->normalise = r->normalise && r->used > 1;
    if (r->normalise && r->score == ASH_ROUTER_SOFTMAX)
        r->scale = 1; /* V2's own code scales weights or normalises them, never both */
    ash_err why = ASH_ERR_INIT;
    if (ash_router_check(r, &why))
        return ash_err_set(err, ASH_EFORMAT, "%s: %s", c->path, why.msg);
    if (d->expert_ff < 1)
        return ash_err_set(err, ASH_ENOENT, "%s: experts without the length of their feed-forward ('%s')",
                           c->path,
                           c->gguf ? "deepseek2.expert_feed_forward_length" : "moe_intermediate_size");
    if (d->n_shared * d->expert_ff > MAX_FF)
        return ash_err_set(err, ASH_EFORMAT, "%s: %lld shared experts of %lld: expected at most %d together",
                           c->path, (long long)d->n_shared, (long long)d->expert_ff, MAX_FF);
    return 0;
}

static int read_router(const ash_checkpoint *c, const ash_hparams *hp, ash_deepseek2 *d, ash_err *err)
{
    if (!d->n_experts || d->n_dense >= hp->n_layers) {
        d->n_experts = 0;
        d->n_dense = hp->n_layers;
        return 0;
    }
    int rc = c->gguf ? read_gguf_router(c, hp, d, err) : read_json_router(c, d, err);
    return rc ? rc : finish_router(c, d, err);
}

/* The scores' scale is corrected for YaRN by mscale_all_dim: 0.1 of it is GGUF's multiplier. */
static int read_scale(const ash_checkpoint *c, const ash_hparams *hp, ash_deepseek2 *d, ash_err *err)
{
    double multiplier = 0, mscale = 1;
    char key[96];
    int rc;
    if (c->gguf) {
        rc = ash_gguf_get_f64(c->gguf, gguf_key("rope.scaling.yarn_log_multiplier", key), &multiplier, err);
    } else {
        ash_rope_options again = hp->rope;
        rc = ash_config_rope(c, hp->n_ctx, &again, &multiplier, err);
        multiplier *= 0.1;
    }
    if (rc)
        return rc;
    if (!(multiplier >= 0 && multiplier <= 100))
        return ash_err_set(err, ASH_EFORMAT, "%s: a YaRN multiplier of %g: expected 0 to 100", c->path,
                           multiplier);
    if (hp->rope.scaling != ASH_ROPE_NONE)
        mscale += multiplier * log(hp->rope.factor);
    d->scale = (float)(mscale * mscale / sqrt((double)(d->nope + d->rope)));
    return 0;
}

/* A prediction layer (multi-token prediction) that a converter counted among the layers. */
static void drop_prediction(const ash_checkpoint *c, ash_hparams *hp)
{
    char name[96];
    snprintf(name, sizeof name, "blk.%lld.nextn.eh_proj.weight", (long long)hp->n_layers - 1);
    if (c->gguf && hp->n_layers > 1 && ash_tensor_find(c->tensors, name))
        hp->n_layers--;
}

static int complete(const ash_checkpoint *c, ash_hparams *hp, const ash_deepseek2 *d, ash_err *err)
{
    bool interleaved = true;
    if (d->rope % 2)
        return ash_err_set(err, ASH_EFORMAT,
                           "%s: %lld elements of a head for rotation: expected an even number",
                           c->path, (long long)d->rope);
    if (hp->rope.scaling == ASH_ROPE_DYNAMIC)
        return ash_err_set(err, ASH_EUNSUPPORTED,
                           "%s: rope scaling 'dynamic' with latent attention; known here: default, linear, "
                           "llama3, yarn",
                           c->path);
    if (!c->gguf) {
        int rc = ash_config_bool(c, "rope_interleave", &interleaved, err);
        if (rc)
            return rc;
    }
    hp->k_dim = d->nope + d->rope;
    hp->v_dim = d->v;
    hp->n_experts = d->n_experts;
    hp->rope.pairs = interleaved ? ASH_ROPE_ADJACENT : ASH_ROPE_HALVES;
    hp->rope.dims = (int)d->rope;
    hp->rope.head_dim = (int)(d->kv_lora + d->rope); /* rotated where they are compared with the cache */
    if (c->gguf && hp->rope.scaling == ASH_ROPE_YARN)
        hp->rope.attention_factor = 1; /* mscale and mscale_all_dim are alike in all that were converted */
    return 0;
}

int ash_deepseek2_read(const ash_checkpoint *c, ash_hparams *hp, ash_deepseek2 *out, ash_err *err)
{
    int rc = 0;
    *out = (ash_deepseek2){0};
    drop_prediction(c, hp);
    for (size_t i = 0; !rc && i < sizeof fields / sizeof *fields; i++)
        rc = read_field(c, &fields[i], out, err);
    if (!rc && c->gguf)
        rc = read_gguf_heads(c, out, err);
    if (rc || (rc = read_router(c, hp, out, err)) || (rc = complete(c, hp, out, err)))
        return rc;
    return read_scale(c, hp, out, err);
}
