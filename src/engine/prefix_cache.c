/* Owns the block numbers of one KV pool and the index over published blocks. Refuses nothing after
 * open: callers hold what they name. One thread at a time. */
#include "engine/prefix_cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

enum { NONE = -1 };

typedef enum list_id { LIST_EMPTY, LIST_SPARE, LIST_BACKGROUND, LIST_CHAT, LIST_COUNT } list_id;

typedef struct block {
    uint64_t serial; /* of this publication; 0: not published */
    uint64_t parent; /* serial of the block before it; 0: none */
    int32_t up;      /* that block's number, while it has that serial */
    uint32_t n;      /* tokens, while published; the whole block if it is in a bucket */
    uint32_t bucket; /* while published whole */
    int32_t chain;   /* next in the bucket */
    int32_t prev, next; /* in its list while nobody references it */
    uint32_t refs;
    bool chat;  /* a chat has used what is published here */
    bool saved; /* as ash_prefix_cache_mark_saved */
    bool memory;
} block;

/* Cached blocks least recently used first; free ones, with memory (spare) or without (empty), last freed
 * first. */
typedef struct list {
    int32_t head, tail;
    uint32_t n;
} list;

struct ash_prefix_cache {
    uint32_t n_blocks, block_tokens;
    uint32_t max_chat; /* most unreferenced blocks that chats' prefixes may hold */
    uint64_t serial;   /* last one given */
    uint64_t seed;     /* of the hash; no result depends on it */
    block *blocks;     /* [n_blocks] */
    int32_t *ids;      /* [n_blocks][block_tokens], the first n of published blocks */
    int32_t *buckets;  /* [n_buckets], a power of two; first block or NONE */
    uint32_t n_buckets;
    list lists[LIST_COUNT];
    uint32_t n_unsaved; /* whole blocks of LIST_CHAT that are not */
    uint32_t n_memory;  /* blocks that have memory */
    uint32_t least_spare; /* since ash_prefix_cache_unneeded was asked */
};

static void list_add_first(ash_prefix_cache *c, list_id which, int32_t b)
{
    list *l = &c->lists[which];
    c->blocks[b].prev = NONE;
    c->blocks[b].next = l->head;
    if (l->head == NONE)
        l->tail = b;
    else
        c->blocks[l->head].prev = b;
    l->head = b;
    l->n++;
}

static bool is_unsaved(const ash_prefix_cache *c, int32_t b)
{
    return !c->blocks[b].saved && c->blocks[b].n == c->block_tokens;
}

static void list_add(ash_prefix_cache *c, list_id which, int32_t b)
{
    c->n_unsaved += which == LIST_CHAT && is_unsaved(c, b);
    if (which <= LIST_SPARE) {
        list_add_first(c, which, b);
        return;
    }
    list *l = &c->lists[which];
    c->blocks[b].prev = l->tail;
    c->blocks[b].next = NONE;
    if (l->tail == NONE)
        l->head = b;
    else
        c->blocks[l->tail].next = b;
    l->tail = b;
    l->n++;
}

static void list_remove(ash_prefix_cache *c, list_id which, int32_t b)
{
    list *l = &c->lists[which];
    block *k = &c->blocks[b];
    c->n_unsaved -= which == LIST_CHAT && is_unsaved(c, b);
    if (k->prev == NONE)
        l->head = k->next;
    else
        c->blocks[k->prev].next = k->next;
    if (k->next == NONE)
        l->tail = k->prev;
    else
        c->blocks[k->next].prev = k->prev;
    l->n--;
    if (which == LIST_SPARE && l->n < c->least_spare)
        c->least_spare = l->n;
}

static list_id home_of(const block *k)
{
    return !k->serial ? LIST_SPARE : k->chat ? LIST_CHAT : LIST_BACKGROUND;
}

static uint32_t bucket_of(const ash_prefix_cache *c, uint64_t parent, const int32_t *ids)
{
    uint64_t h = c->seed ^ parent;
    for (uint32_t i = 0; i < c->block_tokens; i++) {
        h = (h ^ (uint32_t)ids[i]) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    return (uint32_t)h & (c->n_buckets - 1);
}

static int32_t find(const ash_prefix_cache *c, uint64_t parent, const int32_t *ids)
{
    size_t bytes = c->block_tokens * sizeof *ids;
    for (int32_t b = c->buckets[bucket_of(c, parent, ids)]; b != NONE; b = c->blocks[b].chain)
        if (c->blocks[b].parent == parent &&
            !memcmp(c->ids + (size_t)b * c->block_tokens, ids, bytes))
            return b;
    return NONE;
}

static void forget(ash_prefix_cache *c, int32_t b)
{
    if (c->blocks[b].n == c->block_tokens) {
        int32_t *at = &c->buckets[c->blocks[b].bucket];
        while (*at != b) at = &c->blocks[*at].chain;
        *at = c->blocks[b].chain;
    }
    c->blocks[b].serial = 0;
    c->blocks[b].chat = false;
}

static void reference(ash_prefix_cache *c, int32_t b, bool background)
{
    block *k = &c->blocks[b];
    if (k->refs++ == 0)
        list_remove(c, home_of(k), b);
    if (!background)
        k->chat = true;
}

/* Drops the oldest block of a list of cached ones to the free ones. */
static void evict(ash_prefix_cache *c, list_id which)
{
    int32_t b = c->lists[which].head;
    list_remove(c, which, b);
    forget(c, b);
    list_add(c, LIST_SPARE, b);
}

static uint32_t n_free(const ash_prefix_cache *c)
{
    return c->lists[LIST_EMPTY].n + c->lists[LIST_SPARE].n;
}

static uint64_t serial_of(const ash_prefix_cache *c, int32_t parent)
{
    return parent == NONE ? 0 : c->blocks[parent].serial;
}

static void name_block(ash_prefix_cache *c, int32_t b, int32_t parent, const int32_t *ids, uint32_t n,
                       bool background)
{
    block *k = &c->blocks[b];
    k->parent = serial_of(c, parent);
    k->serial = ++c->serial;
    k->up = parent;
    k->saved = false;
    k->n = n;
    k->chat = !background;
    memcpy(c->ids + (size_t)b * c->block_tokens, ids, n * sizeof *ids);
}

/* The block after `parent` that begins with most of ids[0..n), and how many those are. */
static uint32_t nearest(const ash_prefix_cache *c, uint64_t parent, const int32_t *ids, uint32_t n,
                        int32_t *found)
{
    uint32_t best = 0;
    for (uint32_t b = 0; b < c->n_blocks; b++) {
        if (!c->blocks[b].serial || c->blocks[b].parent != parent)
            continue;
        const int32_t *own = c->ids + (size_t)b * c->block_tokens;
        uint32_t most = c->blocks[b].n < n ? c->blocks[b].n : n, same = 0;
        while (same < most && own[same] == ids[same]) same++;
        if (same > best) {
            best = same;
            *found = (int32_t)b;
        }
    }
    return best;
}

int ash_prefix_cache_open(uint32_t n_blocks, uint32_t block_tokens, ash_prefix_cache **out,
                          ash_err *err)
{
    *out = NULL;
    if (n_blocks < 1 || n_blocks > INT32_MAX / 2 || block_tokens < 1)
        return ash_err_set(err, ASH_EINVAL, "a KV pool of %u blocks of %u tokens", n_blocks,
                           block_tokens);
    ash_prefix_cache *c = calloc(1, sizeof *c);
    if (!c)
        return ash_err_nomem(err, "prefix cache");
    c->n_blocks = n_blocks;
    c->block_tokens = block_tokens;
    c->max_chat = n_blocks - n_blocks / 4;
    c->seed = ash_rng_entropy();
    c->n_buckets = 1;
    while (c->n_buckets < n_blocks) c->n_buckets *= 2;
    c->blocks = calloc(n_blocks, sizeof *c->blocks);
    c->ids = calloc(n_blocks, block_tokens * sizeof *c->ids);
    c->buckets = calloc(c->n_buckets, sizeof *c->buckets);
    if (!c->blocks || !c->ids || !c->buckets) {
        ash_prefix_cache_close(c);
        return ash_err_nomem(err, "prefix cache");
    }
    for (int i = 0; i < LIST_COUNT; i++) c->lists[i] = (list){NONE, NONE, 0};
    for (uint32_t i = 0; i < c->n_buckets; i++) c->buckets[i] = NONE;
    for (uint32_t i = n_blocks; i-- > 0;) list_add(c, LIST_EMPTY, (int32_t)i);
    *out = c;
    return 0;
}

void ash_prefix_cache_close(ash_prefix_cache *c)
{
    if (!c)
        return;
    free(c->blocks);
    free(c->ids);
    free(c->buckets);
    free(c);
}

uint32_t ash_prefix_cache_extend(ash_prefix_cache *c, int32_t parent, const int32_t *ids,
                                 uint32_t max_blocks, bool background, int32_t *blocks)
{
    uint64_t before = serial_of(c, parent);
    uint32_t n = 0;
    for (; n < max_blocks; n++, ids += c->block_tokens) {
        int32_t b = find(c, before, ids);
        if (b == NONE)
            break;
        reference(c, b, background);
        blocks[n] = b;
        before = c->blocks[b].serial;
    }
    return n;
}

int32_t ash_prefix_cache_take(ash_prefix_cache *c, bool background)
{
    if (!n_free(c) && c->lists[LIST_BACKGROUND].n)
        evict(c, LIST_BACKGROUND);
    if (!n_free(c) && c->lists[LIST_CHAT].n && !background)
        evict(c, LIST_CHAT);
    list_id from = c->lists[LIST_SPARE].n ? LIST_SPARE : LIST_EMPTY;
    int32_t b = c->lists[from].head;
    if (b == NONE)
        return NONE;
    list_remove(c, from, b);
    c->n_memory += !c->blocks[b].memory;
    c->blocks[b].memory = true;
    c->blocks[b].refs = 1;
    return b;
}

uint32_t ash_prefix_cache_room(const ash_prefix_cache *c, bool background)
{
    return n_free(c) + c->lists[LIST_BACKGROUND].n + (background ? 0 : c->lists[LIST_CHAT].n);
}

int32_t ash_prefix_cache_publish(ash_prefix_cache *c, int32_t parent, int32_t b, const int32_t *ids,
                                 bool background)
{
    uint64_t before = serial_of(c, parent);
    int32_t same = find(c, before, ids);
    if (same != NONE) {
        reference(c, same, background);
        ash_prefix_cache_give(c, &b, 1);
        return same;
    }
    block *k = &c->blocks[b];
    name_block(c, b, parent, ids, c->block_tokens, background);
    k->bucket = bucket_of(c, before, ids);
    k->chain = c->buckets[k->bucket];
    c->buckets[k->bucket] = b;
    return b;
}

void ash_prefix_cache_publish_part(ash_prefix_cache *c, int32_t parent, int32_t b, const int32_t *ids,
                                   uint32_t n, bool background)
{
    uint64_t before = serial_of(c, parent);
    int32_t other;
    if (nearest(c, before, ids, n, &other) < n)
        name_block(c, b, parent, ids, n, background);
}

uint32_t ash_prefix_cache_nearest(ash_prefix_cache *c, int32_t parent, const int32_t *ids, uint32_t n,
                                  bool background, int32_t *found)
{
    uint32_t same = nearest(c, serial_of(c, parent), ids, n, found);
    if (same && !c->blocks[*found].refs) {
        reference(c, *found, background);
        ash_prefix_cache_give(c, found, 1);
    }
    return same;
}

void ash_prefix_cache_hold(ash_prefix_cache *c, int32_t b)
{
    reference(c, b, !c->blocks[b].chat);
}

void ash_prefix_cache_give(ash_prefix_cache *c, const int32_t *blocks, uint32_t n)
{
    while (n-- > 0) {
        block *k = &c->blocks[blocks[n]];
        if (--k->refs == 0)
            list_add(c, home_of(k), blocks[n]);
    }
    while (c->lists[LIST_CHAT].n > c->max_chat) evict(c, LIST_CHAT);
}

int32_t ash_prefix_cache_unsaved(const ash_prefix_cache *c)
{
    int32_t b = c->n_unsaved ? c->lists[LIST_CHAT].tail : NONE;
    while (b != NONE && !is_unsaved(c, b)) b = c->blocks[b].prev;
    return b;
}

void ash_prefix_cache_mark_saved(ash_prefix_cache *c, int32_t b)
{
    c->n_unsaved -= !c->blocks[b].refs && c->blocks[b].chat && is_unsaved(c, b);
    c->blocks[b].saved = true;
}

uint32_t ash_prefix_cache_chain(const ash_prefix_cache *c, int32_t b, int32_t *chain)
{
    uint32_t n = 1;
    for (int32_t at = b; c->blocks[at].parent; at = c->blocks[at].up, n++)
        if (c->blocks[c->blocks[at].up].serial != c->blocks[at].parent)
            return 0;
    for (uint32_t i = n; i-- > 0; b = c->blocks[b].up) chain[i] = b;
    return n;
}

const int32_t *ash_prefix_cache_ids(const ash_prefix_cache *c, int32_t b)
{
    return c->ids + (size_t)b * c->block_tokens;
}

void ash_prefix_cache_clear(ash_prefix_cache *c)
{
    while (c->lists[LIST_BACKGROUND].n) evict(c, LIST_BACKGROUND);
    while (c->lists[LIST_CHAT].n) evict(c, LIST_CHAT);
}

void ash_prefix_cache_warmed(ash_prefix_cache *c, uint32_t n)
{
    for (uint32_t i = n < c->n_blocks ? n : c->n_blocks; i-- > 0;) {
        list_remove(c, LIST_EMPTY, (int32_t)i);
        list_add(c, LIST_SPARE, (int32_t)i);
        c->blocks[i].memory = true;
        c->n_memory++;
    }
}

bool ash_prefix_cache_has_memory(const ash_prefix_cache *c, int32_t b)
{
    return c->blocks[b].memory;
}

uint32_t ash_prefix_cache_resident(const ash_prefix_cache *c)
{
    return c->n_memory;
}

uint32_t ash_prefix_cache_spare(const ash_prefix_cache *c)
{
    return c->lists[LIST_SPARE].n;
}

uint32_t ash_prefix_cache_unneeded(ash_prefix_cache *c)
{
    uint32_t n = c->least_spare;
    c->least_spare = c->lists[LIST_SPARE].n;
    return n;
}

int32_t ash_prefix_cache_shed(ash_prefix_cache *c)
{
    int32_t b = c->lists[LIST_SPARE].tail;
    if (b == NONE)
        return NONE;
    list_remove(c, LIST_SPARE, b);
    list_add(c, LIST_EMPTY, b);
    c->blocks[b].memory = false;
    c->n_memory--;
    return b;
}

uint32_t ash_prefix_cache_used(const ash_prefix_cache *c)
{
    return c->n_blocks - n_free(c) - ash_prefix_cache_cached(c);
}

uint32_t ash_prefix_cache_cached(const ash_prefix_cache *c)
{
    return c->lists[LIST_BACKGROUND].n + c->lists[LIST_CHAT].n;
}
