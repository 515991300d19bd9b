/* SHA-256 (FIPS 180-4) of content: what a file holds, what a key stands for. libcrypto's, which uses the
 * CPU's instructions where there are some; opened with the first hash, ASH_ENOENT if it is not there. One
 * thread each. */
#ifndef ASHLEY_BASE_SHA256_H
#define ASHLEY_BASE_SHA256_H

#include "base/err.h"

enum { ASH_SHA256_BYTES = 32 };

typedef struct ash_sha256 ash_sha256;

int ash_sha256_open(ash_sha256 **out, ash_err *err) ASH_MUST_CHECK;
/* Starts again, as if just opened. */
int ash_sha256_reset(ash_sha256 *h, ash_err *err) ASH_MUST_CHECK;
void ash_sha256_add(ash_sha256 *h, const void *p, size_t n);
/* The sum of all that was added; ASH_ENOMEM if any step lacked memory. Only reset or close follow. */
int ash_sha256_sum(ash_sha256 *h, uint8_t out[ASH_SHA256_BYTES], ash_err *err) ASH_MUST_CHECK;
void ash_sha256_close(ash_sha256 *h); /* NULL is fine */

/* 64 lower-case hexadecimal digits and a NUL; returns out. */
char *ash_sha256_hex(const uint8_t sum[ASH_SHA256_BYTES], char out[2 * ASH_SHA256_BYTES + 1]);
/* The reverse, of exactly 64 such digits at the start of s; false if they are not. */
bool ash_sha256_parse(const char *s, uint8_t out[ASH_SHA256_BYTES]);

#endif
