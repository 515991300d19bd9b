/* The check of one file's bytes, for `ashley verify`: that its hash is the known one, and that
 * every element of its tensors is a finite number. */
#ifndef ASHLEY_CLI_VERIFY_H
#define ASHLEY_CLI_VERIFY_H

#include <stdatomic.h>

#include "base/pool.h"
#include "format/tensor_index.h"

typedef enum ash_verify_kind {
    ASH_VERIFY_NONE,   /* no hash is known */
    ASH_VERIFY_SHA256, /* of the content: what the catalogue has, and what the hub calls large files
                        */
    ASH_VERIFY_GIT,    /* SHA-1 of "blob SIZE\0" and the content: what the hub calls small files */
} ash_verify_kind;

/* What a file must be. */
typedef struct ash_verify_hash {
    ash_verify_kind kind;
    char hex[65];     /* lower case */
    const char *from; /* "the catalogue", "the hub cache"; static */
} ash_verify_hash;

/* What the hub cache calls path: the name of the blob that it is a link to. NONE if it is no such
 * link. */
ash_verify_hash ash_verify_hub_hash(const char *path);

typedef struct ash_verify_job {
    const ash_tensor_index *index; /* NULL: hash only */
    uint32_t file;                 /* of index */
    const char *path;
    ash_verify_hash hash;
    ash_pool *pool;
    const atomic_bool *cancel;
    void (*progress)(void *user, uint64_t bytes); /* so many more were checked; may be NULL */
    void *user;
} ash_verify_job;

/* Reads the file once, in order, in memory that does not depend on its size. 0 if all is well;
 * ASH_EFORMAT names the file, and the tensor and element or both hashes; ASH_EIO, ASH_ENOMEM,
 * ASH_ECANCELED. Types that cannot be computed with are not looked into. */
int ash_verify_file(const ash_verify_job *job, ash_err *err) ASH_MUST_CHECK;

#endif
