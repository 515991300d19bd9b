/* Owns detection of the processor. cpuid is asked for features and XGETBV for what the OS saves:
 * a feature counts only when both agree (Intel SDM vol. 1, 14.3 and 15.2). On AArch64 the kernel tells both
 * (Linux, Documentation/arm64/elf_hwcaps.rst). Any thread. */
#include "base/cpu.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/cgroup.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

/* A process asks for the room that tiles take in its threads' states, once
 * (Linux, Documentation/arch/x86/xstate.rst). */
static bool may_use_tiles(void)
{
    enum { REQUEST = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA */
    return !syscall(SYS_arch_prctl, REQUEST, TILE_DATA);
}

static void detect(ash_cpu *c)
{
    uint32_t a, b, cx, d, brand[12] = {0};
    for (uint32_t i = 0; i < 3; i++)
        __get_cpuid(0x80000002u + i, &brand[i * 4], &brand[i * 4 + 1], &brand[i * 4 + 2],
                    &brand[i * 4 + 3]);
    memcpy(c->name, brand, 48);
    if (!__get_cpuid(1, &a, &b, &cx, &d) || !(cx & bit_OSXSAVE))
        return;
    uint64_t os = xcr0();
    bool base = (cx & bit_AVX) && (cx & bit_FMA) && (cx & bit_F16C) && (os & 6) == 6;
    if (!base || !__get_cpuid_count(7, 0, &a, &b, &cx, &d) || !(b & bit_AVX2))
        return;
    c->level = ASH_CPU_AVX2;
    uint32_t need = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    if ((os & 0xE6) != 0xE6 || (b & need) != need || !(cx & bit_AVX512VNNI))
        return;
    c->level = ASH_CPU_AVX512;
    bool vbmi = cx & bit_AVX512VBMI;
    uint32_t tiles = 1u << 22 | 1u << 24 | 1u << 25; /* AMX-BF16, AMX-TILE, AMX-INT8 */
    bool amx = (d & tiles) == tiles && (os & 3u << 17) == 3u << 17;
    if (__get_cpuid_count(7, 1, &a, &b, &cx, &d))
        c->bf16 = vbmi && a & (1u << 5);
    if (amx && c->bf16 && may_use_tiles())
        c->level = ASH_CPU_AMX;
}
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

static void detect(ash_cpu *c)
{
    unsigned long cap = getauxval(AT_HWCAP), cap2 = getauxval(AT_HWCAP2);
    uint64_t id = 0;
    if (cap & HWCAP_CPUID) /* the kernel answers for MIDR_EL1 (Arm ARM, D17.2.100) */
        __asm__("mrs %0, midr_el1" : "=r"(id));
    snprintf(c->name, sizeof c->name, "AArch64 processor (implementer 0x%02x, part 0x%03x)",
             (unsigned)(id >> 24 & 255), (unsigned)(id >> 4 & 4095));
    c->level = ASH_CPU_NEON;
    if (!(cap & HWCAP_ASIMDDP))
        return;
    c->level = ASH_CPU_DOTPROD;
    c->bf16 = (cap2 & HWCAP2_I8MM) && (cap2 & HWCAP2_BF16);
    if (c->bf16)
        c->level = ASH_CPU_I8MM;
}
#else
static void detect(ash_cpu *c)
{
    snprintf(c->name, sizeof c->name, "unknown processor");
}
#endif

static ash_cpu cpu;

static void detect_once(void)
{
    detect(&cpu);
}

const ash_cpu *ash_cpu_get(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, detect_once);
    return &cpu;
}

#if defined(__aarch64__)
static const char *const level_names[] = {"scalar", "neon", "dotprod", "i8mm"};
static const char *const foreign_names[] = {"avx2", "avx512", "amx"};
#else
static const char *const level_names[] = {"scalar", "avx2", "avx512", "amx"};
static const char *const foreign_names[] = {"neon", "dotprod", "i8mm"};
#endif
enum {
    LEVELS = sizeof level_names / sizeof *level_names,
    FOREIGN = sizeof foreign_names / sizeof *foreign_names,
};

const char *ash_cpu_level_name(ash_cpu_level level)
{
    return level_names[level];
}

int ash_cpu_parse(const char *word, ash_cpu_level *out, ash_err *err)
{
    bool known = false;
    for (int i = 0; i < FOREIGN; i++) known = known || !strcmp(word, foreign_names[i]);
    for (int i = 0; i < LEVELS; i++) {
        if (strcmp(word, level_names[i]))
            continue;
        known = true;
        if ((ash_cpu_level)i > ash_cpu_get()->level)
            break;
        *out = (ash_cpu_level)i;
        return 0;
    }
    if (known)
        return ash_err_set(err, ASH_EUNSUPPORTED, "this processor has no %s; its best is %s", word,
                           level_names[ash_cpu_get()->level]);
    return ash_err_set(err, ASH_EINVAL, "'%s' is no kernel set: use scalar, avx2, avx512 or amx, on Arm "
                       "neon, dotprod or i8mm", word);
}

int ash_cpu_threads(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    int limit = ash_cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
    if (limit && limit < n)
        n = limit;
    return n < 1 ? 1 : n;
}
