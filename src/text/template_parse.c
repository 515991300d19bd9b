/* Owns the way from tokens to the syntax tree: Jinja2's grammar (jinja2/parser.py), statements here,
 * expressions in template_expr.c. Refuses by name what needs a loader or has no use in chat
 * templates: extends, include, import, block, autoescape, recursive loops. Touches only its template. */
#include "text/template_parse.h"

#include <string.h>

#include "base/limits.h"
#include "base/utf8.h"

void *ash_tparse_alloc(ash_tparser *p, size_t n, size_t size)
{
    void *v = ash_arena_calloc(&p->t->arena, n, size);
    if (!v && !p->rc)
        p->rc = p->t->arena.held > p->t->arena.max / 2
                    ? ash_err_set(p->err, ASH_ELIMIT, "template needs more than %u bytes of memory",
                                  ASH_MAX_TEMPLATE_MEMORY)
                    : ash_err_nomem(p->err, "template");
    return v;
}

ash_tnode *ash_tparse_node(ash_tparser *p, ash_tkind kind, uint32_t pos)
{
    ash_tnode *n = ash_tparse_alloc(p, 1, sizeof *n);
    if (n)
        *n = (ash_tnode){.kind = kind, .pos = pos};
    return n;
}

void ash_tparse_add(ash_tparser *p, ash_tnode *to, ash_tnode *child)
{
    if (p->rc)
        return;
    if (to->n == to->cap) {
        uint32_t cap = to->cap ? to->cap * 2 : 4;
        ash_tnode **v = ash_tparse_alloc(p, cap, sizeof *v);
        if (!v)
            return;
        if (to->n)
            memcpy(v, to->list, to->n * sizeof *v);
        to->list = v;
        to->cap = cap;
    }
    to->list[to->n++] = child;
}

ash_tnode *ash_tparse_fail(ash_tparser *p, uint32_t pos, int code, const char *fmt, ...)
{
    if (p->rc)
        return NULL;
    va_list ap;
    va_start(ap, fmt);
    char msg[300];
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    p->rc = ash_template_fail(p->t, pos, p->err, code, "%s", msg);
    return NULL;
}

bool ash_tparse_enter(ash_tparser *p)
{
    if (p->rc)
        return false;
    if (p->depth == 3 * ASH_MAX_TEMPLATE_DEPTH) { /* a bracket takes up to three */
        ash_tparse_fail(p, ash_tparse_peek(p)->pos, ASH_ELIMIT, "nested deeper than %d",
                        ASH_MAX_TEMPLATE_DEPTH);
        return false;
    }
    p->depth++;
    return true;
}

const ash_ttoken *ash_tparse_peek(const ash_tparser *p)
{
    return &p->v[p->at];
}

const ash_ttoken *ash_tparse_look(const ash_tparser *p)
{
    return &p->v[p->at + 1 < p->n ? p->at + 1 : p->at];
}

const ash_ttoken *ash_tparse_next(ash_tparser *p)
{
    const ash_ttoken *t = &p->v[p->at];
    if (p->at + 1 < p->n)
        p->at++;
    return t;
}

bool ash_tparse_is(const ash_tparser *p, ash_ttok type)
{
    return p->v[p->at].type == type;
}

bool ash_tparse_is_name(const ash_tparser *p, const char *name)
{
    return ash_tparse_is(p, ASH_TOK_NAME) && ash_str_eqc(p->v[p->at].s, name);
}

bool ash_tparse_skip(ash_tparser *p, ash_ttok type)
{
    if (!ash_tparse_is(p, type))
        return false;
    ash_tparse_next(p);
    return true;
}

bool ash_tparse_skip_name(ash_tparser *p, const char *name)
{
    if (!ash_tparse_is_name(p, name))
        return false;
    ash_tparse_next(p);
    return true;
}

/* How a token is called in messages. */
static const char *describe(ash_ttok t)
{
    static const char *const names[] = {
        "end of template", "template text", "{{", "}}", "{%", "%}", "name", "string", "integer",
        "float", "+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "=",
        ".", ":", "|", ",", ";", "(", ")", "[", "]", "{", "}"};
    return t < sizeof names / sizeof *names ? names[t] : "token";
}

void ash_tparse_unexpected(ash_tparser *p, const char *wanted)
{
    const ash_ttoken *t = ash_tparse_peek(p);
    if (t->type == ASH_TOK_NAME)
        ash_tparse_fail(p, t->pos, ASH_EFORMAT, "expected %s, got '%.*s'", wanted,
                        (int)(t->s.n < 100 ? t->s.n : 100), t->s.p);
    else
        ash_tparse_fail(p, t->pos, ASH_EFORMAT, "expected %s, got %s%s%s", wanted,
                        t->type < ASH_TOK_ADD ? "" : "'", describe(t->type),
                        t->type < ASH_TOK_ADD ? "" : "'");
}

bool ash_tparse_expect(ash_tparser *p, ash_ttok type)
{
    if (p->rc)
        return false;
    if (ash_tparse_skip(p, type))
        return true;
    char wanted[24];
    snprintf(wanted, sizeof wanted, type < ASH_TOK_ADD ? "%s" : "'%s'", describe(type));
    ash_tparse_unexpected(p, wanted);
    return false;
}

static bool expect_name(ash_tparser *p, const char *name)
{
    if (p->rc)
        return false;
    if (ash_tparse_skip_name(p, name))
        return true;
    char wanted[24];
    snprintf(wanted, sizeof wanted, "'%s'", name);
    ash_tparse_unexpected(p, wanted);
    return false;
}

/* ---- statements ---- */

static ash_tnode *parse_until(ash_tparser *p, const char *const *ends);

/* The rest of a tag, then statements up to one of `ends`, whose name becomes the current token. */
static ash_tnode *parse_body(ash_tparser *p, const char *const *ends)
{
    ash_tparse_skip(p, ASH_TOK_COLON);
    if (!ash_tparse_expect(p, ASH_TOK_BLOCK_END))
        return NULL;
    return parse_until(p, ends);
}

/* The same with a single end, which is read too. */
static ash_tnode *parse_body_to(ash_tparser *p, const char *end)
{
    const char *ends[] = {end, NULL};
    ash_tnode *body = parse_body(p, ends);
    if (!p->rc)
        ash_tparse_next(p);
    return body;
}

static ash_tnode *parse_if(ash_tparser *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    ash_tnode *n = ash_tparse_node(p, ASH_N_IF, ash_tparse_next(p)->pos);
    while (!p->rc) {
        ash_tnode *branch = ash_tparse_node(p, ASH_N_BRANCH, ash_tparse_peek(p)->pos);
        if (!branch)
            return NULL;
        branch->a = ash_tparse_tuple(p, ASH_TPARSE_NO_COND, NULL);
        branch->b = parse_body(p, ends);
        ash_tparse_add(p, n, branch);
        if (p->rc)
            return NULL;
        const ash_ttoken *end = ash_tparse_next(p);
        if (ash_str_eqc(end->s, "elif"))
            continue;
        if (ash_str_eqc(end->s, "else")) {
            branch = ash_tparse_node(p, ASH_N_BRANCH, end->pos);
            if (!branch)
                return NULL;
            branch->b = parse_body_to(p, "endif");
            ash_tparse_add(p, n, branch);
        }
        break;
    }
    return n;
}

static ash_tnode *parse_for(ash_tparser *p)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    ash_tnode *n = ash_tparse_node(p, ASH_N_FOR, ash_tparse_next(p)->pos);
    if (!n)
        return NULL;
    n->a = ash_tparse_target(p, "in", false);
    if (!expect_name(p, "in"))
        return NULL;
    n->b = ash_tparse_tuple(p, ASH_TPARSE_NO_COND, "recursive");
    if (!p->rc && ash_tparse_skip_name(p, "if"))
        n->c = ash_tparse_expr(p);
    if (!p->rc && ash_tparse_is_name(p, "recursive"))
        return ash_tparse_fail(p, ash_tparse_peek(p)->pos, ASH_EUNSUPPORTED,
                               "recursive loops are not supported");
    p->loops++;
    ash_tnode *body = parse_body(p, ends), *none = NULL;
    p->loops--;
    if (p->rc)
        return NULL;
    if (ash_str_eqc(ash_tparse_next(p)->s, "else"))
        none = parse_body_to(p, "endfor");
    ash_tparse_add(p, n, body);
    ash_tparse_add(p, n, none);
    return n;
}

static ash_tnode *parse_set(ash_tparser *p)
{
    ash_tnode *n = ash_tparse_node(p, ASH_N_SET, ash_tparse_next(p)->pos);
    if (!n)
        return NULL;
    n->a = ash_tparse_target(p, NULL, true);
    if (p->rc)
        return NULL;
    if (ash_tparse_skip(p, ASH_TOK_ASSIGN)) {
        n->b = ash_tparse_tuple(p, 0, NULL);
        return n;
    }
    n->kind = ASH_N_SETBLOCK;
    n->b = ash_tparse_filters(p, NULL, false);
    n->c = parse_body_to(p, "endset");
    return n;
}

/* (a, b='x', ...) into n->list */
static void parse_signature(ash_tparser *p, ash_tnode *n)
{
    bool defaults = false;
    if (!ash_tparse_expect(p, ASH_TOK_LPAREN))
        return;
    while (!p->rc && !ash_tparse_is(p, ASH_TOK_RPAREN)) {
        if (n->n && !ash_tparse_expect(p, ASH_TOK_COMMA))
            return;
        const ash_ttoken *t = ash_tparse_peek(p);
        ash_tnode *param = ash_tparse_node(p, ASH_N_PARAM, t->pos);
        if (!param || !ash_tparse_expect(p, ASH_TOK_NAME))
            return;
        param->name = t->s;
        if (ash_tparse_skip(p, ASH_TOK_ASSIGN)) {
            param->a = ash_tparse_expr(p);
            defaults = true;
        } else if (defaults) {
            ash_tparse_fail(p, t->pos, ASH_EFORMAT, "non-default argument follows default argument");
        }
        ash_tparse_add(p, n, param);
    }
    ash_tparse_expect(p, ASH_TOK_RPAREN);
}

/* The body of a macro or call block: which of caller, varargs and kwargs it reads decides what it
 * accepts, and a loop outside is not a loop inside. */
static void parse_macro_body(ash_tparser *p, ash_tnode *n, const char *end)
{
    int loops = p->loops, outer = p->special;
    p->loops = p->special = 0;
    n->b = parse_body_to(p, end);
    n->op = p->special;
    for (uint32_t i = 0; i < n->n; i++) {
        ash_str name = n->list[i]->name;
        n->op &= ~(ash_str_eqc(name, "caller") ? ASH_TMACRO_CALLER
                   : ash_str_eqc(name, "varargs") ? ASH_TMACRO_VARARGS
                   : ash_str_eqc(name, "kwargs") ? ASH_TMACRO_KWARGS : 0);
    }
    p->loops = loops;
    p->special = outer;
}

static ash_tnode *parse_macro(ash_tparser *p)
{
    ash_tnode *n = ash_tparse_node(p, ASH_N_MACRO, ash_tparse_next(p)->pos);
    const ash_ttoken *t = ash_tparse_peek(p);
    if (!n || !ash_tparse_expect(p, ASH_TOK_NAME))
        return NULL;
    n->name = t->s;
    parse_signature(p, n);
    parse_macro_body(p, n, "endmacro");
    return n;
}

static ash_tnode *parse_call_block(ash_tparser *p)
{
    ash_tnode *n = ash_tparse_node(p, ASH_N_CALLBLOCK, ash_tparse_next(p)->pos);
    ash_tnode *m = ash_tparse_node(p, ASH_N_MACRO, ash_tparse_peek(p)->pos);
    if (!n || !m)
        return NULL;
    m->name = ASH_STR("caller");
    if (ash_tparse_is(p, ASH_TOK_LPAREN))
        parse_signature(p, m);
    n->a = ash_tparse_expr(p);
    if (!p->rc && n->a->kind != ASH_N_CALL)
        return ash_tparse_fail(p, n->pos, ASH_EFORMAT, "expected a call after 'call'");
    parse_macro_body(p, m, "endcall");
    n->b = m;
    return n;
}

static ash_tnode *parse_filter_block(ash_tparser *p)
{
    ash_tnode *n = ash_tparse_node(p, ASH_N_FILTERBLOCK, ash_tparse_next(p)->pos);
    if (!n)
        return NULL;
    n->a = ash_tparse_filters(p, NULL, true);
    n->b = parse_body_to(p, "endfilter");
    return n;
}

static ash_tnode *parse_with(ash_tparser *p)
{
    ash_tnode *n = ash_tparse_node(p, ASH_N_WITH, ash_tparse_next(p)->pos);
    while (!p->rc && !ash_tparse_is(p, ASH_TOK_BLOCK_END)) {
        if (n->n && !ash_tparse_expect(p, ASH_TOK_COMMA))
            return NULL;
        ash_tnode *set = ash_tparse_node(p, ASH_N_SET, ash_tparse_peek(p)->pos);
        if (!set)
            return NULL;
        set->a = ash_tparse_target(p, NULL, false);
        if (!ash_tparse_expect(p, ASH_TOK_ASSIGN))
            return NULL;
        set->b = ash_tparse_expr(p);
        ash_tparse_add(p, n, set);
    }
    if (!p->rc)
        n->b = parse_body_to(p, "endwith");
    return n;
}

static ash_tnode *parse_print(ash_tparser *p)
{
    ash_tnode *n = ash_tparse_node(p, ASH_N_BODY, ash_tparse_next(p)->pos);
    while (!p->rc && !ash_tparse_is(p, ASH_TOK_BLOCK_END)) {
        if (n->n && !ash_tparse_expect(p, ASH_TOK_COMMA))
            return NULL;
        ash_tnode *print = ash_tparse_node(p, ASH_N_PRINT, ash_tparse_peek(p)->pos);
        if (!print)
            return NULL;
        print->a = ash_tparse_expr(p);
        ash_tparse_add(p, n, print);
    }
    return n;
}

static ash_tnode *parse_loop_control(ash_tparser *p)
{
    const ash_ttoken *t = ash_tparse_next(p);
    if (!p->loops)
        return ash_tparse_fail(p, t->pos, ASH_EFORMAT, "'%.*s' outside of a loop", (int)t->s.n, t->s.p);
    return ash_tparse_node(p, ash_str_eqc(t->s, "break") ? ASH_N_BREAK : ASH_N_CONTINUE, t->pos);
}

static ash_tnode *parse_generation(ash_tparser *p)
{
    ash_tnode *n = ash_tparse_node(p, ASH_N_SCOPE, ash_tparse_next(p)->pos);
    if (n)
        n->a = parse_body_to(p, "endgeneration");
    return n;
}

static ash_tnode *parse_statement(ash_tparser *p)
{
    static const struct {
        const char *name;
        ash_tnode *(*parse)(ash_tparser *);
    } table[] = {
        {"if", parse_if}, {"for", parse_for}, {"set", parse_set}, {"macro", parse_macro},
        {"call", parse_call_block}, {"filter", parse_filter_block}, {"with", parse_with},
        {"print", parse_print}, {"break", parse_loop_control}, {"continue", parse_loop_control},
        {"generation", parse_generation},
    };
    static const char *const refused[] = {"extends", "include", "import", "from", "block", "autoescape"};
    const ash_ttoken *t = ash_tparse_peek(p);
    if (t->type != ASH_TOK_NAME) {
        ash_tparse_unexpected(p, "a tag's name");
        return NULL;
    }
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (ash_str_eqc(t->s, table[i].name))
            return table[i].parse(p);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (ash_str_eqc(t->s, refused[i]))
            return ash_tparse_fail(p, t->pos, ASH_EUNSUPPORTED, "the tag '%s' is not supported",
                                   refused[i]);
    return ash_tparse_fail(p, t->pos, ASH_EFORMAT, "unknown tag '%.*s'%s%s",
                           (int)(t->s.n < 100 ? t->s.n : 100), t->s.p, p->ends ? ", looking for " : "",
                           p->ends ? p->ends : "");
}

static bool at_end(const ash_tparser *p, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (ash_tparse_is_name(p, *ends))
            return true;
    return false;
}

/* Data, prints and statements until a tag named in `ends` (NULL: the end of the template). */
static ash_tnode *parse_list(ash_tparser *p, const char *const *ends)
{
    ash_tnode *body = ash_tparse_node(p, ASH_N_BODY, ash_tparse_peek(p)->pos);
    while (!p->rc) {
        const ash_ttoken *t = ash_tparse_peek(p);
        ash_tnode *child;
        if (t->type == ASH_TOK_EOF) {
            if (ends)
                ash_tparse_fail(p, t->pos, ASH_EFORMAT, "unexpected end of template, looking for '%s'",
                                ends[0]);
            return body;
        }
        ash_tparse_next(p);
        if (t->type == ASH_TOK_DATA) {
            child = ash_tparse_node(p, ASH_N_TEXT, t->pos);
            if (child)
                child->value = ash_tparse_string(p, t->s);
        } else if (t->type == ASH_TOK_VAR_BEGIN) {
            child = ash_tparse_node(p, ASH_N_PRINT, t->pos);
            if (child)
                child->a = ash_tparse_tuple(p, 0, NULL);
            ash_tparse_expect(p, ASH_TOK_VAR_END);
        } else {
            if (at_end(p, ends))
                return body;
            const char *outer = p->ends;
            p->ends = ends ? ends[0] : NULL;
            child = parse_statement(p);
            p->ends = outer;
            ash_tparse_expect(p, ASH_TOK_BLOCK_END);
        }
        if (!p->rc)
            ash_tparse_add(p, body, child);
    }
    return body;
}

static ash_tnode *parse_until(ash_tparser *p, const char *const *ends)
{
    if (!ash_tparse_enter(p))
        return NULL;
    ash_tnode *body = parse_list(p, ends);
    p->depth--;
    return body;
}

ash_tval ash_tparse_string(ash_tparser *p, ash_str s)
{
    ash_tstr *out = ash_tparse_alloc(p, 1, sizeof *out);
    if (!out)
        return ASH_TVAL_UNDEF;
    *out = (ash_tstr){.p = s.p, .n = s.n, .cps = ash_utf8_count(s.p, s.n)};
    return ASH_TVAL_STR(out);
}

int ash_tparse_run(ash_template *t, const ash_ttoken *tokens, size_t n, ash_err *err)
{
    ash_tparser p = {.t = t, .v = tokens, .n = n, .err = err};
    t->body = parse_until(&p, NULL);
    t->names = p.names;
    t->n_names = p.n_names;
    return p.rc;
}
