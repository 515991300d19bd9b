/* Owns the loops that show what an x86-64 core can do at most: everything in registers, with enough
 * independent chains to hide latencies. Functions carry their own target, for this file is chosen from
 * at run time and holds no kernel. */
#include "kernel/peak.h"

#include "base/cpu.h"

#include "kernel/x86/amx.h"

#include <immintrin.h>

enum { CHAINS = 16 };

#define CHAINS_OF(type, zero)                                                                      \
    type a[CHAINS];                                                                                \
    _Pragma("GCC unroll 16") for (int i = 0; i < CHAINS; i++)                                      \
    {                                                                                              \
        a[i] = zero;                                                                               \
        __asm__ volatile("" : "+v"(a[i])); /* else equal chains are one chain */                   \
    }
#define EACH _Pragma("GCC unroll 16") for (int i = 0; i < CHAINS; i++)

__attribute__((target("avx512f,avx512vnni"))) static double int8_512(long rounds)
{
    CHAINS_OF(__m512i, _mm512_setzero_si512());
    __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(1);
    for (long r = 0; r < rounds; r++) {
        EACH a[i] = _mm512_dpbusd_epi32(a[i], x, y);
        __asm__ volatile("" : "+v"(x), "+v"(y));
    }
    EACH __asm__ volatile("" ::"v"(a[i]));
    return (double)rounds * CHAINS * 128;
}

__attribute__((target("avx512f,avx512bf16"))) static double bf16_512(long rounds)
{
    CHAINS_OF(__m512, _mm512_setzero_ps());
    __m512i x = _mm512_setzero_si512(), y = x;
    for (long r = 0; r < rounds; r++) {
        EACH a[i] = _mm512_dpbf16_ps(a[i], (__m512bh)x, (__m512bh)y);
        __asm__ volatile("" : "+v"(x), "+v"(y));
    }
    EACH __asm__ volatile("" ::"v"(a[i]));
    return (double)rounds * CHAINS * 64;
}

__attribute__((target("avx512f"))) static double f32_512(long rounds)
{
    CHAINS_OF(__m512, _mm512_setzero_ps());
    __m512 x = _mm512_set1_ps(0.5f), y = x;
    for (long r = 0; r < rounds; r++) {
        EACH a[i] = _mm512_fmadd_ps(x, y, a[i]);
        __asm__ volatile("" : "+v"(x), "+v"(y));
    }
    EACH __asm__ volatile("" ::"v"(a[i]));
    return (double)rounds * CHAINS * 32;
}

/* 16 rows, 16 columns, 64 bytes deep. */
static const amx_config whole = {.palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                                 .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

static double int8_tiles(long rounds)
{
    amx_configure(&whole);
    for (long r = 0; r < rounds; r++) {
        AMX_DOT_I8(0, 4, 6);
        AMX_DOT_I8(1, 4, 7);
        AMX_DOT_I8(2, 5, 6);
        AMX_DOT_I8(3, 5, 7);
    }
    amx_release();
    return (double)rounds * 4 * 16 * 16 * 64 * 2;
}

static double bf16_tiles(long rounds)
{
    amx_configure(&whole);
    for (long r = 0; r < rounds; r++) {
        AMX_DOT_BF16(0, 4, 6);
        AMX_DOT_BF16(1, 4, 7);
        AMX_DOT_BF16(2, 5, 6);
        AMX_DOT_BF16(3, 5, 7);
    }
    amx_release();
    return (double)rounds * 4 * 16 * 16 * 32 * 2;
}

__attribute__((target("avx2"))) static double int8_256(long rounds)
{
    __m256i a[8];
    for (int i = 0; i < 8; i++) {
        a[i] = _mm256_setzero_si256();
        __asm__ volatile("" : "+x"(a[i]));
    }
    __m256i x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(1), one = _mm256_set1_epi16(1);
    for (long r = 0; r < rounds; r++) {
        _Pragma("GCC unroll 8") for (int i = 0; i < 8; i++)
        {
            __m256i p = _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), one);
            __asm__ volatile("" : "+x"(p));
            a[i] = _mm256_add_epi32(a[i], p);
        }
        __asm__ volatile("" : "+x"(x), "+x"(y));
    }
    for (int i = 0; i < 8; i++) __asm__ volatile("" ::"x"(a[i]));
    return (double)rounds * 8 * 64;
}

__attribute__((target("avx2,fma"))) static double f32_256(long rounds)
{
    __m256 a[12];
    for (int i = 0; i < 12; i++) {
        a[i] = _mm256_setzero_ps();
        __asm__ volatile("" : "+x"(a[i]));
    }
    __m256 x = _mm256_set1_ps(0.5f), y = x;
    for (long r = 0; r < rounds; r++) {
        _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) a[i] = _mm256_fmadd_ps(x, y, a[i]);
        __asm__ volatile("" : "+x"(x), "+x"(y));
    }
    for (int i = 0; i < 12; i++) __asm__ volatile("" ::"x"(a[i]));
    return (double)rounds * 12 * 16;
}

__attribute__((target("avx2"))) static double read_all(const uint8_t *p, long bytes)
{
    __m256i s[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                    _mm256_setzero_si256()};
    for (long i = 0; i < bytes; i += 128)
        for (int j = 0; j < 4; j++)
            s[j] = _mm256_or_si256(s[j], _mm256_load_si256((const __m256i *)(p + i + j * 32)));
    for (int j = 0; j < 4; j++) __asm__ volatile("" ::"x"(s[j]));
    return (double)bytes;
}

double ash_peak_run(ash_peak what, long rounds, const void *memory, long bytes)
{
    ash_cpu_level level = ash_cpu_get()->level;
    bool wide = level >= ASH_CPU_AVX512, tiles = level >= ASH_CPU_AMX;
    if (level < ASH_CPU_AVX2)
        return 0.0;
    switch (what) {
    case ASH_PEAK_READ: return read_all(memory, bytes);
    case ASH_PEAK_INT8: return tiles ? int8_tiles(rounds) : wide ? int8_512(rounds) : int8_256(rounds);
    case ASH_PEAK_BF16: return tiles ? bf16_tiles(rounds) : ash_cpu_get()->bf16 ? bf16_512(rounds) : 0.0;
    default: return wide ? f32_512(rounds) : f32_256(rounds);
    }
}
