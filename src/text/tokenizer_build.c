/* Owns the making of a tokenizer from a description, and the public ways to open one. What a
 * tokenizer needs is copied. Refuses descriptions that contradict themselves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "text/tokenizer_impl.h"

#define MAX_TOKENIZER_BYTES ((size_t)3 << 30)

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

static void add_eog(ash_tokenizer *t, int32_t id)
{
    size_t at = 0;
    if (id < 0 || (size_t)id >= t->vocab.n)
        return;
    while (at < t->n_eog && t->eog[at] < id) at++;
    if (at < t->n_eog && t->eog[at] == id)
        return;
    memmove(t->eog + at + 1, t->eog + at, (t->n_eog - at) * sizeof *t->eog);
    t->eog[at] = id;
    t->n_eog++;
}

static int find_turn_ends(ash_tokenizer *t, const tok_desc *d, ash_err *err)
{
    size_t n = sizeof turn_ends / sizeof *turn_ends;
    t->eog = ash_arena_calloc(&t->arena, n + 3 + d->n_ends, sizeof *t->eog);
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
    for (size_t i = 0; i < d->n_ends; i++) add_eog(t, d->ends[i]);
    add_eog(t, t->eos);
    add_eog(t, t->eot);
    add_eog(t, d->eom);
    return 0;
}

/* ---- added tokens --------------------------------------------------------------------------- */

static int added_by_type(const ash_tokenizer *t, tok_desc *d, ash_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < t->vocab.n && !rc; i++) {
        ash_str s = tok_vocab_piece(&t->vocab, (int32_t)i);
        if (s.n && is_added(t, (int32_t)i))
            rc = tok_desc_add_token(d, &(tok_add){.text = s, .id = (int32_t)i,
                                    .flags = t->vocab.type[i] == TOKEN_USER ? 0 : ADDED_SPECIAL}, err);
    }
    return rc;
}

/* The content of a token as the normaliser leaves it, the description's. */
static int normalize_content(const ash_tokenizer *t, tok_desc *d, tok_add *add, ash_err *err)
{
    tok_norm_work w;
    const tok_text *form;
    tok_norm_work_init(&w);
    int rc = tok_normalize(&t->norm, &w, add->text.p, add->text.n, 0, false, &form, err);
    const char *p = rc ? NULL : tok_desc_copy(d, ash_buf_cstr(&form->text), form->text.len);
    if (!rc && !p)
        rc = ash_err_nomem(err, "added tokens");
    if (!rc)
        add->text = (ash_str){p, form->text.len};
    tok_norm_work_release(&w);
    return rc;
}

static int build_added(ash_tokenizer *t, tok_desc *d, ash_err *err)
{
    int rc = d->added_by_type ? added_by_type(t, d, err) : 0;
    for (size_t i = 0; i < d->n_added && !rc; i++) {
        unsigned flags = d->added[i].flags;
        if ((flags & ADDED_NORMALIZED) && !(flags & ADDED_VERBATIM))
            rc = normalize_content(t, d, &d->added[i], err);
    }
    if (!rc)
        rc = tok_added_build(&t->added, d->added, d->n_added, false, &t->arena, err);
    if (!rc)
        rc = tok_added_build(&t->added_normal, d->added, d->n_added, true, &t->arena, err);
    return rc;
}

/* ---- building ------------------------------------------------------------------------------- */

/* Of two tokens with one text the lower id answers; where a file may have no such pair that is said. */
static int check_texts(const ash_tokenizer *t, const tok_desc *d, ash_err *err)
{
    int32_t i = t->vocab.twice;
    char shown[80];
    if (!d->one_text_one_id || i < 0)
        return 0;
    ash_str s = tok_vocab_text(&t->vocab, i);
    return ash_err_set(err, ASH_EFORMAT, "%s: the token '%s' has two ids, %d and %d", d->tokens_name,
                       ash_gguf_show(s, shown), (int)tok_vocab_find(&t->vocab, s.p, s.n), (int)i);
}

static int copy_templates(ash_tokenizer *t, const tok_desc *d, ash_err *err)
{
    t->templates = ash_arena_calloc(&t->arena, d->n_templates + 1, sizeof *t->templates);
    if (!t->templates)
        return ash_err_nomem(err, "chat template");
    for (size_t i = 0; i < d->n_templates; i++) {
        const tok_template_desc *from = &d->templates[i];
        const char *name = ash_arena_strndup(&t->arena, from->name.p, from->name.n);
        const char *text = ash_arena_strndup(&t->arena, from->text.p, from->text.n);
        const char *place = ash_arena_strdup(&t->arena, from->from);
        if (!name || !text || !place)
            return ash_err_nomem(err, "chat template");
        t->templates[t->n_templates++] =
            (tok_template_desc){{name, from->name.n}, {text, from->text.n}, place};
    }
    return 0;
}

static void measure(ash_tokenizer *t, const tok_desc *d)
{
    t->longest_text = t->longest_piece = 1;
    for (size_t i = 0; i < t->vocab.n; i++) {
        size_t text = tok_vocab_text(&t->vocab, (int32_t)i).n;
        size_t piece = tok_vocab_piece(&t->vocab, (int32_t)i).n;
        t->longest_text = text > t->longest_text ? text : t->longest_text;
        t->longest_piece = piece > t->longest_piece ? piece : t->longest_piece;
    }
    t->shrinks = t->added.strips || t->added_normal.strips;
    for (int i = 0; i < 256 && !d->added_by_type; i++) /* unknown symbols may be one, or vanish */
        t->shrinks = t->shrinks || t->vocab.byte_id[i] < 0;
    for (size_t i = 0; i < d->n_norm; i++)
        t->shrinks = t->shrinks || d->norm[i].kind == NORM_STRIP || d->norm[i].kind == NORM_SPACES ||
                     d->norm[i].kind == NORM_REPLACE_REGEX ||
                     (d->norm[i].kind == NORM_REPLACE && d->norm[i].to.n < d->norm[i].from.n);
    for (size_t i = 0; i < d->n_stages; i++)
        t->shrinks = t->shrinks || d->stages[i].behaviour == SPLIT_REMOVED;
}

/* Room for the large tables: of texts twice, of ids, of hashes, of pairs. */
static void reserve(ash_tokenizer *t, const tok_desc *d)
{
    size_t text = 0;
    for (size_t i = 0; i < d->n; i++) text += d->text[i].n;
    ash_arena_reserve(&t->arena, 2 * text + 16 * d->n + ash_hash_slots(d->n) * sizeof *t->vocab.slots +
                                     ash_hash_slots(d->n_merges) * sizeof *t->bpe.pairs);
}

static int build_parts(ash_tokenizer *t, tok_desc *d, ash_err *err)
{
    reserve(t, d);
    int rc = tok_vocab_build(&t->vocab, d, &t->arena, err);
    if (!rc)
        rc = check_texts(t, d, err);
    if (!rc && d->model != TOK_SPM)
        rc = tok_bpe_build(t, d, err);
    else if (!rc)
        t->splits_at_space = tok_spm_splits_at_space(&t->vocab);
    if (!rc)
        rc = tok_norm_open(&t->norm, d, &t->arena, err);
    if (!rc)
        rc = tok_pre_open_stages(d->stages, d->n_stages, &t->pre, err);
    if (!rc)
        rc = build_added(t, d, err);
    if (!rc)
        measure(t, d);
    if (!rc)
        rc = find_turn_ends(t, d, err);
    if (!rc)
        rc = copy_templates(t, d, err);
    return rc;
}

int tok_build(tok_desc *d, ash_tokenizer **out, ash_err *err)
{
    *out = NULL;
    ash_tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return ash_err_nomem(err, "tokenizer");
    ash_arena_init(&t->arena, MAX_TOKENIZER_BYTES);
    t->model = d->model;
    t->decode = d->decode;
    t->bos = d->bos;
    t->eos = d->eos;
    t->eot = d->eot;
    t->unk = d->unk;
    t->pad = d->pad;
    t->adds_bos = d->adds_bos && t->bos >= 0;
    t->adds_eos = d->adds_eos && t->eos >= 0;
    int rc = build_parts(t, d, err);
    if (!rc)
        rc = ash_buf_check(&d->note, "notes", err);
    t->from = rc ? NULL : ash_arena_strdup(&t->arena, d->from);
    t->note = rc ? NULL : ash_arena_strdup(&t->arena, ash_buf_cstr(&d->note));
    if (!rc && (!t->from || !t->note))
        rc = ash_err_nomem(err, "tokenizer");
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
    tok_pre_close(t->pre);
    tok_norm_close(&t->norm);
    ash_arena_release(&t->arena);
    free(t);
}

/* ---- opening -------------------------------------------------------------------------------- */

int ash_tokenizer_open_gguf(const ash_gguf *g, ash_tokenizer **out, ash_err *err)
{
    tok_desc d;
    *out = NULL;
    tok_desc_init(&d);
    int rc = tok_gguf_read(&d, g, err);
    if (!rc)
        rc = tok_build(&d, out, err);
    tok_desc_release(&d);
    return rc;
}

int tok_open_files(const tok_files *files, const json_t *config, ash_tokenizer **out, ash_err *err)
{
    tok_desc d;
    *out = NULL;
    tok_desc_init(&d);
    int rc = tok_json_read(&d, files, err);
    if (rc == ASH_ENOENT)
        rc = tok_sp_read(&d, files, err);
    if (rc == ASH_ENOENT)
        rc = ash_err_set(err, ASH_ENOENT, "neither tokenizer.json nor tokenizer.model is there");
    if (!rc)
        rc = tok_side_read(&d, files, config, err);
    if (!rc)
        rc = tok_build(&d, out, err);
    tok_desc_release(&d);
    return rc;
}
