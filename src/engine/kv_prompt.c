/* Owns the thread that writes a prompt's file, and names files. Refuses nothing: logs it. One thread opens,
 * restores, keeps and closes. */
#include "engine/kv_prompt.h"

#include <link.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/idle.h"
#include "base/log.h"
#include "base/sha256.h"
#include "engine/kv_folder.h"

_Static_assert(ASH_KV_KEY == (int)ASH_SHA256_BYTES, "keys are SHA-256");

struct ash_kv_prompt {
    char *dir;
    uint64_t share; /* bytes that the folder may hold */
    const ash_model *model;
    ash_scheduler *scheduler;
    ash_kv_head head; /* its ids are owned; its key is set with the path */
    char *path;       /* NULL until the key is known */
    int32_t *blocks;  /* [blocks of the prompt] */
    pthread_t thread;
    bool started;
    atomic_bool stop;
};

/* ---- keys ----------------------------------------------------------------------------------- */

/* The linker's name of the program or library that this code is in: of another build kernels may compute
 * otherwise. */
static int add_build(struct dl_phdr_info *info, size_t size, void *arg)
{
    uintptr_t here = (uintptr_t)add_build;
    bool ours = false;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t at = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        ours |= info->dlpi_phdr[i].p_type == PT_LOAD && here >= at && here - at < info->dlpi_phdr[i].p_memsz;
    }
    for (int i = 0; ours && i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_NOTE)
            ash_sha256_add(arg, (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr),
                           info->dlpi_phdr[i].p_memsz);
    return ours;
}

int ash_kv_key(const ash_model *m, uint8_t out[ASH_KV_KEY], ash_err *err)
{
    const uint8_t *weights = ash_model_key(m);
    if (!weights)
        return ash_err_set(err, ASH_EAGAIN, "what the weights are is not known yet");
    ash_sha256 *h;
    int rc = ash_sha256_open(&h, err);
    if (rc)
        return rc;
    const ash_sizes *z = &m->sizes;
    const char *kernels = ash_kernel_get(z->nn.level)->name;
    const int64_t shape[] = {z->kv.layers, z->kv.kv_heads, z->kv.k_dim, z->kv.v_dim,
                             z->kv.type, z->kv.v_in_k, ASH_KV_TOKENS, ash_kv_block_bytes(&z->kv),
                             z->n_ctx, ash_net_fixed(m->net)};
    ash_sha256_add(h, weights, ASH_SHA256_BYTES);
    ash_sha256_add(h, ASHLEY_VERSION, sizeof ASHLEY_VERSION);
    ash_sha256_add(h, kernels, strlen(kernels) + 1);
    ash_sha256_add(h, shape, sizeof shape);
    dl_iterate_phdr(add_build, h);
    rc = ash_sha256_sum(h, out, err);
    ash_sha256_close(h);
    return rc;
}

/* Sets the head's key and the file's path, if the model's key is known. */
static int name_file(ash_kv_prompt *p, ash_err *err)
{
    uint8_t sum[ASH_SHA256_BYTES];
    char name[2 * ASH_SHA256_BYTES + 8];
    ash_sha256 *h;
    if (p->path)
        return 0;
    int rc = ash_kv_key(p->model, p->head.key, err);
    if (rc || (rc = ash_sha256_open(&h, err)))
        return rc;
    ash_sha256_add(h, p->head.key, sizeof p->head.key);
    ash_sha256_add(h, p->head.ids, p->head.n_ids * sizeof *p->head.ids);
    rc = ash_sha256_sum(h, sum, err);
    ash_sha256_close(h);
    if (rc)
        return rc;
    ash_sha256_hex(sum, name);
    memcpy(name + 32, ".kv", 4); /* half of it names as surely */
    p->path = ash_fs_join(p->dir, name);
    return p->path ? 0 : ash_err_nomem(err, "path of a KV file");
}

/* ---- restoring ------------------------------------------------------------------------------ */

typedef struct restoring {
    const ash_kv_prompt *p;
    const ash_kv_file *file;
    ash_pool *pool;
    ash_kv *kv;
    pthread_mutex_t lock;
    uint32_t good; /* blocks before the first that cannot be read, */
    ash_err err;   /* and why it cannot */
    size_t n;      /* tokens that are there */
} restoring;

/* Blocks of the file into theirs of the KV pool. */
static void read_blocks(void *arg, int64_t begin, int64_t end, int worker)
{
    restoring *r = arg;
    for (int64_t i = begin; i < end; i++) {
        ash_err err = ASH_ERR_INIT;
        if (!ash_kv_file_read(r->file, (size_t)i, ash_kv_block(r->kv, r->p->blocks[i]), &err))
            continue;
        pthread_mutex_lock(&r->lock);
        if (i < r->good) {
            r->good = (uint32_t)i;
            r->err = err;
        }
        pthread_mutex_unlock(&r->lock);
    }
}

/* On the scheduler's thread: all blocks into the pool at once, then one after the other into the prefix
 * cache, up to the first that is not there. */
static int restore_blocks(ash_prefix_cache *cache, ash_kv *kv, void *arg, ash_err *err)
{
    restoring *r = arg;
    const ash_kv_head *h = &r->p->head;
    int32_t *blocks = r->p->blocks, parent = -1;
    uint32_t n = 0, want = (uint32_t)ash_kv_head_blocks(h);
    while (n < want && (blocks[n] = ash_prefix_cache_take(cache, false)) >= 0) n++;
    r->kv = kv;
    r->good = n;
    ash_pool_run(r->pool, n, 1, read_blocks, r);
    for (uint32_t i = 0; i < r->good; i++) {
        const int32_t *ids = h->ids + (size_t)i * ASH_KV_TOKENS;
        uint32_t some = i + 1 < want ? ASH_KV_TOKENS : (uint32_t)(h->n_ids - (size_t)i * ASH_KV_TOKENS);
        if (some == ASH_KV_TOKENS)
            parent = blocks[i] = ash_prefix_cache_publish(cache, parent, blocks[i], ids, false);
        else
            ash_prefix_cache_publish_part(cache, parent, blocks[i], ids, some, false);
        r->n += some;
    }
    ash_prefix_cache_give(cache, blocks, n);
    if (r->good < n) return ash_err_set(err, r->err.code, "%s", r->err.msg);
    return n < want ? ash_err_set(err, ASH_ENOSPC, "no KV memory for %zu tokens", h->n_ids) : 0;
}

bool ash_kv_prompt_restore(ash_kv_prompt *p, ash_pool *pool)
{
    ash_err err = ASH_ERR_INIT;
    ash_kv_file file = {.fd = -1};
    restoring r = {.p = p, .file = &file, .pool = pool, .lock = PTHREAD_MUTEX_INITIALIZER};
    int64_t t = ash_clock_ns();
    int rc = name_file(p, &err);
    rc = rc ? rc : ash_kv_file_open(p->path, &p->head, &file, &err);
    rc = rc ? rc : ash_scheduler_call(p->scheduler, restore_blocks, &r, &err);
    ash_kv_file_close(&file);
    if (!rc)
        ash_info("engine", "%zu tokens of the warm prompt restored in %.1f ms", r.n,
                 (double)(ash_clock_ns() - t) / 1e6);
    else if (rc != ASH_EAGAIN && rc != ASH_ENOENT)
        ash_warn("engine", "the warm prompt is computed again: %s", err.msg);
    return !rc;
}

/* ---- keeping -------------------------------------------------------------------------------- */

typedef struct holding {
    const ash_kv_prompt *p;
    const void **data; /* [blocks of the prompt] */
    uint32_t n;        /* whole blocks, referenced */
    bool part;         /* the last, half full one is held too */
} holding;

/* On the scheduler's thread: all blocks of the prompt, which then neither change nor go. */
static int hold_blocks(ash_prefix_cache *cache, ash_kv *kv, void *arg, ash_err *err)
{
    holding *h = arg;
    const ash_kv_head *head = &h->p->head;
    int32_t *blocks = h->p->blocks;
    uint32_t whole = (uint32_t)(head->n_ids / ASH_KV_TOKENS), rest = (uint32_t)(head->n_ids % ASH_KV_TOKENS);
    h->n = ash_prefix_cache_extend(cache, -1, head->ids, whole, false, blocks);
    h->part = h->n == whole && rest &&
              ash_prefix_cache_nearest(cache, whole ? blocks[whole - 1] : -1,
                                       head->ids + (size_t)whole * ASH_KV_TOKENS, rest, false,
                                       &blocks[whole]) == rest;
    if (h->n < whole || (rest && !h->part)) {
        ash_prefix_cache_give(cache, blocks, h->n);
        h->n = 0;
        return ash_err_set(err, ASH_ENOENT, "other chats took its place");
    }
    if (h->part)
        ash_prefix_cache_hold(cache, blocks[h->n++]);
    for (uint32_t i = 0; i < h->n; i++) h->data[i] = ash_kv_block(kv, blocks[i]);
    return 0;
}

static int let_go(ash_prefix_cache *cache, ash_kv *kv, void *arg, ash_err *err)
{
    const holding *h = arg;
    ash_prefix_cache_give(cache, h->p->blocks, h->n);
    return 0;
}

static int write_file(ash_kv_prompt *p, ash_err *err)
{
    holding h = {.p = p, .data = calloc(ash_kv_head_blocks(&p->head), sizeof *h.data)};
    if (!h.data)
        return ash_err_nomem(err, "a KV file");
    int rc = ash_kv_folder_make_room(p->dir, p->share, ash_kv_head_bytes(&p->head), false,
                                     err);
    rc = rc ? rc : ash_scheduler_call(p->scheduler, hold_blocks, &h, err);
    if (!rc) {
        rc = ash_kv_file_write(p->path, &p->head, h.data, &p->stop, err);
        int gone = ash_scheduler_call(p->scheduler, let_go, &h, NULL);
        rc = rc ? rc : gone;
    }
    free(h.data);
    return rc;
}

static void *keep(void *arg)
{
    ash_kv_prompt *p = arg;
    ash_err err = ASH_ERR_INIT;
    int rc;
    ash_idle_enter();
    while ((rc = name_file(p, &err)) == ASH_EAGAIN && !atomic_load(&p->stop))
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    if (!rc)
        rc = write_file(p, &err);
    if (!rc)
        ash_debug("engine", "the warm prompt is kept in %s", p->path);
    else if (!atomic_load(&p->stop))
        ash_warn("engine", "the warm prompt is not kept for the next start: %s", err.msg);
    return NULL;
}

void ash_kv_prompt_keep(ash_kv_prompt *p)
{
    if (p->started)
        return;
    p->started = !pthread_create(&p->thread, NULL, keep, p);
    if (!p->started)
        ash_warn("engine", "no thread to keep the warm prompt");
}

/* ---- public --------------------------------------------------------------------------------- */

int ash_kv_prompt_open(const char *state_dir, uint64_t disk_budget, const ash_model *m, ash_scheduler *s,
                       const int32_t *ids, size_t n_ids, ash_kv_prompt **out, ash_err *err)
{
    *out = NULL;
    ash_kv_prompt *p = calloc(1, sizeof *p);
    if (!p)
        return ash_err_nomem(err, "a warm prompt");
    p->model = m;
    p->scheduler = s;
    p->head = (ash_kv_head){.block_tokens = ASH_KV_TOKENS,
                            .block_bytes = (uint64_t)ash_kv_block_bytes(&m->sizes.kv),
                            .n_ids = n_ids};
    int32_t *copy = malloc(n_ids * sizeof *copy);
    p->head.ids = copy;
    p->blocks = copy ? malloc(ash_kv_head_blocks(&p->head) * sizeof *p->blocks) : NULL;
    int rc = p->blocks ? ash_kv_folder_open(state_dir, &p->dir, err) : ash_err_nomem(err, "a warm prompt");
    if (rc) {
        ash_kv_prompt_close(p);
        return rc;
    }
    memcpy(copy, ids, n_ids * sizeof *copy);
    p->share = ash_kv_folder_share(p->dir, disk_budget);
    *out = p;
    return 0;
}

void ash_kv_prompt_close(ash_kv_prompt *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    if (p->started)
        pthread_join(p->thread, NULL);
    free((void *)p->head.ids);
    free(p->blocks);
    free(p->path);
    free(p->dir);
    free(p);
}
