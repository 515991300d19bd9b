/* A fast 64-bit checksum for what is written to disk and read again: finds cut, swapped and flipped bytes at
 * the speed of memory. Not against somebody who means it. Pure functions, any thread. */
#ifndef ASHLEY_BASE_CHECKSUM_H
#define ASHLEY_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Of n bytes read as little-endian words; the last word is filled up with zeros, and n counts too. */
uint64_t ash_checksum(const void *p, size_t n);

/* The same of bytes that come in pieces. */
typedef struct ash_checksum_state {
    uint64_t lane[8];
    uint64_t n;       /* bytes so far */
    uint8_t rest[64]; /* the last n % 64 of them */
} ash_checksum_state;

void ash_checksum_init(ash_checksum_state *s);
void ash_checksum_add(ash_checksum_state *s, const void *p, size_t n);
/* Of all that was added: ash_checksum of it in one piece. More may follow. */
uint64_t ash_checksum_sum(const ash_checksum_state *s);

#endif
