/* Owns the list of a checkpoint's tensors and the maps of its files. Refuses two of one name.
 * Immutable after seal: any thread. */
#include "format/tensor_index.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/rng.h"

void ash_tensor_index_init(ash_tensor_index *idx, size_t max_bytes)
{
    *idx = (ash_tensor_index){0};
    ash_arena_init(&idx->arena, max_bytes);
}

void ash_tensor_index_release(ash_tensor_index *idx)
{
    for (size_t i = 0; i < idx->n_files; i++)
        if (idx->files[i].map.fd >= 0)
            ash_fs_unmap(&idx->files[i].map);
    ash_arena_release(&idx->arena);
    size_t max = idx->arena.max;
    ash_tensor_index_init(idx, max);
}

/* The slot that holds `name` or the empty one where it belongs. */
static size_t slot_of(const ash_tensor_index *idx, const char *name)
{
    size_t i = ash_hash_bytes(name, strlen(name), idx->seed) & (idx->n_slots - 1);
    while (idx->slots[i] && strcmp(idx->tensors[idx->slots[i] - 1].name, name) != 0)
        i = (i + 1) & (idx->n_slots - 1);
    return i;
}

int ash_tensor_index_seal(ash_tensor_index *idx, ash_err *err)
{
    idx->seed[0] = ash_rng_entropy();
    idx->seed[1] = ash_rng_entropy();
    idx->n_slots = ash_hash_slots(idx->n_tensors);
    idx->slots = ash_arena_calloc(&idx->arena, idx->n_slots, sizeof *idx->slots);
    if (!idx->slots)
        return ash_err_nomem(err, "index of tensors");
    for (size_t i = 0; i < idx->n_tensors; i++) {
        const ash_tensor *t = &idx->tensors[i];
        size_t s = slot_of(idx, t->name);
        if (idx->slots[s]) {
            const ash_tensor *first = &idx->tensors[idx->slots[s] - 1];
            return ash_err_set(err, ASH_EFORMAT, "tensor '%s' occurs twice: in '%s' and in '%s'",
                               t->name, idx->files[first->file].path, idx->files[t->file].path);
        }
        idx->slots[s] = (uint32_t)i + 1;
    }
    return 0;
}

const ash_tensor *ash_tensor_find(const ash_tensor_index *idx, const char *name)
{
    if (!idx->n_slots)
        return NULL;
    uint32_t at = idx->slots[slot_of(idx, name)];
    return at ? &idx->tensors[at - 1] : NULL;
}

const uint8_t *ash_tensor_data(const ash_tensor_index *idx, const ash_tensor *t)
{
    const ash_map *map = &idx->files[t->file].map;
    return t->bytes && map->data ? map->data + t->offset : NULL;
}

/* The elements of a view from `at` on, dims d.. of it, into buf; returns where it ended. */
static uint8_t *gather(const ash_tensor *t, uint32_t d, const uint8_t *at, size_t size, uint8_t *buf)
{
    if (d == t->n_dims) {
        memcpy(buf, at, size);
        return buf + size;
    }
    uint64_t step = t->strides[d] * size;
    for (uint64_t i = 0; i < t->dims[d]; i++) buf = gather(t, d + 1, at + i * step, size, buf);
    return buf;
}

const uint8_t *ash_tensor_rows(const ash_tensor_index *idx, const ash_tensor *t, uint64_t row, uint64_t n,
                               void *buf)
{
    const uint8_t *base = ash_tensor_data(idx, t);
    uint64_t rows = t->n_dims > 1 ? t->dims[0] : 1;
    if (!base || !t->strides)
        return base ? base + t->bytes / rows * row : NULL;
    size_t size = ash_dtype_get(t->dtype)->block_bytes;
    uint8_t *to = buf;
    if (t->n_dims < 2) {
        gather(t, 0, base, size, to);
        return buf;
    }
    for (uint64_t i = row; i < row + n; i++) to = gather(t, 1, base + i * t->strides[0] * size, size, to);
    return buf;
}

void ash_tensor_declare(const ash_tensor *t, uint64_t rows, uint64_t cols)
{
    ash_tensor *own = (ash_tensor *)t; /* in the arena of an index that is still being made */
    uint64_t n = 0, bytes = 0;
    if (t->n_dims || !rows || __builtin_mul_overflow(rows, cols ? cols : 1, &n) || n > INT64_MAX ||
        !ash_dtype_bytes(t->dtype, n, &bytes))
        return;
    own->n_dims = cols ? 2 : 1;
    own->dims[0] = rows;
    own->dims[1] = cols ? cols : 1;
    own->bytes = bytes;
}

uint64_t ash_tensor_count(const ash_tensor *t)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) n *= t->dims[i];
    return n;
}

const char *ash_tensor_shape(const ash_tensor *t, char out[96])
{
    int at = snprintf(out, 96, "[");
    for (uint32_t i = 0; i < t->n_dims && i < ASH_MAX_DIMS; i++)
        at += snprintf(out + at, 96 - (size_t)at, "%s%llu", i ? ", " : "",
                       (unsigned long long)t->dims[i]);
    snprintf(out + at, 96 - (size_t)at, "]");
    return out;
}

static void advise(const ash_tensor_index *idx, const ash_tensor *t, uint64_t from, uint64_t n,
                   int advice)
{
    const ash_map *map = &idx->files[t->file].map;
    uint64_t bytes = t->bytes;
    if (t->strides && bytes) { /* rows are scattered: all of what the view spans, at its first or last */
        if (advice == MADV_WILLNEED ? from : from > bytes || n < bytes - from)
            return;
        bytes = ash_dtype_get(t->dtype)->block_bytes;
        for (uint32_t i = 0; i < t->n_dims; i++)
            bytes += (t->dims[i] - 1) * t->strides[i] * ash_dtype_get(t->dtype)->block_bytes;
        from = 0;
        n = bytes;
    }
    if (!map->data || map->fd < 0 || from >= bytes)
        return;
    if (n > bytes - from)
        n = bytes - from;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t begin = (t->offset + from) / page * page;
    uint64_t end = t->offset + from + n;
    (void)madvise((void *)(map->data + begin), end - begin, advice);
}

void ash_tensor_want(const ash_tensor_index *idx, const ash_tensor *t, uint64_t from, uint64_t n)
{
    advise(idx, t, from, n, MADV_WILLNEED);
}

void ash_tensor_drop(const ash_tensor_index *idx, const ash_tensor *t, uint64_t from, uint64_t n)
{
    advise(idx, t, from, n, MADV_DONTNEED);
}
