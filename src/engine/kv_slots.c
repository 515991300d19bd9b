/* Owns the file of slots, its index and the thread that reads and writes it. Refuses files of other
 * keys: they begin anew. The index is the caller's thread's; operations go to the store's thread
 * through a ring. */
#include "engine/kv_slots.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/fs.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/pages.h"
#include "base/sha256.h"
#include "engine/kv_folder.h"

enum {
    ALIGN = 4096,
    ENTRY = 64,
    VERSION = 1,
    LEAST_SLOTS = 8,
    RING = 16,               /* operations under way */
    STAGING = 8 << 20,       /* bytes of blocks that wait to be written, at least one */
    NONE = -1,
};
static const char magic[8] = "ASHLEYSL";
static const uint64_t data_at = ALIGN + (uint64_t)ENTRY * ASH_MAX_KV_SLOTS;

typedef struct slot {
    uint8_t name[ASH_KV_NAME];
    uint64_t age;  /* number of its writing; 0: empty */
    int32_t chain; /* next of its bucket */
} slot;

typedef struct op {
    int32_t slot;
    int staged;    /* a put's buffer; NONE: a get */
    void *to;      /* a get's */
    uint8_t name[ASH_KV_NAME];
    uint64_t age;
    bool ok;
} op;

struct ash_kv_slots {
    int fd;
    uint64_t block_bytes, stride;
    uint32_t block_tokens;
    uint8_t key[ASH_KV_NAME];
    ash_sha256 *sha;

    /* the caller's thread's */
    slot *slots;       /* [n_slots] */
    int32_t *buckets;  /* [n_buckets], a power of two */
    uint32_t n_slots, n_buckets, next;
    uint64_t age;      /* last one given */

    /* the store's thread's */
    uint64_t *sums;    /* [n_slots] */
    bool failed;       /* a write failed: told once */

    /* under the lock: done <= taken <= begun, all ascending; polled is the caller's */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    op ring[RING];
    uint64_t begun, done, polled;
    bool stop;
    uint8_t *staging;  /* [n_staging][block_bytes], mapped */
    int n_staging;
    bool *staged;      /* [n_staging], in use */
    void (*on_done)(void *user);
    void *user;
    pthread_t thread;
    bool started;
};

/* ---- the file ------------------------------------------------------------------------------- */

static void put64(uint8_t *at, uint64_t v)
{
    v = htole64(v);
    memcpy(at, &v, sizeof v);
}

static uint64_t get64(const uint8_t *at)
{
    uint64_t v;
    memcpy(&v, at, sizeof v);
    return le64toh(v);
}

/* All n bytes, or false. */
static bool transfer(int fd, bool writes, void *data, uint64_t n, uint64_t at)
{
    uint8_t *p = data;
    while (n) {
        ssize_t r = writes ? pwrite(fd, p, n, (off_t)at) : pread(fd, p, n, (off_t)at);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return false;
        p += r;
        at += (uint64_t)r;
        n -= (uint64_t)r;
    }
    return true;
}

static void make_head(const ash_kv_slots *s, uint8_t head[ENTRY])
{
    memset(head, 0, ENTRY);
    memcpy(head, magic, sizeof magic);
    head[8] = VERSION;
    memcpy(head + 16, s->key, ASH_KV_NAME);
    put64(head + 48, s->block_bytes);
    put64(head + 56, ash_checksum(head, 56));
}

static int32_t *bucket_of(const ash_kv_slots *s, const uint8_t *name)
{
    return &s->buckets[get64(name) & (s->n_buckets - 1)];
}

static int32_t find(const ash_kv_slots *s, const uint8_t *name)
{
    int32_t i = *bucket_of(s, name);
    while (i != NONE && memcmp(s->slots[i].name, name, ASH_KV_NAME) != 0) i = s->slots[i].chain;
    return i;
}

static void forget(ash_kv_slots *s, int32_t i)
{
    if (!s->slots[i].age)
        return;
    int32_t *at = bucket_of(s, s->slots[i].name);
    while (*at != i) at = &s->slots[*at].chain;
    *at = s->slots[i].chain;
    s->slots[i].age = 0;
}

static void remember(ash_kv_slots *s, int32_t i, const uint8_t *name, uint64_t age)
{
    int32_t *at = bucket_of(s, name);
    memcpy(s->slots[i].name, name, ASH_KV_NAME);
    s->slots[i].age = age;
    s->slots[i].chain = *at;
    *at = i;
}

static void make_entry(const uint8_t *name, uint64_t sum, uint64_t age, uint8_t entry[ENTRY])
{
    memcpy(entry, name, ASH_KV_NAME);
    put64(entry + 32, sum);
    put64(entry + 40, age);
    put64(entry + 48, 0);
    put64(entry + 56, ash_checksum(entry, 56));
}

/* The table of an earlier process; what is no entry is an empty slot. Of two with one name the later. */
static int read_table(ash_kv_slots *s, ash_err *err)
{
    uint64_t n = (uint64_t)s->n_slots * ENTRY;
    uint8_t *table = calloc(s->n_slots, ENTRY);
    if (!table)
        return ash_err_nomem(err, "KV slots");
    if (!transfer(s->fd, false, table, n, ALIGN))
        memset(table, 0, n);
    for (uint32_t i = 0; i < s->n_slots; i++) {
        const uint8_t *e = table + (size_t)i * ENTRY;
        uint64_t age = get64(e + 40);
        if (!age || age > INT64_MAX || get64(e + 56) != ash_checksum(e, 56))
            continue;
        int32_t other = find(s, e);
        if (other != NONE && s->slots[other].age >= age)
            continue;
        if (other != NONE)
            forget(s, other);
        remember(s, (int32_t)i, e, age);
        s->sums[i] = get64(e + 32);
        if (age > s->age) {
            s->age = age;
            s->next = (i + 1) % s->n_slots;
        }
    }
    free(table);
    return 0;
}

/* ---- the store's thread --------------------------------------------------------------------- */

static bool write_slot(ash_kv_slots *s, const op *o)
{
    uint8_t entry[ENTRY] = {0}, *data = s->staging + (uint64_t)o->staged * s->block_bytes;
    uint64_t at = ALIGN + (uint64_t)o->slot * ENTRY;
    s->sums[o->slot] = ash_checksum(data, s->block_bytes);
    if (!transfer(s->fd, true, entry, ENTRY, at) || /* nobody is to find the new block by the old name */
        !transfer(s->fd, true, data, s->block_bytes, data_at + (uint64_t)o->slot * s->stride))
        return false;
    make_entry(o->name, s->sums[o->slot], o->age, entry);
    return transfer(s->fd, true, entry, ENTRY, at);
}

static bool read_slot(ash_kv_slots *s, const op *o)
{
    return transfer(s->fd, false, o->to, s->block_bytes, data_at + (uint64_t)o->slot * s->stride) &&
           ash_checksum(o->to, s->block_bytes) == s->sums[o->slot];
}

static void *work(void *arg)
{
    ash_kv_slots *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->stop && s->done == s->begun) pthread_cond_wait(&s->wake, &s->lock);
        if (s->stop)
            break;
        op *o = &s->ring[s->done % RING];
        pthread_mutex_unlock(&s->lock);
        o->ok = o->staged == NONE ? read_slot(s, o) : write_slot(s, o);
        if (!o->ok && o->staged != NONE && !s->failed) {
            s->failed = true;
            ash_warn("engine", "evicted keys and values cannot be written: %s", strerror(errno));
        }
        pthread_mutex_lock(&s->lock);
        s->done++;
        void (*fn)(void *) = s->on_done;
        void *user = s->user;
        pthread_mutex_unlock(&s->lock);
        if (fn)
            fn(user);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- opening -------------------------------------------------------------------------------- */

static int lock_file(ash_kv_slots *s, const char *dir, ash_err *err)
{
    char hex[2 * ASH_SHA256_BYTES + 8];
    struct stat st;
    ash_sha256_hex(s->key, hex);
    memcpy(hex + 32, ".slots", 7); /* half of it names as surely */
    char *path = ash_fs_join(dir, hex);
    if (!path)
        return ash_err_nomem(err, "path of the KV slots");
    s->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int rc = 0;
    if (s->fd < 0)
        rc = ash_err_set(err, ASH_EIO, "cannot open '%s': %s", path, strerror(errno));
    else if (fstat(s->fd, &st) || !ash_fs_is_ours(&st))
        rc = ash_err_set(err, ASH_EAUTH, "'%s' belongs to another user", path);
    else if (flock(s->fd, LOCK_EX | LOCK_NB))
        rc = ash_err_set(err, ASH_EAGAIN, "'%s' is used by another process", path);
    free(path);
    return rc;
}

/* As many slots as a quarter of the share holds, or a half, a quarter... of it where other files are in
 * the way. */
static int size_file(ash_kv_slots *s, const ash_kv_slots_opts *o, ash_err *err)
{
    uint8_t want[ENTRY], head[ENTRY];
    struct stat st;
    make_head(s, want);
    bool known = transfer(s->fd, false, head, ENTRY, 0) && !memcmp(head, want, ENTRY);
    if (!known && (ftruncate(s->fd, 0) || !transfer(s->fd, true, want, ENTRY, 0)))
        return ash_err_set(err, ASH_EIO, "cannot write the file of KV slots: %s", strerror(errno));
    uint64_t bytes = o->share / 4, own = fstat(s->fd, &st) ? 0 : (uint64_t)st.st_size;
    int rc = ASH_ENOSPC;
    for (; rc == ASH_ENOSPC && bytes >= data_at + LEAST_SLOTS * s->stride; bytes /= 2) {
        uint64_t n = (bytes - data_at) / s->stride, end;
        s->n_slots = n < ASH_MAX_KV_SLOTS ? (uint32_t)n : ASH_MAX_KV_SLOTS;
        end = data_at + s->n_slots * s->stride;
        rc = end <= own ? 0 : ash_kv_folder_make_room(o->dir, o->share, end - own, true, err);
        if (!rc && ftruncate(s->fd, (off_t)end))
            rc = ash_err_set(err, ASH_EIO, "cannot size the file of KV slots: %s", strerror(errno));
    }
    return rc == ASH_ENOSPC ? ash_err_set(err, rc, "no disk for evicted keys and values") : rc;
}

static int reserve(ash_kv_slots *s, ash_err *err)
{
    for (s->n_buckets = 1; s->n_buckets < s->n_slots;) s->n_buckets *= 2;
    uint64_t n = STAGING / s->block_bytes;
    s->n_staging = n < 1 ? 1 : n > RING / 2 ? RING / 2 : (int)n;
    s->slots = calloc(s->n_slots, sizeof *s->slots);
    s->sums = calloc(s->n_slots, sizeof *s->sums);
    s->buckets = calloc(s->n_buckets, sizeof *s->buckets);
    s->staged = calloc((size_t)s->n_staging, sizeof *s->staged);
    if (!s->slots || !s->sums || !s->buckets || !s->staged)
        return ash_err_nomem(err, "KV slots");
    for (uint32_t i = 0; i < s->n_buckets; i++) s->buckets[i] = NONE;
    void *map = mmap(NULL, (uint64_t)s->n_staging * s->block_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return ash_err_nomem(err, "KV slots");
    s->staging = map;
    return 0;
}

uint64_t ash_kv_slots_untouched(const ash_kv_slots *s)
{
    return s ? ash_pages_untouched(s->staging, (uint64_t)s->n_staging * s->block_bytes) : 0;
}

int ash_kv_slots_open(const ash_kv_slots_opts *o, ash_kv_slots **out, ash_err *err)
{
    *out = NULL;
    if (o->block_bytes < 1 || o->block_bytes > INT64_MAX / 2 / ASH_MAX_KV_SLOTS || o->block_tokens < 1)
        return ash_err_set(err, ASH_EINVAL, "blocks of %llu bytes", (unsigned long long)o->block_bytes);
    ash_kv_slots *s = calloc(1, sizeof *s);
    if (!s)
        return ash_err_nomem(err, "KV slots");
    s->fd = -1;
    s->block_bytes = o->block_bytes;
    s->block_tokens = o->block_tokens;
    s->stride = (o->block_bytes + ALIGN - 1) / ALIGN * ALIGN;
    memcpy(s->key, o->key, sizeof s->key);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    int rc;
    if (!(rc = ash_sha256_open(&s->sha, err)) && !(rc = lock_file(s, o->dir, err)) &&
        !(rc = size_file(s, o, err)) && !(rc = reserve(s, err)) && !(rc = read_table(s, err))) {
        s->started = !pthread_create(&s->thread, NULL, work, s);
        rc = s->started ? 0 : ash_err_nomem(err, "the thread of the KV slots");
    }
    if (rc) {
        ash_kv_slots_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void ash_kv_slots_close(ash_kv_slots *s)
{
    if (!s)
        return;
    if (s->started) {
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    if (s->fd >= 0)
        close(s->fd);
    if (s->staging)
        munmap(s->staging, (uint64_t)s->n_staging * s->block_bytes);
    ash_sha256_close(s->sha);
    free(s->slots);
    free(s->sums);
    free(s->buckets);
    free(s->staged);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    free(s);
}

void ash_kv_slots_on_done(ash_kv_slots *s, void (*fn)(void *user), void *user)
{
    pthread_mutex_lock(&s->lock);
    s->on_done = fn;
    s->user = user;
    pthread_mutex_unlock(&s->lock);
}

/* ---- operations ----------------------------------------------------------------------------- */

void ash_kv_slots_name(ash_kv_slots *s, const uint8_t *before, const int32_t *ids,
                       uint8_t out[ASH_KV_NAME])
{
    uint8_t last[ASH_KV_NAME];
    memcpy(last, before ? before : s->key, sizeof last);
    memset(out, 0, ASH_KV_NAME); /* without memory for the sum: a name that nothing has */
    if (ash_sha256_reset(s->sha, NULL))
        return;
    ash_sha256_add(s->sha, last, sizeof last);
    ash_sha256_add(s->sha, ids, s->block_tokens * sizeof *ids);
    if (ash_sha256_sum(s->sha, out, NULL))
        memset(out, 0, ASH_KV_NAME);
}

static bool is_name(const uint8_t *name)
{
    static const uint8_t none[ASH_KV_NAME];
    return memcmp(name, none, sizeof none) != 0;
}

bool ash_kv_slots_has(const ash_kv_slots *s, const uint8_t name[ASH_KV_NAME])
{
    return is_name(name) && find(s, name) != NONE;
}

bool ash_kv_slots_is_fresh(const ash_kv_slots *s, const uint8_t name[ASH_KV_NAME])
{
    int32_t i = find(s, name);
    return i != NONE && s->age - s->slots[i].age < s->n_slots / 2;
}

/* The operation's place in the ring, or NULL; the lock is held on success. */
static op *begin(ash_kv_slots *s)
{
    pthread_mutex_lock(&s->lock);
    if (s->begun - s->polled < RING)
        return &s->ring[s->begun % RING];
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void submit(ash_kv_slots *s)
{
    s->begun++;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

bool ash_kv_slots_put(ash_kv_slots *s, const uint8_t name[ASH_KV_NAME], const void *data)
{
    int staged = 0;
    if (!is_name(name))
        return true;
    while (staged < s->n_staging && s->staged[staged]) staged++;
    op *o = staged < s->n_staging ? begin(s) : NULL;
    if (!o)
        return false;
    int32_t i = (int32_t)s->next, old = find(s, name);
    s->next = (s->next + 1) % s->n_slots;
    if (old != NONE)
        forget(s, old);
    forget(s, i);
    remember(s, i, name, ++s->age);
    s->staged[staged] = true;
    memcpy(s->staging + (uint64_t)staged * s->block_bytes, data, s->block_bytes);
    *o = (op){.slot = i, .staged = staged, .age = s->age};
    memcpy(o->name, name, ASH_KV_NAME);
    submit(s);
    return true;
}

bool ash_kv_slots_get(ash_kv_slots *s, const uint8_t name[ASH_KV_NAME], void *to)
{
    int32_t i = is_name(name) ? find(s, name) : NONE;
    op *o = i != NONE ? begin(s) : NULL;
    if (!o)
        return false;
    *o = (op){.slot = i, .staged = NONE, .to = to, .age = s->slots[i].age};
    submit(s);
    return true;
}

bool ash_kv_slots_poll(ash_kv_slots *s, bool *ok)
{
    for (;;) {
        pthread_mutex_lock(&s->lock);
        bool any = s->polled < s->done;
        op o = any ? s->ring[s->polled % RING] : (op){0};
        s->polled += any;
        pthread_mutex_unlock(&s->lock);
        if (!any)
            return false;
        if (!o.ok && s->slots[o.slot].age == o.age)
            forget(s, o.slot);
        if (o.staged == NONE) {
            *ok = o.ok;
            return true;
        }
        s->staged[o.staged] = false;
    }
}
