/* Owns arithmetic as Python does it: floor division, modulo, powers, repetition, concatenation.
 * Refuses division by zero, results beyond 64 bits, and operands Python refuses. */
#include <math.h>
#include <string.h>

#include "text/template_impl.h"

static ash_tval too_large(ash_trun *r)
{
    return ash_trun_fail(r, ASH_ELIMIT, "integer beyond 64 bits");
}

static ash_tval by_zero(ash_trun *r)
{
    return ash_trun_fail(r, ASH_EINVAL, "division by zero");
}

static ash_tval int_power(ash_trun *r, int64_t a, int64_t b)
{
    if (b < 0) {
        if (a == 0)
            return by_zero(r);
        return ASH_TVAL_FLOAT(pow((double)a, (double)b));
    }
    int64_t out = 1;
    for (int64_t base = a; b > 0; b >>= 1) {
        if ((b & 1) && __builtin_mul_overflow(out, base, &out))
            return too_large(r);
        if (b > 1 && __builtin_mul_overflow(base, base, &base))
            return too_large(r);
    }
    return ASH_TVAL_INT(out);
}

static ash_tval int_binary(ash_trun *r, ash_ttok op, int64_t a, int64_t b)
{
    int64_t out;
    bool bad = false;
    switch (op) {
    case ASH_TOK_ADD: bad = __builtin_add_overflow(a, b, &out); break;
    case ASH_TOK_SUB: bad = __builtin_sub_overflow(a, b, &out); break;
    case ASH_TOK_MUL: bad = __builtin_mul_overflow(a, b, &out); break;
    case ASH_TOK_POW: return int_power(r, a, b);
    default:
        if (b == 0)
            return by_zero(r);
        if (op == ASH_TOK_DIV)
            return ASH_TVAL_FLOAT((double)a / (double)b);
        if (b == -1) { /* INT64_MIN / -1 traps */
            bad = op == ASH_TOK_FLOORDIV && a == INT64_MIN;
            out = op == ASH_TOK_MOD ? 0 : bad ? 0 : -a;
        } else {
            bool down = a % b != 0 && (a < 0) != (b < 0);
            out = op == ASH_TOK_MOD ? a % b + (down ? b : 0) : a / b - down;
        }
    }
    return bad ? too_large(r) : ASH_TVAL_INT(out);
}

/* CPython's float_divmod. */
static void float_divmod(double a, double b, double *quotient, double *modulo)
{
    double mod = fmod(a, b), div = (a - mod) / b;
    if (mod < 0 || mod > 0) {
        if ((b < 0) != (mod < 0)) {
            mod += b;
            div -= 1;
        }
    } else {
        mod = copysign(0.0, b);
    }
    if (div < 0 || div > 0) {
        double whole = floor(div);
        *quotient = div - whole > 0.5 ? whole + 1 : whole;
    } else {
        *quotient = copysign(0.0, a / b);
    }
    *modulo = mod;
}

static ash_tval float_power(ash_trun *r, double a, double b)
{
    if (!(a < 0 || a > 0) && b < 0)
        return by_zero(r);
    if (a < 0 && isfinite(b) && (floor(b) < b))
        return ash_trun_fail(r, ASH_EUNSUPPORTED, "complex numbers are not supported");
    double out = pow(a, b);
    if (isinf(out) && isfinite(a) && isfinite(b))
        return ash_trun_fail(r, ASH_ELIMIT, "number too large");
    return ASH_TVAL_FLOAT(out);
}

static ash_tval float_binary(ash_trun *r, ash_ttok op, double a, double b)
{
    double quotient, modulo;
    switch (op) {
    case ASH_TOK_ADD: return ASH_TVAL_FLOAT(a + b);
    case ASH_TOK_SUB: return ASH_TVAL_FLOAT(a - b);
    case ASH_TOK_MUL: return ASH_TVAL_FLOAT(a * b);
    case ASH_TOK_POW: return float_power(r, a, b);
    default:
        if (!(b < 0 || b > 0 || isnan(b)))
            return by_zero(r);
        if (op == ASH_TOK_DIV)
            return ASH_TVAL_FLOAT(a / b);
        float_divmod(a, b, &quotient, &modulo);
        return ASH_TVAL_FLOAT(op == ASH_TOK_MOD ? modulo : quotient);
    }
}

static ash_tval join_lists(ash_trun *r, ash_tval a, ash_tval b)
{
    size_t n = a.list->n + b.list->n;
    ash_tlist *l = ash_tlist_new(r, n);
    if (!l || !ash_trun_charge(r, n / 4))
        return ASH_TVAL_UNDEF;
    if (a.list->n)
        memcpy(l->v, a.list->v, a.list->n * sizeof *l->v);
    if (b.list->n)
        memcpy(l->v + a.list->n, b.list->v, b.list->n * sizeof *l->v);
    l->n = n;
    return a.t == ASH_T_TUPLE ? ash_ttuple_val(l) : ash_tlist_val(l);
}

/* A sequence n times. */
static ash_tval repeat(ash_trun *r, ash_tval seq, int64_t n)
{
    ash_tsink k = {0};
    ash_tlist *l = seq.t == ASH_T_STR ? NULL : ash_tlist_new(r, 0);
    size_t len;
    ash_tval_len(seq, &len);
    for (int64_t i = 0; i < n && len && !r->rc && ash_trun_charge(r, 1); i++) {
        if (seq.t == ASH_T_STR)
            ash_tsink_str(r, &k, seq.s);
        for (size_t j = 0; l && j < len && ash_tlist_push(r, l, seq.list->v[j]); j++) {
        }
    }
    if (seq.t != ASH_T_STR)
        return seq.t == ASH_T_TUPLE ? ash_ttuple_val(l) : ash_tlist_val(l);
    ash_tval v = ash_tsink_take(r, &k);
    if (v.t == ASH_T_STR)
        ((ash_tstr *)v.s)->markup = seq.s->markup;
    return v;
}

static bool is_sequence(ash_tval v)
{
    return v.t == ASH_T_STR || v.t == ASH_T_LIST || v.t == ASH_T_TUPLE;
}

ash_tval ash_tmath_binary(ash_trun *r, ash_ttok op, ash_tval a, ash_tval b)
{
    static const char *const names[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
    int64_t x, y;
    double fx, fy;
    if (ash_tval_integer(a, &x) && ash_tval_integer(b, &y))
        return int_binary(r, op, x, y);
    if (ash_tval_number(a, &fx) && ash_tval_number(b, &fy))
        return float_binary(r, op, fx, fy);
    if (op == ASH_TOK_ADD && a.t == ASH_T_STR && b.t == ASH_T_STR)
        return ash_tstr_add(r, a.s, b.s);
    if (op == ASH_TOK_ADD && a.t == b.t && (a.t == ASH_T_LIST || a.t == ASH_T_TUPLE))
        return join_lists(r, a, b);
    if (op == ASH_TOK_MUL && is_sequence(a) && ash_tval_integer(b, &y))
        return repeat(r, a, y);
    if (op == ASH_TOK_MUL && is_sequence(b) && ash_tval_integer(a, &x))
        return repeat(r, b, x);
    if (op == ASH_TOK_MOD && a.t == ASH_T_STR)
        return ash_trun_fail(r, ASH_EUNSUPPORTED, "string formatting with %% is not supported");
    return ash_trun_fail(r, ASH_EINVAL, "unsupported operand types for %s: '%s' and '%s'",
                         names[op - ASH_TOK_ADD], ash_tval_type(a), ash_tval_type(b));
}

ash_tval ash_tmath_sign(ash_trun *r, ash_tval v, bool negative)
{
    int64_t i;
    if (v.t == ASH_T_FLOAT)
        return ASH_TVAL_FLOAT(negative ? -v.f : v.f);
    if (!ash_tval_integer(v, &i))
        return ash_trun_fail(r, ASH_EINVAL, "bad operand type for unary %c: '%s'", negative ? '-' : '+',
                             ash_tval_type(v));
    if (negative && i == INT64_MIN)
        return too_large(r);
    return ASH_TVAL_INT(negative ? -i : i);
}
