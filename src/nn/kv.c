/* Owns the pool of KV blocks and their layout. Refuses shapes that overflow. One thread at a time. */
#include "nn/kv.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "nn/scratch.h"

/* Bytes of K (or V) of one layer in one block, on 64 bytes. */
static int64_t part_bytes(const ash_kv_shape *s, int dim)
{
    int64_t size = s->type == ASH_KV_F32 ? sizeof(float) : sizeof(uint16_t);
    return s->kv_heads * dim * ASH_KV_TOKENS * size;
}

int64_t ash_kv_block_bytes(const ash_kv_shape *s)
{
    enum { MOST = 1 << 16 };
    if (s->layers < 1 || s->layers > MOST || s->kv_heads < 1 || s->kv_heads > MOST || s->k_dim < 1 ||
        s->k_dim > MOST || s->v_dim < 1 || s->v_dim > MOST || (s->v_in_k && s->v_dim > s->k_dim))
        return 0;
    int64_t layer = part_bytes(s, s->k_dim) + (s->v_in_k ? 0 : part_bytes(s, s->v_dim));
    return layer > INT64_MAX / 4 / s->layers ? 0 : layer * s->layers;
}

int ash_kv_open(const ash_kv_shape *shape, int32_t blocks, ash_kv **out, ash_err *err)
{
    *out = NULL;
    int64_t bytes = ash_kv_block_bytes(shape);
    if (!bytes || blocks < 1 || blocks > INT64_MAX / bytes)
        return ash_err_set(err, ASH_EINVAL, "KV pool of %d blocks, %d layers, %d heads of %d and %d", blocks,
                           shape->layers, shape->kv_heads, shape->k_dim, shape->v_dim);
    ash_kv *kv = calloc(1, sizeof *kv);
    if (!kv)
        return ash_err_nomem(err, "KV pool");
    kv->refs = calloc((size_t)blocks, sizeof *kv->refs);
    void *mem = MAP_FAILED;
    if (kv->refs)
        mem = mmap(NULL, (size_t)(blocks * bytes), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mem == MAP_FAILED) {
        free(kv->refs);
        free(kv);
        return ash_err_nomem(err, "KV pool");
    }
    kv->shape = *shape;
    kv->blocks = kv->free = blocks;
    kv->block_bytes = bytes;
    kv->layer_bytes = bytes / shape->layers;
    kv->data = mem;
    *out = kv;
    return 0;
}

void ash_kv_close(ash_kv *kv)
{
    if (!kv)
        return;
    munmap(kv->data, (size_t)(kv->blocks * kv->block_bytes));
    free(kv->refs);
    free(kv);
}

int32_t ash_kv_take(ash_kv *kv)
{
    for (int32_t i = kv->lowest; i < kv->blocks; i++) {
        if (kv->refs[i])
            continue;
        kv->refs[i] = 1;
        kv->free--;
        kv->lowest = i + 1;
        return i;
    }
    kv->lowest = kv->blocks;
    return -1;
}

void ash_kv_share(ash_kv *kv, int32_t block)
{
    kv->refs[block]++;
}

void ash_kv_drop(ash_kv *kv, int32_t block)
{
    if (--kv->refs[block])
        return;
    kv->free++;
    if (block < kv->lowest)
        kv->lowest = block;
}

void ash_kv_copy(ash_kv *kv, int32_t to, int32_t from)
{
    memcpy(ash_kv_block(kv, to), ash_kv_block(kv, from), (size_t)kv->block_bytes);
}

void *ash_kv_block(const ash_kv *kv, int32_t block)
{
    return kv->data + block * kv->block_bytes;
}

typedef struct job {
    const ash_kernel *k;
    const ash_kv *kv;
    int layer;
    const ash_row *rows;
    const float *key, *value;
} job;

/* One token's keys and values of all heads into its block; heads of K follow each other with the same
 * stride. */
static void store_halves(const job *j, int at, const float *key, const float *value, uint16_t *k,
                         uint16_t *v)
{
    const ash_kv_shape *s = &j->kv->shape;
    uint16_t half[256];
    int total = s->kv_heads * s->k_dim;
    for (int c = 0; c < total; c += 256) {
        int n = total - c < 256 ? total - c : 256;
        j->k->to_f16(key + c, n, half);
        for (int e = 0; e < n; e++) k[(c + e) * ASH_KV_TOKENS + at] = half[e];
    }
    for (int h = 0; v && h < s->kv_heads; h++)
        j->k->to_f16(value + h * s->v_dim, s->v_dim, v + (h * ASH_KV_TOKENS + at) * s->v_dim);
}

static void store_floats(const job *j, int at, const float *key, const float *value, float *k, float *v)
{
    const ash_kv_shape *s = &j->kv->shape;
    for (int c = 0; c < s->kv_heads * s->k_dim; c++) k[c * ASH_KV_TOKENS + at] = key[c];
    for (int h = 0; v && h < s->kv_heads; h++)
        memcpy(v + (h * ASH_KV_TOKENS + at) * s->v_dim, value + h * s->v_dim,
               (size_t)s->v_dim * sizeof *v);
}

static void store(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    const ash_kv_shape *s = &j->kv->shape;
    for (int64_t i = begin; i < end; i++) {
        const ash_row *row = &j->rows[i];
        int at = row->pos % ASH_KV_TOKENS;
        uint8_t *k = (uint8_t *)ash_kv_block(j->kv, row->table[row->pos / ASH_KV_TOKENS]) +
                     j->layer * j->kv->layer_bytes;
        void *v = s->v_in_k ? NULL : k + part_bytes(s, s->k_dim);
        const float *key = j->key + i * s->kv_heads * s->k_dim;
        const float *value = s->v_in_k ? NULL : j->value + i * s->kv_heads * s->v_dim;
        if (s->type == ASH_KV_F32)
            store_floats(j, at, key, value, (float *)k, v);
        else
            store_halves(j, at, key, value, (uint16_t *)k, v);
    }
}

void ash_kv_store(ash_nn *nn, ash_kv *kv, int layer, const ash_row *rows, int n, const float *k,
                  const float *v)
{
    job j = {.k = nn->k, .kv = kv, .layer = layer, .rows = rows, .key = k, .value = v};
    ash_nn_rows(nn, n, 2 * (int64_t)kv->shape.kv_heads * (kv->shape.k_dim + kv->shape.v_dim), store, &j);
}
