/* Owns random GPTQ checkpoints: safetensors in a memfd, in a folder of its own with config.json. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/rng.h"
#include "cli/synthetic_private.h"
#include "quant/half.h"

enum { GROUP = 128, PATTERN = 1 << 18, MAX_TENSORS = 2048 };

typedef enum kind {
    WORDS,  /* I32, any bits */
    ZEROS,  /* I32: 8 everywhere, as version 1 stores it */
    SCALES, /* F16 of about 0.0043: values of 4 bits then have a deviation of about 0.02 */
    ORDER,  /* I32: the group of each input */
    WEIGHT, /* F16, deviation 0.02 */
    ONES,   /* F16 */
} kind;

typedef struct writer {
    ash_buf head; /* JSON */
    bool act_order;
    struct {
        kind what;
        uint64_t at, count;
    } tensors[MAX_TENSORS];
    size_t n;
    uint64_t bytes; /* of the tensors so far */
} writer;

static void tensor(writer *w, const char *module, const char *name, kind what, uint64_t rows,
                   uint64_t cols)
{
    bool half = what == SCALES || what == WEIGHT || what == ONES;
    uint64_t count = rows * (cols ? cols : 1), bytes = count * (half ? 2 : 4);
    if (w->n == MAX_TENSORS) {
        w->head.failed = ASH_ELIMIT;
        return;
    }
    ash_buf_printf(&w->head, "%s\"%s%s\":{\"dtype\":\"%s\",\"shape\":[%llu", w->n ? "," : "{",
                   module, name, half ? "F16" : "I32", (unsigned long long)rows);
    if (cols) ash_buf_printf(&w->head, ",%llu", (unsigned long long)cols);
    ash_buf_printf(&w->head, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)w->bytes,
                   (unsigned long long)(w->bytes + bytes));
    w->tensors[w->n].what = what;
    w->tensors[w->n].at = w->bytes;
    w->tensors[w->n++].count = count;
    w->bytes += bytes;
}

static void linear(writer *w, uint32_t layer, const char *name, uint64_t out, uint64_t in)
{
    char module[64];
    uint64_t groups = (in + GROUP - 1) / GROUP;
    snprintf(module, sizeof module, "model.layers.%u.%s.", layer, name);
    tensor(w, module, "qweight", WORDS, in / 8, out);
    tensor(w, module, "qzeros", ZEROS, groups, out / 8);
    tensor(w, module, "scales", SCALES, groups, out);
    tensor(w, module, "g_idx", ORDER, in, 0);
}

static void describe(writer *w, const ash_synthetic_shape *s)
{
    uint64_t d = s->embd, kv = d / s->heads * s->kv_heads;
    tensor(w, "model.", "embed_tokens.weight", WEIGHT, s->vocab, d);
    for (uint32_t i = 0; i < s->layers; i++) {
        char layer[32];
        snprintf(layer, sizeof layer, "model.layers.%u.", i);
        linear(w, i, "self_attn.q_proj", d, d);
        linear(w, i, "self_attn.k_proj", kv, d);
        linear(w, i, "self_attn.v_proj", kv, d);
        linear(w, i, "self_attn.o_proj", d, d);
        linear(w, i, "mlp.gate_proj", s->ffn, d);
        linear(w, i, "mlp.up_proj", s->ffn, d);
        linear(w, i, "mlp.down_proj", d, s->ffn);
        tensor(w, layer, "input_layernorm.weight", ONES, d, 0);
        tensor(w, layer, "post_attention_layernorm.weight", ONES, d, 0);
    }
    tensor(w, "model.", "norm.weight", ONES, d, 0);
    if (!s->tied) tensor(w, "", "lm_head.weight", WEIGHT, s->vocab, d);
    ash_buf_addc(&w->head, '}');
    while (w->head.len % 8 && !w->head.failed) ash_buf_addc(&w->head, ' ');
}

static void order(uint8_t *to, uint64_t n, bool act_order, ash_rng *rng)
{
    for (uint64_t i = 0; i < n; i++) {
        uint32_t group = (uint32_t)(i / GROUP);
        memcpy(to + 4 * i, &group, 4);
    }
    for (uint64_t i = n - 1; act_order && i > 0; i--) {
        uint64_t k = ash_rng_u64(rng) % (i + 1);
        uint8_t a[4];
        memcpy(a, to + 4 * i, 4);
        memcpy(to + 4 * i, to + 4 * k, 4);
        memcpy(to + 4 * k, a, 4);
    }
}

static void repeat(uint8_t *to, uint64_t bytes, const uint8_t *pattern, uint64_t size)
{
    for (uint64_t at = 0; at < bytes; at += size)
        memcpy(to + at, pattern + at % size, bytes - at < size ? bytes - at : size);
}

/* The patterns: words, scales, weights, PATTERN halves or words each. */
static uint8_t *make_patterns(ash_rng *rng)
{
    uint8_t *p = malloc(8 * (size_t)PATTERN);
    for (size_t i = 0; p && i < PATTERN; i++) {
        uint32_t word = (uint32_t)ash_rng_u64(rng);
        uint16_t scale = ash_f16_from_f32(0.0043f * (float)(0.8 + 0.4 * ash_rng_f64(rng)));
        uint16_t weight = ash_f16_from_f32((float)(ash_rng_f64(rng) - 0.5) * 0.07f);
        memcpy(p + 4 * i, &word, 4);
        memcpy(p + 4 * PATTERN + 2 * i, &scale, 2);
        memcpy(p + 6 * PATTERN + 2 * i, &weight, 2);
    }
    return p;
}

static void fill(const writer *w, uint8_t *data, const uint8_t *patterns, ash_rng *rng)
{
    static const uint8_t sevens[4] = {0x77, 0x77, 0x77, 0x77}, one[2] = {0x00, 0x3C};
    for (size_t i = 0; i < w->n; i++) {
        uint8_t *to = data + w->tensors[i].at;
        uint64_t n = w->tensors[i].count;
        switch (w->tensors[i].what) {
        case WORDS:
            repeat(to, 4 * n, patterns, 4 * PATTERN);
            break;
        case ZEROS:
            repeat(to, 4 * n, sevens, 4);
            break;
        case SCALES:
            repeat(to, 2 * n, patterns + 4 * PATTERN, 2 * PATTERN);
            break;
        case WEIGHT:
            repeat(to, 2 * n, patterns + 6 * PATTERN, 2 * PATTERN);
            break;
        case ONES:
            repeat(to, 2 * n, one, 2);
            break;
        case ORDER:
            order(to, n, w->act_order, rng);
            break;
        }
    }
}

static int write_weights(const writer *w, int fd, ash_err *err)
{
    ash_rng rng;
    ash_rng_init(&rng, 12345);
    uint64_t n = w->head.len, total = 8 + n + w->bytes;
    uint8_t *patterns = make_patterns(&rng), *p = MAP_FAILED;
    if (patterns && ftruncate(fd, (off_t)total) == 0)
        p = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED) {
        memcpy(p, &n, 8);
        memcpy(p + 8, w->head.data, n);
        fill(w, p + 8 + n, patterns, &rng);
        munmap(p, total);
    }
    free(patterns);
    return p != MAP_FAILED
               ? 0
               : ash_err_set(err, ASH_ENOMEM, "no memory for %.1f GB of random weights: %s",
                             (double)total * 1e-9, strerror(errno));
}

static int write_config(const ash_synthetic_shape *s, bool act_order, const char *folder,
                        ash_err *err)
{
    char path[128];
    ash_buf b;
    ash_buf_init(&b, 4096);
    ash_buf_printf(
        &b,
        "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_act\":"
        "\"silu\",\"hidden_size\":%u,\"intermediate_size\":%u,\"num_hidden_layers\":%u,"
        "\"num_attention_heads\":%u,\"num_key_value_heads\":%u,\"vocab_size\":%u,"
        "\"max_position_embeddings\":%u,\"rms_norm_eps\":1e-5,\"rope_theta\":%.1f,"
        "\"tie_word_embeddings\":%s,\"torch_dtype\":\"float16\",\"quantization_config\":{"
        "\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":%d,\"sym\":true,\"desc_act\":%s}}\n",
        s->embd, s->ffn, s->layers, s->heads, s->kv_heads, s->vocab, s->ctx, (double)s->theta,
        s->tied ? "true" : "false", GROUP, act_order ? "true" : "false");
    snprintf(path, sizeof path, "%s/config.json", folder);
    int rc = ash_buf_check(&b, "config.json", err);
    if (!rc) rc = ash_fs_replace(path, b.data, b.len, err);
    ash_buf_release(&b);
    return rc;
}

int ash_synthetic_gptq(const ash_synthetic_shape *s, bool act_order, int fd, const char *folder,
                       ash_err *err)
{
    char file[128], memory[64];
    writer *w = calloc(1, sizeof *w);
    if (!w) return ash_err_nomem(err, "a synthetic checkpoint");
    ash_buf_init(&w->head, 1 << 20);
    w->act_order = act_order;
    describe(w, s);
    int rc = ash_buf_check(&w->head, "the header of a synthetic checkpoint", err);
    if (!rc) rc = write_weights(w, fd, err);
    if (!rc) rc = write_config(s, act_order, folder, err);
    snprintf(file, sizeof file, "%s/model.safetensors", folder);
    snprintf(memory, sizeof memory, "/proc/self/fd/%d", fd);
    if (!rc && symlink(memory, file))
        rc = ash_err_set(err, ASH_EIO, "cannot make '%s': %s", file, strerror(errno));
    ash_buf_release(&w->head);
    free(w);
    return rc;
}
