/* The tensors of one checkpoint, validated: what every format reader produces and all that arch sees.
 *
 * Owned by the reader that filled it (e.g. ash_gguf); immutable after open, any thread. Names, paths
 * and data are borrowed and live as long as the reader. Knows no maths: whether a type can be
 * computed with is arch's business. */
#ifndef ASHLEY_FORMAT_TENSOR_INDEX_H
#define ASHLEY_FORMAT_TENSOR_INDEX_H

#include "base/arena.h"
#include "base/dtype.h"
#include "base/fs.h"
#include "base/limits.h"

/* One tensor. A matrix W that maps `in` values to `out` has dims {out, in}: row-major, outermost
 * first, the last one contiguous (GGUF files list them the other way round). Unused dims are 1.
 * dims[n_dims-1] is a multiple of the type's block; bytes == product(dims) in blocks. */
typedef struct ash_tensor {
    const char *name;
    ash_dtype dtype;
    uint32_t n_dims;             /* 1 .. ASH_MAX_DIMS */
    uint64_t dims[ASH_MAX_DIMS]; /* a dim may be 0: an empty tensor */
    uint32_t file;               /* index into files */
    uint64_t offset;             /* bytes from the file's start; offset + bytes <= the file's size */
    uint64_t bytes;          /* of its elements, densely; 0 for an empty tensor */
    const uint64_t *strides; /* [n_dims] in elements, for a PyTorch view that is not row-major and
                                dense; else NULL. Only plain types have them; every element lies
                                within the file */
} ash_tensor;

typedef struct ash_tensor_file {
    const char *path; /* as opened, for messages */
    ash_map map;      /* read-only, MAP_SHARED: clean pages that the kernel may drop.
                         fd -1: the caller's memory, left alone at release */
} ash_tensor_file;

typedef struct ash_tensor_index {
    ash_tensor *tensors; /* in the files' order */
    size_t n_tensors;
    ash_tensor_file *files;
    size_t n_files;
    uint32_t *slots; /* open addressing by name: position in tensors + 1, 0 empty */
    size_t n_slots;  /* a power of two */
    uint64_t seed[2];
    ash_arena arena; /* owns all of the above but the maps */
} ash_tensor_index;

/* The tensor of that name, or NULL. */
const ash_tensor *ash_tensor_find(const ash_tensor_index *idx, const char *name);
/* Its first byte in the map; valid for t->bytes if it has no strides. Alignment is the file's (GGUF:
 * 32 by default), not to be relied on for vector loads. NULL for an empty tensor. */
const uint8_t *ash_tensor_data(const ash_tensor_index *idx, const ash_tensor *t);
/* n rows from `row` on (a row: all but the first dim), row-major and dense: in the map where they lie
 * so, else gathered into buf (n rows of bytes / dims[0] each). A tensor of one dim has one row. */
const uint8_t *ash_tensor_rows(const ash_tensor_index *idx, const ash_tensor *t, uint64_t row,
                               uint64_t n, void *buf);
/* Elements: the product of dims; it fits in 63 bits. */
uint64_t ash_tensor_count(const ash_tensor *t);
/* Gives a declared tensor (n_dims 0: known by name only, its file is not there) the shape [rows, cols],
 * or [rows] with cols 0; leaves others alone. The thread that opened the checkpoint. */
void ash_tensor_declare(const ash_tensor *t, uint64_t rows, uint64_t cols);
/* "[576, 49152]" as dims lists them, for messages; returns out. */
const char *ash_tensor_shape(const ash_tensor *t, char out[96]);

/* Advice to the kernel; errors do not matter and are not reported. `from` and `n` are bytes within
 * the tensor; pages are rounded outwards, which is harmless: a dropped page is read again if touched.
 * want: read ahead. drop: the range has been packed, take its pages out of this process's resident
 * memory (they stay in the page cache while there is room). */
void ash_tensor_want(const ash_tensor_index *idx, const ash_tensor *t, uint64_t from, uint64_t n);
void ash_tensor_drop(const ash_tensor_index *idx, const ash_tensor *t, uint64_t from, uint64_t n);

/* For readers. init zeroes and takes a cap on its memory; release unmaps and frees, safe twice. */
void ash_tensor_index_init(ash_tensor_index *idx, size_t max_bytes);
void ash_tensor_index_release(ash_tensor_index *idx);
/* Makes the hash over tensors[0..n_tensors). Two of one name: ASH_EFORMAT that names it. */
int ash_tensor_index_seal(ash_tensor_index *idx, ash_err *err) ASH_MUST_CHECK;

#endif
