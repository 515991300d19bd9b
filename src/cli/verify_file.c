/* Owns the check of a file's bytes: hashes, and elements that are no finite numbers. A window of
 * the file is hashed by one thread of the pool while the others look at its tensors; then its pages
 * are given back. */
#include "cli/verify.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/libcrypto.h"
#include "quant/decode.h"

enum {
    WINDOW = 32 << 20,
    PIECE = 2 << 20,   /* of a window, checked by one call */
    DECODE = 256 * 16, /* elements decoded at once: whole blocks of every type */
    RUN = 256,         /* elements looked at together: a loop that the compiler widens */
};

/* ---- hashes -------------------------------------------------------------------------------------
 */

typedef struct digest {
    ash_libcrypto lib;
    EVP_MD_CTX *ctx; /* NULL: no hash is wanted */
} digest;

ash_verify_hash ash_verify_hub_hash(const char *path)
{
    char target[4096];
    ash_verify_hash h = {.from = "the hub cache"};
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n <= 0) return h;
    target[n] = 0;
    const char *slash = strrchr(target, '/');
    size_t len = slash ? strlen(slash + 1) : 0;
    if (!slash || !strstr(target, "blobs/") || strspn(slash + 1, "0123456789abcdef") != len)
        return h;
    if (len == 64) h.kind = ASH_VERIFY_SHA256;
    if (len == 40) h.kind = ASH_VERIFY_GIT;
    if (h.kind) memcpy(h.hex, slash + 1, len + 1);
    return h;
}

static int hash_begin(const ash_verify_hash *h, uint64_t size, digest *d, ash_err *err)
{
    char head[40];
    *d = (digest){0};
    if (!h->kind) return 0;
    int rc = ash_libcrypto_open(&d->lib, err);
    if (rc) return rc;
    d->ctx = d->lib.ctx_new();
    int n = snprintf(head, sizeof head, "blob %llu", (unsigned long long)size);
    bool git = h->kind == ASH_VERIFY_GIT;
    if (!d->ctx || d->lib.init(d->ctx, git ? d->lib.sha1() : d->lib.sha256(), NULL) != 1 ||
        (git && d->lib.update(d->ctx, head, (size_t)n + 1) != 1))
        return ash_err_nomem(err, "a hash");
    return 0;
}

static int hash_end(const ash_verify_job *j, const digest *d, ash_err *err)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    char hex[2 * EVP_MAX_MD_SIZE + 1] = "";
    if (!d->ctx) return 0;
    if (d->lib.final(d->ctx, sum, &n) != 1) return ash_err_nomem(err, "a hash");
    for (unsigned i = 0; i < n; i++) snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    if (!strcmp(hex, j->hash.hex)) return 0;
    return ash_err_set(err, ASH_EFORMAT, "%s: the %s is %s, but %s says %s", j->path,
                       j->hash.kind == ASH_VERIFY_GIT ? "git hash" : "SHA-256", hex, j->hash.from,
                       j->hash.hex);
}

/* ---- elements -----------------------------------------------------------------------------------
 */

static bool bad16(const uint8_t *p, uint64_t n, unsigned exponent)
{
    unsigned bad = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint16_t v;
        memcpy(&v, p + 2 * i, 2);
        bad |= (v & exponent) == exponent;
    }
    return bad;
}

static bool bad32(const uint8_t *p, uint64_t n)
{
    unsigned bad = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, p + 4 * i, 4);
        bad |= (v & 0x7F800000) == 0x7F800000;
    }
    return bad;
}

static bool bad64(const uint8_t *p, uint64_t n)
{
    unsigned bad = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t v;
        memcpy(&v, p + 8 * i, 8);
        bad |= (v >> 52 & 0x7FF) == 0x7FF;
    }
    return bad;
}

static bool bad_e4m3(const uint8_t *p, uint64_t n)
{
    unsigned bad = 0;
    for (uint64_t i = 0; i < n; i++) bad |= (p[i] & 0x7F) == 0x7F;
    return bad;
}

/* Whether one of n elements of a plain type is not finite. */
static bool bad_plain(ash_dtype t, const uint8_t *p, uint64_t n)
{
    switch (t) {
    case ASH_DTYPE_F16:
        return bad16(p, n, 0x7C00);
    case ASH_DTYPE_BF16:
        return bad16(p, n, 0x7F80);
    case ASH_DTYPE_F32:
        return bad32(p, n);
    case ASH_DTYPE_F64:
        return bad64(p, n);
    case ASH_DTYPE_F8_E4M3:
        return bad_e4m3(p, n);
    default:
        return false;
    }
}

/* The first of n elements that is not finite; n if all are. */
static uint64_t scan_plain(ash_dtype t, const uint8_t *p, uint64_t n)
{
    uint64_t size = ash_dtype_get(t)->block_bytes;
    for (uint64_t i = 0; i < n; i += RUN) {
        uint64_t m = n - i < RUN ? n - i : RUN;
        if (!bad_plain(t, p + i * size, m)) continue;
        while (!bad_plain(t, p + i * size, 1)) i++;
        return i;
    }
    return n;
}

static uint64_t scan_blocks(ash_dtype t, const uint8_t *p, uint64_t n)
{
    float y[DECODE];
    const ash_dtype_info *info = ash_dtype_get(t);
    for (uint64_t i = 0; i < n; i += DECODE) {
        uint64_t m = n - i < DECODE ? n - i : DECODE;
        ash_quant_decode(t, p + i / info->block * info->block_bytes, (int64_t)m, y);
        for (uint64_t k = 0; k < m; k++)
            if (!isfinite(y[k])) return i + k;
    }
    return n;
}

/* The same of any type; n is a multiple of its block. */
static uint64_t scan(ash_dtype t, const uint8_t *p, uint64_t n)
{
    if (ash_dtype_get(t)->block == 1) return scan_plain(t, p, n);
    return ash_quant_supported(t) ? scan_blocks(t, p, n) : n;
}

/* One file, window after window. */
typedef struct pass {
    const ash_verify_job *job;
    const ash_map *map;
    digest hash;
    uint64_t at, end;        /* the window */
    _Atomic(uint64_t) bad;   /* tensor of the first bad element found, + 1 */
    _Atomic(uint64_t) where; /* its number in the tensor */
} pass;

static void report(pass *p, size_t tensor, uint64_t element)
{
    uint64_t none = 0;
    if (atomic_compare_exchange_strong(&p->bad, &none, tensor + 1))
        atomic_store(&p->where, element);
}

/* Blocks of all tensors that begin in [from, to) of the file. */
static void check_piece(pass *p, uint64_t from, uint64_t to)
{
    const ash_tensor_index *idx = p->job->index;
    for (size_t i = 0; i < idx->n_tensors; i++) {
        const ash_tensor *t = &idx->tensors[i];
        if (t->file != p->job->file || t->strides || t->offset >= to ||
            t->offset + t->bytes <= from)
            continue;
        const ash_dtype_info *info = ash_dtype_get(t->dtype);
        uint64_t unit = info->block_bytes, n = t->bytes / unit;
        uint64_t first = from > t->offset ? (from - t->offset + unit - 1) / unit : 0;
        uint64_t last = (to - t->offset + unit - 1) / unit;
        last = last < n ? last : n;
        if (first >= last) continue;
        uint64_t count = (last - first) * info->block;
        uint64_t bad = scan(t->dtype, p->map->data + t->offset + first * unit, count);
        if (bad < count) report(p, i, first * info->block + bad);
    }
}

static void check_part(void *arg, int64_t begin, int64_t end, int worker)
{
    pass *p = arg;
    for (int64_t i = begin; i < end; i++) {
        if (!i) {
            if (p->hash.ctx) p->hash.lib.update(p->hash.ctx, p->map->data + p->at, p->end - p->at);
            continue;
        }
        uint64_t from = p->at + (uint64_t)(i - 1) * PIECE, to = from + PIECE;
        if (p->job->index) check_piece(p, from, to < p->end ? to : p->end);
    }
}

/* Views that are not dense lie where their strides say: row by row. */
static int check_views(pass *p, ash_err *err)
{
    const ash_tensor_index *idx = p->job->index;
    for (size_t i = 0; idx && i < idx->n_tensors && !atomic_load(&p->bad); i++) {
        const ash_tensor *t = &idx->tensors[i];
        if (t->file != p->job->file || !t->strides || !t->bytes) continue;
        uint64_t rows = t->n_dims > 1 ? t->dims[0] : 1, row = ash_tensor_count(t) / rows;
        void *buf = malloc(t->bytes / rows);
        if (!buf) return ash_err_nomem(err, t->name);
        for (uint64_t r = 0; r < rows; r++) {
            uint64_t bad = scan(t->dtype, ash_tensor_rows(idx, t, r, 1, buf), row);
            if (bad < row) report(p, i, r * row + bad);
        }
        free(buf);
    }
    return 0;
}

static int run(pass *p, ash_err *err)
{
    const ash_verify_job *j = p->job;
    for (p->at = 0; p->at < p->map->size; p->at = p->end) {
        if (atomic_load(j->cancel)) return ash_err_set(err, ASH_ECANCELED, "interrupted");
        p->end = p->map->size - p->at < WINDOW ? p->map->size : p->at + WINDOW;
        uint8_t *data = (uint8_t *)p->map->data + p->at; /* WINDOW is whole pages */
        madvise(data, p->end - p->at, MADV_WILLNEED);
        ash_pool_run(j->pool, 1 + (int64_t)((p->end - p->at + PIECE - 1) / PIECE), 1, check_part,
                     p);
        madvise(data, p->end - p->at, MADV_DONTNEED);
        if (j->progress) j->progress(j->user, p->end - p->at);
        if (atomic_load(&p->bad)) break; /* the hash of the rest would tell no more */
    }
    int rc = check_views(p, err);
    uint64_t bad = atomic_load(&p->bad);
    if (!rc && bad)
        return ash_err_set(
            err, ASH_EFORMAT, "%s: tensor '%.200s': element %llu is no finite number", j->path,
            j->index->tensors[bad - 1].name, (unsigned long long)atomic_load(&p->where));
    return rc ? rc : hash_end(j, &p->hash, err);
}

int ash_verify_file(const ash_verify_job *job, ash_err *err)
{
    ash_map own = {.fd = -1};
    pass p = {.job = job, .map = &own};
    int rc = 0;
    if (job->index)
        p.map = &job->index->files[job->file].map;
    else
        rc = ash_fs_map(job->path, &own, err);
    if (!rc) rc = hash_begin(&job->hash, p.map->size, &p.hash, err);
    if (!rc) rc = run(&p, err);
    if (p.hash.ctx) p.hash.lib.ctx_free(p.hash.ctx);
    ash_fs_unmap(&own);
    return rc;
}
