/* SipHash-1-3 against the reference vector, and that every byte and length counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"

static void test_reference(void **state)
{
    /* key 00 01 .. 0f, empty input: the reference implementation's first vector for 1-3 */
    static const uint64_t key[2] = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
    assert_true(ash_hash_bytes("", 0, key) == 0xabac0158050fc4dcu);
}

static void test_all_bytes_count(void **state)
{
    static const uint64_t key[2] = {1, 2}, other[2] = {1, 3};
    unsigned char p[33] = {0};
    for (size_t n = 1; n <= sizeof p; n++) {
        uint64_t h = ash_hash_bytes(p, n, key);
        assert_true(h != ash_hash_bytes(p, n - 1, key));
        assert_true(h != ash_hash_bytes(p, n, other));
        for (size_t i = 0; i < n; i++) {
            p[i] = 1;
            assert_true(h != ash_hash_bytes(p, n, key));
            p[i] = 0;
        }
    }
}

static void test_slots(void **state)
{
    assert_int_equal(ash_hash_slots(0), 4);
    for (size_t n = 1; n < 5000; n = n * 2 + 1) {
        size_t slots = ash_hash_slots(n);
        assert_true((slots & (slots - 1)) == 0 && slots * 2 / 3 >= n && slots > n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_all_bytes_count),
        cmocka_unit_test(test_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
