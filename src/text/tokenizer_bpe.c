/* Owns BPE by merges, over the letters of bytes or over characters: the table of merges, and words to
 * ids. Refuses merges whose parts or result are no tokens. What has no token is the unknown token, or
 * bytes where the vocabulary falls back to them, or vanishes, as in Hugging Face tokenizers. */
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "text/tokenizer_impl.h"

#define NO_PAIR UINT64_MAX

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* Where the search for a pair begins. */
static size_t pair_start(const tok_bpe *b, uint64_t key)
{
    uint64_t h = (key ^ b->seed[0]) * (b->seed[1] | 1);
    h ^= h >> 32;
    h *= 0x9E3779B97F4A7C15u;
    return (size_t)(h >> 20) & (b->n_pairs - 1);
}

static size_t pair_slot(const tok_bpe *b, uint64_t key)
{
    size_t i = pair_start(b, key);
    while (b->pairs[i].key != key && b->pairs[i].key != NO_PAIR) i = (i + 1) & (b->n_pairs - 1);
    return i;
}

/* ---- building ------------------------------------------------------------------------------- */

static int bad_merge(const tok_desc *d, size_t i, ash_err *err)
{
    char left[80], right[80];
    return ash_err_set(err, ASH_EFORMAT,
                       "%s: entry %zu ('%s %s') must be two tokens that make a third",
                       d->merges_name, i, ash_gguf_show(d->merges[i].left, left),
                       ash_gguf_show(d->merges[i].right, right));
}

/* A merge on its way into the table. */
typedef struct found_merge {
    uint64_t left_hash, right_hash, key;
    int32_t id; /* of the whole */
} found_merge;

static bool has_parts(const tok_merge_desc *m)
{
    return m->left.n && m->right.n && m->left.n <= ASH_MAX_TOKEN_BYTES &&
           m->right.n <= ASH_MAX_TOKEN_BYTES;
}

/* Both parts and the whole must be tokens. *guess is the id of the whole if ids were given in the
 * order of the merges, as they mostly are. */
static int find_merge(const ash_tokenizer *t, const tok_desc *d, size_t i, found_merge *f,
                      int32_t *guess, ash_err *err)
{
    char joined[2 * ASH_MAX_TOKEN_BYTES];
    ash_str left = d->merges[i].left, right = d->merges[i].right;
    memcpy(joined, left.p, left.n);
    memcpy(joined + left.n, right.p, right.n);
    int32_t a = tok_vocab_find_hashed(&t->vocab, f->left_hash, left.p, left.n);
    int32_t b = tok_vocab_find_hashed(&t->vocab, f->right_hash, right.p, right.n);
    ash_str whole = {joined, left.n + right.n};
    int32_t ab = *guess;
    if ((size_t)ab >= t->vocab.n || !ash_str_eq(tok_vocab_text(&t->vocab, ab), whole))
        ab = tok_vocab_find(&t->vocab, whole.p, whole.n);
    if (a < 0 || b < 0 || ab < 0)
        return bad_merge(d, i, err);
    *guess = ab + 1;
    f->key = pair_key(a, b);
    f->id = ab;
    __builtin_prefetch(&t->bpe.pairs[pair_start(&t->bpe, f->key)], 1);
    return 0;
}

/* Merges from..to, at most TOK_AHEAD, step by step: what one step reads the step before fetched. */
static int add_merges(ash_tokenizer *t, const tok_desc *d, size_t from, size_t to, int32_t *guess,
                      ash_err *err)
{
    found_merge found[TOK_AHEAD], *f = found;
    int rc = 0;
    for (size_t i = from; i < to; i++, f++) {
        const tok_merge_desc *m = &d->merges[i];
        if (!has_parts(m))
            to = i + 1; /* those before it may be worse */
        else
            *f = (found_merge){.left_hash = tok_vocab_hash(&t->vocab, m->left.p, m->left.n),
                               .right_hash = tok_vocab_hash(&t->vocab, m->right.p, m->right.n)};
    }
    f = found;
    for (size_t i = from; i < to && !rc; i++, f++)
        rc = has_parts(&d->merges[i]) ? find_merge(t, d, i, f, guess, err) : bad_merge(d, i, err);
    f = found;
    for (size_t i = from; i < to && !rc; i++, f++) {
        tok_pair *p = &t->bpe.pairs[pair_slot(&t->bpe, f->key)];
        if (p->key == NO_PAIR || d->last_merge_counts)
            *p = (tok_pair){.key = f->key, .rank = (uint32_t)i, .id = f->id};
    }
    return rc;
}

/* Words can be merged one by one if every merge that holds a space begins with it, and none is
 * unknown: unknown neighbours would be one. */
static bool splits_at_space(const ash_tokenizer *t, const tok_desc *d)
{
    if (t->model != TOK_CHARS || t->bpe.ignore_merges ||
        tok_model_find(&t->vocab, "\xe2\x96\x81", 3) < 0)
        return false;
    for (size_t i = 0; i < d->n_merges; i++) {
        char joined[2 * ASH_MAX_TOKEN_BYTES];
        ash_str left = d->merges[i].left, right = d->merges[i].right;
        memcpy(joined, left.p, left.n);
        memcpy(joined + left.n, right.p, right.n);
        if (tok_has_inner_space((ash_str){joined, left.n + right.n}))
            return false;
    }
    return true;
}

int tok_bpe_build(ash_tokenizer *t, const tok_desc *d, ash_err *err)
{
    tok_bpe *b = &t->bpe;
    b->ignore_merges = d->ignore_merges;
    b->byte_fallback = d->byte_fallback;
    b->fuse_unk = d->fuse_unk;
    b->unk = d->merge_unk;
    b->seed[0] = ash_rng_entropy();
    b->seed[1] = ash_rng_entropy();
    b->n_pairs = ash_hash_slots(d->n_merges);
    b->pairs = ash_arena_alloc(&t->arena, b->n_pairs * sizeof *b->pairs);
    if (!b->pairs)
        return ash_err_nomem(err, "merges");
    memset(b->pairs, 0xFF, b->n_pairs * sizeof *b->pairs);
    int32_t guess = 256;
    int rc = 0;
    for (size_t i = 0; i < d->n_merges && !rc; i += TOK_AHEAD)
        rc = add_merges(t, d, i, i + TOK_AHEAD < d->n_merges ? i + TOK_AHEAD : d->n_merges, &guess, err);
    t->splits_at_space = !rc && splits_at_space(t, d);
    return rc;
}

/* ---- encoding ------------------------------------------------------------------------------- */

typedef struct bpe_call {
    const ash_tokenizer *t;
    tok_work *w;
    ash_ids *out;
} bpe_call;

static uint32_t pair_rank(const void *ctx, const tok_work *w, uint32_t left, uint32_t right)
{
    const tok_bpe *b = ctx;
    const tok_pair *p = &b->pairs[pair_slot(b, pair_key(w->id[left], w->id[right]))];
    return p->key == NO_PAIR ? TOK_NO_RANK : p->rank;
}

static void pair_join(const void *ctx, tok_work *w, uint32_t left, uint32_t right)
{
    const tok_bpe *b = ctx;
    w->id[left] = b->pairs[pair_slot(b, pair_key(w->id[left], w->id[right]))].id;
}

/* The token whose text is this word; -1. */
static int32_t whole_word(const ash_tokenizer *t, const char *p, size_t n)
{
    char text[2 * ASH_MAX_TOKEN_BYTES + 4];
    size_t len = 0;
    if (n > t->longest_text)
        return -1;
    if (t->model == TOK_CHARS)
        return tok_model_find(&t->vocab, p, n);
    for (size_t i = 0; i < n; i++)
        len += ash_utf8_encode(tok_byte_letter((uint8_t)p[i]), text + len);
    return tok_model_find(&t->vocab, text, len);
}

/* A list of symbols as it is made. */
typedef struct lister {
    const ash_tokenizer *t;
    tok_work *w;
    uint32_t n, first, last;
    uint32_t unk_at; /* an unknown symbol that is not listed yet; n: none */
} lister;

static void list_symbol(lister *l, uint32_t at, int32_t id)
{
    tok_work *w = l->w;
    w->rank[at] = TOK_NO_RANK;
    w->id[at] = id;
    if (l->last == l->n)
        l->first = at;
    else
        w->next[l->last] = at;
    w->prev[at] = l->last;
    w->next[at] = l->n;
    l->last = at;
}

static void list_unknown(lister *l)
{
    if (l->unk_at != l->n)
        list_symbol(l, l->unk_at, l->t->bpe.unk);
    l->unk_at = l->n;
}

/* The character p[0..n) as the bytes' tokens, if it has all of them. */
static bool list_fallback(lister *l, const char *p, uint32_t at, uint32_t n)
{
    const int32_t *ids = l->t->vocab.byte_id;
    for (uint32_t i = 0; i < n; i++)
        if (ids[(uint8_t)p[at + i]] < 0)
            return false;
    for (uint32_t i = 0; i < n; i++) list_symbol(l, at + i, ids[(uint8_t)p[at + i]]);
    return true;
}

/* One symbol for each byte or character, linked; l->first == n if there is none. */
static void list_word(lister *l, const char *p)
{
    const ash_tokenizer *t = l->t;
    bool chars = t->model == TOK_CHARS;
    for (uint32_t i = 0, step; i < l->n; i += step) {
        uint32_t cp;
        bool ok;
        step = chars ? (uint32_t)ash_utf8_decode(p + i, l->n - i, &cp, &ok) : 1;
        int32_t id = chars ? tok_model_find(&t->vocab, p + i, step)
                           : t->vocab.byte_id[(uint8_t)p[i]];
        if (id >= 0) {
            list_unknown(l);
            list_symbol(l, i, id);
        } else if (chars && t->bpe.byte_fallback && list_fallback(l, p, i, step)) {
            continue;
        } else if (t->bpe.unk >= 0 && !(t->bpe.fuse_unk && l->unk_at != l->n)) {
            list_unknown(l);
            l->unk_at = i;
        }
    }
    list_unknown(l);
}

static int encode_word(void *ctx, const char *p, size_t n, ash_err *err)
{
    bpe_call *c = ctx;
    const ash_tokenizer *t = c->t;
    if (t->bpe.ignore_merges) {
        int32_t id = whole_word(t, p, n);
        if (id >= 0)
            return ash_ids_add(c->out, id, err);
    }
    if (n == 1 && t->model == TOK_BPE && t->vocab.byte_id[(uint8_t)*p] >= 0)
        return ash_ids_add(c->out, t->vocab.byte_id[(uint8_t)*p], err);
    int rc = tok_work_reserve(c->w, n, err);
    if (rc)
        return rc;
    lister l = {.t = t, .w = c->w, .n = (uint32_t)n, .first = (uint32_t)n, .last = (uint32_t)n,
                .unk_at = (uint32_t)n};
    list_word(&l, p);
    rc = tok_merge_all(c->w, l.first, (uint32_t)n,
                       &(tok_merger){.ctx = &t->bpe, .rank = pair_rank, .join = pair_join}, err);
    for (uint32_t s = l.first; s != n && !rc; s = c->w->next[s])
        rc = ash_ids_add(c->out, c->w->id[s], err);
    return rc;
}

/* A word of the splitter, in the parts that no merge can cross. */
static int encode_parts(void *ctx, const char *p, size_t n, ash_err *err)
{
    int rc = 0;
    for (size_t i = 0, end; i < n && !rc; i = end) {
        end = tok_word_end(p, i, n);
        rc = encode_word(ctx, p + i, end - i, err);
    }
    return rc;
}

int tok_bpe_encode(const ash_tokenizer *t, const char *text, size_t n, tok_work *w, tok_splitter *s,
                   ash_ids *out, ash_err *err)
{
    bpe_call call = {.t = t, .w = w, .out = out};
    return tok_split(s, text, n, t->splits_at_space ? encode_parts : encode_word, &call, err);
}
