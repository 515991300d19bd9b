/* Owns attention for AVX-512. Scores: a register holds one component of 16 keys, so that no sum runs
 * across lanes; up to 6 query vectors share a load. Values: a register holds 16 components of one
 * token. The order of operations for one query vector is the same in every tile. Any thread. */
#include <math.h>

#include "kernel/x86/avx512.h"

enum { ROWS = 6 };

/* p[i][0..32) = scores of query vectors i0 .. i0 + N with the 32 keys of a block. */
INLINE void score_block(const ash_attn_span *s, int i0, const int N, int block)
{
    const uint16_t *k = s->k[block];
    __m512 acc[ROWS][2];
    UNROLL for (int i = 0; i < N; i++) acc[i][0] = acc[i][1] = _mm512_setzero_ps();
    for (int c = 0; c < s->k_dim; c++) {
        __m512 k0 = load_halves(k + c * ASH_KV_TOKENS), k1 = load_halves(k + c * ASH_KV_TOKENS + 16);
        UNROLL for (int i = 0; i < N; i++)
        {
            __m512 q = _mm512_set1_ps(s->q[i0 + i][c]);
            acc[i][0] = _mm512_fmadd_ps(q, k0, acc[i][0]);
            acc[i][1] = _mm512_fmadd_ps(q, k1, acc[i][1]);
        }
    }
    __m512 scale = _mm512_set1_ps(s->scale);
    UNROLL for (int i = 0; i < N; i++)
    {
        float *p = s->p + (i0 + i) * ASH_SPAN + block * ASH_KV_TOKENS;
        _mm512_storeu_ps(p, _mm512_mul_ps(acc[i][0], scale));
        _mm512_storeu_ps(p + 16, _mm512_mul_ps(acc[i][1], scale));
    }
}

/* Exponentials of one query vector's visible scores, zero for the others; how its state and the span's
 * result have to be scaled to be added. */
INLINE void soften(const ash_attn_span *s, int i, float *old, float *fresh)
{
    float *p = s->p + i * ASH_SPAN;
    __mmask16 seen[ASH_SPAN / 16];
    __m512 top = _mm512_set1_ps(-INFINITY);
    for (int j = 0; j < ASH_SPAN / 16; j++) {
        int lo = s->lo[i] - j * 16, hi = s->hi[i] - j * 16;
        uint32_t below = hi >= 16 ? 0xffff : hi <= 0 ? 0 : (1u << hi) - 1;
        uint32_t before = lo >= 16 ? 0xffff : lo <= 0 ? 0 : (1u << lo) - 1;
        seen[j] = (__mmask16)(below & ~before);
        if (seen[j])
            top = _mm512_max_ps(top, _mm512_mask_loadu_ps(top, seen[j], p + j * 16));
    }
    float max = _mm512_reduce_max_ps(top), sum = 0;
    if (s->hi[i] > s->lo[i]) {
        __m512 total = _mm512_setzero_ps(), m = _mm512_set1_ps(max);
        for (int j = 0; j < ASH_SPAN / 16; j++) {
            __m512 e = _mm512_setzero_ps();
            if (seen[j])
                e = _mm512_maskz_mov_ps(seen[j], exp_ps(_mm512_sub_ps(_mm512_loadu_ps(p + j * 16), m)));
            _mm512_storeu_ps(p + j * 16, e);
            total = _mm512_add_ps(total, e);
        }
        sum = _mm512_reduce_add_ps(total);
        float merged = fmaxf(*s->max[i], max);
        *old = *s->sum[i] == 0.0f ? 0.0f : expf(*s->max[i] - merged);
        *fresh = expf(max - merged);
        *s->max[i] = merged;
        *s->sum[i] = *s->sum[i] * *old + sum * *fresh;
        return;
    }
    for (int j = 0; j < ASH_SPAN / 16; j++) _mm512_storeu_ps(p + j * 16, _mm512_setzero_ps());
    *old = 1.0f;
    *fresh = 0.0f;
}

/* acc[i][c0 .. c0 + 16 W) of N query vectors; tokens [t0, t1) hold all that any of them sees. */
INLINE void add_values(const ash_attn_span *s, int i0, const int N, const int W, int c0, int t0, int t1,
                       const float *old, const float *fresh)
{
    __m512 acc[ROWS][4];
    UNROLL for (int i = 0; i < N; i++) UNROLL for (int w = 0; w < W; w++) acc[i][w] = _mm512_setzero_ps();
    for (int t = t0; t < t1; t++) {
        const uint16_t *row = s->v[t / ASH_KV_TOKENS] + t % ASH_KV_TOKENS * s->v_dim + c0;
        __m512 v[4];
        UNROLL for (int w = 0; w < W; w++) v[w] = load_halves(row + 16 * w);
        UNROLL for (int i = 0; i < N; i++)
        {
            __m512 p = _mm512_set1_ps(s->p[(i0 + i) * ASH_SPAN + t]);
            UNROLL for (int w = 0; w < W; w++) acc[i][w] = _mm512_fmadd_ps(p, v[w], acc[i][w]);
        }
    }
    UNROLL for (int i = 0; i < N; i++)
    {
        __m512 a = _mm512_set1_ps(old[i0 + i]), b = _mm512_set1_ps(fresh[i0 + i]);
        UNROLL for (int w = 0; w < W; w++)
        {
            float *out = s->acc[i0 + i] + c0 + 16 * w;
            __m512 v = _mm512_mul_ps(_mm512_loadu_ps(out), a);
            _mm512_storeu_ps(out, _mm512_fmadd_ps(acc[i][w], b, v));
        }
    }
}

/* Components that fill no register: one by one, in the same order. */
static void add_rest(const ash_attn_span *s, int i, int c0, int t0, int t1, float old, float fresh)
{
    for (int c = c0; c < s->v_dim; c++) {
        float o = 0;
        for (int t = t0; t < t1; t++) {
            __m128i h = _mm_cvtsi32_si128(s->v[t / ASH_KV_TOKENS][t % ASH_KV_TOKENS * s->v_dim + c]);
            o = fmaf(s->p[i * ASH_SPAN + t], _mm_cvtss_f32(_mm_cvtph_ps(h)), o);
        }
        s->acc[i][c] = fmaf(o, fresh, s->acc[i][c] * old);
    }
}

INLINE void values(const ash_attn_span *s, int i0, const int N, int t0, int t1, const float *old,
                   const float *fresh)
{
    int c = 0;
    for (; c + 64 <= s->v_dim; c += 64) add_values(s, i0, N, 4, c, t0, t1, old, fresh);
    for (; c + 16 <= s->v_dim; c += 16) add_values(s, i0, N, 1, c, t0, t1, old, fresh);
    if (c < s->v_dim)
        for (int i = i0; i < i0 + N; i++) add_rest(s, i, c, t0, t1, old[i], fresh[i]);
}

INLINE void run_rows(const ash_attn_span *s, int i0, const int N)
{
    int t0 = ASH_SPAN, t1 = 0;
    for (int i = i0; i < i0 + N; i++) {
        if (s->hi[i] <= s->lo[i])
            continue;
        t0 = s->lo[i] < t0 ? s->lo[i] : t0;
        t1 = s->hi[i] > t1 ? s->hi[i] : t1;
    }
    if (t0 >= t1)
        return;
    float old[ASH_TILE], fresh[ASH_TILE];
    for (int b = t0 / ASH_KV_TOKENS; b * ASH_KV_TOKENS < t1; b++) score_block(s, i0, N, b);
    for (int i = i0; i < i0 + N; i++) soften(s, i, &old[i], &fresh[i]);
    values(s, i0, N, t0, t1, old, fresh);
}

void ash_avx512_span(const ash_attn_span *s)
{
    int tiles = (s->m + ROWS - 1) / ROWS;
    for (int j = 0; j < tiles; j++) {
        int i = s->m * j / tiles;
        switch (s->m * (j + 1) / tiles - i) {
        case 1: run_rows(s, i, 1); break;
        case 2: run_rows(s, i, 2); break;
        case 3: run_rows(s, i, 3); break;
        case 4: run_rows(s, i, 4); break;
        case 5: run_rows(s, i, 5); break;
        default: run_rows(s, i, 6);
        }
    }
}

void ash_avx512_merge(float *max, float *sum, float *acc, float max2, float sum2, const float *acc2,
                      int64_t v_dim)
{
    if (sum2 == 0.0f)
        return;
    float top = fmaxf(*max, max2);
    float a = *sum == 0.0f ? 0.0f : expf(*max - top), b = expf(max2 - top);
    *max = top;
    *sum = *sum * a + sum2 * b;
    __m512 va = _mm512_set1_ps(a), vb = _mm512_set1_ps(b);
    for (int64_t c = 0; c < v_dim; c += 16) {
        __mmask16 m = lanes(v_dim - c);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, acc + c), va);
        _mm512_mask_storeu_ps(acc + c, m, _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, acc2 + c), vb, v));
    }
}
