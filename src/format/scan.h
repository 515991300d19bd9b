/* Reads JSON from front to back without building a tree: headers of safetensors files and indexes of
 * shards have up to a million members, and memory must not grow with what a reader ignores.
 *
 * Every call checks what it reads (RFC 8259, UTF-8, depth up to ASH_MAX_JSON_DEPTH); the first failure
 * sets the error with file and byte and is kept in rc, and all further calls return false. A walk:
 *
 *   ash_scan_open(&s, '{');
 *   while (ash_scan_key(&s, &key))
 *       if (ash_str_eqc(key, "a")) ash_scan_string(&s, &v); else ash_scan_skip(&s);
 *   ash_scan_end(&s);
 *   if (s.rc) ...
 *
 * Duplicate keys are the caller's to find. One thread at a time. */
#ifndef ASHLEY_FORMAT_SCAN_H
#define ASHLEY_FORMAT_SCAN_H

#include "base/buf.h"

typedef struct ash_scan {
    const char *label; /* the file, for messages; borrowed */
    const char *p;     /* borrowed */
    size_t n, at;
    int64_t base;      /* position of p[0] in the file */
    ash_err *err;
    int rc;            /* the first failure */
    int depth;
    bool fresh;        /* nothing was read since the last opening bracket */
    ash_buf text[2];   /* the last two strings that had escapes */
    int turn;
} ash_scan;

void ash_scan_init(ash_scan *s, const char *label, const void *p, size_t n, int64_t base, ash_err *err);
void ash_scan_release(ash_scan *s);

/* Expects '{' or '['. */
bool ash_scan_open(ash_scan *s, char bracket);
/* In an object: the next key, or false at its end, which is then behind, or on failure. */
bool ash_scan_key(ash_scan *s, ash_str *key);
/* In an array: true before an element, false at its end or on failure. */
bool ash_scan_element(ash_scan *s);
/* Values. A string (a key too) is borrowed until the second next one. */
bool ash_scan_string(ash_scan *s, ash_str *out);
/* A whole number without sign, fraction and exponent, below 2^64. */
bool ash_scan_u64(ash_scan *s, uint64_t *out);
/* Any value. */
bool ash_scan_skip(ash_scan *s);
/* Only white space is left. */
bool ash_scan_end(ash_scan *s);
/* The byte in the file where the next value starts; skips white space. */
int64_t ash_scan_pos(ash_scan *s);

/* Up to 200 bytes of s as a message may show them: control and broken bytes as '?'; returns out. */
const char *ash_scan_show(ash_str s, char out[208]);

#endif
