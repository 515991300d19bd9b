/* Owns the making of random checkpoints: shapes of real models, values whose size is that of real
 * weights, so that activations neither vanish nor overflow. Refuses unknown shapes and formats. */
#include "cli/synthetic.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/dtype.h"
#include "base/rng.h"
#include "cli/synthetic_private.h"
#include "quant/decode.h"
#include "quant/half.h"

typedef ash_synthetic_shape shape;

static const ash_synthetic_mixture deepseek_v2_lite = {1, 64, 6, 2, 1408, 512, 64, 128, 128};

/* Of DeepSeek-V2-Lite's 27 layers 9, one dense, as each of its mixtures has 0.55 billion weights. */
static const shape shapes[] = {
    {"smollm2-135m", 30, 576, 1536, 9, 3, 49152, 8192, true, 100000.0f, NULL},
    {"llama-1b", 22, 2048, 5632, 32, 4, 32000, 4096, false, 10000.0f, NULL},
    {"mistral-7b", 32, 4096, 14336, 32, 8, 32000, 32768, false, 10000.0f, NULL},
    {"llama-13b", 40, 5120, 13824, 40, 40, 32000, 4096, false, 10000.0f, NULL},
    {"deepseek-v2-lite", 9, 2048, 10944, 16, 16, 102400, 4096, false, 10000.0f, &deepseek_v2_lite},
};

/* A format is one type for all matrices, or, as llama.cpp mixes them, one for most of them and a second
 * for the output and half of the values and down projections. */
typedef struct format {
    const char *name;
    ash_dtype type, second;
} format;

#define ONE(t) {#t, ASH_DTYPE_##t, ASH_DTYPE_##t}
static const format formats[] = {
    ONE(F32),     ONE(F16),    ONE(BF16),   ONE(Q4_0),    ONE(Q4_1),
    ONE(Q5_0),    ONE(Q5_1),   ONE(Q8_0),   ONE(Q2_K),    ONE(Q3_K),
    ONE(Q4_K),    ONE(Q5_K),   ONE(Q6_K),   ONE(IQ1_S),   ONE(IQ1_M),
    ONE(IQ2_XXS), ONE(IQ2_XS), ONE(IQ2_S),  ONE(IQ3_XXS), ONE(IQ3_S),
    ONE(IQ4_NL),  ONE(IQ4_XS), ONE(MXFP4),  ONE(NVFP4),   ONE(TQ1_0),
    ONE(TQ2_0),   ONE(Q1_0),   ONE(Q2_0),   {"Q4_K_M", ASH_DTYPE_Q4_K, ASH_DTYPE_Q6_K},
    {"Q5_K_M", ASH_DTYPE_Q5_K, ASH_DTYPE_Q6_K},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

enum { ALIGN = 32, PATTERN = 1 << 14 }; /* blocks of random data that are repeated */

typedef struct writer {
    ash_buf head;        /* header, metadata and tensor infos */
    uint64_t data_bytes; /* of the tensors so far, padded */
    struct {
        ash_dtype type;
        bool norm; /* ones */
        uint64_t count;
    } tensors[512];
    size_t n;
} writer;

static void put(writer *w, const void *p, size_t n)
{
    ash_buf_add(&w->head, p, n);
}

static void put_u32(writer *w, uint32_t v)
{
    put(w, &v, 4);
}

static void put_u64(writer *w, uint64_t v)
{
    put(w, &v, 8);
}

static void put_str(writer *w, const char *s)
{
    put_u64(w, strlen(s));
    ash_buf_adds(&w->head, s);
}

static void kv_u32(writer *w, const char *key, uint32_t v)
{
    put_str(w, key);
    put_u32(w, 4);
    put_u32(w, v);
}

static void kv_f32(writer *w, const char *key, float v)
{
    put_str(w, key);
    put_u32(w, 6);
    put(w, &v, 4);
}

static void kv_str(writer *w, const char *key, const char *v)
{
    put_str(w, key);
    put_u32(w, 8);
    put_str(w, v);
}

/* n matrices of [rows, cols] in one tensor; one row alone is a vector. */
static void stack(writer *w, ash_dtype type, uint64_t n, uint64_t rows, uint64_t cols, const char *name)
{
    uint64_t bytes = 0;
    put_str(w, name);
    put_u32(w, n > 1 ? 3 : rows > 1 ? 2 : 1);
    put_u64(w, cols);
    if (rows > 1 || n > 1) put_u64(w, rows);
    if (n > 1) put_u64(w, n);
    put_u32(w, type);
    put_u64(w, w->data_bytes);
    if (!ash_dtype_bytes(type, n * rows * cols, &bytes)) w->head.failed = ASH_EINVAL;
    w->data_bytes += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    w->tensors[w->n].type = type;
    w->tensors[w->n].norm = rows == 1;
    w->tensors[w->n++].count = n * rows * cols;
}

static void tensor(writer *w, ash_dtype type, uint64_t rows, uint64_t cols, const char *name)
{
    stack(w, type, 1, rows, cols, name);
}

static void layer_stack(writer *w, ash_dtype type, uint64_t n, uint64_t rows, uint64_t cols,
                        uint32_t layer, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "blk.%u.%s.weight", layer, name);
    stack(w, type, n, rows, cols, full);
}

static void layer_tensor(writer *w, ash_dtype type, uint64_t rows, uint64_t cols, uint32_t layer,
                         const char *name)
{
    layer_stack(w, type, 1, rows, cols, layer, name);
}

/* t, or 8 bits where rows are no whole blocks of it. */
static ash_dtype whole_blocks(ash_dtype t, uint32_t cols)
{
    return cols % ash_dtype_get(t)->block ? ASH_DTYPE_Q8_0 : t;
}

static void arch_u32(writer *w, const char *arch, const char *name, uint32_t v)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch, name);
    kv_u32(w, key, v);
}

static void arch_f32(writer *w, const char *arch, const char *name, float v)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch, name);
    kv_f32(w, key, v);
}

/* The header, and what every architecture says; `more` keys follow. */
static void start(writer *w, const shape *s, const char *arch, uint64_t more, uint64_t n_tensors,
                  const char *spec)
{
    put(w, "GGUF", 4);
    put_u32(w, 3);
    put_u64(w, n_tensors);
    put_u64(w, 11 + more);
    kv_str(w, "general.architecture", arch);
    kv_str(w, "general.name", spec);
    arch_u32(w, arch, "block_count", s->layers);
    arch_u32(w, arch, "context_length", s->ctx);
    arch_u32(w, arch, "embedding_length", s->embd);
    arch_u32(w, arch, "feed_forward_length", s->ffn);
    arch_u32(w, arch, "attention.head_count", s->heads);
    arch_u32(w, arch, "attention.head_count_kv", s->kv_heads);
    arch_f32(w, arch, "attention.layer_norm_rms_epsilon", 1e-5f);
    arch_f32(w, arch, "rope.freq_base", s->theta);
    arch_u32(w, arch, "vocab_size", s->vocab);
}

static void describe_llama(writer *w, const shape *s, const format *f, const char *spec)
{
    ash_dtype t = f->type;
    uint64_t d = s->embd, kv = d / s->heads * s->kv_heads;
    start(w, s, "llama", 0, 2 + 9 * s->layers + !s->tied, spec);
    tensor(w, t, s->vocab, d, "token_embd.weight");
    for (uint32_t i = 0; i < s->layers; i++) {
        ash_dtype more = i % 2 ? t : f->second;
        layer_tensor(w, ASH_DTYPE_F32, 1, d, i, "attn_norm");
        layer_tensor(w, t, d, d, i, "attn_q");
        layer_tensor(w, t, kv, d, i, "attn_k");
        layer_tensor(w, more, kv, d, i, "attn_v");
        layer_tensor(w, t, d, d, i, "attn_output");
        layer_tensor(w, ASH_DTYPE_F32, 1, d, i, "ffn_norm");
        layer_tensor(w, t, s->ffn, d, i, "ffn_gate");
        layer_tensor(w, t, s->ffn, d, i, "ffn_up");
        layer_tensor(w, more, d, s->ffn, i, "ffn_down");
    }
    tensor(w, ASH_DTYPE_F32, 1, d, "output_norm.weight");
    if (!s->tied) tensor(w, f->second, s->vocab, d, "output.weight");
}

static void describe_attention(writer *w, const shape *s, ash_dtype t, uint32_t layer)
{
    const ash_synthetic_mixture *m = s->mixture;
    uint64_t d = s->embd, heads = s->heads;
    ash_dtype keys = whole_blocks(t, m->nope);
    layer_tensor(w, ASH_DTYPE_F32, 1, d, layer, "attn_norm");
    layer_tensor(w, t, heads * (m->nope + m->rope), d, layer, "attn_q");
    layer_tensor(w, t, m->kv_lora + m->rope, d, layer, "attn_kv_a_mqa");
    layer_tensor(w, ASH_DTYPE_F32, 1, m->kv_lora, layer, "attn_kv_a_norm");
    layer_stack(w, keys, heads, m->kv_lora, m->nope, layer, "attn_k_b");
    layer_stack(w, t, heads, m->v, m->kv_lora, layer, "attn_v_b");
    layer_tensor(w, t, d, heads * m->v, layer, "attn_output");
    layer_tensor(w, ASH_DTYPE_F32, 1, d, layer, "ffn_norm");
}

static void describe_mixture(writer *w, const shape *s, const format *f, uint32_t layer)
{
    const ash_synthetic_mixture *m = s->mixture;
    ash_dtype t = f->type, down = whole_blocks(layer % 2 ? t : f->second, m->expert_ffn);
    uint32_t ff = m->expert_ffn, shared = m->shared * ff;
    uint64_t d = s->embd;
    layer_tensor(w, ASH_DTYPE_F32, m->experts, d, layer, "ffn_gate_inp");
    layer_stack(w, t, m->experts, ff, d, layer, "ffn_gate_exps");
    layer_stack(w, t, m->experts, ff, d, layer, "ffn_up_exps");
    layer_stack(w, down, m->experts, d, ff, layer, "ffn_down_exps");
    layer_tensor(w, t, shared, d, layer, "ffn_gate_shexp");
    layer_tensor(w, t, shared, d, layer, "ffn_up_shexp");
    layer_tensor(w, whole_blocks(t, shared), d, shared, layer, "ffn_down_shexp");
}

static void describe_deepseek2(writer *w, const shape *s, const format *f, const char *spec)
{
    const ash_synthetic_mixture *m = s->mixture;
    ash_dtype t = f->type;
    uint64_t d = s->embd;
    start(w, s, "deepseek2", 12, 3 + 8 * s->layers + 3 * m->dense + 7 * (s->layers - m->dense), spec);
    kv_u32(w, "deepseek2.attention.kv_lora_rank", m->kv_lora);
    kv_u32(w, "deepseek2.attention.key_length", m->kv_lora + m->rope);
    kv_u32(w, "deepseek2.attention.value_length", m->kv_lora);
    kv_u32(w, "deepseek2.attention.key_length_mla", m->nope + m->rope);
    kv_u32(w, "deepseek2.attention.value_length_mla", m->v);
    kv_u32(w, "deepseek2.rope.dimension_count", m->rope);
    kv_u32(w, "deepseek2.leading_dense_block_count", m->dense);
    kv_u32(w, "deepseek2.expert_count", m->experts);
    kv_u32(w, "deepseek2.expert_used_count", m->used);
    kv_u32(w, "deepseek2.expert_shared_count", m->shared);
    kv_u32(w, "deepseek2.expert_feed_forward_length", m->expert_ffn);
    kv_f32(w, "deepseek2.expert_weights_scale", 1.0f);
    tensor(w, t, s->vocab, d, "token_embd.weight");
    for (uint32_t i = 0; i < s->layers; i++) {
        describe_attention(w, s, t, i);
        if (i >= m->dense) {
            describe_mixture(w, s, f, i);
            continue;
        }
        layer_tensor(w, t, s->ffn, d, i, "ffn_gate");
        layer_tensor(w, t, s->ffn, d, i, "ffn_up");
        layer_tensor(w, whole_blocks(f->second, s->ffn), d, s->ffn, i, "ffn_down");
    }
    tensor(w, ASH_DTYPE_F32, 1, d, "output_norm.weight");
    tensor(w, f->second, s->vocab, d, "output.weight");
}

/* Where a block has its half floats d and m (or -1), and m for d = 1 that makes the mean zero. */
typedef struct scale_place {
    ash_dtype type;
    int d, m;
    float mean;
} scale_place;

static const scale_place *place_of(ash_dtype t)
{
    static const scale_place places[] = {
        {ASH_DTYPE_Q4_1, 0, 2, -7.5f}, {ASH_DTYPE_Q5_1, 0, 2, -15.5f}, {ASH_DTYPE_Q2_K, 80, 82, 1.5f},
        {ASH_DTYPE_Q4_K, 0, 2, 7.5f},  {ASH_DTYPE_Q5_K, 0, 2, 15.5f},  {ASH_DTYPE_Q3_K, 108, -1, 0},
        {ASH_DTYPE_Q6_K, 208, -1, 0},  {ASH_DTYPE_TQ1_0, 52, -1, 0},   {ASH_DTYPE_TQ2_0, 64, -1, 0},
    };
    static const scale_place first = {ASH_DTYPE_F32, 0, -1, 0};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (places[i].type == t) return &places[i];
    return &first;
}

static void put_half(uint8_t *p, float v)
{
    uint16_t h = ash_f16_from_f32(v);
    memcpy(p, &h, 2);
}

static void set_scale(ash_dtype t, uint8_t *b, float d)
{
    const scale_place *p = place_of(t);
    put_half(b + p->d, d);
    if (p->m >= 0) put_half(b + p->m, d * p->mean);
}

/* One block whose values have a standard deviation of about 0.02. */
static void random_block(ash_dtype t, uint8_t *b, ash_rng *rng)
{
    const ash_dtype_info *info = ash_dtype_get(t);
    for (uint32_t i = 0; i < info->block_bytes; i++) b[i] = (uint8_t)ash_rng_u64(rng);
    float x = (float)(ash_rng_f64(rng) - 0.5) * 0.07f, y[256], sum = 0;
    uint16_t h;
    switch (t) {
    case ASH_DTYPE_F32: memcpy(b, &x, 4); break;
    case ASH_DTYPE_F16: put_half(b, x); break;
    case ASH_DTYPE_BF16:
        h = ash_bf16_from_f32(x);
        memcpy(b, &h, 2);
        break;
    case ASH_DTYPE_MXFP4: b[0] = 120; break;       /* 2^-8, of values up to 12 */
    case ASH_DTYPE_NVFP4: memset(b, 4, 4); break;  /* the same */
    case ASH_DTYPE_IQ1_M:                          /* 0.0029 in the upper nibbles of four words */
        for (int i = 49; i < 57; i += 2) b[i] &= 15;
        b[53] |= 0xA0;
        b[55] |= 0x10;
        break;
    default:
        set_scale(t, b, 1);
        ash_quant_decode(t, b, info->block, y);
        for (uint32_t i = 0; i < info->block; i++) sum += y[i] * y[i];
        set_scale(t, b, 0.02f / sqrtf(sum / (float)info->block + 1e-6f));
    }
}

static void fill(uint8_t *to, ash_dtype type, uint64_t count, bool ones, const uint8_t *pattern)
{
    uint64_t bytes = 0, unit = (uint64_t)PATTERN * ash_dtype_get(type)->block_bytes;
    if (!ash_dtype_bytes(type, count, &bytes)) return;
    if (ones) {
        float one = 1.0f;
        for (uint64_t i = 0; i < count; i++) memcpy(to + i * 4, &one, 4);
        return;
    }
    for (uint64_t at = 0; at < bytes; at += unit)
        memcpy(to + at, pattern, bytes - at < unit ? bytes - at : unit);
}

static uint8_t *make_pattern(ash_dtype t)
{
    size_t size = ash_dtype_get(t)->block_bytes;
    uint8_t *p = malloc(PATTERN * size);
    ash_rng rng;
    ash_rng_init(&rng, 12345);
    for (size_t i = 0; p && i < PATTERN; i++) random_block(t, p + i * size, &rng);
    return p;
}

static int write_file(const writer *w, int fd, ash_err *err)
{
    uint64_t start = (w->head.len + ALIGN - 1) / ALIGN * ALIGN, total = start + w->data_bytes;
    uint8_t *patterns[ASH_DTYPE_END] = {0}, *p = MAP_FAILED;
    bool made = true;
    for (size_t i = 0; i < w->n; i++) {
        uint8_t **pattern = &patterns[w->tensors[i].type];
        *pattern = *pattern ? *pattern : make_pattern(w->tensors[i].type);
        made = made && *pattern;
    }
    if (made && ftruncate(fd, (off_t)total) == 0)
        p = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED) memcpy(p, w->head.data, w->head.len);
    uint64_t at = start;
    for (size_t i = 0; i < w->n && p != MAP_FAILED; i++) {
        ash_dtype t = w->tensors[i].type;
        uint64_t bytes = 0;
        (void)!ash_dtype_bytes(t, w->tensors[i].count, &bytes);
        fill(p + at, t, w->tensors[i].count, w->tensors[i].norm, patterns[t]);
        at += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    }
    for (size_t i = 0; i < ASH_DTYPE_END; i++) free(patterns[i]);
    if (p == MAP_FAILED)
        return ash_err_set(err, ASH_ENOMEM, "no memory for %.1f GB of random weights: %s",
                           (double)total * 1e-9, strerror(errno));
    munmap(p, total);
    return 0;
}

static int refuse(const char *spec, ash_err *err)
{
    ash_buf names;
    ash_buf_init(&names, 800);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        ash_buf_printf(&names, "%s ", shapes[i].name);
    ash_buf_adds(&names, "with");
    for (size_t i = 0; i < N_FORMATS; i++) ash_buf_printf(&names, " %s", formats[i].name);
    ash_buf_adds(&names, " gptq-4b-128g gptq-4b-128g-actorder (no mixture of these two)");
    ash_err_set(err, ASH_EINVAL, "--synthetic '%.60s': expected SHAPE:FORMAT of %s", spec,
                ash_buf_cstr(&names));
    ash_buf_release(&names);
    return ASH_EINVAL;
}

static int make_gguf(const shape *s, const format *f, const char *spec, int fd, ash_err *err)
{
    writer *w = calloc(1, sizeof *w);
    if (!w) return ash_err_nomem(err, "a synthetic checkpoint");
    ash_buf_init(&w->head, 1 << 20);
    if (s->mixture)
        describe_deepseek2(w, s, f, spec);
    else
        describe_llama(w, s, f, spec);
    int rc = ash_buf_check(&w->head, "the header of a synthetic checkpoint", err);
    if (!rc) rc = write_file(w, fd, err);
    ash_buf_release(&w->head);
    free(w);
    return rc;
}

int ash_synthetic_make(const char *spec, int *fd, char path[64], ash_err *err)
{
    const shape *s = NULL;
    const format *f = NULL;
    size_t n = strcspn(spec, ":");
    const char *name = spec + n + (spec[n] == ':');
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strlen(shapes[i].name) == n && !strncasecmp(spec, shapes[i].name, n)) s = &shapes[i];
    for (size_t i = 0; i < N_FORMATS; i++)
        if (!strcasecmp(name, formats[i].name)) f = &formats[i];
    bool act_order = !strcasecmp(name, "gptq-4b-128g-actorder");
    bool gptq = act_order || !strcasecmp(name, "gptq-4b-128g");
    *fd = -1;
    path[0] = 0;
    if (!s || (!f && !gptq) || (gptq && s->mixture)) return refuse(spec, err);
    *fd = memfd_create("ashley-synthetic", MFD_CLOEXEC);
    if (*fd < 0) return ash_err_set(err, ASH_EIO, "memfd_create: %s", strerror(errno));
    int rc = 0;
    if (gptq)
        snprintf(path, 64, "/tmp/ashley-synthetic-XXXXXX");
    else
        snprintf(path, 64, "/proc/self/fd/%d", *fd);
    if (gptq && !mkdtemp(path)) {
        rc = ash_err_set(err, ASH_EIO, "cannot make a folder '%s': %s", path, strerror(errno));
        path[0] = 0;
    }
    if (!rc) rc = gptq ? ash_synthetic_gptq(s, act_order, *fd, path, err) : make_gguf(s, f, spec, *fd, err);
    if (rc) ash_synthetic_remove(*fd, path);
    return rc;
}

void ash_synthetic_remove(int fd, const char *path)
{
    char file[96];
    static const char *const names[] = {"config.json", "model.safetensors"};
    if (fd >= 0) close(fd);
    if (strncmp(path, "/tmp/", 5) != 0) return;
    for (size_t i = 0; i < 2; i++) {
        snprintf(file, sizeof file, "%.63s/%s", path, names[i]);
        unlink(file);
    }
    rmdir(path);
}
