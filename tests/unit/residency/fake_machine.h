/* A folder with what /proc and /sys would say of memory. */
#ifndef ASHLEY_TESTS_RESIDENCY_FAKE_MACHINE_H
#define ASHLEY_TESTS_RESIDENCY_FAKE_MACHINE_H

#include <limits.h>
#include <stdio.h>

#include "../scratch_dir.h"
#include "base/fs.h"

typedef struct fake_machine {
    void *state; /* of scratch_dir.h */
    const char *root;
} fake_machine;

static inline void fake_open(fake_machine *f)
{
    assert_int_equal(scratch_dir_make(&f->state), 0);
    f->root = f->state;
}

static inline void fake_close(fake_machine *f)
{
    assert_int_equal(scratch_dir_remove(&f->state), 0);
}

/* Replaces a file; whoever reads it meanwhile sees the old or the new one. */
static inline void fake_write(const fake_machine *f, const char *name, const char *text)
{
    char path[PATH_MAX], *slash;
    snprintf(path, sizeof path, "%s/%s", f->root, name);
    slash = strrchr(path, '/');
    *slash = 0;
    assert_int_equal(ash_fs_mkdirs(path, NULL), 0);
    *slash = '/';
    assert_int_equal(ash_fs_replace(path, text, strlen(text), NULL), 0);
}

/* A machine without groups: what is available, what this process has, percent of time it stood still. */
static inline void fake_memory(const fake_machine *f, unsigned available_kb, unsigned own_kb, double stalled)
{
    char text[256];
    snprintf(text, sizeof text, "MemFree: 1 kB\nMemAvailable:   %u kB\n", available_kb);
    fake_write(f, "proc/meminfo", text);
    snprintf(text, sizeof text, "Name:\tx\nVmRSS:\t%u kB\nRssAnon:\t%u kB\nRssFile:\t0 kB\nRssShmem:\t0 kB\n",
             own_kb, own_kb);
    fake_write(f, "proc/self/status", text);
    snprintf(text, sizeof text, "some avg10=50.00 avg60=0.00\nfull avg10=%.2f avg60=0.00\n", stalled);
    fake_write(f, "proc/pressure/memory", text);
}

#endif
