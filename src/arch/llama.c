/* The Llama family (Touvron et al. 2023; Llama 1 to 3, SmolLM, DeepSeek-LLM; Mistral with its sliding
 * window; Qwen2, whose q, k and v have biases; Qwen3, whose heads of q and k are normed): pre-norm
 * decoder, grouped-query attention with rotary positions, SwiGLU. Hugging Face's files pair the halves
 * of a head for rotation; GGUF's "llama" stores the rows of q and k so that pairs are adjacent, its
 * others do not. Where the head is the embedding there is one copy.
 *
 * Owns the model's fields; weights are the engine's memory. Immutable once bound: any thread. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arch/batch.h"
#include "nn/act.h"
#include "nn/attention.h"
#include "nn/norm.h"
#include "nn/rope.h"

enum { ARENA_MAX = 64 << 20 };

typedef struct llama_layer {
    const float *attn_norm; /* [embd] */
    ash_linear q;           /* [heads * k_dim, embd] */
    ash_linear k;           /* [kv_heads * k_dim, embd] */
    ash_linear v;           /* [kv_heads * v_dim, embd] */
    ash_linear o;           /* [embd, heads * v_dim] */
    const float *q_norm;    /* [k_dim], of each head; or NULL */
    const float *k_norm;    /* [k_dim] */
    const float *ffn_norm;  /* [embd] */
    ash_linear gate, up;    /* [ff, embd] */
    ash_linear down;        /* [embd, ff] */
} llama_layer;

typedef struct llama {
    ash_net net;
    ash_linear embed; /* [vocab, embd] */
    ash_linear head;  /* [vocab, embd]; no rows: tied, embed it is */
    const float *out_norm;   /* [embd] */
    const float *rope_freqs; /* [rope dims / 2], or NULL */
    ash_rope rope;
    llama_layer *layers;
} llama;

#define MODEL(field) offsetof(llama, field)
#define LAYER(field) offsetof(llama_layer, field)

/* What holds of some of the family. */
enum {
    IF_UNTIED = ASH_IF_OWN,         /* the head is a matrix of its own */
    IF_HEAD_NORM = ASH_IF_OWN << 1, /* the heads of q and k are normed */
    IF_QKV_BIAS = ASH_IF_OWN << 2,  /* these have biases; others may */
    IF_O_BIAS = ASH_IF_OWN << 3,
    IF_MLP_BIAS = ASH_IF_OWN << 4,
};

#define MATRIX ASH_BIND_MATRIX
#define VECTOR ASH_BIND_VECTOR
#define NEED ASH_REQUIRED
#define MAY ASH_OPTIONAL
#define BLK(name) "blk.%u." name
#define HF(name) "model.layers.%u." name

/* Names in GGUF and in Hugging Face's files, kind, need, out, in, field, condition, count, where it
 * must be. A bias is bound wherever there is one. */
static const ash_bind_rule rules[] = {
    {"token_embd.weight", "model.embed_tokens.weight", MATRIX, NEED, ASH_DIM_VOCAB, ASH_DIM_EMBD,
     MODEL(embed), 0, 0},
    {"output.weight", NULL, MATRIX, MAY, ASH_DIM_VOCAB, ASH_DIM_EMBD, MODEL(head), 0, 0},
    {NULL, "lm_head.weight", MATRIX, NEED, ASH_DIM_VOCAB, ASH_DIM_EMBD, MODEL(head), IF_UNTIED, 0},
    {"output_norm.weight", "model.norm.weight", VECTOR, NEED, ASH_DIM_EMBD, 0, MODEL(out_norm), 0, 0},
    {"rope_freqs.weight", NULL, VECTOR, MAY, ASH_DIM_FREQ, 0, MODEL(rope_freqs), 0, 0},

    {BLK("attn_norm.weight"), HF("input_layernorm.weight"), VECTOR, NEED, ASH_DIM_EMBD, 0,
     LAYER(attn_norm), 0, 0},
    {BLK("attn_q.weight"), HF("self_attn.q_proj.weight"), MATRIX, NEED, ASH_DIM_Q, ASH_DIM_EMBD, LAYER(q),
     0, 0},
    {BLK("attn_k.weight"), HF("self_attn.k_proj.weight"), MATRIX, NEED, ASH_DIM_K, ASH_DIM_EMBD, LAYER(k),
     0, 0},
    {BLK("attn_v.weight"), HF("self_attn.v_proj.weight"), MATRIX, NEED, ASH_DIM_V, ASH_DIM_EMBD, LAYER(v),
     0, 0},
    {BLK("attn_output.weight"), HF("self_attn.o_proj.weight"), MATRIX, NEED, ASH_DIM_EMBD, ASH_DIM_ATTN,
     LAYER(o), 0, 0},
    {BLK("attn_q_norm.weight"), HF("self_attn.q_norm.weight"), VECTOR, NEED, ASH_DIM_HEAD, 0,
     LAYER(q_norm), IF_HEAD_NORM, 0},
    {BLK("attn_k_norm.weight"), HF("self_attn.k_norm.weight"), VECTOR, NEED, ASH_DIM_HEAD, 0,
     LAYER(k_norm), IF_HEAD_NORM, 0},
    {BLK("attn_q.bias"), HF("self_attn.q_proj.bias"), VECTOR, MAY, ASH_DIM_Q, 0, LAYER(q.bias),
     0, 0, IF_QKV_BIAS},
    {BLK("attn_k.bias"), HF("self_attn.k_proj.bias"), VECTOR, MAY, ASH_DIM_K, 0, LAYER(k.bias),
     0, 0, IF_QKV_BIAS},
    {BLK("attn_v.bias"), HF("self_attn.v_proj.bias"), VECTOR, MAY, ASH_DIM_V, 0, LAYER(v.bias),
     0, 0, IF_QKV_BIAS},
    {BLK("attn_output.bias"), HF("self_attn.o_proj.bias"), VECTOR, MAY, ASH_DIM_EMBD, 0, LAYER(o.bias),
     0, 0, IF_O_BIAS},

    {BLK("ffn_norm.weight"), HF("post_attention_layernorm.weight"), VECTOR, NEED, ASH_DIM_EMBD, 0,
     LAYER(ffn_norm), 0, 0},
    {BLK("ffn_gate.weight"), HF("mlp.gate_proj.weight"), MATRIX, NEED, ASH_DIM_FF, ASH_DIM_EMBD,
     LAYER(gate), 0, 0},
    {BLK("ffn_up.weight"), HF("mlp.up_proj.weight"), MATRIX, NEED, ASH_DIM_FF, ASH_DIM_EMBD, LAYER(up),
     0, 0},
    {BLK("ffn_down.weight"), HF("mlp.down_proj.weight"), MATRIX, NEED, ASH_DIM_EMBD, ASH_DIM_FF,
     LAYER(down), 0, 0},
    {BLK("ffn_gate.bias"), HF("mlp.gate_proj.bias"), VECTOR, MAY, ASH_DIM_FF, 0, LAYER(gate.bias), 0,
     0, IF_MLP_BIAS},
    {BLK("ffn_up.bias"), HF("mlp.up_proj.bias"), VECTOR, MAY, ASH_DIM_FF, 0, LAYER(up.bias), 0,
     0, IF_MLP_BIAS},
    {BLK("ffn_down.bias"), HF("mlp.down_proj.bias"), VECTOR, MAY, ASH_DIM_EMBD, 0, LAYER(down.bias), 0,
     0, IF_MLP_BIAS},
};

/* The members of the family, as files call them. */
typedef struct member {
    const char *gguf, *hf, *class; /* general.architecture, model_type, of architectures; or NULL */
    ash_rope_pairs gguf_pairs;
    unsigned when;
} member;

static const member members[] = {
    {"llama", "llama", "LlamaForCausalLM", ASH_ROPE_ADJACENT, 0},
    {NULL, "llama", "LLaMAForCausalLM", ASH_ROPE_ADJACENT, 0},
    {NULL, "mistral", "MistralForCausalLM", ASH_ROPE_ADJACENT, 0},
    {"qwen2", "qwen2", "Qwen2ForCausalLM", ASH_ROPE_HALVES, IF_QKV_BIAS},
    {"qwen3", "qwen3", "Qwen3ForCausalLM", ASH_ROPE_HALVES, IF_HEAD_NORM},
};

static const member *member_of(const ash_checkpoint *c)
{
    ash_str name;
    if (!ash_arch_name(c, &name))
        return NULL;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        const member *m = &members[i];
        if (c->gguf ? m->gguf && ash_str_eqc(name, m->gguf)
                    : ash_str_eqc(name, m->hf) || ash_str_eqc(name, m->class))
            return m;
    }
    return NULL;
}

/* Widths of what a forward keeps for each row, in floats. The feed-forward uses the attention's place
 * again: q, k, v and the heads' output are no longer wanted then. */
typedef struct widths {
    int64_t embd, q, k, v, attn, ff, freq, shared;
} widths;

static widths widths_of(const ash_hparams *hp)
{
    widths w = {.embd = hp->n_embd,
                .q = hp->n_heads * hp->k_dim,
                .k = hp->n_kv_heads * hp->k_dim,
                .v = hp->n_kv_heads * hp->v_dim,
                .attn = hp->n_heads * hp->v_dim,
                .ff = hp->n_ff,
                .freq = hp->rope.dims};
    int64_t attention = w.q + w.k + w.v + w.attn;
    w.shared = attention > 2 * w.ff ? attention : 2 * w.ff;
    return w;
}

static bool llama_match(const ash_checkpoint *c)
{
    return member_of(c) != NULL;
}

static void llama_close(ash_net *net)
{
    llama *m = (llama *)net;
    ash_rope_release(&m->rope);
    ash_arena_release(&net->arena);
    free(m);
}

/* Settings of rotation that cannot be are told before any memory is taken. */
static int check_rope(const ash_checkpoint *c, const ash_rope_options *o, ash_err *err)
{
    ash_rope probe;
    int rc = ash_rope_init(&probe, o, err);
    if (rc)
        return ash_err_prefix(err, "%s", c->path);
    ash_rope_release(&probe);
    return 0;
}

static int plan_into(llama *m, const ash_checkpoint *c, ash_err *err)
{
    ash_hparams *hp = &m->net.hp;
    const member *of = member_of(c);
    m->net.name = of->hf;
    int rc = ash_hparams_read(c, c->gguf ? of->gguf : of->hf, 0, hp, err);
    if (rc)
        return rc;
    if (hp->n_experts)
        return ash_err_set(err, ASH_EUNSUPPORTED, "%s: architecture '%s' with %lld experts is not known here",
                           c->path, of->hf,
                           (long long)hp->n_experts);
    hp->rope.pairs = c->gguf ? of->gguf_pairs : ASH_ROPE_HALVES;
    if ((rc = check_rope(c, &hp->rope, err)))
        return rc;
    m->layers = ash_arena_calloc(&m->net.arena, (size_t)hp->n_layers, sizeof *m->layers);
    if (!m->layers)
        return ash_err_nomem(err, "layers");
    widths w = widths_of(hp);
    ash_bind_target t = {.rules = rules,
                         .n_rules = sizeof rules / sizeof *rules,
                         .model = m,
                         .layers = m->layers,
                         .layer_size = sizeof *m->layers,
                         .n_layers = hp->n_layers,
                         .when = of->when | (hp->tied ? 0 : IF_UNTIED) |
                                 (hp->attention_bias ? IF_QKV_BIAS | IF_O_BIAS : 0) |
                                 (hp->mlp_bias ? IF_MLP_BIAS : 0)};
    t.dims[ASH_DIM_VOCAB] = hp->n_vocab;
    t.dims[ASH_DIM_EMBD] = w.embd;
    t.dims[ASH_DIM_Q] = w.q;
    t.dims[ASH_DIM_K] = w.k;
    t.dims[ASH_DIM_V] = w.v;
    t.dims[ASH_DIM_ATTN] = w.attn;
    t.dims[ASH_DIM_FF] = w.ff;
    t.dims[ASH_DIM_FREQ] = w.freq / 2;
    t.dims[ASH_DIM_HEAD] = hp->k_dim;
    if ((rc = ash_bind_plan(&t, c, &m->net.arena, &m->net.binding, err)))
        return rc;
    m->net.kv = (ash_kv_shape){.layers = (int)hp->n_layers, .kv_heads = (int)hp->n_kv_heads,
                               .k_dim = (int)hp->k_dim, .v_dim = (int)hp->v_dim};
    int64_t floats = 3 * w.embd + w.freq + w.shared;
    m->net.row_bytes = (uint64_t)floats * sizeof(float) + sizeof(ash_row) + 2 * sizeof(int32_t);
    return 0;
}

static int llama_plan(const ash_checkpoint *c, ash_net **out, ash_err *err)
{
    *out = NULL;
    llama *m = calloc(1, sizeof *m);
    if (!m)
        return ash_err_nomem(err, "model");
    m->net.arch = &ash_arch_llama;
    ash_arena_init(&m->net.arena, ARENA_MAX);
    int rc = plan_into(m, c, err);
    if (rc) {
        llama_close(&m->net);
        return rc;
    }
    *out = &m->net;
    return 0;
}

/* How much of a layer takes activations in two terms for the sake of the layer's weights. */
typedef enum care {
    CARE_NONE,
    CARE_QUERIES, /* queries */
    CARE_DOWN,    /* and down */
    CARE_ALL,     /* and all else */
} care;

/* A model of few bits is moved further by the same rounding. How few they are `down` tells, the one matrix
 * that every quantiser leaves in the type a file is named after. How far perplexity of SmolLM2 was off, and
 * is with what is chosen here: MXFP4 0.22 -> 0.09 %, IQ3_S 0.24 -> 0.15 %, IQ2_XS 0.28 -> 0.12 %, IQ2_S
 * 0.50 -> 0.00 % (with queries and down alone 0.57 %), IQ2_XXS 0.37 -> -0.10 %, IQ1_S 0.16 -> 0.09 %, IQ1_M
 * 0.80 -> 0.10 %. A token alone pays little, as a row's second term shares the unpacking; a prompt pays
 * up to twice for these matrices (docs/SPEED.md). */
static care care_of(const llama_layer *l)
{
    switch (l->down.w.dtype) {
    case ASH_DTYPE_MXFP4:
    case ASH_DTYPE_IQ3_S:
    case ASH_DTYPE_IQ3_XXS: return CARE_QUERIES;
    case ASH_DTYPE_IQ2_XS: return CARE_DOWN;
    case ASH_DTYPE_IQ2_S:
    case ASH_DTYPE_IQ2_XXS:
    case ASH_DTYPE_IQ1_M:
    case ASH_DTYPE_IQ1_S: return CARE_ALL;
    default: return CARE_NONE;
    }
}

static void refine_layer(llama_layer *l, bool shared_keys)
{
    care c = care_of(l);
    l->down.terms = c >= CARE_DOWN ? ASH_TERMS_TWO : ASH_TERMS_SPIKES;
    if (c >= CARE_QUERIES)
        l->q.terms = ASH_TERMS_TWO;
    if (c == CARE_ALL)
        l->o.terms = l->gate.terms = l->up.terms = ASH_TERMS_TWO;
    if (shared_keys || c == CARE_ALL)
        l->k.terms = l->v.terms = ASH_TERMS_TWO;
}

/* Where rounding activations to int8 costs most of what it costs, they are taken in two terms. Measured on
 * SmolLM2 of 4-bit GPTQ, whose logits all that rounding moves by a KL of 0.0025: the last layer's
 * feed-forward, which nothing after it corrects and which runs for wanted rows alone, is 0.0007 of it, keys
 * and values 0.0008. Where query heads share these they are a small part of the work. The vocabulary's
 * matrix, for wanted rows alone, too, was half of the 0.0022 that were left. Besides there is one row of one
 * matrix: the layer that lifts the first token far above all others has one value of 3,000 beside some of 1
 * there, and all later tokens look at what comes of it. */
static void refine(llama *m)
{
    const ash_hparams *hp = &m->net.hp;
    llama_layer *last = &m->layers[hp->n_layers - 1];
    for (int64_t i = 0; i < hp->n_layers; i++)
        refine_layer(&m->layers[i], hp->n_heads >= 2 * hp->n_kv_heads);
    last->o.terms = last->gate.terms = last->up.terms = last->down.terms = ASH_TERMS_TWO;
    (m->head.w.rows ? &m->head : &m->embed)->terms = ASH_TERMS_TWO;
}

static int llama_bind(ash_net *net, void *region, ash_err *err)
{
    llama *m = (llama *)net;
    int rc = ash_bind_place(&net->binding, region, err);
    if (rc)
        return rc;
    for (int64_t i = 0; i < net->hp.n_layers; i++) { /* what reads the same activations */
        llama_layer *l = &m->layers[i];
        ash_linear_share((ash_linear *[]){&l->q, &l->k, &l->v}, 3);
        ash_linear_share((ash_linear *[]){&l->gate, &l->up}, 2);
    }
    refine(m);
    net->hp.rope.freq_factors = m->rope_freqs;
    ash_rope_release(&m->rope); /* of an earlier binding */
    return ash_rope_init(&m->rope, &net->hp.rope, err);
}

/* ---- forward -------------------------------------------------------------------------------- */

/* The scratch of one forward of n rows. */
typedef struct state {
    int n;
    float *x;          /* [n, embd] residual stream */
    float *h;          /* [n, embd] normed */
    float *d;          /* [n, embd] what a half-layer adds */
    float *cs;         /* [n, rope dims] cosines, sines */
    float *q, *k, *v;  /* [n, heads * k_dim], [n, kv_heads * k_dim], [n, kv_heads * v_dim] */
    float *attn;       /* [n, heads * v_dim] */
    float *gate, *up;  /* [n, ff], in the place of q, k, v, attn */
    ash_row *rows;     /* [n] */
    int32_t *pos;      /* [n] */
    int32_t *text;     /* [n] tokens that the angles of a row follow */
} state;

static state lay_out(const ash_net *net, void *scratch, int n)
{
    widths w = widths_of(&net->hp);
    state s = {.n = n, .rows = scratch};
    s.x = (float *)(s.rows + n);
    s.h = s.x + n * w.embd;
    s.d = s.h + n * w.embd;
    s.cs = s.d + n * w.embd;
    s.q = s.cs + n * w.freq;
    s.k = s.q + n * w.q;
    s.v = s.k + n * w.k;
    s.attn = s.v + n * w.v;
    s.gate = s.q;
    s.up = s.gate + n * w.ff;
    s.pos = (int32_t *)(s.q + n * w.shared);
    s.text = s.pos + n;
    return s;
}

/* q, k and v of h, which is normed x, turned to their positions; k and v into the KV pool. */
static void project(const llama *m, ash_run *run, int layer, const state *s)
{
    const ash_hparams *hp = &m->net.hp;
    const llama_layer *l = &m->layers[layer];
    ash_linear_run(run->nn, (const ash_linear *[]){&l->q, &l->k, &l->v}, 3, s->h, s->n,
                   (float *[]){s->q, s->k, s->v});
    if (l->q_norm) { /* each head for itself, in place */
        ash_norm_rms(run->nn, s->q, s->q, l->q_norm, s->n * (int)hp->n_heads, hp->k_dim, hp->rms_eps);
        ash_norm_rms(run->nn, s->k, s->k, l->k_norm, s->n * (int)hp->n_kv_heads, hp->k_dim, hp->rms_eps);
    }
    ash_rope_run(run->nn, &m->rope, s->cs, s->q, s->n, (int)hp->n_heads);
    ash_rope_run(run->nn, &m->rope, s->cs, s->k, s->n, (int)hp->n_kv_heads);
    ash_kv_store(run->nn, run->kv, layer, s->rows, s->n, s->k, s->v);
}

/* d = o(attention(q)). */
static void attend(const llama *m, ash_run *run, int layer, const state *s)
{
    const ash_hparams *hp = &m->net.hp;
    ash_attention a = {.heads = (int)hp->n_heads, .scale = 1 / sqrtf((float)hp->k_dim),
                       .window = ash_hparams_window(hp, layer),
                       .fine = m->layers[layer].q.w.form == ASH_FORM_F32}; /* who keeps floats wants them */
    ash_attention_run(run->nn, &a, run->kv, layer, s->rows, s->n, s->q, s->attn);
    ash_linear_run(run->nn, (const ash_linear *[]){&m->layers[layer].o}, 1, s->attn, s->n,
                   (float *[]){s->d});
}

/* d = down(silu(gate h) * up h). */
static void feed_forward(const llama *m, ash_run *run, int layer, const state *s)
{
    const llama_layer *l = &m->layers[layer];
    ash_linear_run(run->nn, (const ash_linear *[]){&l->gate, &l->up}, 2, s->h, s->n,
                   (float *[]){s->gate, s->up});
    ash_act_silu_mul(run->nn, s->gate, s->up, s->n, m->net.hp.n_ff);
    ash_linear_run(run->nn, (const ash_linear *[]){&l->down}, 1, s->gate, s->n, (float *[]){s->d});
}

/* Goes on with the rows that want logits alone. In the last layer others were wanted for their keys and
 * values only: for a prompt that is the rest of a layer saved. */
static void keep_wanted(const ash_batch *batch, const ash_hparams *hp, state *s)
{
    int n = 0;
    for (int i = 0; i < batch->n; i++) {
        if (!batch->rows[i].wants_logits)
            continue;
        ash_batch_move(s->x, hp->n_embd, n, i);
        ash_batch_move(s->q, hp->n_heads * hp->k_dim, n, i);
        s->rows[n++] = s->rows[i];
    }
    s->n = n;
}

static void llama_forward(const ash_net *net, ash_run *run, const ash_batch *batch)
{
    const llama *m = (const llama *)net;
    const ash_hparams *hp = &net->hp;
    int64_t embd = hp->n_embd;
    state s = lay_out(net, run->scratch, batch->n);
    for (int i = 0; i < s.n; i++) {
        s.rows[i] = (ash_row){.table = batch->rows[i].table, .pos = batch->rows[i].pos};
        s.pos[i] = batch->rows[i].pos;
        s.text[i] = batch->rows[i].text > s.pos[i] ? batch->rows[i].text : s.pos[i] + 1;
    }
    ash_batch_embed(run->nn, batch, &m->embed, s.x, embd);
    ash_rope_angles_in(&m->rope, s.pos, s.text, s.n, s.cs);

    for (int layer = 0; layer < hp->n_layers; layer++) {
        const llama_layer *l = &m->layers[layer];
        if (ash_run_gives_way(run))
            return;
        if (layer == 0)
            ash_norm_rms(run->nn, s.h, s.x, l->attn_norm, s.n, embd, hp->rms_eps);
        else /* x += d of the layer before */
            ash_norm_rms_add(run->nn, s.h, s.x, s.d, l->attn_norm, s.n, embd, hp->rms_eps);
        project(m, run, layer, &s);
        if (layer == hp->n_layers - 1)
            keep_wanted(batch, hp, &s);
        if (!s.n)
            return;
        attend(m, run, layer, &s);
        ash_norm_rms_add(run->nn, s.h, s.x, s.d, l->ffn_norm, s.n, embd, hp->rms_eps);
        feed_forward(m, run, layer, &s);
    }

    ash_norm_rms_add(run->nn, s.h, s.x, s.d, m->out_norm, s.n, embd, hp->rms_eps);
    const ash_linear *head = m->head.w.rows ? &m->head : &m->embed;
    ash_linear_run(run->nn, &head, 1, s.h, s.n, &batch->logits);
}

const ash_arch ash_arch_llama = {.names = "llama, mistral, qwen2, qwen3",
                                 .match = llama_match,
                                 .plan = llama_plan,
                                 .bind = llama_bind,
                                 .forward = llama_forward,
                                 .close = llama_close};
