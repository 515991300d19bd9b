/* Owns the plain way of gathering GPTQ's bits. Any thread. */
#include <string.h>

#include "kernel/ref/ref.h"

typedef uint32_t vec;
enum { VEC_BYTES = 4 };

static inline vec vec_load(const uint8_t *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline vec vec_set(uint32_t v)
{
    return v;
}

static inline vec vec_add(vec sum, vec v, vec rotate, vec mask)
{
    return sum | ((v << rotate | v >> (-rotate & 31)) & mask);
}

static inline void vec_store(uint8_t *p, vec v)
{
    memcpy(p, &v, sizeof v);
}

static inline void vec_done(void)
{
}

#define PACK_BITS ash_ref_pack_bits
#include "kernel/pack_bits.inc.h"
