/* A catalogue file -> entries -> where their files are. Bad entries say why; each id is found
 * again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config/catalogue.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(ash_catalogue *c)
{
    size_t n = ash_catalogue_count(c);
    for (size_t i = 0; i < n; i++) {
        const ash_catalogue_entry *e = ash_catalogue_at(c, i), *again;
        ash_catalogue_place p;
        if (ash_catalogue_find(c, e->id) != e) abort();
        if (ash_catalogue_locate(c, e, i & 1, &p, NULL)) continue;
        if (!p.path == !p.code || (p.code && (!p.reason[0] || !p.hint[0]))) abort();
        free(p.path);
        /* what a file may name as repository, a person may name as model */
        if (!e->bad && e->repo && ash_catalogue_resolve(c, e->repo, &again, NULL) == 0 &&
            !again->repo)
            abort();
        ash_catalogue_nearest(c, e->id);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    int fd = memfd_create("catalogue", MFD_CLOEXEC);
    if (fd < 0) return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ash_catalogue *c;
    ash_err err = ASH_ERR_INIT;
    if (write(fd, data, size) == (ssize_t)size) {
        if (!ash_catalogue_open(&(ash_catalogue_opts){.path = path, .hub_dir = "/nonexistent"}, &c,
                                &err))
            use(c);
        else if (!err.msg[0])
            abort();
        ash_catalogue_close(c);
    }
    close(fd);
    return 0;
}
