/* The checksum: every single changed byte shows, and so do swapped words, lengths and high bits that change
 * in pairs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/checksum.h"
#include "base/rng.h"

enum { MOST = 300 };

static void every_byte_counts(void **state)
{
    uint8_t p[MOST];
    ash_rng r;
    ash_rng_init(&r, 1);
    for (int i = 0; i < MOST; i++) p[i] = (uint8_t)ash_rng_u64(&r);
    for (size_t n = 0; n <= MOST; n++) {
        uint64_t sum = ash_checksum(p, n);
        for (size_t i = 0; i < n; i++)
            for (int bit = 0; bit < 8; bit++) {
                p[i] ^= (uint8_t)(1 << bit);
                assert_true(ash_checksum(p, n) != sum);
                p[i] ^= (uint8_t)(1 << bit);
            }
    }
}

static void length_and_order_count(void **state)
{
    uint8_t p[256] = {0};
    for (size_t n = 1; n < sizeof p; n++) assert_true(ash_checksum(p, n) != ash_checksum(p, n - 1));
    for (size_t i = 0; i < sizeof p; i += 8) p[i] = (uint8_t)(1 + i / 8);
    uint64_t sum = ash_checksum(p, sizeof p);
    for (size_t a = 0; a < sizeof p; a += 8)
        for (size_t b = a + 8; b < sizeof p; b += 8) {
            uint8_t keep = p[a];
            p[a] = p[b], p[b] = keep;
            assert_true(ash_checksum(p, sizeof p) != sum);
            keep = p[a];
            p[a] = p[b], p[b] = keep;
        }
}

/* In pieces of any lengths, with a look in between, it is that of the whole. */
static void pieces_are_the_whole(void **state)
{
    uint8_t p[MOST];
    ash_rng r;
    ash_rng_init(&r, 2);
    for (int i = 0; i < MOST; i++) p[i] = (uint8_t)ash_rng_u64(&r);
    for (size_t most = 1; most < 150; most++) {
        ash_checksum_state s;
        ash_checksum_init(&s);
        for (size_t at = 0; at < MOST;) {
            size_t n = ash_rng_u64(&r) % (most + 1);
            if (n > MOST - at) n = MOST - at;
            ash_checksum_add(&s, p + at, n);
            at += n;
            assert_int_equal(ash_checksum_sum(&s), ash_checksum(p, at));
        }
    }
}

/* A product alone carries nothing downwards: without rotation these pairs would cancel out. */
static void pairs_of_high_bits_count(void **state)
{
    uint8_t p[1024] = {0};
    uint64_t sum = ash_checksum(p, sizeof p);
    for (size_t a = 7; a < sizeof p; a += 8)
        for (size_t b = a + 8; b < sizeof p; b += 8) {
            p[a] = p[b] = 0x80;
            assert_true(ash_checksum(p, sizeof p) != sum);
            p[a] = p[b] = 0;
        }
}

static void is_the_same_everywhere(void **state)
{
    static const char text[] = "Files of one machine are read on another: the sum must not change.";
    assert_true(ash_checksum(text, sizeof text - 1) == 0x8b3b16ceea2c3054ull);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_counts),
        cmocka_unit_test(length_and_order_count),
        cmocka_unit_test(pieces_are_the_whole),
        cmocka_unit_test(pairs_of_high_bits_count),
        cmocka_unit_test(is_the_same_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
