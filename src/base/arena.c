/* Owns blocks of memory that end together. Refuses to hold more than `max`. One thread at a time. */
#include "base/arena.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct ash_arena_block {
    ash_arena_block *next;
    size_t size, used;
    void *map; /* that it lies in, with its bytes; NULL: it is of the heap */
    size_t map_bytes;
    _Alignas(16) unsigned char data[];
};

enum { BLOCK = 16 << 10, HUGE = 2 << 20 };

void ash_arena_init(ash_arena *a, size_t max)
{
    *a = (ash_arena){.max = max};
}

void ash_arena_release(ash_arena *a)
{
    ash_arena_block *b = a->head;
    while (b) {
        ash_arena_block *next = b->next;
        if (b->map)
            munmap(b->map, b->map_bytes);
        else
            free(b);
        b = next;
    }
    *a = (ash_arena){.max = a->max};
}

void ash_arena_reserve(ash_arena *a, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    size_t total = size + sizeof(ash_arena_block), bytes = size + 2 * HUGE;
    if (size < HUGE || bytes < size || total > a->max || a->held > a->max - total)
        return;
    char *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return;
    char *at = map + (HUGE - (uintptr_t)map % HUGE) % HUGE;
    madvise(at, total / HUGE * HUGE, MADV_HUGEPAGE); /* the rest in small pages, not to round up */
    ash_arena_block *b = (ash_arena_block *)at;
    *b = (ash_arena_block){.next = a->head, .size = size, .map = map, .map_bytes = bytes};
    a->head = b;
    a->held += total;
}

void *ash_arena_alloc(ash_arena *a, size_t size)
{
    if (size > SIZE_MAX - 64)
        return NULL;
    size = (size + 15) & ~(size_t)15;
    ash_arena_block *b = a->head;
    if (!b || b->size - b->used < size) {
        size_t want = size > BLOCK / 4 ? size : BLOCK;
        size_t total = want + sizeof *b;
        if (total > a->max || a->held > a->max - total)
            return NULL;
        ash_arena_block *fresh = malloc(total);
        if (!fresh)
            return NULL;
        *fresh = (ash_arena_block){.size = want};
        a->held += total;
        if (b && want != BLOCK && b->size - b->used >= 64) {
            /* a large block goes behind the head, so that the head's rest stays in use */
            fresh->next = b->next;
            b->next = fresh;
        } else {
            fresh->next = b;
            a->head = fresh;
        }
        b = fresh;
    }
    void *p = b->data + b->used;
    b->used += size;
    a->used += size;
    return p;
}

void *ash_arena_calloc(ash_arena *a, size_t n, size_t size)
{
    if (size && n > SIZE_MAX / size)
        return NULL;
    void *p = ash_arena_alloc(a, n * size);
    if (p)
        memset(p, 0, n * size);
    return p;
}

char *ash_arena_strndup(ash_arena *a, const char *s, size_t n)
{
    char *p = n == SIZE_MAX ? NULL : ash_arena_alloc(a, n + 1);
    if (!p)
        return NULL;
    if (n)
        memcpy(p, s, n);
    p[n] = 0;
    return p;
}

char *ash_arena_strdup(ash_arena *a, const char *s)
{
    return ash_arena_strndup(a, s, strlen(s));
}
