/* DeepSeek-V2, V2-Lite, Coder-V2, V3 and R1 (DeepSeek-AI 2024, 2025): pre-norm decoder, multi-head latent
 * attention in its absorbed form, and after some dense layers mixtures of routed and shared experts, all
 * SwiGLU. Rotated pairs are adjacent in every kind of file. The layer that predicts a further token is
 * left out, as its authors do for generation.
 *
 * Owns the model's fields; weights are the engine's memory. Immutable once bound: any thread. */
#include <stdlib.h>
#include <string.h>

#include "arch/batch.h"
#include "arch/deepseek2.h"
#include "nn/act.h"
#include "nn/mla.h"
#include "nn/moe.h"
#include "nn/norm.h"

enum { ARENA_MAX = 256 << 20, ALIGN = 64 / sizeof(float) };

static const float latent_eps = 1e-6f; /* of the norms within attention, whatever the config says */

typedef struct layer {
    const float *attn_norm; /* [embd] */
    ash_linear q;           /* [heads * (nope + rope), embd], or: */
    ash_linear q_a, q_b;    /* [q_lora, embd], [heads * (nope + rope), q_lora] */
    const float *q_norm;    /* [q_lora] */
    ash_linear kv_a;        /* [kv_lora + rope, embd] */
    ash_mla mla;
    ash_linear o;           /* [embd, heads * v] */
    const float *ffn_norm;  /* [embd] */
    ash_linear gate, up;    /* [ff, embd]; with experts the shared ones', [n_shared * expert_ff, embd] */
    ash_linear down;        /* [embd, ff], [embd, n_shared * expert_ff] */
    ash_moe moe;
} layer;

typedef struct deepseek2 {
    ash_net net;
    ash_deepseek2 own;
    ash_mla_shape mla;
    ash_moe_shape moe;
    ash_linear embed;      /* [vocab, embd] */
    ash_linear head;       /* [vocab, embd]; no rows: tied, embed it is */
    const float *out_norm; /* [embd] */
    ash_rope rope;
    layer *layers;
} deepseek2;

#define MODEL(field) offsetof(deepseek2, field)
#define LAYER(field) offsetof(layer, field)

/* What holds of some of the family. */
enum {
    IF_UNTIED = ASH_IF_OWN,        /* the head is a matrix of its own */
    IF_Q = ASH_IF_OWN << 1,        /* queries from one matrix */
    IF_Q_LORA = ASH_IF_OWN << 2,   /* or through a latent */
    IF_BIASED = (ASH_IF_OWN << 3) | ASH_IF_EXPERTS,
    IF_SHARED = (ASH_IF_OWN << 4) | ASH_IF_EXPERTS,
};

#define MATRIX ASH_BIND_MATRIX
#define VECTOR ASH_BIND_VECTOR
#define STACK ASH_BIND_STACK
#define NEED ASH_REQUIRED
#define MAY ASH_OPTIONAL
#define BLK(name) "blk.%u." name
#define HF(name) "model.layers.%u." name
#define EMBD ASH_DIM_EMBD
#define EXPERT_FF ASH_DIM_EXPERT_FF
#define SHARED_FF ASH_DIM_SHARED_FF

/* Names in GGUF and in Hugging Face's files, kind, need, out, in, field, condition, count. GGUF files keep
 * kv_b whole, or cut into heads with the keys' part transposed, or both. */
static const ash_bind_rule rules[] = {
    {"token_embd.weight", "model.embed_tokens.weight", MATRIX, NEED, ASH_DIM_VOCAB, EMBD, MODEL(embed), 0, 0},
    {"output.weight", NULL, MATRIX, MAY, ASH_DIM_VOCAB, EMBD, MODEL(head), 0, 0},
    {NULL, "lm_head.weight", MATRIX, NEED, ASH_DIM_VOCAB, EMBD, MODEL(head), IF_UNTIED, 0},
    {"output_norm.weight", "model.norm.weight", VECTOR, NEED, EMBD, 0, MODEL(out_norm), 0, 0},

    {BLK("attn_norm.weight"), HF("input_layernorm.weight"), VECTOR, NEED, EMBD, 0, LAYER(attn_norm), 0, 0},
    {BLK("attn_q.weight"), HF("self_attn.q_proj.weight"), MATRIX, NEED, ASH_DIM_Q, EMBD, LAYER(q), IF_Q, 0},
    {BLK("attn_q_a.weight"), HF("self_attn.q_a_proj.weight"), MATRIX, NEED, ASH_DIM_Q_LORA, EMBD,
     LAYER(q_a), IF_Q_LORA, 0},
    {BLK("attn_q_a.bias"), HF("self_attn.q_a_proj.bias"), VECTOR, MAY, ASH_DIM_Q_LORA, 0, LAYER(q_a.bias),
     IF_Q_LORA, 0},
    {BLK("attn_q_a_norm.weight"), HF("self_attn.q_a_layernorm.weight"), VECTOR, NEED, ASH_DIM_Q_LORA, 0,
     LAYER(q_norm), IF_Q_LORA, 0},
    {BLK("attn_q_b.weight"), HF("self_attn.q_b_proj.weight"), MATRIX, NEED, ASH_DIM_Q, ASH_DIM_Q_LORA,
     LAYER(q_b), IF_Q_LORA, 0},
    {BLK("attn_kv_a_mqa.weight"), HF("self_attn.kv_a_proj_with_mqa.weight"), MATRIX, NEED, ASH_DIM_KV_A, EMBD,
     LAYER(kv_a), 0, 0},
    {BLK("attn_kv_a_mqa.bias"), HF("self_attn.kv_a_proj_with_mqa.bias"), VECTOR, MAY, ASH_DIM_KV_A, 0,
     LAYER(kv_a.bias), 0, 0},
    {BLK("attn_kv_a_norm.weight"), HF("self_attn.kv_a_layernorm.weight"), VECTOR, NEED, ASH_DIM_KV_LORA, 0,
     LAYER(mla.norm), 0, 0},
    {BLK("attn_k_b.weight"), NULL, STACK, NEED, ASH_DIM_KV_LORA, ASH_DIM_NOPE, LAYER(mla.k), 0,
     ASH_DIM_HEADS},
    {BLK("attn_kv_b.weight"), HF("self_attn.kv_b_proj.weight"), ASH_BIND_HEADS_K, ASH_ELSE, 0, 0,
     LAYER(mla.k), 0, 0},
    {BLK("attn_v_b.weight"), NULL, STACK, NEED, ASH_DIM_HEAD_V, ASH_DIM_KV_LORA, LAYER(mla.v), 0,
     ASH_DIM_HEADS},
    {BLK("attn_kv_b.weight"), HF("self_attn.kv_b_proj.weight"), ASH_BIND_HEADS_V, ASH_ELSE, 0, 0,
     LAYER(mla.v), 0, 0},
    {BLK("attn_output.weight"), HF("self_attn.o_proj.weight"), MATRIX, NEED, EMBD, ASH_DIM_ATTN, LAYER(o), 0,
     0},
    {BLK("attn_output.bias"), HF("self_attn.o_proj.bias"), VECTOR, MAY, EMBD, 0, LAYER(o.bias), 0, 0},
    {BLK("ffn_norm.weight"), HF("post_attention_layernorm.weight"), VECTOR, NEED, EMBD, 0, LAYER(ffn_norm),
     0, 0},

    {BLK("ffn_gate.weight"), HF("mlp.gate_proj.weight"), MATRIX, NEED, ASH_DIM_FF, EMBD, LAYER(gate),
     ASH_IF_DENSE, 0},
    {BLK("ffn_up.weight"), HF("mlp.up_proj.weight"), MATRIX, NEED, ASH_DIM_FF, EMBD, LAYER(up), ASH_IF_DENSE,
     0},
    {BLK("ffn_down.weight"), HF("mlp.down_proj.weight"), MATRIX, NEED, EMBD, ASH_DIM_FF, LAYER(down),
     ASH_IF_DENSE, 0},

    {BLK("ffn_gate_inp.weight"), HF("mlp.gate.weight"), ASH_BIND_MATRIX_F32, NEED, ASH_DIM_EXPERTS, EMBD,
     LAYER(moe.router), ASH_IF_EXPERTS, 0},
    {BLK("exp_probs_b.bias"), HF("mlp.gate.e_score_correction_bias"), VECTOR, NEED, ASH_DIM_EXPERTS, 0,
     LAYER(moe.bias), IF_BIASED, 0},
    {BLK("ffn_gate_exps.weight"), HF("mlp.experts.%u.gate_proj.weight"), STACK, NEED, EXPERT_FF, EMBD,
     LAYER(moe.gate), ASH_IF_EXPERTS, ASH_DIM_EXPERTS},
    {BLK("ffn_up_exps.weight"), HF("mlp.experts.%u.up_proj.weight"), STACK, NEED, EXPERT_FF, EMBD,
     LAYER(moe.up), ASH_IF_EXPERTS, ASH_DIM_EXPERTS},
    {BLK("ffn_down_exps.weight"), HF("mlp.experts.%u.down_proj.weight"), STACK, NEED, EMBD, EXPERT_FF,
     LAYER(moe.down), ASH_IF_EXPERTS, ASH_DIM_EXPERTS},
    {BLK("ffn_gate_shexp.weight"), HF("mlp.shared_experts.gate_proj.weight"), MATRIX, NEED, SHARED_FF, EMBD,
     LAYER(gate), IF_SHARED, 0},
    {BLK("ffn_up_shexp.weight"), HF("mlp.shared_experts.up_proj.weight"), MATRIX, NEED, SHARED_FF, EMBD,
     LAYER(up), IF_SHARED, 0},
    {BLK("ffn_down_shexp.weight"), HF("mlp.shared_experts.down_proj.weight"), MATRIX, NEED, EMBD, SHARED_FF,
     LAYER(down), IF_SHARED, 0},
};

static const char *name_of(const ash_checkpoint *c)
{
    static const char *const names[][3] = {{"deepseek2", NULL, NULL},
                                           {NULL, "deepseek_v2", "DeepseekV2ForCausalLM"},
                                           {NULL, "deepseek_v3", "DeepseekV3ForCausalLM"}};
    ash_str name;
    if (!ash_arch_name(c, &name))
        return NULL;
    for (int i = c->gguf ? 0 : 1; i < (c->gguf ? 1 : 3); i++)
        for (int j = 0; j < 3; j++)
            if (names[i][j] && ash_str_eqc(name, names[i][j]))
                return names[i][c->gguf ? 0 : 1];
    return NULL;
}

static bool deepseek2_match(const ash_checkpoint *c)
{
    return name_of(c) != NULL;
}

static void deepseek2_close(ash_net *net)
{
    deepseek2 *m = (deepseek2 *)net;
    ash_rope_release(&m->rope);
    ash_arena_release(&net->arena);
    free(m);
}

/* Widths of what a forward keeps for each row, in floats. Attention, feed-forward and mixture follow each
 * other in one place. */
typedef struct widths {
    int64_t embd, freq, latent, q_lora, q, attn, ff, shared;
} widths;

static widths widths_of(const deepseek2 *m)
{
    const ash_hparams *hp = &m->net.hp;
    const ash_deepseek2 *d = &m->own;
    widths w = {.embd = hp->n_embd,
                .freq = d->rope,
                .latent = d->kv_lora + d->rope,
                .q_lora = d->q_lora,
                .q = hp->n_heads * (d->nope + d->rope),
                .attn = hp->n_heads * d->v,
                .ff = d->n_dense ? hp->n_ff : 0};
    int64_t attention = w.latent + w.q_lora + w.q + w.attn + ash_mla_floats(&m->mla), mixture = 0;
    if (d->n_experts) {
        if (d->n_shared * d->expert_ff > w.ff)
            w.ff = d->n_shared * d->expert_ff;
        mixture = (int64_t)(ash_moe_bytes(&m->moe, 1) / sizeof(float));
    }
    w.shared = attention > 2 * w.ff ? attention : 2 * w.ff;
    w.shared = mixture > w.shared ? mixture : w.shared;
    w.shared += ALIGN; /* of where it begins */
    return w;
}

static int read_sizes(deepseek2 *m, const ash_checkpoint *c, ash_err *err)
{
    ash_hparams *hp = &m->net.hp;
    ash_deepseek2 *d = &m->own;
    int rc;
    if ((rc = ash_hparams_read(c, "deepseek2", ASH_HPARAMS_OWN_HEADS, hp, err)) ||
        (rc = ash_deepseek2_read(c, hp, d, err)))
        return rc;
    m->mla = (ash_mla_shape){.heads = (int)hp->n_heads, .rank = (int)d->kv_lora, .rope = (int)d->rope,
                             .nope = (int)d->nope, .v = (int)d->v, .scale = d->scale, .eps = latent_eps};
    m->moe = (ash_moe_shape){.router = d->router, .embd = hp->n_embd, .inter = d->expert_ff};
    m->net.kv = (ash_kv_shape){.layers = (int)hp->n_layers, .kv_heads = 1,
                               .k_dim = (int)(d->kv_lora + d->rope), .v_dim = (int)d->kv_lora,
                               .v_in_k = true};
    widths w = widths_of(m);
    int64_t floats = 3 * w.embd + w.freq + w.shared;
    m->net.row_bytes = (uint64_t)floats * sizeof(float) + sizeof(ash_row) + sizeof(int32_t);
    return 0;
}

static int plan_into(deepseek2 *m, const ash_checkpoint *c, ash_err *err)
{
    const ash_hparams *hp = &m->net.hp;
    const ash_deepseek2 *d = &m->own;
    m->net.name = name_of(c);
    int rc = read_sizes(m, c, err);
    if (rc)
        return rc;
    m->layers = ash_arena_calloc(&m->net.arena, (size_t)hp->n_layers, sizeof *m->layers);
    if (!m->layers)
        return ash_err_nomem(err, "layers");
    widths w = widths_of(m);
    ash_bind_target t = {.rules = rules,
                         .n_rules = sizeof rules / sizeof *rules,
                         .model = m,
                         .layers = m->layers,
                         .layer_size = sizeof *m->layers,
                         .n_layers = hp->n_layers,
                         .n_dense = d->n_dense,
                         .n_used = d->n_used,
                         .when = (hp->tied ? 0 : IF_UNTIED) | (d->q_lora ? IF_Q_LORA : IF_Q) |
                                 (d->biased ? IF_BIASED & ~ASH_IF_EXPERTS : 0) |
                                 (d->n_shared ? IF_SHARED & ~ASH_IF_EXPERTS : 0)};
    t.dims[ASH_DIM_VOCAB] = hp->n_vocab;
    t.dims[ASH_DIM_EMBD] = w.embd;
    t.dims[ASH_DIM_Q] = w.q;
    t.dims[ASH_DIM_ATTN] = w.attn;
    t.dims[ASH_DIM_FF] = hp->n_ff;
    t.dims[ASH_DIM_EXPERTS] = d->n_experts;
    t.dims[ASH_DIM_EXPERT_FF] = d->expert_ff;
    t.dims[ASH_DIM_SHARED_FF] = d->n_shared * d->expert_ff;
    t.dims[ASH_DIM_HEADS] = hp->n_heads;
    t.dims[ASH_DIM_NOPE] = d->nope;
    t.dims[ASH_DIM_HEAD_V] = d->v;
    t.dims[ASH_DIM_Q_LORA] = d->q_lora;
    t.dims[ASH_DIM_KV_LORA] = d->kv_lora;
    t.dims[ASH_DIM_KV_A] = w.latent;
    return ash_bind_plan(&t, c, &m->net.arena, &m->net.binding, err);
}

static int deepseek2_plan(const ash_checkpoint *c, ash_net **out, ash_err *err)
{
    *out = NULL;
    deepseek2 *m = calloc(1, sizeof *m);
    if (!m)
        return ash_err_nomem(err, "model");
    m->net.arch = &ash_arch_deepseek2;
    ash_arena_init(&m->net.arena, ARENA_MAX);
    int rc = plan_into(m, c, err);
    if (rc) {
        deepseek2_close(&m->net);
        return rc;
    }
    *out = &m->net;
    return 0;
}

/* A rounding error in attention may end in the choice of another expert: it is the smaller part of the
 * work, and done with care. */
static void refine(const deepseek2 *m, layer *l)
{
    l->q.fine = l->q_a.fine = l->q_b.fine = l->kv_a.fine = l->o.fine = true;
    for (int h = 0; h < m->mla.heads; h++) l->mla.k[h].fine = l->mla.v[h].fine = true;
}

static int deepseek2_bind(ash_net *net, void *region, ash_err *err)
{
    deepseek2 *m = (deepseek2 *)net;
    int rc = ash_bind_place(&net->binding, region, err);
    for (int i = 0; i < net->hp.n_layers; i++) {
        refine(m, &m->layers[i]);
        m->layers[i].moe.layer = i;
        m->layers[i].moe.next = i + 1 < net->hp.n_layers ? &m->layers[i + 1].moe : NULL;
    }
    ash_rope_release(&m->rope); /* of an earlier binding */
    return rc ? rc : ash_rope_init(&m->rope, &net->hp.rope, err);
}

/* ---- forward -------------------------------------------------------------------------------- */

/* The scratch of one forward of n rows. */
typedef struct state {
    int n;
    float *latent;    /* [n, kv_lora + rope] */
    float *q_lora;    /* [n, q_lora] */
    float *q;         /* [n, heads * (nope + rope)] */
    float *attn;      /* [n, heads * v] */
    float *mla;       /* [n, ash_mla_floats] */
    float *gate, *up; /* [n, ff], in the place of these; the mixture's scratch too, to the end */
    float *x;         /* [n, embd] residual stream */
    float *h;         /* [n, embd] normed */
    float *d;         /* [n, embd] what a half-layer adds */
    float *cs;        /* [n, rope dims] cosines, sines */
    ash_row *rows;    /* [n] */
    int32_t *pos;     /* [n] */
} state;

static state lay_out(const deepseek2 *m, const ash_run *run, int n)
{
    widths w = widths_of(m);
    state s = {.n = n, .rows = run->scratch};
    s.x = (float *)(s.rows + n);
    s.h = s.x + n * w.embd;
    s.d = s.h + n * w.embd;
    s.cs = s.d + n * w.embd;
    s.pos = (int32_t *)(s.cs + n * w.freq);
    s.latent = (float *)(((uintptr_t)(s.pos + n) + 63) / 64 * 64);
    s.q_lora = s.latent + n * w.latent;
    s.q = s.q_lora + n * w.q_lora;
    s.attn = s.q + n * w.q;
    s.mla = s.attn + n * w.attn;
    s.gate = s.latent;
    s.up = s.gate + n * w.ff;
    return s;
}

/* Goes on with the rows that want logits alone. In the last layer others were wanted for their keys and
 * values only: for a prompt that is the rest of a layer saved. */
static void keep_wanted(const deepseek2 *m, const ash_batch *batch, state *s)
{
    widths w = widths_of(m);
    int n = 0;
    for (int i = 0; i < batch->n; i++) {
        if (!batch->rows[i].wants_logits)
            continue;
        ash_batch_move(s->x, w.embd, n, i);
        ash_batch_move(s->cs, w.freq, n, i);
        ash_batch_move(w.q_lora ? s->q_lora : s->q, w.q_lora ? w.q_lora : w.q, n, i);
        s->rows[n++] = s->rows[i];
    }
    s->n = n;
}

/* Latents of h, which is normed x; those of keys and values into the KV pool. */
static void compress(const deepseek2 *m, ash_run *run, int index, const state *s)
{
    const layer *l = &m->layers[index];
    bool lora = m->own.q_lora > 0;
    ash_linear_run(run->nn, (const ash_linear *[]){lora ? &l->q_a : &l->q, &l->kv_a}, 2, s->h, s->n,
                   (float *[]){lora ? s->q_lora : s->q, s->latent});
    ash_mla_store(run->nn, &m->mla, &l->mla, &m->rope, s->cs, run->kv, index, s->rows, s->n, s->latent);
}

/* d = o(attention(q)). */
static void attend(const deepseek2 *m, ash_run *run, int index, const state *s)
{
    const layer *l = &m->layers[index];
    if (m->own.q_lora) {
        ash_norm_rms(run->nn, s->q_lora, s->q_lora, l->q_norm, s->n, m->own.q_lora, latent_eps);
        ash_linear_run(run->nn, (const ash_linear *[]){&l->q_b}, 1, s->q_lora, s->n, (float *[]){s->q});
    }
    ash_mla_run(run->nn, &m->mla, &l->mla, &m->rope, s->cs, run->kv, index, s->rows, s->n, s->q, s->attn,
                s->mla);
    ash_linear_run(run->nn, (const ash_linear *[]){&l->o}, 1, s->attn, s->n, (float *[]){s->d});
}

/* d = down(silu(gate h) * up h) of the layer's own matrices, if it has any. */
static void feed_forward(const layer *l, ash_run *run, int64_t embd, const state *s)
{
    if (!l->down.w.rows) {
        memset(s->d, 0, (size_t)(s->n * embd) * sizeof *s->d);
        return;
    }
    ash_linear_run(run->nn, (const ash_linear *[]){&l->gate, &l->up}, 2, s->h, s->n,
                   (float *[]){s->gate, s->up});
    ash_act_silu_mul(run->nn, s->gate, s->up, s->n, l->gate.w.rows);
    ash_linear_run(run->nn, (const ash_linear *[]){&l->down}, 1, s->gate, s->n, (float *[]){s->d});
}

static void deepseek2_forward(const ash_net *net, ash_run *run, const ash_batch *batch)
{
    const deepseek2 *m = (const deepseek2 *)net;
    const ash_hparams *hp = &net->hp;
    int64_t embd = hp->n_embd;
    state s = lay_out(m, run, batch->n);
    for (int i = 0; i < s.n; i++) {
        s.rows[i] = (ash_row){.table = batch->rows[i].table, .pos = batch->rows[i].pos};
        s.pos[i] = batch->rows[i].pos;
    }
    ash_batch_embed(run->nn, batch, &m->embed, s.x, embd);
    ash_rope_angles(&m->rope, s.pos, s.n, s.cs);

    for (int i = 0; i < hp->n_layers; i++) {
        const layer *l = &m->layers[i];
        if (ash_run_gives_way(run))
            return;
        if (i == 0)
            ash_norm_rms(run->nn, s.h, s.x, l->attn_norm, s.n, embd, hp->rms_eps);
        else /* x += d of the layer before */
            ash_norm_rms_add(run->nn, s.h, s.x, s.d, l->attn_norm, s.n, embd, hp->rms_eps);
        compress(m, run, i, &s);
        if (i == hp->n_layers - 1)
            keep_wanted(m, batch, &s);
        if (!s.n)
            return;
        attend(m, run, i, &s);
        ash_norm_rms_add(run->nn, s.h, s.x, s.d, l->ffn_norm, s.n, embd, hp->rms_eps);
        feed_forward(l, run, embd, &s);
        if (i >= m->own.n_dense)
            ash_moe_run(run->nn, &m->moe, &l->moe, run->experts, s.h, s.n, s.d, s.latent);
    }

    ash_norm_rms_add(run->nn, s.h, s.x, s.d, m->out_norm, s.n, embd, hp->rms_eps);
    const ash_linear *head = m->head.w.rows ? &m->head : &m->embed;
    ash_linear_run(run->nn, &head, 1, s.h, s.n, &batch->logits);
}

const ash_arch ash_arch_deepseek2 = {.names = "deepseek2 (deepseek_v2, deepseek_v3)",
                                     .match = deepseek2_match,
                                     .plan = deepseek2_plan,
                                     .bind = deepseek2_bind,
                                     .forward = deepseek2_forward,
                                     .close = deepseek2_close};
