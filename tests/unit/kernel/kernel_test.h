/* Helpers of the kernel and nn tests: random numbers and random tensors in a file's layout. */
#ifndef ASHLEY_TESTS_KERNEL_TEST_H
#define ASHLEY_TESTS_KERNEL_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/dtype.h"
#include "base/rng.h"
#include "quant/blocks.h"
#include "quant/half.h"

static inline void *must_alloc(size_t n)
{
    void *p = aligned_alloc(64, (n + 127) / 64 * 64);
    assert_non_null(p);
    return p;
}

/* Uniform in [-1, 1). */
static inline float rand_f32(ash_rng *r)
{
    return (float)(ash_rng_f64(r) * 2 - 1);
}

static inline float *rand_vector(ash_rng *r, int64_t n, float scale)
{
    float *x = must_alloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = rand_f32(r) * scale;
    return x;
}

/* Where a block type has its half floats, and the largest quant that d multiplies (sub-block's scale
 * included); m < 0: no second half float. */
typedef struct test_block {
    ash_dtype type;
    int d, m;
    float d_times, m_times;
} test_block;

static inline const test_block *test_block_of(ash_dtype t)
{
    static const test_block blocks[] = {
        {ASH_DTYPE_Q4_0, 0, -1, 8, 0},         {ASH_DTYPE_Q4_1, 0, 2, 15, 1},
        {ASH_DTYPE_Q5_0, 0, -1, 16, 0},        {ASH_DTYPE_Q5_1, 0, 2, 31, 1},
        {ASH_DTYPE_Q8_0, 0, -1, 128, 0},       {ASH_DTYPE_Q2_K, 80, 82, 15 * 3, 15},
        {ASH_DTYPE_Q3_K, 108, -1, 32 * 4, 0},  {ASH_DTYPE_Q4_K, 0, 2, 63 * 15, 63},
        {ASH_DTYPE_Q5_K, 0, 2, 63 * 31, 63},   {ASH_DTYPE_Q6_K, 208, -1, 128 * 32, 0},
        {ASH_DTYPE_IQ1_S, 0, -1, 17, 0},       {ASH_DTYPE_IQ2_XXS, 0, -1, 167, 0},
        {ASH_DTYPE_IQ2_XS, 0, -1, 167, 0},     {ASH_DTYPE_IQ2_S, 0, -1, 167, 0},
        {ASH_DTYPE_IQ3_XXS, 0, -1, 480, 0},    {ASH_DTYPE_IQ3_S, 0, -1, 31 * 15, 0},
        {ASH_DTYPE_IQ4_NL, 0, -1, 127, 0},     {ASH_DTYPE_IQ4_XS, 0, -1, 32 * 127, 0},
        {ASH_DTYPE_TQ1_0, 52, -1, 1, 0},       {ASH_DTYPE_TQ2_0, 64, -1, 2, 0},
        {ASH_DTYPE_Q1_0, 0, -1, 1, 0},         {ASH_DTYPE_Q2_0, 0, -1, 2, 0},
    };
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (blocks[i].type == t)
            return &blocks[i];
    return NULL;
}

/* Random scales for a block of random bytes: elements up to about `scale` (a random part of it). */
static inline void rand_scales(ash_rng *r, ash_dtype t, uint8_t *b, float scale)
{
    const test_block *k = test_block_of(t);
    float v = rand_f32(r) * scale;
    uint16_t h = ash_f16_from_f32(k ? v / k->d_times : v);
    int exp;
    switch (t) {
    case ASH_DTYPE_F64: {
        double d = (double)v;
        memcpy(b, &d, 8);
        break;
    }
    case ASH_DTYPE_F32: memcpy(b, &v, 4); break;
    case ASH_DTYPE_BF16: h = ash_bf16_from_f32(v); /* fall through */
    case ASH_DTYPE_F16: memcpy(b, &h, 2); break;
    case ASH_DTYPE_MXFP4:
        frexpf(scale, &exp);
        b[0] = (uint8_t)(124 + exp - (int)(ash_rng_u64(r) % 3));
        break;
    case ASH_DTYPE_NVFP4: /* values up to 2688 as they are: few exponents */
        frexpf(scale, &exp);
        exp = exp < -5 ? -5 : exp > 10 ? 10 : exp;
        for (int i = 0; i < 4; i++) b[i] = (uint8_t)((4 + exp) * 8 > 0 ? (4 + exp) * 8 + b[i] % 8 : b[i] % 8);
        break;
    case ASH_DTYPE_IQ1_M: /* the upper nibbles of four words are the half */
        h = ash_f16_from_f32(v / 17);
        for (int i = 0; i < 4; i++) b[49 + 2 * i] = (uint8_t)((b[49 + 2 * i] & 15) | (h >> 4 * i & 15) << 4);
        break;
    default:
        memcpy(b + k->d, &h, 2);
        if (k->m >= 0) {
            h = ash_f16_from_f32(rand_f32(r) * scale / k->m_times);
            memcpy(b + k->m, &h, 2);
        }
    }
}

/* Bytes of a random [rows, cols] tensor; elements up to about `scale`. */
static inline uint8_t *rand_tensor(ash_rng *r, ash_dtype t, int64_t rows, int64_t cols, float scale)
{
    uint64_t n;
    assert_true(ash_dtype_bytes(t, (uint64_t)(rows * cols), &n));
    uint8_t *p = must_alloc(n);
    for (uint64_t i = 0; i < n; i++) p[i] = (uint8_t)ash_rng_u64(r);
    uint32_t size = ash_dtype_get(t)->block_bytes;
    for (uint64_t i = 0; i < n / size; i++) rand_scales(r, t, p + i * size, scale);
    return p;
}

#endif
