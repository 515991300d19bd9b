/* Owns a checkpoint's memory from its headers to packed weights. Refuses what arch and text refuse.
 * One thread until loaded, then immutable. */
#include "engine/model.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "engine/model_text.h"

enum {
    ARENA_MAX = 128 << 20,
    OWN_CTX = 8192,           /* most tokens a sequence gets unasked */
    MAX_CTX = 1 << 24,        /* and asked */
    POOL_CTX = 4096,          /* an unasked pool holds POOL_SEQS times this, or that of ctx */
    POOL_SEQS = 4,
    DEFAULT_SEQUENCES = 32,
    SCRATCH_AIM = 24 << 20,   /* bytes that a forward's rows may take together */
    MIN_ROWS = 64,
    PACK_WINDOW = 16 << 20,   /* source bytes packed between two progress reports; as many are read */
    MAX_CHUNKS = 256,         /* meanwhile */
    HUGE_PAGE = 2 << 20,
};

int ash_model_progress(const ash_engine_opts *opts, ash_load_stage stage, uint64_t done, uint64_t total,
                       ash_err *err)
{
    if (opts->progress)
        opts->progress(opts->user, stage, done, total);
    if (opts->cancel && atomic_load_explicit(opts->cancel, memory_order_relaxed))
        return ash_err_set(err, ASH_ECANCELED, "the load was cancelled");
    return 0;
}

/* ---- sizes ---------------------------------------------------------------------------------- */

uint64_t ash_model_sampler_bytes(const ash_model *m)
{
    return 12 * (uint64_t)m->net->hp.n_vocab;
}

/* As many rows as keep a forward's scratch small beside the weights; large models gain nothing from
 * more, small ones need them to be busy. */
static void size_rows(const ash_net *net, const ash_engine_opts *opts, ash_sizes *s)
{
    int least = (int)s->max_sequences + MIN_ROWS; /* room for prompts beside all that decode */
    for (s->max_rows = ASH_MAX_BATCH;; s->max_rows /= 2) {
        if (s->max_rows < least)
            s->max_rows = least;
        s->run_bytes = net->row_bytes * (uint64_t)s->max_rows;
        s->nn = ash_net_nn_options(net, opts->cpu, opts->threads, s->max_rows, s->n_ctx);
        if (s->max_rows == least || s->run_bytes + ash_nn_bytes(&s->nn) <= SCRATCH_AIM)
            return;
    }
}

static int size_kv(const ash_net *net, const ash_engine_opts *opts, ash_sizes *s, ash_err *err)
{
    s->kv = net->kv;
    s->kv.type = ash_kernel_get(opts->cpu)->kv;
    if (opts->kv_q8 && !s->kv.v_in_k)
        s->kv.type = ASH_KV_Q8;
    uint64_t block = (uint64_t)ash_kv_block_bytes(&s->kv);
    if (!block)
        return ash_err_set(err, ASH_EFORMAT, "%s: keys and values of that shape are too large",
                           opts->path);
    uint64_t least = (s->n_ctx + ASH_KV_TOKENS - 1) / ASH_KV_TOKENS;
    uint64_t ctx = s->n_ctx > POOL_CTX ? s->n_ctx : POOL_CTX;
    uint64_t blocks = opts->kv_bytes ? opts->kv_bytes / block : POOL_SEQS * ctx / ASH_KV_TOKENS;
    if (blocks < least)
        blocks = least;
    if (blocks > INT32_MAX / 2 || blocks > (uint64_t)INT64_MAX / block)
        return ash_err_set(err, ASH_ENOSPC, "%s: a KV pool of %llu blocks of %llu bytes", opts->path,
                           (unsigned long long)blocks, (unsigned long long)block);
    s->kv_blocks = (int32_t)blocks;
    s->plan.kv_bytes = blocks * block;
    s->plan.kv_least = least * block;
    return 0;
}

/* Whether all weights are in memory, or routed experts come and go. */
static int size_weights(ash_model *m, const ash_engine_opts *opts, ash_err *err)
{
    uint64_t bytes = m->net->binding.bytes;
    ash_expert_sizes_of(&m->net->binding, &m->experts);
    m->streams = opts->weights_max && bytes > opts->weights_max;
    if (!m->streams) return 0;
    if (!m->experts.n)
        return ash_err_set(err, ASH_ENOSPC,
                           "%s: its weights take %.2f GB, %.2f GB are allowed, and it has no experts that "
                           "could come and go",
                           opts->path, (double)bytes * 1e-9, (double)opts->weights_max * 1e-9);
    if (opts->weights_max >= ash_expert_least(&m->experts)) return 0;
    return ash_err_set(err, ASH_ENOSPC,
                       "%s: its weights take %.2f GB, of which %.2f GB must be in memory; %.2f GB are "
                       "allowed",
                       opts->path, (double)bytes * 1e-9, (double)ash_expert_least(&m->experts) * 1e-9,
                       (double)opts->weights_max * 1e-9);
}

static void tell_sizes(ash_model *m)
{
    const ash_engine_plan *p = &m->sizes.plan;
    if (m->streams)
        m->info.expert_room = (double)(p->weight_bytes - m->experts.fixed) / (double)m->experts.experts;
    m->info.file_bytes = p->file_bytes;
    m->info.weight_bytes = p->weight_bytes;
    m->info.kv_bytes = p->kv_bytes;
    m->info.scratch_bytes = p->scratch_bytes;
    m->info.n_ctx = p->n_ctx;
}

int ash_model_size(ash_model *m, const ash_engine_opts *opts, ash_err *err)
{
    const ash_hparams *hp = &m->net->hp;
    ash_sizes *s = &m->sizes;
    *s = (ash_sizes){0};
    uint32_t own = (uint32_t)hp->n_ctx; /* at most 2^26 */
    s->n_ctx = opts->ctx ? opts->ctx : own < OWN_CTX ? own : OWN_CTX;
    if (s->n_ctx > MAX_CTX)
        return ash_err_set(err, ASH_ELIMIT, "a context of %u tokens; at most %d", s->n_ctx, MAX_CTX);
    s->max_sequences = opts->max_sequences ? opts->max_sequences : DEFAULT_SEQUENCES;
    if (s->max_sequences > ASH_MAX_SEQUENCES)
        return ash_err_set(err, ASH_ELIMIT, "%u sequences at once; at most %d", s->max_sequences,
                           ASH_MAX_SEQUENCES);
    int rc = size_weights(m, opts, err);
    if (rc || (rc = size_kv(m->net, opts, s, err)))
        return rc;
    size_rows(m->net, opts, s);
    uint64_t row = (uint64_t)hp->n_vocab * sizeof(float);
    s->logits_bytes = (s->max_sequences + ASH_MAX_DRAFT) * row;
    const ash_tensor_index *index = m->files->tensors;
    for (size_t i = 0; i < index->n_files; i++) s->plan.file_bytes += index->files[i].map.size;
    s->plan.weight_bytes = m->streams ? opts->weights_max : m->net->binding.bytes;
    uint64_t least = opts->state_dir && m->experts.n ? ash_expert_least(&m->experts) : UINT64_MAX;
    s->plan.weights_least = least < s->plan.weight_bytes ? least : s->plan.weight_bytes;
    s->plan.scratch_bytes = s->run_bytes + ash_nn_bytes(&s->nn) + s->logits_bytes +
                            s->max_sequences * ash_model_sampler_bytes(m);
    s->plan.n_ctx = s->n_ctx;
    tell_sizes(m);
    return 0;
}

/* ---- what is told --------------------------------------------------------------------------- */

static const char *copy_str(ash_model *m, ash_str s)
{
    return ash_arena_strndup(&m->arena, s.p ? s.p : "", s.n);
}

static ash_str last_part(const char *path, size_t n)
{
    while (n > 1 && path[n - 1] == '/') n--;
    size_t from = n;
    while (from > 0 && path[from - 1] != '/') from--;
    return (ash_str){path + from, n - from};
}

/* What a person would call it: general.name, a folder's or file's name, ORG/NAME of a hub's cache. */
static const char *name_of(ash_model *m, const char *path)
{
    const ash_gguf *g = m->files->gguf;
    ash_str name = {0};
    if (g && !ash_gguf_get_str(g, "general.name", &name, NULL) && name.n)
        return copy_str(m, name); /* if it is of another type it is not worth refusing */
    const char *at = g ? path : m->files->dir;
    name = last_part(at, strlen(at));
    ash_str above = last_part(at, (size_t)(name.p - at));
    if (ash_str_eqc(above, "snapshots"))
        name = last_part(at, (size_t)(above.p - at));
    if (!ash_str_starts(name, "models--"))
        return copy_str(m, name);
    char *out = ash_arena_strndup(&m->arena, name.p + 8, name.n - 8);
    char *dashes = out ? strstr(out, "--") : NULL;
    if (dashes) {
        *dashes = '/';
        memmove(dashes + 1, dashes + 2, strlen(dashes + 2) + 1);
    }
    return out;
}

static int describe(ash_model *m, const ash_engine_opts *opts, ash_err *err)
{
    const ash_hparams *hp = &m->net->hp;
    char quantization[64];
    m->info = (ash_model_info){
        .architecture = m->net->name,
        .name = name_of(m, opts->path),
        .format = ash_checkpoint_kind_name(m->files->kind),
        .quantization = copy_str(m, ash_str_from(ash_bind_describe(&m->net->binding, quantization))),
        .n_params = m->net->binding.n_params,
        .token_params = m->net->binding.token_params,
        .step_bytes = m->net->binding.step_bytes,
        .n_ctx_train = (uint32_t)hp->n_ctx,
        .n_vocab = (uint32_t)hp->n_vocab,
        .n_layers = (uint32_t)hp->n_layers,
        .n_embd = (uint32_t)hp->n_embd,
        .n_heads = (uint32_t)hp->n_heads,
        .n_kv_heads = (uint32_t)hp->n_kv_heads,
        .chat_template = "",
        .template_from = "none",
    };
    return m->info.name && m->info.quantization ? 0 : ash_err_nomem(err, "model name");
}

/* Binds the network. A key or tensor that is not there makes a bad checkpoint, not a missing one. */
static int plan_net(ash_model *m, ash_err *err)
{
    const ash_arch *arch;
    int rc = ash_arch_find(m->files, &arch, err);
    if (rc || (rc = arch->plan(m->files, &m->net, err)) != ASH_ENOENT)
        return rc;
    if (err)
        err->code = ASH_EFORMAT;
    return ASH_EFORMAT;
}

int ash_model_plan(const ash_engine_opts *opts, ash_checkpoint *files, ash_model **out, ash_err *err)
{
    *out = NULL;
    ash_model *m = calloc(1, sizeof *m);
    if (!m) {
        ash_checkpoint_close(files);
        return ash_err_nomem(err, "model");
    }
    ash_arena_init(&m->arena, ARENA_MAX);
    m->pack_fd = -1;
    m->files = files;
    int rc;
    if ((rc = plan_net(m, err)) || (rc = describe(m, opts, err)) || (rc = ash_model_size(m, opts, err))) {
        ash_model_close(m);
        return rc;
    }
    *out = m;
    return 0;
}

int ash_model_open(const ash_engine_opts *opts, ash_model **out, ash_err *err)
{
    ash_checkpoint *files;
    *out = NULL;
    int rc = ash_checkpoint_open(opts->path, &files, err);
    return rc ? rc : ash_model_plan(opts, files, out, err);
}

void ash_model_close(ash_model *m)
{
    if (!m)
        return;
    ash_model_text_end(m);
    ash_placement_close(m->placement);
    ash_populate_close(m->populate);
    ash_expert_cache_close(m->cache);
    if (m->pack_fd >= 0)
        close(m->pack_fd);
    ash_packs_close(m->packs);
    ash_net_close(m->net);
    ash_checkpoint_close(m->files);
    ash_tokenizer_close(m->tokenizer);
    ash_template_close(m->template);
    if (m->map)
        munmap(m->map, m->map_bytes);
    ash_arena_release(&m->arena);
    free(m);
}

/* ---- weights -------------------------------------------------------------------------------- */

/* One reservation on a huge page border: few TLB entries cover what every token reads in full. */
static int take_memory(ash_model *m, void **region, ash_err *err)
{
    uint64_t bytes = m->net->binding.bytes;
    if (bytes > (uint64_t)INT64_MAX - 2 * HUGE_PAGE)
        return ash_err_nomem(err, "weights");
    m->map_bytes = (bytes + 2 * HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (m->streams ? MAP_NORESERVE : 0); /* then it is never full */
    void *map = mmap(NULL, m->map_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (map == MAP_FAILED)
        return ash_err_set(err, ASH_ENOMEM, "out of memory (%llu bytes of weights)",
                           (unsigned long long)bytes);
    m->map = map;
    uintptr_t at = ((uintptr_t)map + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uint64_t whole = bytes / HUGE_PAGE * HUGE_PAGE; /* the tail in small pages, not to round up */
    if (whole && !m->streams)
        madvise((void *)at, whole, MADV_HUGEPAGE);
    *region = (void *)at;
    return 0;
}

typedef struct chunk {
    const ash_bind_item *item;
    int64_t row, n;
} chunk;

/* Pieces of work in the files' order. */
typedef struct window {
    chunk chunks[MAX_CHUNKS];
    int n;
    uint64_t bytes; /* of their sources */
} window;

/* Bytes of the stage of packing: those of the sources; where a pack file is made also what is read to learn
 * what the files are, and the pack itself, which is summed. */
typedef struct work {
    const ash_engine_opts *opts;
    uint64_t done, total;
} work;

static int go_on(work *w, uint64_t bytes, ash_err *err)
{
    w->done += bytes < w->total - w->done ? bytes : w->total - w->done;
    return ash_model_progress(w->opts, ASH_LOAD_PACK, w->done, w->total, err);
}

static uint64_t source_bytes(const ash_binding *b)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < b->n_items; i++)
        if (b->items[i].matrix)
            sum += ash_bind_source(&b->items[i], b->items[i].rows);
    return sum;
}

typedef struct pack {
    const ash_binding *binding;
    const atomic_bool *cancel;
    char *scratch; /* binding->scratch bytes for each thread, rounded up to lines */
    size_t each;
    work *w;
    window windows[3];
    window *before, *now, *next; /* packed: to be dropped; being packed; read meanwhile */
} pack;

/* Fills w from (*item, *row) on, and has it read. */
static void next_window(const ash_binding *b, window *w, size_t *item, int64_t *row)
{
    w->n = 0;
    w->bytes = 0;
    while (*item < b->n_items && w->n < MAX_CHUNKS && w->bytes < PACK_WINDOW) {
        const ash_bind_item *it = &b->items[*item];
        int64_t rows = it->matrix ? it->rows : 0;
        if (*row >= rows) {
            ++*item;
            *row = 0;
            continue;
        }
        int64_t n = it->step < rows - *row ? it->step : rows - *row;
        w->chunks[w->n++] = (chunk){it, *row, n};
        w->bytes += ash_bind_source(it, n);
        *row += n;
    }
}

/* The chunks of one item together: some formats' rows lie all over their tensor. */
static void advise(const ash_binding *b, const window *w,
                   void (*fn)(const ash_binding *, const ash_bind_item *, int64_t, int64_t))
{
    for (int i = 0, end; i < w->n; i = end) {
        const chunk *first = &w->chunks[i];
        int64_t n = 0;
        for (end = i; end < w->n && w->chunks[end].item == first->item; end++) n += w->chunks[end].n;
        fn(b, first->item, first->row, n);
    }
}

/* Task 0 has the next window read, the others pack a chunk of this one each. Asking for pages and dropping
 * them takes a fifth of the time if all wait for it: so one thread does it while the others pack. */
static void pack_tasks(void *arg, int64_t begin, int64_t end, int worker)
{
    const pack *p = arg;
    for (int64_t i = begin; i < end; i++) {
        if (p->cancel && atomic_load_explicit(p->cancel, memory_order_relaxed))
            return;
        if (i == 0) {
            advise(p->binding, p->next, ash_bind_want);
            advise(p->binding, p->before, ash_bind_drop);
            continue;
        }
        const chunk *c = &p->now->chunks[i - 1];
        ash_bind_pack(p->binding, c->item, c->row, c->n, p->scratch + (size_t)worker * p->each);
    }
}

static int pack_windows(pack *p, work *w, ash_pool *pool, ash_err *err)
{
    const ash_binding *b = p->binding;
    size_t item = 0;
    int64_t row = 0;
    int rc = go_on(w, 0, err);
    p->before = &p->windows[0];
    p->now = &p->windows[1];
    p->next = &p->windows[2];
    next_window(b, p->now, &item, &row);
    advise(b, p->now, ash_bind_want);
    while (!rc && p->now->n) {
        next_window(b, p->next, &item, &row);
        ash_pool_run(pool, p->now->n + 1, 1, pack_tasks, p);
        rc = go_on(w, p->now->bytes, err);
        window *free_one = p->before;
        p->before = p->now;
        p->now = p->next;
        p->next = free_one;
    }
    advise(b, p->before, ash_bind_drop);
    return rc;
}

static int pack_weights(ash_model *m, work *w, ash_pool *pool, ash_err *err)
{
    size_t each = (m->net->binding.scratch + 63) / 64 * 64;
    pack *p = calloc(1, sizeof *p);
    if (!p)
        return ash_err_nomem(err, "packing");
    p->binding = &m->net->binding;
    p->cancel = w->opts->cancel;
    p->each = each;
    ash_placement *placement = ash_placement_start(p->binding, pool, false, w->opts->cancel);
    ash_placement_wait(placement);
    ash_placement_close(placement);
    p->scratch = aligned_alloc(64, each * (size_t)ash_pool_threads(pool));
    int rc = p->scratch ? pack_windows(p, w, pool, err) : ash_err_nomem(err, "packing");
    free(p->scratch);
    free(p);
    return rc;
}

/* Binds the weights as an earlier start packed them; m->region stays NULL where there are none that do. */
static int restore_weights(ash_model *m, const ash_engine_opts *opts, ash_pool *pool, ash_err *err)
{
    ash_binding *b = &m->net->binding;
    ash_err own = ASH_ERR_INIT;
    void *region = ash_packs_map(m->packs, pool, opts->cancel);
    if (!region)
        return ash_model_progress(opts, ASH_LOAD_VERIFY, 1, 1, err);
    b->restored = true;
    int rc = m->net->arch->bind(m->net, region, &own);
    b->restored = false;
    if (rc == ASH_EFORMAT) {
        ash_packs_reject(m->packs, own.msg);
        return 0;
    }
    if (rc)
        return ash_err_set(err, rc, "%s", own.msg);
    m->region = region;
    m->info.mapped = true;
    m->placement = ash_placement_start(b, pool, true, NULL);
    if ((rc = ash_model_progress(opts, ASH_LOAD_MAP, 1, 1, err)))
        return rc;
    return ash_model_progress(opts, ASH_LOAD_PACK, 1, 1, err);
}

/* ---- weights larger than memory -------------------------------------------------------------- */

typedef struct filling {
    ash_model *m;
    ash_pool *pool;
    work w;
} filling;

/* Packs all weights into the pages of the pack file. */
static int fill(void *user, void *at, ash_err *err)
{
    filling *f = user;
    int rc = f->m->net->arch->bind(f->m->net, at, err);
    return rc ? rc : pack_weights(f->m, &f->w, f->pool, err);
}

static void moved(void *user, uint64_t bytes)
{
    filling *f = user;
    int rc = go_on(&f->w, bytes, NULL); /* who reads looks at the cancellation himself */
    (void)rc;
}

/* The pack file, made if it is not there, and from it what is always in memory. */
static int stream_weights(ash_model *m, const ash_engine_opts *opts, ash_pool *pool, ash_err *err)
{
    ash_binding *b = &m->net->binding;
    filling f = {m, pool, {.opts = opts, .total = ash_packs_unknown(m->packs) + source_bytes(b) + b->bytes}};
    const ash_pack_maker maker = {.fill = fill, .moved = moved, .user = &f};
    void *region = NULL;
    int rc = ash_model_progress(opts, ASH_LOAD_MAP, 1, 1, err);
    if (!rc) rc = ash_packs_need(m->packs, pool, &maker, opts->cancel, &m->pack_fd, err);
    if (rc || (rc = take_memory(m, &region, err)) ||
        (rc = ash_expert_cache_open(b, region, m->pack_fd, ASH_PACK_DATA,
                                    opts->weights_max - m->experts.fixed, opts->cancel, &m->cache, err)))
        return rc ? ash_err_prefix(err, "%s", opts->path) : 0;
    b->restored = true;
    rc = m->net->arch->bind(m->net, region, err);
    b->restored = false;
    m->region = region;
    return rc ? rc : ash_model_progress(opts, ASH_LOAD_PACK, 1, 1, err);
}

static int have_weights(ash_model *m, const ash_engine_opts *opts, ash_pool *pool, ash_err *err)
{
    void *region = NULL;
    work w = {.opts = opts, .total = source_bytes(&m->net->binding)};
    int rc = m->streams ? 0 : restore_weights(m, opts, pool, err);
    if (rc || m->region || (rc = ash_model_text_wait(m, err)))
        return rc; /* what the text refuses is refused before the long work */
    if (m->streams)
        return stream_weights(m, opts, pool, err);
    if ((rc = take_memory(m, &region, err)) || (rc = m->net->arch->bind(m->net, region, err)) ||
        (rc = ash_model_progress(opts, ASH_LOAD_MAP, 1, 1, err)) ||
        (rc = pack_weights(m, &w, pool, err)))
        return rc;
    m->region = region;
    return 0;
}

bool ash_model_lost(const ash_model *m)
{
    return ash_packs_lost(m->packs) || ash_expert_cache_lost(m->cache);
}

int ash_model_load(ash_model *m, const ash_engine_opts *opts, ash_pool *pool, ash_err *err)
{
    int rc;
    if (m->files->note[0])
        ash_warn("engine", "%s: %s", opts->path, m->files->note);
    if (m->info.n_ctx > m->info.n_ctx_train)
        ash_warn("engine", "%s: a context of %u tokens, but it was trained on %u", opts->path,
                 m->info.n_ctx, m->info.n_ctx_train);
    ash_model_text_start(m, opts);
    if ((rc = ash_model_progress(opts, ASH_LOAD_VERIFY, 1, 1, err)) ||
        (rc = ash_packs_open(opts->state_dir, opts->disk_budget, m->files, m->net, &m->packs, err)))
        return rc;
    return have_weights(m, opts, pool, err);
}

int ash_model_finish(ash_model *m, ash_err *err)
{
    int rc = ash_model_text_wait(m, err);
    if (rc)
        return rc;
    if (m->info.mapped)
        m->populate = ash_populate_start(m->region, m->net->binding.bytes);
    ash_bind_release(&m->net->binding); /* it borrows from the files */
    ash_checkpoint_close(m->files);
    m->files = NULL;
    return 0;
}

const uint8_t *ash_model_key(const ash_model *m)
{
    return ash_packs_key(m->packs);
}
