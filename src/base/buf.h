/* A growing byte buffer with a cap. Always NUL-terminated past `len` once it holds anything.
 * init/release for the caller's storage; one thread at a time. */
#ifndef ASHLEY_BASE_BUF_H
#define ASHLEY_BASE_BUF_H

#include "base/err.h"

typedef struct ash_buf {
    char *data;  /* owned; NULL while empty */
    size_t len;  /* bytes used, without the NUL */
    size_t cap;  /* bytes allocated */
    size_t max;  /* most bytes it may ever hold */
    int failed;  /* first failure (ASH_ENOMEM or ASH_ELIMIT); later appends do nothing */
} ash_buf;

/* A borrowed run of bytes; not NUL-terminated. */
typedef struct ash_str {
    const char *p;
    size_t n;
} ash_str;

#define ASH_STR(lit) ((ash_str){(lit), sizeof(lit) - 1})
ash_str ash_str_from(const char *cstr); /* NULL gives the empty string */
bool ash_str_eq(ash_str a, ash_str b);
bool ash_str_eqc(ash_str a, const char *b);
bool ash_str_starts(ash_str s, const char *prefix);

void ash_buf_init(ash_buf *b, size_t max);
void ash_buf_release(ash_buf *b); /* frees and zeroes; safe twice */
void ash_buf_clear(ash_buf *b);   /* length 0, failure forgotten, memory kept */

/* Appends return 0 or the sticky failure, so a builder may check once at its end. */
int ash_buf_add(ash_buf *b, const void *p, size_t n);
int ash_buf_addc(ash_buf *b, char c);
int ash_buf_adds(ash_buf *b, const char *cstr);
int ash_buf_addstr(ash_buf *b, ash_str s);
int ash_buf_printf(ash_buf *b, const char *fmt, ...) ASH_PRINTF(2, 3);
/* Room for n more bytes; the pointer to write at, or NULL. Does not change len. */
char *ash_buf_reserve(ash_buf *b, size_t n);
/* Drops the first n bytes (n <= len). */
void ash_buf_consume(ash_buf *b, size_t n);
/* The text so far, never NULL. Borrowed until the next change. */
const char *ash_buf_cstr(const ash_buf *b);
/* Hands the bytes over (free() them) and leaves the buffer empty. NULL if nothing was ever added. */
char *ash_buf_take(ash_buf *b);
/* Turns the sticky failure into an error that names `what`; 0 if none. */
int ash_buf_check(const ash_buf *b, const char *what, ash_err *err);

#endif
