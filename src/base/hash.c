/* Owns the keyed hash. Any thread. */
#include "base/hash.h"

#include <string.h>

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

/* In registers: called with an array it would be a call and eight moves a round. */
static inline __attribute__((always_inline)) void round_once(uint64_t *a, uint64_t *b, uint64_t *c,
                                                              uint64_t *d)
{
    *a += *b;
    *b = rotl(*b, 13) ^ *a;
    *a = rotl(*a, 32);
    *c += *d;
    *d = rotl(*d, 16) ^ *c;
    *a += *d;
    *d = rotl(*d, 21) ^ *a;
    *c += *b;
    *b = rotl(*b, 17) ^ *c;
    *c = rotl(*c, 32);
}

/* The last n < 8 bytes, the first of them lowest: as two reads that may overlap. */
static uint64_t tail(const unsigned char *p, size_t n)
{
    if (n >= 4) {
        uint32_t first, last;
        memcpy(&first, p, 4);
        memcpy(&last, p + n - 4, 4);
        return first | (uint64_t)last << 8 * (n - 4);
    }
    return n ? p[0] | (uint64_t)p[n / 2] << 8 * (n / 2) | (uint64_t)p[n - 1] << 8 * (n - 1) : 0;
}

uint64_t ash_hash_bytes(const void *data, size_t n, const uint64_t key[2])
{
    const unsigned char *p = data, *end = p + (n & ~(size_t)7);
    uint64_t a = key[0] ^ 0x736f6d6570736575u, b = key[1] ^ 0x646f72616e646f6du,
             c = key[0] ^ 0x6c7967656e657261u, d = key[1] ^ 0x7465646279746573u;
    for (; p != end; p += 8) {
        uint64_t m;
        memcpy(&m, p, 8);
        d ^= m;
        round_once(&a, &b, &c, &d);
        a ^= m;
    }
    uint64_t last = (uint64_t)n << 56 | tail(p, n & 7);
    d ^= last;
    round_once(&a, &b, &c, &d);
    a ^= last;
    c ^= 0xFF;
    for (int i = 0; i < 3; i++) round_once(&a, &b, &c, &d);
    return a ^ b ^ c ^ d;
}

size_t ash_hash_slots(size_t n)
{
    size_t slots = 4;
    while (slots / 3 * 2 < n) slots *= 2;
    return slots;
}
