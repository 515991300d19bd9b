/* Owns a tokenizer as a whole: opening from a GGUF file, special ids, and the way of a text through
 * added tokens and fragments to ids. Refuses other models than gpt2 and llama. Immutable after open. */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/tokenizer_impl.h"

#define MAX_TOKENIZER_BYTES ((size_t)3 << 30)

/* ---- ids ------------------------------------------------------------------------------------ */

int ash_ids_add(ash_ids *ids, int32_t id, ash_err *err)
{
    if (ids->max && ids->n >= ids->max)
        return ash_err_set(err, ASH_ELIMIT, "the text has more than %zu tokens", ids->max);
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? ids->cap + ids->cap / 2 : 64;
        int32_t *p = realloc(ids->p, cap * sizeof *p);
        if (!p)
            return ash_err_nomem(err, "token ids");
        ids->p = p;
        ids->cap = cap;
    }
    ids->p[ids->n++] = id;
    return 0;
}

void ash_ids_release(ash_ids *ids)
{
    free(ids->p);
    *ids = (ash_ids){.max = ids->max};
}

/* ---- opening -------------------------------------------------------------------------------- */

/* Tokens that end a turn in one family or another, for files whose eos is not the one that the
 * template uses (llama.cpp guesses the same way). Only special or user-defined tokens count. */
static const char *const turn_ends[] = {
    "<|im_end|>",      "<|eot_id|>",  "<|eom_id|>", "<|end|>",        "<|endoftext|>",
    "<|end_of_text|>", "<EOT>",       "<|EOT|>",    "<end_of_turn>",  "<|end_of_turn|>",
    "<|return|>",      "<|call|>",    "<|eot|>",    "<|END_OF_TURN_TOKEN|>",
    ("<\xef\xbd\x9c"
     "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"), /* DeepSeek's EOS */
};

static bool is_added(const ash_tokenizer *t, int32_t id)
{
    uint8_t type = t->vocab.type[id];
    return type == TOKEN_CONTROL || type == TOKEN_USER || type == TOKEN_UNKNOWN;
}

/* An id from the file; absent, -1 (also as 0xFFFFFFFF) or beyond the vocabulary: `otherwise`. */
static int special_id(const ash_tokenizer *t, const ash_gguf *g, const char *key, int32_t otherwise,
                      int32_t *out, ash_err *err)
{
    int64_t id = -1;
    int rc = ash_gguf_get_i64(g, key, INT64_MIN, INT64_MAX, &id, err);
    *out = id >= 0 && (uint64_t)id < t->vocab.n ? (int32_t)id : otherwise;
    return rc;
}

/* The default of files that leave a key out, if that token is one that could mean it. */
static int32_t default_id(const ash_tokenizer *t, int32_t id)
{
    return (size_t)id < t->vocab.n && is_added(t, id) ? id : -1;
}

static int read_ids(ash_tokenizer *t, const ash_gguf *g, int32_t *eom, ash_err *err)
{
    bool spm = t->model == TOK_SPM;
    int32_t bos = default_id(t, spm ? 1 : 11), eos = default_id(t, spm ? 2 : 11);
    int rc = special_id(t, g, "tokenizer.ggml.bos_token_id", bos, &t->bos, err);
    if (!rc)
        rc = special_id(t, g, "tokenizer.ggml.eos_token_id", eos, &t->eos, err);
    if (!rc)
        rc = special_id(t, g, "tokenizer.ggml.unknown_token_id", spm ? default_id(t, 0) : -1,
                        &t->unk, err);
    if (!rc)
        rc = special_id(t, g, "tokenizer.ggml.padding_token_id", -1, &t->pad, err);
    if (!rc)
        rc = special_id(t, g, "tokenizer.ggml.eot_token_id", -1, &t->eot, err);
    if (!rc)
        rc = special_id(t, g, "tokenizer.ggml.eom_token_id", -1, eom, err);
    t->adds_bos = spm || t->bpe.info.adds_bos;
    if (!rc)
        rc = ash_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &t->adds_bos, err);
    if (!rc)
        rc = ash_gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &t->adds_eos, err);
    t->adds_bos = t->adds_bos && t->bos >= 0;
    t->adds_eos = t->adds_eos && t->eos >= 0;
    return rc;
}

static void add_eog(ash_tokenizer *t, int32_t id)
{
    size_t at = 0;
    if (id < 0)
        return;
    while (at < t->n_eog && t->eog[at] < id) at++;
    if (at < t->n_eog && t->eog[at] == id)
        return;
    memmove(t->eog + at + 1, t->eog + at, (t->n_eog - at) * sizeof *t->eog);
    t->eog[at] = id;
    t->n_eog++;
}

static int find_turn_ends(ash_tokenizer *t, int32_t eom, ash_err *err)
{
    size_t n = sizeof turn_ends / sizeof *turn_ends;
    t->eog = ash_arena_calloc(&t->arena, n + 3, sizeof *t->eog);
    if (!t->eog)
        return ash_err_nomem(err, "tokenizer");
    for (size_t i = 0; i < n; i++) {
        int32_t id = tok_vocab_find(&t->vocab, turn_ends[i], strlen(turn_ends[i]));
        if (id < 0 || !is_added(t, id))
            continue;
        add_eog(t, id);
        if (t->eot < 0 && i < 2) /* the two that are an end of turn wherever they occur */
            t->eot = id;
    }
    add_eog(t, t->eos);
    add_eog(t, t->eot);
    add_eog(t, eom);
    return 0;
}

static int copy_template(ash_tokenizer *t, const ash_gguf *g, ash_err *err)
{
    ash_str s = {0};
    int rc = ash_gguf_get_str(g, "tokenizer.chat_template", &s, err);
    if (rc || !s.p)
        return rc;
    char *p = ash_arena_strndup(&t->arena, s.p, s.n);
    if (!p)
        return ash_err_nomem(err, "chat template");
    t->chat_template = (ash_str){p, s.n};
    t->has_template = true;
    return 0;
}

static int read_model(ash_tokenizer *t, const ash_gguf *g, ash_err *err)
{
    ash_str model;
    char shown[80];
    int rc = ash_gguf_need_str(g, "tokenizer.ggml.model", &model, err);
    if (rc)
        return rc;
    t->model = ash_str_eqc(model, "llama") ? TOK_SPM : TOK_BPE;
    if (t->model == TOK_BPE && !ash_str_eqc(model, "gpt2"))
        return ash_err_set(err, ASH_EUNSUPPORTED,
                           "%s: key 'tokenizer.ggml.model': only 'gpt2' and 'llama' are read, not "
                           "'%s'", ash_gguf_path(g), ash_gguf_show(model, shown));
    rc = tok_vocab_read(&t->vocab, t->model, g, &t->arena, err);
    if (!rc)
        rc = t->model == TOK_BPE ? tok_bpe_read(t, g, err) : tok_spm_read(t, g, err);
    if (!rc)
        rc = tok_added_build(&t->added, &t->vocab, &t->arena, err);
    t->longest_piece = 1;
    for (size_t i = 0; i < t->vocab.n && !rc; i++) {
        size_t n = tok_vocab_piece(&t->vocab, (int32_t)i).n;
        t->longest_piece = n > t->longest_piece ? n : t->longest_piece;
    }
    return rc;
}

int ash_tokenizer_open_gguf(const ash_gguf *g, ash_tokenizer **out, ash_err *err)
{
    int32_t eom = -1;
    *out = NULL;
    ash_tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return ash_err_nomem(err, "tokenizer");
    ash_arena_init(&t->arena, MAX_TOKENIZER_BYTES);
    int rc = read_model(t, g, err);
    if (!rc)
        rc = read_ids(t, g, &eom, err);
    if (!rc)
        rc = find_turn_ends(t, eom, err);
    if (!rc)
        rc = copy_template(t, g, err);
    if (rc)
        ash_tokenizer_close(t);
    else
        *out = t;
    return rc;
}

void ash_tokenizer_close(ash_tokenizer *t)
{
    if (!t)
        return;
    tok_pre_close(t->bpe.pre);
    ash_arena_release(&t->arena);
    free(t);
}

/* ---- encoding ------------------------------------------------------------------------------- */

/* A text with its spans, as encoding needs it: valid UTF-8. */
typedef struct input {
    const char *text;
    size_t n;
    const ash_span *spans;
    size_t n_spans;
    bool special;
    ash_buf clean;     /* the text with U+FFFD in it, if it had to be changed */
    ash_span *shifted; /* the spans in it */
} input;

/* Writes U+FFFD for what is not UTF-8 and moves the spans along. */
static int clean_text(input *in, ash_err *err)
{
    ash_buf_init(&in->clean, (size_t)3 * ASH_MAX_TEXT);
    in->shifted = calloc(in->n_spans ? in->n_spans : 1, sizeof *in->shifted);
    if (!in->shifted)
        return ash_err_nomem(err, "text");
    size_t b = 0, e = 0;
    for (size_t i = 0, step; i <= in->n; i += step) {
        uint32_t cp;
        bool ok;
        step = i < in->n ? ash_utf8_decode(in->text + i, in->n - i, &cp, &ok) : 1;
        /* a border inside a character moves outwards: more is untrusted, never less */
        while (b < in->n_spans && in->spans[b].begin < i + step)
            in->shifted[b++].begin = in->clean.len;
        while (e < in->n_spans && in->spans[e].end <= i) in->shifted[e++].end = in->clean.len;
        if (i < in->n && ok)
            ash_buf_add(&in->clean, in->text + i, step);
        else if (i < in->n)
            ash_buf_adds(&in->clean, "\xef\xbf\xbd");
        while (e < in->n_spans && in->spans[e].end < i + step) in->shifted[e++].end = in->clean.len;
    }
    int rc = ash_buf_check(&in->clean, "text", err);
    in->text = in->clean.data;
    in->n = in->clean.len;
    in->spans = in->shifted;
    return rc;
}

static int check_spans(const input *in, ash_err *err)
{
    size_t last = 0;
    for (size_t i = 0; i < in->n_spans; i++) {
        if (in->spans[i].begin < last || in->spans[i].end < in->spans[i].begin ||
            in->spans[i].end > in->n)
            return ash_err_set(err, ASH_EINVAL, "range %zu of untrusted text, %zu to %zu, is out of "
                               "order or beyond the text's %zu bytes", i, in->spans[i].begin,
                               in->spans[i].end, in->n);
        last = in->spans[i].end;
    }
    return 0;
}

static int check_size(const ash_tokenizer *t, size_t n, const ash_ids *out, ash_err *err)
{
    if (n > ASH_MAX_TEXT)
        return ash_err_set(err, ASH_ELIMIT, "the text has %zu bytes; at most %u are tokenised", n,
                           ASH_MAX_TEXT);
    /* Every byte of it must be in some token, so that many tokens it has at least. Bytes that a
     * vocabulary lacks, and normalisation, can make it fewer: hence the factor. */
    if (out->max && n / t->longest_piece / 4 > out->max)
        return ash_err_set(err, ASH_ELIMIT, "the text has more than %zu tokens", out->max);
    return 0;
}

static int encode_fragment(const ash_tokenizer *t, const char *text, size_t n, tok_work *w,
                           tok_splitter *s, ash_ids *out, ash_err *err)
{
    if (n == 0)
        return 0;
    return t->model == TOK_BPE ? tok_bpe_encode(t, text, n, w, s, out, err)
                               : tok_spm_encode(t, text, n, w, out, err);
}

static int encode_text(const ash_tokenizer *t, const input *in, ash_ids *out, ash_err *err)
{
    tok_work w = {0};
    tok_splitter *s = NULL;
    tok_match m;
    size_t at = 0, span = 0;
    ash_buf_init(&w.text, (size_t)4 * ASH_MAX_TEXT);
    int rc = t->model == TOK_BPE ? tok_splitter_open(t->bpe.pre, &s, err) : 0;
    while (!rc && tok_added_next(&t->added, &t->vocab, in->text, in->n, at, in->special, in->spans,
                                 in->n_spans, &span, &m)) {
        rc = encode_fragment(t, in->text + at, m.begin - at, &w, s, out, err);
        if (!rc)
            rc = ash_ids_add(out, m.id, err);
        at = m.end;
    }
    if (!rc)
        rc = encode_fragment(t, in->text + at, in->n - at, &w, s, out, err);
    tok_splitter_close(s);
    tok_work_release(&w);
    return rc;
}

int ash_tokenizer_encode(const ash_tokenizer *t, const char *text, size_t n, unsigned flags,
                         const ash_span *untrusted, size_t n_untrusted, ash_ids *out, ash_err *err)
{
    input in = {.text = text, .n = n, .spans = untrusted, .n_spans = n_untrusted,
                .special = (flags & ASH_ENCODE_SPECIAL) != 0};
    size_t before = out->n;
    int rc = check_size(t, n, out, err);
    if (!rc)
        rc = check_spans(&in, err);
    if (!rc && !ash_utf8_valid(text, n))
        rc = clean_text(&in, err);
    if (!rc && (flags & ASH_ENCODE_BOS_EOS) && t->adds_bos)
        rc = ash_ids_add(out, t->bos, err);
    if (!rc)
        rc = encode_text(t, &in, out, err);
    if (!rc && (flags & ASH_ENCODE_BOS_EOS) && t->adds_eos)
        rc = ash_ids_add(out, t->eos, err);
    if (rc)
        out->n = before;
    ash_buf_release(&in.clean);
    free(in.shifted);
    return rc;
}

/* ---- looking up ----------------------------------------------------------------------------- */

size_t ash_tokenizer_n_vocab(const ash_tokenizer *t)
{
    return t->vocab.n;
}

bool ash_tokenizer_piece(const ash_tokenizer *t, int32_t id, ash_str *out)
{
    bool known = id >= 0 && (size_t)id < t->vocab.n;
    *out = known ? tok_vocab_piece(&t->vocab, id) : (ash_str){"", 0};
    return known;
}

bool ash_tokenizer_is_special(const ash_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->vocab.n &&
           (t->vocab.type[id] == TOKEN_CONTROL || t->vocab.type[id] == TOKEN_UNKNOWN);
}

bool ash_tokenizer_is_eog(const ash_tokenizer *t, int32_t id)
{
    for (size_t i = 0; i < t->n_eog; i++)
        if (t->eog[i] == id)
            return true;
    return false;
}

const int32_t *ash_tokenizer_eog(const ash_tokenizer *t, size_t *n)
{
    *n = t->n_eog;
    return t->eog;
}

int32_t ash_tokenizer_bos(const ash_tokenizer *t)
{
    return t->bos;
}

int32_t ash_tokenizer_eos(const ash_tokenizer *t)
{
    return t->eos;
}

int32_t ash_tokenizer_eot(const ash_tokenizer *t)
{
    return t->eot;
}

int32_t ash_tokenizer_unk(const ash_tokenizer *t)
{
    return t->unk;
}

int32_t ash_tokenizer_pad(const ash_tokenizer *t)
{
    return t->pad;
}

bool ash_tokenizer_adds_bos(const ash_tokenizer *t)
{
    return t->adds_bos;
}

bool ash_tokenizer_adds_eos(const ash_tokenizer *t)
{
    return t->adds_eos;
}

int32_t ash_tokenizer_find(const ash_tokenizer *t, const char *text, size_t n)
{
    return tok_vocab_find(&t->vocab, text, n);
}

bool ash_tokenizer_chat_template(const ash_tokenizer *t, ash_str *out)
{
    *out = t->has_template ? t->chat_template : (ash_str){"", 0};
    return t->has_template;
}
