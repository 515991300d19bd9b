/* Owns attention over keys and values of 8 bits, for AVX-512 VNNI: vpdpbusd on them as they lie in memory,
 * nothing is widened. Queries and the weights of tokens are of 16 bits, taken as two bytes each, so that
 * what is lost is lost in the cache alone. Any thread.
 *
 * All sums of products are integers: the order of operations does not show. */
#include <math.h>

#include "kernel/x86/avx512.h"

enum {
    ROWS = 6,         /* query vectors whose sums are in registers together */
    CHUNK = 256,      /* components of queries at a time */
    STEPS = 127 * 256, /* of a query's range on either side; its high byte stays in +-127 */
    QUAD = 4 * ASH_KV_TOKENS, /* bytes of four components of a block's keys */
    LOW = ASH_TILE * CHUNK,   /* from a high byte to its low one */
};

typedef struct work {
    const ash_attn_span *s;
    int t0, t1;                           /* tokens that any query vector sees */
    float old[ASH_TILE], fresh[ASH_TILE]; /* factors of the state and of the span when they are added */
    float step[ASH_TILE];                 /* of the query, then of the weights */
    int32_t sum[2][ASH_TILE];             /* of the query's high and low bytes */
    _Alignas(64) uint8_t x[2][ASH_TILE][CHUNK]; /* high and low bytes of queries, then of weights */
} work;

/* Sums [N][W] of high and low bytes, to memory before anything else: where they stay in registers for what
 * follows, gcc 12 stores most of them in every round of the loop before. */
#define KEEP_SUMS(kept, high, low, N, W)                                                            \
    UNROLL for (int i_ = 0; i_ < (N); i_++) UNROLL for (int j_ = 0; j_ < (W); j_++)                 \
    {                                                                                               \
        _mm512_store_si512(&(kept)[0][i_ * (W) + j_], (high)[i_][j_]);                              \
        _mm512_store_si512(&(kept)[1][i_ * (W) + j_], (low)[i_][j_]);                               \
    }                                                                                               \
    __asm__ volatile("" ::: "memory")

/* What a span of int32 sums of high and low bytes stands for. */
INLINE __m512 joined(__m512i high, __m512i low)
{
    return vf_fma(_mm512_cvtepi32_ps(high), vf_set(256.0f), _mm512_cvtepi32_ps(low));
}

/* ---- scores --------------------------------------------------------------------------------- */

/* Components [c0, c0 + n) of query i as step * (256 high + low), zeros up to a multiple of 16. */
static void load_query(work *w, int i, int c0, int n)
{
    const float *q = w->s->q[i] + c0;
    __m512 most = vf_zero(), all = vf_zero();
    __m512i high = _mm512_setzero_si512(), low = high;
    for (int c = 0; c < n; c += LANES) {
        __m512 v = vf_load_part(q + c, n - c);
        most = vf_max(most, _mm512_abs_ps(v));
        all = vf_add(all, v);
    }
    float top = vf_top(most), inv = top > 0.0f ? STEPS / top : 0.0f;
    w->step[i] = top / STEPS + 0.0f * vf_sum(all); /* NaN if one of them is */
    for (int c = 0; c < n; c += LANES) {
        __m512i v = _mm512_cvtps_epi32(vf_mul(vf_load_part(q + c, n - c), vf_set(inv)));
        __m512i h = _mm512_srai_epi32(_mm512_add_epi32(v, _mm512_set1_epi32(128)), 8);
        __m512i l = _mm512_sub_epi32(v, _mm512_slli_epi32(h, 8));
        _mm_store_si128((__m128i *)(w->x[0][i] + c), _mm512_cvtepi32_epi8(h));
        _mm_store_si128((__m128i *)(w->x[1][i] + c), _mm512_cvtepi32_epi8(l));
        high = _mm512_add_epi32(high, h);
        low = _mm512_add_epi32(low, l);
    }
    w->sum[0][i] = _mm512_reduce_add_epi32(high);
    w->sum[1][i] = _mm512_reduce_add_epi32(low);
}

/* Blocks lie apart in memory: during the scores of one, its values and the next one's keys come in. */
INLINE void fetch_lines(const uint8_t *next, const uint8_t *v, int at)
{
    for (int line = 0; line < QUAD; line += 64) {
        if (next)
            _mm_prefetch((const char *)(next + at + line), _MM_HINT_T1);
        if (v)
            _mm_prefetch((const char *)(v + at + line), _MM_HINT_T1);
    }
}

/* p = scores of N query vectors with a block's keys, added up over the chunks of components. */
INLINE void score_block(const work *w, int i0, const int N, int block, int c0, int n)
{
    const ash_attn_span *s = w->s;
    const uint8_t *k = s->k[block], *v = s->v[block];
    const uint8_t *next = block + 1 < ASH_SPAN_BLOCKS ? s->k[block + 1] : s->next;
    const float *d = ash_kv_steps(k, s->k_dim);
    __m512i high[ROWS][2], low[ROWS][2], kept[2][2 * ROWS];
    UNROLL for (int i = 0; i < N; i++) UNROLL for (int j = 0; j < 2; j++)
        high[i][j] = low[i][j] = _mm512_setzero_si512();
    for (int c = 0; c < n; c += 4) {
        const uint8_t *x = w->x[0][i0] + c;
        int at = (c0 + c) / 4 * QUAD;
        __m512i u[2] = {_mm512_load_si512(k + at), _mm512_load_si512(k + at + 64)};
        if (i0 == 0) /* else they are in the cache already */
            fetch_lines(next, c0 + c < s->v_dim ? v : NULL, at);
        UNROLL for (int i = 0; i < N; i++)
        {
            __m512i h = broadcast4(x + i * CHUNK), l = broadcast4(x + LOW + i * CHUNK);
            UNROLL for (int j = 0; j < 2; j++)
            {
                high[i][j] = _mm512_dpbusd_epi32(high[i][j], u[j], h);
                low[i][j] = _mm512_dpbusd_epi32(low[i][j], u[j], l);
            }
        }
    }
    KEEP_SUMS(kept, high, low, N, 2);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < 2; j++) {
            float *p = s->p + (i0 + i) * ASH_SPAN + block * ASH_KV_TOKENS + j * LANES;
            __m512i h = _mm512_sub_epi32(kept[0][i * 2 + j], _mm512_set1_epi32(128 * w->sum[0][i0 + i]));
            __m512i l = _mm512_sub_epi32(kept[1][i * 2 + j], _mm512_set1_epi32(128 * w->sum[1][i0 + i]));
            __m512 x = vf_mul(joined(h, l), vf_set(w->step[i0 + i] * s->scale));
            x = vf_mul(x, vf_load(d + j * LANES));
            vf_store(p, c0 ? vf_add(vf_load(p), x) : x);
        }
    }
}

/* A function for each number of rows: in one that held them all the compiler ran out of registers, and
 * stored sums in every round. */
typedef void (*score_fn)(const work *w, int i0, int block, int c0, int n);
#define SCORE(N)                                                                                    \
    static __attribute__((noinline)) void score_##N(const work *w, int i0, int block, int c0, int n) \
    {                                                                                               \
        score_block(w, i0, N, block, c0, n);                                                        \
    }
SCORE(1) SCORE(2) SCORE(3) SCORE(4) SCORE(5) SCORE(6)
static const score_fn score_fns[ROWS] = {score_1, score_2, score_3, score_4, score_5, score_6};

static void scores(work *w)
{
    const ash_attn_span *s = w->s;
    for (int c = 0; c < s->k_dim; c += CHUNK) {
        int n = s->k_dim - c < CHUNK ? s->k_dim - c : CHUNK;
        for (int i = 0; i < s->m; i++) load_query(w, i, c, n);
        for (int b = w->t0 / ASH_KV_TOKENS; b * ASH_KV_TOKENS < w->t1; b++) {
            for (int i = 0, rows; i < s->m; i += rows) {
                rows = s->m - i < ROWS ? s->m - i : ROWS;
                score_fns[rows - 1](w, i, b, c, n);
            }
        }
    }
}

/* ---- weights -------------------------------------------------------------------------------- */

/* Exponentials of a query vector's visible scores times the steps of their tokens' values, in place; zero
 * for the others. Returns their maximum, NaN if one is; *sum is that of the exponentials. */
static float weigh(const ash_attn_span *s, int i, float max, float *sum)
{
    float *p = s->p + i * ASH_SPAN;
    int lo = s->lo[i], hi = s->hi[i];
    __m512 total = vf_zero(), most = vf_zero(), all = vf_zero();
    for (int j = 0; j < ASH_SPAN; j += LANES) {
        __m512 x = vf_zero();
        if (lo < j + LANES && j < hi) {
            const float *d = ash_kv_steps(s->v[j / ASH_KV_TOKENS], s->v_dim);
            __m512 e = vf_exp(vf_sub(vf_load(p + j), vf_set(max)));
            e = vf_keep(e, lo - j, hi - j, vf_zero());
            total = vf_add(total, e);
            x = vf_keep(vf_mul(e, vf_load(d + j % ASH_KV_TOKENS)), lo - j, hi - j, vf_zero());
            most = vf_max(most, x);
            all = vf_add(all, x);
        }
        vf_store(p + j, x);
    }
    *sum = vf_sum(total);
    return vf_top(most) + 0.0f * vf_sum(all);
}

static void soften(work *w, int i)
{
    const ash_attn_span *s = w->s;
    const __m512 low = vf_set(-INFINITY);
    const float *p = s->p + i * ASH_SPAN;
    int lo = s->lo[i], hi = s->hi[i];
    __m512 top = low;
    w->old[i] = 1.0f;
    w->fresh[i] = w->step[i] = 0.0f;
    if (hi <= lo) {
        for (int j = 0; j < ASH_SPAN; j++) w->x[0][i][j] = w->x[1][i][j] = 0;
        return;
    }
    for (int j = lo / LANES * LANES; j < hi; j += LANES)
        top = vf_max(top, vf_keep(vf_load(p + j), lo - j, hi - j, low));
    float max = vf_top(top), sum, most = weigh(s, i, max, &sum);
    w->step[i] = most / 65535.0f;
    __m512 inv = vf_set(most > 0.0f ? 65535.0f / most : 0.0f);
    for (int j = 0; j < ASH_SPAN; j += LANES) {
        __m512i x = _mm512_cvtps_epi32(vf_mul(vf_load(p + j), inv));
        x = _mm512_min_epi32(x, _mm512_set1_epi32(65535));
        _mm_store_si128((__m128i *)(w->x[0][i] + j), _mm512_cvtepi32_epi8(_mm512_srli_epi32(x, 8)));
        _mm_store_si128((__m128i *)(w->x[1][i] + j), _mm512_cvtepi32_epi8(x));
    }
    float merged = fmaxf(*s->max[i], max);
    w->old[i] = *s->sum[i] == 0.0f ? 0.0f : expf(*s->max[i] - merged);
    w->fresh[i] = expf(max - merged);
    *s->max[i] = merged;
    *s->sum[i] = *s->sum[i] * w->old[i] + sum * w->fresh[i];
}

/* ---- values --------------------------------------------------------------------------------- */

/* acc of N query vectors, LANES W components from c on, of which `left` exist. */
INLINE void add_tile(const work *w, int i0, const int N, const int W, int c, int left)
{
    const ash_attn_span *s = w->s;
    __m512i high[ROWS][4], low[ROWS][4], kept[2][4 * ROWS];
    UNROLL for (int i = 0; i < N; i++) UNROLL for (int j = 0; j < W; j++)
        high[i][j] = low[i][j] = _mm512_setzero_si512();
    for (int t = w->t0 / 4 * 4; t < w->t1; t += 4) {
        const uint8_t *v = s->v[t / ASH_KV_TOKENS];
        v += ((int64_t)(t % ASH_KV_TOKENS / 4) * s->v_dim + c) * 4;
        __m512i u[4];
        UNROLL for (int j = 0; j < W; j++)
            u[j] = _mm512_maskz_loadu_epi32(lanes(left > j * LANES ? left - j * LANES : 0), v + 64 * j);
        const uint8_t *x = w->x[0][i0] + t;
        UNROLL for (int i = 0; i < N; i++)
        {
            __m512i h = broadcast4(x + i * CHUNK), l = broadcast4(x + LOW + i * CHUNK);
            UNROLL for (int j = 0; j < W; j++)
            {
                high[i][j] = _mm512_dpbusd_epi32(high[i][j], h, u[j]);
                low[i][j] = _mm512_dpbusd_epi32(low[i][j], l, u[j]);
            }
        }
    }
    KEEP_SUMS(kept, high, low, N, W);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < W; j++) {
            int rest = left > j * LANES ? left - j * LANES : 0;
            float *out = s->acc[i0 + i] + c + j * LANES;
            __m512 x = vf_mul(joined(kept[0][i * W + j], kept[1][i * W + j]), vf_set(w->step[i0 + i]));
            __m512 y = vf_mul(vf_load_part(out, rest), vf_set(w->old[i0 + i]));
            vf_store_part(out, rest, vf_fma(x, vf_set(w->fresh[i0 + i]), y));
        }
    }
}

typedef void (*add_fn)(const work *w, int i0, int c, int left);
#define ADD(N, W)                                                                                   \
    static __attribute__((noinline)) void add_##N(const work *w, int i0, int c, int left)           \
    {                                                                                               \
        add_tile(w, i0, N, W, c, left);                                                             \
    }
ADD(1, 4) ADD(2, 4) ADD(3, 4) ADD(4, 2) ADD(5, 2) ADD(6, 2)
static const add_fn add_fns[ROWS] = {add_1, add_2, add_3, add_4, add_5, add_6};

static void add_rows(const work *w, int i0, int n)
{
    int dim = w->s->v_dim;
    for (int c = 0; c < dim; c += LANES * (n > 3 ? 2 : 4)) add_fns[n - 1](w, i0, c, dim - c);
}

void ash_avx512_span_q8(const ash_attn_span *s)
{
    work w;
    w.s = s;
    if (!ash_span_seen(s, 0, s->m, &w.t0, &w.t1))
        return;
    scores(&w);
    for (int i = 0; i < s->m; i++) soften(&w, i);
    for (int i = 0, rows; i < s->m; i += rows) {
        rows = s->m - i < ROWS ? s->m - i : ROWS;
        add_rows(&w, i, rows);
    }
}
