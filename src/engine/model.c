/* Owns a checkpoint's memory from its headers to packed weights. Refuses what arch and text refuse.
 * One thread until loaded, then immutable. */
#include "engine/model.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"

enum {
    ARENA_MAX = 128 << 20,
    OWN_CTX = 8192,           /* most tokens a sequence gets unasked */
    MAX_CTX = 1 << 24,        /* and asked */
    POOL_CTX = 4096,          /* an unasked pool holds POOL_SEQS times this, or that of ctx */
    POOL_SEQS = 4,
    DEFAULT_SEQUENCES = 32,
    SCRATCH_AIM = 24 << 20,   /* bytes that a forward's rows may take together */
    MIN_ROWS = 64,
    PACK_CHUNK = 512 << 10,   /* source bytes packed as one piece of work */
    PACK_WINDOW = 16 << 20,   /* source bytes between two progress reports */
    MAX_CHUNKS = 2 * PACK_WINDOW / PACK_CHUNK,
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
    return 0;
}

static int size_all(ash_model *m, const ash_engine_opts *opts, ash_err *err)
{
    const ash_hparams *hp = &m->net->hp;
    ash_sizes *s = &m->sizes;
    uint32_t own = (uint32_t)hp->n_ctx; /* at most 2^26 */
    s->n_ctx = opts->ctx ? opts->ctx : own < OWN_CTX ? own : OWN_CTX;
    if (s->n_ctx > MAX_CTX)
        return ash_err_set(err, ASH_ELIMIT, "a context of %u tokens; at most %d", s->n_ctx, MAX_CTX);
    if (s->n_ctx > own)
        ash_warn("engine", "%s: a context of %u tokens, but it was trained on %u", opts->path, s->n_ctx,
                 own);
    s->max_sequences = opts->max_sequences ? opts->max_sequences : DEFAULT_SEQUENCES;
    if (s->max_sequences > ASH_MAX_SEQUENCES)
        return ash_err_set(err, ASH_ELIMIT, "%u sequences at once; at most %d", s->max_sequences,
                           ASH_MAX_SEQUENCES);
    int rc = size_kv(m->net, opts, s, err);
    if (rc)
        return rc;
    size_rows(m->net, opts, s);
    s->logits_bytes = (uint64_t)s->max_sequences * (uint64_t)hp->n_vocab * sizeof(float);
    const ash_tensor_index *index = ash_gguf_tensors(m->gguf);
    for (size_t i = 0; i < index->n_files; i++) s->plan.file_bytes += index->files[i].map.size;
    s->plan.weight_bytes = m->net->binding.bytes;
    /* a sampler takes about 12 bytes an id */
    s->plan.scratch_bytes = s->run_bytes + ash_nn_bytes(&s->nn) + 4 * s->logits_bytes;
    s->plan.n_ctx = s->n_ctx;
    return 0;
}

/* ---- what is told --------------------------------------------------------------------------- */

static const char *copy_str(ash_model *m, ash_str s)
{
    return ash_arena_strndup(&m->arena, s.p ? s.p : "", s.n);
}

/* The type that most weight bytes have. */
static const char *main_type(const ash_binding *b)
{
    uint64_t bytes[64] = {0};
    uint32_t best = 0;
    for (size_t i = 0; i < b->n_items; i++) {
        uint32_t id = b->items[i].tensor->dtype;
        if (id < 64 && b->items[i].matrix)
            bytes[id] += b->items[i].tensor->bytes;
    }
    for (uint32_t id = 1; id < 64; id++)
        if (bytes[id] > bytes[best])
            best = id;
    return ash_dtype_get(best)->name;
}

static int describe(ash_model *m, const ash_engine_opts *opts, ash_err *err)
{
    const ash_hparams *hp = &m->net->hp;
    const char *slash = strrchr(opts->path, '/');
    ash_str name = ash_str_from(slash ? slash + 1 : opts->path);
    if (ash_gguf_get_str(m->gguf, "general.name", &name, NULL) || !name.n)
        name = ash_str_from(slash ? slash + 1 : opts->path); /* of another type: not worth refusing */
    m->info = (ash_model_info){
        .architecture = m->net->arch->name,
        .name = copy_str(m, name),
        .quantization = main_type(&m->net->binding),
        .n_params = m->net->binding.n_params,
        .file_bytes = m->sizes.plan.file_bytes,
        .weight_bytes = m->sizes.plan.weight_bytes,
        .kv_bytes = m->sizes.plan.kv_bytes,
        .scratch_bytes = m->sizes.plan.scratch_bytes,
        .n_ctx = m->sizes.n_ctx,
        .n_ctx_train = (uint32_t)hp->n_ctx,
        .n_vocab = (uint32_t)hp->n_vocab,
        .n_layers = (uint32_t)hp->n_layers,
        .n_embd = (uint32_t)hp->n_embd,
        .n_heads = (uint32_t)hp->n_heads,
        .n_kv_heads = (uint32_t)hp->n_kv_heads,
        .chat_template = "",
        .template_from = "none",
    };
    return m->info.name ? 0 : ash_err_nomem(err, "model name");
}

int ash_model_open(const ash_engine_opts *opts, ash_model **out, ash_err *err)
{
    *out = NULL;
    ash_model *m = calloc(1, sizeof *m);
    if (!m)
        return ash_err_nomem(err, "model");
    ash_arena_init(&m->arena, ARENA_MAX);
    const ash_arch *arch;
    int rc;
    if ((rc = ash_gguf_open(opts->path, &m->gguf, err)) || (rc = ash_arch_find(m->gguf, &arch, err)) ||
        (rc = arch->plan(m->gguf, &m->net, err)) || (rc = size_all(m, opts, err)) ||
        (rc = describe(m, opts, err))) {
        ash_model_close(m);
        return rc;
    }
    *out = m;
    return 0;
}

void ash_model_close(ash_model *m)
{
    if (!m)
        return;
    ash_net_close(m->net);
    ash_gguf_close(m->gguf);
    ash_tokenizer_close(m->tokenizer);
    ash_template_close(m->template);
    if (m->map)
        munmap(m->map, m->map_bytes);
    ash_arena_release(&m->arena);
    free(m);
}

/* ---- text ----------------------------------------------------------------------------------- */

static const char *token_text(ash_model *m, int32_t id)
{
    ash_str s = {0};
    if (id >= 0)
        ash_tokenizer_piece(m->tokenizer, id, &s);
    return copy_str(m, s);
}

static int load_tokenizer(ash_model *m, const ash_engine_opts *opts, ash_err *err)
{
    m->n_usable = m->net->hp.n_vocab;
    m->bos_text = m->eos_text = "";
    int rc = ash_tokenizer_open_gguf(m->gguf, &m->tokenizer, err);
    if (rc && rc != ASH_ENOMEM && opts->bare)
        return 0;
    if (rc)
        return rc;
    size_t n = ash_tokenizer_n_vocab(m->tokenizer);
    if (n > (uint64_t)m->net->hp.n_vocab)
        return ash_err_set(err, ASH_EFORMAT, "%s: the tokenizer has %zu tokens, the model %lld rows",
                           opts->path, n, (long long)m->net->hp.n_vocab);
    m->n_usable = (int64_t)n;
    for (size_t id = 0; id < n; id++) {
        ash_str s;
        if (ash_tokenizer_piece(m->tokenizer, (int32_t)id, &s) && s.n > m->max_piece)
            m->max_piece = s.n;
    }
    m->bos_text = token_text(m, ash_tokenizer_bos(m->tokenizer));
    m->eos_text = token_text(m, ash_tokenizer_eos(m->tokenizer));
    return m->bos_text && m->eos_text ? 0 : ash_err_nomem(err, "special tokens");
}

static int load_template(ash_model *m, const ash_engine_opts *opts, ash_err *err)
{
    ash_err own = ASH_ERR_INIT;
    ash_str text = {0};
    int rc;
    if (opts->template_text) {
        rc = ash_chat_template_open(opts->template_text, strlen(opts->template_text), &m->template, err);
        if (rc)
            return ash_err_prefix(err, "chat template of the catalogue");
        m->info.template_from = "catalogue";
    } else if (m->tokenizer && ash_tokenizer_chat_template(m->tokenizer, &text) && text.n) {
        rc = ash_chat_template_open(text.p, text.n, &m->template, &own);
        if (rc == ASH_ENOMEM)
            return ash_err_nomem(err, "chat template");
        if (rc) { /* the model still completes text; a chat request says that there is no template */
            ash_warn("engine", "%s: its chat template cannot be used: %s", opts->path, own.msg);
            return 0;
        }
        m->info.template_from = "GGUF tokenizer.chat_template";
    }
    if (m->template)
        m->info.chat_template = ash_template_source(m->template);
    return 0;
}

/* ---- weights -------------------------------------------------------------------------------- */

/* One reservation on a huge page border: few TLB entries cover what every token reads in full. */
static int take_memory(ash_model *m, void **region, ash_err *err)
{
    uint64_t bytes = m->net->binding.bytes;
    if (bytes > (uint64_t)INT64_MAX - 2 * HUGE_PAGE)
        return ash_err_nomem(err, "weights");
    m->map_bytes = (bytes + 2 * HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *map = mmap(NULL, m->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return ash_err_set(err, ASH_ENOMEM, "out of memory (%llu bytes of weights)",
                           (unsigned long long)bytes);
    m->map = map;
    uintptr_t at = ((uintptr_t)map + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uint64_t whole = bytes / HUGE_PAGE * HUGE_PAGE; /* the tail in small pages, not to round up */
    if (whole)
        madvise((void *)at, whole, MADV_HUGEPAGE);
    *region = (void *)at;
    return 0;
}

typedef struct chunk {
    const ash_bind_item *item;
    int64_t row, n;
    uint64_t bytes;
} chunk;

typedef struct pack {
    const ash_binding *binding;
    const atomic_bool *cancel;
    chunk chunks[MAX_CHUNKS];
    int n;
    uint64_t bytes; /* of the chunks */
} pack;

static void pack_chunks(void *arg, int64_t begin, int64_t end, int worker)
{
    const pack *p = arg;
    for (int64_t i = begin; i < end; i++) {
        if (p->cancel && atomic_load_explicit(p->cancel, memory_order_relaxed))
            return;
        ash_bind_pack(p->binding, p->chunks[i].item, p->chunks[i].row, p->chunks[i].n);
    }
}

static uint64_t row_bytes(const ash_bind_item *item)
{
    return item->tensor->bytes / item->tensor->dims[0];
}

/* Fills the next window from (*item, *row) on; false when there is nothing left. */
static bool next_window(pack *p, size_t *item, int64_t *row)
{
    p->n = 0;
    p->bytes = 0;
    while (*item < p->binding->n_items && p->n < MAX_CHUNKS && p->bytes < PACK_WINDOW) {
        const ash_bind_item *it = &p->binding->items[*item];
        int64_t rows = it->matrix ? (int64_t)it->tensor->dims[0] : 0;
        if (*row >= rows) {
            ++*item;
            *row = 0;
            continue;
        }
        int64_t n = (int64_t)(PACK_CHUNK / row_bytes(it)) / ASH_GROUP * ASH_GROUP;
        n = n < ASH_GROUP ? ASH_GROUP : n;
        n = n < rows - *row ? n : rows - *row;
        uint64_t bytes = (uint64_t)n * row_bytes(it);
        p->chunks[p->n++] = (chunk){it, *row, n, bytes};
        p->bytes += bytes;
        *row += n;
    }
    return p->n > 0;
}

static int pack_weights(ash_model *m, const ash_engine_opts *opts, ash_pool *pool, ash_err *err)
{
    const ash_binding *b = &m->net->binding;
    uint64_t done = 0, total = 0;
    for (size_t i = 0; i < b->n_items; i++)
        if (b->items[i].matrix)
            total += b->items[i].tensor->bytes;
    pack *p = calloc(1, sizeof *p);
    if (!p)
        return ash_err_nomem(err, "packing");
    p->binding = b;
    p->cancel = opts->cancel;
    size_t item = 0;
    int64_t row = 0;
    int rc = ash_model_progress(opts, ASH_LOAD_PACK, 0, total, err);
    while (!rc && next_window(p, &item, &row)) {
        for (int i = 0; i < p->n; i++) {
            const chunk *c = &p->chunks[i];
            ash_tensor_want(b->index, c->item->tensor, (uint64_t)c->row * row_bytes(c->item), c->bytes);
        }
        ash_pool_run(pool, p->n, 1, pack_chunks, p);
        for (int i = 0; i < p->n; i++) {
            const chunk *c = &p->chunks[i];
            ash_tensor_drop(b->index, c->item->tensor, (uint64_t)c->row * row_bytes(c->item), c->bytes);
        }
        done += p->bytes;
        rc = ash_model_progress(opts, ASH_LOAD_PACK, done, total, err);
    }
    free(p);
    return rc;
}

int ash_model_load(ash_model *m, const ash_engine_opts *opts, ash_pool *pool, ash_err *err)
{
    void *region = NULL;
    int rc;
    if ((rc = load_tokenizer(m, opts, err)) || (rc = load_template(m, opts, err)) ||
        (rc = ash_model_progress(opts, ASH_LOAD_VERIFY, 1, 1, err)) ||
        (rc = take_memory(m, &region, err)) || (rc = m->net->arch->bind(m->net, region, err)) ||
        (rc = ash_model_progress(opts, ASH_LOAD_MAP, 1, 1, err)) ||
        (rc = pack_weights(m, opts, pool, err)))
        return rc;
    m->net->binding.index = NULL; /* borrowed from the file */
    ash_gguf_close(m->gguf);
    m->gguf = NULL;
    return 0;
}
