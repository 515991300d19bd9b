/* Attention over vectors of LANES floats; included by attention_avx512.c and attention_avx2.c, which
 * define ROWS, the most query vectors whose sums fit the registers.
 *
 * Scores: a register holds one component of LANES keys, so that no sum runs across lanes. Values: a
 * register holds LANES components of one token. The order of operations for one query vector is the
 * same in every tile. */
#ifndef ASHLEY_KERNEL_X86_ATTENTION_INC_H
#define ASHLEY_KERNEL_X86_ATTENTION_INC_H

#include <math.h>

/* Blocks lie apart in memory: during the scores of one, its values and the next one's keys come in. */
INLINE void fetch_lines(const uint16_t *next, const uint16_t *v, int c)
{
    if (next)
        _mm_prefetch((const char *)(next + c * ASH_KV_TOKENS), _MM_HINT_T1);
    _mm_prefetch((const char *)(v + c * ASH_KV_TOKENS), _MM_HINT_T1);
}

/* p[i][0..32) = scores of query vectors i0 .. i0 + N with the 32 keys of a block. */
INLINE void score_block(const ash_attn_span *s, int i0, const int N, int block)
{
    enum { KEYS = ASH_KV_TOKENS / LANES };
    const uint16_t *k = s->k[block], *v = s->v[block];
    const uint16_t *next = block + 1 < ASH_SPAN_BLOCKS ? s->k[block + 1] : s->next;
    vf acc[ROWS][KEYS];
    UNROLL for (int i = 0; i < N; i++) UNROLL for (int j = 0; j < KEYS; j++) acc[i][j] = vf_zero();
    for (int c = 0; c < s->k_dim; c++) {
        vf q[ROWS];
        if (i0 == 0) /* else they are in the cache already */
            fetch_lines(next, v, c < s->v_dim ? c : 0);
        UNROLL for (int i = 0; i < N; i++) q[i] = vf_set(s->q[i0 + i][c]);
        UNROLL for (int j = 0; j < KEYS; j++)
        {
            vf keys = vf_halves(k + c * ASH_KV_TOKENS + j * LANES);
            UNROLL for (int i = 0; i < N; i++) acc[i][j] = vf_fma(q[i], keys, acc[i][j]);
        }
    }
    UNROLL for (int i = 0; i < N; i++)
    {
        float *p = s->p + (i0 + i) * ASH_SPAN + block * ASH_KV_TOKENS;
        UNROLL for (int j = 0; j < KEYS; j++) vf_store(p + j * LANES, vf_mul(acc[i][j], vf_set(s->scale)));
    }
}

/* Exponentials of one query vector's visible scores, zero for the others; how its state and the span's
 * result have to be scaled to be added. */
INLINE void soften(const ash_attn_span *s, int i, float *old, float *fresh)
{
    const vf low = vf_set(-INFINITY);
    float *p = s->p + i * ASH_SPAN;
    int lo = s->lo[i], hi = s->hi[i];
    vf top = low, total = vf_zero();
    *old = 1.0f;
    *fresh = 0.0f;
    for (int j = lo / LANES * LANES; j < hi; j += LANES)
        top = vf_max(top, vf_keep(vf_load(p + j), lo - j, hi - j, low));
    float max = vf_top(top);
    for (int j = 0; j < ASH_SPAN; j += LANES) {
        vf e = vf_zero();
        if (lo < j + LANES && j < hi && lo < hi)
            e = vf_keep(vf_exp(vf_sub(vf_load(p + j), vf_set(max))), lo - j, hi - j, vf_zero());
        vf_store(p + j, e);
        total = vf_add(total, e);
    }
    if (hi <= lo)
        return;
    float merged = fmaxf(*s->max[i], max);
    *old = *s->sum[i] == 0.0f ? 0.0f : expf(*s->max[i] - merged);
    *fresh = expf(max - merged);
    *s->max[i] = merged;
    *s->sum[i] = *s->sum[i] * *old + vf_sum(total) * *fresh;
}

/* acc[i][c0 .. c0 + LANES W) of N query vectors; tokens [t0, t1) hold all that any of them sees. */
INLINE void add_values(const ash_attn_span *s, int i0, const int N, const int W, int c0, int t0, int t1,
                       const float *old, const float *fresh)
{
    vf acc[ROWS][4];
    UNROLL for (int i = 0; i < N; i++) UNROLL for (int w = 0; w < W; w++) acc[i][w] = vf_zero();
    for (int t = t0; t < t1; t++) {
        const uint16_t *row = s->v[t / ASH_KV_TOKENS] + t % ASH_KV_TOKENS * s->v_dim + c0;
        vf p[ROWS];
        UNROLL for (int i = 0; i < N; i++) p[i] = vf_set(s->p[(i0 + i) * ASH_SPAN + t]);
        UNROLL for (int w = 0; w < W; w++)
        {
            vf v = vf_halves(row + LANES * w);
            UNROLL for (int i = 0; i < N; i++) acc[i][w] = vf_fma(p[i], v, acc[i][w]);
        }
    }
    UNROLL for (int i = 0; i < N; i++)
    {
        UNROLL for (int w = 0; w < W; w++)
        {
            float *out = s->acc[i0 + i] + c0 + LANES * w;
            vf v = vf_mul(vf_load(out), vf_set(old[i]));
            vf_store(out, vf_fma(acc[i][w], vf_set(fresh[i]), v));
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
    for (; c + 4 * LANES <= s->v_dim; c += 4 * LANES) add_values(s, i0, N, 4, c, t0, t1, old, fresh);
    for (; c + LANES <= s->v_dim; c += LANES) add_values(s, i0, N, 1, c, t0, t1, old, fresh);
    if (c < s->v_dim)
        for (int i = i0; i < i0 + N; i++) add_rest(s, i, c, t0, t1, old[i - i0], fresh[i - i0]);
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
    float old[ROWS], fresh[ROWS];
    for (int b = t0 / ASH_KV_TOKENS; b * ASH_KV_TOKENS < t1; b++) score_block(s, i0, N, b);
    for (int i = i0; i < i0 + N; i++) soften(s, i, &old[i - i0], &fresh[i - i0]);
    values(s, i0, N, t0, t1, old, fresh);
}

INLINE void merge(float *max, float *sum, float *acc, float max2, float sum2, const float *acc2,
                  int64_t v_dim)
{
    if (sum2 == 0.0f)
        return;
    float top = fmaxf(*max, max2);
    float a = *sum == 0.0f ? 0.0f : expf(*max - top), b = expf(max2 - top);
    *max = top;
    *sum = *sum * a + sum2 * b;
    for (int64_t c = 0; c < v_dim; c += LANES) {
        vf v = vf_mul(vf_load_part(acc + c, v_dim - c), vf_set(a));
        vf_store_part(acc + c, v_dim - c, vf_fma(vf_load_part(acc2 + c, v_dim - c), vf_set(b), v));
    }
}

#endif
