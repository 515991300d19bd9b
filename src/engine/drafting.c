/* Owns what is learned of a draft model. Refuses nothing. The scheduler's thread. */
#include "engine/drafting.h"

#include <math.h>

#include "base/clock.h"
#include "base/log.h"

enum {
    NEAR = 8,          /* tokens behind that are read together with a guess's forward, at its price */
    LEAST_READ = 16,   /* of a text's end; with less before them guesses are worth little */
    FAR = 8,           /* guesses of one text in a step, at most */
    PROBE_EVERY = 32,  /* steps between guesses that are not thought to pay */
    FEW = 4,           /* guesses of a text that are not enough to know it */
    LAST_GUESSES = 24, /* the odds are of about so many, */
    LAST_OF_ALL = 10,  /* their mean of fewer: a text that is no more foreseen should be left soon */
    READ_NS = 15000000, /* how long running streams wait for a text to be read, in one step */
};
static const double WORTHWHILE = 1.02, GOOD_GUESS = 0.5, HOPE = 0.6, FAR_OFF = 1.5;
static const double SPENT_AT_ONCE = 0.75; /* of what is left, as reading may take longer than thought */
/* Upper ends of the levels by the draft model's own probability, and what is thought of them at first. */
static const float sure_ends[ASH_DRAFT_LEVELS] = {0.1f, 0.25f, 0.4f, 0.55f, 0.7f, 0.85f, 0.95f, 2};
static const float first_right[ASH_DRAFT_LEVELS] = {0.1f, 0.2f, 0.35f, 0.5f, 0.6f, 0.75f, 0.85f, 0.95f};

static void odds_init(ash_draft_odds *o)
{
    *o = (ash_draft_odds){.mean = (float)HOPE, .n_seen = FEW};
    for (int i = 0; i < ASH_DRAFT_LEVELS; i++) {
        o->right[i] = first_right[i];
        o->seen[i] = FEW;
    }
}

void ash_drafting_init(ash_drafting *d, ash_draft_model *model, bool always)
{
    *d = (ash_drafting){.model = model, .always = always, .clock = ash_clock_ns};
    odds_init(&d->odds);
    if (!model)
        return;
    d->row_ns = (double)ash_draft_model_row_ns(model);
    for (int i = 0; i < ASH_DRAFT_SLOTS; i++)
        d->step_ns[i] = (double)ash_draft_model_step_ns(model) + i * d->row_ns;
}

/* ---- odds ----------------------------------------------------------------------------------- */

static void count_one(float *right, uint8_t *seen, uint8_t last, bool came_true)
{
    if (*seen < last)
        ++*seen;
    *right += ((came_true ? 1.0f : 0.0f) - *right) / *seen;
}

static void count(ash_draft_odds *o, uint8_t level, bool came_true)
{
    count_one(&o->right[level], &o->seen[level], LAST_GUESSES, came_true);
    count_one(&o->mean, &o->n_seen, LAST_OF_ALL, came_true);
}

/* A text begins with what is known of all others, lightly. */
static const ash_draft_odds *odds_of(const ash_drafting *d, ash_sequence *q)
{
    if (q->odds.mean > 0)
        return &q->odds;
    q->odds = d->odds;
    q->odds.mean = q->odds.mean > 0.01f ? q->odds.mean : 0.01f;
    q->odds.n_seen = FEW;
    for (int i = 0; i < ASH_DRAFT_LEVELS; i++) q->odds.seen[i] = FEW;
    return &q->odds;
}

static uint8_t level_of(float sure)
{
    uint8_t i = 0;
    while (sure >= sure_ends[i] && i < ASH_DRAFT_LEVELS - 1) i++;
    return i;
}

static void smooth(double *mean, double now)
{
    double most = *mean * FAR_OFF;
    *mean += ((now < most ? now : most) - *mean) * (now < *mean ? 0.25 : 0.125);
}

/* ---- what it costs -------------------------------------------------------------------------- */

/* A step without guesses, of which a text that decodes beside others has a part. */
static double plain_ns(const ash_pace *pace, int n)
{
    double ns = (double)ash_pace_plain_ns(pace, n);
    return ns > 1 ? ns : 1;
}

/* What the step in hand is about. */
typedef struct attempt {
    ash_drafting *d;
    const ash_pace *pace;
    ash_allowance *all;
    double text_ns; /* that are a step of one text */
    bool lend;      /* guesses are thought to pay */
} attempt;

static double left_for(const attempt *r, const ash_sequence *q)
{
    if (r->d->always)
        return HUGE_VAL;
    return ash_allowance_left(r->all, &q->allowance, q->max_ids - q->n_ids, r->lend);
}

static void pay(const attempt *r, ash_sequence *q, double ns)
{
    ash_allowance_pay(r->all, &q->allowance, ns / r->text_ns, 0);
}

/* Those of q[0..n) that a forward for them all is covered for, and what `guesses` guesses of n texts add to
 * the step; they come first, in their order. */
static int keep_covered(const attempt *r, ash_sequence **q, ash_draft_input *in, double *share, int n,
                        int guesses)
{
    int kept = 0;
    if (!n)
        return 0;
    double cost = r->d->step_ns[n - 1] / r->text_ns;
    if (r->lend)
        cost += ash_pace_cost(r->pace, r->d->decoding, guesses, false) * r->d->decoding;
    for (int i = 0; i < n; i++) {
        if (left_for(r, q[i]) < cost / n)
            continue;
        q[kept] = q[i];
        in[kept] = in[i];
        share[kept++] = share[i];
    }
    return r->d->always || cost <= r->all->balance ? kept : 0;
}

/* ---- reading -------------------------------------------------------------------------------- */

/* Brings q's slot near to the end of its text, a part at a time; true once it is. Never more than is left:
 * then only the text's end is read. */
static bool read_text(const attempt *r, ash_sequence *q, int slot)
{
    ash_drafting *d = r->d;
    uint32_t behind = ash_draft_model_behind(d->model, slot, q->ids, q->n_ids);
    double rows = left_for(r, q) * r->text_ns / d->row_ns;
    uint32_t most = ash_draft_model_context(d->model) / 2; /* room to go on */
    if (behind <= NEAR)
        return true;
    if (rows < behind) {
        rows *= SPENT_AT_ONCE;
        uint32_t tail = rows < most ? (uint32_t)rows : most;
        if (tail < LEAST_READ && tail < q->n_ids)
            return false;
        behind = tail < behind ? UINT32_MAX : behind;
        most = tail;
    }
    if (behind == UINT32_MAX) {
        ash_draft_model_restart(d->model, slot, q->n_ids > most ? q->n_ids - most : 0);
        behind = ash_draft_model_behind(d->model, slot, q->ids, q->n_ids);
    }
    uint32_t part = d->always ? UINT32_MAX : (uint32_t)(READ_NS / d->row_ns);
    part = part < NEAR ? NEAR : part;
    while (behind > NEAR && part) {
        uint32_t n = behind - 1 < ASH_DRAFT_ROWS ? behind - 1 : ASH_DRAFT_ROWS;
        n = n < part ? n : part;
        int64_t t = d->clock();
        ash_draft_input in = {.slot = slot, .ids = q->ids + q->n_ids - behind, .n = n};
        ash_draft_model_read(d->model, &in, 1, false);
        double ns = (double)(d->clock() - t);
        pay(r, q, ns);
        if (n >= NEAR)
            smooth(&d->row_ns, ns / n);
        behind -= n;
        part -= n;
    }
    return behind <= NEAR;
}

/* ---- how far -------------------------------------------------------------------------------- */

/* How much longer than one without guesses a step with so many is; 0: not known. */
static double longer(const ash_drafting *d, const ash_pace *pace, int guesses)
{
    return guesses ? ash_pace_guessing(pace, d->decoding, guesses) : 1;
}

/* Whether guessing for these m texts is thought to pay, by their odds' means: some number of guesses each
 * makes more tokens a second than none. */
static bool pays(const ash_drafting *d, const ash_pace *pace, ash_sequence *const *q, int m)
{
    double tokens = d->decoding, share[ASH_DRAFT_SLOTS];
    double forward = d->step_ns[m - 1] / plain_ns(pace, d->decoding);
    for (int i = 0; i < m; i++) share[i] = 1;
    for (int k = 1; k <= FAR && k * m <= ASH_MAX_DRAFT; k++) {
        for (int i = 0; i < m; i++) tokens += share[i] *= (double)odds_of(d, q[i])->mean;
        double step = longer(d, pace, k * m);
        if (step > 0 && tokens / (step + k * forward) > d->decoding * WORTHWHILE)
            return true;
    }
    return false;
}

/* Whether a guess that is not thought to pay is due, to find out if that is still so. */
static bool probes(const ash_drafting *d, ash_sequence *const *q, int m)
{
    bool due = d->steps % PROBE_EVERY == 0;
    for (int i = 0; i < m; i++) due |= odds_of(d, q[i])->n_seen < 2 * FEW;
    return due;
}

/* Guesses that q may have: a token is drawn after them. */
static uint32_t room(const ash_sequence *q)
{
    uint32_t left = q->max_ids - q->n_ids;
    return left > 1 ? (left - 1 < FAR ? left - 1 : FAR) : 0;
}

/* Whether one guess more for these is worth its forward: `chance` is the sum of how likely they are right. */
static bool goes_on(const ash_drafting *d, const ash_pace *pace, double chance, int guesses, int more)
{
    double now = longer(d, pace, guesses), then = longer(d, pace, guesses + more);
    double forward = d->step_ns[more - 1] / plain_ns(pace, d->decoding);
    return now > 0 && then > 0 && chance / d->decoding > forward + (then > now ? then - now : 0);
}

/* One forward for the texts of in[0..n), whose guesses become the next of q[0..n). */
static void guess_next(const attempt *r, ash_sequence **q, ash_draft_input *in, int n)
{
    ash_drafting *d = r->d;
    int64_t t = d->clock();
    uint32_t rows = 0;
    for (int i = 0; i < n; i++) rows += in[i].n;
    ash_draft_model_read(d->model, in, n, true);
    double ns = (double)(d->clock() - t);
    if (rows <= (uint32_t)n * 2)
        smooth(&d->step_ns[n - 1], ns);
    for (int i = 0; i < n; i++) {
        ash_drafted *g = &q[i]->drafted;
        g->ids[g->n] = in[i].guess;
        g->levels[g->n] = level_of(in[i].sure);
        g->chances[g->n] = q[i]->odds.right[g->levels[g->n]];
        g->n++;
        pay(r, q[i], ns / n);
    }
}

/* Guesses for q[0..n), whose slots are near: the first for all, further ones where they are worth it. */
static void guess_on(const attempt *r, ash_sequence **q, const int *slots, int n)
{
    const ash_drafting *d = r->d;
    ash_draft_input in[ASH_DRAFT_SLOTS];
    double share[ASH_DRAFT_SLOTS];
    int guesses = 0;
    for (int i = 0; i < n; i++) {
        uint32_t behind = ash_draft_model_behind(d->model, slots[i], q[i]->ids, q[i]->n_ids);
        in[i] = (ash_draft_input){.slot = slots[i], .ids = q[i]->ids + q[i]->n_ids - behind, .n = behind};
        share[i] = 1;
    }
    n = keep_covered(r, q, in, share, n, n);
    while (n) {
        guess_next(r, q, in, n);
        guesses += n;
        int left = 0;
        double chance = 0;
        for (int i = 0; i < n; i++) {
            ash_drafted *g = &q[i]->drafted;
            double next = share[i] * (double)g->chances[g->n - 1];
            if (g->n >= room(q[i]))
                continue;
            q[left] = q[i];
            share[left] = next;
            in[left] = (ash_draft_input){.slot = in[i].slot, .ids = &g->ids[g->n - 1], .n = 1};
            chance += next * (double)q[i]->odds.mean;
            left++;
        }
        n = guesses + left <= ASH_MAX_DRAFT ? left : 0;
        if (!r->lend || (n && !d->always && !goes_on(d, r->pace, chance, guesses, n)))
            return;
        n = keep_covered(r, q, in, share, n, guesses + n);
    }
}

/* Those of q[0..n) that the draft model may guess for, into out. */
static int find_candidates(const ash_drafting *d, ash_sequence *const *q, int n, ash_sequence **out)
{
    int m = 0;
    for (int i = 0; i < n; i++) {
        float look_up = ash_draft_chance(&q[i]->draft, 0);
        bool good = look_up >= (float)GOOD_GUESS || look_up >= odds_of(d, q[i])->mean;
        if (room(q[i]) && (d->always || !good))
            out[m++] = q[i];
    }
    return m;
}

/* Whether the model is there and something of the step's pace is known. */
static bool is_ready(ash_drafting *d, const ash_pace *pace, int n)
{
    if (!d->model || n < 1)
        return false;
    d->steps++;
    if (n > ASH_DRAFT_SLOTS || (!d->always && ash_pace_guessing(pace, n, 0) <= 0))
        return false;
    if (!ash_draft_model_lost(d->model))
        return true;
    ash_warn("engine", "%s: what the draft model was mapped from is damaged; it does not guess any more",
             ash_draft_model_name(d->model));
    d->model = NULL;
    return false;
}

void ash_drafting_guess(ash_drafting *d, const ash_pace *pace, ash_allowance *all, ash_sequence *const *q,
                        int n)
{
    ash_sequence *list[ASH_DRAFT_SLOTS];
    int slots[ASH_DRAFT_SLOTS], m, near = 0;
    uint64_t busy[ASH_DRAFT_SLOTS];
    d->decoding = 0;
    for (int i = 0; i < n; i++) q[i]->drafted.n = 0;
    if (!is_ready(d, pace, n) || !(m = find_candidates(d, q, n, list)))
        return;
    d->decoding = n;
    attempt r = {d, pace, all, plain_ns(pace, n) / n, d->always || pays(d, pace, list, m)};
    if (!r.lend && !probes(d, list, m))
        m = 0;
    for (int i = 0; i < n; i++) busy[i] = q[i]->id;
    for (int i = 0; i < m; i++) {
        if (left_for(&r, list[i]) * r.text_ns < d->step_ns[m - 1] / m)
            continue;
        int slot = ash_draft_model_place(d->model, list[i]->id, list[i]->ids, list[i]->n_ids, busy, n);
        if (!read_text(&r, list[i], slot))
            continue;
        list[near] = list[i];
        slots[near++] = slot;
    }
    if (near)
        guess_on(&r, list, slots, near);
    else
        d->decoding = 0;
}

/* ---- after the step ------------------------------------------------------------------------- */

/* Counts what q's guesses turned out to be. */
static void count_guesses(ash_drafting *d, ash_sequence *q)
{
    const ash_drafted *g = &q->drafted;
    bool came_true = true;
    for (uint32_t k = 0; k < g->n && k < q->n_samples && came_true; k++) {
        came_true = q->samples[k].id == g->ids[k]; /* also of a guess that was not computed */
        count(&q->odds, g->levels[k], came_true);
        count(&d->odds, g->levels[k], came_true);
    }
}

void ash_drafting_learn(ash_drafting *d, ash_sequence *const *q, int n)
{
    if (!d->decoding)
        return;
    for (int i = 0; i < n; i++)
        if (q[i]->drafted.n)
            count_guesses(d, q[i]);
    d->decoding = 0;
}
