/* A file that holds the keys and values of one prompt: written once, aside, and renamed when all of it is on
 * disk; read block by block at a later start instead of computing them.
 *
 * A file is never needed and never believed: its name, key, tokens and the size of its blocks must be
 * exactly those asked for, and every block must have the checksum that the head says. What is wrong, cut
 * or foreign is an error for the caller to log and to compute instead.
 *
 * Layout, little-endian; no field is used before it was compared with what is expected:
 *   0  magic "ASHLEYKV"      8  version 1, u32         12  tokens of a block, u32
 *  16  key, 32 bytes        48  bytes of a block, u64  56  tokens, u64
 *  64  tokens, i32 each; then, from the next multiple of 8, checksums of the blocks, u64 each, and one of
 *  all before; blocks from the next multiple of 4096, the last one whole too.
 *
 * Any thread, one at a time each. */
#ifndef ASHLEY_ENGINE_KV_FILE_H
#define ASHLEY_ENGINE_KV_FILE_H

#include <stdatomic.h>

#include "base/err.h"

enum { ASH_KV_KEY = 32 };

/* What a file is for. */
typedef struct ash_kv_head {
    uint8_t key[ASH_KV_KEY]; /* of all that the values depend on but the tokens */
    uint32_t block_tokens;
    uint64_t block_bytes;
    const int32_t *ids; /* borrowed */
    size_t n_ids;       /* 1 to ASH_MAX_KV_FILE_IDS */
} ash_kv_head;

/* Blocks of a prompt of n tokens: the last may be partly used. */
size_t ash_kv_head_blocks(const ash_kv_head *h);
/* Bytes of such a file; 0 if there can be none. */
uint64_t ash_kv_head_bytes(const ash_kv_head *h);

/* Writes blocks[i] (block_bytes each; nobody may write to them meanwhile) to path. ASH_ECANCELED soon
 * after *stop; ASH_EIO, ASH_ENOSPC: nothing is left behind. What a killed process leaves has a name that
 * begins with path's and ".tmp."; nobody holds its lock (flock). */
int ash_kv_file_write(const char *path, const ash_kv_head *h, const void *const *blocks,
                      const atomic_bool *stop, ash_err *err) ASH_MUST_CHECK;

typedef struct ash_kv_file {
    int fd;
    uint64_t block_bytes, at; /* of the first block */
    size_t n_blocks;
    uint64_t *sums; /* [n_blocks], owned */
} ash_kv_file;

/* ASH_ENOENT if there is none; ASH_EFORMAT if it is not for h, cut or changed. The times of the file say
 * that it was used now. */
int ash_kv_file_open(const char *path, const ash_kv_head *h, ash_kv_file *out,
                     ash_err *err) ASH_MUST_CHECK;
/* Block i into `to`, whose content is undefined on failure. */
int ash_kv_file_read(const ash_kv_file *f, size_t i, void *to, ash_err *err) ASH_MUST_CHECK;
void ash_kv_file_close(ash_kv_file *f); /* safe twice, and on {.fd = -1} */

#endif
