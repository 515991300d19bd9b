/* Writes PyTorch files for tests: pickles by opcode, zip archives, the legacy form. Not for the
 * program. */
#ifndef ASHLEY_TESTS_TORCH_WRITER_H
#define ASHLEY_TESTS_TORCH_WRITER_H

#include <string.h>

#include "base/buf.h"

static inline void tw_int(ash_buf *b, uint64_t v, int size)
{
    for (int i = 0; i < size; i++) ash_buf_addc(b, (char)(i < 8 ? v >> (8 * i) : 0));
}

/* ---- pickles ------------------------------------------------------------------------------------
 */

static inline void pk_str(ash_buf *b, const char *s)
{
    ash_buf_addc(b, 'X');
    tw_int(b, strlen(s), 4);
    ash_buf_adds(b, s);
}

static inline void pk_global(ash_buf *b, const char *module, const char *name)
{
    ash_buf_printf(b, "c%s\n%s\n", module, name);
}

/* As the shortest LONG1. */
static inline void pk_num(ash_buf *b, int64_t v)
{
    ash_buf_addc(b, (char)0x8A);
    tw_int(b, 8, 1);
    tw_int(b, (uint64_t)v, 8);
}

/* Leaves the storage on the stack. */
static inline void pk_storage(ash_buf *b, const char *cls, const char *key, int64_t n)
{
    ash_buf_addc(b, '(');
    pk_str(b, "storage");
    pk_global(b, "torch", cls);
    pk_str(b, key);
    pk_str(b, "cpu");
    pk_num(b, n);
    ash_buf_adds(b, "tQ");
}

static inline void pk_tuple(ash_buf *b, int n, const int64_t *v)
{
    ash_buf_addc(b, '(');
    for (int i = 0; i < n; i++) pk_num(b, v[i]);
    ash_buf_addc(b, 't');
}

static inline void pk_rest(ash_buf *b)
{
    ash_buf_addc(b, (char)0x89); /* requires_grad */
    pk_global(b, "collections", "OrderedDict");
    ash_buf_adds(b, ")RtR");
}

/* _rebuild_tensor_v2 of n dims. */
static inline void pk_tensor(ash_buf *b, const char *cls, const char *key, int64_t stored,
                             int64_t offset, int n, const int64_t *size, const int64_t *stride)
{
    pk_global(b, "torch._utils", "_rebuild_tensor_v2");
    ash_buf_addc(b, '(');
    pk_storage(b, cls, key, stored);
    pk_num(b, offset);
    pk_tuple(b, n, size);
    pk_tuple(b, n, stride);
    pk_rest(b);
}

/* PROTO 2, an empty dict, a mark: to be followed by keys and values, and pk_end. */
static inline void pk_begin(ash_buf *b)
{
    ash_buf_init(b, 1u << 26);
    ash_buf_adds(b, "\x80\x02}(");
}

static inline void pk_end(ash_buf *b)
{
    ash_buf_adds(b, "u.");
}

/* ---- zip ----------------------------------------------------------------------------------------
 */

typedef struct zip_writer {
    ash_buf out, directory;
    int n;
} zip_writer;

static inline void zw_begin(zip_writer *w)
{
    ash_buf_init(&w->out, 1u << 27);
    ash_buf_init(&w->directory, 1u << 26);
    w->n = 0;
}

/* As PyTorch does: sizes in the directory only, data aligned to 16 by an extra field. */
static inline void zw_add(zip_writer *w, const char *name, const void *data, size_t n)
{
    uint64_t local = w->out.len, len = strlen(name);
    uint64_t pad = (16 - (local + 30 + len + 4) % 16) % 16;
    ash_buf_adds(&w->out, "PK\3\4");
    tw_int(&w->out, 0, 2);
    tw_int(&w->out, 0x808, 2);
    tw_int(&w->out, 0, 18);
    tw_int(&w->out, len, 2);
    tw_int(&w->out, 4 + pad, 2);
    ash_buf_adds(&w->out, name);
    ash_buf_adds(&w->out, "FB");
    tw_int(&w->out, pad, 2);
    for (uint64_t i = 0; i < pad; i++) ash_buf_addc(&w->out, 'Z');
    ash_buf_add(&w->out, data, n);
    ash_buf_adds(&w->directory, "PK\1\2");
    tw_int(&w->directory, 0, 4);
    tw_int(&w->directory, 0x808, 2);
    tw_int(&w->directory, 0, 10);
    tw_int(&w->directory, n, 4);
    tw_int(&w->directory, n, 4);
    tw_int(&w->directory, len, 2);
    tw_int(&w->directory, 0, 12);
    tw_int(&w->directory, local, 4);
    ash_buf_adds(&w->directory, name);
    w->n++;
}

/* The directory and its end; the archive is w->out. */
static inline void zw_end(zip_writer *w, bool zip64)
{
    uint64_t start = w->out.len, size = w->directory.len, n = (uint64_t)w->n;
    ash_buf_add(&w->out, w->directory.data, w->directory.len);
    uint64_t end = w->out.len;
    if (zip64) {
        ash_buf_adds(&w->out, "PK\6\6");
        tw_int(&w->out, 44, 8);
        tw_int(&w->out, 0, 12);
        tw_int(&w->out, n, 8);
        tw_int(&w->out, n, 8);
        tw_int(&w->out, size, 8);
        tw_int(&w->out, start, 8);
        ash_buf_adds(&w->out, "PK\6\7");
        tw_int(&w->out, 0, 4);
        tw_int(&w->out, end, 8);
        tw_int(&w->out, 1, 4);
    }
    ash_buf_adds(&w->out, "PK\5\6");
    tw_int(&w->out, 0, 4);
    tw_int(&w->out, n, 2);
    tw_int(&w->out, n, 2);
    tw_int(&w->out, size, 4);
    tw_int(&w->out, start, 4);
    tw_int(&w->out, 0, 2);
    ash_buf_release(&w->directory);
}

/* ---- legacy -------------------------------------------------------------------------------------
 */

static inline void lw_begin(ash_buf *b)
{
    static const char magic[] = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    ash_buf_init(b, 1u << 20);
    ash_buf_add(b, magic, sizeof magic - 1);
    ash_buf_adds(b, "\x80\x02M\xe9\x03.\x80\x02}(");
    pk_str(b, "protocol_version");
    ash_buf_adds(b, "M\xe9\x03");
    pk_str(b, "little_endian");
    ash_buf_addc(b, (char)0x88);
    pk_end(b);
}

/* The list of keys. */
static inline void lw_keys(ash_buf *b, int n, const char *const *keys)
{
    ash_buf_adds(b, "\x80\x02](");
    for (int i = 0; i < n; i++) pk_str(b, keys[i]);
    ash_buf_adds(b, "e.");
}

/* n elements of `bytes` in all. */
static inline void lw_data(ash_buf *b, uint64_t n, uint64_t bytes)
{
    tw_int(b, n, 8);
    for (uint64_t i = 0; i < bytes; i++) ash_buf_addc(b, (char)i);
}

#endif
