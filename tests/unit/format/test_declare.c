/* Checkpoints of which only the configuration and the index are there: tensors by name, with the types
 * that the configuration and the names say and without shapes. */
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
#include "format/checkpoint.h"

static char folder[] = "/tmp/ashley-declare-XXXXXX";

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

static void expect(const ash_checkpoint *c, const char *name, ash_dtype type, const char *file)
{
    const ash_tensor *t = ash_tensor_find(c->tensors, name);
    if (!t) fail_msg("%s is not there", name);
    if (t->dtype != type) fail_msg("%s is %s", name, ash_dtype_get(t->dtype)->name);
    assert_int_equal(t->n_dims, 0);
    assert_int_equal(t->bytes, 0);
    assert_null(ash_tensor_data(c->tensors, t));
    assert_string_equal(c->tensors->files[t->file].path, file);
}

static void types_and_files(void **state)
{
    ash_checkpoint *c;
    ash_err err = ASH_ERR_INIT;
    put("config.json", "{\"torch_dtype\":\"bfloat16\"}");
    put("model.safetensors.index.json",
        "{\"metadata\":{\"total_size\":1},\"weight_map\":{"
        "\"a.weight\":\"model-00002-of-000002.safetensors\","
        "\"a.weight_scale_inv\":\"model-00001-of-000002.safetensors\","
        "\"b.weight\":\"model-00001-of-000002.safetensors\","
        "\"c.qweight\":\"model-00001-of-000002.safetensors\","
        "\"c.scales\":\"model-00001-of-000002.safetensors\","
        "\"gate.e_score_correction_bias\":\"model-00002-of-000002.safetensors\"}}");
    assert_int_equal(ash_checkpoint_open(".", &c, &err), ASH_ENOENT);
    assert_non_null(strstr(err.msg, "2 of 2 files are missing"));
    for (int i = 0; i < 2; i++) {
        const char *path = i ? "./model.safetensors.index.json" : ".";
        if (ash_checkpoint_declare(path, &c, &err)) fail_msg("%s", err.msg);
        assert_int_equal(c->kind, ASH_CHECKPOINT_SAFETENSORS);
        assert_int_equal(c->tensors->n_tensors, 6);
        assert_int_equal(c->tensors->n_files, 2);
        expect(c, "a.weight", ASH_DTYPE_F8_E4M3, "./model-00002-of-000002.safetensors");
        expect(c, "a.weight_scale_inv", ASH_DTYPE_F32, "./model-00001-of-000002.safetensors");
        expect(c, "b.weight", ASH_DTYPE_BF16, "./model-00001-of-000002.safetensors");
        expect(c, "c.qweight", ASH_DTYPE_I32, "./model-00001-of-000002.safetensors");
        expect(c, "c.scales", ASH_DTYPE_F16, "./model-00001-of-000002.safetensors");
        expect(c, "gate.e_score_correction_bias", ASH_DTYPE_F32, "./model-00002-of-000002.safetensors");
        const ash_tensor *t = ash_tensor_find(c->tensors, "b.weight");
        ash_tensor_declare(t, 10, 20);
        assert_int_equal(t->n_dims, 2);
        assert_int_equal(t->bytes, 400);
        ash_tensor_declare(t, 5, 0); /* it has a shape now */
        assert_int_equal(t->n_dims, 2);
        assert_null(ash_tensor_data(c->tensors, t));
        t = ash_tensor_find(c->tensors, "a.weight");
        ash_tensor_declare(t, UINT64_MAX / 2, 8); /* more than there can be */
        assert_int_equal(t->n_dims, 0);
        ash_tensor_declare(t, 7, 0);
        assert_int_equal(t->n_dims, 1);
        assert_int_equal(t->bytes, 7);
        ash_checkpoint_close(c);
    }
}

static void refusals(void **state)
{
    ash_checkpoint *c;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_fs_mkdirs("one", NULL), 0);
    put("one/config.json", "{}");
    put("one/model.safetensors", "x");
    assert_int_equal(ash_checkpoint_declare("one", &c, &err), ASH_ENOENT);
    assert_non_null(strstr(err.msg, "no index"));
    assert_int_equal(ash_fs_mkdirs("bad", NULL), 0);
    put("bad/config.json", "{}");
    put("bad/pytorch_model.bin.index.json", "{\"weight_map\":{\"a\":\"../x.bin\"}}");
    assert_int_equal(ash_checkpoint_declare("bad", &c, &err), ASH_EFORMAT);
    assert_non_null(strstr(err.msg, "plain name"));
    put("bad/pytorch_model.bin.index.json", "{\"weight_map\":{\"a\":\"x.bin\",\"a\":\"x.bin\"}}");
    assert_int_equal(ash_checkpoint_declare("bad", &c, &err), ASH_EFORMAT);
    put("bad/pytorch_model.bin.index.json", "{\"weight_map\":{\"a\":\"x.bin\"}}");
    assert_int_equal(ash_checkpoint_declare("bad", &c, &err), 0);
    assert_int_equal(c->kind, ASH_CHECKPOINT_TORCH);
    ash_checkpoint_close(c);
    put("bad/config.json", "[]");
    assert_int_equal(ash_checkpoint_declare("bad", &c, &err), ASH_EFORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(types_and_files), cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, enter, leave);
}
