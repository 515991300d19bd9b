/* The folder of personas: good files, bad files beside them, ids. */
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
#include "config/persona.h"

static char folder[] = "/tmp/ashley-persona-XXXXXX";

static int enter(void **state)
{
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

static void put(const char *path, const char *text)
{
    ash_err err = ASH_ERR_INIT;
    if (ash_fs_replace(path, text, strlen(text), &err)) fail_msg("%s", err.msg);
}

static void good_and_bad_together(void **state)
{
    assert_int_equal(ash_fs_mkdirs("p", NULL), 0);
    put("p/a.json",
        "{\"id\":\"ann\",\"name\":\"Ann\",\"description\":\"d\",\"system_prompt\":\"s\","
        "\"model\":\"m\",\"first_message\":\"f\",\"greetings\":[\"g1\",\"g2\"],"
        "\"sampling\":{\"temperature\":0.5,\"stop\":[\"x\"]},\"mine\":{\"kept\":1}}");
    put("p/b.json", "{}");
    put("p/c.json", "{\"id\":\"ann\"}");
    put("p/d.json", "{\"id\":\"smollm2\"}");
    put("p/e.json", "{\"id\":");
    put("p/has blank.json", "{}");
    put("p/notes.txt", "no persona");
    put("p/.hidden.json", "{");
    static const char *const taken[] = {"openai", "smollm2"};
    ash_personas *p;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_personas_open("p", taken, 2, &p, &err), 0);
    size_t n, n_bad;
    const ash_persona *v = ash_personas_list(p, &n);
    const ash_persona_bad *bad = ash_personas_bad(p, &n_bad);
    assert_int_equal(n, 2);
    assert_string_equal(v[0].id, "ann");
    assert_string_equal(v[0].model, "m");
    assert_string_equal(v[0].first_message, "f");
    assert_int_equal(v[0].n_greetings, 2);
    assert_string_equal(v[0].greetings[1], "g2");
    assert_non_null(v[0].sampling);
    assert_non_null(json_object_get(v[0].json, "mine"));
    assert_string_equal(v[1].id, "b");
    assert_string_equal(v[1].name, "b");
    assert_null(v[1].model);
    assert_ptr_equal(ash_personas_find(p, "b"), &v[1]);
    assert_null(ash_personas_find(p, "c"));
    assert_int_equal(n_bad, 4);
    assert_string_equal(bad[0].file, "p/c.json");
    assert_non_null(strstr(bad[0].reason, "the id 'ann' is taken by p/a.json"));
    assert_non_null(strstr(bad[1].reason, "the id 'smollm2' is a model's"));
    assert_non_null(strstr(bad[2].reason, "JSON line 1"));
    assert_non_null(strstr(bad[3].reason, "no 'id', and the file's name will not do"));
    ash_personas_close(p);
}

static void fields(void **state)
{
    static const struct {
        const char *text, *say; /* say NULL: good */
    } t[] = {
        {"{}", NULL},
        {"{\"sampling\":{\"temperature\":0,\"top_k\":40,\"seed\":-1,\"stop\":\"x\",\"odd\":true}}",
         NULL},
        {"{\"greetings\":null,\"sampling\":null,\"model\":null}", NULL},
        {"[]", "expected an object, not an array"},
        {"{\"id\":\"\"}", "'id' must have"},
        {"{\"id\":\"a b\"}", "'id' must have"},
        {"{\"id\":7}", "'id' must be a string, not a number"},
        {"{\"model\":\"\"}", "'model' must have"},
        {"{\"system_prompt\":[]}", "'system_prompt' must be a string"},
        {"{\"system_prompt\":\"a\\u0000b\"}", "'system_prompt' must not contain a NUL"},
        {"{\"greetings\":\"g\"}", "'greetings' must be an array"},
        {"{\"greetings\":[\"g\",1]}", "'greetings[1]' must be a string"},
        {"{\"sampling\":[]}", "'sampling' must be an object"},
        {"{\"sampling\":{\"temperature\":\"hot\"}}", "'sampling': 'temperature' must be a number"},
        {"{\"sampling\":{\"top_p\":2}}", "'sampling': 'top_p' must be from 0 to 1"},
        {"{\"sampling\":{\"top_k\":1.5}}", "'sampling': 'top_k' must be an integer"},
        {"{\"sampling\":{\"stop\":[1]}}", "'stop' must be a string or an array"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        json_t *v = NULL;
        ash_persona p;
        ash_err err = ASH_ERR_INIT;
        assert_int_equal(ash_json_parse(t[i].text, strlen(t[i].text), &v, &err), 0);
        int rc = ash_persona_parse(v, &p, &err);
        if (!t[i].say ? rc : rc != ASH_EINVAL || !strstr(err.msg, t[i].say))
            fail_msg("%s: %d %s", t[i].text, rc, err.msg);
        json_decref(v);
    }
}

static void folders(void **state)
{
    ash_personas *p;
    size_t n;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_personas_open("none", NULL, 0, &p, &err), 0);
    ash_personas_list(p, &n);
    assert_int_equal(n, 0);
    ash_personas_close(p);
    put("file", "x");
    assert_int_equal(ash_personas_open("file", NULL, 0, &p, &err), ASH_EIO);
    assert_non_null(strstr(err.msg, "cannot read the folder 'file'"));
}

static void ours(void **state)
{
    char path[512];
    const char *golden = getenv("ASHLEY_TEST_DATA"); /* ROOT/tests/golden */
    int root = (int)(strlen(golden) - strlen("/tests/golden"));
    snprintf(path, sizeof path, "%.*s/personas", root, golden);
    ash_personas *p;
    size_t n;
    assert_int_equal(ash_personas_open(path, NULL, 0, &p, NULL), 0);
    ash_personas_bad(p, &n);
    assert_int_equal(n, 0);
    const ash_persona *a = ash_personas_find(p, "ashley");
    assert_non_null(a);
    assert_null(a->model);
    assert_true(a->system_prompt && a->first_message && a->description && a->sampling &&
                a->n_greetings);
    ash_personas_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_and_bad_together),
        cmocka_unit_test(fields),
        cmocka_unit_test(folders),
        cmocka_unit_test(ours),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
