/* What one model has in the state folder: its packed weights (packs/) and the keys and values of
 * prompts (kv/).
 *
 * They are found by the model's key (engine/packs.h, engine/kv_prompt.h): what is of another
 * context, kernel table or build has another, and gives way by itself when there is no room. One
 * thread. */
#ifndef ASHLEY_ENGINE_STATE_FILES_H
#define ASHLEY_ENGINE_STATE_FILES_H

#include "engine/model.h"

enum { ASH_STATE_FILES = 64 }; /* of one model that are found in one search */

typedef struct ash_state_files {
    char *paths[ASH_STATE_FILES]; /* owned */
    size_t n;
    uint64_t bytes; /* that they take on the disk */
} ash_state_files;

/* Of the model in opts->path, opened as opts say (state_dir, ctx, kv_q8, cpu count): reads headers.
 * None where it is not known what the weights are. Release *out, also on failure. Errors as
 * ash_model_open. */
int ash_state_files_find(const ash_engine_opts *opts, ash_state_files *out,
                         ash_err *err) ASH_MUST_CHECK;
/* Removes those that no process uses; *n is how many, *bytes what is free then. */
void ash_state_files_remove(const ash_state_files *f, size_t *n, uint64_t *bytes);
void ash_state_files_release(ash_state_files *f); /* safe twice */

#endif
