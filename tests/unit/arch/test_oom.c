/* Each allocation of planning a model and of binding it fails in turn: a message, no leak, no crash. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake.h"

#include "oom.h"

/* A model with a GPTQ matrix in act-order. */
static void make(fake *f)
{
    ash_err err = ASH_ERR_INIT;
    fake_init(f, FAKE_LLAMA, "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2}}",
              "{\"bits\":4,\"group_size\":32}");
    fake_llama(f, "model.");
    fake_drop(f, "model.layers.0.self_attn.k_proj.weight");
    fake_add(f, "model.layers.0.self_attn.k_proj.qweight", ASH_DTYPE_I32, 8, 32);
    fake_add(f, "model.layers.0.self_attn.k_proj.qzeros", ASH_DTYPE_I32, 2, 4);
    fake_add(f, "model.layers.0.self_attn.k_proj.scales", ASH_DTYPE_F16, 2, 32);
    uint8_t *g = fake_add(f, "model.layers.0.self_attn.k_proj.g_idx", ASH_DTYPE_I32, 64, 0);
    for (int i = 0; i < 64; i++)
        g[4 * i] = (uint8_t)(i % 2);
    assert_int_equal(ash_tensor_index_seal(&f->index, &err), 0);
}

static int plan_and_bind(void *arg, ash_err *err)
{
    static _Alignas(64) char region[1 << 20];
    const ash_checkpoint *c = arg;
    const ash_arch *arch;
    ash_net *net = NULL;
    int rc = ash_arch_find(c, &arch, err);
    if (!rc)
        rc = arch->plan(c, &net, err);
    if (rc)
        assert_null(net);
    if (!rc)
        assert_true(net->binding.bytes <= sizeof region);
    if (!rc)
        rc = net->arch->bind(net, region, err);
    ash_net_close(net);
    return rc;
}

static void each_allocation_may_fail(void **state)
{
    fake f;
    oom_init();
    make(&f);
    assert_true(oom_run(plan_and_bind, &f.c) >= 5);
    fake_release(&f);
}

/* The same of mixtures of experts: one tensor for all of them, FP8, and GPTQ. */
static void of_experts(void **state)
{
    static const char *const names[] = {"deepseek-gguf-3", "deepseek-v3-fp8", "deepseek-gptq"};
    oom_init();
    for (int i = 0; i < 3; i++) {
        char path[512];
        ash_checkpoint *c;
        ash_err err = ASH_ERR_INIT;
        snprintf(path, sizeof path, "%s/hf/%s", getenv("ASHLEY_TEST_DATA"), names[i]);
        if (ash_checkpoint_open(path, &c, &err))
            fail_msg("%s", err.msg);
        assert_true(oom_run(plan_and_bind, c) >= 5);
        ash_checkpoint_close(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_allocation_may_fail),
                                       cmocka_unit_test(of_experts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
