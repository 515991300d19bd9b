/* What goes over vectors of LANES floats, as avx2.h, avx512.h and neon.h have them. */
#ifndef ASHLEY_KERNEL_SIMD_ELEM_INC_H
#define ASHLEY_KERNEL_SIMD_ELEM_INC_H

#include <math.h>

INLINE void to_f16(const float *x, int64_t n, uint16_t *h)
{
    for (int64_t i = 0; i < n; i += LANES) vf_store_halves_part(h + i, n - i, vf_load_part(x + i, n - i));
}

INLINE void rms_norm(float *y, const float *x, const float *w, int64_t n, float eps)
{
    vf s0 = vf_zero(), s1 = s0;
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        vf a = vf_load(x + i), b = vf_load(x + i + LANES);
        s0 = vf_fma(a, a, s0);
        s1 = vf_fma(b, b, s1);
    }
    for (; i < n; i += LANES) {
        vf a = vf_load_part(x + i, n - i);
        s0 = vf_fma(a, a, s0);
    }
    vf scale = vf_set(1.0f / sqrtf(vf_sum(vf_add(s0, s1)) / (float)n + eps));
    for (i = 0; i < n; i += LANES) {
        vf v = vf_mul(vf_load_part(x + i, n - i), scale);
        vf_store_part(y + i, n - i, vf_mul(v, vf_load_part(w + i, n - i)));
    }
}

INLINE void add(float *x, const float *d, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        vf_store_part(x + i, n - i, vf_add(vf_load_part(x + i, n - i), vf_load_part(d + i, n - i)));
}

INLINE void silu_mul(float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES) {
        vf x = vf_load_part(g + i, n - i), e = vf_exp(vf_sub(vf_zero(), x));
        vf v = vf_div(x, vf_add(vf_set(1.0f), e));
        vf_store_part(g + i, n - i, vf_mul(v, vf_load_part(u + i, n - i)));
    }
}

INLINE void rope_adjacent(float *x, const float *c, const float *s, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES / 2) {
        vf v = vf_load_part(x + 2 * i, 2 * (n - i));
        int64_t left = n - i < LANES / 2 ? n - i : LANES / 2;
        vf_store_part(x + 2 * i, 2 * (n - i), vf_turn_pairs(v, c + i, s + i, left));
    }
}

INLINE void rope_halves(float *x, const float *c, const float *s, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES) {
        int64_t left = n - i;
        vf a = vf_load_part(x + i, left), b = vf_load_part(x + n + i, left);
        vf cc = vf_load_part(c + i, left), ss = vf_load_part(s + i, left);
        vf_store_part(x + i, left, vf_fms(a, cc, vf_mul(b, ss)));
        vf_store_part(x + n + i, left, vf_fma(b, cc, vf_mul(a, ss)));
    }
}

#endif
