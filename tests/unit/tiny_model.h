/* Makes small Llama checkpoints with random weights for tests, whole or wrong in one chosen way.
 * Not for the program. */
#ifndef ASHLEY_TESTS_TINY_MODEL_H
#define ASHLEY_TESTS_TINY_MODEL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "format/gguf_writer.h"

/* A key to write otherwise. */
typedef struct tiny_key {
    const char *key;
    uint32_t type; /* an ash_gguf_type; ASH_GGUF_ARRAY leaves the key out */
    uint64_t i;
    double f;
    const char *s;
} tiny_key;

typedef struct tiny_model {
    uint32_t layers, embd, heads, kv_heads, ff, vocab, ctx;
    ash_dtype type;        /* of the matrices: F32, BF16 or Q8_0 */
    bool tied, tokenizer;
    const char *template;
    uint64_t seed;
    /* wrong on purpose */
    const char *omit;      /* tensor left out */
    const char *reshape;   /* tensor with its last dimension 32 longer (vectors: 1) */
    const char *retype;    /* tensor said to be of type Q8_K, 292 bytes for 256 */
    const char *extra;     /* tensor of 8 floats that nobody wants */
    const char *poison;    /* vector whose first element is NaN */
    const tiny_key *keys;  /* overrides, n_keys */
    size_t n_keys;
} tiny_model;

#define TINY_DEFAULT                                                                                 \
    ((tiny_model){.layers = 2, .embd = 64, .heads = 4, .kv_heads = 2, .ff = 96, .vocab = 300,         \
                  .ctx = 512, .type = ASH_DTYPE_F32, .tied = true, .seed = 1})

typedef struct tiny_state {
    const tiny_model *m;
    ash_buf kv, info, data;
    uint64_t n_kv, n_tensors;
    ash_rng rng;
} tiny_state;

static inline bool tiny_overridden(tiny_state *s, const char *key)
{
    for (size_t i = 0; i < s->m->n_keys; i++) {
        const tiny_key *k = &s->m->keys[i];
        if (strcmp(k->key, key))
            continue;
        s->n_kv += k->type != ASH_GGUF_ARRAY;
        switch (k->type) {
        case ASH_GGUF_ARRAY: break;
        case ASH_GGUF_STRING: gw_kv_str(&s->kv, key, k->s); break;
        case ASH_GGUF_F32: gw_key(&s->kv, key, ASH_GGUF_F32), gw_f32(&s->kv, (float)k->f); break;
        default: gw_kv_int(&s->kv, key, ASH_GGUF_U32, k->i, 4);
        }
        return true;
    }
    s->n_kv++;
    return false;
}

static inline void tiny_int(tiny_state *s, const char *key, uint64_t v)
{
    if (!tiny_overridden(s, key))
        gw_kv_int(&s->kv, key, ASH_GGUF_U32, v, 4);
}

static inline void tiny_real(tiny_state *s, const char *key, double v)
{
    if (!tiny_overridden(s, key))
        gw_key(&s->kv, key, ASH_GGUF_F32), gw_f32(&s->kv, (float)v);
}

static inline void tiny_str(tiny_state *s, const char *key, const char *v)
{
    if (!tiny_overridden(s, key))
        gw_kv_str(&s->kv, key, v);
}

/* Values near `mean`, spread by `scale`, in the type's own blocks. */
static inline void tiny_fill(tiny_state *s, ash_dtype t, uint64_t n, double mean, double scale)
{
    for (uint64_t i = 0; i < n; i++) {
        float v = (float)(mean + scale * (ash_rng_f64(&s->rng) - 0.5));
        uint32_t bits;
        memcpy(&bits, &v, 4);
        if (t == ASH_DTYPE_Q8_0) {
            if (i % 32 == 0)
                gw_int(&s->data, 0x1400 + (ash_rng_u64(&s->rng) & 0x1ff), 2); /* about 1/1000 */
            int q = (int)(ash_rng_u64(&s->rng) % 255) - 127;
            gw_int(&s->data, (uint64_t)q & 0xff, 1);
        } else if (t == ASH_DTYPE_BF16) {
            gw_int(&s->data, bits >> 16, 2);
        } else {
            gw_int(&s->data, bits, 4);
        }
    }
    gw_pad(&s->data, 32);
}

static inline void tiny_tensor(tiny_state *s, const char *name, uint64_t out, uint64_t in)
{
    const tiny_model *m = s->m;
    ash_dtype t = in ? m->type : ASH_DTYPE_F32;
    if (m->omit && !strcmp(m->omit, name))
        return;
    if (m->reshape && !strcmp(m->reshape, name)) {
        if (in)
            in += 32;
        else
            out++;
    }
    uint64_t at = s->data.len, dims[2] = {in ? in : out, out};
    s->n_tensors++;
    if (m->retype && !strcmp(m->retype, name)) {
        dims[0] = 256;
        dims[1] = 1;
        gw_tensor(&s->info, name, 2, dims, ASH_DTYPE_Q8_K, at);
        gw_zeros(&s->data, 292);
        gw_pad(&s->data, 32);
        return;
    }
    gw_tensor(&s->info, name, in ? 2 : 1, dims, t, at);
    tiny_fill(s, t, in ? in * out : out, in ? 0 : 1, in ? 0.6 : 0.2);
    if (m->poison && !strcmp(m->poison, name))
        memcpy(s->data.data + at, "\0\0\xc0\x7f", 4);
}

static inline void tiny_block(tiny_state *s, uint32_t layer)
{
    const tiny_model *m = s->m;
    uint64_t d = m->embd, kv = d / m->heads * m->kv_heads;
    char n[64];
#define TINY_NAME(what) (snprintf(n, sizeof n, "blk.%u." what, layer), n)
    tiny_tensor(s, TINY_NAME("attn_norm.weight"), d, 0);
    tiny_tensor(s, TINY_NAME("attn_q.weight"), d, d);
    tiny_tensor(s, TINY_NAME("attn_k.weight"), kv, d);
    tiny_tensor(s, TINY_NAME("attn_v.weight"), kv, d);
    tiny_tensor(s, TINY_NAME("attn_output.weight"), d, d);
    tiny_tensor(s, TINY_NAME("ffn_norm.weight"), d, 0);
    tiny_tensor(s, TINY_NAME("ffn_gate.weight"), m->ff, d);
    tiny_tensor(s, TINY_NAME("ffn_up.weight"), m->ff, d);
    tiny_tensor(s, TINY_NAME("ffn_down.weight"), d, m->ff);
#undef TINY_NAME
}

/* A SentencePiece vocabulary: unknown, BOS, EOS, all bytes, then letters. */
static inline void tiny_vocab(tiny_state *s)
{
    uint32_t n = s->m->vocab;
    char text[16];
    tiny_str(s, "tokenizer.ggml.model", "llama");
    tiny_int(s, "tokenizer.ggml.bos_token_id", 1);
    tiny_int(s, "tokenizer.ggml.eos_token_id", 2);
    tiny_int(s, "tokenizer.ggml.unknown_token_id", 0);
    s->n_kv += 3;
    gw_array(&s->kv, "tokenizer.ggml.tokens", ASH_GGUF_STRING, n);
    for (uint32_t i = 0; i < n; i++) {
        if (i < 3)
            snprintf(text, sizeof text, "%s", i == 0 ? "<unk>" : i == 1 ? "<s>" : "</s>");
        else if (i < 259)
            snprintf(text, sizeof text, "<0x%02X>", (unsigned)(i - 3));
        else if (i < 285)
            snprintf(text, sizeof text, "%c", (char)('a' + (i - 259)));
        else if (i == 285)
            snprintf(text, sizeof text, "\xe2\x96\x81"); /* a space */
        else
            snprintf(text, sizeof text, "w%u", i);
        gw_str(&s->kv, text);
    }
    gw_array(&s->kv, "tokenizer.ggml.scores", ASH_GGUF_F32, n);
    for (uint32_t i = 0; i < n; i++) gw_f32(&s->kv, (float)-(int)i);
    gw_array(&s->kv, "tokenizer.ggml.token_type", ASH_GGUF_I32, n);
    for (uint32_t i = 0; i < n; i++)
        gw_int(&s->kv, i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1, 4);
    if (s->m->template)
        tiny_str(s, "tokenizer.chat_template", s->m->template);
}

/* The checkpoint's bytes; release out. */
static inline void tiny_build(const tiny_model *m, ash_buf *out)
{
    tiny_state s = {.m = m};
    const uint64_t extra_dims[] = {8};
    ash_buf_init(out, 64u << 20);
    ash_buf_init(&s.kv, 64u << 20);
    ash_buf_init(&s.info, 64u << 20);
    ash_buf_init(&s.data, 64u << 20);
    ash_rng_init(&s.rng, m->seed);
    tiny_str(&s, "general.architecture", "llama");
    tiny_str(&s, "general.name", "tiny");
    tiny_int(&s, "llama.block_count", m->layers);
    tiny_int(&s, "llama.embedding_length", m->embd);
    tiny_int(&s, "llama.feed_forward_length", m->ff);
    tiny_int(&s, "llama.context_length", m->ctx);
    tiny_int(&s, "llama.attention.head_count", m->heads);
    tiny_int(&s, "llama.attention.head_count_kv", m->kv_heads);
    tiny_real(&s, "llama.attention.layer_norm_rms_epsilon", 1e-5);
    tiny_real(&s, "llama.rope.freq_base", 10000);
    for (size_t i = 0; i < m->n_keys; i++) { /* keys that the above does not write */
        const char *k = m->keys[i].key;
        if (!strncmp(k, "llama.rope.scal", 15) || strstr(k, "_length_") || strstr(k, "key_length") ||
            strstr(k, "value_length") || strstr(k, "dimension_count") || strstr(k, "expert") ||
            strstr(k, "sliding"))
            tiny_overridden(&s, k);
    }
    if (m->tokenizer)
        tiny_vocab(&s);
    tiny_tensor(&s, "token_embd.weight", m->vocab, m->embd);
    for (uint32_t i = 0; i < m->layers; i++) tiny_block(&s, i);
    tiny_tensor(&s, "output_norm.weight", m->embd, 0);
    if (!m->tied)
        tiny_tensor(&s, "output.weight", m->vocab, m->embd);
    if (m->extra) {
        s.n_tensors++;
        gw_tensor(&s.info, m->extra, 1, extra_dims, ASH_DTYPE_F32, s.data.len);
        tiny_fill(&s, ASH_DTYPE_F32, 8, 0, 1);
    }
    gw_header(out, 3, s.n_tensors, s.n_kv);
    ash_buf_add(out, s.kv.data, s.kv.len);
    ash_buf_add(out, s.info.data, s.info.len);
    gw_pad(out, 32);
    ash_buf_add(out, s.data.data, s.data.len);
    ash_buf_release(&s.kv);
    ash_buf_release(&s.info);
    ash_buf_release(&s.data);
}

/* The same as a file; path[] gets a fresh name, to be unlinked. False if it cannot be written. */
static inline bool tiny_file(const tiny_model *m, char path[64])
{
    ash_buf b;
    tiny_build(m, &b);
    snprintf(path, 64, "/tmp/ashley-tiny-XXXXXX");
    int fd = mkstemp(path);
    bool ok = fd >= 0 && write(fd, b.data, b.len) == (ssize_t)b.len;
    if (fd >= 0)
        close(fd);
    ash_buf_release(&b);
    return ok;
}

#endif
