/* What was decided of downloads and has to be known after a restart: which are paused, and which models
 * were added by their hub names. One small JSON file in the state folder, downloads.json, replaced as a
 * whole: {"paused":[ids],"added":[ids]}. What cannot be read is as if there were none; the next change
 * writes it anew. Two processes that share a folder take turns by a lock of it. Any thread; calls read and
 * write files. */
#ifndef ASHLEY_STORE_DOWNLOADS_H
#define ASHLEY_STORE_DOWNLOADS_H

#include "base/json.h"

typedef enum ash_downloads_list { ASH_DOWNLOADS_PAUSED, ASH_DOWNLOADS_ADDED } ash_downloads_list;

/* *out (the caller's) is an array of strings: at most ASH_MAX_DOWNLOADS ids of at most ASH_MAX_MODEL_ID
 * bytes; empty if there is no file. ASH_EFORMAT, ASH_EIO, ...: the file cannot be used; *out is empty
 * then, too. ASH_ENOMEM: *out is NULL. */
int ash_downloads_read(const char *state_dir, ash_downloads_list list, json_t **out,
                       ash_err *err) ASH_MUST_CHECK;
/* Puts the id into the list, or takes it out; on the disk when it returns. ASH_EIO, ASH_ENOSPC,
 * ASH_ELIMIT (the list is full), ASH_EAGAIN (another process kept the lock for a second), ASH_ENOMEM. */
int ash_downloads_set(const char *state_dir, ash_downloads_list list, const char *id, bool in,
                      ash_err *err) ASH_MUST_CHECK;

#endif
