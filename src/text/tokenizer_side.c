/* Owns the files beside tokenizer.json and tokenizer.model: added tokens, the ids of special tokens,
 * whether BOS and EOS are put around a text, and which ids end an answer. Where files disagree, what
 * transformers would do is done and a note says so. Refuses files that are no JSON objects.
 *
 * Sources: transformers' tokenization_utils_base.py (_from_pretrained), tokenization_utils_fast.py,
 * models/llama/tokenization_llama_fast.py; 4.46 is followed where 5 differs, because checkpoints of
 * those years were written for it: 5 ignores add_bos_token beside a tokenizer.json, and DeepSeek's BOS
 * is nowhere else. */
#include <string.h>

#include "base/json.h"
#include "text/tokenizer_impl.h"

#define CONFIG "tokenizer_config.json"
#define MAP "special_tokens_map.json"
#define ADDED "added_tokens.json"
#define GENERATION "generation_config.json"

typedef struct side {
    tok_desc *d;
    json_t *tokenizer, *map, *added, *generation;
    const json_t *config;
} side;

/* A token's text: a string, or {"content": ...}. */
static ash_str token_text(const json_t *v)
{
    if (json_is_object(v))
        v = json_object_get(v, "content");
    return json_is_string(v) ? (ash_str){json_string_value(v), json_string_length(v)}
                             : (ash_str){NULL, 0};
}

/* ---- added tokens --------------------------------------------------------------------------- */

static bool is_added(const tok_desc *d, int32_t id)
{
    return d->type[id] == TOKEN_CONTROL || d->type[id] == TOKEN_USER;
}

static void make_special(tok_desc *d, int32_t id)
{
    d->type[id] = TOKEN_CONTROL;
    for (size_t i = 0; i < d->n_added; i++)
        if (d->added[i].id == id)
            d->added[i].flags |= ADDED_SPECIAL;
}

/* A token that `file` adds. Known ones stay as the main file has them, but special in one file is
 * special; of unknown ones those are taken whose id is free. */
static int add_one(side *s, ash_str text, int64_t id, unsigned flags, const char *file, ash_err *err)
{
    tok_desc *d = s->d;
    char shown[80], other[80];
    if (!text.n || text.n > ASH_MAX_TOKEN_BYTES || id < 0 || id >= ASH_MAX_VOCAB)
        return 0;
    bool inside = (uint64_t)id < d->n, same = inside && ash_str_eq(d->text[id], text);
    int32_t known = same ? (int32_t)id : tok_desc_find(d, text);
    if (same && is_added(d, (int32_t)id)) {
        if ((flags & ADDED_SPECIAL) && d->type[id] != TOKEN_CONTROL)
            make_special(d, (int32_t)id);
        return 0;
    }
    if (!same && (known >= 0 || !inside || d->text[id].n)) {
        if (known >= 0)
            tok_desc_note(d, "%s: '%s' is %lld; %s has %d, which is taken", file,
                          ash_gguf_show(text, shown), (long long)id, d->from, known);
        else if (inside)
            tok_desc_note(d, "%s: %lld is '%s'; %s has '%s', which is taken", file, (long long)id,
                          ash_gguf_show(text, shown), d->from, ash_gguf_show(d->text[id], other));
        else
            tok_desc_note(d, "%s: '%s' has the id %lld beyond the model's vocabulary: ignored", file,
                          ash_gguf_show(text, shown), (long long)id);
        return 0;
    }
    if (!same) {
        const char *p = tok_desc_copy(d, text.p, text.n);
        if (!p)
            return ash_err_nomem(err, "added tokens");
        d->text[id] = (ash_str){p, text.n};
        tok_desc_index_add(d, (int32_t)id);
    }
    d->type[id] = flags & ADDED_SPECIAL ? TOKEN_CONTROL : TOKEN_USER;
    return tok_desc_add_token(d, &(tok_add){.text = d->text[id], .id = (int32_t)id, .flags = flags}, err);
}

static unsigned flags_of(const json_t *token)
{
    static const struct { const char *key; unsigned flag; } names[] = {
        {"special", ADDED_SPECIAL}, {"normalized", ADDED_NORMALIZED}, {"lstrip", ADDED_LSTRIP},
        {"rstrip", ADDED_RSTRIP}, {"single_word", ADDED_SINGLE_WORD},
    };
    unsigned flags = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (json_is_true(json_object_get(token, names[i].key)))
            flags |= names[i].flag;
    return flags;
}

/* The id that the key of added_tokens_decoder is; -1. */
static int64_t key_id(const char *key)
{
    int64_t id = 0;
    size_t n = strlen(key);
    for (size_t i = 0; i < n; i++) {
        if (n > 9 || key[i] < '0' || key[i] > '9')
            return -1;
        id = id * 10 + (key[i] - '0');
    }
    return n ? id : -1;
}

static bool is_named_special(const side *s, ash_str text)
{
    const json_t *lists[] = {json_object_get(s->tokenizer, "additional_special_tokens"),
                             json_object_get(s->map, "additional_special_tokens")};
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < json_array_size(lists[i]); k++)
            if (ash_str_eq(token_text(json_array_get(lists[i], k)), text))
                return true;
    return false;
}

static json_t *decoder_of(const side *s)
{
    return json_object_get(s->tokenizer, "added_tokens_decoder");
}

/* Room for ids that side files add behind the main file's, as far as the model has rows for them. */
static int make_room(side *s, ash_err *err)
{
    int64_t rows = 0, top = (int64_t)s->d->n - 1;
    const char *key;
    json_t *v;
    if (ash_json_get_int(s->config, "vocab_size", 1, ASH_MAX_VOCAB, &rows, NULL))
        rows = 0; /* whoever reads the model's shape refuses it */
    int64_t limit = rows ? rows : (int64_t)s->d->n + TOK_MAX_SIDE_TOKENS;
    if (limit > (int64_t)s->d->n + TOK_MAX_SIDE_TOKENS)
        limit = (int64_t)s->d->n + TOK_MAX_SIDE_TOKENS;
    json_object_foreach(decoder_of(s), key, v) {
        int64_t id = key_id(key);
        top = id > top && id < limit ? id : top;
    }
    json_object_foreach(s->added, key, v) {
        int64_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        top = id > top && id < limit ? id : top;
    }
    return tok_desc_grow(s->d, (int32_t)top, err);
}

static int add_tokens(side *s, ash_err *err)
{
    const char *key;
    json_t *v;
    size_t before = s->d->n_added;
    int rc = make_room(s, err);
    if (!rc)
        rc = tok_desc_index(s->d, err);
    if (rc)
        return rc;
    json_object_foreach(decoder_of(s), key, v) {
        if (!rc && s->d->n_added - before < TOK_MAX_SIDE_TOKENS)
            rc = add_one(s, token_text(v), key_id(key), flags_of(v), CONFIG, err);
    }
    json_object_foreach(s->added, key, v) {
        ash_str text = ash_str_from(key);
        unsigned flags = is_named_special(s, text) ? ADDED_SPECIAL : 0;
        if (!rc && s->d->n_added - before < TOK_MAX_SIDE_TOKENS && json_is_integer(v))
            rc = add_one(s, text, json_integer_value(v), flags, ADDED, err);
    }
    return rc;
}

/* ---- special ids ---------------------------------------------------------------------------- */

/* The text that files give for "bos_token" and the like, and which of them. Where tokenizer_config
 * has added_tokens_decoder it counts, else special_tokens_map comes first, as in transformers. */
static ash_str special_text(side *s, const char *key, const char **file)
{
    ash_str config = token_text(json_object_get(s->tokenizer, key));
    ash_str map = token_text(json_object_get(s->map, key));
    bool map_first = !decoder_of(s) && map.p;
    char shown[80], other[80];
    if (config.p && map.p && !ash_str_eq(config, map))
        tok_desc_note(s->d, "%s: " CONFIG " says '%s', " MAP " '%s': %s is taken", key,
                      ash_gguf_show(config, shown), ash_gguf_show(map, other),
                      map_first ? MAP : CONFIG);
    *file = map_first || !config.p ? MAP : CONFIG;
    return map_first || !config.p ? map : config;
}

/* An id of config.json or generation_config.json: a number, or the first of a list. -1: none. */
static int32_t config_id(const side *s, const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    if (json_is_array(v))
        v = json_array_get(v, 0);
    json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
    return id >= 0 && (uint64_t)id < s->d->n ? (int32_t)id : -1;
}

static void read_special(side *s, const char *key, const char *id_key, int32_t *out)
{
    const char *file;
    char shown[80];
    ash_str text = special_text(s, key, &file);
    int32_t id = text.n ? tok_desc_find(s->d, text) : -1;
    int32_t config = config_id(s, s->config, id_key);
    if (text.n && id < 0)
        tok_desc_note(s->d, "%s: %s '%s' is no token of the vocabulary: ignored", file, key,
                      ash_gguf_show(text, shown));
    if (id >= 0)
        *out = id;
    else if (*out < 0)
        *out = config;
    if (config >= 0 && *out >= 0 && config != *out)
        tok_desc_note(s->d, "config.json: %s is %d, the tokenizer's %s is %d, which is taken", id_key,
                      config, key, *out);
}

/* The ids that end an answer: all that any file names. */
static int read_ends(side *s, const json_t *config, const char *file, ash_err *err)
{
    const json_t *v = json_object_get(config, "eos_token_id");
    bool own = s->d->eos < 0, any = false;
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    int rc = 0;
    for (size_t i = 0; i < n && i < 256 && !rc; i++) {
        const json_t *one = json_is_array(v) ? json_array_get(v, i) : v;
        json_int_t id = json_is_integer(one) ? json_integer_value(one) : -1;
        if (id < 0 || (uint64_t)id >= s->d->n)
            continue;
        any = true;
        own = own || id == s->d->eos;
        rc = tok_desc_add_end(s->d, (int32_t)id, err);
    }
    if (any && !own)
        tok_desc_note(s->d, "%s: eos_token_id has not the tokenizer's EOS, %d: all of them end an answer",
                      file, s->d->eos);
    return rc;
}

/* ---- BOS and EOS around a text -------------------------------------------------------------- */

/* Whether transformers 4 loads the tokenizer as Llama's, which goes by its own settings and not by
 * tokenizer.json's post-processor. */
static bool is_llama_class(const side *s)
{
    static const char *const classes[] = {"LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer"};
    static const char *const types[] = {"llama", "mistral", "mixtral", "code_llama"};
    const char *class = json_string_value(json_object_get(s->tokenizer, "tokenizer_class"));
    const char *type = json_string_value(json_object_get(s->config, "model_type"));
    for (size_t i = 0; class && i < sizeof classes / sizeof *classes; i++) {
        size_t n = strlen(classes[i]);
        if (strncmp(class, classes[i], n) == 0 && (!class[n] || strcmp(class + n, "Fast") == 0))
            return true;
    }
    for (size_t i = 0; !class && type && i < sizeof types / sizeof *types; i++)
        if (strcmp(type, types[i]) == 0)
            return true;
    return !class && s->d->model == TOK_SPM;
}

/* What Llama's class calls its special tokens where no file names them. */
static void usual_names(side *s)
{
    if (s->d->bos < 0)
        s->d->bos = tok_desc_find(s->d, ASH_STR("<s>"));
    if (s->d->eos < 0)
        s->d->eos = tok_desc_find(s->d, ASH_STR("</s>"));
    if (s->d->unk < 0)
        s->d->unk = tok_desc_find(s->d, ASH_STR("<unk>"));
}

/* `usual`: what Llama's class does unless told otherwise. *out is what the post-processor does, of a
 * SentencePiece model nothing. */
static int read_adds(side *s, const char *key, bool usual, bool *out, ash_err *err)
{
    bool given = json_is_boolean(json_object_get(s->tokenizer, key)), says = usual;
    int rc = ash_json_get_bool(s->tokenizer, key, &says, err);
    if (rc)
        return ash_err_prefix(err, CONFIG);
    bool counts = is_llama_class(s), differs = says != *out && (counts || given);
    if (differs && s->d->model != TOK_SPM)
        tok_desc_note(s->d, CONFIG ": %s is %s%s, the post_processor of %s says otherwise: %s is taken",
                      key, says ? "true" : "false", given ? "" : " for its tokenizer_class",
                      s->d->from, counts ? CONFIG : s->d->from);
    if (counts || s->d->model == TOK_SPM)
        *out = says;
    return 0;
}

/* SentencePiece models: the class's "legacy" puts the space that stands for a text's start before
 * every piece between special tokens; without it, only before the first. */
static int read_legacy(side *s, ash_err *err)
{
    bool legacy = true, prefix = true;
    int rc = ash_json_get_bool(s->tokenizer, "legacy", &legacy, err);
    if (!rc)
        rc = ash_json_get_bool(s->tokenizer, "add_prefix_space", &prefix, err);
    if (rc)
        return ash_err_prefix(err, CONFIG);
    for (size_t i = 0; i < s->d->n_norm && !legacy; i++) {
        tok_norm_desc *step = &s->d->norm[i];
        if (step->kind != NORM_PREPEND)
            continue;
        step->kind = NORM_PREPEND_FIRST;
        if (!prefix)
            step->to.n = 0;
    }
    return 0;
}

/* ---- whole ---------------------------------------------------------------------------------- */

static int read_all(side *s, const tok_files *files, ash_err *err)
{
    int rc = add_tokens(s, err);
    if (rc)
        return rc;
    read_special(s, "bos_token", "bos_token_id", &s->d->bos);
    read_special(s, "eos_token", "eos_token_id", &s->d->eos);
    read_special(s, "unk_token", "unk_token_id", &s->d->unk);
    read_special(s, "pad_token", "pad_token_id", &s->d->pad);
    if (is_llama_class(s))
        usual_names(s);
    rc = read_adds(s, "add_bos_token", true, &s->d->adds_bos, err);
    if (!rc)
        rc = read_adds(s, "add_eos_token", false, &s->d->adds_eos, err);
    if (!rc)
        rc = read_ends(s, s->config, "config.json", err);
    if (!rc)
        rc = read_ends(s, s->generation, GENERATION, err);
    if (!rc && s->d->model == TOK_SPM)
        rc = read_legacy(s, err);
    return rc ? rc : tok_template_read(s->d, files, s->tokenizer, err);
}

int tok_side_read(tok_desc *d, const tok_files *files, const json_t *config, ash_err *err)
{
    side s = {.d = d, .config = config};
    int rc = tok_files_json(files, CONFIG, &s.tokenizer, err);
    if (!rc)
        rc = tok_files_json(files, MAP, &s.map, err);
    if (!rc)
        rc = tok_files_json(files, ADDED, &s.added, err);
    if (!rc)
        rc = tok_files_json(files, GENERATION, &s.generation, err);
    if (!rc)
        rc = read_all(&s, files, err);
    json_decref(s.tokenizer);
    json_decref(s.map);
    json_decref(s.added);
    json_decref(s.generation);
    return rc;
}
