/* Owns the AVX2 way of gathering GPTQ's bits. Any thread. */
#include "kernel/x86/x86.h"

#define PACK_BITS ash_avx2_pack_bits
#include "kernel/pack_bits.inc.h"
