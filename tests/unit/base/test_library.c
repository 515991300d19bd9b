/* Libraries opened at run time: tables are filled, and what is missing is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/library.h"
#include "base/sha256.h"

typedef struct table {
    double (*cos)(double x);
    double (*absent)(double x);
} table;

static void test_fills_the_table(void **state)
{
    const ash_symbol symbols[] = {{"cos", offsetof(table, cos)}};
    table t = {0};
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_library_open("libm.so.6", symbols, 1, &t, &err), 0);
    assert_true(t.cos(0.0) > 0.999 && t.cos(0.0) < 1.001);
    assert_null(t.absent);
}

static void test_names_what_is_missing(void **state)
{
    const ash_symbol symbols[] = {{"cos", offsetof(table, cos)},
                                  {"no_such_function", offsetof(table, absent)}};
    table t = {0};
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_library_open("libashley-none.so.9", symbols, 1, &t, &err), ASH_ENOENT);
    assert_non_null(strstr(err.msg, "libashley-none.so.9"));
    assert_int_equal(ash_library_open("libm.so.6", symbols, 2, &t, &err), ASH_ENOENT);
    assert_non_null(strstr(err.msg, "libm.so.6 has no no_such_function"));
}

/* FIPS 180-4's example, through libcrypto. */
static void test_libcrypto_hashes(void **state)
{
    ash_sha256 *h;
    uint8_t sum[ASH_SHA256_BYTES];
    char hex[2 * ASH_SHA256_BYTES + 1];
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_sha256_open(&h, &err), 0);
    ash_sha256_add(h, "abc", 3);
    assert_int_equal(ash_sha256_sum(h, sum, &err), 0);
    assert_string_equal(ash_sha256_hex(sum, hex),
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    ash_sha256_close(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fills_the_table),
        cmocka_unit_test(test_names_what_is_missing),
        cmocka_unit_test(test_libcrypto_hashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
