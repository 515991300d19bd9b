/* GGUF checkpoints: metadata and tensors of one file or of a split set, checked in full at open.
 *
 *   "GGUF" | u32 version | u64 n_tensors | u64 n_kv
 *   n_kv times       string key | u32 type | value           string: u64 length, bytes
 *                    array value: u32 element type | u64 n | n elements
 *   n_tensors times  string name | u32 n_dims | u64 dims[n_dims], the row length first | u32 type
 *                    | u64 offset, from the start of the data
 *   padding to general.alignment (32) | data: each tensor padded to the alignment
 *
 * Little endian, versions 2 and 3; 1 and big endian are refused by name. Source: ggml docs/gguf.md
 * and the order of the checks in src/gguf.cpp. Open one part of a split set (the first:
 * PREFIX-00001-of-0000N.gguf) and all are opened; metadata is the first part's.
 *
 * A reader is immutable after open: any thread. Values and tensors are borrowed from the maps and
 * live until close. Errors name file, key or tensor, byte position, what was expected and found. */
#ifndef ASHLEY_FORMAT_GGUF_H
#define ASHLEY_FORMAT_GGUF_H

#include "format/tensor_index.h"

typedef enum ash_gguf_type {
    ASH_GGUF_U8 = 0,
    ASH_GGUF_I8 = 1,
    ASH_GGUF_U16 = 2,
    ASH_GGUF_I16 = 3,
    ASH_GGUF_U32 = 4,
    ASH_GGUF_I32 = 5,
    ASH_GGUF_F32 = 6,
    ASH_GGUF_BOOL = 7,
    ASH_GGUF_STRING = 8,
    ASH_GGUF_ARRAY = 9,
    ASH_GGUF_U64 = 10,
    ASH_GGUF_I64 = 11,
    ASH_GGUF_F64 = 12,
} ash_gguf_type;

/* An array as it lies in the file; nothing is copied. */
typedef struct ash_gguf_array {
    ash_gguf_type type;  /* of the elements; never ASH_GGUF_ARRAY */
    uint64_t n;          /* elements */
    const uint8_t *data; /* borrowed, unaligned */
    uint64_t bytes;
} ash_gguf_array;

typedef struct ash_gguf_kv {
    ash_str key;
    ash_gguf_type type;
    uint64_t pos;         /* of the value, from the file's start */
    const uint8_t *data;  /* a scalar's bytes; a string's without its length */
    uint64_t bytes;
    ash_gguf_array array; /* when type is ASH_GGUF_ARRAY */
} ash_gguf_kv;

typedef struct ash_gguf ash_gguf;

/* Opens path; on success *out is the caller's (ash_gguf_close). ASH_ENOENT/EIO from the system,
 * ASH_EFORMAT malformed or cut, ASH_EUNSUPPORTED version 1, big endian, unknown or removed types,
 * ASH_ELIMIT over a cap of base/limits.h. Reads the headers only; costs O(metadata). */
int ash_gguf_open(const char *path, ash_gguf **out, ash_err *err) ASH_MUST_CHECK;
/* The same over bytes[0..n), borrowed until close; `name` is for messages. Split sets are refused. */
int ash_gguf_open_memory(const void *bytes, size_t n, const char *name, ash_gguf **out,
                         ash_err *err) ASH_MUST_CHECK;
void ash_gguf_close(ash_gguf *g); /* NULL is fine */

const ash_tensor_index *ash_gguf_tensors(const ash_gguf *g);
const char *ash_gguf_path(const ash_gguf *g);
uint32_t ash_gguf_version(const ash_gguf *g);

/* All pairs in file order, for `ashley show`. */
size_t ash_gguf_kv_count(const ash_gguf *g);
const ash_gguf_kv *ash_gguf_kv_at(const ash_gguf *g, size_t i); /* i < count */
const ash_gguf_kv *ash_gguf_find(const ash_gguf *g, const char *key); /* NULL if absent */
const char *ash_gguf_type_name(ash_gguf_type t); /* "uint32", ...; "unknown" otherwise */

/* Up to 64 bytes of s as printable ASCII for a message, cut with "..."; returns out. */
const char *ash_gguf_show(ash_str s, char out[80]);

/* Getters. An absent key leaves *out as it is and returns 0, so preset the default; the `need` forms
 * return ASH_ENOENT "FILE: key 'K' is missing". Any integer type is taken (also a bool for 0 and 1,
 * and a real without fraction); out of [lo, hi] or of another type is ASH_EFORMAT: "FILE: key 'K'
 * must be an integer from LO to HI, is string". Signed values below 0 are out of range for u64. */
int ash_gguf_get_u64(const ash_gguf *g, const char *key, uint64_t lo, uint64_t hi, uint64_t *out,
                     ash_err *err) ASH_MUST_CHECK;
int ash_gguf_get_i64(const ash_gguf *g, const char *key, int64_t lo, int64_t hi, int64_t *out,
                     ash_err *err) ASH_MUST_CHECK;
/* Finite reals, and integers as reals. */
int ash_gguf_get_f64(const ash_gguf *g, const char *key, double *out, ash_err *err) ASH_MUST_CHECK;
/* A bool, or an integer 0 or 1. */
int ash_gguf_get_bool(const ash_gguf *g, const char *key, bool *out, ash_err *err) ASH_MUST_CHECK;
/* Not NUL-terminated; bytes as they are in the file, not checked to be UTF-8. */
int ash_gguf_get_str(const ash_gguf *g, const char *key, ash_str *out, ash_err *err) ASH_MUST_CHECK;
/* Element type must be of the same kind as `kind`: ASH_GGUF_STRING strings only; ASH_GGUF_I64 any
 * integer type or bool; ASH_GGUF_F64 f32, f64 or any integer. */
int ash_gguf_get_array(const ash_gguf *g, const char *key, ash_gguf_type kind, ash_gguf_array *out,
                       ash_err *err) ASH_MUST_CHECK;
int ash_gguf_need_u64(const ash_gguf *g, const char *key, uint64_t lo, uint64_t hi, uint64_t *out,
                      ash_err *err) ASH_MUST_CHECK;
int ash_gguf_need_f64(const ash_gguf *g, const char *key, double *out, ash_err *err) ASH_MUST_CHECK;
int ash_gguf_need_str(const ash_gguf *g, const char *key, ash_str *out, ash_err *err) ASH_MUST_CHECK;
int ash_gguf_need_array(const ash_gguf *g, const char *key, ash_gguf_type kind,
                        ash_gguf_array *out, ash_err *err) ASH_MUST_CHECK;

/* Element i < a->n of an array of integers or bools, or of reals or integers; in the array's own
 * width. 0 for other types or i out of range. A u64 over INT64_MAX comes back as INT64_MAX. */
int64_t ash_gguf_array_i64(const ash_gguf_array *a, uint64_t i);
double ash_gguf_array_f64(const ash_gguf_array *a, uint64_t i);
/* Strings are walked in order: start with *at = 0. False at the end. */
bool ash_gguf_array_next_str(const ash_gguf_array *a, uint64_t *at, ash_str *out);

#endif
