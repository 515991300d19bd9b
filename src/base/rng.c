/* Owns pseudo-random numbers. An ash_rng belongs to one thread at a time. */
#include "base/rng.h"

#include <sys/random.h>

#include "base/clock.h"

static uint64_t splitmix(uint64_t *x)
{
    uint64_t z = (*x += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

void ash_rng_init(ash_rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) r->s[i] = splitmix(&seed);
}

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

uint64_t ash_rng_u64(ash_rng *r)
{
    uint64_t *s = r->s, out = rotl(s[0] + s[3], 23) + s[0], t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return out;
}

double ash_rng_f64(ash_rng *r)
{
    return (double)(ash_rng_u64(r) >> 11) * 0x1.0p-53;
}

uint64_t ash_rng_entropy(void)
{
    uint64_t v;
    if (getrandom(&v, sizeof v, 0) != sizeof v) {
        v = (uint64_t)ash_clock_ns();
        v = splitmix(&v);
    }
    return v;
}
