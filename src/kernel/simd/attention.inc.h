/* Attention over vectors of LANES floats, as avx2.h, avx512.h and neon.h have them. Whoever includes this
 * defines ROWS, the most query vectors whose sums fit the registers, and BY_SIZE(n, CALL), which is
 * CALL(n) with n, 1 to ROWS, as a constant.
 *
 * Scores: a register holds one component of LANES keys, so that no sum runs across lanes. Values: a
 * register holds LANES components of one token. The order of operations for one query vector is the
 * same in every tile.
 *
 * Where V is a part of K, it lies the wrong way round for that; COLUMNS of its components at a time are
 * turned into a buffer of the first cache level, which all query vectors of the step read. */
#ifndef ASHLEY_KERNEL_SIMD_ATTENTION_INC_H
#define ASHLEY_KERNEL_SIMD_ATTENTION_INC_H

#include <math.h>

enum { COLUMNS = 64, MAX_TILES = (ASH_TILE + ROWS - 1) / ROWS };

/* Query vectors whose sums are kept in registers together. */
typedef struct tile {
    int i0, n;                    /* [i0, i0 + n) */
    int t0, t1;                   /* tokens that any of them sees; none if t0 >= t1 */
    float old[ROWS], fresh[ROWS]; /* factors of the state and of the span's sums when they are added */
} tile;

/* Components [first, first + n) of values: of token t at v[t / ASH_KV_TOKENS][t % ASH_KV_TOKENS *
 * stride]. */
typedef struct columns {
    const uint16_t *v[ASH_SPAN_BLOCKS];
    int stride, first, n;
} columns;

/* Blocks lie apart in memory: during the scores of one, its values and the next one's keys come in. */
INLINE void fetch_lines(const uint16_t *next, const uint16_t *v, int c)
{
    if (next)
        __builtin_prefetch(next + c * ASH_KV_TOKENS, 0, 2);
    if (v)
        __builtin_prefetch(v + c * ASH_KV_TOKENS, 0, 2);
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

/* acc[i][c ..] of N query vectors for LANES W components, which are the columns from `at` on. */
INLINE void add_values(const ash_attn_span *s, const tile *t, const int N, const int W, const columns *v,
                       int at)
{
    vf acc[ROWS][4];
    UNROLL for (int i = 0; i < N; i++) UNROLL for (int w = 0; w < W; w++) acc[i][w] = vf_zero();
    for (int token = t->t0; token < t->t1; token++) {
        const uint16_t *row = v->v[token / ASH_KV_TOKENS] + token % ASH_KV_TOKENS * v->stride + at;
        vf p[ROWS];
        UNROLL for (int i = 0; i < N; i++) p[i] = vf_set(s->p[(t->i0 + i) * ASH_SPAN + token]);
        UNROLL for (int w = 0; w < W; w++)
        {
            vf x = vf_halves(row + LANES * w);
            UNROLL for (int i = 0; i < N; i++) acc[i][w] = vf_fma(p[i], x, acc[i][w]);
        }
    }
    UNROLL for (int i = 0; i < N; i++)
    {
        UNROLL for (int w = 0; w < W; w++)
        {
            float *out = s->acc[t->i0 + i] + v->first + at + LANES * w;
            vf x = vf_mul(vf_load(out), vf_set(t->old[i]));
            vf_store(out, vf_fma(acc[i][w], vf_set(t->fresh[i]), x));
        }
    }
}

/* Components that fill no register: one by one, in the same order. */
static void add_rest(const ash_attn_span *s, const tile *t, const columns *v, int at)
{
    for (int i = 0; i < t->n; i++) {
        for (int c = at; c < v->n; c++) {
            float o = 0, *out = s->acc[t->i0 + i] + v->first + c;
            for (int token = t->t0; token < t->t1; token++) {
                const uint16_t *row = v->v[token / ASH_KV_TOKENS] + token % ASH_KV_TOKENS * v->stride;
                o = fmaf(s->p[(t->i0 + i) * ASH_SPAN + token], half_to_f(row[c]), o);
            }
            *out = fmaf(o, t->fresh[i], *out * t->old[i]);
        }
    }
}

INLINE void values(const ash_attn_span *s, const tile *t, const int N, const columns *v)
{
    int c = 0;
    for (; c + 4 * LANES <= v->n; c += 4 * LANES) add_values(s, t, N, 4, v, c);
    for (; c + LANES <= v->n; c += LANES) add_values(s, t, N, 1, v, c);
    if (c < v->n)
        add_rest(s, t, v, c);
}

static void add_columns(const ash_attn_span *s, const tile *t, const columns *v)
{
#define CALL(N) values(s, t, N, v)
    if (t->t0 < t->t1)
        BY_SIZE(t->n, CALL);
#undef CALL
}

INLINE void scores(const ash_attn_span *s, tile *t, const int N)
{
    for (int b = t->t0 / ASH_KV_TOKENS; b * ASH_KV_TOKENS < t->t1; b++) score_block(s, t->i0, N, b);
    for (int i = 0; i < N; i++) soften(s, t->i0 + i, &t->old[i], &t->fresh[i]);
}

static void open_tile(const ash_attn_span *s, tile *t, int i0, int n)
{
    *t = (tile){.i0 = i0, .n = n};
#define CALL(N) scores(s, t, N)
    if (ash_span_seen(s, i0, n, &t->t0, &t->t1))
        BY_SIZE(n, CALL);
#undef CALL
}

/* Components [c0, c0 + n) of the tokens [t0, t1), and of some around them, to [token][COLUMNS]. */
static void turn(const ash_attn_span *s, int c0, int n, int t0, int t1, uint16_t *to)
{
    for (int t = t0 / 8 * 8; t < t1; t += 8) {
        const uint16_t *k = s->k[t / ASH_KV_TOKENS];
        int c = 0;
        k += c0 * ASH_KV_TOKENS + t % ASH_KV_TOKENS;
        for (; c + 8 <= n; c += 8)
            turn_8x8(k + c * ASH_KV_TOKENS, ASH_KV_TOKENS, to + t * COLUMNS + c, COLUMNS);
        for (; c < n; c++)
            for (int i = 0; i < 8; i++) to[(t + i) * COLUMNS + c] = k[c * ASH_KV_TOKENS + i];
    }
}

/* Values that are a part of the keys. */
static void add_turned(const ash_attn_span *s, const tile *tiles, int n_tiles)
{
    _Alignas(64) uint16_t turned[ASH_SPAN * COLUMNS];
    columns v = {.stride = COLUMNS};
    int t0 = ASH_SPAN, t1 = 0;
    for (int b = 0; b < ASH_SPAN_BLOCKS; b++) v.v[b] = turned + b * ASH_KV_TOKENS * COLUMNS;
    for (int j = 0; j < n_tiles; j++) {
        t0 = tiles[j].t0 < t0 ? tiles[j].t0 : t0;
        t1 = tiles[j].t1 > t1 ? tiles[j].t1 : t1;
    }
    for (; t0 < t1 && v.first < s->v_dim; v.first += COLUMNS) {
        v.n = s->v_dim - v.first < COLUMNS ? s->v_dim - v.first : COLUMNS;
        turn(s, v.first, v.n, t0, t1, turned);
        for (int j = 0; j < n_tiles; j++) add_columns(s, &tiles[j], &v);
    }
}

INLINE void run_span(const ash_attn_span *s)
{
    int n = (s->m + ROWS - 1) / ROWS;
    tile tiles[MAX_TILES];
    columns v = {.stride = s->v_dim, .n = s->v_dim};
    for (int b = 0; b < ASH_SPAN_BLOCKS; b++) v.v[b] = s->v[b];
    for (int j = 0; j < n; j++) {
        int i0 = s->m * j / n;
        open_tile(s, &tiles[j], i0, s->m * (j + 1) / n - i0);
        if (s->v[0])
            add_columns(s, &tiles[j], &v);
    }
    if (!s->v[0])
        add_turned(s, tiles, n);
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
