/* Owns the reading of tokenizer.json's steps: normaliser, pre-tokeniser, decoder, post-processor.
 * Refuses what it does not know by its type, and settings that change what a step does. Sources:
 * tokenizers/src/{normalizers,pre_tokenizers,decoders,processors} of huggingface/tokenizers. */
#include <string.h>

#include "base/json.h"
#include "text/tokenizer_impl.h"

#define META ASH_STR("\xe2\x96\x81")
enum { MAX_DEPTH = 8 }; /* sequences of sequences */

/* The members that a step has, by its type. */
static const char *type_of(const json_t *v)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    return type ? type : "";
}

static int unknown_type(const json_t *v, const char *known, ash_err *err)
{
    char shown[80];
    const char *type = type_of(v);
    return ash_err_set(err, ASH_EUNSUPPORTED, "'%s' is not supported; supported are %s",
                       ash_gguf_show(ash_str_from(type), shown), known);
}

static int get_text(tok_desc *d, const json_t *v, const char *key, ash_str *out, ash_err *err)
{
    const json_t *s = json_object_get(v, key);
    if (!json_is_string(s))
        return ash_err_set(err, ASH_EFORMAT, "'%s' of %s must be a string", key, type_of(v));
    size_t n = json_string_length(s);
    const char *p = tok_desc_copy(d, json_string_value(s), n);
    if (!p)
        return ash_err_nomem(err, "tokenizer");
    *out = (ash_str){p, n};
    return 0;
}

/* {"String": text} or {"Regex": pattern}. */
static int get_pattern(tok_desc *d, const json_t *v, ash_str *out, bool *regex, ash_err *err)
{
    const json_t *pattern = json_object_get(v, "pattern");
    *regex = json_object_get(pattern, "Regex") != NULL;
    int rc = get_text(d, pattern, *regex ? "Regex" : "String", out, err);
    if (rc)
        return ash_err_prefix(err, "'pattern' of %s", type_of(v));
    if (!out->n)
        return ash_err_set(err, ASH_EUNSUPPORTED, "an empty 'pattern' of %s", type_of(v));
    return 0;
}

typedef int (*step_reader)(tok_desc *d, const json_t *v, int depth, ash_err *err);

static int read_sequence(tok_desc *d, const json_t *v, const char *key, step_reader read, int depth,
                         ash_err *err)
{
    const json_t *list = json_object_get(v, key);
    int rc = 0;
    if (!json_is_array(list))
        return ash_err_set(err, ASH_EFORMAT, "a Sequence without its list '%s'", key);
    if (depth == MAX_DEPTH)
        return ash_err_set(err, ASH_ELIMIT, "sequences are nested deeper than %d", MAX_DEPTH);
    for (size_t i = 0; i < json_array_size(list) && !rc; i++)
        rc = read(d, json_array_get(list, i), depth + 1, err);
    return rc;
}

static bool is_type(const json_t *v, const char *type)
{
    return strcmp(type_of(v), type) == 0;
}

/* ---- normaliser ----------------------------------------------------------------------------- */

static int read_strip(tok_desc *d, const json_t *v, ash_err *err)
{
    tok_norm_desc step = {.kind = NORM_STRIP, .left = true, .right = true};
    int rc = ash_json_get_bool(v, "strip_left", &step.left, err);
    if (!rc)
        rc = ash_json_get_bool(v, "strip_right", &step.right, err);
    return rc ? rc : tok_desc_add_norm(d, &step, err);
}

static int read_replace(tok_desc *d, const json_t *v, ash_err *err)
{
    tok_norm_desc step = {0};
    bool regex;
    int rc = get_pattern(d, v, &step.from, &regex, err);
    if (!rc)
        rc = get_text(d, v, "content", &step.to, err);
    step.kind = regex ? NORM_REPLACE_REGEX : NORM_REPLACE;
    return rc ? rc : tok_desc_add_norm(d, &step, err);
}

static int read_normalizer(tok_desc *d, const json_t *v, int depth, ash_err *err)
{
    tok_norm_desc step = {.kind = NORM_NFC};
    if (is_type(v, "Sequence"))
        return read_sequence(d, v, "normalizers", read_normalizer, depth, err);
    if (is_type(v, "NFC"))
        return tok_desc_add_norm(d, &step, err);
    if (is_type(v, "Strip"))
        return read_strip(d, v, err);
    if (is_type(v, "Replace"))
        return read_replace(d, v, err);
    if (!is_type(v, "Prepend"))
        return unknown_type(v, "Sequence, NFC, Prepend, Replace and Strip", err);
    step.kind = NORM_PREPEND;
    int rc = get_text(d, v, "prepend", &step.to, err);
    return rc ? rc : tok_desc_add_norm(d, &step, err);
}

int tok_json_normalizer(tok_desc *d, const json_t *v, ash_err *err)
{
    return v ? read_normalizer(d, v, 0, err) : 0;
}

/* ---- pre-tokeniser -------------------------------------------------------------------------- */

static int get_behaviour(const json_t *v, tok_behaviour *out, ash_err *err)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *name = NULL;
    int rc = ash_json_get_str(v, "behavior", &name, err);
    if (rc || !name)
        return rc;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0) {
            *out = (tok_behaviour)i;
            return 0;
        }
    return ash_err_set(err, ASH_EUNSUPPORTED, "the 'behavior' of %s is none of Isolated, Removed, "
                       "MergedWithPrevious, MergedWithNext and Contiguous", type_of(v));
}

static int read_split(tok_desc *d, const json_t *v, ash_err *err)
{
    tok_stage_desc stage = {0};
    bool regex;
    int rc = get_pattern(d, v, &stage.pattern, &regex, err);
    if (!rc)
        rc = get_behaviour(v, &stage.behaviour, err);
    if (!rc)
        rc = ash_json_get_bool(v, "invert", &stage.invert, err);
    stage.kind = regex ? STAGE_ONIG : STAGE_STRING;
    return rc ? rc : tok_desc_add_stage(d, &stage, err);
}

/* Letters for bytes come last: a stage behind it would see letters and not text. */
static int read_byte_level(tok_desc *d, const json_t *v, ash_err *err)
{
    bool space = true, regex = true;
    int rc = ash_json_get_bool(v, "add_prefix_space", &space, err);
    if (!rc)
        rc = ash_json_get_bool(v, "use_regex", &regex, err);
    if (!rc && space)
        rc = tok_desc_add_stage(d, &(tok_stage_desc){.kind = STAGE_SPACE}, err);
    if (!rc && regex)
        rc = tok_desc_add_stage(d, &(tok_stage_desc){.kind = STAGE_REGEX, .pattern = tok_pre_gpt2()},
                                err);
    d->model = TOK_BPE;
    return rc;
}

static int read_digits(tok_desc *d, const json_t *v, ash_err *err)
{
    bool each = false;
    int rc = ash_json_get_bool(v, "individual_digits", &each, err);
    tok_stage_desc stage = {.kind = STAGE_REGEX,
                            .pattern = each ? ASH_STR("\\p{N}") : ASH_STR("\\p{N}+")};
    return rc ? rc : tok_desc_add_stage(d, &stage, err);
}

/* New files have prepend_scheme, old ones add_prefix_space; files of before 2024 have no split. */
static int read_meta(tok_desc *d, const json_t *v, ash_err *err)
{
    tok_stage_desc stage = {.kind = STAGE_META, .behaviour = SPLIT_WITH_NEXT, .split = true};
    const char *scheme = NULL;
    bool prefix = true;
    int rc = get_text(d, v, "replacement", &stage.pattern, err);
    if (!rc)
        rc = ash_json_get_str(v, "prepend_scheme", &scheme, err);
    if (!rc)
        rc = ash_json_get_bool(v, "add_prefix_space", &prefix, err);
    if (!rc)
        rc = ash_json_get_bool(v, "split", &stage.split, err);
    if (rc)
        return rc;
    if (!stage.pattern.n)
        return ash_err_set(err, ASH_EFORMAT, "an empty 'replacement' of Metaspace");
    if (!scheme)
        scheme = prefix ? "always" : "never";
    if (strcmp(scheme, "always") != 0 && strcmp(scheme, "first") != 0 && strcmp(scheme, "never") != 0)
        return ash_err_set(err, ASH_EUNSUPPORTED, "the 'prepend_scheme' of Metaspace is none of always, "
                           "first and never");
    stage.prepend = scheme[0] == 'a' ? PREPEND_ALWAYS : scheme[0] == 'f' ? PREPEND_FIRST : PREPEND_NEVER;
    return tok_desc_add_stage(d, &stage, err);
}

/* Stages that are a pattern of their own. */
static const tok_stage_desc *known_stage(const char *type)
{
    static const struct { const char *type; tok_stage_desc stage; } known[] = {
        {"Whitespace", {.pattern = {"[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}]+|"
                                    "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}" TOK_WS "]+",
                                    0}, .behaviour = SPLIT_REMOVED, .invert = true}},
        {"WhitespaceSplit", {.pattern = {"[" TOK_WS "]", 0}, .behaviour = SPLIT_REMOVED}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].type, type) == 0)
            return &known[i].stage;
    return NULL;
}

static int read_pre_tokenizer(tok_desc *d, const json_t *v, int depth, ash_err *err)
{
    tok_stage_desc stage = {.kind = STAGE_REGEX, .pattern = ASH_STR("[\\p{P}$+<=>^`|~]")};
    const tok_stage_desc *known = known_stage(type_of(v));
    if (is_type(v, "Sequence"))
        return read_sequence(d, v, "pretokenizers", read_pre_tokenizer, depth, err);
    if (d->model == TOK_BPE)
        return ash_err_set(err, ASH_EUNSUPPORTED, "a pre-tokeniser behind ByteLevel");
    if (is_type(v, "Split"))
        return read_split(d, v, err);
    if (is_type(v, "ByteLevel"))
        return read_byte_level(d, v, err);
    if (is_type(v, "Digits"))
        return read_digits(d, v, err);
    if (is_type(v, "Metaspace"))
        return read_meta(d, v, err);
    if (known) {
        stage = *known;
        stage.pattern = ash_str_from(known->pattern.p);
        return tok_desc_add_stage(d, &stage, err);
    }
    if (!is_type(v, "Punctuation"))
        return unknown_type(v, "Sequence, Split, ByteLevel, Digits, Metaspace, Punctuation, "
                               "Whitespace and WhitespaceSplit", err);
    int rc = get_behaviour(v, &stage.behaviour, err);
    return rc ? rc : tok_desc_add_stage(d, &stage, err);
}

int tok_json_pre_tokenizer(tok_desc *d, const json_t *v, ash_err *err)
{
    return v ? read_pre_tokenizer(d, v, 0, err) : 0;
}

/* ---- decoder -------------------------------------------------------------------------------- */

static int read_meta_decoder(tok_desc *d, const json_t *v, ash_err *err)
{
    const char *scheme = NULL;
    bool prefix = true;
    ash_str meta;
    int rc = get_text(d, v, "replacement", &meta, err);
    if (!rc)
        rc = ash_json_get_str(v, "prepend_scheme", &scheme, err);
    if (!rc)
        rc = ash_json_get_bool(v, "add_prefix_space", &prefix, err);
    if (!rc && !ash_str_eq(meta, META))
        rc = ash_err_set(err, ASH_EUNSUPPORTED, "the 'replacement' of Metaspace must be U+2581");
    d->decode.meta = true;
    d->decode.strip_meta = scheme ? strcmp(scheme, "never") != 0 : prefix;
    return rc;
}

static int read_replace_decoder(tok_desc *d, const json_t *v, ash_err *err)
{
    ash_str from, to;
    bool regex;
    int rc = get_pattern(d, v, &from, &regex, err);
    if (!rc)
        rc = get_text(d, v, "content", &to, err);
    if (!rc && (regex || !ash_str_eq(from, META) || !ash_str_eqc(to, " ")))
        rc = ash_err_set(err, ASH_EUNSUPPORTED, "a Replace that is not of U+2581 by a space");
    d->decode.meta = true;
    return rc;
}

static int read_strip_decoder(tok_desc *d, const json_t *v, ash_err *err)
{
    ash_str content;
    int64_t start = 0, stop = 0;
    int rc = get_text(d, v, "content", &content, err);
    if (!rc)
        rc = ash_json_get_int(v, "start", 0, 64, &start, err);
    if (!rc)
        rc = ash_json_get_int(v, "stop", 0, 64, &stop, err);
    if (!rc && (stop || !ash_str_eqc(content, " ")))
        rc = ash_err_set(err, ASH_EUNSUPPORTED, "a Strip that is not of spaces at the start");
    d->decode.strip = (uint8_t)start;
    return rc;
}

static int read_decoder(tok_desc *d, const json_t *v, int depth, ash_err *err)
{
    if (is_type(v, "Sequence"))
        return read_sequence(d, v, "decoders", read_decoder, depth, err);
    if (is_type(v, "Replace"))
        return read_replace_decoder(d, v, err);
    if (is_type(v, "Strip"))
        return read_strip_decoder(d, v, err);
    if (is_type(v, "Metaspace"))
        return read_meta_decoder(d, v, err);
    if (is_type(v, "ByteLevel"))
        d->decode.letters = true;
    else if (is_type(v, "ByteFallback"))
        d->decode.bytes = true;
    else if (!is_type(v, "Fuse"))
        return unknown_type(v, "Sequence, ByteLevel, Metaspace, Replace, ByteFallback, Fuse and Strip",
                            err);
    return 0;
}

/* Without a decoder `tokenizers` would put spaces between tokens; what undoes the splitting is meant. */
int tok_json_decoder(tok_desc *d, const json_t *v, ash_err *err)
{
    int rc = 0;
    if (v)
        rc = read_decoder(d, v, 0, err);
    else if (d->model == TOK_BPE)
        d->decode.letters = true;
    else
        d->decode = (tok_decode){.meta = true, .bytes = true};
    if (!rc && d->decode.letters && (d->decode.meta || d->decode.bytes))
        rc = ash_err_set(err, ASH_EUNSUPPORTED, "ByteLevel together with other decoders");
    if (!rc && d->decode.letters != (d->model == TOK_BPE))
        rc = ash_err_set(err, ASH_EUNSUPPORTED, "ByteLevel must be both pre-tokeniser and decoder, or "
                         "neither");
    return rc;
}

/* ---- post-processor ------------------------------------------------------------------------- */

/* The one id of a special token in a template; -1. */
static int64_t template_id(const json_t *v, const json_t *piece)
{
    const char *name = json_string_value(json_object_get(json_object_get(piece, "SpecialToken"), "id"));
    const json_t *token = name ? json_object_get(json_object_get(v, "special_tokens"), name) : NULL;
    const json_t *ids = json_object_get(token, "ids");
    const json_t *id = json_array_size(ids) == 1 ? json_array_get(ids, 0) : NULL;
    json_int_t n = json_is_integer(id) ? json_integer_value(id) : -1;
    return n >= 0 && n < ASH_MAX_VOCAB ? n : -1;
}

/* "single": special tokens around the sequence. One before it is BOS, one behind it EOS. */
static int read_template(tok_desc *d, const json_t *v, ash_err *err)
{
    const json_t *single = json_object_get(v, "single");
    bool seen = false;
    if (!json_is_array(single))
        return ash_err_set(err, ASH_EFORMAT, "TemplateProcessing without its list 'single'");
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i);
        if (json_object_get(piece, "Sequence")) {
            seen = true;
            continue;
        }
        int64_t id = template_id(v, piece);
        bool *adds = seen ? &d->adds_eos : &d->adds_bos;
        if (id < 0 || *adds)
            return ash_err_set(err, ASH_EUNSUPPORTED, "a TemplateProcessing that adds other than one "
                               "token before and one behind the text");
        *adds = true;
        *(seen ? &d->eos : &d->bos) = (int32_t)id;
    }
    return seen ? 0 : ash_err_set(err, ASH_EFORMAT, "TemplateProcessing without the text itself");
}

static int read_processor(tok_desc *d, const json_t *v, int depth, ash_err *err)
{
    if (is_type(v, "Sequence"))
        return read_sequence(d, v, "processors", read_processor, depth, err);
    if (is_type(v, "TemplateProcessing"))
        return read_template(d, v, err);
    if (is_type(v, "ByteLevel")) /* offsets only */
        return 0;
    return unknown_type(v, "Sequence, ByteLevel and TemplateProcessing", err);
}

int tok_json_post_processor(tok_desc *d, const json_t *v, ash_err *err)
{
    return v ? read_processor(d, v, 0, err) : 0;
}
