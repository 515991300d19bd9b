/* The parser's state, shared by statements (template_parse.c) and expressions (template_expr.c).
 * Failures are sticky in ash_tparser.rc; nodes may then be NULL or incomplete. */
#ifndef ASHLEY_TEXT_TEMPLATE_PARSE_H
#define ASHLEY_TEXT_TEMPLATE_PARSE_H

#include "text/template_impl.h"

typedef struct ash_tparser {
    ash_template *t;
    const ash_ttoken *v; /* [n], the last is EOF */
    size_t n, at;
    ash_err *err;
    int rc;           /* first failure */
    int depth;        /* nesting */
    int loops;        /* enclosing loops of this macro */
    int special;      /* ASH_TMACRO_* names read since the enclosing macro began */
    const char *ends; /* the tag being looked for, for messages */
    ash_str *names;   /* [n_names] in the arena: variables that are read */
    size_t n_names, cap_names;
} ash_tparser;

enum { ASH_TPARSE_NO_COND = 1, ASH_TPARSE_SIMPLE = 2, ASH_TPARSE_PARENS = 4, ASH_TPARSE_NS = 8 };

void *ash_tparse_alloc(ash_tparser *p, size_t n, size_t size);
ash_tnode *ash_tparse_node(ash_tparser *p, ash_tkind kind, uint32_t pos);
void ash_tparse_add(ash_tparser *p, ash_tnode *to, ash_tnode *child);
/* Sets the failure if there is none yet; returns NULL. */
ash_tnode *ash_tparse_fail(ash_tparser *p, uint32_t pos, int code, const char *fmt, ...)
    ASH_PRINTF(4, 5);
void ash_tparse_unexpected(ash_tparser *p, const char *wanted);
/* One level deeper; the caller does p->depth-- if it is true. */
bool ash_tparse_enter(ash_tparser *p);

const ash_ttoken *ash_tparse_peek(const ash_tparser *p);
const ash_ttoken *ash_tparse_look(const ash_tparser *p); /* the one after */
const ash_ttoken *ash_tparse_next(ash_tparser *p);       /* the current one, and goes on */
bool ash_tparse_is(const ash_tparser *p, ash_ttok type);
bool ash_tparse_is_name(const ash_tparser *p, const char *name);
bool ash_tparse_skip(ash_tparser *p, ash_ttok type);
bool ash_tparse_skip_name(ash_tparser *p, const char *name);
bool ash_tparse_expect(ash_tparser *p, ash_ttok type);

/* A string constant of the template. */
ash_tval ash_tparse_string(ash_tparser *p, ash_str s);
ash_tnode *ash_tparse_expr(ash_tparser *p);
/* One expression or a tuple without brackets; `stop` is a name that ends it. flags: ASH_TPARSE_*. */
ash_tnode *ash_tparse_tuple(ash_tparser *p, int flags, const char *stop);
/* What may stand left of `=` or `in`. */
ash_tnode *ash_tparse_target(ash_tparser *p, const char *stop, bool with_namespace);
/* |name(...)|...; with `bare` the first has no bar. Returns `of` if there is none. */
ash_tnode *ash_tparse_filters(ash_tparser *p, ash_tnode *of, bool bare);

#endif
