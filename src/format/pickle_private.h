/* What the files of the pickle machine share; nobody else includes it. */
#ifndef ASHLEY_FORMAT_PICKLE_PRIVATE_H
#define ASHLEY_FORMAT_PICKLE_PRIVATE_H

#include "format/pickle.h"

/* What a global of the table stands for. */
typedef enum ash_pickle_what {
    ASH_PICKLE_REBUILD,    /* (storage, offset, size, stride) */
    ASH_PICKLE_REBUILD_V2, /* ... requires_grad, hooks[, metadata] */
    ASH_PICKLE_REBUILD_V3, /* ... requires_grad, hooks, dtype[, metadata] */
    ASH_PICKLE_PARAMETER,  /* (tensor, ...) */
    ASH_PICKLE_ORDERED_DICT,
    ASH_PICKLE_SIZE,
    ASH_PICKLE_STORAGE_OF, /* of its dtype */
    ASH_PICKLE_UNTYPED,
    ASH_PICKLE_DTYPE,
} ash_pickle_what;

typedef struct ash_pickle_global {
    const char *module, *name;
    ash_pickle_what what;
    ash_dtype dtype;
} ash_pickle_global;

/* The table's entry, or NULL: then the name is refused. */
const ash_pickle_global *ash_pickle_find_global(ash_str module, ash_str name, int64_t *index);
const ash_pickle_global *ash_pickle_global_at(int64_t index);
/* "INST" for 'i', ...; NULL for a byte that is no opcode. */
const char *ash_pickle_opcode_name(uint8_t op);

/* Sets the first failure; always false. */
bool ash_pickle_fail(ash_pickle *m, int code, int64_t pos, const char *fmt, ...) ASH_PRINTF(4, 5);
bool ash_pickle_push(ash_pickle *m, ash_pickle_value v);
/* size bytes of the arena, cleared; NULL with the error set. */
void *ash_pickle_alloc(ash_pickle *m, size_t n, size_t size);
bool ash_pickle_append(ash_pickle *m, ash_pickle_list *l, const ash_pickle_value *v, size_t n);

/* REDUCE, NEWOBJ and BINPERSID: what replaces them on the stack. pos is the opcode's. */
bool ash_pickle_reduce(ash_pickle *m, const ash_pickle_value *callee, const ash_pickle_value *args,
                       int64_t pos);
bool ash_pickle_new_object(ash_pickle *m, const ash_pickle_value *cls, const ash_pickle_value *args,
                           int64_t pos);
bool ash_pickle_persistent(ash_pickle *m, const ash_pickle_value *id, int64_t pos);

#endif
