/* The GGUF reader: what it accepts, each check it makes, cuts at every byte, split sets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/gguf.h"
#include "gguf_writer.h"
#include "oom.h"

static const uint64_t dims_2x32[] = {32, 2};
static const uint64_t dims_8[] = {8};

/* Two tensors of 40 (Q4_1, 2 rows of 32) and 32 bytes, one key of each scalar type and arrays. */
static void good(ash_buf *b, uint32_t version)
{
    static const char *const words[] = {"", "one", "two words"};
    ash_buf_init(b, 1u << 20);
    gw_header(b, version, 2, 17);
    gw_kv_str(b, "general.architecture", "llama");
    gw_kv_int(b, "u8", ASH_GGUF_U8, 200, 1);
    gw_kv_int(b, "i8", ASH_GGUF_I8, 0x80, 1);
    gw_kv_int(b, "u16", ASH_GGUF_U16, 65535, 2);
    gw_kv_int(b, "i16", ASH_GGUF_I16, 0xFFFF, 2);
    gw_kv_int(b, "u32", ASH_GGUF_U32, 4294967295u, 4);
    gw_kv_int(b, "i32", ASH_GGUF_I32, 0xFFFFFFFE, 4);
    gw_key(b, "f32", ASH_GGUF_F32), gw_f32(b, 1.5f);
    gw_kv_int(b, "yes", ASH_GGUF_BOOL, 1, 1);
    gw_kv_int(b, "u64", ASH_GGUF_U64, UINT64_MAX, 8);
    gw_kv_int(b, "i64", ASH_GGUF_I64, (uint64_t)INT64_MIN, 8);
    gw_kv_int(b, "f64", ASH_GGUF_F64, 0x4008000000000000, 8); /* 3.0 */
    gw_kv_int(b, "nan", ASH_GGUF_F32, 0x7FC00000, 4);
    gw_kv_strs(b, "words", words, 3);
    gw_array(b, "ints", ASH_GGUF_I16, 3), gw_int(b, 1, 2), gw_int(b, 0xFFFF, 2), gw_int(b, 3, 2);
    gw_array(b, "reals", ASH_GGUF_F32, 2), gw_f32(b, 0.5f), gw_f32(b, -2);
    gw_array(b, "none", ASH_GGUF_STRING, 0);
    gw_tensor(b, "a", 2, dims_2x32, ASH_DTYPE_Q4_1, 0);
    gw_tensor(b, "b", 1, dims_8, ASH_DTYPE_F32, 64);
    gw_pad(b, 32);
    gw_zeros(b, 64);
    for (int i = 0; i < 32; i++) ash_buf_addc(b, (char)i);
}

static int open_buf(const ash_buf *b, ash_gguf **g, ash_err *err)
{
    return ash_gguf_open_memory(b->data, b->len, "mem.gguf", g, err);
}

static void expect_refused(const ash_buf *b, int code, const char *text)
{
    ash_gguf *g;
    ash_err err = ASH_ERR_INIT;
    int rc = open_buf(b, &g, &err);
    if (rc != code || !strstr(err.msg, text))
        fail_msg("wanted %d with '%s', got %d: %s", code, text, rc, err.msg);
    assert_null(g);
    assert_int_equal(err.code, code);
}

static void test_good(void **state)
{
    for (uint32_t version = 2; version <= 3; version++) {
        ash_buf b;
        ash_gguf *g;
        good(&b, version);
        assert_int_equal(open_buf(&b, &g, NULL), 0);
        assert_int_equal(ash_gguf_version(g), version);
        assert_int_equal(ash_gguf_kv_count(g), 17);
        const ash_tensor_index *idx = ash_gguf_tensors(g);
        assert_int_equal(idx->n_tensors, 2);
        const ash_tensor *a = ash_tensor_find(idx, "a"), *c = ash_tensor_find(idx, "b");
        assert_int_equal(a->n_dims, 2);
        assert_int_equal(a->dims[0], 2);
        assert_int_equal(a->dims[1], 32);
        assert_int_equal(a->bytes, 40);
        assert_int_equal(ash_tensor_count(a), 64);
        char shape[96];
        assert_string_equal(ash_tensor_shape(a, shape), "[2, 32]");
        assert_int_equal(c->bytes, 32);
        assert_int_equal(ash_tensor_data(idx, c)[31], 31);
        assert_null(ash_tensor_find(idx, "c"));
        ash_gguf_close(g);
        ash_buf_release(&b);
    }
}

static void test_integers(void **state)
{
    static const struct {
        const char *key;
        int64_t want;
    } rows[] = {{"u8", 200}, {"i8", -128}, {"u16", 65535}, {"i16", -1}, {"u32", 4294967295},
                {"i32", -2}, {"yes", 1},   {"f64", 3},     {"i64", INT64_MIN}};
    ash_buf b;
    ash_gguf *g;
    good(&b, 3);
    assert_int_equal(open_buf(&b, &g, NULL), 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t v = 77;
        uint64_t u = 77;
        assert_int_equal(ash_gguf_get_i64(g, rows[i].key, INT64_MIN, INT64_MAX, &v, NULL), 0);
        assert_int_equal(v, rows[i].want);
        int rc = ash_gguf_get_u64(g, rows[i].key, 0, UINT64_MAX, &u, NULL);
        assert_int_equal(rc, rows[i].want < 0 ? ASH_EFORMAT : 0);
        assert_int_equal(u, rows[i].want < 0 ? 77 : rows[i].want);
    }
    uint64_t u = 0;
    int64_t v = 5;
    assert_int_equal(ash_gguf_get_u64(g, "u64", 0, UINT64_MAX, &u, NULL), 0);
    assert_true(u == UINT64_MAX);
    assert_int_equal(ash_gguf_get_i64(g, "u64", INT64_MIN, INT64_MAX, &v, NULL), ASH_EFORMAT);
    assert_int_equal(ash_gguf_get_i64(g, "absent", 0, 1, &v, NULL), 0);
    assert_int_equal(v, 5);
    ash_gguf_close(g);
    ash_buf_release(&b);
}

static void test_getter_errors(void **state)
{
    ash_buf b;
    ash_gguf *g;
    ash_err err = ASH_ERR_INIT;
    uint64_t u = 9;
    double f = 9;
    bool yes = false;
    ash_str s;
    ash_gguf_array a;
    good(&b, 3);
    assert_int_equal(open_buf(&b, &g, NULL), 0);
    assert_int_equal(ash_gguf_get_u64(g, "u8", 1, 100, &u, &err), ASH_EFORMAT);
    assert_non_null(strstr(err.msg, "mem.gguf: key 'u8' must be an integer from 1 to 100, is "
                                    "the uint8 200 at byte"));
    assert_int_equal(ash_gguf_get_u64(g, "u8", 201, 300, &u, &err), ASH_EFORMAT);
    assert_int_equal(u, 9);
    assert_int_equal(ash_gguf_need_u64(g, "absent", 1, 100, &u, &err), ASH_ENOENT);
    assert_string_equal(err.msg, "mem.gguf: key 'absent' is missing");
    assert_int_equal(ash_gguf_get_u64(g, "f32", 0, 9, &u, &err), ASH_EFORMAT);
    assert_int_equal(ash_gguf_get_f64(g, "nan", &f, &err), ASH_EFORMAT);
    assert_int_equal(ash_gguf_get_f64(g, "words", &f, &err), ASH_EFORMAT);
    assert_non_null(strstr(err.msg, "is an array of 3 string"));
    assert_int_equal(f, 9);
    assert_int_equal(ash_gguf_get_f64(g, "i8", &f, &err), 0);
    assert_true(f == -128);
    assert_int_equal(ash_gguf_need_f64(g, "f32", &f, &err), 0);
    assert_true(f == 1.5);
    assert_int_equal(ash_gguf_get_bool(g, "u8", &yes, &err), ASH_EFORMAT);
    assert_int_equal(ash_gguf_get_bool(g, "yes", &yes, &err), 0);
    assert_true(yes);
    assert_int_equal(ash_gguf_get_str(g, "u8", &s, &err), ASH_EFORMAT);
    assert_int_equal(ash_gguf_need_str(g, "general.architecture", &s, &err), 0);
    assert_true(ash_str_eqc(s, "llama"));
    assert_int_equal(ash_gguf_get_array(g, "ints", ASH_GGUF_STRING, &a, &err), ASH_EFORMAT);
    assert_int_equal(ash_gguf_get_array(g, "reals", ASH_GGUF_I64, &a, &err), ASH_EFORMAT);
    assert_int_equal(ash_gguf_get_array(g, "u8", ASH_GGUF_I64, &a, &err), ASH_EFORMAT);
    ash_gguf_close(g);
    ash_buf_release(&b);
}

static void test_arrays(void **state)
{
    ash_buf b;
    ash_gguf *g;
    ash_gguf_array a;
    good(&b, 3);
    assert_int_equal(open_buf(&b, &g, NULL), 0);
    assert_int_equal(ash_gguf_need_array(g, "ints", ASH_GGUF_I64, &a, NULL), 0);
    assert_int_equal(a.n, 3);
    assert_int_equal(ash_gguf_array_i64(&a, 1), -1);
    assert_int_equal(ash_gguf_array_i64(&a, 3), 0);
    assert_int_equal(ash_gguf_need_array(g, "reals", ASH_GGUF_F64, &a, NULL), 0);
    assert_true(ash_gguf_array_f64(&a, 1) == -2);
    assert_int_equal(ash_gguf_need_array(g, "words", ASH_GGUF_STRING, &a, NULL), 0);
    uint64_t at = 0;
    ash_str s;
    assert_true(ash_gguf_array_next_str(&a, &at, &s) && s.n == 0);
    assert_true(ash_gguf_array_next_str(&a, &at, &s) && ash_str_eqc(s, "one"));
    assert_true(ash_gguf_array_next_str(&a, &at, &s) && ash_str_eqc(s, "two words"));
    assert_false(ash_gguf_array_next_str(&a, &at, &s));
    ash_gguf_close(g);
    ash_buf_release(&b);
}

/* No prefix of a good file may open, crash or read outside; each names the file. */
static void test_cut_at_every_byte(void **state)
{
    ash_buf b;
    good(&b, 3);
    for (size_t n = 0; n < b.len; n++) {
        char *exact = malloc(n ? n : 1); /* so that ASan sees one byte too far */
        ash_gguf *g;
        ash_err err = ASH_ERR_INIT;
        memcpy(exact, b.data, n);
        int rc = ash_gguf_open_memory(exact, n, "cut.gguf", &g, &err);
        if (rc != ASH_EFORMAT || !strstr(err.msg, "cut.gguf"))
            fail_msg("cut at %zu: %d %s", n, rc, err.msg);
        free(exact);
    }
    ash_buf_release(&b);
}

static void test_versions(void **state)
{
    static const struct {
        uint32_t version;
        const char *text;
    } rows[] = {{1, "version 1"}, {0x03000000, "big-endian"}, {4, "version 4"}, {0, "version 0"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ash_buf b;
        good(&b, rows[i].version);
        expect_refused(&b, ASH_EUNSUPPORTED, rows[i].text);
        ash_buf_release(&b);
    }
    ash_buf b;
    good(&b, 3);
    memcpy(b.data, "GGML", 4);
    expect_refused(&b, ASH_EFORMAT, "starts with 47 47 4d 4c");
    ash_buf_release(&b);
}

/* One bad header a row: the counts, then what follows. */
static void test_lying_counts(void **state)
{
    ash_buf b;
    ash_buf_init(&b, 4096);
    gw_header(&b, 3, UINT64_MAX, 0);
    expect_refused(&b, ASH_EFORMAT, "tensors cannot fit");
    ash_buf_clear(&b);
    gw_header(&b, 3, 0, UINT64_MAX);
    expect_refused(&b, ASH_EFORMAT, "keys cannot fit");
    ash_buf_clear(&b);
    gw_header(&b, 3, 0, 1);
    gw_int(&b, UINT64_MAX, 8), gw_zeros(&b, 32);
    expect_refused(&b, ASH_EFORMAT, "a key has a length of 18446744073709551615");
    ash_buf_clear(&b);
    gw_header(&b, 3, 0, 1);
    gw_array(&b, "k", ASH_GGUF_U32, UINT64_MAX / 4 + 1), gw_zeros(&b, 32);
    expect_refused(&b, ASH_EFORMAT, "array of key 'k' has 4611686018427387904 elements");
    ash_buf_clear(&b);
    gw_header(&b, 3, 0, 1);
    gw_array(&b, "k", ASH_GGUF_STRING, 2), gw_int(&b, 0, 8), gw_int(&b, 9, 8);
    expect_refused(&b, ASH_EFORMAT, "length of 9");
    ash_buf_release(&b);
}

static void one_key(ash_buf *b)
{
    ash_buf_clear(b);
    gw_header(b, 3, 0, 1);
}

static void test_bad_metadata(void **state)
{
    ash_buf b;
    ash_buf_init(&b, 4096);
    one_key(&b), gw_kv_int(&b, "k", 13, 0, 8);
    expect_refused(&b, ASH_EUNSUPPORTED, "key 'k': unknown value type 13");
    one_key(&b), gw_array(&b, "k", ASH_GGUF_ARRAY, 1), gw_zeros(&b, 32);
    expect_refused(&b, ASH_EUNSUPPORTED, "array of type 9 (array)");
    one_key(&b), gw_array(&b, "k", 77, 0), gw_zeros(&b, 32);
    expect_refused(&b, ASH_EUNSUPPORTED, "array of type 77");
    one_key(&b), gw_kv_int(&b, "k", ASH_GGUF_BOOL, 2, 1);
    expect_refused(&b, ASH_EFORMAT, "a bool must be 0 or 1, is 2");
    one_key(&b), gw_kv_int(&b, "", ASH_GGUF_U64, 2, 8);
    expect_refused(&b, ASH_EFORMAT, "a key is empty");
    one_key(&b), gw_kv_int(&b, "a\nb", ASH_GGUF_U32, 2, 4);
    expect_refused(&b, ASH_EFORMAT, "control character");
    ash_buf_clear(&b), gw_header(&b, 3, 0, 2);
    gw_kv_int(&b, "k", ASH_GGUF_U32, 2, 4), gw_kv_int(&b, "k", ASH_GGUF_U32, 2, 4);
    expect_refused(&b, ASH_EFORMAT, "key 'k' occurs twice");
    one_key(&b), gw_kv_int(&b, "general.alignment", ASH_GGUF_U32, 24, 4);
    expect_refused(&b, ASH_EFORMAT, "power of two, is 24");
    one_key(&b), gw_kv_int(&b, "general.alignment", ASH_GGUF_U32, 0, 4);
    expect_refused(&b, ASH_EFORMAT, "power of two, is 0");
    one_key(&b), gw_kv_int(&b, "general.alignment", ASH_GGUF_U64, 32, 8);
    expect_refused(&b, ASH_EFORMAT, "must be a uint32, is uint64");
    ash_buf_release(&b);
}

static void with_tensor(ash_buf *b, const char *name, uint32_t n_dims, const uint64_t *dims,
                        uint32_t type, uint64_t offset)
{
    ash_buf_clear(b);
    gw_header(b, 3, 1, 0);
    gw_tensor(b, name, n_dims, dims, type, offset);
    gw_pad(b, 32), gw_zeros(b, 64);
}

static void test_bad_tensors(void **state)
{
    static const uint64_t huge[] = {(uint64_t)1 << 62, 2}, hidden[] = {0, (uint64_t)1 << 62, 4},
                          row[] = {33}, large[] = {(uint64_t)1 << 60}, five[] = {1, 1, 1, 1, 1};
    char long_name[80];
    memset(long_name, 'n', sizeof long_name);
    long_name[64] = 0;
    ash_buf b;
    ash_buf_init(&b, 4096);
    with_tensor(&b, "t", 1, dims_8, ASH_DTYPE_F32, 0);
    ash_gguf *g;
    assert_int_equal(open_buf(&b, &g, NULL), 0);
    ash_gguf_close(g);
    with_tensor(&b, "t", 2, huge, ASH_DTYPE_F32, 0);
    expect_refused(&b, ASH_EFORMAT, "tensor 't': dimension 1 of 2 makes it too large");
    with_tensor(&b, "t", 3, hidden, ASH_DTYPE_F32, 0);
    expect_refused(&b, ASH_EFORMAT, "too large");
    with_tensor(&b, "t", 5, five, ASH_DTYPE_F32, 0);
    expect_refused(&b, ASH_EFORMAT, "5 dimensions");
    with_tensor(&b, "t", 1, row, ASH_DTYPE_Q8_0, 0);
    expect_refused(&b, ASH_EFORMAT, "rows of 33 are no multiple of Q8_0's block of 32");
    with_tensor(&b, "t", 1, large, ASH_DTYPE_F64, 0);
    expect_refused(&b, ASH_EFORMAT, "too large");
    with_tensor(&b, "t", 1, large, ASH_DTYPE_I8, 0);
    expect_refused(&b, ASH_EFORMAT, "cut: tensor 't' needs bytes up to");
    for (uint32_t type = 0; type < 60; type++) {
        static const uint64_t rows[] = {256};
        with_tensor(&b, "t", 1, rows, type, 0);
        gw_zeros(&b, 2048);
        if (!ash_dtype_get(type)->block)
            expect_refused(&b, ASH_EUNSUPPORTED, "unknown or removed type");
        else {
            assert_int_equal(open_buf(&b, &g, NULL), 0);
            ash_gguf_close(g);
        }
    }
    with_tensor(&b, "t", 1, dims_8, ASH_DTYPE_F32, 32);
    expect_refused(&b, ASH_EFORMAT, "offset must be 0, is 32");
    with_tensor(&b, "", 1, dims_8, ASH_DTYPE_F32, 0);
    expect_refused(&b, ASH_EFORMAT, "name is empty");
    with_tensor(&b, long_name, 1, dims_8, ASH_DTYPE_F32, 0);
    expect_refused(&b, ASH_ELIMIT, "length of 64");
    ash_buf_clear(&b);
    gw_header(&b, 3, 2, 0);
    gw_tensor(&b, "t", 1, dims_8, ASH_DTYPE_F32, 0);
    gw_tensor(&b, "t", 1, dims_8, ASH_DTYPE_F32, 32);
    gw_pad(&b, 32), gw_zeros(&b, 64);
    expect_refused(&b, ASH_EFORMAT, "tensor 't' occurs twice");
    ash_buf_release(&b);
}

static void test_alignment_and_scalars(void **state)
{
    ash_buf b;
    ash_gguf *g;
    ash_buf_init(&b, 4096);
    gw_header(&b, 3, 3, 1);
    gw_kv_int(&b, "general.alignment", ASH_GGUF_U32, 8, 4);
    static const uint64_t three[] = {3}, empty[] = {0};
    gw_tensor(&b, "scalar", 0, NULL, ASH_DTYPE_F32, 0);
    gw_tensor(&b, "empty", 1, empty, ASH_DTYPE_F32, 8);
    gw_tensor(&b, "three", 1, three, ASH_DTYPE_I8, 8);
    gw_pad(&b, 8), gw_zeros(&b, 8);
    gw_int(&b, 0x030201, 3); /* no padding after the last one */
    assert_int_equal(open_buf(&b, &g, NULL), 0);
    const ash_tensor_index *idx = ash_gguf_tensors(g);
    assert_int_equal(ash_tensor_find(idx, "scalar")->n_dims, 1);
    assert_int_equal(ash_tensor_find(idx, "scalar")->bytes, 4);
    assert_null(ash_tensor_data(idx, ash_tensor_find(idx, "empty")));
    assert_int_equal(ash_tensor_data(idx, ash_tensor_find(idx, "three"))[2], 3);
    ash_gguf_close(g);
    ash_buf_release(&b);
}

/* ---- split sets ----------------------------------------------------------------------------- */

static char folder[64];

static void write_file(const char *name, const ash_buf *b)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(ash_fs_replace(path, b->data, b->len, NULL), 0);
}

typedef struct part {
    uint64_t no, count, tensors;
    const char *tensor;
} part;

static void write_part(const char *name, part p)
{
    ash_buf b;
    ash_buf_init(&b, 4096);
    gw_header(&b, 3, p.tensor ? 1 : 0, 3);
    gw_kv_int(&b, "split.no", ASH_GGUF_U16, p.no, 2);
    gw_kv_int(&b, "split.count", ASH_GGUF_U16, p.count, 2);
    gw_kv_int(&b, "split.tensors.count", ASH_GGUF_I32, p.tensors, 4);
    if (p.tensor)
        gw_tensor(&b, p.tensor, 1, dims_8, ASH_DTYPE_F32, 0);
    gw_pad(&b, 32);
    for (int i = 0; i < 32; i++) ash_buf_addc(&b, (char)p.no);
    write_file(name, &b);
    ash_buf_release(&b);
}

static int open_named(const char *name, ash_gguf **g, ash_err *err)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return ash_gguf_open(path, g, err);
}

static void remove_parts(void)
{
    static const char *const names[] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf",
                                        "m-00003-of-00003.gguf", "other.gguf"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[160];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

static void good_parts(void)
{
    write_part("m-00001-of-00003.gguf", (part){0, 3, 2, NULL});
    write_part("m-00002-of-00003.gguf", (part){1, 3, 2, "x"});
    write_part("m-00003-of-00003.gguf", (part){2, 3, 2, "y"});
}

static void expect_split_refused(const char *name, int code, const char *text)
{
    ash_gguf *g;
    ash_err err = ASH_ERR_INIT;
    int rc = open_named(name, &g, &err);
    if (rc != code || !strstr(err.msg, text))
        fail_msg("wanted %d with '%s', got %d: %s", code, text, rc, err.msg);
}

static void test_split(void **state)
{
    ash_gguf *g;
    snprintf(folder, sizeof folder, "/tmp/ashley-gguf-XXXXXX");
    assert_non_null(mkdtemp(folder));
    good_parts();
    assert_int_equal(open_named("m-00001-of-00003.gguf", &g, NULL), 0);
    const ash_tensor_index *idx = ash_gguf_tensors(g);
    assert_int_equal(idx->n_files, 3);
    assert_int_equal(ash_tensor_find(idx, "y")->file, 2);
    assert_int_equal(*ash_tensor_data(idx, ash_tensor_find(idx, "y")), 2);
    const ash_tensor *x = ash_tensor_find(idx, "x");
    ash_tensor_want(idx, x, 0, x->bytes);
    ash_tensor_drop(idx, x, 0, UINT64_MAX);
    assert_int_equal(*ash_tensor_data(idx, x), 1);
    ash_gguf_close(g);

    expect_split_refused("m-00002-of-00003.gguf", ASH_EINVAL, "open part 1");
    write_part("other.gguf", (part){0, 3, 2, NULL});
    expect_split_refused("other.gguf", ASH_EFORMAT, "must be named PREFIX-00001-of-00003.gguf");
    write_part("m-00003-of-00003.gguf", (part){1, 3, 2, "y"});
    expect_split_refused("m-00001-of-00003.gguf", ASH_EFORMAT, "must be part 3 of 3");
    write_part("m-00003-of-00003.gguf", (part){2, 3, 2, "x"});
    expect_split_refused("m-00001-of-00003.gguf", ASH_EFORMAT, "tensor 'x' occurs twice");
    write_part("m-00003-of-00003.gguf", (part){2, 3, 2, NULL});
    expect_split_refused("m-00001-of-00003.gguf", ASH_EFORMAT, "the parts hold 1 tensors");
    write_part("m-00003-of-00003.gguf", (part){2, 3, 7, "y"});
    expect_split_refused("m-00001-of-00003.gguf", ASH_EFORMAT, "m-00003-of-00003.gguf: must be");
    good_parts();
    write_part("m-00001-of-00003.gguf", (part){0, 3, 2, "z"});
    expect_split_refused("m-00001-of-00003.gguf", ASH_EFORMAT, "leaves 0");
    write_part("m-00001-of-00003.gguf", (part){3, 3, 2, NULL});
    expect_split_refused("m-00001-of-00003.gguf", ASH_EFORMAT, "'split.no' must be an integer");
    good_parts();
    char path[160];
    snprintf(path, sizeof path, "%s/m-00002-of-00003.gguf", folder);
    unlink(path);
    expect_split_refused("m-00001-of-00003.gguf", ASH_ENOENT, "m-00002-of-00003.gguf");
    remove_parts();
}

/* ---- memory runs out ------------------------------------------------------------------------ */

static void test_out_of_memory(void **state)
{
    ash_gguf *g;
    int rc = ASH_ENOMEM;
    snprintf(folder, sizeof folder, "/tmp/ashley-gguf-XXXXXX");
    assert_non_null(mkdtemp(folder));
    good_parts();
    long n = 0;
    for (; rc && n < 1000; n++) {
        ash_err err = ASH_ERR_INIT;
        oom_left = n;
        rc = open_named("m-00001-of-00003.gguf", &g, &err);
        oom_left = -1;
        if (rc)
            assert_int_equal(rc, ASH_ENOMEM);
    }
    assert_int_equal(rc, 0);
    assert_true(n > 1);
    ash_gguf_close(g);
    remove_parts();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),           cmocka_unit_test(test_integers),
        cmocka_unit_test(test_getter_errors),  cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_cut_at_every_byte), cmocka_unit_test(test_versions),
        cmocka_unit_test(test_lying_counts),   cmocka_unit_test(test_bad_metadata),
        cmocka_unit_test(test_bad_tensors),    cmocka_unit_test(test_alignment_and_scalars),
        cmocka_unit_test(test_split),          cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
