/* Sizes of DeepSeek-V2 and V3 from config.json as published and from three generations of GGUF keys, and
 * what is refused, by key. The computation itself: tests/unit/engine/test_golden_hf.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "arch/deepseek2.h"
#include "../format/gguf_writer.h"

static const char lite[] =
    "{'model_type': 'deepseek_v2', 'q_lora_rank': null, 'kv_lora_rank': 512, 'qk_rope_head_dim': 64,"
    " 'qk_nope_head_dim': 128, 'v_head_dim': 128, 'first_k_dense_replace': 1, 'moe_layer_freq': 1,"
    " 'n_routed_experts': 64, 'num_experts_per_tok': 6, 'n_shared_experts': 2, 'n_group': 1,"
    " 'topk_group': 1, 'topk_method': 'greedy', 'scoring_func': 'softmax', 'norm_topk_prob': false,"
    " 'routed_scaling_factor': 1.0, 'moe_intermediate_size': 1408, 'rope_scaling': {'type': 'yarn',"
    " 'factor': 40, 'mscale': 0.707, 'mscale_all_dim': 0.707}}";
static const char v2[] =
    "{'q_lora_rank': 1536, 'n_routed_experts': 160, 'n_group': 8, 'topk_group': 3,"
    " 'topk_method': 'group_limited_greedy', 'routed_scaling_factor': 16.0, 'moe_intermediate_size': 1536,"
    " 'rope_scaling': {'type': 'yarn', 'factor': 40, 'mscale': 1.0, 'mscale_all_dim': 1.0}}";
static const char v3[] =
    "{'model_type': 'deepseek_v3', 'q_lora_rank': 1536, 'n_routed_experts': 256, 'num_experts_per_tok': 8,"
    " 'n_shared_experts': 1, 'n_group': 8, 'topk_group': 4, 'topk_method': 'noaux_tc',"
    " 'scoring_func': 'sigmoid', 'norm_topk_prob': true, 'routed_scaling_factor': 2.5,"
    " 'moe_intermediate_size': 2048, 'first_k_dense_replace': 3,"
    " 'rope_scaling': {'type': 'yarn', 'factor': 40, 'mscale': 1.0, 'mscale_all_dim': 1.0}}";

/* JSON with single quotes. */
static json_t *parse(const char *text)
{
    char copy[1024];
    ash_err err = ASH_ERR_INIT;
    json_t *out;
    size_t n = strlen(text);
    assert_true(n < sizeof copy);
    for (size_t i = 0; i <= n; i++) copy[i] = text[i] == '\'' ? '"' : text[i];
    assert_int_equal(ash_json_parse(copy, n, &out, &err), 0);
    return out;
}

static ash_hparams hparams(int64_t layers)
{
    ash_hparams hp = {.n_layers = layers, .n_heads = 16, .n_embd = 2048, .n_ff = 10944};
    hp.rope.scaling = ASH_ROPE_YARN;
    hp.rope.factor = 40;
    return hp;
}

/* Reads the config of V2-Lite with these changes. */
static int read_json(const char *changes, ash_hparams *hp, ash_deepseek2 *d, ash_err *err)
{
    json_t *config = parse(lite), *edit = parse(changes);
    ash_tensor_index index;
    ash_tensor_index_init(&index, 1 << 20);
    assert_int_equal(ash_tensor_index_seal(&index, err), 0);
    assert_int_equal(json_object_update(config, edit), 0);
    const ash_checkpoint c = {.kind = ASH_CHECKPOINT_SAFETENSORS, .path = "m/model.safetensors", .dir = "m",
                              .tensors = &index, .config = config, .note = ""};
    int rc = ash_deepseek2_read(&c, hp, d, err);
    json_decref(config);
    json_decref(edit);
    ash_tensor_index_release(&index);
    return rc;
}

static void check_router(const ash_router *r, int experts, int used, int groups, int used_groups,
                         ash_router_score score, bool normalise, double scale)
{
    assert_int_equal(r->experts, experts);
    assert_int_equal(r->used, used);
    assert_int_equal(r->groups, groups);
    assert_int_equal(r->used_groups, used_groups);
    assert_int_equal(r->score, score);
    assert_int_equal(r->normalise, normalise);
    assert_true(r->scale == (float)scale);
}

static void published(void **state)
{
    ash_deepseek2 d;
    ash_err err = ASH_ERR_INIT;
    ash_hparams hp = hparams(27);
    assert_int_equal(read_json("{}", &hp, &d, &err), 0);
    check_router(&d.router, 64, 6, 1, 1, ASH_ROUTER_SOFTMAX, false, 1);
    assert_true(d.q_lora == 0 && d.kv_lora == 512 && d.nope == 128 && d.rope == 64 && d.v == 128);
    assert_true(d.n_dense == 1 && d.n_shared == 2 && d.expert_ff == 1408 && !d.biased);
    assert_true(hp.k_dim == 192 && hp.v_dim == 128 && hp.rope.dims == 64 && hp.rope.head_dim == 576);
    assert_int_equal(hp.rope.pairs, ASH_ROPE_ADJACENT);
    assert_true(fabs((double)d.scale - 0.1147213867929261) <= 1e-8);
    assert_int_equal(read_json(v2, &hp, &d, &err), 0);
    check_router(&d.router, 160, 6, 8, 3, ASH_ROUTER_SOFTMAX, false, 16);
    assert_true(fabs((double)d.scale - 0.1352337788608801) <= 1e-8);
    assert_int_equal(read_json(v3, &hp, &d, &err), 0);
    check_router(&d.router, 256, 8, 8, 4, ASH_ROUTER_SIGMOID, true, 2.5);
    assert_true(d.biased && d.n_dense == 3 && d.n_shared == 1);
}

static void variants(void **state)
{
    ash_deepseek2 d;
    ash_err err = ASH_ERR_INIT;
    ash_hparams hp = hparams(27);
    /* V2 normalises or scales, V3 does both; one expert's weight is not normalised */
    assert_int_equal(read_json("{'norm_topk_prob': true, 'routed_scaling_factor': 16.0}", &hp, &d, &err), 0);
    check_router(&d.router, 64, 6, 1, 1, ASH_ROUTER_SOFTMAX, true, 1);
    assert_int_equal(read_json("{'norm_topk_prob': true, 'routed_scaling_factor': 3.0,"
                               " 'num_experts_per_tok': 1}", &hp, &d, &err), 0);
    check_router(&d.router, 64, 1, 1, 1, ASH_ROUTER_SOFTMAX, false, 3);
    /* greedy takes no notice of groups; the class's own default is misspelt */
    assert_int_equal(read_json("{'topk_method': 'gready', 'n_group': 8, 'topk_group': 3}", &hp, &d, &err), 0);
    check_router(&d.router, 64, 6, 1, 1, ASH_ROUTER_SOFTMAX, false, 1);
    /* what transformers writes of V3 says neither method nor score */
    assert_int_equal(read_json("{'model_type': 'deepseek_v3', 'topk_method': null, 'scoring_func': null,"
                               " 'norm_topk_prob': null, 'routed_scaling_factor': null}", &hp, &d, &err), 0);
    check_router(&d.router, 64, 6, 1, 1, ASH_ROUTER_SIGMOID, true, 2.5);
    assert_true(d.biased);
    assert_int_equal(read_json("{'q_lora_rank': 0, 'n_shared_experts': null}", &hp, &d, &err), 0);
    assert_true(d.q_lora == 0 && d.n_shared == 0);
    assert_int_equal(read_json("{'n_routed_experts': null}", &hp, &d, &err), 0);
    assert_true(d.n_experts == 0 && d.n_dense == 27);
    assert_int_equal(read_json("{'rope_scaling': null, 'rope_interleave': false}", &hp, &d, &err), 0);
    assert_true(fabs((double)d.scale - 1 / sqrt(192)) <= 1e-8);
    assert_int_equal(hp.rope.pairs, ASH_ROPE_HALVES);
}

static void refusals(void **state)
{
    static const struct {
        int code;
        const char *edit, *text;
    } bad[] = {
        {ASH_ENOENT, "{'kv_lora_rank': null}", "m/config.json: 'kv_lora_rank' is missing"},
        {ASH_EFORMAT, "{'kv_lora_rank': 'many'}", "m/config.json: 'kv_lora_rank' must be"},
        {ASH_EFORMAT, "{'kv_lora_rank': 100000}", "m/config.json: 'kv_lora_rank' must be"},
        {ASH_EFORMAT, "{'qk_rope_head_dim': 63}", "expected an even number"},
        {ASH_EUNSUPPORTED, "{'topk_method': 'dice'}", "'topk_method' is 'dice'; known: greedy"},
        {ASH_EUNSUPPORTED, "{'scoring_func': 'tanh'}", "'scoring_func' is 'tanh'; known: softmax"},
        {ASH_EUNSUPPORTED, "{'moe_layer_freq': 2}", "'moe_layer_freq' is 2"},
        {ASH_EFORMAT, "{'num_experts_per_tok': 65}", "65 of 64 experts"},
        {ASH_EFORMAT, "{'num_experts_per_tok': null}", "0 of 64 experts"},
        {ASH_EFORMAT, "{'n_routed_experts': 5000}", "m/config.json: 'n_routed_experts' must be"},
        {ASH_EFORMAT, "{'topk_method': 'group_limited_greedy', 'n_group': 7}", "7 expert groups"},
        {ASH_EFORMAT, "{'topk_method': 'noaux_tc', 'n_group': 32, 'topk_group': 2}", "of 32 expert groups"},
        {ASH_ENOENT, "{'moe_intermediate_size': null}", "'moe_intermediate_size'"},
        {ASH_EFORMAT, "{'n_shared_experts': 200, 'moe_intermediate_size': 100000}", "200 shared experts"},
        {ASH_EFORMAT, "{'rope_scaling': {'type': 'yarn', 'factor': 4, 'mscale_all_dim': -1}}",
         "'mscale_all_dim'"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ash_deepseek2 d;
        ash_err err = ASH_ERR_INIT;
        ash_hparams hp = hparams(27);
        int rc = read_json(bad[i].edit, &hp, &d, &err);
        if (rc != bad[i].code || !strstr(err.msg, bad[i].text))
            fail_msg("%s: wanted %d with '%s', got %d: %s", bad[i].edit, bad[i].code, bad[i].text, rc,
                     err.msg);
    }
}

/* ---- GGUF ----------------------------------------------------------------------------------- */

typedef struct key {
    const char *name;
    double value; /* negative: left out */
} key;

enum { N_OWN = 11 };

/* Keys of V2-Lite as the first converters wrote them, these changed or added, and maybe a tensor. */
static int read_gguf(const key *keys, size_t n, const char *tensor, ash_hparams *hp, ash_deepseek2 *d,
                     ash_err *err)
{
    const key own[N_OWN] = {
        {"attention.kv_lora_rank", 512}, {"attention.key_length", 192}, {"attention.value_length", 128},
        {"rope.dimension_count", 64},    {"leading_dense_block_count", 1}, {"expert_count", 64},
        {"expert_used_count", 6},        {"expert_shared_count", 2},
        {"expert_feed_forward_length", 1408}, {"expert_weights_scale", 1.5},
        {"rope.scaling.yarn_log_multiplier", 0.0707},
    };
    key all[N_OWN + 16];
    size_t total = 0, written = 0;
    ash_buf kv, out;
    ash_buf_init(&kv, 1 << 20);
    ash_buf_init(&out, 1 << 20);
    for (size_t i = 0; i < N_OWN; i++) {
        all[total] = own[i];
        for (size_t j = 0; j < n; j++)
            if (!strcmp(keys[j].name, own[i].name))
                all[total].value = keys[j].value;
        total++;
    }
    for (size_t j = 0; j < n; j++) {
        bool known = false;
        for (size_t i = 0; i < N_OWN; i++) known = known || !strcmp(keys[j].name, own[i].name);
        if (!known)
            all[total++] = keys[j];
    }
    for (size_t i = 0; i < total; i++) {
        char name[96];
        snprintf(name, sizeof name, "deepseek2.%s", all[i].name);
        if (all[i].value < 0)
            continue;
        written++;
        bool real = strstr(name, "scale") || strstr(name, "multiplier");
        if (real)
            gw_key(&kv, name, ASH_GGUF_F32), gw_f32(&kv, (float)all[i].value);
        else if (strstr(name, "norm"))
            gw_kv_int(&kv, name, ASH_GGUF_BOOL, 1, 1);
        else
            gw_kv_int(&kv, name, ASH_GGUF_U32, (uint64_t)all[i].value, 4);
    }
    gw_header(&out, 3, tensor ? 1 : 0, written);
    ash_buf_add(&out, kv.data, kv.len);
    if (tensor)
        gw_tensor(&out, tensor, 1, (const uint64_t[]){8}, ASH_DTYPE_F32, 0);
    gw_pad(&out, 32);
    gw_zeros(&out, 32);
    ash_gguf *g;
    assert_int_equal(ash_gguf_open_memory(out.data, out.len, "m.gguf", &g, err), 0);
    const ash_checkpoint c = {.path = "m.gguf", .dir = ".", .gguf = g, .tensors = ash_gguf_tensors(g),
                              .note = ""};
    int rc = ash_deepseek2_read(&c, hp, d, err);
    ash_gguf_close(g);
    ash_buf_release(&kv);
    ash_buf_release(&out);
    return rc;
}

static void generations(void **state)
{
    const key current[] = {{"attention.key_length", 576}, {"attention.value_length", 512},
                           {"attention.key_length_mla", 192}, {"attention.value_length_mla", 128},
                           {"attention.q_lora_rank", 1536}, {"expert_gating_func", 2},
                           {"expert_weights_norm", 1}, {"expert_group_count", 8},
                           {"expert_group_used_count", 4}};
    ash_deepseek2 d;
    ash_err err = ASH_ERR_INIT;
    ash_hparams hp = hparams(27);
    assert_int_equal(read_gguf(NULL, 0, NULL, &hp, &d, &err), 0);
    check_router(&d.router, 64, 6, 1, 1, ASH_ROUTER_SOFTMAX, false, 1.5);
    assert_true(d.q_lora == 0 && d.kv_lora == 512 && d.nope == 128 && d.rope == 64 && d.v == 128);
    assert_true(d.n_dense == 1 && d.n_shared == 2 && d.expert_ff == 1408 && !d.biased);
    assert_true(fabs((double)d.scale - 0.1147213867929261) <= 1e-8);
    assert_true(hp.rope.attention_factor == 1);
    assert_int_equal(read_gguf(current, 9, "blk.1.exp_probs_b.bias", &hp, &d, &err), 0);
    check_router(&d.router, 64, 6, 8, 4, ASH_ROUTER_SIGMOID, true, 1.5);
    assert_true(d.q_lora == 1536 && d.nope == 128 && d.v == 128 && d.biased);
}

static void older_files(void **state)
{
    const key v2_keys[] = {{"expert_count", 160}}, v3_keys[] = {{"expert_count", 256},
                                                                {"expert_gating_func", 2}};
    ash_deepseek2 d;
    ash_err err = ASH_ERR_INIT;
    ash_hparams hp = hparams(60);
    assert_int_equal(read_gguf(v2_keys, 1, NULL, &hp, &d, &err), 0);
    check_router(&d.router, 160, 6, 8, 3, ASH_ROUTER_SOFTMAX, false, 1.5);
    hp = hparams(61);
    assert_int_equal(read_gguf(v3_keys, 2, "blk.1.exp_probs_b.bias", &hp, &d, &err), 0);
    check_router(&d.router, 256, 6, 8, 4, ASH_ROUTER_SIGMOID, false, 1.5);
    hp = hparams(62); /* the prediction layer counted */
    assert_int_equal(read_gguf(NULL, 0, "blk.61.nextn.eh_proj.weight", &hp, &d, &err), 0);
    assert_int_equal(hp.n_layers, 61);
}

static void gguf_refusals(void **state)
{
    static const struct {
        int code;
        key key;
        const char *text;
    } bad[] = {
        {ASH_ENOENT, {"attention.kv_lora_rank", -1}, "key 'deepseek2.attention.kv_lora_rank' is missing"},
        {ASH_ENOENT, {"attention.key_length", -1}, "key 'deepseek2.attention.key_length' is missing"},
        {ASH_EFORMAT, {"attention.key_length", 64}, "heads of 64 with 64 for rotation"},
        {ASH_EFORMAT, {"rope.dimension_count", 63}, "expected an even number"},
        {ASH_EUNSUPPORTED, {"expert_gating_func", 3}, "'deepseek2.expert_gating_func' is 3"},
        {ASH_ENOENT, {"expert_feed_forward_length", -1}, "'deepseek2.expert_feed_forward_length'"},
        {ASH_EFORMAT, {"expert_group_count", 3}, "expert groups"},
        {ASH_EFORMAT, {"rope.scaling.yarn_log_multiplier", 1000}, "a YaRN multiplier of 1000"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ash_deepseek2 d;
        ash_err err = ASH_ERR_INIT;
        ash_hparams hp = hparams(27);
        int rc = read_gguf(&bad[i].key, 1, NULL, &hp, &d, &err);
        if (rc != bad[i].code || !strstr(err.msg, bad[i].text))
            fail_msg("%s: wanted %d with '%s', got %d: %s", bad[i].key.name, bad[i].code, bad[i].text, rc,
                     err.msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published),   cmocka_unit_test(variants),    cmocka_unit_test(refusals),
        cmocka_unit_test(generations), cmocka_unit_test(older_files), cmocka_unit_test(gguf_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
