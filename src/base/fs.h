/* Files: whole reads with a cap, read-only maps, atomic replacement, folders. Any thread. */
#ifndef ASHLEY_BASE_FS_H
#define ASHLEY_BASE_FS_H

#include <sys/stat.h>

#include "base/buf.h"

/* Reads a regular file of at most `max` bytes into `out` (initialised here with that cap; the caller
 * releases it, also on failure). Errors name the path. */
int ash_fs_read(const char *path, size_t max, ash_buf *out, ash_err *err) ASH_MUST_CHECK;

/* A read-only map of a whole regular file. `data` is NULL for an empty file. A file that shrinks
 * while mapped raises SIGBUS when touched past its end: writers here replace files, never shorten them. */
typedef struct ash_map {
    const uint8_t *data;
    uint64_t size;
    int fd; /* kept open; -1 when closed */
} ash_map;

int ash_fs_map(const char *path, ash_map *out, ash_err *err) ASH_MUST_CHECK;
void ash_fs_unmap(ash_map *m); /* safe on {0, 0, -1} and twice */

/* Writes path aside, fsyncs, renames, fsyncs the folder: the old or the new content, never half. */
int ash_fs_replace(const char *path, const void *p, size_t n, ash_err *err) ASH_MUST_CHECK;
/* mkdir -p with mode 0700 for what is missing. */
int ash_fs_mkdirs(const char *path, ash_err *err) ASH_MUST_CHECK;
/* Whether a file belongs to who runs this, or to root. What is another user's may change at any time after it
 * was checked. */
bool ash_fs_is_ours(const struct stat *st);
bool ash_fs_is_file(const char *path);
bool ash_fs_is_dir(const char *path);
/* dir + "/" + name, malloc'ed; an absolute name is returned as it is. NULL without memory. */
char *ash_fs_join(const char *dir, const char *name);

#endif
