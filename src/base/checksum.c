/* Owns nothing, refuses nothing. Any thread.
 *
 * Eight lanes of 64 bits, each h = rotate((h ^ word) * odd): every step is a bijection of its word and of h,
 * so one wrong word always shows, and the rotation carries high bits down, where the next product spreads
 * them. Eight lanes hide the multiplier's latency. */
#include "base/checksum.h"

#include <endian.h>
#include <string.h>

enum { LANES = 8 };
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

uint64_t ash_checksum(const void *data, size_t n)
{
    const uint8_t *p = data;
    uint64_t lane[LANES], h = n;
    for (uint64_t i = 0; i < LANES; i++) lane[i] = (i + 1) * FACTOR;
    size_t left = n;
    for (; left >= 8 * LANES; left -= 8 * LANES, p += 8 * LANES)
        for (int i = 0; i < LANES; i++) lane[i] = mix(lane[i], word_at(p + 8 * i, 8));
    for (int i = 0; left; i++) {
        size_t some = left < 8 ? left : 8;
        lane[i] = mix(lane[i], word_at(p, some));
        p += some;
        left -= some;
    }
    for (int i = 0; i < LANES; i++) h = mix(h, lane[i]);
    return mix(h, h >> 32);
}
