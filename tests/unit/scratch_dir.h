/* A fresh folder for a test, removed with all that is in it; cmocka's setup and teardown: *state is its
 * path. */
#ifndef ASHLEY_TESTS_SCRATCH_DIR_H
#define ASHLEY_TESTS_SCRATCH_DIR_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static inline int scratch_dir_make(void **state)
{
    char name[] = "/tmp/ashley-test-XXXXXX";
    *state = mkdtemp(name) ? strdup(name) : NULL;
    return *state ? 0 : -1;
}

static inline int scratch_dir_drop(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static inline int scratch_dir_remove(void **state)
{
    int rc = nftw(*state, scratch_dir_drop, 16, FTW_DEPTH | FTW_PHYS);
    free(*state);
    return rc;
}

#endif
