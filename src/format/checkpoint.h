/* A checkpoint: tensors, configuration and side files of one model, whatever the files are.
 *
 * What a path may be:
 *   a .gguf file                       (of a split set any part)
 *   a .safetensors file                with config.json beside it
 *   a .bin, .pt or .pth file           likewise (format/torch.h)
 *   a folder                           a Hugging Face checkpoint, or one holding one GGUF model
 *   a cache entry                      models--ORG--NAME of the hub's cache: refs/main names the snapshot;
 *                                      told by its folder snapshots/ and that it has no config.json
 *   an index                           NAME.safetensors.index.json, NAME.bin.index.json
 *
 * In a folder: model.safetensors.index.json, model.safetensors, the only other *.safetensors.index.json,
 * gptq_model-*.safetensors, the only other *.safetensors; then the same for pytorch_model.bin and *.bin,
 * *.pt, *.pth that are checkpoints (training_args.bin, optimizer.pt and such are not); then the only
 * *.gguf (a split set counts as one; mmproj-* does not count). Several candidates of one kind are
 * refused and named. The content decides what a file is, not its name.
 *
 * Files behind links are followed: the hub's cache is made of them.
 * Immutable after open: any thread. Errors name file, place, what was expected and found. */
#ifndef ASHLEY_FORMAT_CHECKPOINT_H
#define ASHLEY_FORMAT_CHECKPOINT_H

#include "base/json.h"
#include "format/gguf.h"

typedef enum ash_checkpoint_kind {
    ASH_CHECKPOINT_GGUF,
    ASH_CHECKPOINT_SAFETENSORS,
    ASH_CHECKPOINT_TORCH,
} ash_checkpoint_kind;

typedef struct ash_checkpoint {
    ash_checkpoint_kind kind;
    const char *path;                /* the file, or the index, that was chosen */
    const char *dir;                 /* folder of the side files: config.json, tokenizer.json, ... */
    const ash_gguf *gguf;            /* NULL unless GGUF */
    const ash_tensor_index *tensors; /* never NULL */
    const json_t *config;            /* config.json; NULL for GGUF */
    const json_t *quant;             /* quantisation settings, NULL if there are none: of
                                        quantize_config.json, quant_config.json, or config.json's
                                        "quantization_config" (formats of GPTQ, FP8, ...) */
    const char *quant_from;          /* the file's name, for messages */
    const char *note;                /* what readers found that a person should know, e.g. two
                                        quantisation settings that differ; "" if nothing */
} ash_checkpoint;

/* Opens and checks headers; reads no tensor's data. *out is the caller's. ASH_ENOENT/EIO from the
 * system, ASH_EFORMAT, ASH_EUNSUPPORTED, ASH_ELIMIT, ASH_ENOMEM. */
int ash_checkpoint_open(const char *path, ash_checkpoint **out, ash_err *err) ASH_MUST_CHECK;
void ash_checkpoint_close(ash_checkpoint *c); /* NULL is fine */
/* What can be known of a sharded checkpoint before its weight files are there: config.json, the index,
 * side files. `path` is a folder or an index; tensors are declared: they have no shape (n_dims 0) until
 * ash_tensor_declare gives them one, no data, and the type that the configuration and their names say.
 * Errors as above; ASH_ENOENT if there is no index. */
int ash_checkpoint_declare(const char *path, ash_checkpoint **out, ash_err *err) ASH_MUST_CHECK;

/* The folder of one revision (a branch, tag or commit; NULL: "main") of a cache entry
 * models--ORG--NAME: *out is a path, the caller's to free(). Without refs/main the only snapshot is
 * taken. ASH_ENOENT if there is none. */
int ash_checkpoint_snapshot(const char *entry, const char *revision, char **out,
                            ash_err *err) ASH_MUST_CHECK;

/* "GGUF", "safetensors", "PyTorch". */
const char *ash_checkpoint_kind_name(ash_checkpoint_kind k);

/* A side file of the checkpoint's folder (a plain name), read whole. `out` is initialised here; the
 * caller releases it, also on failure. ASH_ENOENT if there is none; ASH_ELIMIT over max bytes. */
int ash_checkpoint_file(const ash_checkpoint *c, const char *name, size_t max, ash_buf *out,
                        ash_err *err) ASH_MUST_CHECK;
/* The same, parsed: *out is the caller's (json_decref), NULL with 0 if there is no such file. Whole
 * numbers over 64 bits, which Python writes ("model_max_length"), become reals. Errors name file and
 * byte. */
int ash_checkpoint_json(const ash_checkpoint *c, const char *name, size_t max, json_t **out,
                        ash_err *err) ASH_MUST_CHECK;

#endif
