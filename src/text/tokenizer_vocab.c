/* Owns the list of tokens: their text, the bytes they stand for, types, scores, and the table by
 * text. Refuses tokens over ASH_MAX_TOKEN_BYTES. Empty and duplicate tokens are allowed: the lowest
 * id answers for a text. Immutable after building. */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "text/tokenizer_impl.h"

#define MAX_VOCAB_TEXT ((size_t)1 << 30)
#define META_SPACE "\xe2\x96\x81" /* U+2581, a space in SentencePiece vocabularies */

uint32_t tok_byte_letter(uint8_t b)
{
    if ((b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE)
        return b;
    if (b <= 0x20)
        return 0x100u + b;
    return b == 0xAD ? 0x143 : 0x121u + (b - 0x7Fu);
}

/* The byte that a letter stands for; -1 if it is none of the 256. */
static int letter_byte(uint32_t cp)
{
    if (cp >= 0x100 && cp <= 0x120)
        return (int)(cp - 0x100);
    if (cp >= 0x121 && cp <= 0x142)
        return (int)(cp - 0x121 + 0x7F);
    if (cp == 0x143)
        return 0xAD;
    return cp < 0x100 && tok_byte_letter((uint8_t)cp) == cp ? (int)cp : -1;
}

/* "<0x0A>" as a byte; -1 for another text. */
static int byte_token(ash_str s)
{
    static const char digits[] = "0123456789ABCDEF";
    if (s.n != 6 || memcmp(s.p, "<0x", 3) != 0 || s.p[5] != '>' || !s.p[3] || !s.p[4])
        return -1;
    const char *hi = strchr(digits, s.p[3]), *lo = strchr(digits, s.p[4]);
    return hi && lo ? (int)((hi - digits) * 16 + (lo - digits)) : -1;
}

/* Byte-level text to bytes; text with any other letter stands for itself. Returns the length. */
static size_t letter_piece(ash_str s, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        bool ok;
        if (s.p[i] > 0x20 && s.p[i] < 0x7F) { /* stands for itself */
            out[n++] = s.p[i++];
            continue;
        }
        i += ash_utf8_decode(s.p + i, s.n - i, &cp, &ok);
        int b = ok ? letter_byte(cp) : -1;
        if (b < 0) {
            memcpy(out, s.p, s.n);
            return s.n;
        }
        out[n++] = (char)b;
    }
    return n;
}

static size_t meta_piece(const tok_decode *d, ash_str s, uint8_t type, char *out)
{
    int b = type == TOKEN_BYTE ? byte_token(s) : -1;
    if (b >= 0) {
        out[0] = (char)b;
        return 1;
    }
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        if (d->meta && s.n - i >= 3 && memcmp(s.p + i, META_SPACE, 3) == 0) {
            out[n++] = ' ';
            i += 3;
        } else {
            out[n++] = s.p[i++];
        }
    }
    return n;
}

/* Room for the text of all tokens; pieces are never longer than the text. */
static int reserve_text(tok_vocab *v, const tok_desc *d, ash_arena *arena, ash_err *err)
{
    uint64_t total = 0;
    for (size_t i = 0; i < d->n; i++) {
        if (d->text[i].n > ASH_MAX_TOKEN_BYTES)
            return ash_err_set(err, ASH_ELIMIT, "%s: token %zu has %zu bytes; at most %d",
                               d->tokens_name, i, d->text[i].n, ASH_MAX_TOKEN_BYTES);
        total += d->text[i].n;
    }
    if (total > MAX_VOCAB_TEXT)
        return ash_err_set(err, ASH_ELIMIT, "%s has %llu bytes of tokens; at most %zu are read",
                           d->tokens_name, (unsigned long long)total, MAX_VOCAB_TEXT);
    v->n = d->n;
    v->text = ash_arena_alloc(arena, (size_t)total + 1);
    v->piece = ash_arena_alloc(arena, (size_t)total + 1);
    v->text_at = ash_arena_calloc(arena, v->n + 1, sizeof *v->text_at);
    v->piece_at = ash_arena_calloc(arena, v->n + 1, sizeof *v->piece_at);
    v->type = ash_arena_alloc(arena, v->n);
    v->in_model = ash_arena_calloc(arena, v->n, 1);
    if (d->score)
        v->score = ash_arena_alloc(arena, v->n * sizeof *v->score);
    if (!v->text || !v->piece || !v->text_at || !v->piece_at || !v->type ||
        !v->in_model || (d->score && !v->score))
        return ash_err_nomem(err, "vocabulary");
    memcpy(v->type, d->type, v->n);
    if (d->score)
        memcpy(v->score, d->score, v->n * sizeof *v->score);
    return 0;
}

/* Special tokens of a byte-level vocabulary are written as they are, the others in letters. */
size_t tok_piece(const tok_desc *d, ash_str s, uint8_t type, char *out)
{
    if (type == TOKEN_UNUSED)
        return 0;
    if (d->decode.meta || d->decode.bytes)
        return meta_piece(&d->decode, s, type, out);
    if (d->decode.letters && type == TOKEN_NORMAL)
        return letter_piece(s, out);
    memcpy(out, s.p, s.n);
    return s.n;
}

static void fill_text(tok_vocab *v, const tok_desc *d)
{
    for (size_t i = 0; i < v->n; i++) {
        ash_str s = d->text[i];
        if (s.n)
            memcpy(v->text + v->text_at[i], s.p, s.n);
        v->text_at[i + 1] = v->text_at[i] + (uint32_t)s.n;
        size_t n = s.n ? tok_piece(d, s, v->type[i], v->piece + v->piece_at[i]) : 0;
        v->piece_at[i + 1] = v->piece_at[i] + (uint32_t)n;
        bool plain = v->type[i] == TOKEN_NORMAL || v->type[i] == TOKEN_BYTE ||
                     v->type[i] == TOKEN_UNUSED || !tok_is_markup(s);
        v->in_model[i] = plain && !(d->outside && d->outside[i]);
    }
}

uint64_t tok_vocab_hash(const tok_vocab *v, const char *p, size_t n)
{
    uint64_t h = ash_hash_bytes(p, n, v->seed);
    __builtin_prefetch(&v->slots[h & (v->n_slots - 1)]);
    return h;
}

/* The slot that holds this text or the empty one where it belongs. The high half of the hash, which it is
 * filled with beside the id, spares most looks at the text. */
static size_t slot_of(const tok_vocab *v, uint64_t hash, const char *p, size_t n)
{
    size_t k = hash & (v->n_slots - 1);
    for (; v->slots[k]; k = (k + 1) & (v->n_slots - 1)) {
        if (v->slots[k] >> 32 != hash >> 32)
            continue;
        ash_str s = tok_vocab_text(v, (int32_t)(uint32_t)v->slots[k] - 1);
        if (s.n == n && memcmp(s.p, p, n) == 0)
            break;
    }
    return k;
}

static int index_text(tok_vocab *v, ash_arena *arena, ash_err *err)
{
    uint64_t hash[TOK_AHEAD];
    v->seed[0] = ash_rng_entropy();
    v->seed[1] = ash_rng_entropy();
    v->twice = -1;
    v->n_slots = ash_hash_slots(v->n);
    v->slots = ash_arena_calloc(arena, v->n_slots, sizeof *v->slots);
    if (!v->slots)
        return ash_err_nomem(err, "index of tokens");
    for (size_t i = 0; i < v->n; i++) {
        for (size_t j = i; i % TOK_AHEAD == 0 && j < i + TOK_AHEAD && j < v->n; j++) {
            ash_str s = tok_vocab_text(v, (int32_t)j);
            hash[j - i] = tok_vocab_hash(v, s.p, s.n);
        }
        ash_str s = tok_vocab_text(v, (int32_t)i);
        uint64_t h = hash[i % TOK_AHEAD];
        size_t k = s.n ? slot_of(v, h, s.p, s.n) : 0;
        if (s.n && !v->slots[k])
            v->slots[k] = h >> 32 << 32 | (i + 1);
        else if (s.n && v->twice < 0)
            v->twice = (int32_t)i;
    }
    return 0;
}

int32_t tok_vocab_find_hashed(const tok_vocab *v, uint64_t hash, const char *p, size_t n)
{
    return (int32_t)(uint32_t)v->slots[slot_of(v, hash, p, n)] - 1;
}

int32_t tok_vocab_find(const tok_vocab *v, const char *p, size_t n)
{
    return tok_vocab_find_hashed(v, tok_vocab_hash(v, p, n), p, n);
}

int32_t tok_model_find(const tok_vocab *v, const char *p, size_t n)
{
    int32_t id = tok_vocab_find(v, p, n);
    return id >= 0 && v->in_model[id] ? id : -1;
}

static void find_bytes(tok_vocab *v, tok_model model)
{
    for (int b = 0; b < 256; b++) {
        char text[8];
        size_t n;
        if (model == TOK_BPE)
            n = ash_utf8_encode(tok_byte_letter((uint8_t)b), text);
        else
            n = (size_t)snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        v->byte_id[b] = tok_model_find(v, text, n);
    }
}

int tok_vocab_build(tok_vocab *v, const tok_desc *d, ash_arena *arena, ash_err *err)
{
    int rc = reserve_text(v, d, arena, err);
    if (rc)
        return rc;
    fill_text(v, d);
    rc = index_text(v, arena, err);
    if (!rc)
        find_bytes(v, d->model);
    return rc;
}
