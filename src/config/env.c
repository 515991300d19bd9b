/* Owns the grammar of `.env` files (see env.h). Refuses a line that it cannot read whole, with the
 * file's name and the line, and never shows a value. Pure but for the file read; any thread. */
#include "config/env.h"

#include <string.h>

#include "base/fs.h"
#include "base/limits.h"
#include "base/utf8.h"

typedef struct reader {
    const char *text; /* the whole file */
    const char *p;    /* what is next */
    const char *end;  /* of the line */
    const char *name;
    int line;
    const char *const *vars;
    ash_arena *arena;
    ash_env *out;
    ash_buf value; /* of the line being read */
    ash_err *err;
} reader;

static int bad(const reader *r, int code, const char *p, const char *what)
{
    return ash_err_at(r->err, code, p - r->text, "%s:%d: %s", r->name, r->line, what);
}

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\v' || c == '\f';
}

static bool key_start(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

static bool key_char(char c)
{
    return key_start(c) || (c >= '0' && c <= '9');
}

static void skip_blanks(reader *r)
{
    while (r->p < r->end && blank(*r->p)) r->p++;
}

/* The run of key characters at p, which must not be empty. */
static int read_key(reader *r, ash_str *key)
{
    const char *p = r->p;
    if (p == r->end || !key_start(*p))
        return bad(
            r, ASH_EFORMAT, p,
            "expected KEY=value, a comment or a blank line (a key is letters, digits and _)");
    while (p < r->end && key_char(*p)) p++;
    *key = (ash_str){r->p, (size_t)(p - r->p)};
    r->p = p;
    return 0;
}

const ash_env_var *ash_env_find(const ash_env *e, const char *key)
{
    for (size_t i = 0; i < e->n; i++)
        if (!strcmp(e->v[i].key, key)) return &e->v[i];
    return NULL;
}

/* What ${key} stands for; "" if it is set nowhere. */
static const char *lookup(const reader *r, ash_str key)
{
    for (size_t i = 0; i < r->out->n; i++)
        if (ash_str_eqc(key, r->out->v[i].key)) return r->out->v[i].value;
    for (const char *const *v = r->vars; v && *v; v++)
        if (!strncmp(*v, key.p, key.n) && (*v)[key.n] == '=') return *v + key.n + 1;
    return "";
}

static int add(reader *r, const char *p, size_t n)
{
    int rc = ash_buf_add(&r->value, p, n);
    if (rc == ASH_ELIMIT)
        return ash_err_at(r->err, rc, r->p - r->text, "%s:%d: the value is over %u bytes", r->name,
                          r->line, ASH_MAX_ENV_VALUE);
    return rc ? ash_err_nomem(r->err, r->name) : 0;
}

/* r->p stands on '$': appends what it gives and steps over it. */
static int expand(reader *r)
{
    const char *start = r->p;
    if (r->end - start < 2 || start[1] != '{') {
        r->p++;
        return add(r, "$", 1);
    }
    const char *p = start + 2;
    ash_str key = {p, 0};
    while (p < r->end && key_char(*p)) p++;
    key.n = (size_t)(p - key.p);
    if (p == r->end || *p != '}' || !key.n || !key_start(*key.p))
        return bad(r, ASH_EFORMAT, start,
                   "expected ${NAME} with letters, digits and _ (single quotes keep a $ as it is)");
    const char *v = lookup(r, key);
    r->p = p + 1;
    return add(r, v, strlen(v));
}

static int read_literal(reader *r)
{
    const char *start = ++r->p;
    const char *close = memchr(start, '\'', (size_t)(r->end - start));
    if (!close) return bad(r, ASH_EFORMAT, start - 1, "expected a closing ' before the line's end");
    r->p = close + 1;
    return add(r, start, (size_t)(close - start));
}

static int read_escape(reader *r)
{
    char c = r->end - r->p > 1 ? r->p[1] : 0;
    if (c != 'n' && c != '"' && c != '\\' && c != '$')
        return bad(r, ASH_EFORMAT, r->p,
                   "expected \\n, \\\", \\\\ or \\$ (single quotes keep a \\ as it is)");
    r->p += 2;
    return add(r, c == 'n' ? "\n" : &c, 1);
}

static int read_quoted(reader *r)
{
    const char *start = r->p++;
    int rc = 0;
    while (!rc && r->p < r->end && *r->p != '"') {
        if (*r->p == '\\') {
            rc = read_escape(r);
        } else if (*r->p == '$') {
            rc = expand(r);
        } else {
            rc = add(r, r->p, 1);
            r->p++;
        }
    }
    if (rc) return rc;
    if (r->p == r->end)
        return bad(r, ASH_EFORMAT, start, "expected a closing \" before the line's end");
    r->p++;
    return 0;
}

/* Bare words; a '#' after a blank begins a comment (blanks before the value were skipped). */
static int read_bare(reader *r, bool after_blank)
{
    const char *stop = r->p;
    while (stop < r->end && !(*stop == '#' && (stop > r->p ? blank(stop[-1]) : after_blank)))
        stop++;
    while (stop > r->p && blank(stop[-1])) stop--;
    const char *line_end = r->end;
    r->end = stop;
    int rc = 0;
    while (!rc && r->p < r->end) {
        if (*r->p == '$') {
            rc = expand(r);
        } else {
            rc = add(r, r->p, 1);
            r->p++;
        }
    }
    r->end = line_end;
    return rc;
}

static int read_value(reader *r)
{
    const char *before = r->p;
    skip_blanks(r);
    char c = r->p < r->end ? *r->p : 0;
    if (c != '\'' && c != '"') return read_bare(r, r->p > before);
    int rc = c == '"' ? read_quoted(r) : read_literal(r);
    if (rc) return rc;
    before = r->p;
    skip_blanks(r);
    if (r->p < r->end && (*r->p != '#' || r->p == before))
        return bad(r, ASH_EFORMAT, r->p, "expected nothing but a comment after the closing quote");
    return 0;
}

/* Puts the value read under `key`; the later of two wins and keeps the earlier's place. */
static int store(reader *r, ash_str key)
{
    char *value = ash_arena_strndup(r->arena, ash_buf_cstr(&r->value), r->value.len);
    if (!value) return ash_err_nomem(r->err, r->name);
    for (size_t i = 0; i < r->out->n; i++)
        if (ash_str_eqc(key, r->out->v[i].key)) {
            r->out->v[i].value = value;
            r->out->v[i].line = r->line;
            return 0;
        }
    if (r->out->n == ASH_MAX_ENV_KEYS)
        return ash_err_at(r->err, ASH_ELIMIT, key.p - r->text, "%s:%d: more than %d keys", r->name,
                          r->line, ASH_MAX_ENV_KEYS);
    char *copy = ash_arena_strndup(r->arena, key.p, key.n);
    if (!copy) return ash_err_nomem(r->err, r->name);
    r->out->v[r->out->n++] = (ash_env_var){copy, value, r->line};
    return 0;
}

static int read_line(reader *r)
{
    skip_blanks(r);
    if (r->p == r->end || *r->p == '#') return 0;
    size_t left = (size_t)(r->end - r->p);
    if (left > 6 && !memcmp(r->p, "export", 6) && blank(r->p[6])) {
        r->p += 7;
        skip_blanks(r);
    }
    ash_str key = {0};
    int rc = read_key(r, &key);
    if (rc) return rc;
    skip_blanks(r);
    if (r->p == r->end || *r->p != '=')
        return bad(r, ASH_EFORMAT, r->p, "expected = after the key");
    r->p++;
    ash_buf_clear(&r->value);
    rc = read_value(r);
    return rc ? rc : store(r, key);
}

static int check_line(const reader *r)
{
    size_t n = (size_t)(r->end - r->p);
    const char *nul = memchr(r->p, 0, n);
    if (nul) return bad(r, ASH_EFORMAT, nul, "a NUL byte; expected text");
    if (!ash_utf8_valid(r->p, n)) return bad(r, ASH_EFORMAT, r->p, "the line is not valid UTF-8");
    return 0;
}

int ash_env_parse(const char *text, size_t n, const char *name, const char *const *vars,
                  ash_arena *arena, ash_env *out, ash_err *err)
{
    *out = (ash_env){0};
    if (n > ASH_MAX_ENV_FILE)
        return ash_err_set(err, ASH_ELIMIT, "%s: over %u bytes", name, ASH_MAX_ENV_FILE);
    size_t lines = 1;
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    if (lines > ASH_MAX_ENV_KEYS) lines = ASH_MAX_ENV_KEYS;
    out->v = ash_arena_calloc(arena, lines, sizeof *out->v);
    if (!out->v) return ash_err_nomem(err, name);
    reader r = {text, text, NULL, name, 0, vars, arena, out, {0}, err};
    ash_buf_init(&r.value, ASH_MAX_ENV_VALUE);
    if (n >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) r.p += 3;
    int rc = 0;
    for (const char *stop = text + n; !rc && r.p < stop;) {
        const char *lf = memchr(r.p, '\n', (size_t)(stop - r.p));
        const char *next = lf ? lf + 1 : stop;
        r.end = lf ? lf : stop;
        if (r.end > r.p && r.end[-1] == '\r') r.end--;
        r.line++;
        rc = check_line(&r);
        if (!rc) rc = read_line(&r);
        r.p = next;
    }
    ash_buf_release(&r.value);
    return rc;
}

int ash_env_read(const char *path, const char *const *vars, ash_arena *arena, ash_env *out,
                 ash_err *err)
{
    ash_buf text;
    *out = (ash_env){0};
    int rc = ash_fs_read(path, ASH_MAX_ENV_FILE, &text, err);
    if (!rc) rc = ash_env_parse(ash_buf_cstr(&text), text.len, path, vars, arena, out, err);
    ash_buf_release(&text);
    return rc;
}
