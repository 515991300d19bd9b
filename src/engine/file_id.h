/* What a file holds, without reading it again at every start.
 *
 * The system's idea of a file (device, inode, size, times of the last change of content and inode) stands
 * for its content as long as nothing of it changes: a copied, touched or rewritten file has another. Pairs
 * of it and a SHA-256 are kept in one small file, `known`, of a state folder. The hub's cache names a blob by
 * the SHA-256 of its content: such a name is believed.
 *
 * `known` is advice: if it is missing, cut or foreign it is as if it were empty. A record that lies (somebody
 * wrote it) does what one who may write the state folder can do anyway: name a wrong pack file. */
#ifndef ASHLEY_ENGINE_FILE_ID_H
#define ASHLEY_ENGINE_FILE_ID_H

#include <stdatomic.h>

#include "base/sha256.h"

typedef struct ash_file_id {
    uint64_t dev, ino, size;
    int64_t mtime_ns, ctime_ns;
} ash_file_id;

/* ASH_EIO if the system does not tell; ASH_EINVAL for what is not a regular file. */
int ash_file_id_read(int fd, ash_file_id *out, ash_err *err) ASH_MUST_CHECK;
bool ash_file_id_same(const ash_file_id *a, const ash_file_id *b);
/* The file may have changed so shortly before now that another change could bear the same times: then its id
 * does not stand for content yet. For how long so, in nanoseconds; 0: it stands for it. */
int64_t ash_file_id_young_ns(const ash_file_id *id);

/* The SHA-256 that the hub's cache gives as the name of the file behind `path` (.../blobs/64 digits). */
bool ash_file_id_hub(const char *path, uint8_t sum[ASH_SHA256_BYTES]);
/* Bytes that a long work has gone through since it last said so; on the thread that works. */
typedef void (*ash_moved_fn)(void *user, uint64_t bytes);

/* Reads the file and sums it; `moved` may be NULL. ASH_EAGAIN if it is no longer `id`, or changed meanwhile;
 * ASH_ECANCELED after *stop; ASH_EIO. */
int ash_file_id_hash(int fd, const ash_file_id *id, const atomic_bool *stop, ash_moved_fn moved, void *user,
                     uint8_t sum[ASH_SHA256_BYTES], ash_err *err) ASH_MUST_CHECK;

/* What a record says of a file. */
typedef enum ash_known_kind {
    ASH_KNOWN_CONTENT = 1, /* `sum` is of its content */
    ASH_KNOWN_PACK = 2,    /* it is a pack file of key `sum` whose parts were verified */
} ash_known_kind;

typedef struct ash_known {
    ash_file_id id;
    uint64_t used_s; /* when it was last written or used, in seconds of the wall clock */
    uint32_t kind;   /* ash_known_kind */
    uint32_t spare;  /* 0 */
    uint8_t sum[ASH_SHA256_BYTES];
} ash_known;
_Static_assert(sizeof(ash_known) == 88, "a record as it lies in the file");

typedef struct ash_known_list {
    ash_known *v; /* owned; NULL when n is 0 */
    size_t n;
} ash_known_list;

/* Reads dir/known: at most ASH_MAX_KNOWN_FILES records, none if it cannot be believed. Fails for want of
 * memory only. */
int ash_known_read(const char *dir, ash_known_list *out, ash_err *err) ASH_MUST_CHECK;
void ash_known_release(ash_known_list *l); /* safe twice */
const ash_known *ash_known_find(const ash_known_list *l, ash_known_kind kind, const ash_file_id *id);
/* Adds the records to dir/known, in the place of those of the same kind and inode; the longest unused make
 * room. The caller holds the folder's lock. */
int ash_known_add(const char *dir, const ash_known *v, size_t n, ash_err *err) ASH_MUST_CHECK;

#endif
