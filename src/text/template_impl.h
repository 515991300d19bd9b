/* What the files of the template interpreter share: syntax tree, values, one rendering's state.
 *
 *   template_lex.c     source -> tokens            template_eval.c    expressions, calls
 *   template_parse.c   tokens -> tree              template_render.c  statements
 *   template_value.c   values, comparison          template_filter.c  filters
 *   template_str.c     strings, builders, printing template_method.c  methods of str, dict, list
 *   template_json.c    JSON in and out             template_test.c    tests after `is`
 *   template_func.c    global functions            template_case.c    upper, lower, title
 *   template_expr.c    expressions' grammar        template_math.c    arithmetic
 *   template.c         the public calls, a run's memory and limits
 *
 * All values of a rendering live in its arena and end with it. A failure is sticky: it is set in the
 * run (rc and err) and every function then returns quickly with something harmless, so that code
 * here checks run->rc where it loops or changes something, not after every call. */
#ifndef ASHLEY_TEXT_TEMPLATE_IMPL_H
#define ASHLEY_TEXT_TEMPLATE_IMPL_H

#include "base/arena.h"
#include "text/template.h"

/* ---- values ---- */

typedef enum ash_ttype {
    ASH_T_MISSING, /* an argument not given; never visible to a template */
    ASH_T_UNDEF,
    ASH_T_NONE,
    ASH_T_BOOL,
    ASH_T_INT,
    ASH_T_FLOAT,
    ASH_T_STR,
    ASH_T_LIST,
    ASH_T_TUPLE,
    ASH_T_DICT,
    ASH_T_VIEW,   /* dict.keys(), .values(), .items() */
    ASH_T_RANGE,
    ASH_T_ITER,   /* a generator: map, select, items, reverse, ...; can be read once */
    ASH_T_NS,     /* namespace() */
    ASH_T_LOOP,   /* the variable `loop` */
    ASH_T_MACRO,  /* a macro or caller */
    ASH_T_METHOD, /* a method bound to its object */
    ASH_T_FUNC,   /* a global function */
} ash_ttype;

/* Immutable UTF-8; never with surrogates. */
typedef struct ash_tstr {
    const char *p;
    size_t n;              /* bytes */
    size_t cps;            /* code points; == n means ASCII */
    const ash_span *taint; /* untrusted bytes, sorted, disjoint */
    size_t n_taint;
    bool markup; /* made by |safe or |escape: `+` then escapes the other side, as Markup does */
} ash_tstr;

typedef struct ash_tlist ash_tlist;
typedef struct ash_tdict ash_tdict;
typedef struct ash_tview ash_tview;
typedef struct ash_trange ash_trange;
typedef struct ash_titer ash_titer;
typedef struct ash_tloop ash_tloop;
typedef struct ash_tmacro ash_tmacro;
typedef struct ash_tmethod ash_tmethod;
typedef struct ash_tbuiltin ash_tbuiltin;
typedef struct ash_tundef ash_tundef;
typedef struct ash_tnode ash_tnode;
typedef struct ash_tframe ash_tframe;
typedef struct ash_trun ash_trun;

typedef struct ash_tval {
    ash_ttype t;
    union {
        bool b;
        int64_t i;
        double f;
        const ash_tstr *s;
        ash_tlist *list;  /* LIST, TUPLE */
        ash_tdict *dict;  /* DICT, NS */
        ash_tview *view;
        ash_trange *range;
        ash_titer *iter;
        ash_tloop *loop;
        ash_tmacro *macro;
        ash_tmethod *method;
        const ash_tbuiltin *func;
        const ash_tundef *undef; /* what was missing; may be NULL */
    };
} ash_tval;

struct ash_tlist {
    ash_tval *v; /* [n] */
    size_t n, cap;
};

typedef struct ash_tpair {
    ash_tval key, val;
    uint32_t hash; /* of key */
} ash_tpair;

struct ash_tdict {
    ash_tpair *v; /* [n] in order of insertion */
    size_t n, cap;
};

typedef enum ash_tview_kind { ASH_TVIEW_KEYS, ASH_TVIEW_VALUES, ASH_TVIEW_ITEMS } ash_tview_kind;
struct ash_tview {
    ash_tdict *dict;
    ash_tview_kind kind;
};

struct ash_trange {
    int64_t start, stop, step;
    size_t n;
};

/* Arguments as bound to a builtin's parameters: a[i] is MISSING if not given. */
typedef struct ash_targs {
    ash_tval *a;   /* [n] positional or, for builtins, bound */
    size_t n;
    ash_tpair *kw; /* [n_kw] keyword arguments, keys are strings */
    size_t n_kw;
} ash_targs;

struct ash_titer {
    ash_tval *v; /* [n] */
    size_t n, at;
    const char *name; /* how Python calls it: "generator" */
    /* Generators run when they are first read, so that one nobody reads raises nothing. */
    const ash_tbuiltin *pending; /* NULL once it has run */
    ash_tval self;
    ash_targs args;
};

struct ash_tundef {
    ash_str name;
    const char *of; /* type of the object without that attribute; NULL: a variable; "": see name */
};

#define ASH_TVAL_UNDEF ((ash_tval){.t = ASH_T_UNDEF})
#define ASH_TVAL_NONE ((ash_tval){.t = ASH_T_NONE})
#define ASH_TVAL_BOOL(x) ((ash_tval){.t = ASH_T_BOOL, .b = (x)})
#define ASH_TVAL_INT(x) ((ash_tval){.t = ASH_T_INT, .i = (x)})
#define ASH_TVAL_FLOAT(x) ((ash_tval){.t = ASH_T_FLOAT, .f = (x)})
#define ASH_TVAL_STR(x) ((ash_tval){.t = ASH_T_STR, .s = (x)})

/* ---- syntax tree ---- */

typedef enum ash_tkind {
    /* expressions */
    ASH_N_CONST,   /* value */
    ASH_N_NAME,    /* name */
    ASH_N_LIST,    /* list */
    ASH_N_TUPLE,   /* list */
    ASH_N_DICT,    /* list: key, value, key, value ... */
    ASH_N_COND,    /* a if b else c (c may be NULL) */
    ASH_N_OR,      /* list */
    ASH_N_AND,     /* list */
    ASH_N_NOT,     /* a */
    ASH_N_COMPARE, /* a, list of OPERAND */
    ASH_N_MATH,    /* a, list of OPERAND, left to right */
    ASH_N_OPERAND, /* op, a */
    ASH_N_CONCAT,  /* list */
    ASH_N_NEG,     /* a */
    ASH_N_POS,     /* a */
    ASH_N_GETATTR, /* a . name */
    ASH_N_GETITEM, /* a [ b ] */
    ASH_N_SLICE,   /* a : b : c, each may be NULL */
    ASH_N_CALL,    /* a ( list ) */
    ASH_N_FILTER,  /* a | name ( list ); a is NULL in block filters */
    ASH_N_TEST,    /* a is name ( list ) */
    ASH_N_KEYWORD, /* name = a, in argument lists */
    ASH_N_STAR,    /* *a, in argument lists */
    ASH_N_STARSTAR,
    ASH_N_NSREF, /* name . attr, as a target; attr in value */
    /* statements */
    ASH_N_BODY,        /* list */
    ASH_N_TEXT,        /* value */
    ASH_N_PRINT,       /* a */
    ASH_N_IF,          /* list of BRANCH */
    ASH_N_BRANCH,      /* test a (NULL: else), body b */
    ASH_N_FOR,         /* for a in b if c; list: body, else (may be NULL) */
    ASH_N_BREAK,
    ASH_N_CONTINUE,
    ASH_N_SET,         /* a = b */
    ASH_N_SETBLOCK,    /* a = filter b (NULL) of body c */
    ASH_N_MACRO,       /* name, list of PARAM, body b; op: bits of ASH_TMACRO_* */
    ASH_N_PARAM,       /* name, default a (NULL) */
    ASH_N_CALLBLOCK,   /* call a, MACRO b */
    ASH_N_FILTERBLOCK, /* filter a, body b */
    ASH_N_WITH,        /* list of SET, body b */
    ASH_N_SCOPE,       /* body a: {% generation %} */
} ash_tkind;

enum { ASH_TMACRO_CALLER = 1, ASH_TMACRO_VARARGS = 2, ASH_TMACRO_KWARGS = 4 };

struct ash_tnode {
    ash_tkind kind;
    int op;          /* an ash_ttok of operators, ASH_TOP_* or bits */
    uint32_t pos;    /* byte in the template's source */
    uint32_t n, cap; /* of list */
    ash_tnode **list;
    ash_tnode *a, *b, *c;
    ash_str name;
    ash_tval value;
};

struct ash_template {
    ash_arena arena; /* owns all below */
    char *given;     /* the source as it came */
    const char *src; /* with \n line ends and without the last one: what positions count in */
    size_t n;
    const ash_tnode *body;
    const ash_str *names; /* [n_names] variables that are read */
    size_t n_names;
};

/* ---- tokens ---- */

typedef enum ash_ttok {
    ASH_TOK_EOF,
    ASH_TOK_DATA,
    ASH_TOK_VAR_BEGIN,
    ASH_TOK_VAR_END,
    ASH_TOK_BLOCK_BEGIN,
    ASH_TOK_BLOCK_END,
    ASH_TOK_NAME,
    ASH_TOK_STR,
    ASH_TOK_INT,
    ASH_TOK_FLOAT,
    ASH_TOK_ADD,
    ASH_TOK_SUB,
    ASH_TOK_MUL,
    ASH_TOK_DIV,
    ASH_TOK_FLOORDIV,
    ASH_TOK_MOD,
    ASH_TOK_POW,
    ASH_TOK_TILDE,
    ASH_TOK_EQ,
    ASH_TOK_NE,
    ASH_TOK_LT,
    ASH_TOK_LE,
    ASH_TOK_GT,
    ASH_TOK_GE,
    ASH_TOK_ASSIGN,
    ASH_TOK_DOT,
    ASH_TOK_COLON,
    ASH_TOK_PIPE,
    ASH_TOK_COMMA,
    ASH_TOK_SEMICOLON,
    ASH_TOK_LPAREN,
    ASH_TOK_RPAREN,
    ASH_TOK_LBRACKET,
    ASH_TOK_RBRACKET,
    ASH_TOK_LBRACE,
    ASH_TOK_RBRACE,
    ASH_TOK_IN,    /* operators of comparisons only, never tokens */
    ASH_TOK_NOTIN,
} ash_ttok;

typedef struct ash_ttoken {
    ash_ttok type;
    uint32_t pos;
    union {
        ash_str s; /* DATA, NAME, STR (unescaped) */
        int64_t i;
        double f;
    };
} ash_ttoken;

/* Tokens of t->src, in t's arena; the last is EOF. Errors as ash_template_parse. */
int ash_tlex_run(ash_template *t, ash_ttoken **out, size_t *n, ash_err *err) ASH_MUST_CHECK;
/* Fills t->body and t->names from the tokens. */
int ash_tparse_run(ash_template *t, const ash_ttoken *tokens, size_t n, ash_err *err) ASH_MUST_CHECK;
/* "template line L column C: ..." with err->pos; returns code. */
int ash_template_fail(const ash_template *t, size_t pos, ash_err *err, int code, const char *fmt, ...)
    ASH_PRINTF(5, 6);
/* Whether Python's str.isspace holds for cp. */
bool ash_tspace(uint32_t cp);

/* ---- one rendering ---- */

typedef struct ash_tvar {
    ash_str name;
    ash_tval val;
} ash_tvar;

/* A scope. Lookup goes up; assignment stays in the innermost. */
struct ash_tframe {
    ash_tframe *up;
    ash_tvar *v; /* [n] */
    size_t n, cap;
};

/* A string under construction, in the arena. */
typedef struct ash_tsink {
    char *p;
    size_t n, cap;
    ash_span *taint;
    size_t n_taint, cap_taint;
    size_t max; /* most bytes; 0: none but memory */
} ash_tsink;

typedef enum ash_tflow { ASH_TFLOW_NEXT, ASH_TFLOW_BREAK, ASH_TFLOW_CONTINUE } ash_tflow;

struct ash_trun {
    const ash_template *tpl;
    ash_template_opts opts; /* defaults filled in */
    ash_arena arena;
    ash_err *err;
    int rc;       /* sticky failure */
    uint64_t steps;
    int depth;    /* nested evaluations, comparisons, printings */
    int calls;    /* nested macro calls */
    uint32_t pos; /* of the node at work, for messages */
    ash_tframe *frame;
    ash_tsink *out;
    ash_tflow flow;
};

struct ash_tloop {
    ash_trun *run;
    const ash_tnode *node; /* FOR */
    ash_tframe *frame;     /* where the iteration's variables are */
    ash_tval *v;           /* [n] the items, before the loop's `if` */
    size_t n, at;          /* at: the next to look at */
    ash_tval before, current, after; /* MISSING when there is none */
    int64_t index0;
    int64_t length;        /* -1 until it is known */
    ash_tlist *changed;    /* arguments of the last changed() */
};

struct ash_tmacro {
    const ash_tnode *def; /* MACRO */
    ash_tframe *frame;    /* where it was defined */
};

enum { ASH_TARGS_MAX = 8 };

/* A filter, method, test or function written in C. `self` is the piped or left value, or MISSING. */
struct ash_tbuiltin {
    const char *name;
    ash_tval (*fn)(ash_trun *r, ash_tval self, const ash_targs *args);
    int least;          /* arguments that must be given */
    const char *params; /* names, space-separated; NULL: any arguments, unbound */
    bool lazy;          /* a generator: fn makes a list, and runs when that is first read */
};

struct ash_tmethod {
    ash_tval self;
    const ash_tbuiltin *def;
};

/* Sets the sticky failure, "template line L column C: ..."; returns undefined. */
ash_tval ash_trun_fail(ash_trun *r, int code, const char *fmt, ...) ASH_PRINTF(3, 4);
/* Counts n steps of work; false (and failure) when they are spent. */
bool ash_trun_charge(ash_trun *r, size_t n);
/* Pairs of enter and leave guard recursion; enter is false at the cap. */
bool ash_trun_enter(ash_trun *r);
void ash_trun_leave(ash_trun *r);
/* Arena memory or NULL with the failure set. */
void *ash_trun_alloc(ash_trun *r, size_t n, size_t size);
/* v grown by doubling so that it has room for one more. */
bool ash_trun_grow(ash_trun *r, void **v, size_t n, size_t *cap, size_t size);

/* ---- template_str.c: strings ---- */

/* Borrowed bytes that live as long as the run; taint covers all or nothing. */
ash_tval ash_tstr_wrap(ash_trun *r, const char *p, size_t n, bool tainted);
ash_tval ash_tstr_copy(ash_trun *r, const char *p, size_t n, bool tainted);
ash_tval ash_tstr_lit(ash_trun *r, const char *cstr);
/* Bytes [b, e) of s, its taint and markup kept, the bytes shared. */
ash_tval ash_tstr_cut(ash_trun *r, const ash_tstr *s, size_t b, size_t e);
bool ash_tstr_tainted(const ash_tstr *s);
/* Byte offset of code point i (0..cps). */
size_t ash_tstr_offset(const ash_tstr *s, size_t i);
bool ash_tstr_eq(const ash_tstr *a, const ash_tstr *b);
bool ash_tstr_is(const ash_tstr *s, const char *cstr);
/* First b in a at or after byte `from`; SIZE_MAX if none. */
size_t ash_tstr_find(const ash_tstr *a, const ash_tstr *b, size_t from);
ash_tval ash_tstr_add(ash_trun *r, const ash_tstr *a, const ash_tstr *b);
/* HTML escaping as markupsafe does; the result is markup. */
ash_tval ash_tstr_escape(ash_trun *r, const ash_tstr *s);

void ash_tsink_bytes(ash_trun *r, ash_tsink *k, const char *p, size_t n, bool tainted);
void ash_tsink_lit(ash_trun *r, ash_tsink *k, const char *cstr);
void ash_tsink_str(ash_trun *r, ash_tsink *k, const ash_tstr *s);
/* Bytes [b, e) of s. */
void ash_tsink_part(ash_trun *r, ash_tsink *k, const ash_tstr *s, size_t b, size_t e);
ash_tval ash_tsink_take(ash_trun *r, ash_tsink *k);

/* str(v) as Python prints; never NULL. */
const ash_tstr *ash_tval_str(ash_trun *r, ash_tval v);
/* repr(v) appended. */
void ash_tval_repr(ash_trun *r, ash_tsink *k, ash_tval v);
/* Python's repr of a double into out[32]. */
void ash_tfloat_repr(double x, char out[32]);

/* ---- template_value.c ---- */

const char *ash_tval_type(ash_tval v); /* Python's type name: "str", "dict", ... */
bool ash_tval_truth(ash_tval v);
bool ash_tval_equal(ash_trun *r, ash_tval a, ash_tval b);
/* Python's ordering: sets *order to <0, 0, >0; false with failure for types without one. `op` is for
 * the message. *unordered (NaN) when neither holds. */
bool ash_tval_order(ash_trun *r, ash_tval a, ash_tval b, const char *op, int *order, bool *unordered);
/* Sorts vals [n] by keys [n], stably, both in place, as Python's sorted does. */
bool ash_tval_sort(ash_trun *r, ash_tval *keys, ash_tval *vals, size_t n, bool reverse);
bool ash_tval_number(ash_tval v, double *out); /* bool, int, float as double */
bool ash_tval_integer(ash_tval v, int64_t *out); /* bool, int */
bool ash_tval_tainted(ash_trun *r, ash_tval v); /* any string within */
/* len(v); false without failure if v has none. */
bool ash_tval_len(ash_tval v, size_t *out);

ash_tlist *ash_tlist_new(ash_trun *r, size_t cap);
bool ash_tlist_push(ash_trun *r, ash_tlist *l, ash_tval v);
ash_tval ash_tlist_val(ash_tlist *l); /* LIST; undefined for NULL */
ash_tval ash_ttuple_val(ash_tlist *l);
ash_tval ash_ttuple_pair(ash_trun *r, ash_tval a, ash_tval b);
ash_tval ash_titer_val(ash_trun *r, ash_tlist *l, const char *name);
/* A generator of what b makes of self and args, which are copied. */
ash_tval ash_titer_later(ash_trun *r, const ash_tbuiltin *b, ash_tval self, const ash_targs *args);
bool ash_titer_run(ash_trun *r, ash_titer *it); /* runs it if it is pending */

ash_tdict *ash_tdict_new(ash_trun *r);
ash_tval ash_tdict_val(ash_tdict *d);
/* NULL if there is none; a failure for unhashable keys. */
ash_tpair *ash_tdict_find(ash_trun *r, const ash_tdict *d, ash_tval key);
ash_tpair *ash_tdict_find_c(const ash_tdict *d, const char *key, size_t n);
bool ash_tdict_set(ash_trun *r, ash_tdict *d, ash_tval key, ash_tval val);
void ash_tdict_remove(ash_tdict *d, ash_tpair *at);

/* All that iterating v gives, as a fresh list; a generator is then spent. NULL with failure. */
ash_tlist *ash_tval_items(ash_trun *r, ash_tval v);

/* ---- template_json.c ---- */

ash_tval ash_tval_from_json(ash_trun *r, const json_t *j, bool tainted);
/* Parses JSON text; keys of the top object named in `untrusted` (NULL-terminated; NULL: see `tainted`)
 * taint what is under them. `what` names the text in errors. */
ash_tval ash_tval_from_text(ash_trun *r, const char *p, size_t n, bool tainted,
                            const char *const *untrusted, const char *what);
/* The filter tojson. */
ash_tval ash_tfilter_tojson(ash_trun *r, ash_tval self, const ash_targs *args);

/* ---- template_eval.c ---- */

ash_tval ash_teval_expr(ash_trun *r, const ash_tnode *n);
ash_tval ash_teval_undefined(ash_trun *r, ash_tval v); /* fails because v, undefined, was used */
ash_tval ash_teval_attr(ash_trun *r, ash_tval obj, ash_str name); /* obj.name */
ash_tval ash_teval_item(ash_trun *r, ash_tval obj, ash_tval key); /* obj[key] */
ash_tval ash_teval_slice(ash_trun *r, ash_tval obj, ash_tval lo, ash_tval hi, ash_tval step);
ash_tval ash_teval_call(ash_trun *r, ash_tval fn, const ash_targs *args);
/* Binds args to b's parameters and calls it. */
ash_tval ash_teval_builtin(ash_trun *r, const ash_tbuiltin *b, ash_tval self, const ash_targs *args);
/* A filter or test by name. */
ash_tval ash_teval_filter(ash_trun *r, ash_str name, ash_tval self, const ash_targs *args);
bool ash_teval_test(ash_trun *r, ash_str name, ash_tval self, const ash_targs *args);
/* The arguments of a CALL, FILTER or TEST node. */
bool ash_teval_args(ash_trun *r, const ash_tnode *n, ash_targs *out);
bool ash_teval_in(ash_trun *r, ash_tval needle, ash_tval hay);

/* ---- template_math.c ---- */

/* op: ASH_TOK_ADD .. ASH_TOK_POW. */
ash_tval ash_tmath_binary(ash_trun *r, ash_ttok op, ash_tval a, ash_tval b);
ash_tval ash_tmath_sign(ash_trun *r, ash_tval v, bool negative);

/* ---- template_render.c: statements ---- */

/* Runs a BODY in the current scope; r->flow says whether it broke off. */
void ash_trender_body(ash_trun *r, const ash_tnode *body);
ash_tval ash_trender_macro(ash_trun *r, const ash_tmacro *m, const ash_targs *args);
bool ash_tframe_set(ash_trun *r, ash_tframe *f, ash_str name, ash_tval v);
ash_tval ash_trender_loop_attr(ash_tloop *l, ash_str name);
/* Assigns to a NAME, TUPLE or NSREF. */
bool ash_trender_assign(ash_trun *r, const ash_tnode *target, ash_tval v);

/* ---- tables ---- */

const ash_tbuiltin *ash_tfilter_find(ash_str name);
const ash_tbuiltin *ash_ttest_find(ash_str name);
const ash_tbuiltin *ash_tfunc_find(ash_str name);
const ash_tbuiltin *ash_tmethod_find(ash_ttype type, ash_str name);
/* Looks `name` up in a table that ends with a NULL name. */
const ash_tbuiltin *ash_tbuiltin_find(const ash_tbuiltin *table, ash_str name);

/* ---- template_case.c ---- */

typedef enum ash_tcase { ASH_TCASE_UPPER, ASH_TCASE_LOWER, ASH_TCASE_TITLE, ASH_TCASE_CAPITALIZE,
                         ASH_TCASE_JINJA_TITLE, ASH_TCASE_SWAP } ash_tcase;
ash_tval ash_tcase_map(ash_trun *r, const ash_tstr *s, ash_tcase how);
bool ash_tcase_is_upper(const ash_tstr *s); /* str.isupper */
bool ash_tcase_is_lower(const ash_tstr *s);

#endif
