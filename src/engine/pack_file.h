/* A pack file: the weights of one model as they lie in memory, to be mapped at the next start.
 *
 *   0       head, 4,096 bytes: magic number, format, sizes, the model's key, SHA-256 of head and table
 *   4096    table: SHA-256 of each part of the data
 *   2 MiB   data: the packed region, at the same distance from a huge page's border as in memory
 *   end     a multiple of 2 MiB, more than the data
 *
 * Numbers are in the machine's order; the magic number tells another. Everything but the sums follows from
 * the key and the region's size, which the reader knows beforehand: nothing is allocated or addressed by
 * what a file claims. A file is written aside, synced, read back and renamed.
 *
 * The data is written in large pieces on borders of 2 MiB: a kernel whose page cache holds large folios then
 * maps it with huge pages, and reading it is as fast as anonymous huge pages (docs/SPEED.md). */
#ifndef ASHLEY_ENGINE_PACK_FILE_H
#define ASHLEY_ENGINE_PACK_FILE_H

#include "base/pool.h"
#include "engine/file_id.h"

enum { ASH_PACK_DATA = 2 << 20 }; /* where the data begins */

typedef struct ash_pack_file {
    int fd;            /* -1: not open. Holds a shared lock, so that nobody removes it as unused */
    void *map;         /* owned; the data, read-only and shared with every process that maps it */
    uint64_t map_bytes;
    ash_file_id id;
    atomic_bool *lost; /* owned: set once a page of the map could not be read (base/fault.h) */
} ash_pack_file;

/* The sizes that follow from a region's; false if it is too large for a file. */
bool ash_pack_file_size(uint64_t bytes, uint64_t *file_bytes);

/* Opens and maps the file of that key and size and checks its head; `data` is not read. ASH_ENOENT,
 * ASH_EFORMAT with what is wrong ("is cut", "is of another format", ...), ASH_EIO, ASH_ENOMEM. */
int ash_pack_file_open(const char *path, const uint8_t key[ASH_SHA256_BYTES], uint64_t bytes,
                       ash_pack_file *out, ash_err *err) ASH_MUST_CHECK;
/* Reads all data and compares its sums, on the pool (or the caller, for NULL). ASH_EFORMAT names the part;
 * ASH_ECANCELED after *stop, which may be NULL. */
int ash_pack_file_verify(const ash_pack_file *f, uint64_t bytes, ash_pool *pool, const atomic_bool *stop,
                         ash_err *err) ASH_MUST_CHECK;
void ash_pack_file_close(ash_pack_file *f); /* safe twice, and on {.fd = -1} */

/* Writes the region to path: aside, verified, renamed. The caller holds the folder's lock. *id is that of
 * the finished file. ASH_ENOSPC, ASH_EIO, ASH_ECANCELED after *stop; nothing is left behind. */
int ash_pack_file_write(const char *path, const uint8_t key[ASH_SHA256_BYTES], const void *region,
                        uint64_t bytes, const atomic_bool *stop, ash_file_id *id,
                        ash_err *err) ASH_MUST_CHECK;

/* Who makes a region that is larger than memory. */
typedef struct ash_pack_maker {
    /* Makes it in the file's own pages, mapped, which the kernel writes back as it needs them. at: zeros,
     * aligned as in memory; may leave off after *stop. */
    int (*fill)(void *user, void *at, ash_err *err);
    ash_moved_fn moved; /* what else was gone through for it: files summed, then the region */
    void *user;
} ash_pack_maker;
/* The same of such a region. */
int ash_pack_file_make(const char *path, const uint8_t key[ASH_SHA256_BYTES], uint64_t bytes,
                       const ash_pack_maker *maker, const atomic_bool *stop, ash_file_id *id,
                       ash_err *err) ASH_MUST_CHECK;
/* A descriptor of an open file that leaves no copy in the page cache, if its file system knows of that; the
 * caller's to close, or -1. */
int ash_pack_file_direct(const ash_pack_file *f);

#endif
