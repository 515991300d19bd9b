/* The binder: matrices of every source and cut, compared value by value with what the files hold, and
 * GPTQ's and FP8's tensors refused when they do not fit together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "fake.h"
#include "quant/decode.h"

/* ---- GPTQ's refusals ------------------------------------------------------------------------- */

/* Replaces layer 0's k_proj [32, 64] by GPTQ's tensors of 4 bits in groups of 32. */
static void add_gptq(fake *f)
{
    fake_drop(f, "model.layers.0.self_attn.k_proj.weight");
    memset(fake_add(f, "model.layers.0.self_attn.k_proj.qweight", ASH_DTYPE_I32, 8, 32), 0x5a, 8 * 32 * 4);
    memset(fake_add(f, "model.layers.0.self_attn.k_proj.qzeros", ASH_DTYPE_I32, 2, 4), 0x77, 2 * 4 * 4);
    memset(fake_add(f, "model.layers.0.self_attn.k_proj.scales", ASH_DTYPE_F16, 2, 32), 0x2c, 2 * 32 * 2);
    uint8_t *g = fake_add(f, "model.layers.0.self_attn.k_proj.g_idx", ASH_DTYPE_I32, 64, 0);
    for (int i = 0; i < 64; i++) g[4 * i] = (uint8_t)(i % 2); /* act-order */
}

typedef struct gptq_case {
    const char *part; /* tensor to change, or to drop with rows 0 */
    ash_dtype type;
    uint64_t rows, cols;
    int code;
    const char *text;
} gptq_case;

static void gptq_is_checked(void **state)
{
    static const gptq_case cases[] = {
        {"qzeros", 0, 0, 0, ASH_EFORMAT,
         "mem.safetensors: tensor 'model.layers.0.self_attn.k_proj.qzeros' is missing beside "
         "'model.layers.0.self_attn.k_proj.qweight'"},
        {"scales", 0, 0, 0, ASH_EFORMAT, "k_proj.scales' is missing beside"},
        {"qweight", ASH_DTYPE_I32, 10, 32, ASH_EFORMAT,
         "qweight' must be [64 * bits / 32, 32] with 2, 3, 4 or 8 bits, is [10, 32]"},
        {"qweight", ASH_DTYPE_I32, 9, 32, ASH_EFORMAT, "is [9, 32]"},
        {"qweight", ASH_DTYPE_I32, 8, 64, ASH_EFORMAT, "is [8, 64]"},
        {"qweight", ASH_DTYPE_I32, 0x10000, 0, ASH_EFORMAT, "is [65536]"},
        {"qweight", ASH_DTYPE_I32, 64, 4, ASH_EUNSUPPORTED,
         "(AWQ packs so: take the GPTQ or GGUF conversion"},
        {"qweight", ASH_DTYPE_I16, 8, 32, ASH_EUNSUPPORTED, "qweight' must be I32 row by row, is I16"},
        {"qzeros", ASH_DTYPE_I32, 2, 5, ASH_EFORMAT, "qzeros' must be [1 to 64 groups, 4], is [2, 5]"},
        {"qzeros", ASH_DTYPE_I32, 65, 4, ASH_EFORMAT, "is [65, 4]"},
        {"qzeros", ASH_DTYPE_F32, 2, 4, ASH_EUNSUPPORTED, "qzeros' must be I32 row by row, is F32"},
        {"scales", ASH_DTYPE_F16, 3, 32, ASH_EFORMAT, "scales' must be [2, 32], is [3, 32]"},
        {"scales", ASH_DTYPE_F64, 2, 32, ASH_EUNSUPPORTED,
         "scales' must be F32, F16 or BF16 row by row, is F64"},
        {"g_idx", ASH_DTYPE_I32, 63, 0, ASH_EFORMAT, "g_idx' must be [64], is [63]"},
        {"g_idx", ASH_DTYPE_I64, 64, 0, ASH_EUNSUPPORTED, "g_idx' must be I32"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const gptq_case *k = &cases[i];
        fake f;
        ash_net *net;
        ash_err err = ASH_ERR_INIT;
        char name[96];
        fake_init(&f, FAKE_LLAMA, NULL, "{\"bits\":4,\"group_size\":32}");
        fake_llama(&f, "model.");
        add_gptq(&f);
        snprintf(name, sizeof name, "model.layers.0.self_attn.k_proj.%s", k->part);
        fake_drop(&f, name);
        if (k->rows)
            fake_add(&f, name, k->type, k->rows, k->cols);
        int rc = fake_plan(&f, &net, &err);
        if (rc != k->code || !strstr(err.msg, k->text))
            fail_msg("%s %zu: wanted %d with '%s', got %d: %s", k->part, i, k->code, k->text, rc, err.msg);
        assert_null(net);
        fake_release(&f);
    }
}

static void groups_are_checked(void **state)
{
    for (int i = 0; i < 3; i++) {
        fake f;
        ash_net *net;
        ash_err err = ASH_ERR_INIT;
        fake_init(&f, FAKE_LLAMA, NULL, NULL);
        fake_llama(&f, "model.");
        add_gptq(&f);
        uint8_t *g = f.data + fake_tensor(&f, "model.layers.0.self_attn.k_proj.g_idx")->offset;
        if (i)
            g[4 * 7] = 2; /* of two groups there is no third */
        if (i == 2)
            memset(g + 4 * 7, 0xff, 4);
        int rc = fake_plan(&f, &net, &err);
        assert_int_equal(rc, i ? ASH_EFORMAT : 0);
        if (i)
            assert_non_null(strstr(err.msg, i == 1 ? "g_idx': element 7 must be a group from 0 to 1, is 2"
                                                   : "element 7 must be a group from 0 to 1, is -1"));
        ash_net_close(net);
        fake_release(&f);
    }
}

/* 64 columns in 3 groups: only settings can tell that they are of 24. */
static void uneven_groups_need_settings(void **state)
{
    static const char *const quants[] = {NULL, "{\"bits\":4,\"group_size\":24}",
                                         "{\"bits\":4,\"group_size\":16}"};
    for (int i = 0; i < 3; i++) {
        fake f;
        ash_net *net;
        ash_err err = ASH_ERR_INIT;
        fake_init(&f, FAKE_LLAMA, NULL, quants[i]);
        fake_llama(&f, "model.");
        fake_drop(&f, "model.layers.0.self_attn.k_proj.weight");
        fake_add(&f, "model.layers.0.self_attn.k_proj.qweight", ASH_DTYPE_I32, 8, 32);
        fake_add(&f, "model.layers.0.self_attn.k_proj.qzeros", ASH_DTYPE_I32, 3, 4);
        fake_add(&f, "model.layers.0.self_attn.k_proj.scales", ASH_DTYPE_F16, 3, 32);
        int rc = fake_plan(&f, &net, &err);
        assert_int_equal(rc, i == 1 ? 0 : ASH_EFORMAT);
        if (rc)
            assert_non_null(
                strstr(err.msg, "64 columns in 3 groups, and no settings that tell the groups' size"));
        ash_net_close(net);
        fake_release(&f);
    }
}

static void fp8_needs_its_scales(void **state)
{
    static const struct {
        const char *quant;
        ash_dtype type; /* of the scales; 0: F32 */
        uint64_t rows, cols;
        int code;
        const char *text;
    } cases[] = {
        {"{\"quant_method\":\"fp8\",\"weight_block_size\":[16,32]}", 0, 0, 0, ASH_EUNSUPPORTED,
         "k_proj.weight' has type F8_E4M3, but 'model.layers.0.self_attn.k_proj.weight_scale_inv' is "
         "missing"},
        {"{\"quant_method\":\"fp8\",\"weight_block_size\":[16,32]}", 0, 2, 3, ASH_EFORMAT,
         "weight_scale_inv' must be [2, 2], is [2, 3]"},
        {"{\"quant_method\":\"fp8\",\"weight_block_size\":[16,32]}", ASH_DTYPE_I32, 2, 2, ASH_EUNSUPPORTED,
         "weight_scale_inv' must be F32, F16 or BF16 row by row, is I32"},
        {NULL, 0, 2, 2, ASH_EFORMAT, "config.json has no quantization_config with quant_method fp8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fake f;
        ash_net *net;
        ash_err err = ASH_ERR_INIT;
        fake_init(&f, FAKE_LLAMA, NULL, cases[i].quant);
        fake_llama(&f, "model.");
        fake_drop(&f, "model.layers.0.self_attn.k_proj.weight");
        fake_add(&f, "model.layers.0.self_attn.k_proj.weight", ASH_DTYPE_F8_E4M3, 32, 64);
        if (cases[i].rows)
            fake_add(&f, "model.layers.0.self_attn.k_proj.weight_scale_inv", cases[i].type, cases[i].rows,
                     cases[i].cols);
        int rc = fake_plan(&f, &net, &err);
        if (rc != cases[i].code || !strstr(err.msg, cases[i].text))
            fail_msg("%zu: wanted '%s', got %d: %s", i, cases[i].text, rc, err.msg);
        fake_release(&f);
    }
}

/* ---- pieces ----------------------------------------------------------------------------------- */

enum { HEADS = 2, NOPE = 32, VDIM = 64, RANK = 64, EXPERTS = 3, USED = 2, COLS = 64, ROWS = 40 };

typedef struct pieces {
    ash_linear whole, floats;
    ash_linear *stack, *each, *k, *v, *k_split;
    const float *vector, *dropped;
} pieces;

static const ash_bind_rule piece_rules[] = {
    {"whole.weight", "whole.weight", ASH_BIND_MATRIX, ASH_OPTIONAL, ASH_DIM_EXPERT_FF, ASH_DIM_EMBD,
     offsetof(pieces, whole), 0, 0},
    {"floats.weight", "floats.weight", ASH_BIND_MATRIX_F32, ASH_OPTIONAL, ASH_DIM_EXPERT_FF, ASH_DIM_EMBD,
     offsetof(pieces, floats), 0, 0},
    {"stack.weight", "stack.weight", ASH_BIND_STACK, ASH_OPTIONAL, ASH_DIM_EXPERT_FF, ASH_DIM_EMBD,
     offsetof(pieces, stack), 0, ASH_DIM_EXPERTS},
    {"split.weight", NULL, ASH_BIND_STACK, ASH_REQUIRED, ASH_DIM_KV_LORA, ASH_DIM_NOPE, offsetof(pieces, k),
     0, ASH_DIM_HEADS},
    {"kv_b.weight", "kv_b.weight", ASH_BIND_HEADS_K, ASH_ELSE, 0, 0, offsetof(pieces, k), 0, 0},
    {"kv_b.weight", "kv_b.weight", ASH_BIND_HEADS_V, ASH_OPTIONAL, 0, 0, offsetof(pieces, v), 0, 0},
    {"vector", "vector", ASH_BIND_VECTOR, ASH_OPTIONAL, ASH_DIM_EMBD, 0, offsetof(pieces, vector), 0, 0},
    {"zeros", "zeros", ASH_BIND_VECTOR, ASH_OPTIONAL, ASH_DIM_EMBD, 0, offsetof(pieces, dropped), 0, 0},
};

static ash_bind_target target_of(pieces *p)
{
    ash_bind_target t = {.rules = piece_rules,
                         .n_rules = sizeof piece_rules / sizeof *piece_rules,
                         .model = p,
                         .n_layers = 1,
                         .n_used = USED};
    memset(p, 0, sizeof *p);
    t.dims[ASH_DIM_EMBD] = COLS;
    t.dims[ASH_DIM_EXPERT_FF] = ROWS;
    t.dims[ASH_DIM_EXPERTS] = EXPERTS;
    t.dims[ASH_DIM_HEADS] = HEADS;
    t.dims[ASH_DIM_NOPE] = NOPE;
    t.dims[ASH_DIM_HEAD_V] = VDIM;
    t.dims[ASH_DIM_KV_LORA] = RANK;
    return t;
}

/* Bytes that are numbers of ordinary size in every type below. */
static void fill(uint8_t *p, const ash_tensor *t, ash_rng *rng)
{
    const ash_dtype_info *info = ash_dtype_get(t->dtype);
    for (uint64_t i = 0; i < t->bytes; i++) p[i] = (uint8_t)ash_rng_u64(rng);
    for (uint64_t at = 0; at < t->bytes; at += info->block_bytes) {
        if (t->dtype == ASH_DTYPE_F32)
            p[at + 3] = 0x3f;
        else if (t->dtype == ASH_DTYPE_BF16 || t->dtype == ASH_DTYPE_F16 || t->dtype == ASH_DTYPE_Q8_0)
            p[at + 1] = 0x2c; /* Q8_0 begins with its half float */
    }
}

typedef struct bound {
    ash_arena arena;
    ash_binding b;
    void *region, *scratch;
} bound;

static void bind_all(fake *f, pieces *p, bound *out)
{
    ash_err err = ASH_ERR_INIT;
    ash_bind_target t = target_of(p);
    ash_arena_init(&out->arena, 1 << 20);
    if (ash_tensor_index_seal(&f->index, &err) || ash_bind_plan(&t, &f->c, &out->arena, &out->b, &err))
        fail_msg("%s", err.msg);
    out->region = aligned_alloc(64, (out->b.bytes + 63) / 64 * 64);
    out->scratch = aligned_alloc(64, (out->b.scratch + 63) / 64 * 64);
    memset(out->region, 0, out->b.bytes);
    if (ash_bind_place(&out->b, out->region, &err))
        fail_msg("%s", err.msg);
    for (size_t i = 0; i < out->b.n_items; i++) {
        const ash_bind_item *it = &out->b.items[i];
        for (int64_t row = 0; it->matrix && row < it->rows; row += it->step)
            ash_bind_pack(&out->b, it, row, it->step < it->rows - row ? it->step : it->rows - row,
                          out->scratch);
        assert_int_equal(it->offset % 64, 0);
    }
}

static void unbind(bound *b)
{
    ash_bind_release(&b->b);
    ash_arena_release(&b->arena);
    free(b->region);
    free(b->scratch);
}

/* Row `row` of a tensor, by the type's reference. */
static void source_row(const fake *f, const ash_tensor *t, int64_t row, float *y)
{
    int64_t cols = (int64_t)t->dims[t->n_dims - 1];
    uint64_t bytes = 0;
    assert_true(ash_dtype_bytes(t->dtype, (uint64_t)cols, &bytes));
    ash_quant_decode(t->dtype, f->data + t->offset + (uint64_t)row * bytes, cols, y);
}

static void expect_rows(const fake *f, const ash_tensor *t, int64_t first, const ash_linear *l,
                        int64_t rows, int64_t cols)
{
    float want[256], got[256];
    for (int64_t i = 0; i < rows; i++) {
        source_row(f, t, first + i, want);
        ash_linear_row(l, i, got);
        assert_memory_equal(want, got, (size_t)cols * sizeof *want);
    }
}

static const ash_dtype types[] = {ASH_DTYPE_F32, ASH_DTYPE_BF16, ASH_DTYPE_F16, ASH_DTYPE_Q8_0};
enum { N_TYPES = sizeof types / sizeof *types };

static void matrices_of_all_types(void **state)
{
    for (int i = 0; i < N_TYPES; i++) {
        fake f;
        pieces p;
        bound b;
        ash_rng rng;
        ash_rng_init(&rng, 7 + (uint64_t)i);
        fake_init(&f, FAKE_LLAMA, NULL, NULL);
        for (int j = 0; j < 2; j++) {
            const char *name = j ? "floats.weight" : "whole.weight";
            uint8_t *data = fake_add(&f, name, types[i], ROWS, COLS);
            fill(data, fake_tensor(&f, name), &rng);
        }
        fake_add(&f, "kv_b.weight", ASH_DTYPE_F32, HEADS * (NOPE + VDIM), RANK);
        bind_all(&f, &p, &b);
        expect_rows(&f, fake_tensor(&f, "whole.weight"), 0, &p.whole, ROWS, COLS);
        expect_rows(&f, fake_tensor(&f, "floats.weight"), 0, &p.floats, ROWS, COLS);
        assert_int_equal(p.floats.w.dtype, ASH_DTYPE_F32);
        assert_int_equal(p.whole.w.dtype, types[i]);
        unbind(&b);
        fake_release(&f);
    }
}

static void stacks(void **state)
{
    for (int i = 0; i < N_TYPES; i++)
        for (int flat = 0; flat < 2; flat++) {
            fake f;
            pieces p;
            bound b;
            ash_rng rng;
            ash_rng_init(&rng, 70 + (uint64_t)i);
            fake_init(&f, FAKE_LLAMA, NULL, NULL);
            uint8_t *data = fake_add(&f, "stack.weight", types[i], EXPERTS * ROWS, COLS);
            ash_tensor *t = fake_tensor(&f, "stack.weight");
            fill(data, t, &rng);
            if (!flat)
                *t = (ash_tensor){.name = t->name,
                                  .dtype = t->dtype,
                                  .n_dims = 3,
                                  .dims = {EXPERTS, ROWS, COLS, 1},
                                  .offset = t->offset,
                                  .bytes = t->bytes};
            fake_add(&f, "kv_b.weight", ASH_DTYPE_F32, HEADS * (NOPE + VDIM), RANK);
            bind_all(&f, &p, &b);
            for (int e = 0; e < EXPERTS; e++) expect_rows(&f, t, e * ROWS, &p.stack[e], ROWS, COLS);
            assert_int_equal(b.b.token_params, USED * ROWS * COLS + HEADS * (NOPE + VDIM) * RANK);
            unbind(&b);
            fake_release(&f);
        }
}

/* kv_b whole: the values' rows as they are, the keys' turned; what is quantised becomes floats. */
static void heads_of_latent_attention(void **state)
{
    for (int i = 0; i < N_TYPES; i++) {
        fake f;
        pieces p;
        bound b;
        ash_rng rng;
        ash_rng_init(&rng, 700 + (uint64_t)i);
        fake_init(&f, FAKE_LLAMA, NULL, NULL);
        uint8_t *data = fake_add(&f, "kv_b.weight", types[i], HEADS * (NOPE + VDIM), RANK);
        const ash_tensor *t = fake_tensor(&f, "kv_b.weight");
        fill(data, t, &rng);
        bind_all(&f, &p, &b);
        for (int h = 0; h < HEADS; h++) {
            expect_rows(&f, t, h * (NOPE + VDIM) + NOPE, &p.v[h], VDIM, RANK);
            assert_int_equal(p.k[h].w.dtype, types[i] == ASH_DTYPE_Q8_0 ? ASH_DTYPE_F32 : types[i]);
            for (int64_t r = 0; r < RANK; r++) {
                float got[NOPE], want[RANK];
                ash_linear_row(&p.k[h], r, got);
                for (int j = 0; j < NOPE; j++) {
                    source_row(&f, t, h * (NOPE + VDIM) + j, want);
                    assert_memory_equal(&want[r], &got[j], sizeof got[j]);
                }
            }
        }
        unbind(&b);
        fake_release(&f);
    }
}

static void split_heads_come_first(void **state)
{
    fake f;
    pieces p;
    bound b;
    ash_rng rng;
    ash_rng_init(&rng, 5);
    fake_init(&f, FAKE_LLAMA, NULL, NULL);
    f.c.kind = ASH_CHECKPOINT_GGUF; /* names of that kind; nothing else is read from it here */
    fake_add(&f, "kv_b.weight", ASH_DTYPE_Q8_0, HEADS * (NOPE + VDIM), RANK);
    uint8_t *data = fake_add(&f, "split.weight", ASH_DTYPE_Q8_0, HEADS * RANK, NOPE);
    const ash_tensor *t = fake_tensor(&f, "split.weight");
    fill(data, t, &rng);
    bind_all(&f, &p, &b);
    for (int h = 0; h < HEADS; h++) {
        expect_rows(&f, t, h * RANK, &p.k[h], RANK, NOPE);
        assert_int_equal(p.k[h].w.dtype, ASH_DTYPE_Q8_0);
    }
    unbind(&b);
    fake_release(&f);
}

static void shapes_of_parts_are_checked(void **state)
{
    static const struct {
        const char *name;
        uint64_t rows, cols;
        const char *text;
    } cases[] = {
        {"stack.weight", EXPERTS * ROWS + 1, COLS,
         "mem.safetensors: tensor 'stack.weight' must be [3, 40, 64] (experts, expert's feed-forward, "
         "embedding), is "
         "[121, 64]"},
        {"kv_b.weight", 191, RANK, "tensor 'kv_b.weight' must be [192, 64] (heads * key and value length"},
        {"other", 1, 1, "tensor 'kv_b.weight' is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fake f;
        pieces p;
        ash_binding b;
        ash_arena arena;
        ash_err err = ASH_ERR_INIT;
        ash_bind_target t = target_of(&p);
        ash_arena_init(&arena, 1 << 20);
        fake_init(&f, FAKE_LLAMA, NULL, NULL);
        fake_add(&f, cases[i].name, ASH_DTYPE_F32, cases[i].rows, cases[i].cols);
        assert_int_equal(ash_tensor_index_seal(&f.index, &err), 0);
        assert_int_equal(ash_bind_plan(&t, &f.c, &arena, &b, &err), ASH_EFORMAT);
        if (!strstr(err.msg, cases[i].text))
            fail_msg("wanted '%s', got: %s", cases[i].text, err.msg);
        ash_arena_release(&arena);
        fake_release(&f);
    }
}

/* A PyTorch view: a transposed matrix, every second element of a vector. */
static void views_with_strides(void **state)
{
    static const uint64_t turned[] = {1, ROWS}, second[] = {2};
    for (int i = 0; i < 3; i++) {
        fake f;
        pieces p;
        bound b;
        ash_rng rng;
        ash_rng_init(&rng, 9);
        fake_init(&f, FAKE_LLAMA, NULL, NULL);
        f.c.kind = ASH_CHECKPOINT_TORCH;
        uint8_t *data = fake_add(&f, "whole.weight", types[i], ROWS, COLS);
        fill(data, fake_tensor(&f, "whole.weight"), &rng);
        fake_tensor(&f, "whole.weight")->strides = turned;
        uint8_t *v = fake_add(&f, "vector", types[i], 2 * COLS, 0);
        fill(v, fake_tensor(&f, "vector"), &rng);
        ash_tensor *view = fake_tensor(&f, "vector");
        view->dims[0] = COLS;
        view->bytes /= 2;
        view->strides = second;
        fake_add(&f, "kv_b.weight", ASH_DTYPE_F32, HEADS * (NOPE + VDIM), RANK);
        fake_add(&f, "zeros", types[i], COLS, 0);
        bind_all(&f, &p, &b);
        size_t size = ash_dtype_get(types[i])->block_bytes;
        for (int64_t r = 0; r < ROWS; r++) {
            float got[COLS], want;
            ash_linear_row(&p.whole, r, got);
            for (int64_t c = 0; c < COLS; c++) {
                ash_quant_decode(types[i], data + (size_t)(r + c * ROWS) * size, 1, &want);
                assert_true(got[c] == want);
            }
        }
        for (int64_t c = 0; c < COLS; c++) {
            float want;
            ash_quant_decode(types[i], v + (size_t)(2 * c) * size, 1, &want);
            assert_true(p.vector[c] == want);
        }
        assert_null(p.dropped); /* all zero: as if it were absent */
        unbind(&b);
        fake_release(&f);
    }
}

/* GPTQ's kv_b is cut into floats: its words hold several rows' columns. */
static void gptq_in_order(bool ordered)
{
    fake f;
    pieces p;
    bound b;
    ash_rng rng;
    ash_rng_init(&rng, 11);
    fake_init(&f, FAKE_LLAMA, NULL, "{\"bits\":4,\"group_size\":32}");
    enum { OUT = HEADS * (NOPE + VDIM) };
    uint8_t *q = fake_add(&f, "kv_b.qweight", ASH_DTYPE_I32, RANK / 8, OUT);
    uint8_t *z = fake_add(&f, "kv_b.qzeros", ASH_DTYPE_I32, 2, OUT / 8);
    uint8_t *s = fake_add(&f, "kv_b.scales", ASH_DTYPE_F16, 2, OUT);
    for (int i = 0; i < RANK / 8 * OUT * 4; i++) q[i] = (uint8_t)ash_rng_u64(&rng);
    for (int i = 0; i < OUT; i++) z[i] = (uint8_t)(ash_rng_u64(&rng) & 0x77);
    fill(s, fake_tensor(&f, "kv_b.scales"), &rng);
    int32_t group_of[RANK];
    uint8_t *idx = ordered ? fake_add(&f, "kv_b.g_idx", ASH_DTYPE_I32, RANK, 0) : NULL;
    for (int i = 0; i < RANK; i++) {
        group_of[i] = ordered ? i % 2 : i / 32;
        if (ordered)
            memcpy(idx + 4 * i, &group_of[i], 4);
    }
    bind_all(&f, &p, &b);
    char text[64];
    assert_string_equal(ash_bind_describe(&b.b, text),
                        ordered ? "GPTQ 4-bit, group 32, act-order" : "GPTQ 4-bit, group 32");
    const ash_gptq g = {.bits = 4,
                        .in = RANK,
                        .out = OUT,
                        .groups = 2,
                        .qweight = q,
                        .qzeros = z,
                        .scales = s,
                        .scale_type = ASH_DTYPE_F16,
                        .group_of = group_of};
    float want[RANK], got[RANK];
    for (int h = 0; h < HEADS; h++)
        for (int j = 0; j < NOPE + VDIM; j++) {
            ash_gptq_row(&g, h * (NOPE + VDIM) + j, want);
            if (j >= NOPE) {
                ash_linear_row(&p.v[h], j - NOPE, got);
                assert_memory_equal(got, want, sizeof want);
            }
            for (int64_t r = 0; j < NOPE && r < RANK; r++) {
                ash_linear_row(&p.k[h], r, got);
                assert_true(got[j] == want[r]);
            }
        }
    unbind(&b);
    fake_release(&f);
}

static void gptq_in_parts(void **state)
{
    gptq_in_order(false);
    gptq_in_order(true);
}

/* FP8's kv_b: the values stay FP8 where a head begins on a block, else they and the keys are floats. */
static void fp8_in_parts(void **state)
{
    static const int64_t blocks[][2] = {{16, 32}, {48, 24}};
    for (int i = 0; i < 2; i++) {
        fake f;
        pieces p;
        bound b;
        ash_rng rng;
        char quant[96], text[64];
        int64_t bo = blocks[i][0], bi = blocks[i][1], down = (192 + bo - 1) / bo,
                across = (RANK + bi - 1) / bi;
        ash_rng_init(&rng, 13);
        snprintf(quant, sizeof quant, "{\"quant_method\":\"fp8\",\"weight_block_size\":[%d,%d]}", (int)bo,
                 (int)bi);
        fake_init(&f, FAKE_LLAMA, NULL, quant);
        uint8_t *w = fake_add(&f, "kv_b.weight", ASH_DTYPE_F8_E4M3, HEADS * (NOPE + VDIM), RANK);
        for (int j = 0; j < HEADS * (NOPE + VDIM) * RANK; j++)
            w[j] = (uint8_t)(ash_rng_u64(&rng) % 120); /* no NaN */
        uint8_t *s = fake_add(&f, "kv_b.weight_scale_inv", ASH_DTYPE_F32, (uint64_t)down, (uint64_t)across);
        fill(s, fake_tensor(&f, "kv_b.weight_scale_inv"), &rng);
        bind_all(&f, &p, &b);
        assert_int_equal(p.v[0].w.dtype, i ? ASH_DTYPE_F32 : ASH_DTYPE_F8_E4M3);
        assert_string_equal(ash_bind_describe(&b.b, text), "FP8");
        float want[RANK], got[RANK], scale;
        for (int64_t row = 0; row < HEADS * (NOPE + VDIM); row++) {
            int64_t h = row / (NOPE + VDIM), j = row % (NOPE + VDIM);
            source_row(&f, fake_tensor(&f, "kv_b.weight"), row, want);
            for (int64_t c = 0; c < RANK; c++) {
                memcpy(&scale, s + 4 * (row / bo * across + c / bi), 4);
                want[c] *= scale;
            }
            if (j >= NOPE) {
                ash_linear_row(&p.v[h], j - NOPE, got);
                assert_memory_equal(got, want, sizeof want);
            }
            for (int64_t r = 0; j < NOPE && r < RANK; r++) {
                ash_linear_row(&p.k[h], r, got);
                assert_true(got[j] == want[r]);
            }
        }
        unbind(&b);
        fake_release(&f);
    }
}

static void descriptions(void **state)
{
    fake f;
    ash_net *net;
    ash_err err = ASH_ERR_INIT;
    char text[64];
    fake_init(&f, FAKE_LLAMA, NULL, NULL);
    fake_llama(&f, "model.");
    assert_int_equal(fake_plan(&f, &net, &err), 0);
    assert_string_equal(ash_bind_describe(&net->binding, text), "BF16");
    ash_net_close(net);
    fake_release(&f);

    /* weights count, not bytes: those of 16 bits have more of these; and a last group may be shorter */
    ash_linear matrix;
    const ash_tensor plain = {.dtype = ASH_DTYPE_BF16}, words = {.dtype = ASH_DTYPE_I32};
    ash_gptq g = {.bits = 4, .in = 576, .out = 64, .groups = 5};
    ash_bind_item items[] = {{.tensor = &plain, .matrix = &matrix, .rows = 50, .cols = 576},
                             {.tensor = &words, .gptq = &g, .matrix = &matrix, .rows = 64, .cols = 576}};
    const ash_binding mixed = {.quant = {.group_size = 128}, .items = items, .n_items = 2};
    assert_string_equal(ash_bind_describe(&mixed, text), "GPTQ 4-bit, group 128");
}

/* Layers after the last and tables that are computed here are passed over; nothing of them is bound. */
static void what_is_not_needed(void **state)
{
    fake f;
    ash_net *net;
    ash_err err = ASH_ERR_INIT;
    fake_init(&f, FAKE_LLAMA, NULL, NULL);
    fake_llama(&f, "model.");
    fake_add(&f, "model.layers.2.input_layernorm.weight", ASH_DTYPE_F64, 3, 3);
    fake_add(&f, "model.layers.0.self_attn.rotary_emb.inv_freq", ASH_DTYPE_F32, 8, 0);
    fake_add(&f, "lm_head.weight", ASH_DTYPE_BF16, 1, 1); /* the head is the embedding, whatever this is */
    assert_int_equal(fake_plan(&f, &net, &err), 0);
    assert_int_equal(net->binding.n_items, 2 + 2 * 9);
    ash_net_close(net);
    fake_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gptq_is_checked),
        cmocka_unit_test(groups_are_checked),
        cmocka_unit_test(uneven_groups_need_settings),
        cmocka_unit_test(fp8_needs_its_scales),
        cmocka_unit_test(matrices_of_all_types),
        cmocka_unit_test(stacks),
        cmocka_unit_test(heads_of_latent_attention),
        cmocka_unit_test(split_heads_come_first),
        cmocka_unit_test(shapes_of_parts_are_checked),
        cmocka_unit_test(views_with_strides),
        cmocka_unit_test(gptq_in_parts),
        cmocka_unit_test(fp8_in_parts),
        cmocka_unit_test(descriptions),
        cmocka_unit_test(what_is_not_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
