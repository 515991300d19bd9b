/* Owns byte-level BPE: reading of the merges, and words to ids. Refuses merges whose parts or result
 * are no tokens. A byte without a token of its own vanishes, as in Hugging Face tokenizers. */
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "text/tokenizer_impl.h"

#define MAX_LOOKUP 256 /* bytes of a word that is looked up as a whole; longer tokens do not occur */
#define NO_PAIR UINT64_MAX

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static size_t pair_slot(const tok_bpe *b, uint64_t key)
{
    uint64_t h = (key ^ b->seed[0]) * (b->seed[1] | 1);
    h ^= h >> 32;
    h *= 0x9E3779B97F4A7C15u;
    size_t i = (size_t)(h >> 20) & (b->n_pairs - 1);
    while (b->pairs[i].key != key && b->pairs[i].key != NO_PAIR) i = (i + 1) & (b->n_pairs - 1);
    return i;
}

/* ---- reading -------------------------------------------------------------------------------- */

static int bad_merge(const ash_gguf *g, uint64_t i, ash_str s, ash_err *err)
{
    char shown[80];
    return ash_err_set(err, ASH_EFORMAT,
                       "%s: key 'tokenizer.ggml.merges': entry %llu ('%s') must be two tokens that "
                       "make a third", ash_gguf_path(g), (unsigned long long)i,
                       ash_gguf_show(s, shown));
}

/* "a b", cut at the first space that is not the first byte; both parts and "ab" must be tokens.
 * *guess is the id of "ab" if ids were given in the order of the merges, as they mostly are. */
static int add_merge(ash_tokenizer *t, const ash_gguf *g, uint64_t i, ash_str s, int32_t *guess,
                     ash_err *err)
{
    char joined[2 * ASH_MAX_TOKEN_BYTES];
    const char *space = s.n > 2 ? memchr(s.p + 1, ' ', s.n - 2) : NULL;
    if (!space || s.n - 1 > sizeof joined)
        return bad_merge(g, i, s, err);
    size_t left = (size_t)(space - s.p), right = s.n - left - 1;
    memcpy(joined, s.p, left);
    memcpy(joined + left, space + 1, right);
    int32_t a = tok_vocab_find(&t->vocab, s.p, left);
    int32_t b = tok_vocab_find(&t->vocab, space + 1, right);
    ash_str whole = {joined, left + right};
    int32_t ab = *guess;
    if ((size_t)ab >= t->vocab.n || !ash_str_eq(tok_vocab_text(&t->vocab, ab), whole))
        ab = tok_vocab_find(&t->vocab, whole.p, whole.n);
    if (a < 0 || b < 0 || ab < 0)
        return bad_merge(g, i, s, err);
    *guess = ab + 1;
    tok_pair *p = &t->bpe.pairs[pair_slot(&t->bpe, pair_key(a, b))];
    if (p->key == NO_PAIR) /* of two equal merges the first counts */
        *p = (tok_pair){.key = pair_key(a, b), .rank = (uint32_t)i, .id = ab};
    return 0;
}

static int read_merges(ash_tokenizer *t, const ash_gguf *g, ash_err *err)
{
    tok_bpe *b = &t->bpe;
    ash_gguf_array merges;
    int rc = ash_gguf_need_array(g, "tokenizer.ggml.merges", ASH_GGUF_STRING, &merges, err);
    if (rc)
        return rc;
    if (merges.n > ASH_MAX_VOCAB)
        return ash_err_set(err, ASH_ELIMIT, "%s: key 'tokenizer.ggml.merges' has %llu entries; at "
                           "most %u", ash_gguf_path(g), (unsigned long long)merges.n,
                           ASH_MAX_VOCAB);
    b->seed[0] = ash_rng_entropy();
    b->seed[1] = ash_rng_entropy();
    b->n_pairs = ash_hash_slots((size_t)merges.n);
    b->pairs = ash_arena_alloc(&t->arena, b->n_pairs * sizeof *b->pairs);
    if (!b->pairs)
        return ash_err_nomem(err, "merges");
    memset(b->pairs, 0xFF, b->n_pairs * sizeof *b->pairs);
    uint64_t at = 0;
    int32_t guess = 256;
    for (uint64_t i = 0; i < merges.n && !rc; i++) {
        ash_str s;
        rc = ash_gguf_array_next_str(&merges, &at, &s) ? add_merge(t, g, i, s, &guess, err)
                                                       : bad_merge(g, i, (ash_str){"", 0}, err);
    }
    return rc;
}

int tok_bpe_read(ash_tokenizer *t, const ash_gguf *g, ash_err *err)
{
    ash_str pre = ASH_STR("default");
    int rc = ash_gguf_get_str(g, "tokenizer.ggml.pre", &pre, err);
    if (rc)
        return rc;
    rc = tok_pre_open(pre, &t->bpe.pre, &t->bpe.info, err);
    if (rc) {
        ash_err_prefix(err, "%s", ash_gguf_path(g));
        return rc;
    }
    return read_merges(t, g, err);
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

/* The token whose text is this word in byte letters; -1. */
static int32_t whole_word(const tok_vocab *v, const char *p, size_t n)
{
    char text[2 * MAX_LOOKUP + 4];
    size_t len = 0;
    if (n > MAX_LOOKUP)
        return -1;
    for (size_t i = 0; i < n; i++)
        len += ash_utf8_encode(tok_byte_letter((uint8_t)p[i]), text + len);
    return tok_vocab_find(v, text, len);
}

/* One symbol for each byte that has a token, linked; *first == n if there is none. */
static void list_bytes(const tok_vocab *v, tok_work *w, const char *p, uint32_t n, uint32_t *first)
{
    uint32_t last = n;
    *first = n;
    for (uint32_t i = 0; i < n; i++) {
        w->rank[i] = TOK_NO_RANK;
        w->id[i] = v->byte_id[(uint8_t)p[i]];
        if (w->id[i] < 0)
            continue;
        if (last == n)
            *first = i;
        else
            w->next[last] = i;
        w->prev[i] = last;
        w->next[i] = n;
        last = i;
    }
}

static int encode_word(void *ctx, const char *p, size_t n, ash_err *err)
{
    bpe_call *c = ctx;
    const ash_tokenizer *t = c->t;
    uint32_t first;
    if (t->bpe.info.ignore_merges) {
        int32_t id = whole_word(&t->vocab, p, n);
        if (id >= 0)
            return ash_ids_add(c->out, id, err);
    }
    if (n == 1)
        return t->vocab.byte_id[(uint8_t)*p] < 0
                   ? 0
                   : ash_ids_add(c->out, t->vocab.byte_id[(uint8_t)*p], err);
    int rc = tok_work_reserve(c->w, n, err);
    if (rc)
        return rc;
    list_bytes(&t->vocab, c->w, p, (uint32_t)n, &first);
    rc = tok_merge_all(c->w, first, (uint32_t)n,
                       &(tok_merger){.ctx = &t->bpe, .rank = pair_rank, .join = pair_join}, err);
    for (uint32_t s = first; s != n && !rc; s = c->w->next[s])
        rc = ash_ids_add(c->out, c->w->id[s], err);
    return rc;
}

int tok_bpe_encode(const ash_tokenizer *t, const char *text, size_t n, tok_work *w, tok_splitter *s,
                   ash_ids *out, ash_err *err)
{
    bpe_call call = {.t = t, .w = w, .out = out};
    if (t->bpe.info.nfc) {
        ash_buf_clear(&w->text);
        int rc = tok_nfc(text, n, &w->text, err);
        if (rc)
            return rc;
        text = w->text.data;
        n = w->text.len;
    }
    return tok_split(s, text, n, encode_word, &call, err);
}
