/* Owns upper, lower and title case as Python's str does them: utf8proc's simple mappings and the
 * expansions of Unicode's SpecialCasing.txt (unconditional ones, and the final sigma). Where a
 * mapping is not byte for byte, the result is untrusted if the input was. Pure but for the run. */
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "text/template_impl.h"

/* Upper case of more than one code point. */
static const struct {
    uint32_t cp, upper[3];
} special[] = {
    {0x00DF, {0x53, 0x53, 0}}, {0x0149, {0x2BC, 0x4E, 0}}, {0x01F0, {0x4A, 0x30C, 0}},
    {0x0390, {0x399, 0x308, 0x301}}, {0x03B0, {0x3A5, 0x308, 0x301}}, {0x0587, {0x535, 0x552, 0}},
    {0x1E96, {0x48, 0x331, 0}}, {0x1E97, {0x54, 0x308, 0}}, {0x1E98, {0x57, 0x30A, 0}},
    {0x1E99, {0x59, 0x30A, 0}}, {0x1E9A, {0x41, 0x2BE, 0}}, {0x1F50, {0x3A5, 0x313, 0}},
    {0x1F52, {0x3A5, 0x313, 0x300}}, {0x1F54, {0x3A5, 0x313, 0x301}},
    {0x1F56, {0x3A5, 0x313, 0x342}}, {0x1F80, {0x1F08, 0x399, 0}}, {0x1F81, {0x1F09, 0x399, 0}},
    {0x1F82, {0x1F0A, 0x399, 0}}, {0x1F83, {0x1F0B, 0x399, 0}}, {0x1F84, {0x1F0C, 0x399, 0}},
    {0x1F85, {0x1F0D, 0x399, 0}}, {0x1F86, {0x1F0E, 0x399, 0}}, {0x1F87, {0x1F0F, 0x399, 0}},
    {0x1F88, {0x1F08, 0x399, 0}}, {0x1F89, {0x1F09, 0x399, 0}}, {0x1F8A, {0x1F0A, 0x399, 0}},
    {0x1F8B, {0x1F0B, 0x399, 0}}, {0x1F8C, {0x1F0C, 0x399, 0}}, {0x1F8D, {0x1F0D, 0x399, 0}},
    {0x1F8E, {0x1F0E, 0x399, 0}}, {0x1F8F, {0x1F0F, 0x399, 0}}, {0x1F90, {0x1F28, 0x399, 0}},
    {0x1F91, {0x1F29, 0x399, 0}}, {0x1F92, {0x1F2A, 0x399, 0}}, {0x1F93, {0x1F2B, 0x399, 0}},
    {0x1F94, {0x1F2C, 0x399, 0}}, {0x1F95, {0x1F2D, 0x399, 0}}, {0x1F96, {0x1F2E, 0x399, 0}},
    {0x1F97, {0x1F2F, 0x399, 0}}, {0x1F98, {0x1F28, 0x399, 0}}, {0x1F99, {0x1F29, 0x399, 0}},
    {0x1F9A, {0x1F2A, 0x399, 0}}, {0x1F9B, {0x1F2B, 0x399, 0}}, {0x1F9C, {0x1F2C, 0x399, 0}},
    {0x1F9D, {0x1F2D, 0x399, 0}}, {0x1F9E, {0x1F2E, 0x399, 0}}, {0x1F9F, {0x1F2F, 0x399, 0}},
    {0x1FA0, {0x1F68, 0x399, 0}}, {0x1FA1, {0x1F69, 0x399, 0}}, {0x1FA2, {0x1F6A, 0x399, 0}},
    {0x1FA3, {0x1F6B, 0x399, 0}}, {0x1FA4, {0x1F6C, 0x399, 0}}, {0x1FA5, {0x1F6D, 0x399, 0}},
    {0x1FA6, {0x1F6E, 0x399, 0}}, {0x1FA7, {0x1F6F, 0x399, 0}}, {0x1FA8, {0x1F68, 0x399, 0}},
    {0x1FA9, {0x1F69, 0x399, 0}}, {0x1FAA, {0x1F6A, 0x399, 0}}, {0x1FAB, {0x1F6B, 0x399, 0}},
    {0x1FAC, {0x1F6C, 0x399, 0}}, {0x1FAD, {0x1F6D, 0x399, 0}}, {0x1FAE, {0x1F6E, 0x399, 0}},
    {0x1FAF, {0x1F6F, 0x399, 0}}, {0x1FB2, {0x1FBA, 0x399, 0}}, {0x1FB3, {0x391, 0x399, 0}},
    {0x1FB4, {0x386, 0x399, 0}}, {0x1FB6, {0x391, 0x342, 0}}, {0x1FB7, {0x391, 0x342, 0x399}},
    {0x1FBC, {0x391, 0x399, 0}}, {0x1FC2, {0x1FCA, 0x399, 0}}, {0x1FC3, {0x397, 0x399, 0}},
    {0x1FC4, {0x389, 0x399, 0}}, {0x1FC6, {0x397, 0x342, 0}}, {0x1FC7, {0x397, 0x342, 0x399}},
    {0x1FCC, {0x397, 0x399, 0}}, {0x1FD2, {0x399, 0x308, 0x300}}, {0x1FD3, {0x399, 0x308, 0x301}},
    {0x1FD6, {0x399, 0x342, 0}}, {0x1FD7, {0x399, 0x308, 0x342}}, {0x1FE2, {0x3A5, 0x308, 0x300}},
    {0x1FE3, {0x3A5, 0x308, 0x301}}, {0x1FE4, {0x3A1, 0x313, 0}}, {0x1FE6, {0x3A5, 0x342, 0}},
    {0x1FE7, {0x3A5, 0x308, 0x342}}, {0x1FF2, {0x1FFA, 0x399, 0}}, {0x1FF3, {0x3A9, 0x399, 0}},
    {0x1FF4, {0x38F, 0x399, 0}}, {0x1FF6, {0x3A9, 0x342, 0}}, {0x1FF7, {0x3A9, 0x342, 0x399}},
    {0x1FFC, {0x3A9, 0x399, 0}}, {0xFB00, {0x46, 0x46, 0}}, {0xFB01, {0x46, 0x49, 0}},
    {0xFB02, {0x46, 0x4C, 0}}, {0xFB03, {0x46, 0x46, 0x49}}, {0xFB04, {0x46, 0x46, 0x4C}},
    {0xFB05, {0x53, 0x54, 0}}, {0xFB06, {0x53, 0x54, 0}}, {0xFB13, {0x544, 0x546, 0}},
    {0xFB14, {0x544, 0x535, 0}}, {0xFB15, {0x544, 0x53B, 0}}, {0xFB16, {0x54E, 0x546, 0}},
    {0xFB17, {0x544, 0x53D, 0}},
};

static size_t expand_upper(uint32_t cp, uint32_t out[3])
{
    if (cp >= 0xDF) {
        size_t lo = 0, hi = sizeof special / sizeof *special;
        while (lo < hi) {
            size_t mid = (lo + hi) / 2;
            if (special[mid].cp < cp)
                lo = mid + 1;
            else
                hi = mid;
        }
        if (lo < sizeof special / sizeof *special && special[lo].cp == cp) {
            memcpy(out, special[lo].upper, sizeof special[lo].upper);
            return out[2] ? 3 : 2;
        }
    }
    out[0] = (uint32_t)utf8proc_toupper((utf8proc_int32_t)cp);
    return 1;
}

static size_t expand_lower(uint32_t cp, bool final_sigma, uint32_t out[3])
{
    out[0] = cp == 0x3A3 && final_sigma ? 0x3C2 : (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
    if (cp != 0x130)
        return 1;
    out[0] = 'i';
    out[1] = 0x307;
    return 2;
}

static size_t expand_title(uint32_t cp, uint32_t out[3])
{
    out[0] = (uint32_t)utf8proc_totitle((utf8proc_int32_t)cp);
    if ((out[0] != cp && cp != 0xDF) || cp < 0xDF) /* for utf8proc U+1E9E is the upper case of U+DF */
        return 1;
    size_t n = expand_upper(cp, out);
    bool cased = false;
    for (size_t i = 0; n > 1 && i < n; i++) { /* "Ss", "Ffi": all after the first letter */
        bool upper = utf8proc_isupper((utf8proc_int32_t)out[i]);
        if (cased)
            out[i] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)out[i]);
        cased = cased || upper;
    }
    return n;
}

static bool is_upper_cp(uint32_t cp)
{
    return utf8proc_isupper((utf8proc_int32_t)cp) != 0;
}

static bool is_cased(uint32_t cp)
{
    return is_upper_cp(cp) || utf8proc_islower((utf8proc_int32_t)cp) ||
           utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_LT;
}

/* Whether a cased letter stands right before or after, over marks: what makes a sigma final. */
static bool cased_before(const ash_tstr *s, size_t at)
{
    while (at > 0) {
        at--;
        while (at > 0 && ((unsigned char)s->p[at] & 0xC0) == 0x80) at--;
        uint32_t cp;
        bool ok;
        ash_utf8_decode(s->p + at, s->n - at, &cp, &ok);
        if (utf8proc_category((utf8proc_int32_t)cp) != UTF8PROC_CATEGORY_MN && cp != '\'' && cp != '.')
            return is_cased(cp);
    }
    return false;
}

static bool cased_after(const ash_tstr *s, size_t at)
{
    while (at < s->n) {
        uint32_t cp;
        bool ok;
        at += ash_utf8_decode(s->p + at, s->n - at, &cp, &ok);
        if (utf8proc_category((utf8proc_int32_t)cp) != UTF8PROC_CATEGORY_MN && cp != '\'' && cp != '.')
            return is_cased(cp);
    }
    return false;
}

/* What word starts are for Jinja's title filter: after white space and any of -({[<. */
static bool breaks_word(uint32_t cp)
{
    return ash_tspace(cp) || (cp < 0x80 && cp && strchr("-({[<", (int)cp));
}

/* One code point at `at` under the mapping; `*start` says whether a word begins here. */
static size_t map_one(const ash_tstr *s, size_t at, size_t len, uint32_t cp, ash_tcase how, bool *start,
                      uint32_t out[3])
{
    bool sigma = cp == 0x3A3 && cased_before(s, at) && !cased_after(s, at + len), first = *start;
    switch (how) {
    case ASH_TCASE_UPPER: return expand_upper(cp, out);
    case ASH_TCASE_LOWER: return expand_lower(cp, sigma, out);
    case ASH_TCASE_SWAP:
        if (is_upper_cp(cp))
            return expand_lower(cp, sigma, out);
        return expand_upper(cp, out);
    case ASH_TCASE_CAPITALIZE:
        *start = false;
        return first ? expand_title(cp, out) : expand_lower(cp, sigma, out);
    case ASH_TCASE_TITLE:
        *start = !is_cased(cp);
        return first ? expand_title(cp, out) : expand_lower(cp, sigma, out);
    default:
        *start = breaks_word(cp);
        return first && !*start ? expand_upper(cp, out) : expand_lower(cp, sigma, out);
    }
}

/* A result whose bytes stand where the source's stood keeps the source's taint. */
static ash_tval same_taint(ash_trun *r, const ash_tstr *s, const ash_tsink *k)
{
    bool exact = s->cps == s->n && k->n == s->n;
    ash_tval v = ash_tstr_wrap(r, k->p ? k->p : "", k->n, !exact && ash_tstr_tainted(s));
    if (v.t != ASH_T_STR)
        return v;
    ash_tstr *out = (ash_tstr *)v.s; /* ours alone until it is returned */
    if (exact) {
        out->taint = s->taint;
        out->n_taint = s->n_taint;
    }
    out->markup = s->markup;
    return v;
}

ash_tval ash_tcase_map(ash_trun *r, const ash_tstr *s, ash_tcase how)
{
    ash_tsink k = {0};
    bool start = true;
    for (size_t at = 0; at < s->n && !r->rc;) {
        uint32_t cp, out[3] = {0};
        bool ok;
        char utf8[12];
        size_t len = ash_utf8_decode(s->p + at, s->n - at, &cp, &ok), bytes = 0;
        size_t n = map_one(s, at, len, cp, how, &start, out);
        for (size_t i = 0; i < n; i++) bytes += ash_utf8_encode(out[i], utf8 + bytes);
        ash_tsink_bytes(r, &k, utf8, bytes, false);
        at += len;
        if (at % 64 == 0 && !ash_trun_charge(r, 1))
            break;
    }
    return r->rc ? ASH_TVAL_UNDEF : same_taint(r, s, &k);
}

static bool all_of_case(const ash_tstr *s, bool upper)
{
    bool any = false;
    for (size_t at = 0; at < s->n;) {
        uint32_t cp;
        bool ok;
        at += ash_utf8_decode(s->p + at, s->n - at, &cp, &ok);
        if (is_cased(cp)) {
            if (is_upper_cp(cp) != upper || utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_LT)
                return false;
            any = true;
        }
    }
    return any;
}

bool ash_tcase_is_upper(const ash_tstr *s)
{
    return all_of_case(s, true);
}

bool ash_tcase_is_lower(const ash_tstr *s)
{
    return all_of_case(s, false);
}
