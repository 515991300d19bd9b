/* Keeps the keys and values of a warm prompt from one start to the next.
 *
 * What is kept is named and checked by all that it depends on: the weights' key (ash_model_key), the kernel
 * table, the build of the program, the shape of the KV blocks, the context and the tokens themselves. So a
 * restored prompt is bit for bit what would be computed, or it is computed.
 *
 * Nothing here fails a load: what cannot be read or written costs a log line. */
#ifndef ASHLEY_ENGINE_KV_PROMPT_H
#define ASHLEY_ENGINE_KV_PROMPT_H

#include "engine/kv_file.h"
#include "engine/scheduler.h"

typedef struct ash_kv_prompt ash_kv_prompt;

/* What KV of a model depends on but the tokens; ASH_EAGAIN while the model's key is not known. */
int ash_kv_key(const ash_model *m, uint8_t out[ASH_KV_KEY], ash_err *err) ASH_MUST_CHECK;

/* For one prompt, whose ids are copied. Borrows model and scheduler until closed. state_dir and disk_budget
 * as in engine.h. */
int ash_kv_prompt_open(const char *state_dir, uint64_t disk_budget, const ash_model *m,
                       ash_scheduler *s, const int32_t *ids, size_t n_ids, ash_kv_prompt **out,
                       ash_err *err) ASH_MUST_CHECK;
/* Puts what an earlier start kept into the prefix cache; true if that is the whole prompt. Blocks. `pool` is
 * the scheduler's, whose threads read: clearing and copying the memory takes the time. */
bool ash_kv_prompt_restore(ash_kv_prompt *p, ash_pool *pool);
/* Begins to write what the prefix cache has of the prompt by now, on a thread of its own and with the least
 * priority, as soon as the model's key is known. Once. */
void ash_kv_prompt_keep(ash_kv_prompt *p);
/* Ends the writing within some 100 ms; call it before the scheduler is closed. NULL is fine. */
void ash_kv_prompt_close(ash_kv_prompt *p);

#endif
