/* Tensors while a reader collects them: a growing list that becomes the index once all files are read.
 * What the readers of safetensors and PyTorch files share. One thread at a time. */
#ifndef ASHLEY_FORMAT_TENSOR_LIST_H
#define ASHLEY_FORMAT_TENSOR_LIST_H

#include "format/tensor_index.h"

typedef struct ash_tensor_list {
    ash_tensor_index *idx; /* borrowed: files and the arena that owns names and strides */
    ash_tensor *p;         /* owned heap */
    size_t n, cap;
} ash_tensor_list;

/* Reads the headers of idx->files[file], which is mapped, and adds its tensors. `arg` is the caller's. */
typedef int ash_tensor_reader(void *arg, ash_tensor_list *list, uint32_t file, ash_err *err);

void ash_tensor_list_release(ash_tensor_list *l); /* the list only, not the index; safe twice */
/* Copies *t. ASH_ELIMIT over ASH_MAX_TENSORS. */
int ash_tensor_list_add(ash_tensor_list *l, const ash_tensor *t, ash_err *err) ASH_MUST_CHECK;
/* Tensors from position `first` on into the file's order: by offset, then size, then name. */
void ash_tensor_list_sort(ash_tensor_list *l, size_t first);
/* Moves the tensors into the index and seals it. */
int ash_tensor_list_finish(ash_tensor_list *l, ash_err *err) ASH_MUST_CHECK;
/* A name as an arena copy in *out: UTF-8, not empty, no control characters, up to ASH_MAX_HF_NAME. */
int ash_tensor_list_name(ash_tensor_list *l, const char *label, ash_str name, int64_t pos,
                         const char **out, ash_err *err) ASH_MUST_CHECK;

/* Sets dims and n_dims of t (rank 0 is {1}) and checks that their product, zeros counted as ones, fits
 * 63 bits and the bytes, set too, do. Errors name label and t->name at pos. */
int ash_tensor_list_shape(ash_tensor *t, const char *label, const uint64_t *dims, size_t n, int64_t pos,
                          ash_err *err) ASH_MUST_CHECK;

#endif
