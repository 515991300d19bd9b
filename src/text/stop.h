/* Stop strings over a stream of bytes, across token borders. What may still become a stop is held
 * back; what cannot is passed on at once; the stop itself is never passed on. Works on bytes: a
 * valid UTF-8 stream is only ever cut at code points. One thread at a time each.
 * Knuth-Morris-Pratt per string: time linear in bytes times strings, memory 5 bytes per stop byte. */
#ifndef ASHLEY_TEXT_STOP_H
#define ASHLEY_TEXT_STOP_H

#include "base/buf.h"

typedef struct ash_stop ash_stop;

/* Copies n (0 is fine) stop strings. ASH_EINVAL names an empty one by its index, ASH_ELIMIT more than
 * ASH_MAX_STOPS or one longer than ASH_MAX_STOP_BYTES. *out is the caller's, NULL on failure. */
int ash_stop_open(const ash_str *stops, size_t n, ash_stop **out, ash_err *err) ASH_MUST_CHECK;
void ash_stop_close(ash_stop *s); /* NULL is fine */
/* Feeds p[0..n) and appends to `emit` what may be shown. *hit becomes the index of the stop that
 * ended first (of several ending at one byte the longest), or -1; after a hit the rest of p and
 * all later input is dropped and *hit stays. 0 or emit's failure. Allocates only in `emit`. */
int ash_stop_push(ash_stop *s, const char *p, size_t n, ash_buf *emit, int *hit) ASH_MUST_CHECK;
/* The text ended: appends what is held back (nothing after a hit). */
int ash_stop_flush(ash_stop *s, ash_buf *emit) ASH_MUST_CHECK;
/* Bytes held back now. */
size_t ash_stop_held(const ash_stop *s);
/* Forgets all input, for a new text. */
void ash_stop_reset(ash_stop *s);

#endif
