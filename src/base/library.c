/* Owns the opening of libraries at run time. Refuses one that lacks a symbol. Any thread. */
#include "base/library.h"

#include <dlfcn.h>
#include <string.h>

int ash_library_open(const char *soname, const ash_symbol *symbols, size_t n, void *table,
                     ash_err *err)
{
    void *library = dlopen(soname, RTLD_NOW | RTLD_LOCAL);
    if (!library) return ash_err_set(err, ASH_ENOENT, "a library is missing: %s", dlerror());
    for (size_t i = 0; i < n; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol)
            return ash_err_set(err, ASH_ENOENT, "%s has no %s: %s", soname, symbols[i].name,
                               dlerror());
        memcpy((char *)table + symbols[i].at, &symbol, sizeof symbol);
    }
    return 0;
}
