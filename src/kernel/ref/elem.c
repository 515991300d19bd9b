/* Owns the reference of everything that goes over vectors: conversions, norm, activation, rotation.
 * Any thread. */
#include <math.h>

#include "kernel/ref/ref.h"
#include "quant/half.h"

static void quantise_block(const float *x, int8_t *q, float *d, float *ds, int32_t *ns)
{
    float top = 0;
    bool finite = true;
    for (int i = 0; i < 32; i++) {
        finite = finite && isfinite(x[i]);
        top = fmaxf(top, fabsf(x[i]));
    }
    /* Below 1e-36 the inverse would overflow; nothing that small survives next to a real activation. */
    float inv = finite && top > 1e-36f ? 127.0f / top : 0.0f;
    int32_t sum = 0;
    for (int i = 0; i < 32; i++) {
        q[i] = inv == 0.0f ? 0 : (int8_t)lrintf(x[i] * inv);
        sum += q[i];
    }
    *d = !finite ? NAN : inv == 0.0f ? 0.0f : top / 127.0f;
    *ds = *d * (float)sum;
    *ns = -sum;
}

void ash_ref_quantise(const float *x, int64_t n, int8_t *q, float *d, float *ds, int32_t *ns)
{
    for (int64_t b = 0; b < n / 32; b++) quantise_block(x + b * 32, q + b * 32, d + b, ds + b, ns + b);
}

void ash_ref_to_bf16(const float *x, int64_t n, uint16_t *h)
{
    for (int64_t i = 0; i < n; i++) h[i] = ash_bf16_from_f32(x[i]);
    for (int64_t i = n; i % 32; i++) h[i] = 0;
}

void ash_ref_to_f16(const float *x, int64_t n, uint16_t *h)
{
    for (int64_t i = 0; i < n; i++) h[i] = ash_f16_from_f32(x[i]);
}

void ash_ref_rms_norm(float *y, const float *x, const float *w, int64_t n, float eps)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    float scale = (float)(1.0 / sqrt(sum / (double)n + (double)eps));
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale * w[i];
}

void ash_ref_add(float *x, const float *d, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] += d[i];
}

void ash_ref_silu_mul(float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i++) g[i] = g[i] / (1.0f + expf(-g[i])) * u[i];
}

static void rotate(float *a, float *b, float c, float s)
{
    float x = *a, y = *b;
    *a = x * c - y * s;
    *b = x * s + y * c;
}

void ash_ref_rope_adjacent(float *x, const float *c, const float *s, int64_t n)
{
    for (int64_t i = 0; i < n; i++) rotate(x + 2 * i, x + 2 * i + 1, c[i], s[i]);
}

void ash_ref_rope_halves(float *x, const float *c, const float *s, int64_t n)
{
    for (int64_t i = 0; i < n; i++) rotate(x + i, x + n + i, c[i], s[i]);
}
