/* A tiny mixture whose experts can come and go: a golden with wider weights. Tests only. */
#ifndef ASHLEY_TESTS_MIXTURE_H
#define ASHLEY_TESTS_MIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/json.h"

static inline void make_dir(char dir[64])
{
    snprintf(dir, 64, "/tmp/ashley-experts-XXXXXX");
    assert_non_null(mkdtemp(dir));
}

/* The folder of a golden of bfloat16, as floats: its experts have a page each. */
static inline void widen(const char *name, char folder[64])
{
    char path[600];
    ash_buf config, in, out;
    ash_buf_init(&config, 1 << 20);
    ash_buf_init(&in, 16 << 20);
    ash_buf_init(&out, 32 << 20);
    make_dir(folder);
    snprintf(path, sizeof path, "%s/hf/%s/config.json", getenv("ASHLEY_TEST_DATA"), name);
    assert_int_equal(ash_fs_read(path, 1 << 20, &config, NULL), 0);
    snprintf(path, sizeof path, "%s/hf/%s/model.safetensors", getenv("ASHLEY_TEST_DATA"), name);
    assert_int_equal(ash_fs_read(path, 16 << 20, &in, NULL), 0);
    uint64_t n_head, n_in;
    memcpy(&n_in, in.data, 8);
    json_t *head = json_loadb(in.data + 8, n_in, 0, NULL), *tensor;
    const char *key;
    assert_non_null(head);
    json_object_foreach(head, key, tensor)
    {
        json_t *at = json_object_get(tensor, "data_offsets");
        if (!at) continue;
        assert_string_equal(json_string_value(json_object_get(tensor, "dtype")), "BF16");
        json_object_set_new(tensor, "dtype", json_string("F32"));
        for (size_t i = 0; i < 2; i++)
            json_array_set_new(at, i, json_integer(2 * json_integer_value(json_array_get(at, i))));
    }
    char *text = json_dumps(head, JSON_COMPACT);
    n_head = strlen(text);
    ash_buf_add(&out, &n_head, 8);
    ash_buf_add(&out, text, n_head);
    for (size_t i = 8 + n_in; i < in.len; i += 2) {
        const char wide[4] = {0, 0, in.data[i], in.data[i + 1]};
        ash_buf_add(&out, wide, 4);
    }
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(ash_fs_replace(path, config.data, config.len, NULL), 0);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_int_equal(ash_fs_replace(path, out.data, out.len, NULL), 0);
    free(text);
    json_decref(head);
    ash_buf_release(&config);
    ash_buf_release(&in);
    ash_buf_release(&out);
}

static inline void unwiden(const char *folder)
{
    char path[100];
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    unlink(path);
    rmdir(folder);
}

#endif
