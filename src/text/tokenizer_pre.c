/* Owns pre-tokenisers: how text is cut into words before merging, by the name in `tokenizer.ggml.pre`
 * or by the list of stages in a tokenizer.json. Refuses unknown names, listing the known ones.
 *
 * Each stage cuts every piece that the one before it left, and sees the piece as a whole text: a
 * look-ahead does not see beyond it. Those of the known names are patterns whose matches and what lies
 * between become pieces ("Isolated" in Hugging Face tokenizers). Sources: the tokenizer.json of each
 * family, and llama.cpp's src/llama-vocab.cpp for `default`, which is that project's own.
 *
 * Immutable after opening; splitting is any thread's with its own splitter. All non-ASCII is escaped:
 * an editor that normalises this file must not change it. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_impl.h"

#define MAX_STAGES 6 /* of a known name */

#define WS TOK_WS
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

typedef struct tok_stage {
    tok_stage_kind kind;
    tok_behaviour behaviour;
    tok_prepend prepend;
    bool invert, split;
    ash_str text;  /* STAGE_STRING, STAGE_META */
    tok_regex *re; /* STAGE_REGEX, STAGE_ONIG */
} tok_stage;

struct tok_pre {
    tok_stage stages[TOK_MAX_STEPS];
    size_t n;
};

struct tok_splitter {
    const tok_pre *pre;
    tok_matcher *matcher;
    ash_buf changed[TOK_MAX_STEPS]; /* the piece that a stage changed */
    bool at_start;
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

/* ---- opening -------------------------------------------------------------------------------- */

static int open_stage(tok_stage *s, const tok_stage_desc *d, ash_err *err)
{
    *s = (tok_stage){.kind = d->kind, .behaviour = d->behaviour, .prepend = d->prepend,
                     .invert = d->invert, .split = d->split};
    if (d->kind == STAGE_REGEX || d->kind == STAGE_ONIG)
        return tok_regex_open(d->pattern, d->kind == STAGE_REGEX, &s->re, err);
    char *text = malloc(d->pattern.n + 1);
    if (!text)
        return ash_err_nomem(err, "pre-tokeniser");
    memcpy(text, d->pattern.n ? d->pattern.p : "", d->pattern.n);
    s->text = (ash_str){text, d->pattern.n};
    return 0;
}

int tok_pre_open_stages(const tok_stage_desc *stages, size_t n, tok_pre **out, ash_err *err)
{
    int rc = 0;
    *out = NULL;
    tok_pre *p = calloc(1, sizeof *p);
    if (!p)
        return ash_err_nomem(err, "pre-tokeniser");
    for (; p->n < n && !rc; p->n++) rc = open_stage(&p->stages[p->n], &stages[p->n], err);
    if (rc)
        tok_pre_close(p);
    else
        *out = p;
    return rc;
}

int tok_pre_open(ash_str name, tok_pre **out, tok_pre_info *info, ash_err *err)
{
    const tok_pre_def *def = find_def(name);
    tok_stage_desc stages[MAX_STAGES];
    size_t n = 0;
    *out = NULL;
    if (!def)
        return unknown_name(name, err);
    for (; n < MAX_STAGES && def->stages[n]; n++)
        stages[n] = (tok_stage_desc){.kind = STAGE_REGEX, .pattern = ash_str_from(def->stages[n])};
    *info = def->info;
    return tok_pre_open_stages(stages, n, out, err);
}

int tok_pre_known(ash_str name, tok_desc *d, tok_pre_info *info, ash_err *err)
{
    const tok_pre_def *def = find_def(name);
    int rc = def ? 0 : unknown_name(name, err);
    for (size_t i = 0; !rc && i < MAX_STAGES && def->stages[i]; i++)
        rc = tok_desc_add_stage(d, &(tok_stage_desc){.kind = STAGE_REGEX,
                                .pattern = ash_str_from(def->stages[i])}, err);
    if (!rc)
        *info = def->info;
    return rc;
}

ash_str tok_pre_gpt2(void)
{
    return ASH_STR(GPT2);
}

void tok_pre_close(tok_pre *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n; i++) {
        tok_regex_close(p->stages[i].re);
        free((char *)p->stages[i].text.p);
    }
    free(p);
}

int tok_splitter_open(const tok_pre *p, tok_splitter **out, ash_err *err)
{
    tok_splitter *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return ash_err_nomem(err, "splitting into words");
    s->pre = p;
    for (size_t i = 0; i < TOK_MAX_STEPS; i++) ash_buf_init(&s->changed[i], (size_t)4 * ASH_MAX_TEXT);
    int rc = tok_matcher_open(&s->matcher, err);
    if (rc)
        tok_splitter_close(s);
    else
        *out = s;
    return rc;
}

void tok_splitter_close(tok_splitter *s)
{
    if (!s)
        return;
    tok_matcher_close(s->matcher);
    for (size_t i = 0; i < TOK_MAX_STEPS; i++) ash_buf_release(&s->changed[i]);
    free(s);
}

/* ---- splitting ------------------------------------------------------------------------------ */

/* One piece on its way through stage `i`, and what waits to be joined with its neighbour. */
typedef struct piece {
    tok_splitter *s;
    size_t i;
    const char *p;
    size_t n;
    bool at_start; /* of the text that is encoded */
    tok_word_fn fn;
    void *ctx;
    size_t begin, end; /* waiting */
    bool waits, last_matched;
} piece;

static int split_stage(tok_splitter *s, size_t i, const char *p, size_t n, bool at_start,
                       tok_word_fn fn, void *ctx, ash_err *err);

static int emit(const piece *c, size_t begin, size_t end, ash_err *err)
{
    return end == begin ? 0
                        : split_stage(c->s, c->i + 1, c->p + begin, end - begin,
                                      c->at_start && begin == 0, c->fn, c->ctx, err);
}

static int flush(piece *c, ash_err *err)
{
    bool waits = c->waits;
    c->waits = false;
    return waits ? emit(c, c->begin, c->end, err) : 0;
}

static int wait_for(piece *c, size_t begin, size_t end, ash_err *err)
{
    int rc = flush(c, err);
    c->begin = begin;
    c->end = end;
    c->waits = true;
    return rc;
}

/* A match or what lies between two, in order. `tokenizers` joins one match only with a neighbour that
 * is none: of a row of matches the first goes to the previous one, the last to the next. */
static int add_part(piece *c, size_t begin, size_t end, bool matched, ash_err *err)
{
    const tok_stage *stage = &c->s->pre->stages[c->i];
    bool last = c->last_matched;
    matched = matched != stage->invert;
    c->last_matched = matched;
    switch (stage->behaviour) {
    case SPLIT_ISOLATED: return emit(c, begin, end, err);
    case SPLIT_REMOVED: return matched ? 0 : emit(c, begin, end, err);
    case SPLIT_WITH_PREVIOUS:
        if (!matched || last || !c->waits)
            return wait_for(c, begin, end, err);
        c->end = end;
        return 0;
    case SPLIT_WITH_NEXT:
        if (matched || !c->waits || !last)
            return wait_for(c, begin, end, err);
        c->end = end;
        return flush(c, err);
    case SPLIT_CONTIGUOUS:
        if (matched != last || !c->waits)
            return wait_for(c, begin, end, err);
        c->end = end;
        return 0;
    }
    return 0;
}

static int find(const piece *c, const tok_stage *stage, size_t from, size_t *begin, size_t *end,
                ash_err *err)
{
    if (stage->re)
        return tok_matcher_find(c->s->matcher, stage->re, c->p, c->n, from, begin, end, err);
    const char *hit = from < c->n ? memmem(c->p + from, c->n - from, stage->text.p, stage->text.n)
                                  : NULL;
    *begin = hit ? (size_t)(hit - c->p) : 0;
    *end = *begin + stage->text.n;
    return hit != NULL;
}

/* All matches; an empty one right behind another match is none. */
static int split_matches(piece *c, const tok_stage *stage, ash_err *err)
{
    size_t done = 0, from = 0, begin, end;
    bool any = false;
    while (from <= c->n) {
        int rc = find(c, stage, from, &begin, &end, err);
        if (rc < 0)
            return rc;
        if (!rc)
            break;
        if (begin == end && any && begin == done) {
            for (from++; from < c->n && ((unsigned char)c->p[from] & 0xC0) == 0x80;) from++;
            continue;
        }
        rc = begin > done ? add_part(c, done, begin, false, err) : 0;
        if (!rc)
            rc = add_part(c, begin, end, true, err);
        if (rc)
            return rc;
        done = from = end;
        any = true;
    }
    int rc = done < c->n ? add_part(c, done, c->n, false, err) : 0;
    return rc ? rc : flush(c, err);
}

/* The piece with its spaces replaced and perhaps something put before, then cut before each of what
 * they became. */
static int split_meta(piece *c, const tok_stage *stage, ash_err *err)
{
    ash_buf *b = &c->s->changed[c->i];
    ash_str meta = stage->text;
    bool starts = c->p[0] == ' ' || (c->n >= meta.n && memcmp(c->p, meta.p, meta.n) == 0);
    ash_buf_clear(b);
    if (!starts && (stage->prepend == PREPEND_ALWAYS ||
                    (stage->prepend == PREPEND_FIRST && c->at_start)))
        ash_buf_addstr(b, meta);
    for (size_t i = 0; i < c->n;) {
        const char *space = memchr(c->p + i, ' ', c->n - i);
        size_t run = space ? (size_t)(space - c->p) - i : c->n - i;
        ash_buf_add(b, c->p + i, run);
        if (space)
            ash_buf_addstr(b, meta);
        i += run + (space != NULL);
    }
    int rc = ash_buf_check(b, "split text", err);
    if (rc)
        return rc;
    c->p = b->data;
    c->n = b->len;
    return stage->split ? split_matches(c, stage, err) : emit(c, 0, c->n, err);
}

static int split_space(piece *c, ash_err *err)
{
    ash_buf *b = &c->s->changed[c->i];
    if (c->p[0] != ' ') {
        ash_buf_clear(b);
        ash_buf_addc(b, ' ');
        ash_buf_add(b, c->p, c->n);
        int rc = ash_buf_check(b, "split text", err);
        if (rc)
            return rc;
        c->p = b->data;
        c->n = b->len;
    }
    return emit(c, 0, c->n, err);
}

/* A piece, not empty. Depth is the number of stages, at most TOK_MAX_STEPS. */
static int split_stage(tok_splitter *s, size_t i, const char *p, size_t n, bool at_start,
                       tok_word_fn fn, void *ctx, ash_err *err)
{
    if (i == s->pre->n)
        return fn(ctx, p, n, err);
    const tok_stage *stage = &s->pre->stages[i];
    piece c = {.s = s, .i = i, .p = p, .n = n, .at_start = at_start, .fn = fn, .ctx = ctx};
    switch (stage->kind) {
    case STAGE_META: return split_meta(&c, stage, err);
    case STAGE_SPACE: return split_space(&c, err);
    default: return split_matches(&c, stage, err);
    }
}

void tok_splitter_at_start(tok_splitter *s, bool at_start)
{
    s->at_start = at_start;
}

int tok_split(tok_splitter *s, const char *text, size_t n, tok_word_fn fn, void *ctx, ash_err *err)
{
    tok_matcher_allow(s->matcher, n);
    return n ? split_stage(s, 0, text, n, s->at_start, fn, ctx, err) : 0;
}
