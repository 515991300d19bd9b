/* What the files of the tokenizer share; nobody else includes it. */
#ifndef ASHLEY_TEXT_TOKENIZER_IMPL_H
#define ASHLEY_TEXT_TOKENIZER_IMPL_H

#include "text/tokenizer_desc.h"
#include "text/tokenizer_regex.h"

/* ---- vocabulary: tokenizer_vocab.c ---------------------------------------------------------- */

typedef struct tok_vocab {
    size_t n;
    char *text;          /* all tokens as the file writes them, one after the other */
    uint32_t *text_at;   /* [n+1] */
    char *piece;         /* the bytes that they stand for */
    uint32_t *piece_at;  /* [n+1] */
    uint8_t *type;       /* [n] TOKEN_* */
    uint8_t *in_model;   /* [n] the model itself may make it of plain text */
    float *score;        /* [n]; NULL for BPE */
    uint64_t *slots;     /* open addressing by text: hash's high half << 32 | id + 1, 0 empty */
    size_t n_slots;
    uint64_t seed[2];
    int32_t twice;       /* the first token whose text a lower id has; -1 none */
    int32_t byte_id[256]; /* BPE: the token of the one-byte word; else <0xXX>; -1 none */
} tok_vocab;

/* The letter that stands for byte b in byte-level vocabularies (GPT-2's encoder.py,
 * bytes_to_unicode): a code point below 0x144. */
uint32_t tok_byte_letter(uint8_t b);
/* The bytes that a token stands for, into out[s.n]; their number. */
size_t tok_piece(const tok_desc *d, ash_str s, uint8_t type, char *out);
int tok_vocab_build(tok_vocab *v, const tok_desc *d, ash_arena *arena, ash_err *err) ASH_MUST_CHECK;
int32_t tok_vocab_find(const tok_vocab *v, const char *p, size_t n); /* the lowest id, or -1 */
/* The same in two steps, for those who ask for many: the tables are larger than a second-level cache, and
 * the first step fetches what the second reads. TOK_AHEAD of them at a time hide each other's way. */
enum { TOK_AHEAD = 32 };
uint64_t tok_vocab_hash(const tok_vocab *v, const char *p, size_t n);
int32_t tok_vocab_find_hashed(const tok_vocab *v, uint64_t hash, const char *p, size_t n);
/* The same, but only of tokens that plain text may become: no control token or user-defined one that
 * is markup, none that is an added token only. */
int32_t tok_model_find(const tok_vocab *v, const char *p, size_t n);
bool tok_is_markup(ash_str s); /* "<think>", "[INST]" */

static inline ash_str tok_vocab_text(const tok_vocab *v, int32_t id)
{
    return (ash_str){v->text + v->text_at[id], v->text_at[id + 1] - v->text_at[id]};
}

static inline ash_str tok_vocab_piece(const tok_vocab *v, int32_t id)
{
    return (ash_str){v->piece + v->piece_at[id], v->piece_at[id + 1] - v->piece_at[id]};
}

/* ---- normalisation: tokenizer_norm.c, tokenizer_nfc.c ---------------------------------------- */

typedef struct tok_norm_step {
    tok_norm_kind kind;
    ash_str from, to;
    bool left, right;
    tok_regex *re;
} tok_norm_step;

typedef struct tok_norm {
    tok_norm_step steps[TOK_MAX_STEPS];
    size_t n;
} tok_norm;

/* Text whose byte i was made of bytes [begin[i], end[i]) of the original, where that is recorded. */
typedef struct tok_text {
    ash_buf text;
    uint32_t *begin, *end;
    size_t cap;
    bool moved; /* white space was cut off its start */
} tok_text;

typedef struct tok_norm_work {
    tok_text text[2];
    tok_matcher *matcher;
} tok_norm_work;

int tok_norm_open(tok_norm *norm, const tok_desc *d, ash_arena *arena, ash_err *err) ASH_MUST_CHECK;
void tok_norm_close(tok_norm *norm);
void tok_norm_work_init(tok_norm_work *w);
void tok_norm_work_release(tok_norm_work *w);
void tok_text_release(tok_text *t);
/* The form of p[0..n), which is at byte `offset` of the original; *out lives in w until the next
 * call. `mapped`: begin and end are wanted. */
int tok_normalize(const tok_norm *norm, tok_norm_work *w, const char *p, size_t n, size_t offset,
                  bool mapped, const tok_text **out, ash_err *err) ASH_MUST_CHECK;
/* Appends the NFC form of valid UTF-8 to out. O(n log n) whatever the combining marks. */
int tok_nfc(const char *text, size_t n, ash_buf *out, ash_err *err) ASH_MUST_CHECK;

bool tok_is_space(uint32_t cp); /* White_Space */
/* Where the white space that ends p[from..n) begins, and where that at p[from] ends. */
size_t tok_spaces_before(const char *p, size_t from, size_t n);
size_t tok_spaces_after(const char *p, size_t from, size_t n);

/* ---- added tokens: tokenizer_added.c -------------------------------------------------------- */

typedef struct tok_added_one {
    ash_str text;
    int32_t id;
    uint8_t flags;     /* ADDED_* */
    bool is_markup;    /* honoured in trusted text only */
} tok_added_one;

/* Tokens that are matched in the text itself, before any splitting. */
typedef struct tok_added {
    tok_added_one *list; /* sorted by text; of equal ones the first stays */
    size_t n;
    uint8_t first[256]; /* some token starts with this byte */
    bool any_markup, strips;
} tok_added;

/* Those of list[0..n) that are to be matched in normalised text, or those that are not. */
int tok_added_build(tok_added *a, const tok_add *list, size_t n, bool normalized, ash_arena *arena,
                    ash_err *err) ASH_MUST_CHECK;

typedef struct tok_match {
    size_t begin, end; /* with the white space that it takes */
    int32_t id;
} tok_match;

/* A text in which added tokens are looked for, and how far the search has come. Spans are ranges of
 * the original; `map` leads there and may be NULL where text is the original. */
typedef struct tok_search {
    const char *text;
    size_t n;
    bool special; /* markup counts outside of the spans */
    const ash_span *spans;
    size_t n_spans;
    const tok_text *map;
    size_t from; /* where the next token may begin */
    size_t done; /* what is before was told; may be beyond `from` by white space that a token took */
    size_t span; /* the first that may matter */
} tok_search;

/* The leftmost, then longest match at or after s->from. False if there is none. What lies between
 * s->done and its begin is in no token; the caller moves s->done to its end. */
bool tok_added_next(const tok_added *a, tok_search *s, tok_match *out);

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

/* By the name of `tokenizer.ggml.pre`; tok_pre_known adds its stages to a description. */
int tok_pre_open(ash_str name, tok_pre **out, tok_pre_info *info, ash_err *err);
int tok_pre_known(ash_str name, tok_desc *d, tok_pre_info *info, ash_err *err) ASH_MUST_CHECK;
int tok_pre_open_stages(const tok_stage_desc *stages, size_t n, tok_pre **out,
                        ash_err *err) ASH_MUST_CHECK;
ash_str tok_pre_gpt2(void); /* the pattern of ByteLevel, as a STAGE_REGEX */
void tok_pre_close(tok_pre *p);
int tok_splitter_open(const tok_pre *p, tok_splitter **out, ash_err *err) ASH_MUST_CHECK;
void tok_splitter_close(tok_splitter *s);
/* Whether what is split next begins where the whole text begins. */
void tok_splitter_at_start(tok_splitter *s, bool at_start);
/* Calls fn for each word of valid UTF-8 text, in order. */
int tok_split(tok_splitter *s, const char *text, size_t n, tok_word_fn fn, void *ctx,
              ash_err *err) ASH_MUST_CHECK;

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
    bool ignore_merges, byte_fallback, fuse_unk;
    int32_t unk; /* for symbols without a token; -1: they vanish */
} tok_bpe;

struct ash_tokenizer {
    tok_model model;
    tok_vocab vocab;
    tok_added added, added_normal; /* matched in the text, in the normalised text */
    tok_norm norm;
    tok_pre *pre;
    tok_bpe bpe;
    bool splits_at_space; /* no merge goes on across " x": words are merged one by one */
    tok_decode decode;
    int32_t bos, eos, eot, unk, pad;
    bool adds_bos, adds_eos;
    int32_t *eog; /* ascending */
    size_t n_eog;
    size_t longest_text, longest_piece; /* bytes; at least 1 */
    bool shrinks; /* text may become much shorter before it is split */
    const char *from, *note;
    tok_template_desc *templates;
    size_t n_templates;
    ash_arena arena;
};

int tok_bpe_build(ash_tokenizer *t, const tok_desc *d, ash_err *err) ASH_MUST_CHECK;
/* A piece between added tokens, normalised, valid UTF-8, not empty. */
int tok_bpe_encode(const ash_tokenizer *t, const char *text, size_t n, tok_work *w, tok_splitter *s,
                   ash_ids *out, ash_err *err) ASH_MUST_CHECK;
int tok_spm_encode(const ash_tokenizer *t, const char *text, size_t n, tok_work *w, ash_ids *out,
                   ash_err *err) ASH_MUST_CHECK;
/* No token that merging makes has a space after another character. */
bool tok_spm_splits_at_space(const tok_vocab *v);
/* In U+2581 for spaces: whether this token has one after another character, and where the word at
 * `from` ends: before the next one after another character. */
bool tok_has_inner_space(ash_str s);
size_t tok_word_end(const char *p, size_t from, size_t n);

#endif
