/* Blocks of keys and values on disk: a file of slots that holds what was evicted from memory, within a
 * budget, over restarts.
 *
 * A block is named by the SHA-256 of the key (what values depend on but the tokens) and of all tokens
 * from the start to its last, so a name is found only for what would be computed. The file is one ring:
 * the oldest slot is written over. A slot is believed if name and checksum fit what was read; a process
 * killed at any moment leaves slots that are not, and nothing else.
 *
 * One thread calls; a thread of the store's own reads and writes. After open nothing is allocated and
 * no call waits for a disk.
 *
 * File, little-endian: 0 magic "ASHLEYSL", 8 version u32 and 0 u32, 16 key, 48 bytes of a block u64, 56
 * checksum of these; from 4096 a table of 64 bytes a slot: name, checksum of the data u64, number of
 * the writing u64 (from 1), 0 u64, checksum of these; blocks from 4096 + 64 * ASH_MAX_KV_SLOTS, each on
 * 4096. */
#ifndef ASHLEY_ENGINE_KV_SLOTS_H
#define ASHLEY_ENGINE_KV_SLOTS_H

#include "base/err.h"

enum { ASH_KV_NAME = 32 };

typedef struct ash_kv_slots ash_kv_slots;

typedef struct ash_kv_slots_opts {
    const char *dir;          /* of engine/kv_folder.h; borrowed */
    uint64_t share;           /* bytes that the folder may hold; the file takes up to a quarter of it */
    uint8_t key[ASH_KV_NAME];
    uint64_t block_bytes;
    uint32_t block_tokens;
} ash_kv_slots_opts;

/* Opens or makes the file of that key. ASH_EAGAIN if another process uses it, ASH_ENOSPC if the share
 * is too small for a few blocks. */
int ash_kv_slots_open(const ash_kv_slots_opts *o, ash_kv_slots **out, ash_err *err) ASH_MUST_CHECK;
/* Waits for the operation that runs; those that wait are dropped. No `to` of a reading is written after. */
void ash_kv_slots_close(ash_kv_slots *s); /* NULL is fine */
/* Of its memory the bytes that no block has needed yet. Any thread, NULL is fine. */
uint64_t ash_kv_slots_untouched(const ash_kv_slots *s);
/* fn(user) is called on the store's thread when there is something to poll. Before the first put or get. */
void ash_kv_slots_on_done(ash_kv_slots *s, void (*fn)(void *user), void *user);

/* The name of the block ids[0..block_tokens) after the one named `before` (NULL: at the start). */
void ash_kv_slots_name(ash_kv_slots *s, const uint8_t *before, const int32_t *ids,
                       uint8_t out[ASH_KV_NAME]);
bool ash_kv_slots_has(const ash_kv_slots *s, const uint8_t name[ASH_KV_NAME]);
/* Whether it was written lately enough to stay for long. */
bool ash_kv_slots_is_fresh(const ash_kv_slots *s, const uint8_t name[ASH_KV_NAME]);
/* Copies a block, to be written; false if the store is busy: try later. */
bool ash_kv_slots_put(ash_kv_slots *s, const uint8_t name[ASH_KV_NAME], const void *data);
/* Has a block read into `to` (block_bytes), which is the store's until it is polled; false if there is no
 * such block or too much is being done. */
bool ash_kv_slots_get(ash_kv_slots *s, const uint8_t name[ASH_KV_NAME], void *to);
/* The next reading that is done, in the order of the gets: true, and *ok says whether `to` holds the
 * block. */
bool ash_kv_slots_poll(ash_kv_slots *s, bool *ok);

#endif
