/* The configuration without memory: every allocation fails once, nothing leaks or crashes, nothing
 * is blamed on the files, and the failure is reported as such. Linked with malloc, calloc and
 * realloc wrapped; Jansson, which takes some failures of its own for bad JSON, has its memory. */
#include <ftw.h>
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
#include "config/catalogue.h"
#include "config/options.h"
#include "config/persona.h"
#include "oom.h"

static void fail_each(int (*fn)(void))
{
    for (long at = 0;; at++) {
        oom_left = at;
        int rc = fn();
        bool reached = oom_left < 0;
        oom_left = -1;
        if (!reached) {
            assert_int_equal(rc, 0);
            assert_true(at > 3);
            return;
        }
        if (rc != ASH_ENOMEM) fail_msg("allocation %ld: %d", at, rc);
    }
}

static char folder[] = "/tmp/ashley-oom-XXXXXX";

static void put(const char *path, const char *text)
{
    assert_int_equal(ash_fs_replace(path, text, strlen(text), NULL), 0);
}

static int load_config(void)
{
    static const char *const vars[] = {"HOME=/h", "ASHLEY_UNKNOWN=1", NULL};
    ash_config *c;
    ash_err err = ASH_ERR_INIT;
    ash_config_flag flag = {"ASHLEY_PORT", "1", "--port"};
    int rc = ash_config_load(&(ash_config_sources){.vars = vars, .flags = &flag, .n_flags = 1}, &c,
                             &err);
    if (rc) assert_int_equal(err.code, rc);
    if (!rc) {
        assert_int_equal(c->preload.n, 2);
        assert_int_equal(c->n_notices, 1);
        assert_non_null(c->hub_dir);
    }
    ash_config_close(c);
    return rc;
}

static int load_catalogue(void)
{
    ash_catalogue *c;
    const ash_catalogue_entry *e = NULL;
    ash_catalogue_place p = {0};
    int rc =
        ash_catalogue_open(&(ash_catalogue_opts){.path = "c.json", .hub_dir = "hub"}, &c, NULL);
    for (size_t i = 0; !rc && i < ash_catalogue_count(c); i++) {
        e = ash_catalogue_at(c, i);
        assert_int_equal(e->bad != NULL, !strcmp(e->id, "bad"));
        rc = ash_catalogue_locate(c, e, true, &p, NULL);
        ash_catalogue_place_release(&p);
    }
    if (!rc) rc = ash_catalogue_resolve(c, "org/repo:Q4_0", &e, NULL);
    if (!rc) rc = ash_catalogue_locate(c, e, true, &p, NULL);
    if (!rc) rc = ash_catalogue_resolve(c, "./c.gguf", &e, NULL);
    if (!rc) rc = ash_catalogue_resolve(c, "./sharded", &e, NULL);
    if (!rc) rc = ash_catalogue_locate(c, e, true, &p, NULL);
    ash_catalogue_place_release(&p);
    ash_catalogue_close(c);
    return rc;
}

static int load_personas(void)
{
    ash_personas *p;
    size_t n;
    int rc = ash_personas_open("p", NULL, 0, &p, NULL);
    if (rc) return rc;
    ash_personas_list(p, &n);
    assert_int_equal(n, 2);
    ash_personas_bad(p, &n);
    assert_int_equal(n, 1);
    ash_personas_close(p);
    return 0;
}

static void config(void **state)
{
    put(".env", "PRELOAD_MODELS=[{\"model\":\"a\",\"keep_alive\":\"5m\"},\"b\"]\nASHLEY_API_KEYS="
                "kkkk,llll\n"
                "OPENAI_BASE_URL=\"http://h/${HOME}\"\nHF_TOKEN_PATH=/t\nHF_HOME=~/x\n");
    fail_each(load_config);
}

static void catalogue(void **state)
{
    put("t.jinja", "{{ x }}");
    put("c.gguf", "GGUF");
    assert_int_equal(ash_fs_mkdirs("sharded", NULL), 0);
    put("sharded/config.json", "{}");
    put("sharded/model.safetensors.index.json",
        "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}");
    put("sharded/1.safetensors", "x");
    put("c.json",
        "{\"a\":{\"repo\":\"org/"
        "r\",\"files\":[\"*.gguf\"],\"template\":\"@t.jinja\",\"path\":\"c.gguf\","
        "\"sha256\":{},\"memory\":\"1G\"},\"bad\":{\"format\":\"x\"},\"b\":{\"repo\":\"org/r\"}}");
    fail_each(load_catalogue);
}

static void personas(void **state)
{
    assert_int_equal(ash_fs_mkdirs("p", NULL), 0);
    put("p/a.json", "{\"id\":\"a\",\"greetings\":[\"g\"],\"sampling\":{\"top_p\":0.5}}");
    put("p/b.json", "{}");
    put("p/c.json", "{");
    fail_each(load_personas);
}

static int enter(void **state)
{
    ash_log_set_level(ASH_LOG_NONE);
    return !mkdtemp(folder) || chdir(folder);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    return remove(path);
}

static int leave(void **state)
{
    return chdir("/") || nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config),
        cmocka_unit_test(catalogue),
        cmocka_unit_test(personas),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
