/* Owns the measurements of one scheduler's steps. Refuses nothing. One thread at a time. */
#include "engine/pace.h"

#include <math.h>
#include <string.h>

/* Steps after which a measurement is made again: of steps without guesses, against which all others are
 * held, sooner. */
enum { PLAIN_FRESH = 256, GUESS_FRESH = 1024 };
enum { TRUSTED = 2 }; /* measurements before one counts; the lowest of them, as chance only adds */
static const double FADE = 0.9, FAR_OFF = 1.5, PLACE_UNIT = 1024;

void ash_pace_init(ash_pace *p, int64_t row_ns)
{
    enum { SEED = 64 };
    memset(p, 0, sizeof *p);
    p->row_ns = row_ns > 0 ? (double)row_ns : 1;
    p->rr = SEED;
    p->least_row_ns = p->row_ns / 32;
    p->rt = p->rr * p->row_ns;
}

static ash_pace_cell *cell_at(const ash_pace *p, int decoding, int guesses)
{
    int n = decoding < ASH_PACE_SEQUENCES ? decoding : ASH_PACE_SEQUENCES;
    return (ash_pace_cell *)&p->cells[n - 1][guesses];
}

static bool is_known(const ash_pace *p, const ash_pace_cell *c, int guesses)
{
    return c->count >= TRUSTED && p->steps - c->step < (guesses ? GUESS_FRESH : PLAIN_FRESH);
}

static void note_decoding(ash_pace *p, int decoding, int guesses, double ns)
{
    ash_pace_cell *c = cell_at(p, decoding, guesses);
    if (c->count && p->steps - c->step >= (guesses ? GUESS_FRESH : PLAIN_FRESH))
        c->count = 0;
    c->step = p->steps;
    if (c->count < TRUSTED) {
        c->ns = c->count && c->ns < ns ? c->ns : ns;
        c->count++;
        return;
    }
    double most = c->ns * FAR_OFF;
    c->ns += ((ns < most ? ns : most) - c->ns) * (ns < c->ns ? 0.25 : 0.125);
}

/* Least squares of t = row_ns * rows + place_ns * places over the fading sums. */
static void fit(ash_pace *p)
{
    double det = p->rr * p->pp - p->rp * p->rp;
    if (det > 1e-3 * p->rr * p->pp) {
        double place = (p->rr * p->pt - p->rp * p->rt) / det;
        p->place_ns = place > 0 ? place : 0;
    }
    double row = (p->rt - p->place_ns * p->rp) / p->rr;
    p->row_ns = row;
    if (row < p->least_row_ns) { /* noise: the positions cannot cost all there is */
        p->row_ns = p->least_row_ns;
        double place = p->pp > 0 ? (p->pt - p->row_ns * p->rp) / p->pp : 0;
        p->place_ns = place > 0 ? place : 0;
    }
}

static void note_prompts(ash_pace *p, const ash_pace_step *s, double ns)
{
    double rows = s->prompt_rows, places = (double)s->places / PLACE_UNIT;
    double expected = p->row_ns * rows + p->place_ns * places;
    ns = ns < 2 * expected ? ns : 2 * expected;
    /* Weighted by 1 / rows: few rows, which a bad guess of their cost leads to, must be able to mend it. */
    p->rr = p->rr * FADE + rows;
    p->rp = p->rp * FADE + places;
    p->pp = p->pp * FADE + places * places / rows;
    p->rt = p->rt * FADE + ns;
    p->pt = p->pt * FADE + places * ns / rows;
    fit(p);
}

int64_t ash_pace_plain_ns(const ash_pace *p, int decoding)
{
    return decoding ? (int64_t)cell_at(p, decoding, 0)->ns : 0;
}

void ash_pace_note(ash_pace *p, const ash_pace_step *s, int64_t ns)
{
    enum { LEAST_ROWS = 4 }; /* fewer say more about reading the weights than about rows */
    p->steps++;
    if (s->decoding && !s->prompt_rows)
        note_decoding(p, s->decoding, s->guesses, (double)ns);
    if (s->prompt_rows && s->decoding)
        p->beside_rows = s->prompt_rows > p->beside_rows / 2 ? s->prompt_rows : p->beside_rows / 2;
    if (s->prompt_rows < LEAST_ROWS)
        return;
    /* Who decodes may be thought slower than he is: some part of the time is the prompts' in any case, or
     * such a step would teach nothing, and the next be like it. */
    double left = (double)(ns - ash_pace_plain_ns(p, s->decoding)) - s->guesses * p->row_ns;
    double part = (double)ns / 8;
    note_prompts(p, s, left > part ? left : part);
}

/* What is known around a step with so many guesses. */
typedef struct around {
    const ash_pace_cell *below, *above; /* `above` NULL: nothing */
    int low, high;                      /* their guesses */
} around;

static around look_around(const ash_pace *p, int decoding, int guesses)
{
    around a = {.below = cell_at(p, decoding, 0)};
    for (int i = 1; i <= guesses; i++) {
        const ash_pace_cell *c = cell_at(p, decoding, i);
        if (is_known(p, c, i)) {
            a.below = c;
            a.low = i;
        }
    }
    for (int i = guesses + 1; a.low < guesses && !a.above && i <= ASH_MAX_DRAFT; i++) {
        const ash_pace_cell *c = cell_at(p, decoding, i);
        if (is_known(p, c, i)) {
            a.above = c;
            a.high = i;
        }
    }
    return a;
}

/* A step with so many guesses: known, on the line between two that are, or as the one below. */
static double step_ns(const around *a, int guesses)
{
    double ns = a->below->ns;
    if (a->above && a->above->ns > ns)
        ns += (a->above->ns - ns) * (guesses - a->low) / (a->high - a->low);
    return ns;
}

double ash_pace_guessing(const ash_pace *p, int decoding, int guesses)
{
    const ash_pace_cell *plain = cell_at(p, decoding, 0);
    if (decoding > ASH_PACE_SEQUENCES || !is_known(p, plain, 0))
        return 0;
    around a = look_around(p, decoding, guesses);
    double ns = step_ns(&a, guesses); /* nothing known above: as if it were free, to find out */
    return ns > plain->ns ? ns / plain->ns : 1;
}

double ash_pace_cost(const ash_pace *p, int decoding, int guesses, bool beside_prompts)
{
    enum { DEAR = 2 }; /* rows of prompts: a few rows cost more each than many do */
    double plain = decoding ? cell_at(p, decoding, 0)->ns : 0;
    if (plain <= 0)
        return HUGE_VAL;
    if (beside_prompts)
        return guesses * p->row_ns / plain;
    around a = look_around(p, decoding, guesses);
    double ns = step_ns(&a, guesses);
    if (!a.above)
        ns += (guesses - a.low) * DEAR * p->row_ns;
    return ns > plain ? ns / plain - 1 : 0;
}

double ash_pace_paid(const ash_pace *p, const ash_pace_step *s, int64_t ns)
{
    if (!s->guesses)
        return 0;
    double plain = cell_at(p, s->decoding, 0)->ns;
    if (s->prompt_rows || plain <= 0 || is_known(p, cell_at(p, s->decoding, s->guesses), s->guesses))
        return ash_pace_cost(p, s->decoding, s->guesses, s->prompt_rows > 0);
    double cost = (double)ns / plain - 1;
    cost = cost < s->guesses ? cost : s->guesses; /* more is not of the guesses: a row is at most a step */
    return cost > 0 ? cost : 0;
}

int ash_pace_rows(const ash_pace *p, int decoding, int64_t ns, int prompts, int64_t place, int unit,
                  int most)
{
    double left = (double)(ns - ash_pace_plain_ns(p, decoding));
    int n = 0;
    if (decoding && p->beside_rows && most > 2 * p->beside_rows)
        most = 2 * p->beside_rows > unit ? 2 * p->beside_rows / unit * unit : unit;
    while (n < most) {
        double rows = n + unit, mean = (double)place + rows / (2 * prompts);
        if (rows * (p->row_ns + p->place_ns * mean / PLACE_UNIT) > left)
            break;
        n += unit;
    }
    return n < most ? n : most;
}

int ash_pace_rows_alone(const ash_pace *p, int prompts, int64_t place, int unit, int most)
{
    enum { FEW = 32 };
    const int64_t short_ns = 250000000, long_ns = 1000000000;
    int rows = ash_pace_rows(p, 0, short_ns, prompts, place, unit, most);
    if (rows < FEW)
        rows = ash_pace_rows(p, 0, long_ns, prompts, place, unit, most < FEW ? most : FEW);
    int least = unit < most ? unit : most;
    return rows > least ? rows : least;
}
