/* What the files of the tokenizer share; nobody else includes it. */
#ifndef ASHLEY_TEXT_TOKENIZER_IMPL_H
#define ASHLEY_TEXT_TOKENIZER_IMPL_H

#include "base/limits.h"
#include "text/tokenizer.h"

/* tokenizer.ggml.token_type */
enum {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER = 4,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6,
};

typedef enum tok_model { TOK_BPE, TOK_SPM } tok_model;

/* ---- vocabulary: tokenizer_vocab.c ---------------------------------------------------------- */

typedef struct tok_vocab {
    size_t n;
    char *text;          /* all tokens as the file writes them, one after the other */
    uint32_t *text_at;   /* [n+1] */
    char *piece;         /* the bytes that they stand for */
    uint32_t *piece_at;  /* [n+1] */
    uint8_t *type;       /* [n] TOKEN_* */
    float *score;        /* [n]; NULL for BPE */
    uint64_t *slots;     /* open addressing by text: hash's high half << 32 | id + 1, 0 empty */
    size_t n_slots;
    uint64_t seed[2];
    int32_t byte_id[256]; /* BPE: the token of the one-byte word; SPM: <0xXX>; -1 none */
} tok_vocab;

/* The letter that stands for byte b in byte-level vocabularies (GPT-2's encoder.py,
 * bytes_to_unicode): a code point below 0x144. */
uint32_t tok_byte_letter(uint8_t b);
int tok_vocab_read(tok_vocab *v, tok_model model, const ash_gguf *g, ash_arena *arena,
                   ash_err *err) ASH_MUST_CHECK;
int32_t tok_vocab_find(const tok_vocab *v, const char *p, size_t n); /* the lowest id, or -1 */

static inline ash_str tok_vocab_text(const tok_vocab *v, int32_t id)
{
    return (ash_str){v->text + v->text_at[id], v->text_at[id + 1] - v->text_at[id]};
}

static inline ash_str tok_vocab_piece(const tok_vocab *v, int32_t id)
{
    return (ash_str){v->piece + v->piece_at[id], v->piece_at[id + 1] - v->piece_at[id]};
}

/* ---- added tokens: tokenizer_added.c -------------------------------------------------------- */

/* Tokens that are matched in the text itself, before any splitting. */
typedef struct tok_added {
    int32_t *ids; /* sorted by their pieces */
    size_t n;
    uint8_t first[256]; /* some token starts with this byte */
    uint8_t *is_markup; /* [vocab n] honoured in trusted text only */
} tok_added;

int tok_added_build(tok_added *a, const tok_vocab *v, ash_arena *arena, ash_err *err) ASH_MUST_CHECK;

typedef struct tok_match {
    size_t begin, end;
    int32_t id;
} tok_match;

/* The leftmost, then longest match in text[from..n). `special` allows markup outside of the spans.
 * *span is the caller's cursor into spans, moved on; start it at 0. False if there is none. */
bool tok_added_next(const tok_added *a, const tok_vocab *v, const char *text, size_t n, size_t from,
                    bool special, const ash_span *spans, size_t n_spans, size_t *span,
                    tok_match *out);

/* ---- merging: tokenizer_merge.c ------------------------------------------------------------- */

#define TOK_NO_RANK UINT32_MAX

/* Scratch for one encode call. Symbols are numbered by the byte they start at; `next` of the last
 * one is the end. */
typedef struct tok_work {
    uint32_t *next, *prev, *rank;
    int32_t *id;
    size_t cap;
    uint64_t *heap;
    size_t n_heap, cap_heap;
    ash_buf text; /* normalised fragment */
} tok_work;

/* How two neighbours merge: rank is the priority (the lowest first, then the leftmost), TOK_NO_RANK if
 * they do not; join makes `left` stand for both. */
typedef struct tok_merger {
    const void *ctx;
    uint32_t (*rank)(const void *ctx, const tok_work *w, uint32_t left, uint32_t right);
    void (*join)(const void *ctx, tok_work *w, uint32_t left, uint32_t right);
} tok_merger;

int tok_work_reserve(tok_work *w, size_t n, ash_err *err) ASH_MUST_CHECK; /* symbols 0 .. n */
void tok_work_release(tok_work *w);
/* Merges all of the list that starts at `first` and ends at `end`; next and prev are set. */
int tok_merge_all(tok_work *w, uint32_t first, uint32_t end, const tok_merger *m,
                  ash_err *err) ASH_MUST_CHECK;

/* ---- pre-tokenisers: tokenizer_pre.c -------------------------------------------------------- */

typedef struct tok_pre tok_pre;
typedef struct tok_splitter tok_splitter; /* one call's match data */
typedef int (*tok_word_fn)(void *ctx, const char *p, size_t n, ash_err *err);

typedef struct tok_pre_info {
    bool ignore_merges; /* a whole word that is a token is taken as it is */
    bool adds_bos;      /* default of add_bos_token */
    bool nfc;           /* text is normalised first */
} tok_pre_info;

int tok_pre_open(ash_str name, tok_pre **out, tok_pre_info *info, ash_err *err) ASH_MUST_CHECK;
void tok_pre_close(tok_pre *p);
int tok_splitter_open(const tok_pre *p, tok_splitter **out, ash_err *err) ASH_MUST_CHECK;
void tok_splitter_close(tok_splitter *s);
/* Calls fn for each word of valid UTF-8 text, in order; together they are the text. */
int tok_split(tok_splitter *s, const char *text, size_t n, tok_word_fn fn, void *ctx,
              ash_err *err) ASH_MUST_CHECK;

/* ---- normalisation: tokenizer_nfc.c --------------------------------------------------------- */

/* Appends the NFC form of valid UTF-8 to out. O(n log n) whatever the combining marks. */
int tok_nfc(const char *text, size_t n, ash_buf *out, ash_err *err) ASH_MUST_CHECK;

/* ---- models --------------------------------------------------------------------------------- */

typedef struct tok_pair {
    uint64_t key; /* left id << 32 | right id; UINT64_MAX empty */
    uint32_t rank;
    int32_t id;
} tok_pair;

typedef struct tok_bpe {
    tok_pair *pairs;
    size_t n_pairs; /* slots, a power of two */
    uint64_t seed[2];
    tok_pre *pre;
    tok_pre_info info;
} tok_bpe;

typedef struct tok_spm {
    bool space_prefix;
    bool splits_at_space; /* no piece goes on across " x": words are merged one by one */
} tok_spm;

struct ash_tokenizer {
    tok_model model;
    tok_vocab vocab;
    tok_added added;
    tok_bpe bpe;
    tok_spm spm;
    int32_t bos, eos, eot, unk, pad;
    bool adds_bos, adds_eos;
    int32_t *eog; /* ascending */
    size_t n_eog;
    size_t longest_piece; /* bytes; at least 1 */
    ash_str chat_template;
    bool has_template;
    ash_arena arena;
};

int tok_bpe_read(ash_tokenizer *t, const ash_gguf *g, ash_err *err) ASH_MUST_CHECK;
/* A fragment between added tokens, valid UTF-8, not empty. */
int tok_bpe_encode(const ash_tokenizer *t, const char *text, size_t n, tok_work *w, tok_splitter *s,
                   ash_ids *out, ash_err *err) ASH_MUST_CHECK;
int tok_spm_read(ash_tokenizer *t, const ash_gguf *g, ash_err *err) ASH_MUST_CHECK;
int tok_spm_encode(const ash_tokenizer *t, const char *text, size_t n, tok_work *w, ash_ids *out,
                   ash_err *err) ASH_MUST_CHECK;

#endif
