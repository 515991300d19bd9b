/* PyTorch bytes, zip or legacy -> tensors, every element of every view inside the file. Bytes that
 * are no zip archive are run as a bare pickle too, whose values are walked. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "format/pickle.h"
#include "format/shards.h"
#include "format/torch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 1 << 16 }; /* bytes of a view that are gathered */

static uint64_t sum; /* so that reads are not optimised away */

static void touch(const uint8_t *p, uint64_t n)
{
    if (n) sum += (uint64_t)p[0] + p[n / 2] + p[n - 1];
}

static void check_view(const ash_tensor_index *idx, const ash_tensor *t, size_t size)
{
    uint64_t elem = ash_dtype_get(t->dtype)->block_bytes, last = elem,
             rows = t->n_dims > 1 ? t->dims[0] : 1;
    for (uint32_t i = 0; i < t->n_dims; i++) last += (t->dims[i] - 1) * t->strides[i] * elem;
    if (last > size - t->offset || t->bytes / elem != ash_tensor_count(t)) abort();
    touch(ash_tensor_data(idx, t), last);
    if (t->bytes > MOST) return;
    uint8_t *buf = malloc((size_t)t->bytes);
    if (buf) touch(ash_tensor_rows(idx, t, 0, rows, buf), t->bytes);
    free(buf);
}

static void check_tensors(const ash_tensor_index *idx, size_t size)
{
    for (size_t i = 0; i < idx->n_tensors; i++) {
        const ash_tensor *t = &idx->tensors[i];
        if (t->offset > size || ash_tensor_find(idx, t->name) != t || !t->n_dims) abort();
        ash_tensor_want(idx, t, 0, t->bytes);
        if (t->bytes && t->strides)
            check_view(idx, t, size);
        else if (t->bytes > size - t->offset)
            abort();
        else
            touch(ash_tensor_data(idx, t), t->bytes);
    }
}

/* One level: lists may hold themselves. */
static void walk(const ash_pickle_value *v)
{
    if (v->kind == ASH_PICKLE_STR || v->kind == ASH_PICKLE_LONG)
        touch((const uint8_t *)v->s.p, v->s.n);
    if (v->kind < ASH_PICKLE_TUPLE || v->kind > ASH_PICKLE_DICT) return;
    for (size_t i = 0; i < v->list->n; i++) {
        const ash_pickle_value *e = &v->list->v[i];
        if (e->kind == ASH_PICKLE_STR) touch((const uint8_t *)e->s.p, e->s.n);
        if (e->kind == ASH_PICKLE_TENSOR && e->tensor->size->n != e->tensor->stride->n) abort();
        if (e->kind == ASH_PICKLE_MARK) abort();
    }
    (void)ash_pickle_get(v, "model");
}

static void run_pickle(const uint8_t *data, size_t size)
{
    ash_arena arena;
    ash_pickle m;
    ash_pickle_value v;
    ash_err err = ASH_ERR_INIT;
    ash_arena_init(&arena, 64u << 20);
    ash_pickle_init(&m, "input", &arena, &err);
    if (ash_pickle_run(&m, data, size, 0, &v) == 0)
        walk(&v);
    else if (!err.msg[0] || err.pos > (int64_t)size)
        abort();
    for (size_t i = 0; i < m.n_roots; i++)
        if (ash_pickle_find_root(&m, m.roots[i]->key) != m.roots[i]) abort();
    ash_pickle_release(&m);
    ash_arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ash_tensor_index idx;
    ash_err err = ASH_ERR_INIT;
    if (ash_shards_open_memory(data, size, "input", ash_torch_read, NULL, &idx, &err)) {
        if (!err.msg[0] || err.pos > (int64_t)size) abort();
    } else {
        check_tensors(&idx, size);
    }
    ash_tensor_index_release(&idx);
    if (size < 2 || memcmp(data, "PK", 2) != 0) run_pickle(data, size);
    return 0;
}
