/* The calls of SQLite that the stores here make, and the library behind them: opened with the first store, so
 * that a start maps none of it (base/library.h). */
#ifndef ASHLEY_STORE_SQLITE_H
#define ASHLEY_STORE_SQLITE_H

#include <sqlite3.h>

#include "base/err.h"

typedef struct ash_sqlite {
    int (*open_v2)(const char *, sqlite3 **, int, const char *);
    int (*close_v2)(sqlite3 *);
    int (*exec)(sqlite3 *, const char *, int (*)(void *, int, char **, char **), void *, char **);
    int (*prepare_v2)(sqlite3 *, const char *, int, sqlite3_stmt **, const char **);
    int (*bind_text)(sqlite3_stmt *, int, const char *, int, void (*)(void *));
    int (*bind_int64)(sqlite3_stmt *, int, sqlite3_int64);
    int (*bind_double)(sqlite3_stmt *, int, double);
    int (*step)(sqlite3_stmt *);
    int (*finalize)(sqlite3_stmt *);
    sqlite3_int64 (*column_int64)(sqlite3_stmt *, int);
    double (*column_double)(sqlite3_stmt *, int);
    int (*busy_timeout)(sqlite3 *, int);
    const char *(*errmsg)(sqlite3 *);
    int (*limit)(sqlite3 *, int, int);
} ash_sqlite;

/* ASH_ENOENT, with what the linker says, if there is no SQLite. Any thread. */
int ash_sqlite_open(ash_sqlite *out, ash_err *err) ASH_MUST_CHECK;

#endif
