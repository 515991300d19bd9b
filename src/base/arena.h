/* An arena: many small allocations that end together. One per request, one per load.
 * Bytes are counted and capped. One thread at a time. */
#ifndef ASHLEY_BASE_ARENA_H
#define ASHLEY_BASE_ARENA_H

#include "base/buf.h"

typedef struct ash_arena_block ash_arena_block;

typedef struct ash_arena {
    ash_arena_block *head; /* owned list, newest first */
    size_t used;           /* bytes handed out */
    size_t held;           /* bytes taken from the heap */
    size_t max;            /* most bytes it may take from the heap */
} ash_arena;

void ash_arena_init(ash_arena *a, size_t max);
void ash_arena_release(ash_arena *a); /* frees everything; the arena may be used again */
/* A hint that `size` bytes will be asked for in large parts: 2 MiB and more come from one block of huge
 * pages, as the fault at each small page takes longer than clearing it. What is not used costs address space
 * only, but counts as held. */
void ash_arena_reserve(ash_arena *a, size_t size);
/* size bytes aligned to 16, not cleared; NULL without memory or over the cap. */
void *ash_arena_alloc(ash_arena *a, size_t size) __attribute__((malloc, alloc_size(2)));
/* n elements of size bytes, cleared; NULL on overflow too. */
void *ash_arena_calloc(ash_arena *a, size_t n, size_t size) __attribute__((malloc));
/* A NUL-terminated copy. */
char *ash_arena_strdup(ash_arena *a, const char *s);
char *ash_arena_strndup(ash_arena *a, const char *p, size_t n);

#endif
