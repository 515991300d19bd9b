/* Values of configuration as people write them: sizes, times, yes and no, lists. Pure functions,
 * any thread. On failure *out is as it was; callers add the key's name and origin. */
#ifndef ASHLEY_CONFIG_VALUE_H
#define ASHLEY_CONFIG_VALUE_H

#include "base/arena.h"
#include "base/json.h"

/* "512", "4G", "1.5GiB", "700 MB": K M G T are powers of 1000, Ki Mi Gi Ti of 1024, an optional B,
 * case ignored; a fraction needs a suffix. ASH_EINVAL for other text, ASH_ELIMIT beyond 2^63-1. */
int ash_value_bytes(const char *text, uint64_t *out, ash_err *err) ASH_MUST_CHECK;
/* A time as base/duration.h reads it, in milliseconds: "90", "1.5s", "10m", "1h30m"; "-1" gives -1 where
 * for_ever is allowed. ASH_EINVAL, ASH_ELIMIT beyond 10 years. */
int ash_value_time(const char *text, bool for_ever, int64_t *out, ash_err *err) ASH_MUST_CHECK;
/* The member "keep_alive" of an object: a time as text, a number of seconds, or -1. *has: it is there, and
 * *out its milliseconds. Errors name it. */
int ash_value_keep_alive(const json_t *object, bool *has, int64_t *out, ash_err *err) ASH_MUST_CHECK;
/* 1 0 true false yes no on off, case ignored. */
int ash_value_bool(const char *text, bool *out, ash_err *err) ASH_MUST_CHECK;
/* "a, b,c" to trimmed strings in the arena; empty items are dropped. *n 0 gives *out NULL. */
int ash_value_list(const char *text, ash_arena *arena, const char *const **out, size_t *n,
                   ash_err *err) ASH_MUST_CHECK;
/* "4.2 GB": for messages, into out[16]. */
void ash_value_show_bytes(uint64_t bytes, char out[16]);

#endif
