/* Owns the reference of attention: softmax over a span of tokens, merged into running states (online
 * softmax; Milakov and Gimelshein 2018, Dao et al. 2022). Any thread. */
#include <math.h>

#include "kernel/ref/ref.h"
#include "quant/half.h"

void ash_ref_merge(float *max, float *sum, float *acc, float max2, float sum2, const float *acc2,
                   int64_t v_dim)
{
    if (sum2 == 0.0f) /* nothing was visible there */
        return;
    float top = fmaxf(*max, max2);
    float a = *sum == 0.0f ? 0.0f : expf(*max - top), b = expf(max2 - top);
    *max = top;
    *sum = *sum * a + sum2 * b;
    for (int64_t i = 0; i < v_dim; i++) acc[i] = acc[i] * a + acc2[i] * b;
}

static float element(const ash_attn_span *s, const void *block, int at)
{
    return s->type == ASH_KV_F32 ? ((const float *)block)[at]
                                 : ash_f16_to_f32(((const uint16_t *)block)[at]);
}

static float key(const ash_attn_span *s, int t, int c)
{
    const uint8_t *k = s->k[t / ASH_KV_TOKENS];
    int at = t % ASH_KV_TOKENS;
    if (s->type != ASH_KV_Q8)
        return element(s, k, c * ASH_KV_TOKENS + at);
    return (float)(k[(c / 4 * ASH_KV_TOKENS + at) * 4 + c % 4] - 128) * ash_kv_steps(k, s->k_dim)[at];
}

static float value(const ash_attn_span *s, int t, int c)
{
    const int8_t *v = s->v[t / ASH_KV_TOKENS];
    int at = t % ASH_KV_TOKENS;
    if (!v)
        return key(s, t, c);
    if (s->type != ASH_KV_Q8)
        return element(s, v, at * s->v_dim + c);
    return (float)v[(at / 4 * s->v_dim + c) * 4 + at % 4] * ash_kv_steps(v, s->v_dim)[at];
}

static float score(const ash_attn_span *s, int i, int t)
{
    float sum = 0;
    for (int c = 0; c < s->k_dim; c++) sum += s->q[i][c] * key(s, t, c);
    return sum * s->scale;
}

static void span_one(const ash_attn_span *s, int i)
{
    float top = -INFINITY, sum = 0, *p = s->p;
    for (int t = s->lo[i]; t < s->hi[i]; t++) {
        p[t] = score(s, i, t);
        top = fmaxf(top, p[t]);
    }
    for (int t = s->lo[i]; t < s->hi[i]; t++) sum += p[t] = expf(p[t] - top);
    if (s->hi[i] <= s->lo[i])
        return;
    float merged = fmaxf(*s->max[i], top);
    float a = *s->sum[i] == 0.0f ? 0.0f : expf(*s->max[i] - merged), b = expf(top - merged);
    *s->max[i] = merged;
    *s->sum[i] = *s->sum[i] * a + sum * b;
    for (int c = 0; c < s->v_dim; c++) {
        float o = 0;
        for (int t = s->lo[i]; t < s->hi[i]; t++) o += p[t] * value(s, t, c);
        s->acc[i][c] = s->acc[i][c] * a + o * b;
    }
}

void ash_ref_span(const ash_attn_span *s)
{
    for (int i = 0; i < s->m; i++) span_one(s, i);
}
