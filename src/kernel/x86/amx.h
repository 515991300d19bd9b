/* Operations on the eight tile registers of AMX: up to 16 rows of up to 64 bytes each. Registers are named by
 * the instruction, so T, C, A and B must be digits, 0..7.
 *
 * A thread configures its tiles, uses them, and releases them, all within one call: tiles that hold something
 * make switches of threads dearer and keep a core awake. The process needs the system's leave
 * (base/cpu.c asks for it); without it, or without AMX, every one of these raises SIGILL, which is how the
 * tests carry them out on other processors (tests/unit/kernel/amx_emulator.h).
 * Source: Intel SDM vol. 1, chapter 18, and vol. 2 for each instruction. */
#ifndef ASHLEY_KERNEL_X86_AMX_H
#define ASHLEY_KERNEL_X86_AMX_H

#include <assert.h>
#include <stdint.h>

/* What ldtilecfg reads. */
typedef struct amx_config {
    uint8_t palette; /* 1 */
    uint8_t start_row, reserved[14];
    uint16_t row_bytes[16]; /* of each tile */
    uint8_t rows[16];
} amx_config;
static_assert(sizeof(amx_config) == 64, "the layout of the SDM");

/* Zeroes all tiles. */
static inline void amx_configure(const amx_config *c)
{
    __asm__ volatile("ldtilecfg %0" ::"m"(*c));
}

static inline void amx_release(void)
{
    __asm__ volatile("tilerelease");
}

/* The compiler's own intrinsics (gcc 12) do not say that a load reads memory. */
#define AMX_LOAD(T, from, stride)                                                                     \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #T ::"r"(from), "r"((int64_t)(stride)) : "memory")
#define AMX_STORE(T, to, stride)                                                                      \
    __asm__ volatile("tilestored %%tmm" #T ", (%0,%1,1)" ::"r"(to), "r"((int64_t)(stride)) : "memory")
#define AMX_ZERO(T) __asm__ volatile("tilezero %%tmm" #T ::)
/* C[m][n] += the sum over k of A[m][k] B[k][n]: 32-bit sums of four products of bytes (of A signed, of B
 * signed or unsigned) or of two of bfloat16. A is [rows][4 bytes], B [4-byte rows of A][n]. */
#define AMX_DOT_I8(C, A, B) __asm__ volatile("tdpbssd %%tmm" #B ", %%tmm" #A ", %%tmm" #C ::)
#define AMX_DOT_I8_U8(C, A, B) __asm__ volatile("tdpbsud %%tmm" #B ", %%tmm" #A ", %%tmm" #C ::)
#define AMX_DOT_BF16(C, A, B) __asm__ volatile("tdpbf16ps %%tmm" #B ", %%tmm" #A ", %%tmm" #C ::)

#endif
