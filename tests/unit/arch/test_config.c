/* config.json and quantisation settings: what is read from them in every spelling, and what is refused
 * with its place, what was expected and what was found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake.h"

static void expect(int rc, const ash_err *err, int code, const char *text, const char *what)
{
    if (rc != code || !strstr(err->msg, text))
        fail_msg("%s: wanted %d with '%s', got %d: %s", what, code, text, rc, err->msg);
}

/* FAKE_LLAMA with some members changed. */
static void expect_refused(const char *change, int code, const char *text)
{
    fake f;
    ash_net *net;
    ash_err err = ASH_ERR_INIT;
    fake_init(&f, FAKE_LLAMA, change, NULL);
    fake_llama(&f, "model.");
    expect(fake_plan(&f, &net, &err), &err, code, text, change);
    assert_null(net);
    fake_release(&f);
}

static void values_are_checked(void **state)
{
    static const struct {
        const char *change;
        int code;
        const char *text;
    } cases[] = {
        {"{\"model_type\":\"gemma9\"}", ASH_EUNSUPPORTED,
         "mem.safetensors: architecture 'gemma9'; known here: llama"},
        {"{\"model_type\":\"gemma9\"}", ASH_EUNSUPPORTED, "mistral, qwen2, qwen3"},
        {"{\"model_type\":null}", ASH_EFORMAT, "dir/config.json: 'model_type' is missing"},
        {"{\"hidden_size\":null}", ASH_ENOENT, "dir/config.json: 'hidden_size' is missing"},
        {"{\"hidden_size\":\"64\"}", ASH_EFORMAT, "dir/config.json: 'hidden_size' must be"},
        {"{\"hidden_size\":0}", ASH_EFORMAT, "'hidden_size'"},
        {"{\"hidden_size\":128}", ASH_EFORMAT,
         "tensor 'model.embed_tokens.weight' must be [48, 128] (vocabulary, embedding), is [48, 64]"},
        {"{\"hidden_size\":66}", ASH_EFORMAT, "'hidden_size' 66 is no multiple of 'num_attention_heads' 4"},
        {"{\"intermediate_size\":1e9}", ASH_EFORMAT, "'intermediate_size'"},
        {"{\"num_hidden_layers\":3}", ASH_EFORMAT,
         "tensor 'model.layers.2.input_layernorm.weight' is missing"},
        {"{\"num_hidden_layers\":2000}", ASH_EFORMAT, "'num_hidden_layers'"},
        {"{\"num_attention_heads\":null}", ASH_ENOENT, "'num_attention_heads' is missing"},
        {"{\"num_key_value_heads\":3}", ASH_EFORMAT,
         "'num_attention_heads' 4 is no multiple of 'num_key_value_heads' 3"},
        {"{\"num_key_value_heads\":null}", ASH_EFORMAT,
         "k_proj.weight' must be [64, 64] (kv heads * key length"},
        {"{\"head_dim\":15}", ASH_EFORMAT, "must be even and at most 1024, is 15"},
        {"{\"head_dim\":32}", ASH_EFORMAT,
         "q_proj.weight' must be [128, 64] (heads * key length, embedding)"},
        {"{\"vocab_size\":49}", ASH_EFORMAT, "must be [49, 64]"},
        {"{\"vocab_size\":-1}", ASH_EFORMAT, "'vocab_size'"},
        {"{\"max_position_embeddings\":0}", ASH_EFORMAT, "'max_position_embeddings'"},
        {"{\"rms_norm_eps\":-1}", ASH_EFORMAT, "'rms_norm_eps'"},
        {"{\"hidden_act\":\"gelu\"}", ASH_EUNSUPPORTED, "'hidden_act' is 'gelu'; known here: silu"},
        {"{\"hidden_act\":7}", ASH_EFORMAT, "'hidden_act' must be a string"},
        {"{\"tie_word_embeddings\":false}", ASH_EFORMAT, "tensor 'lm_head.weight' is missing"},
        {"{\"tie_word_embeddings\":\"no\"}", ASH_EFORMAT, "'tie_word_embeddings'"},
        {"{\"rope_theta\":0}", ASH_EFORMAT, "dir/config.json: 'rope_theta'"},
        {"{\"rope_scaling\":3}", ASH_EFORMAT, "the rope scaling must be an object"},
        {"{\"rope_scaling\":{\"type\":\"longrope\",\"factor\":2}}", ASH_EUNSUPPORTED,
         "dir/config.json: rope scaling 'longrope'; known here: default, linear, dynamic, llama3, yarn"},
        {"{\"rope_scaling\":{\"rope_type\":\"su\"}}", ASH_EUNSUPPORTED, "rope scaling 'su'"},
        {"{\"rope_scaling\":{\"type\":\"linear\"}}", ASH_ENOENT, "'factor' of the rope scaling is missing"},
        {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":0.5}}", ASH_EFORMAT, "'factor'"},
        {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":\"2\"}}", ASH_EFORMAT, "'factor' must be"},
        {"{\"rope_scaling\":{\"type\":\"llama3\",\"factor\":2,\"low_freq_factor\":1}}", ASH_ENOENT,
         "'high_freq_factor' of the rope scaling is missing"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2,\"beta_fast\":-1}}", ASH_EFORMAT,
         "'beta_fast'"},
        {"{\"rope_parameters\":{\"a\":{\"rope_theta\":1e4},\"b\":{\"rope_theta\":1e6}}}", ASH_EUNSUPPORTED,
         "rope settings that differ between layers"},
        {"{\"rope_theta\":1}", ASH_EINVAL, "mem.safetensors: rope base 1: expected more than 1"},
        {"{\"rope_scaling\":{\"type\":\"llama3\",\"factor\":2,\"low_freq_factor\":4,"
         "\"high_freq_factor\":1}}",
         ASH_EINVAL, "mem.safetensors: llama3 rope scaling: low 4, high 1"},
        {"{\"partial_rotary_factor\":0.5}", ASH_EUNSUPPORTED,
         "'partial_rotary_factor' is 0.5; known here: 1"},
        {"{\"model_type\":\"mistral\",\"sliding_window\":0}", ASH_EFORMAT, "'sliding_window'"},
        {"{\"model_type\":\"mistral\",\"layer_types\":[\"full_attention\"]}", ASH_EFORMAT,
         "'layer_types' must be a list of 2"},
        {"{\"model_type\":\"mistral\",\"layer_types\":[\"full_attention\",\"chunked_attention\"]}",
         ASH_EUNSUPPORTED, "'layer_types' of layer 1 is 'chunked_attention'"},
        {"{\"model_type\":\"qwen2\"}", ASH_EFORMAT,
         "tensor 'model.layers.0.self_attn.q_proj.bias' is missing"},
        {"{\"attention_bias\":true}", ASH_EFORMAT,
         "tensor 'model.layers.0.self_attn.q_proj.bias' is missing"},
        {"{\"mlp_bias\":true}", ASH_EFORMAT, "tensor 'model.layers.0.mlp.gate_proj.bias' is missing"},
        {"{\"mlp_bias\":1}", ASH_EFORMAT, "'mlp_bias'"},
        {"{\"model_type\":\"qwen3\",\"head_dim\":16}", ASH_EFORMAT,
         "tensor 'model.layers.0.self_attn.q_norm.weight' is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refused(cases[i].change, cases[i].code, cases[i].text);
}

static void no_configuration(void **state)
{
    fake f;
    ash_net *net;
    ash_err err = ASH_ERR_INIT;
    fake_init(&f, FAKE_LLAMA, NULL, NULL);
    fake_llama(&f, "model.");
    const json_t *config = f.c.config;
    f.c.config = NULL;
    expect(fake_plan(&f, &net, &err), &err, ASH_ENOENT,
           "mem.safetensors: there is no config.json beside it", "");
    f.c.config = config;
    fake_release(&f);
}

/* hparams of FAKE_LLAMA with some members changed. */
static ash_hparams read_changed(const char *change)
{
    fake f;
    ash_hparams hp;
    ash_err err = ASH_ERR_INIT;
    fake_init(&f, FAKE_LLAMA, change, NULL);
    const char *type = json_string_value(json_object_get(f.c.config, "model_type"));
    if (ash_hparams_read(&f.c, type, 0, &hp, &err))
        fail_msg("%s: %s", change, err.msg);
    fake_release(&f);
    return hp;
}

static void names_of_architectures(void **state)
{
    static const char *const changes[] = {"{\"model_type\":null,\"architectures\":[\"LlamaForCausalLM\"]}",
                                          "{\"model_type\":null,\"architectures\":[\"LLaMAForCausalLM\"]}",
                                          "{\"model_type\":\"mistral\"}"};
    for (size_t i = 0; i < 3; i++) {
        fake f;
        ash_net *net;
        ash_err err = ASH_ERR_INIT;
        fake_init(&f, FAKE_LLAMA, changes[i], NULL);
        fake_llama(&f, i ? "" : "model."); /* exports of the bare model have no prefix */
        assert_int_equal(fake_plan(&f, &net, &err), 0);
        assert_string_equal(net->name, i == 2 ? "mistral" : "llama");
        ash_net_close(net);
        fake_release(&f);
    }
    fake f; /* what follows from the type follows from the class, too */
    ash_net *net;
    ash_err err = ASH_ERR_INIT;
    fake_init(&f, FAKE_LLAMA, "{\"model_type\":null,\"architectures\":[\"MistralForCausalLM\"]}", NULL);
    fake_llama(&f, "model.");
    assert_int_equal(fake_plan(&f, &net, &err), 0);
    assert_int_equal(ash_hparams_window(&net->hp, 1), 4096);
    ash_net_close(net);
    fake_release(&f);
}

static void rope_in_every_spelling(void **state)
{
    static const char *const spellings[] = {
        "{\"rope_theta\":5e5,\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
        "\"high_freq_factor\":4,\"original_max_position_embeddings\":64}}",
        "{\"rope_theta\":5e5,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
        "\"high_freq_factor\":4,\"original_max_position_embeddings\":64}}",
        "{\"rope_parameters\":{\"rope_type\":\"llama3\",\"rope_theta\":5e5,\"factor\":8,\"low_freq_"
        "factor\":1,"
        "\"high_freq_factor\":4,\"original_max_position_embeddings\":64}}",
        "{\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"llama3\",\"rope_theta\":5e5,\"factor\":"
        "8,"
        "\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":64}}}",
    };
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        ash_rope_options o = read_changed(spellings[i]).rope;
        assert_int_equal(o.scaling, ASH_ROPE_LLAMA3);
        assert_true(o.base == 5e5 && o.factor == 8 && o.low_freq == 1 && o.high_freq == 4);
        assert_true(o.original_context == 64 && o.dims == 16 && o.head_dim == 16);
    }
    ash_rope_options o = read_changed(NULL).rope;
    assert_true(o.scaling == ASH_ROPE_NONE && o.base == 10000 && o.factor == 1);
    o = read_changed("{\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}").rope;
    assert_true(o.scaling == ASH_ROPE_DYNAMIC && o.factor == 2 && o.original_context == 128);
    o = read_changed("{\"rope_scaling\":{\"type\":\"linear\",\"factor\":3}}").rope;
    assert_true(o.scaling == ASH_ROPE_LINEAR && o.factor == 3);
}

static void yarn_factors(void **state)
{
    double l = 0.1 * 1.3862943611198906; /* ln 4 */
    static const char *const texts[] = {
        "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":32}}",
        "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"mscale\":0.8,\"mscale_all_dim\":0.4}}",
        "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"mscale\":0.8}}",
        "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"attention_factor\":1.5,\"truncate\":false}}"};
    const double wants[] = {l + 1, (0.8 * l + 1) / (0.4 * l + 1), l + 1, 1.5};
    for (size_t i = 0; i < 4; i++) {
        ash_rope_options o = read_changed(texts[i]).rope;
        assert_true(o.scaling == ASH_ROPE_YARN && o.attention_factor - wants[i] < 1e-12 &&
                    wants[i] - o.attention_factor < 1e-12);
        assert_true(o.original_context == (i ? 128 : 32) && o.fractional == (i == 3));
    }
}

static void windows_by_layer(void **state)
{
    static const struct {
        const char *change;
        int32_t first, second; /* of the two layers */
    } cases[] = {
        {NULL, 0, 0},
        {"{\"sliding_window\":16}", 0, 0}, /* llama has none, whatever stands there */
        {"{\"model_type\":\"mistral\",\"sliding_window\":16}", 16, 16},
        {"{\"model_type\":\"mistral\",\"sliding_window\":null}", 0, 0},
        {"{\"model_type\":\"mistral\"}", 4096, 4096},
        {"{\"model_type\":\"mistral\",\"sliding_window\":16,\"layer_types\":[\"full_attention\","
         "\"sliding_attention\"]}",
         0, 16},
        {"{\"model_type\":\"qwen2\",\"sliding_window\":16}", 0, 0},
        {"{\"model_type\":\"qwen2\",\"sliding_window\":16,\"use_sliding_window\":true}", 0, 0},
        {"{\"model_type\":\"qwen2\",\"sliding_window\":16,\"use_sliding_window\":true,"
         "\"max_window_layers\":1}",
         0, 16},
        {"{\"model_type\":\"qwen3\",\"sliding_window\":16,\"use_sliding_window\":true,"
         "\"layer_types\":[\"sliding_attention\",\"full_attention\"]}",
         16, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ash_hparams hp = read_changed(cases[i].change);
        assert_int_equal(ash_hparams_window(&hp, 0), cases[i].first);
        assert_int_equal(ash_hparams_window(&hp, 1), cases[i].second);
    }
}

static void heads(void **state)
{
    assert_int_equal(read_changed("{\"model_type\":\"qwen3\"}").k_dim, 128); /* transformers' default */
    assert_int_equal(read_changed("{\"head_dim\":24}").v_dim, 24);
    assert_int_equal(read_changed("{\"num_key_value_heads\":null}").n_kv_heads, 4);
    assert_true(read_changed(NULL).tied && !read_changed("{\"tie_word_embeddings\":null}").tied);
}

static void quantisations_are_named(void **state)
{
    static const struct {
        const char *quant;
        int code;
        const char *text;
    } cases[] = {
        {"{\"quant_method\":\"awq\",\"bits\":4}", ASH_EUNSUPPORTED,
         "quantize_config.json: quantisation 'quant_method' is 'awq'; known here: gptq, fp8: take the GPTQ "
         "or GGUF"},
        {"{\"w_bit\":4,\"q_group_size\":128,\"version\":\"GEMM\"}", ASH_EUNSUPPORTED, "'awq'"},
        {"{\"quant_method\":\"marlin\",\"bits\":4}", ASH_EUNSUPPORTED, "'marlin'"},
        {"{\"bits\":4,\"is_marlin_format\":true}", ASH_EUNSUPPORTED, "'marlin'"},
        {"{\"quant_method\":\"exl2\"}", ASH_EUNSUPPORTED, "'exl2'"},
        {"{\"quant_method\":\"exl3\"}", ASH_EUNSUPPORTED, "'exl3'"},
        {"{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true}", ASH_EUNSUPPORTED, "'bitsandbytes'"},
        {"{\"load_in_8bit\":true}", ASH_EUNSUPPORTED, "'bitsandbytes'"},
        {"{\"quant_method\":\"compressed-tensors\"}", ASH_EUNSUPPORTED, "'compressed-tensors'"},
        {"{\"quant_method\":\"hqq\"}", ASH_EUNSUPPORTED, "'hqq'"},
        {"{\"quant_method\":\"aqlm\"}", ASH_EUNSUPPORTED, "'aqlm'"},
        {"{\"quant_method\":\"quanto\"}", ASH_EUNSUPPORTED,
         "or GGUF conversion of this model, or the original"},
        {"{\"group_size\":128}", ASH_EUNSUPPORTED, "'(not named)'"},
        {"{\"quant_method\":5}", ASH_EFORMAT, "quantize_config.json: 'quant_method' must be a string"},
        {"{\"quant_method\":\"gptq\",\"bits\":5}", ASH_EUNSUPPORTED,
         "GPTQ of 5 bits; known here: 2, 3, 4, 8"},
        {"{\"quant_method\":\"gptq\",\"bits\":\"4\"}", ASH_EFORMAT, "'bits' must be"},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":-2}", ASH_EFORMAT, "'group_size'"},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"checkpoint_format\":\"marlin\"}", ASH_EUNSUPPORTED,
         "'checkpoint_format' is 'marlin'; known here: gptq, gptq_v2"},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"format\":\"gptq_p\"}", ASH_EUNSUPPORTED, "'gptq_p'"},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"pack_dtype\":\"int64\"}", ASH_EUNSUPPORTED,
         "'pack_dtype' is 'int64'; known here: int32"},
        {"{\"quant_method\":\"fp8\"}", ASH_EUNSUPPORTED, "'weight_block_size' must be two integers"},
        {"{\"quant_method\":\"fp8\",\"weight_block_size\":[128]}", ASH_EFORMAT, "'weight_block_size'"},
        {"{\"quant_method\":\"fp8\",\"weight_block_size\":[0,128]}", ASH_EFORMAT, "'weight_block_size'"},
        {"{\"quant_method\":\"fp8\",\"fmt\":\"e5m2\",\"weight_block_size\":[128,128]}", ASH_EUNSUPPORTED,
         "'fmt' is 'e5m2'; known here: e4m3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fake f;
        ash_net *net;
        ash_err err = ASH_ERR_INIT;
        fake_init(&f, FAKE_LLAMA, NULL, cases[i].quant);
        fake_llama(&f, "model.");
        expect(fake_plan(&f, &net, &err), &err, cases[i].code, cases[i].text, cases[i].quant);
        assert_null(net);
        fake_release(&f);
    }
}

static void quantisations_are_read(void **state)
{
    static const struct {
        const char *quant;
        ash_quantization want;
    } cases[] = {
        {NULL, {0}},
        {"{\"bits\":4,\"group_size\":128,\"desc_act\":true}", {ASH_QUANT_GPTQ, 4, 128, false, 0, 0}},
        {"{\"w_bit\":3,\"q_group_size\":64}", {ASH_QUANT_GPTQ, 3, 64, false, 0, 0}},
        {"{\"quant_method\":\"GPTQ\",\"bits\":8,\"group_size\":-1}", {ASH_QUANT_GPTQ, 8, -1, false, 0, 0}},
        {"{\"method\":\"gptq\",\"bits\":4,\"format\":\"gptq_v2\",\"pack_dtype\":\"int32\"}",
         {ASH_QUANT_GPTQ, 4, 0, true, 0, 0}},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"checkpoint_format\":\"gptq_v2\",\"format\":\"gptq_v2\"}",
         {ASH_QUANT_GPTQ, 4, 0, true, 0, 0}},
        {"{\"quant_method\":\"fp8\",\"fmt\":\"e4m3\",\"weight_block_size\":[128,64]}",
         {ASH_QUANT_FP8, 0, 0, false, 128, 64}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fake f;
        ash_quantization q;
        ash_err err = ASH_ERR_INIT;
        fake_init(&f, FAKE_LLAMA, NULL, cases[i].quant);
        assert_int_equal(ash_quantization_read(&f.c, &q, &err), 0);
        const ash_quantization *w = &cases[i].want;
        assert_int_equal(q.method, w->method);
        assert_int_equal(q.bits, w->bits);
        assert_int_equal(q.group_size, w->group_size);
        assert_int_equal(q.v2, w->v2);
        assert_true(q.block_out == w->block_out && q.block_in == w->block_in);
        fake_release(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_checked),
        cmocka_unit_test(no_configuration),
        cmocka_unit_test(names_of_architectures),
        cmocka_unit_test(rope_in_every_spelling),
        cmocka_unit_test(yarn_factors),
        cmocka_unit_test(windows_by_layer),
        cmocka_unit_test(heads),
        cmocka_unit_test(quantisations_are_named),
        cmocka_unit_test(quantisations_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
