/* Owns the matching of added tokens in text: leftmost, then longest, as Hugging Face tokenizers do
 * (added_vocabulary.rs). Refuses nothing; a token that may not count where it stands is as if it did
 * not exist. Immutable after building: any thread. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "text/tokenizer_impl.h"

static int by_text(const void *a, const void *b)
{
    const tok_added_one *i = a, *k = b;
    int c = memcmp(i->text.p, k->text.p, i->text.n < k->text.n ? i->text.n : k->text.n);
    if (c)
        return c;
    if (i->text.n != k->text.n)
        return i->text.n < k->text.n ? -1 : 1;
    return i->id < k->id ? -1 : i->id > k->id;
}

/* Does a user-defined token look like "<think>" or "[INST]", so that it carries meaning for the model
 * which a user's text must not forge? */
bool tok_is_markup(ash_str s)
{
    while (s.n > 3 && memcmp(s.p, "\xe2\x96\x81", 3) == 0) { /* U+2581, as normalisation puts it */
        s.p += 3;
        s.n -= 3;
    }
    return s.n >= 3 && ((s.p[0] == '<' && s.p[s.n - 1] == '>') ||
                        (s.p[0] == '[' && s.p[s.n - 1] == ']'));
}

int tok_added_build(tok_added *a, const tok_add *list, size_t n, bool normalized, ash_arena *arena,
                    ash_err *err)
{
    a->list = ash_arena_calloc(arena, n ? n : 1, sizeof *a->list);
    if (!a->list)
        return ash_err_nomem(err, "added tokens");
    a->n = 0;
    for (size_t i = 0; i < n; i++) {
        ash_str s = list[i].text;
        if (!s.n || normalized != ((list[i].flags & ADDED_NORMALIZED) != 0))
            continue;
        char *p = ash_arena_strndup(arena, s.p, s.n);
        if (!p)
            return ash_err_nomem(err, "added tokens");
        a->list[a->n++] = (tok_added_one){
            .text = {p, s.n}, .id = list[i].id, .flags = (uint8_t)list[i].flags,
            .is_markup = (list[i].flags & ADDED_SPECIAL) || tok_is_markup(s)};
        a->first[(unsigned char)s.p[0]] = 1;
        a->any_markup = a->any_markup || a->list[a->n - 1].is_markup;
        a->strips = a->strips || (list[i].flags & (ADDED_LSTRIP | ADDED_RSTRIP));
    }
    qsort(a->list, a->n, sizeof *a->list, by_text);
    return 0;
}

/* Of list[lo..hi), which share their first k bytes, the part whose byte k is c. */
static void narrow(const tok_added *a, size_t *lo, size_t *hi, size_t k, unsigned char c)
{
    size_t ends[2];
    for (unsigned side = 0; side < 2; side++) { /* first with byte >= c, then first with > c */
        size_t from = *lo, to = *hi;
        while (from < to) {
            size_t mid = from + (to - from) / 2;
            ash_str s = a->list[mid].text;
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

/* No byte that text[begin..end) was made of lies in a span. */
static bool is_trusted(tok_search *s, size_t begin, size_t end)
{
    if (s->map && s->n_spans) {
        size_t b = s->map->begin[begin], e = s->map->end[begin];
        for (size_t i = begin; i < end; i++) { /* merged marks may have changed places */
            b = s->map->begin[i] < b ? s->map->begin[i] : b;
            e = s->map->end[i] > e ? s->map->end[i] : e;
        }
        begin = b;
        end = e;
    }
    while (s->span < s->n_spans && s->spans[s->span].end <= begin) s->span++;
    for (size_t i = s->span; i < s->n_spans && s->spans[i].begin < end; i++)
        if (s->spans[i].begin < s->spans[i].end)
            return false;
    return true;
}

/* A letter, digit, mark or the like: \w of Rust's regex. */
static bool is_word(uint32_t cp)
{
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM: case UTF8PROC_CATEGORY_LO: case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC: case UTF8PROC_CATEGORY_ME: case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_PC:
        return true;
    default: /* joiners, and letters in circles and squares */
        return cp == 0x200C || cp == 0x200D || (cp >= 0x24B6 && cp <= 0x24E9) ||
               (cp >= 0x1F130 && cp <= 0x1F149) || (cp >= 0x1F150 && cp <= 0x1F169) ||
               (cp >= 0x1F170 && cp <= 0x1F189);
    }
}

static bool stands_alone(const tok_search *s, size_t begin, size_t end)
{
    uint32_t cp;
    bool ok;
    size_t at = begin;
    if (begin) {
        do at--;
        while (at && ((unsigned char)s->text[at] & 0xC0) == 0x80);
        ash_utf8_decode(s->text + at, begin - at, &cp, &ok);
        if (is_word(cp))
            return false;
    }
    if (end == s->n)
        return true;
    ash_utf8_decode(s->text + end, s->n - end, &cp, &ok);
    return !is_word(cp);
}

/* The longest token at text[at]; NULL if there is none that counts here. */
static const tok_added_one *longest_at(const tok_added *a, tok_search *s, size_t at)
{
    const tok_added_one *best = NULL;
    size_t lo = 0, hi = a->n;
    for (size_t k = 0; lo < hi; k++) {
        const tok_added_one *one = &a->list[lo];
        if (k && one->text.n == k &&
            (!one->is_markup || (s->special && is_trusted(s, at, at + k))))
            best = one;
        if (at + k >= s->n)
            break;
        narrow(a, &lo, &hi, k, (unsigned char)s->text[at + k]);
    }
    return best;
}

bool tok_added_next(const tok_added *a, tok_search *s, tok_match *out)
{
    if (!a->n)
        return false;
    for (size_t p = s->from; p < s->n; p++) {
        const tok_added_one *one;
        if (!a->first[(unsigned char)s->text[p]] || !(one = longest_at(a, s, p)))
            continue;
        size_t end = p + one->text.n;
        if ((one->flags & ADDED_SINGLE_WORD) && !stands_alone(s, p, end)) {
            p = end - 1; /* `tokenizers` looks for the next one behind it */
            continue;
        }
        *out = (tok_match){.begin = p, .end = end, .id = one->id};
        s->from = end;
        if (one->flags & ADDED_RSTRIP)
            out->end = tok_spaces_after(s->text, end, s->n);
        /* As in `tokenizers`, white space that the token before took may be a token itself, unless
         * that one takes what is before it, too: then nothing of it is left. */
        if ((one->flags & ADDED_LSTRIP) && out->end <= s->done) {
            p = end - 1;
            continue;
        }
        if ((one->flags & ADDED_LSTRIP) && s->done < p)
            out->begin = tok_spaces_before(s->text, s->done, p);
        out->begin = out->begin < s->done ? s->done : out->begin;
        out->end = out->end < s->done ? s->done : out->end;
        return true;
    }
    return false;
}
