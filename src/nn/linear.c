/* Owns matrices in packed form and their product with a batch. Refuses types without kernels. A bound
 * linear is immutable once packed. */
#include "nn/linear.h"

#include <assert.h>
#include <string.h>

#include "kernel/pack_fp8.h"
#include "kernel/pack_gptq.h"
#include "nn/scratch.h"

static uint64_t weight_bytes(const ash_packed *w)
{
    return ((uint64_t)w->groups * (uint64_t)w->group_bytes + 63) / 64 * 64;
}

int ash_linear_plan(ash_linear *l, ash_dtype t, int64_t out, int64_t in, uint64_t *bytes, ash_err *err)
{
    *l = (ash_linear){0};
    const ash_dtype_info *info = ash_dtype_get(t);
    if (!ash_pack_plan(&l->w, t, out, in)) {
        ash_packed probe;
        if (!info->block || !ash_pack_plan(&probe, t, 1, info->block))
            return ash_err_set(err, ASH_EUNSUPPORTED, "no kernels for tensors of type %s",
                               info->name ? info->name : "(unknown)");
        return ash_err_set(err, ASH_EINVAL, "a %s matrix of [%lld, %lld]: expected whole blocks of %u",
                           info->name, (long long)out, (long long)in, info->block);
    }
    l->in = in;
    *bytes = weight_bytes(&l->w);
    return 0;
}

int ash_linear_plan_gptq(ash_linear *l, const ash_gptq *q, uint64_t *bytes, ash_err *err)
{
    static const int32_t placeless = 0; /* that there is an order, until it has a place */
    bool ordered;
    *l = (ash_linear){.in = q->in};
    int rc = ash_pack_gptq_plan(&l->w, q, &ordered, err);
    if (rc)
        return rc;
    l->perm = ordered ? &placeless : NULL;
    *bytes = weight_bytes(&l->w);
    if (ordered) /* the order, and room to find it */
        *bytes += ((uint64_t)(l->w.cols + q->groups) * sizeof(int32_t) + 63) / 64 * 64;
    return 0;
}

int ash_linear_plan_fp8(ash_linear *l, int64_t out, int64_t in, int64_t block_out, int64_t block_in,
                        uint64_t *bytes, ash_err *err)
{
    *l = (ash_linear){.in = in, .block_out = block_out};
    if (!ash_pack_fp8_plan(&l->w, out, in, block_out, block_in))
        return ash_err_set(err, ASH_EINVAL, "an F8_E4M3 matrix of [%lld, %lld] in blocks of [%lld, %lld]",
                           (long long)out, (long long)in, (long long)block_out, (long long)block_in);
    *bytes = weight_bytes(&l->w);
    return 0;
}

void ash_linear_bind(ash_linear *l, void *mem)
{
    l->w.data = mem;
    if (l->perm)
        l->perm = (const int32_t *)(l->w.data + weight_bytes(&l->w));
}

void ash_linear_order_gptq(const ash_linear *l, const ash_gptq *q)
{
    int32_t *order = (int32_t *)(l->w.data + weight_bytes(&l->w));
    if (l->perm)
        ash_pack_gptq_order(&l->w, q, order, order + l->w.cols);
}

bool ash_linear_order_valid(const ash_linear *l)
{
    for (int64_t c = 0; l->perm && c < l->w.cols; c++)
        if (l->perm[c] < -1 || l->perm[c] >= l->in)
            return false;
    return true;
}

void ash_linear_pack_fp8(const ash_linear *l, const void *src, const float *scales, int64_t row, int64_t n)
{
    ash_pack_fp8_rows(&l->w, l->block_out, src, scales, row, n);
}

void ash_linear_pack_gptq(const ash_linear *l, const ash_gptq *q, int64_t row, int64_t n)
{
    ash_pack_gptq_rows(&l->w, q, l->perm, row, n);
}

void ash_linear_pack(const ash_linear *l, const void *src, int64_t row, int64_t n)
{
    ash_pack_rows(&l->w, src, row, n);
}

void ash_linear_share(ash_linear *const *ls, int n_ls)
{
    for (int b = 1; b < n_ls; b++) {
        for (int a = 0; a < b; a++) {
            if (ls[a]->perm && ls[b]->perm && ls[a]->w.cols == ls[b]->w.cols &&
                !memcmp(ls[a]->perm, ls[b]->perm, (size_t)ls[a]->w.cols * sizeof *ls[a]->perm)) {
                ls[b]->perm = ls[a]->perm;
                break;
            }
        }
    }
}

/* Groups of rows of one matrix that a node works on first. */
typedef struct node_share {
    int64_t first, end;
} node_share;

/* Even borders: kernels take groups in pairs. */
static int64_t border(const ash_linear *l, const ash_pool *pool, int node)
{
    int64_t g = 2 * ash_pool_share(pool, (l->w.groups + 1) / 2, node);
    return g < l->w.groups ? g : l->w.groups;
}

static node_share share_of(const ash_linear *l, const ash_pool *pool, int node)
{
    return (node_share){border(l, pool, node), border(l, pool, node + 1)};
}

void ash_linear_local(const ash_linear *l, const ash_pool *pool, int node, const void **from, size_t *bytes)
{
    node_share s = share_of(l, pool, node);
    *from = l->w.data + s.first * l->w.group_bytes;
    *bytes = (size_t)((s.end - s.first) * l->w.group_bytes);
}

void ash_linear_row(const ash_linear *l, int64_t row, float *y)
{
    if (!l->perm) {
        ash_pack_row_decode(&l->w, row, y);
        return;
    }
    const uint8_t *group = l->w.data + row / ASH_GROUP * l->w.group_bytes;
    for (int64_t b = 0; b < ash_pack_blocks(&l->w); b++) {
        const int32_t *perm = l->perm + b * 32;
        float part[32];
        ash_pack_gptq_decode(&l->w, group, row % ASH_GROUP, b, part);
        for (int c = 0; c < 32; c++)
            if (perm[c] >= 0)
                y[perm[c]] = part[c];
    }
}

/* One conversion of activations and the products with it. A run's matrices all read the whole of a row of
 * x; with `each` every matrix reads and writes its own piece of a row, and the activations lie piece by
 * piece: row i of piece p is row p * n + i of act. With `batch` the rows of act are those of its list. */
typedef struct job {
    ash_nn *nn;
    const ash_linear *const *ls; /* of a run */
    float *const *ys;
    const ash_linear *each;      /* or: matrices in an array, and one result for all */
    float *y;
    int64_t ldy;
    int n_ls;
    const ash_linear_batch *batch; /* or: parts of a list of rows */
    const int64_t *ends;         /* [nodes]: of their shares of the multiplication */
    int64_t n;                   /* rows of x */
    const float *x;
    int64_t ldx, in;             /* between rows of x; columns that a matrix reads */
    const int32_t *perm;
    float *gathered;             /* [rows of act, act.ld]: x in perm's order, where floats are multiplied */
    ash_act act;
    bool want[ASH_ACT_COUNT];
    bool halves;                 /* hs is wanted */
    bool rest, spikes;           /* second terms, too: of all rows; of spiky ones */
} job;

/* x in the order of perm's columns. */
static const float *gather(const int32_t *perm, int64_t cols, const float *x, float *to)
{
    for (int64_t c = 0; c < cols; c++) to[c] = perm[c] < 0 ? 0 : x[perm[c]];
    return to;
}

/* x [cols] to int8, as row i of act. */
static void convert_int8(const job *j, const float *x, int64_t cols, int64_t i)
{
    const ash_act *a = &j->act;
    const int64_t nb = a->ld / 32;
    j->nn->k->quantise(x, cols, a->q + i * a->ld, a->d + i * nb, a->ds + i * nb, a->ns + i * nb);
    if (j->halves)
        j->nn->k->half_sums(a->q + i * a->ld, cols, a->hs + i * nb);
}

/* What int8 left of row i of x, as row n + i. buf [cols] may be x. */
static void convert_rest(const job *j, const float *x, int64_t i, float *buf)
{
    const ash_act *a = &j->act;
    const int8_t *q = a->q + i * a->ld;
    const float *d = a->d + i * (a->ld / 32);
    for (int64_t c = 0; c < a->cols; c++) buf[c] = x[c] - d[c / 32] * (float)q[c];
    convert_int8(j, buf, a->cols, j->n + i);
}

/* Whether one block of row i, which is int8 already, is far above all others. */
static bool is_spiky(const job *j, int64_t cols, int64_t i)
{
    const float *d = j->act.d + i * (j->act.ld / 32), share = 0.5f;
    float sum = 0, most = 0;
    for (int64_t b = 0; b < cols / 32; b++) {
        sum += d[b] * d[b];
        most = d[b] > most ? d[b] : most;
    }
    return most * most > share * sum;
}

/* x in the order of perm, as row i of act in all the forms that are wanted; in floats to `to`, or NULL. */
static void convert_row(const job *j, const int32_t *perm, int64_t cols, const float *x, float *to,
                        int64_t i, int worker)
{
    if (perm)
        x = gather(perm, cols, x, to ? to : j->nn->scratch->workers[worker].x);
    else if (to)
        memcpy(to, x, (size_t)cols * sizeof *x);
    if (j->want[ASH_ACT_I8])
        convert_int8(j, x, cols, i);
    if (j->want[ASH_ACT_BF16])
        j->nn->k->to_bf16(x, cols, j->act.h + i * j->act.ld);
    if (j->spikes)
        j->nn->scratch->spiky[i] = is_spiky(j, cols, i);
    if (j->rest || (j->spikes && j->nn->scratch->spiky[i]))
        convert_rest(j, x, i, j->nn->scratch->workers[worker].x);
}

static void convert_rows(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    for (int64_t i = begin; i < end; i++)
        convert_row(j, j->perm, j->act.cols, j->x + i % j->n * j->ldx + i / j->n * j->in,
                    j->gathered ? j->gathered + i * j->act.ldx : NULL, i, worker);
}

static void add_bias(const ash_linear *l, int64_t g0, int64_t g1, int64_t n, float *y, int64_t ldy)
{
    int64_t r0 = g0 * ASH_GROUP, r1 = g1 * ASH_GROUP < l->w.rows ? g1 * ASH_GROUP : l->w.rows;
    for (int64_t i = 0; i < n; i++)
        for (int64_t r = r0; r < r1; r++) y[i * ldy + r] += l->bias[r];
}

static bool is_fine(const ash_nn *nn, const ash_linear *l)
{
    return l->fine && nn->k->fine[l->w.form];
}

static ash_terms terms_of(const job *j, const ash_linear *l)
{
    return !j->each && !j->batch && j->nn->k->act[l->w.form] == ASH_ACT_I8 ? l->terms : ASH_TERMS_ONE;
}

/* act from row i on, n rows. */
static ash_act rows_of(const ash_act *act, int64_t i, int64_t n)
{
    ash_act a = *act;
    a.n = n;
    a.h += i * a.ld;
    a.q += i * a.ld;
    a.d += i * a.ld / 32;
    a.ds += i * a.ld / 32;
    a.ns += i * a.ld / 32;
    a.hs += i * a.ld / 32;
    return a;
}

enum { WIDTH = 2 * ASH_GROUP }; /* outputs whose terms are added at a time: their products lie in a cache */

/* terms [a.n, WIDTH] = a times groups [g, g + 2) of l, at most to g1. Returns the outputs. */
static int64_t multiply_pair(const job *j, const ash_linear *l, const ash_act *a, int64_t g, int64_t g1,
                             const ash_worker *w)
{
    ash_packed part = l->w; /* from group g on */
    part.data += g * part.group_bytes;
    part.rows -= g * ASH_GROUP;
    part.groups -= g;
    int64_t n = g + 2 < g1 ? 2 : g1 - g;
    j->nn->k->matmul[part.form](&part, a, 0, n, w->terms, WIDTH, w->matmul);
    return n * ASH_GROUP < part.rows ? n * ASH_GROUP : part.rows;
}

/* y of groups [g0, g1) += the second terms of spiky rows. */
static void add_spikes(const job *j, const ash_linear *l, int64_t g0, int64_t g1, float *y,
                       const ash_worker *w)
{
    const uint8_t *spiky = j->nn->scratch->spiky;
    for (int64_t i = 0, end; i < j->n; i = end) {
        for (end = i + 1; end < j->n && spiky[end] == spiky[i]; end++) {}
        if (!spiky[i])
            continue;
        const ash_act a = rows_of(&j->act, j->n + i, end - i);
        for (int64_t g = g0; g < g1; g += 2) {
            int64_t rows = multiply_pair(j, l, &a, g, g1, w);
            for (int64_t k = 0; k < a.n; k++) {
                float *to = y + (i + k) * l->w.rows + g * ASH_GROUP;
                for (int64_t r = 0; r < rows; r++) to[r] += w->terms[k * WIDTH + r];
            }
        }
    }
}

/* y of groups [g0, g1) from both terms of x. */
static void multiply_terms(const job *j, const ash_linear *l, int64_t g0, int64_t g1, float *y,
                           const ash_worker *w)
{
    const ash_act a = rows_of(&j->act, 0, 2 * j->n);
    for (int64_t g = g0; g < g1; g += 2) {
        int64_t rows = multiply_pair(j, l, &a, g, g1, w);
        for (int64_t i = 0; i < j->n; i++) {
            const float *first = w->terms + i * WIDTH, *rest = first + j->n * WIDTH;
            float *to = y + i * l->w.rows + g * ASH_GROUP;
            for (int64_t r = 0; r < rows; r++) to[r] = first[r] + rest[r];
        }
    }
}

/* Groups [g0, g1) of l times n rows of act from `row` on, of which x are the floats. */
static void multiply_rows(const job *j, const ash_linear *l, const float *x, int64_t row, int64_t n,
                          int64_t g0, int64_t g1, float *y, int64_t ldy, const ash_worker *w)
{
    ash_act a = rows_of(&j->act, row, n);
    a.cols = l->w.cols;
    a.x = x;
    ash_matmul_fn matmul = is_fine(j->nn, l) ? j->nn->k->fine[l->w.form] : j->nn->k->matmul[l->w.form];
    ash_terms terms = terms_of(j, l);
    if (terms == ASH_TERMS_TWO)
        multiply_terms(j, l, g0, g1, y, w);
    else
        matmul(&l->w, &a, g0, g1, y, ldy, w->matmul);
    if (terms == ASH_TERMS_SPIKES)
        add_spikes(j, l, g0, g1, y, w);
    if (l->bias)
        add_bias(l, g0, g1, n, y, ldy);
}

/* Groups [g0, g1) of matrix m of a run. */
static void multiply_one(const job *j, int m, int64_t g0, int64_t g1, const ash_worker *w)
{
    const ash_linear *l = j->each ? j->each + m : j->ls[m];
    int64_t row = m * j->n;
    if (j->each)
        multiply_rows(j, l, j->act.x + (j->gathered ? row * j->act.ldx : m * j->in), row, j->n, g0, g1,
                      j->y + m * l->w.rows, j->ldy, w);
    else
        multiply_rows(j, l, j->act.x, 0, j->n, g0, g1, j->ys[m], l->w.rows, w);
}

/* The node in whose share of the job `begin` is, and where that share begins. */
static int node_at(const job *j, int64_t begin, int64_t *base)
{
    int node = 0;
    while (begin >= j->ends[node]) node++;
    *base = node ? j->ends[node - 1] : 0;
    return node;
}

/* Groups [begin, end) of one node's shares of the matrices, all nodes' laid end to end. */
static void multiply(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    int64_t base;
    int node = node_at(j, begin, &base);
    for (int m = 0; m < j->n_ls && base < end; m++) {
        const node_share s = share_of(j->each ? j->each + m : j->ls[m], j->nn->pool, node);
        int64_t groups = s.end - s.first;
        int64_t g0 = begin > base ? begin - base : 0;
        int64_t g1 = end - base < groups ? end - base : groups;
        base += groups;
        if (g0 < g1)
            multiply_one(j, m, s.first + g0, s.first + g1, &j->nn->scratch->workers[worker]);
    }
}

/* The forms of activations that matrix l wants. */
static void want_forms(job *j, const ash_linear *l)
{
    j->want[is_fine(j->nn, l) ? ASH_ACT_F32 : j->nn->k->act[l->w.form]] = true;
    j->halves = j->halves || (l->w.form == ASH_FORM_RAW && j->nn->k->half_sums);
    j->rest = j->rest || terms_of(j, l) == ASH_TERMS_TWO;
    j->spikes = j->spikes || terms_of(j, l) == ASH_TERMS_SPIKES;
}

/* Their order, too; all of a job have the same order. */
static void want_act(job *j, const ash_linear *l)
{
    want_forms(j, l);
    j->perm = l->perm;
    j->act.cols = l->w.cols;
    j->act.ld = ash_act_stride(l->w.cols);
    j->act.x = j->x;
    j->act.ldx = j->ldx;
    if (j->want[ASH_ACT_F32] && l->perm) { /* on the scalar table alone, which has the room */
        j->gathered = j->nn->scratch->x;
        j->act.x = j->gathered;
        j->act.ldx = j->act.ld;
    }
}

static bool converts(const job *j)
{
    return j->want[ASH_ACT_I8] || j->want[ASH_ACT_BF16] || j->gathered;
}

/* act_rows rows of activations for all groups. */
static void run_job(job *j, int64_t act_rows)
{
    int64_t ends[ASH_MAX_NODES], groups = 0;
    for (int node = 0; node < ash_pool_nodes(j->nn->pool); node++) {
        for (int m = 0; m < j->n_ls; m++) {
            const node_share s = share_of(j->each ? j->each + m : j->ls[m], j->nn->pool, node);
            groups += s.end - s.first;
        }
        ends[node] = groups;
    }
    j->ends = ends;
    if (converts(j))
        ash_nn_rows(j->nn, act_rows, j->act.cols, convert_rows, j);
    /* Chunks small enough that a core which is taken away holds up little, even numbers because kernels
     * take groups in pairs, and in fours for one row. */
    int64_t grain = groups / (j->nn->o.threads * (j->n > 8 ? 16 : 8)) & ~1ll;
    if (j->n <= 8 && grain > 4)
        grain &= ~3ll;
    ash_pool_run_shares(j->nn->pool, ends, grain < 2 ? 2 : grain, multiply, j);
}

void ash_linear_run(ash_nn *nn, const ash_linear *const *ls, int n_ls, const float *x, int n,
                    float *const *ys)
{
    uint32_t done = 0; /* bit m: matrix m */
    static_assert(ASH_LINEAR_MAX <= 32, "a bit each");
    for (int first = 0; first < n_ls; first++) {
        if (done >> first & 1)
            continue;
        const ash_linear *same[ASH_LINEAR_MAX];
        float *to[ASH_LINEAR_MAX];
        job j = {.nn = nn, .ls = same, .ys = to, .n = n, .x = x, .ldx = ls[0]->in, .in = ls[0]->in,
                 .act = nn->scratch->act};
        for (int m = first; m < n_ls; m++) {
            if (ls[m]->perm != ls[first]->perm)
                continue;
            done |= 1u << m;
            same[j.n_ls] = ls[m];
            to[j.n_ls++] = ys[m];
            want_act(&j, ls[m]);
        }
        run_job(&j, n);
    }
}

void ash_linear_run_each(ash_nn *nn, const ash_linear *ls, int n_ls, const float *x, int n, float *y)
{
    int64_t in = ls->in, out = ls->w.rows, room = nn->o.max_rows * nn->scratch->act.ld;
    for (int first = 0, m; first < n_ls; first += m) {
        job j = {.nn = nn, .each = ls + first, .y = y + first * out, .ldy = n_ls * out, .n = n,
                 .x = x + first * in, .ldx = n_ls * in, .in = in, .act = nn->scratch->act};
        want_act(&j, ls + first);
        m = n_ls - first;
        if (converts(&j) && m * n > room / j.act.ld) /* as many as there is room for */
            m = (int)(room / j.act.ld / n);
        j.n_ls = m;
        run_job(&j, (int64_t)m * n);
    }
}

/* ---- parts ---------------------------------------------------------------------------------- */

/* Of both matrices, a node's. */
static int64_t part_groups(const job *j, const ash_linear_part *p, int node)
{
    int64_t groups = 0;
    for (int m = 0; m < 2 && p->l[m]; m++) {
        const node_share s = share_of(p->l[m], j->nn->pool, node);
        groups += s.end - s.first;
    }
    return groups;
}

/* What a group of a part costs, in rows of products: for few rows it is the reading of the weights. */
static int64_t group_cost(const ash_linear_part *p)
{
    enum { READING = 6 };
    return p->n > READING ? p->n : READING;
}

static void want_part(job *j, const ash_linear_part *p)
{
    memset(j->want, 0, sizeof j->want);
    j->halves = false;
    for (int m = 0; m < 2 && p->l[m]; m++) want_forms(j, p->l[m]);
}

static void convert_parts(void *arg, int64_t begin, int64_t end, int worker)
{
    job j = *(const job *)arg; /* with the wants of one part at a time */
    const ash_linear_batch *b = j.batch;
    const ash_linear_part *p = b->parts;
    for (int64_t i = begin; i < end; i++) {
        const float *x = b->x ? b->x + b->rows[i] * j.in : b->gate + i * j.in;
        while (i >= p->first + p->n) p++;
        if (!b->x)
            j.nn->k->silu_mul(b->gate + i * j.in, b->up + i * j.in, j.in);
        want_part(&j, p);
        convert_row(&j, p->l[0]->perm, p->l[0]->w.cols, x,
                    j.want[ASH_ACT_F32] && j.gathered ? j.gathered + i * j.act.ldx : NULL, i, worker);
    }
}

/* Groups [g0, g1) of a node's shares of a part's matrices laid end to end. */
static void multiply_part(const job *j, const ash_linear_part *p, int node, int64_t g0, int64_t g1,
                          const ash_worker *w)
{
    int64_t base = 0;
    for (int m = 0; m < 2 && p->l[m]; m++) {
        const node_share s = share_of(p->l[m], j->nn->pool, node);
        int64_t groups = s.end - s.first, from = g0 > base ? g0 - base : 0;
        int64_t to = g1 - base < groups ? g1 - base : groups;
        if (from < to)
            multiply_rows(j, p->l[m], j->act.x + p->first * j->act.ldx, p->first, p->n, s.first + from,
                          s.first + to, p->y[m], p->l[m]->w.rows, w);
        base += groups;
    }
}

/* The group that begins at or after `at` units of cost; an even one, as kernels take groups in pairs. */
static int64_t group_at(int64_t at, int64_t cost, int64_t groups)
{
    int64_t g = at <= 0 ? 0 : (at + 2 * cost - 1) / (2 * cost) * 2;
    return g < groups ? g : groups;
}

/* Units [begin, end) of the cost of one node's shares of all parts, all nodes' laid end to end. */
static void multiply_parts(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    int64_t base;
    int node = node_at(j, begin, &base);
    for (int i = 0; i < j->batch->n_parts && base < end; i++) {
        const ash_linear_part *p = &j->batch->parts[i];
        int64_t groups = part_groups(j, p, node), cost = group_cost(p);
        int64_t g0 = group_at(begin - base, cost, groups), g1 = group_at(end - base, cost, groups);
        if (g0 < g1)
            multiply_part(j, p, node, g0, g1, &j->nn->scratch->workers[worker]);
        base += groups * cost;
    }
}

/* Where a batch's floats lie: the rows in the order of the list, and each in that of its part's columns. */
static void place_floats(job *j)
{
    const ash_linear_batch *b = j->batch;
    bool moved = b->x;
    for (int i = 0; i < b->n_parts; i++) moved = moved || b->parts[i].l[0]->perm;
    j->act.x = b->gate;
    j->act.ldx = j->in;
    if (!j->want[ASH_ACT_F32] || !moved)
        return;
    if (j->nn->scratch->x) {
        j->gathered = j->nn->scratch->x;
        j->act.ldx = j->act.ld;
    } else if (b->x) { /* no table but the scalar one multiplies floats in another order */
        j->gathered = b->room;
    }
    j->act.x = j->gathered ? j->gathered : b->gate;
}

void ash_linear_run_parts(ash_nn *nn, const ash_linear_batch *b)
{
    job j = {.nn = nn, .batch = b, .n = b->n, .in = b->parts->l[0]->in, .act = nn->scratch->act};
    int64_t ends[ASH_MAX_NODES], cost = 0, ld = 0;
    for (int i = 0; i < b->n_parts; i++) {
        for (int m = 0; m < 2 && b->parts[i].l[m]; m++) {
            int64_t own = ash_act_stride(b->parts[i].l[m]->w.cols);
            want_forms(&j, b->parts[i].l[m]);
            ld = own > ld ? own : ld;
        }
    }
    for (int node = 0; node < ash_pool_nodes(nn->pool); node++) {
        for (int i = 0; i < b->n_parts; i++)
            cost += part_groups(&j, &b->parts[i], node) * group_cost(&b->parts[i]);
        ends[node] = cost;
    }
    j.ends = ends;
    j.act.ld = ld;
    place_floats(&j);
    if (converts(&j) || b->gate)
        ash_nn_rows(nn, b->n, (b->gate ? 5 : 1) * j.in, convert_parts, &j); /* an exponential costs some */
    int64_t grain = cost / (nn->o.threads * 16);
    ash_pool_run_shares(nn->pool, ends, grain < 1 ? 1 : grain, multiply_parts, &j);
}
