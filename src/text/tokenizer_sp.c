/* Owns the reading of tokenizer.model, SentencePiece's ModelProto (a protocol buffer, version 2:
 * src/sentencepiece_model.proto of google/sentencepiece), into a description. Every length is checked
 * against what encloses it; unknown fields are passed over. Refuses models other than BPE, character
 * maps, suffixed white space, and pieces whose type or score is none. */
#include <math.h>
#include <string.h>

#include "text/tokenizer_impl.h"

#define FILE_NAME "tokenizer.model"
#define MAX_FILE (64u << 20)
#define META "\xe2\x96\x81"

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };
enum { MODEL_UNIGRAM = 1, MODEL_BPE = 2, MODEL_WORD = 3, MODEL_CHAR = 4 };

/* One field: a number (also of fixed size, as its bits), or bytes. */
typedef struct field {
    uint32_t number, wire;
    uint64_t value;
    ash_str bytes;
} field;

typedef struct message {
    const unsigned char *p;
    size_t n, at;
} message;

typedef struct settings {
    int64_t model_type;
    int64_t unk, bos, eos, pad;
    bool suffix, byte_fallback, dummy_prefix, remove_spaces, escape_spaces, charsmap;
} settings;

static int broken(const message *m, ash_err *err)
{
    return ash_err_at(err, ASH_EFORMAT, (int64_t)m->at, FILE_NAME ": a field is cut or broken, %zu "
                      "bytes into a message of %zu", m->at, m->n);
}

static bool read_varint(message *m, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; shift < 64 && m->at < m->n; shift += 7) {
        unsigned char b = m->p[m->at++];
        *out |= (uint64_t)(b & 0x7F) << shift;
        if (b < 0x80)
            return true;
    }
    return false;
}

static bool read_fixed(message *m, size_t n, uint64_t *out)
{
    *out = 0;
    if (m->n - m->at < n)
        return false;
    for (size_t i = 0; i < n; i++) *out |= (uint64_t)m->p[m->at++] << 8 * i;
    return true;
}

/* 1 and a field, 0 at the end. */
static int next_field(message *m, field *f, ash_err *err)
{
    uint64_t key;
    bool ok = false;
    if (m->at == m->n)
        return 0;
    *f = (field){0};
    if (!read_varint(m, &key) || key >> 3 == 0 || key >> 3 > UINT32_MAX)
        return broken(m, err);
    f->number = (uint32_t)(key >> 3);
    f->wire = (uint32_t)(key & 7);
    if (f->wire == WIRE_VARINT) {
        ok = read_varint(m, &f->value);
    } else if (f->wire == WIRE_64 || f->wire == WIRE_32) {
        ok = read_fixed(m, f->wire == WIRE_64 ? 8 : 4, &f->value);
    } else if (f->wire == WIRE_BYTES) {
        ok = read_varint(m, &f->value) && f->value <= m->n - m->at;
        f->bytes = (ash_str){(const char *)m->p + m->at, ok ? (size_t)f->value : 0};
        m->at += f->bytes.n;
    }
    return ok ? 1 : broken(m, err);
}

static message open_message(ash_str bytes)
{
    return (message){.p = (const unsigned char *)bytes.p, .n = bytes.n};
}

/* ---- pieces --------------------------------------------------------------------------------- */

static int read_piece(tok_desc *d, size_t i, ash_str bytes, ash_err *err)
{
    message m = open_message(bytes);
    field f;
    uint64_t type = TOKEN_NORMAL;
    int rc;
    while ((rc = next_field(&m, &f, err)) > 0) {
        if (f.number == 1 && f.wire == WIRE_BYTES) {
            d->text[i] = f.bytes;
        } else if (f.number == 2 && f.wire == WIRE_32) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&d->score[i], &bits, sizeof bits);
        } else if (f.number == 3 && f.wire == WIRE_VARINT) {
            type = f.value;
        }
    }
    if (rc)
        return rc;
    if (type < TOKEN_NORMAL || type > TOKEN_BYTE)
        return ash_err_set(err, ASH_EFORMAT, FILE_NAME ": piece %zu has the unknown type %llu", i,
                           (unsigned long long)type);
    if (isnan(d->score[i]))
        return ash_err_set(err, ASH_EFORMAT, FILE_NAME ": the score of piece %zu is no number", i);
    if (!d->text[i].n)
        return ash_err_set(err, ASH_EFORMAT, FILE_NAME ": piece %zu is empty", i);
    d->type[i] = (uint8_t)type;
    return 0;
}

/* User-defined pieces are cut out of the normalised text, control ones out of the text itself. */
static int add_piece(tok_desc *d, size_t i, ash_err *err)
{
    unsigned flags = d->type[i] == TOKEN_USER ? ADDED_NORMALIZED | ADDED_VERBATIM : ADDED_SPECIAL;
    if (d->type[i] != TOKEN_USER && d->type[i] != TOKEN_CONTROL && d->type[i] != TOKEN_UNKNOWN)
        return 0;
    return tok_desc_add_token(d, &(tok_add){.text = d->text[i], .id = (int32_t)i, .flags = flags}, err);
}

/* ---- settings ------------------------------------------------------------------------------- */

static int64_t as_i32(uint64_t value)
{
    return (int32_t)(uint32_t)value;
}

static int read_trainer(settings *s, ash_str bytes, ash_err *err)
{
    message m = open_message(bytes);
    field f;
    int rc;
    while ((rc = next_field(&m, &f, err)) > 0) {
        if (f.wire != WIRE_VARINT)
            continue;
        switch (f.number) {
        case 3: s->model_type = as_i32(f.value); break;
        case 24: s->suffix = f.value != 0; break;
        case 35: s->byte_fallback = f.value != 0; break;
        case 40: s->unk = as_i32(f.value); break;
        case 41: s->bos = as_i32(f.value); break;
        case 42: s->eos = as_i32(f.value); break;
        case 43: s->pad = as_i32(f.value); break;
        default: break;
        }
    }
    return rc;
}

static int read_normalizer(settings *s, ash_str bytes, ash_err *err)
{
    message m = open_message(bytes);
    field f;
    int rc;
    while ((rc = next_field(&m, &f, err)) > 0) {
        if (f.number == 2 && f.wire == WIRE_BYTES)
            s->charsmap = f.bytes.n > 0;
        if (f.wire != WIRE_VARINT)
            continue;
        switch (f.number) {
        case 3: s->dummy_prefix = f.value != 0; break;
        case 4: s->remove_spaces = f.value != 0; break;
        case 5: s->escape_spaces = f.value != 0; break;
        default: break;
        }
    }
    return rc;
}

static int check_settings(const settings *s, ash_err *err)
{
    static const char *const names[] = {"UNIGRAM", "BPE", "WORD", "CHAR"};
    if (s->model_type != MODEL_BPE)
        return ash_err_set(err, ASH_EUNSUPPORTED, FILE_NAME ": its model_type is %s; only BPE is "
                           "supported", s->model_type >= MODEL_UNIGRAM && s->model_type <= MODEL_CHAR
                                            ? names[s->model_type - 1] : "unknown");
    if (s->charsmap)
        return ash_err_set(err, ASH_EUNSUPPORTED, FILE_NAME ": it normalises by a character map "
                           "(precompiled_charsmap), which is not done");
    if (s->suffix || !s->escape_spaces)
        return ash_err_set(err, ASH_EUNSUPPORTED, FILE_NAME ": %s is not done",
                           s->suffix ? "treat_whitespace_as_suffix" : "escape_whitespaces = false");
    return 0;
}

static int add_steps(tok_desc *d, const settings *s, ash_err *err)
{
    int rc = 0;
    if (s->remove_spaces)
        rc = tok_desc_add_norm(d, &(tok_norm_desc){.kind = NORM_SPACES}, err);
    if (!rc && s->dummy_prefix)
        rc = tok_desc_add_norm(d, &(tok_norm_desc){.kind = NORM_PREPEND, .to = ASH_STR(META)}, err);
    if (!rc)
        rc = tok_desc_add_norm(d, &(tok_norm_desc){.kind = NORM_REPLACE, .from = ASH_STR(" "),
                               .to = ASH_STR(META)}, err);
    d->decode = (tok_decode){.meta = true, .bytes = true, .strip = s->dummy_prefix};
    return rc;
}

/* An id that the settings give, if its piece can mean it. */
static int32_t piece_id(const tok_desc *d, int64_t id, uint8_t type)
{
    return id >= 0 && (uint64_t)id < d->n && d->type[id] == type ? (int32_t)id : -1;
}

/* ---- whole ---------------------------------------------------------------------------------- */

static int read_settings(ash_str file, settings *s, uint64_t *pieces, ash_err *err)
{
    message m = open_message(file);
    field f;
    int rc;
    while ((rc = next_field(&m, &f, err)) > 0) {
        if (f.wire != WIRE_BYTES)
            continue;
        *pieces += f.number == 1;
        if (f.number == 2)
            rc = read_trainer(s, f.bytes, err);
        else if (f.number == 3)
            rc = read_normalizer(s, f.bytes, err);
        if (rc < 0)
            break;
    }
    return rc;
}

static int read_pieces(tok_desc *d, ash_str file, bool byte_fallback, ash_err *err)
{
    message m = open_message(file);
    field f;
    size_t i = 0;
    int rc;
    while ((rc = next_field(&m, &f, err)) > 0) {
        if (f.number != 1 || f.wire != WIRE_BYTES)
            continue;
        rc = read_piece(d, i, f.bytes, err);
        if (!rc && d->type[i] == TOKEN_BYTE && !byte_fallback)
            rc = ash_err_set(err, ASH_EFORMAT, FILE_NAME ": piece %zu is a byte, but byte_fallback is "
                             "off", i);
        if (!rc)
            rc = add_piece(d, i++, err);
        if (rc)
            return rc;
    }
    return rc;
}

int tok_sp_read(tok_desc *d, const tok_files *files, ash_err *err)
{
    settings s = {.model_type = MODEL_UNIGRAM, .unk = 0, .bos = 1, .eos = 2, .pad = -1,
                  .dummy_prefix = true, .remove_spaces = true, .escape_spaces = true};
    uint64_t n = 0;
    int rc = files->read(files->ctx, FILE_NAME, MAX_FILE, &d->file, err);
    if (rc)
        return rc;
    ash_str file = {ash_buf_cstr(&d->file), d->file.len};
    d->from = d->tokens_name = FILE_NAME;
    d->model = TOK_SPM;
    d->one_text_one_id = true;
    rc = read_settings(file, &s, &n, err);
    if (!rc)
        rc = check_settings(&s, err);
    if (!rc)
        rc = tok_desc_reserve(d, n, err);
    if (rc)
        return rc;
    d->score = ash_arena_calloc(&d->arena, d->n, sizeof *d->score);
    if (!d->score)
        return ash_err_nomem(err, "token scores");
    rc = read_pieces(d, file, s.byte_fallback, err);
    if (!rc)
        rc = add_steps(d, &s, err);
    if (rc)
        return rc;
    d->unk = piece_id(d, s.unk, TOKEN_UNKNOWN);
    d->bos = piece_id(d, s.bos, TOKEN_CONTROL);
    d->eos = piece_id(d, s.eos, TOKEN_CONTROL);
    d->pad = piece_id(d, s.pad, TOKEN_CONTROL);
    return 0;
}
