/* Writes GGUF bytes for tests: metadata and tensors into an ash_buf. Not for the program. */
#ifndef ASHLEY_TESTS_GGUF_WRITER_H
#define ASHLEY_TESTS_GGUF_WRITER_H

#include <string.h>

#include "base/buf.h"
#include "format/gguf.h"

static inline void gw_int(ash_buf *b, uint64_t v, int size)
{
    for (int i = 0; i < size; i++) ash_buf_addc(b, (char)(v >> (8 * i)));
}

static inline void gw_strn(ash_buf *b, const char *p, size_t n)
{
    gw_int(b, n, 8);
    ash_buf_add(b, p, n);
}

static inline void gw_str(ash_buf *b, const char *s)
{
    gw_strn(b, s, strlen(s));
}

static inline void gw_header(ash_buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
    ash_buf_adds(b, "GGUF");
    gw_int(b, version, 4);
    gw_int(b, n_tensors, 8);
    gw_int(b, n_kv, 8);
}

static inline void gw_key(ash_buf *b, const char *key, uint32_t type)
{
    gw_str(b, key);
    gw_int(b, type, 4);
}

static inline void gw_kv_int(ash_buf *b, const char *key, uint32_t type, uint64_t v, int size)
{
    gw_key(b, key, type);
    gw_int(b, v, size);
}

static inline void gw_kv_str(ash_buf *b, const char *key, const char *v)
{
    gw_key(b, key, ASH_GGUF_STRING);
    gw_str(b, v);
}

static inline void gw_f32(ash_buf *b, float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    gw_int(b, bits, 4);
}

static inline void gw_array(ash_buf *b, const char *key, uint32_t elem, uint64_t n)
{
    gw_key(b, key, ASH_GGUF_ARRAY);
    gw_int(b, elem, 4);
    gw_int(b, n, 8);
}

static inline void gw_kv_strs(ash_buf *b, const char *key, const char *const *v, size_t n)
{
    gw_array(b, key, ASH_GGUF_STRING, n);
    for (size_t i = 0; i < n; i++) gw_str(b, v[i]);
}

/* dims as the file lists them: the row length first. */
static inline void gw_tensor(ash_buf *b, const char *name, uint32_t n_dims, const uint64_t *dims,
                             uint32_t type, uint64_t offset)
{
    gw_str(b, name);
    gw_int(b, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++) gw_int(b, dims[i], 8);
    gw_int(b, type, 4);
    gw_int(b, offset, 8);
}

static inline void gw_pad(ash_buf *b, size_t to)
{
    while (b->len % to) ash_buf_addc(b, 0);
}

static inline void gw_zeros(ash_buf *b, size_t n)
{
    while (n--) ash_buf_addc(b, 0);
}

#endif
