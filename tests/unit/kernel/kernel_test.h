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

/* Bytes of a random [rows, cols] tensor; elements up to about `scale`. */
static inline uint8_t *rand_tensor(ash_rng *r, ash_dtype t, int64_t rows, int64_t cols, float scale)
{
    uint64_t n;
    assert_true(ash_dtype_bytes(t, (uint64_t)(rows * cols), &n));
    uint8_t *p = must_alloc(n);
    for (uint64_t i = 0; i < n; i++) p[i] = (uint8_t)ash_rng_u64(r);
    const ash_dtype_info *info = ash_dtype_get(t);
    for (uint64_t i = 0; i < n / info->block_bytes; i++) {
        uint8_t *b = p + i * info->block_bytes;
        float v = rand_f32(r) * scale;
        uint16_t h = ash_f16_from_f32(t == ASH_DTYPE_F16 ? v : v / (t == ASH_DTYPE_Q8_0 ? 128 : 16));
        if (t == ASH_DTYPE_F32)
            memcpy(b, &v, 4);
        else if (t == ASH_DTYPE_BF16)
            h = ash_bf16_from_f32(v);
        if (t != ASH_DTYPE_F32)
            memcpy(b, &h, 2);
        if (t == ASH_DTYPE_Q4_1) {
            h = ash_f16_from_f32(rand_f32(r) * scale);
            memcpy(b + 2, &h, 2);
        }
    }
    return p;
}

#endif
