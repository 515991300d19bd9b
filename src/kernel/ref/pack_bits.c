/* Owns the plain way of gathering GPTQ's bits. Any thread. */
#include "kernel/ref/ref.h"

#define PACK_BITS ash_ref_pack_bits
#include "kernel/pack_bits.inc.h"
