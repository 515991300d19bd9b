/* Owns nothing, refuses nothing. Any thread.
 *
 * Eight lanes of 64 bits, each h = rotate((h ^ word) * odd): every step is a bijection of its word and of h,
 * so one wrong word always shows, and the rotation carries high bits down, where the next product spreads
 * them. Eight lanes hide the multiplier's latency. */
#include "base/checksum.h"

#include <endian.h>
#include <string.h>

enum { LANES = 8, STRIPE = 8 * LANES };
#define FACTOR 0x9e3779b97f4a7c15u /* 2^64 / golden ratio, odd */

static uint64_t mix(uint64_t h, uint64_t word)
{
    h = (h ^ word) * FACTOR;
    return h << 29 | h >> 35;
}

static uint64_t word_at(const uint8_t *p, size_t n)
{
    uint64_t w = 0;
    memcpy(&w, p, n);
    return le64toh(w);
}

void ash_checksum_init(ash_checksum_state *s)
{
    s->n = 0;
    for (uint64_t i = 0; i < LANES; i++) s->lane[i] = (i + 1) * FACTOR;
}

/* Whole stripes of a word a lane; returns how many bytes they are. The lanes are copied, for registers. */
static size_t add_stripes(ash_checksum_state *s, const uint8_t *p, size_t n)
{
    uint64_t lane[LANES];
    size_t at = 0;
    memcpy(lane, s->lane, sizeof lane);
    for (; n - at >= STRIPE; at += STRIPE) {
#pragma GCC unroll 8 /* else -O2 keeps the lanes in memory: a third of the speed */
        for (size_t i = 0; i < LANES; i++) lane[i] = mix(lane[i], word_at(p + at + 8 * i, 8));
    }
    memcpy(s->lane, lane, sizeof lane);
    return at;
}

void ash_checksum_add(ash_checksum_state *s, const void *data, size_t n)
{
    const uint8_t *p = data;
    size_t have = s->n % STRIPE;
    s->n += n;
    if (have) {
        size_t some = STRIPE - have < n ? STRIPE - have : n;
        memcpy(s->rest + have, p, some);
        if (have + some < STRIPE) return;
        add_stripes(s, s->rest, STRIPE);
        p += some;
        n -= some;
    }
    size_t whole = add_stripes(s, p, n);
    if (n > whole) memcpy(s->rest, p + whole, n - whole);
}

uint64_t ash_checksum_sum(const ash_checksum_state *s)
{
    uint64_t lane[LANES], h = s->n;
    memcpy(lane, s->lane, sizeof lane);
    size_t left = s->n % STRIPE;
    const uint8_t *p = s->rest;
    for (int i = 0; left; i++) {
        size_t some = left < 8 ? left : 8;
        lane[i] = mix(lane[i], word_at(p, some));
        p += some;
        left -= some;
    }
    for (int i = 0; i < LANES; i++) h = mix(h, lane[i]);
    return mix(h, h >> 32);
}

uint64_t ash_checksum(const void *p, size_t n)
{
    ash_checksum_state s;
    ash_checksum_init(&s);
    ash_checksum_add(&s, p, n);
    return ash_checksum_sum(&s);
}
