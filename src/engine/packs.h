/* What one model has to do with the state folder: which weights it is made of, by content.
 *
 * open looks at what is known of the checkpoint's files; start looks at the rest on a thread of its own,
 * with the least priority, while the model serves already. From then on the model has a key: the SHA-256 of the
 * content of all its files, its configuration, the version of packing and where everything lies in memory. Two
 * models of one key compute alike on one kernel table.
 *
 * A state folder that cannot be written costs a log line, never a load. */
#ifndef ASHLEY_ENGINE_PACKS_H
#define ASHLEY_ENGINE_PACKS_H

#include "arch/arch.h"
#include "engine/file_id.h"

typedef struct ash_packs ash_packs;

/* `net` is planned of `files`; both are borrowed during the call. state_dir is copied; NULL: nothing is
 * looked at, and *out is NULL. Fails for want of memory only. */
int ash_packs_open(const char *state_dir, const ash_checkpoint *files, const ash_net *net, ash_packs **out,
                   ash_err *err) ASH_MUST_CHECK;
/* Begins the work in the background. */
void ash_packs_start(ash_packs *p); /* NULL is fine */
/* The key, or NULL as long as it is not known. Any thread; borrowed, constant from then on. */
const uint8_t *ash_packs_key(const ash_packs *p); /* NULL is fine */
/* Ends the work, within some 10 ms, and frees. */
void ash_packs_close(ash_packs *p); /* NULL is fine */

#endif
