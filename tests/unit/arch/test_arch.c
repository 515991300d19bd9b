/* Architectures: sizes from metadata, the binding of tensors, and every way in which a checkpoint may
 * be wrong, each refused with its place, what was expected and what was found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arch/arch.h"
#include "../tiny_model.h"

/* Plans m; the caller closes *g and *net. */
static int plan(const tiny_model *m, ash_buf *b, ash_gguf **g, ash_net **net, ash_err *err)
{
    const ash_arch *arch;
    *net = NULL;
    tiny_build(m, b);
    assert_int_equal(ash_gguf_open_memory(b->data, b->len, "mem.gguf", g, err), 0);
    const ash_checkpoint c = {.path = "mem.gguf", .dir = ".", .gguf = *g, .tensors = ash_gguf_tensors(*g),
                              .note = ""};
    int rc = ash_arch_find(&c, &arch, err);
    return rc ? rc : arch->plan(&c, net, err);
}

static void expect_refused(const tiny_model *m, int code, const char *text)
{
    ash_buf b;
    ash_gguf *g;
    ash_net *net;
    ash_err err = ASH_ERR_INIT;
    int rc = plan(m, &b, &g, &net, &err);
    if (rc != code || !strstr(err.msg, text))
        fail_msg("wanted %d with '%s', got %d: %s", code, text, rc, err.msg);
    assert_null(net);
    ash_gguf_close(g);
    ash_buf_release(&b);
}

static void sizes(void **state)
{
    tiny_model m = TINY_DEFAULT;
    ash_buf b;
    ash_gguf *g;
    ash_net *net;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(plan(&m, &b, &g, &net, &err), 0);
    assert_int_equal(net->hp.n_vocab, 300);
    assert_int_equal(net->hp.n_layers, 2);
    assert_int_equal(net->hp.k_dim, 16);
    assert_int_equal(net->hp.rope.dims, 16);
    assert_int_equal(net->kv.kv_heads, 2);
    assert_int_equal(net->binding.n_items, 2 + 2 * 9);
    assert_int_equal(net->binding.max_in, 96);
    int block = 2 * 64 + 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 96;
    assert_int_equal(net->binding.n_params, 300 * 64 + 64 + 2 * block);
    assert_int_equal(net->binding.token_params, 2 * (block - 2 * 64));
    assert_int_equal(net->binding.step_bytes, net->binding.bytes); /* the embedding is the head */
    uint64_t end = 0; /* pieces lie one after the other and fill the region */
    for (size_t i = 0; i < net->binding.n_items; i++) {
        assert_int_equal(net->binding.items[i].offset, end);
        assert_int_equal(end % 64, 0);
        end += net->binding.items[i].bytes;
    }
    assert_int_equal(net->binding.bytes, end);
    ash_net_close(net);
    ash_gguf_close(g);
    ash_buf_release(&b);
}

static void untied_head_is_bound(void **state)
{
    tiny_model m = TINY_DEFAULT;
    m.tied = false;
    ash_buf b;
    ash_gguf *g;
    ash_net *net;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(plan(&m, &b, &g, &net, &err), 0);
    assert_int_equal(net->binding.n_items, 3 + 2 * 9);
    int block = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 96;
    assert_int_equal(net->binding.token_params, 2 * block);
    assert_int_equal(net->binding.step_bytes, net->binding.bytes - net->binding.head_bytes);
    ash_net_close(net);
    ash_gguf_close(g);
    ash_buf_release(&b);
}

static void tensors_are_checked(void **state)
{
    tiny_model m = TINY_DEFAULT;
    m.omit = "blk.1.ffn_up.weight";
    expect_refused(&m, ASH_EFORMAT, "mem.gguf: tensor 'blk.1.ffn_up.weight' is missing");
    m.omit = "token_embd.weight";
    expect_refused(&m, ASH_EFORMAT, "tensor 'token_embd.weight' is missing");
    m.omit = NULL;
    m.reshape = "blk.0.attn_q.weight";
    expect_refused(&m, ASH_EFORMAT,
                   "tensor 'blk.0.attn_q.weight' must be [64, 64] (heads * key length, embedding), "
                   "is [64, 96]");
    m.reshape = "token_embd.weight";
    expect_refused(&m, ASH_EFORMAT, "must be [300, 64] (vocabulary, embedding), is [300, 96]");
    m.reshape = "output_norm.weight";
    expect_refused(&m, ASH_EFORMAT, "tensor 'output_norm.weight' must be [64] (embedding), is [65]");
    m.reshape = NULL;
    m.embd = 256;
    m.ff = 256;
    m.heads = 1;
    m.kv_heads = 1;
    m.vocab = 1; /* so that the shape is right and the type is what is wrong */
    m.retype = "token_embd.weight";
    expect_refused(&m, ASH_EUNSUPPORTED,
                   "tensor 'token_embd.weight' has type Q8_K");
}

static void leftovers_are_no_error(void **state)
{
    tiny_model m = TINY_DEFAULT;
    m.extra = "blk.0.something_new";
    ash_buf b;
    ash_gguf *g;
    ash_net *net;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(plan(&m, &b, &g, &net, &err), 0);
    ash_net_close(net);
    ash_gguf_close(g);
    ash_buf_release(&b);
}

static void vectors_must_be_finite(void **state)
{
    tiny_model m = TINY_DEFAULT;
    m.poison = "blk.1.attn_norm.weight";
    ash_buf b;
    ash_gguf *g;
    ash_net *net;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(plan(&m, &b, &g, &net, &err), 0);
    void *region = aligned_alloc(64, net->binding.bytes);
    assert_int_equal(net->arch->bind(net, region, &err), ASH_EFORMAT);
    assert_non_null(strstr(err.msg, "tensor 'blk.1.attn_norm.weight' has an element that is not finite"));
    free(region);
    ash_net_close(net);
    ash_gguf_close(g);
    ash_buf_release(&b);
}

static void keys_are_checked(void **state)
{
    static const struct {
        tiny_key key;
        int code;
        const char *text;
    } cases[] = {
        {{"general.architecture", ASH_GGUF_STRING, .s = "gemma9"}, ASH_EUNSUPPORTED,
         "architecture 'gemma9'; known here: llama"},
        {{"general.architecture", ASH_GGUF_U32, .i = 3}, ASH_EFORMAT, "general.architecture"},
        {{"general.architecture", ASH_GGUF_ARRAY}, ASH_ENOENT, "key 'general.architecture' is missing"},
        {{"llama.block_count", ASH_GGUF_ARRAY}, ASH_ENOENT, "key 'llama.block_count' is missing"},
        {{"llama.block_count", ASH_GGUF_U32, .i = 0}, ASH_EFORMAT, "'llama.block_count'"},
        {{"llama.block_count", ASH_GGUF_U32, .i = 4000000000u}, ASH_EFORMAT, "'llama.block_count'"},
        {{"llama.block_count", ASH_GGUF_U32, .i = 3}, ASH_EFORMAT,
         "tensor 'blk.2.attn_norm.weight' is missing"},
        {{"llama.block_count", ASH_GGUF_STRING, .s = "two"}, ASH_EFORMAT, "is the string 'two'"},
        {{"llama.embedding_length", ASH_GGUF_U32, .i = 4000000000u}, ASH_EFORMAT, "embedding_length"},
        {{"llama.embedding_length", ASH_GGUF_U32, .i = 66}, ASH_EFORMAT, "no multiple of 4 heads"},
        {{"llama.feed_forward_length", ASH_GGUF_U32, .i = 0}, ASH_EFORMAT, "feed_forward_length"},
        {{"llama.context_length", ASH_GGUF_U32, .i = 0}, ASH_EFORMAT, "context_length"},
        {{"llama.attention.head_count", ASH_GGUF_U32, .i = 0}, ASH_EFORMAT, "head_count"},
        {{"llama.attention.head_count_kv", ASH_GGUF_U32, .i = 3}, ASH_EFORMAT,
         "4 attention heads are no multiple of 3 key and value heads"},
        {{"llama.attention.key_length", ASH_GGUF_U32, .i = 100000}, ASH_EFORMAT, "key_length"},
        {{"llama.attention.layer_norm_rms_epsilon", ASH_GGUF_F32, .f = -1}, ASH_EFORMAT,
         "must be from 0 to 0.1, is -1"},
        {{"llama.rope.freq_base", ASH_GGUF_F32, .f = 0}, ASH_EFORMAT, "rope.freq_base"},
        {{"llama.rope.dimension_count", ASH_GGUF_U32, .i = 18}, ASH_EFORMAT, "at most the head's 16"},
        {{"llama.rope.dimension_count", ASH_GGUF_U32, .i = 7}, ASH_EFORMAT, "must be even"},
        {{"llama.rope.scaling.type", ASH_GGUF_STRING, .s = "longrope"}, ASH_EUNSUPPORTED,
         "is 'longrope'; known: none, linear, yarn"},
        {{"llama.rope.scaling.factor", ASH_GGUF_F32, .f = 0.25}, ASH_EFORMAT, "1 or more, is 0.25"},
        {{"llama.rope.scaling.factor", ASH_GGUF_F32, .f = -4}, ASH_EFORMAT, "rope.scaling.factor"},
        {{"llama.expert_count", ASH_GGUF_U32, .i = 8}, ASH_EUNSUPPORTED,
         "architecture 'llama' with 8 experts"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tiny_model m = TINY_DEFAULT;
        m.keys = &cases[i].key;
        m.n_keys = 1;
        expect_refused(&m, cases[i].code, cases[i].text);
    }
}

static void windows(void **state)
{
    static const tiny_key key[] = {{"llama.attention.sliding_window", ASH_GGUF_U32, .i = 48},
                                   {"llama.attention.sliding_window_pattern", ASH_GGUF_U32, .i = 2}};
    tiny_model m = TINY_DEFAULT;
    m.keys = key;
    ash_buf b;
    ash_gguf *g;
    ash_net *net;
    ash_err err = ASH_ERR_INIT;
    m.n_keys = 1;
    assert_int_equal(plan(&m, &b, &g, &net, &err), 0);
    assert_int_equal(ash_hparams_window(&net->hp, 0), 48);
    assert_int_equal(ash_hparams_window(&net->hp, 1), 48);
    ash_net_close(net);
    ash_gguf_close(g);
    ash_buf_release(&b);
    m.n_keys = 2; /* a period, as some architectures have: not one flag for each layer */
    expect_refused(&m, ASH_EFORMAT, "llama.attention.sliding_window_pattern");
}

static void rope_scalings(void **state)
{
    static const tiny_key yarn[] = {{"llama.rope.scaling.type", ASH_GGUF_STRING, .s = "yarn"},
                                    {"llama.rope.scaling.factor", ASH_GGUF_F32, .f = 4},
                                    {"llama.rope.scaling.original_context_length", ASH_GGUF_U32, .i = 128}};
    static const tiny_key old[] = {{"llama.rope.scale_linear", ASH_GGUF_F32, .f = 2}};
    static const tiny_key none[] = {{"llama.rope.scaling.type", ASH_GGUF_STRING, .s = "none"},
                                    {"llama.rope.scaling.factor", ASH_GGUF_F32, .f = 8}};
    static const struct {
        const tiny_key *keys;
        size_t n;
        ash_rope_scaling scaling;
        double factor;
    } cases[] = {{yarn, 3, ASH_ROPE_YARN, 4}, {old, 1, ASH_ROPE_LINEAR, 2}, {none, 2, ASH_ROPE_NONE, 1}};
    for (size_t i = 0; i < 3; i++) {
        tiny_model m = TINY_DEFAULT;
        m.keys = cases[i].keys;
        m.n_keys = cases[i].n;
        ash_buf b;
        ash_gguf *g;
        ash_net *net;
        ash_err err = ASH_ERR_INIT;
        assert_int_equal(plan(&m, &b, &g, &net, &err), 0);
        assert_int_equal(net->hp.rope.scaling, cases[i].scaling);
        assert_true(net->hp.rope.factor == cases[i].factor);
        ash_net_close(net);
        ash_gguf_close(g);
        ash_buf_release(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(untied_head_is_bound),
        cmocka_unit_test(tensors_are_checked),
        cmocka_unit_test(leftovers_are_no_error),
        cmocka_unit_test(vectors_must_be_finite),
        cmocka_unit_test(keys_are_checked),
        cmocka_unit_test(windows),
        cmocka_unit_test(rope_scalings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
