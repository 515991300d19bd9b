/* GGUF bytes -> metadata and tensors, read in full as the program would -> a tokenizer if there is one,
 * that encodes and decodes. What was accepted must hold: ranges inside the file, ids inside the
 * vocabulary. */
#include <stdint.h>
#include <stdlib.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t sum; /* so that reads are not optimised away */

static void touch(const uint8_t *p, uint64_t n)
{
    if (n)
        sum += (uint64_t)p[0] + p[n / 2] + p[n - 1];
}

static void read_pair(const ash_gguf *g, const ash_gguf_kv *kv)
{
    char key[80];
    ash_str s;
    uint64_t at = 0;
    touch((const uint8_t *)kv->key.p, kv->key.n);
    touch(kv->data, kv->bytes);
    (void)ash_gguf_show(kv->key, key);
    if (kv->type != ASH_GGUF_ARRAY)
        return;
    for (uint64_t i = 0; i < kv->array.n && i < 1000; i++)
        sum += (uint64_t)ash_gguf_array_i64(&kv->array, i) +
               (ash_gguf_array_f64(&kv->array, i) > 0 ? 1 : 0);
    while (ash_gguf_array_next_str(&kv->array, &at, &s)) touch((const uint8_t *)s.p, s.n);
}

static void read_known_keys(const ash_gguf *g)
{
    static const char *const keys[] = {"general.alignment", "general.architecture", "k", "s", "a",
                                       "tokenizer.ggml.bos_token_id", "tokenizer.ggml.scores"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        ash_err err = ASH_ERR_INIT;
        uint64_t u = 0;
        int64_t n = 0;
        double f = 0;
        bool b = false;
        ash_str s;
        ash_gguf_array a;
        int rc = ash_gguf_get_u64(g, keys[i], 1, 100, &u, &err) |
                 ash_gguf_get_i64(g, keys[i], -5, 5, &n, &err) |
                 ash_gguf_get_f64(g, keys[i], &f, &err) | ash_gguf_get_bool(g, keys[i], &b, &err) |
                 ash_gguf_need_str(g, keys[i], &s, &err) |
                 ash_gguf_need_array(g, keys[i], ASH_GGUF_F64, &a, &err);
        if (rc && !err.msg[0])
            abort();
        if (u > 100 || n < -5 || n > 5)
            abort();
    }
}

static void run_tokenizer(const ash_gguf *g)
{
    static const char text[] = "Hello <s>world</s> 123\n\n  \xe4\xbd\xa0\xf0\x9f\x98\x80 aaaa\xff it's";
    static const ash_span spans[] = {{2, 7}, {20, 30}};
    ash_tokenizer *t;
    ash_err err = ASH_ERR_INIT;
    ash_ids ids = ASH_IDS_INIT;
    ash_buf out;
    ash_detok d;
    if (ash_tokenizer_open_gguf(g, &t, &err)) {
        if (!err.msg[0])
            abort();
        return;
    }
    ash_buf_init(&out, 1u << 20);
    ash_detok_init(&d, t, ASH_DETOK_SPECIAL);
    if (ash_tokenizer_encode(t, text, sizeof text - 1, ASH_ENCODE_SPECIAL | ASH_ENCODE_BOS_EOS, spans,
                             2, &ids, &err) == 0)
        for (size_t i = 0; i < ids.n; i++) {
            if (ids.p[i] < 0 || (size_t)ids.p[i] >= ash_tokenizer_n_vocab(t))
                abort();
            sum += (uint64_t)ash_detok_push(&d, ids.p[i], &out);
        }
    sum += (uint64_t)ash_detok_flush(&d, &out);
    ash_ids_release(&ids);
    ash_buf_release(&out);
    ash_tokenizer_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ash_gguf *g;
    ash_err err = ASH_ERR_INIT;
    if (ash_gguf_open_memory(data, size, "input", &g, &err)) {
        if (!err.msg[0] || err.pos > (int64_t)size)
            abort();
        return 0;
    }
    const ash_tensor_index *idx = ash_gguf_tensors(g);
    for (size_t i = 0; i < idx->n_tensors; i++) {
        char shape[96];
        const ash_tensor *t = &idx->tensors[i];
        if (t->offset > size || t->bytes > size - t->offset ||
            ash_tensor_find(idx, t->name) != t || !ash_tensor_shape(t, shape)[0])
            abort();
        touch(ash_tensor_data(idx, t), t->bytes);
    }
    for (size_t i = 0; i < ash_gguf_kv_count(g); i++) read_pair(g, ash_gguf_kv_at(g, i));
    read_known_keys(g);
    run_tokenizer(g);
    ash_gguf_close(g);
    return 0;
}
