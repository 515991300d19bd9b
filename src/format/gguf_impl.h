/* What the files of the GGUF reader share; nobody else includes it. */
#ifndef ASHLEY_FORMAT_GGUF_IMPL_H
#define ASHLEY_FORMAT_GGUF_IMPL_H

#include "format/gguf.h"

struct ash_gguf {
    ash_tensor_index index; /* its arena owns kv and slots too */
    ash_gguf_kv *kv;        /* of the first part, in file order */
    size_t n_kv;
    uint32_t *slots; /* open addressing by key: position in kv + 1, 0 empty */
    size_t n_slots;
    uint64_t seed[2];
    uint32_t version;
};

/* Bytes of one value of a scalar type; 0 for strings, arrays and ids that are no type. */
size_t ash_gguf_scalar_size(uint32_t type);
/* A file's name for a message: the path, or its last part where the path is long. */
const char *ash_gguf_label(const char *path);
uint64_t ash_gguf_load(const uint8_t *p, size_t size); /* little endian, size <= 8 */

#endif
