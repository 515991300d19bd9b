/* 128-bit pieces that the AVX2 and AVX-512 files share. */
#ifndef ASHLEY_KERNEL_X86_SSE_H
#define ASHLEY_KERNEL_X86_SSE_H

#include <immintrin.h>

#include "kernel/x86/x86.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* One half float, widened. */
INLINE float half_to_f(uint16_t h)
{
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}

/* Turns 8 rows of 8 halves, `ld` of them apart, to rows `to_ld` apart at 16-byte aligned `to`. */
INLINE void turn_8x8(const uint16_t *from, int ld, uint16_t *to, int to_ld)
{
    __m128i a[8], b[8];
    UNROLL for (int i = 0; i < 8; i++) a[i] = _mm_loadu_si128((const void *)(from + i * ld));
    UNROLL for (int i = 0; i < 4; i++)
    {
        b[2 * i] = _mm_unpacklo_epi16(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm_unpackhi_epi16(a[2 * i], a[2 * i + 1]);
    }
    UNROLL for (int i = 0; i < 2; i++)
    {
        a[4 * i] = _mm_unpacklo_epi32(b[4 * i], b[4 * i + 2]);
        a[4 * i + 1] = _mm_unpackhi_epi32(b[4 * i], b[4 * i + 2]);
        a[4 * i + 2] = _mm_unpacklo_epi32(b[4 * i + 1], b[4 * i + 3]);
        a[4 * i + 3] = _mm_unpackhi_epi32(b[4 * i + 1], b[4 * i + 3]);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        _mm_store_si128((void *)(to + 2 * i * to_ld), _mm_unpacklo_epi64(a[i], a[4 + i]));
        _mm_store_si128((void *)(to + (2 * i + 1) * to_ld), _mm_unpackhi_epi64(a[i], a[4 + i]));
    }
}

#endif
