/* Owns attention in bfloat16: queries, keys, exponentials and values are rounded to 8 bits of mantissa and
 * multiplied by vdpbf16ps at twice the rate of FMA; scores, sums and results are float. Any thread.
 *
 * Keys and values of a span are turned into panels of pairs, which all query vectors read: a pair is two
 * components of one key, or one component of two values. The order of operations for one query vector is
 * the same in every tile. */
#include <math.h>
#include <string.h>

#include "kernel/x86/avx512.h"

enum {
    ROWS = 6,    /* query vectors whose sums are in registers together */
    WIDE = 64,   /* keys, or components of values, of a panel: four registers */
    DEPTH = 64,  /* pairs of a panel */
    CHUNK = 2 * DEPTH, /* components of keys in one panel */
};

typedef struct work {
    const ash_attn_span *s;
    int t0, t1;                              /* tokens that any query vector sees */
    float old[ASH_TILE], fresh[ASH_TILE];    /* factors of the state and of the span when they are added */
    _Alignas(64) uint32_t panel[DEPTH * WIDE];
    _Alignas(64) uint32_t x[ASH_TILE][DEPTH]; /* pairs of queries, then of exponentials */
} work;

/* The first `left` of 16 half floats, widened; zeros where p is NULL. */
INLINE __m512 halves(const uint16_t *p, int left)
{
    return p ? _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes(left), p)) : _mm512_setzero_ps();
}

/* Pairs (a0, b0, a1, b1, ...). */
INLINE __m512i pairs(__m512 a, __m512 b)
{
    const __m512i mix = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                                         22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(mix, (__m512i)_mm512_cvtne2ps_pbh(b, a));
}

/* acc += pairs of N vectors x times W registers of a panel, pairs [from, to). */
INLINE void multiply(const work *w, int i0, const int N, const int W, int at, int from, int to,
                     __m512 acc[ROWS][4])
{
    for (int k = from; k < to; k++) {
        __m512bh u[4];
        UNROLL for (int j = 0; j < W; j++)
            u[j] = (__m512bh)_mm512_load_si512(w->panel + k * WIDE + at + j * LANES);
        UNROLL for (int i = 0; i < N; i++)
        {
            __m512bh x = (__m512bh)_mm512_set1_epi32((int)w->x[i0 + i][k]);
            UNROLL for (int j = 0; j < W; j++) acc[i][j] = _mm512_dpbf16_ps(acc[i][j], x, u[j]);
        }
    }
}

/* ---- scores --------------------------------------------------------------------------------- */

/* Components [c0, c0 + n) of the queries. */
static void load_queries(work *w, int c0, int n)
{
    for (int i = 0; i < w->s->m; i++) {
        const float *q = w->s->q[i] + c0;
        for (int c = 0; c < n; c += 2 * LANES) {
            __m512 a = vf_load_part(q + c, n - c);
            __m512 b = n - c > LANES ? vf_load_part(q + c + LANES, n - c - LANES) : vf_zero();
            _mm512_store_si512(w->x[i] + c / 2, (__m512i)_mm512_cvtne2ps_pbh(b, a));
        }
    }
}

/* Components [c0, c0 + n) of a block's keys, into half a panel. Blocks lie apart in memory: meanwhile its
 * values and the next one's keys come in. */
static void load_keys(work *w, int block, int c0, int n, uint32_t *to)
{
    const ash_attn_span *s = w->s;
    const uint16_t *k = s->k[block], *v = s->v[block];
    const uint16_t *next = block + 1 < ASH_SPAN_BLOCKS ? s->k[block + 1] : s->next;
    for (int c = c0; c < c0 + n; c += 2, to += WIDE) {
        const uint16_t *a = k + c * ASH_KV_TOKENS, *b = c + 1 < s->k_dim ? a + ASH_KV_TOKENS : NULL;
        for (int i = 0; i < 2 && c + i < s->k_dim; i++) {
            if (next)
                _mm_prefetch((const char *)(next + (c + i) * ASH_KV_TOKENS), _MM_HINT_T1);
            if (v && c + i < s->v_dim)
                _mm_prefetch((const char *)(v + (c + i) * ASH_KV_TOKENS), _MM_HINT_T1);
        }
        UNROLL for (int t = 0; t < ASH_KV_TOKENS; t += LANES)
            _mm512_store_si512(to + t, pairs(halves(a + t, LANES), halves(b ? b + t : NULL, LANES)));
    }
}

/* p = scores of N query vectors with the WIDE keys from t on, of all components but for the last chunk's
 * factor; `first` and `last` chunk. */
INLINE void score_tile(const work *w, int i0, const int N, int t, int n, bool first, bool last)
{
    __m512 acc[ROWS][4];
    UNROLL for (int i = 0; i < N; i++) UNROLL for (int j = 0; j < 4; j++)
        acc[i][j] = first ? vf_zero() : vf_load(w->s->p + (i0 + i) * ASH_SPAN + t + j * LANES);
    multiply(w, i0, N, 4, 0, 0, (n + 1) / 2, acc);
    __m512 scale = vf_set(last ? w->s->scale : 1.0f);
    UNROLL for (int i = 0; i < N; i++) UNROLL for (int j = 0; j < 4; j++)
        vf_store(w->s->p + (i0 + i) * ASH_SPAN + t + j * LANES, vf_mul(acc[i][j], scale));
}

static void scores(work *w)
{
    const ash_attn_span *s = w->s;
    for (int c = 0; c < s->k_dim; c += CHUNK) {
        int n = s->k_dim - c < CHUNK ? s->k_dim - c : CHUNK;
        load_queries(w, c, n);
        for (int t = w->t0 / WIDE * WIDE; t < w->t1; t += WIDE) {
            for (int b = t / ASH_KV_TOKENS; b * ASH_KV_TOKENS < t + WIDE; b++)
                if (b * ASH_KV_TOKENS < w->t1 && (b + 1) * ASH_KV_TOKENS > w->t0)
                    load_keys(w, b, c, n, w->panel + b * ASH_KV_TOKENS - t);
            for (int i = 0, rows; i < s->m; i += rows) {
                rows = s->m - i < ROWS ? s->m - i : ROWS;
#define CALL(N) score_tile(w, i, N, t, n, c == 0, c + n == s->k_dim)
                BY_SIZE(rows, CALL)
#undef CALL
            }
        }
    }
}

/* ---- exponentials --------------------------------------------------------------------------- */

/* 2^x for x <= 0 to 7e-6, enough for what is rounded to 8 bits; keeps NaN. The polynomial meets
 * (2^r - 1) / r at the Chebyshev nodes of +-1/2. */
INLINE __m512 exp2_rough(__m512 x)
{
    x = vf_max(vf_set(-200.0f), x);
    __m512 n = _mm512_roundscale_ps(x, 0x08), r = vf_sub(x, n);
    __m512 p = vf_fma(vf_set(0.00965671029f), r, vf_set(0.0558382829f));
    p = vf_fma(p, r, vf_set(0.240225301f));
    p = vf_fma(p, r, vf_set(0.693136734f));
    return _mm512_scalef_ps(vf_fma(p, r, vf_set(1.0f)), n);
}

/* Exponentials of one query vector's visible scores, zero for the others. Their sum is that of the rounded
 * ones, so that the weights add up to one. */
static void soften(work *w, int i)
{
    const ash_attn_span *s = w->s;
    const __m512 low = vf_set(-INFINITY), log2e = vf_set(1.44269504f);
    const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
    const float *p = s->p + i * ASH_SPAN;
    int lo = s->lo[i], hi = s->hi[i];
    __m512 top = low, total = vf_zero();
    w->old[i] = 1.0f;
    w->fresh[i] = 0.0f;
    for (int j = lo / LANES * LANES; j < hi; j += LANES)
        top = vf_max(top, vf_keep(vf_load(p + j), lo - j, hi - j, low));
    float max = vf_top(top);
    for (int j = 0; j < ASH_SPAN; j += 2 * LANES) {
        __m512 e[2] = {vf_zero(), vf_zero()};
        UNROLL for (int h = 0; h < 2; h++)
        {
            int at = j + h * LANES;
            if (lo < at + LANES && at < hi && lo < hi) {
                e[h] = exp2_rough(vf_mul(vf_sub(vf_load(p + at), vf_set(max)), log2e));
                e[h] = vf_keep(e[h], lo - at, hi - at, vf_zero());
            }
        }
        __m512bh both = _mm512_cvtne2ps_pbh(e[1], e[0]);
        _mm512_store_si512(w->x[i] + j / 2, (__m512i)both);
        total = _mm512_dpbf16_ps(total, both, ones);
    }
    if (hi <= lo)
        return;
    float merged = fmaxf(*s->max[i], max);
    w->old[i] = *s->sum[i] == 0.0f ? 0.0f : expf(*s->max[i] - merged);
    w->fresh[i] = expf(max - merged);
    *s->max[i] = merged;
    *s->sum[i] = *s->sum[i] * w->old[i] + vf_sum(total) * w->fresh[i];
}

/* ---- values --------------------------------------------------------------------------------- */

/* Components [c0, c0 + n) of values that lie as [token][v_dim], into a panel; zeros for tokens that nobody
 * sees, which may hold anything. */
static void load_values(work *w, int c0, int n)
{
    int64_t dim = w->s->v_dim;
    for (int t = w->t0 / 2 * 2; t < w->t1; t += 2) {
        const uint16_t *v = (const uint16_t *)w->s->v[t / ASH_KV_TOKENS] + t % ASH_KV_TOKENS * dim + c0;
        const uint16_t *a = t >= w->t0 ? v : NULL, *b = t + 1 < w->t1 ? v + dim : NULL;
        for (int c = 0; c < n; c += LANES)
            _mm512_store_si512(w->panel + t / 2 * WIDE + c,
                               pairs(halves(a ? a + c : NULL, n - c), halves(b ? b + c : NULL, n - c)));
    }
}

/* The same of values that are a part of the keys: two tokens of a component lie side by side, as one word;
 * words are turned 4 x 4 and rounded in place. */
static void load_turned(work *w, int c0, int n)
{
    for (int t = w->t0 / 8 * 8; t < w->t1; t += 8) {
        const uint16_t *k = (const uint16_t *)w->s->k[t / ASH_KV_TOKENS] + c0 * ASH_KV_TOKENS +
                            t % ASH_KV_TOKENS;
        for (int c = 0; c < n; c += 4) {
            __m128 a[4];
            UNROLL for (int i = 0; i < 4; i++)
                a[i] = c + i < n ? _mm_loadu_ps((const float *)(k + (c + i) * ASH_KV_TOKENS))
                                 : _mm_setzero_ps();
            _MM_TRANSPOSE4_PS(a[0], a[1], a[2], a[3]);
            UNROLL for (int i = 0; i < 4; i++)
                _mm_store_ps((float *)(w->panel + (t / 2 + i) * WIDE + c), a[i]);
        }
    }
    for (int t = w->t0 / 2 * 2; t < w->t1; t += 2) {
        uint32_t seen = (t >= w->t0 ? 0x55555555u : 0) | (t + 1 < w->t1 ? 0xaaaaaaaau : 0);
        for (int c = 0; c < n; c += LANES) {
            uint32_t *at = w->panel + t / 2 * WIDE + c;
            __m512i h = _mm512_maskz_mov_epi16(seen, _mm512_load_si512(at));
            __m512 a = _mm512_cvtph_ps(_mm512_castsi512_si256(h));
            __m512 b = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1));
            _mm512_store_si512(at, (__m512i)_mm512_cvtne2ps_pbh(b, a));
        }
    }
}

/* acc of N query vectors, components [c0 + at, ...) of which `left` exist. */
INLINE void add_tile(const work *w, int i0, const int N, const int W, int c0, int at, int left)
{
    __m512 acc[ROWS][4];
    UNROLL for (int i = 0; i < N; i++) UNROLL for (int j = 0; j < W; j++) acc[i][j] = vf_zero();
    multiply(w, i0, N, W, at, w->t0 / 2, (w->t1 + 1) / 2, acc);
    UNROLL for (int i = 0; i < N; i++) UNROLL for (int j = 0; j < W; j++)
    {
        float *out = w->s->acc[i0 + i] + c0 + at + j * LANES;
        __m512 x = vf_mul(vf_load_part(out, left - j * LANES), vf_set(w->old[i0 + i]));
        vf_store_part(out, left - j * LANES, vf_fma(acc[i][j], vf_set(w->fresh[i0 + i]), x));
    }
}

static void add_columns(const work *w, int c0, int n)
{
    const ash_attn_span *s = w->s;
    for (int i = 0, rows; i < s->m; i += rows) {
        rows = s->m - i < ROWS ? s->m - i : ROWS;
#define CALL(N) add_tile(w, i, N, 4, c0, 0, n)
        if (n == WIDE)
            BY_SIZE(rows, CALL)
#undef CALL
#define CALL(N) add_tile(w, i, N, 1, c0, at, n - at)
        for (int at = 0; n < WIDE && at < n; at += LANES)
            BY_SIZE(rows, CALL)
#undef CALL
    }
}

void ash_avx512bf16_span(const ash_attn_span *s)
{
    work w;
    w.s = s;
    if (!ash_span_seen(s, 0, s->m, &w.t0, &w.t1))
        return;
    scores(&w);
    for (int i = 0; i < s->m; i++) soften(&w, i);
    for (int c = 0; c < s->v_dim; c += WIDE) {
        int n = s->v_dim - c < WIDE ? s->v_dim - c : WIDE;
        if (s->v[w.t0 / ASH_KV_TOKENS])
            load_values(&w, c, n);
        else
            load_turned(&w, c, n);
        add_columns(&w, c, n);
    }
}
