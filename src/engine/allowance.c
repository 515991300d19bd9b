/* Owns the rules of the accounts that guessing is paid from. Refuses nothing. One thread at a time. */
#include "engine/allowance.h"

static const double SHARE = 0.015;                 /* of the time without guesses */
static const double TEXT_SAVES = 1, ALL_SAVE = 4;  /* what earning fills an account up to */
static const double TEXT_MOST = 4, ALL_MOST = 12;  /* gains beyond are kept from being lost again */
static const double LOAN_MOST = 1;

static double least(double a, double b)
{
    return a < b ? a : b;
}

static void earn(double *balance, double up_to)
{
    if (*balance < up_to)
        *balance = least(*balance + SHARE, up_to);
}

void ash_allowance_earn(ash_allowance *a, ash_text_allowance *t)
{
    earn(&a->balance, ALL_SAVE);
    earn(&t->balance, TEXT_SAVES);
}

double ash_allowance_left(const ash_allowance *a, const ash_text_allowance *t, uint32_t room, bool lend)
{
    if (a->balance <= 0)
        return 0;
    double loan = lend ? least(least(a->balance, LOAN_MOST), SHARE * room) : 0;
    double left = least(t->balance + loan, a->balance);
    return left > 0 ? left : 0;
}

void ash_allowance_pay(ash_allowance *a, ash_text_allowance *t, double cost, double saved)
{
    double gain = saved - cost;
    t->balance = least(t->balance + gain, TEXT_MOST);
    a->balance = least(a->balance + gain, ALL_MOST);
}
