/* What the files of the binder share; nobody else includes it. */
#ifndef ASHLEY_ARCH_BIND_IMPL_H
#define ASHLEY_ARCH_BIND_IMPL_H

#include "arch/bind.h"

/* A binding in the making. */
typedef struct bind_plan {
    const ash_bind_target *t;
    const ash_checkpoint *c;
    ash_binding *b;
    ash_arena *arena;
    bool *known; /* [tensors]: a rule has asked for it */
    bool told;   /* that the settings of GPTQ and its tensors differ */
} bind_plan;

/* Where a matrix's weights are. */
typedef struct bind_source {
    const ash_tensor *tensor; /* of rows, or GPTQ's qweight; NULL: there is none */
    const ash_tensor *scales; /* FP8's or GPTQ's, or NULL */
    const ash_tensor *zeros;  /* GPTQ's, or NULL */
    ash_gptq *gptq;           /* in the arena, or NULL */
} bind_source;

extern const char *const bind_dim_names[ASH_DIM_COUNT];

const char *bind_path(const bind_plan *p, const ash_tensor *t); /* of its file, for messages */
/* A tensor by its name, which a Hugging Face file may write without "model."; marks it as known. */
const ash_tensor *bind_find(const bind_plan *p, const char *name);
/* The tensors of the matrix W [out, in] called `name`; src->tensor is NULL if there are none. Types and
 * the shapes of GPTQ and FP8 are checked, rows' shapes are the caller's. */
int bind_resolve(bind_plan *p, const char *name, int64_t out, int64_t in, bind_source *src,
                 ash_err *err) ASH_MUST_CHECK;
/* Bytes of a row of a tensor: its last dim. Its dims are not 0. */
uint64_t bind_row_bytes(const ash_tensor *t);
/* The same of a linear of GPTQ: the tensors of `module`, "X.", of which `q` is the qweight. */
int bind_resolve_gptq(bind_plan *p, const char *module, const ash_tensor *q, int64_t out, int64_t in,
                      bind_source *src, ash_err *err) ASH_MUST_CHECK;

#endif
