/* Owns the way from template source to tokens: Jinja2's lexer with trim_blocks and lstrip_blocks
 * (jinja2/lexer.py, class Lexer). Refuses what that refuses, integers beyond 64 bits, and \N{...}.
 * Pure but for the template's arena. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/limits.h"
#include "base/utf8.h"
#include "text/template_impl.h"

typedef struct lexer {
    ash_template *t;
    const char *s; /* [n] */
    size_t n, at;
    ash_ttoken *v;
    size_t count, cap;
    bool line_starting; /* whether the last match ended a line */
    char open[ASH_MAX_TEMPLATE_DEPTH]; /* brackets to be closed */
    int n_open;
    ash_err *err;
} lexer;

int ash_template_fail(const ash_template *t, size_t pos, ash_err *err, int code, const char *fmt, ...)
{
    size_t line = 1, start = 0;
    for (size_t i = 0; i < pos && i < t->n; i++)
        if (t->src[i] == '\n') {
            line++;
            start = i + 1;
        }
    va_list ap;
    va_start(ap, fmt);
    char msg[400];
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    ash_err_set(err, code, "template line %zu column %zu: %s", line,
                ash_utf8_count(t->src + start, pos - start) + 1, msg);
    if (err)
        err->pos = (int64_t)pos;
    return code;
}

bool ash_tspace(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

static size_t skip_space(const lexer *x, size_t at)
{
    while (at < x->n) {
        uint32_t cp;
        bool ok;
        size_t len = ash_utf8_decode(x->s + at, x->n - at, &cp, &ok);
        if (!ash_tspace(cp))
            break;
        at += len;
    }
    return at;
}

/* The end of [begin, end) without the white space there. */
static size_t strip_end(const lexer *x, size_t begin, size_t end)
{
    while (end > begin) {
        size_t at = end - 1;
        while (at > begin && ((unsigned char)x->s[at] & 0xC0) == 0x80) at--;
        uint32_t cp;
        bool ok;
        ash_utf8_decode(x->s + at, end - at, &cp, &ok);
        if (!ash_tspace(cp))
            break;
        end = at;
    }
    return end;
}

static bool looking_at(const lexer *x, size_t at, const char *word)
{
    size_t len = strlen(word);
    return at <= x->n && x->n - at >= len && memcmp(x->s + at, word, len) == 0;
}

static int push(lexer *x, ash_ttoken tok)
{
    if (x->count == x->cap) {
        size_t cap = x->cap ? x->cap * 2 : 256;
        ash_ttoken *v = ash_arena_calloc(&x->t->arena, cap, sizeof *v);
        if (!v)
            return ash_err_nomem(x->err, "template");
        if (x->count)
            memcpy(v, x->v, x->count * sizeof *v);
        x->v = v;
        x->cap = cap;
    }
    x->v[x->count++] = tok;
    return 0;
}

static int push_text(lexer *x, ash_ttok type, size_t begin, size_t end)
{
    if (type == ASH_TOK_DATA && begin == end)
        return 0;
    return push(x, (ash_ttoken){.type = type, .pos = (uint32_t)begin,
                                .s = {x->s + begin, end - begin}});
}

/* Text before a tag: '-' strips all white space before it, lstrip_blocks that of its own line. */
static int push_data(lexer *x, size_t begin, size_t end, char sign, bool variable)
{
    if (sign == '-') {
        end = strip_end(x, begin, end);
    } else if (sign != '+' && !variable) {
        size_t line = end;
        while (line > begin && x->s[line - 1] != '\n') line--;
        if ((line > begin || x->line_starting) && strip_end(x, line, end) == line)
            end = line;
    }
    return push_text(x, ASH_TOK_DATA, begin, end);
}

/* If `at` ends a tag whose closing mark is `mark` ("%}", "#}"): the position after it, with what
 * a '-' or trim_blocks takes along; else 0. */
static size_t tag_end(const lexer *x, size_t at, const char *mark, bool trim, bool plus)
{
    size_t end;
    if (looking_at(x, at, "-") && looking_at(x, at + 1, mark))
        end = skip_space(x, at + 3);
    else if (plus && looking_at(x, at, "+") && looking_at(x, at + 1, mark))
        end = at + 3;
    else if (looking_at(x, at, mark))
        end = at + 2 + (trim && looking_at(x, at + 2, "\n"));
    else
        return 0;
    return end;
}

static void consumed(lexer *x, size_t end)
{
    x->at = end;
    x->line_starting = end > 0 && x->s[end - 1] == '\n';
}

static char sign_at(const lexer *x, size_t at)
{
    return at < x->n && (x->s[at] == '-' || x->s[at] == '+') ? x->s[at] : 0;
}

/* If a raw tag begins at `at`: the position after it, else 0. */
static size_t raw_begin(const lexer *x, size_t at)
{
    at = skip_space(x, at + 2 + (sign_at(x, at + 2) != 0));
    if (!looking_at(x, at, "raw"))
        return 0;
    at = skip_space(x, at + 3);
    return tag_end(x, at, "%}", false, false);
}

static int lex_raw(lexer *x, size_t tag, size_t begin)
{
    consumed(x, begin);
    for (size_t at = begin; at + 1 < x->n; at++) {
        if (!looking_at(x, at, "{%"))
            continue;
        char sign = sign_at(x, at + 2);
        size_t word = skip_space(x, at + 2 + (sign != 0));
        if (!looking_at(x, word, "endraw"))
            continue;
        size_t end = tag_end(x, skip_space(x, word + 6), "%}", true, true);
        if (!end)
            continue;
        int rc = push_data(x, begin, at, sign, false);
        consumed(x, end);
        return rc;
    }
    return ash_template_fail(x->t, tag, x->err, ASH_EFORMAT, "missing end of raw directive");
}

static int lex_comment(lexer *x, size_t tag)
{
    size_t begin = tag + 2 + (sign_at(x, tag + 2) != 0);
    for (size_t at = begin; at < x->n; at++) {
        size_t end = tag_end(x, at, "#}", true, true);
        if (end) {
            consumed(x, end);
            return 0;
        }
    }
    return ash_template_fail(x->t, tag, x->err, ASH_EFORMAT, "missing end of comment tag");
}

/* digits with single underscores between them, from `at`; the position after */
static size_t digits(const lexer *x, size_t at)
{
    size_t end = at;
    while (at < x->n) {
        if (x->s[at] >= '0' && x->s[at] <= '9')
            end = ++at;
        else if (x->s[at] == '_' && at > 0 && end == at && at + 1 < x->n && x->s[at + 1] >= '0' &&
                 x->s[at + 1] <= '9')
            at++;
        else
            break;
    }
    return end;
}

/* The text of [begin, end) without underscores, NUL-terminated, in the arena. */
static char *without_underscores(lexer *x, size_t begin, size_t end)
{
    char *out = ash_arena_strndup(&x->t->arena, x->s + begin, end - begin), *to = out;
    for (const char *p = out; p && *p; p++)
        if (*p != '_')
            *to++ = *p;
    if (out)
        *to = 0;
    return out;
}

static bool is_base_digit(char c, int base)
{
    int d = c >= '0' && c <= '9' ? c - '0'
            : c >= 'a' && c <= 'f' ? c - 'a' + 10
            : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
    return d < base;
}

/* 0b, 0o, 0x: the position after, or `at` if it is none. */
static size_t based_integer(const lexer *x, size_t at, int *base)
{
    if (x->s[at] != '0' || at + 1 >= x->n)
        return at;
    char c = (char)(x->s[at + 1] | 0x20);
    *base = c == 'b' ? 2 : c == 'o' ? 8 : c == 'x' ? 16 : 0;
    size_t end = at;
    for (size_t i = at + 2; *base && i < x->n;) {
        size_t d = i + (x->s[i] == '_');
        if (d >= x->n || !is_base_digit(x->s[d], *base))
            break;
        end = i = d + 1;
    }
    return end;
}

static int push_integer(lexer *x, size_t begin, size_t end, int base)
{
    char *text = without_underscores(x, begin + (base == 10 ? 0 : 2), end);
    if (!text)
        return ash_err_nomem(x->err, "template");
    errno = 0;
    long long v = strtoll(text, NULL, base);
    if (errno)
        return ash_template_fail(x->t, begin, x->err, ASH_ELIMIT, "integer beyond 64 bits");
    x->at = end;
    return push(x, (ash_ttoken){.type = ASH_TOK_INT, .pos = (uint32_t)begin, .i = v});
}

static int lex_number(lexer *x)
{
    size_t begin = x->at, end = digits(x, begin), mantissa = end;
    bool real = false;
    if (end + 1 < x->n && x->s[end] == '.' && x->s[end + 1] >= '0' && x->s[end + 1] <= '9') {
        mantissa = end = digits(x, end + 1);
        real = true;
    }
    if (end < x->n && (x->s[end] | 0x20) == 'e') {
        size_t exponent = end + 1;
        if (exponent < x->n && (x->s[exponent] == '+' || x->s[exponent] == '-'))
            exponent++;
        if (exponent < x->n && x->s[exponent] >= '0' && x->s[exponent] <= '9') {
            mantissa = digits(x, exponent);
            real = true;
        }
    }
    if (real && !(begin > 0 && x->s[begin - 1] == '.')) {
        char *text = without_underscores(x, begin, mantissa);
        if (!text)
            return ash_err_nomem(x->err, "template");
        x->at = mantissa;
        return push(x, (ash_ttoken){.type = ASH_TOK_FLOAT, .pos = (uint32_t)begin,
                                    .f = strtod(text, NULL)});
    }
    int base = 10;
    size_t based = based_integer(x, begin, &base);
    if (based > begin)
        return push_integer(x, begin, based, base);
    end = digits(x, begin);
    if (x->s[begin] == '0') /* a leading zero is followed by zeros only */
        for (end = begin; end < x->n && (x->s[end] == '0' || (x->s[end] == '_' && end + 1 < x->n &&
                                                              x->s[end + 1] == '0'));)
            end++;
    return push_integer(x, begin, end, 10);
}

/* Length of the word character at `at`, 0 if there is none. */
static size_t word_char(const lexer *x, size_t at, bool first)
{
    if (at >= x->n)
        return 0;
    unsigned char c = (unsigned char)x->s[at];
    if (c < 0x80)
        return c == '_' || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (!first && c >= '0' && c <= '9');
    uint32_t cp;
    bool ok;
    size_t len = ash_utf8_decode(x->s + at, x->n - at, &cp, &ok);
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM: case UTF8PROC_CATEGORY_LO: case UTF8PROC_CATEGORY_NL:
        return len;
    case UTF8PROC_CATEGORY_MN: case UTF8PROC_CATEGORY_MC: case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_PC:
        return first ? 0 : len;
    default: return 0;
    }
}

static int hex_escape(lexer *x, size_t at, size_t quote, int digits_wanted, uint32_t *cp)
{
    uint32_t v = 0;
    for (int i = 0; i < digits_wanted; i++) {
        char c = at + (size_t)i < quote ? x->s[at + (size_t)i] : 'z';
        if (!is_base_digit(c, 16))
            return ash_template_fail(x->t, at - 2, x->err, ASH_EFORMAT, "cut escape in a string: "
                                     "expected %d hexadecimal digits", digits_wanted);
        v = v * 16 + (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    if (v > 0x10FFFF || (v >= 0xD800 && v < 0xE000))
        return ash_template_fail(x->t, at - 2, x->err, ASH_EFORMAT,
                                 "escape in a string is no Unicode character");
    *cp = v;
    return 0;
}

/* One escape at `at` (after the backslash) as Python's unicode-escape codec reads it; appends to
 * out, moves *at. */
static int unescape(lexer *x, size_t *at, size_t quote, char **out)
{
    static const char from[] = "abfnrtv\\'\"", to[] = "\a\b\f\n\r\t\v\\'\"";
    char c = x->s[*at];
    const char *known = memchr(from, c, sizeof from - 1);
    uint32_t cp = 0;
    int rc = 0;
    if (known) {
        *(*out)++ = to[known - from];
        ++*at;
        return 0;
    }
    if (c == '\n') {
        ++*at;
        return 0;
    }
    if (c == 'x' || c == 'u' || c == 'U') {
        int wanted = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        rc = hex_escape(x, *at + 1, quote, wanted, &cp);
        *at += 1 + (size_t)wanted;
    } else if (c >= '0' && c <= '7') {
        for (int i = 0; i < 3 && *at < quote && x->s[*at] >= '0' && x->s[*at] <= '7'; i++)
            cp = cp * 8 + (uint32_t)(x->s[(*at)++] - '0');
    } else if (c == 'N') {
        return ash_template_fail(x->t, *at, x->err, ASH_EUNSUPPORTED,
                                 "character names (\\N{...}) are not supported");
    } else {
        *(*out)++ = '\\';
        return 0;
    }
    if (!rc)
        *out += ash_utf8_encode(cp, *out);
    return rc;
}

static int lex_string(lexer *x)
{
    size_t begin = x->at, quote = begin + 1;
    while (quote < x->n && x->s[quote] != x->s[begin]) quote += x->s[quote] == '\\' ? 2 : 1;
    if (quote >= x->n)
        return ash_template_fail(x->t, begin, x->err, ASH_EFORMAT, "string without its end");
    /* no escape is longer in UTF-8 than in the source but \000-like ones, of 2 and 3 bytes */
    char *text = ash_arena_alloc(&x->t->arena, (quote - begin) * 2 + 4), *out = text;
    if (!text)
        return ash_err_nomem(x->err, "template");
    for (size_t at = begin + 1; at < quote;) {
        if (x->s[at] != '\\') {
            *out++ = x->s[at++];
            continue;
        }
        at++;
        int rc = unescape(x, &at, quote, &out);
        if (rc)
            return rc;
    }
    x->at = quote + 1;
    return push(x, (ash_ttoken){.type = ASH_TOK_STR, .pos = (uint32_t)begin,
                                .s = {text, (size_t)(out - text)}});
}

static int balance(lexer *x, char c)
{
    static const char opens[] = "([{", closes[] = ")]}";
    const char *open = strchr(opens, c), *close = strchr(closes, c);
    if (open) {
        if (x->n_open == ASH_MAX_TEMPLATE_DEPTH)
            return ash_template_fail(x->t, x->at, x->err, ASH_ELIMIT,
                                     "brackets nested deeper than %d", ASH_MAX_TEMPLATE_DEPTH);
        x->open[x->n_open++] = closes[open - opens];
    } else if (close) {
        if (x->n_open == 0)
            return ash_template_fail(x->t, x->at, x->err, ASH_EFORMAT, "unexpected '%c'", c);
        char want = x->open[--x->n_open];
        if (want != c)
            return ash_template_fail(x->t, x->at, x->err, ASH_EFORMAT,
                                     "unexpected '%c', expected '%c'", c, want);
    }
    return 0;
}

static int lex_operator(lexer *x)
{
    static const struct {
        char text[3];
        ash_ttok type;
    } table[] = {
        {"//", ASH_TOK_FLOORDIV}, {"**", ASH_TOK_POW}, {"==", ASH_TOK_EQ}, {"!=", ASH_TOK_NE},
        {">=", ASH_TOK_GE}, {"<=", ASH_TOK_LE}, {"+", ASH_TOK_ADD}, {"-", ASH_TOK_SUB},
        {"/", ASH_TOK_DIV}, {"*", ASH_TOK_MUL}, {"%", ASH_TOK_MOD}, {"~", ASH_TOK_TILDE},
        {"[", ASH_TOK_LBRACKET}, {"]", ASH_TOK_RBRACKET}, {"(", ASH_TOK_LPAREN},
        {")", ASH_TOK_RPAREN}, {"{", ASH_TOK_LBRACE}, {"}", ASH_TOK_RBRACE}, {">", ASH_TOK_GT},
        {"<", ASH_TOK_LT}, {"=", ASH_TOK_ASSIGN}, {".", ASH_TOK_DOT}, {":", ASH_TOK_COLON},
        {"|", ASH_TOK_PIPE}, {",", ASH_TOK_COMMA}, {";", ASH_TOK_SEMICOLON},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (!looking_at(x, x->at, table[i].text))
            continue;
        int rc = balance(x, x->s[x->at]);
        if (rc)
            return rc;
        size_t begin = x->at;
        x->at += strlen(table[i].text);
        return push(x, (ash_ttoken){.type = table[i].type, .pos = (uint32_t)begin});
    }
    uint32_t cp;
    bool ok;
    ash_utf8_decode(x->s + x->at, x->n - x->at, &cp, &ok);
    return ash_template_fail(x->t, x->at, x->err, ASH_EFORMAT, "unexpected character U+%04X", cp);
}

/* The inside of {% %} or {{ }}, from x->at to after its end or the end of the source. */
static int lex_tag(lexer *x, bool block)
{
    while (x->at < x->n) {
        size_t end = x->n_open ? 0 : tag_end(x, x->at, block ? "%}" : "}}", block, block);
        if (end) {
            size_t at = x->at;
            consumed(x, end);
            return push_text(x, block ? ASH_TOK_BLOCK_END : ASH_TOK_VAR_END, at, at);
        }
        size_t next = skip_space(x, x->at);
        if (next > x->at) {
            x->at = next;
            continue;
        }
        char c = x->s[x->at];
        int rc;
        size_t word = word_char(x, x->at, true), begin = x->at;
        if (c >= '0' && c <= '9') {
            rc = lex_number(x);
        } else if (word) {
            for (; word; word = word_char(x, x->at, false)) x->at += word;
            rc = push_text(x, ASH_TOK_NAME, begin, x->at);
        } else if (c == '\'' || c == '"') {
            rc = lex_string(x);
        } else {
            rc = lex_operator(x);
        }
        if (rc)
            return rc;
    }
    return 0; /* the parser will miss the end */
}

/* Text up to the next tag, and that tag. */
static int lex_root(lexer *x)
{
    size_t begin = x->at, at = begin;
    while (at + 1 < x->n && !(x->s[at] == '{' && strchr("%{#", x->s[at + 1]) && x->s[at + 1])) at++;
    if (at + 1 >= x->n) {
        x->at = x->n;
        return push_text(x, ASH_TOK_DATA, begin, x->n);
    }
    char kind = x->s[at + 1], sign = sign_at(x, at + 2);
    int rc = push_data(x, begin, at, sign, kind == '{');
    if (rc)
        return rc;
    if (kind == '#')
        return lex_comment(x, at);
    size_t raw = kind == '%' ? raw_begin(x, at) : 0;
    if (raw)
        return lex_raw(x, at, raw);
    x->at = at + 2 + (sign != 0);
    rc = push_text(x, kind == '%' ? ASH_TOK_BLOCK_BEGIN : ASH_TOK_VAR_BEGIN, at, at);
    return rc ? rc : lex_tag(x, kind == '%');
}

int ash_tlex_run(ash_template *t, ash_ttoken **out, size_t *n, ash_err *err)
{
    lexer x = {.t = t, .s = t->src, .n = t->n, .line_starting = true, .err = err};
    int rc = 0;
    while (!rc && x.at < x.n) rc = lex_root(&x);
    if (!rc)
        rc = push(&x, (ash_ttoken){.type = ASH_TOK_EOF, .pos = (uint32_t)x.n});
    *out = x.v;
    *n = x.count;
    return rc;
}
