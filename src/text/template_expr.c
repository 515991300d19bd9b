/* Owns the grammar of expressions (jinja2/parser.py, parse_expression and below). Refuses what
 * that refuses, and nesting over ASH_MAX_TEMPLATE_DEPTH. Touches only its parser. */
#include <string.h>

#include "base/limits.h"
#include "text/template_parse.h"

static ash_tnode *parse_or(ash_tparser *p);
static ash_tnode *parse_unary(ash_tparser *p, bool with_filter);

/* Remembers that the template reads the variable. */
static void read_name(ash_tparser *p, ash_str name)
{
    p->special |= ash_str_eqc(name, "caller") ? ASH_TMACRO_CALLER
                  : ash_str_eqc(name, "varargs") ? ASH_TMACRO_VARARGS
                  : ash_str_eqc(name, "kwargs") ? ASH_TMACRO_KWARGS : 0;
    size_t recent = p->n_names > 64 ? p->n_names - 64 : 0; /* a repetition costs room only */
    for (size_t i = recent; i < p->n_names; i++)
        if (ash_str_eq(p->names[i], name))
            return;
    if (p->n_names == p->cap_names) {
        size_t cap = p->cap_names ? p->cap_names * 2 : 32;
        ash_str *v = ash_tparse_alloc(p, cap, sizeof *v);
        if (!v)
            return;
        if (p->n_names)
            memcpy(v, p->names, p->n_names * sizeof *v);
        p->names = v;
        p->cap_names = cap;
    }
    p->names[p->n_names++] = name;
}

static ash_tnode *constant(ash_tparser *p, uint32_t pos, ash_tval v)
{
    ash_tnode *n = ash_tparse_node(p, ASH_N_CONST, pos);
    if (n)
        n->value = v;
    return n;
}

static ash_tnode *parse_name(ash_tparser *p, int flags)
{
    const ash_ttoken *t = ash_tparse_next(p);
    if (ash_str_eqc(t->s, "true") || ash_str_eqc(t->s, "True"))
        return constant(p, t->pos, ASH_TVAL_BOOL(true));
    if (ash_str_eqc(t->s, "false") || ash_str_eqc(t->s, "False"))
        return constant(p, t->pos, ASH_TVAL_BOOL(false));
    if (ash_str_eqc(t->s, "none") || ash_str_eqc(t->s, "None"))
        return constant(p, t->pos, ASH_TVAL_NONE);
    ash_tnode *n = ash_tparse_node(p, ASH_N_NAME, t->pos);
    if (!n)
        return NULL;
    n->name = t->s;
    if ((flags & ASH_TPARSE_NS) && ash_tparse_skip(p, ASH_TOK_DOT)) {
        const ash_ttoken *attr = ash_tparse_peek(p);
        if (!ash_tparse_expect(p, ASH_TOK_NAME))
            return NULL;
        n->kind = ASH_N_NSREF;
        n->value = ash_tparse_string(p, attr->s);
        return n;
    }
    read_name(p, t->s);
    return n;
}

/* Adjacent string literals are one. */
static ash_tnode *parse_string(ash_tparser *p)
{
    const ash_ttoken *t = ash_tparse_next(p);
    ash_str s = t->s;
    if (ash_tparse_is(p, ASH_TOK_STR)) {
        size_t n = s.n;
        for (size_t i = p->at; p->v[i].type == ASH_TOK_STR; i++) n += p->v[i].s.n;
        char *text = ash_tparse_alloc(p, n + 1, 1);
        if (!text)
            return NULL;
        memcpy(text, s.p, s.n);
        for (size_t at = s.n; ash_tparse_is(p, ASH_TOK_STR);) {
            const ash_ttoken *more = ash_tparse_next(p);
            memcpy(text + at, more->s.p, more->s.n);
            at += more->s.n;
        }
        s = (ash_str){text, n};
    }
    return constant(p, t->pos, ash_tparse_string(p, s));
}

/* [a, b] and {k: v}; the opening bracket is current. */
static ash_tnode *parse_display(ash_tparser *p, ash_ttok close)
{
    bool dict = close == ASH_TOK_RBRACE;
    ash_tnode *n = ash_tparse_node(p, dict ? ASH_N_DICT : ASH_N_LIST, ash_tparse_next(p)->pos);
    for (bool first = true; !p->rc && !ash_tparse_is(p, close); first = false) {
        if (!first && !ash_tparse_expect(p, ASH_TOK_COMMA))
            return NULL;
        if (ash_tparse_is(p, close))
            break;
        ash_tparse_add(p, n, ash_tparse_expr(p));
        if (dict) {
            if (!ash_tparse_expect(p, ASH_TOK_COLON))
                return NULL;
            ash_tparse_add(p, n, ash_tparse_expr(p));
        }
    }
    ash_tparse_expect(p, close);
    return n;
}

static ash_tnode *parse_primary(ash_tparser *p, int flags)
{
    const ash_ttoken *t = ash_tparse_peek(p);
    ash_tnode *n;
    switch (t->type) {
    case ASH_TOK_NAME: return parse_name(p, flags);
    case ASH_TOK_STR: return parse_string(p);
    case ASH_TOK_INT: return constant(p, ash_tparse_next(p)->pos, ASH_TVAL_INT(t->i));
    case ASH_TOK_FLOAT: return constant(p, ash_tparse_next(p)->pos, ASH_TVAL_FLOAT(t->f));
    case ASH_TOK_LPAREN:
        ash_tparse_next(p);
        n = ash_tparse_tuple(p, ASH_TPARSE_PARENS, NULL);
        ash_tparse_expect(p, ASH_TOK_RPAREN);
        return n;
    case ASH_TOK_LBRACKET: return parse_display(p, ASH_TOK_RBRACKET);
    case ASH_TOK_LBRACE: return parse_display(p, ASH_TOK_RBRACE);
    default: ash_tparse_unexpected(p, "an expression"); return NULL;
    }
}

static bool tuple_ends(const ash_tparser *p, const char *stop)
{
    return ash_tparse_is(p, ASH_TOK_VAR_END) || ash_tparse_is(p, ASH_TOK_BLOCK_END) ||
           ash_tparse_is(p, ASH_TOK_RPAREN) || (stop && ash_tparse_is_name(p, stop));
}

ash_tnode *ash_tparse_tuple(ash_tparser *p, int flags, const char *stop)
{
    if (!ash_tparse_enter(p))
        return NULL;
    ash_tnode *tuple = ash_tparse_node(p, ASH_N_TUPLE, ash_tparse_peek(p)->pos);
    bool comma = false;
    while (!p->rc && !tuple_ends(p, stop)) {
        ash_tparse_add(p, tuple, flags & ASH_TPARSE_SIMPLE    ? parse_primary(p, flags)
                                 : flags & ASH_TPARSE_NO_COND ? parse_or(p)
                                                              : ash_tparse_expr(p));
        if (!ash_tparse_skip(p, ASH_TOK_COMMA))
            break;
        comma = true;
    }
    p->depth--;
    if (p->rc)
        return NULL;
    if (!comma && tuple->n)
        return tuple->list[0];
    if (!comma && !(flags & ASH_TPARSE_PARENS))
        ash_tparse_unexpected(p, "an expression");
    return tuple;
}

static void check_target(ash_tparser *p, const ash_tnode *n)
{
    if (p->rc || n->kind == ASH_N_NAME || n->kind == ASH_N_NSREF)
        return;
    if (n->kind != ASH_N_TUPLE) {
        ash_tparse_fail(p, n->pos, ASH_EFORMAT, "cannot assign to this expression");
        return;
    }
    for (uint32_t i = 0; i < n->n; i++) check_target(p, n->list[i]);
}

ash_tnode *ash_tparse_target(ash_tparser *p, const char *stop, bool with_namespace)
{
    ash_tnode *n = ash_tparse_tuple(p, ASH_TPARSE_SIMPLE | (with_namespace ? ASH_TPARSE_NS : 0), stop);
    check_target(p, n);
    return n;
}

/* (a, *b, c=1, **d) into n->list; the opening bracket is current. */
static void parse_args(ash_tparser *p, ash_tnode *n)
{
    const ash_ttoken *open = ash_tparse_next(p);
    int stage = 0; /* 0 positional, 1 keywords, 2 after *x, 3 after **x */
    for (bool first = true; !p->rc && !ash_tparse_is(p, ASH_TOK_RPAREN); first = false) {
        if (!first && !ash_tparse_expect(p, ASH_TOK_COMMA))
            return;
        if (ash_tparse_is(p, ASH_TOK_RPAREN))
            break;
        const ash_ttoken *t = ash_tparse_peek(p);
        ash_tnode *arg = NULL;
        bool ok;
        if (ash_tparse_skip(p, ASH_TOK_MUL)) {
            ok = stage < 2;
            stage = 2;
            arg = ash_tparse_node(p, ASH_N_STAR, t->pos);
        } else if (ash_tparse_skip(p, ASH_TOK_POW)) {
            ok = stage < 3;
            stage = 3;
            arg = ash_tparse_node(p, ASH_N_STARSTAR, t->pos);
        } else if (t->type == ASH_TOK_NAME && ash_tparse_look(p)->type == ASH_TOK_ASSIGN) {
            ok = stage < 3;
            stage = stage < 1 ? 1 : stage;
            arg = ash_tparse_node(p, ASH_N_KEYWORD, t->pos);
            if (arg)
                arg->name = t->s;
            ash_tparse_next(p);
            ash_tparse_next(p);
        } else {
            ok = stage == 0;
        }
        if (!ok)
            ash_tparse_fail(p, open->pos, ASH_EFORMAT, "invalid syntax for function call expression");
        ash_tnode *value = ash_tparse_expr(p);
        if (arg)
            arg->a = value;
        ash_tparse_add(p, n, arg ? arg : value);
    }
    ash_tparse_expect(p, ASH_TOK_RPAREN);
}

static ash_tnode *parse_call(ash_tparser *p, ash_tnode *of)
{
    ash_tnode *n = ash_tparse_node(p, ASH_N_CALL, ash_tparse_peek(p)->pos);
    if (!n)
        return NULL;
    n->a = of;
    parse_args(p, n);
    return n;
}

/* name or name.name of a filter or test */
static ash_str parse_dotted(ash_tparser *p)
{
    ash_str s = {0};
    do {
        const ash_ttoken *t = ash_tparse_peek(p);
        if (!ash_tparse_expect(p, ASH_TOK_NAME))
            return s;
        s = s.p ? (ash_str){s.p, (size_t)(t->s.p + t->s.n - s.p)} : t->s;
    } while (ash_tparse_skip(p, ASH_TOK_DOT));
    return s;
}

ash_tnode *ash_tparse_filters(ash_tparser *p, ash_tnode *of, bool bare)
{
    while (!p->rc && (bare || ash_tparse_skip(p, ASH_TOK_PIPE))) {
        bare = false;
        ash_tnode *n = ash_tparse_node(p, ASH_N_FILTER, ash_tparse_peek(p)->pos);
        if (!n)
            return NULL;
        n->a = of;
        n->name = parse_dotted(p);
        if (!p->rc && ash_tparse_is(p, ASH_TOK_LPAREN))
            parse_args(p, n);
        of = n;
    }
    return of;
}

static ash_tnode *parse_postfix(ash_tparser *p, ash_tnode *n);

/* x is [not] name, with arguments in brackets or a single one without */
static ash_tnode *parse_test(ash_tparser *p, ash_tnode *of)
{
    uint32_t pos = ash_tparse_next(p)->pos;
    bool negated = ash_tparse_skip_name(p, "not");
    ash_tnode *n = ash_tparse_node(p, ASH_N_TEST, pos);
    if (!n)
        return NULL;
    n->a = of;
    n->name = parse_dotted(p);
    if (p->rc)
        return NULL;
    switch (ash_tparse_peek(p)->type) {
    case ASH_TOK_LPAREN: parse_args(p, n); break;
    case ASH_TOK_NAME:
        if (ash_tparse_is_name(p, "else") || ash_tparse_is_name(p, "or") ||
            ash_tparse_is_name(p, "and"))
            break;
        if (ash_tparse_is_name(p, "is"))
            return ash_tparse_fail(p, pos, ASH_EFORMAT, "tests cannot be chained with 'is'");
        /* fall through */
    case ASH_TOK_STR:
    case ASH_TOK_INT:
    case ASH_TOK_FLOAT:
    case ASH_TOK_LBRACKET:
    case ASH_TOK_LBRACE: ash_tparse_add(p, n, parse_postfix(p, parse_primary(p, 0))); break;
    default: break;
    }
    if (!negated)
        return n;
    ash_tnode *not = ash_tparse_node(p, ASH_N_NOT, pos);
    if (not)
        not->a = n;
    return not;
}

/* One part of [a:b:c], up to ':', ',' or ']'. */
static ash_tnode *slice_part(ash_tparser *p)
{
    return ash_tparse_is(p, ASH_TOK_COLON) || ash_tparse_is(p, ASH_TOK_RBRACKET) ||
                   ash_tparse_is(p, ASH_TOK_COMMA)
               ? NULL
               : ash_tparse_expr(p);
}

static ash_tnode *parse_subscribed(ash_tparser *p)
{
    uint32_t pos = ash_tparse_peek(p)->pos;
    ash_tnode *lo = ash_tparse_is(p, ASH_TOK_COLON) ? NULL : ash_tparse_expr(p);
    if (p->rc || !ash_tparse_skip(p, ASH_TOK_COLON))
        return lo;
    ash_tnode *n = ash_tparse_node(p, ASH_N_SLICE, pos);
    if (!n)
        return NULL;
    n->a = lo;
    n->b = slice_part(p);
    if (!p->rc && ash_tparse_skip(p, ASH_TOK_COLON))
        n->c = slice_part(p);
    return n;
}

static ash_tnode *parse_subscript(ash_tparser *p, ash_tnode *of)
{
    const ash_ttoken *t = ash_tparse_next(p);
    ash_tnode *n = ash_tparse_node(p, t->type == ASH_TOK_DOT ? ASH_N_GETATTR : ASH_N_GETITEM, t->pos);
    if (!n)
        return NULL;
    n->a = of;
    if (t->type == ASH_TOK_DOT) {
        const ash_ttoken *attr = ash_tparse_next(p);
        if (attr->type == ASH_TOK_NAME) {
            n->name = attr->s;
        } else if (attr->type == ASH_TOK_INT) {
            n->kind = ASH_N_GETITEM;
            n->b = constant(p, attr->pos, ASH_TVAL_INT(attr->i));
        } else {
            return ash_tparse_fail(p, attr->pos, ASH_EFORMAT, "expected a name or number after '.'");
        }
        return n;
    }
    ash_tnode *keys = ash_tparse_node(p, ASH_N_TUPLE, t->pos);
    while (!p->rc && !ash_tparse_is(p, ASH_TOK_RBRACKET)) {
        if (keys->n && !ash_tparse_expect(p, ASH_TOK_COMMA))
            return NULL;
        ash_tparse_add(p, keys, parse_subscribed(p));
    }
    if (!ash_tparse_expect(p, ASH_TOK_RBRACKET))
        return NULL;
    n->b = keys->n == 1 ? keys->list[0] : keys;
    return n;
}

static ash_tnode *parse_postfix(ash_tparser *p, ash_tnode *n)
{
    while (!p->rc) {
        if (ash_tparse_is(p, ASH_TOK_DOT) || ash_tparse_is(p, ASH_TOK_LBRACKET))
            n = parse_subscript(p, n);
        else if (ash_tparse_is(p, ASH_TOK_LPAREN))
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

static ash_tnode *parse_filter_expr(ash_tparser *p, ash_tnode *n)
{
    while (!p->rc) {
        if (ash_tparse_is(p, ASH_TOK_PIPE))
            n = ash_tparse_filters(p, n, false);
        else if (ash_tparse_is_name(p, "is"))
            n = parse_test(p, n);
        else if (ash_tparse_is(p, ASH_TOK_LPAREN))
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

static ash_tnode *parse_unary(ash_tparser *p, bool with_filter)
{
    if (!ash_tparse_enter(p))
        return NULL;
    const ash_ttoken *t = ash_tparse_peek(p);
    ash_tnode *n;
    if (t->type == ASH_TOK_SUB || t->type == ASH_TOK_ADD) {
        ash_tparse_next(p);
        n = ash_tparse_node(p, t->type == ASH_TOK_SUB ? ASH_N_NEG : ASH_N_POS, t->pos);
        if (n)
            n->a = parse_unary(p, false);
    } else {
        n = parse_primary(p, 0);
    }
    n = parse_postfix(p, n);
    if (with_filter)
        n = parse_filter_expr(p, n);
    p->depth--;
    return n;
}

static bool is_operator(ash_ttok t, int level)
{
    switch (level) {
    case 0: return t == ASH_TOK_ADD || t == ASH_TOK_SUB;
    case 1: return t == ASH_TOK_TILDE;
    case 2: return t == ASH_TOK_MUL || t == ASH_TOK_DIV || t == ASH_TOK_FLOORDIV || t == ASH_TOK_MOD;
    default: return t == ASH_TOK_POW;
    }
}

/* + -, then ~, then * / // %, then **; all from left to right, ** too. A chain is one node, so that
 * long sums do not nest. */
static ash_tnode *parse_math(ash_tparser *p, int level)
{
    ash_tnode *first = level == 3 ? parse_unary(p, true) : parse_math(p, level + 1), *n = NULL;
    while (!p->rc && is_operator(ash_tparse_peek(p)->type, level)) {
        const ash_ttoken *t = ash_tparse_next(p);
        if (!n) {
            n = ash_tparse_node(p, level == 1 ? ASH_N_CONCAT : ASH_N_MATH, t->pos);
            if (!n)
                return NULL;
            n->a = first;
            if (level == 1)
                ash_tparse_add(p, n, first);
        }
        ash_tnode *right = level == 3 ? parse_unary(p, true) : parse_math(p, level + 1);
        if (level == 1) {
            ash_tparse_add(p, n, right);
            continue;
        }
        ash_tnode *operand = ash_tparse_node(p, ASH_N_OPERAND, t->pos);
        if (!operand)
            return NULL;
        operand->op = (int)t->type;
        operand->a = right;
        ash_tparse_add(p, n, operand);
    }
    return n ? n : first;
}

/* The comparison operator that is current, read; EOF if there is none. */
static ash_ttok comparison(ash_tparser *p)
{
    const ash_ttoken *t = ash_tparse_peek(p);
    if (t->type >= ASH_TOK_EQ && t->type <= ASH_TOK_GE) {
        ash_tparse_next(p);
        return t->type;
    }
    if (ash_tparse_skip_name(p, "in"))
        return ASH_TOK_IN;
    const ash_ttoken *after = ash_tparse_look(p);
    if (ash_tparse_is_name(p, "not") && after->type == ASH_TOK_NAME && ash_str_eqc(after->s, "in")) {
        ash_tparse_next(p);
        ash_tparse_next(p);
        return ASH_TOK_NOTIN;
    }
    return ASH_TOK_EOF;
}

static ash_tnode *parse_compare(ash_tparser *p)
{
    ash_tnode *first = parse_math(p, 0), *n = NULL;
    while (!p->rc) {
        uint32_t pos = ash_tparse_peek(p)->pos;
        ash_ttok op = comparison(p);
        if (op == ASH_TOK_EOF)
            break;
        if (!n) {
            n = ash_tparse_node(p, ASH_N_COMPARE, pos);
            if (!n)
                return NULL;
            n->a = first;
        }
        ash_tnode *operand = ash_tparse_node(p, ASH_N_OPERAND, pos);
        if (!operand)
            return NULL;
        operand->op = (int)op;
        operand->a = parse_math(p, 0);
        ash_tparse_add(p, n, operand);
    }
    return n ? n : first;
}

static ash_tnode *parse_not(ash_tparser *p)
{
    bool negated = false, any = false;
    uint32_t pos = ash_tparse_peek(p)->pos;
    while (ash_tparse_skip_name(p, "not")) {
        negated = !negated;
        any = true;
    }
    ash_tnode *n = parse_compare(p);
    /* an even number of nots still makes a boolean */
    for (int i = any ? (negated ? 1 : 2) : 0; i > 0 && !p->rc; i--) {
        ash_tnode *not = ash_tparse_node(p, ASH_N_NOT, pos);
        if (!not)
            return NULL;
        not->a = n;
        n = not;
    }
    return n;
}

static ash_tnode *parse_logic(ash_tparser *p, const char *word, ash_tkind kind,
                              ash_tnode *(*part)(ash_tparser *))
{
    ash_tnode *first = part(p), *n = NULL;
    while (!p->rc && ash_tparse_skip_name(p, word)) {
        if (!n) {
            n = ash_tparse_node(p, kind, first->pos);
            if (!n)
                return NULL;
            ash_tparse_add(p, n, first);
        }
        ash_tparse_add(p, n, part(p));
    }
    return n ? n : first;
}

static ash_tnode *parse_and(ash_tparser *p)
{
    return parse_logic(p, "and", ASH_N_AND, parse_not);
}

static ash_tnode *parse_or(ash_tparser *p)
{
    return parse_logic(p, "or", ASH_N_OR, parse_and);
}

ash_tnode *ash_tparse_expr(ash_tparser *p)
{
    if (!ash_tparse_enter(p))
        return NULL;
    ash_tnode *n = parse_or(p);
    while (!p->rc && ash_tparse_is_name(p, "if")) {
        ash_tnode *cond = ash_tparse_node(p, ASH_N_COND, ash_tparse_next(p)->pos);
        if (!cond)
            break;
        cond->a = n;
        cond->b = parse_or(p);
        if (!p->rc && ash_tparse_skip_name(p, "else"))
            cond->c = ash_tparse_expr(p);
        n = cond;
    }
    p->depth--;
    return n;
}
