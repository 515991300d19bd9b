/* Owns attention of a batch: cuts it into tiles of query vectors that share keys, and long contexts into
 * parts when there are too few tiles to go round.
 *
 * Every query vector goes over its sequence in spans of 128 tokens that start at multiples of 128, and
 * merges the spans' results in order. How rows were tiled or parts split does not show in a result. */
#include "nn/attention.h"

#include <math.h>
#include <string.h>

#include "nn/scratch.h"

typedef struct job {
    ash_nn *nn;
    const ash_attention *a;
    const ash_kv *kv;
    int layer;
    const ash_row *rows;
    const float *q;
    float *out;
    int group;        /* query heads of a KV head */
    int tile_heads;   /* of them in one tile: all, but for huge groups */
    int head_tiles;   /* tiles of one KV head's query heads */
    int n_tiles;      /* row tiles */
    int parts;        /* of the context; 1 unless split */
    int spans;        /* most spans of a row, when split */
} job;

static int row_lo(const job *j, int64_t row)
{
    int pos = j->rows[row].pos;
    return j->a->window > 0 && pos >= j->a->window ? pos - j->a->window + 1 : 0;
}

static int make_tiles(const ash_row *rows, int n, int most, ash_row_tile *tiles)
{
    int count = 0;
    for (int i = 0; i < n;) {
        int first = i++;
        while (i < n && i - first < most && rows[i].table == rows[i - 1].table &&
               rows[i].pos == rows[i - 1].pos + 1)
            i++;
        tiles[count++] = (ash_row_tile){first, i - first};
    }
    return count;
}

/* The query vectors of one tile: rows of `t`, query heads [h0, h0 + heads) of KV head kv_head. */
typedef struct item {
    ash_row_tile t;
    int kv_head, h0, heads;
} item;

static item item_of(const job *j, int64_t index)
{
    int per_tile = j->kv->shape.kv_heads * j->head_tiles;
    /* Late rows see the longest contexts: give them out first, so that the end is even. */
    int64_t tile = j->n_tiles - 1 - index / per_tile;
    int rest = (int)(index % per_tile);
    item it = {.t = j->nn->scratch->tiles[tile], .kv_head = rest / j->head_tiles};
    int skip = rest % j->head_tiles * j->tile_heads;
    it.h0 = it.kv_head * j->group + skip;
    it.heads = j->group - skip < j->tile_heads ? j->group - skip : j->tile_heads;
    return it;
}

static void set_queries(const job *j, const item *it, ash_attn_span *s)
{
    const ash_kv_shape *shape = &j->kv->shape;
    s->type = shape->type;
    s->k_dim = shape->k_dim;
    s->v_dim = shape->v_dim;
    s->scale = j->a->scale;
    s->m = it->t.n * it->heads;
    for (int i = 0; i < s->m; i++) {
        int64_t row = it->t.row + i / it->heads, head = it->h0 + i % it->heads;
        s->q[i] = j->q + (row * j->a->heads + head) * shape->k_dim;
    }
}

static void set_tokens(const job *j, const item *it, int span, ash_attn_span *s)
{
    const ash_kv_shape *shape = &j->kv->shape;
    const ash_row *last = &j->rows[it->t.row + it->t.n - 1];
    int64_t k_head = ash_kv_part_bytes(shape->type, shape->k_dim);
    int64_t v_head = ash_kv_part_bytes(shape->type, shape->v_dim);
    s->next = NULL;
    for (int b = 0; b <= ASH_SPAN_BLOCKS; b++) {
        int block = span * ASH_SPAN_BLOCKS + b;
        const uint8_t *k = NULL, *v = NULL;
        if (block <= last->pos / ASH_KV_TOKENS) {
            const uint8_t *base = ash_kv_block(j->kv, last->table[block]);
            base += j->layer * j->kv->layer_bytes;
            k = base + it->kv_head * k_head;
            v = shape->v_in_k ? NULL : base + shape->kv_heads * k_head + it->kv_head * v_head;
        }
        if (b == ASH_SPAN_BLOCKS) {
            s->next = k;
            break;
        }
        s->k[b] = k;
        s->v[b] = v;
    }
    int first = span * ASH_SPAN;
    for (int i = 0; i < s->m; i++) {
        int64_t row = it->t.row + i / it->heads;
        int lo = row_lo(j, row) - first, hi = j->rows[row].pos + 1 - first;
        s->lo[i] = lo > 0 ? lo : 0;
        s->hi[i] = hi < ASH_SPAN ? hi : ASH_SPAN;
    }
}

/* Blocks of 8 bits as half floats, for tables that have no span_q8. */
static void widen(const job *j, ash_attn_span *s, uint16_t *to)
{
    for (int b = 0; b < ASH_SPAN_BLOCKS && s->k[b]; b++) {
        const uint8_t *k = s->k[b];
        const int8_t *v = s->v[b];
        const float *kd = ash_kv_steps(k, s->k_dim), *vd = ash_kv_steps(v, s->v_dim);
        float x[ASH_KV_TOKENS];
        s->k[b] = to;
        for (int c = 0; c < s->k_dim; c++, to += ASH_KV_TOKENS) {
            for (int t = 0; t < ASH_KV_TOKENS; t++)
                x[t] = (float)(k[(c / 4 * ASH_KV_TOKENS + t) * 4 + c % 4] - 128) * kd[t];
            j->nn->k->to_f16(x, ASH_KV_TOKENS, to);
        }
        s->v[b] = to;
        for (int t = 0; t < ASH_KV_TOKENS; t++, to += s->v_dim) {
            for (int c = 0; c < s->v_dim; c += ASH_KV_TOKENS) {
                int n = s->v_dim - c < ASH_KV_TOKENS ? s->v_dim - c : ASH_KV_TOKENS;
                for (int i = 0; i < n; i++) x[i] = (float)v[(t / 4 * s->v_dim + c + i) * 4 + t % 4] * vd[t];
                j->nn->k->to_f16(x, n, to + c);
            }
        }
    }
    s->next = NULL;
}

static void run_span(const job *j, const item *it, int span, int worker, ash_attn_span *s)
{
    const ash_kernel *k = j->nn->k;
    set_tokens(j, it, span, s);
    /* what a latent is rounded by may end in the choice of another expert */
    if ((j->kv->shape.v_in_k || j->a->fine) && k->fine_span && j->kv->shape.type != ASH_KV_Q8) {
        k->fine_span(s);
    } else if (j->kv->shape.type != ASH_KV_Q8) {
        k->span(s);
    } else if (k->span_q8) {
        k->span_q8(s);
    } else {
        widen(j, s, j->nn->scratch->workers[worker].wide);
        s->type = ASH_KV_F16;
        k->span(s);
    }
}

static void finish(const job *j, const item *it, const ash_attn_span *s)
{
    int64_t dim = s->v_dim;
    for (int i = 0; i < s->m; i++) {
        int64_t row = it->t.row + i / it->heads, head = it->h0 + i % it->heads;
        float *out = j->out + (row * j->a->heads + head) * dim, inv = 1.0f / *s->sum[i];
        for (int64_t c = 0; c < dim; c++) out[c] = s->acc[i][c] * inv;
    }
}

static void attend(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    ash_worker *w = &j->nn->scratch->workers[worker];
    ash_attn_span s = {.p = w->p};
    for (int64_t index = begin; index < end; index++) {
        item it = item_of(j, index);
        set_queries(j, &it, &s);
        memset(w->acc, 0, (size_t)s.m * (size_t)s.v_dim * sizeof(float));
        for (int i = 0; i < s.m; i++) {
            w->max[i] = -INFINITY;
            w->sum[i] = 0;
            s.max[i] = &w->max[i];
            s.sum[i] = &w->sum[i];
            s.acc[i] = w->acc + (int64_t)i * s.v_dim;
        }
        int last = j->rows[it.t.row + it.t.n - 1].pos / ASH_SPAN;
        for (int span = row_lo(j, it.t.row) / ASH_SPAN; span <= last; span++) {
            run_span(j, &it, span, worker, &s);
        }
        finish(j, &it, &s);
    }
}

/* Split form: every span's result is kept apart, then merged in order. A part has max, sum, acc. */
static float *part_of(const job *j, int64_t row, int64_t head, int64_t span)
{
    int64_t vector = row * j->a->heads + head;
    return j->nn->scratch->parts + (vector * j->spans + span) * (j->kv->shape.v_dim + 2);
}

static void attend_parts(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    ash_attn_span s = {.p = j->nn->scratch->workers[worker].p};
    for (int64_t index = begin; index < end; index++) {
        item it = item_of(j, index / j->parts);
        set_queries(j, &it, &s);
        int first = row_lo(j, it.t.row) / ASH_SPAN, last = j->rows[it.t.row + it.t.n - 1].pos / ASH_SPAN;
        int n = last - first + 1, part = (int)(index % j->parts);
        int from = first + (int)((int64_t)n * part / j->parts);
        int to = first + (int)((int64_t)n * (part + 1) / j->parts);
        for (int span = from; span < to; span++) {
            for (int i = 0; i < s.m; i++) {
                float *p = part_of(j, it.t.row + i / it.heads, it.h0 + i % it.heads, span - first);
                memset(p, 0, (size_t)(s.v_dim + 2) * sizeof *p);
                p[0] = -INFINITY;
                s.max[i] = p;
                s.sum[i] = p + 1;
                s.acc[i] = p + 2;
            }
            run_span(j, &it, span, worker, &s);
        }
    }
}

static void merge_parts(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    int64_t dim = j->kv->shape.v_dim;
    for (int64_t vector = begin; vector < end; vector++) {
        int64_t row = vector / j->a->heads;
        /* Tiles have one row when the context is split, so each row's spans begin at its own first. */
        int spans = j->rows[row].pos / ASH_SPAN - row_lo(j, row) / ASH_SPAN + 1;
        float max = -INFINITY, sum = 0, *out = j->out + vector * dim;
        memset(out, 0, (size_t)dim * sizeof *out);
        for (int i = 0; i < spans; i++) {
            const float *p = part_of(j, row, vector % j->a->heads, i);
            j->nn->k->merge(&max, &sum, out, p[0], p[1], p + 2, dim);
        }
        for (int64_t c = 0; c < dim; c++) out[c] *= 1.0f / sum;
    }
}

/* Parts of the context worth making, 1 for none: few items, long contexts, and room for the results. */
static int plan_parts(job *j, int n, int64_t items)
{
    int threads = j->nn->o.threads;
    if (threads == 1 || items >= 4 * threads)
        return 1;
    for (int i = 0; i < n; i++) {
        int spans = j->rows[i].pos / ASH_SPAN - row_lo(j, i) / ASH_SPAN + 1;
        j->spans = spans > j->spans ? spans : j->spans;
    }
    if (j->spans < 2 || (int64_t)n * j->a->heads * j->spans > j->nn->scratch->max_parts)
        return 1;
    int parts = (int)((4 * threads + items - 1) / items);
    return parts < j->spans ? parts : j->spans;
}

void ash_attention_run(ash_nn *nn, const ash_attention *a, const ash_kv *kv, int layer,
                       const ash_row *rows, int n, const float *q, float *out)
{
    job j = {.nn = nn, .a = a, .kv = kv, .layer = layer, .rows = rows, .q = q, .out = out};
    j.group = a->heads / kv->shape.kv_heads;
    j.tile_heads = j.group < ASH_TILE ? j.group : ASH_TILE;
    j.head_tiles = (j.group + j.tile_heads - 1) / j.tile_heads;
    int64_t per_tile = (int64_t)kv->shape.kv_heads * j.head_tiles;
    j.n_tiles = make_tiles(rows, n, ASH_TILE / j.tile_heads, nn->scratch->tiles);
    j.parts = j.n_tiles == n ? plan_parts(&j, n, n * per_tile) : 1;
    if (j.parts == 1) {
        ash_pool_run(nn->pool, j.n_tiles * per_tile, 1, attend, &j);
        return;
    }
    ash_pool_run(nn->pool, n * per_tile * j.parts, 1, attend_parts, &j);
    ash_nn_rows(nn, (int64_t)n * a->heads, (int64_t)j.spans * kv->shape.v_dim, merge_parts, &j);
}
