/* Owns matrices in packed form and their product with a batch. Refuses types without kernels. A bound
 * linear is immutable once packed. */
#include "nn/linear.h"

#include "nn/scratch.h"

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
    *bytes = ((uint64_t)l->w.groups * (uint64_t)l->w.group_bytes + 63) / 64 * 64;
    return 0;
}

void ash_linear_bind(ash_linear *l, void *mem)
{
    l->w.data = mem;
}

void ash_linear_pack(const ash_linear *l, const void *src, int64_t row, int64_t n)
{
    ash_pack_rows(&l->w, src, row, n);
}

void ash_linear_row(const ash_linear *l, int64_t row, float *y)
{
    ash_pack_row_decode(&l->w, row, y);
}

typedef struct job {
    ash_nn *nn;
    const ash_linear *const *ls;
    float *const *ys;
    int n_ls;
    ash_act act;
    bool want[ASH_ACT_COUNT];
} job;

static void convert_rows(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    const ash_act *a = &j->act;
    int64_t nb = a->ld / 32;
    for (int64_t i = begin; i < end; i++) {
        const float *x = a->x + i * a->cols;
        if (j->want[ASH_ACT_I8])
            j->nn->k->quantise(x, a->cols, a->q + i * a->ld, a->d + i * nb, a->ds + i * nb, a->ns + i * nb);
        if (j->want[ASH_ACT_BF16])
            j->nn->k->to_bf16(x, a->cols, a->h + i * a->ld);
    }
}

static void add_bias(const ash_linear *l, int64_t g0, int64_t g1, int64_t n, float *y)
{
    int64_t r0 = g0 * ASH_GROUP, r1 = g1 * ASH_GROUP < l->w.rows ? g1 * ASH_GROUP : l->w.rows;
    for (int64_t i = 0; i < n; i++)
        for (int64_t r = r0; r < r1; r++) y[i * l->w.rows + r] += l->bias[r];
}

/* Groups [begin, end) of the matrices laid end to end. */
static void multiply(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    int64_t base = 0;
    for (int m = 0; m < j->n_ls && base < end; m++) {
        const ash_linear *l = j->ls[m];
        int64_t g0 = begin > base ? begin - base : 0;
        int64_t g1 = end - base < l->w.groups ? end - base : l->w.groups;
        base += l->w.groups;
        if (g0 >= g1)
            continue;
        j->nn->k->matmul[l->w.form](&l->w, &j->act, g0, g1, j->ys[m], l->w.rows,
                                    j->nn->scratch->workers[worker].matmul);
        if (l->bias)
            add_bias(l, g0, g1, j->act.n, j->ys[m]);
    }
}

void ash_linear_run(ash_nn *nn, const ash_linear *const *ls, int n_ls, const float *x, int n,
                    float *const *ys)
{
    job j = {.nn = nn, .ls = ls, .ys = ys, .n_ls = n_ls, .act = nn->scratch->act};
    int64_t groups = 0, cols = ls[0]->w.cols;
    for (int m = 0; m < n_ls; m++) {
        groups += ls[m]->w.groups;
        j.want[nn->k->act[ls[m]->w.form]] = true;
    }
    j.act.n = n;
    j.act.cols = cols;
    j.act.ld = (cols + 63) / 64 * 64;
    j.act.x = x;
    if (j.want[ASH_ACT_I8] || j.want[ASH_ACT_BF16])
        ash_nn_rows(nn, n, cols, convert_rows, &j);
    /* Chunks small enough that a core which is taken away holds up little, even numbers because kernels
     * take groups in pairs. */
    int64_t grain = groups / (nn->o.threads * (n > 8 ? 16 : 8)) & ~1ll;
    ash_pool_run(nn->pool, groups, grain < 2 ? 2 : grain, multiply, &j);
}
