/* What moves blocks of keys and values between the KV pool and the disk: chats' prefixes are written
 * when nobody uses them any more, long before their place is needed, and a prompt that goes on from one
 * that was evicted, in this process or an earlier one, has it read back.
 *
 * Reading is the business of no running stream: a job whose prefix is on disk stays in the queue until
 * it is back in the prefix cache, and others start meanwhile. One is brought back at a time. Copies for
 * writing take at most some 2 % of a step. Nothing is allocated after open.
 *
 * The scheduler's thread's, but for open. */
#ifndef ASHLEY_ENGINE_KV_SPILL_H
#define ASHLEY_ENGINE_KV_SPILL_H

#include "engine/kv_slots.h"
#include "engine/prefix_cache.h"
#include "nn/kv.h"

typedef struct ash_kv_spill ash_kv_spill;

/* Takes the store, also on failure; borrows cache and kv. max_tokens: of a sequence. */
int ash_kv_spill_open(ash_kv_slots *store, ash_prefix_cache *cache, ash_kv *kv, uint32_t max_tokens,
                      ash_kv_spill **out, ash_err *err) ASH_MUST_CHECK;
/* Waits for the operation that runs; before kv is closed. NULL is fine. */
void ash_kv_spill_close(ash_kv_spill *p);

/* As ash_kv_slots_untouched. Any thread; NULL has none. */
uint64_t ash_kv_spill_untouched(const ash_kv_spill *p);

/* Whether the disk has more whole blocks of ids[0..n) than the cache. NULL: it has none. */
bool ash_kv_spill_has(ash_kv_spill *p, const int32_t *ids, uint32_t n);
/* Begins to bring them back; nothing may be under way. ids are copied. */
void ash_kv_spill_restore(ash_kv_spill *p, const int32_t *ids, uint32_t n);
/* Whether something is being brought back. NULL: nothing is. */
bool ash_kv_spill_restoring(const ash_kv_spill *p);
/* Once a turn of the scheduler: takes what was read, goes on reading, and writes what a step of `ns`
 * has time for. NULL is fine. */
void ash_kv_spill_turn(ash_kv_spill *p, int64_t ns);

#endif
