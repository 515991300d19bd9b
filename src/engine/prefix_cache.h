/* The blocks of a KV pool: which are free, which belong to running sequences, and which keep the
 * keys and values of a prefix that a later prompt may share.
 *
 * A block holds `block_tokens` positions. Once it is full it is published under the pair (chain
 * it follows, its own tokens): the chain is named by the serial number of the block before it, which
 * is never given twice, and the tokens are compared, so a match is exact and never rests on a hash.
 * Blocks are shared by counting references; what nobody references stays findable until its place is
 * needed, the least recently used first. A block that is only partly full can be published too: nobody
 * goes on in it, but what it begins with can be copied.
 *
 * A sequence references the whole chain before each block it holds (publishing hands out the block
 * that is there already), and gives its blocks back last one first; so no block is evicted before those
 * that follow it.
 *
 * Background work may evict what only background work has used, never a chat's prefix; a quarter of
 * the pool is kept clear of unreferenced chat prefixes, so that background work can run at all.
 *
 * A block has memory from when it is first taken until the caller gives that back. Those that have some
 * are taken first, the one that was freed last before the others, so that what is not needed shows.
 *
 * Knows numbers only, not where keys and values lie. One thread at a time (the scheduler's); nothing
 * is allocated after open. */
#ifndef ASHLEY_ENGINE_PREFIX_CACHE_H
#define ASHLEY_ENGINE_PREFIX_CACHE_H

#include "base/err.h"

typedef struct ash_prefix_cache ash_prefix_cache;

/* n_blocks >= 1, block_tokens >= 1. *out is the caller's, NULL on failure (ASH_EINVAL, ASH_ENOMEM). */
int ash_prefix_cache_open(uint32_t n_blocks, uint32_t block_tokens, ash_prefix_cache **out,
                          ash_err *err) ASH_MUST_CHECK;
void ash_prefix_cache_close(ash_prefix_cache *c); /* NULL is fine */

/* The longest published chain that goes on from `parent` (-1: the start; else the caller references it)
 * with ids[0 .. max_blocks * block_tokens), as whole blocks: blocks[] gets their numbers, each
 * referenced for the caller. Returns how many. */
uint32_t ash_prefix_cache_extend(ash_prefix_cache *c, int32_t parent, const int32_t *ids,
                                 uint32_t max_blocks, bool background, int32_t *blocks);
/* A block for the caller alone (one reference), evicting if need be; -1 if there is none to have. */
int32_t ash_prefix_cache_take(ash_prefix_cache *c, bool background);
/* How many ash_prefix_cache_take would give now. O(1). */
uint32_t ash_prefix_cache_room(const ash_prefix_cache *c, bool background);
/* Makes a full block findable: it holds ids[0..block_tokens) after the chain that ends in `parent` (-1:
 * at the start), which the caller references too. Returns the block to go on with: this one, or the
 * equal one that was there already, then referenced in its place while `block` is free again. */
int32_t ash_prefix_cache_publish(ash_prefix_cache *c, int32_t parent, int32_t block,
                                 const int32_t *ids, bool background);
/* Publishes a block that holds only ids[0..n), 0 < n < block_tokens; nobody may write to it from then on.
 * Nothing happens if a published one begins so already. O(blocks). */
void ash_prefix_cache_publish_part(ash_prefix_cache *c, int32_t parent, int32_t block,
                                   const int32_t *ids, uint32_t n, bool background);
/* The published block after `parent` that has most of ids[0..n), n <= block_tokens, in common at its start;
 * returns how many tokens that is, 0 if none. *found is not referenced: copy it before the next call.
 * Counts as a use of it. O(blocks). */
uint32_t ash_prefix_cache_nearest(ash_prefix_cache *c, int32_t parent, const int32_t *ids, uint32_t n,
                                  bool background, int32_t *found);
/* One reference more to a published block. */
void ash_prefix_cache_hold(ash_prefix_cache *c, int32_t block);

/* For keeping blocks elsewhere before they are evicted: of the whole blocks that chats published,
 * nobody references and nobody marked as saved, the one that would go last; -1 if there is none. So a
 * prefix is saved from its start, the latest one first, and where saving is too slow what is lost is
 * what eviction would take first. */
int32_t ash_prefix_cache_unsaved(const ash_prefix_cache *c);
void ash_prefix_cache_mark_saved(ash_prefix_cache *c, int32_t block);
/* The chain that ends in a published block, from the start: chain[] (as many as the pool has) gets its
 * blocks; returns how many, 0 if the start of it is not there any more. */
uint32_t ash_prefix_cache_chain(const ash_prefix_cache *c, int32_t block, int32_t *chain);
/* Its tokens; borrowed until it is evicted. */
const int32_t *ash_prefix_cache_ids(const ash_prefix_cache *c, int32_t block);

/* Gives back the caller's reference to each of blocks[0..n), which are in the order of the sequence.
 * Published ones stay findable. */
void ash_prefix_cache_give(ash_prefix_cache *c, const int32_t *blocks, uint32_t n);
/* Forgets every unreferenced prefix. */
void ash_prefix_cache_clear(ash_prefix_cache *c);

/* The first n blocks have memory already. Before the first call of another kind. */
void ash_prefix_cache_warmed(ash_prefix_cache *c, uint32_t n);
bool ash_prefix_cache_has_memory(const ash_prefix_cache *c, int32_t block);
uint32_t ash_prefix_cache_resident(const ash_prefix_cache *c); /* blocks that have memory, */
uint32_t ash_prefix_cache_spare(const ash_prefix_cache *c);    /* and of these the free ones */
/* How many of the spare ones were not needed since the last call. */
uint32_t ash_prefix_cache_unneeded(ash_prefix_cache *c);
/* The spare block that would be taken last: it has no memory from now on, and the caller gives that back;
 * -1 if there is none. */
int32_t ash_prefix_cache_shed(ash_prefix_cache *c);

uint32_t ash_prefix_cache_used(const ash_prefix_cache *c);   /* blocks referenced */
uint32_t ash_prefix_cache_cached(const ash_prefix_cache *c); /* kept only for reuse */

#endif
