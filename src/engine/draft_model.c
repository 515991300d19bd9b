/* Owns a draft model: weights, scratch and the slots' keys and values. Refuses another vocabulary, and what
 * ash_model_open and ash_model_load refuse. The scheduler's thread. */
#include "engine/draft_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/pages.h"

typedef struct slot {
    uint64_t job;    /* whose text it is; 0: nobody's */
    uint64_t used;   /* turn of the last use */
    uint32_t base;   /* ids[0] is the text's token base */
    uint32_t n;      /* tokens whose keys and values there are */
    uint32_t agreed; /* of them known to be the job's text */
    int32_t *ids;    /* [n_ctx] */
    int32_t *table;  /* [blocks], KV blocks: always the same */
} slot;

struct ash_draft_model {
    ash_model *model;
    ash_run run;
    void *map; /* owned: scratch and logits */
    uint64_t map_bytes;
    float *logits;   /* [ASH_DRAFT_SLOTS][n_vocab] */
    int64_t n_known; /* ids that both models have */
    uint32_t n_ctx;  /* of a slot */
    int32_t *memory; /* owned: ids and tables of all slots */
    slot slots[ASH_DRAFT_SLOTS];
    uint64_t turn;
    uint64_t bytes;
    int64_t step_ns, row_ns;
    ash_batch_row rows[ASH_DRAFT_ROWS];
};

/* ---- sizes ---------------------------------------------------------------------------------- */

typedef struct sizes {
    uint32_t n_ctx, blocks; /* of a slot */
    ash_nn_options nn;
    uint64_t run_bytes, logits_bytes, bytes;
} sizes;

static ash_engine_opts options(const ash_engine_opts *opts)
{
    return (ash_engine_opts){.path = opts->draft_path,
                             .kv_q8 = opts->kv_q8,
                             .threads = opts->threads,
                             .cpu = opts->cpu,
                             .state_dir = opts->state_dir,
                             .disk_budget = opts->disk_budget,
                             .cancel = opts->cancel};
}

static sizes size_of(const ash_model *m, const ash_engine_opts *o, uint32_t n_ctx)
{
    uint64_t own = (uint64_t)m->net->hp.n_ctx;
    sizes z = {.n_ctx = n_ctx < own ? n_ctx : (uint32_t)own};
    z.blocks = (z.n_ctx + ASH_KV_TOKENS - 1) / ASH_KV_TOKENS;
    z.nn = ash_net_nn_options(m->net, o->cpu, o->threads, ASH_DRAFT_ROWS, z.n_ctx);
    z.run_bytes = (m->net->row_bytes * ASH_DRAFT_ROWS + 63) / 64 * 64;
    z.logits_bytes = (uint64_t)m->net->hp.n_vocab * sizeof(float) * ASH_DRAFT_SLOTS;
    z.bytes = m->sizes.plan.weight_bytes + z.run_bytes + z.logits_bytes + ash_nn_bytes(&z.nn) +
              (uint64_t)ash_kv_block_bytes(&m->sizes.kv) * z.blocks * ASH_DRAFT_SLOTS;
    return z;
}

int ash_draft_model_plan(const ash_engine_opts *opts, uint32_t n_ctx, uint64_t *bytes, ash_err *err)
{
    ash_model *m;
    ash_engine_opts o = options(opts);
    int rc = ash_model_open(&o, &m, err);
    if (rc)
        return rc;
    *bytes = size_of(m, &o, n_ctx).bytes;
    ash_model_close(m);
    return 0;
}

/* ---- vocabulary ----------------------------------------------------------------------------- */

int ash_draft_vocabulary(const ash_tokenizer *model, const ash_tokenizer *draft, ash_err *err)
{
    if (!model || !draft)
        return 0;
    size_t n = ash_tokenizer_n_vocab(model), other = ash_tokenizer_n_vocab(draft);
    if (n != other)
        return ash_err_set(err, ASH_EUNSUPPORTED,
                           "another vocabulary: the draft model has %zu tokens, the model %zu", other, n);
    for (size_t i = 0; i < n; i++) {
        ash_str a = {0}, b = {0};
        bool has_a = ash_tokenizer_piece(model, (int32_t)i, &a);
        bool has_b = ash_tokenizer_piece(draft, (int32_t)i, &b);
        if (has_a == has_b && a.n == b.n && (!a.n || !memcmp(a.p, b.p, a.n)))
            continue;
        return ash_err_set(err, ASH_EUNSUPPORTED,
                           "another vocabulary: token %zu is '%.*s' in the draft model, '%.*s' in the model",
                           i, b.n < 40 ? (int)b.n : 40, b.n ? b.p : "", a.n < 40 ? (int)a.n : 40,
                           a.n ? a.p : "");
    }
    return 0;
}

static int check_vocabulary(const ash_model *model, const ash_model *draft, ash_err *err)
{
    int64_t rows = model->net->hp.n_vocab, other = draft->net->hp.n_vocab;
    int64_t tokens = model->n_usable;
    /* rows beyond the tokens fill a matrix up, and may differ */
    if (other < tokens || (!model->tokenizer && other != rows))
        return ash_err_set(err, ASH_EUNSUPPORTED,
                           "another vocabulary: the draft model has %lld rows, the model %lld",
                           (long long)other, (long long)tokens);
    return ash_draft_vocabulary(model->tokenizer, draft->tokenizer, err);
}

/* ---- opening -------------------------------------------------------------------------------- */

static int reserve(ash_draft_model *d, const sizes *z, ash_err *err)
{
    size_t blocks = z->blocks, each = (size_t)z->n_ctx + blocks;
    int rc = ash_nn_open(&z->nn, &d->run.nn, err);
    rc = rc ? rc : ash_kv_open(&d->model->sizes.kv, (int32_t)(blocks * ASH_DRAFT_SLOTS), &d->run.kv, err);
    if (rc)
        return rc;
    d->map_bytes = z->run_bytes + z->logits_bytes;
    void *map = mmap(NULL, d->map_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    d->memory = calloc(each * ASH_DRAFT_SLOTS, sizeof *d->memory);
    d->map = map == MAP_FAILED ? NULL : map;
    if (!d->map || !d->memory)
        return ash_err_nomem(err, "slots of a draft model");
    d->run.scratch = d->map;
    d->logits = (float *)((char *)d->map + z->run_bytes);
    for (size_t i = 0; i < ASH_DRAFT_SLOTS; i++) {
        d->slots[i].ids = d->memory + i * each;
        d->slots[i].table = d->slots[i].ids + z->n_ctx;
        for (size_t k = 0; k < blocks; k++) d->slots[i].table[k] = (int32_t)(i * blocks + k);
    }
    return 0;
}

static int64_t timed(ash_draft_model *d, const int32_t *ids, uint32_t n)
{
    ash_draft_input in = {.ids = ids, .n = n};
    ash_draft_model_restart(d, 0, 0);
    int64_t t = ash_clock_ns();
    ash_draft_model_read(d, &in, 1, true);
    return ash_clock_ns() - t;
}

/* What forwards take, so that guessing starts from facts; the second of one row, as the first reads the
 * weights for the first time. */
static void warm(ash_draft_model *d)
{
    enum { MANY = 32 };
    static const int32_t ids[MANY]; /* any token will do */
    uint32_t many = d->n_ctx < MANY ? d->n_ctx : MANY;
    timed(d, ids, 1);
    d->step_ns = timed(d, ids, 1);
    d->row_ns = timed(d, ids, many) / many;
    ash_draft_model_restart(d, 0, 0);
}

static int load(ash_draft_model *d, const ash_engine_opts *opts, const ash_model *model, ash_pool *pool,
                ash_err *err)
{
    ash_engine_opts o = options(opts);
    o.bare = !model->tokenizer;
    int rc = ash_model_open(&o, &d->model, err);
    if (rc)
        return rc;
    sizes z = size_of(d->model, &o, model->sizes.n_ctx);
    z.nn.pool = pool;
    d->n_ctx = z.n_ctx;
    d->bytes = z.bytes;
    d->n_known = d->model->net->hp.n_vocab < model->n_usable ? d->model->net->hp.n_vocab : model->n_usable;
    if (z.n_ctx < 2 * ASH_KV_TOKENS)
        return ash_err_set(err, ASH_EUNSUPPORTED, "a context of %u tokens is too small for a draft model",
                           z.n_ctx);
    if ((rc = reserve(d, &z, err)) || (rc = ash_model_load(d->model, &o, pool, err)) ||
        (rc = ash_model_finish(d->model, err)) || (rc = check_vocabulary(model, d->model, err)))
        return rc;
    warm(d);
    ash_packs_start(d->model->packs, d->model->region);
    return 0;
}

int ash_draft_model_open(const ash_engine_opts *opts, const ash_model *model, ash_pool *pool,
                         ash_draft_model **out, ash_err *err)
{
    *out = NULL;
    ash_draft_model *d = calloc(1, sizeof *d);
    if (!d)
        return ash_err_nomem(err, "draft model");
    int rc = load(d, opts, model, pool, err);
    if (rc) {
        ash_draft_model_close(d);
        return rc;
    }
    *out = d;
    return 0;
}

void ash_draft_model_close(ash_draft_model *d)
{
    if (!d)
        return;
    ash_kv_close(d->run.kv);
    ash_nn_close(d->run.nn);
    ash_model_close(d->model);
    if (d->map)
        munmap(d->map, d->map_bytes);
    free(d->memory);
    free(d);
}

const char *ash_draft_model_name(const ash_draft_model *d)
{
    return d->model->info.name;
}

uint64_t ash_draft_model_bytes(const ash_draft_model *d)
{
    return d->bytes;
}

uint64_t ash_draft_model_untouched(const ash_draft_model *d)
{
    if (!d)
        return 0;
    const ash_kv *kv = d->run.kv;
    return ash_pages_untouched(d->map, d->map_bytes) +
           ash_pages_untouched(d->run.nn->scratch, ash_nn_bytes(&d->run.nn->o)) +
           ash_pages_untouched(kv->data, (uint64_t)(kv->blocks * kv->block_bytes));
}

int64_t ash_draft_model_step_ns(const ash_draft_model *d)
{
    return d->step_ns;
}

int64_t ash_draft_model_row_ns(const ash_draft_model *d)
{
    return d->row_ns;
}

bool ash_draft_model_lost(const ash_draft_model *d)
{
    return ash_model_lost(d->model);
}

uint32_t ash_draft_model_context(const ash_draft_model *d)
{
    return d->n_ctx;
}

/* ---- slots ---------------------------------------------------------------------------------- */

static uint32_t common(const slot *s, const int32_t *ids, uint32_t n)
{
    uint32_t k = 0;
    while (!s->base && k < s->n && k < n && s->ids[k] == ids[k]) k++;
    return k;
}

static bool is_busy(uint64_t job, const uint64_t *busy, int n)
{
    for (int i = 0; i < n; i++)
        if (busy[i] == job)
            return true;
    return false;
}

int ash_draft_model_place(ash_draft_model *d, uint64_t job, const int32_t *ids, uint32_t n,
                          const uint64_t *busy, int n_busy)
{
    int best = -1;
    uint32_t most = 0;
    for (int i = 0; i < ASH_DRAFT_SLOTS; i++)
        if (d->slots[i].job == job) {
            d->slots[i].used = ++d->turn;
            return i;
        }
    for (int i = 0; i < ASH_DRAFT_SLOTS; i++) {
        const slot *s = &d->slots[i];
        if (is_busy(s->job, busy, n_busy))
            continue;
        uint32_t k = common(s, ids, n);
        if (best >= 0 && (k < most || (k == most && s->used > d->slots[best].used)))
            continue;
        best = i;
        most = k;
    }
    slot *s = &d->slots[best];
    s->job = job;
    s->used = ++d->turn;
    s->n = s->agreed = most;
    s->base = 0;
    return best;
}

uint32_t ash_draft_model_behind(ash_draft_model *d, int slot_index, const int32_t *ids, uint32_t n)
{
    slot *s = &d->slots[slot_index];
    uint32_t most = n - 1 > s->base ? n - 1 - s->base : 0; /* the last one is always read */
    while (s->agreed < s->n && s->agreed < most && s->ids[s->agreed] == ids[s->base + s->agreed]) s->agreed++;
    s->agreed = s->agreed < most ? s->agreed : most;
    s->n = s->agreed;
    if (n - s->base + ASH_MAX_DRAFT > d->n_ctx)
        return UINT32_MAX;
    return n - s->base - s->n;
}

void ash_draft_model_restart(ash_draft_model *d, int slot_index, uint32_t base)
{
    slot *s = &d->slots[slot_index];
    s->base = base;
    s->n = s->agreed = 0;
}

/* The likeliest of the tokens that both models have, and its probability among them; NaN is never it. */
static void likeliest(const float *logits, int64_t n, ash_draft_input *out)
{
    enum { NEAR = 16 }; /* what is further below the top adds nothing */
    int64_t best = 0;
    float top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++)
        if (logits[i] > top) {
            top = logits[i];
            best = i;
        }
    for (int64_t i = 0; i < n; i++)
        if (logits[i] > top - NEAR)
            sum += expf(logits[i] - top);
    out->guess = (int32_t)best;
    out->sure = sum >= 1 ? 1 / sum : 0;
}

void ash_draft_model_read(ash_draft_model *d, ash_draft_input *in, int n, bool want_guesses)
{
    int64_t n_vocab = d->model->net->hp.n_vocab;
    int rows = 0;
    for (int i = 0; i < n; i++) {
        slot *s = &d->slots[in[i].slot];
        for (uint32_t k = 0; k < in[i].n; k++) {
            int32_t id = s->ids[s->n] = in[i].ids[k];
            d->rows[rows++] = (ash_batch_row){.token = id < n_vocab ? id : 0, /* a row without a token */
                                              .pos = (int32_t)s->n++,
                                              .table = s->table,
                                              .wants_logits = want_guesses && k == in[i].n - 1};
        }
    }
    const ash_batch batch = {.rows = d->rows, .n = rows, .logits = d->logits};
    d->model->net->arch->forward(d->model->net, &d->run, &batch);
    for (int i = 0; i < n; i++) {
        in[i].guess = -1;
        if (want_guesses)
            likeliest(d->logits + i * n_vocab, d->n_known, &in[i]);
    }
}
