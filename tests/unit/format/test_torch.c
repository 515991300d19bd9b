/* PyTorch files: the zip and the legacy form, what their readers refuse and how they say it. The
 * pickle machine is in test_pickle.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "format/shards.h"
#include "format/torch.h"
#include "oom.h"
#include "torch_writer.h"

static const int64_t d4[] = {4}, d23[] = {2, 3}, s1[] = {1}, s31[] = {3, 1}, s12[] = {1, 2};

static int open_bytes(const ash_buf *b, ash_tensor_index *idx, ash_err *err)
{
    return ash_shards_open_memory(b->data, b->len, "mem", ash_torch_read, NULL, idx, err);
}

static void expect_refused(const ash_buf *b, int code, const char *text)
{
    ash_tensor_index idx;
    ash_err err = ASH_ERR_INIT;
    int rc = open_bytes(b, &idx, &err);
    if (rc != code || !strstr(err.msg, text) || strncmp(err.msg, "mem: ", 5) != 0)
        fail_msg("wanted %d with '%s', got %d: %s", code, text, rc, err.msg);
    ash_tensor_index_release(&idx);
}

/* {"a": 4 floats of storage 0, "b": 2x3 halves of storage 1, transposed, "c": storage 0 again} */
static void good_pickle(ash_buf *b)
{
    pk_begin(b);
    pk_str(b, "a");
    pk_tensor(b, "FloatStorage", "0", 4, 0, 1, d4, s1);
    pk_str(b, "b");
    pk_tensor(b, "HalfStorage", "1", 8, 2, 2, d23, s12);
    pk_str(b, "c");
    pk_tensor(b, "FloatStorage", "0", 4, 0, 1, d4, s1);
    pk_end(b);
}

static const uint8_t data[64] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17};

static void good_zip(zip_writer *w, bool zip64)
{
    ash_buf p;
    good_pickle(&p);
    zw_begin(w);
    zw_add(w, "m/data.pkl", p.data, p.len);
    zw_add(w, "m/byteorder", "little", 6);
    zw_add(w, "m/data/0", data, 16);
    zw_add(w, "m/data/1", data, 16);
    zw_add(w, "m/version", "3\n", 2);
    zw_end(w, zip64);
    ash_buf_release(&p);
}

static void check_good(const ash_buf *b)
{
    static const uint8_t want[] = {4, 5, 8, 9, 12, 13};
    ash_tensor_index idx;
    ash_err err = ASH_ERR_INIT;
    uint8_t row[16];
    if (open_bytes(b, &idx, &err)) fail_msg("%s", err.msg);
    assert_int_equal(idx.n_tensors, 3);
    const ash_tensor *a = ash_tensor_find(&idx, "a"), *t = ash_tensor_find(&idx, "b");
    const ash_tensor *c = ash_tensor_find(&idx, "c");
    assert_int_equal(a->dtype, ASH_DTYPE_F32);
    assert_int_equal(a->bytes, 16);
    assert_null(a->strides);
    assert_int_equal(a->offset, c->offset);
    assert_memory_equal(ash_tensor_data(&idx, a), data, 16);
    assert_int_equal(t->dtype, ASH_DTYPE_F16);
    assert_int_equal(t->strides[0], 1);
    assert_int_equal(t->strides[1], 2);
    assert_memory_equal(ash_tensor_rows(&idx, t, 0, 1, row), want, 6);
    ash_tensor_index_release(&idx);
}

static void test_zip(void **state)
{
    for (int zip64 = 0; zip64 < 2; zip64++) {
        zip_writer w;
        good_zip(&w, zip64);
        check_good(&w.out);
        for (size_t n = 0; n < w.out.len; n++) {
            ash_buf cut = w.out;
            cut.len = n;
            expect_refused(&cut, ASH_EFORMAT, "");
        }
        ash_buf_addc(&w.out, 0);
        expect_refused(&w.out, ASH_EFORMAT, "zip: cut, or something follows its end");
        ash_buf_release(&w.out);
    }
}

/* The place of the n-th occurrence of a signature. */
static size_t find(const ash_buf *b, const char *sign, int n)
{
    for (size_t i = 0; i + 4 <= b->len; i++)
        if (memcmp(b->data + i, sign, 4) == 0 && n-- == 0) return i;
    fail_msg("no signature");
    return 0;
}

/* One change to a good archive: `size` bytes of v at `at` after the n-th signature. */
typedef struct change {
    const char *sign;
    int n, at, size;
    uint64_t v;
    int code;
    const char *text;
} change;

static void test_zip_lies(void **state)
{
    static const char C[] = "PK\1\2", L[] = "PK\3\4", E[] = "PK\5\6", E64[] = "PK\6\6",
                      LOC[] = "PK\6\7";
    static const change rows[] = {
        {C, 1, 8, 2, 0x809, ASH_EUNSUPPORTED, "entry 'm/byteorder' is encrypted"},
        {C, 1, 8, 2, 0x848, ASH_EUNSUPPORTED, "entry 'm/byteorder' is encrypted"},
        {C, 1, 8, 2, 0x2808, ASH_EUNSUPPORTED, "entry 'm/byteorder' is encrypted"},
        {C, 1, 8, 2, 0x828, ASH_EUNSUPPORTED, "entry 'm/byteorder' has the flags 0x828"},
        {C, 1, 8, 2, 0x800, ASH_EFORMAT, "has other flags or another method in its own header"},
        {C, 0, 10, 2, 8, ASH_EUNSUPPORTED, "entry 'm/data.pkl' is compressed (method 8)"},
        {L, 0, 8, 2, 8, ASH_EFORMAT, "has other flags or another method"},
        {L, 0, 6, 2, 0, ASH_EFORMAT, "has other flags or another method"},
        {L, 0, 30, 1, 'x', ASH_EFORMAT, "entry 'm/data.pkl' has another name in its own header"},
        {L, 1, 26, 2, 9, ASH_EFORMAT, "entry 'm/byteorder' has another name in its own header"},
        {L, 1, 28, 2, 0xFFFF, ASH_EFORMAT, "entry 'm/byteorder' is cut"},
        {L, 1, 22, 4, 7, ASH_EFORMAT, "has another size or checksum in its own header"},
        {L, 1, 14, 4, 7, ASH_EFORMAT, "has another size or checksum in its own header"},
        {L, 0, 42, 2, 0xFFFF, ASH_EFORMAT, "entry 'm/data.pkl': malformed extra field"},
        {L, 1, 0, 1, 'X', ASH_EFORMAT, "no entry 'm/byteorder' where the directory says"},
        {C, 1, 20, 4, 7, ASH_EFORMAT, "is stored with two sizes or on another disk"},
        {C, 1, 34, 2, 1, ASH_EFORMAT, "is stored with two sizes or on another disk"},
        {C, 1, 42, 4, 0, ASH_EFORMAT, "has another name in its own header"},
        {C, 1, 42, 4, 0x7FFFFFFF, ASH_EFORMAT, "no entry 'm/byteorder' where the directory says"},
        {C, 1, 42, 4, 0xFFFFFFFF, ASH_EFORMAT, "entry 'm/byteorder': malformed extra field"},
        {C, 1, 28, 2, 0, ASH_EFORMAT, "an entry of the directory is cut"},
        {C, 1, 30, 2, 0xFFFF, ASH_EFORMAT, "an entry of the directory is cut"},
        {C, 1, 46, 1, 0, ASH_EFORMAT, "has a NUL in its name"},
        {C, 1, 0, 1, 'X', ASH_EFORMAT, "an entry of the directory is cut"},
        {E, 0, 4, 2, 1, ASH_EUNSUPPORTED, "an archive on several disks"},
        {E, 0, 8, 2, 1, ASH_EUNSUPPORTED, "an archive on several disks"},
        {E, 0, 12, 4, 1, ASH_EFORMAT, "the two ends of the directory differ"},
        {E, 0, 16, 4, 1, ASH_EFORMAT, "the two ends of the directory differ"},
        {E, 0, 20, 2, 1, ASH_EFORMAT, "cut, or something follows its end"},
        {E64, 0, 4, 8, 45, ASH_EFORMAT, "the ZIP64 end is not before its locator"},
        {E64, 0, 16, 4, 1, ASH_EUNSUPPORTED, "an archive on several disks"},
        {E64, 0, 24, 8, 4, ASH_EUNSUPPORTED, "an archive on several disks"},
        {E64, 0, 48, 8, UINT64_MAX, ASH_EFORMAT, "the two ends of the directory differ"},
        {LOC, 0, 4, 4, 1, ASH_EUNSUPPORTED, "an archive on several disks"},
        {LOC, 0, 8, 8, UINT64_MAX, ASH_EFORMAT, "the ZIP64 end is not before its locator"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        zip_writer w;
        good_zip(&w, true);
        size_t at = find(&w.out, rows[i].sign, rows[i].n) + (size_t)rows[i].at;
        for (int k = 0; k < rows[i].size; k++)
            w.out.data[at + (size_t)k] = (char)(rows[i].v >> (8 * k));
        expect_refused(&w.out, rows[i].code, rows[i].text);
        ash_buf_release(&w.out);
    }
}

static void test_zip_directory(void **state)
{
    zip_writer w;
    good_zip(&w, false);
    size_t end = find(&w.out, "PK\5\6", 0), first = find(&w.out, "PK\1\2", 0);
    w.out.data[end + 8] = w.out.data[end + 10] = 4;
    expect_refused(&w.out, ASH_EFORMAT, "the directory has more than its 4 entries");
    w.out.data[end + 8] = w.out.data[end + 10] = 6;
    expect_refused(&w.out, ASH_EFORMAT, "an entry of the directory is cut");
    w.out.data[end + 8] = w.out.data[end + 10] = 0;
    expect_refused(&w.out, ASH_EFORMAT, "0 entries in a directory");
    w.out.data[end + 8] = w.out.data[end + 10] = 99;
    expect_refused(&w.out, ASH_EFORMAT, "99 entries in a directory");
    w.out.data[end + 8] = w.out.data[end + 10] = 5;
    w.out.data[end + 16]++;
    expect_refused(&w.out, ASH_EFORMAT, "the directory must end here");
    w.out.data[end + 16]--;
    /* the pickle's entry now reaches into the next one */
    for (size_t i = 20; i < 28; i += 4) w.out.data[first + i] = (char)(w.out.data[first + i] + 16);
    expect_refused(&w.out, ASH_EFORMAT, "overlaps the one before");
    for (size_t i = 20; i < 28; i += 4) w.out.data[first + i + 2] = 1;
    expect_refused(&w.out, ASH_EFORMAT, "zip: cut: entry 'm/data.pkl' needs ");
    ash_buf_release(&w.out);
    good_zip(&w, true); /* the ZIP64 end has the directory start one byte later */
    end = find(&w.out, "PK\5\6", 0), first = find(&w.out, "PK\6\6", 0);
    w.out.data[first + 48]++;
    memset(w.out.data + end + 16, 0xFF, 4);
    expect_refused(&w.out, ASH_EFORMAT, "the directory must end here");
    ash_buf_release(&w.out);
    zw_begin(&w);
    zw_add(&w, "m/data.pkl", "}.", 2);
    zw_add(&w, "m/data.pkl", "}.", 2);
    zw_end(&w, true);
    expect_refused(&w.out, ASH_EFORMAT, "two entries are named 'm/data.pkl'");
    ash_buf_release(&w.out);
}

/* An archive of m/data.pkl = pickle, and another entry unless its name is NULL. */
static void refuse_zip(const char *pickle, const char *name, const char *content, int code,
                       const char *text)
{
    zip_writer w;
    zw_begin(&w);
    zw_add(&w, "m/data.pkl", pickle, strlen(pickle));
    if (name) zw_add(&w, name, content, strlen(content));
    zw_end(&w, true);
    expect_refused(&w.out, code, text);
    ash_buf_release(&w.out);
}

static void test_zip_content(void **state)
{
    ash_buf p;
    zip_writer w;
    refuse_zip("\x80\x02}.", "m/constants.pkl", "", ASH_EUNSUPPORTED, "a TorchScript archive");
    refuse_zip("\x80\x02}.", "m/byteorder", "big", ASH_EUNSUPPORTED, "a big-endian file");
    refuse_zip("\x80\x02}.", "m/byteorder", "middle", ASH_EFORMAT,
               "'byteorder' must be 'little' or 'big'");
    refuse_zip("\x80\x02}.", "other/data.pkl", "", ASH_EFORMAT,
               "'other/data.pkl' is not in the folder");
    refuse_zip("\x80\x02}.x", NULL, NULL, ASH_EFORMAT, "something follows data.pkl's STOP");
    refuse_zip("\x80\x02}", NULL, NULL, ASH_EFORMAT, "pickle: cut: 1 bytes are needed, 0 are left");
    refuse_zip("", NULL, NULL, ASH_EFORMAT, "pickle: cut");
    refuse_zip("\x80\x02].", NULL, NULL, ASH_EFORMAT, "holds no state dict");
    zw_begin(&w);
    zw_add(&w, "m/x", "", 0);
    zw_end(&w, true);
    expect_refused(&w.out, ASH_EFORMAT, "a zip archive without data.pkl is no PyTorch file");
    ash_buf_release(&w.out);
    good_pickle(&p);
    zw_begin(&w);
    zw_add(&w, "data.pkl", p.data, p.len); /* no folder at all is fine, but where is the data? */
    zw_add(&w, "data/0", data, 16);
    zw_end(&w, false);
    expect_refused(&w.out, ASH_EFORMAT, "the data of storage '1' is missing");
    ash_buf_release(&w.out);
    zw_begin(&w);
    zw_add(&w, "m/data.pkl", p.data, p.len);
    zw_add(&w, "m/data/0", data, 16);
    zw_add(&w, "m/data/1", data, 15);
    zw_end(&w, false);
    expect_refused(&w.out, ASH_EFORMAT, "storage '1' must have 16 bytes, its data has 15");
    ash_buf_release(&w.out);
    ash_buf_release(&p);
}

static void test_limits(void **state)
{
    size_t n = ASH_MAX_ZIP_ENTRIES + 1, size = n * 46;
    zip_writer w;
    ash_buf p, end;
    char key[256];
    /* a directory of too many entries, in pages that are never touched */
    ash_buf_init(&end, 4096);
    ash_buf_adds(&end, "PK\6\6");
    tw_int(&end, 44, 8);
    tw_int(&end, 0, 12);
    tw_int(&end, n, 8);
    tw_int(&end, n, 8);
    tw_int(&end, size, 8);
    tw_int(&end, 0, 8);
    ash_buf_adds(&end, "PK\6\7");
    tw_int(&end, 0, 4);
    tw_int(&end, size, 8);
    tw_int(&end, 1, 4);
    ash_buf_adds(&end, "PK\5\6");
    tw_int(&end, 0, 4);
    tw_int(&end, UINT64_MAX, 8);
    tw_int(&end, UINT64_MAX, 4);
    tw_int(&end, 0, 2);
    char *big = calloc(1, size + end.len);
    assert_non_null(big);
    memcpy(big, "PK\3\4", 4);
    memcpy(big + size, end.data, end.len);
    expect_refused(&(ash_buf){.data = big, .len = size + end.len}, ASH_ELIMIT,
                   "zip: 2097153 entries; at most 2097152");
    ash_buf_release(&end);
    zw_begin(&w);
    zw_add(&w, "m/data.pkl", big, ASH_MAX_PICKLE + 1);
    zw_end(&w, true);
    expect_refused(&w.out, ASH_ELIMIT, "data.pkl has 67108865 bytes; at most 67108864");
    ash_buf_release(&w.out);
    free(big);
    memset(key, 'k', 255);
    key[255] = 0;
    pk_begin(&p);
    pk_str(&p, "t");
    pk_tensor(&p, "FloatStorage", key, 4, 0, 1, d4, s1);
    pk_end(&p);
    zw_begin(&w);
    zw_add(&w, "m/data.pkl", p.data, p.len);
    zw_end(&w, true);
    expect_refused(&w.out, ASH_ELIMIT, "a storage's key has 255 bytes");
    ash_buf_release(&w.out);
    ash_buf_release(&p);
}

/* ---- views --------------------------------------------------------------------------------------
 */

/* One tensor of a storage of `stored` floats; NULL text: accepted. */
static void view(int64_t stored, int64_t offset, int n, const int64_t *size, const int64_t *stride,
                 int code, const char *text)
{
    ash_buf p, *b;
    zip_writer w;
    pk_begin(&p);
    pk_str(&p, "v");
    pk_tensor(&p, "FloatStorage", "0", stored, offset, n, size, stride);
    pk_end(&p);
    zw_begin(&w);
    zw_add(&w, "m/data.pkl", p.data, p.len);
    zw_add(&w, "m/data/0", data, 24);
    zw_end(&w, true);
    b = &w.out;
    if (text) {
        expect_refused(b, code, text);
    } else {
        ash_tensor_index idx;
        ash_err err = ASH_ERR_INIT;
        if (open_bytes(b, &idx, &err)) fail_msg("%s", err.msg);
        ash_tensor_index_release(&idx);
    }
    ash_buf_release(&p);
    ash_buf_release(b);
}

static void test_views(void **state)
{
#define V(...) ((const int64_t[]){__VA_ARGS__})
    view(6, 0, 2, d23, s31, 0, NULL);
    view(6, 0, 2, d23, V(1, 2), 0, NULL);
    view(6, 5, 1, V(1), V(INT64_MAX), 0, NULL); /* one element: its stride does not count */
    view(6, 0, 2, V(1000, 6), V(0, 1), 0, NULL);
    view(6, 0, 0, V(0), V(0), 0, NULL);
    view(6, 99, 2, V(0, 3), V(3, 1), 0, NULL); /* empty: its place does not count */
    view(6, 1, 2, d23, s31, ASH_EFORMAT,
         "tensor 'v': elements 1 and 5 after it must be within its storage's 6");
    view(6, 0, 2, d23, V(1, 3), ASH_EFORMAT,
         "elements 0 and 7 after it must be within its storage's 6");
    view(6, 6, 1, V(1), s1, ASH_EFORMAT,
         "elements 6 and 0 after it must be within its storage's 6");
    view(6, -1, 1, V(1), s1, ASH_EFORMAT, "elements -1 and 0 after it");
    view(6, INT64_MAX, 1, V(2), s1, ASH_EFORMAT, "elements 9223372036854775807 and 1 after it");
    view(6, 0, 1, V(-1), s1, ASH_EFORMAT, "tensor 'v': size -1 is negative");
    view(6, 0, 1, V(2), V(-1), ASH_EFORMAT, "tensor 'v': stride -1 is negative");
    view(6, 0, 1, V(3), V(INT64_MAX), ASH_EFORMAT,
         "tensor 'v': stride 9223372036854775807 is too large");
    view(6, 0, 2, V(2, 2), V(INT64_MAX, INT64_MAX), ASH_EFORMAT, "is too large");
    view(6, 0, 1, V(2), V(INT64_MAX), ASH_EFORMAT, "elements 0 and 9223372036854775807 after it");
    view(6, 0, 2, V(1LL << 32, 1LL << 32), V(0, 0), ASH_EFORMAT, "makes it too large");
    view(6, 0, 1, V(1LL << 62), V(0), ASH_EFORMAT, "tensor 'v' is too large");
    view(6, 0, 5, V(1, 1, 1, 1, 1), V(1, 1, 1, 1, 1), ASH_ELIMIT, "has 5 dimensions; at most 4");
    view(-1, 0, 1, V(1), s1, ASH_EFORMAT,
         "a storage's number of elements is negative or too large");
    view(INT64_MAX, 0, 1, V(1), s1, ASH_EFORMAT,
         "a storage's number of elements is negative or too large");
    view(7, 0, 1, V(1), s1, ASH_EFORMAT, "storage '0' must have 28 bytes, its data has 24");
}

/* ---- wrapping -----------------------------------------------------------------------------------
 */

static size_t tensors_of(const ash_buf *p)
{
    zip_writer w;
    ash_tensor_index idx;
    ash_err err = ASH_ERR_INIT;
    zw_begin(&w);
    zw_add(&w, "m/data.pkl", p->data, p->len);
    zw_add(&w, "m/data/0", data, 16);
    zw_end(&w, true);
    if (open_bytes(&w.out, &idx, &err)) fail_msg("%s", err.msg);
    size_t n = idx.n_tensors;
    assert_true(n == 0 || ash_tensor_find(&idx, "w"));
    ash_tensor_index_release(&idx);
    ash_buf_release(&w.out);
    return n;
}

static void one_tensor(ash_buf *p, const char *name)
{
    pk_str(p, name);
    pk_tensor(p, "FloatStorage", "0", 4, 0, 1, d4, s1);
}

static void test_wrapping(void **state)
{
    static const char *const inner[] = {"state_dict", "model_state_dict", "model"};
    ash_buf p;
    for (size_t i = 0; i < 3; i++) {
        pk_begin(&p);
        pk_str(&p, "epoch");
        ash_buf_adds(&p, "K\3");
        pk_str(&p, "optimizer");
        ash_buf_adds(&p, "}(");
        one_tensor(&p, "moment");
        ash_buf_addc(&p, 'u');
        pk_str(&p, inner[i]);
        ash_buf_adds(&p, "}(");
        one_tensor(&p, "w");
        ash_buf_adds(&p, "uu.");
        assert_int_equal(tensors_of(&p), 1);
        ash_buf_release(&p);
    }
    /* tensors at the top win */
    pk_begin(&p);
    one_tensor(&p, "w");
    pk_str(&p, "model");
    ash_buf_adds(&p, "}(");
    one_tensor(&p, "x");
    ash_buf_adds(&p, "uu.");
    assert_int_equal(tensors_of(&p), 1);
    ash_buf_release(&p);
    ash_buf_init(&p, 64);
    ash_buf_adds(&p, "}.");
    assert_int_equal(tensors_of(&p), 0);
    ash_buf_release(&p);
}

static void test_twice(void **state)
{
    ash_buf p;
    zip_writer w;
    ash_tensor_index idx;
    ash_err err = ASH_ERR_INIT;
    pk_begin(&p);
    one_tensor(&p, "w");
    one_tensor(&p, "w");
    pk_end(&p);
    zw_begin(&w);
    zw_add(&w, "m/data.pkl", p.data, p.len);
    zw_add(&w, "m/data/0", data, 16);
    zw_end(&w, true);
    assert_int_equal(open_bytes(&w.out, &idx, &err), ASH_EFORMAT);
    assert_non_null(strstr(err.msg, "tensor 'w' occurs twice"));
    ash_tensor_index_release(&idx);
    ash_buf_release(&w.out);
    ash_buf_release(&p);
}

/* ---- the legacy form ----------------------------------------------------------------------------
 */

static const char *const keys01[] = {"0", "1"}, *const keys00[] = {"0", "0"},
                         *const keys012[] = {"0", "1", "2"};

static void good_legacy(ash_buf *b)
{
    ash_buf p;
    lw_begin(b);
    good_pickle(&p);
    ash_buf_add(b, p.data, p.len);
    ash_buf_release(&p);
}

static void test_legacy(void **state)
{
    ash_buf b;
    good_legacy(&b);
    lw_keys(&b, 2, keys01);
    lw_data(&b, 4, 16);
    lw_data(&b, 8, 16);
    check_good(&b);
    for (size_t n = 0; n < b.len; n++) {
        ash_buf cut = b;
        cut.len = n;
        size_t left = b.len - n; /* two storages, each 8 bytes of length and 16 of data */
        expect_refused(&cut, ASH_EFORMAT,
                       left > 48        ? ""
                       : left % 24 > 16 ? "cut before storage '"
                       : left % 24 == 0 ? "cut before storage '"
                                        : "needs 16 bytes, ");
    }
    ash_buf_addc(&b, 0);
    expect_refused(&b, ASH_EFORMAT, "the storages end, but 1 bytes follow");
    ash_buf_release(&b);
}

static void refuse_legacy(int n, const char *const *keys, uint64_t elements, uint64_t bytes,
                          int code, const char *text)
{
    ash_buf b;
    good_legacy(&b);
    lw_keys(&b, n, keys);
    lw_data(&b, elements, bytes);
    lw_data(&b, 8, 16);
    expect_refused(&b, code, text);
    ash_buf_release(&b);
}

static void test_legacy_lies(void **state)
{
    static const char *const key0[] = {"0"};
    ash_buf b;
    refuse_legacy(2, keys01, 5, 20, ASH_EFORMAT, "storage '0' must have 4 elements, has 5");
    refuse_legacy(2, keys01, UINT64_MAX, 16, ASH_EFORMAT,
                  "must have 4 elements, has 18446744073709551615");
    refuse_legacy(2, keys00, 4, 16, ASH_EFORMAT, "storage '0' is listed twice");
    refuse_legacy(3, keys012, 4, 16, ASH_EFORMAT, "storage '2' is no tensor's");
    refuse_legacy(1, key0, 4, 16, ASH_EFORMAT, "the data of storage '1' is missing");
    good_legacy(&b);
    b.data[5] ^= 1;
    expect_refused(&b, ASH_EFORMAT, "a pickle, but not of a PyTorch file");
    b.data[5] ^= 1;
    b.data[18]++; /* 1001 */
    expect_refused(&b, ASH_EUNSUPPORTED, "another protocol than 1001");
    b.data[18]--;
    char *little = memmem(b.data, b.len, "little_endian", 13);
    little[13] = (char)0x89;
    expect_refused(&b, ASH_EUNSUPPORTED, "a big-endian file");
    little[13] = 'N';
    expect_refused(&b, ASH_EFORMAT, "must tell 'little_endian' in its third pickle");
    little[13] = (char)0x88;
    ash_buf_adds(&b, "\x80\x02}.");
    expect_refused(&b, ASH_EFORMAT, "the last pickle must be the list of storages");
    b.len -= 4;
    ash_buf_adds(&b, "\x80\x02](K\1e.");
    expect_refused(&b, ASH_EFORMAT, "keys of storages must be strings");
    ash_buf_release(&b);
}

/* A legacy file with one tensor of elements [1, 3) of a view (key, offset, size) of a storage of 6.
 */
static void legacy_view(ash_buf *b, int64_t offset, int64_t size)
{
    lw_begin(b);
    ash_buf_adds(b, "\x80\x02}(");
    pk_str(b, "w");
    pk_global(b, "torch._utils", "_rebuild_tensor");
    ash_buf_adds(b, "((");
    pk_str(b, "storage");
    pk_global(b, "torch", "ShortStorage");
    pk_str(b, "root");
    pk_str(b, "cpu");
    pk_num(b, 6);
    ash_buf_addc(b, '(');
    pk_str(b, "view");
    pk_num(b, offset);
    pk_num(b, size);
    ash_buf_adds(b, "ttQ");
    pk_num(b, 1);
    pk_tuple(b, 1, (const int64_t[]){2});
    pk_tuple(b, 1, s1);
    ash_buf_adds(b, "tRu.");
    lw_keys(b, 1, (const char *const[]){"root"});
    lw_data(b, 6, 12);
}

static void test_legacy_views(void **state)
{
    ash_buf b;
    ash_tensor_index idx;
    ash_err err = ASH_ERR_INIT;
    legacy_view(&b, 2, 3);
    if (open_bytes(&b, &idx, &err)) fail_msg("%s", err.msg);
    const ash_tensor *t = ash_tensor_find(&idx, "w");
    assert_int_equal(t->dtype, ASH_DTYPE_I16);
    assert_int_equal(t->bytes, 4);
    assert_int_equal(ash_tensor_data(&idx, t)[0], 6);
    ash_tensor_index_release(&idx);
    ash_buf_release(&b);
    legacy_view(&b, 2, 2);
    expect_refused(&b, ASH_EFORMAT, "elements 1 and 1 after it must be within its storage's 2");
    ash_buf_release(&b);
    static const int64_t bad[][2] = {{4, 3}, {7, 0}, {-1, 2}, {0, -1}, {INT64_MAX, INT64_MAX}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        legacy_view(&b, bad[i][0], bad[i][1]);
        expect_refused(&b, ASH_EFORMAT,
                       "a view of a storage must be (key, offset, size) within it");
        ash_buf_release(&b);
    }
}

static void test_other_files(void **state)
{
    char tar[512] = "storages";
    memcpy(tar + 257, "ustar", 5);
    expect_refused(&(ash_buf){.data = tar, .len = 512}, ASH_EUNSUPPORTED,
                   "tar form of before 0.1.10");
    expect_refused(&(ash_buf){.data = (char[]){"PYTORCH1"}, .len = 8}, ASH_EUNSUPPORTED,
                   "container of before 1.6");
    expect_refused(&(ash_buf){.data = (char[]){"hello"}, .len = 5}, ASH_EFORMAT,
                   "neither a zip archive nor a pickle");
    expect_refused(&(ash_buf){.data = (char[]){""}, .len = 0}, ASH_EFORMAT,
                   "neither a zip archive nor a pickle");
    expect_refused(&(ash_buf){.data = (char[]){"PK\3\4"}, .len = 4}, ASH_EFORMAT,
                   "zip: cut: 4 bytes");
    expect_refused(&(ash_buf){.data = (char[]){"\x80\x02}."}, .len = 4}, ASH_EFORMAT,
                   "but not of a PyTorch file");
}

/* ---- memory runs out ----------------------------------------------------------------------------
 */

static int open_good(void *arg, ash_err *err)
{
    ash_tensor_index idx;
    int rc = open_bytes(arg, &idx, err);
    ash_tensor_index_release(&idx);
    return rc;
}

static void test_out_of_memory(void **state)
{
    zip_writer w;
    ash_buf b;
    good_zip(&w, true);
    assert_true(oom_run(open_good, &w.out) > 5);
    ash_buf_release(&w.out);
    good_legacy(&b);
    lw_keys(&b, 2, keys01);
    lw_data(&b, 4, 16);
    lw_data(&b, 8, 16);
    assert_true(oom_run(open_good, &b) > 5);
    ash_buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zip),           cmocka_unit_test(test_zip_lies),
        cmocka_unit_test(test_zip_directory), cmocka_unit_test(test_zip_content),
        cmocka_unit_test(test_limits),        cmocka_unit_test(test_views),
        cmocka_unit_test(test_wrapping),      cmocka_unit_test(test_twice),
        cmocka_unit_test(test_legacy),        cmocka_unit_test(test_legacy_lies),
        cmocka_unit_test(test_legacy_views),  cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
