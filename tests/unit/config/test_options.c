/* Which of file, environment and flag wins, what every key gives, and what a wrong value is told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/log.h"
#include "config/options.h"

static char folder[] = "/tmp/ashley-options-XXXXXX";

static int enter(void **state)
{
    ash_log_set_level(ASH_LOG_NONE);
    return !mkdtemp(folder) || chdir(folder);
}

static int leave(void **state)
{
    unlink(".env");
    return chdir("/") || rmdir(folder);
}

/* .env (NULL: none) and a NULL-terminated environment of at most 8 entries. */
static int load(const char *file, const char *const *vars, ash_config **c, ash_err *err)
{
    unlink(".env");
    if (file && ash_fs_replace(".env", file, strlen(file), NULL)) fail();
    return ash_config_load(&(ash_config_sources){.vars = vars}, c, err);
}

#define VARS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NONE ((const char *const[]){NULL})

static ash_config *loaded(const char *file, const char *const *vars)
{
    ash_config *c;
    ash_err err = ASH_ERR_INIT;
    if (load(file, vars, &c, &err)) fail_msg("%s", err.msg);
    return c;
}

static void defaults(void **state)
{
    ash_config *c = loaded(NULL, VARS("HOME=/home/a"));
    assert_int_equal(c->preload.n, 0);
    assert_string_equal(c->default_model, "openai");
    assert_string_equal(c->fallback_model, "gpt-4o-mini");
    assert_null(c->openai_api_key);
    assert_string_equal(c->models_file, "pytorch_models.json");
    assert_string_equal(c->personas_dir, "personas/");
    assert_string_equal(c->host, "127.0.0.1");
    assert_int_equal(c->port, 8080);
    assert_int_equal(c->api_keys.n, 0);
    assert_false(c->allow_open);
    assert_true(c->memory_budget == ASH_BYTES_AUTO && c->disk_budget == ASH_BYTES_AUTO);
    assert_int_equal(c->keep_alive_ms, 300000);
    assert_int_equal(c->queue_ms, 30000);
    assert_int_equal(c->load_ms, 600000);
    assert_int_equal(c->first_token_ms, 30000);
    assert_int_equal(c->idle_ms, 30000);
    assert_int_equal(c->fallback, ASH_FALLBACK_UNSET);
    assert_int_equal(c->ready, ASH_READY_REQUIRED);
    assert_string_equal(c->state_dir, "/home/a/.local/state/ashley");
    assert_string_equal(c->hub_dir, "/home/a/.cache/huggingface/hub");
    assert_int_equal(c->drain_ms, 30000);
    assert_int_equal(c->origins.n, 4);
    assert_false(c->notify_ready);
    assert_int_equal(c->cpu, ash_cpu_get()->level);
    assert_null(c->env_file);
    assert_int_equal(c->n_notices, 0);
    assert_string_equal(ash_config_origin(c, "ASHLEY_PORT"), "default");
    ash_config_close(c);
}

static void the_later_source_wins(void **state)
{
    const char *file = "ASHLEY_PORT=1\nASHLEY_HOST=::1\nDEFAULT_MODEL=file\nFALLBACK_MODEL=file\n";
    assert_int_equal(ash_fs_replace(".env", file, strlen(file), NULL), 0);
    ash_config_flag flags[] = {{"ASHLEY_PORT", "3", "--port"}, {"ASHLEY_PORT", "4", "--port"}};
    ash_config_sources src = {.vars = VARS("ASHLEY_PORT=2", "DEFAULT_MODEL=env", "FALLBACK_MODEL="),
                              .flags = flags,
                              .n_flags = 2};
    ash_config *c;
    assert_int_equal(ash_config_load(&src, &c, NULL), 0);
    assert_int_equal(c->port, 4);
    assert_string_equal(ash_config_origin(c, "ASHLEY_PORT"), "--port");
    assert_string_equal(c->default_model, "env");
    assert_string_equal(ash_config_origin(c, "DEFAULT_MODEL"), "environment");
    assert_string_equal(c->host, "::1");
    assert_string_equal(ash_config_origin(c, "ASHLEY_HOST"), ".env:2");
    assert_string_equal(c->fallback_model,
                        "gpt-4o-mini"); /* empty in the environment: the default */
    ash_config_close(c);
}

static void every_type(void **state)
{
    ash_config *c =
        loaded("ASHLEY_API_KEYS=key-one, key-two\nASHLEY_ALLOW_OPEN=1\nASHLEY_MEMORY_BUDGET=4Gi\n"
               "ASHLEY_DISK_BUDGET=0\n"
               "ASHLEY_KEEP_ALIVE=-1\nASHLEY_IDLE_TIMEOUT=250ms\nASHLEY_FALLBACK=on-not-ready\n"
               "ASHLEY_READY=any\nASHLEY_ORIGINS=https://a.example\nASHLEY_NOTIFY=ready\n"
               "ASHLEY_CPU=scalar\nHF_HUB_OFFLINE=yes\nHF_HOME=~/hf\nASHLEY_STATE_DIR=/s/\n",
               VARS("HOME=/home/a", "https_proxy=http://p:1"));
    assert_int_equal(c->api_keys.n, 2);
    assert_string_equal(c->api_keys.v[1], "key-two");
    assert_true(c->allow_open);
    assert_int_equal(c->memory_budget, 4294967296);
    assert_int_equal(c->disk_budget, 0); /* nothing, which is not auto */
    assert_int_equal(c->keep_alive_ms, -1);
    assert_int_equal(c->idle_ms, 250);
    assert_int_equal(c->fallback, ASH_FALLBACK_ON_NOT_READY);
    assert_int_equal(c->ready, ASH_READY_ANY);
    assert_int_equal(c->origins.n, 1);
    assert_true(c->notify_ready);
    assert_int_equal(c->cpu, ASH_CPU_SCALAR);
    assert_true(c->hf_hub_offline);
    assert_string_equal(c->hub_dir, "/home/a/hf/hub");
    assert_string_equal(c->state_dir, "/s");
    assert_string_equal(c->https_proxy, "http://p:1");
    ash_config_close(c);
}

static void preload_lists(void **state)
{
    ash_config *c = loaded("PRELOAD_MODELS=a, b:Q4_0 ,a\n", NONE);
    assert_int_equal(c->preload.n, 2);
    assert_string_equal(c->preload.v[1].model, "b:Q4_0");
    assert_true(c->preload.v[0].required && c->preload.v[0].pin);
    ash_config_close(c);

    c = loaded("PRELOAD_MODELS='[\"a\",{\"model\":\"b\",\"required\":false,\"ctx\":512,"
               "\"kv\":\"q8\",\"keep_alive\":\"10m\"},{\"model\":\"c\",\"keep_alive\":-1,\"pin\":true,"
               "\"confirm\":true,\"draft\":\"a-small-one\"}]'\n",
               NONE);
    assert_int_equal(c->preload.n, 3);
    const ash_preload *b = &c->preload.v[1], *last = &c->preload.v[2];
    assert_true(c->preload.v[0].required && c->preload.v[0].pin && !c->preload.v[0].has_keep_alive);
    assert_true(!b->required && !b->pin && b->has_keep_alive && b->ctx == 512 && !b->confirm);
    assert_int_equal(b->keep_alive_ms, 600000);
    assert_string_equal(b->kv, "q8");
    assert_null(last->kv);
    assert_null(b->draft);
    assert_string_equal(last->draft, "a-small-one");
    assert_false(c->kv_q8);
    assert_true(last->required && last->pin && last->confirm);
    assert_int_equal(last->keep_alive_ms, -1);
    ash_config_close(c);
}

static void wrong_values(void **state)
{
    static const struct {
        const char *line, *say;
    } t[] = {
        {"ASHLEY_PORT=80808", "ASHLEY_PORT (.env:1) is '80808': expected a port from 0 to 65535"},
        {"ASHLEY_PORT=80x", "expected a port"},
        {"ASHLEY_PORT=-1", "expected a port"},
        {"ASHLEY_KV=q4", "expected one of: f16 q8"},
        {"PRELOAD_MODELS='[{\"model\":\"a\",\"draft\":1}]'", "'draft' must be a string"},
        {"PRELOAD_MODELS='[{\"model\":\"a\",\"draft\":\"\\u0001\"}]'", "no control characters"},
        {"PRELOAD_MODELS='[{\"model\":\"a\",\"kv\":\"q4\"}]'", "'kv' is 'q4'; expected one of f16, q8"},
        {"\nASHLEY_READY=most",
         "ASHLEY_READY (.env:2) is 'most': expected one of: all required any"},
        {"ASHLEY_FALLBACK=sometimes", "expected one of: never on-error on-not-ready always"},
        {"ASHLEY_KEEP_ALIVE=soon",
         "expected a time: a number with ms, s, m or h, or plain seconds, or -1"},
        {"ASHLEY_QUEUE_TIMEOUT=-1", "expected a time"},
        {"ASHLEY_MEMORY_BUDGET=lots", "expected a size"},
        {"ASHLEY_ALLOW_OPEN=maybe", "expected 1 or 0"},
        {"OPENAI_BASE_URL=example.com/v1", "expected a URL that begins with http:// or https://"},
        {"OPENAI_BASE_URL=\"http://a b\"", "expected a URL"},
        {"ASHLEY_CPU=mmx", "ASHLEY_CPU (.env:1) is 'mmx'"},
        {"DEFAULT_MODEL=\"a\\nb\"", "expected text without control characters"},
        {"PRELOAD_MODELS=[", "PRELOAD_MODELS (.env:1) is '[': JSON line 1"},
        {"PRELOAD_MODELS={}", "expected a JSON array"},
        {"PRELOAD_MODELS=[1]", "entry 1: expected an id or an object, not a number"},
        {"PRELOAD_MODELS=[\"\"]", "entry 1: expected a model's id"},
        {"PRELOAD_MODELS=[{}]", "entry 1: 'model' is missing"},
        {"PRELOAD_MODELS=[\"a\",{\"model\":\"b\",\"ctx\":0}]", "entry 2: 'ctx' must be from 1"},
        {"PRELOAD_MODELS=[{\"model\":\"b\",\"kepalive\":true}]", "(did you mean 'keep_alive'?)"},
        {"PRELOAD_MODELS=[{\"model\":\"b\",\"keep_alive\":\"x\"}]",
         "'keep_alive': expected a time"},
        {"PRELOAD_MODELS=[{\"model\":\"b\",\"keep_alive\":true}]", "'keep_alive' must be a time"},
        {"PRELOAD_MODELS=[{\"model\":\"b\",\"required\":1}]", "'required' must be a boolean"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        ash_config *c;
        ash_err err = ASH_ERR_INIT;
        int rc = load(t[i].line, NONE, &c, &err);
        if (!rc || c || !strstr(err.msg, t[i].say)) fail_msg("%s: %d %s", t[i].line, rc, err.msg);
    }
    ash_config *c;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(load(NULL, VARS("ASHLEY_PORT=x"), &c, &err), ASH_EINVAL);
    assert_non_null(strstr(err.msg, "ASHLEY_PORT (environment) is 'x'"));
    ash_config_flag f = {"ASHLEY_PORT", "y", "--port"};
    ash_config_sources src = {.vars = NONE, .flags = &f, .n_flags = 1};
    assert_int_equal(ash_config_load(&src, &c, &err), ASH_EINVAL);
    assert_non_null(strstr(err.msg, "ASHLEY_PORT (--port) is 'y'"));
    src = (ash_config_sources){.env_file = "none.env", .vars = NONE};
    assert_int_equal(ash_config_load(&src, &c, &err), ASH_ENOENT);
    assert_non_null(strstr(err.msg, "none.env"));
    assert_int_equal(load("A=1\nB\n", NONE, &c, &err), ASH_EFORMAT);
    assert_non_null(strstr(err.msg, ".env:2: expected ="));
}

static void notices(void **state)
{
    ash_config *c = loaded("ASHLEY_PROT=1\nHF_TOKEN_PATH=/t\nPRELOAD_MODEL=a\nOTHER=1\n",
                           VARS("ASHLEY_ZZZZZZZZZZZZZZZ=1", "ASHLEY_FOO=1", "PRELOAD_MODEL=b"));
    assert_int_equal(c->n_notices, 4); /* none for a key that works */
    assert_string_equal(
        c->notices[0],
        "ASHLEY_PROT (.env:1) is not a key that Ashley knows; did you mean ASHLEY_PORT?");
    assert_string_equal(
        c->notices[1],
        "PRELOAD_MODEL (.env:3) is not a key that Ashley knows; did you mean PRELOAD_MODELS?");
    assert_string_equal(c->notices[2],
                        "ASHLEY_ZZZZZZZZZZZZZZZ (environment) is not a key that Ashley knows");
    assert_string_equal(c->notices[3], "ASHLEY_FOO (environment) is not a key that Ashley knows");
    ash_config_close(c);

    ash_buf b;
    ash_buf_init(&b, 1 << 20);
    for (int i = 0; i < 100; i++) ash_buf_printf(&b, "ASHLEY_Q%d=1\n", i);
    c = loaded(b.data, NONE);
    assert_int_equal(c->n_notices, 64);
    assert_non_null(strstr(c->notices[63], "not shown"));
    ash_config_close(c);
    ash_buf_release(&b);
}

static void secrets_never_show(void **state)
{
    ash_config *c;
    ash_err err = ASH_ERR_INIT;
    assert_int_not_equal(load("OPENAI_API_KEY=\"sk-secret-1234\\n\"\n", NONE, &c, &err), 0);
    assert_null(strstr(err.msg, "sk-secret"));
    assert_int_not_equal(load("OPENAI_API_KEY=\"qq\\n\"\n", NONE, &c, &err), 0);
    assert_null(strstr(err.msg, "qq")); /* too short for the log to hide */
    /* another key's message that happens to hold the secret */
    assert_int_not_equal(
        load("ASHLEY_PORT=sk-other-5678\nOPENAI_API_KEY=sk-other-5678\n", NONE, &c, &err), 0);
    assert_null(strstr(err.msg, "sk-other"));
    c = loaded("HF_TOKEN=hf_abcdefgh\n"
               "HTTPS_PROXY=http://u:passw0rd@p:1\nASHLEY_API_KEYS=k-aaaa,k-bbbb\n",
               NONE);
    char text[] = "hf_abcdefgh passw0rd k-aaaa k-bbbb";
    ash_log_redact(text);
    assert_string_equal(text, "*** *** *** ***");
    ash_config_close(c);
}

static void the_table(void **state)
{
    size_t n;
    const ash_key_info *k = ash_config_keys(&n);
    for (size_t i = 0; i < n; i++) {
        assert_non_null(k[i].help);
        assert_true(k[i].offset < sizeof(ash_config));
        assert_true(!k[i].secret || !k[i].flag);
        assert_true((k[i].type == ASH_KEY_WORD) == (k[i].words != NULL));
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(k[i].key, k[j].key);
            assert_int_not_equal(k[i].offset, k[j].offset);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),           cmocka_unit_test(the_later_source_wins),
        cmocka_unit_test(every_type),         cmocka_unit_test(preload_lists),
        cmocka_unit_test(wrong_values),       cmocka_unit_test(notices),
        cmocka_unit_test(secrets_never_show), cmocka_unit_test(the_table),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
