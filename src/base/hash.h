/* Keyed hashing for tables whose keys come from files or clients: SipHash-1-3 (Aumasson and
 * Bernstein, "SipHash: a fast short-input PRF", 2012). With a random key nobody can aim names at one
 * slot. Not for checksums or signatures. Pure functions, any thread. */
#ifndef ASHLEY_BASE_HASH_H
#define ASHLEY_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t ash_hash_bytes(const void *p, size_t n, const uint64_t key[2]);

/* The smallest power of two that keeps n entries at most two thirds full; at least 4. */
size_t ash_hash_slots(size_t n);

#endif
