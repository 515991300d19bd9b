/* Owns the AVX-512 VNNI peak loop: independent vpdpbusd over sixteen accumulators. */
#include <immintrin.h>

#include "kernel/peak.h"

int64_t ash_peak_avx512(int64_t rounds)
{
    enum { REGISTERS = 16 };
    __m512i acc[REGISTERS], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(2);
    for (int i = 0; i < REGISTERS; i++) {
        acc[i] = _mm512_setzero_si512();
        __asm__ volatile("" : "+v"(acc[i])); /* equal sums would be computed once */
    }
    for (int64_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+v"(a), "+v"(b));
        for (int i = 0; i < REGISTERS; i++) acc[i] = _mm512_dpbusd_epi32(acc[i], a, b);
    }
    for (int i = 1; i < REGISTERS; i++) acc[0] = _mm512_add_epi32(acc[0], acc[i]);
    __asm__ volatile("" : : "v"(acc[0]));
    return rounds * REGISTERS * 64 * 2;
}
