/* Owns the matching of added tokens in text: leftmost, then longest, as Hugging Face tokenizers do.
 * Refuses nothing; a token that may not count where it stands is as if it did not exist.
 * Immutable after building: any thread. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_impl.h"

static int by_piece(const void *a, const void *b, void *ctx)
{
    const tok_vocab *v = ctx;
    int32_t i = *(const int32_t *)a, k = *(const int32_t *)b;
    ash_str s = tok_vocab_piece(v, i), t = tok_vocab_piece(v, k);
    int c = memcmp(s.p, t.p, s.n < t.n ? s.n : t.n);
    if (c)
        return c;
    if (s.n != t.n)
        return s.n < t.n ? -1 : 1;
    return i < k ? -1 : i > k;
}

/* Does a user-defined token look like "<think>" or "[INST]", so that it carries meaning for the model
 * which a user's text must not forge? */
static bool looks_like_markup(ash_str s)
{
    return s.n >= 3 && ((s.p[0] == '<' && s.p[s.n - 1] == '>') ||
                        (s.p[0] == '[' && s.p[s.n - 1] == ']'));
}

int tok_added_build(tok_added *a, const tok_vocab *v, ash_arena *arena, ash_err *err)
{
    a->is_markup = ash_arena_calloc(arena, v->n, 1);
    if (!a->is_markup)
        return ash_err_nomem(err, "added tokens");
    for (int pass = 0; pass < 2; pass++) {
        a->n = 0;
        for (size_t i = 0; i < v->n; i++) {
            ash_str s = tok_vocab_piece(v, (int32_t)i);
            uint8_t type = v->type[i];
            bool user = type == TOKEN_USER;
            if (!s.n || !(user || type == TOKEN_CONTROL || type == TOKEN_UNKNOWN))
                continue;
            a->is_markup[i] = !user || looks_like_markup(s);
            a->first[(unsigned char)s.p[0]] = 1;
            if (pass)
                a->ids[a->n] = (int32_t)i;
            a->n++;
        }
        if (!pass) {
            a->ids = ash_arena_calloc(arena, a->n ? a->n : 1, sizeof *a->ids);
            if (!a->ids)
                return ash_err_nomem(err, "added tokens");
        }
    }
    qsort_r(a->ids, a->n, sizeof *a->ids, by_piece, (void *)v);
    return 0;
}

/* Of ids[lo..hi), which share their first k bytes, the part whose byte k is c. */
static void narrow(const tok_added *a, const tok_vocab *v, size_t *lo, size_t *hi, size_t k,
                   unsigned char c)
{
    size_t ends[2];
    for (unsigned side = 0; side < 2; side++) { /* first with byte >= c, then first with > c */
        size_t from = *lo, to = *hi;
        while (from < to) {
            size_t mid = from + (to - from) / 2;
            ash_str s = tok_vocab_piece(v, a->ids[mid]);
            bool before = s.n <= k || (unsigned char)s.p[k] < c + side;
            if (before)
                from = mid + 1;
            else
                to = mid;
        }
        ends[side] = from;
    }
    *lo = ends[0];
    *hi = ends[1];
}

/* No byte of [begin, end) lies in a span. */
static bool is_trusted(size_t begin, size_t end, const ash_span *spans, size_t n, size_t *at)
{
    while (*at < n && spans[*at].end <= begin) ++*at;
    for (size_t i = *at; i < n && spans[i].begin < end; i++)
        if (spans[i].begin < spans[i].end)
            return false;
    return true;
}

bool tok_added_next(const tok_added *a, const tok_vocab *v, const char *text, size_t n, size_t from,
                    bool special, const ash_span *spans, size_t n_spans, size_t *span,
                    tok_match *out)
{
    if (!a->n)
        return false;
    for (size_t p = from; p < n; p++) {
        if (!a->first[(unsigned char)text[p]])
            continue;
        size_t lo = 0, hi = a->n, best = 0;
        for (size_t k = 0; lo < hi; k++) {
            int32_t id = a->ids[lo];
            if (k && tok_vocab_piece(v, id).n == k &&
                (!a->is_markup[id] ||
                 (special && is_trusted(p, p + k, spans, n_spans, span)))) {
                best = k;
                *out = (tok_match){.begin = p, .end = p + k, .id = id};
            }
            if (p + k >= n)
                break;
            narrow(a, v, &lo, &hi, k, (unsigned char)text[p + k]);
        }
        if (best)
            return true;
    }
    return false;
}
