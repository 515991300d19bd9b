/* UTF-8. Pure functions, any thread. */
#ifndef ASHLEY_BASE_UTF8_H
#define ASHLEY_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decodes one code point of p[0..n), n >= 1, into *cp; the bytes read (1 to 4). An invalid or cut
 * sequence gives U+FFFD and the length of its maximal subpart (Unicode 15, 3.9), and *ok false. */
size_t ash_utf8_decode(const char *p, size_t n, uint32_t *cp, bool *ok);
/* Writes cp (a surrogate or > U+10FFFF as U+FFFD) to out[4]; the bytes written. */
size_t ash_utf8_encode(uint32_t cp, char out[4]);
bool ash_utf8_valid(const char *p, size_t n);
/* How many bytes at the end of p[0..n) could be the start of a code point cut short: 0 to 3. */
size_t ash_utf8_incomplete_tail(const char *p, size_t n);
/* Takes from p[0..n), whole code points, what a terminal would obey: each byte of a control character but tab
 * and line break (C0, DEL, and C1, U+0080 to U+009F) becomes '?'. */
void ash_utf8_disarm(char *p, size_t n);
/* Code points in p[0..n), an invalid sequence counting one. */
size_t ash_utf8_count(const char *p, size_t n);

#endif
