/* Owns the way of a text through added tokens, normalisation and fragments to ids, and what can be
 * asked of a tokenizer. Immutable after open. */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/tokenizer_impl.h"

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
    if (!t->shrinks && out->max && n / t->longest_piece / 4 > out->max)
        return ash_err_set(err, ASH_ELIMIT, "the text has more than %zu tokens", out->max);
    return 0;
}

/* One call's scratch. */
typedef struct encoder {
    const ash_tokenizer *t;
    const input *in;
    tok_work work;
    tok_norm_work norm;
    tok_splitter *splitter;
    size_t normal_span; /* how far in->spans the normalised fragments have come */
    ash_ids *out;
} encoder;

/* What no added token is in, normalised. */
static int encode_piece(encoder *e, const char *text, size_t n, bool at_start, ash_err *err)
{
    if (n == 0)
        return 0;
    if (e->t->model == TOK_SPM)
        return tok_spm_encode(e->t, text, n, &e->work, e->out, err);
    tok_splitter_at_start(e->splitter, at_start);
    return tok_bpe_encode(e->t, text, n, &e->work, e->splitter, e->out, err);
}

/* text[begin..end) of the input, between tokens that are matched there. */
static int encode_fragment(encoder *e, size_t begin, size_t end, ash_err *err)
{
    const ash_tokenizer *t = e->t;
    const input *in = e->in;
    const tok_text *form = NULL;
    tok_search s = {.text = in->text + begin, .n = end - begin, .special = in->special,
                    .spans = in->spans, .n_spans = in->n_spans, .span = e->normal_span};
    tok_match m;
    bool at_start = begin == 0, mapped = in->n_spans && in->special && t->added_normal.any_markup;
    int rc = 0;
    if (begin == end)
        return 0;
    if (t->norm.n || mapped) {
        rc = tok_normalize(&t->norm, &e->norm, s.text, s.n, begin, mapped, &form, err);
        if (rc)
            return rc;
        s.text = form->text.data;
        s.n = form->text.len;
        s.map = mapped ? form : NULL;
        at_start = at_start && !form->moved;
    }
    while (!rc && tok_added_next(&t->added_normal, &s, &m)) {
        rc = encode_piece(e, s.text + s.done, m.begin - s.done, at_start && s.done == 0, err);
        if (!rc)
            rc = ash_ids_add(e->out, m.id, err);
        s.done = m.end;
    }
    e->normal_span = s.span;
    return rc ? rc : encode_piece(e, s.text + s.done, s.n - s.done, at_start && s.done == 0, err);
}

static int encode_text(const ash_tokenizer *t, const input *in, ash_ids *out, ash_err *err)
{
    encoder e = {.t = t, .in = in, .out = out};
    tok_search s = {.text = in->text, .n = in->n, .special = in->special, .spans = in->spans,
                    .n_spans = in->n_spans};
    tok_match m;
    tok_norm_work_init(&e.norm);
    int rc = t->model == TOK_SPM ? 0 : tok_splitter_open(t->pre, &e.splitter, err);
    while (!rc && tok_added_next(&t->added, &s, &m)) {
        rc = encode_fragment(&e, s.done, m.begin, err);
        if (!rc)
            rc = ash_ids_add(out, m.id, err);
        s.done = m.end;
    }
    if (!rc)
        rc = encode_fragment(&e, s.done, s.n, err);
    tok_splitter_close(e.splitter);
    tok_norm_work_release(&e.norm);
    tok_work_release(&e.work);
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

const char *ash_tokenizer_from(const ash_tokenizer *t)
{
    return t->from;
}

const char *ash_tokenizer_note(const ash_tokenizer *t)
{
    return t->note;
}

static const tok_template_desc *find_template(const ash_tokenizer *t, const char *name)
{
    for (size_t i = 0; i < t->n_templates; i++)
        if (ash_str_eqc(t->templates[i].name, name))
            return &t->templates[i];
    return NULL;
}

bool ash_tokenizer_named_template(const ash_tokenizer *t, const char *name, ash_str *out)
{
    const tok_template_desc *found = find_template(t, name);
    *out = found ? found->text : (ash_str){"", 0};
    return found != NULL;
}

bool ash_tokenizer_chat_template(const ash_tokenizer *t, ash_str *out)
{
    return ash_tokenizer_named_template(t, "default", out);
}

const char *ash_tokenizer_template_from(const ash_tokenizer *t)
{
    const tok_template_desc *found = find_template(t, "default");
    return found ? found->from : "none";
}
