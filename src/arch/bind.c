/* Owns the checks between a checkpoint's tensors and an architecture's rules, and the plan of the
 * region. Refuses missing tensors and wrong shapes, by name. One thread. */
#include "arch/bind_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "quant/decode.h"

enum {
    STEP_BYTES = 512 << 10, /* of the file, packed in one call */
    PAGE = 4096, /* experts of at least one start on a page of their own */
    ARENA_MAX = 256 << 20,
    NAME = ASH_MAX_TENSOR_NAME + 64,
};

const char *const bind_dim_names[ASH_DIM_COUNT] = {
    [ASH_DIM_VOCAB] = "vocabulary",
    [ASH_DIM_EMBD] = "embedding",
    [ASH_DIM_Q] = "heads * key length",
    [ASH_DIM_K] = "kv heads * key length",
    [ASH_DIM_V] = "kv heads * value length",
    [ASH_DIM_ATTN] = "heads * value length",
    [ASH_DIM_FF] = "feed-forward",
    [ASH_DIM_FREQ] = "rope dimensions / 2",
    [ASH_DIM_HEAD] = "key length",
    [ASH_DIM_EXPERTS] = "experts",
    [ASH_DIM_EXPERT_FF] = "expert's feed-forward",
    [ASH_DIM_SHARED_FF] = "shared experts' feed-forward",
    [ASH_DIM_HEADS] = "heads",
    [ASH_DIM_NOPE] = "key length without rope",
    [ASH_DIM_HEAD_V] = "value length",
    [ASH_DIM_Q_LORA] = "query rank",
    [ASH_DIM_KV_LORA] = "key and value rank",
    [ASH_DIM_KV_A] = "key and value rank + rope dimensions",
};

const char *bind_path(const bind_plan *p, const ash_tensor *t)
{
    return t ? p->b->index->files[t->file].path : p->c->path;
}

const ash_tensor *bind_find(const bind_plan *p, const char *name)
{
    const ash_tensor_index *index = p->b->index;
    const ash_tensor *t = ash_tensor_find(index, name);
    if (!t && p->c->kind != ASH_CHECKPOINT_GGUF && !strncmp(name, "model.", 6))
        t = ash_tensor_find(index, name + 6);
    if (t) p->known[t - index->tensors] = true;
    return t;
}

uint64_t bind_row_bytes(const ash_tensor *t)
{
    return t->bytes / (ash_tensor_count(t) / t->dims[t->n_dims - 1]);
}

/* ---- items ---------------------------------------------------------------------------------- */

static int check_vector(const bind_plan *p, const ash_bind_rule *r, const ash_tensor *t,
                        ash_err *err)
{
    char shape[96];
    int64_t out = p->t->dims[r->out];
    ash_tensor_declare(t, (uint64_t)out, 0);
    if (t->n_dims != 1 || t->dims[0] != (uint64_t)out)
        return ash_err_set(err, ASH_EFORMAT, "%s: tensor '%s' must be [%lld] (%s), is %s",
                           bind_path(p, t), t->name, (long long)out, bind_dim_names[r->out],
                           ash_tensor_shape(t, shape));
    /* a view with strides is gathered where its floats go (bind_pack.c) */
    bool fits = !t->strides || ash_dtype_get(t->dtype)->block_bytes <= sizeof(float);
    if (ash_quant_supported(t->dtype) && fits) return 0;
    return ash_err_set(err, ASH_EUNSUPPORTED,
                       "%s: tensor '%s' has type %s%s; supported for vectors: floats and GGUF's blocks",
                       bind_path(p, t), t->name, ash_dtype_get(t->dtype)->name,
                       fits ? "" : " and is a view with strides");
}

static int add_vector(bind_plan *p, const ash_bind_rule *r, const ash_tensor *t, void *field,
                      ash_err *err)
{
    int rc = check_vector(p, r, t, err);
    if (rc) return rc;
    int64_t n = p->t->dims[r->out];
    p->b->items[p->b->n_items++] = (ash_bind_item){
        .tensor = t,
        .vector = field,
        .rows = n,
        .cols = 1,
        .optional = r->need == ASH_OPTIONAL,
        .bytes = ((uint64_t)n * sizeof(float) + 63) / 64 * 64,
    };
    p->b->n_params += (uint64_t)n;
    return 0;
}

/* The type that a piece is packed as: the file's, but what cannot be cut or turned as it is becomes
 * floats. */
static ash_dtype packed_type(const bind_plan *p, const bind_source *s, const ash_bind_item *it)
{
    bool plain = ash_dtype_get(s->tensor->dtype)->block == 1 && !s->scales;
    if (it->decoded || (it->transposed && !plain)) return ASH_DTYPE_F32;
    if (s->gptq && (it->rows != s->gptq->out || it->first))
        return ASH_DTYPE_F32; /* some of its columns */
    if (s->scales && !s->gptq && it->first % p->b->quant.block_out)
        return ASH_DTYPE_F32; /* begins within a block */
    return s->tensor->dtype;
}

/* Rows that one call packs, and the memory it works in. */
static void size_step(const bind_plan *p, ash_bind_item *it)
{
    const ash_tensor *t = it->tensor;
    uint64_t row = it->gptq || it->transposed ? 1 : bind_row_bytes(t);
    int64_t step = (int64_t)(STEP_BYTES / row) / ASH_GROUP * ASH_GROUP;
    if (it->gptq) /* whole lines of memory of every one of its rows */
        step = 512;
    step = step < ASH_GROUP ? ASH_GROUP : step;
    if (it->transposed) step = it->rows;
    it->step = step < it->rows ? step : it->rows;
    uint64_t cols = (uint64_t)it->cols, n = (uint64_t)it->step, scratch = 0;
    if (it->scales && !it->gptq) scratch += ash_tensor_count(it->scales) * sizeof(float);
    if (it->decoded || it->transposed) /* the piece and one row of its source */
        scratch +=
            (n * cols + (cols > (uint64_t)it->rows ? cols : (uint64_t)it->rows)) * sizeof(float);
    if (t->strides || it->transposed) scratch += n * bind_row_bytes(t);
    scratch += 4 * 64; /* each part on a line of its own */
    if (scratch > p->b->scratch) p->b->scratch = scratch;
}

/* W [it->rows, it->cols] at `first` of a source; the item's bytes, not yet its offset. */
static int add_matrix(bind_plan *p, const bind_source *s, ash_linear *l, ash_bind_item it,
                      ash_err *err)
{
    it.tensor = s->tensor;
    it.scales = s->scales;
    it.zeros = s->zeros;
    it.gptq = s->gptq;
    it.matrix = l;
    ash_dtype type = packed_type(p, s, &it);
    it.decoded = type != s->tensor->dtype;
    int rc;
    if (it.decoded || !s->scales)
        rc = ash_linear_plan(l, type, it.rows, it.cols, &it.bytes, err);
    else if (s->gptq)
        rc = ash_linear_plan_gptq(l, s->gptq, &it.bytes, err);
    else
        rc = ash_linear_plan_fp8(l, it.rows, it.cols, p->b->quant.block_out, p->b->quant.block_in,
                                 &it.bytes, err);
    if (rc) return ash_err_prefix(err, "%s: tensor '%s'", bind_path(p, s->tensor), s->tensor->name);
    it.apart = it.apart && it.bytes >= PAGE;
    size_step(p, &it);
    if (l->w.cols > p->b->max_in) p->b->max_in = l->w.cols;
    p->b->items[p->b->n_items++] = it;
    p->b->n_params += (uint64_t)it.rows * (uint64_t)it.cols;
    return 0;
}

static int check_matrix(const bind_plan *p, const ash_bind_rule *r, const bind_source *s,
                        ash_err *err)
{
    const ash_tensor *t = s->tensor;
    char shape[96];
    uint64_t out = (uint64_t)p->t->dims[r->out], in = (uint64_t)p->t->dims[r->in];
    if (s->gptq || (t->n_dims == 2 && t->dims[0] == out && t->dims[1] == in)) return 0;
    return ash_err_set(err, ASH_EFORMAT, "%s: tensor '%s' must be [%llu, %llu] (%s, %s), is %s",
                       bind_path(p, t), t->name, (unsigned long long)out, (unsigned long long)in,
                       bind_dim_names[r->out], bind_dim_names[r->in], ash_tensor_shape(t, shape));
}

/* One tensor that holds `count` matrices one after the other. */
static int check_stack(const bind_plan *p, const ash_bind_rule *r, const bind_source *s,
                       ash_err *err)
{
    const ash_tensor *t = s->tensor;
    char shape[96];
    uint64_t count = (uint64_t)p->t->dims[r->count];
    uint64_t out = (uint64_t)p->t->dims[r->out], in = (uint64_t)p->t->dims[r->in];
    if (!s->gptq && !t->strides &&
        ((t->n_dims == 3 && t->dims[0] == count && t->dims[1] == out && t->dims[2] == in) ||
         (t->n_dims == 2 && t->dims[0] == count * out && t->dims[1] == in)))
        return 0;
    return ash_err_set(err, ASH_EFORMAT,
                       "%s: tensor '%s' must be [%llu, %llu, %llu] (%s, %s, %s), is %s",
                       bind_path(p, t), t->name, (unsigned long long)count, (unsigned long long)out,
                       (unsigned long long)in, bind_dim_names[r->count], bind_dim_names[r->out],
                       bind_dim_names[r->in], ash_tensor_shape(t, shape));
}

static int check_kv_b(const bind_plan *p, const bind_source *s, ash_err *err)
{
    const ash_tensor *t = s->tensor;
    const int64_t *d = p->t->dims;
    char shape[96];
    uint64_t rows = (uint64_t)(d[ASH_DIM_HEADS] * (d[ASH_DIM_NOPE] + d[ASH_DIM_HEAD_V]));
    if (s->gptq ||
        (t->n_dims == 2 && t->dims[0] == rows && t->dims[1] == (uint64_t)d[ASH_DIM_KV_LORA]))
        return 0;
    return ash_err_set(
        err, ASH_EFORMAT,
        "%s: tensor '%s' must be [%llu, %lld] (heads * key and value length, %s), is %s",
        bind_path(p, t), t->name, (unsigned long long)rows, (long long)d[ASH_DIM_KV_LORA],
        bind_dim_names[ASH_DIM_KV_LORA], ash_tensor_shape(t, shape));
}

/* The array of a field of several matrices. */
static ash_linear *take_array(bind_plan *p, void *field, int64_t n)
{
    ash_linear *l = ash_arena_calloc(p->arena, (size_t)n, sizeof *l);
    *(ash_linear **)field = l;
    return l;
}

/* ---- rules ---------------------------------------------------------------------------------- */

static bool is_layers(const ash_bind_rule *r)
{
    return strstr(r->gguf ? r->gguf : r->hf, "%u") != NULL;
}

/* The rule's name for this kind of file. */
static const char *format_of(const bind_plan *p, const ash_bind_rule *r)
{
    return p->c->kind == ASH_CHECKPOINT_GGUF ? r->gguf : r->hf;
}

static void spell(const char *format, uint32_t layer, uint32_t expert, char name[NAME])
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(name, NAME, format, layer, expert); /* rules are constants of this program */
#pragma GCC diagnostic pop
}

static bool holds(const bind_plan *p, unsigned conditions, uint32_t layer)
{
    unsigned all = p->t->when | (layer < p->t->n_dense ? ASH_IF_DENSE : ASH_IF_EXPERTS);
    return (conditions & ~all) == 0;
}

static int missing(const bind_plan *p, const char *name, ash_err *err)
{
    return ash_err_set(err, ASH_EFORMAT, "%s: tensor '%s' is missing", bind_path(p, NULL), name);
}

/* Matrix i of a stack, before its source is known. */
static ash_bind_item stacked(const bind_plan *p, const ash_bind_rule *r, uint32_t layer, int64_t i)
{
    return (ash_bind_item){.rows = p->t->dims[r->out],
                           .cols = p->t->dims[r->in],
                           .apart = true,
                           .layer = (int32_t)layer,
                           .expert = r->count == ASH_DIM_EXPERTS ? (int32_t)i + 1 : 0};
}

/* A stack of which each matrix is a tensor of its own; the first is there. */
static int bind_each(bind_plan *p, const ash_bind_rule *r, const char *format, uint32_t layer,
                     ash_linear *l, ash_err *err)
{
    const int64_t *d = p->t->dims;
    char name[NAME];
    for (int64_t e = 0; e < d[r->count]; e++) {
        bind_source s;
        spell(format, layer, (uint32_t)e, name);
        int rc = bind_resolve(p, name, d[r->out], d[r->in], &s, err);
        if (!rc && !s.tensor) rc = missing(p, name, err);
        if (rc || (rc = check_matrix(p, r, &s, err)) ||
            (rc = add_matrix(p, &s, &l[e], stacked(p, r, layer, e), err)))
            return rc;
    }
    return 0;
}

/* Matrices that are parts of one tensor. */
static int bind_parts(bind_plan *p, const ash_bind_rule *r, const bind_source *s, uint32_t layer,
                      ash_linear *l, ash_err *err)
{
    const int64_t *d = p->t->dims;
    bool stack = r->kind == ASH_BIND_STACK;
    int rc = stack ? check_stack(p, r, s, err) : check_kv_b(p, s, err);
    int64_t n = d[stack ? r->count : ASH_DIM_HEADS], head = d[ASH_DIM_NOPE] + d[ASH_DIM_HEAD_V];
    for (int64_t i = 0; i < n && !rc; i++) {
        ash_bind_item it = stacked(p, r, layer, i);
        it.first = i * d[r->out];
        if (r->kind == ASH_BIND_HEADS_K)
            it = (ash_bind_item){.rows = d[ASH_DIM_KV_LORA],
                                 .cols = d[ASH_DIM_NOPE],
                                 .first = i * head,
                                 .transposed = true};
        if (r->kind == ASH_BIND_HEADS_V)
            it = (ash_bind_item){.rows = d[ASH_DIM_HEAD_V],
                                 .cols = d[ASH_DIM_KV_LORA],
                                 .first = i * head + d[ASH_DIM_NOPE]};
        rc = add_matrix(p, s, &l[i], it, err);
    }
    return rc;
}

/* Binds what the rule names; *done tells whether it is there. */
static int bind_rule(bind_plan *p, const ash_bind_rule *r, uint32_t layer, char *base, bool *done,
                     ash_err *err)
{
    const int64_t *d = p->t->dims;
    const char *format = format_of(p, r);
    char name[NAME];
    spell(format, layer, 0, name);
    if (r->kind == ASH_BIND_VECTOR) {
        const ash_tensor *t = bind_find(p, name);
        *done = t != NULL;
        return t ? add_vector(p, r, t, base + r->field, err) : 0;
    }
    bool heads = r->kind == ASH_BIND_HEADS_K || r->kind == ASH_BIND_HEADS_V;
    int64_t out = heads ? d[ASH_DIM_HEADS] * (d[ASH_DIM_NOPE] + d[ASH_DIM_HEAD_V]) : d[r->out];
    int64_t in = heads ? d[ASH_DIM_KV_LORA] : d[r->in];
    bind_source s;
    int rc = bind_resolve(p, name, out, in, &s, err);
    *done = s.tensor != NULL;
    if (rc || !s.tensor) return rc;
    if (r->kind == ASH_BIND_MATRIX || r->kind == ASH_BIND_MATRIX_F32) {
        const ash_bind_item it = {
            .rows = out, .cols = in, .decoded = r->kind == ASH_BIND_MATRIX_F32};
        rc = check_matrix(p, r, &s, err);
        return rc ? rc : add_matrix(p, &s, (ash_linear *)(void *)(base + r->field), it, err);
    }
    ash_linear *l = take_array(p, base + r->field, d[heads ? ASH_DIM_HEADS : r->count]);
    if (!l) return ash_err_nomem(err, "matrices of a layer");
    const char *second = strstr(format, "%u");
    if (second && strstr(second + 2, "%u")) return bind_each(p, r, format, layer, l, err);
    return bind_parts(p, r, &s, layer, l, err);
}

/* Adds items [first, n_items), which are of rule r, to what a token costs. */
static void add_cost(bind_plan *p, const ash_bind_rule *r, size_t first)
{
    ash_binding *b = p->b;
    size_t n = b->n_items - first;
    bool experts = r->kind == ASH_BIND_STACK && r->count == ASH_DIM_EXPERTS;
    if (experts && n > (size_t)p->t->n_used) n = (size_t)p->t->n_used;
    for (const ash_bind_item *it = b->items + first, *end = it + n; it < end; it++) {
        b->step_bytes += it->bytes;
        b->step_expert_bytes += experts ? it->bytes : 0;
        if (r->kind == ASH_BIND_VECTOR) continue;
        if (r->out != ASH_DIM_VOCAB) {
            b->token_params += (uint64_t)it->rows * (uint64_t)it->cols;
            continue;
        }
        b->step_bytes -= b->head_bytes; /* the embedding's, which comes before the head */
        b->head_bytes = it->bytes;
    }
}

/* Rules [first, end): one and its other forms. */
static int bind_forms(bind_plan *p, size_t first, size_t end, uint32_t layer, char *base,
                      ash_err *err)
{
    const ash_bind_rule *rules = p->t->rules;
    const ash_bind_rule *one = &rules[first];
    bool done = false, need = one->need == ASH_REQUIRED || end - first > 1 ||
                              (one->must && holds(p, one->must, layer));
    char name[NAME], lacking[NAME] = "";
    for (size_t i = first; i < end; i++) {
        const char *format = format_of(p, &rules[i]);
        if (!format || !holds(p, rules[i].when, layer)) continue;
        spell(format, layer, 0, name);
        if (done) { /* of two forms, e.g. split and whole, one is enough */
            bind_find(p, name);
            continue;
        }
        size_t before = p->b->n_items;
        int rc = bind_rule(p, &rules[i], layer, base, &done, err);
        if (rc) return rc;
        add_cost(p, &rules[i], before);
        if (!lacking[0]) memcpy(lacking, name, sizeof lacking);
    }
    return done || !need || !lacking[0] ? 0 : missing(p, lacking, err);
}

/* Items at most, of one rule. */
static size_t most_items(const ash_bind_target *t, const ash_bind_rule *r)
{
    size_t n = r->kind == ASH_BIND_STACK ? (size_t)t->dims[r->count]
               : r->kind == ASH_BIND_HEADS_K || r->kind == ASH_BIND_HEADS_V
                   ? (size_t)t->dims[ASH_DIM_HEADS]
                   : 1;
    return is_layers(r) ? n * (size_t)t->n_layers : n;
}

static int bind_rules(bind_plan *p, ash_err *err)
{
    const ash_bind_target *t = p->t;
    for (size_t i = 0, end; i < t->n_rules; i = end) {
        for (end = i + 1; end < t->n_rules && t->rules[end].need == ASH_ELSE;) end++;
        bool layers = is_layers(&t->rules[i]);
        int rc = layers ? 0 : bind_forms(p, i, end, 0, t->model, err);
        for (int64_t layer = 0; layers && layer < t->n_layers && !rc; layer++)
            rc = bind_forms(p, i, end, (uint32_t)layer,
                            (char *)t->layers + (size_t)layer * t->layer_size, err);
        if (rc) return rc;
    }
    return 0;
}

/* ---- the plan ------------------------------------------------------------------------------- */

static int by_place(const void *x, const void *y)
{
    const ash_bind_item *a = x, *b = y;
    if (a->tensor->file != b->tensor->file) return a->tensor->file < b->tensor->file ? -1 : 1;
    if (a->tensor->offset != b->tensor->offset)
        return a->tensor->offset < b->tensor->offset ? -1 : 1;
    return a->first < b->first ? -1 : a->first > b->first;
}

/* Rotation tables that old converters wrote; recomputed here. And the head of a model whose head is its
 * embedding, which PyTorch files hold twice. */
static bool is_redundant(const char *name)
{
    return strstr(name, "rotary_emb.inv_freq") || strstr(name, "attn_rot_embd") ||
           !strcmp(name, "lm_head.weight");
}

/* A layer beyond those that are computed. */
static bool is_beyond(const char *name, int64_t n_layers)
{
    const char *at = strstr(name, "layers.");
    at = !strncmp(name, "blk.", 4) ? name + 4 : at ? at + 7 : NULL;
    return at && *at >= '0' && *at <= '9' && strtoll(at, NULL, 10) >= n_layers;
}

/* Tensors that no rule took: told, as they may be a sign of a newer variant, but no reason to
 * refuse. */
static void warn_leftover(const bind_plan *p)
{
    size_t left = 0;
    const char *first = NULL;
    for (size_t i = 0; i < p->b->index->n_tensors; i++) {
        const char *name = p->b->index->tensors[i].name;
        if (p->known[i] || is_redundant(name) || is_beyond(name, p->t->n_layers)) continue;
        if (!left++) first = name;
    }
    if (left)
        ash_warn("arch", "%s: %zu tensors are not used, the first is '%s'", bind_path(p, NULL),
                 left, first);
}

/* Gives the pieces their places, in the files' order. */
static int lay_out(const bind_plan *p, ash_err *err)
{
    ash_binding *b = p->b;
    qsort(b->items, b->n_items, sizeof *b->items, by_place);
    for (size_t i = 0; i < b->n_items; i++) {
        ash_bind_item *it = &b->items[i];
        if (b->bytes > (uint64_t)INT64_MAX / 2 || it->bytes > (uint64_t)INT64_MAX / 2)
            return ash_err_set(err, ASH_EFORMAT, "%s: weights of more than 2^62 bytes",
                               bind_path(p, NULL));
        it->offset = it->apart ? (b->bytes + PAGE - 1) / PAGE * PAGE : b->bytes;
        b->bytes = it->offset + it->bytes;
    }
    return 0;
}

/* Asks for GPTQ's orders of columns, which planning reads: see want_small of bind_pack.c. */
static void want_orders(const ash_tensor_index *index)
{
    static const char suffix[] = ".g_idx";
    for (size_t i = 0; i < index->n_tensors; i++) {
        const ash_tensor *t = &index->tensors[i];
        size_t n = strlen(t->name);
        if (n >= sizeof suffix && !strcmp(t->name + n - (sizeof suffix - 1), suffix))
            ash_tensor_want(index, t, 0, t->bytes);
    }
}

int ash_bind_plan(const ash_bind_target *t, const ash_checkpoint *c, ash_arena *arena,
                  ash_binding *out, ash_err *err)
{
    bind_plan p = {.t = t, .c = c, .b = out, .arena = arena};
    *out = (ash_binding){.index = c->tensors};
    ash_arena_init(&out->arena, ARENA_MAX);
    int rc = ash_quantization_read(c, &out->quant, err);
    if (rc) return rc;
    size_t most = 0;
    for (size_t i = 0; i < t->n_rules; i++) most += most_items(t, &t->rules[i]);
    out->items = ash_arena_calloc(&out->arena, most, sizeof *out->items);
    p.known = calloc(c->tensors->n_tensors + 1, sizeof *p.known);
    if (!out->items || !p.known) rc = ash_err_nomem(err, "tensor table");
    want_orders(c->tensors);
    if (!rc) rc = bind_rules(&p, err);
    if (!rc) rc = lay_out(&p, err);
    if (!rc) warn_leftover(&p);
    free(p.known);
    if (rc)
        ash_bind_release(out);
    return rc;
}

void ash_bind_release(ash_binding *b)
{
    ash_arena_release(&b->arena);
    b->items = NULL;
    b->n_items = 0;
    b->index = NULL;
}
