/* Owns SentencePiece-style BPE (bpe_model.cc of google/sentencepiece): symbols are characters, the
 * pair whose joined text has the highest score merges first, unknown characters fall back to bytes.
 * There is no splitting into words; but where no piece of the vocabulary goes on after a space that
 * follows another character, no merge can cross that place, and words are merged one by one. */
#include <string.h>

#include "base/utf8.h"
#include "text/tokenizer_impl.h"

#define META "\xe2\x96\x81" /* U+2581 stands for a space */
#define META_BYTES 3

static bool is_meta(const char *p, size_t n)
{
    return n >= META_BYTES && memcmp(p, META, META_BYTES) == 0;
}

/* Can merging produce this token? Byte, control and unknown tokens are no text. */
static bool can_merge(const tok_vocab *v, int32_t id)
{
    return v->type[id] == TOKEN_NORMAL || v->type[id] == TOKEN_USER || v->type[id] == TOKEN_UNUSED;
}

bool tok_has_inner_space(ash_str s)
{
    bool other = false;
    for (size_t i = 0; i < s.n;) {
        bool meta = is_meta(s.p + i, s.n - i);
        if (meta && other)
            return true;
        other = other || !meta;
        i += meta ? META_BYTES : 1;
    }
    return false;
}

bool tok_spm_splits_at_space(const tok_vocab *v)
{
    for (size_t id = 0; id < v->n; id++)
        if (can_merge(v, (int32_t)id) && tok_has_inner_space(tok_vocab_text(v, (int32_t)id)))
            return false;
    return true;
}

/* ---- merging -------------------------------------------------------------------------------- */

typedef struct spm_word {
    const ash_tokenizer *t;
    const char *p; /* the symbols' text; symbol s is p[s .. next[s]) */
    uint32_t n;
    bool not_whole; /* the merge that makes the whole word is refused */
} spm_word;

/* Scores as ranks: order-preserving, the highest first. */
static uint32_t score_rank(float score)
{
    uint32_t bits;
    score += 0.0f; /* -0 becomes 0 */
    memcpy(&bits, &score, sizeof bits);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return ~bits == TOK_NO_RANK ? TOK_NO_RANK - 1 : ~bits;
}

static uint32_t text_rank(const void *ctx, const tok_work *w, uint32_t left, uint32_t right)
{
    const spm_word *word = ctx;
    uint32_t n = w->next[right] - left;
    if (n > ASH_MAX_TOKEN_BYTES || (word->not_whole && n == word->n))
        return TOK_NO_RANK;
    int32_t id = tok_vocab_find(&word->t->vocab, word->p + left, n);
    return id < 0 || !can_merge(&word->t->vocab, id) ? TOK_NO_RANK
                                                     : score_rank(word->t->vocab.score[id]);
}

static void text_join(const void *ctx, tok_work *w, uint32_t left, uint32_t right)
{
    (void)ctx, (void)w, (void)left, (void)right; /* a symbol is its text */
}

static void list_characters(tok_work *w, const char *p, uint32_t n)
{
    uint32_t last = n, step;
    for (uint32_t i = 0; i < n; i += step) {
        uint32_t cp;
        bool ok;
        step = (uint32_t)ash_utf8_decode(p + i, n - i, &cp, &ok);
        w->prev[i] = last;
        w->next[i] = i + step;
        last = i;
    }
}

static int add_bytes(const ash_tokenizer *t, const char *p, uint32_t n, ash_ids *out, ash_err *err)
{
    int rc = 0;
    bool known = true;
    for (uint32_t i = 0; i < n; i++) known = known && t->vocab.byte_id[(uint8_t)p[i]] >= 0;
    if (!known) /* a run of unknown characters is one unknown token */
        return t->unk < 0 || (out->n && out->p[out->n - 1] == t->unk)
                   ? 0
                   : ash_ids_add(out, t->unk, err);
    for (uint32_t i = 0; i < n && !rc; i++)
        rc = ash_ids_add(out, t->vocab.byte_id[(uint8_t)p[i]], err);
    return rc;
}

static int encode_word(const ash_tokenizer *t, const char *p, uint32_t n, bool not_whole,
                       tok_work *w, ash_ids *out, ash_err *err);

/* A symbol that merging left: its token, or what an unused token was made of, or its bytes. */
static int add_symbol(const ash_tokenizer *t, const char *p, uint32_t n, ash_ids *out, ash_err *err)
{
    int32_t id = tok_vocab_find(&t->vocab, p, n);
    uint32_t cp;
    bool ok;
    if (id >= 0 && can_merge(&t->vocab, id) && t->vocab.type[id] != TOKEN_UNUSED)
        return ash_ids_add(out, id, err);
    if (ash_utf8_decode(p, n, &cp, &ok) == n)
        return add_bytes(t, p, n, out, err);
    tok_work inner = {0}; /* rare: no vocabulary in use has such tokens in the middle of others */
    int rc = encode_word(t, p, n, true, &inner, out, err);
    tok_work_release(&inner);
    return rc;
}

/* Depth of the recursion through unused tokens: each is shorter than the one that holds it. */
static int encode_word(const ash_tokenizer *t, const char *p, uint32_t n, bool not_whole,
                       tok_work *w, ash_ids *out, ash_err *err)
{
    spm_word word = {.t = t, .p = p, .n = n, .not_whole = not_whole};
    int rc = tok_work_reserve(w, n, err);
    if (rc)
        return rc;
    list_characters(w, p, n);
    rc = tok_merge_all(w, 0, n, &(tok_merger){.ctx = &word, .rank = text_rank, .join = text_join},
                       err);
    for (uint32_t s = 0; s != n && !rc; s = w->next[s])
        rc = add_symbol(t, p + s, w->next[s] - s, out, err);
    return rc;
}

size_t tok_word_end(const char *p, size_t from, size_t n)
{
    bool other = false;
    while (from < n) {
        bool meta = is_meta(p + from, n - from);
        if (meta && other)
            break;
        other = other || !meta;
        from += meta ? META_BYTES : 1;
    }
    return from;
}

int tok_spm_encode(const ash_tokenizer *t, const char *text, size_t n, tok_work *w, ash_ids *out,
                   ash_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < n && !rc;) {
        size_t end = t->splits_at_space ? tok_word_end(text, i, n) : n;
        rc = encode_word(t, text + i, (uint32_t)(end - i), false, w, out, err);
        i = end;
    }
    return rc;
}
