/* Owns the AVX-512 way of gathering GPTQ's bits. Any thread. */
#include "kernel/x86/x86.h"

#define PACK_BITS ash_avx512_pack_bits
#include "kernel/pack_bits.inc.h"
