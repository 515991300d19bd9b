/* Files of the formats' own writers (tests/golden/format/make.py) read as what was written: names,
 * types, shapes and every value, views gathered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/json.h"
#include "format/safetensors.h"
#include "format/shards.h"
#include "format/torch.h"

static int read_file(void *arg, ash_tensor_list *list, uint32_t file, ash_err *err)
{
    return arg ? ash_safetensors_read(NULL, list, file, err)
               : ash_torch_read(NULL, list, file, err);
}

static json_t *load_golden(const char *folder)
{
    char path[4096];
    ash_buf text;
    json_t *golden = NULL;
    ash_err err = ASH_ERR_INIT;
    snprintf(path, sizeof path, "%s/golden.json", folder);
    if (ash_fs_read(path, 1u << 20, &text, &err) ||
        ash_json_parse(text.data, text.len, &golden, &err))
        fail_msg("%s", err.msg);
    ash_buf_release(&text);
    return golden;
}

static void check_data(const ash_tensor_index *idx, const ash_tensor *t, const char *hex)
{
    uint64_t rows = t->n_dims > 1 ? t->dims[0] : 1;
    uint8_t buf[256];
    assert_int_equal(strlen(hex), 2 * t->bytes);
    for (uint64_t i = 0; t->bytes && i < rows; i++) {
        uint64_t n = t->bytes / rows;
        assert_true(n <= sizeof buf);
        const uint8_t *p = ash_tensor_rows(idx, t, i, 1, buf);
        assert_non_null(p);
        for (uint64_t k = 0; k < n; k++, hex += 2) {
            char byte[3];
            snprintf(byte, sizeof byte, "%02x", p[k]);
            if (memcmp(byte, hex, 2) != 0)
                fail_msg("%s row %d byte %d: %s, wanted %.2s", t->name, (int)i, (int)k, byte, hex);
        }
    }
}

static void check_tensor(const ash_tensor_index *idx, const char *name, const json_t *want)
{
    const ash_tensor *t = ash_tensor_find(idx, name);
    const json_t *dims = json_array_get(want, 1);
    if (!t) fail_msg("no '%s'", name);
    assert_string_equal(ash_dtype_get(t->dtype)->name, json_string_value(json_array_get(want, 0)));
    assert_int_equal(t->n_dims, json_array_size(dims));
    for (uint32_t i = 0; i < t->n_dims; i++)
        assert_int_equal(t->dims[i], json_integer_value(json_array_get(dims, i)));
    if ((t->strides != NULL) != json_is_true(json_array_get(want, 2)))
        fail_msg("'%s' %s strides", name, t->strides ? "has" : "has no");
    check_data(idx, t, json_string_value(json_array_get(want, 3)));
    ash_tensor_want(idx, t, 0, t->bytes);
    ash_tensor_drop(idx, t, 0, t->bytes);
    check_data(idx, t, json_string_value(json_array_get(want, 3)));
}

static void check_file(const char *folder, const char *file, const json_t *want)
{
    char path[4096];
    ash_tensor_index idx;
    ash_err err = ASH_ERR_INIT;
    const char *name;
    json_t *tensor;
    bool safetensors = strcmp(file, "sharded") == 0 || strstr(file, ".safetensors");
    bool folders = strstr(file, "sharded") != NULL;
    snprintf(path, sizeof path, "%s/%s%s", folder, file,
             !folders      ? ""
             : safetensors ? "/model.safetensors.index.json"
                           : "/pytorch_model.bin.index.json");
    int rc = (folders ? ash_shards_open_index
                      : ash_shards_open)(path, read_file, safetensors ? &err : NULL, &idx, &err);
    if (rc) fail_msg("%s", err.msg);
    assert_int_equal(idx.n_tensors, json_object_size(want));
    json_object_foreach((json_t *)want, name, tensor) check_tensor(&idx, name, tensor);
    for (size_t i = 1; i < idx.n_tensors; i++) { /* in the files' order */
        const ash_tensor *a = &idx.tensors[i - 1], *b = &idx.tensors[i];
        assert_true(a->file < b->file || (a->file == b->file && a->offset <= b->offset));
    }
    ash_tensor_index_release(&idx);
}

static void test_golden(void **state)
{
    char folder[4000];
    const char *file;
    json_t *want;
    snprintf(folder, sizeof folder, "%s/format", getenv("ASHLEY_TEST_DATA"));
    json_t *golden = load_golden(folder);
    assert_int_equal(json_object_size(golden), 7);
    json_object_foreach(golden, file, want) check_file(folder, file, want);
    json_decref(golden);
}

/* views.bin with one byte of its data changed. */
static void test_checksums(void **state)
{
    char path[4096];
    ash_buf b;
    ash_err err = ASH_ERR_INIT;
    size_t n = 0;
    atomic_bool cancel = false;
    snprintf(path, sizeof path, "%s/format/views.bin", getenv("ASHLEY_TEST_DATA"));
    if (ash_fs_read(path, 1u << 20, &b, &err)) fail_msg("%s", err.msg);
    ash_tensor_file f = {.path = "mem",
                         .map = {.data = (uint8_t *)b.data, .size = b.len, .fd = -1}};
    if (ash_torch_checksums(&f, &cancel, &n, &err)) fail_msg("%s", err.msg);
    assert_int_equal(n, 11);
    char *data = memmem(b.data, b.len, "/data/0", 7);
    assert_non_null(data);
    data[80]++;
    assert_int_equal(ash_torch_checksums(&f, NULL, &n, &err), ASH_EFORMAT);
    assert_non_null(strstr(err.msg, "mem: record 'views/data/0' has the checksum "));
    cancel = true;
    assert_int_equal(ash_torch_checksums(&f, &cancel, &n, &err), ASH_ECANCELED);
    f.map.size = 1;
    assert_int_equal(ash_torch_checksums(&f, &cancel, &n, &err), 0);
    assert_int_equal(n, 0);
    ash_buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden),
                                       cmocka_unit_test(test_checksums)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
