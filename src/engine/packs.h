/* What one model has to do with the state folder: which weights it is made of, by content, and their packed
 * form on disk (engine/pack_file.h).
 *
 * open looks at what is known of the checkpoint's files; start looks at the rest on a thread of its own,
 * with the least priority, while the model serves already. From then on the model has a key: the SHA-256 of
 * the content of all its files, its configuration, the version of packing and where everything lies in
 * memory. Two models of one key compute alike on one kernel table.
 *
 * A state folder that cannot be written costs a log line, never a load. */
#ifndef ASHLEY_ENGINE_PACKS_H
#define ASHLEY_ENGINE_PACKS_H

#include "arch/arch.h"
#include "engine/pack_file.h"

/* Weights of fewer bytes are packed in less time than it is worth keeping them for. */
enum { ASH_PACK_LEAST = 64 << 10 };

typedef struct ash_packs ash_packs;

/* `net` is planned of `files`; both are borrowed during the call. state_dir is copied; NULL: nothing is
 * looked at, and *out is NULL. Packs may take three quarters of the budget (0: ash_pack_room's default).
 * Fails for want of memory only. */
int ash_packs_open(const char *state_dir, uint64_t budget, const ash_checkpoint *files, const ash_net *net,
                   ash_packs **out, ash_err *err) ASH_MUST_CHECK;
/* The weights as an earlier start packed them, read-only, or NULL: not there, or not to be believed (the log
 * says why). They live until close. A file that nobody has verified since it last changed is read and
 * summed first, on the pool. */
void *ash_packs_map(ash_packs *p, ash_pool *pool, const atomic_bool *cancel); /* NULL is fine */
/* True once what was mapped has lost pages (the file was cut, the disk failed): what was computed since then
 * means nothing. Any thread. */
bool ash_packs_lost(const ash_packs *p); /* NULL is fine */
/* What was mapped does not do after all: it is unmapped, and written anew by start. Logs the reason. */
void ash_packs_reject(ash_packs *p, const char *why);
/* The same for weights that are larger than memory: what is not known is learned and recorded, and a file
 * that is not there is made by `maker`, all of it now. *direct: a descriptor of the file
 * (ash_pack_file_direct), the caller's to close; data begins at ASH_PACK_DATA. ASH_EDISK if it does not fit
 * the budget or the disk, before anything is read where that can be known; ASH_ECANCELED, ASH_EIO,
 * ASH_EAGAIN (a file of the checkpoint has just been written), what fill returns; ASH_ENOENT without p. */
int ash_packs_need(ash_packs *p, ash_pool *pool, const ash_pack_maker *maker, const atomic_bool *cancel,
                   int *direct, ash_err *err) ASH_MUST_CHECK;
/* Bytes of the checkpoint's files that are to be read to learn what they are. */
uint64_t ash_packs_unknown(const ash_packs *p); /* NULL is fine */
/* Whether a file of the key and size lies there; false also while the key is not known. It is not read. */
bool ash_packs_present(const ash_packs *p); /* NULL is fine */
/* Begins the work in the background: learns what is not known and writes the pack, if there is none and
 * they take ASH_PACK_LEAST bytes. region: the packed weights, borrowed until close. */
void ash_packs_start(ash_packs *p, const void *region); /* NULL is fine */
/* The key, or NULL as long as it is not known. Any thread; borrowed, constant from then on. */
const uint8_t *ash_packs_key(const ash_packs *p); /* NULL is fine */
/* Waits for the end of the work. */
void ash_packs_wait(ash_packs *p); /* NULL is fine */
/* Ends the work, within some 10 ms, and frees. */
void ash_packs_close(ash_packs *p); /* NULL is fine */

#endif
