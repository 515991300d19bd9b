/* Opens tokenizers for tests: the fixtures of tests/golden/tokenizer, also under another `pre`, and
 * vocabularies written on the spot. */
#ifndef ASHLEY_TESTS_TOKENIZER_FIXTURE_H
#define ASHLEY_TESTS_TOKENIZER_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>

#include "../format/gguf_writer.h"
#include "text/tokenizer.h"

static inline const char *fixture_path(const char *name, char out[512])
{
    const char *dir = getenv("ASHLEY_TEST_DATA");
    snprintf(out, 512, "%s/tokenizer/%s", dir ? dir : "tests/golden", name);
    return out;
}

static inline int open_gguf_bytes(const ash_buf *b, ash_tokenizer **t, ash_err *err)
{
    ash_gguf *g;
    int rc = ash_gguf_open_memory(b->data, b->len, "test.gguf", &g, err);
    if (rc)
        return rc;
    rc = ash_tokenizer_open_gguf(g, t, err);
    ash_gguf_close(g);
    return rc;
}

static inline int open_file(const char *path, ash_tokenizer **t, ash_err *err)
{
    ash_gguf *g;
    int rc = ash_gguf_open(path, &g, err);
    if (rc)
        return rc;
    rc = ash_tokenizer_open_gguf(g, t, err);
    ash_gguf_close(g);
    return rc;
}

static inline void copy_array(ash_buf *b, const ash_gguf *g, const char *key)
{
    const ash_gguf_kv *kv = ash_gguf_find(g, key);
    gw_array(b, key, kv->array.type, kv->array.n);
    ash_buf_add(b, kv->array.data, (size_t)kv->array.bytes);
}

/* bpe.gguf with another pre-tokeniser. */
static inline int open_bpe_as(const char *pre, ash_tokenizer **t, ash_err *err)
{
    char path[512];
    ash_gguf *g;
    ash_buf b;
    int rc = ash_gguf_open(fixture_path("bpe.gguf", path), &g, err);
    if (rc)
        return rc;
    ash_buf_init(&b, 1u << 20);
    gw_header(&b, 3, 0, 5);
    gw_kv_str(&b, "tokenizer.ggml.model", "gpt2");
    gw_kv_str(&b, "tokenizer.ggml.pre", pre);
    copy_array(&b, g, "tokenizer.ggml.tokens");
    copy_array(&b, g, "tokenizer.ggml.token_type");
    copy_array(&b, g, "tokenizer.ggml.merges");
    ash_gguf_close(g);
    rc = open_gguf_bytes(&b, t, err);
    ash_buf_release(&b);
    return rc;
}

/* A vocabulary written on the spot. Lists end with NULL; types default to 1. */
typedef struct made_vocab {
    const char *model, *pre;
    const char *const *tokens;
    const int *types;
    const float *scores; /* written when given */
    const char *const *merges;
    void (*more)(ash_buf *b); /* writes n_more further keys */
    int n_more;
} made_vocab;

static inline size_t list_length(const char *const *list)
{
    size_t n = 0;
    while (list && list[n]) n++;
    return n;
}

static inline void write_vocab(const made_vocab *v, ash_buf *b)
{
    size_t n = list_length(v->tokens);
    ash_buf_init(b, 1u << 20);
    gw_header(b, 3, 0, (uint64_t)(1 + !!v->pre + !!v->tokens + !!v->types + !!v->scores +
                                  !!v->merges + v->n_more));
    gw_kv_str(b, "tokenizer.ggml.model", v->model);
    if (v->pre)
        gw_kv_str(b, "tokenizer.ggml.pre", v->pre);
    if (v->tokens)
        gw_kv_strs(b, "tokenizer.ggml.tokens", v->tokens, n);
    if (v->types) {
        gw_array(b, "tokenizer.ggml.token_type", ASH_GGUF_I32, n);
        for (size_t i = 0; i < n; i++) gw_int(b, (uint64_t)v->types[i], 4);
    }
    if (v->scores) {
        gw_array(b, "tokenizer.ggml.scores", ASH_GGUF_F32, n);
        for (size_t i = 0; i < n; i++) gw_f32(b, v->scores[i]);
    }
    if (v->merges)
        gw_kv_strs(b, "tokenizer.ggml.merges", v->merges, list_length(v->merges));
    if (v->more)
        v->more(b);
}

static inline int open_made(const made_vocab *v, ash_tokenizer **t, ash_err *err)
{
    ash_buf b;
    write_vocab(v, &b);
    int rc = open_gguf_bytes(&b, t, err);
    ash_buf_release(&b);
    return rc;
}

#endif
