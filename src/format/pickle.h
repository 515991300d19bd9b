/* Pickles of PyTorch state dicts: a machine that builds tensors' descriptions and nothing else.
 *
 * It knows the opcodes that torch's own restricted reader knows (torch/_weights_only_unpickler.py) and
 * refuses every other by name and byte. A global is compared with a fixed table: tensors, storages,
 * element types, OrderedDict, torch.Size. Nothing is imported, looked up or called, and no name from
 * the file decides what runs. Values are data in an arena; the same value may be reached twice, also by
 * itself, so do not walk them without a bound.
 *
 * Sources: Python's pickletools.py; torch/_utils.py and torch/serialization.py. One thread at a time. */
#ifndef ASHLEY_FORMAT_PICKLE_H
#define ASHLEY_FORMAT_PICKLE_H

#include "base/arena.h"
#include "base/dtype.h"

typedef enum ash_pickle_kind {
    ASH_PICKLE_NONE,
    ASH_PICKLE_BOOL,   /* i: 0 or 1 */
    ASH_PICKLE_INT,    /* i */
    ASH_PICKLE_LONG,   /* s: over 64 bits, two's complement, little endian */
    ASH_PICKLE_FLOAT,  /* f */
    ASH_PICKLE_STR,    /* s */
    ASH_PICKLE_TUPLE,  /* list */
    ASH_PICKLE_LIST,   /* list */
    ASH_PICKLE_DICT,   /* list: key, value, key, value, ... */
    ASH_PICKLE_SET,    /* an empty one */
    ASH_PICKLE_GLOBAL, /* i: a place in the machine's table */
    ASH_PICKLE_STORAGE,
    ASH_PICKLE_TENSOR,
    ASH_PICKLE_MARK, /* on the stack only */
} ash_pickle_kind;

typedef struct ash_pickle_value ash_pickle_value;

typedef struct ash_pickle_list {
    ash_pickle_value *v;
    size_t n, cap;
} ash_pickle_list;

/* The bytes that a key names: one for all storages of that key. */
typedef struct ash_pickle_root {
    ash_str key;
    uint32_t elem;  /* bytes of an element, of the first storage that named it */
    uint64_t bytes;
    uint64_t data;  /* for the reader: where they start in the file */
    bool found;     /* for the reader: data is set */
    int64_t pos;    /* of the opcode that named it */
} ash_pickle_root;

/* A typed run of a root's bytes. */
typedef struct ash_pickle_storage {
    ash_pickle_root *root;
    ash_dtype dtype;
    bool untyped;   /* bytes; the tensor tells the type */
    uint64_t first; /* elements before it in the root */
    uint64_t n;     /* elements */
} ash_pickle_storage;

/* As the file says, not checked against the storage. */
typedef struct ash_pickle_tensor {
    const ash_pickle_storage *storage;
    ash_dtype dtype;
    int64_t offset;                      /* elements */
    const ash_pickle_list *size, *stride; /* of ASH_PICKLE_INT, of one length */
    int64_t pos;
} ash_pickle_tensor;

struct ash_pickle_value {
    ash_pickle_kind kind;
    union {
        int64_t i;
        double f;
        ash_str s; /* borrowed from the pickle */
        ash_pickle_list *list;
        const ash_pickle_storage *storage;
        const ash_pickle_tensor *tensor;
    };
};

typedef struct ash_pickle {
    const char *label; /* the file, for messages */
    const uint8_t *p;  /* borrowed */
    size_t n, at;
    int64_t base;      /* position of p[0] in the file */
    ash_arena *arena;  /* owns all values */
    ash_err *err;
    int rc;
    ash_pickle_value *stack, *memo; /* owned heap */
    size_t n_stack, cap_stack, n_memo, cap_memo;
    /* storages by key, of all pickles run with this machine */
    ash_pickle_root **roots; /* owned heap */
    size_t n_roots, cap_roots;
    uint32_t *slots; /* owned heap: position in roots + 1 */
    size_t n_slots;
    uint64_t seed[2];
} ash_pickle;

void ash_pickle_init(ash_pickle *m, const char *label, ash_arena *arena, ash_err *err);
void ash_pickle_release(ash_pickle *m); /* not the arena; safe twice */

/* Runs one pickle of p[0..n), of which p[0] is byte `base` of the file, up to its STOP; *out is its
 * value, m->at the bytes used. ASH_EUNSUPPORTED an opcode or global that is not on the lists,
 * ASH_EFORMAT malformed, ASH_ELIMIT over a cap of base/limits.h. */
int ash_pickle_run(ash_pickle *m, const uint8_t *p, size_t n, int64_t base,
                   ash_pickle_value *out) ASH_MUST_CHECK;

/* The root of a key, or NULL. */
ash_pickle_root *ash_pickle_find_root(const ash_pickle *m, ash_str key);
/* The value of a string key of a dict, the last one of that key; NULL if absent or v is no dict. */
const ash_pickle_value *ash_pickle_get(const ash_pickle_value *v, const char *key);

#endif
