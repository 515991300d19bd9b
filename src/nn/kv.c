/* Owns the pool of KV blocks and their layout. Refuses shapes that overflow. One thread at a time. */
#include "nn/kv.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "nn/scratch.h"

/* Bytes of K (or V) of one layer in one block, on 64 bytes. */
static int64_t part_bytes(const ash_kv_shape *s, int dim)
{
    return s->kv_heads * ash_kv_part_bytes(s->type, dim);
}

int64_t ash_kv_block_bytes(const ash_kv_shape *s)
{
    enum { MOST = 1 << 16 };
    if (s->layers < 1 || s->layers > MOST || s->kv_heads < 1 || s->kv_heads > MOST || s->k_dim < 1 ||
        s->k_dim > MOST || s->v_dim < 1 || s->v_dim > MOST ||
        (s->v_in_k && (s->v_dim > s->k_dim || s->type == ASH_KV_Q8)))
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

void ash_kv_give_back(ash_kv *kv, int32_t block, bool before_is_empty, bool after_is_empty)
{
    int64_t page = sysconf(_SC_PAGESIZE), from = block * kv->block_bytes, to = from + kv->block_bytes;
    bool wide = kv->block_bytes >= page; /* else a page is of more than two blocks */
    from += page - 1;
    from -= from % page;
    if (wide && before_is_empty && from > block * kv->block_bytes)
        from -= page;
    if (block == kv->blocks - 1 || (wide && after_is_empty))
        to += page - 1;
    to -= to % page;
    if (from < to)
        madvise(kv->data + from, (size_t)(to - from), MADV_DONTNEED);
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

/* x [n] as q d, each q to its byte at to[c * stride], or for keys to its place among quads. */
static void store_bytes(const float *x, int n, uint8_t *to, int64_t stride, bool key, float *d)
{
    float most = 0, all = 0;
    for (int c = 0; c < n; c++) {
        most = fmaxf(most, fabsf(x[c]));
        all += 0.0f * x[c]; /* NaN unless all are finite */
    }
    bool finite = all == 0.0f;
    float inv = finite && most >= FLT_MIN ? 127.0f / most : 0.0f; /* which is at most 1.1e40 */
    inv = inv <= FLT_MAX ? inv : 0.0f;
    *d = finite ? inv > 0.0f ? most / 127.0f : 0.0f : NAN;
    for (int c = 0; c < n; c++) {
        int q = finite ? (int)nearbyintf(x[c] * inv) : 0;
        if (key)
            to[c / 4 * stride + c % 4] = (uint8_t)(q + 128);
        else
            to[c * stride] = (uint8_t)q;
    }
}

static void store_quads(const job *j, int at, const float *key, const float *value, uint8_t *k, uint8_t *v)
{
    const ash_kv_shape *s = &j->kv->shape;
    for (int h = 0; h < s->kv_heads; h++) {
        float *d = (float *)(k + ash_kv_q8_bytes(s->k_dim));
        store_bytes(key + h * s->k_dim, s->k_dim, k + at * 4, 4 * ASH_KV_TOKENS, true, d + at);
        k += ash_kv_part_bytes(ASH_KV_Q8, s->k_dim);
        d = (float *)(v + ash_kv_q8_bytes(s->v_dim));
        store_bytes(value + h * s->v_dim, s->v_dim, v + at / 4 * s->v_dim * 4 + at % 4, 4, false, d + at);
        v += ash_kv_part_bytes(ASH_KV_Q8, s->v_dim);
    }
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
        else if (s->type == ASH_KV_Q8)
            store_quads(j, at, key, value, k, v);
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
