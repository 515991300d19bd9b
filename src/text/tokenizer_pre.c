/* Owns the pre-tokenisers of byte-level BPE: how text is cut into words before merging, by the name in
 * `tokenizer.ggml.pre`. Refuses unknown names, listing the known ones.
 *
 * A pre-tokeniser is a list of patterns. Each cuts every piece that the one before it left into its
 * matches and what lies between them ("Isolated" in Hugging Face tokenizers), and sees the piece as a
 * whole text: a look-ahead does not see beyond it. Sources: the tokenizer.json of each family, and
 * llama.cpp's src/llama-vocab.cpp for `default`, which is that project's own.
 *
 * Patterns are compiled once, with JIT where the system allows it; matching is any thread's with its
 * own splitter. All non-ASCII is escaped: an editor that normalises this file must not change it. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_impl.h"

#define MAX_STAGES 6

/* Unicode White_Space, as \s in the originals; PCRE2's own \s adds U+180E. Goes inside a class. */
#define WS                                                                                         \
    "\\x{9}-\\x{D} \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}"      \
    "\\x{3000}"
#define S "[" WS "]"
#define NOT_S "[^" WS "]"

/* The tail that most share: a run of spaces leaves its last one to the word that follows. */
#define SPACES S "+(?!" NOT_S ")|" S "+"
#define GPT2                                                                                       \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|" SPACES
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
#define LLAMA3(digits)                                                                             \
    CONTRACTIONS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|"           \
    S "*[\\r\\n]+|" SPACES
#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
#define TEKKEN                                                                                     \
    "[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]*[" LOWER "]+|"                                                 \
    "[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]+[" LOWER "]*|"                                                 \
    "\\p{N}| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n/]*|" S "*[\\r\\n]+|" SPACES

/* DeepSeek LLM's list of Latin, Greek, Cyrillic, ... letters, with U+2126 and U+212A in it. */
#define DEEPSEEK_LETTERS                                                                           \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}"                 \
    "\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}"         \
    "\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}"                  \
    "\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}"                       \
    "\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}"                 \
    "\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}"                 \
    "\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}"                 \
    "\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}"         \
    "\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}"                           \
    "\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}"                 \
    "\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}"          \
    "\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}"                  \
    "\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}"         \
    "\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}"                  \
    "\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}"                 \
    "\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}"                 \
    "\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}"         \
    "\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"
#define DEEPSEEK_PUNCTUATION                                                                       \
    "!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}"
#define DEEPSEEK_CJK "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"
/* At the end of a piece: `\s+$` of the original, which would be tried again at each blank of a run. */
#define TRAILING_SPACES "(?<!" S ")" S "++\\z"
#define DEEPSEEK_V3                                                                                \
    "[!-/:-@\\[-`{-~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"                              \
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|" S "*[\\r\\n]+|" SPACES

typedef struct tok_pre_def {
    const char *names; /* each between spaces */
    tok_pre_info info;
    const char *stages[MAX_STAGES];
} tok_pre_def;

static const tok_pre_def defs[] = {
    {" default ", {0},
     {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {" gpt-2 ", {0}, {GPT2}},
    {" smollm ", {0}, {"\\p{N}", GPT2}},
    {" llama-bpe llama3 llama-v3 ", {.ignore_merges = true, .adds_bos = true},
     {LLAMA3("\\p{N}{1,3}")}},
    {" qwen2 deepseek-r1-qwen ", {.nfc = true}, {LLAMA3("\\p{N}")}},
    {" tekken ", {.ignore_merges = true, .adds_bos = true}, {TEKKEN}},
    {" deepseek-llm ", {0},
     {"[\\r\\n]", S "?[" DEEPSEEK_LETTERS "]+", S "?[" DEEPSEEK_PUNCTUATION "]+", TRAILING_SPACES,
      DEEPSEEK_CJK, "\\p{N}"}},
    {" deepseek-coder ", {0},
     {"[\\r\\n]", S "?\\p{L}+", S "?\\p{P}+", DEEPSEEK_CJK, "\\p{N}"}},
    {" deepseek-v3 ", {0},
     {"\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+", DEEPSEEK_V3}},
};

struct tok_pre {
    pcre2_code *stages[MAX_STAGES];
    size_t n;
};

struct tok_splitter {
    const tok_pre *pre;
    pcre2_match_context *limits;
    pcre2_match_data *match[MAX_STAGES];
};

static const tok_pre_def *find_def(ash_str name)
{
    char key[64];
    if (name.n + 3 > sizeof key || memchr(name.p, ' ', name.n) || memchr(name.p, 0, name.n))
        return NULL;
    key[0] = ' ';
    memcpy(key + 1, name.p, name.n);
    memcpy(key + 1 + name.n, " ", 2);
    for (size_t i = 0; i < sizeof defs / sizeof *defs; i++)
        if (strstr(defs[i].names, key))
            return &defs[i];
    return NULL;
}

static int unknown_name(ash_str name, ash_err *err)
{
    char known[256], shown[80];
    size_t n = 0;
    for (size_t i = 0; i < sizeof defs / sizeof *defs; i++) {
        size_t len = strlen(defs[i].names) - 1; /* without the last space */
        memcpy(known + n, defs[i].names, len);
        n += len;
    }
    known[n] = 0;
    return ash_err_set(err, ASH_EUNSUPPORTED,
                       "key 'tokenizer.ggml.pre': '%s' is no known pre-tokeniser; known are%s",
                       ash_gguf_show(name, shown), known);
}

static int compile(const char *pattern, pcre2_code **out, ash_err *err)
{
    int code;
    PCRE2_SIZE at;
    *out = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code,
                         &at, NULL);
    if (!*out) {
        char text[120] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
        return code == PCRE2_ERROR_HEAP_FAILED
                   ? ash_err_nomem(err, "pre-tokeniser")
                   : ash_err_at(err, ASH_EINVAL, (int64_t)at, "pre-tokeniser: %s", text);
    }
    /* Where writable code is forbidden this fails and the interpreter serves as well, slower. */
    (void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
    return 0;
}

int tok_pre_open(ash_str name, tok_pre **out, tok_pre_info *info, ash_err *err)
{
    const tok_pre_def *def = find_def(name);
    *out = NULL;
    if (!def)
        return unknown_name(name, err);
    tok_pre *p = calloc(1, sizeof *p);
    if (!p)
        return ash_err_nomem(err, "pre-tokeniser");
    for (int rc; p->n < MAX_STAGES && def->stages[p->n]; p->n++) {
        rc = compile(def->stages[p->n], &p->stages[p->n], err);
        if (rc) {
            tok_pre_close(p);
            return rc;
        }
    }
    *info = def->info;
    *out = p;
    return 0;
}

void tok_pre_close(tok_pre *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < MAX_STAGES; i++) pcre2_code_free(p->stages[i]);
    free(p);
}

int tok_splitter_open(const tok_pre *p, tok_splitter **out, ash_err *err)
{
    tok_splitter *s = calloc(1, sizeof *s);
    bool ok = s != NULL;
    *out = NULL;
    if (ok) {
        s->pre = p;
        s->limits = pcre2_match_context_create(NULL);
        ok = s->limits != NULL;
    }
    for (size_t i = 0; ok && i < p->n; i++) {
        s->match[i] = pcre2_match_data_create(1, NULL);
        ok = s->match[i] != NULL;
    }
    if (!ok) {
        tok_splitter_close(s);
        return ash_err_nomem(err, "splitting into words");
    }
    *out = s;
    return 0;
}

void tok_splitter_close(tok_splitter *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < MAX_STAGES; i++) pcre2_match_data_free(s->match[i]);
    pcre2_match_context_free(s->limits);
    free(s);
}

static int match_error(int code, ash_err *err)
{
    char text[120] = "";
    pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
    if (code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAPLIMIT)
        return ash_err_nomem(err, "splitting into words");
    return ash_err_set(err, ASH_ELIMIT, "splitting the text into words: %s", text);
}

/* Depth is the number of stages, at most MAX_STAGES. */
static int split_stage(tok_splitter *s, size_t stage, const char *p, size_t n, tok_word_fn fn,
                       void *ctx, ash_err *err)
{
    if (stage == s->pre->n)
        return fn(ctx, p, n, err);
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(s->match[stage]);
    for (size_t from = 0; from < n;) {
        int rc = pcre2_match(s->pre->stages[stage], (PCRE2_SPTR)p, n, from, PCRE2_NO_UTF_CHECK,
                             s->match[stage], s->limits);
        if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
            return match_error(rc, err);
        size_t begin = rc < 0 ? n : at[0], end = rc < 0 ? n : at[1];
        if (begin > from)
            rc = split_stage(s, stage + 1, p + from, begin - from, fn, ctx, err);
        else
            rc = 0;
        if (!rc && end > begin)
            rc = split_stage(s, stage + 1, p + begin, end - begin, fn, ctx, err);
        if (rc)
            return rc;
        from = end; /* no pattern matches the empty text */
    }
    return 0;
}

int tok_split(tok_splitter *s, const char *text, size_t n, tok_word_fn fn, void *ctx, ash_err *err)
{
    /* A few steps a byte are enough for every pattern here; a quadratic one would be told. */
    size_t limit = 10000 + 16 * n;
    pcre2_set_match_limit(s->limits, limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX);
    return split_stage(s, 0, text, n, fn, ctx, err);
}
