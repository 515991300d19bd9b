/* A fast 64-bit checksum for what is written to disk and read again: finds cut, swapped and flipped bytes at
 * the speed of memory. Not against somebody who means it. Pure function, any thread. */
#ifndef ASHLEY_BASE_CHECKSUM_H
#define ASHLEY_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Of n bytes read as little-endian words; the last word is filled up with zeros, and n counts too. */
uint64_t ash_checksum(const void *p, size_t n);

#endif
