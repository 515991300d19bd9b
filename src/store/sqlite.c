/* Owns the table of SQLite's calls. Refuses a library that lacks one. Any thread. */
#include "store/sqlite.h"

#include <stddef.h>

#include "base/library.h"

#define CALL(name)                                                                                 \
    {                                                                                              \
        "sqlite3_" #name, offsetof(ash_sqlite, name)                                               \
    }

static const ash_symbol symbols[] = {
    CALL(open_v2),       CALL(close_v2),     CALL(exec),   CALL(prepare_v2), CALL(bind_text),
    CALL(bind_int64),    CALL(bind_double),  CALL(step),   CALL(finalize),   CALL(column_int64),
    CALL(column_double), CALL(busy_timeout), CALL(errmsg), CALL(limit),
};

int ash_sqlite_open(ash_sqlite *out, ash_err *err)
{
    return ash_library_open("libsqlite3.so.0", symbols, sizeof symbols / sizeof *symbols, out, err);
}
