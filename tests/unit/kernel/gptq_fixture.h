/* A random GPTQ matrix: its numbers, the file's tensors written from them bit by bit, and the dense
 * matrix by the formula. */
#ifndef ASHLEY_TESTS_GPTQ_FIXTURE_H
#define ASHLEY_TESTS_GPTQ_FIXTURE_H

#include "kernel_test.h"

#include "quant/gptq.h"

typedef enum gptq_order {
    GPTQ_PLAIN,  /* no g_idx */
    GPTQ_GIVEN,  /* g_idx in order */
    GPTQ_SORTED, /* act-order: groups of one size, inputs shuffled */
    GPTQ_ODD,    /* any group for any input, some groups empty */
} gptq_order;

typedef struct gptq_fixture {
    ash_gptq q;
    uint8_t *mem[4];
    int32_t *group_of; /* [in] */
    float *dense;      /* [out, in] */
} gptq_fixture;

/* Writes `bits` of v at bit `at` of words that are `stride` words apart, the first at p. */
static inline void gptq_put(uint8_t *p, int64_t stride, int64_t at, int bits, uint32_t v)
{
    for (int b = 0; b < bits; b++, at++)
        if (v >> b & 1)
            p[at / 32 * stride * 4 + at % 32 / 8] |= (uint8_t)(1 << at % 8);
}

static inline void gptq_groups(gptq_fixture *f, ash_rng *r, gptq_order order)
{
    int64_t in = f->q.in, groups = f->q.groups;
    for (int64_t i = 0; i < in; i++) f->group_of[i] = (int32_t)(i / (in / groups));
    for (int64_t i = 0; order == GPTQ_ODD && i < in; i++)
        f->group_of[i] = (int32_t)(ash_rng_u64(r) % (uint64_t)groups * 2 / 3);
    for (int64_t i = in - 1; order == GPTQ_SORTED && i > 0; i--) {
        int64_t j = (int64_t)(ash_rng_u64(r) % (uint64_t)(i + 1));
        int32_t t = f->group_of[i];
        f->group_of[i] = f->group_of[j];
        f->group_of[j] = t;
    }
    f->q.group_of = order == GPTQ_PLAIN ? NULL : f->group_of;
}

/* Zeros 0 .. 2^bits - 1, or all in the middle with sym; scales up to `scale`. */
static inline void gptq_open(gptq_fixture *f, ash_rng *r, int bits, bool v2, bool sym, gptq_order order,
                             ash_dtype type, int64_t out, int64_t in, int64_t groups, float scale)
{
    size_t sizes[4] = {(size_t)(in * bits / 32 * out * 4), (size_t)(groups * out * bits / 8),
                       (size_t)(groups * out * 4), (size_t)(groups * out * 4)};
    for (int i = 0; i < 4; i++) f->mem[i] = memset(must_alloc(sizes[i] + 1), 0, sizes[i] + 1);
    uint8_t *qweight = f->mem[0] + 1, *qzeros = f->mem[1] + 1, *scales = f->mem[2] + 1; /* unaligned */
    f->q = (ash_gptq){.bits = bits, .v2 = v2, .in = in, .out = out, .groups = groups, .qweight = qweight,
                      .qzeros = qzeros, .scales = scales, .scale_type = type};
    f->group_of = must_alloc((size_t)in * 4);
    f->dense = must_alloc((size_t)(out * in) * 4);
    gptq_groups(f, r, order);
    uint8_t *zeros = f->mem[3];
    float *s = rand_vector(r, groups * out, scale);
    uint32_t mask = (1u << bits) - 1;
    for (int64_t i = 0; i < groups * out; i++) {
        int64_t g = i / out, o = i % out;
        zeros[i] = (uint8_t)(sym ? 1u << (bits - 1) : (uint32_t)ash_rng_u64(r) & mask);
        uint32_t stored = bits == 3 && !v2 ? (zeros[i] - 1u) & 7 : zeros[i];
        gptq_put(qzeros + g * (out * bits / 8), 1, o * bits, bits, stored);
        uint16_t h = type == ASH_DTYPE_F16 ? ash_f16_from_f32(s[i]) : ash_bf16_from_f32(s[i]);
        if (type == ASH_DTYPE_F32)
            memcpy(scales + i * 4, &s[i], 4);
        else
            memcpy(scales + i * 2, &h, 2);
        s[i] = type == ASH_DTYPE_F32 ? s[i] : type == ASH_DTYPE_F16 ? ash_f16_to_f32(h) : ash_bf16_to_f32(h);
    }
    for (int64_t i = 0; bits != 3 && !v2 && i < groups * out * bits / 32; i++) {
        uint32_t v; /* one off each, borrows and all */
        memcpy(&v, qzeros + i * 4, 4);
        v -= bits == 2 ? 0x55555555 : bits == 4 ? 0x11111111 : 0x01010101;
        memcpy(qzeros + i * 4, &v, 4);
    }
    for (int64_t o = 0; o < out; o++) {
        for (int64_t i = 0; i < in; i++) {
            int32_t v = (int32_t)((uint32_t)ash_rng_u64(r) & mask);
            int64_t at = f->group_of[i] * out + o;
            gptq_put(qweight + o * 4, out, i * bits, bits, (uint32_t)v);
            f->dense[o * in + i] = (float)(v - zeros[at]) * s[at];
        }
    }
    free(s);
}

static inline void gptq_close(gptq_fixture *f)
{
    for (int i = 0; i < 4; i++) free(f->mem[i]);
    free(f->group_of);
    free(f->dense);
}

#endif
