/* The files of one checkpoint: a single one, or the shards that an index names.
 *
 *   NAME.safetensors.index.json, NAME.bin.index.json:
 *   {"metadata": {...}, "weight_map": {TENSOR: FILE, ...}}
 *
 * FILE is a plain name beside the index: a path is refused. Every tensor of the map must be in the file
 * that the map says, and every tensor of the files in the map. "metadata" is not looked at: its
 * total_size is often wrong. Files are opened in the order of their names. */
#ifndef ASHLEY_FORMAT_SHARDS_H
#define ASHLEY_FORMAT_SHARDS_H

#include "format/tensor_list.h"

/* Fills *idx, initialised here; ash_tensor_index_release it, also on failure. `read` is called once a
 * file. ASH_ENOENT names missing shards; ASH_ELIMIT over ASH_MAX_SHARDS or ASH_MAX_SHARD_INDEX. */
int ash_shards_open(const char *path, ash_tensor_reader *read, void *arg, ash_tensor_index *idx,
                    ash_err *err) ASH_MUST_CHECK;
int ash_shards_open_index(const char *path, ash_tensor_reader *read, void *arg, ash_tensor_index *idx,
                          ash_err *err) ASH_MUST_CHECK;
/* The index alone: its files need not be there and are not looked at. Tensors are declared: names without
 * shapes (n_dims 0) and types (ASH_DTYPE_OTHER), in the map's order within each file. */
int ash_shards_declare(const char *path, ash_tensor_index *idx, ash_err *err) ASH_MUST_CHECK;
/* One file over bytes[0..n), borrowed until release; `name` is for messages. */
int ash_shards_open_memory(const void *bytes, size_t n, const char *name, ash_tensor_reader *read,
                           void *arg, ash_tensor_index *idx, ash_err *err) ASH_MUST_CHECK;

/* A name that stays in its folder: not empty, "." or "..", no slash, backslash or control character. */
bool ash_shards_plain_name(ash_str name);

#endif
