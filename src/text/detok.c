/* Owns the way from ids back to text, one id after the other, in whole code points. Refuses nothing;
 * bytes that cannot be UTF-8 become U+FFFD. One decoder, one thread at a time. */
#include <string.h>

#include "base/utf8.h"
#include "text/tokenizer_impl.h"

void ash_detok_init(ash_detok *d, const ash_tokenizer *t, unsigned flags)
{
    *d = (ash_detok){.tok = t, .flags = flags, .started = (flags & ASH_DETOK_CONTINUE) != 0};
}

static bool drops_space(const ash_detok *d)
{
    return !d->started && d->n_stripped < d->tok->decode.strip;
}

/* U+FFFD for n bytes that can be no character: one for each with byte fallback, else one for all. */
static void add_invalid(const ash_detok *d, size_t n, ash_buf *out)
{
    for (size_t i = 0; i < (d->tok->decode.bytes ? n : 1); i++)
        ash_buf_adds(out, "\xef\xbf\xbd");
}

/* Writes what is whole in p[0..n) and keeps the start of a code point that is not. */
static void write_bytes(ash_detok *d, const char *p, size_t n, ash_buf *out)
{
    size_t tail = ash_utf8_incomplete_tail(p, n), i = 0;
    while (i < n - tail) {
        uint32_t cp;
        bool ok;
        size_t step = ash_utf8_decode(p + i, n - i, &cp, &ok);
        if (ok && cp == ' ' && drops_space(d)) {
            d->n_stripped++;
        } else {
            if (ok)
                ash_buf_add(out, p + i, step);
            else
                add_invalid(d, step, out);
            d->started = true;
        }
        i += step;
    }
    memcpy(d->held, p + n - tail, tail);
    d->n_held = (uint8_t)tail;
}

/* The first token's spaces vanish in vocabularies whose decoder is Metaspace. */
static size_t drop_spaces(char *p, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (p[i] != ' ')
            p[kept++] = p[i];
    return kept;
}

int ash_detok_push(ash_detok *d, int32_t id, ash_buf *out)
{
    char bytes[sizeof d->held + ASH_MAX_TOKEN_BYTES];
    ash_str s;
    if (!ash_tokenizer_piece(d->tok, id, &s) || !s.n ||
        (ash_tokenizer_is_special(d->tok, id) && !(d->flags & ASH_DETOK_SPECIAL)))
        return out->failed;
    memcpy(bytes, d->held, d->n_held);
    memcpy(bytes + d->n_held, s.p, s.n); /* at most ASH_MAX_TOKEN_BYTES, checked at open */
    size_t n = d->n_held + s.n;
    if (d->tok->decode.strip_meta && !d->started && !d->n_held &&
        d->tok->vocab.type[id] == TOKEN_NORMAL)
        n = drop_spaces(bytes, n);
    d->started = d->started || d->tok->decode.strip_meta;
    write_bytes(d, bytes, n, out);
    return out->failed;
}

int ash_detok_flush(ash_detok *d, ash_buf *out)
{
    if (d->n_held)
        add_invalid(d, d->n_held, out);
    ash_detok_init(d, d->tok, d->flags);
    return out->failed;
}
