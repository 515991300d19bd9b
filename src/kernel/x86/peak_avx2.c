/* Owns the AVX2 peak loop: vpmaddubsw, vpmaddwd, vpaddd as int8 kernels without VNNI use them. */
#include <immintrin.h>

#include "kernel/peak.h"

int64_t ash_peak_avx2(int64_t rounds)
{
    enum { REGISTERS = 8 };
    __m256i acc[REGISTERS], a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(2), one = _mm256_set1_epi16(1);
    for (int i = 0; i < REGISTERS; i++) acc[i] = _mm256_setzero_si256();
    for (int64_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+x"(a), "+x"(b));
        for (int i = 0; i < REGISTERS; i++) {
            __m256i pairs = _mm256_maddubs_epi16(a, b);
            __asm__ volatile("" : "+x"(pairs)); /* one product each, not one for all */
            acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(pairs, one));
        }
    }
    for (int i = 1; i < REGISTERS; i++) acc[0] = _mm256_add_epi32(acc[0], acc[i]);
    __asm__ volatile("" : : "x"(acc[0]));
    return rounds * REGISTERS * 32 * 2;
}
