/* Owns the reading of tokenizer.json (Hugging Face `tokenizers`) into a description: the model's
 * vocabulary and merges, added tokens; its steps are read in tokenizer_json_steps.c. Refuses other
 * models than BPE, and settings of BPE that the model families do not use, by name. Truncation and
 * padding are ignored: they are the caller's business. */
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "text/tokenizer_impl.h"
#include "text/tokenizer_skim.h"

#define FILE_NAME "tokenizer.json"
#define MAX_FILE (256u << 20)
#define MAX_PART (4u << 20)      /* bytes of a normaliser, pre-tokeniser, ... */
#define MAX_ADDED_ITEM (64u << 10)

typedef struct parts {
    ash_str added_tokens, normalizer, pre_tokenizer, post_processor, decoder, model;
} parts;

typedef struct model_parts {
    ash_str type, vocab, merges, unk_token, dropout, prefix, suffix, fuse_unk, byte_fallback,
        ignore_merges;
} model_parts;

typedef struct slot {
    const char *name;
    ash_str *value;
} slot;

/* The named members of an object; others are passed over. */
static int read_members(ash_str text, const slot *slots, size_t n, const char *where, ash_err *err)
{
    tok_skim s;
    ash_str key, value;
    int rc = tok_skim_enter(&s, text, '{', err);
    while (!rc && (rc = tok_skim_next(&s, &key, err)) > 0) {
        rc = tok_skim_value(&s, &value, err);
        for (size_t i = 0; i < n && !rc; i++) {
            if (!ash_str_eqc(key, slots[i].name))
                continue;
            if (slots[i].value->p)
                rc = ash_err_set(err, ASH_EFORMAT, "'%s' is there twice", slots[i].name);
            *slots[i].value = value;
        }
    }
    return rc ? (ash_err_prefix(err, "%s", where), rc) : 0;
}

static bool is_set(ash_str value)
{
    return value.p && !ash_str_eqc(value, "null");
}

/* ---- vocabulary ----------------------------------------------------------------------------- */

typedef struct vocab_entry {
    ash_str key; /* between its quotes */
    uint32_t id;
} vocab_entry;

/* At most so many members or items has an object or array: one more than it has commas. Never more than
 * the cap and one, which is enough to be refused. */
static size_t most_items(ash_str text)
{
    size_t n = 1;
    const char *p = text.p, *end = text.p + text.n;
    for (; n <= ASH_MAX_VOCAB && (p = memchr(p, ',', (size_t)(end - p))); p++) n++;
    return n;
}

/* The members of model.vocab, a list of *count of the arena's; *n becomes one more than the largest id
 * if that is larger. */
static int list_vocab(tok_desc *d, ash_str vocab, vocab_entry **list, size_t *count, uint64_t *n,
                      ash_err *err)
{
    tok_skim s;
    ash_str value;
    size_t most = most_items(vocab);
    vocab_entry *e = *list = ash_arena_alloc(&d->arena, most * sizeof *e);
    if (!e)
        return ash_err_nomem(err, "vocabulary");
    int rc = tok_skim_enter(&s, vocab, '{', err);
    for (*count = 0; !rc && (rc = tok_skim_next(&s, &e->key, err)) > 0; e++) {
        rc = tok_skim_value(&s, &value, err);
        if (!rc)
            rc = tok_skim_id(value, ASH_MAX_VOCAB - 1, &e->id, err);
        if (!rc && ++*count == most && most > ASH_MAX_VOCAB)
            rc = ash_err_set(err, ASH_ELIMIT, "more than %u tokens", ASH_MAX_VOCAB);
        if (!rc && e->id >= *n)
            *n = (uint64_t)e->id + 1;
    }
    return rc;
}

static int place_vocab(tok_desc *d, const vocab_entry *list, size_t count, ash_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < count && !rc; i++) {
        ash_str *text = &d->text[list[i].id];
        if (text->n)
            rc = ash_err_set(err, ASH_EFORMAT, "the id %u is given to two tokens", list[i].id);
        else
            rc = tok_skim_text(list[i].key, &d->arena, text, err);
    }
    return rc;
}

/* ---- merges --------------------------------------------------------------------------------- */

static int bad_merge(size_t i, ash_err *err)
{
    return ash_err_set(err, ASH_EFORMAT, "entry %zu must be two tokens: \"a b\" or [\"a\", \"b\"]", i);
}

/* "a b" with one space. */
static int split_merge(tok_desc *d, ash_str value, size_t i, tok_merge_desc *m, ash_err *err)
{
    ash_str raw, text;
    int rc = tok_skim_string(value, &raw, err);
    if (!rc)
        rc = tok_skim_text(raw, &d->arena, &text, err);
    if (rc)
        return rc;
    const char *space = memchr(text.p, ' ', text.n);
    if (!space || memchr(space + 1, ' ', text.n - (size_t)(space + 1 - text.p)))
        return bad_merge(i, err);
    m->left = (ash_str){text.p, (size_t)(space - text.p)};
    m->right = (ash_str){space + 1, text.n - m->left.n - 1};
    return 0;
}

static int pair_merge(tok_desc *d, ash_str value, size_t i, tok_merge_desc *m, ash_err *err)
{
    tok_skim s;
    ash_str item, raw;
    size_t n = 0;
    int rc = tok_skim_enter(&s, value, '[', err);
    while (!rc && (rc = tok_skim_next(&s, NULL, err)) > 0) {
        rc = n == 2 ? bad_merge(i, err) : tok_skim_value(&s, &item, err);
        if (!rc)
            rc = tok_skim_string(item, &raw, err);
        if (!rc)
            rc = tok_skim_text(raw, &d->arena, n ? &m->right : &m->left, err);
        n++;
    }
    return !rc && n != 2 ? bad_merge(i, err) : rc;
}

static int count_items(ash_str list, size_t *n, ash_err *err)
{
    tok_skim s;
    ash_str value;
    int rc = tok_skim_enter(&s, list, '[', err);
    while (!rc && (rc = tok_skim_next(&s, NULL, err)) > 0) {
        rc = tok_skim_value(&s, &value, err);
        ++*n;
    }
    return rc;
}

static int read_merges(tok_desc *d, ash_str merges, ash_err *err)
{
    tok_skim s;
    ash_str value;
    size_t most = most_items(merges), n = 0;
    int rc = most > ASH_MAX_VOCAB ? count_items(merges, &n, err) : 0;
    if (!rc && n > ASH_MAX_VOCAB)
        rc = ash_err_set(err, ASH_ELIMIT, "has %zu entries; at most %u", n, ASH_MAX_VOCAB);
    if (rc)
        return rc;
    d->merges = ash_arena_alloc(&d->arena, most * sizeof *d->merges);
    if (!d->merges)
        return ash_err_nomem(err, "merges");
    rc = tok_skim_enter(&s, merges, '[', err);
    while (!rc && (rc = tok_skim_next(&s, NULL, err)) > 0) {
        tok_merge_desc *m = &d->merges[d->n_merges];
        rc = tok_skim_value(&s, &value, err);
        if (rc)
            break;
        if (d->n_merges == 0 && value.n > 9 && memcmp(value.p, "\"#version", 9) == 0)
            continue; /* the first line of a merges.txt */
        rc = value.p[0] == '[' ? pair_merge(d, value, d->n_merges, m, err)
                               : split_merge(d, value, d->n_merges, m, err);
        d->n_merges += rc == 0;
    }
    return rc;
}

/* ---- model ---------------------------------------------------------------------------------- */

static int read_flag(ash_str value, const char *name, bool *out, ash_err *err)
{
    if (!is_set(value))
        return 0;
    *out = ash_str_eqc(value, "true");
    if (*out || ash_str_eqc(value, "false"))
        return 0;
    return ash_err_set(err, ASH_EFORMAT, FILE_NAME ": 'model.%s' must be true or false", name);
}

/* An empty string is as good as none. */
static int refuse_text(ash_str value, const char *name, ash_err *err)
{
    if (!is_set(value) || ash_str_eqc(value, "\"\""))
        return 0;
    return ash_err_set(err, ASH_EUNSUPPORTED, FILE_NAME ": 'model.%s' must be null: no BPE of the "
                       "families that are run here has it", name);
}

static int check_type(const model_parts *m, ash_err *err)
{
    char shown[80];
    /* files of before 2020 have no type */
    if (is_set(m->type) ? ash_str_eqc(m->type, "\"BPE\"") : is_set(m->merges))
        return 0;
    return ash_err_set(err, ASH_EUNSUPPORTED, FILE_NAME ": 'model.type' is %s; BPE is supported, "
                       "Unigram, WordPiece and WordLevel are not",
                       is_set(m->type) ? ash_gguf_show(m->type, shown) : "missing");
}

static int check_model(tok_desc *d, const model_parts *m, ash_err *err)
{
    int rc = check_type(m, err);
    if (!rc)
        rc = refuse_text(m->prefix, "continuing_subword_prefix", err);
    if (!rc)
        rc = refuse_text(m->suffix, "end_of_word_suffix", err);
    if (!rc && is_set(m->dropout) && !ash_str_eqc(m->dropout, "0.0"))
        rc = ash_err_set(err, ASH_EUNSUPPORTED, FILE_NAME ": 'model.dropout' must be null: ids would "
                         "be random");
    if (!rc)
        rc = read_flag(m->fuse_unk, "fuse_unk", &d->fuse_unk, err);
    if (!rc)
        rc = read_flag(m->byte_fallback, "byte_fallback", &d->byte_fallback, err);
    if (!rc)
        rc = read_flag(m->ignore_merges, "ignore_merges", &d->ignore_merges, err);
    if (!rc && !is_set(m->vocab))
        rc = ash_err_set(err, ASH_EFORMAT, FILE_NAME ": 'model.vocab' is missing");
    if (!rc && !is_set(m->merges))
        rc = ash_err_set(err, ASH_EFORMAT, FILE_NAME ": 'model.merges' is missing");
    return rc;
}

static int read_model_parts(ash_str text, model_parts *m, ash_err *err)
{
    const slot slots[] = {{"type", &m->type}, {"vocab", &m->vocab}, {"merges", &m->merges},
                          {"unk_token", &m->unk_token}, {"dropout", &m->dropout},
                          {"continuing_subword_prefix", &m->prefix},
                          {"end_of_word_suffix", &m->suffix}, {"fuse_unk", &m->fuse_unk},
                          {"byte_fallback", &m->byte_fallback},
                          {"ignore_merges", &m->ignore_merges}};
    return read_members(text, slots, sizeof slots / sizeof *slots, FILE_NAME ": 'model'", err);
}

/* ---- added tokens --------------------------------------------------------------------------- */

static int read_added_item(tok_desc *d, ash_str value, ash_err *err)
{
    static const struct { const char *key; unsigned flag; } flags[] = {
        {"special", ADDED_SPECIAL}, {"normalized", ADDED_NORMALIZED}, {"lstrip", ADDED_LSTRIP},
        {"rstrip", ADDED_RSTRIP}, {"single_word", ADDED_SINGLE_WORD},
    };
    json_t *item = NULL;
    int64_t id = -1;
    if (value.n > MAX_ADDED_ITEM)
        return ash_err_set(err, ASH_ELIMIT, "a token of %zu bytes", value.n);
    int rc = ash_json_parse(value.p, value.n, &item, err);
    const json_t *content = rc ? NULL : json_object_get(item, "content");
    if (!rc && (!json_is_string(content) || !json_object_get(item, "id")))
        rc = ash_err_set(err, ASH_EFORMAT, "a token must have an 'id' and a 'content'");
    if (!rc)
        rc = ash_json_get_int(item, "id", 0, ASH_MAX_VOCAB - 1, &id, err);
    tok_add add = {.id = (int32_t)id};
    for (size_t i = 0; i < sizeof flags / sizeof *flags && !rc; i++) {
        bool on = false;
        rc = ash_json_get_bool(item, flags[i].key, &on, err);
        add.flags |= on ? flags[i].flag : 0;
    }
    if (!rc) {
        add.text.n = json_string_length(content);
        add.text.p = tok_desc_copy(d, json_string_value(content), add.text.n);
        rc = add.text.p ? tok_desc_add_token(d, &add, err) : ash_err_nomem(err, "added tokens");
    }
    json_decref(item);
    return rc;
}

static int read_added(tok_desc *d, ash_str list, ash_err *err)
{
    tok_skim s;
    ash_str value;
    int rc = 0;
    if (!is_set(list))
        return 0;
    rc = tok_skim_enter(&s, list, '[', err);
    while (!rc && (rc = tok_skim_next(&s, NULL, err)) > 0) {
        rc = tok_skim_value(&s, &value, err);
        if (!rc && d->n_added == ASH_MAX_VOCAB)
            rc = ash_err_set(err, ASH_ELIMIT, "more than %u tokens", ASH_MAX_VOCAB);
        if (!rc)
            rc = read_added_item(d, value, err);
    }
    return rc ? (ash_err_prefix(err, FILE_NAME ": 'added_tokens'"), rc) : 0;
}

/* ---- whole ---------------------------------------------------------------------------------- */

typedef int (*step_reader)(tok_desc *d, const json_t *v, ash_err *err);

static int read_step(tok_desc *d, ash_str value, const char *name, step_reader read, ash_err *err)
{
    json_t *v = NULL;
    int rc = 0;
    if (value.n > MAX_PART)
        return ash_err_set(err, ASH_ELIMIT, FILE_NAME ": '%s' has %zu bytes; at most %u are read", name,
                           value.n, MAX_PART);
    if (is_set(value))
        rc = ash_json_parse(value.p, value.n, &v, err);
    if (!rc)
        rc = read(d, v, err);
    json_decref(v);
    return rc ? (ash_err_prefix(err, FILE_NAME ": '%s'", name), rc) : 0;
}

static int read_parts(ash_str text, parts *p, ash_err *err)
{
    const slot slots[] = {{"added_tokens", &p->added_tokens}, {"normalizer", &p->normalizer},
                          {"pre_tokenizer", &p->pre_tokenizer},
                          {"post_processor", &p->post_processor}, {"decoder", &p->decoder},
                          {"model", &p->model}};
    int rc = read_members(text, slots, sizeof slots / sizeof *slots, FILE_NAME, err);
    if (!rc && !p->model.p)
        rc = ash_err_set(err, ASH_EFORMAT, FILE_NAME ": 'model' is missing");
    return rc;
}

/* The id of a text in the list that is being read; -1. Linear: for one token a file. */
static int32_t find_text(const tok_desc *d, ash_str s)
{
    for (size_t i = 0; i < d->n; i++)
        if (ash_str_eq(d->text[i], s))
            return (int32_t)i;
    return -1;
}

/* Added tokens take their place in the vocabulary. */
static int place_added(tok_desc *d, ash_err *err)
{
    d->outside = ash_arena_calloc(&d->arena, d->n, 1);
    if (!d->outside)
        return ash_err_nomem(err, "added tokens");
    for (size_t i = 0; i < d->n_added; i++) {
        const tok_add *a = &d->added[i];
        char shown[80], other[80];
        if (!a->text.n)
            continue;
        if (d->text[a->id].n && !ash_str_eq(d->text[a->id], a->text))
            return ash_err_set(err, ASH_EFORMAT, FILE_NAME ": 'added_tokens': '%s' has the id %d, "
                               "which is '%s' in the vocabulary", ash_gguf_show(a->text, shown),
                               a->id, ash_gguf_show(d->text[a->id], other));
        d->outside[a->id] = d->outside[a->id] || !d->text[a->id].n;
        d->text[a->id] = a->text;
        d->type[a->id] = a->flags & ADDED_SPECIAL ? TOKEN_CONTROL : TOKEN_USER;
    }
    return 0;
}

/* Ids without a token are no token; bytes are known by their text. */
static void set_types(tok_desc *d)
{
    for (size_t i = 0; i < d->n; i++) {
        ash_str s = d->text[i];
        if (!s.n)
            d->type[i] = TOKEN_UNUSED;
        else if (d->decode.bytes && d->type[i] == TOKEN_NORMAL && s.n == 6 &&
                 memcmp(s.p, "<0x", 3) == 0)
            d->type[i] = TOKEN_BYTE;
    }
}

static int read_unknown(tok_desc *d, const model_parts *m, ash_err *err)
{
    ash_str raw, text;
    if (!is_set(m->unk_token))
        return 0;
    int rc = tok_skim_string(m->unk_token, &raw, err);
    if (!rc)
        rc = tok_skim_text(raw, &d->arena, &text, err);
    if (rc)
        return ash_err_prefix(err, FILE_NAME ": 'model.unk_token'");
    d->unk = d->merge_unk = find_text(d, text);
    if (d->unk < 0)
        tok_desc_note(d, FILE_NAME ": 'model.unk_token' is no token: what is unknown vanishes");
    return 0;
}

static int read_model(tok_desc *d, const parts *p, ash_err *err)
{
    model_parts m = {0};
    vocab_entry *list;
    size_t count = 0;
    uint64_t n = 0;
    int rc = read_model_parts(p->model, &m, err);
    if (!rc)
        rc = check_model(d, &m, err);
    if (!rc)
        rc = read_added(d, p->added_tokens, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < d->n_added; i++)
        if ((uint64_t)d->added[i].id >= n)
            n = (uint64_t)d->added[i].id + 1;
    ash_arena_reserve(&d->arena, 3 * (m.vocab.n + m.merges.n)); /* 41 bytes a token and 32 a merge, roughly */
    rc = list_vocab(d, m.vocab, &list, &count, &n, err);
    if (!rc)
        rc = tok_desc_reserve(d, n, err);
    if (!rc)
        rc = place_vocab(d, list, count, err);
    if (rc)
        return ash_err_prefix(err, "%s", d->tokens_name);
    rc = read_merges(d, m.merges, err);
    if (rc)
        return ash_err_prefix(err, "%s", d->merges_name);
    rc = place_added(d, err);
    return rc ? rc : read_unknown(d, &m, err);
}

int tok_json_read(tok_desc *d, const tok_files *files, ash_err *err)
{
    parts p = {0};
    int rc = files->read(files->ctx, FILE_NAME, MAX_FILE, &d->file, err);
    if (rc)
        return rc;
    ash_str text = {ash_buf_cstr(&d->file), d->file.len};
    d->from = FILE_NAME;
    d->tokens_name = FILE_NAME ": 'model.vocab'";
    d->merges_name = FILE_NAME ": 'model.merges'";
    d->last_merge_counts = true;
    d->one_text_one_id = true;
    d->model = TOK_CHARS;
    if (!ash_utf8_valid(text.p, text.n))
        return ash_err_set(err, ASH_EFORMAT, FILE_NAME " is not UTF-8");
    rc = read_parts(text, &p, err);
    if (!rc)
        rc = read_step(d, p.normalizer, "normalizer", tok_json_normalizer, err);
    if (!rc)
        rc = read_step(d, p.pre_tokenizer, "pre_tokenizer", tok_json_pre_tokenizer, err);
    if (!rc)
        rc = read_step(d, p.decoder, "decoder", tok_json_decoder, err);
    if (!rc)
        rc = read_step(d, p.post_processor, "post_processor", tok_json_post_processor, err);
    if (!rc)
        rc = read_model(d, &p, err);
    if (!rc)
        set_types(d);
    return rc;
}
