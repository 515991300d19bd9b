/* Owns descriptors of a checkpoint's files until their content is known, and the thread that looks. Refuses
 * nothing: what fails is logged and done without. open, start, close: one thread; key: any. */
#include "engine/packs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/idle.h"
#include "base/log.h"
#include "engine/pack_room.h"

typedef struct source {
    int fd; /* owned until its content is known, else -1 */
    ash_file_id id;
    bool stable;  /* the id stands for the content that was mapped */
    bool summed;  /* sum is there */
    bool learned; /* by reading: worth a record */
    uint8_t sum[ASH_SHA256_BYTES];
} source;

struct ash_packs {
    char *dir; /* STATE/packs */
    source *sources;
    size_t n_sources;
    uint8_t layout[ASH_SHA256_BYTES]; /* of configuration, packing version and places */
    uint8_t key[ASH_SHA256_BYTES];
    atomic_bool has_key;
    pthread_t thread;
    bool started;
    atomic_bool stop;
    uint64_t budget, bytes; /* of the folder; of the region */
    ash_pack_file file;     /* what is mapped */
    const void *region;     /* borrowed: to be written */
};

/* ---- the key -------------------------------------------------------------------------------- */

static void add_number(ash_sha256 *h, uint64_t v)
{
    ash_sha256_add(h, &v, sizeof v);
}

static void add_text(ash_sha256 *h, const char *s)
{
    ash_sha256_add(h, s, strlen(s) + 1);
}

static int add_json(ash_sha256 *h, const json_t *v, ash_err *err)
{
    char *text = v ? json_dumps(v, JSON_SORT_KEYS | JSON_COMPACT | JSON_ENCODE_ANY) : strdup("");
    if (!text) return ash_err_nomem(err, "a model's key");
    add_text(h, text);
    free(text);
    return 0;
}

/* Where everything lies and in which form. */
static void add_item(ash_sha256 *h, const ash_bind_item *it)
{
    add_text(h, it->tensor->name);
    const uint64_t numbers[] = {(uint64_t)it->rows, (uint64_t)it->cols, (uint64_t)it->first, it->offset,
                                it->bytes, it->transposed, it->decoded, it->optional, it->matrix != NULL,
                                it->gptq != NULL};
    ash_sha256_add(h, numbers, sizeof numbers);
    if (!it->matrix) return;
    const ash_packed *w = &it->matrix->w;
    const uint64_t packed[] = {(uint64_t)w->form, (uint64_t)w->dtype, (uint64_t)w->rows, (uint64_t)w->cols,
                               (uint64_t)w->groups, (uint64_t)w->group_bytes, (uint64_t)w->span, w->wide,
                               it->matrix->perm != NULL};
    ash_sha256_add(h, packed, sizeof packed);
}

static int sum_layout(const ash_checkpoint *files, const ash_net *net, uint8_t out[ASH_SHA256_BYTES],
                      ash_err *err)
{
    const ash_binding *b = &net->binding;
    ash_sha256 *h;
    int rc = ash_sha256_open(&h, err);
    if (rc) return rc;
    add_text(h, "ashley packed weights");
    add_number(h, ASH_PACK_VERSION);
    add_text(h, net->name);
    add_number(h, b->bytes);
    add_number(h, b->n_items);
    for (size_t i = 0; i < b->n_items; i++) add_item(h, &b->items[i]);
    if (!(rc = add_json(h, files->config, err)) && !(rc = add_json(h, files->quant, err)))
        rc = ash_sha256_sum(h, out, err);
    ash_sha256_close(h);
    return rc;
}

/* From the sums of all sources; without one of them there is no key. */
static int make_key(ash_packs *p, ash_err *err)
{
    for (size_t i = 0; i < p->n_sources; i++)
        if (!p->sources[i].summed) return 0;
    ash_sha256 *h;
    int rc = ash_sha256_open(&h, err);
    if (rc) return rc;
    ash_sha256_add(h, p->layout, sizeof p->layout);
    for (size_t i = 0; i < p->n_sources; i++) ash_sha256_add(h, p->sources[i].sum, ASH_SHA256_BYTES);
    rc = ash_sha256_sum(h, p->key, err);
    ash_sha256_close(h);
    if (!rc) atomic_store_explicit(&p->has_key, true, memory_order_release);
    return rc;
}

/* ---- what the checkpoint is made of --------------------------------------------------------- */

static void close_source(source *s)
{
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}

/* The id of a file that is read from now on. One that was written just now, as by a fetch that the load
 * waited for, is given the tick after which it stands for content; not the seconds of a coarse file system,
 * or of a time that lies ahead. */
static bool settled_id(int fd, ash_file_id *id)
{
    enum { MOST_NS = 100000000 };
    if (ash_file_id_read(fd, id, NULL)) return false;
    int64_t ns = ash_file_id_young_ns(id);
    if (!ns || ns > MOST_NS) return !ns;
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
    return !ash_file_id_read(fd, id, NULL) && !ash_file_id_young_ns(id);
}

static void look_at(source *s, const ash_tensor_file *file, const ash_known_list *known)
{
    *s = (source){.fd = -1};
    if (file->map.fd < 0) return;
    s->stable = settled_id(file->map.fd, &s->id) && s->id.size == file->map.size;
    if (!s->stable) return;
    const ash_known *k = ash_known_find(known, ASH_KNOWN_CONTENT, &s->id);
    if (k) memcpy(s->sum, k->sum, sizeof s->sum);
    s->summed = k || ash_file_id_hub(file->path, s->sum);
    if (!s->summed) s->fd = fcntl(file->map.fd, F_DUPFD_CLOEXEC, 0);
}

int ash_packs_open(const char *state_dir, uint64_t budget, const ash_checkpoint *files, const ash_net *net,
                   ash_packs **out, ash_err *err)
{
    *out = NULL;
    if (!state_dir) return 0;
    const ash_tensor_index *index = files->tensors;
    ash_known_list known = {0};
    ash_packs *p = calloc(1, sizeof *p);
    if (!p) return ash_err_nomem(err, "packs");
    p->file.fd = -1;
    p->budget = budget - budget / 4; /* a quarter is for keys and values (engine/kv_folder.h) */
    p->bytes = net->binding.bytes;
    p->dir = ash_fs_join(state_dir, "packs");
    p->sources = calloc(index->n_files, sizeof *p->sources);
    int rc = p->dir && p->sources ? ash_known_read(p->dir, &known, err) : ash_err_nomem(err, "packs");
    if (!rc) rc = sum_layout(files, net, p->layout, err);
    if (!rc) {
        p->n_sources = index->n_files;
        for (size_t i = 0; i < index->n_files; i++) look_at(&p->sources[i], &index->files[i], &known);
        rc = make_key(p, err);
    }
    ash_known_release(&known);
    if (rc) {
        ash_packs_close(p);
        return rc;
    }
    *out = p;
    return 0;
}

const uint8_t *ash_packs_key(const ash_packs *p)
{
    return p && atomic_load_explicit(&p->has_key, memory_order_acquire) ? p->key : NULL;
}

/* ---- the pack file -------------------------------------------------------------------------- */

static char *file_path(const ash_packs *p)
{
    char hex[2 * ASH_SHA256_BYTES + 1], name[80];
    snprintf(name, sizeof name, "%s.pack", ash_sha256_hex(p->key, hex));
    return ash_fs_join(p->dir, name);
}

/* Opens the file of the key, verified. */
static int open_file(const ash_packs *p, ash_pool *pool, const atomic_bool *cancel, ash_pack_file *f,
                     ash_err *err)
{
    ash_known_list known = {0};
    char *path = file_path(p);
    *f = (ash_pack_file){.fd = -1};
    int rc = path ? ash_pack_file_open(path, p->key, p->bytes, f, err) : ash_err_nomem(err, "a pack file");
    if (!rc) rc = ash_known_read(p->dir, &known, err);
    if (!rc && (!ash_known_find(&known, ASH_KNOWN_PACK, &f->id) || ash_file_id_young_ns(&f->id)))
        rc = ash_pack_file_verify(f, p->bytes, pool, cancel, err);
    ash_known_release(&known);
    if (rc && rc != ASH_ENOENT && rc != ASH_ECANCELED) {
        ash_err own = ASH_ERR_INIT;
        ash_err_set(&own, rc, "%s", err->msg);
        ash_err_set(err, rc, "%s %s", path ? path : "a pack file", own.msg);
    }
    if (rc) ash_pack_file_close(f);
    free(path);
    return rc;
}

void *ash_packs_map(ash_packs *p, ash_pool *pool, const atomic_bool *cancel)
{
    ash_err err = ASH_ERR_INIT;
    if (!ash_packs_key(p)) return NULL;
    int rc = open_file(p, pool, cancel, &p->file, &err);
    if (rc && rc != ASH_ENOENT && rc != ASH_ECANCELED)
        ash_warn("packs", "packed again: %s", err.msg);
    return rc ? NULL : p->file.map;
}

bool ash_packs_present(const ash_packs *p)
{
    struct stat st;
    uint64_t bytes;
    if (!ash_packs_key(p) || !ash_pack_file_size(p->bytes, &bytes)) return false;
    char *path = file_path(p);
    bool there = path && !stat(path, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size == bytes;
    free(path);
    return there;
}

bool ash_packs_lost(const ash_packs *p)
{
    return p && p->file.lost && atomic_load_explicit(p->file.lost, memory_order_acquire);
}

void ash_packs_reject(ash_packs *p, const char *why)
{
    ash_warn("packs", "packed again: the pack file does not do: %s", why);
    ash_pack_file_close(&p->file);
}

/* ---- in the background ---------------------------------------------------------------------- */

/* What the folder's writers have in common: in the background they end with the model, in a load with its
 * cancellation. */
typedef struct writer {
    ash_packs *p;
    const atomic_bool *stop;     /* or NULL */
    const ash_pack_maker *maker; /* or NULL: p->region is written */
} writer;

static bool stopped(const writer *w)
{
    return w->stop && atomic_load_explicit(w->stop, memory_order_relaxed);
}

/* Takes the folder's lock for writing, waiting for others. Returns a descriptor, or -1: told, or stopped. */
static int lock_dir(const writer *w)
{
    const ash_packs *p = w->p;
    ash_err err = ASH_ERR_INIT;
    char *path = ash_fs_join(p->dir, "lock");
    if (!path || ash_fs_mkdirs(p->dir, &err)) {
        ash_warn("packs", "no packs are kept: %s", path ? err.msg : "out of memory");
        free(path);
        return -1;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) ash_warn("packs", "no packs are kept: cannot open '%s': %s", path, strerror(errno));
    free(path);
    while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB)) {
        const struct timespec pause = {.tv_nsec = 10000000};
        if (!stopped(w) && (errno == EWOULDBLOCK || errno == EINTR)) {
            nanosleep(&pause, NULL);
            continue;
        }
        close(fd);
        fd = -1;
    }
    return fd;
}

/* Sums what is not known yet. */
static int learn(const writer *w, ash_err *err)
{
    ash_packs *p = w->p;
    for (size_t i = 0; i < p->n_sources; i++) {
        source *s = &p->sources[i];
        if (s->summed) continue;
        if (!s->stable || s->fd < 0)
            return ash_err_set(err, ASH_EAGAIN, "a file of the checkpoint has just been written");
        int rc = ash_file_id_hash(s->fd, &s->id, w->stop, w->maker ? w->maker->moved : NULL,
                                  w->maker ? w->maker->user : NULL, s->sum, err);
        close_source(s);
        if (rc) return rc;
        s->summed = s->learned = true;
    }
    return ash_packs_key(p) ? 0 : make_key(p, err);
}

static ash_known record(const ash_file_id *id, ash_known_kind kind, const uint8_t sum[ASH_SHA256_BYTES])
{
    ash_known k = {.id = *id, .used_s = (uint64_t)time(NULL), .kind = (uint32_t)kind};
    memcpy(k.sum, sum, sizeof k.sum);
    return k;
}

/* Records what was learned, for the next start. */
static int remember(const ash_packs *p, ash_err *err)
{
    ash_known *v = calloc(p->n_sources + 1, sizeof *v);
    if (!v) return ash_err_nomem(err, "known files");
    size_t n = 0;
    for (size_t i = 0; i < p->n_sources; i++) {
        const source *s = &p->sources[i];
        if (!s->learned) continue;
        v[n++] = record(&s->id, ASH_KNOWN_CONTENT, s->sum);
    }
    if (p->file.map) v[n++] = record(&p->file.id, ASH_KNOWN_PACK, p->key);
    int rc = n ? ash_known_add(p->dir, v, n, err) : 0;
    free(v);
    return rc;
}

/* Writes the pack, unless another process has. The folder's lock is held. */
static int keep(const writer *w, ash_err *err)
{
    const ash_packs *p = w->p;
    uint64_t file_bytes;
    ash_pack_file f;
    ash_file_id id;
    ash_known_list known = {0};
    if (p->file.map || p->bytes < ASH_PACK_LEAST || !ash_pack_file_size(p->bytes, &file_bytes)) return 0;
    int rc = open_file(p, NULL, w->stop, &f, err);
    if (!rc) ash_pack_file_close(&f);
    if (!rc || rc == ASH_ECANCELED) return rc;
    char *path = file_path(p);
    if (!path) return ash_err_nomem(err, "a pack file");
    unlink(path); /* what is there does not do */
    if (!(rc = ash_known_read(p->dir, &known, err)) &&
        !(rc = ash_pack_room(p->dir, p->budget, file_bytes, &known, err)) &&
        !(rc = w->maker ? ash_pack_file_make(path, p->key, p->bytes, w->maker, w->stop, &id, err)
                        : ash_pack_file_write(path, p->key, p->region, p->bytes, w->stop, &id, err))) {
        const ash_known k = record(&id, ASH_KNOWN_PACK, p->key);
        rc = ash_known_add(p->dir, &k, 1, err);
    }
    if (!rc)
        ash_info("packs", "the packed weights are kept in %s (%.2f GB)", path, (double)file_bytes * 1e-9);
    ash_known_release(&known);
    free(path);
    return rc;
}

static void *work(void *arg)
{
    ash_packs *p = arg;
    const writer w = {.p = p, .stop = &p->stop};
    ash_err err = ASH_ERR_INIT;
    ash_idle_enter();
    int rc = learn(&w, &err);
    int lock = rc ? -1 : lock_dir(&w);
    if (lock >= 0) {
        rc = remember(p, &err);
        if (!rc) rc = keep(&w, &err);
        close(lock);
    }
    if (rc && rc != ASH_ECANCELED) ash_warn("packs", "not kept for the next start: %s", err.msg);
    return NULL;
}

void ash_packs_start(ash_packs *p, const void *region)
{
    if (!p || p->started) return;
    p->region = region;
    p->started = !pthread_create(&p->thread, NULL, work, p);
    if (!p->started) ash_warn("packs", "no thread for the packs of this model");
}

uint64_t ash_packs_unknown(const ash_packs *p)
{
    uint64_t sum = 0;
    for (size_t i = 0; p && i < p->n_sources; i++) sum += p->sources[i].summed ? 0 : p->sources[i].id.size;
    return sum;
}

/* Before the long reading that tells which file it would be: whether there can be one. */
static int check_room(const ash_packs *p, ash_err *err)
{
    uint64_t bytes;
    if (ash_packs_key(p) || !ash_pack_file_size(p->bytes, &bytes)) return 0;
    return ash_pack_fits(p->dir, p->budget, bytes, err);
}

static int make_file(const writer *w, ash_pool *pool, ash_err *err)
{
    ash_packs *p = w->p;
    int lock = lock_dir(w);
    if (lock < 0)
        return ash_err_set(err, stopped(w) ? ASH_ECANCELED : ASH_EIO, "'%s' cannot be written", p->dir);
    if (remember(p, NULL)) ash_debug("packs", "what the files are could not be recorded");
    int rc = keep(w, err);
    if (!rc) rc = open_file(p, pool, w->stop, &p->file, err);
    close(lock);
    return rc;
}

int ash_packs_need(ash_packs *p, ash_pool *pool, const ash_pack_maker *maker, const atomic_bool *cancel,
                   int *direct, ash_err *err)
{
    const writer w = {.p = p, .stop = cancel, .maker = maker};
    ash_err own = ASH_ERR_INIT;
    *direct = -1;
    if (!p) return ash_err_set(err, ASH_ENOENT, "weights larger than memory need a state folder");
    int rc = check_room(p, &own);
    if (!rc) rc = learn(&w, &own);
    if (!rc && !p->file.map) rc = open_file(p, pool, cancel, &p->file, &own);
    if (rc && rc != ASH_ECANCELED && ash_packs_key(p)) rc = make_file(&w, pool, &own); /* none that does */
    if (rc == ASH_ENOSPC || rc == ASH_EIO)
        return ash_err_set(err, rc == ASH_EIO ? rc : ASH_EDISK,
                           "larger than its room, it needs a pack file in '%.150s': %.250s", p->dir, own.msg);
    if (rc) return ash_err_set(err, rc, "%s", own.msg);
    *direct = ash_pack_file_direct(&p->file);
    return *direct < 0 ? ash_err_set(err, ASH_EIO, "the pack file cannot be opened again") : 0;
}

void ash_packs_wait(ash_packs *p)
{
    if (p && p->started) pthread_join(p->thread, NULL);
    if (p) p->started = false;
}

void ash_packs_close(ash_packs *p)
{
    if (!p) return;
    atomic_store(&p->stop, true);
    ash_packs_wait(p);
    for (size_t i = 0; i < p->n_sources; i++) close_source(&p->sources[i]);
    ash_pack_file_close(&p->file);
    free(p->sources);
    free(p->dir);
    free(p);
}
