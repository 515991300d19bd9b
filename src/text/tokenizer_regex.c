/* Owns compiled patterns and their matching. Patterns are compiled once, with JIT where the system
 * allows it; matching is any thread's with its own matcher.
 *
 * The cost of a pattern from a file is bounded in proportion to the text. PCRE2's limit counts the
 * steps from one start, so every start may take START_STEPS; a start that needs more is found by
 * trying them one by one, and what it is then granted is taken from a budget. Refuses what exceeds
 * it. Patterns of this program's own have no budget but one limit: they are linear by design. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/tokenizer_regex.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define START_STEPS 256u
#define BUDGET_BASE ((uint64_t)4 << 20)
#define BUDGET_PER_BYTE 64u
#define HEAP_KIB (64u << 10) /* of the interpreter, where JIT cannot serve */

struct tok_regex {
    pcre2_code *code;
    bool own;
};

struct tok_matcher {
    pcre2_match_context *limits;
    pcre2_match_data *match;
    uint64_t budget;
};

static int pcre_error(int code, int otherwise, PCRE2_SIZE at, ash_err *err)
{
    char text[120] = "";
    pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
    if (code == PCRE2_ERROR_HEAP_FAILED || code == PCRE2_ERROR_NOMEMORY)
        return ash_err_nomem(err, "pre-tokeniser");
    return ash_err_set(err, otherwise, "the pattern fails in PCRE2 (%s, at %zu of its form there)", text,
                       (size_t)at);
}

static int compile(tok_regex *re, ash_str pattern, ash_err *err)
{
    int code;
    PCRE2_SIZE at;
    pcre2_compile_context *c = pcre2_compile_context_create(NULL);
    if (!c)
        return ash_err_nomem(err, "pre-tokeniser");
    pcre2_set_newline(c, PCRE2_NEWLINE_LF);
    re->code = pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n,
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &code, &at, c);
    pcre2_compile_context_free(c);
    if (!re->code)
        return pcre_error(code, ASH_EUNSUPPORTED, at, err);
    /* Where writable code is forbidden this fails and the interpreter serves as well, slower. */
    (void)pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE);
    return 0;
}

int tok_regex_open(ash_str pattern, bool own, tok_regex **out, ash_err *err)
{
    ash_buf form;
    int rc = 0;
    *out = NULL;
    tok_regex *re = calloc(1, sizeof *re);
    if (!re)
        return ash_err_nomem(err, "pre-tokeniser");
    re->own = own;
    ash_buf_init(&form, 1u << 20);
    if (own)
        ash_buf_addstr(&form, pattern);
    else
        rc = tok_regex_rewrite(pattern, &form, err);
    if (!rc)
        rc = ash_buf_check(&form, "pattern", err);
    if (!rc)
        rc = compile(re, (ash_str){ash_buf_cstr(&form), form.len}, err);
    ash_buf_release(&form);
    if (rc)
        tok_regex_close(re);
    else
        *out = re;
    return rc;
}

void tok_regex_close(tok_regex *re)
{
    if (!re)
        return;
    pcre2_code_free(re->code);
    free(re);
}

int tok_matcher_open(tok_matcher **out, ash_err *err)
{
    tok_matcher *m = calloc(1, sizeof *m);
    *out = NULL;
    if (m) {
        m->limits = pcre2_match_context_create(NULL);
        m->match = pcre2_match_data_create(1, NULL);
        m->budget = BUDGET_BASE;
    }
    if (!m || !m->limits || !m->match) {
        tok_matcher_close(m);
        return ash_err_nomem(err, "splitting into words");
    }
    pcre2_set_heap_limit(m->limits, HEAP_KIB);
    *out = m;
    return 0;
}

void tok_matcher_close(tok_matcher *m)
{
    if (!m)
        return;
    pcre2_match_data_free(m->match);
    pcre2_match_context_free(m->limits);
    free(m);
}

void tok_matcher_allow(tok_matcher *m, size_t n)
{
    m->budget += (uint64_t)BUDGET_PER_BYTE * n;
}

/* ---- matching ------------------------------------------------------------------------------- */

typedef struct subject {
    tok_matcher *m;
    const tok_regex *re;
    const char *p;
    size_t n;
} subject;

static int run(const subject *s, size_t from, uint32_t steps, uint32_t options)
{
    pcre2_set_match_limit(s->m->limits, steps);
    options |= PCRE2_NO_UTF_CHECK;
    int rc = pcre2_match(s->re->code, (PCRE2_SPTR)s->p, s->n, from, options, s->m->match,
                         s->m->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its stack on the heap */
        rc = pcre2_match(s->re->code, (PCRE2_SPTR)s->p, s->n, from, options | PCRE2_NO_JIT,
                         s->m->match, s->m->limits);
    return rc;
}

static bool is_limit(int rc)
{
    return rc == PCRE2_ERROR_MATCHLIMIT || rc == PCRE2_ERROR_DEPTHLIMIT || rc == PCRE2_ERROR_HEAPLIMIT;
}

/* The steps from one start, with as much of the budget as it takes. */
static int run_start(const subject *s, size_t at)
{
    int rc = run(s, at, START_STEPS, PCRE2_ANCHORED);
    for (uint64_t steps = 8 * START_STEPS; is_limit(rc) && steps <= s->m->budget; steps *= 8) {
        s->m->budget -= steps;
        rc = run(s, at, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX, PCRE2_ANCHORED);
    }
    return rc;
}

static int run_bounded(const subject *s, size_t from)
{
    int rc = run(s, from, START_STEPS, 0);
    if (!is_limit(rc))
        return rc;
    rc = PCRE2_ERROR_NOMATCH;
    while (rc == PCRE2_ERROR_NOMATCH && from <= s->n) {
        uint32_t cp;
        bool ok;
        rc = run_start(s, from);
        if (rc < 0 && from < s->n)
            from += ash_utf8_decode(s->p + from, s->n - from, &cp, &ok);
        else
            break;
    }
    return rc;
}

int tok_matcher_find(tok_matcher *m, const tok_regex *re, const char *p, size_t n, size_t from,
                     size_t *begin, size_t *end, ash_err *err)
{
    subject s = {.m = m, .re = re, .p = p, .n = n};
    size_t limit = 10000 + 16 * n;
    int rc = re->own ? run(&s, from, limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX, 0)
                     : run_bounded(&s, from);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (is_limit(rc))
        return ash_err_set(err, ASH_ELIMIT, "splitting %zu bytes of text into words takes the "
                           "pre-tokeniser's pattern too many steps", n);
    if (rc < 0)
        return pcre_error(rc, ASH_ELIMIT, 0, err);
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(m->match);
    *begin = at[0];
    *end = at[1];
    return 1;
}
