/* Checkpoints by folder, file, index and cache entry: which file is taken, what is refused and how
 * it is said, configuration and quantisation settings, each allocation failing in turn. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/checkpoint.h"
#include "gguf_writer.h"
#include "oom.h"
#include "torch_writer.h"

static char root[64]; /* this test's folder */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static int fresh(void **state)
{
    snprintf(root, sizeof root, "/tmp/ashley-checkpoint-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int clean(void **state)
{
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *name, const void *p, size_t n)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *s = path + strlen(root) + 1; *s; s++)
        if (*s == '/') {
            *s = 0;
            mkdir(path, 0700);
            *s = '/';
        }
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

static void text(const char *name, const char *s)
{
    put(name, s, strlen(s));
}

static void drop(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    assert_int_equal(remove(path), 0);
}

/* A file of one-byte tensors, named by the letters of `names`. */
static void safetensors(const char *name, const char *names)
{
    ash_buf h, b;
    ash_buf_init(&h, 1u << 16);
    ash_buf_init(&b, 1u << 16);
    ash_buf_addc(&h, '{');
    for (size_t i = 0; names[i]; i++)
        ash_buf_printf(&h, "%s\"%c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}",
                       i ? "," : "", names[i], i, i + 1);
    ash_buf_addc(&h, '}');
    tw_int(&b, h.len, 8);
    ash_buf_add(&b, h.data, h.len);
    ash_buf_adds(&b, names);
    put(name, b.data, b.len);
    ash_buf_release(&h);
    ash_buf_release(&b);
}

static void torch(const char *name, const char *tensor)
{
    ash_buf p;
    zip_writer w;
    pk_begin(&p);
    pk_str(&p, tensor);
    pk_tensor(&p, "ByteStorage", "0", 1, 0, 1, (const int64_t[]){1}, (const int64_t[]){1});
    pk_end(&p);
    zw_begin(&w);
    zw_add(&w, "m/data.pkl", p.data, p.len);
    zw_add(&w, "m/data/0", "x", 1);
    zw_end(&w, true);
    put(name, w.out.data, w.out.len);
    ash_buf_release(&p);
    ash_buf_release(&w.out);
}

/* Part no of count of a split set with one tensor each, or a whole file if count is 0. */
static void gguf(const char *name, int no, int count)
{
    static const uint64_t dims[] = {1};
    ash_buf b;
    char tensor[8];
    ash_buf_init(&b, 1u << 16);
    gw_header(&b, 3, 1, count ? 3 : 0);
    if (count) {
        gw_kv_int(&b, "split.no", ASH_GGUF_U16, (uint64_t)no, 2);
        gw_kv_int(&b, "split.count", ASH_GGUF_U16, (uint64_t)count, 2);
        gw_kv_int(&b, "split.tensors.count", ASH_GGUF_I32, (uint64_t)count, 4);
    }
    snprintf(tensor, sizeof tensor, "t%d", no);
    gw_tensor(&b, tensor, 1, dims, ASH_DTYPE_F32, 0);
    gw_pad(&b, 32);
    gw_zeros(&b, 32);
    put(name, b.data, b.len);
    ash_buf_release(&b);
}

static int open_in(const char *name, ash_checkpoint **c, ash_err *err)
{
    char path[512];
    snprintf(path, sizeof path, "%s%s%s", root, *name ? "/" : "", name);
    return ash_checkpoint_open(path, c, err);
}

/* Opens `name` and expects the file `chosen`, both below the root. */
static ash_checkpoint *opened(const char *name, ash_checkpoint_kind kind, const char *chosen)
{
    ash_checkpoint *c;
    ash_err err = ASH_ERR_INIT;
    char want[512];
    if (open_in(name, &c, &err)) fail_msg("%s", err.msg);
    snprintf(want, sizeof want, "%s/%s", root, chosen);
    assert_string_equal(c->path, want);
    assert_int_equal(c->kind, kind);
    return c;
}

static void expect(const char *name, ash_checkpoint_kind kind, const char *chosen)
{
    ash_checkpoint_close(opened(name, kind, chosen));
}

static void refused(const char *name, int code, const char *message)
{
    ash_checkpoint *c;
    ash_err err = ASH_ERR_INIT;
    int rc = open_in(name, &c, &err);
    if (rc != code || !strstr(err.msg, message))
        fail_msg("wanted %d with '%s', got %d: %s", code, message, rc, err.msg);
    assert_null(c);
}

/* ---- files --------------------------------------------------------------------------------------
 */

static void test_files(void **state)
{
    safetensors("any.name", "ab");
    refused("any.name", ASH_ENOENT,
            "holds no config.json, which a checkpoint of this format needs");
    text("config.json", "{\"model_type\":\"llama\"}");
    ash_checkpoint *c = opened("any.name", ASH_CHECKPOINT_SAFETENSORS, "any.name");
    assert_string_equal(c->dir, root);
    assert_string_equal(json_string_value(json_object_get(c->config, "model_type")), "llama");
    assert_null(c->quant);
    assert_null(c->quant_from);
    assert_string_equal(c->note, "");
    assert_null(c->gguf);
    assert_int_equal(c->tensors->n_tensors, 2);
    ash_checkpoint_close(c);
    torch("weights", "a");
    expect("weights", ASH_CHECKPOINT_TORCH, "weights");
    gguf("m.bin", 0, 0); /* the content decides */
    c = opened("m.bin", ASH_CHECKPOINT_GGUF, "m.bin");
    assert_null(c->config);
    assert_ptr_equal(c->tensors, ash_gguf_tensors(c->gguf));
    ash_checkpoint_close(c);
    text("x", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
    refused("x", ASH_EFORMAT, "a Git LFS pointer, not the file itself");
    text("model.json", "{\"weight_map\":{}}");
    refused("model.json", ASH_EFORMAT, "JSON, not a checkpoint; an index is named");
    text("x", "hello world");
    refused("x", ASH_EFORMAT, "neither GGUF nor safetensors nor PyTorch");
    text("x.safetensors", "hello");
    refused("x.safetensors", ASH_EFORMAT, "not a safetensors file: 5 bytes");
    text("x.gguf", "hello");
    refused("x.gguf", ASH_EFORMAT, "not a GGUF file");
    text("x.pth", "hello");
    refused("x.pth", ASH_EFORMAT, "not a PyTorch file");
    text("x", "");
    refused("x", ASH_EFORMAT, "neither GGUF nor safetensors nor PyTorch");
    refused("nowhere", ASH_ENOENT, "cannot open");
    assert_string_equal(ash_checkpoint_kind_name(ASH_CHECKPOINT_GGUF), "GGUF");
    assert_string_equal(ash_checkpoint_kind_name(ASH_CHECKPOINT_SAFETENSORS), "safetensors");
    assert_string_equal(ash_checkpoint_kind_name(ASH_CHECKPOINT_TORCH), "PyTorch");
    ash_checkpoint_close(NULL);
}

/* A header of 0x280 bytes and more starts as a pickle does, one of 0x4B50 as a zip archive. */
static void test_lengths(void **state)
{
    static const size_t lengths[] = {0x180, 0x280, 0x580, 0x4B50};
    text("config.json", "{}");
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        ash_buf b;
        ash_buf_init(&b, 1u << 16);
        tw_int(&b, lengths[i], 8);
        ash_buf_adds(&b, "{}");
        while (b.len < lengths[i] + 8) ash_buf_addc(&b, ' ');
        put("model.safetensors", b.data, b.len);
        expect("model.safetensors", ASH_CHECKPOINT_SAFETENSORS, "model.safetensors");
        ash_buf_release(&b);
    }
}

/* ---- indexes ------------------------------------------------------------------------------------
 */

#define IX "model.safetensors.index.json"

static void two_shards(void)
{
    safetensors("model-00001-of-000002.safetensors", "ab");
    safetensors("model-00002-of-000002.safetensors", "c");
    text("config.json", "{}");
    text(IX, "{\"weight_map\":{\"c\":\"model-00002-of-000002.safetensors\","
             "\"\\u0061\":\"model-00001-of-000002.safetensors\",\"b\":\"model-00001-of-000002."
             "safetensors\"},"
             "\"metadata\":{\"total_size\":\"wrong\",\"x\":[1,{\"y\":null}]}}");
}

static void test_index(void **state)
{
    two_shards();
    ash_checkpoint *c = opened("", ASH_CHECKPOINT_SAFETENSORS, IX);
    assert_int_equal(c->tensors->n_files, 2);
    assert_int_equal(c->tensors->n_tensors, 3);
    for (size_t i = 0; i < 3; i++) assert_int_equal(c->tensors->tensors[i].name[0], "abc"[i]);
    assert_int_equal(*ash_tensor_data(c->tensors, ash_tensor_find(c->tensors, "c")), 'c');
    ash_checkpoint_close(c);
    expect(IX, ASH_CHECKPOINT_SAFETENSORS, IX);
    drop("model-00002-of-000002.safetensors");
    refused("", ASH_ENOENT, "1 of 2 files are missing: model-00002-of-000002.safetensors");
    drop("model-00001-of-000002.safetensors");
    refused("", ASH_ENOENT,
            "2 of 2 files are missing: model-00001-of-000002.safetensors, "
            "model-00002-of-000002.safetensors");
    text("pytorch_model.bin.index.json", "{\"weight_map\":{\"a\":\"one.bin\",\"b\":\"two.bin\"}}");
    torch("one.bin", "a");
    torch("two.bin", "b");
    drop(IX);
    expect("", ASH_CHECKPOINT_TORCH, "pytorch_model.bin.index.json");
    safetensors("two.bin", "b");
    refused("", ASH_EFORMAT, "two.bin: a safetensors file, but the first one is PyTorch");
    gguf("two.bin", 0, 0);
    refused("", ASH_EFORMAT, "two.bin: a GGUF file cannot be a part of an index");
    text("two.bin", "version https://git-lfs.github.com/spec/v1\n");
    refused("", ASH_EFORMAT, "two.bin: a Git LFS pointer");
    text("two.bin", "x");
    refused("", ASH_EFORMAT, "two.bin: not a PyTorch file");
}

static void test_index_lies(void **state)
{
    static const struct {
        const char *map, *message;
        int code;
    } rows[] = {
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"1\"}}", "tensor 'c' of '1' is not in 'weight_map'",
         ASH_EFORMAT},
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"1\",\"c\":\"1\",\"d\":\"1\"}}",
         "tensor 'd' is not in '1'", ASH_EFORMAT},
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"1\",\"c\":\"2\",\"x\":\"2\"}}",
         "tensor 'c' must be in '2', is in '1'", ASH_EFORMAT},
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"1\",\"c\":\"1\",\"\\u0063\":\"1\"}}",
         "tensor 'c' occurs twice in 'weight_map'", ASH_EFORMAT},
        {"{\"weight_map\":{\"a\":\"../1\"}}",
         "'../1' must be the plain name of a file beside the index at byte", ASH_EFORMAT},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "'/etc/passwd' must be the plain name",
         ASH_EFORMAT},
        {"{\"weight_map\":{\"a\":\"..\"}}", "'..' must be the plain name", ASH_EFORMAT},
        {"{\"weight_map\":{\"a\":\".\"}}", "'.' must be the plain name", ASH_EFORMAT},
        {"{\"weight_map\":{\"a\":\"\"}}", "'' must be the plain name", ASH_EFORMAT},
        {"{\"weight_map\":{\"a\":\"x\\\\y\"}}", "must be the plain name", ASH_EFORMAT},
        {"{\"weight_map\":{\"a\":\"1\\u0000\"}}", "'1?' must be the plain name", ASH_EFORMAT},
        {"{\"weight_map\":{\"a\":\"1\\u001b[2J\"}}", "must be the plain name", ASH_EFORMAT},
        {"{\"weight_map\":{\"\":\"1\"}}", "a tensor's name is empty", ASH_EFORMAT},
        {"{\"weight_map\":{\"a\":1}}", "expected a string", ASH_EFORMAT},
        {"{\"weight_map\":[]}", "expected an object", ASH_EFORMAT},
        {"{\"weight_map\":{}}", "'weight_map' is empty", ASH_EFORMAT},
        {"{}", "'weight_map' is missing", ASH_EFORMAT},
        {"{\"weight_map\":{\"a\":\"1\"},\"weight_map\":{}}", "'weight_map' occurs twice",
         ASH_EFORMAT},
        {"{\"weight_map\":{\"a\":\"1\"}", "JSON: cut short", ASH_EFORMAT},
        {"", "JSON: cut short", ASH_EFORMAT},
        {"{\"weight_map\":{\"a\":\"1\"}} x", "text after its end", ASH_EFORMAT},
    };
    safetensors("1", "abc");
    safetensors("2", "x");
    text("config.json", "{}");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        text(IX, rows[i].map);
        refused("", rows[i].code, rows[i].message);
    }
    safetensors("2", "c");
    text(IX, "{\"weight_map\":{\"a\":\"1\",\"b\":\"1\",\"c\":\"2\"}}");
    refused("", ASH_EFORMAT, "tensor 'c' occurs twice: in '");
}

static void test_index_limits(void **state)
{
    ash_buf b;
    ash_buf_init(&b, 1u << 20);
    ash_buf_adds(&b, "{\"weight_map\":{\"t\":\"0\"");
    for (int i = 1; i <= ASH_MAX_SHARDS; i++) ash_buf_printf(&b, ",\"t%d\":\"%d\"", i, i);
    ash_buf_adds(&b, "}}");
    put(IX, b.data, b.len);
    refused("", ASH_ELIMIT, "more than 1024 files");
    ash_buf_release(&b);
    ash_buf_init(&b, 1u << 25);
    ash_buf_adds(&b, "{\"weight_map\":{\"\u00e9\":\"0\"");
    for (unsigned i = 0; i < ASH_MAX_TENSORS; i++) ash_buf_printf(&b, ",\"%x\":\"0\"", i);
    ash_buf_adds(&b, "}}");
    put(IX, b.data, b.len);
    refused("", ASH_ELIMIT, "more than 1048576 tensors");
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, IX);
    assert_int_equal(truncate(path, ASH_MAX_SHARD_INDEX + 1), 0); /* no disk is taken */
    refused("", ASH_ELIMIT, "134217729 bytes; at most 134217728");
    ash_buf_release(&b);
}

static void test_declare(void **state)
{
    ash_checkpoint *c;
    ash_err err = ASH_ERR_INIT;
    text("config.json", "{\"torch_dtype\":\"float16\"}");
    text(IX, "{\"weight_map\":{\"a.qweight\":\"1\",\"b.weight\":\"2\"}}");
    assert_int_equal(ash_checkpoint_declare(root, &c, &err), 0);
    assert_int_equal(c->tensors->n_tensors, 2);
    const ash_tensor *t = ash_tensor_find(c->tensors, "a.qweight");
    assert_int_equal(t->dtype, ASH_DTYPE_I32);
    assert_int_equal(t->n_dims, 0);
    assert_int_equal(ash_tensor_find(c->tensors, "b.weight")->dtype, ASH_DTYPE_F16);
    ash_checkpoint_close(c);
    safetensors("model.safetensors", "a");
    char path[512];
    snprintf(path, sizeof path, "%s/model.safetensors", root);
    assert_int_equal(ash_checkpoint_declare(path, &c, &err), ASH_ENOENT);
    assert_non_null(strstr(err.msg, "no index names the files and tensors"));
    text(IX, "{\"weight_map\":{\"a\":\"1\",\"a\":\"2\"}}");
    assert_int_equal(ash_checkpoint_declare(root, &c, &err), ASH_EFORMAT);
    assert_non_null(strstr(err.msg, "tensor 'a' occurs twice"));
}

/* ---- folders ------------------------------------------------------------------------------------
 */

/* Candidates from the last to the first choice: each new one is taken before those that are there.
 */
static void test_folder_order(void **state)
{
    refused("", ASH_ENOENT, "holds no checkpoint: expected model.safetensors");
    text("config.json", "{}");
    text("notes.bin", "no checkpoint at all");
    torch("training_args.bin", "x");
    torch("optimizer.pt", "x");
    torch("scheduler.pt", "x");
    torch("rng_state_0.pth", "x");
    gguf("mmproj-model.gguf", 0, 0);
    safetensors("adapter_model.safetensors", "x");
    safetensors(".hidden.safetensors", "x");
    refused("", ASH_ENOENT, "holds no checkpoint");
    gguf("m.gguf", 0, 0);
    expect("", ASH_CHECKPOINT_GGUF, "m.gguf");
    torch("other.pth", "x");
    expect("", ASH_CHECKPOINT_TORCH, "other.pth");
    text("x.bin.index.json", "{\"weight_map\":{\"x\":\"other.pth\"}}");
    expect("", ASH_CHECKPOINT_TORCH, "x.bin.index.json");
    torch("pytorch_model.bin", "x");
    expect("", ASH_CHECKPOINT_TORCH, "pytorch_model.bin");
    text("pytorch_model.bin.index.json", "{\"weight_map\":{\"x\":\"other.pth\"}}");
    expect("", ASH_CHECKPOINT_TORCH, "pytorch_model.bin.index.json");
    safetensors("Name-GPTQ-4bit-128g.no-act.order.safetensors", "x");
    expect("", ASH_CHECKPOINT_SAFETENSORS, "Name-GPTQ-4bit-128g.no-act.order.safetensors");
    safetensors("gptq_model-4bit-128g.safetensors", "x");
    expect("", ASH_CHECKPOINT_SAFETENSORS, "gptq_model-4bit-128g.safetensors");
    text("gptq_model-8bit.safetensors.index.json",
         "{\"weight_map\":{\"x\":\"gptq_model-4bit-128g.safetensors\"}}");
    expect("", ASH_CHECKPOINT_SAFETENSORS, "gptq_model-8bit.safetensors.index.json");
    safetensors("model.safetensors", "x");
    expect("", ASH_CHECKPOINT_SAFETENSORS, "model.safetensors");
    text(IX, "{\"weight_map\":{\"x\":\"model.safetensors\"}}");
    expect("", ASH_CHECKPOINT_SAFETENSORS, IX);
}

static void test_folder_several(void **state)
{
    text("config.json", "{}");
    gguf("b.gguf", 0, 0);
    gguf("a.gguf", 0, 0);
    refused("", ASH_EINVAL, "holds 2 models, name one of them: a.gguf, b.gguf");
    torch("b.pt", "x");
    torch("a.bin", "x");
    refused("", ASH_EINVAL, "holds 2 models, name one of them: a.bin, b.pt");
    for (int i = 0; i < 6; i++) {
        char name[32];
        snprintf(name, sizeof name, "m%d.safetensors", i);
        safetensors(name, "x");
    }
    refused("", ASH_EINVAL,
            "holds 6 models, name one of them: m0.safetensors, m1.safetensors, m2.safetensors, "
            "m3.safetensors, ...");
    safetensors("gptq_model-4bit-32g.safetensors", "x");
    safetensors("gptq_model-8bit-32g.safetensors", "x");
    refused("", ASH_EINVAL,
            "holds 2 models, name one of them: gptq_model-4bit-32g.safetensors, gptq_model-8bit");
}

static void test_folder_parts(void **state)
{
    text("config.json", "{}");
    gguf("m-00002-of-00002.gguf", 1, 2);
    refused("", ASH_ENOENT, "holds no checkpoint");
    refused("m-00002-of-00002.gguf", ASH_EINVAL, "part 2 of 2 of a split model; open part 1");
    gguf("m-00001-of-00002.gguf", 0, 2);
    ash_checkpoint *c = opened("", ASH_CHECKPOINT_GGUF, "m-00001-of-00002.gguf");
    assert_int_equal(c->tensors->n_tensors, 2);
    ash_checkpoint_close(c);
    expect("m-00002-of-00002.gguf", ASH_CHECKPOINT_GGUF, "m-00001-of-00002.gguf");
    safetensors("model-00001-of-00003.safetensors", "a");
    expect("", ASH_CHECKPOINT_SAFETENSORS, "model-00001-of-00003.safetensors");
    safetensors("model-00002-of-00003.safetensors", "b");
    refused("", ASH_ENOENT,
            "holds 2 parts of a model but not their index, *.safetensors.index.json: "
            "model-00001-of-00003.safetensors, model-00002-of-00003.safetensors");
}

/* ---- the hub's cache ----------------------------------------------------------------------------
 */

static void test_cache(void **state)
{
    char entry[128], link_name[256], *dir;
    ash_err err = ASH_ERR_INIT;
    snprintf(entry, sizeof entry, "%s/models--a--b", root);
    safetensors("models--a--b/blobs/1234", "ab");
    text("models--a--b/blobs/5678", "{\"model_type\":\"m\"}");
    text("models--a--b/snapshots/c0ffee/x", "");
    snprintf(link_name, sizeof link_name, "%s/snapshots/c0ffee/model.safetensors", entry);
    assert_int_equal(symlink("../../blobs/1234", link_name), 0);
    snprintf(link_name, sizeof link_name, "%s/snapshots/c0ffee/config.json", entry);
    assert_int_equal(symlink("../../blobs/5678", link_name), 0);
    /* no refs/main: the only snapshot */
    expect("models--a--b", ASH_CHECKPOINT_SAFETENSORS,
           "models--a--b/snapshots/c0ffee/model.safetensors");
    text("models--a--b/refs/main", "c0ffee");
    text("models--a--b/refs/pr/1", "beef\n");
    text("models--a--b/snapshots/beef/config.json", "{}");
    ash_checkpoint *c = opened("models--a--b", ASH_CHECKPOINT_SAFETENSORS,
                               "models--a--b/snapshots/c0ffee/model.safetensors");
    assert_string_equal(json_string_value(json_object_get(c->config, "model_type")), "m");
    ash_checkpoint_close(c);
    static const struct {
        const char *revision, *want;
    } good[] = {{NULL, "c0ffee"}, {"main", "c0ffee"}, {"pr/1", "beef"}, {"c0ffee", "c0ffee"}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(ash_checkpoint_snapshot(entry, good[i].revision, &dir, &err), 0);
        assert_string_equal(strrchr(dir, '/') + 1, good[i].want);
        free(dir);
    }
    static const char *const bad[] = {"../main", "/main", "", "pr//1", "pr/", ".", "a\\b", "a\nb"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(ash_checkpoint_snapshot(entry, bad[i], &dir, &err), ASH_EINVAL);
        assert_non_null(strstr(err.msg, "is no revision"));
        assert_null(dir);
    }
    assert_int_equal(ash_checkpoint_snapshot(entry, "dead", &dir, &err), ASH_ENOENT);
    assert_non_null(strstr(err.msg, "has no snapshot of revision 'dead'"));
    text("models--a--b/refs/main", "../../etc");
    refused("models--a--b", ASH_EFORMAT, "refs/main: must hold a commit");
    text("models--a--b/refs/main", "\n");
    refused("models--a--b", ASH_EFORMAT, "refs/main: must hold a commit");
    text("models--a--b/refs/main", "f00");
    refused("models--a--b", ASH_ENOENT, "has no snapshot of revision 'main': no snapshots/f00");
    safetensors("trained/model.safetensors", "a");
    text("trained/config.json", "{}");
    text("trained/snapshots/1/x", "");
    expect("trained", ASH_CHECKPOINT_SAFETENSORS, "trained/model.safetensors");
    drop("models--a--b/refs/main");
    refused("models--a--b", ASH_ENOENT, "refs/main is missing and there are 2 snapshots");
}

/* ---- configuration ------------------------------------------------------------------------------
 */

static void test_config(void **state)
{
    safetensors("model.safetensors", "a");
    text("config.json", "[]");
    refused("", ASH_EFORMAT, "config.json must be an object, not an array");
    text("config.json", "{\"a\":}");
    refused("", ASH_EFORMAT, "config.json: JSON line 1 column");
    text("config.json", "{\"a\":1,\"a\":2}");
    refused("", ASH_EFORMAT, "duplicate");
    text("config.json", "{\"quantization_config\":4}");
    refused("", ASH_EFORMAT, "config.json: 'quantization_config' must be an object, not a number");
    text("config.json", "{}");
    text("quantize_config.json", "7");
    refused("", ASH_EFORMAT, "quantize_config.json must be an object, not a number");
    drop("quantize_config.json");
    /* numbers as Python writes them */
    text("config.json",
         "{\"max\":1000000000000000019884624838656,\"x\":[-1e-5,1.5E+3,12345678901234567890.5,"
         "\"1234567890123456789012\"],\"n\":-9223372036854775808,\"m\":123456789012345678}");
    ash_checkpoint *c = opened("", ASH_CHECKPOINT_SAFETENSORS, "model.safetensors");
    assert_true(json_real_value(json_object_get(c->config, "max")) == 1e30);
    const json_t *x = json_object_get(c->config, "x");
    assert_true(json_real_value(json_array_get(x, 0)) == -1e-5);
    assert_true(json_real_value(json_array_get(x, 1)) == 1500);
    assert_string_equal(json_string_value(json_array_get(x, 3)), "1234567890123456789012");
    assert_true(json_real_value(json_object_get(c->config, "n")) == -9223372036854775808.0);
    assert_int_equal(json_integer_value(json_object_get(c->config, "m")), 123456789012345678);
    ash_checkpoint_close(c);
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", root);
    assert_int_equal(truncate(path, ASH_MAX_CONFIG_FILE + 1), 0);
    refused("", ASH_ELIMIT, "at most 8388608 are read");
    ash_buf b;
    ash_buf_init(&b, 1u << 23);
    for (size_t i = 0; i <= ASH_MAX_CONFIG_CONTAINERS; i++) ash_buf_adds(&b, "[],");
    put("config.json", b.data, b.len);
    refused("", ASH_ELIMIT, "config.json: more than 1048576 arrays and objects or 4194304 values");
    ash_buf_release(&b);
}

/* Opens the folder and looks at its quantisation settings. */
static void expect_quant(const char *from, int bits, const char *note)
{
    ash_checkpoint *c = opened("", ASH_CHECKPOINT_SAFETENSORS, "model.safetensors");
    assert_non_null(c->quant);
    assert_string_equal(c->quant_from, from);
    assert_int_equal(json_integer_value(json_object_get(c->quant, "bits")), bits);
    assert_string_equal(c->note, note);
    ash_checkpoint_close(c);
}

static void test_quant(void **state)
{
    safetensors("model.safetensors", "a");
    text("config.json", "{\"quantization_config\":null}");
    ash_checkpoint *c = opened("", ASH_CHECKPOINT_SAFETENSORS, "model.safetensors");
    assert_null(c->quant);
    ash_checkpoint_close(c);
    text(
        "config.json",
        "{\"quantization_config\":{\"bits\":4,\"group_size\":128,\"checkpoint_format\":\"gptq\"}}");
    expect_quant("config.json's quantization_config", 4, "");
    text("quant_config.json", "{\"bits\":4,\"q_group_size\":128}");
    expect_quant("quant_config.json", 4, "");
    text("quant_config.json", "{\"bits\":8,\"group_size\":128,\"format\":\"gptq_v2\"}");
    expect_quant("quant_config.json", 8,
                 "quant_config.json says bits 8, config.json's quantization_config says 4; "
                 "quant_config.json says checkpoint_format \"gptq_v2\", config.json's "
                 "quantization_config says "
                 "\"gptq\"");
    text("config.json", "{}");
    text("quantize_config.json", "{\"bits\":3,\"group_size\":128,\"desc_act\":true}");
    expect_quant(
        "quantize_config.json", 3,
        "quantize_config.json says bits 3, quant_config.json says 8; "
        "quantize_config.json says checkpoint_format nothing, quant_config.json says \"gptq_v2\"");
}

/* ---- side files ---------------------------------------------------------------------------------
 */

static void test_side_files(void **state)
{
    ash_buf b;
    json_t *v;
    ash_err err = ASH_ERR_INIT;
    gguf("m.gguf", 0, 0);
    text("tokenizer.json", "{\"a\":1}");
    text("broken.json", "{");
    ash_checkpoint *c = opened("m.gguf", ASH_CHECKPOINT_GGUF, "m.gguf");
    assert_int_equal(ash_checkpoint_file(c, "tokenizer.json", 100, &b, &err), 0);
    assert_string_equal(ash_buf_cstr(&b), "{\"a\":1}");
    ash_buf_release(&b);
    assert_int_equal(ash_checkpoint_file(c, "tokenizer.json", 6, &b, &err), ASH_ELIMIT);
    ash_buf_release(&b);
    assert_int_equal(ash_checkpoint_file(c, "none.json", 6, &b, &err), ASH_ENOENT);
    ash_buf_release(&b);
    assert_int_equal(ash_checkpoint_file(c, "../x", 6, &b, &err), ASH_EINVAL);
    ash_buf_release(&b);
    assert_int_equal(ash_checkpoint_json(c, "tokenizer.json", 100, &v, &err), 0);
    assert_int_equal(json_integer_value(json_object_get(v, "a")), 1);
    json_decref(v);
    assert_int_equal(ash_checkpoint_json(c, "none.json", 100, &v, &err), 0);
    assert_null(v);
    assert_int_equal(ash_checkpoint_json(c, "broken.json", 100, &v, &err), ASH_EFORMAT);
    assert_non_null(strstr(err.msg, "/broken.json: JSON line 1"));
    assert_int_equal(ash_checkpoint_json(c, "a/b", 100, &v, &err), ASH_EINVAL);
    ash_checkpoint_close(c);
}

/* ---- memory runs out ----------------------------------------------------------------------------
 */

static int open_root(void *name, ash_err *err)
{
    ash_checkpoint *c;
    int rc = open_in(name, &c, err);
    ash_checkpoint_close(c);
    return rc;
}

static void test_out_of_memory(void **state)
{
    two_shards();
    text("quantize_config.json", "{\"bits\":3}");
    text("config.json", "{\"n\":10,\"quantization_config\":{\"bits\":4}}");
    assert_in_range(oom_run(open_root, ""), 20, 1000);
    torch("m.pt", "x");
    assert_in_range(oom_run(open_root, "m.pt"), 10, 1000);
    text("models--a--b/snapshots/1/config.json", "{}");
    safetensors("models--a--b/snapshots/1/model.safetensors", "x");
    assert_true(oom_run(open_root, "models--a--b") > 10);
    text("models--a--b/refs/main", "1");
    assert_true(oom_run(open_root, "models--a--b") > 10);
}

int main(void)
{
    oom_init();
#define IN_FOLDER(t) cmocka_unit_test_setup_teardown(t, fresh, clean)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_files),        IN_FOLDER(test_lengths),        IN_FOLDER(test_index),
        IN_FOLDER(test_index_lies),   IN_FOLDER(test_index_limits),   IN_FOLDER(test_declare),
        IN_FOLDER(test_folder_order), IN_FOLDER(test_folder_several), IN_FOLDER(test_folder_parts),
        IN_FOLDER(test_cache),        IN_FOLDER(test_config),         IN_FOLDER(test_quant),
        IN_FOLDER(test_side_files),   IN_FOLDER(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
