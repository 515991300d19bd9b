/* Memory that runs out: each allocation of the program fails in turn. For tests linked with
 * --wrap=malloc,--wrap=calloc,--wrap=realloc; include it in one file. Not for the program. */
#ifndef ASHLEY_TESTS_OOM_H
#define ASHLEY_TESTS_OOM_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/err.h"

static atomic_long oom_left = -1; /* allocations, of all threads, that still succeed; -1: all */

static bool out_of_memory(void)
{
    return atomic_load(&oom_left) >= 0 && atomic_fetch_sub(&oom_left, 1) == 0;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t m);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t m);
void *__wrap_realloc(void *p, size_t n);

void *__wrap_malloc(size_t n)
{
    return out_of_memory() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t m)
{
    return out_of_memory() ? NULL : __real_calloc(n, m);
}

void *__wrap_realloc(void *p, size_t n)
{
    return out_of_memory() ? NULL : __real_realloc(p, n);
}

static bool oom_in_json; /* the allocation that failed was Jansson's */

static inline void *oom_json_malloc(size_t n)
{
    void *p = __wrap_malloc(n);
    oom_in_json |= !p;
    return p;
}

/* Jansson is a library of its own: it must ask here. */
static inline void oom_init(void)
{
    json_set_alloc_funcs(oom_json_malloc, free);
}

/* Runs `open` with ever more memory until it returns 0; every failure must be ASH_ENOMEM. Returns
 * how often it failed. */
static inline long oom_run(int (*open)(void *arg, ash_err *err), void *arg)
{
    for (long n = 0; n < 20000; n++) {
        ash_err err = ASH_ERR_INIT;
        oom_left = n;
        oom_in_json = false;
        int rc = open(arg, &err);
        oom_left = -1;
        if (!rc) return n;
        if (rc != ASH_ENOMEM && !oom_in_json) fail_msg("allocation %ld: %d: %s", n, rc, err.msg);
    }
    fail_msg("never succeeds");
    return 0;
}

#endif
