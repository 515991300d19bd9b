/* Owns the description of a tokenizer while one is opened: its lists grow here. Refuses more tokens,
 * steps and templates than their caps. One thread at a time. */
#include "text/tokenizer_desc.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/utf8.h"

#define MAX_DESC_BYTES ((size_t)2 << 30)
#define MAX_NOTE (64u << 10)
#define MAX_TEMPLATES 64
#define MAX_SIDE_FILE (16u << 20)
#define MAX_SIDE_CONTAINERS (1u << 18) /* arrays and objects: each costs 50 times its text */

typedef struct tok_text_index {
    uint32_t *slots; /* id + 1; 0 empty */
    size_t n;
    uint64_t seed[2];
} tok_text_index;

void tok_desc_init(tok_desc *d)
{
    *d = (tok_desc){.from = "", .tokens_name = "", .merges_name = "", .bos = -1, .eos = -1,
                    .eot = -1, .eom = -1, .unk = -1, .pad = -1, .merge_unk = -1};
    ash_arena_init(&d->arena, MAX_DESC_BYTES);
    ash_buf_init(&d->file, 0);
    ash_buf_init(&d->note, MAX_NOTE);
}

void tok_desc_release(tok_desc *d)
{
    ash_arena_release(&d->arena);
    ash_buf_release(&d->file);
    ash_buf_release(&d->note);
}

int tok_desc_reserve(tok_desc *d, uint64_t n, ash_err *err)
{
    if (n == 0 || n > ASH_MAX_VOCAB)
        return ash_err_set(err, n ? ASH_ELIMIT : ASH_EFORMAT,
                           "%s has %llu tokens; 1 to %u are read", d->tokens_name,
                           (unsigned long long)n, ASH_MAX_VOCAB);
    d->n = (size_t)n;
    d->text = ash_arena_calloc(&d->arena, d->n, sizeof *d->text);
    d->type = ash_arena_alloc(&d->arena, d->n);
    if (!d->text || !d->type)
        return ash_err_nomem(err, "vocabulary");
    memset(d->type, TOKEN_NORMAL, d->n);
    return 0;
}

int tok_desc_grow(tok_desc *d, int32_t id, ash_err *err)
{
    size_t n = (size_t)id + 1;
    if (n <= d->n)
        return 0;
    ash_str *text = ash_arena_calloc(&d->arena, n, sizeof *text);
    uint8_t *type = ash_arena_alloc(&d->arena, n);
    uint8_t *outside = ash_arena_alloc(&d->arena, n);
    float *score = d->score ? ash_arena_calloc(&d->arena, n, sizeof *score) : NULL;
    if (!text || !type || !outside || (d->score && !score))
        return ash_err_nomem(err, "vocabulary");
    memset(outside, 1, n); /* none of them was in the main file */
    if (d->outside)
        memcpy(outside, d->outside, d->n);
    else
        memset(outside, 0, d->n);
    memset(type, TOKEN_UNUSED, n);
    memcpy(text, d->text, d->n * sizeof *text);
    memcpy(type, d->type, d->n);
    if (score)
        memcpy(score, d->score, d->n * sizeof *score);
    d->text = text;
    d->type = type;
    d->outside = outside;
    d->score = score;
    d->n = n;
    return 0;
}

/* ---- index of texts ------------------------------------------------------------------------- */

/* Where a text is, or belongs. */
static uint32_t *slot_of(const tok_desc *d, ash_str s)
{
    const tok_text_index *x = d->index;
    size_t k = ash_hash_bytes(s.p, s.n, x->seed) & (x->n - 1);
    while (x->slots[k] && !ash_str_eq(d->text[x->slots[k] - 1], s)) k = (k + 1) & (x->n - 1);
    return &x->slots[k];
}

int tok_desc_index(tok_desc *d, ash_err *err)
{
    tok_text_index *x = ash_arena_calloc(&d->arena, 1, sizeof *x);
    if (x) {
        x->n = ash_hash_slots(d->n + TOK_MAX_SIDE_TOKENS);
        x->slots = ash_arena_calloc(&d->arena, x->n, sizeof *x->slots);
        x->seed[0] = ash_rng_entropy();
        x->seed[1] = ash_rng_entropy();
    }
    if (!x || !x->slots)
        return ash_err_nomem(err, "index of tokens");
    d->index = x;
    for (size_t i = 0; i < d->n; i++)
        if (d->text[i].n)
            tok_desc_index_add(d, (int32_t)i);
    return 0;
}

int32_t tok_desc_find(const tok_desc *d, ash_str text)
{
    return text.n ? (int32_t)*slot_of(d, text) - 1 : -1;
}

void tok_desc_index_add(tok_desc *d, int32_t id)
{
    uint32_t *slot = slot_of(d, d->text[id]);
    if (!*slot)
        *slot = (uint32_t)id + 1;
}

/* ---- lists ---------------------------------------------------------------------------------- */

/* The list with room for one more, in the arena: what it outgrows stays there until the end. */
static void *grown(tok_desc *d, void *list, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return list;
    size_t more = *cap ? *cap * 2 : 16;
    void *p = ash_arena_calloc(&d->arena, more, size);
    if (p && n)
        memcpy(p, list, n * size);
    if (p)
        *cap = more;
    return p;
}

int tok_desc_add_token(tok_desc *d, const tok_add *add, ash_err *err)
{
    tok_add *list = grown(d, d->added, d->n_added, &d->cap_added, sizeof *list);
    if (!list)
        return ash_err_nomem(err, "added tokens");
    d->added = list;
    list[d->n_added++] = *add;
    return 0;
}

int tok_desc_add_end(tok_desc *d, int32_t id, ash_err *err)
{
    int32_t *list = grown(d, d->ends, d->n_ends, &d->cap_ends, sizeof *list);
    if (!list)
        return ash_err_nomem(err, "ends of text");
    d->ends = list;
    list[d->n_ends++] = id;
    return 0;
}

int tok_desc_add_template(tok_desc *d, const tok_template_desc *t, ash_err *err)
{
    tok_template_desc *list = grown(d, d->templates, d->n_templates, &d->cap_templates, sizeof *list);
    if (d->n_templates == MAX_TEMPLATES)
        return ash_err_set(err, ASH_ELIMIT, "%s: more than %d chat templates", t->from,
                           MAX_TEMPLATES);
    if (!list)
        return ash_err_nomem(err, "chat templates");
    d->templates = list;
    list[d->n_templates++] = *t;
    return 0;
}

int tok_desc_add_norm(tok_desc *d, const tok_norm_desc *step, ash_err *err)
{
    if (d->n_norm == TOK_MAX_STEPS)
        return ash_err_set(err, ASH_ELIMIT, "%s: more than %d steps of normalisation", d->from,
                           TOK_MAX_STEPS);
    d->norm[d->n_norm++] = *step;
    return 0;
}

int tok_desc_add_stage(tok_desc *d, const tok_stage_desc *stage, ash_err *err)
{
    if (d->n_stages == TOK_MAX_STEPS)
        return ash_err_set(err, ASH_ELIMIT, "%s: more than %d pre-tokenisers", d->from,
                           TOK_MAX_STEPS);
    d->stages[d->n_stages++] = *stage;
    return 0;
}

void tok_desc_note(tok_desc *d, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    size_t n = strlen(line);
    n -= ash_utf8_incomplete_tail(line, n);
    if (d->note.len + n + 1 >= MAX_NOTE) /* enough was said */
        return;
    if (d->note.len)
        ash_buf_addc(&d->note, '\n');
    ash_buf_add(&d->note, line, n);
}

const char *tok_desc_copy(tok_desc *d, const char *p, size_t n)
{
    return ash_arena_strndup(&d->arena, p, n);
}

/* "model_max_length": 1000000000000000019884624838656 is in every other tokenizer_config.json, and is
 * more than Jansson's integers hold. Digits beyond the eighteenth become spaces: no number that is
 * read here has so many. */
static void shorten_integers(char *p, size_t n)
{
    bool quoted = false;
    for (size_t i = 0, end; i < n; i = end) {
        end = i + 1;
        if (quoted && p[i] == '\\')
            end++;
        else if (p[i] == '"')
            quoted = !quoted;
        if (quoted || p[i] < '0' || p[i] > '9')
            continue;
        while (end < n && p[end] >= '0' && p[end] <= '9') end++;
        bool real = (end < n && strchr(".eE", p[end]) && p[end]) || (i && strchr(".eE+", p[i - 1]));
        if (!real && end - i > 18)
            memset(p + i + 18, ' ', end - i - 18);
    }
}

int tok_files_json(const tok_files *files, const char *name, json_t **out, ash_err *err)
{
    ash_buf text;
    size_t containers = 0;
    *out = NULL;
    int rc = files->read(files->ctx, name, MAX_SIDE_FILE, &text, err);
    for (size_t i = 0; i < text.len && !rc; i++) containers += text.data[i] == '{' || text.data[i] == '[';
    if (!rc && containers > MAX_SIDE_CONTAINERS)
        rc = ash_err_set(err, ASH_ELIMIT, "%s has more than %u arrays and objects", name,
                         MAX_SIDE_CONTAINERS);
    if (!rc && text.len)
        shorten_integers(text.data, text.len);
    if (!rc && (rc = ash_json_parse(ash_buf_cstr(&text), text.len, out, err)) != 0)
        ash_err_prefix(err, "%s", name);
    else if (!rc && !json_is_object(*out)) {
        rc = ash_err_set(err, ASH_EFORMAT, "%s must be an object, not %s", name,
                         ash_json_type_name(*out));
        json_decref(*out);
        *out = NULL;
    }
    ash_buf_release(&text);
    return rc == ASH_ENOENT ? 0 : rc;
}
