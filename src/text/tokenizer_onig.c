/* Owns the rewriting of Oniguruma's patterns (Ruby syntax, UTF-8) for PCRE2. The parts that mean the
 * same are copied, those that can be said otherwise are (\s, \w, \uHHHH, ranges, \p{Script}), all else
 * is refused. Sources: Oniguruma's doc/RE and src/regsyntax.c (OnigSyntaxRuby), pcre2pattern(3).
 * Pure functions, any thread. */
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "text/tokenizer_regex.h"

#define MAX_PATTERN (64u << 10)

/* All but White_Space, for a class that holds \S. */
#define NOT_WS                                                                                     \
    "\\x{0}-\\x{8}\\x{E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{1FFF}"  \
    "\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}\\x{3001}-\\x{10FFFF}"
/* Oniguruma's \w has six numbers of Latin-1, too (seen by running it over all code points). */
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"

typedef struct rewriter {
    const char *p;
    size_t n, at;
    ash_buf *out;
    ash_err *err;
    bool atom;     /* what stands before can be repeated */
    unsigned open; /* groups */
} rewriter;

/* One member of a class, or one escape outside of it: a code point, or a set in class form. */
typedef struct item {
    bool is_set, negated; /* negated: outside of a class it is written [^...] */
    uint32_t cp;
    const char *set; /* class form; "" if `prop` has it */
    char prop[80];
} item;

static int refuse(rewriter *r, size_t at, const char *what)
{
    return ash_err_set(r->err, ASH_EUNSUPPORTED, "%s at byte %zu of the pattern is not done", what, at);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                        : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int peek(const rewriter *r, size_t k)
{
    return r->at + k < r->n ? (unsigned char)r->p[r->at + k] : -1;
}

/* Hexadecimal digits from r->at on: `least` to `most` of them. */
static bool read_hex(rewriter *r, int least, int most, uint32_t *cp)
{
    int n = 0;
    *cp = 0;
    for (; n < most && peek(r, 0) >= 0 && hex_digit(r->p[r->at]) >= 0; n++)
        *cp = *cp * 16 + (uint32_t)hex_digit(r->p[r->at++]);
    return n >= least && *cp <= 0x10FFFF;
}

/* ---- properties ----------------------------------------------------------------------------- */

static const char *long_category(const char *name)
{
    static const char *const names[][2] = {
        {"letter", "L"}, {"mark", "M"},      {"number", "N"}, {"punctuation", "P"},
        {"symbol", "S"}, {"separator", "Z"}, {"other", "C"},  {"alphabetic", "Alphabetic"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasecmp(names[i][0], name) == 0)
            return names[i][1];
    return NULL;
}

/* "L", "Lu", ...: a general category as both write it. */
static bool is_category(const char *name)
{
    static const char two[] = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So "
                              "Zs Zl Zp Cc Cf Cs Co Cn";
    size_t n = strlen(name);
    if (n == 1)
        return strchr("LMNPSZC", name[0]) != NULL;
    return n == 2 && strstr(two, name) != NULL;
}

/* After "\p" or "\P": "{^Name}". Scripts are asked for as such: PCRE2 would take their extensions. */
static int read_property(rewriter *r, bool negated, item *it)
{
    size_t start = r->at, n = 0;
    char name[48];
    if (peek(r, 0) != '{')
        return refuse(r, start, "a property without braces");
    r->at++;
    if (peek(r, 0) == '^') {
        negated = !negated;
        r->at++;
    }
    for (int c; (c = peek(r, 0)) != '}'; r->at++) {
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter || n + 1 == sizeof name)
            return refuse(r, start, "a property of this name");
        name[n++] = (char)c;
    }
    r->at++;
    name[n] = 0;
    const char *known = is_category(name) ? name : long_category(name);
    if (n < 3 && !known)
        return refuse(r, start, "a property of this name");
    *it = (item){.is_set = true, .set = ""};
    snprintf(it->prop, sizeof it->prop, "\\%c{%s%s}", negated ? 'P' : 'p', known ? "" : "sc:",
             known ? known : name);
    return 0;
}

/* ---- escapes -------------------------------------------------------------------------------- */

static int read_code(rewriter *r, int c, size_t start, uint32_t *cp)
{
    if (c == 'u')
        return read_hex(r, 4, 4, cp) ? 0 : refuse(r, start, "this \\u");
    if (peek(r, 0) == '{') {
        r->at++;
        if (!read_hex(r, 1, 8, cp) || peek(r, 0) != '}')
            return refuse(r, start, "this \\x{}");
        r->at++;
        return 0;
    }
    if (!read_hex(r, 1, 2, cp) || *cp >= 0x80) /* a byte there, a code point in PCRE2 */
        return refuse(r, start, "this \\x");
    return 0;
}

static bool control_escape(int c, uint32_t *cp)
{
    static const char letters[] = "ntrfave", values[] = "\n\t\r\f\a\v\x1b";
    const char *at = c > 0 ? strchr(letters, c) : NULL;
    if (at)
        *cp = (unsigned char)values[at - letters];
    return at != NULL;
}

/* At a backslash. */
static int read_escape(rewriter *r, item *it)
{
    size_t start = r->at;
    int c = peek(r, 1);
    *it = (item){.set = ""};
    if (c < 0)
        return refuse(r, start, "a backslash at the end");
    r->at += 2;
    switch (c) {
    case 's': *it = (item){.is_set = true, .set = TOK_WS}; return 0;
    case 'S': *it = (item){.is_set = true, .set = NOT_WS}; return 0;
    case 'd': *it = (item){.is_set = true, .set = "\\p{Nd}"}; return 0;
    case 'D': *it = (item){.is_set = true, .set = "\\P{Nd}"}; return 0;
    case 'w': *it = (item){.is_set = true, .set = WORD}; return 0;
    case 'W': *it = (item){.is_set = true, .negated = true, .set = WORD}; return 0;
    case 'p': case 'P': return read_property(r, c == 'P', it);
    case 'u': case 'x': return read_code(r, c, start, &it->cp);
    default: break;
    }
    if (control_escape(c, &it->cp))
        return 0;
    if (c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')) {
        char what[24];
        snprintf(what, sizeof what, c < 0x80 ? "'\\%c'" : "this escape", c);
        return refuse(r, start, what);
    }
    it->cp = (uint32_t)c;
    return 0;
}

static void put_code(rewriter *r, uint32_t cp)
{
    ash_buf_printf(r->out, "\\x{%X}", cp);
}

/* ---- classes -------------------------------------------------------------------------------- */

static int read_member(rewriter *r, item *it)
{
    size_t start = r->at;
    bool ok;
    int c = peek(r, 0);
    if (c < 0)
        return refuse(r, start, "a class without end");
    if (c == '\\')
        return read_escape(r, it);
    if (c == '[')
        return refuse(r, start, peek(r, 1) == ':' ? "a POSIX class" : "a class in a class");
    if (c == '&' && peek(r, 1) == '&')
        return refuse(r, start, "the intersection of classes");
    *it = (item){.set = ""};
    r->at += ash_utf8_decode(r->p + r->at, r->n - r->at, &it->cp, &ok);
    return 0;
}

static int read_range(rewriter *r, const item *low)
{
    size_t start = r->at;
    item high;
    r->at++; /* the hyphen */
    int rc = read_member(r, &high);
    if (rc)
        return rc;
    if (high.is_set || high.cp < low->cp)
        return refuse(r, start, "a range of this kind");
    put_code(r, low->cp);
    ash_buf_addc(r->out, '-');
    put_code(r, high.cp);
    return 0;
}

/* At "[". */
static int read_class(rewriter *r)
{
    size_t start = r->at;
    ash_buf_addc(r->out, '[');
    r->at++;
    if (peek(r, 0) == '^') {
        ash_buf_addc(r->out, '^');
        r->at++;
    }
    if (peek(r, 0) == ']')
        return refuse(r, start, "a class that begins with ']'");
    while (peek(r, 0) != ']') {
        item it;
        int rc = read_member(r, &it);
        if (rc)
            return rc;
        if (it.negated)
            return refuse(r, start, "'\\W' in a class");
        if (it.is_set) {
            ash_buf_adds(r->out, it.prop);
            ash_buf_adds(r->out, it.set);
        } else if (peek(r, 0) == '-' && peek(r, 1) != ']') {
            rc = read_range(r, &it);
            if (rc)
                return rc;
        } else {
            put_code(r, it.cp);
        }
    }
    r->at++;
    ash_buf_addc(r->out, ']');
    r->atom = true;
    return 0;
}

/* ---- groups and repeats --------------------------------------------------------------------- */

/* At "(". Groups capture nothing: no pattern may refer back. */
static int read_group(rewriter *r)
{
    static const char *const kinds[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"};
    size_t start = r->at;
    r->atom = false;
    if (peek(r, 1) != '?') {
        ash_buf_adds(r->out, "(?:");
        r->at++;
        r->open++;
        return 0;
    }
    if (start == 0 && r->n >= 4 && memcmp(r->p, "(?i)", 4) == 0) {
        ash_buf_adds(r->out, "(?i)");
        r->at += 4;
        return 0;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t n = strlen(kinds[i]);
        if (r->n - start < n || memcmp(r->p + start, kinds[i], n) != 0)
            continue;
        ash_buf_adds(r->out, kinds[i]);
        r->at += n;
        r->open++;
        return 0;
    }
    return refuse(r, start, "a group of this kind");
}

/* "{2}", "{2,}", "{,3}" or "{2,3}" at r->at: its length, else 0. */
static size_t interval_length(const rewriter *r, bool *fixed)
{
    size_t k = 1, digits = 0;
    bool comma = false;
    for (;; k++) {
        int c = peek(r, k);
        if (c >= '0' && c <= '9')
            digits++;
        else if (c == ',' && !comma)
            comma = true;
        else
            break;
    }
    *fixed = !comma;
    return digits && digits < 12 && peek(r, k) == '}' ? k + 1 : 0;
}

static int read_repeat(rewriter *r)
{
    size_t start = r->at, n = 1;
    bool interval = peek(r, 0) == '{', fixed = false;
    if (interval)
        n = interval_length(r, &fixed);
    if (!n) { /* a brace that stands for itself */
        ash_buf_adds(r->out, "\\{");
        r->at++;
        r->atom = true;
        return 0;
    }
    if (!r->atom)
        return refuse(r, start, "a repeat of nothing");
    bool from_none = interval && r->p[start + 1] == ',';
    if (from_none)
        ash_buf_adds(r->out, "{0");
    ash_buf_add(r->out, r->p + start + from_none, n - from_none);
    r->at += n;
    r->atom = false;
    int c = peek(r, 0);
    if (interval && (c == '+' || (c == '?' && fixed)))
        return refuse(r, r->at, "a repeat of a repeat");
    if (c == '?' || c == '+') {
        ash_buf_addc(r->out, (char)c);
        r->at++;
    }
    return 0;
}

/* ---- body ----------------------------------------------------------------------------------- */

static int read_outside(rewriter *r)
{
    item it;
    int rc = read_escape(r, &it);
    if (rc)
        return rc;
    if (!it.is_set)
        put_code(r, it.cp);
    else if (it.prop[0])
        ash_buf_adds(r->out, it.prop);
    else
        ash_buf_printf(r->out, "[%s%s]", it.negated ? "^" : "", it.set);
    r->atom = true;
    return 0;
}

/* "\A" and "\z" are the same in both. */
static bool read_anchor(rewriter *r)
{
    int c = peek(r, 1);
    if (c != 'A' && c != 'z')
        return false;
    ash_buf_add(r->out, r->p + r->at, 2);
    r->at += 2;
    r->atom = false;
    return true;
}

static int read_one(rewriter *r)
{
    uint32_t cp;
    bool ok;
    switch (r->p[r->at]) {
    case '\\': return read_anchor(r) ? 0 : read_outside(r);
    case '[': return read_class(r);
    case '(': return read_group(r);
    case '*': case '+': case '?': case '{': return read_repeat(r);
    case ')':
        if (!r->open)
            return refuse(r, r->at, "a ')' without its '('");
        r->open--;
        r->atom = true;
        break;
    case '|': case '^': case '$': r->atom = false; break;
    case '.':
        ash_buf_adds(r->out, "[^\\n]");
        r->at++;
        r->atom = true;
        return 0;
    default:
        r->at += ash_utf8_decode(r->p + r->at, r->n - r->at, &cp, &ok);
        put_code(r, cp);
        r->atom = true;
        return 0;
    }
    ash_buf_addc(r->out, r->p[r->at++]);
    return 0;
}

int tok_regex_rewrite(ash_str pattern, ash_buf *out, ash_err *err)
{
    rewriter r = {.p = pattern.p, .n = pattern.n, .out = out, .err = err};
    int rc = 0;
    if (pattern.n > MAX_PATTERN)
        return ash_err_set(err, ASH_ELIMIT, "the pattern has %zu bytes; at most %u are read",
                           pattern.n, MAX_PATTERN);
    /* The same matches, but tried once for a run of blanks and not at each of them: in Ruby's syntax
     * "$" is before any line feed, too. */
    if (ash_str_eqc(pattern, "\\s+$")) {
        ash_buf_adds(out, "(?<![" TOK_WS "])(?:[" TOK_WS "]++\\z|[" TOK_WS "]+(?=\\n))");
        return ash_buf_check(out, "pattern", err);
    }
    while (r.at < r.n && !rc) rc = read_one(&r);
    if (!rc && r.open)
        rc = refuse(&r, r.n, "a group without end");
    return rc ? rc : ash_buf_check(out, "pattern", err);
}
