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

/* SipHash-1-3 as the paper has it: words of eight bytes, the last with the length above what is left. */
static uint64_t by_the_paper(const unsigned char *p, size_t n, const uint64_t key[2])
{
#define ROTL(x, k) ((x) << (k) | (x) >> (64 - (k)))
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du,
                     key[0] ^ 0x6c7967656e657261u, key[1] ^ 0x7465646279746573u};
    size_t words = n / 8 + 1;
    for (size_t w = 0; w < words + 3; w++) {
        uint64_t m = w + 1 == words ? (uint64_t)n << 56 : 0;
        for (size_t i = 0; w < words && i < 8 && 8 * w + i < n; i++) m |= (uint64_t)p[8 * w + i] << 8 * i;
        v[2] ^= w == words ? 0xFF : 0;
        v[3] ^= m;
        v[0] += v[1], v[2] += v[3];
        v[1] = ROTL(v[1], 13) ^ v[0], v[3] = ROTL(v[3], 16) ^ v[2];
        v[0] = ROTL(v[0], 32);
        v[2] += v[1], v[0] += v[3];
        v[1] = ROTL(v[1], 17) ^ v[2], v[3] = ROTL(v[3], 21) ^ v[0];
        v[2] = ROTL(v[2], 32);
        v[0] ^= m;
    }
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static void test_every_length(void **state)
{
    static const uint64_t key[2] = {0x0123456789abcdefu, 0xf0e1d2c3b4a59687u};
    unsigned char p[41];
    for (size_t i = 0; i < sizeof p; i++) p[i] = (unsigned char)(i * 37 + 11);
    for (size_t n = 0; n <= sizeof p; n++)
        assert_true(ash_hash_bytes(p, n, key) == by_the_paper(p, n, key));
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
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
