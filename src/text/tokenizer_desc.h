/* What a file says about a tokenizer, whichever file it is: GGUF keys, tokenizer.json and
 * tokenizer.model are read into one of these, and an ash_tokenizer is built from it alone
 * (tokenizer_build.c). Lives while a tokenizer is opened; nobody outside src/text includes it. */
#ifndef ASHLEY_TEXT_TOKENIZER_DESC_H
#define ASHLEY_TEXT_TOKENIZER_DESC_H

#include "base/arena.h"
#include "base/limits.h"
#include "text/tokenizer.h"

/* tokenizer.ggml.token_type, which is SentencePiece's ModelProto.SentencePiece.Type */
enum {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER = 4,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6,
};

typedef enum tok_model {
    TOK_BPE,   /* merges over the letters that stand for bytes (GPT-2) */
    TOK_CHARS, /* merges over characters, bytes for those that have no token (Llama in tokenizer.json) */
    TOK_SPM,   /* merges by score over characters (SentencePiece) */
} tok_model;

/* ---- steps ---------------------------------------------------------------------------------- */

typedef enum tok_norm_kind {
    NORM_NFC,
    NORM_PREPEND,       /* `to` before text that is not empty */
    NORM_PREPEND_FIRST, /* only before the text's very start */
    NORM_REPLACE,       /* `from`, bytes, by `to` */
    NORM_REPLACE_REGEX, /* `from`, a pattern of Oniguruma, by `to` */
    NORM_STRIP,         /* white space at the ends */
    NORM_SPACES,        /* SentencePiece's remove_extra_whitespaces: none at the ends, one of a run */
} tok_norm_kind;

typedef struct tok_norm_desc {
    tok_norm_kind kind;
    ash_str from, to;
    bool left, right; /* NORM_STRIP */
} tok_norm_desc;

typedef enum tok_stage_kind {
    STAGE_REGEX,  /* `pattern` of PCRE2, from this program */
    STAGE_ONIG,   /* `pattern` of Oniguruma, from a file */
    STAGE_STRING, /* `pattern`, bytes */
    STAGE_SPACE,  /* a space before each piece that does not start with one */
    STAGE_META,   /* " " becomes `pattern`, which may be put before, and which may start new pieces */
} tok_stage_kind;

/* What becomes of the matches and of what lies between (SplitDelimiterBehavior of `tokenizers`). */
typedef enum tok_behaviour {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_WITH_PREVIOUS,
    SPLIT_WITH_NEXT,
    SPLIT_CONTIGUOUS,
} tok_behaviour;

typedef enum tok_prepend { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS } tok_prepend;

typedef struct tok_stage_desc {
    tok_stage_kind kind;
    ash_str pattern;
    tok_behaviour behaviour;
    bool invert;         /* what matches and what does not change places */
    tok_prepend prepend; /* STAGE_META */
    bool split;          /* STAGE_META */
} tok_stage_desc;

enum {
    TOK_MAX_STEPS = 16, /* of normalisation, of splitting */
    TOK_MAX_SIDE_TOKENS = 8192, /* added by side files alone */
};

/* How tokens become text. */
typedef struct tok_decode {
    bool letters;         /* letters stand for bytes */
    bool meta;            /* U+2581 stands for a space */
    bool bytes;           /* <0x0A> is a byte; bytes that are no UTF-8 are a U+FFFD each */
    uint8_t strip;        /* so many spaces at the very start vanish */
    bool strip_meta;      /* all that the first token has of U+2581 vanish */
} tok_decode;

/* ---- tokens --------------------------------------------------------------------------------- */

enum {
    ADDED_SPECIAL = 1,
    ADDED_NORMALIZED = 2,  /* matched in normalised text; its content is normalised, too */
    ADDED_LSTRIP = 4,      /* takes the white space before it */
    ADDED_RSTRIP = 8,
    ADDED_SINGLE_WORD = 16, /* only where no letter or digit touches it */
    ADDED_VERBATIM = 32,    /* with NORMALIZED: the content is in normalised form already */
};

typedef struct tok_add {
    ash_str text;
    int32_t id;
    unsigned flags;
} tok_add;

typedef struct tok_merge_desc {
    ash_str left, right;
} tok_merge_desc;

typedef struct tok_template_desc {
    ash_str name, text;
    const char *from;
} tok_template_desc;

typedef struct tok_desc {
    ash_arena arena;     /* what is not borrowed from the file */
    ash_buf file;        /* the file's text where strings are borrowed from it */
    const char *from;    /* as ash_tokenizer_from */
    const char *tokens_name, *merges_name; /* begin messages: "FILE: key 'KEY'" */
    tok_model model;
    size_t n;            /* tokens; at least 1 */
    ash_str *text;       /* [n] */
    uint8_t *type;       /* [n] */
    uint8_t *outside;    /* [n] added tokens that the model itself has not; NULL: none */
    float *score;        /* [n]; TOK_SPM */
    tok_merge_desc *merges;
    size_t n_merges;
    bool last_merge_counts; /* of two equal merges (tokenizers), not the first (llama.cpp) */
    bool one_text_one_id;   /* two tokens of one text are an error */
    bool ignore_merges, byte_fallback, fuse_unk;
    bool added_by_type;  /* control, unknown and user-defined tokens are the added ones */
    tok_add *added;
    size_t n_added, cap_added;
    tok_norm_desc norm[TOK_MAX_STEPS];
    size_t n_norm;
    tok_stage_desc stages[TOK_MAX_STEPS];
    size_t n_stages;
    tok_decode decode;
    int32_t bos, eos, eot, eom, unk, pad; /* -1: none */
    int32_t merge_unk; /* what stands for unknown symbols in BPE; -1: they vanish */
    bool adds_bos, adds_eos;
    int32_t *ends; /* more ids that end an answer */
    size_t n_ends, cap_ends;
    tok_template_desc *templates; /* "default" is the chat template */
    size_t n_templates, cap_templates;
    ash_buf note;
    struct tok_text_index *index; /* of texts, once asked for */
} tok_desc;

void tok_desc_init(tok_desc *d);
void tok_desc_release(tok_desc *d);
/* Room for n tokens of type normal without text. `what` begins messages. */
int tok_desc_reserve(tok_desc *d, uint64_t n, ash_err *err) ASH_MUST_CHECK;
/* Grows the list to hold `id`: the new tokens are unused. */
int tok_desc_grow(tok_desc *d, int32_t id, ash_err *err) ASH_MUST_CHECK;
/* Builds the index that tok_desc_find looks in, once all of the main file is read. */
int tok_desc_index(tok_desc *d, ash_err *err) ASH_MUST_CHECK;
int32_t tok_desc_find(const tok_desc *d, ash_str text); /* the lowest id, or -1 */
/* The token `id`, which has a text, is in the index from now on. */
void tok_desc_index_add(tok_desc *d, int32_t id);
int tok_desc_add_token(tok_desc *d, const tok_add *add, ash_err *err) ASH_MUST_CHECK;
int tok_desc_add_end(tok_desc *d, int32_t id, ash_err *err) ASH_MUST_CHECK;
int tok_desc_add_template(tok_desc *d, const tok_template_desc *t, ash_err *err) ASH_MUST_CHECK;
int tok_desc_add_norm(tok_desc *d, const tok_norm_desc *step, ash_err *err) ASH_MUST_CHECK;
int tok_desc_add_stage(tok_desc *d, const tok_stage_desc *stage, ash_err *err) ASH_MUST_CHECK;
/* A line of ash_tokenizer_note. */
void tok_desc_note(tok_desc *d, const char *fmt, ...) ASH_PRINTF(2, 3);
/* A NUL-terminated copy of the description's; NULL without memory. */
const char *tok_desc_copy(tok_desc *d, const char *p, size_t n);

/* ---- readers -------------------------------------------------------------------------------- */

/* Where side files come from: a folder, or memory in tests. `out` as ash_checkpoint_file. */
typedef struct tok_files {
    const char *dir; /* NULL: no folder */
    void *ctx;
    int (*read)(void *ctx, const char *name, size_t max, ash_buf *out, ash_err *err);
} tok_files;

int tok_gguf_read(tok_desc *d, const ash_gguf *g, ash_err *err) ASH_MUST_CHECK;
/* tokenizer.json; ASH_ENOENT if there is none. */
int tok_json_read(tok_desc *d, const tok_files *files, ash_err *err) ASH_MUST_CHECK;
/* Its parts that are small: tokenizer_json_steps.c. Values are borrowed, strings are copied. */
int tok_json_normalizer(tok_desc *d, const json_t *v, ash_err *err) ASH_MUST_CHECK;
int tok_json_pre_tokenizer(tok_desc *d, const json_t *v, ash_err *err) ASH_MUST_CHECK;
int tok_json_decoder(tok_desc *d, const json_t *v, ash_err *err) ASH_MUST_CHECK;
/* Sets bos, eos, adds_bos and adds_eos by the ids that a single sequence gets around it. */
int tok_json_post_processor(tok_desc *d, const json_t *v, ash_err *err) ASH_MUST_CHECK;
/* tokenizer.model; ASH_ENOENT if there is none. */
int tok_sp_read(tok_desc *d, const tok_files *files, ash_err *err) ASH_MUST_CHECK;
/* All other files. `config` (config.json) may be NULL. */
int tok_side_read(tok_desc *d, const tok_files *files, const json_t *config, ash_err *err)
    ASH_MUST_CHECK;
int tok_template_read(tok_desc *d, const tok_files *files, const json_t *tokenizer_config,
                      ash_err *err) ASH_MUST_CHECK;

/* Of the description, which it does not change but for notes. */
int tok_build(tok_desc *d, ash_tokenizer **out, ash_err *err) ASH_MUST_CHECK;
/* A file as JSON; *out NULL with 0 if there is none. */
int tok_files_json(const tok_files *files, const char *name, json_t **out, ash_err *err) ASH_MUST_CHECK;
/* Of side files alone, as ash_tokenizer_open of a checkpoint that is not GGUF. */
int tok_open_files(const tok_files *files, const json_t *config, ash_tokenizer **out,
                   ash_err *err) ASH_MUST_CHECK;

#endif
