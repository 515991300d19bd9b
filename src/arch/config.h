/* Reading config.json of Hugging Face's checkpoints: getters whose errors name file, key, what it must be
 * and what it is. A missing or null key leaves *out, the `need` forms refuse it with ASH_ENOENT; a
 * value of another type or range is ASH_EFORMAT. Any thread. */
#ifndef ASHLEY_ARCH_CONFIG_H
#define ASHLEY_ARCH_CONFIG_H

#include "format/checkpoint.h"
#include "nn/rope.h"

int ash_config_int(const ash_checkpoint *c, const char *key, int64_t lo, int64_t hi, int64_t *out,
                   ash_err *err) ASH_MUST_CHECK;
int ash_config_need_int(const ash_checkpoint *c, const char *key, int64_t lo, int64_t hi, int64_t *out,
                        ash_err *err) ASH_MUST_CHECK;
int ash_config_num(const ash_checkpoint *c, const char *key, double lo, double hi, double *out,
                   ash_err *err) ASH_MUST_CHECK;
int ash_config_bool(const ash_checkpoint *c, const char *key, bool *out, ash_err *err) ASH_MUST_CHECK;
/* Borrowed from the checkpoint. */
int ash_config_str(const ash_checkpoint *c, const char *key, const char **out, ash_err *err) ASH_MUST_CHECK;

/* Rotary embedding's base and scaling in any of their spellings: "rope_theta" with
 * "rope_scaling": {"type": ...} or {"rope_type": ...}, or "rope_parameters": {"rope_type", "rope_theta",
 * ...}. Sets what is given and leaves dims, head_dim and pairs; fills in transformers' defaults, of YaRN
 * also its factor of cosines and sines (attention_factor). *mscale_all_dim is YaRN's number of that name
 * (0: none), for DeepSeek's scale of scores; NULL if it does not matter.
 * ASH_EUNSUPPORTED for LongRoPE and others, by name, with those that are known. */
int ash_config_rope(const ash_checkpoint *c, int64_t n_ctx, ash_rope_options *out, double *mscale_all_dim,
                    ash_err *err) ASH_MUST_CHECK;

#endif
