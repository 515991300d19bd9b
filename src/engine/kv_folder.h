/* The folder STATE/kv, where keys and values are kept between starts, and the bytes that they may take
 * there.
 *
 * Several processes may share it. Files are called NAME.kv (a prompt, engine/kv_file.h) and NAME.slots
 * (engine/kv_slots.h); a process that uses one of the latter holds its lock (flock), which ends with
 * it. Files of other names are left alone. Any thread. */
#ifndef ASHLEY_ENGINE_KV_FOLDER_H
#define ASHLEY_ENGINE_KV_FOLDER_H

#include "base/err.h"

/* The folder's path, made if missing; free() it. */
int ash_kv_folder_open(const char *state_dir, char **out, ash_err *err) ASH_MUST_CHECK;
/* What keys and values may take of a disk budget: a quarter; of no budget (0) an eighth of what is free
 * beyond 4 GiB and what is kept already. 0 if there is nothing to have. */
uint64_t ash_kv_folder_share(const char *dir, uint64_t disk_budget);
/* Deletes what killed processes left half written, and then files (slots_only: no prompts, which cost
 * more to make again), the longest unused first, until `bytes` more fit into `share`. Files that are
 * locked stay. ASH_ENOSPC if there is no room to make; nothing is deleted if bytes > share. */
int ash_kv_folder_make_room(const char *dir, uint64_t share, uint64_t bytes,
                            bool slots_only, ash_err *err) ASH_MUST_CHECK;

#endif
