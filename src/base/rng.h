/* A small deterministic generator for sampling and tests: xoshiro256++ seeded by splitmix64
 * (Blackman and Vigna, https://prng.di.unimi.it). Not for secrets. The caller's storage. */
#ifndef ASHLEY_BASE_RNG_H
#define ASHLEY_BASE_RNG_H

#include <stdint.h>

typedef struct ash_rng {
    uint64_t s[4];
} ash_rng;

void ash_rng_init(ash_rng *r, uint64_t seed);
uint64_t ash_rng_u64(ash_rng *r);
/* Uniform in [0, 1) with 53 bits. */
double ash_rng_f64(ash_rng *r);
/* 64 random bits from the operating system, for ids and random seeds. */
uint64_t ash_rng_entropy(void);

#endif
