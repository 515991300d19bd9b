/* Owns the store and the prefix that is being brought back. Refuses nothing: what cannot be read is computed.
 * The scheduler's thread. */
#include "engine/kv_spill.h"

#include <stdlib.h>
#include <string.h>

enum {
    AHEAD = 4,        /* readings under way */
    NS_A_BYTE = 10,   /* of a step, that a byte copied for writing costs at most: 2 % at 5 GB/s */
};

struct ash_kv_spill {
    ash_kv_slots *store;
    ash_prefix_cache *cache;
    ash_kv *kv;
    int32_t *chain; /* [blocks of the pool], for the moment */

    /* what is being brought back */
    bool active;
    int32_t *ids;    /* [max_tokens] */
    int32_t *blocks; /* [max_tokens / ASH_KV_TOKENS], referenced: n_have published, then n_reading */
    uint8_t name[ASH_KV_NAME]; /* of the last block that was asked for */
    uint32_t n_have, n_reading, n_want;
};

int ash_kv_spill_open(ash_kv_slots *store, ash_prefix_cache *cache, ash_kv *kv, uint32_t max_tokens,
                      ash_kv_spill **out, ash_err *err)
{
    ash_kv_spill *p = *out = calloc(1, sizeof *p);
    if (p) {
        p->store = store;
        p->cache = cache;
        p->kv = kv;
        p->chain = calloc((size_t)kv->blocks, sizeof *p->chain);
        p->ids = calloc(max_tokens, sizeof *p->ids);
        p->blocks = calloc(max_tokens / ASH_KV_TOKENS + 1, sizeof *p->blocks);
        if (p->chain && p->ids && p->blocks)
            return 0;
        ash_kv_spill_close(p);
        *out = NULL;
    } else {
        ash_kv_slots_close(store);
    }
    return ash_err_nomem(err, "the way of KV blocks to the disk");
}

void ash_kv_spill_close(ash_kv_spill *p)
{
    if (!p)
        return;
    ash_kv_slots_close(p->store);
    free(p->chain);
    free(p->ids);
    free(p->blocks);
    free(p);
}

uint64_t ash_kv_spill_untouched(const ash_kv_spill *p)
{
    return p ? ash_kv_slots_untouched(p->store) : 0;
}

/* ---- bringing back -------------------------------------------------------------------------- */

/* References what the cache has of ids[0..n): blocks[], and the name of the last. Returns how many. */
static uint32_t known(ash_kv_spill *p, const int32_t *ids, uint32_t n, int32_t *blocks, uint8_t *name)
{
    uint32_t have = ash_prefix_cache_extend(p->cache, -1, ids, n / ASH_KV_TOKENS, false, blocks);
    for (uint32_t i = 0; i < have; i++)
        ash_kv_slots_name(p->store, i ? name : NULL, ids + (size_t)i * ASH_KV_TOKENS, name);
    return have;
}

bool ash_kv_spill_has(ash_kv_spill *p, const int32_t *ids, uint32_t n)
{
    uint8_t name[ASH_KV_NAME];
    if (!p)
        return false;
    uint32_t have = known(p, ids, n, p->chain, name);
    ash_prefix_cache_give(p->cache, p->chain, have);
    if ((have + 1) * ASH_KV_TOKENS > n)
        return false;
    ash_kv_slots_name(p->store, have ? name : NULL, ids + (size_t)have * ASH_KV_TOKENS, name);
    return ash_kv_slots_has(p->store, name);
}

static void end(ash_kv_spill *p)
{
    if (!p->active || p->n_reading || p->n_have < p->n_want)
        return;
    ash_prefix_cache_give(p->cache, p->blocks, p->n_have);
    p->active = false;
}

/* Asks for the next blocks, as far as there are names, places and room. */
static void read_on(ash_kv_spill *p)
{
    while (p->active && p->n_reading < AHEAD && p->n_have + p->n_reading < p->n_want) {
        uint32_t i = p->n_have + p->n_reading;
        uint8_t name[ASH_KV_NAME];
        ash_kv_slots_name(p->store, i ? p->name : NULL, p->ids + (size_t)i * ASH_KV_TOKENS, name);
        int32_t b = ash_kv_slots_has(p->store, name) ? ash_prefix_cache_take(p->cache, false) : -1;
        if (b >= 0 && !ash_kv_slots_get(p->store, name, ash_kv_block(p->kv, b))) {
            ash_prefix_cache_give(p->cache, &b, 1);
            if (p->n_reading)
                return; /* the store is busy: once more when one of them is done */
            b = -1;
        }
        if (b < 0) {
            p->n_want = i;
            return;
        }
        memcpy(p->name, name, sizeof name);
        p->blocks[i] = b;
        p->n_reading++;
    }
}

void ash_kv_spill_restore(ash_kv_spill *p, const int32_t *ids, uint32_t n)
{
    memcpy(p->ids, ids, n * sizeof *ids);
    p->active = true;
    p->n_reading = 0;
    p->n_want = n / ASH_KV_TOKENS;
    p->n_have = known(p, ids, n, p->blocks, p->name);
    read_on(p);
    end(p);
}

bool ash_kv_spill_restoring(const ash_kv_spill *p)
{
    return p && p->active;
}

/* A reading is done: the next block of the chain, or, after one that failed, one that hangs in the air. */
static void take_block(ash_kv_spill *p, bool ok)
{
    uint32_t i = p->n_have;
    int32_t b = p->blocks[i];
    p->n_reading--;
    if (ok && i < p->n_want) {
        p->blocks[i] = ash_prefix_cache_publish(p->cache, i ? p->blocks[i - 1] : -1, b,
                                                p->ids + (size_t)i * ASH_KV_TOKENS, false);
        p->n_have++;
        return;
    }
    p->n_want = i;
    ash_prefix_cache_give(p->cache, &b, 1);
    memmove(p->blocks + i, p->blocks + i + 1, p->n_reading * sizeof *p->blocks);
}

/* ---- writing -------------------------------------------------------------------------------- */

/* Copies a block to the store; false if nothing is to do or the store is busy. */
static bool write_one(ash_kv_spill *p)
{
    uint8_t name[ASH_KV_NAME];
    int32_t b = ash_prefix_cache_unsaved(p->cache);
    if (b < 0)
        return false;
    uint32_t n = ash_prefix_cache_chain(p->cache, b, p->chain);
    for (uint32_t i = 0; i < n; i++)
        ash_kv_slots_name(p->store, i ? name : NULL, ash_prefix_cache_ids(p->cache, p->chain[i]), name);
    if (n && !ash_kv_slots_is_fresh(p->store, name) &&
        !ash_kv_slots_put(p->store, name, ash_kv_block(p->kv, b)))
        return false;
    ash_prefix_cache_mark_saved(p->cache, b);
    return true;
}

void ash_kv_spill_turn(ash_kv_spill *p, int64_t ns)
{
    bool ok;
    if (!p)
        return;
    while (ash_kv_slots_poll(p->store, &ok)) take_block(p, ok);
    read_on(p);
    end(p);
    for (int64_t left = ns / NS_A_BYTE; write_one(p) && left > 0;) left -= p->kv->block_bytes;
}
