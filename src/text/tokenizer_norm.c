/* Owns the normalisation of a piece of text before it is split: a list of steps, each over the whole
 * piece. Where it is asked for, every byte of the result knows the bytes of the original that it came
 * from, so that what a user typed stays known as such. Refuses results over the buffer's cap. The
 * steps are immutable; the scratch belongs to one encode call. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/tokenizer_impl.h"

/* White_Space of Unicode, as Rust's char::is_whitespace. */
bool tok_is_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || cp == ' ' || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F ||
           cp == 0x205F || cp == 0x3000;
}

size_t tok_spaces_before(const char *p, size_t from, size_t n)
{
    while (n > from) {
        uint32_t cp;
        bool ok;
        size_t at = n - 1;
        while (at > from && ((unsigned char)p[at] & 0xC0) == 0x80) at--;
        ash_utf8_decode(p + at, n - at, &cp, &ok);
        if (!tok_is_space(cp))
            break;
        n = at;
    }
    return n;
}

size_t tok_spaces_after(const char *p, size_t from, size_t n)
{
    while (from < n) {
        uint32_t cp;
        bool ok;
        size_t step = ash_utf8_decode(p + from, n - from, &cp, &ok);
        if (!tok_is_space(cp))
            break;
        from += step;
    }
    return from;
}

/* ---- text that knows where it came from ----------------------------------------------------- */

/* One step's way from `in` to `out`. */
typedef struct step_call {
    const tok_norm_step *step;
    const tok_text *in;
    tok_text *out;
    bool mapped;
    tok_matcher *matcher;
} step_call;

void tok_text_release(tok_text *t)
{
    ash_buf_release(&t->text);
    free(t->begin);
    free(t->end);
    *t = (tok_text){0};
}

static int reserve_map(tok_text *t, size_t n)
{
    if (n <= t->cap)
        return 0;
    size_t cap = n + n / 2 + 64;
    uint32_t *begin = realloc(t->begin, cap * sizeof *begin);
    if (begin)
        t->begin = begin;
    uint32_t *end = begin ? realloc(t->end, cap * sizeof *end) : NULL;
    if (end)
        t->end = end;
    if (!end)
        return ASH_ENOMEM;
    t->cap = cap;
    return 0;
}

static int sticky(step_call *c, int rc)
{
    if (rc && !c->out->text.failed)
        c->out->text.failed = rc;
    return rc;
}

/* Marks what out has from byte `from` on as made of in[b..e). */
static void map_to(step_call *c, size_t from, size_t b, size_t e)
{
    tok_text *out = c->out;
    const tok_text *in = c->in;
    if (!c->mapped || out->text.failed || sticky(c, reserve_map(out, out->text.len)))
        return;
    uint32_t begin = b < in->text.len ? in->begin[b] : b ? in->end[b - 1] : 0;
    uint32_t end = e > b ? in->end[e - 1] : begin;
    for (size_t i = from; i < out->text.len; i++) {
        out->begin[i] = begin;
        out->end[i] = end;
    }
}

/* out gets p[0..n) in place of in[b..e). */
static void put(step_call *c, const char *p, size_t n, size_t b, size_t e)
{
    size_t from = c->out->text.len;
    ash_buf_add(&c->out->text, p, n);
    map_to(c, from, b, e);
}

/* out gets in[b..e) as it is. */
static void copy(step_call *c, size_t b, size_t e)
{
    tok_text *out = c->out;
    size_t from = out->text.len;
    if (e == b)
        return;
    ash_buf_add(&out->text, c->in->text.data + b, e - b);
    if (!c->mapped || out->text.failed || sticky(c, reserve_map(out, out->text.len)))
        return;
    memcpy(out->begin + from, c->in->begin + b, (e - b) * sizeof *out->begin);
    memcpy(out->end + from, c->in->end + b, (e - b) * sizeof *out->end);
}

/* ---- steps ---------------------------------------------------------------------------------- */

static int run_prepend(step_call *c, bool wanted)
{
    if (wanted)
        put(c, c->step->to.p, c->step->to.n, 0, 0);
    copy(c, 0, c->in->text.len);
    return 0;
}

static int run_replace(step_call *c)
{
    const char *p = c->in->text.data;
    ash_str from = c->step->from;
    size_t n = c->in->text.len, at = 0;
    while (at < n) {
        const char *hit = memmem(p + at, n - at, from.p, from.n);
        size_t b = hit ? (size_t)(hit - p) : n;
        copy(c, at, b);
        if (!hit)
            break;
        put(c, c->step->to.p, c->step->to.n, b, b + from.n);
        at = b + from.n;
    }
    return 0;
}

static int run_replace_regex(step_call *c, ash_err *err)
{
    const char *p = c->in->text.data;
    size_t n = c->in->text.len, at = 0, from = 0, b, e;
    tok_matcher_allow(c->matcher, n);
    for (int rc; at < n; from = e > b ? e : e + 1) {
        while (from < n && ((unsigned char)p[from] & 0xC0) == 0x80) from++;
        rc = tok_matcher_find(c->matcher, c->step->re, p, n, from, &b, &e, err);
        if (rc < 0)
            return rc;
        copy(c, at, rc ? b : n);
        if (!rc)
            return 0;
        put(c, c->step->to.p, c->step->to.n, b, e);
        at = e;
    }
    return 0;
}

static int run_strip(step_call *c)
{
    const char *p = c->in->text.data;
    size_t b = 0, e = c->in->text.len;
    if (c->step->left)
        b = tok_spaces_after(p, b, e);
    c->out->moved = c->in->moved || b > 0;
    if (c->step->right)
        e = tok_spaces_before(p, b, e);
    copy(c, b, e);
    return 0;
}

/* " a  b " to "a b"; of what stands for spaces already, that at the end goes, too. */
static int run_spaces(step_call *c)
{
    const char *p = c->in->text.data;
    size_t n = c->in->text.len;
    for (size_t step = 1; step; n -= step) {
        bool meta = n >= 3 && memcmp(p + n - 3, "\xe2\x96\x81", 3) == 0;
        step = meta ? 3 : n && p[n - 1] == ' ' ? 1 : 0;
    }
    for (size_t i = 0; i < n;) {
        size_t word = i;
        while (word < n && p[word] == ' ') word++;
        size_t end = word;
        while (end < n && p[end] != ' ') end++;
        copy(c, i > 0 ? word - 1 : word, end);
        i = end;
    }
    return 0;
}

static bool is_ascii_byte(char c)
{
    return (unsigned char)c < 0x80;
}

/* Cut before ASCII characters, which compose with nothing before them, the parts' forms are the form
 * of the whole, and the bytes of each are known to come from it. */
static int run_nfc(step_call *c, ash_err *err)
{
    const char *p = c->in->text.data;
    size_t n = c->in->text.len;
    if (!c->mapped)
        return tok_nfc(p, n, &c->out->text, err);
    for (size_t i = 0; i < n;) {
        size_t plain = i, end;
        while (plain < n && is_ascii_byte(p[plain])) plain++;
        if (plain == n) {
            copy(c, i, n);
            break;
        }
        size_t b = plain > i ? plain - 1 : plain, from;
        copy(c, i, b);
        for (end = plain; end < n && !is_ascii_byte(p[end]);) end++;
        from = c->out->text.len;
        int rc = tok_nfc(p + b, end - b, &c->out->text, err);
        if (rc)
            return rc;
        map_to(c, from, b, end);
        i = end;
    }
    return 0;
}

static int run_step(step_call *c, bool at_start, ash_err *err)
{
    bool some = c->in->text.len > 0;
    switch (c->step->kind) {
    case NORM_NFC: return run_nfc(c, err);
    case NORM_PREPEND: return run_prepend(c, some);
    case NORM_PREPEND_FIRST: return run_prepend(c, some && at_start);
    case NORM_REPLACE: return run_replace(c);
    case NORM_REPLACE_REGEX: return run_replace_regex(c, err);
    case NORM_STRIP: return run_strip(c);
    case NORM_SPACES: return run_spaces(c);
    }
    return 0;
}

/* ---- whole ---------------------------------------------------------------------------------- */

static int start(tok_text *t, const char *p, size_t n, size_t offset, bool mapped)
{
    t->moved = false;
    ash_buf_clear(&t->text);
    ash_buf_add(&t->text, p, n);
    if (!mapped || t->text.failed)
        return t->text.failed;
    if (reserve_map(t, n))
        return ASH_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        t->begin[i] = (uint32_t)(offset + i);
        t->end[i] = (uint32_t)(offset + i + 1);
    }
    return 0;
}

int tok_normalize(const tok_norm *norm, tok_norm_work *w, const char *p, size_t n, size_t offset,
                  bool mapped, const tok_text **out, ash_err *err)
{
    tok_text *in = &w->text[0], *to = &w->text[1];
    int rc = 0;
    for (size_t i = 0; i < norm->n && !w->matcher; i++)
        if (norm->steps[i].re && (rc = tok_matcher_open(&w->matcher, err)) != 0)
            return rc;
    rc = start(in, p, n, offset, mapped);
    if (rc)
        return rc == ASH_ENOMEM ? ash_err_nomem(err, "normalised text")
                                : ash_buf_check(&in->text, "normalised text", err);
    for (size_t i = 0; i < norm->n && !rc; i++) {
        step_call c = {.step = &norm->steps[i], .in = in, .out = to, .mapped = mapped,
                       .matcher = w->matcher};
        ash_buf_clear(&to->text);
        to->moved = in->moved;
        rc = run_step(&c, offset == 0, err);
        if (!rc)
            rc = ash_buf_check(&to->text, "normalised text", err);
        tok_text *swap = in;
        in = to;
        to = swap;
    }
    *out = in;
    return rc ? rc : ash_buf_check(&in->text, "normalised text", err);
}

void tok_norm_work_init(tok_norm_work *w)
{
    *w = (tok_norm_work){0};
    for (int i = 0; i < 2; i++) ash_buf_init(&w->text[i].text, (size_t)4 * ASH_MAX_TEXT);
}

void tok_norm_work_release(tok_norm_work *w)
{
    for (int i = 0; i < 2; i++) tok_text_release(&w->text[i]);
    tok_matcher_close(w->matcher);
    w->matcher = NULL;
}

static int open_step(tok_norm_step *step, const tok_norm_desc *d, ash_arena *arena, ash_err *err)
{
    *step = (tok_norm_step){.kind = d->kind, .left = d->left, .right = d->right};
    char *from = ash_arena_strndup(arena, d->from.n ? d->from.p : "", d->from.n);
    char *to = ash_arena_strndup(arena, d->to.n ? d->to.p : "", d->to.n);
    if (!from || !to)
        return ash_err_nomem(err, "normalisation");
    step->from = (ash_str){from, d->from.n};
    step->to = (ash_str){to, d->to.n};
    return d->kind == NORM_REPLACE_REGEX ? tok_regex_open(d->from, false, &step->re, err) : 0;
}

int tok_norm_open(tok_norm *norm, const tok_desc *d, ash_arena *arena, ash_err *err)
{
    int rc = 0;
    for (; norm->n < d->n_norm && !rc; norm->n++)
        rc = open_step(&norm->steps[norm->n], &d->norm[norm->n], arena, err);
    return rc;
}

void tok_norm_close(tok_norm *norm)
{
    for (size_t i = 0; i < norm->n; i++) tok_regex_close(norm->steps[i].re);
    norm->n = 0;
}
