/* Errors: a negative code, a message for people, and for parsers the byte position.
 *
 * Every function that can fail returns 0 or a negative ASH_E* and takes an `ash_err *` last. NULL is
 * allowed there: the code is still returned. A message names the file or field, the place and what
 * was expected; it never holds a secret. An ash_err is plain storage of the caller's: nothing to
 * release, one thread at a time. */
#ifndef ASHLEY_BASE_ERR_H
#define ASHLEY_BASE_ERR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ASH_MUST_CHECK __attribute__((warn_unused_result))
#define ASH_PRINTF(f, a) __attribute__((format(printf, f, a)))

enum {
    ASH_OK = 0,
    ASH_EINVAL = -1,       /* the caller's argument or the user's value is wrong */
    ASH_ENOMEM = -2,       /* no memory, or the owner's budget is spent */
    ASH_EIO = -3,          /* the operating system refused a read or write */
    ASH_ENOENT = -4,       /* no such file, model, id */
    ASH_EFORMAT = -5,      /* malformed, cut or lying input */
    ASH_EUNSUPPORTED = -6, /* well formed, but not something this build does */
    ASH_ELIMIT = -7,       /* over a named cap of base/limits.h */
    ASH_EAGAIN = -8,       /* try later; not a failure */
    ASH_ECANCELED = -9,    /* the caller cancelled */
    ASH_ETIMEDOUT = -10,   /* a time budget is spent */
    ASH_ENET = -11,        /* network or upstream trouble */
    ASH_EAUTH = -12,       /* key, token or consent missing or wrong */
    ASH_ENOTMINE = -13,    /* not for this handler; try the next; not a failure */
    ASH_ENOSPC = -14,      /* does not fit: memory, or the disk of a fetch */
    ASH_EDISK = -15,       /* a file that a load needs to make does not fit the disk, or its budget */
};

typedef struct ash_err {
    int code;       /* 0 or ASH_E* */
    int64_t pos;    /* byte position in the input, -1 if none */
    char msg[480];  /* NUL-terminated UTF-8, cut at a code point if long */
} ash_err;

#define ASH_ERR_INIT ((ash_err){.code = 0, .pos = -1})

/* Sets code and message, returns code, so that `return ash_err_set(err, ASH_EIO, ...)` reads well. */
int ash_err_set(ash_err *err, int code, const char *fmt, ...) ASH_PRINTF(3, 4);
/* The same with a byte position; the message gets " at byte N" appended. */
int ash_err_at(ash_err *err, int code, int64_t pos, const char *fmt, ...) ASH_PRINTF(4, 5);
/* Puts "PREFIX: " before the message already there; keeps code and position; returns the code. */
int ash_err_prefix(ash_err *err, const char *fmt, ...) ASH_PRINTF(2, 3);
/* "out of memory (WHAT)" with ASH_ENOMEM. */
int ash_err_nomem(ash_err *err, const char *what);
/* Short English name of a code: "not found", ... Never NULL. */
const char *ash_err_name(int code);

#endif
