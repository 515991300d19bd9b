/* Libraries that only some commands or requests need, opened when they are needed first: what the
 * program is linked with is mapped, relocated and kept in memory by every start. A library stays open
 * to the end of the process. */
#ifndef ASHLEY_BASE_LIBRARY_H
#define ASHLEY_BASE_LIBRARY_H

#include <stddef.h>

#include "base/err.h"

typedef struct ash_symbol {
    const char *name;
    size_t at; /* offsetof its pointer in the table */
} ash_symbol;

/* Opens the library by its name for the dynamic linker ("libcurl.so.4") and fills `table` with the
 * addresses of all symbols; borrows all until it returns. ASH_ENOENT, with what the linker says, if the
 * library or a symbol is not there: the table is then not to be used. Any thread; a call that finds the
 * library open costs its look-ups. */
int ash_library_open(const char *soname, const ash_symbol *symbols, size_t n, void *table,
                     ash_err *err) ASH_MUST_CHECK;

#endif
