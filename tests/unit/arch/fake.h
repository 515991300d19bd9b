/* A checkpoint of Hugging Face's kind in memory: configuration as text, tensors by name with data of
 * zeros to fill in. Tests only. */
#ifndef ASHLEY_TESTS_FAKE_H
#define ASHLEY_TESTS_FAKE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/arch.h"

enum { FAKE_BYTES = 1 << 20, FAKE_TENSORS = 128 };

typedef struct fake {
    ash_checkpoint c;
    ash_tensor_index index;
    ash_tensor tensors[FAKE_TENSORS];
    char names[FAKE_TENSORS][128];
    ash_tensor_file file;
    uint8_t *data; /* FAKE_BYTES */
    size_t used;
} fake;

static inline json_t *fake_json(const char *text)
{
    json_error_t why;
    json_t *v = text ? json_loads(text, JSON_DECODE_ANY, &why) : NULL;
    if (text && !v) {
        fprintf(stderr, "%s: %s\n", text, why.text);
        abort();
    }
    return v;
}

/* config: JSON text; change: members to set in it; quant: the settings' text. The last two may be NULL. */
static inline void fake_init(fake *f, const char *config, const char *change, const char *quant)
{
    memset(f, 0, sizeof *f);
    f->data = calloc(1, FAKE_BYTES);
    f->file = (ash_tensor_file){"mem.safetensors", {f->data, FAKE_BYTES, -1}};
    json_t *base = fake_json(config), *more = fake_json(change);
    json_object_update(base, more);
    json_decref(more);
    f->c = (ash_checkpoint){.kind = ASH_CHECKPOINT_SAFETENSORS, .path = "mem.safetensors", .dir = "dir",
                            .tensors = &f->index, .config = base, .quant = fake_json(quant),
                            .quant_from = "quantize_config.json", .note = ""};
    ash_tensor_index_init(&f->index, 1 << 20);
    f->index.tensors = f->tensors;
    f->index.files = &f->file;
    f->index.n_files = 1;
}

/* Adds a tensor [rows, cols], or [rows] with cols 0; its data, zeros. */
static inline void *fake_add(fake *f, const char *name, ash_dtype type, uint64_t rows, uint64_t cols)
{
    ash_tensor *t = &f->tensors[f->index.n_tensors];
    snprintf(f->names[f->index.n_tensors], sizeof f->names[0], "%s", name);
    *t = (ash_tensor){.name = f->names[f->index.n_tensors++], .dtype = type, .n_dims = cols ? 2 : 1,
                      .dims = {rows, cols ? cols : 1, 1, 1}, .offset = f->used};
    if (!ash_dtype_bytes(type, rows * (cols ? cols : 1), &t->bytes) || f->used + t->bytes + 2 > FAKE_BYTES ||
        f->index.n_tensors == FAKE_TENSORS)
        abort();
    f->used += t->bytes + (t->bytes + 1) % 2; /* at odd places, too: files align nothing */
    return f->data + t->offset;
}

static inline ash_tensor *fake_tensor(fake *f, const char *name)
{
    for (size_t i = 0; i < f->index.n_tensors; i++)
        if (!strcmp(f->tensors[i].name, name))
            return &f->tensors[i];
    return NULL;
}

/* Takes one out. */
static inline void fake_drop(fake *f, const char *name)
{
    ash_tensor *t = fake_tensor(f, name);
    if (t)
        f->names[t - f->tensors][0] = '-';
}

static inline void fake_release(fake *f)
{
    json_decref((json_t *)f->c.config);
    json_decref((json_t *)f->c.quant);
    f->index.n_files = 0;
    ash_arena_release(&f->index.arena);
    free(f->data);
}

#define FAKE_LLAMA                                                                                        \
    "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,"        \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":48,\"hidden_act\":\"silu\","        \
    "\"max_position_embeddings\":128,\"tie_word_embeddings\":true}"

enum { FAKE_EMBD = 64, FAKE_FF = 96, FAKE_KV = 32, FAKE_VOCAB = 48 };

/* The tensors of FAKE_LLAMA, names with a prefix ("model." or ""), 16-bit zeros. */
static inline void fake_llama(fake *f, const char *prefix)
{
    static const struct {
        const char *name;
        uint64_t rows, cols;
    } own[] = {{"input_layernorm.weight", FAKE_EMBD, 0},
               {"self_attn.q_proj.weight", FAKE_EMBD, FAKE_EMBD},
               {"self_attn.k_proj.weight", FAKE_KV, FAKE_EMBD},
               {"self_attn.v_proj.weight", FAKE_KV, FAKE_EMBD},
               {"self_attn.o_proj.weight", FAKE_EMBD, FAKE_EMBD},
               {"post_attention_layernorm.weight", FAKE_EMBD, 0},
               {"mlp.gate_proj.weight", FAKE_FF, FAKE_EMBD},
               {"mlp.up_proj.weight", FAKE_FF, FAKE_EMBD},
               {"mlp.down_proj.weight", FAKE_EMBD, FAKE_FF}};
    char name[96];
    snprintf(name, sizeof name, "%sembed_tokens.weight", prefix);
    fake_add(f, name, ASH_DTYPE_BF16, FAKE_VOCAB, FAKE_EMBD);
    for (int layer = 0; layer < 2; layer++)
        for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
            snprintf(name, sizeof name, "%slayers.%d.%s", prefix, layer, own[i].name);
            fake_add(f, name, ASH_DTYPE_BF16, own[i].rows, own[i].cols);
        }
    snprintf(name, sizeof name, "%snorm.weight", prefix);
    fake_add(f, name, ASH_DTYPE_F32, FAKE_EMBD, 0);
}

/* Plans; *net is closed by the caller. */
static inline int fake_plan(fake *f, ash_net **net, ash_err *err)
{
    const ash_arch *arch;
    *net = NULL;
    int rc = ash_tensor_index_seal(&f->index, err);
    if (!rc)
        rc = ash_arch_find(&f->c, &arch, err);
    return rc ? rc : arch->plan(&f->c, net, err);
}

#endif
