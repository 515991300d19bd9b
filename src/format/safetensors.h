/* safetensors: headers of one file, checked in full.
 *
 *   u64 N, little endian | N bytes of JSON | data
 *   {"__metadata__": {string: string, ...}, NAME: {"dtype": "F32", "shape": [..], "data_offsets": [b, e]}}
 *
 * Offsets count from the data's start. The tensors cover the data without hole and overlap, from its
 * first to the file's last byte; the reader refuses all else, as the original does (huggingface
 * safetensors, src/tensor.rs). White space around the JSON is padding. Data need not be aligned. A rank
 * of 0 reads as {1}; empty tensors are allowed. Unknown members of a tensor are ignored.
 *
 * Nothing but the header's pages is touched. */
#ifndef ASHLEY_FORMAT_SAFETENSORS_H
#define ASHLEY_FORMAT_SAFETENSORS_H

#include "format/tensor_list.h"

/* An ash_tensor_reader; arg is not used. ASH_EFORMAT malformed or cut, ASH_EUNSUPPORTED an unknown
 * dtype, ASH_ELIMIT over a cap of base/limits.h. Errors name file, tensor and byte. */
int ash_safetensors_read(void *arg, ash_tensor_list *list, uint32_t file, ash_err *err) ASH_MUST_CHECK;

/* Do the first bytes (n of them, of a file of `size`) look like the start of one? */
bool ash_safetensors_looks(const uint8_t *p, size_t n, uint64_t size);

#endif
