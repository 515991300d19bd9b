/* What the files of the checkpoint reader share; nobody else includes it. */
#ifndef ASHLEY_FORMAT_CHECKPOINT_PRIVATE_H
#define ASHLEY_FORMAT_CHECKPOINT_PRIVATE_H

#include "format/checkpoint.h"

typedef enum ash_file_kind {
    ASH_FILE_UNKNOWN,
    ASH_FILE_GGUF,
    ASH_FILE_SAFETENSORS,
    ASH_FILE_TORCH,
    ASH_FILE_JSON,
    ASH_FILE_LFS, /* a Git LFS pointer in place of the file */
} ash_file_kind;

enum { ASH_FILE_HEAD = 512 }; /* bytes that tell what a file is */

/* What the first n bytes of a file of `size` say, and where they say nothing, its name. */
ash_file_kind ash_file_sniff(const uint8_t *p, size_t n, uint64_t size, const char *name);
/* The same of a file on disk; `name` is what counts as its name, "" for none. Errors name path. */
int ash_file_kind_of(const char *path, const char *name, ash_file_kind *out, ash_err *err) ASH_MUST_CHECK;

/* The file or index of a folder that is its checkpoint: *out is a plain name in the arena. */
int ash_checkpoint_locate(const char *dir, ash_arena *arena, const char **out, ash_err *err) ASH_MUST_CHECK;

/* Reads config and quantisation settings of c->dir; json and strings are the caller's. */
int ash_checkpoint_read_config(const char *dir, json_t **config, json_t **quant, const char **quant_from,
                               ash_buf *note, ash_err *err) ASH_MUST_CHECK;
/* A side file parsed, as ash_checkpoint_json. */
int ash_checkpoint_read_json(const char *dir, const char *name, size_t max, json_t **out,
                             ash_err *err) ASH_MUST_CHECK;

/* Gives declared tensors the types that config.json and their names say. */
void ash_checkpoint_declare_types(const json_t *config, ash_tensor_index *idx);

#endif
