/* The safetensors reader: what it accepts, each rule of the format with its message, cuts at every
 * byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "format/safetensors.h"
#include "format/shards.h"
#include "oom.h"

/* length | header | n bytes 0, 1, 2, ... */
static void make(ash_buf *b, const char *header, size_t n_header, size_t data)
{
    ash_buf_init(b, 1u << 24);
    for (int i = 0; i < 8; i++) ash_buf_addc(b, (char)((uint64_t)n_header >> (8 * i)));
    ash_buf_add(b, header, n_header);
    for (size_t i = 0; i < data; i++) ash_buf_addc(b, (char)i);
}

static int open_bytes(const ash_buf *b, ash_tensor_index *idx, ash_err *err)
{
    return ash_shards_open_memory(b->data, b->len, "mem", ash_safetensors_read, NULL, idx, err);
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

static void refuse(const char *header, size_t data, int code, const char *text)
{
    ash_buf b;
    make(&b, header, strlen(header), data);
    expect_refused(&b, code, text);
    ash_buf_release(&b);
}

static const char good_header[] =
    " \n{\"__metadata__\":{\"format\":\"pt\",\"x\":\"\\u00e9\\ud83d\\ude00\\n\"},"
    "\"b.weight\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[3,15],\"more\":[1,{\"a\":"
    "null}]},"
    "\"odd\":{\"data_offsets\":[0,3],\"shape\":[3],\"dtype\":\"U8\"},"
    "\"scalar\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[15,19]},"
    "\"none\":{\"dtype\":\"F8_E4M3\",\"shape\":[0,7],\"data_offsets\":[15,15]},"
    "\"last\\u0041\":{\"dtype\":\"BF16\",\"shape\":[1,1,1,1],\"data_offsets\":[19,21]}}  \t\r\n";

static void test_good(void **state)
{
    static const char *const order[] = {"odd", "b.weight", "none", "scalar", "lastA"};
    ash_buf b;
    ash_tensor_index idx;
    make(&b, good_header, sizeof good_header - 1, 21);
    assert_int_equal(open_bytes(&b, &idx, NULL), 0);
    assert_int_equal(idx.n_tensors, 5);
    for (size_t i = 0; i < 5; i++) assert_string_equal(idx.tensors[i].name, order[i]);
    const ash_tensor *t = ash_tensor_find(&idx, "b.weight");
    assert_int_equal(t->dtype, ASH_DTYPE_F16);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dims[0], 2);
    assert_int_equal(t->dims[1], 3);
    assert_int_equal(t->bytes, 12);
    assert_null(t->strides);
    assert_int_equal(ash_tensor_data(&idx, t)[0], 3); /* at an odd address */
    assert_int_equal(ash_tensor_rows(&idx, t, 1, 1, NULL)[0], 9);
    t = ash_tensor_find(&idx, "scalar");
    assert_int_equal(t->n_dims, 1);
    assert_int_equal(t->dims[0], 1);
    t = ash_tensor_find(&idx, "none");
    assert_int_equal(t->bytes, 0);
    assert_null(ash_tensor_data(&idx, t));
    ash_tensor_index_release(&idx);
    ash_buf_release(&b);
}

static void test_empty(void **state)
{
    ash_buf b;
    ash_tensor_index idx;
    make(&b, "{}", 2, 0);
    assert_int_equal(open_bytes(&b, &idx, NULL), 0);
    assert_int_equal(idx.n_tensors, 0);
    ash_tensor_index_release(&idx);
    ash_buf_release(&b);
}

/* Every type by its name, 8 elements each. */
static void test_types(void **state)
{
    static const struct {
        const char *name;
        unsigned bits;
    } types[] = {{"BOOL", 8},    {"F4", 4},          {"F6_E2M3", 6},     {"F6_E3M2", 6},
                 {"U8", 8},      {"I8", 8},          {"F8_E5M2", 8},     {"F8_E4M3", 8},
                 {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
                 {"U16", 16},    {"F16", 16},        {"BF16", 16},       {"I32", 32},
                 {"U32", 32},    {"F32", 32},        {"C64", 64},        {"F64", 64},
                 {"I64", 64},    {"U64", 64}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        ash_buf b;
        ash_tensor_index idx;
        char header[200];
        int n = snprintf(header, sizeof header,
                         "{\"t\":{\"dtype\":\"%s\",\"shape\":[8],\"data_offsets\":[0,%u]}}",
                         types[i].name, types[i].bits);
        make(&b, header, (size_t)n, types[i].bits);
        assert_int_equal(open_bytes(&b, &idx, NULL), 0);
        assert_string_equal(ash_dtype_get(idx.tensors[0].dtype)->name, types[i].name);
        ash_tensor_index_release(&idx);
        ash_buf_release(&b);
    }
}

static void test_cut_at_every_byte(void **state)
{
    ash_buf b;
    make(&b, good_header, sizeof good_header - 1, 21);
    for (size_t n = 0; n < b.len; n++) {
        ash_buf cut = b;
        cut.len = n;
        expect_refused(&cut, ASH_EFORMAT, n < 8 ? "at least 8" : "");
    }
    ash_buf_addc(&b, 0);
    expect_refused(&b, ASH_EFORMAT, "the tensors end, but 1 bytes follow");
    ash_buf_release(&b);
}

static void test_header_length(void **state)
{
    ash_buf b;
    make(&b, "{}", 2, 0);
    b.data[0] = 3;
    expect_refused(&b, ASH_EFORMAT, "a header of 3 bytes in a file of 10");
    memset(b.data, 0xFF, 8);
    expect_refused(&b, ASH_EFORMAT, "a header of 18446744073709551615 bytes");
    ash_buf_release(&b);
    /* a header of just over the cap, in pages that are never touched */
    size_t n = ASH_MAX_SAFETENSORS_HEADER + 1;
    uint8_t *big = calloc(1, n + 8);
    assert_non_null(big);
    for (int i = 0; i < 8; i++) big[i] = (uint8_t)((uint64_t)n >> (8 * i));
    b = (ash_buf){.data = (char *)big, .len = n + 8};
    expect_refused(&b, ASH_ELIMIT, "a header of 100000001 bytes; at most 100000000");
    free(big);
}

#define T(type, shape, offsets)                                                                    \
    "{\"t\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void test_json(void **state)
{
    static const struct {
        const char *header, *text;
    } rows[] = {
        {"", "JSON: cut short at byte 8"},
        {"[]", "expected an object at byte 8"},
        {"{", "cut short"},
        {"{}x", "text after its end at byte 10"},
        {"{\"a\"}", "expected ':' after a key"},
        {"{\"a\":}", "expected an object"},
        {"{,}", "expected a key in quotes"},
        {"{\"__metadata__\":{},}", "expected a key in quotes"},
        {"{\"__metadata__\":{} \"a\":1}", "expected ',' or '}'"},
        {"{\"\xff\":{}}", "JSON: not UTF-8"},
        {"{\"\xed\xa0\x80\":{}}", "JSON: not UTF-8"},
        {"{\"a\n\":{}}", "control character in a string"},
        {"{\"\\q\":{}}", "unknown escape in a string"},
        {"{\"\\u12g4\":{}}", "unknown escape in a string"},
        {"{\"\\ud800x\":{}}", "half a surrogate pair"},
        {"{\"\\udc00\":{}}", "half a surrogate pair"},
        {"{\"a", "cut short"},
        {"{\"\":{}}", "a tensor's name is empty"},
        {"{\"\\u0000\":{}}", "a tensor's name is empty, not UTF-8 or holds a control character"},
        {"{\"__metadata__\":[]}", "expected an object"},
        {"{\"__metadata__\":{\"a\":1}}", "expected a string"},
        {"{\"__metadata__\":{\"a\":null}}", "expected a string"},
        {"{\"__metadata__\":{\"a\":\"1\",\"\\u0061\":\"2\"}}", "'__metadata__': 'a' occurs twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", "'__metadata__' occurs twice"},
        {T("F32", "[-1]", "[0,4]"), "expected a whole number, not negative"},
        {T("F32", "[1.0]", "[0,4]"), "expected a whole number, not negative"},
        {T("F32", "[1e0]", "[0,4]"), "expected a whole number, not negative"},
        {T("F32", "[01]", "[0,4]"), "number with a leading zero"},
        {T("F32", "[\"1\"]", "[0,4]"), "expected a whole number, not negative"},
        {T("F32", "[18446744073709551616]", "[0,4]"), "number over 2^64"},
        {T("F32", "1", "[0,4]"), "expected an array"},
        {T("F32", "[1,]", "[0,4]"), "expected a whole number"},
        {T("F32", "[1]", "[0]"), "tensor 't': 'data_offsets' must be two numbers"},
        {T("F32", "[1]", "[0,4,4]"), "tensor 't': 'data_offsets' must be two numbers"},
        {"{\"t\":{\"dtype\":7}}", "expected a string"},
        {"{\"t\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}", "tensor 't': a member occurs twice"},
        {"{\"t\":{\"shape\":[],\"data_offsets\":[0,0]}}", "tensor 't': 'dtype' is missing"},
        {"{\"t\":{\"dtype\":\"U8\",\"data_offsets\":[0,0]}}", "tensor 't': 'shape' is missing"},
        {"{\"t\":{\"dtype\":\"U8\",\"shape\":[]}}", "tensor 't': 'data_offsets' is missing"},
        {"{\"t\":{\"x\":01}}", "number with a leading zero"},
        {"{\"t\":{\"x\":1.}}", "malformed number"},
        {"{\"t\":{\"x\":1e}}", "malformed number"},
        {"{\"t\":{\"x\":-}}", "malformed number"},
        {"{\"t\":{\"x\":nul}}", "expected a value"},
        {"{\"t\":{\"x\":NaN}}", "expected a value"},
        {"{\"t\":{\"x\":[1 2]}}", "expected ',' or ']'"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        refuse(rows[i].header, 0, ASH_EFORMAT, rows[i].text);
}

static void test_tensors(void **state)
{
#define PAIR(a, b)                                                                                 \
    "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" a "},"                              \
    "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" b "}}"
    refuse(T("F33", "[1]", "[0,4]"), 4, ASH_EUNSUPPORTED,
           "tensor 't' has the unknown dtype 'F33' at byte 22");
    refuse(T("f32", "[1]", "[0,4]"), 4, ASH_EUNSUPPORTED, "unknown dtype 'f32'");
    refuse(T("Q4_0", "[32]", "[0,18]"), 18, ASH_EUNSUPPORTED, "unknown dtype 'Q4_0'");
    refuse(T("F32", "[2]", "[0,4]"), 4, ASH_EFORMAT, "tensor 't': F32 [2] needs 8 bytes, has 4");
    refuse(T("F32", "[1]", "[4,0]"), 4, ASH_EFORMAT,
           "data from 4 to 0 must lie within the file's 4 bytes");
    refuse(T("F32", "[1]", "[0,8]"), 4, ASH_EFORMAT,
           "data from 0 to 8 must lie within the file's 4 bytes");
    refuse(T("F32", "[1]", "[18446744073709551612,0]"), 4, ASH_EFORMAT, "must lie within");
    refuse(T("F32", "[1]", "[0,4]"), 5, ASH_EFORMAT, "the tensors end, but 1 bytes follow");
    refuse(T("F32", "[4294967296,4294967296]", "[0,0]"), 0, ASH_EFORMAT,
           "dimension 1 of 4294967296 makes it too large");
    refuse(T("F32", "[0,4294967296,4294967296]", "[0,0]"), 0, ASH_EFORMAT, "makes it too large");
    refuse(T("F32", "[18446744073709551615]", "[0,0]"), 0, ASH_EFORMAT, "makes it too large");
    refuse(T("F32", "[9223372036854775807]", "[0,0]"), 0, ASH_EFORMAT, "tensor 't' is too large");
    refuse(T("F32", "[1,1,1,1,1]", "[0,4]"), 4, ASH_ELIMIT,
           "tensor 't' has 5 dimensions; at most 4");
    refuse(T("F4", "[3]", "[0,1]"), 1, ASH_EFORMAT, "rows of 3 are no multiple of F4's block of 2");
    refuse(PAIR("[0,4]", "[5,9]"), 9, ASH_EFORMAT,
           "tensor 'b' starts at byte 5 of the data, must start at 4: a hole");
    refuse(PAIR("[1,5]", "[5,9]"), 9, ASH_EFORMAT,
           "tensor 'a' starts at byte 1 of the data, must start at 0: a hole");
    refuse(PAIR("[0,4]", "[3,7]"), 7, ASH_EFORMAT, "must start at 4: an overlap");
    refuse(PAIR("[0,4]", "[0,4]"), 4, ASH_EFORMAT, "must start at 4: an overlap");
    refuse(PAIR("[4,8]", "[0,4]"), 9, ASH_EFORMAT, "but 1 bytes follow");
}

static void expect_twice(const char *header)
{
    ash_buf b;
    ash_tensor_index idx;
    ash_err err = ASH_ERR_INIT;
    make(&b, header, strlen(header), 2);
    assert_int_equal(open_bytes(&b, &idx, &err), ASH_EFORMAT);
    assert_non_null(strstr(err.msg, "tensor 't' occurs twice"));
    ash_tensor_index_release(&idx);
    ash_buf_release(&b);
}

static void test_twice(void **state)
{
    expect_twice("{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                 "\"\\u0074\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}");
}

static void test_limits(void **state)
{
    ash_buf h;
    ash_buf_init(&h, 1u << 20);
    ash_buf_adds(&h, "{\"");
    for (int i = 0; i < ASH_MAX_HF_NAME + 1; i++) ash_buf_addc(&h, 'n');
    ash_buf_adds(&h, "\":{}}");
    refuse(h.data, 0, ASH_ELIMIT, "a tensor's name has 1025 bytes; at most 1024");
    ash_buf_clear(&h);
    ash_buf_adds(&h, "{\"__metadata__\":{\"0\":\"\"");
    for (int i = 1; i <= ASH_MAX_SAFETENSORS_METADATA; i++) ash_buf_printf(&h, ",\"%d\":\"\"", i);
    ash_buf_adds(&h, "}}");
    refuse(h.data, 0, ASH_ELIMIT, "'__metadata__' has more than 4096 members");
    ash_buf_clear(&h);
    ash_buf_adds(&h, "{\"t\":{\"x\":");
    for (int i = 0; i < ASH_MAX_JSON_DEPTH; i++) ash_buf_addc(&h, '[');
    refuse(h.data, 0, ASH_ELIMIT, "JSON: nested too deep");
    ash_buf_release(&h);
    ash_buf b;
    make(&b, "{}\0", 3, 0);
    expect_refused(&b, ASH_EFORMAT, "text after its end at byte 10");
    ash_buf_release(&b);
    /* a list that says it is full */
    ash_tensor_file file = {.path = "mem"};
    ash_tensor_index idx = {.files = &file, .n_files = 1};
    ash_tensor_list full = {.idx = &idx, .n = ASH_MAX_TENSORS};
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_tensor_list_add(&full, &(ash_tensor){0}, &err), ASH_ELIMIT);
    assert_string_equal(err.msg, "mem: more than 1048576 tensors");
}

static int open_good(void *arg, ash_err *err)
{
    ash_tensor_index idx;
    int rc = open_bytes(arg, &idx, err);
    ash_tensor_index_release(&idx);
    return rc;
}

static void test_out_of_memory(void **state)
{
    ash_buf b;
    make(&b, good_header, sizeof good_header - 1, 21);
    assert_true(oom_run(open_good, &b) > 3);
    ash_buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),    cmocka_unit_test(test_empty),
        cmocka_unit_test(test_types),   cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_json),    cmocka_unit_test(test_header_length),
        cmocka_unit_test(test_tensors), cmocka_unit_test(test_twice),
        cmocka_unit_test(test_limits),  cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
