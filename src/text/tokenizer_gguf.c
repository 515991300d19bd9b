/* Owns the reading of a tokenizer from GGUF keys (tokenizer.ggml.*) into a description. Refuses other
 * models than gpt2 and llama, lists of unequal length, types and scores that are none, and character
 * maps (nmt_nfkc and its like). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "text/tokenizer_impl.h"

/* "FILE: key 'KEY'", the description's. */
static int key_name(tok_desc *d, const ash_gguf *g, const char *key, const char **out, ash_err *err)
{
    ash_buf b;
    ash_buf_init(&b, 64u << 10);
    ash_buf_printf(&b, "%s: key '%s'", ash_gguf_path(g), key);
    *out = b.failed ? NULL : tok_desc_copy(d, ash_buf_cstr(&b), b.len);
    ash_buf_release(&b);
    return *out ? 0 : ash_err_nomem(err, "tokenizer");
}

/* ---- vocabulary ----------------------------------------------------------------------------- */

/* Older converters fill ids that have no token with "[PAD100015]", typed user-defined. */
static bool is_filler(ash_str s, size_t id)
{
    char name[32];
    if (s.n < 6 || memcmp(s.p, "[PAD", 4) != 0)
        return false;
    int n = snprintf(name, sizeof name, "[PAD%zu]", id);
    return s.n == (size_t)n && memcmp(s.p, name, s.n) == 0;
}

static int read_types(tok_desc *d, const ash_gguf *g, ash_err *err)
{
    ash_gguf_array types = {0};
    int rc = ash_gguf_get_array(g, "tokenizer.ggml.token_type", ASH_GGUF_I64, &types, err);
    if (rc || !types.data)
        return rc;
    if (types.n != d->n)
        return ash_err_set(err, ASH_EFORMAT,
                           "%s: key 'tokenizer.ggml.token_type' has %llu entries for %zu tokens",
                           ash_gguf_path(g), (unsigned long long)types.n, d->n);
    for (size_t i = 0; i < d->n; i++) {
        int64_t type = ash_gguf_array_i64(&types, i);
        if (type < 0 || type > TOKEN_BYTE)
            return ash_err_set(err, ASH_EFORMAT,
                               "%s: key 'tokenizer.ggml.token_type': token %zu has the unknown type "
                               "%lld", ash_gguf_path(g), i, (long long)type);
        d->type[i] = (uint8_t)(type ? type : TOKEN_NORMAL);
    }
    return 0;
}

static int read_scores(tok_desc *d, const ash_gguf *g, ash_err *err)
{
    ash_gguf_array scores;
    int rc = ash_gguf_need_array(g, "tokenizer.ggml.scores", ASH_GGUF_F64, &scores, err);
    if (rc)
        return rc;
    if (scores.n != d->n)
        return ash_err_set(err, ASH_EFORMAT,
                           "%s: key 'tokenizer.ggml.scores' has %llu entries for %zu tokens",
                           ash_gguf_path(g), (unsigned long long)scores.n, d->n);
    d->score = ash_arena_calloc(&d->arena, d->n, sizeof *d->score);
    if (!d->score)
        return ash_err_nomem(err, "token scores");
    for (size_t i = 0; i < d->n; i++) {
        d->score[i] = (float)ash_gguf_array_f64(&scores, i);
        if (isnan(d->score[i]))
            return ash_err_set(err, ASH_EFORMAT,
                               "%s: key 'tokenizer.ggml.scores': token %zu has no number",
                               ash_gguf_path(g), i);
    }
    return 0;
}

/* Room for tokens and merges together. */
static void reserve(tok_desc *d, const ash_gguf *g)
{
    const ash_gguf_kv *tokens = ash_gguf_find(g, "tokenizer.ggml.tokens"),
                      *merges = ash_gguf_find(g, "tokenizer.ggml.merges");
    uint64_t n = tokens && tokens->type == ASH_GGUF_ARRAY ? tokens->array.n : 0,
             m = merges && merges->type == ASH_GGUF_ARRAY ? merges->array.n : 0;
    if (n <= ASH_MAX_VOCAB && m <= ASH_MAX_VOCAB)
        ash_arena_reserve(&d->arena, n * (sizeof *d->text + sizeof *d->type + sizeof *d->score) +
                                         m * sizeof *d->merges);
}

static int read_tokens(tok_desc *d, const ash_gguf *g, ash_err *err)
{
    ash_gguf_array tokens;
    uint64_t at = 0;
    int rc = ash_gguf_need_array(g, "tokenizer.ggml.tokens", ASH_GGUF_STRING, &tokens, err);
    if (!rc)
        rc = tok_desc_reserve(d, tokens.n, err);
    if (!rc)
        rc = read_types(d, g, err);
    if (!rc && d->model == TOK_SPM)
        rc = read_scores(d, g, err);
    for (size_t i = 0; i < d->n && !rc; i++) {
        if (!ash_gguf_array_next_str(&tokens, &at, &d->text[i]))
            rc = ash_err_set(err, ASH_EFORMAT, "%s ends at token %zu", d->tokens_name, i);
        else if (is_filler(d->text[i], i))
            d->type[i] = TOKEN_UNUSED;
    }
    return rc;
}

static int bad_merge(const tok_desc *d, uint64_t i, ash_str s, ash_err *err)
{
    char shown[80];
    return ash_err_set(err, ASH_EFORMAT,
                       "%s: entry %llu ('%s') must be two tokens that make a third", d->merges_name,
                       (unsigned long long)i, ash_gguf_show(s, shown));
}

/* "a b", cut at the first space that is not the first byte. */
static int read_merges(tok_desc *d, const ash_gguf *g, ash_err *err)
{
    ash_gguf_array merges;
    uint64_t at = 0;
    int rc = ash_gguf_need_array(g, "tokenizer.ggml.merges", ASH_GGUF_STRING, &merges, err);
    if (rc)
        return rc;
    if (merges.n > ASH_MAX_VOCAB)
        return ash_err_set(err, ASH_ELIMIT, "%s has %llu entries; at most %u", d->merges_name,
                           (unsigned long long)merges.n, ASH_MAX_VOCAB);
    d->n_merges = (size_t)merges.n;
    d->merges = ash_arena_calloc(&d->arena, d->n_merges + 1, sizeof *d->merges);
    if (!d->merges)
        return ash_err_nomem(err, "merges");
    for (size_t i = 0; i < d->n_merges; i++) {
        ash_str s = {"", 0};
        bool ok = ash_gguf_array_next_str(&merges, &at, &s);
        const char *space = ok && s.n > 2 ? memchr(s.p + 1, ' ', s.n - 2) : NULL;
        if (!space)
            return bad_merge(d, i, s, err);
        size_t left = (size_t)(space - s.p);
        d->merges[i].left = (ash_str){s.p, left};
        d->merges[i].right = (ash_str){space + 1, s.n - left - 1};
    }
    return 0;
}

/* ---- models --------------------------------------------------------------------------------- */

static int read_bpe(tok_desc *d, const ash_gguf *g, ash_err *err)
{
    ash_str pre = ASH_STR("default");
    tok_pre_info info = {0};
    int rc = ash_gguf_get_str(g, "tokenizer.ggml.pre", &pre, err);
    if (rc)
        return rc;
    rc = tok_pre_known(pre, d, &info, err);
    if (rc) {
        ash_err_prefix(err, "%s", ash_gguf_path(g));
        return rc;
    }
    d->ignore_merges = info.ignore_merges;
    d->adds_bos = info.adds_bos;
    d->decode.letters = true;
    if (info.nfc)
        rc = tok_desc_add_norm(d, &(tok_norm_desc){.kind = NORM_NFC}, err);
    return rc ? rc : read_merges(d, g, err);
}

static int read_spm(tok_desc *d, const ash_gguf *g, ash_err *err)
{
    const ash_gguf_kv *map = ash_gguf_find(g, "tokenizer.ggml.precompiled_charsmap");
    bool prefix = true;
    if (map && map->bytes)
        return ash_err_at(err, ASH_EUNSUPPORTED, (int64_t)map->pos,
                          "%s: key 'tokenizer.ggml.precompiled_charsmap': normalisation of this kind "
                          "is not done", ash_gguf_path(g));
    int rc = ash_gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &prefix, err);
    if (!rc && prefix)
        rc = tok_desc_add_norm(d, &(tok_norm_desc){.kind = NORM_PREPEND, .to = ASH_STR("\xe2\x96\x81")},
                               err);
    if (!rc)
        rc = tok_desc_add_norm(d, &(tok_norm_desc){.kind = NORM_REPLACE, .from = ASH_STR(" "),
                               .to = ASH_STR("\xe2\x96\x81")}, err);
    d->adds_bos = true;
    d->decode = (tok_decode){.meta = true, .bytes = true, .strip = prefix};
    return rc;
}

/* ---- ids and templates ---------------------------------------------------------------------- */

/* An id from the file; absent, -1 (also as 0xFFFFFFFF) or beyond the vocabulary: `otherwise`. */
static int special_id(const tok_desc *d, const ash_gguf *g, const char *key, int32_t otherwise,
                      int32_t *out, ash_err *err)
{
    int64_t id = -1;
    int rc = ash_gguf_get_i64(g, key, INT64_MIN, INT64_MAX, &id, err);
    *out = id >= 0 && (uint64_t)id < d->n ? (int32_t)id : otherwise;
    return rc;
}

/* The default of files that leave a key out, if that token is one that could mean it. */
static int32_t default_id(const tok_desc *d, int32_t id)
{
    if ((size_t)id >= d->n)
        return -1;
    uint8_t type = d->type[id];
    return type == TOKEN_CONTROL || type == TOKEN_USER || type == TOKEN_UNKNOWN ? id : -1;
}

static int read_ids(tok_desc *d, const ash_gguf *g, ash_err *err)
{
    bool spm = d->model == TOK_SPM;
    int32_t bos = default_id(d, spm ? 1 : 11), eos = default_id(d, spm ? 2 : 11);
    int rc = special_id(d, g, "tokenizer.ggml.bos_token_id", bos, &d->bos, err);
    if (!rc)
        rc = special_id(d, g, "tokenizer.ggml.eos_token_id", eos, &d->eos, err);
    if (!rc)
        rc = special_id(d, g, "tokenizer.ggml.unknown_token_id", spm ? default_id(d, 0) : -1,
                        &d->unk, err);
    if (!rc)
        rc = special_id(d, g, "tokenizer.ggml.padding_token_id", -1, &d->pad, err);
    if (!rc)
        rc = special_id(d, g, "tokenizer.ggml.eot_token_id", -1, &d->eot, err);
    if (!rc)
        rc = special_id(d, g, "tokenizer.ggml.eom_token_id", -1, &d->eom, err);
    if (!rc)
        rc = ash_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &d->adds_bos, err);
    if (!rc)
        rc = ash_gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &d->adds_eos, err);
    return rc;
}

/* tokenizer.chat_template, and tokenizer.chat_template.NAME for those that the list of names has. */
static int read_templates(tok_desc *d, const ash_gguf *g, ash_err *err)
{
    ash_str s = {0};
    ash_gguf_array names = {0};
    uint64_t at = 0;
    int rc = ash_gguf_get_str(g, "tokenizer.chat_template", &s, err);
    if (!rc && s.p)
        rc = tok_desc_add_template(d, &(tok_template_desc){ASH_STR("default"), s,
                                   "GGUF tokenizer.chat_template"}, err);
    if (!rc)
        rc = ash_gguf_get_array(g, "tokenizer.chat_templates", ASH_GGUF_STRING, &names, err);
    for (uint64_t i = 0; !rc && names.data && i < names.n; i++) {
        ash_str name = {0};
        char key[160];
        s = (ash_str){0};
        if (!ash_gguf_array_next_str(&names, &at, &name) || name.n > 64)
            break;
        snprintf(key, sizeof key, "tokenizer.chat_template.%.*s", (int)name.n, name.p);
        rc = ash_gguf_get_str(g, key, &s, err);
        if (!rc && s.p)
            rc = tok_desc_add_template(d, &(tok_template_desc){name, s,
                                       "GGUF tokenizer.chat_template.*"}, err);
    }
    return rc;
}

int tok_gguf_read(tok_desc *d, const ash_gguf *g, ash_err *err)
{
    ash_str model;
    char shown[80];
    int rc = ash_gguf_need_str(g, "tokenizer.ggml.model", &model, err);
    if (rc)
        return rc;
    d->from = "GGUF";
    d->added_by_type = true;
    d->model = ash_str_eqc(model, "llama") ? TOK_SPM : TOK_BPE;
    if (d->model == TOK_BPE && !ash_str_eqc(model, "gpt2"))
        return ash_err_set(err, ASH_EUNSUPPORTED,
                           "%s: key 'tokenizer.ggml.model': only 'gpt2' and 'llama' are read, not "
                           "'%s'", ash_gguf_path(g), ash_gguf_show(model, shown));
    rc = key_name(d, g, "tokenizer.ggml.tokens", &d->tokens_name, err);
    if (!rc)
        rc = key_name(d, g, "tokenizer.ggml.merges", &d->merges_name, err);
    reserve(d, g);
    if (!rc)
        rc = read_tokens(d, g, err);
    if (!rc)
        rc = d->model == TOK_BPE ? read_bpe(d, g, err) : read_spm(d, g, err);
    if (!rc)
        rc = read_ids(d, g, err);
    return rc ? rc : read_templates(d, g, err);
}
