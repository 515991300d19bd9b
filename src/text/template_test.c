/* Owns the tests after `is` (jinja2/tests.py). Refuses unknown ones by name (its caller does).
 * Works on one run, one thread. */
#include <string.h>

#include "text/template_impl.h"

#define TEST(name) static ash_tval name(ash_trun *r, ash_tval v, const ash_targs *args)

/* v % n == want, as Python computes it. */
static ash_tval modulo_is(ash_trun *r, ash_tval v, ash_tval n, int64_t want)
{
    if (v.t == ASH_T_UNDEF)
        return ash_teval_undefined(r, v);
    ash_tval m = ash_tmath_binary(r, ASH_TOK_MOD, v, n);
    return r->rc ? m : ASH_TVAL_BOOL(ash_tval_equal(r, m, ASH_TVAL_INT(want)));
}

TEST(test_odd) { return modulo_is(r, v, ASH_TVAL_INT(2), 1); }
TEST(test_even) { return modulo_is(r, v, ASH_TVAL_INT(2), 0); }
TEST(test_divisibleby) { return modulo_is(r, v, args->a[0], 0); }
TEST(test_defined) { return ASH_TVAL_BOOL(v.t != ASH_T_UNDEF); }
TEST(test_undefined) { return ASH_TVAL_BOOL(v.t == ASH_T_UNDEF); }
TEST(test_none) { return ASH_TVAL_BOOL(v.t == ASH_T_NONE); }
TEST(test_boolean) { return ASH_TVAL_BOOL(v.t == ASH_T_BOOL); }
TEST(test_false) { return ASH_TVAL_BOOL(v.t == ASH_T_BOOL && !v.b); }
TEST(test_true) { return ASH_TVAL_BOOL(v.t == ASH_T_BOOL && v.b); }
TEST(test_integer) { return ASH_TVAL_BOOL(v.t == ASH_T_INT); }
TEST(test_float) { return ASH_TVAL_BOOL(v.t == ASH_T_FLOAT); }
TEST(test_lower) { return ASH_TVAL_BOOL(ash_tcase_is_lower(ash_tval_str(r, v))); }
TEST(test_upper) { return ASH_TVAL_BOOL(ash_tcase_is_upper(ash_tval_str(r, v))); }
TEST(test_string) { return ASH_TVAL_BOOL(v.t == ASH_T_STR); }
TEST(test_mapping) { return ASH_TVAL_BOOL(v.t == ASH_T_DICT); }
TEST(test_escaped) { return ASH_TVAL_BOOL(v.t == ASH_T_STR && v.s->markup); }
TEST(test_in) { return ASH_TVAL_BOOL(ash_teval_in(r, v, args->a[0])); }

TEST(test_number)
{
    return ASH_TVAL_BOOL(v.t == ASH_T_BOOL || v.t == ASH_T_INT || v.t == ASH_T_FLOAT);
}

TEST(test_sequence)
{
    return ASH_TVAL_BOOL(v.t == ASH_T_UNDEF || v.t == ASH_T_STR || v.t == ASH_T_LIST ||
                         v.t == ASH_T_TUPLE || v.t == ASH_T_DICT || v.t == ASH_T_RANGE);
}

TEST(test_iterable)
{
    return ASH_TVAL_BOOL(ash_tval_truth(test_sequence(r, v, args)) || v.t == ASH_T_VIEW ||
                         v.t == ASH_T_ITER || v.t == ASH_T_LOOP);
}

TEST(test_callable)
{
    return ASH_TVAL_BOOL(v.t == ASH_T_UNDEF || v.t == ASH_T_MACRO || v.t == ASH_T_METHOD ||
                         v.t == ASH_T_FUNC || v.t == ASH_T_LOOP);
}

/* Identity; equal scalars of one type count as one object. */
TEST(test_sameas)
{
    ash_tval o = args->a[0];
    bool scalar = v.t <= ASH_T_STR && v.t != ASH_T_UNDEF;
    return ASH_TVAL_BOOL(v.t == o.t && (scalar ? ash_tval_equal(r, v, o) : v.list == o.list));
}

TEST(test_filter)
{
    const ash_tstr *name = ash_tval_str(r, v);
    return ASH_TVAL_BOOL(ash_tfilter_find((ash_str){name->p, name->n}) != NULL);
}

TEST(test_test)
{
    const ash_tstr *name = ash_tval_str(r, v);
    return ASH_TVAL_BOOL(ash_ttest_find((ash_str){name->p, name->n}) != NULL);
}

TEST(test_eq) { return ASH_TVAL_BOOL(ash_tval_equal(r, v, args->a[0])); }
TEST(test_ne) { return ASH_TVAL_BOOL(!ash_tval_equal(r, v, args->a[0])); }

static ash_tval ordered(ash_trun *r, ash_tval a, ash_tval b, const char *op)
{
    int order = 0;
    bool unordered = false;
    if (!ash_tval_order(r, a, b, op, &order, &unordered) || unordered)
        return ASH_TVAL_BOOL(false);
    bool equal = order == 0 && op[1];
    return ASH_TVAL_BOOL(equal || (op[0] == '<' ? order < 0 : order > 0));
}

TEST(test_gt) { return ordered(r, v, args->a[0], ">"); }
TEST(test_ge) { return ordered(r, v, args->a[0], ">="); }
TEST(test_lt) { return ordered(r, v, args->a[0], "<"); }
TEST(test_le) { return ordered(r, v, args->a[0], "<="); }

const ash_tbuiltin *ash_ttest_find(ash_str name)
{
    static const ash_tbuiltin table[] = {
        {"odd", test_odd, 0, ""}, {"even", test_even, 0, ""},
        {"divisibleby", test_divisibleby, 1, "num"}, {"defined", test_defined, 0, ""},
        {"undefined", test_undefined, 0, ""}, {"filter", test_filter, 0, ""},
        {"test", test_test, 0, ""}, {"none", test_none, 0, ""}, {"boolean", test_boolean, 0, ""},
        {"false", test_false, 0, ""}, {"true", test_true, 0, ""}, {"integer", test_integer, 0, ""},
        {"float", test_float, 0, ""}, {"lower", test_lower, 0, ""}, {"upper", test_upper, 0, ""},
        {"string", test_string, 0, ""}, {"mapping", test_mapping, 0, ""},
        {"number", test_number, 0, ""}, {"sequence", test_sequence, 0, ""},
        {"iterable", test_iterable, 0, ""}, {"callable", test_callable, 0, ""},
        {"sameas", test_sameas, 1, "other"}, {"escaped", test_escaped, 0, ""},
        {"in", test_in, 1, "seq"}, {"==", test_eq, 1, "other"}, {"eq", test_eq, 1, "other"},
        {"equalto", test_eq, 1, "other"}, {"!=", test_ne, 1, "other"}, {"ne", test_ne, 1, "other"},
        {">", test_gt, 1, "other"}, {"gt", test_gt, 1, "other"},
        {"greaterthan", test_gt, 1, "other"}, {"ge", test_ge, 1, "other"},
        {">=", test_ge, 1, "other"}, {"<", test_lt, 1, "other"}, {"lt", test_lt, 1, "other"},
        {"lessthan", test_lt, 1, "other"}, {"<=", test_le, 1, "other"}, {"le", test_le, 1, "other"},
        {0},
    };
    return ash_tbuiltin_find(table, name);
}
