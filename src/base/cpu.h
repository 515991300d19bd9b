/* What the processor and the operating system offer, asked once. Any thread. */
#ifndef ASHLEY_BASE_CPU_H
#define ASHLEY_BASE_CPU_H

#include "base/err.h"

/* Levels count up within a family of processors, so that any up to the best can be asked for; the families
 * share the numbers. */
typedef enum ash_cpu_level {
    ASH_CPU_SCALAR, /* plain C: the float reference */
    ASH_CPU_AVX2,   /* AVX2 + FMA + F16C */
    ASH_CPU_AVX512, /* AVX-512 F BW DQ VL + VNNI; BF16 where bf16 says so */
    ASH_CPU_AMX,    /* AVX512 and BF16 besides AMX's TILE, INT8 and BF16; the system lets this process */
    ASH_CPU_NEON = ASH_CPU_SCALAR + 1, /* AArch64, Armv8.0 */
    ASH_CPU_DOTPROD,                   /* FEAT_DotProd: sdot */
    ASH_CPU_I8MM,                      /* FEAT_I8MM and FEAT_BF16: smmla, bfdot */
} ash_cpu_level;

typedef struct ash_cpu {
    ash_cpu_level level; /* the best that CPU and OS have */
    bool bf16;           /* AVX512_BF16 with AVX512_VBMI (all but Cooper Lake), or FEAT_BF16 */
    char name[64];       /* "AMD EPYC ..." */
} ash_cpu;

const ash_cpu *ash_cpu_get(void);
/* Reads "scalar", "avx2", "avx512", "amx", "neon", "dotprod", "i8mm"; ASH_EINVAL for other words,
 * ASH_EUNSUPPORTED for what this machine lacks. */
int ash_cpu_parse(const char *word, ash_cpu_level *out, ash_err *err) ASH_MUST_CHECK;
const char *ash_cpu_level_name(ash_cpu_level level);
/* Threads worth starting: CPUs of the affinity mask, at most the least CPU limit of its control groups. */
int ash_cpu_threads(void);

#endif
